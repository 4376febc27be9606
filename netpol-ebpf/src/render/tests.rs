//! Rendering, without a kernel.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use netpol_core::flat::{Limits, classify};
use netpol_core::model::{L4Match, Mode, Object, PortMatch};
use netpol_core::net::{PortRange, Transport};
use netpol_core::{Direction, Program};
use netpol_ebpf_abi::{Row, RowKey};
use zerocopy::FromBytes;

use super::*;
use crate::tests::world::{objects, objects_in, policy, program, to_nets, to_ports};

const OPTIONS: Options = Options { check_source: true, ports: 1000 };

fn render_with(program: &Program, ids: &mut Ids) -> Image {
    render(program, &classify(program, &Limits::unlimited()).unwrap(), ids, OPTIONS).unwrap()
}

fn ids() -> Ids {
    Ids::new(BTreeMap::new(), 0, 100)
}

/// Pod 0 takes these ports, and sends to a prefix only.
fn node(ports: &[(u16, u16)]) -> Vec<Object> {
    objects(vec![
        policy("in", Direction::Ingress, vec![to_ports(Transport::Tcp, ports)]),
        policy("out", Direction::Egress, vec![to_nets(&["192.0.2.0/24"])]),
    ])
}

fn new_objects(before: &Image, after: &Image) -> Vec<Kind> {
    after
        .objects
        .keys()
        .filter(|key| !before.objects.contains_key(key))
        .map(|(kind, _)| *kind)
        .collect()
}

#[test]
fn what_is_known_keeps_its_ids_and_its_bytes() {
    let program = program(&node(&[(80, 80)]));
    let mut ids = ids();
    let first = render_with(&program, &mut ids);
    let known = ids.clone();
    let again = render_with(&program, &mut ids);
    assert_eq!(first.objects, again.objects);
    assert_eq!(ids, known);
}

#[test]
fn a_change_of_one_policy_makes_its_table_and_nothing_else() {
    let mut ids = ids();
    let before = render_with(&program(&node(&[(80, 80)])), &mut ids);
    let after = render_with(&program(&node(&[(81, 81)])), &mut ids);
    // The counter of a rule follows the content of the rule.
    assert_eq!(new_objects(&before, &after), [Kind::Table, Kind::Rule]);
    let tables = |image: &Image| image.endpoints["np0"].record.tables;
    assert_ne!(tables(&before)[0], tables(&after)[0]);
    assert_eq!(tables(&before)[1], tables(&after)[1]);
}

#[test]
fn short_rows_hold_their_ranges_and_long_ones_refer_to_a_list() {
    let rows = |ports: &[(u16, u16)]| -> (Vec<Row>, Vec<Kind>) {
        let image = render_with(&program(&node(ports)), &mut ids());
        let table = image.endpoints["np0"].record.tables[0];
        let entries = &image.objects[&(Kind::Table, table)].entries[&Map::Rows];
        assert_eq!(
            RowKey::read_from_bytes(&entries.keys[..8]).unwrap(),
            RowKey { table, class: 0 }
        );
        let rows =
            entries.values.chunks(size_of::<Row>()).map(|it| Row::read_from_bytes(it).unwrap());
        (rows.collect(), image.objects.keys().map(|(kind, _)| *kind).collect())
    };
    let (short, kinds) = rows(&[(80, 80), (443, 443), (8000, 8100)]);
    assert!(short.iter().all(|row| row.list == 0 && row.ranges[2].last == 8100), "{short:?}");
    assert!(!kinds.contains(&Kind::List));
    let (long, kinds) = rows(&[(1, 1), (3, 3), (5, 5), (7, 7), (9, 9)]);
    assert!(
        long.iter().all(|row| row.list != 0 && row.ranges == [abi::Range::default(); 4]),
        "{long:?}"
    );
    assert!(kinds.contains(&Kind::List));
}

/// Whatever a process has written when it is killed, what has a name is as its successor wants it.
#[test]
fn objects_come_after_all_that_they_refer_to() {
    let mut by_source = to_ports(Transport::Tcp, &[(1, 1), (3, 3), (5, 5), (7, 7), (9, 9)]);
    if let L4Match::Ports { source, .. } = &mut by_source.l4 {
        let numbers = [PortRange::new(1000, 2000).unwrap()].into_iter().collect();
        source.any_of = Some(PortMatch { numbers, ..PortMatch::default() });
    }
    let rules = vec![by_source, to_ports(Transport::Udp, &[(53, 53)])];
    let program = program(&objects(vec![policy("in", Direction::Ingress, rules)]));
    let mut ids = ids();
    let whole = render_with(&program, &mut ids);
    let lists = whole.objects.keys().filter(|(kind, _)| *kind == Kind::List);
    assert_eq!(lists.count(), 2, "one of them of source ports");
    for count in 0..=whole.objects.len() {
        let written: Vec<_> = in_order(&whole.objects).take(count).collect();
        let names = written.iter().map(|((kind, id), it)| ((*kind, it.digest), *id)).collect();
        let after = render_with(&program, &mut Ids::new(names, ids.last(), 100));
        for (name, object) in written {
            assert_eq!(after.objects.get(name), Some(object), "{name:?} after {count}");
        }
    }
}

#[test]
fn endpoints_say_what_is_in_force() {
    let image = render_with(&program(&node(&[(80, 80)])), &mut ids());
    let [pod0, pod1] = ["np0", "np1"].map(|interface| image.endpoints[interface].record);
    let carriers = abi::NO_IP_IN_IP | abi::NO_TUNNELS;
    assert_eq!(pod0.flags, abi::CHECK_SOURCE | abi::PREFIXES_V4 | carriers);
    assert_eq!(pod0.tunnels, [4789_u16.to_be(); abi::TUNNELS]);
    assert_eq!(pod1.tables, [abi::OPEN; 2]);
    assert_eq!(pod0.v4.to_ne_bytes(), [10, 0, 0, 1]);
    let mode = |mode| {
        let image = render_with(&program(&objects_in(mode, vec![])), &mut ids());
        image.endpoints["np0"].record.flags
    };
    assert_eq!(mode(Mode::Audit) & abi::AUDIT, abi::AUDIT);
    assert_eq!(mode(Mode::Isolate), abi::ISOLATED);
}

#[test]
fn endpoints_that_cannot_be_enforced_are_named() {
    let mut program = program(&node(&[(80, 80)]));
    program.endpoints[1].attachment = Attachment::Address;
    program.endpoints[2].attachment = program.endpoints[0].attachment.clone();
    let image = render_with(&program, &mut ids());
    let [(address, first), (shared, second)] = image.isolated.as_slice() else {
        panic!("{:?}", image.isolated)
    };
    assert_eq!((address.name.as_str(), shared.name.as_str()), ("pod1", "pod2"));
    assert!(matches!((&**first, &**second), (EbpfError::Address, EbpfError::Shared { .. })));
    assert_eq!(image.endpoints["np0"].record.flags, abi::ISOLATED);
    assert_eq!(image.endpoints.len(), 1);
}

#[test]
fn lists_that_are_too_long_are_refused() {
    let ranges: Vec<(u16, u16)> = (0..50).map(|it| (it * 1000 + 1, it * 1000 + 998)).collect();
    let program = program(&node(&ranges));
    let flat = classify(&program, &Limits::unlimited()).unwrap();
    let error = render(&program, &flat, &mut ids(), Options { check_source: true, ports: 100 })
        .unwrap_err();
    assert!(matches!(error, EbpfError::Ports { needed, limit: 100 } if needed > 500), "{error}");
}
