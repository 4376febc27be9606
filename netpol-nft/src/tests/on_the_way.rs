//! What packets meet that are on their way while one state of a table gives way to the next.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_core::net::{Family, Transport};
use netpol_core::{Flow, Origin, Payload};
use proptest::prelude::*;

use super::meaning::{Found, Packet, Walked, walk, walk_on};
use crate::name::Name;
use crate::render::Fixed;
use crate::ruleset::{Elements, Interface, Key, Ruleset, Verdict};

/// How many addresses of each family packets have that change, and that do not.
const CHANGED: usize = 4;
const OTHERS: usize = 2;

/// Checks that a packet which was led to the policy of an endpoint in a direction is judged by it as it was or as it is,
/// whichever of its lookups is the first to find the next state.
pub(super) fn on_the_way(before: &Ruleset, after: &Ruleset) -> Result<(), TestCaseError> {
    let flows = flows(before, after);
    for (chain, next) in entries(before, after) {
        for flow in &flows {
            let interface = Interface::new("any").unwrap();
            let packet = || Packet::new(*flow, interface, interface);
            let new = match &next {
                Some(Verdict::Jump(chain)) => walk(after, chain, &packet()),
                Some(Verdict::Drop) => Walked::Dropped,
                _ => Walked::Returned,
            };
            let endless = Found::on_the_way(before, after, usize::MAX);
            let old = walk_on(&endless, &chain, &packet());
            if old != new {
                continue;
            }
            for lookups in 0..usize::MAX - endless.left() {
                let got = walk_on(&Found::on_the_way(before, after, lookups), &chain, &packet());
                prop_assert_eq!(
                    &got,
                    &old,
                    "{:?} after {} lookups in {}:\n{}\nbecomes\n{}",
                    flow,
                    lookups,
                    chain,
                    before,
                    after
                );
            }
        }
    }
    Ok(())
}

/// Returns the chains that judge endpoints which stay, and what judges them next.
fn entries(before: &Ruleset, after: &Ruleset) -> Vec<(Name, Option<Verdict>)> {
    let mut entries = Vec::new();
    for (name, map) in &before.sets {
        let Elements::Verdicts(old) = &map.elements else { continue };
        for (key, verdict) in old {
            let stays = Fixed::Endpoints.name(*key).is_some_and(|it| after.has_key(&it, *key));
            let new = match after.sets.get(name).map(|it| &it.elements) {
                Some(Elements::Verdicts(new)) => new.get(key).cloned(),
                _ => None,
            };
            let entry = verdict.target().filter(|_| stays).map(|old| (old.clone(), new));
            entries.extend(entry.filter(|it| !entries.contains(it)));
        }
    }
    entries
}

/// Returns flows from and to addresses that come or go in a set, and some others.
fn flows(before: &Ruleset, after: &Ruleset) -> Vec<Flow> {
    let mut addresses = Vec::new();
    for family in Family::BOTH {
        let [old, new] = [before, after].map(|it| members(it, family));
        let changed = old.symmetric_difference(&new).take(CHANGED).map(|it| it.0);
        let others = old.intersection(&new).take(OTHERS).map(|it| it.0);
        let strange: IpAddr = match family {
            Family::V4 => [192, 0, 2, 9].into(),
            Family::V6 => [0x2001, 0xdb8, 9, 9, 9, 9, 9, 9].into(),
        };
        addresses.extend(changed.chain(others).chain([strange]));
    }
    let mut payloads = vec![Payload::Icmp { kind: 8, code: 0 }];
    for (transport, port) in [(Transport::Tcp, 80), (Transport::Tcp, 105), (Transport::Udp, 53)] {
        payloads.push(Payload::Ports { transport, source: 1024, destination: port });
    }
    let pairs = addresses.iter().flat_map(|one| addresses.iter().map(move |other| (*one, *other)));
    let pairs = pairs.filter(|(one, other)| Family::of(*one) == Family::of(*other));
    let flow = |(source, destination), payload| Flow {
        source,
        destination,
        payload,
        origin: Origin::Forwarded,
    };
    pairs.flat_map(|pair| payloads.iter().map(move |it| flow(pair, *it))).collect()
}

/// Returns the members of sets that change, each with its set.
fn members(ruleset: &Ruleset, family: Family) -> BTreeSet<(IpAddr, Name)> {
    let sets = ruleset.sets.iter().filter(|it| it.0.members_family() == Some(family));
    let mut members = BTreeSet::new();
    for (name, set) in sets {
        let Elements::Keys(keys) = &set.elements else { continue };
        members.extend(keys.iter().filter_map(|key| match *key {
            Key::V4(it) | Key::Target4(it, ..) => Some((it.into(), name.clone())),
            Key::V6(it) | Key::Target6(it, ..) => Some((it.into(), name.clone())),
            _ => None,
        }));
    }
    members
}
