//! Deltas lead where whole programs do, and a packet on its way meets nothing in between.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_core::model::{Action, HostSettings, Mode, Object};
use netpol_core::program::{PolicySetId, SetId};
use netpol_core::{Change, Dataplane, Program, Update};
use nftnl_sys::libc;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::fake::Fake;
use super::history::{History, difference, histories, replay};
use super::kernel::in_namespace;
use super::laws::program;
use super::on_the_way::on_the_way;
use super::program::{Builder, deny_unless, in_set, rule};
use super::{cluster, hosts};
use crate::{NftConfig, NftDataplane};

fn open(fake: &Fake) -> NftDataplane {
    NftDataplane::with_kernel(Box::new(fake.clone()), NftConfig::default()).unwrap()
}

fn full(program: &Program) -> Update {
    Update::new(1, Change::Full(Arc::new(program.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_delta_leads_where_its_program_does(
        seeds in proptest::array::uniform2(proptest::collection::vec(any::<u16>(), 1..5)),
        members in proptest::array::uniform2(proptest::collection::vec(any::<u8>(), 0..60)),
        shared in 0..60_usize,
        fault in proptest::option::of((0..4_usize, prop_oneof![Just(libc::ENOMEM), Just(libc::EEXIST)])),
    ) {
        // Often only some come, or only some go.
        let [one, mut other] = members;
        other.extend(one.iter().take(shared));
        let programs = [(0, &one), (0, &other), (1, &one), (1, &other), (0, &one)];
        let [first, rest @ ..] = programs.map(|(seed, members)| program(&seeds[seed], members));
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&first)).unwrap();
        let mut previous = first;
        for program in rest {
            let mut before = fake.table().unwrap();
            fake.take_history();
            let delta = Arc::new(difference(&previous, &program));
            if let Some((nth, errno)) = fault {
                fake.fail(nth, errno);
            }
            let mut outcome = dataplane.apply(Update::new(2, Change::Delta(delta)));
            if outcome.is_err() {
                outcome = dataplane.apply(full(&program));
            }
            prop_assert!(outcome.unwrap().isolated.is_empty());
            fake.take_faults();
            for state in fake.take_history() {
                on_the_way(&before, &state)?;
                before = state;
            }
            let mut differences = dataplane.audit(&program).unwrap().differences;
            // What could not be removed goes with the next update.
            differences.retain(|it| fault.is_none() || !it.ends_with("is too many"));
            prop_assert_eq!(differences, Vec::<String>::new());
            previous = program;
        }

        // A process that dies leaves to the next one what it did not sweep.
        let last = program(&seeds[1], &other);
        let delta = Arc::new(difference(&previous, &last));
        dataplane.apply(Update::new(3, Change::Delta(delta))).unwrap();
        drop(dataplane);
        let mut next = open(&fake);
        next.apply(full(&last)).unwrap();
        prop_assert_eq!(next.audit(&last).unwrap().differences, Vec::<String>::new());
    }
}

fn attached(clusters: impl Strategy<Value = Vec<Object>>) -> impl Strategy<Value = Vec<Object>> {
    clusters.prop_map(|mut objects| {
        for object in &mut objects {
            if let Object::Endpoint(it) = object {
                let namespace = it.id.namespace.as_deref().unwrap_or_default();
                let interface = format!("{namespace}{}{}", it.id.name, it.id.uid);
                *it = it.clone().attached_to(interface);
            }
        }
        objects
    })
}

/// How many deltas there were, and how many of them left the table unread.
#[derive(Debug, Default)]
struct Counts {
    deltas: Cell<usize>,
    unread: Cell<usize>,
}

fn follow(
    history: &History,
    settings: &HostSettings,
    counts: &Counts,
) -> Result<(), TestCaseError> {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    replay(history, settings, |update, program| {
        let is_delta = matches!(update.change, Change::Delta(_));
        let mut before = fake.table().unwrap_or_default();
        fake.take_observations();
        fake.take_history();
        let applied = dataplane.apply(update).unwrap();
        counts.deltas.set(counts.deltas.get() + usize::from(is_delta));
        let is_unread = fake.take_observations() == 0;
        counts.unread.set(counts.unread.get() + usize::from(is_unread));
        for state in fake.take_history() {
            on_the_way(&before, &state)?;
            before = state;
        }
        if applied.isolated.is_empty() {
            let drift = dataplane.audit(program).unwrap();
            prop_assert_eq!(drift.differences, Vec::<String>::new());
        }
        Ok(applied)
    })
}

fn run(strategy: impl Strategy<Value = (History, HostSettings)>) -> Counts {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let counts = Counts::default();
    let test = |(history, settings)| follow(&history, &settings, &counts);
    runner.run(&strategy, test).unwrap_or_else(|error| panic!("{error}"));
    counts
}

#[test]
fn deltas_lead_where_whole_programs_do() {
    let clusters = prop_oneof![cluster::crowded(), cluster::objects()];
    let histories = histories(attached(clusters));
    let counts = run((histories, Just(HostSettings::default())));
    assert!(counts.unread.get() * 10 > counts.deltas.get() * 8, "{counts:?}");
}

#[test]
fn deltas_of_nodes_with_host_endpoints_do_too() {
    let counts = run((histories(hosts::objects()), hosts::settings()));
    assert!(counts.unread.get() * 10 > counts.deltas.get(), "{counts:?}");
}

/// A node of pods with one policy each, which refers to one of many sets of members.
fn node(pods: u32, sets: u32, extra: Option<u32>) -> Program {
    let mut builder = Builder::new();
    let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number));
    let ids: Vec<SetId> = (0..sets)
        .map(|set| {
            let members = (0..3).chain(extra.filter(|_| set < 5)).map(|it| address(set * 8 + it));
            builder.set(&format!("set{set}"), members.collect(), Default::default())
        })
        .collect();
    let policies: Vec<PolicySetId> = (0..sets / 5)
        .map(|policy| {
            let rules = (0..5).map(|number| {
                let mut rule = rule(number, Action::Allow);
                rule.remote =
                    in_set(ids[usize::try_from(policy * 5).unwrap() + usize::from(number)]);
                rule
            });
            builder.policy(deny_unless(rules.collect()))
        })
        .collect();
    for pod in 0..pods {
        let mut endpoint =
            builder.endpoint(&format!("pod{pod}"), &[&address(0x10_0000 + pod).to_string()]);
        endpoint.ingress = policies[usize::try_from(pod).unwrap() % policies.len()];
        builder.add(endpoint);
    }
    builder.build()
}

#[test]
fn a_member_costs_what_it_is_however_large_the_program() {
    let costs = [(20, 100), (200, 1000), (2000, 10_000)].map(|(pods, sets)| {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        let [before, after] = [None, Some(7)].map(|extra| node(pods, sets, extra));
        let delta = difference(&before, &after);
        dataplane.apply(full(&before)).unwrap();
        fake.take_bytes();
        fake.take_history();
        fake.take_observations();
        dataplane.apply(Update::new(2, Change::Delta(Arc::new(delta)))).unwrap();
        assert_eq!(fake.take_observations(), 0);
        (fake.take_history().len(), fake.take_bytes())
    });
    assert_eq!(costs, [(1, costs[0].1); 3]);
    assert!(costs[0].1 < 1000, "{costs:?}");
}

/// An endpoint that is audited needs no set, however its members change, and all of them when it is judged again.
#[test]
fn a_set_that_nothing_needed_for_a_while_is_made_with_all_members() {
    let program = |mode: Mode, members: &[&str]| {
        let mut builder = Builder::new();
        let mut rule = rule(1, Action::Allow);
        rule.remote = in_set(builder.addresses("set", members));
        let mut pod = builder.endpoint("pod", &["10.1.0.1"]);
        pod.ingress = builder.policy(deny_unless(vec![rule]));
        pod.mode = mode;
        builder.add(pod).build()
    };
    let steps = [
        program(Mode::Enforce, &["10.0.0.1"]),
        program(Mode::Audit, &["10.0.0.1", "10.0.0.2"]),
        program(Mode::Enforce, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ];
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    dataplane.apply(full(&steps[0])).unwrap();
    for pair in steps.windows(2) {
        fake.take_observations();
        let delta = Change::Delta(Arc::new(difference(&pair[0], &pair[1])));
        dataplane.apply(Update::new(2, delta)).unwrap();
        assert_eq!(fake.take_observations(), 0);
        assert_eq!(dataplane.audit(&pair[1]).unwrap().differences, Vec::<String>::new());
    }
}

#[test]
fn the_real_kernel_follows_deltas() {
    let clusters = prop_oneof![cluster::crowded(), cluster::objects()];
    let strategy = histories(attached(clusters));
    in_namespace(move || {
        let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
        let mut runner =
            TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let test = |history| {
            let mut dataplane = NftDataplane::open(NftConfig::default()).unwrap();
            replay(&history, &HostSettings::default(), |update, program| {
                let applied = dataplane.apply(update).unwrap();
                if applied.isolated.is_empty() {
                    let drift = dataplane.audit(program).unwrap();
                    prop_assert_eq!(drift.differences, Vec::<String>::new());
                }
                Ok(applied)
            })
        };
        runner.run(&strategy, test).unwrap_or_else(|error| panic!("{error}"));
    });
}
