//! Deltas lead where whole programs do, and no packet meets anything in between.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::model::{Action, HostSettings, Object};
use netpol_core::net::{Family, Transport};
use netpol_core::{Change, Dataplane, Flow, Origin, Payload, Program, Update};
use netpol_netfilter::Logging;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::cluster;
use super::fake::{Fake, Fault};
use super::history::{difference, histories, replay};
use super::kernel::full;
use super::laws::{open, program};
use super::meaning::{Packet, walk};
use super::program::{Builder, deny_unless, in_set, rule};
use crate::enforced::Enforced;
use crate::name::{Name, Owner, Side};
use crate::plan::{SetChange, desired_dispatch};
use crate::probe::KernelTable;
use crate::render::{Context, render};
use crate::ruleset::{Member, Ruleset};

fn rendered(program: &Program) -> Ruleset {
    let (owner, second_slots, refused) = Default::default();
    let context = Context {
        owner: &owner,
        families: &Family::BOTH,
        table: KernelTable::Filter,
        mark: 16,
        logging: Logging::DEFAULT,
        second_slots: &second_slots,
        refused: &refused,
    };
    render(program, context).ruleset
}

/// Checks that each policy judges packets as before or as after some changes, whichever of the sets have changed when a
/// packet looks into them.
fn meets_nothing_in_between(ruleset: &Ruleset, changes: &[SetChange]) -> Result<(), TestCaseError> {
    let mut by_set: BTreeMap<&Name, Vec<&SetChange>> = BTreeMap::new();
    changes.iter().for_each(|it| by_set.entry(it.set()).or_default().push(it));
    let states: Vec<Ruleset> = (0_usize..1 << by_set.len())
        .map(|chosen| {
            let mut state = ruleset.clone();
            let chosen = by_set.values().enumerate().filter(|it| chosen >> it.0 & 1 == 1);
            chosen.flat_map(|it| it.1).for_each(|it| change(&mut state, it));
            state
        })
        .collect();
    let (old, new) = (&states[0], &states[states.len() - 1]);
    for flow in flows(changes) {
        for (id, chains) in &ruleset.chains {
            let lists = Side::BOTH
                .map(|side| desired_dispatch(chains, &Owner::default().chain(side.dispatch())));
            let roots: BTreeSet<&Name> =
                lists.into_iter().flat_map(BTreeMap::into_values).collect();
            for root in roots.into_iter().filter(|_| id.family == flow.family()) {
                let judge = |state: &Ruleset| walk(state, root, &Packet::new(flow, None, None));
                let ends = [judge(old), judge(new)];
                for state in &states {
                    prop_assert!(ends.contains(&judge(state)), "{:?} in {}", flow, root);
                }
            }
        }
    }
    Ok(())
}

fn change(ruleset: &mut Ruleset, change: &SetChange) {
    let members = &mut ruleset.sets.get_mut(change.set()).unwrap().members;
    match change {
        SetChange::Add { member, .. } => members.push(*member),
        SetChange::Remove { member, .. } => members.retain(|it| it != member),
        other => panic!("{other}"),
    }
}

/// Returns flows from and to members that come or go, and others.
fn flows(changes: &[SetChange]) -> Vec<Flow> {
    let members = changes.iter().filter_map(|it| match it {
        SetChange::Add { member, .. } | SetChange::Remove { member, .. } => Some(*member),
        _ => None,
    });
    let addresses = members.map(|it| match it {
        Member::Address(it) | Member::Port(it, ..) => it,
        Member::Prefix(it) => it.first(),
    });
    let mut addresses: BTreeSet<IpAddr> = addresses.take(8).collect();
    addresses.extend(["192.0.2.9", "2001:db8::9"].map(|it| it.parse::<IpAddr>().unwrap()));
    let mut flows = Vec::new();
    for &source in &addresses {
        for &destination in addresses.iter().filter(|it| Family::of(**it) == Family::of(source)) {
            for port in [80, 105] {
                let transport = Transport::Tcp;
                let payload = Payload::Ports { transport, source: 1024, destination: port };
                flows.push(Flow { source, destination, payload, origin: Origin::Forwarded });
            }
        }
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn members_change_where_packets_meet_the_old_policy_or_the_new_one(
        seeds in proptest::collection::vec(any::<u16>(), 1..4),
        members in proptest::collection::vec(any::<u8>(), 1..20),
        more in proptest::collection::vec(any::<u8>(), 1..4),
        gone in 0..3_usize,
        fault in proptest::option::of((0..4_usize, any::<bool>())),
    ) {
        let mut others = members.clone();
        others.truncate(members.len() - gone.min(members.len() - 1));
        others.extend(&more);
        let [one, two] = [&members, &others].map(|it| program(&seeds, it));
        let delta = difference(&one, &two);
        let ruleset = rendered(&one);
        if let Some(plan) = Enforced::of(&Owner::default(), &one, &ruleset).plan(&delta) {
            meets_nothing_in_between(&ruleset, &plan.members)?;
        }
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        if let Some((nth, late)) = fault {
            fake.fail(nth, if late { Fault::Late } else { Fault::Refused });
        }
        let mut outcome = dataplane.apply(Update::new(2, Change::Delta(Arc::new(delta))));
        if outcome.is_err() {
            outcome = dataplane.apply(full(&two));
        }
        prop_assert!(outcome.unwrap().isolated.is_empty());
        if fault.is_some() {
            // What could not be removed goes with the next update.
            dataplane.apply(full(&two)).unwrap();
        }
        prop_assert_eq!(dataplane.audit(&two).unwrap().differences, Vec::<String>::new());
    }
}

#[test]
fn deltas_lead_where_whole_programs_do() {
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (members, unlisted) = (Cell::new(0), Cell::new(0));
    let clusters = prop_oneof![cluster::crowded(), cluster::objects()].prop_map(|mut objects| {
        for object in &mut objects {
            if let Object::Endpoint(it) = object {
                let namespace = it.id.namespace.as_deref().unwrap_or_default();
                let interface = format!("{namespace}{}{}", it.id.name, it.id.uid);
                *it = it.clone().attached_to(interface);
            }
        }
        objects
    });
    let test = |history| {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        replay(&history, &HostSettings::default(), |update, program| {
            let is_of_members = match &update.change {
                Change::Delta(it) => {
                    let mut rest = (**it).clone();
                    rest.members.clear();
                    rest.is_empty() && it.members.iter().all(|it| it.prefixes.is_empty())
                }
                _ => false,
            };
            fake.take_listings();
            let applied = dataplane.apply(update).unwrap();
            members.set(members.get() + usize::from(is_of_members));
            unlisted.set(unlisted.get() + usize::from(fake.take_listings() == 0));
            if applied.isolated.is_empty() {
                let drift = dataplane.audit(program).unwrap();
                prop_assert_eq!(drift.differences, Vec::<String>::new());
            }
            Ok(applied)
        })
    };
    runner.run(&histories(clusters), test).unwrap_or_else(|error| panic!("{error}"));
    let (members, unlisted) = (members.get(), unlisted.get());
    assert!(unlisted > 0 && unlisted * 2 > members, "{unlisted} of {members}");
}

/// A pod of another node that joins five sets, to which a policy refers, is five lines of one script.
#[test]
fn a_member_costs_what_it_is_however_large_the_program() {
    let node = |sets: usize, joined: bool| {
        let mut builder = Builder::new();
        let ids: Vec<_> = (0..sets)
            .map(|set| {
                let joins = joined && set < 5;
                let members =
                    ["10.0.0.1", "10.0.0.2"].into_iter().chain(joins.then_some("10.0.0.9"));
                builder.addresses(&format!("set{set}"), &members.collect::<Vec<_>>())
            })
            .collect();
        for (number, ids) in ids.chunks(5).enumerate() {
            let rules = ids.iter().zip(1..).map(|(id, number)| {
                let mut it = rule(number, Action::Allow);
                it.remote = in_set(*id);
                it
            });
            let mut pod = builder.endpoint(&format!("pod{number}"), &["10.1.0.1"]);
            pod.ingress = builder.policy(deny_unless(rules.collect()));
            builder.add(pod);
        }
        builder.build()
    };
    for sets in [5, 500] {
        let [before, after] = [false, true].map(|joined| node(sets, joined));
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&before)).unwrap();
        fake.take_listings();
        fake.take_history();
        let delta = Arc::new(difference(&before, &after));
        dataplane.apply(Update::new(2, Change::Delta(delta))).unwrap();
        assert_eq!((fake.take_listings(), fake.take_history().len()), (0, 5), "{sets} sets");
        assert!(dataplane.audit(&after).unwrap().is_none());
    }
}
