//! Interfaces that look like those of workloads and belong to none.
//!
//! An endpoint is known by its interface once that is in the set of all endpoints, where it comes after its policy and from
//! where it goes before that, see [`Step`](crate::plan::Step). A packet that was led past a policy because there was none yet,
//! or none any more, must not pass as that of an endpoint that is known. So whether it is known is asked when its policy has
//! been looked for, even if it was asked before.

use netpol_core::model::{InterfacePrefix, Treatment, UnknownInterfaces};

use super::base::{By, Fixed, ROUTER_MESSAGES, base_rule, icmpv6, not_member};
use crate::ruleset::{Action, End, Interface, Match, Rule, Sense, Verdict};

/// Returns the rules for router advertisements and redirects from interfaces that look like those of workloads: neither
/// those that are known nor the others may send them.
pub(super) fn router_messages(unknown: &UnknownInterfaces) -> Vec<Rule> {
    let rule = |kind: u8, looks_so: Match| {
        let matches = [icmpv6(Match::Icmp { kind, code: None }), vec![looks_so]].concat();
        base_rule("router", matches, Action::Verdict(Verdict::Drop))
    };
    let kinds = ROUTER_MESSAGES.into_iter();
    kinds.flat_map(|kind| looks(unknown, End::Source).map(move |it| rule(kind, it))).collect()
}

/// Returns the rules for all packets of unknown interfaces at one end, whatever they belong to.
pub(super) fn closed(unknown: &UnknownInterfaces, end: End, verdict: &Verdict) -> Vec<Rule> {
    match unknown.treatment {
        Treatment::Closed => stop(unknown, end, verdict),
        Treatment::Open | Treatment::EgressTracked => Vec::new(),
    }
}

/// Returns the rules for new packets from unknown interfaces.
pub(super) fn sent(unknown: &UnknownInterfaces) -> Vec<Rule> {
    closed(unknown, End::Source, &Verdict::Drop)
}

/// Returns the rules for new packets that are forwarded to unknown interfaces.
pub(super) fn received(unknown: &UnknownInterfaces) -> Vec<Rule> {
    match unknown.treatment {
        Treatment::Closed | Treatment::EgressTracked => {
            stop(unknown, End::Destination, &Verdict::Drop)
        }
        Treatment::Open => Vec::new(),
    }
}

/// Returns the conditions that a packet's interface at one end looks like that of a workload, of which one has to hold.
pub(super) fn looks(unknown: &UnknownInterfaces, end: End) -> impl Iterator<Item = Match> {
    prefixes(unknown).map(move |prefix| Match::InterfacePrefix { end, prefix, sense: Sense::In })
}

/// Returns the conditions that a packet's interface at one end does not look like that of a workload: all have to hold.
pub(super) fn looks_otherwise(
    unknown: &UnknownInterfaces,
    end: End,
) -> impl Iterator<Item = Match> {
    prefixes(unknown).map(move |prefix| Match::InterfacePrefix { end, prefix, sense: Sense::NotIn })
}

fn prefixes(unknown: &UnknownInterfaces) -> impl Iterator<Item = Interface> {
    unknown.prefixes.iter().map(InterfacePrefix::as_str).filter_map(Interface::new)
}

fn stop(unknown: &UnknownInterfaces, end: End, verdict: &Verdict) -> Vec<Rule> {
    let rule = |it| {
        let matches = vec![it, not_member(Fixed::Endpoints, By::Interface, end)];
        base_rule("unknown", matches, Action::Verdict(verdict.clone()))
    };
    looks(unknown, end).map(rule).collect()
}
