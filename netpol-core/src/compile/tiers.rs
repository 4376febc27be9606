//! The order in which policies are asked.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::model::{Inputs, Order, Policy, Tier};

/// A tier with its policies in order.
pub(super) struct TierPolicies<'a> {
    pub(super) tier: Tier,
    pub(super) policies: Vec<&'a Policy>,
    exists: bool,
}

/// Returns the tiers that have policies, in the order in which they are asked.
pub(super) fn by_tier(inputs: &Inputs) -> Vec<TierPolicies<'_>> {
    let mut groups: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
    for policy in inputs.policies.values() {
        groups.entry(&policy.tier).or_default().push(policy);
    }
    let mut tiers: Vec<_> = groups
        .into_iter()
        .map(|(name, mut policies)| {
            policies
                .sort_by(|a, b| by_order(a.order, b.order).then_with(|| a.key.tie_break(&b.key)));
            let found = find(inputs, name);
            let exists = found.is_some();
            TierPolicies { tier: found.unwrap_or_else(|| Tier::unknown(name)), policies, exists }
        })
        .collect();
    tiers.sort_by(|a, b| {
        b.exists
            .cmp(&a.exists)
            .then_with(|| by_order(a.tier.order, b.tier.order))
            .then_with(|| a.tier.name.cmp(&b.tier.name))
    });
    tiers
}

fn find(inputs: &Inputs, name: &str) -> Option<Tier> {
    let built_in = Tier::built_in().into_iter().find(|tier| tier.name == name);
    built_in.or_else(|| inputs.tiers.get(name).cloned())
}

/// Compares two positions; an absent one comes last.
fn by_order(a: Option<Order>, b: Option<Order>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}
