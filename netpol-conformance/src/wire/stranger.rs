//! Objects of no kind that is known: what they may have been meant to be.

use netpol_core::api::{Diagnostic, Kind};

/// The group under which Calico keeps its objects, and the API that people write.
const STORED: (&str, &str) = ("crd.projectcalico.org", "projectcalico.org");

/// How the kinds of policies of all projects end.
const POLICY: &str = "NetworkPolicy";

/// Longer kinds are no misspelt ones.
const MAX_KIND: usize = 64;

/// Returns what is wrong with an object that is meant as a policy, or as what policies refer to; else why nobody cares for
/// it.
pub(super) fn explain(version: &str, kind: &str) -> Result<String, Diagnostic> {
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let group = if group == STORED.0 { STORED.1 } else { group };
    let is_of_policies = |it: &&Kind| it.as_str().ends_with(POLICY) && group_of(**it) == group;
    if group.is_empty() || Kind::ALL.iter().find(is_of_policies).is_none() {
        return foreign(version, kind);
    }
    let siblings = || Kind::ALL.iter().filter(|it| group_of(**it) == group);
    if let Some(meant) = siblings().find(|it| it.as_str() == kind) {
        let expected = meant.api_version();
        let message = format!("`{version}` is not a version that is read, expected `{expected}`");
        return Err(Diagnostic { path: "apiVersion".to_owned(), message });
    }
    if let Some(meant) = siblings().find(|it| is_misspelt(kind, it.as_str())) {
        let message = format!("`{kind}` is no kind of `{group}`, expected `{}`", meant.as_str());
        return Err(Diagnostic { path: "kind".to_owned(), message });
    }
    foreign(version, kind)
}

/// Policies of other projects are policies too: whoever writes one does not expect that it means nothing.
fn foreign(version: &str, kind: &str) -> Result<String, Diagnostic> {
    if kind.ends_with(POLICY) {
        let policies = Kind::ALL.iter().filter(|it| it.as_str().ends_with(POLICY));
        let mut read: Vec<String> = policies.map(|it| format!("`{}`", it.api_version())).collect();
        read.dedup();
        let read = read.join(", ");
        let message = format!("policies of `{version}` are not read, expected ones of {read}");
        return Err(Diagnostic { path: "apiVersion".to_owned(), message });
    }
    if (version, kind) == ("projectcalico.org/v3", "Profile") {
        return Ok(
            "profiles are not read: an endpoint's default verdict stands for them".to_owned()
        );
    }
    Ok(format!("`{kind}` of `{version}` says nothing about policy"))
}

fn group_of(kind: Kind) -> &'static str {
    kind.api_version().rsplit_once('/').map_or("", |(group, _)| group)
}

/// Returns whether three letters more, fewer or other make one kind of the other; a short one bears fewer. Capitals do not
/// count.
fn is_misspelt(kind: &str, meant: &str) -> bool {
    let distance = if kind.len() > MAX_KIND { usize::MAX } else { distance(kind, meant) };
    distance <= (meant.len() / 4).min(3)
}

/// Returns how many letters must be put in, taken out or changed (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (above, a) in one.chars().enumerate() {
        let mut next = vec![above + 1];
        for (pair, b) in row.windows(2).zip(other.chars()) {
            let [diagonal, up] = pair else { continue };
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(a != b)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: &str, kind: &str, want: Result<&str, (&str, &str)>) {
        let got = explain(version, kind).map_err(|it| (it.path, it.message));
        let want = want.map(str::to_owned).map_err(|(path, it)| (path.to_owned(), it.to_owned()));
        assert_eq!(got, want, "{version} {kind}");
    }

    #[test]
    fn what_is_meant_as_policy_is_wrong() {
        for (version, kind, expected) in [
            ("networking.k8s.io/v1beta1", "NetworkPolicy", "networking.k8s.io/v1"),
            ("projectcalico.org/v1", "NetworkPolicy", "projectcalico.org/v3"),
            ("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "projectcalico.org/v3"),
            ("crd.projectcalico.org/v1", "Tier", "projectcalico.org/v3"),
            (
                "policy.networking.k8s.io/v1",
                "ClusterNetworkPolicy",
                "policy.networking.k8s.io/v1alpha2",
            ),
            (
                "policy.networking.k8s.io/v1alpha2",
                "AdminNetworkPolicy",
                "policy.networking.k8s.io/v1alpha1",
            ),
        ] {
            let message =
                format!("`{version}` is not a version that is read, expected `{expected}`");
            check(version, kind, Err(("apiVersion", message.as_str())));
        }
        for (version, kind, expected) in [
            ("networking.k8s.io/v1", "NetworkPolcy", "NetworkPolicy"),
            ("networking.k8s.io/v1", "networkpolicy", "NetworkPolicy"),
            ("networking.k8s.io/v1", "NetworkPolicies", "NetworkPolicy"),
            ("projectcalico.org/v3", "GlobalNetworkPolciy", "GlobalNetworkPolicy"),
            ("projectcalico.org/v3", "tiers", "Tier"),
        ] {
            let (group, _) = version.split_once('/').unwrap_or_default();
            let message = format!("`{kind}` is no kind of `{group}`, expected `{expected}`");
            check(version, kind, Err(("kind", message.as_str())));
        }
        for version in ["extensions/v1beta1", "crd.antrea.io/v1beta1", "v1", ""] {
            let message = format!(
                "policies of `{version}` are not read, expected ones of `networking.k8s.io/v1`, \
                 `policy.networking.k8s.io/v1alpha2`, `policy.networking.k8s.io/v1alpha1`, `projectcalico.org/v3`"
            );
            check(version, "NetworkPolicy", Err(("apiVersion", message.as_str())));
        }
        assert!(explain("cilium.io/v2", "CiliumClusterwideNetworkPolicy").is_err());
    }

    #[test]
    fn what_else_there_is_has_a_reason() {
        for (version, kind) in [
            ("apps/v1", "Deployment"),
            ("networking.k8s.io/v1", "Ingress"),
            ("projectcalico.org/v3", "IPPool"),
            ("projectcalico.org/v3", "Node"),
            ("v2", "Pod"),
        ] {
            let reason = format!("`{kind}` of `{version}` says nothing about policy");
            check(version, kind, Ok(reason.as_str()));
        }
        let profiles = "profiles are not read: an endpoint's default verdict stands for them";
        check("projectcalico.org/v3", "Profile", Ok(profiles));
        assert!(explain("networking.k8s.io/v1", &"x".repeat(1_000_000)).is_ok());
    }
}
