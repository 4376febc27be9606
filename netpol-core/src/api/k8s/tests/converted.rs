//! What accepted policies become: one test for each part of the API.

use alloc::format;
use alloc::string::String;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{convert, manifest, shown};
use crate::api::Strictness;
use crate::model::{Enforcement, Order, PolicyKey, Tier};

#[track_caller]
fn check(spec: Value, want: Expect) {
    want.assert_eq(&shown(&convert(&manifest(&spec), Strictness::Strict).unwrap().value));
}

/// Checks several policies, each after its manifest.
#[track_caller]
fn check_each(specs: &[Value], want: Expect) {
    let one = |spec: &Value| {
        format!("{spec}\n{}", shown(&convert(&manifest(spec), Strictness::Strict).unwrap().value))
    };
    want.assert_eq(&specs.iter().map(one).collect::<String>());
}

/// Checks one rule in both directions.
#[track_caller]
fn check_rule(peers: Value, ports: Value, want: Expect) {
    check(
        json!({
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": &peers, "ports": &ports}],
            "egress": [{"to": &peers, "ports": &ports}],
        }),
        want,
    );
}

#[test]
fn identity_and_place() {
    let accepted = convert(&manifest(&json!({})), Strictness::Strict).unwrap();
    let policy = accepted.value;
    assert_eq!(policy.key, PolicyKey::kubernetes("ns", "p"));
    assert_eq!((policy.tier.as_str(), policy.order), (Tier::DEFAULT, Some(Order::whole(1000))));
    assert_eq!(policy.enforcement, Enforcement::Enforced);
    assert_eq!(accepted.diagnostics, []);
}

#[test]
fn subjects() {
    check_each(
        &[json!({}), json!({"podSelector": {}}), json!({"podSelector": null}), Value::Null],
        expect![[r#"
            {}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"podSelector":{}}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"podSelector":null}
            subject (NS == "ns" && PODS)
            ingress nothing
            null
            subject (NS == "ns" && PODS)
            ingress nothing
        "#]],
    );
    check(
        json!({"podSelector": {"matchLabels": {"b": "2", "a": ""}}}),
        expect![[r#"
        subject (a == "" && b == "2" && NS == "ns" && PODS)
        ingress nothing
    "#]],
    );
    check(
        json!({"podSelector": {"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["2", "1", "2"]},
            {"key": "example.com/c", "operator": "NotIn", "values": ["3"]},
            {"key": "d", "operator": "Exists"},
            {"key": "e", "operator": "DoesNotExist", "values": []},
        ]}}),
        expect![[r#"
            subject (a == "1" && b in {"1", "2"} && has(d) && example.com/c not in {"3"} && NS == "ns" && PODS && !has(e))
            ingress nothing
        "#]],
    );
}

#[test]
fn policy_types() {
    let absent = |types: Value| {
        [
            json!({"policyTypes": types}),
            json!({"policyTypes": types, "egress": []}),
            json!({"policyTypes": types, "egress": null}),
            json!({"policyTypes": types, "egress": [{}]}),
            json!({"policyTypes": types, "ingress": [{}]}),
            json!({"policyTypes": types, "ingress": [{}], "egress": [{}]}),
        ]
    };
    check_each(
        &absent(json!(null)),
        expect![[r#"
            {"policyTypes":null}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"egress":[],"policyTypes":null}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"egress":null,"policyTypes":null}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"egress":[{}],"policyTypes":null}
            subject (NS == "ns" && PODS)
            ingress nothing
            egress 0 Allow everything
            {"ingress":[{}],"policyTypes":null}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            {"egress":[{}],"ingress":[{}],"policyTypes":null}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            egress 0 Allow everything
        "#]],
    );
    check_each(
        &absent(json!([])),
        expect![[r#"
            {"policyTypes":[]}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"egress":[],"policyTypes":[]}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"egress":null,"policyTypes":[]}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"egress":[{}],"policyTypes":[]}
            subject (NS == "ns" && PODS)
            ingress nothing
            egress 0 Allow everything
            {"ingress":[{}],"policyTypes":[]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            {"egress":[{}],"ingress":[{}],"policyTypes":[]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            egress 0 Allow everything
        "#]],
    );
    check_each(
        &[
            json!({"policyTypes": ["Ingress"], "egress": [{}]}),
            json!({"policyTypes": ["Egress"], "ingress": [{}]}),
            json!({"policyTypes": ["Ingress", "Ingress"]}),
            json!({"policyTypes": ["Egress", "Ingress"]}),
        ],
        expect![[r#"
            {"egress":[{}],"policyTypes":["Ingress"]}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"ingress":[{}],"policyTypes":["Egress"]}
            subject (NS == "ns" && PODS)
            egress nothing
            {"policyTypes":["Ingress","Ingress"]}
            subject (NS == "ns" && PODS)
            ingress nothing
            {"policyTypes":["Egress","Ingress"]}
            subject (NS == "ns" && PODS)
            ingress nothing
            egress nothing
        "#]],
    );
}

#[test]
fn rules_that_are_empty_or_missing() {
    check(
        json!({"policyTypes": ["Ingress"], "ingress": []}),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress nothing
        "#]],
    );
    check(
        json!({"policyTypes": ["Ingress"], "ingress": null}),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress nothing
        "#]],
    );
    check(
        json!({"ingress": [{}, {}]}),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            ingress 1 Allow everything
        "#]],
    );
    check_rule(
        json!(null),
        json!(null),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            egress 0 Allow everything
        "#]],
    );
    check_rule(
        json!([]),
        json!([]),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything
            egress 0 Allow everything
        "#]],
    );
}

#[test]
fn peers_are_crossed_with_ports() {
    check_rule(
        json!([{"podSelector": {"matchLabels": {"a": "1"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]),
        json!([{"port": 80}, {"protocol": "UDP", "port": 53}, {"protocol": "SCTP"}]),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80 from (a == "1" && NS == "ns" && PODS)
            ingress 0 Allow UDP 53 from (a == "1" && NS == "ns" && PODS)
            ingress 0 Allow SCTP from (a == "1" && NS == "ns" && PODS)
            ingress 0 Allow TCP 80 from [10.0.0.0/8]
            ingress 0 Allow UDP 53 from [10.0.0.0/8]
            ingress 0 Allow SCTP from [10.0.0.0/8]
            egress 0 Allow TCP 80 to (a == "1" && NS == "ns" && PODS)
            egress 0 Allow UDP 53 to (a == "1" && NS == "ns" && PODS)
            egress 0 Allow SCTP to (a == "1" && NS == "ns" && PODS)
            egress 0 Allow TCP 80 to [10.0.0.0/8]
            egress 0 Allow UDP 53 to [10.0.0.0/8]
            egress 0 Allow SCTP to [10.0.0.0/8]
        "#]],
    );
}

#[test]
fn rules_keep_their_indexes() {
    check(
        json!({"ingress": [
            {"ports": [{"port": 80}]},
            {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]},
            {"ports": [{"port": 80}]},
        ]}),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80
            ingress 1 Allow TCP 1
            ingress 1 Allow UDP 2
            ingress 2 Allow TCP 80
        "#]],
    );
}

#[test]
fn selectors_of_peers() {
    let peers = [
        json!({"podSelector": {}}),
        json!({"podSelector": {}, "namespaceSelector": null}),
        json!({"podSelector": {"matchLabels": {"a": "1"}}}),
        json!({"namespaceSelector": {}}),
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}),
        json!({"namespaceSelector": {"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["v"]}]}}),
        json!({"namespaceSelector": {}, "podSelector": {}}),
        json!({"namespaceSelector": {"matchLabels": {"n": "1"}}, "podSelector": {"matchLabels": {"p": "2"}}}),
    ];
    check_each(
        &peers.map(|peer| json!({"ingress": [{"from": [peer]}]})),
        expect![[r#"
            {"ingress":[{"from":[{"podSelector":{}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (NS == "ns" && PODS)
            {"ingress":[{"from":[{"namespaceSelector":null,"podSelector":{}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (NS == "ns" && PODS)
            {"ingress":[{"from":[{"podSelector":{"matchLabels":{"a":"1"}}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (a == "1" && NS == "ns" && PODS)
            {"ingress":[{"from":[{"namespaceSelector":{}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (has(NS) && PODS)
            {"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"x"}}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (pcns.kubernetes.io/metadata.name == "x" && PODS)
            {"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"k","operator":"NotIn","values":["v"]}]}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (pcns.k not in {"v"} && has(pcns.kubernetes.io/metadata.name) && PODS)
            {"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (has(NS) && PODS)
            {"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"n":"1"}},"podSelector":{"matchLabels":{"p":"2"}}}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (p == "2" && pcns.n == "1" && PODS)
        "#]],
    );
}

/// To Kubernetes, keys that the model keeps for itself are like any other.
#[test]
fn selectors_on_keys_of_the_model() {
    let requirement = |key| json!({"key": key, "operator": "Exists"});
    let keys = ["projectcalico.org/namespace", "projectcalico.org/name", "pcns.a"];
    let selector =
        json!({"matchExpressions": keys.map(requirement), "matchLabels": {"pcsa.b": "c"}});
    check_rule(
        json!([{"podSelector": &selector}, {"namespaceSelector": &selector}]),
        json!([]),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (has(k8s//pcns.a) && k8s//pcsa.b == "c" && has(k8s//NS) && has(projectcalico.org/name) && NS == "ns" && PODS)
            ingress 0 Allow everything from (has(pcns.k8s//projectcalico.org/name) && has(pcns.pcns.a) && pcns.pcsa.b == "c" && has(pcns.NS) && PODS)
            egress 0 Allow everything to (has(k8s//pcns.a) && k8s//pcsa.b == "c" && has(k8s//NS) && has(projectcalico.org/name) && NS == "ns" && PODS)
            egress 0 Allow everything to (has(pcns.k8s//projectcalico.org/name) && has(pcns.pcns.a) && pcns.pcsa.b == "c" && has(pcns.NS) && PODS)
        "#]],
    );
}

#[test]
fn two_peers_are_not_one_with_both_selectors() {
    check_rule(
        json!([
            {"namespaceSelector": {"matchLabels": {"n": "1"}}},
            {"podSelector": {"matchLabels": {"p": "2"}}},
        ]),
        json!([]),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from (pcns.n == "1" && PODS)
            ingress 0 Allow everything from (p == "2" && NS == "ns" && PODS)
            egress 0 Allow everything to (pcns.n == "1" && PODS)
            egress 0 Allow everything to (p == "2" && NS == "ns" && PODS)
        "#]],
    );
}

#[test]
fn blocks() {
    check_rule(
        json!([
            {"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.1.0.0/16", "10.1.2.0/24", "10.2.3.4/15"]}},
            {"ipBlock": {"cidr": "010.0.0.1/032"}},
            {"ipBlock": {"cidr": "::ffff:192.0.2.0/120", "except": ["192.0.2.1/32"]}},
            {"ipBlock": {"cidr": "2001:db8::1/32", "except": ["2001:db8::/64"]}},
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": null}},
            {"ipBlock": {"cidr": "::/0", "except": []}},
            {"ipBlock": {"cidr": "10.0.0.0/8"}},
        ]),
        json!(null),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow everything from [10.0.0.0/8] but [10.1.0.0/16, 10.2.0.0/15]
            ingress 0 Allow everything from [192.0.2.0/24] but [192.0.2.1/32]
            ingress 0 Allow everything from [2001:db8::/32] but [2001:db8::/64]
            ingress 0 Allow everything from [0.0.0.0/0, ::/0]
            egress 0 Allow everything to [10.0.0.0/8] but [10.1.0.0/16, 10.2.0.0/15]
            egress 0 Allow everything to [192.0.2.0/24] but [192.0.2.1/32]
            egress 0 Allow everything to [2001:db8::/32] but [2001:db8::/64]
            egress 0 Allow everything to [0.0.0.0/0, ::/0]
        "#]],
    );
}

#[test]
fn ports() {
    let ports = [
        json!([{}]),
        json!([{"protocol": "UDP"}]),
        json!([{"port": 80}]),
        json!([{"port": 80, "endPort": 80}]),
        json!([{"port": 1000, "endPort": 2000}, {"port": 1500, "endPort": 2500}, {"port": 2501}, {"port": 1}]),
        json!([{"protocol": "SCTP", "port": 1, "endPort": 65_535}]),
        json!([{"port": 80}, {"protocol": "TCP"}, {"port": "http"}]),
        json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}, {"protocol": "UDP", "port": 53}]),
        json!([{"port": "http"}, {"port": 80}, {"port": "http", "protocol": "UDP"}]),
    ];
    check_each(
        &ports.map(|ports| json!({"ingress": [{"ports": ports}]})),
        expect![[r#"
            {"ingress":[{"ports":[{}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP
            {"ingress":[{"ports":[{"protocol":"UDP"}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow UDP
            {"ingress":[{"ports":[{"port":80}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80
            {"ingress":[{"ports":[{"endPort":80,"port":80}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80
            {"ingress":[{"ports":[{"endPort":2000,"port":1000},{"endPort":2500,"port":1500},{"port":2501},{"port":1}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 1,1000-2501
            {"ingress":[{"ports":[{"endPort":65535,"port":1,"protocol":"SCTP"}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow SCTP 1-65535
            {"ingress":[{"ports":[{"port":80},{"protocol":"TCP"},{"port":"http"}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP
            {"ingress":[{"ports":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 53
            ingress 0 Allow UDP 53
            {"ingress":[{"ports":[{"port":"http"},{"port":80},{"port":"http","protocol":"UDP"}]}]}
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80 `http`
            ingress 0 Allow UDP `http`
        "#]],
    );
}

#[test]
fn names_are_ports_of_the_destination_pod() {
    let ports = json!([{"port": "web"}, {"port": 80}, {"protocol": "UDP", "port": "dns"}, {"protocol": "SCTP"}]);
    check_rule(
        json!([]),
        ports.clone(),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80 `web`
            ingress 0 Allow UDP `dns`
            ingress 0 Allow SCTP
            egress 0 Allow TCP 80
            egress 0 Allow SCTP
            egress 0 Allow TCP `web` to PODS
            egress 0 Allow UDP `dns` to PODS
        "#]],
    );
    check_rule(
        json!([{"podSelector": {}}]),
        ports.clone(),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80 `web` from (NS == "ns" && PODS)
            ingress 0 Allow UDP `dns` from (NS == "ns" && PODS)
            ingress 0 Allow SCTP from (NS == "ns" && PODS)
            egress 0 Allow TCP 80 `web` to (NS == "ns" && PODS)
            egress 0 Allow UDP `dns` to (NS == "ns" && PODS)
            egress 0 Allow SCTP to (NS == "ns" && PODS)
        "#]],
    );
    check_rule(
        json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/16"]}}]),
        ports,
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP 80 `web` from [10.0.0.0/8] but [10.0.0.0/16]
            ingress 0 Allow UDP `dns` from [10.0.0.0/8] but [10.0.0.0/16]
            ingress 0 Allow SCTP from [10.0.0.0/8] but [10.0.0.0/16]
            egress 0 Allow TCP 80 to [10.0.0.0/8] but [10.0.0.0/16]
            egress 0 Allow SCTP to [10.0.0.0/8] but [10.0.0.0/16]
            egress 0 Allow TCP `web` to PODS [10.0.0.0/8] but [10.0.0.0/16]
            egress 0 Allow UDP `dns` to PODS [10.0.0.0/8] but [10.0.0.0/16]
        "#]],
    );
    check_rule(
        json!([]),
        json!([{"port": "web"}]),
        expect![[r#"
            subject (NS == "ns" && PODS)
            ingress 0 Allow TCP `web`
            egress 0 Allow TCP `web` to PODS
        "#]],
    );
}

#[test]
fn odd_policies_are_accepted() {
    let mut odd = manifest(&json!({
        "podSelector": {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
        "policyTypes": ["Ingress", "Ingress"],
        "ingress": [
            {"from": [{"podSelector": {}}, {"podSelector": {}}], "ports": [{"port": 80}, {"port": 80}]},
            {"ports": [{}]},
        ],
        "egress": [{"to": [{"namespaceSelector": {}}]}],
    }));
    odd["status"] = json!({"conditions": []});
    odd["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    odd["metadata"]["creationTimestamp"] = Value::Null;
    odd.as_object_mut().unwrap().remove("kind");
    expect![[r#"
        subject (a == "1" && NS == "ns" && PODS && !has(a))
        ingress 0 Allow TCP 80 from (NS == "ns" && PODS)
        ingress 0 Allow TCP 80 from (NS == "ns" && PODS)
        ingress 1 Allow TCP
    "#]]
    .assert_eq(&shown(&convert(&odd, Strictness::Strict).unwrap().value));
}

#[test]
fn rules_of_unlisted_types_are_checked_and_ignored() {
    let bad = manifest(&json!({"policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 0}]}]}));
    assert!(convert(&bad, Strictness::Strict).is_err());
    let accepted = convert(&bad, Strictness::Degraded).unwrap();
    assert_eq!((accepted.value.egress, accepted.diagnostics.len()), (None, 1));
}

/// Null is the empty text where an API server reads it as that.
#[test]
fn null_values_of_labels() {
    check(
        json!({"podSelector": {"matchLabels": {"a": null}}}),
        expect![[r#"
        subject (a == "" && NS == "ns" && PODS)
        ingress nothing
    "#]],
    );
}
