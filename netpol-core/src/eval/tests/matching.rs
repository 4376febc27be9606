//! What rules match, as Kubernetes and Calico document it.

use super::*;
use crate::flow::Payload;
use crate::model::{EntityMatch, L4Match, Peers, PortConstraint, PortMatch};
use crate::net::{Family, IcmpMatch, PortRange};

fn from(source: EntityMatch) -> RuleMatch {
    RuleMatch { source, ..RuleMatch::default() }
}

fn to(destination: EntityMatch) -> RuleMatch {
    RuleMatch { destination, ..RuleMatch::default() }
}

fn l4(l4: L4Match<PortMatch>) -> RuleMatch {
    RuleMatch { l4, ..RuleMatch::default() }
}

fn peers(text: &str) -> EntityMatch {
    EntityMatch { peers: Some(Peers::Endpoints(selector(text))), ..EntityMatch::default() }
}

fn nodes(text: &str) -> EntityMatch {
    EntityMatch { peers: Some(Peers::Nodes(selector(text))), ..EntityMatch::default() }
}

fn not_peers(text: &str) -> EntityMatch {
    EntityMatch { not_peers: Some(selector(text)), ..EntityMatch::default() }
}

fn within(texts: &[&str]) -> EntityMatch {
    EntityMatch { nets: Some(nets(texts)), ..EntityMatch::default() }
}

fn outside_of(texts: &[&str]) -> EntityMatch {
    EntityMatch { not_nets: nets(texts), ..EntityMatch::default() }
}

/// Reads a list of ports: numbers, ranges `first-last` and names.
fn ports(list: &[&str]) -> Option<PortMatch> {
    let mut ranges = Vec::new();
    let mut names = alloc::collections::BTreeSet::new();
    for item in list {
        match item.split_once('-').unwrap_or((item, item)) {
            (first, last) if first.parse::<u16>().is_ok() => {
                ranges.push(PortRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap());
            }
            _ => {
                names.insert(String::from(*item));
            }
        }
    }
    Some(PortMatch { numbers: ranges.into_iter().collect(), names, backends_of: None })
}

fn any_of(list: &[&str]) -> PortConstraint<PortMatch> {
    PortConstraint { any_of: ports(list), none_of: None }
}

fn none_of(list: &[&str]) -> PortConstraint<PortMatch> {
    PortConstraint { any_of: None, none_of: ports(list) }
}

fn to_ports(transport: Transport, destination: PortConstraint<PortMatch>) -> RuleMatch {
    l4(L4Match::Ports { transport, source: PortConstraint::default(), destination })
}

fn udp(source: &str, destination: &str, port: u16) -> Flow {
    Flow::to_port(address(source), address(destination), Udp, port)
}

fn other(number: u8, source: &str, destination: &str) -> Flow {
    Flow { payload: Payload::Other(Protocol::new(number)), ..ping(source, destination) }
}

/// Checks which flows a rule matches, on ingress and on egress alike.
#[track_caller]
fn check_matches(case: &str, matches: &RuleMatch, flows: &[(Flow, bool)]) {
    let mut p = policy("p", "A", "A");
    for rules in [&mut p.ingress, &mut p.egress] {
        rules.as_mut().unwrap()[0].matches = matches.clone();
    }
    let inputs = policies(vec![p]);
    for &(flow, wanted) in flows {
        let half = |direction: &str, is_endpoint: bool| match (is_endpoint, wanted) {
            (false, _) => NO_ENDPOINT.into(),
            (true, true) => alloc::format!("allow: rule p {direction}[0]"),
            (true, false) => "deny: no rule matched in tier `default`; asked: p".into(),
        };
        let is_endpoint =
            |at: IpAddr| inputs.endpoints().any(|endpoint| endpoint.addresses.contains(&at));
        let (leaves, enters) = (is_endpoint(flow.source), is_endpoint(flow.destination));
        assert!(leaves || enters, "nobody judges {flow}: {case}");
        check(case, &inputs, flow, &half("egress", leaves), &half("ingress", enters));
    }
}

#[test]
fn a_rule_without_conditions_matches_everything() {
    check_matches(
        "the default",
        &RuleMatch::default(),
        &[
            (tcp(WEB, DB, 80), true),
            (tcp(OUTSIDE, DB, 0), true),
            (ping(WEB, DB), true),
            (ping(WEB_V6, DB_V6), true),
            (other(47, WEB, OUTSIDE), true),
        ],
    );
}

#[test]
fn selectors_match_owners_of_addresses() {
    for (case, matches, flows) in [
        (
            "a label",
            from(peers("app == 'web'")),
            vec![
                (tcp(WEB, DB, 1), true),
                (tcp(WEB_V6, DB_V6, 1), true),
                (tcp(OTHER_DB, DB, 1), false),
                (tcp(OUTSIDE, DB, 1), false),
                (tcp(OFFICE, DB, 1), false),
            ],
        ),
        (
            "everything known is not everybody",
            from(peers("all()")),
            vec![
                (tcp(WEB, DB, 1), true),
                (tcp(VM, DB, 1), true),
                (tcp(OFFICE, DB, 1), true),
                (tcp(OUTSIDE, DB, 1), false),
                (tcp(NODE, DB, 1), false),
            ],
        ),
        (
            "labels of the namespace",
            from(peers("pcns.stage == 'test'")),
            vec![(tcp(OTHER_DB, DB, 1), true), (tcp(WEB, DB, 1), false), (tcp(VM, DB, 1), false)],
        ),
        (
            "without a label, but known",
            to(peers("!has(team)")),
            vec![
                (tcp(WEB, DB, 1), true),
                (tcp(WEB, OFFICE, 1), true),
                (tcp(WEB, OUTSIDE, 1), false),
                (tcp(WEB, NODE, 1), false),
            ],
        ),
        (
            "a network set, which holds an endpoint too",
            from(peers("who == 'staff'")),
            vec![
                (tcp(OFFICE, DB, 1), true),
                (tcp(OTHER_DB, DB, 1), true),
                (tcp(WEB, DB, 1), false),
            ],
        ),
        (
            "nothing",
            from(peers("!all()")),
            vec![(tcp(WEB, DB, 1), false), (tcp(OUTSIDE, DB, 1), false)],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

#[test]
fn negated_selectors_match_what_belongs_to_nothing() {
    for (case, matches, flows) in [
        (
            "alone",
            from(not_peers("app == 'web'")),
            vec![
                (tcp(WEB, DB, 1), false),
                (tcp(OTHER_DB, DB, 1), true),
                (tcp(OUTSIDE, DB, 1), true),
                (tcp(NODE, DB, 1), true),
            ],
        ),
        (
            "by endpoint or network set",
            from(not_peers("who == 'staff' || app == 'vm'")),
            vec![
                (tcp(OFFICE, DB, 1), false),
                (tcp(OTHER_DB, DB, 1), false),
                (tcp(VM, DB, 1), false),
                (tcp(WEB, DB, 1), true),
            ],
        ),
        (
            "with a positive one",
            from(EntityMatch {
                not_peers: Some(selector("team == 'red'")),
                ..peers("app == 'db'")
            }),
            vec![
                (tcp(OTHER_DB, WEB, 1), false),
                (tcp(DB, WEB, 1), true),
                (tcp(WEB, DB, 1), false),
                (tcp(OUTSIDE, DB, 1), false),
            ],
        ),
        (
            "of nothing",
            to(not_peers("!all()")),
            vec![(tcp(WEB, DB, 1), true), (tcp(WEB, OUTSIDE, 1), true)],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

#[test]
fn nodes_match_by_all_their_addresses_and_own_labels() {
    for (case, matches, flows) in [
        (
            "a label of the node",
            to(nodes("zone == 'a'")),
            vec![
                (tcp(WEB, NODE, 1), true),
                (tcp(WEB_V6, NODE_V6, 1), true),
                (tcp(WEB, DB, 1), false),
                (tcp(WEB, OUTSIDE, 1), false),
            ],
        ),
        ("another label", from(nodes("zone == 'b'")), vec![(tcp(NODE, DB, 1), false)]),
        (
            "all nodes, and nobody else",
            from(nodes("all()")),
            vec![
                (tcp(NODE, DB, 1), true),
                (tcp(WEB, DB, 1), false),
                (tcp(OFFICE, DB, 1), false),
                (tcp(OUTSIDE, DB, 1), false),
            ],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

#[test]
fn blocks_match_addresses_whoever_owns_them() {
    for (case, matches, flows) in [
        (
            "a block, endpoints and nodes included",
            from(within(&["10.0.0.0/15", "10.9.0.1/32"])),
            vec![
                (tcp(WEB, DB, 1), true),
                (tcp(NODE, DB, 1), true),
                (tcp(OUTSIDE, DB, 1), false),
                (tcp(WEB_V6, DB_V6, 1), false),
            ],
        ),
        (
            "all of a family is not all of the other",
            to(within(&["0.0.0.0/0"])),
            vec![(tcp(WEB, OUTSIDE, 1), true), (tcp(WEB_V6, OUTSIDE_V6, 1), false)],
        ),
        (
            "no block at all",
            to(within(&[])),
            vec![(tcp(WEB, DB, 1), false), (tcp(WEB_V6, DB_V6, 1), false)],
        ),
        (
            "but not a block",
            to(EntityMatch { not_nets: nets(&["10.0.1.0/24"]), ..within(&["10.0.0.0/8"]) }),
            vec![
                (tcp(WEB, DB, 1), true),
                (tcp(WEB, OTHER_DB, 1), false),
                (tcp(WEB, OUTSIDE, 1), false),
            ],
        ),
        (
            "anything but a block",
            from(outside_of(&["10.0.0.0/24"])),
            vec![
                (tcp(WEB, DB, 1), false),
                (tcp(OTHER_DB, DB, 1), true),
                (tcp(OUTSIDE, DB, 1), true),
                (tcp(WEB_V6, DB_V6, 1), true),
            ],
        ),
        (
            "selector and block",
            from(EntityMatch { nets: Some(nets(&["10.0.1.0/24"])), ..peers("app == 'db'") }),
            vec![(tcp(OTHER_DB, WEB, 1), true), (tcp(DB, WEB, 1), false)],
        ),
        (
            "source and destination",
            RuleMatch { destination: peers("app == 'db'"), ..from(peers("app == 'web'")) },
            vec![(tcp(WEB, DB, 1), true), (tcp(DB, WEB, 1), false), (tcp(OTHER_DB, DB, 1), false)],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

#[test]
fn families_and_protocols_match() {
    let icmp = |family, is, is_not| l4(L4Match::Icmp { family, is, is_not });
    let message = |kind, code| Some(IcmpMatch { kind, code });
    let typed = |kind, code| Flow { payload: Payload::Icmp { kind, code }, ..ping(WEB, DB) };
    for (case, matches, flows) in [
        (
            "a family",
            RuleMatch { family: Some(Family::V6), ..RuleMatch::default() },
            vec![(tcp(WEB_V6, DB_V6, 1), true), (tcp(WEB, DB, 1), false)],
        ),
        (
            "a protocol with ports",
            l4(L4Match::Is(Protocol::UDP)),
            vec![(udp(WEB, DB, 1), true), (tcp(WEB, DB, 1), false), (ping(WEB, DB), false)],
        ),
        (
            "a number implies no family",
            l4(L4Match::Is(Protocol::ICMP)),
            vec![
                (ping(WEB, DB), true),
                (ping(WEB_V6, DB_V6), false),
                (other(1, WEB_V6, DB_V6), true),
            ],
        ),
        (
            "other protocols",
            l4(L4Match::Is(Protocol::new(47))),
            vec![(other(47, WEB, DB), true), (other(50, WEB, DB), false)],
        ),
        (
            "none of some protocols",
            l4(L4Match::IsNot([Protocol::TCP, Protocol::ICMPV6].into())),
            vec![
                (tcp(WEB, DB, 1), false),
                (udp(WEB, DB, 1), true),
                (ping(WEB, DB), true),
                (ping(WEB_V6, DB_V6), false),
            ],
        ),
        (
            "ICMP of a family",
            icmp(Family::V4, None, None),
            vec![
                (ping(WEB, DB), true),
                (typed(3, 4), true),
                (ping(WEB_V6, DB_V6), false),
                (tcp(WEB, DB, 1), false),
                (other(47, WEB, DB), false),
            ],
        ),
        (
            "a type",
            icmp(Family::V4, message(8, None), None),
            vec![(typed(8, 0), true), (typed(8, 9), true), (typed(0, 0), false)],
        ),
        (
            "a type and a code",
            icmp(Family::V4, message(3, Some(4)), None),
            vec![(typed(3, 4), true), (typed(3, 3), false), (typed(4, 4), false)],
        ),
        (
            "any type but one",
            icmp(Family::V6, None, message(128, None)),
            vec![(ping(WEB_V6, DB_V6), false), (ping(WEB, DB), false)],
        ),
        (
            "a type without one code",
            icmp(Family::V4, message(3, None), message(3, Some(4))),
            vec![(typed(3, 4), false), (typed(3, 3), true), (typed(8, 0), false)],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

#[test]
fn numbers_of_ports_match_their_transport() {
    for (case, matches, flows) in [
        (
            "a port and a range",
            to_ports(Tcp, any_of(&["80", "1000-2000"])),
            vec![
                (tcp(WEB, DB, 80), true),
                (tcp(WEB, DB, 81), false),
                (tcp(WEB, DB, 999), false),
                (tcp(WEB, DB, 1000), true),
                (tcp(WEB, DB, 2000), true),
                (tcp(WEB, DB, 2001), false),
                (udp(WEB, DB, 80), false),
                (ping(WEB, DB), false),
                (other(6, WEB, DB), false),
            ],
        ),
        (
            "every port of a transport",
            to_ports(Udp, PortConstraint::default()),
            vec![(udp(WEB, DB, 0), true), (udp(WEB, DB, 65_535), true), (tcp(WEB, DB, 80), false)],
        ),
        (
            "SCTP does not open TCP",
            to_ports(Sctp, any_of(&["80"])),
            vec![
                (tcp(WEB, DB, 80), false),
                (Flow::to_port(address(WEB), address(DB), Sctp, 80), true),
            ],
        ),
        (
            "none of some",
            to_ports(Tcp, none_of(&["80"])),
            vec![(tcp(WEB, DB, 80), false), (tcp(WEB, DB, 81), true), (tcp(WEB, DB, 0), true)],
        ),
        (
            "some but not others",
            to_ports(Tcp, PortConstraint { any_of: ports(&["1-100"]), none_of: ports(&["80"]) }),
            vec![(tcp(WEB, DB, 80), false), (tcp(WEB, DB, 81), true), (tcp(WEB, DB, 101), false)],
        ),
        ("an empty list", to_ports(Tcp, any_of(&[])), vec![(tcp(WEB, DB, 80), false)]),
        ("none of an empty list", to_ports(Tcp, none_of(&[])), vec![(tcp(WEB, DB, 80), true)]),
        (
            "source ports",
            l4(L4Match::Ports {
                transport: Tcp,
                source: any_of(&["49152"]),
                destination: PortConstraint::default(),
            }),
            vec![
                (tcp(WEB, DB, 80), true),
                (
                    Flow {
                        payload: Payload::Ports { transport: Tcp, source: 80, destination: 49_152 },
                        ..tcp(WEB, DB, 80)
                    },
                    false,
                ),
            ],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

#[test]
fn names_of_ports_are_those_of_the_endpoint_on_their_side() {
    let sql_of = |text| RuleMatch { destination: peers(text), ..to_ports(Tcp, any_of(&["sql"])) };
    for (case, matches, flows) in [
        (
            "each endpoint has its own number",
            to_ports(Tcp, any_of(&["sql"])),
            vec![
                (tcp(WEB, DB, 5432), true),
                (tcp(WEB, DB, 3306), false),
                (tcp(WEB, OTHER_DB, 3306), true),
                (tcp(WEB, OTHER_DB, 5432), false),
                (tcp(WEB, DB_V6, 5432), true),
            ],
        ),
        (
            "an address that nobody owns has no names",
            to_ports(Tcp, any_of(&["sql", "80"])),
            vec![
                (tcp(WEB, OUTSIDE, 5432), false),
                (tcp(WEB, NODE, 5432), false),
                (tcp(WEB, OFFICE, 3306), false),
                (tcp(WEB, OUTSIDE, 80), true),
            ],
        ),
        (
            "whoever the source is",
            to_ports(Tcp, any_of(&["sql"])),
            vec![(tcp(OUTSIDE, DB, 5432), true), (tcp(OTHER_DB, DB, 3306), false)],
        ),
        (
            "one name for UDP",
            to_ports(Udp, any_of(&["dns"])),
            vec![(udp(WEB, DB, 53), true), (tcp(WEB, DB, 53), false)],
        ),
        (
            "and the same for TCP",
            to_ports(Tcp, any_of(&["dns"])),
            vec![(udp(WEB, DB, 53), false), (tcp(WEB, DB, 53), true)],
        ),
        (
            "a name of another transport",
            to_ports(Udp, any_of(&["sql"])),
            vec![(udp(WEB, DB, 5432), false), (tcp(WEB, DB, 5432), false)],
        ),
        (
            "a name nobody declares",
            to_ports(Tcp, any_of(&["none"])),
            vec![(tcp(WEB, DB, 5432), false)],
        ),
        (
            "of selected peers",
            sql_of("team == 'red'"),
            vec![(tcp(WEB, OTHER_DB, 3306), true), (tcp(WEB, DB, 5432), false)],
        ),
        (
            "a network set that holds the endpoint lends it no names",
            sql_of("who == 'staff'"),
            vec![(tcp(WEB, OTHER_DB, 3306), false), (tcp(WEB, OFFICE, 3306), false)],
        ),
        (
            "none of a name",
            to_ports(Tcp, none_of(&["sql"])),
            vec![
                (tcp(WEB, DB, 5432), false),
                (tcp(WEB, DB, 3306), true),
                (tcp(WEB, OUTSIDE, 5432), true),
            ],
        ),
        (
            "none of a name, of peers that are selected by a set",
            RuleMatch { destination: peers("who == 'staff'"), ..to_ports(Tcp, none_of(&["sql"])) },
            vec![(tcp(WEB, OTHER_DB, 3306), true)],
        ),
        (
            "source names are those of the source",
            l4(L4Match::Ports {
                transport: Tcp,
                source: any_of(&["sql"]),
                destination: PortConstraint::default(),
            }),
            vec![
                (from_port(DB, WEB, 5432), true),
                (from_port(DB, WEB, 3306), false),
                (from_port(WEB, DB, 5432), false),
            ],
        ),
        (
            "source names of selected sources",
            RuleMatch {
                source: peers("who == 'staff' || app == 'web'"),
                ..l4(L4Match::Ports {
                    transport: Tcp,
                    source: any_of(&["sql", "80"]),
                    destination: PortConstraint::default(),
                })
            },
            vec![
                (from_port(OTHER_DB, DB, 3306), false),
                (from_port(OTHER_DB, DB, 80), true),
                (from_port(DB, OTHER_DB, 80), false),
            ],
        ),
    ] {
        check_matches(case, &matches, &flows);
    }
}

fn from_port(source: &str, destination: &str, port: u16) -> Flow {
    Flow {
        payload: Payload::Ports { transport: Tcp, source: port, destination: 80 },
        ..tcp(source, destination, 80)
    }
}
