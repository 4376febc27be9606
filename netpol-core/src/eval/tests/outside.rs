//! What no policy has a say in, and where the halves of a flow are judged.

use super::*;
use crate::flow::{Origin, Payload};
use crate::model::Mode;

const CLOSED: &str = "deny: no rule matched in tier `default`; asked: closed";
const OWN_NODE: &str = "allow: traffic of the endpoint's own node is outside of policy";
const SAME: &str = "allow: traffic between an endpoint and itself is outside of policy";
const DISCOVERY: &str = "allow: neighbour discovery always passes";
const ROUTER: &str = "deny: an endpoint may not send router advertisements or redirects";
const ISOLATED: &str = "deny: the endpoint is isolated";
const AUDITED: &str = "allow: the endpoint is in audit mode";

/// Returns the cluster with everything closed and the database in a mode.
fn closed(mode: Mode) -> Inputs {
    let mut inputs = policies(vec![policy("closed", "", "")]);
    let mut db = inputs.endpoints().find(|it| it.addresses.contains(&address(DB))).unwrap().clone();
    db.mode = mode;
    inputs.upsert(db);
    inputs
}

fn icmpv6(source: &str, destination: &str, kind: u8) -> Flow {
    Flow { payload: Payload::Icmp { kind, code: 0 }, ..ping(source, destination) }
}

#[test]
fn where_a_flow_comes_from_says_which_halves_are_judged() {
    let inputs = closed(Mode::Enforce);
    for (case, flow, egress, ingress) in [
        ("between endpoints", tcp(WEB, DB, 1), CLOSED, CLOSED),
        (
            "another node judged egress",
            tcp(WEB, DB, 1).from_origin(Origin::Forwarded),
            CLOSED,
            CLOSED,
        ),
        ("from outside", tcp(OUTSIDE, DB, 1).from_origin(Origin::Forwarded), NO_ENDPOINT, CLOSED),
        ("to outside", tcp(WEB, OUTSIDE, 1), CLOSED, NO_ENDPOINT),
        ("own node", tcp(NODE, DB, 1).from_origin(Origin::OwnNode), NO_ENDPOINT, OWN_NODE),
        (
            "own node from any address",
            tcp(WEB, DB, 1).from_origin(Origin::OwnNode),
            NO_ENDPOINT,
            OWN_NODE,
        ),
        (
            "own node to outside",
            tcp(WEB, NODE, 1).from_origin(Origin::OwnNode),
            NO_ENDPOINT,
            NO_ENDPOINT,
        ),
        ("an address does not make the own node", tcp(NODE, DB, 1), NO_ENDPOINT, CLOSED),
        ("to a node", tcp(WEB, NODE, 1), CLOSED, NO_ENDPOINT),
    ] {
        check(case, &inputs, flow, egress, ingress);
    }
}

#[test]
fn traffic_between_an_endpoint_and_itself_passes() {
    let inputs = closed(Mode::Enforce);
    check("one address", &inputs, tcp(DB, DB, 1), SAME, SAME);
    check("both families, in theory", &inputs, tcp(DB, DB_V6, 1), SAME, SAME);
    check("same labels are not the same endpoint", &inputs, tcp(OTHER_DB, DB, 1), CLOSED, CLOSED);
    check("nobody is not somebody", &inputs, tcp(OUTSIDE, OUTSIDE, 1), NO_ENDPOINT, NO_ENDPOINT);
}

#[test]
fn modes_come_before_policy_and_isolation_before_everything_but_discovery() {
    for (mode, from_web, from_own_node, from_itself, into_web) in [
        (Mode::Enforce, CLOSED, OWN_NODE, SAME, CLOSED),
        (Mode::Audit, AUDITED, OWN_NODE, SAME, AUDITED),
        (Mode::Isolate, ISOLATED, ISOLATED, ISOLATED, ISOLATED),
    ] {
        let inputs = closed(mode);
        check("from web", &inputs, tcp(WEB, DB, 1), CLOSED, from_web);
        let own_node = tcp(NODE, DB, 1).from_origin(Origin::OwnNode);
        check("from its own node", &inputs, own_node, NO_ENDPOINT, from_own_node);
        check("from itself", &inputs, tcp(DB, DB, 1), from_itself, from_itself);
        check("into web", &inputs, tcp(DB, WEB, 1), into_web, CLOSED);
        check("discovery", &inputs, icmpv6(WEB_V6, DB_V6, 135), DISCOVERY, DISCOVERY);
    }
}

#[test]
fn discovery_passes_and_endpoints_are_no_routers() {
    let inputs = closed(Mode::Enforce);
    for kind in 0..=u8::MAX {
        let (egress, ingress) = match kind {
            130..=133 | 135 | 136 | 143 => (DISCOVERY, DISCOVERY),
            134 | 137 => (ROUTER, DISCOVERY),
            _ => (CLOSED, CLOSED),
        };
        check("ICMPv6", &inputs, icmpv6(WEB_V6, DB_V6, kind), egress, ingress);
        let v4 = Flow { payload: Payload::Icmp { kind, code: 0 }, ..ping(WEB, DB) };
        check("the same type of ICMP over IPv4", &inputs, v4, CLOSED, CLOSED);
    }
    check("a router may", &inputs, icmpv6(OUTSIDE_V6, DB_V6, 134), NO_ENDPOINT, DISCOVERY);
    let open = policies(vec![policy("open", "A", "A")]);
    check("no rule helps", &open, icmpv6(WEB_V6, OUTSIDE_V6, 134), ROUTER, NO_ENDPOINT);
    check("nor audit", &closed(Mode::Audit), icmpv6(DB_V6, OUTSIDE_V6, 137), ROUTER, NO_ENDPOINT);
}
