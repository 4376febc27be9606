//! Policies as the documentation and the conformance suite of network-policy-api show them.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::convert;
use crate::api::Strictness;

#[track_caller]
fn check(name: &str, spec: Value, want: Expect) {
    let manifest = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    });
    want.assert_eq(&shown(&convert(&manifest, Strictness::Strict).unwrap().value));
}

#[test]
fn a_namespace_that_nobody_reaches() {
    check(
        "cluster-wide-deny-example",
        json!({
            "tier": "Admin", "priority": 10,
            "subject": {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "sensitive-ns"}}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}], "name": "select-all-deny-all"}],
        }),
        expect![[r#"
            subject (pcns.kubernetes.io/metadata.name == "sensitive-ns" && PODS)
            ingress 0 `select-all-deny-all` Deny everything from (has(NS) && PODS)
        "#]],
    );
}

#[test]
fn monitoring_and_dns_for_all() {
    check(
        "cluster-wide-allow-example",
        json!({
            "tier": "Admin", "priority": 30,
            "subject": {"namespaces": {}},
            "ingress": [{
                "action": "Accept",
                "from": [{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring-ns"}}}],
            }],
            "egress": [{
                "action": "Accept",
                "to": [{"pods": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                    "podSelector": {"matchLabels": {"app": "kube-dns"}},
                }}],
            }],
        }),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Allow everything from (pcns.kubernetes.io/metadata.name == "monitoring-ns" && PODS)
            egress 0 Allow everything to (app == "kube-dns" && pcns.kubernetes.io/metadata.name == "kube-system" && PODS)
        "#]],
    );
}

#[test]
fn delegation_of_a_service() {
    check(
        "pub-svc-delegate-example",
        json!({
            "tier": "Admin", "priority": 20,
            "subject": {"namespaces": {}},
            "egress": [{
                "action": "Pass",
                "to": [{"pods": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bar-ns-1"}},
                    "podSelector": {"matchLabels": {"app": "svc-pub"}},
                }}],
                "protocols": [{"tcp": {"destinationPort": {"number": 8080}}}],
            }],
        }),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 Pass TCP 8080 to (app == "svc-pub" && pcns.kubernetes.io/metadata.name == "bar-ns-1" && PODS)
        "#]],
    );
}

#[test]
fn nothing_is_trusted_by_default() {
    check(
        "default",
        json!({
            "tier": "Baseline", "priority": 0,
            "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        }),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Deny everything from (has(NS) && PODS)
        "#]],
    );
}

#[test]
fn egress_to_nodes_networks_and_names() {
    check(
        "node-and-cidr-as-peers-example",
        json!({
            "tier": "Admin", "priority": 75,
            "subject": {"pods": {
                "namespaceSelector": {"matchLabels": {"conformance-house": "gryffindor"}},
                "podSelector": {"matchLabels": {"conformance-house": "gryffindor"}},
            }},
            "egress": [
                {
                    "name": "allow-egress-to-36363-on-nodes", "action": "Accept",
                    "to": [{"nodes": {"matchLabels": {"kubernetes.io/os": "linux"}}}],
                    "protocols": [{"tcp": {"destinationPort": {"number": 36363}}}],
                },
                {
                    "name": "allow-egress-to-names", "action": "Accept",
                    "to": [{"domainNames": ["kubernetes.io", "*.kubernetes.io"]}],
                    "protocols": [{"tcp": {"destinationPort": {"number": 443}}}],
                },
                {
                    "name": "deny-egress-to-slytherin-and-nodes-and-internet", "action": "Deny",
                    "to": [
                        {"pods": {
                            "namespaceSelector": {"matchLabels": {"conformance-house": "slytherin"}},
                            "podSelector": {"matchLabels": {"conformance-house": "slytherin"}},
                        }},
                        {"nodes": {"matchLabels": {"kubernetes.io/os": "linux"}}},
                        {"networks": ["0.0.0.0/0", "::/0"]},
                    ],
                },
            ],
        }),
        expect![[r#"
            subject (conformance-house == "gryffindor" && pcns.conformance-house == "gryffindor" && PODS)
            egress 0 `allow-egress-to-36363-on-nodes` Allow TCP 36363 to nodes kubernetes.io/os == "linux"
            egress 1 `allow-egress-to-names` Allow TCP 443 to names kubernetes.io *.kubernetes.io
            egress 2 `deny-egress-to-slytherin-and-nodes-and-internet` Deny everything to (conformance-house == "slytherin" && pcns.conformance-house == "slytherin" && PODS)
            egress 2 `deny-egress-to-slytherin-and-nodes-and-internet` Deny everything to nodes kubernetes.io/os == "linux"
            egress 2 `deny-egress-to-slytherin-and-nodes-and-internet` Deny everything to [0.0.0.0/0, ::/0]
        "#]],
    );
}
