//! Policies as they are stored: there can be very many, and most conditions of most rules are empty.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::flow::Direction;
use crate::model::{
    Action, EntityMatch, HttpMatch, L4Match, Peers, Policy, PortMatch, Rule, RuleMatch,
};
use crate::net::Family;
use crate::selector::Selector;

/// A policy whose rules are packed.
#[derive(Debug)]
pub(super) struct PackedPolicy {
    /// The policy without its rules.
    head: Policy,
    ingress: Box<[PackedRule]>,
    egress: Box<[PackedRule]>,
}

/// A rule in which what is empty takes no room.
#[derive(Debug)]
struct PackedRule {
    index: usize,
    name: Option<Box<str>>,
    l4: Option<Box<L4Match<PortMatch>>>,
    source: Option<Box<EntityMatch>>,
    destination: Option<Box<EntityMatch>>,
    http: Option<Box<HttpMatch>>,
    family: Option<Family>,
    action: Action,
    degraded: bool,
}

impl PackedPolicy {
    /// Packs a policy. `shared` returns a selector that is stored already in place of an equal one.
    pub(super) fn new(mut policy: Policy, shared: impl Fn(&Selector) -> Option<Selector>) -> Self {
        share(&mut policy.subject, &shared);
        let pack = |rules: &mut Option<Vec<Rule>>| {
            let rules = rules.as_mut().map(core::mem::take).unwrap_or_default();
            rules.into_iter().map(|it| PackedRule::new(it, &policy.subject, &shared)).collect()
        };
        let (ingress, egress) = (pack(&mut policy.ingress), pack(&mut policy.egress));
        Self { head: policy, ingress, egress }
    }

    /// Returns the policy without its rules: a direction that it says something about has none.
    pub(super) const fn head(&self) -> &Policy {
        &self.head
    }

    /// Returns whether the policy says something about a direction.
    pub(super) fn applies_to(&self, direction: Direction) -> bool {
        self.head.rules(direction).is_some()
    }

    /// Returns the whole policy.
    pub(super) fn unpacked(&self) -> Policy {
        let mut policy = self.head.clone();
        for (rules, packed) in
            [(&mut policy.ingress, &self.ingress), (&mut policy.egress, &self.egress)]
        {
            if let Some(rules) = rules {
                rules.extend(packed.iter().map(PackedRule::unpacked));
            }
        }
        policy
    }
}

impl PackedRule {
    fn new(
        rule: Rule,
        subject: &Selector,
        shared: &impl Fn(&Selector) -> Option<Selector>,
    ) -> Self {
        let Rule { index, name, action, matches, degraded } = rule;
        let RuleMatch { family, l4, source, destination, http } = matches;
        let shared = |it: &Selector| {
            if it == subject { Some(subject.clone()) } else { shared(it) }
        };
        let entity = |mut entity: EntityMatch| {
            let (peers, not_peers) = (&mut entity.peers, &mut entity.not_peers);
            let selector = match peers {
                Some(
                    Peers::Endpoints(it) | Peers::Nodes(it) | Peers::Tenants { endpoints: it, .. },
                ) => Some(it),
                Some(Peers::DomainNames(_) | Peers::BackendsOf(_)) | None => None,
            };
            selector.into_iter().chain(not_peers).for_each(|it| share(it, shared));
            boxed(entity, &EntityMatch::default())
        };
        Self {
            index,
            name: name.map(String::into_boxed_str),
            l4: boxed(l4, &L4Match::Any),
            source: entity(source),
            destination: entity(destination),
            http: http.map(Box::new),
            family,
            action,
            degraded,
        }
    }

    fn unpacked(&self) -> Rule {
        let matches = RuleMatch {
            family: self.family,
            l4: self.l4.as_deref().cloned().unwrap_or_default(),
            source: self.source.as_deref().cloned().unwrap_or_default(),
            destination: self.destination.as_deref().cloned().unwrap_or_default(),
            http: self.http.as_deref().cloned(),
        };
        let mut rule = Rule::new(self.index, self.action, matches);
        rule.name = self.name.as_deref().map(String::from);
        rule.degraded = self.degraded;
        rule
    }
}

/// Returns a value in a box, `None` if it is the empty one.
fn boxed<T: PartialEq>(value: T, empty: &T) -> Option<Box<T>> {
    (value != *empty).then(|| Box::new(value))
}

fn share(selector: &mut Selector, shared: impl Fn(&Selector) -> Option<Selector>) {
    if let Some(known) = shared(selector) {
        *selector = known;
    }
}
