//! NetworkPolicy.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, Field, List, buffered};
use super::super::label_selector::LabelSelector;
use super::super::labels::LabelSpace;
use super::super::manifest::{self, Manifest, Meta};
use super::super::report::{Path, Report};
use super::super::rules::{degraded, product};
use super::super::{Accepted, Kind, Refused, Strictness};
use super::peer::{Peer, PolicyScope, read_peers};
use super::port::{PolicyPort, read_ports};
use crate::flow::Direction;
use crate::model::{Action, EntityMatch, Order, Peers, Policy, PolicyKey, Rule, RuleMatch};

/// The place of these policies in the tier `default`.
///
/// Source: Calico, `K8sNetworkPolicyToCalico` in `libcalico-go/lib/backend/k8s/conversion`.
const ORDER: i32 = 1000;

/// A `networking.k8s.io/v1` NetworkPolicy as it is written.
#[derive(Clone, Debug)]
pub struct NetworkPolicy(Manifest<Spec, IgnoredAny>);

/// `spec` of a policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(in crate::api) struct Spec {
    pod_selector: Field<LabelSelector>,
    policy_types: List<String>,
    ingress: List<IngressRule>,
    egress: List<EgressRule>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct IngressRule {
    from: List<Peer>,
    ports: List<PolicyPort>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct EgressRule {
    to: List<Peer>,
    ports: List<PolicyPort>,
    #[serde(flatten)]
    extra: Extra,
}

/// The directions in which a policy isolates.
#[derive(Clone, Copy, Default)]
struct Directions {
    ingress: bool,
    egress: bool,
}

impl NetworkPolicy {
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

    /// Returns the policy in the model's terms: each rule becomes the rules of its peers and transports, which all
    /// keep its index. Host bits of CIDR blocks are masked.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything that an API server refuses, unknown fields included. With [`Strictness::Degraded`]
    /// what is wrong inside of one rule only makes that rule match nothing.
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
        let mut report = Report::default();
        let scope = manifest::Scope::Namespaced;
        let meta = self.0.meta(Kind::KubernetesNetworkPolicy, scope, &mut report);
        report.unknown_fields(None, &self.0.extra);
        let at = Path::top("spec");
        // Without `spec` the policy isolates the whole namespace, as with an empty one.
        let empty = Spec::default();
        let spec = match &self.0.spec {
            Field::Absent => Some(&empty),
            spec => report.given(&at, spec),
        };
        let policy = spec.and_then(|spec| spec.read(&at, meta, strictness, &mut report));
        report.finish(policy)
    }
}

impl<'de> Deserialize<'de> for NetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl Spec {
    /// Returns the fields that say something.
    pub(in crate::api) fn written(&self) -> impl Iterator<Item = &'static str> {
        let Self { pod_selector, policy_types, ingress, egress, extra: _ } = self;
        let selects = match pod_selector {
            Field::Absent => false,
            Field::Given(selector) => !selector.is_empty(),
            Field::Malformed(_) => true,
        };
        [
            ("podSelector", selects),
            ("policyTypes", policy_types.says_something()),
            ("ingress", ingress.says_something()),
            ("egress", egress.says_something()),
        ]
        .into_iter()
        .filter_map(|(name, is_written)| is_written.then_some(name))
    }

    pub(in crate::api) fn read(
        &self,
        at: &Path<'_>,
        meta: Option<Meta>,
        strictness: Strictness,
        report: &mut Report,
    ) -> Option<Policy> {
        let Self { pod_selector, policy_types, ingress, egress, extra } = self;
        report.unknown_fields(Some(at), extra);
        let namespace = meta.as_ref().map_or("", |meta| &meta.namespace);
        let scope = PolicyScope::of(namespace, report);
        let subject_at = at.field("podSelector");
        let subject = report
            .given(&subject_at, pod_selector)
            .map(|it| it.to_terms(LabelSpace::Pods, &subject_at, report));
        let types_at = at.field("policyTypes");
        let directions = read_directions(&types_at, policy_types, has_items(egress), report);
        let mut rules = RuleReader { scope: &scope, strictness, report };
        let ingress = rules.read(&at.field("ingress"), ingress, RuleReader::ingress);
        let egress = rules.read(&at.field("egress"), egress, RuleReader::egress);
        let Meta { namespace, name, uid: _, created: _, labels: _ } = meta?;
        let subject = scope.own_pods(subject.unwrap_or_default());
        let mut policy = Policy::new(PolicyKey::kubernetes(namespace, name), subject);
        policy.order = Some(Order::whole(ORDER));
        policy.ingress = directions.ingress.then_some(ingress);
        policy.egress = directions.egress.then_some(egress);
        Some(policy)
    }
}

/// Reads `policyTypes`. Where it lists nothing, a policy isolates ingress, and egress only if it has rules for that.
fn read_directions(
    at: &Path<'_>,
    types: &List<String>,
    has_egress: bool,
    report: &mut Report,
) -> Directions {
    if let Some(len) = types.value().map(Vec::len)
        && len > 2
    {
        report.refuse(at, format!("{len} entries, expected at most 2"));
        return Directions::default();
    }
    if !has_items(types) {
        report.given(at, types);
        return Directions { ingress: true, egress: has_egress };
    }
    let expected = "`Ingress` or `Egress`";
    let mut directions = Directions::default();
    report.each_item(at, types, expected, |report, at, text| match text.as_str() {
        "Ingress" => directions.ingress = true,
        "Egress" => directions.egress = true,
        _ => report.refuse(at, format!("`{text}` is not a policy type, expected {expected}")),
    });
    directions
}

fn has_items<T>(list: &List<T>) -> bool {
    list.value().is_some_and(|items| !items.is_empty())
}

/// Reads rules one by one, so that each can be degraded on its own.
struct RuleReader<'a> {
    scope: &'a PolicyScope,
    strictness: Strictness,
    report: &'a mut Report,
}

impl RuleReader<'_> {
    /// Reads the rules of one direction with `read`, which reads what one of them matches.
    fn read<T>(
        &mut self,
        at: &Path<'_>,
        rules: &List<T>,
        read: fn(&PolicyScope, &Path<'_>, &T, &mut Report) -> Vec<RuleMatch>,
    ) -> Vec<Rule> {
        let Some(rules) = self.report.given(at, rules) else {
            return Vec::new();
        };
        if !self.report.is_within_limit(at, rules.len()) {
            return Vec::new();
        }
        let mut converted = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let at = at.item(index);
            let mut report = Report::default();
            let matches = report
                .required(&at, rule, "an object")
                .map(|rule| read(self.scope, &at, rule, &mut report));
            if self.report.absorb_rule(report, self.strictness) {
                converted.push(degraded(index, Action::Allow));
            } else {
                let allow = |matches| Rule::new(index, Action::Allow, matches);
                converted.extend(matches.into_iter().flatten().map(allow));
            }
        }
        converted
    }

    fn ingress(
        scope: &PolicyScope,
        at: &Path<'_>,
        rule: &IngressRule,
        report: &mut Report,
    ) -> Vec<RuleMatch> {
        let IngressRule { from, ports, extra } = rule;
        report.unknown_fields(Some(at), extra);
        let peers = read_peers(&at.field("from"), from, scope, report);
        let ports = read_ports(&at.field("ports"), ports, report);
        // The destination is the subject, so a name always is one of a pod's.
        product(Direction::Ingress, &peers, &ports.matches())
    }

    fn egress(
        scope: &PolicyScope,
        at: &Path<'_>,
        rule: &EgressRule,
        report: &mut Report,
    ) -> Vec<RuleMatch> {
        let EgressRule { to, ports, extra } = rule;
        report.unknown_fields(Some(at), extra);
        let peers = read_peers(&at.field("to"), to, scope, report);
        let ports = read_ports(&at.field("ports"), ports, report);
        let (pods, anything): (Vec<_>, Vec<_>) =
            peers.into_iter().partition(|peer| peer.peers.is_some());
        let (numbered, named) = ports.matches_apart();
        // A name never matches an address that is not a pod's; the numbers beside it do.
        let pods_only = |peer: &EntityMatch| EntityMatch {
            peers: Some(Peers::Endpoints(scope.pods.all().clone())),
            ..peer.clone()
        };
        let named_pods: Vec<_> =
            if named.is_empty() { Vec::new() } else { anything.iter().map(pods_only).collect() };
        let mut rules = product(Direction::Egress, &pods, &ports.matches());
        rules.extend(product(Direction::Egress, &anything, &numbered));
        rules.extend(product(Direction::Egress, &named_pods, &named));
        rules
    }
}
