//! What rows say.

use alloc::collections::BTreeSet;

use super::*;
use crate::net::IcmpMatch;

/// Checks the row of a program of these rules, for any address.
fn check(what: &str, rules: Vec<Rule>, want: &[&str]) {
    assert_eq!(row_of(&program_of(rules), "192.0.2.1"), want, "{what}");
}

#[test]
fn ranges_are_split_where_rules_begin_and_end() {
    let cases: [(&str, Vec<Rule>, &[&str]); 8] = [
        ("no rule", vec![], &["else deny: no match"]),
        (
            "one port",
            vec![allow(0, tcp_to(&[(80, 80)]))],
            &["else deny: no match", "TCP 80-80 allow: rule 0"],
        ),
        (
            "the first rule wins where two overlap",
            vec![allow(0, tcp_to(&[(80, 90)])), deny(1, tcp_to(&[(85, 100)]))],
            &["else deny: no match", "TCP 80-90 allow: rule 0", "TCP 91-100 deny: rule 1"],
        ),
        (
            "a rule inside of another",
            vec![deny(0, tcp_to(&[(85, 85)])), allow(1, tcp_to(&[(80, 90)]))],
            &[
                "else deny: no match",
                "TCP 80-84 allow: rule 1",
                "TCP 85-85 deny: rule 0",
                "TCP 86-90 allow: rule 1",
            ],
        ),
        (
            "neighbours with one answer are one",
            vec![allow(0, tcp_to(&[(80, 80), (82, 82)])), allow(0, tcp_to(&[(81, 81)]))],
            &["else deny: no match", "TCP 80-82 allow: rule 0"],
        ),
        (
            "cells of two protocols are never one",
            vec![allow(0, tcp_to(&[(80, 80)])), allow(0, udp_to(&[(81, 81)]))],
            &["else deny: no match", "TCP 80-80 allow: rule 0", "UDP 81-81 allow: rule 0"],
        ),
        (
            "the last port, and what any rule leaves",
            vec![deny(0, tcp_to(&[(65_535, 65_535)])), allow(1, L4Match::Any)],
            &["else allow: rule 1", "TCP 65535-65535 deny: rule 0"],
        ),
        (
            "a rule behind one that matches everything",
            vec![allow(0, L4Match::Any), deny(1, tcp_to(&[(80, 80)]))],
            &["else allow: rule 0"],
        ),
    ];
    for (what, rules, want) in cases {
        check(what, rules, want);
    }
}

fn udp_to(ranges: &[(u16, u16)]) -> L4Match<Ports> {
    let destination = PortConstraint { any_of: Some(ports(ranges)), none_of: None };
    L4Match::Ports { transport: Transport::Udp, source: PortConstraint::default(), destination }
}

#[test]
fn ports_can_be_negated() {
    let not = |any_of, none_of| tcp(PortConstraint::default(), PortConstraint { any_of, none_of });
    check(
        "every port but one, port 0 included",
        vec![allow(0, not(None, Some(ports(&[(80, 80)]))))],
        &["else deny: no match", "TCP 0-79 allow: rule 0", "TCP 81-65535 allow: rule 0"],
    );
    check(
        "some but not others",
        vec![allow(0, not(Some(ports(&[(80, 90)])), Some(ports(&[(1, 80), (85, 86)]))))],
        &["else deny: no match", "TCP 81-84 allow: rule 0", "TCP 87-90 allow: rule 0"],
    );
    check(
        "none at all",
        vec![allow(0, not(Some(ports(&[(80, 80)])), Some(ports(&[(1, 65_535)]))))],
        &["else deny: no match"],
    );
    check(
        "any port of a transport is every port",
        vec![allow(0, not(None, None))],
        &["else deny: no match", "TCP 0-65535 allow: rule 0"],
    );
}

#[test]
fn protocols_without_a_rule_have_the_default() {
    let not = |them: &[Protocol]| L4Match::IsNot(them.iter().copied().collect::<BTreeSet<_>>());
    let gre = Protocol::new(47);
    check(
        "one protocol",
        vec![allow(0, L4Match::Is(gre))],
        &["else deny: no match", "47 0-65535 allow: rule 0"],
    );
    check(
        "all but two",
        vec![allow(0, not(&[Protocol::UDP, gre]))],
        &["else allow: rule 0", "UDP 0-65535 deny: no match", "47 0-65535 deny: no match"],
    );
    check(
        "all but one, of which some ports",
        vec![allow(0, not(&[Protocol::TCP])), allow(1, tcp_to(&[(443, 443)]))],
        &[
            "else allow: rule 0",
            "TCP 0-442 deny: no match",
            "TCP 443-443 allow: rule 1",
            "TCP 444-65535 deny: no match",
        ],
    );
}

#[test]
fn icmp_is_ranges_of_type_and_code() {
    let message = |kind, code| Some(IcmpMatch { kind, code });
    let icmp = |family, is, is_not| L4Match::Icmp { family, is, is_not };
    check(
        "one type",
        vec![allow(0, icmp(Family::V4, message(8, None), None))],
        &["else deny: no match", "ICMP 2048-2303 allow: rule 0"],
    );
    check(
        "one type but one code, and every other type but one",
        vec![
            deny(0, icmp(Family::V4, message(3, None), message(3, Some(4)))),
            allow(1, icmp(Family::V4, None, message(255, None))),
        ],
        &[
            "else deny: no match",
            "ICMP 0-767 allow: rule 1",
            "ICMP 768-771 deny: rule 0",
            "ICMP 772-772 allow: rule 1",
            "ICMP 773-1023 deny: rule 0",
            "ICMP 1024-65279 allow: rule 1",
        ],
    );
    let of_both = vec![
        allow(0, icmp(Family::V6, message(128, Some(0)), None)),
        allow(1, L4Match::Is(Protocol::ICMPV6)),
    ];
    check(
        "over IPv4, ICMPv6 is a protocol like any other",
        of_both.clone(),
        &["else deny: no match", "ICMPv6 0-65535 allow: rule 1"],
    );
    assert_eq!(
        row_of(&program_of(of_both), "2001:db8::1"),
        [
            "else deny: no match",
            "ICMPv6 0-32767 allow: rule 1",
            "ICMPv6 32768-32768 allow: rule 0",
            "ICMPv6 32769-65535 allow: rule 1",
        ]
    );
}

#[test]
fn source_ports_make_a_list_of_their_own() {
    let only = |ranges| PortConstraint { any_of: Some(ports(ranges)), none_of: None };
    check(
        "from a port to a port, and what a later rule leaves",
        vec![
            deny(0, tcp(only(&[(53, 53)]), only(&[(80, 80)]))),
            allow(1, tcp(PortConstraint::default(), only(&[(80, 81)]))),
        ],
        &[
            "else deny: no match",
            "TCP 80-80 by source [0-52 allow: rule 1, 53-53 deny: rule 0, 54-65535 allow: rule 1]",
            "TCP 81-81 allow: rule 1",
        ],
    );
    check(
        "a list that says one thing is no list",
        vec![
            allow(0, tcp(only(&[(1, 99)]), only(&[(80, 80)]))),
            allow(0, tcp(PortConstraint::default(), only(&[(80, 80)]))),
        ],
        &["else deny: no match", "TCP 80-80 allow: rule 0"],
    );
    let program = program_of(vec![deny(0, tcp(only(&[(53, 53)]), only(&[(80, 80), (90, 90)])))]);
    let flat = flat(&program);
    assert_eq!(flat.sources().len(), 1, "equal lists are kept once");
    assert_eq!(flat.size().ranges, 5, "two cells, and a list of three");
    let mut limits = Limits::unlimited();
    limits.ranges = 4;
    assert_eq!(classify(&program, &limits).unwrap_err().needed, 5);
}

#[test]
fn stages_logs_and_passes_are_resolved() {
    let log = |index, l4| rule(index, Action::Log, l4);
    let pass = |index, l4| rule(index, Action::Pass, l4);
    let first = vec![
        log(0, tcp_to(&[(80, 90)])),
        log(0, tcp_to(&[(85, 85)])),
        pass(1, tcp_to(&[(80, 80)])),
        deny(2, tcp_to(&[(81, 85)])),
        allow(3, tcp_to(&[(443, 443)])),
    ];
    let second = vec![log(4, L4Match::Any), allow(5, tcp_to(&[(1, 82)]))];
    let stages = |end| vec![stage(first.clone(), StageEnd::Next), stage(second.clone(), end)];
    let top = "TCP 80-80 allow: rule 5, logged by 0, logged by 4";
    let denied = "TCP 81-85 deny: rule 2, logged by 0";
    assert_eq!(
        row_of(&program(stages(StageEnd::Deny)), "192.0.2.1"),
        [
            "else deny: no match, logged by 4",
            "TCP 1-79 allow: rule 5, logged by 4",
            top,
            denied,
            "TCP 86-90 deny: no match, logged by 0, logged by 4",
            "TCP 443-443 allow: rule 3",
        ]
    );
    assert_eq!(
        row_of(&program(stages(StageEnd::Next)), "192.0.2.1"),
        [
            "else allow: DefaultVerdict, logged by 4",
            "TCP 1-79 allow: rule 5, logged by 4",
            top,
            denied,
            "TCP 86-90 allow: DefaultVerdict, logged by 0, logged by 4",
            "TCP 443-443 allow: rule 3",
        ]
    );
}

#[test]
fn packets_whose_ports_cannot_be_read_have_no_place() {
    use crate::flow::{Flow, Payload};
    let program = program_of(vec![allow(0, L4Match::Any)]);
    let flat = flat(&program);
    let looked_up = |protocol, source| {
        let (source, destination) = (address(source), program.endpoints[0].addresses[0]);
        let payload = Payload::Other(protocol);
        let origin = crate::Origin::Forwarded;
        flat.look_up(ingress(&program), &Flow { source, destination, payload, origin }).is_some()
    };
    for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP] {
        assert!(!looked_up(protocol, "192.0.2.1"), "{protocol}");
    }
    for protocol in [Protocol::ICMPV6, Protocol::UDPLITE, Protocol::new(0), Protocol::new(255)] {
        assert!(looked_up(protocol, "192.0.2.1"), "{protocol}");
    }
}
