//! The policies of the Kubernetes documentation.
//!
//! Source: `examples/service/networking` of kubernetes.io, "Network Policies".

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{convert, shown};
use crate::api::Strictness;

#[track_caller]
fn check(name: &str, namespace: &str, spec: Value, want: Expect) {
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    });
    want.assert_eq(&shown(&convert(&manifest, Strictness::Strict).unwrap().value));
}

#[test]
fn the_example_with_everything() {
    check(
        "test-network-policy",
        "default",
        json!({
            "podSelector": {"matchLabels": {"role": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                    {"namespaceSelector": {"matchLabels": {"project": "myproject"}}},
                    {"podSelector": {"matchLabels": {"role": "frontend"}}},
                ],
                "ports": [{"protocol": "TCP", "port": 6379}],
            }],
            "egress": [{
                "to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}],
                "ports": [{"protocol": "TCP", "port": 5978}],
            }],
        }),
        expect![[r#"
            subject (NS == "default" && PODS && role == "db")
            ingress 0 Allow TCP 6379 from [172.17.0.0/16] but [172.17.1.0/24]
            ingress 0 Allow TCP 6379 from (pcns.project == "myproject" && PODS)
            ingress 0 Allow TCP 6379 from (NS == "default" && PODS && role == "frontend")
            egress 0 Allow TCP 5978 to [10.0.0.0/24]
        "#]],
    );
}

#[test]
fn defaults_for_a_namespace() {
    let check = |name, spec, want| check(name, "default", spec, want);
    check(
        "default-deny-ingress",
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        expect![[r#"
            subject (NS == "default" && PODS)
            ingress nothing
        "#]],
    );
    check(
        "allow-all-ingress",
        json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]}),
        expect![[r#"
            subject (NS == "default" && PODS)
            ingress 0 Allow everything
        "#]],
    );
    check(
        "default-deny-egress",
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
        expect![[r#"
            subject (NS == "default" && PODS)
            egress nothing
        "#]],
    );
    check(
        "allow-all-egress",
        json!({"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]}),
        expect![[r#"
            subject (NS == "default" && PODS)
            egress 0 Allow everything
        "#]],
    );
    check(
        "default-deny-all",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        expect![[r#"
            subject (NS == "default" && PODS)
            ingress nothing
            egress nothing
        "#]],
    );
}

#[test]
fn a_range_of_ports() {
    check(
        "multi-port-egress",
        "default",
        json!({
            "podSelector": {"matchLabels": {"role": "db"}},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}],
                "ports": [{"protocol": "TCP", "port": 32_000, "endPort": 32_768}],
            }],
        }),
        expect![[r#"
            subject (NS == "default" && PODS && role == "db")
            egress 0 Allow TCP 32000-32768 to [10.0.0.0/24]
        "#]],
    );
}

#[test]
fn several_namespaces() {
    check(
        "egress-namespaces",
        "default",
        json!({
            "podSelector": {"matchLabels": {"app": "myapp"}},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{"namespaceSelector": {"matchExpressions": [
                    {"key": "namespace", "operator": "In", "values": ["frontend", "backend"]},
                ]}}],
            }],
        }),
        expect![[r#"
            subject (app == "myapp" && NS == "default" && PODS)
            egress 0 Allow everything to (pcns.namespace in {"backend", "frontend"} && PODS)
        "#]],
    );
}
