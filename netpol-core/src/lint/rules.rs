//! Findings about the rules of one policy.

use alloc::vec::Vec;

use super::cover::{addresses, covers, has_no_message, has_no_peers, has_no_port, may_be_of};
use super::{Finding, Impossible, Lint, Side};
use crate::flow::Direction;
use crate::model::{
    Action, Endpoint, EntityMatch, Inputs, L4Match, Lifecycle, Policy, Rule, RuleMatch,
};
use crate::net::Family;
use crate::verdict::RuleRef;

/// Most pairs of rules of one direction that are compared.
const MAX_PAIRS: usize = 100_000;

pub(super) fn look(inputs: &Inputs, policy: &Policy, findings: &mut Vec<Finding>) {
    for direction in Direction::BOTH {
        let mut rules =
            Rules { inputs, policy, direction, before: Vec::new(), pairs_left: MAX_PAIRS };
        // What is one rule to its author can be several here.
        let all = policy.rules(direction).unwrap_or_default();
        for written in all.chunk_by(|one, other| one.index == other.index) {
            let Some(first) = written.first() else { continue };
            if let Some(lint) = rules.lint(written) {
                let rule = Some(rules.reference(first));
                findings.push(Finding { policy: policy.key.clone(), rule, lint });
            }
            rules.before.extend(written.iter().filter(|rule| decides(rule)));
        }
    }
}

/// The rules of one direction, as far as they were looked at.
struct Rules<'a> {
    inputs: &'a Inputs,
    policy: &'a Policy,
    direction: Direction,
    /// The rules behind which none is asked about a flow that they match.
    before: Vec<&'a Rule>,
    pairs_left: usize,
}

/// Returns whether no further rule of the policy is asked about a flow that this one matches, on every dataplane.
fn decides(rule: &Rule) -> bool {
    rule.action != Action::Log && !rule.degraded && rule.matches.http.is_none()
}

impl Rules<'_> {
    /// Returns what matters most of what is found about one rule as it is written.
    fn lint(&mut self, written: &[Rule]) -> Option<Lint> {
        if written.iter().any(|rule| rule.degraded) {
            return Some(Lint::Degraded);
        }
        let impossible: Option<Vec<Impossible>> =
            written.iter().map(|rule| impossible(&rule.matches)).collect();
        if let Some(impossible) = impossible.as_ref().and_then(|all| all.first()) {
            return Some(Lint::Impossible(*impossible));
        }
        self.unreachable(written)
            .or_else(|| written.iter().any(|it| it.matches.http.is_some()).then_some(Lint::Http))
            .or_else(|| self.one_family(written))
    }

    fn unreachable(&mut self, written: &[Rule]) -> Option<Lint> {
        let mut by = None;
        for rule in written.iter().filter(|rule| impossible(&rule.matches).is_none()) {
            let candidates = self.before.iter().take(self.pairs_left);
            let mut looked_at = 0;
            let found = candidates
                .inspect(|_| looked_at += 1)
                .find(|it| covers(&it.matches, &rule.matches))
                .map(|it| self.reference(it));
            self.pairs_left -= looked_at;
            by = by.or(Some(found?));
        }
        by.map(|by| Lint::Unreachable { by })
    }

    /// Returns whether the addresses that a rule lists restrict it to one family, where that matters to an endpoint.
    fn one_family(&self, written: &[Rule]) -> Option<Lint> {
        let [family] = Family::BOTH
            .into_iter()
            .filter(|family| written.iter().any(|rule| may_be_of(&rule.matches, *family)))
            .collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let lists = |entity: &EntityMatch| entity.nets.is_some();
        let by_list = |rule: &Rule| {
            let RuleMatch { family, l4, source, destination, http: _ } = &rule.matches;
            family.is_none()
                && !matches!(l4, L4Match::Icmp { .. })
                && (lists(source) || lists(destination))
        };
        let endpoint = self.endpoint_of_both_families().filter(|_| written.iter().any(by_list))?;
        Some(Lint::OneFamily { family, endpoint: endpoint.id.clone() })
    }

    fn endpoint_of_both_families(&self) -> Option<&Endpoint> {
        self.inputs.endpoints().find(|endpoint| {
            endpoint.lifecycle == Lifecycle::Running
                && Family::BOTH
                    .iter()
                    .all(|family| endpoint.addresses.iter().any(|it| Family::of(*it) == *family))
                && self.policy.subject.matches(&self.inputs.labels_of(endpoint))
        })
    }

    fn reference(&self, rule: &Rule) -> RuleRef {
        RuleRef {
            policy: self.policy.key.clone(),
            direction: self.direction,
            index: rule.index,
            name: rule.name.clone(),
        }
    }
}

/// Returns why no flow meets the conditions, if that is certain.
fn impossible(matches: &RuleMatch) -> Option<Impossible> {
    let sides = [(Side::Source, &matches.source), (Side::Destination, &matches.destination)];
    for (side, entity) in sides {
        if addresses(entity).is_empty() {
            return Some(Impossible::Address(side));
        }
        if has_no_peers(entity) {
            return Some(Impossible::Peer(side));
        }
    }
    match &matches.l4 {
        L4Match::Ports { source, .. } if has_no_port(source) => {
            return Some(Impossible::Port(Side::Source));
        }
        L4Match::Ports { destination, .. } if has_no_port(destination) => {
            return Some(Impossible::Port(Side::Destination));
        }
        L4Match::Icmp { is, is_not, .. } if has_no_message(*is, *is_not) => {
            return Some(Impossible::Message);
        }
        _ => {}
    }
    let is_possible = Family::BOTH.into_iter().any(|family| may_be_of(matches, family));
    (!is_possible).then_some(Impossible::Family)
}
