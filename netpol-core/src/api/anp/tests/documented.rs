//! Policies as the documentation of network-policy-api shows them, of its last version and of 0.1.1.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::convert;
use crate::api::Strictness;

#[track_caller]
fn check(kind: &str, name: &str, spec: Value, want: Expect) {
    let manifest = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    want.assert_eq(&shown(&convert(&manifest, Strictness::Strict).unwrap().value));
}

#[test]
fn a_namespace_that_nobody_reaches() {
    for namespaces in [json!({}), json!({"namespaceSelector": {}})] {
        check(
            "AdminNetworkPolicy",
            "cluster-wide-deny-example",
            json!({
                "priority": 10,
                "subject": {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "sensitive-ns"}}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": namespaces}], "name": "select-all-deny-all"}],
            }),
            expect![[r#"
                subject (pcns.kubernetes.io/metadata.name == "sensitive-ns" && PODS)
                ingress 0 `select-all-deny-all` Deny everything from (has(NS) && PODS)
            "#]],
        );
    }
}

#[test]
fn delegation_of_a_service() {
    check(
        "AdminNetworkPolicy",
        "pub-svc-delegate-example",
        json!({
            "priority": 20,
            "subject": {"namespaces": {}},
            "egress": [{
                "action": "Pass",
                "to": [{"pods": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bar-ns-1"}},
                    "podSelector": {"matchLabels": {"app": "svc-pub"}},
                }}],
                "ports": [{"portNumber": {"protocol": "TCP", "port": 8080}}],
            }],
        }),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 Pass TCP 8080 to (app == "svc-pub" && pcns.kubernetes.io/metadata.name == "bar-ns-1" && PODS)
        "#]],
    );
}

#[test]
fn tenants() {
    check(
        "AdminNetworkPolicy",
        "tenant-creation-example",
        json!({
            "priority": 50,
            "subject": {"namespaces": {"matchExpressions": [{"key": "tenant", "operator": "Exists"}]}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {"notSameLabels": ["tenant"]}}]}],
        }),
        expect![[r#"
            subject (has(pcns.tenant) && PODS)
            ingress 0 Deny everything from PODS of other {"tenant"}
        "#]],
    );
}

#[test]
fn nothing_is_trusted_by_default() {
    check(
        "BaselineAdminNetworkPolicy",
        "default",
        json!({
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
fn egress_to_nodes_and_networks() {
    check(
        "AdminNetworkPolicy",
        "network-as-egress-peer",
        json!({
            "priority": 70,
            "subject": {"namespaces": {}},
            "egress": [
                {
                    "name": "allow-egress-to-apiserver", "action": "Allow",
                    "to": [{"nodes": {"matchExpressions": [
                        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
                    ]}}],
                    "ports": [{"portNumber": {"protocol": "TCP", "port": 6443}}],
                },
                {
                    "name": "allow-my-service", "action": "Allow",
                    "to": [{"domainNames": ["kubernetes.io", "*.kubernetes.io"]}],
                    "ports": [{"portNumber": {"protocol": "TCP", "port": 443}}],
                },
                {"name": "allow-all-intranet", "action": "Allow", "to": [{"networks": ["89.246.180.0/22", "60.45.72.0/22"]}]},
                {"name": "deny-all-to-internet", "action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
            ],
        }),
        expect![[r#"
            subject (has(NS) && PODS)
            egress 0 `allow-egress-to-apiserver` Allow TCP 6443 to nodes has(node-role.kubernetes.io/control-plane)
            egress 1 `allow-my-service` Allow TCP 443 to names kubernetes.io *.kubernetes.io
            egress 2 `allow-all-intranet` Allow everything to [60.45.72.0/22, 89.246.180.0/22]
            egress 3 `deny-all-to-internet` Deny everything to [0.0.0.0/0, ::/0]
        "#]],
    );
}
