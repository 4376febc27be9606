//! Policies that are reported before they are enforced.

use alloc::format;
use alloc::string::String;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Field, buffered};
use super::super::k8s::NetworkPolicySpec;
use super::super::manifest::{Manifest, Scope, optional_text};
use super::super::report::{Path, Report};
use super::super::{Accepted, Kind, Refused, Strictness};
use super::names;
use super::policy::{Form, PolicyManifest, to_policy};
use crate::model::{Enforcement, Policy, PolicyKind};
use crate::selector::Selector;

/// A `projectcalico.org/v3` StagedNetworkPolicy as it is written.
#[derive(Clone, Debug)]
pub struct StagedNetworkPolicy(PolicyManifest);

/// A `projectcalico.org/v3` StagedGlobalNetworkPolicy as it is written.
#[derive(Clone, Debug)]
pub struct StagedGlobalNetworkPolicy(PolicyManifest);

/// A `projectcalico.org/v3` StagedKubernetesNetworkPolicy as it is written.
#[derive(Clone, Debug)]
pub struct StagedKubernetesNetworkPolicy(Manifest<KubernetesSpec, IgnoredAny>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct KubernetesSpec {
    staged_action: Field<String>,
    #[serde(flatten)]
    policy: NetworkPolicySpec,
}

/// What a staged policy announces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum StagedAction {
    /// The policy as it will be.
    #[default]
    Set,
    /// The end of the policy of this name.
    Delete,
    /// A policy that somebody is still working at. It is reported as one that will be set.
    Learn,
    /// Nothing.
    Ignore,
}

impl StagedNetworkPolicy {
    const FORM: Form = Form {
        kind: Kind::StagedNetworkPolicy,
        policy: PolicyKind::StagedNetworkPolicy,
        scope: Scope::Namespaced,
        names: names::POLICY,
    };

    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace as it is written.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// Returns the policy in the model's terms, as [`NetworkPolicy::to_policy`](super::NetworkPolicy::to_policy) does;
    /// `None` if its action is `Ignore`.
    ///
    /// # Errors
    ///
    /// As for [`NetworkPolicy::to_policy`](super::NetworkPolicy::to_policy).
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Option<Policy>>, Refused> {
        to_staged_policy(&self.0, Self::FORM, strictness)
    }
}

impl StagedGlobalNetworkPolicy {
    const FORM: Form = Form {
        kind: Kind::StagedGlobalNetworkPolicy,
        policy: PolicyKind::StagedGlobalNetworkPolicy,
        scope: Scope::Cluster,
        names: names::GLOBAL_POLICY,
    };

    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the policy in the model's terms, as
    /// [`GlobalNetworkPolicy::to_policy`](super::GlobalNetworkPolicy::to_policy) does; `None` if its action is `Ignore`.
    ///
    /// # Errors
    ///
    /// As for [`NetworkPolicy::to_policy`](super::NetworkPolicy::to_policy).
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Option<Policy>>, Refused> {
        to_staged_policy(&self.0, Self::FORM, strictness)
    }
}

impl StagedKubernetesNetworkPolicy {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace as it is written.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// Returns the policy in the model's terms, as
    /// [`k8s::NetworkPolicy::to_policy`](super::super::k8s::NetworkPolicy::to_policy) does; `None` if its action is
    /// `Ignore`.
    ///
    /// # Errors
    ///
    /// As for [`k8s::NetworkPolicy::to_policy`](super::super::k8s::NetworkPolicy::to_policy).
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Option<Policy>>, Refused> {
        let mut report = Report::default();
        let kind = Kind::StagedKubernetesNetworkPolicy;
        let meta = self.0.meta(kind, Scope::Namespaced, &mut report);
        report.unknown_fields(None, &self.0.extra);
        let at = Path::top("spec");
        let empty = KubernetesSpec::default();
        let spec = match &self.0.spec {
            Field::Absent => Some(&empty),
            spec => report.given(&at, spec),
        };
        let policy = spec.and_then(|KubernetesSpec { staged_action, policy }| {
            let action = read_action(&at, staged_action, &mut report);
            if action == StagedAction::Delete {
                refuse_fields(&at, policy.written(), "", &mut report);
            }
            let mut policy = policy.read(&at, meta, strictness, &mut report)?;
            policy.key.kind = PolicyKind::StagedKubernetesNetworkPolicy;
            Some(staged(policy, action))
        });
        report.finish(policy)
    }
}

impl<'de> Deserialize<'de> for StagedNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for StagedGlobalNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for StagedKubernetesNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

fn to_staged_policy(
    manifest: &PolicyManifest,
    form: Form,
    strictness: Strictness,
) -> Result<Accepted<Option<Policy>>, Refused> {
    let mut report = Report::default();
    let at = Path::top("spec");
    let action = manifest.spec.value().map_or_else(StagedAction::default, |spec| {
        let action = read_action(&at, &spec.staged_action, &mut report);
        if action == StagedAction::Delete {
            let fields = spec.written().filter(|it| !matches!(*it, "stagedAction" | "tier"));
            refuse_fields(&at, fields, " but `tier`", &mut report);
        }
        action
    });
    let policy = to_policy(manifest, form, strictness, &mut report);
    report.finish(policy.map(|policy| staged(policy, action)))
}

fn read_action(at: &Path<'_>, action: &Field<String>, report: &mut Report) -> StagedAction {
    let at = at.field("stagedAction");
    match optional_text(report, &at, action) {
        None | Some("Set") => StagedAction::Set,
        Some("Delete") => StagedAction::Delete,
        Some("Learn") => StagedAction::Learn,
        Some("Ignore") => StagedAction::Ignore,
        Some(text) => {
            let expected = "`Set`, `Delete`, `Learn` or `Ignore`";
            report.refuse(&at, format!("`{text}` is not a staged action, expected {expected}"));
            StagedAction::default()
        }
    }
}

/// Refuses a deletion for the fields that say what to delete is to be.
fn refuse_fields(
    at: &Path<'_>,
    fields: impl Iterator<Item = &'static str>,
    but: &str,
    report: &mut Report,
) {
    for name in fields {
        report.refuse(
            &at.field(name),
            format!("given with the staged action `Delete`, expected nothing{but}"),
        );
    }
}

fn staged(mut policy: Policy, action: StagedAction) -> Option<Policy> {
    match action {
        StagedAction::Set | StagedAction::Learn => policy.enforcement = Enforcement::Staged,
        StagedAction::Delete => {
            policy.enforcement = Enforcement::StagedRemoval;
            policy.subject = Selector::none();
            (policy.ingress, policy.egress) = (None, None);
        }
        StagedAction::Ignore => return None,
    }
    Some(policy)
}
