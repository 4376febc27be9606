//! Policies of an API that is newer than this code: rules fail closed, and nothing else is guessed.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use expect_test::expect;
use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::{convert, manifest, rule, spec};
use crate::api::Strictness;

/// Checks that a rule fails closed, whatever its action.
#[track_caller]
fn check(direction: &str, peers: &Value, protocols: &Value) {
    for (action, want) in [
        ("Accept", "Allow everything from [] degraded"),
        ("Deny", "Deny everything degraded"),
        ("Pass", "Pass everything degraded"),
    ] {
        let object = manifest(&rule(direction, action, peers, protocols));
        let accepted = convert(&object, Strictness::Degraded).unwrap();
        let want = format!("subject (has(NS) && PODS)\n{direction} 0 {want}\n");
        assert_eq!(shown(&accepted.value), want, "{object}");
        let strict = convert(&object, Strictness::Strict).unwrap_err();
        assert_eq!(strict.diagnostics, accepted.diagnostics, "{object}");
    }
}

#[test]
fn rules_with_unknown_peers_fail_closed() {
    for direction in ["ingress", "egress"] {
        for peers in [
            json!([{}]),
            json!([{"future": {"a": 1}}]),
            json!([{"namespaces": {}}, {"future": {}}]),
            json!([{"future": {}, "namespaces": {"matchLabels": {"a": "b"}}}]),
            json!([{"pods": {"podSelector": {}, "future": 1}}]),
            json!([{"pods": {"podSelector": {}}, "namespaces": {}}]),
            json!(["text"]),
            json!([null]),
            json!([]),
            Value::Null,
        ] {
            check(direction, &peers, &Value::Null);
        }
    }
}

#[test]
fn so_do_rules_with_anything_else_that_cannot_be_read() {
    let namespaces = json!([{"namespaces": {}}]);
    let port_zero = json!([{"tcp": {"destinationPort": {"number": 0}}}]);
    check("ingress", &namespaces, &port_zero);
    check("egress", &json!([{"networks": ["10.0.0.0/33"]}]), &Value::Null);
    check("ingress", &json!([{"networks": ["10.0.0.0/8"]}]), &Value::Null);
    let named = json!([{"destinationNamedPort": "web"}]);
    check("egress", &json!([{"networks": ["10.0.0.0/8"]}]), &named);
    let names = json!([{"domainNames": ["example.com"]}]);
    let object = manifest(&rule("egress", "Deny", &names, &Value::Null));
    expect![[r#"
        subject (has(NS) && PODS)
        egress 0 Deny everything degraded
    "#]]
    .assert_eq(&shown(&convert(&object, Strictness::Degraded).unwrap().value));
}

#[test]
fn rules_beside_keep_their_meaning_and_names() {
    let rules = json!([
        {"name": "a", "action": "Accept", "from": [{"namespaces": {}}]},
        {"name": "b", "action": "Accept", "from": [{"namespaces": {}}, {"future": {}}]},
        {"name": "c", "action": "Deny", "from": [{"namespaces": {}}], "future": 1},
        {"name": "d", "action": "Pass", "from": [{"namespaces": {}}]},
    ]);
    let accepted = convert(&manifest(&spec(&rules, &json!([]))), Strictness::Degraded).unwrap();
    expect![[r#"
        subject (has(NS) && PODS)
        ingress 0 `a` Allow everything from (has(NS) && PODS)
        ingress 1 `b` Allow everything from [] degraded
        ingress 2 `c` Deny everything degraded
        ingress 3 `d` Pass everything from (has(NS) && PODS)
    "#]]
    .assert_eq(&shown(&accepted.value));
    let said: Vec<_> = accepted.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "spec.ingress[1].from[1].future: unknown field",
            "spec.ingress[1].from[1]: no known field, expected `namespaces` or `pods`",
            "spec.ingress[2].future: unknown field",
        ]
    );
}

#[test]
fn a_transport_without_a_port_is_all_its_ports() {
    let namespaces = json!([{"namespaces": {}}]);
    let protocols = json!([{"tcp": {}}, {"udp": {}}, {"sctp": {"destinationPort": {"number": 5}}}]);
    let object = manifest(&rule("ingress", "Accept", &namespaces, &protocols));
    let accepted = convert(&object, Strictness::Degraded).unwrap();
    assert_eq!(accepted.diagnostics, []);
    expect![[r#"
        subject (has(NS) && PODS)
        ingress 0 Allow TCP from (has(NS) && PODS)
        ingress 0 Allow UDP from (has(NS) && PODS)
        ingress 0 Allow SCTP 5 from (has(NS) && PODS)
    "#]]
    .assert_eq(&shown(&accepted.value));
}

#[test]
fn what_else_is_unknown_refuses_the_policy() {
    let with = |field: &str, value: Value| {
        let mut spec = spec(&json!([]), &json!([]));
        spec[field] = value;
        spec
    };
    let namespaces = json!([{"namespaces": {}}]);
    for spec in [
        with("tier", json!("Middle")),
        with("priority", json!(1001)),
        with("subject", json!({"future": {}})),
        with("subject", json!({"namespaces": {}, "future": {}})),
        with("future", json!({})),
        with("ingress", json!({})),
        with("ingress", json!(["text"])),
        with("ingress", json!([null])),
        with("ingress", json!([{"from": [{"namespaces": {}}]}])),
        with("ingress", json!([{"action": "Reject", "from": [{"namespaces": {}}]}])),
        rule("ingress", "Accept", &namespaces, &json!([{"icmp": {}}])),
        rule("egress", "Deny", &namespaces, &json!([{}])),
        rule("egress", "Deny", &namespaces, &json!([{"tcp": {"sourcePort": {"number": 1}}}])),
        rule("egress", "Pass", &namespaces, &json!([{"tcp": {"destinationPort": {"list": [1]}}}])),
        rule("egress", "Pass", &namespaces, &json!([{"tcp": {}, "udp": {}}])),
    ] {
        let object = manifest(&spec);
        let strict = convert(&object, Strictness::Strict).unwrap_err();
        let refused = convert(&object, Strictness::Degraded).unwrap_err();
        // What is lenient is not said.
        assert!(
            strict.diagnostics.starts_with(&refused.diagnostics),
            "{spec}\n{refused}\n{strict}"
        );
    }
}
