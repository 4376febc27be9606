//! Rules that cannot be read completely. Whatever is wrong with one, it lets nothing pass that it should not: an Allow
//! matches nothing, and any other denies at least what it was meant to.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::manifest;
use crate::api::shown::shown;
use crate::api::{Document, Kind, Strictness};
use crate::dataplane::Capabilities;
use crate::model::{Action, Object, Policy};

fn degraded(kind: Kind, spec: &Value) -> (Policy, Vec<String>) {
    let manifest = manifest(kind, spec);
    let accepted = Document::read(kind, &manifest).unwrap().to_object(Strictness::Degraded);
    let accepted = accepted.unwrap_or_else(|refused| panic!("{spec}\n{refused}"));
    let Some(Object::Policy(policy)) = accepted.value else { panic!("no policy: {spec}") };
    (policy, accepted.diagnostics.iter().map(ToString::to_string).collect())
}

/// Checks what is left of each of these rules when it is a Deny.
#[track_caller]
fn check(kind: Kind, rules: &[Value], want: Expect) {
    let mut text = String::new();
    for rule in rules {
        text.extend([&rule.to_string(), "\n"]);
        let mut denies = rule.clone();
        denies["action"] = "Deny".into();
        let (policy, diagnostics) = degraded(kind, &json!({"ingress": [denies]}));
        assert!(!diagnostics.is_empty(), "{rule}");
        for line in shown(&policy).lines().skip(1) {
            text.extend(["    ", line.strip_prefix("ingress 0 Deny ").unwrap(), "\n"]);
        }
        for (action, effect) in [
            ("Allow", None),
            ("Log", None),
            ("Pass", Some(Action::Deny)),
            ("Deny", Some(Action::Deny)),
        ] {
            let mut rule = rule.clone();
            rule["action"] = action.into();
            let (policy, _) = degraded(kind, &json!({"ingress": [rule]}));
            for rule in policy.ingress.unwrap() {
                assert_eq!(rule.effective_action(&Capabilities::all()), effect);
                if action == "Allow" {
                    assert!(rule.matches.source.nets.unwrap().is_empty());
                }
            }
        }
    }
    want.assert_eq(&text);
}

#[test]
fn what_can_be_read_of_protocols_and_ports() {
    check(
        Kind::GlobalNetworkPolicy,
        &[
            json!({"protocol": "tcp", "source": {"nets": ["10.0.0.0/8"], "ports": ["http"]}}),
            json!({"protocol": "TCP", "destination": {"ports": [22, 0]}}),
            json!({"protocol": "TCP", "destination": {"ports": [22], "notPorts": ["a b"]}}),
            json!({"destination": {"ports": [22]}}),
            json!({"destination": {"ports": [22], "notPorts": ["http"]}}),
            json!({"protocol": "ICMP", "icmp": {"code": 1}}),
            json!({"protocol": "ICMP", "destination": {"ports": ["http"]}}),
            json!({"protocol": "TCP", "icmp": {"type": 8}}),
            json!({"ipVersion": 5, "protocol": "UDP"}),
            json!({"ipVersion": 6, "protocol": "ICMP"}),
            json!({"protocol": "TCP", "flags": "SYN"}),
            json!({"http": {"methods": ["GET"], "hosts": ["a"]}, "source": {"nets": ["10.0.0.0/8"]}}),
        ],
        expect![[r#"
            {"protocol":"tcp","source":{"nets":["10.0.0.0/8"],"ports":["http"]}}
                everything from [10.0.0.0/8] degraded
            {"destination":{"ports":[22,0]},"protocol":"TCP"}
                TCP degraded
            {"destination":{"notPorts":["a b"],"ports":[22]},"protocol":"TCP"}
                TCP 22 degraded
            {"destination":{"ports":[22]}}
                everything degraded
            {"destination":{"notPorts":["http"],"ports":[22]}}
                TCP not `http` degraded
                UDP not `http` degraded
                SCTP not `http` degraded
                not TCP UDP SCTP degraded
            {"icmp":{"code":1},"protocol":"ICMP"}
                everything degraded
            {"destination":{"ports":["http"]},"protocol":"ICMP"}
                everything degraded
            {"icmp":{"type":8},"protocol":"TCP"}
                everything degraded
            {"ipVersion":5,"protocol":"UDP"}
                UDP degraded
            {"ipVersion":6,"protocol":"ICMP"}
                IPv6 everything degraded
            {"flags":"SYN","protocol":"TCP"}
                TCP degraded
            {"http":{"hosts":["a"],"methods":["GET"]},"source":{"nets":["10.0.0.0/8"]}}
                everything from [10.0.0.0/8] degraded
        "#]],
    );
}

#[test]
fn what_can_be_read_of_blocks() {
    check(
        Kind::GlobalNetworkPolicy,
        &[
            json!({"source": {"nets": ["10.0.0.0/8", "10.0.0.1"]}, "destination": {"nets": ["192.0.2.0/24"]}}),
            json!({"source": {"nets": ["10.0.0.0/8"], "notNets": ["10.0.0.0/8", "x"]}}),
            json!({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}),
            json!({"source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::/8"]}}),
            json!({"ipVersion": 4, "source": {"nets": ["fd00::/8"]}}),
            json!({"source": {"notNets": ["0.0.0.0/0"]}}),
        ],
        expect![[r#"
            {"destination":{"nets":["192.0.2.0/24"]},"source":{"nets":["10.0.0.0/8","10.0.0.1"]}}
                everything to [192.0.2.0/24] degraded
            {"source":{"nets":["10.0.0.0/8"],"notNets":["10.0.0.0/8","x"]}}
                everything from [10.0.0.0/8] degraded
            {"source":{"nets":["10.0.0.0/8","fd00::/8"]}}
                everything degraded
            {"destination":{"nets":["fd00::/8"]},"source":{"nets":["10.0.0.0/8"]}}
                everything from [10.0.0.0/8] degraded
            {"ipVersion":4,"source":{"nets":["fd00::/8"]}}
                everything degraded
            {"source":{"notNets":["0.0.0.0/0"]}}
                IPv4 everything degraded
        "#]],
    );
}

#[test]
fn what_can_be_read_of_selectors() {
    let rules = [
        json!({"source": {"selector": "a = 'b'"}}),
        json!({"source": {"selector": true}}),
        json!({"source": {"serviceAccounts": true}}),
        json!({"source": {"selector": "a = 'b'", "notSelector": "has(c)"}}),
        json!({"source": {"selector": "has(a)", "notSelector": "global()"}}),
        json!({"source": {"notSelector": "global()"}}),
        json!({"source": {"selector": "has(a)", "namespaceSelector": "!global()"}}),
        json!({"source": {"namespaceSelector": "!global()", "notSelector": "has(c)"}}),
        json!({"source": {"selector": "has(a)", "serviceAccounts": {"names": [null]}}}),
        json!({"source": {"selector": "has(a)", "serviceAccounts": {"name": "x"}}}),
        json!({"source": {"selector": "has(a)", "notSelector": "has(c)", "namespaceSelectors": "has(b)"}}),
        json!({"source": {"notSelector": "has(c)", "namespaceSelectors": "has(b)"}}),
        json!({"protocol": "TCP", "source": {"selector": "a = 'b'", "notPorts": ["http"], "ports": ["dns"]}}),
        json!({"source": {"services": {"namespace": "ns"}}, "destination": {"selector": "has(a)"}}),
    ];
    check(
        Kind::GlobalNetworkPolicy,
        &rules,
        expect![[r#"
        {"source":{"selector":"a = 'b'"}}
            everything degraded
        {"source":{"selector":true}}
            everything degraded
        {"source":{"serviceAccounts":true}}
            everything degraded
        {"source":{"notSelector":"has(c)","selector":"a = 'b'"}}
            everything degraded
        {"source":{"notSelector":"global()","selector":"has(a)"}}
            everything from has(a) degraded
        {"source":{"notSelector":"global()"}}
            everything degraded
        {"source":{"namespaceSelector":"!global()","selector":"has(a)"}}
            everything from has(a) degraded
        {"source":{"namespaceSelector":"!global()","notSelector":"has(c)"}}
            everything degraded
        {"source":{"selector":"has(a)","serviceAccounts":{"names":[null]}}}
            everything from has(a) degraded
        {"source":{"selector":"has(a)","serviceAccounts":{"name":"x"}}}
            everything from has(a) degraded
        {"source":{"namespaceSelectors":"has(b)","notSelector":"has(c)","selector":"has(a)"}}
            everything from (has(a) && !has(c)) degraded
        {"source":{"namespaceSelectors":"has(b)","notSelector":"has(c)"}}
            everything degraded
        {"protocol":"TCP","source":{"notPorts":["http"],"ports":["dns"],"selector":"a = 'b'"}}
            TCP source `dns` degraded
        {"destination":{"selector":"has(a)"},"source":{"services":{"namespace":"ns"}}}
            everything to has(a) degraded
    "#]],
    );
    check(
        Kind::NetworkPolicy,
        &rules,
        expect![[r#"
        {"source":{"selector":"a = 'b'"}}
            everything from NS == "ns" degraded
        {"source":{"selector":true}}
            everything degraded
        {"source":{"serviceAccounts":true}}
            everything degraded
        {"source":{"notSelector":"has(c)","selector":"a = 'b'"}}
            everything from (NS == "ns" && !has(c)) degraded
        {"source":{"notSelector":"global()","selector":"has(a)"}}
            everything from (has(a) && NS == "ns") degraded
        {"source":{"notSelector":"global()"}}
            everything from NS == "ns" degraded
        {"source":{"namespaceSelector":"!global()","selector":"has(a)"}}
            everything from has(a) degraded
        {"source":{"namespaceSelector":"!global()","notSelector":"has(c)"}}
            everything degraded
        {"source":{"selector":"has(a)","serviceAccounts":{"names":[null]}}}
            everything from (has(a) && NS == "ns") degraded
        {"source":{"selector":"has(a)","serviceAccounts":{"name":"x"}}}
            everything from (has(a) && NS == "ns") degraded
        {"source":{"namespaceSelectors":"has(b)","notSelector":"has(c)","selector":"has(a)"}}
            everything from (has(a) && !has(c)) degraded
        {"source":{"namespaceSelectors":"has(b)","notSelector":"has(c)"}}
            everything degraded
        {"protocol":"TCP","source":{"notPorts":["http"],"ports":["dns"],"selector":"a = 'b'"}}
            TCP source `dns` from NS == "ns" degraded
        {"destination":{"selector":"has(a)"},"source":{"services":{"namespace":"ns"}}}
            everything to (has(a) && NS == "ns") degraded
    "#]],
    );
}

#[test]
fn a_rule_without_a_readable_action_denies() {
    for rule in [
        json!(null),
        json!("x"),
        json!([]),
        json!({}),
        json!({"action": "Permit"}),
        json!({"action": 1}),
    ] {
        let (policy, diagnostics) = degraded(Kind::NetworkPolicy, &json!({"ingress": [rule]}));
        assert_eq!(diagnostics.len(), 1, "{rule}");
        assert_eq!(
            shown(&policy),
            "subject NS == \"ns\"\ningress 0 Deny everything degraded\n",
            "{rule}"
        );
    }
    let rule = json!({"action": "Permit", "protocol": "TCP", "source": {"selector": "has(a)"}});
    let (policy, _) = degraded(Kind::NetworkPolicy, &json!({"ingress": [rule]}));
    assert_eq!(
        shown(&policy),
        "subject NS == \"ns\"\ningress 0 Deny TCP from (has(a) && NS == \"ns\") degraded\n"
    );
}

#[test]
fn the_other_rules_stay() {
    let rules =
        json!([{"action": "Allow"}, {"action": "Allow", "protocol": "tcp"}, {"action": "Deny"}]);
    for kind in [Kind::NetworkPolicy, Kind::StagedNetworkPolicy, Kind::GlobalNetworkPolicy] {
        let (policy, diagnostics) = degraded(kind, &json!({"ingress": rules}));
        let marks: Vec<_> =
            policy.ingress.unwrap().iter().map(|it| (it.index, it.degraded)).collect();
        assert_eq!(marks, [(0, false), (1, true), (2, false)]);
        assert_eq!(
            diagnostics,
            [
                "spec.ingress[1].protocol: `tcp` is not a protocol, expected `TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`, \
              `UDPLite` or 1 to 255"
            ]
        );
    }
}

#[test]
fn without_a_subject_or_directions_there_is_no_policy() {
    for spec in [
        json!({"selector": "a = 'b'"}),
        json!({"serviceAccountSelector": "global()"}),
        json!({"types": ["In"]}),
        json!({"tier": "A"}),
        json!({"order": "x"}),
        json!({"ingress": {}}),
        json!({"ingres": []}),
        json!({"performanceHints": ["x"]}),
    ] {
        let manifest = manifest(Kind::NetworkPolicy, &spec);
        let document = Document::read(Kind::NetworkPolicy, &manifest).unwrap();
        assert_eq!(
            document.to_object(Strictness::Degraded).unwrap_err(),
            document.to_object(Strictness::Strict).unwrap_err(),
        );
    }
}
