//! Limits are kept, and what is over them is named.

use super::*;

/// Two endpoints: the policy set of the first tells 5 classes from `other`, that of the second 2.
fn two_sets() -> Program {
    let blocks = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24", "fd00::/64"];
    let many = |(index, block): (usize, &&str)| from(&[block], allow(index, L4Match::Any));
    let mut program = program_of(blocks.iter().enumerate().map(many).collect());
    let few = vec![
        from_set("a", allow(7, tcp_to(&[(1, 1), (3, 3), (5, 5)]))),
        from(&["192.0.2.0/24"], allow(8, L4Match::Any)),
    ];
    add_endpoint(&mut program, "another", &["10.9.0.2"], vec![stage(few, StageEnd::Deny)]);
    add_set(&mut program, "a", &["10.0.9.1", "10.0.9.2"], &[]);
    program
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::unlimited();
    change(&mut limits);
    limits
}

fn second(program: &Program) -> TableKey {
    TableKey { policy_set: program.endpoints[1].ingress, direction: Direction::Ingress }
}

#[test]
fn what_is_over_a_total_is_an_error() {
    let program = two_sets();
    let (first, second) = (ingress(&program), second(&program));
    for (what, change, want) in [
        (
            "addresses",
            (|it| it.addresses = 1) as fn(&mut Limits),
            "needs 2 IPv4 addresses, the limit is 1".to_string(),
        ),
        ("prefixes", |it| it.prefixes = 4, "needs 5 IPv4 prefixes, the limit is 4".to_string()),
        (
            "entries",
            |it| it.entries = 12,
            format!(
                "needs 13 pairs of policy set and class, the limit is 12, at policy set {first}"
            ),
        ),
        (
            "ranges",
            |it| it.ranges = 2,
            format!("needs 3 ranges, the limit is 2, at policy set {second}"),
        ),
    ] {
        let error = classify(&program, &limits(change)).unwrap_err();
        assert_eq!(error.to_string(), want, "{what}");
    }
    let exact = limits(|it| {
        (it.addresses, it.prefixes, it.entries, it.ranges) = (2, 5, 13, 3);
        (it.entries_per_policy_set, it.ranges_per_row) = (7, 3);
    });
    assert_eq!(classify(&program, &exact).unwrap(), flat(&program));
}

#[test]
fn a_policy_set_over_its_share_is_left_to_others() {
    let program = two_sets();
    for (limits, left_out, kept, message) in [
        (
            limits(|it| it.entries_per_policy_set = 6),
            ingress(&program),
            second(&program),
            "needs 7 classes in one policy set, the limit is 6",
        ),
        (
            limits(|it| it.ranges_per_row = 2),
            second(&program),
            ingress(&program),
            "needs 3 ranges in one row, the limit is 2",
        ),
    ] {
        let flat = classify(&program, &limits).unwrap();
        let reason = flat.unclassified()[&left_out].to_string();
        assert_eq!(reason, format!("{message}, at policy set {left_out}"));
        assert_eq!(flat.unclassified().len(), 1);
        let all = super::flat(&program);
        let rows = |flat: &Flat| {
            let table = &flat.tables()[&kept];
            let rows =
                table.entries().iter().map(|(_, row)| written(flat, &flat.rows()[row.0 as usize]));
            rows.collect::<Vec<_>>()
        };
        assert_eq!(rows(&flat), rows(&all), "the other policy set is as it was");
        assert_eq!(
            flat.size().leaves,
            flat.size().rows,
            "nothing is left over of what was left out"
        );
    }
}

#[test]
fn bounds_are_never_less_than_sizes() {
    let program = two_sets();
    let (bound, size) = (size_bound(&program), flat(&program).size());
    assert_eq!((bound.addresses, bound.prefixes), (size.addresses, size.prefixes));
    assert_eq!((bound.classes, size.classes), (9, 9));
    assert_eq!(bound.entries.values().sum::<usize>(), 13);
    assert_eq!(size.entries, 13);
}

#[test]
fn ranges_of_ports_and_sources_are_bounded_while_they_are_made() {
    // Every rule cuts all ports in two ways: far more ranges than ports.
    let stripes = |start: u16| {
        let ranges: Vec<_> = (0..400).map(|it| (start + it * 100, start + it * 100 + 30)).collect();
        PortConstraint { any_of: Some(ports(&ranges)), none_of: None }
    };
    let program = program_of(vec![allow(0, tcp(stripes(1), stripes(7)))]);
    let flat = flat(&program);
    let Unclassified::Capacity(error) = &flat.unclassified()[&ingress(&program)] else {
        unreachable!("a policy set without a table")
    };
    assert_eq!((error.resource, error.limit), (Resource::RangesOfRow, 1 << 17));
}
