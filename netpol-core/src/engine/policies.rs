//! Policies, their order, and an index of their subjects.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::BuildHasher;

use super::blocks::Block;
use super::lower::depends_on_endpoint;
use super::packed::PackedPolicy;
use super::selectors::SelectorIndex;
use super::store::{Finder, Id, Relation, Slab};
use super::views::{Namespace, Time, View, Views};
use crate::flow::Direction;
use crate::model::{Enforcement, Order, Policy, PolicyKey, Tier};

/// A policy, and what it was lowered to.
#[derive(Debug)]
pub(super) struct PolicyRecord {
    policy: PackedPolicy,
    /// The first time that the program is settled with it as it is.
    pub(super) round: u64,
    tier: Id<TierRecord>,
    namespace: Option<Id<Namespace>>,
    /// By direction: whether what its rules are lowered to depends on the endpoint.
    depends: [bool; 2],
    /// By direction: its rules as every endpoint has them, from when it first applies to one.
    pub(super) shared: [Option<Id<Block>>; 2],
    /// How many lists of local views it is in.
    pub(super) lists: u32,
}

/// A tier that exists, or that a policy names.
#[derive(Debug)]
pub(super) struct TierRecord {
    name: String,
    tier: Option<Tier>,
    policies: u32,
}

/// All policies and tiers.
#[derive(Default)]
pub(super) struct Policies {
    records: Slab<PolicyRecord>,
    by_key: Finder<PolicyRecord>,
    by_namespace: Relation<Namespace, PolicyRecord>,
    /// Of the policies that take part.
    subjects: SelectorIndex<Id<PolicyRecord>>,
    tiers: Slab<TierRecord>,
    tiers_by_name: BTreeMap<String, Id<TierRecord>>,
}

impl PolicyRecord {
    /// Returns the policy without its rules.
    pub(super) const fn head(&self) -> &Policy {
        self.policy.head()
    }

    /// Returns the whole policy.
    pub(super) fn policy(&self) -> Policy {
        self.policy.unpacked()
    }

    pub(super) fn applies_to(&self, direction: Direction) -> bool {
        self.policy.applies_to(direction)
    }

    pub(super) fn depends_on_endpoint(&self, direction: Direction) -> bool {
        self.depends.get(side(direction)).copied().unwrap_or(true)
    }

    pub(super) const fn tier(&self) -> Id<TierRecord> {
        self.tier
    }
}

impl Policies {
    pub(super) fn find(&self, key: &PolicyKey) -> Option<Id<PolicyRecord>> {
        let hash = self.by_key.hash(key);
        self.by_key.find(hash, |id| self.records[id].head().key == *key)
    }

    /// Adds a policy that is not there.
    pub(super) fn insert(
        &mut self,
        policy: Policy,
        round: u64,
        views: &mut Views,
    ) -> Id<PolicyRecord> {
        let hash = self.by_key.hash(&policy.key);
        let tier = self.tier(&policy.tier);
        self.tiers[tier].policies += 1;
        let namespace = policy.key.namespace.as_ref().map(|it| views.namespace(it));
        let subject = takes_part(&policy).then(|| policy.subject.clone());
        let depends = Direction::BOTH.map(|direction| depends_on_endpoint(&policy, direction));
        let policy = PackedPolicy::new(policy, |selector| self.subjects.stored(selector));
        let (shared, lists) = ([None; 2], 0);
        let record = PolicyRecord { policy, round, tier, namespace, depends, shared, lists };
        let id = self.records.insert(record);
        if let Some(subject) = subject {
            self.subjects.insert(&subject, id, &mut views.labels);
        }
        if let Some(namespace) = namespace {
            self.by_namespace.insert(namespace, id);
        }
        let Self { records, by_key, .. } = self;
        let hasher = by_key.hasher().clone();
        by_key.insert(hash, id, |id| hasher.hash_one(&records[id].head().key));
        id
    }

    /// Forgets a policy, which must be in no list.
    pub(super) fn remove(&mut self, id: Id<PolicyRecord>, views: &mut Views) -> bool {
        let Self { records, by_key, .. } = self;
        let hasher = by_key.hasher().clone();
        let rehash = |id| hasher.hash_one(&records[id].head().key);
        by_key.remove(rehash(id), id, rehash);
        let Some(record) = records.remove(id) else { return false };
        let head = record.head();
        if takes_part(head) {
            self.subjects.remove(&head.subject, id, &mut views.labels);
        }
        let PolicyRecord { tier, namespace, .. } = record;
        if let Some(namespace) = namespace {
            self.by_namespace.remove(namespace, id);
            views.drop_namespace(namespace);
        }
        self.tiers[tier].policies -= 1;
        self.sweep_tier(tier);
        true
    }

    pub(super) fn record(&self, id: Id<PolicyRecord>) -> &PolicyRecord {
        &self.records[id]
    }

    pub(super) fn record_mut(&mut self, id: Id<PolicyRecord>) -> &mut PolicyRecord {
        &mut self.records[id]
    }

    pub(super) fn get(&self, id: Id<PolicyRecord>) -> Option<&PolicyRecord> {
        self.records.get(id)
    }

    /// Returns the policies, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Policy> {
        self.records.iter().map(|(_, record)| record.policy())
    }

    pub(super) fn in_namespace(&self, namespace: Id<Namespace>) -> Vec<Id<PolicyRecord>> {
        self.by_namespace.of(namespace).collect()
    }

    /// Returns the policies that apply to a view, in the order in which they are asked.
    pub(super) fn applying_to(&self, view: Id<View>, views: &Views) -> Vec<Id<PolicyRecord>> {
        let mut applying = self.subjects.users_selecting(view, Time::Now, views);
        applying.sort_by(|one, other| self.compare(*one, *other));
        applying
    }

    /// Compares two policies by the order in which they are asked.
    pub(super) fn compare(&self, one: Id<PolicyRecord>, other: Id<PolicyRecord>) -> Ordering {
        let [one, other] = [one, other].map(|it| &self.records[it]);
        let by_tier = match one.tier == other.tier {
            true => Ordering::Equal,
            false => self.compare_tiers(one.tier, other.tier),
        };
        let [one, other] = [one, other].map(PolicyRecord::head);
        by_tier
            .then_with(|| by_order(one.order, other.order))
            .then_with(|| by_name(&one.key, &other.key))
    }

    fn compare_tiers(&self, one: Id<TierRecord>, other: Id<TierRecord>) -> Ordering {
        let [one, other] = [one, other].map(|it| &self.tiers[it]);
        let order = |it: &TierRecord| it.tier.as_ref().and_then(|tier| tier.order);
        (other.tier.is_some().cmp(&one.tier.is_some()))
            .then_with(|| by_order(order(one), order(other)))
            .then_with(|| one.name.cmp(&other.name))
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 6] {
        let [selectors, places, users] = self.subjects.counts();
        let (records, in_namespaces) = (self.records.len(), self.by_namespace.len());
        [records, in_namespaces, selectors, places, users, self.tiers.len()]
    }
}

/// Tiers.
impl Policies {
    /// Gives a tier its content; `None` if there is no such object any more. Returns whether there was one, and whether
    /// policies are affected.
    pub(super) fn set_tier(&mut self, name: &str, tier: Option<Tier>) -> (bool, bool) {
        if tier.is_none() && !self.tiers_by_name.contains_key(name) {
            return (false, false);
        }
        let id = self.tier(name);
        let record = &mut self.tiers[id];
        let is_affected = record.policies > 0 && record.tier != tier;
        let before = core::mem::replace(&mut record.tier, tier);
        self.sweep_tier(id);
        (before.is_some(), is_affected)
    }

    /// Returns a tier as it counts: one that does not exist denies at its end.
    pub(super) fn tier_of(&self, id: Id<TierRecord>) -> Tier {
        let record = &self.tiers[id];
        record.tier.clone().unwrap_or_else(|| Tier::unknown(record.name.clone()))
    }

    /// Returns the tiers that were given.
    pub(super) fn tiers(&self) -> impl Iterator<Item = &Tier> {
        let tiers = self.tiers.iter().filter_map(|(_, record)| record.tier.as_ref());
        tiers.filter(|tier| !Tier::is_built_in(&tier.name))
    }

    fn tier(&mut self, name: &str) -> Id<TierRecord> {
        if let Some(id) = self.tiers_by_name.get(name) {
            return *id;
        }
        let tier = Tier::built_in().into_iter().find(|tier| tier.name == name);
        let id = self.tiers.insert(TierRecord { name: name.into(), tier, policies: 0 });
        self.tiers_by_name.insert(name.into(), id);
        id
    }

    fn sweep_tier(&mut self, id: Id<TierRecord>) {
        let record = &self.tiers[id];
        let is_given = record.tier.is_some() && !Tier::is_built_in(&record.name);
        if record.policies == 0 && !is_given {
            self.tiers_by_name.remove(&record.name);
            self.tiers.remove(id);
        }
    }
}

/// Returns whether a policy has a say in what happens to packets.
pub(super) fn takes_part(policy: &Policy) -> bool {
    policy.enforcement == Enforcement::Enforced
}

/// Returns the index of a direction in what is kept for both.
pub(super) const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    }
}

/// Compares two positions; an absent one comes last.
fn by_order(one: Option<Order>, other: Option<Order>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(&other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

/// [`PolicyKey::tie_break`], which mostly is decided by the names alone. Different keys can have one joined string.
fn by_name(one: &PolicyKey, other: &PolicyKey) -> Ordering {
    let len = one.name.len().min(other.name.len());
    let [start, other_start] = [one, other].map(|it| it.name.as_bytes().get(..len));
    start.cmp(&other_start).then_with(|| one.tie_break(other)).then_with(|| one.cmp(other))
}
