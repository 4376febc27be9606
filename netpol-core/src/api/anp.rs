//! `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy and BaselineAdminNetworkPolicy, what came before
//! [ClusterNetworkPolicy](super::cnp). Peers may also be written as in version 0.1.1 of the API and those before it, tenancy
//! peers (`sameLabels`, `notSameLabels`) included.
//!
//! They share their tiers with ClusterNetworkPolicies. What both together mean is not defined by the API: here all of one tier
//! go by their priorities, and the baseline policy comes after all others of its tier.
//!
//! ```
//! use netpol_core::api::{Strictness, anp::AdminNetworkPolicy};
//! use netpol_core::Direction;
//!
//! let json = r#"{
//!     "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
//!     "metadata": {"name": "tenants"},
//!     "spec": {
//!         "priority": 20,
//!         "subject": {"namespaces": {}},
//!         "ingress": [
//!             {"action": "Pass", "from": [{"namespaces": {"sameLabels": ["tenant"]}}]},
//!             {"action": "Deny", "from": [{"namespaces": {"notSameLabels": ["tenant"]}}]}
//!         ]
//!     }
//! }"#;
//! let policy: AdminNetworkPolicy = serde_json::from_str(json)?;
//! let policy = policy.to_policy(Strictness::Strict)?.value;
//! assert_eq!(policy.key.to_string(), "KubernetesAdminNetworkPolicy tenants");
//! assert_eq!(policy.rules(Direction::Ingress).map(<[_]>::len), Some(2));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

#[cfg(test)]
mod tests;

use alloc::format;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::cluster_policy::{Dialect, RuleReader, Subject, WireRule, read_priority};
use super::field::{Extra, Field, List, buffered};
use super::manifest::{Manifest, Meta, Scope};
use super::number::Number;
use super::pods::Pods;
use super::report::{Path, Report};
use super::{Accepted, Refused, Strictness};
use crate::flow::Direction;
use crate::model::{Order, Policy, PolicyKey, PolicyKind, Tier};

/// The name of the only baseline policy.
const BASELINE: &str = "default";

/// A `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy as it is written, of the experimental channel.
#[derive(Clone, Debug)]
pub struct AdminNetworkPolicy(Manifest<Spec, IgnoredAny>);

/// A `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy as it is written, of the experimental channel.
#[derive(Clone, Debug)]
pub struct BaselineAdminNetworkPolicy(Manifest<Spec, IgnoredAny>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Spec {
    priority: Field<Number>,
    subject: Field<Subject>,
    ingress: List<WireRule>,
    egress: List<WireRule>,
    #[serde(flatten)]
    extra: Extra,
}

impl AdminNetworkPolicy {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the policy in the model's terms, in the tier `kube-admin`, as a
    /// [ClusterNetworkPolicy](super::cnp::ClusterNetworkPolicy::to_policy) is.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything that the API's schema refuses, unknown fields included. With [`Strictness::Degraded`] a
    /// rule with something unreadable in it fails closed as a whole; unknown actions and ports still refuse the policy.
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
        read(&self.0, Dialect::Admin, strictness)
    }
}

impl BaselineAdminNetworkPolicy {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the policy in the model's terms: the last one of the tier `kube-baseline`.
    ///
    /// # Errors
    ///
    /// As for [`AdminNetworkPolicy::to_policy`], and if its name is not `default`.
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
        read(&self.0, Dialect::Baseline, strictness)
    }
}

impl<'de> Deserialize<'de> for AdminNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for BaselineAdminNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

fn read(
    manifest: &Manifest<Spec, IgnoredAny>,
    dialect: Dialect,
    strictness: Strictness,
) -> Result<Accepted<Policy>, Refused> {
    let mut report = Report::default();
    let meta = manifest.meta(dialect.kind(), Scope::Cluster, &mut report);
    if dialect == Dialect::Baseline
        && let Some(Meta { name, .. }) = &meta
        && name != BASELINE
    {
        let at = Path::top("metadata");
        let message = format!("`{name}` is not the baseline policy, expected `{BASELINE}`");
        report.refuse(&at.field("name"), message);
    }
    report.unknown_fields(None, &manifest.extra);
    let at = Path::top("spec");
    let policy = report
        .required(&at, &manifest.spec, "an object")
        .and_then(|spec| spec.read(&at, meta, dialect, strictness, &mut report));
    report.finish(policy)
}

impl Spec {
    fn read(
        &self,
        at: &Path<'_>,
        meta: Option<Meta>,
        dialect: Dialect,
        strictness: Strictness,
        report: &mut Report,
    ) -> Option<Policy> {
        let Self { priority, subject, ingress, egress, extra } = self;
        report.unknown_fields(Some(at), extra);
        let place = read_place(&at.field("priority"), priority, dialect, report);
        let subject_at = at.field("subject");
        let subject = report
            .required(&subject_at, subject, "an object with `namespaces` or `pods`")
            .and_then(|it| it.read(&subject_at, dialect, report));
        let pods = Pods::new(report);
        let mut rules = RuleReader { dialect, pods: &pods, strictness, report };
        let ingress = rules.read(&at.field("ingress"), Direction::Ingress, ingress);
        let egress = rules.read(&at.field("egress"), Direction::Egress, egress);
        let Meta { namespace: _, name, uid: _, created: _, labels: _ } = meta?;
        let Place { kind, tier, order } = place?;
        let mut policy = Policy::new(PolicyKey { kind, namespace: None, name }, subject?);
        policy.tier = tier.into();
        policy.order = order;
        policy.ingress = ingress;
        policy.egress = egress;
        Some(policy)
    }
}

/// Where a policy stands.
struct Place {
    kind: PolicyKind,
    tier: &'static str,
    /// Absent comes last.
    order: Option<Order>,
}

fn read_place(
    at: &Path<'_>,
    priority: &Field<Number>,
    dialect: Dialect,
    report: &mut Report,
) -> Option<Place> {
    if dialect == Dialect::Baseline {
        if priority.is_written() {
            report.refuse(at, "unknown field");
        }
        let kind = PolicyKind::KubernetesBaselineAdminNetworkPolicy;
        return Some(Place { kind, tier: Tier::KUBE_BASELINE, order: None });
    }
    let order = Some(read_priority(at, priority, report)?);
    let kind = PolicyKind::KubernetesAdminNetworkPolicy;
    Some(Place { kind, tier: Tier::KUBE_ADMIN, order })
}
