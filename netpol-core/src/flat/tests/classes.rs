//! Which addresses are in one class, and which rows are stored.

use super::*;

/// Writes out the prefixes and single addresses, each with the rule that a flow from there meets.
fn regions(program: &Program) -> Vec<String> {
    let flat = flat(program);
    let table = ingress(program);
    let verdict = |class| leaf(&flat, flat.row(table, class).unwrap().default);
    let prefixes = flat.prefixes().map(|(it, class)| format!("{it} {}", verdict(class)));
    let addresses =
        flat.addresses().into_iter().map(|(it, class)| format!("{it} {}", verdict(class)));
    prefixes.chain(addresses).collect()
}

#[test]
fn nested_prefixes_are_found_by_the_longest() {
    let program = program_of(vec![
        from(&["10.1.1.1/32", "10.1.1.128/25"], deny(0, L4Match::Any)),
        from(&["10.1.1.0/24"], allow(1, L4Match::Any)),
        from(&["10.1.0.0/16", "fd00::/64"], deny(2, L4Match::Any)),
        from(&["10.0.0.0/8"], allow(3, L4Match::Any)),
    ]);
    assert_eq!(
        regions(&program),
        [
            "10.0.0.0/8 allow: rule 3",
            "10.1.0.0/16 deny: rule 2",
            "10.1.1.0/24 allow: rule 1",
            "10.1.1.128/25 deny: rule 0",
            "fd00::/64 deny: rule 2",
            "10.1.1.1 deny: rule 0",
        ]
    );
    for (remote, want) in [
        ("9.255.255.255", "deny: no match"),
        ("10.0.0.0", "allow: rule 3"),
        ("10.1.0.0", "deny: rule 2"),
        ("10.1.1.0", "allow: rule 1"),
        ("10.1.1.1", "deny: rule 0"),
        ("10.1.1.2", "allow: rule 1"),
        ("10.1.1.127", "allow: rule 1"),
        ("10.1.1.128", "deny: rule 0"),
        ("10.1.2.0", "deny: rule 2"),
        ("10.2.0.0", "allow: rule 3"),
        ("10.255.255.255", "allow: rule 3"),
        ("11.0.0.0", "deny: no match"),
        ("fd00::1", "deny: rule 2"),
        ("fd00:0:0:1::", "deny: no match"),
    ] {
        assert_eq!(row_of(&program, remote), [format!("else {want}")], "{remote}");
    }
}

#[test]
fn exceptions_are_prefixes_that_are_not_there() {
    let but = |holes: &[&str], mut rule: Rule| {
        rule.remote.not_nets = nets(holes);
        rule
    };
    let program = program_of(vec![
        but(&["10.0.0.0/8"], from(&["0.0.0.0/0"], allow(0, L4Match::Any))),
        but(&["10.1.0.0/16"], allow(1, L4Match::Is(Protocol::TCP))),
    ]);
    for (remote, want) in [
        ("9.0.0.1", vec!["else allow: rule 0"]),
        ("10.0.0.1", vec!["else deny: no match", "TCP 0-65535 allow: rule 1"]),
        ("10.1.0.1", vec!["else deny: no match"]),
        ("fd00::1", vec!["else deny: no match", "TCP 0-65535 allow: rule 1"]),
    ] {
        assert_eq!(row_of(&program, remote), want, "{remote}");
    }
}

#[test]
fn a_prefix_of_everything_is_the_class_other() {
    let program = program_of(vec![
        from(&["10.0.0.0/8"], deny(0, L4Match::Any)),
        from(&["0.0.0.0/0"], allow(1, L4Match::Any)),
    ]);
    let flat = flat(&program);
    assert_eq!(flat.prefixes().count(), 1);
    assert_eq!(flat.tables()[&ingress(&program)].entries().len(), 1, "that of 10.0.0.0/8");
    let other = |family| {
        let row = flat.row(ingress(&program), flat.other(family)).unwrap();
        written(&flat, row)
    };
    assert_eq!(other(Family::V4), ["else allow: rule 1"]);
    assert_eq!(other(Family::V6), ["else deny: no match"]);
    assert_eq!(row_of(&program, "10.0.0.1"), ["else deny: rule 0"]);
}

#[test]
fn members_that_nothing_tells_apart_are_one_class() {
    let mut program = program_of(vec![
        from_set("a", allow(0, tcp_to(&[(80, 80)]))),
        from_set("b", allow(1, tcp_to(&[(443, 443)]))),
    ]);
    add_set(&mut program, "a", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"], &["10.1.0.0/24"]);
    add_set(&mut program, "b", &["10.0.0.3", "10.0.0.4", "10.1.0.9"], &["10.1.0.0/24"]);
    add_set(&mut program, "unused", &["10.0.0.1"], &[]);
    let flat = flat(&program);
    let class = |text| flat.class_of(address(text));
    assert_eq!(class("10.0.0.1"), class("10.0.0.2"));
    assert_eq!(class("10.0.0.3"), class("10.1.0.1"), "in both, singly or by a prefix");
    assert_eq!(class("10.1.0.9"), class("10.1.0.1"));
    let different =
        ["10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "fd00::1", "fd00::2"].map(class);
    assert!((1..different.len()).all(|it| !different[..it].contains(&different[it])));
    assert_eq!(flat.classes().len(), different.len());
    assert_eq!(flat.addresses().len(), 5, "10.1.0.9 has the class of its prefix");
    assert_eq!(flat.tables()[&ingress(&program)].entries().len(), 4, "all but the classes `other`");
}

#[test]
fn sets_can_hold_single_addresses_as_prefixes_and_can_be_missing() {
    let mut program = program_of(vec![
        from_set("missing", deny(0, L4Match::Any)),
        from_set("a", allow(1, L4Match::Any)),
    ]);
    add_set(&mut program, "a", &[], &["10.0.0.7/32", "fd00::7/128"]);
    assert_eq!(flat(&program).prefixes().count(), 0);
    for (remote, want) in [
        ("10.0.0.7", "else allow: rule 1"),
        ("10.0.0.8", "else deny: no match"),
        ("fd00::7", "else allow: rule 1"),
    ] {
        assert_eq!(row_of(&program, remote), [want], "{remote}");
    }
}

#[test]
fn rows_as_of_other_are_not_stored() {
    // Members of `a` meet a condition that others do not, and are told the same.
    let mut program = program_of(vec![
        from_set("a", rule(0, Action::Pass, tcp_to(&[(80, 80)]))),
        rule(1, Action::Pass, tcp_to(&[(80, 80)])),
    ]);
    add_set(&mut program, "a", &["10.0.0.1"], &[]);
    let flat = flat(&program);
    assert!(flat.tables()[&ingress(&program)].entries().is_empty());
    assert_eq!(size_bound(&program).entries[&ingress(&program)], 3);
    assert_eq!(flat.size().entries, 4, "two families of two tables");
}

#[test]
fn named_ports_are_features_of_addresses() {
    let named = |negated: bool| {
        let list =
            Some(Ports { numbers: PortSet::default(), sets: vec![SetId::of(&port_set_of("web"))] });
        let constraint = if negated {
            PortConstraint { any_of: None, none_of: list }
        } else {
            PortConstraint { any_of: list, none_of: None }
        };
        tcp(PortConstraint::default(), constraint)
    };
    let members: &[(&str, u16)] = &[
        ("10.0.0.1", 80),
        ("10.0.0.2", 80),
        ("10.0.0.2", 8080),
        ("10.0.0.3", 80),
        ("10.0.0.4", 8080),
    ];
    let row = |negated, remote: &str| {
        let mut program = Program::default();
        let set = PolicySet {
            stages: vec![stage(vec![allow(0, named(negated))], StageEnd::Deny)],
            default: Verdict::Allow,
        };
        add_endpoint(&mut program, "pod", &["10.9.0.1"], Vec::new());
        program.endpoints[0].egress = PolicySetId::of(&set);
        program.policy_sets.insert(PolicySetId::of(&set), Arc::new(set));
        add_port_set(&mut program, "web", members);
        let flat = flat(&program);
        let key =
            TableKey { policy_set: program.endpoints[0].egress, direction: Direction::Egress };
        assert_eq!(flat.class_of(address("10.0.0.1")), flat.class_of(address("10.0.0.3")));
        written(&flat, flat.row(key, flat.class_of(address(remote))).unwrap())
    };
    let denied = "else deny: no match";
    for (remote, want) in [
        ("10.0.0.1", vec![denied, "TCP 80-80 allow: rule 0"]),
        ("10.0.0.2", vec![denied, "TCP 80-80 allow: rule 0", "TCP 8080-8080 allow: rule 0"]),
        ("10.0.0.4", vec![denied, "TCP 8080-8080 allow: rule 0"]),
        ("10.0.0.5", vec![denied]),
    ] {
        assert_eq!(row(false, remote), want, "{remote}");
    }
    for (remote, want) in [
        ("10.0.0.1", vec![denied, "TCP 0-79 allow: rule 0", "TCP 81-65535 allow: rule 0"]),
        ("10.0.0.5", vec![denied, "TCP 0-65535 allow: rule 0"]),
    ] {
        assert_eq!(row(true, remote), want, "not of {remote}");
    }
}

#[test]
fn keys_of_classes_do_not_depend_on_the_rest_of_the_program() {
    let rules = || {
        vec![from_set("a", allow(0, L4Match::Any)), from(&["10.0.0.0/8"], deny(1, L4Match::Any))]
    };
    let mut small = program_of(rules());
    let mut large = program_of(rules());
    let more = vec![
        from(&["172.16.0.0/12"], deny(2, L4Match::Any)),
        from_set("b", allow(3, L4Match::Any)),
        from_set("a", allow(4, L4Match::Any)),
    ];
    add_endpoint(&mut large, "another", &["10.9.0.2"], vec![stage(more, StageEnd::Deny)]);
    for program in [&mut small, &mut large] {
        add_set(program, "a", &["10.0.0.1", "10.0.0.2"], &[]);
    }
    add_set(&mut large, "b", &["10.0.0.2"], &[]);
    let (small, large) = (flat(&small), flat(&large));
    let key = |flat: &Flat, text| flat.class_key(flat.class_of(address(text))).unwrap();
    for text in ["10.0.0.1", "10.0.0.9", "192.0.2.1", "fd00::1"] {
        assert_eq!(key(&small, text), key(&large, text), "{text}");
    }
    assert_ne!(key(&small, "10.0.0.2"), key(&large, "10.0.0.2"), "now also in `b`");
    assert_ne!(key(&small, "192.0.2.1"), key(&small, "fd00::1"), "families differ");
    assert_eq!(small.class_key(ClassId(99)), None);
}

#[test]
fn a_policy_set_without_rules_judges_both_directions() {
    let program = program(Vec::new());
    let flat = flat(&program);
    assert_eq!(flat.tables().len(), 2);
    assert_eq!((flat.rows().len(), flat.leaves().len(), flat.counters().len()), (1, 1, 1));
    let counter = Counter::Unmatched { verdict: Verdict::Allow, reason: Reason::DefaultVerdict };
    assert_eq!(flat.counters(), [counter]);
}

#[test]
fn a_rule_counts_once_however_it_is_reached() {
    let program = program_of(vec![
        from(&["10.0.0.0/8"], rule(0, Action::Log, L4Match::Any)),
        allow(1, L4Match::Any),
    ]);
    let flat = flat(&program);
    let counters: Vec<_> = flat
        .leaves()
        .iter()
        .filter(|it| it.reason != Reason::DefaultVerdict)
        .map(|it| it.counter)
        .collect();
    assert_eq!(counters.len(), 2, "with a log and without");
    assert_eq!(counters[0], counters[1]);
    assert_eq!(
        flat.counters()[counters[0].0 as usize],
        Counter::Rule(RuleId::new(digest_of(&1_usize)))
    );
}
