//! Conditions on the endpoint's own side, which have to be settled before a table can be made.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::super::Unclassified;
use crate::flow::Direction;
use crate::model::L4Match;
use crate::net::Family;
use crate::program::{Address, Endpoint, PolicySet, Program, Rule};

/// Returns why a policy set cannot have a table, `None` if it can.
pub(in super::super) fn unclassifiable(
    program: &Program,
    set: &PolicySet,
    direction: Direction,
    users: &[&Endpoint],
) -> Option<Unclassified> {
    set.stages.iter().flat_map(|stage| &stage.rules).find_map(|rule| {
        let unsettled = Family::BOTH.iter().any(|&it| settled(program, rule, users, it).is_none());
        if unsettled {
            Some(Unclassified::LocalAddress { rule: rule.origin.clone() })
        } else if has_local_names(rule, direction) {
            Some(Unclassified::LocalPorts { rule: rule.origin.clone() })
        } else {
            None
        }
    })
}

/// Returns for IPv4 and IPv6 whether a rule can match, as far as the rule's family and the endpoints' own addresses say.
pub(super) fn families(program: &Program, rule: &Rule, users: &[&Endpoint]) -> [bool; 2] {
    Family::BOTH.map(|family| {
        rule.family.is_none_or(|it| it == family)
            && settled(program, rule, users, family) == Some(true)
    })
}

/// Returns whether the endpoints' addresses of a family meet the rule's condition on them: all do or none does. A family
/// in which they have no address carries no flow of theirs.
fn settled(program: &Program, rule: &Rule, users: &[&Endpoint], family: Family) -> Option<bool> {
    let Some(condition) = rule.local.as_ref() else { return Some(true) };
    if rule.family.is_some_and(|it| it != family) {
        return Some(false);
    }
    if users.iter().any(|endpoint| endpoint.addresses.is_empty()) {
        return None;
    }
    let addresses = users.iter().flat_map(|endpoint| &endpoint.addresses);
    let of_family = addresses.filter(|address| Family::of(**address) == family);
    let answers: Vec<bool> = of_family.map(|&it| meets(program, condition, it)).collect();
    match (answers.contains(&true), answers.contains(&false)) {
        (true, true) => None,
        (some, _) => Some(some),
    }
}

/// Returns whether an address meets a condition.
fn meets(program: &Program, condition: &Address, address: IpAddr) -> bool {
    let Address { in_set, not_in_set, nets, not_nets } = condition;
    let is_member =
        |id| program.address_sets.get(id).is_some_and(|set| set.members.contains(address));
    let excluded = not_in_set.as_ref().is_some_and(is_member) || not_nets.contains(address);
    let included = in_set.as_ref().is_none_or(is_member)
        && nets.as_ref().is_none_or(|nets| nets.contains(address));
    included && !excluded
}

/// Returns whether a rule refers to sets of ports for the endpoint's own side.
fn has_local_names(rule: &Rule, direction: Direction) -> bool {
    let L4Match::Ports { source, destination, .. } = &rule.l4 else { return false };
    let local = match direction {
        Direction::Ingress => destination,
        Direction::Egress => source,
    };
    [&local.any_of, &local.none_of].into_iter().flatten().any(|ports| !ports.sets.is_empty())
}
