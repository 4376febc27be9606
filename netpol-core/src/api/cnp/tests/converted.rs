//! What accepted policies become: one test for each part of the API.

use alloc::format;
use alloc::string::String;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::{convert, manifest, rule, spec};
use crate::api::{Document, Kind, Strictness};
use crate::model::{Enforcement, ObjectKey, Order, PolicyKey, PolicyKind, Tier};

#[track_caller]
fn check(spec: Value, want: Expect) {
    want.assert_eq(&shown(&convert(&manifest(&spec), Strictness::Strict).unwrap().value));
}

/// Checks one rule of peers and protocols in both directions.
#[track_caller]
fn check_rule(peers: Value, protocols: Value, want: Expect) {
    let spec = spec(
        &json!([{"action": "Deny", "from": &peers, "protocols": &protocols}]),
        &json!([{"action": "Deny", "to": &peers, "protocols": &protocols}]),
    );
    check(spec, want);
}

#[track_caller]
fn check_egress(action: &str, peers: Value, want: Expect) {
    check(rule("egress", action, &peers, &Value::Null), want);
}

#[test]
fn identity_and_place() {
    for (tier, want) in [("Admin", Tier::KUBE_ADMIN), ("Baseline", Tier::KUBE_BASELINE)] {
        for priority in [0, 1000] {
            let mut spec = spec(&json!([]), &json!([]));
            spec["tier"] = json!(tier);
            spec["priority"] = json!(priority);
            let json = manifest(&spec);
            let accepted = convert(&json, Strictness::Strict).unwrap();
            assert_eq!(accepted.diagnostics, []);
            let policy = accepted.value;
            let kind = PolicyKind::KubernetesClusterNetworkPolicy;
            let key = PolicyKey { kind, namespace: None, name: "p".into() };
            assert_eq!(policy.key, key);
            assert_eq!((policy.tier.as_str(), policy.order), (want, Some(Order::whole(priority))));
            assert_eq!(policy.enforcement, Enforcement::Enforced);

            let kind = Kind::ClusterNetworkPolicy;
            let document = Document::read(kind, &json).unwrap();
            assert_eq!(document.to_object(Strictness::Strict).unwrap().value, Some(policy.into()));
            assert_eq!(kind.object_key(None, "p"), Some(ObjectKey::Policy(key)));
        }
    }
}

#[test]
fn subjects() {
    let mut text = String::new();
    for subject in [
        json!({"namespaces": {}}),
        json!({"namespaces": {"matchLabels": {"team": "red"}}}),
        json!({"namespaces": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["red"]}]}}),
        json!({"pods": {"podSelector": {}}}),
        json!({"pods": {"podSelector": {"matchLabels": {"app": "web"}}}}),
        json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}),
        json!({"pods": {"namespaceSelector": null, "podSelector": {}}}),
        json!({"pods": {
            "namespaceSelector": {"matchLabels": {"team": ""}},
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]},
        }}),
    ] {
        let mut spec = spec(&json!([]), &json!([]));
        spec["subject"] = subject.clone();
        let policy = convert(&manifest(&spec), Strictness::Strict).unwrap().value;
        text += &format!("{subject}\n{}", shown(&policy));
    }
    expect![[r#"
        {"namespaces":{}}
        subject (has(NS) && PODS)
        {"namespaces":{"matchLabels":{"team":"red"}}}
        subject (pcns.team == "red" && PODS)
        {"namespaces":{"matchExpressions":[{"key":"team","operator":"NotIn","values":["red"]}]}}
        subject (has(pcns.kubernetes.io/metadata.name) && pcns.team not in {"red"} && PODS)
        {"pods":{"podSelector":{}}}
        subject (has(NS) && PODS)
        {"pods":{"podSelector":{"matchLabels":{"app":"web"}}}}
        subject (app == "web" && has(NS) && PODS)
        {"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"web"}}}}
        subject (app == "web" && has(NS) && PODS)
        {"pods":{"namespaceSelector":null,"podSelector":{}}}
        subject (has(NS) && PODS)
        {"pods":{"namespaceSelector":{"matchLabels":{"team":""}},"podSelector":{"matchExpressions":[{"key":"app","operator":"DoesNotExist"}]}}}
        subject (pcns.team == "" && PODS && !has(app))
    "#]].assert_eq(&text);
}

#[test]
fn a_direction_without_rules_is_not_touched() {
    let namespaces = json!([{"namespaces": {}}]);
    let ingress = json!([{"action": "Accept", "from": namespaces}]);
    let egress = json!([{"action": "Accept", "to": namespaces}]);
    let mut text = String::new();
    for none in [json!([]), Value::Null] {
        for spec in [spec(&none, &none), spec(&ingress, &none), spec(&none, &egress)] {
            text += &shown(&convert(&manifest(&spec), Strictness::Strict).unwrap().value);
        }
    }
    expect![[r#"
        subject (has(NS) && PODS)
        subject (has(NS) && PODS)
        ingress 0 Allow everything from (has(NS) && PODS)
        subject (has(NS) && PODS)
        egress 0 Allow everything to (has(NS) && PODS)
        subject (has(NS) && PODS)
        subject (has(NS) && PODS)
        ingress 0 Allow everything from (has(NS) && PODS)
        subject (has(NS) && PODS)
        egress 0 Allow everything to (has(NS) && PODS)
    "#]]
    .assert_eq(&text);
}

#[test]
fn actions_and_names() {
    let from = json!([{"namespaces": {}}]);
    check(
        spec(
            &json!([
                {"action": "Accept", "from": from},
                {"action": "Deny", "from": from, "name": "second"},
                {"action": "Pass", "from": from, "name": "second"},
                {"action": "Accept", "from": from, "name": "", "protocols": null},
            ]),
            &json!([]),
        ),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Allow everything from (has(NS) && PODS)
            ingress 1 `second` Deny everything from (has(NS) && PODS)
            ingress 2 `second` Pass everything from (has(NS) && PODS)
            ingress 3 Allow everything from (has(NS) && PODS)
        "#]],
    );
}

#[test]
fn peers_of_pods() {
    check_rule(
        json!([
            {"namespaces": {}},
            {"namespaces": {"matchLabels": {"team": "red"}}},
            {"pods": {"podSelector": {}}},
            {"pods": {"podSelector": {"matchLabels": {"app": "web"}}}},
            {"pods": {
                "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]},
                "podSelector": {"matchLabels": {"app": "web"}},
            }},
        ]),
        Value::Null,
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Deny everything from (has(NS) && PODS)
            ingress 0 Deny everything from (pcns.team == "red" && PODS)
            ingress 0 Deny everything from (has(NS) && PODS)
            ingress 0 Deny everything from (app == "web" && has(NS) && PODS)
            ingress 0 Deny everything from (app == "web" && has(pcns.kubernetes.io/metadata.name) && PODS && !has(pcns.team))
            egress 0 Deny everything to (has(NS) && PODS)
            egress 0 Deny everything to (pcns.team == "red" && PODS)
            egress 0 Deny everything to (has(NS) && PODS)
            egress 0 Deny everything to (app == "web" && has(NS) && PODS)
            egress 0 Deny everything to (app == "web" && has(pcns.kubernetes.io/metadata.name) && PODS && !has(pcns.team))
        "#]],
    );
}

#[test]
fn networks_are_one_condition_and_masked() {
    check_egress(
        "Deny",
        json!([
            {"networks": ["10.1.2.3/16", "2001:db8::1/32", "10.1.2.3/32"]},
            {"namespaces": {}},
            {"networks": ["192.0.2.0/24", "10.1.0.0/16"]},
        ]),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 Deny everything to (has(NS) && PODS)
            egress 0 Deny everything to [10.1.0.0/16, 192.0.2.0/24, 2001:db8::/32]
        "#]],
    );
    check_egress(
        "Pass",
        json!([{"networks": ["0.0.0.0/0"]}]),
        expect![[r#"
        subject (has(NS) && PODS)
        egress 0 Pass everything to [0.0.0.0/0]
    "#]],
    );
}

#[test]
fn nodes() {
    check_egress(
        "Accept",
        json!([
            {"nodes": {}},
            {"nodes": {"matchLabels": {"projectcalico.org/namespace": "x"}}},
            {"nodes": {"matchExpressions": [
                {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
                {"key": "zone", "operator": "NotIn", "values": ["b", "a"]},
            ]}},
        ]),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 Allow everything to nodes all()
            egress 0 Allow everything to nodes NS == "x"
            egress 0 Allow everything to nodes (has(node-role.kubernetes.io/control-plane) && zone not in {"a", "b"})
        "#]],
    );
}

#[test]
fn domain_names_are_one_condition() {
    check_egress(
        "Accept",
        json!([
            {"domainNames": ["kubernetes.io", "Blog.Kubernetes.IO.", "*.example.com"]},
            {"domainNames": ["*.Example.com.", "a_b.example.org", "1.example"]},
        ]),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 Allow everything to names 1.example a_b.example.org blog.kubernetes.io kubernetes.io *.example.com
        "#]],
    );
}

#[test]
fn protocols() {
    let namespaces = || json!([{"namespaces": {}}]);
    check_rule(
        namespaces(),
        Value::Null,
        expect![[r#"
        subject (has(NS) && PODS)
        ingress 0 Deny everything from (has(NS) && PODS)
        egress 0 Deny everything to (has(NS) && PODS)
    "#]],
    );
    check_rule(
        namespaces(),
        json!([
            {"tcp": {"destinationPort": {"number": 80}}},
            {"udp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}},
            {"tcp": {"destinationPort": {"range": {"start": 81, "end": 90}}}},
            {"sctp": {"destinationPort": {"number": 65535}}},
            {"tcp": {"destinationPort": {"number": 443}}},
        ]),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Deny TCP 80-90,443 from (has(NS) && PODS)
            ingress 0 Deny UDP 1-65535 from (has(NS) && PODS)
            ingress 0 Deny SCTP 65535 from (has(NS) && PODS)
            egress 0 Deny TCP 80-90,443 to (has(NS) && PODS)
            egress 0 Deny UDP 1-65535 to (has(NS) && PODS)
            egress 0 Deny SCTP 65535 to (has(NS) && PODS)
        "#]],
    );
}

#[test]
fn a_named_port_is_of_any_transport() {
    check_rule(
        json!([{"namespaces": {}}, {"pods": {"podSelector": {"matchLabels": {"app": "web"}}}}]),
        json!([
            {"destinationNamedPort": "web"},
            {"udp": {"destinationPort": {"number": 53}}},
            {"destinationNamedPort": "dns"},
        ]),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Deny TCP `dns` `web` from (has(NS) && PODS)
            ingress 0 Deny UDP 53 `dns` `web` from (has(NS) && PODS)
            ingress 0 Deny SCTP `dns` `web` from (has(NS) && PODS)
            ingress 0 Deny TCP `dns` `web` from (app == "web" && has(NS) && PODS)
            ingress 0 Deny UDP 53 `dns` `web` from (app == "web" && has(NS) && PODS)
            ingress 0 Deny SCTP `dns` `web` from (app == "web" && has(NS) && PODS)
            egress 0 Deny TCP `dns` `web` to (has(NS) && PODS)
            egress 0 Deny UDP 53 `dns` `web` to (has(NS) && PODS)
            egress 0 Deny SCTP `dns` `web` to (has(NS) && PODS)
            egress 0 Deny TCP `dns` `web` to (app == "web" && has(NS) && PODS)
            egress 0 Deny UDP 53 `dns` `web` to (app == "web" && has(NS) && PODS)
            egress 0 Deny SCTP `dns` `web` to (app == "web" && has(NS) && PODS)
        "#]],
    );
}

#[test]
fn every_rule_is_a_product() {
    check(
        rule(
            "egress",
            "Deny",
            &json!([{"nodes": {}}, {"networks": ["10.0.0.0/8"]}]),
            &json!([
                {"tcp": {"destinationPort": {"number": 80}}},
                {"udp": {"destinationPort": {"number": 53}}},
            ]),
        ),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 Deny TCP 80 to nodes all()
            egress 0 Deny UDP 53 to nodes all()
            egress 0 Deny TCP 80 to [10.0.0.0/8]
            egress 0 Deny UDP 53 to [10.0.0.0/8]
        "#]],
    );
}

#[test]
fn what_policy_does_not_depend_on_is_not_looked_at() {
    let mut object = manifest(&spec(&json!([]), &json!([])));
    object["status"] = json!({"conditions": [{"type": "Ready"}], "future": 1});
    object["metadata"] = json!({"name": "p", "annotations": {"a": "b"}, "managedFields": []});
    assert!(convert(&object, Strictness::Strict).is_ok());
}
