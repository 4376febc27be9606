//! Who owns an address, and in which order policies are asked.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::net::IpAddr;

use crate::model::{
    Endpoint, EndpointKind, Enforcement, Inputs, Lifecycle, Order, Policy, PolicyKey, Tier,
};

/// A tier and its policies in the order in which they are asked.
#[derive(Clone, Debug)]
pub(super) struct Level<'a> {
    pub(super) tier: Tier,
    pub(super) policies: Vec<&'a Policy>,
}

/// Who has which address.
#[derive(Clone, Debug)]
pub(super) struct Owners<'a> {
    /// The workload that owns each address.
    pub(super) workloads: BTreeMap<IpAddr, &'a Endpoint>,
    /// All host endpoints. Several can list one address.
    pub(super) hosts: Vec<&'a Endpoint>,
}

pub(super) fn owners(inputs: &Inputs) -> Owners<'_> {
    let hosts = inputs.endpoints().filter(|it| it.id.kind == EndpointKind::Host).collect();
    Owners { workloads: address_owners(inputs), hosts }
}

fn address_owners(inputs: &Inputs) -> BTreeMap<IpAddr, &Endpoint> {
    let mut owners = BTreeMap::new();
    let workloads = inputs.endpoints().filter(|it| it.id.kind == EndpointKind::Workload);
    for endpoint in workloads.filter(|endpoint| endpoint.lifecycle == Lifecycle::Running) {
        for &address in &endpoint.addresses {
            let owner = owners.entry(address).or_insert(endpoint);
            if age(endpoint) > age(owner) {
                *owner = endpoint;
            }
        }
    }
    owners
}

/// Returns the tiers that policies are in, in order: those that exist, then those that do not.
pub(super) fn levels(inputs: &Inputs) -> Vec<Level<'_>> {
    let mut existing: Vec<Tier> =
        Tier::built_in().into_iter().chain(inputs.tiers.values().cloned()).collect();
    existing.sort_by(compare_tiers);
    let is_known = |policy: &&Policy| existing.iter().any(|tier| tier.name == policy.tier);
    let mut unknown: Vec<Tier> = inputs
        .policies()
        .filter(|policy| !is_known(policy))
        .map(|policy| Tier::unknown(policy.tier.clone()))
        .collect();
    unknown.sort_by(compare_tiers);
    unknown.dedup();
    existing.into_iter().chain(unknown).map(|tier| level(inputs, tier)).collect()
}

fn level(inputs: &Inputs, tier: Tier) -> Level<'_> {
    let mut policies: Vec<&Policy> =
        inputs.policies().filter(|policy| policy.tier == tier.name).collect();
    policies.sort_by(|one, other| {
        compare_orders(one.order, other.order)
            .then_with(|| as_enforced(&one.key).tie_break(&as_enforced(&other.key)))
    });
    Level { tier, policies }
}

/// Returns the enforced policies that staged ones replace or remove.
pub(super) fn replaced(inputs: &Inputs) -> BTreeSet<PolicyKey> {
    inputs
        .policies()
        .filter(|policy| policy.enforcement != Enforcement::Enforced)
        .filter(|policy| policy.key.kind.staged_for().is_some())
        .map(|policy| as_enforced(&policy.key))
        .collect()
}

/// Returns the key that a policy would have if it were enforced.
fn as_enforced(key: &PolicyKey) -> PolicyKey {
    PolicyKey { kind: key.kind.staged_for().unwrap_or(key.kind), ..key.clone() }
}

fn compare_tiers(one: &Tier, other: &Tier) -> Ordering {
    compare_orders(one.order, other.order).then_with(|| one.name.cmp(&other.name))
}

/// Compares two positions, of which an absent one comes last.
fn compare_orders(one: Option<Order>, other: Option<Order>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Returns what the owner of an address has most of. The id makes it total.
fn age(endpoint: &Endpoint) -> impl Ord + '_ {
    (endpoint.created, endpoint.id.uid.as_str(), &endpoint.id)
}
