//! A flat form that follows the deltas of a program says what the flat form of the program says, and its changes are all
//! that changed.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "support/cluster.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod cluster;
#[path = "support/history.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod history;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_core::flat::{Changes, ClassId, Flat, Limits, RowId, TableKey, classify};
use netpol_core::model::{
    Action, Endpoint, EndpointId, EntityMatch, HostSettings, L4Match, Object, Peers, Policy,
    PolicyKey, PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{Family, PortRange, Transport};
use netpol_core::program::{Backend, Frontend, Frontends};
use netpol_core::{Applied, Capabilities, Change, Delta, Engine, NodeConfig, Program, Selector};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::cluster::{crowded, objects, with_single_addresses};
use self::history::{histories, replay};

/// What a dataplane would have: classes of single addresses, and rows of tables by class.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Maps {
    addresses: BTreeMap<IpAddr, ClassId>,
    rows: BTreeMap<(TableKey, ClassId), RowId>,
}

impl Maps {
    fn of(flat: &Flat) -> Self {
        let mut maps =
            Self { addresses: flat.addresses().into_iter().collect(), ..Self::default() };
        flat.tables().keys().for_each(|key| maps.add_table(flat, *key));
        maps
    }

    fn add_table(&mut self, flat: &Flat, key: TableKey) {
        let table = &flat.tables()[&key];
        let others = Family::BOTH.map(|it| (flat.other(it), table.other(it)));
        for (class, row) in others.into_iter().chain(table.entries().iter().copied()) {
            assert_eq!(self.rows.insert((key, class), row), None, "{key} was there");
        }
    }

    fn follow(&mut self, changes: &Changes, flat: &Flat) {
        for moved in &changes.moves {
            let before = match moved.after {
                Some(class) => self.addresses.insert(moved.address, class),
                None => self.addresses.remove(&moved.address),
            };
            assert_eq!(before, moved.before, "{}", moved.address);
        }
        for (key, class, row) in &changes.entries {
            assert_eq!(self.rows.insert((*key, *class), *row), None, "a row is never changed");
        }
        changes.new_tables.iter().for_each(|key| self.add_table(flat, *key));
        for (key, table) in &changes.removed_tables {
            let others = Family::BOTH.map(|it| (flat.other(it), table.other(it)));
            for (class, row) in others.into_iter().chain(table.entries().iter().copied()) {
                assert_eq!(self.rows.remove(&(*key, class)), Some(row), "{key} is not whole");
            }
        }
    }
}

#[derive(Default)]
struct Counts {
    deltas: Cell<usize>,
    changed: Cell<usize>,
    rows: Cell<usize>,
    different: Cell<usize>,
}

fn add(count: &Cell<usize>, more: usize) {
    count.set(count.get() + more);
}

fn follow(flat: &mut Flat, delta: &Delta, counts: &Counts) -> Result<(), TestCaseError> {
    let fresh = classify(&delta.program, &Limits::unlimited()).unwrap();
    add(&counts.deltas, 1);
    add(&counts.different, usize::from(!flat.differences(&fresh).is_empty()));
    let mut maps = Maps::of(flat);
    let (rows, leaves) = (flat.rows().to_vec(), flat.leaves().to_vec());
    let Some(changes) = flat.advance(delta, &Limits::unlimited()) else {
        *flat = fresh;
        return Ok(());
    };
    add(&counts.changed, 1);
    add(&counts.rows, changes.entries.len());
    maps.follow(&changes, flat);
    prop_assert_eq!(maps, Maps::of(flat));
    prop_assert!(flat.rows().starts_with(&rows) && flat.leaves().starts_with(&leaves));
    prop_assert_eq!(flat.differences(&fresh), Vec::new());
    prop_assert_eq!(fresh.differences(flat), Vec::new());
    for table in flat.tables().values() {
        prop_assert!(table.entries().is_sorted_by(|a, b| a.0 < b.0));
    }
    Ok(())
}

/// Leaves the own side of endpoints out of most rules, which would have all made anew.
fn without_own_side(mut objects: Vec<Object>) -> Vec<Object> {
    for object in &mut objects {
        let Object::Policy(policy) = object else { continue };
        let rules = policy.ingress.iter_mut().flatten();
        rules.for_each(|it| it.matches.destination = EntityMatch::default());
        let rules = policy.egress.iter_mut().flatten();
        rules.for_each(|it| it.matches.source = EntityMatch::default());
    }
    objects
}

/// Frontends that lead to pods, to frontends and to nothing; mostly none.
fn frontends() -> impl Strategy<Value = Arc<Frontends>> {
    let address = || select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.96.0.1", "fd00::1"]);
    let port = || select(vec![80, 81, 8080]);
    let backends = vec((address(), port()), 0..3);
    let some = vec((address(), port(), backends), 1..4).prop_map(|all| {
        let mut frontends = Frontends::default();
        for (address, port, backends) in all {
            let (address, transport) = (address.parse().unwrap(), Transport::Tcp);
            let backend = |(it, port): (&str, _)| Backend { address: it.parse().unwrap(), port };
            frontends.add(Frontend { address, transport, port }, backends.into_iter().map(backend));
        }
        Arc::new(frontends)
    });
    prop_oneof![2 => Just(Arc::default()), 1 => some]
}

#[test]
fn following_deltas_leads_to_what_the_program_says() {
    let counts = Counts::default();
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let clusters = prop_oneof![crowded(), objects()].prop_map(with_single_addresses);
    let clusters = clusters.prop_map(without_own_side);
    let test = |(history, frontends): (_, Arc<Frontends>)| {
        let mut flat = classify(&Program::default(), &Limits::unlimited()).unwrap();
        replay(&history, &HostSettings::default(), |update, program| {
            let mut program = program.clone();
            program.frontends = Arc::clone(&frontends);
            match &update.change {
                Change::Delta(delta) => {
                    let mut delta = (**delta).clone();
                    delta.program = Arc::new(program);
                    follow(&mut flat, &delta, &counts)?;
                }
                _ => flat = classify(&program, &Limits::unlimited()).unwrap(),
            }
            Ok(Applied::completely(update.generation))
        })
    };
    runner.run(&(histories(clusters), frontends()), test).unwrap_or_else(|error| panic!("{error}"));
    let Counts { deltas, changed, rows, different } = &counts;
    let [deltas, changed, rows, different] = [deltas, changed, rows, different].map(Cell::get);
    println!("{deltas} deltas, {different} of them matter, {changed} not made anew, {rows} rows");
    assert!(changed > deltas / 4 && different > deltas / 4 && rows > 100);
}

/// One policy changes again and again, to another port and another selector.
#[test]
fn what_nothing_leads_to_does_not_stay_for_good() {
    let peer = |number: usize| {
        let mut peer = Endpoint::new(EndpointId::workload("x", format!("peer{number}")));
        peer.labels = [("number", number.to_string())].into_iter().collect();
        peer.addresses =
            vec![Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap()).into()];
        Object::Endpoint(peer.on_node("elsewhere"))
    };
    let mut pod = Endpoint::new(EndpointId::workload("x", "pod")).on_node(cluster::NODE);
    pod.addresses = vec!["10.9.0.1".parse().unwrap()];
    let policy = |number: usize| {
        let mut matches = RuleMatch::default();
        let selector = Selector::equal("number", (number % 50).to_string()).unwrap();
        matches.source.peers = Some(Peers::Endpoints(selector));
        let port = PortRange::single(u16::try_from(number + 1).unwrap()).unwrap();
        let numbers = [port].into_iter().collect();
        let destination = PortConstraint {
            any_of: Some(PortMatch { numbers, ..PortMatch::default() }),
            none_of: None,
        };
        let source = PortConstraint::default();
        matches.l4 = L4Match::Ports { transport: Transport::Tcp, source, destination };
        let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
        policy.ingress = Some(vec![Rule::new(0, Action::Allow, matches)]);
        Object::Policy(policy)
    };
    let mut cluster: Vec<_> = (0..50).map(peer).collect();
    cluster.push(Object::Endpoint(pod));
    let mut engine = Engine::new(NodeConfig::new(cluster::NODE), &Capabilities::all());
    cluster.into_iter().for_each(|it| engine.upsert(it).unwrap());
    engine.inputs_complete();
    let limits = Limits::unlimited();
    let (mut flat, mut made, mut most) = (classify(&Program::default(), &limits).unwrap(), 0, 0);
    for number in 0..5000 {
        engine.upsert(policy(number)).unwrap();
        let update = engine.poll_update().unwrap();
        let (program, followed) = match &update.change {
            Change::Delta(delta) => (&delta.program, flat.advance(delta, &limits).is_some()),
            Change::Full(program) => (program, false),
            other => panic!("expected a program, got {other:?}"),
        };
        if !followed {
            made += 1;
            flat = classify(program, &limits).unwrap();
        }
        engine.handle_applied(Ok(Applied::completely(update.generation)));
        let size = flat.size();
        most = most.max(size.rows + size.classes + size.leaves + size.addresses[0]);
    }
    assert!((2..20).contains(&made), "made anew {made} times");
    assert!(most < 10_000, "{most} things");
}
