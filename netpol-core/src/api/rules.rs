//! Rules of the model that one rule of a Kubernetes policy becomes.

use alloc::vec::Vec;

use crate::flow::Direction;
use crate::model::{Action, EntityMatch, L4Match, PortMatch, Rule, RuleMatch};
use crate::net::PrefixSet;

/// Returns one rule for each pair of a peer and a condition on ports.
pub(super) fn product(
    direction: Direction,
    peers: &[EntityMatch],
    ports: &[L4Match<PortMatch>],
) -> Vec<RuleMatch> {
    let pair = |peer: &EntityMatch, l4| {
        let (peer, subject) = (peer.clone(), EntityMatch::default());
        let (source, destination) = match direction {
            Direction::Ingress => (peer, subject),
            Direction::Egress => (subject, peer),
        };
        RuleMatch { l4, source, destination, ..RuleMatch::default() }
    };
    peers.iter().flat_map(|peer| ports.iter().map(move |l4| pair(peer, l4.clone()))).collect()
}

/// Returns what stands for a rule that cannot be read. One that allows matches no address, so that even an evaluator that
/// overlooks the mark lets nothing pass; any other matches everything.
pub(super) fn degraded(index: usize, action: Action) -> Rule {
    let mut matches = RuleMatch::default();
    if action == Action::Allow {
        matches.source.nets = Some(PrefixSet::default());
    }
    let mut rule = Rule::new(index, action, matches);
    rule.degraded = true;
    rule
}
