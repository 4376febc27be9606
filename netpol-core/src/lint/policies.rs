//! Findings about policies as a whole, and about what they are to each other.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::cover::are_apart;
use super::selector::{are_disjoint, is_unsatisfiable};
use super::{Finding, Lint};
use crate::dataplane::Capabilities;
use crate::flow::Direction;
use crate::model::{
    Action, Bucket, Enforcement, Inputs, Order, Policy, PolicyKey, PolicyKind, Rule, Tier, TierEnd,
};

/// Most pairs of policies that are compared, and most pairs of rules of two of them.
const MAX_PAIRS: usize = 100_000;

pub(super) fn look(inputs: &Inputs, findings: &mut Vec<Finding>) {
    let newer = inputs
        .policies()
        .find(|policy| policy.key.kind == PolicyKind::KubernetesClusterNetworkPolicy);
    for policy in inputs.policies() {
        let mut add = |lint| findings.push(Finding::of(policy, lint));
        // A removal is for a name, and has no subject of its own.
        if policy.enforcement != Enforcement::StagedRemoval && is_unsatisfiable(&policy.subject) {
            add(Lint::SelectsNothing);
        }
        let end = tier_end(inputs, &policy.tier);
        if end.is_none() {
            add(Lint::UnknownTier { tier: policy.tier.clone() });
        }
        if let Some(newer) = newer.filter(|_| is_of_older_generation(policy)) {
            add(Lint::TwoGenerations { with: newer.key.clone() });
        }
        if end != Some(TierEnd::Pass) && policy.host_traffic.is_in(Bucket::Normal) {
            let logging = Direction::BOTH.into_iter().filter(|it| only_logs(policy, *it));
            logging.for_each(|direction| add(Lint::OnlyLogs { direction }));
        }
        staged(inputs, policy).into_iter().for_each(add);
    }
    ties(inputs, findings);
}

impl Finding {
    fn of(policy: &Policy, lint: Lint) -> Self {
        Self { policy: policy.key.clone(), rule: None, lint }
    }
}

/// Returns what happens at the end of a tier, `None` if it does not exist.
fn tier_end(inputs: &Inputs, name: &str) -> Option<TierEnd> {
    let built_in = Tier::built_in();
    let tier = built_in.iter().find(|tier| tier.name == name).or_else(|| inputs.tiers.get(name));
    tier.map(|tier| tier.end)
}

const fn is_of_older_generation(policy: &Policy) -> bool {
    matches!(
        policy.key.kind,
        PolicyKind::KubernetesAdminNetworkPolicy | PolicyKind::KubernetesBaselineAdminNetworkPolicy
    )
}

fn only_logs(policy: &Policy, direction: Direction) -> bool {
    let rules = policy.rules(direction).unwrap_or_default();
    !rules.is_empty() && rules.iter().all(|rule| rule.action == Action::Log)
}

/// Returns what is found about a staged policy and the one that it stands for.
fn staged(inputs: &Inputs, policy: &Policy) -> Option<Lint> {
    let kind = policy.key.kind.staged_for()?;
    let enforced = inputs.policies.get(&PolicyKey { kind, ..policy.key.clone() });
    match (policy.enforcement, enforced) {
        (Enforcement::StagedRemoval, None) => Some(Lint::RemovesNothing),
        (Enforcement::Staged, Some(enforced)) => {
            let Policy { key, enforcement, .. } = enforced;
            let as_enforced =
                Policy { key: key.clone(), enforcement: *enforcement, ..policy.clone() };
            (as_enforced == *enforced).then_some(Lint::ChangesNothing)
        }
        _ => None,
    }
}

/// Finds the policies that nothing but names puts after others. Each is found once, with the nearest before it.
fn ties(inputs: &Inputs, findings: &mut Vec<Finding>) {
    let mut by_place: BTreeMap<(&str, Option<Order>), Vec<Candidate<'_>>> = BTreeMap::new();
    let enforced = |policy: &&Policy| policy.enforcement == Enforcement::Enforced;
    for policy in inputs.policies().filter(enforced) {
        by_place.entry((&policy.tier, policy.order)).or_default().push(Candidate::new(policy));
    }
    let mut pairs_left = MAX_PAIRS;
    for group in by_place.values_mut() {
        group.sort_by(|one, other| one.policy.key.tie_break(&other.policy.key));
        for (index, candidate) in group.iter().enumerate() {
            let before = group.get(..index).unwrap_or_default().iter().rev();
            // Two that do one and the same thing, like policies that only allow, are not worth a look.
            let mut before = before.filter(|it| it.may_differ(candidate)).take(pairs_left);
            let with =
                before.by_ref().inspect(|_| pairs_left -= 1).find(|it| it.differs(candidate));
            if let Some(with) = with {
                let lint = Lint::Tie { with: with.policy.key.clone() };
                findings.push(Finding::of(candidate.policy, lint));
            }
        }
    }
}

/// A policy that may be tied with others, and what it does in each direction.
struct Candidate<'a> {
    policy: &'a Policy,
    actions: [BTreeSet<Action>; 2],
}

impl<'a> Candidate<'a> {
    fn new(policy: &'a Policy) -> Self {
        let actions = Direction::BOTH.map(|direction| {
            let rules = policy.rules(direction).unwrap_or_default();
            rules.iter().filter_map(effect).collect()
        });
        Self { policy, actions }
    }

    /// Returns whether both have rules for one direction, and not all of these do the same.
    fn may_differ(&self, other: &Self) -> bool {
        self.actions.iter().zip(&other.actions).any(|(one, other)| {
            !one.is_empty() && !other.is_empty() && one.union(other).count() > 1
        })
    }

    /// Returns whether both can apply to one endpoint and do different things with one flow.
    fn differs(&self, other: &Self) -> bool {
        share_traffic(self.policy, other.policy)
            && !are_disjoint(&self.policy.subject, &other.policy.subject)
            && Direction::BOTH.into_iter().any(|direction| {
                let rules = |it: &Self| it.policy.rules(direction).unwrap_or_default();
                rules_differ(rules(self), rules(other))
            })
    }
}

/// Returns whether there is traffic that both judge.
fn share_traffic(one: &Policy, other: &Policy) -> bool {
    let (one, other) = (one.host_traffic, other.host_traffic);
    one == other || one.is_in(Bucket::Normal) && other.is_in(Bucket::Normal)
}

fn rules_differ(some: &[Rule], others: &[Rule]) -> bool {
    let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
    let differ = |(one, other): (&Rule, &Rule)| {
        effect(one).zip(effect(other)).is_some_and(|(one, other)| one != other)
            && !are_apart(&one.matches, &other.matches)
    };
    // So many rules are taken to overlap somewhere.
    some.len().saturating_mul(others.len()) > MAX_PAIRS || pairs.into_iter().any(differ)
}

/// Returns what a rule does to a verdict. What is logged depends on the order, too, but no verdict does.
fn effect(rule: &Rule) -> Option<Action> {
    rule.effective_action(&Capabilities::all()).filter(|it| *it != Action::Log)
}
