//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
//!
//! ```
//! use netpol_core::api::{Strictness, cnp::ClusterNetworkPolicy};
//! use netpol_core::Direction;
//!
//! let json = r#"{
//!     "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
//!     "metadata": {"name": "monitoring"},
//!     "spec": {
//!         "tier": "Admin", "priority": 10,
//!         "subject": {"namespaces": {}},
//!         "ingress": [{
//!             "name": "scrape", "action": "Accept",
//!             "from": [{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
//!             "protocols": [{"tcp": {"destinationPort": {"number": 9100}}}]
//!         }]
//!     }
//! }"#;
//! let policy: ClusterNetworkPolicy = serde_json::from_str(json)?;
//! let policy = policy.to_policy(Strictness::Strict)?.value;
//! assert_eq!(policy.key.to_string(), "KubernetesClusterNetworkPolicy monitoring");
//! assert_eq!(policy.tier, "kube-admin");
//! assert_eq!(policy.rules(Direction::Ingress).map(<[_]>::len), Some(1));
//! assert_eq!(policy.rules(Direction::Egress), None, "no rules, nothing to say");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::cluster_policy::{Dialect, RuleReader, Subject, WireRule, read_priority};
use super::field::{Extra, Field, List, buffered};
use super::manifest::{Manifest, Meta, Scope};
use super::number::Number;
use super::pods::Pods;
use super::report::{Path, Report};
use super::{Accepted, Kind, Refused, Strictness};
use crate::flow::Direction;
use crate::model::{Policy, PolicyKey, PolicyKind, Tier};

/// A `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy as it is written, of the experimental channel.
#[derive(Clone, Debug)]
pub struct ClusterNetworkPolicy(Manifest<Spec, IgnoredAny>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Spec {
    tier: Field<String>,
    priority: Field<Number>,
    subject: Field<Subject>,
    ingress: List<WireRule>,
    egress: List<WireRule>,
    #[serde(flatten)]
    extra: Extra,
}

impl ClusterNetworkPolicy {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the policy in the model's terms, in the tier `kube-admin` or `kube-baseline`: each rule becomes the rules of
    /// its peers and transports, which all keep its index and name. It says nothing about a direction without rules. Host
    /// bits of networks are masked.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything that the API's schema refuses, unknown fields included, and for domain names in rules
    /// that do not accept.
    ///
    /// With [`Strictness::Degraded`] a rule with something unreadable in it, such as a peer of a kind that is not known yet,
    /// fails closed as a whole: Accept matches nothing; Deny and Pass deny everything in their direction. Unknown
    /// tiers, actions and protocols still refuse the policy. A transport without `destinationPort` then means all its ports.
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
        let mut report = Report::default();
        let meta = self.0.meta(Kind::ClusterNetworkPolicy, Scope::Cluster, &mut report);
        report.unknown_fields(None, &self.0.extra);
        let at = Path::top("spec");
        let policy = report
            .required(&at, &self.0.spec, "an object")
            .and_then(|spec| spec.read(&at, meta, strictness, &mut report));
        report.finish(policy)
    }
}

impl<'de> Deserialize<'de> for ClusterNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl Spec {
    fn read(
        &self,
        at: &Path<'_>,
        meta: Option<Meta>,
        strictness: Strictness,
        report: &mut Report,
    ) -> Option<Policy> {
        let Self { tier, priority, subject, ingress, egress, extra } = self;
        report.unknown_fields(Some(at), extra);
        let dialect = Dialect::Cluster;
        let tier = read_tier(&at.field("tier"), tier, report);
        let order = read_priority(&at.field("priority"), priority, report);
        let subject_at = at.field("subject");
        let subject = report
            .required(&subject_at, subject, "an object with `namespaces` or `pods`")
            .and_then(|it| it.read(&subject_at, dialect, report));
        let pods = Pods::new(report);
        let mut rules = RuleReader { dialect, pods: &pods, strictness, report };
        let ingress = rules.read(&at.field("ingress"), Direction::Ingress, ingress);
        let egress = rules.read(&at.field("egress"), Direction::Egress, egress);
        let Meta { namespace: _, name, uid: _, created: _, labels: _ } = meta?;
        let kind = PolicyKind::KubernetesClusterNetworkPolicy;
        let mut policy = Policy::new(PolicyKey { kind, namespace: None, name }, subject?);
        policy.tier = tier?.into();
        policy.order = Some(order?);
        policy.ingress = ingress;
        policy.egress = egress;
        Some(policy)
    }
}

fn read_tier(at: &Path<'_>, tier: &Field<String>, report: &mut Report) -> Option<&'static str> {
    let expected = "`Admin` or `Baseline`";
    match report.required(at, tier, expected)?.as_str() {
        "Admin" => Some(Tier::KUBE_ADMIN),
        "Baseline" => Some(Tier::KUBE_BASELINE),
        text => {
            report.refuse(at, format!("`{text}` is not a tier, expected {expected}"));
            None
        }
    }
}
