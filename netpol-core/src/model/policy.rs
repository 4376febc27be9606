//! Tiers and policies.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::host::Bucket;
use super::rule::Rule;
use crate::flow::Direction;
use crate::selector::Selector;

/// A position among tiers or among the policies of a tier; lower comes first.
///
/// Invariant: not NaN; negative zero is zero.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Order(f64);

/// Why a number is no order.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an order is a number, expected anything but NaN")]
#[non_exhaustive]
pub struct OrderError;

impl Order {
    /// Returns the order of this value.
    ///
    /// # Errors
    ///
    /// [`OrderError`] if `value` is not a number.
    pub fn new(value: f64) -> Result<Self, OrderError> {
        // Adding zero turns -0 into 0, which differ for `total_cmp`.
        if value.is_nan() { Err(OrderError) } else { Ok(Self(value + 0.0)) }
    }

    /// Returns the order of a whole number.
    #[must_use]
    pub fn whole(value: i32) -> Self {
        Self(f64::from(value))
    }

    /// Returns the number.
    #[must_use]
    pub const fn value(self) -> f64 {
        self.0
    }
}

/// The number in decimal digits, or `inf` or `-inf`, as not every format of numbers has these.
impl From<Order> for String {
    fn from(order: Order) -> Self {
        format!("{:?}", order.0)
    }
}

impl TryFrom<String> for Order {
    type Error = OrderError;

    fn try_from(text: String) -> Result<Self, OrderError> {
        Self::new(text.parse().map_err(|_| OrderError)?)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Hash for Order {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// What happens to a flow that no rule of a tier's policies matched.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a tier ends with a denial or with the next tier")]
pub enum TierEnd {
    /// It is denied.
    Deny,
    /// The next tier is asked.
    Pass,
}

/// A level of policies.
///
/// A tier matters to an endpoint and direction only if one of its policies applies to them.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tier {
    /// The name, unique among tiers.
    pub name: String,
    /// Where it stands among the tiers; absent comes last, ties are broken by the name.
    pub order: Option<Order>,
    /// What happens at its end.
    pub end: TierEnd,
}

impl Tier {
    /// The tier of administrators' Kubernetes policies.
    pub const KUBE_ADMIN: &str = "kube-admin";
    /// The tier of Kubernetes NetworkPolicy, and of every policy that names none.
    pub const DEFAULT: &str = "default";
    /// The tier of Kubernetes policies that hold where no other does.
    pub const KUBE_BASELINE: &str = "kube-baseline";

    /// Returns a tier.
    pub fn new(name: impl Into<String>, order: Option<Order>, end: TierEnd) -> Self {
        Self { name: name.into(), order, end }
    }

    /// Returns the tiers that always exist and cannot be changed.
    #[must_use]
    pub fn built_in() -> [Self; 3] {
        [
            Self::new(Self::KUBE_ADMIN, Some(Order::whole(1_000)), TierEnd::Pass),
            Self::new(Self::DEFAULT, Some(Order::whole(1_000_000)), TierEnd::Deny),
            Self::new(Self::KUBE_BASELINE, Some(Order::whole(10_000_000)), TierEnd::Pass),
        ]
    }

    /// Returns whether this name is that of a tier that always exists.
    #[must_use]
    pub fn is_built_in(name: &str) -> bool {
        matches!(name, Self::KUBE_ADMIN | Self::DEFAULT | Self::KUBE_BASELINE)
    }

    /// Returns the tier that stands for one that does not exist: last of all, and it denies at its end.
    #[must_use]
    pub fn unknown(name: impl Into<String>) -> Self {
        Self::new(name, None, TierEnd::Deny)
    }
}

/// The API that a policy comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `policy.networking.k8s.io` ClusterNetworkPolicy.
    KubernetesClusterNetworkPolicy,
    /// `policy.networking.k8s.io` AdminNetworkPolicy.
    KubernetesAdminNetworkPolicy,
    /// `policy.networking.k8s.io` BaselineAdminNetworkPolicy.
    KubernetesBaselineAdminNetworkPolicy,
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// `projectcalico.org/v3` StagedNetworkPolicy.
    StagedNetworkPolicy,
    /// `projectcalico.org/v3` StagedGlobalNetworkPolicy.
    StagedGlobalNetworkPolicy,
    /// `projectcalico.org/v3` StagedKubernetesNetworkPolicy.
    StagedKubernetesNetworkPolicy,
}

impl PolicyKind {
    /// Returns the word that takes part in breaking ties.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Self::KubernetesClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
            Self::KubernetesAdminNetworkPolicy => "KubernetesAdminNetworkPolicy",
            Self::KubernetesBaselineAdminNetworkPolicy => "KubernetesBaselineAdminNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
        }
    }

    /// Returns the kind of the policies that staged policies of this kind stand for; `None` for kinds that are enforced.
    #[must_use]
    pub const fn staged_for(self) -> Option<Self> {
        match self {
            Self::StagedNetworkPolicy => Some(Self::NetworkPolicy),
            Self::StagedGlobalNetworkPolicy => Some(Self::GlobalNetworkPolicy),
            Self::StagedKubernetesNetworkPolicy => Some(Self::KubernetesNetworkPolicy),
            Self::KubernetesNetworkPolicy
            | Self::KubernetesClusterNetworkPolicy
            | Self::KubernetesAdminNetworkPolicy
            | Self::KubernetesBaselineAdminNetworkPolicy
            | Self::NetworkPolicy
            | Self::GlobalNetworkPolicy => None,
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies a policy.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "kind, namespace and name identify a policy")]
pub struct PolicyKey {
    /// The API it comes from.
    pub kind: PolicyKind,
    /// Its namespace; `None` for policies of the whole cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl PolicyKey {
    /// Returns the key of a Kubernetes NetworkPolicy.
    pub fn kubernetes(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let kind = PolicyKind::KubernetesNetworkPolicy;
        Self { kind, namespace: Some(namespace.into()), name: name.into() }
    }

    /// Compares the joined strings `name/namespace/kind` byte-wise: what breaks ties of order.
    #[must_use]
    pub fn tie_break(&self, other: &Self) -> Ordering {
        self.joined().cmp(other.joined())
    }

    fn joined(&self) -> impl Iterator<Item = u8> + '_ {
        let parts = [
            &self.name,
            "/",
            self.namespace.as_deref().unwrap_or_default(),
            "/",
            self.kind.as_str(),
        ];
        parts.into_iter().flat_map(str::bytes)
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Whether a policy takes part in verdicts.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[expect(clippy::exhaustive_enums, reason = "a policy is enforced or only reported")]
pub enum Enforcement {
    /// It does.
    #[default]
    Enforced,
    /// It never changes a packet. The pending verdict is what it would be if this policy were enforced, in place of the
    /// one it is [staged for](PolicyKind::staged_for) if that exists.
    Staged,
    /// It never changes a packet. The pending verdict is what it would be without the policy that this one is
    /// [staged for](PolicyKind::staged_for). It has no rules of its own.
    StagedRemoval,
}

/// Which traffic of host interfaces a policy judges.
///
/// Workloads are judged by policies of the first two, which for them are one.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every dataplane has a place for each, or says it has not"
)]
pub enum HostTraffic {
    /// To and from processes of the host.
    #[default]
    Local,
    /// That, and what the host forwards (Calico's `applyOnForward`).
    LocalAndForwarded,
    /// Whatever comes in, before its destination is translated (Calico's `preDNAT`).
    BeforeDestinationNat,
    /// Whatever comes in, and what processes of the host send, before connections are tracked: each packet is judged, and
    /// replies need rules of their own (Calico's `doNotTrack`).
    Untracked,
}

impl HostTraffic {
    /// Returns whether policies of this kind have a say in a bucket of host endpoints.
    #[must_use]
    pub const fn is_in(self, bucket: Bucket) -> bool {
        match bucket {
            Bucket::Untracked => matches!(self, Self::Untracked),
            Bucket::PreDnat => matches!(self, Self::BeforeDestinationNat),
            Bucket::Forward => matches!(self, Self::LocalAndForwarded),
            Bucket::Normal => matches!(self, Self::Local | Self::LocalAndForwarded),
        }
    }
}

/// A list of rules for the endpoints that a selector selects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Policy {
    /// Which policy this is.
    pub key: PolicyKey,
    /// The name of its tier. A tier that does not exist sorts last and denies at its end.
    pub tier: String,
    /// Where it stands in its tier; absent comes last, ties are broken by [`PolicyKey::tie_break`].
    pub order: Option<Order>,
    /// The endpoints it applies to.
    pub subject: Selector,
    /// The rules for traffic into the subject, asked in this order. `None`: the policy says nothing about this
    /// direction. Empty: it applies to the direction, and none of its rules matches.
    pub ingress: Option<Vec<Rule>>,
    /// The rules for traffic out of the subject, likewise.
    pub egress: Option<Vec<Rule>>,
    /// Whether it takes part in verdicts.
    pub enforcement: Enforcement,
    /// Which traffic of host interfaces it judges.
    pub host_traffic: HostTraffic,
}

impl Policy {
    /// Returns an enforced policy of the `default` tier without order that applies to neither direction.
    #[must_use]
    pub fn new(key: PolicyKey, subject: Selector) -> Self {
        Self {
            key,
            tier: Tier::DEFAULT.into(),
            order: None,
            subject,
            ingress: None,
            egress: None,
            enforcement: Enforcement::Enforced,
            host_traffic: HostTraffic::Local,
        }
    }

    /// Returns the rules for a direction, `None` if the policy does not apply to it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn ties_are_broken_by_the_joined_string() {
        let key = |name: &str, namespace: Option<&str>, kind| PolicyKey {
            kind,
            namespace: namespace.map(Into::into),
            name: name.into(),
        };
        // `-` and `.` come before `/`, digits and letters after it.
        let keys = [
            key("a0", None, PolicyKind::GlobalNetworkPolicy),
            key("a", None, PolicyKind::GlobalNetworkPolicy),
            key("a-b", Some("a"), PolicyKind::NetworkPolicy),
            key("a.b", Some("a"), PolicyKind::NetworkPolicy),
            key("a", Some("a-b"), PolicyKind::NetworkPolicy),
            key("a", Some("a"), PolicyKind::KubernetesNetworkPolicy),
            key("a", Some("a"), PolicyKind::NetworkPolicy),
        ];
        let joined = |it: &PolicyKey| {
            let namespace = it.namespace.as_deref().unwrap_or_default();
            alloc::format!("{}/{namespace}/{}", it.name, it.kind)
        };
        let mut want: Vec<_> = keys.iter().collect();
        want.sort_by_key(|it| joined(it));
        let mut got: Vec<_> = keys.iter().collect();
        got.sort_by(|one, other| one.tie_break(other));
        assert_eq!(got, want);
        let names: Vec<_> = got.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a-b", "a.b", "a", "a", "a", "a", "a0"]);
    }
}
