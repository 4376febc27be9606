//! Interfaces that look like those of workloads and belong to none.
//!
//! All chains of a table change at once, so an endpoint is known when its policy is there, and as long as that is there.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::model::{InterfacePrefix, Treatment, UnknownInterfaces};

use super::base::{OWN_LEVELS, commented, goto};
use super::tree::Forest;
use crate::name::{Fixed, Name, Owner};
use crate::ruleset::{Action, Chain, End, Interface, Key, KeyPrefix, Match, Rule, Sense, Verdict};

/// Returns the chain that stops packets at unknown interfaces at one end, if they can be stopped there.
pub(super) fn chain_at(unknown: &UnknownInterfaces, end: End) -> Option<Fixed> {
    match (unknown.treatment, end) {
        _ if unknown.prefixes.is_empty() => None,
        (Treatment::Closed, End::Source) => Some(Fixed::UnknownFrom),
        (Treatment::Closed | Treatment::EgressTracked, End::Destination) => Some(Fixed::UnknownTo),
        (Treatment::Open | Treatment::EgressTracked, _) => None,
    }
}

/// Returns the chains that stop packets at unknown interfaces: known ones return.
pub(super) fn chains(
    unknown: &UnknownInterfaces,
    known: &BTreeSet<Key>,
    owner: &Owner,
) -> BTreeMap<Name, Chain> {
    let stop = match unknown.treatment {
        Treatment::Closed => goto(owner, Fixed::Cut),
        Treatment::Open | Treatment::EgressTracked => Action::Verdict(Verdict::Drop),
    };
    let mut chains = BTreeMap::new();
    for end in [End::Source, End::Destination] {
        let Some(chain) = chain_at(unknown, end) else { continue };
        let otherwise = at_interfaces(unknown, end, "unknown", &stop).collect();
        let mut forest = Forest::new(owner).with_otherwise(otherwise);
        let interfaces = known.iter().filter(|key| matches!(key, Key::Interface(_)));
        let pass = |key: &Key| {
            let rule = commented("known", vec![key.at(end)], Action::Verdict(Verdict::Return));
            (*key, vec![rule])
        };
        let root = forest.plant(end, OWN_LEVELS, interfaces.map(pass).collect());
        chains.insert(owner.chain(chain), root);
        chains.extend(forest.finish());
    }
    chains
}

/// Returns the rules that lead new packets to unknown interfaces to where they are stopped, if nothing stops all of theirs.
pub(super) fn stop_new(unknown: &UnknownInterfaces, owner: &Owner) -> Vec<Rule> {
    match (unknown.treatment, chain_at(unknown, End::Destination)) {
        (Treatment::EgressTracked, Some(chain)) => {
            at_interfaces(unknown, End::Destination, "next", &goto(owner, chain)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the rules for all interfaces that look like those of workloads, known ones too.
pub(super) fn at_interfaces(
    unknown: &UnknownInterfaces,
    end: End,
    id: &str,
    action: &Action,
) -> impl Iterator<Item = Rule> {
    let prefixes = unknown.prefixes.iter().map(InterfacePrefix::as_str).filter_map(Interface::new);
    prefixes.map(move |prefix| {
        let prefix = KeyPrefix::Interface(prefix);
        commented(id, vec![Match::Under { end, prefix, sense: Sense::In }], action.clone())
    })
}
