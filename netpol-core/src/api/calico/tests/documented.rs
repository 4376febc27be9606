//! Manifests of Calico's documentation.
//!
//! Source: docs.tigera.io/calico, "Get started with Calico network policy", "Get started with policy tiers", "Use service
//! accounts rules in policy", "Use external IPs or networks rules in policy", "Enable a default deny policy", "Use HTTP
//! methods and paths in policy rules", "Protect hosts", "Apply policy to forwarded traffic", and the pages of the resources.

use alloc::string::String;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::convert;
use crate::api::shown::shown;
use crate::model::{HostTraffic, Object, Policy};

fn document(kind: &str, name: &str, namespace: Option<&str>, spec: Value) -> Value {
    let mut json = json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec});
    if let Some(namespace) = namespace {
        json["metadata"]["namespace"] = namespace.into();
    }
    json
}

fn policy(manifest: &Value) -> Policy {
    match convert(manifest) {
        Ok(Some(Object::Policy(policy))) => policy,
        other => panic!("{manifest}: {other:?}"),
    }
}

#[track_caller]
fn namespaced(name: &str, namespace: &str, spec: Value, want: Expect) {
    want.assert_eq(&shown(&policy(&document("NetworkPolicy", name, Some(namespace), spec))));
}

#[track_caller]
fn global(name: &str, spec: Value, want: Expect) {
    want.assert_eq(&shown(&policy(&document("GlobalNetworkPolicy", name, None, spec))));
}

#[test]
fn ingress_from_pods_of_the_same_namespace() {
    let rule = json!({
        "action": "Allow", "protocol": "TCP",
        "source": {"selector": "color == 'blue'"}, "destination": {"ports": [6379]},
    });
    namespaced(
        "allow-tcp-6379",
        "production",
        json!({"selector": "color == 'red'", "ingress": [&rule]}),
        expect![[r#"
            subject (color == "red" && NS == "production")
            ingress 0 Allow TCP 6379 from (color == "blue" && NS == "production")
        "#]],
    );
    global(
        "allow-tcp-port-6379",
        json!({"selector": "color == 'red'", "ingress": [&rule]}),
        expect![[r#"
            subject color == "red"
            ingress 0 Allow TCP 6379 from color == "blue"
        "#]],
    );
    let mut other = rule;
    other["source"]["namespaceSelector"] = "shape == 'circle'".into();
    namespaced(
        "allow-tcp-6379",
        "production",
        json!({"selector": "color == 'red'", "types": ["Ingress"], "ingress": [other]}),
        expect![[r#"
            subject (color == "red" && NS == "production")
            ingress 0 Allow TCP 6379 from (color == "blue" && pcns.shape == "circle")
        "#]],
    );
}

#[test]
fn egress() {
    namespaced(
        "allow-egress-same-namespace",
        "production",
        json!({
            "selector": "color == 'red'", "types": ["Egress"],
            "egress": [{
                "action": "Allow", "protocol": "TCP",
                "source": {"selector": "color == 'red'"},
                "destination": {"selector": "color == 'blue'", "ports": [80, "443"]},
            }],
        }),
        expect![[r#"
            subject (color == "red" && NS == "production")
            egress 0 Allow TCP 80,443 from (color == "red" && NS == "production") to (color == "blue" && NS == "production")
        "#]],
    );
    global(
        "allow-egress-to-public",
        json!({
            "selector": "projectcalico.org/namespace not in {'kube-system', 'calico-system', 'calico-apiserver'}",
            "types": ["Egress"],
            "egress": [{"action": "Allow", "destination": {"nets": ["1.2.3.4/32", "192.0.2.0/24"]}}],
        }),
        expect![[r#"
            subject NS not in {"calico-apiserver", "calico-system", "kube-system"}
            egress 0 Allow everything to [1.2.3.4/32, 192.0.2.0/24]
        "#]],
    );
}

#[test]
fn default_deny() {
    global(
        "default-deny",
        json!({
            "namespaceSelector":
                "kubernetes.io/metadata.name != \"kube-system\" && kubernetes.io/metadata.name != \"calico-system\"",
            "types": ["Ingress", "Egress"],
            "egress": [{
                "action": "Allow", "protocol": "UDP",
                "destination": {"selector": "k8s-app == \"kube-dns\"", "ports": [53]},
            }],
        }),
        expect![[r#"
            subject (pcns.kubernetes.io/metadata.name != "calico-system" && pcns.kubernetes.io/metadata.name != "kube-system")
            ingress nothing
            egress 0 Allow UDP 53 to k8s-app == "kube-dns"
        "#]],
    );
    namespaced(
        "default-deny",
        "engineering",
        json!({"selector": "all()", "types": ["Ingress", "Egress"]}),
        expect![[r#"
            subject (all() && NS == "engineering")
            ingress nothing
            egress nothing
        "#]],
    );
}

#[test]
fn orders() {
    let first = json!({"order": 10, "preDNAT": true, "applyOnForward": true, "ingress": [
        {"action": "Allow", "source": {"nets": ["10.240.0.0/16", "192.168.0.0/16"]}},
    ], "selector": "has(kubernetes-host)"});
    let then = json!({"order": 20, "preDNAT": true, "applyOnForward": true, "ingress": [
        {"action": "Deny"},
    ], "selector": "has(kubernetes-host)"});
    let allow =
        policy(&document("GlobalNetworkPolicy", "allow-cluster-internal-ingress", None, first));
    let drop = policy(&document("GlobalNetworkPolicy", "drop-other-ingress", None, then));
    assert!(allow.order < drop.order);
    assert_eq!(allow.host_traffic, HostTraffic::BeforeDestinationNat);
    expect![[r#"
        subject has(kubernetes-host)
        ingress 0 Allow everything from [10.240.0.0/16, 192.168.0.0/16]
        subject has(kubernetes-host)
        ingress 0 Deny everything
    "#]]
    .assert_eq(&(shown(&allow) + &shown(&drop)));
}

#[test]
fn service_accounts() {
    namespaced(
        "demo-calico",
        "prod-engineering",
        json!({"ingress": [{
            "action": "Allow",
            "source": {"serviceAccounts": {"selector": "app-role == \"intern\""}},
            "destination": {"serviceAccounts": {"names": ["api-service", "build-pods-in-engineering"]}},
        }]}),
        expect![[r#"
            subject NS == "prod-engineering"
            ingress 0 Allow everything from (pcsa.app-role == "intern" && NS == "prod-engineering") to (NS == "prod-engineering" && projectcalico.org/serviceaccount in {"api-service", "build-pods-in-engineering"})
        "#]],
    );
    global(
        "restrict-to-intern",
        json!({
            "serviceAccountSelector": "role == 'intern'",
            "ingress": [{"action": "Allow", "source": {"serviceAccounts": {"selector": "role == 'manager'"}}}],
        }),
        expect![[r#"
            subject pcsa.role == "intern"
            ingress 0 Allow everything from pcsa.role == "manager"
        "#]],
    );
}

#[test]
fn network_sets() {
    for (kind, namespace) in
        [("GlobalNetworkSet", None), ("NetworkSet", Some("advanced-policy-demo"))]
    {
        let mut set = document(
            kind,
            "google-and-k8s.io",
            namespace,
            json!({"nets": ["198.51.100.0/28", "203.0.113.0/24"]}),
        );
        set["metadata"]["labels"] = json!({"external-ip": "my-office"});
        let Ok(Some(Object::NetworkSet(set))) = convert(&set) else { panic!("no set") };
        assert_eq!(set.nets.prefixes().len(), 2);
    }
    global(
        "deny-nets",
        json!({"types": ["Ingress"], "ingress": [
            {"action": "Deny", "source": {"selector": "role == 'blocklist'"}},
            {"action": "Allow", "source": {"namespaceSelector": "global()", "selector": "external-ip == 'my-office'"}},
        ]}),
        expect![[r#"
            subject all()
            ingress 0 Deny everything from role == "blocklist"
            ingress 1 Allow everything from (external-ip == "my-office" && !has(NS))
        "#]],
    );
}

#[test]
fn icmp() {
    global(
        "block-icmp",
        json!({
            "order": 200, "selector": "all()", "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Deny", "protocol": "ICMP"}, {"action": "Deny", "protocol": "ICMPv6"}],
            "egress": [
                {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}},
                {"action": "Deny", "protocol": "ICMPv6", "notICMP": {"type": 128}},
            ],
        }),
        expect![[r#"
            subject all()
            ingress 0 Deny IPv4 ICMP
            ingress 1 Deny IPv6 ICMPv6
            egress 0 Allow IPv4 ICMP of IPv4 type 8 code 0
            egress 1 Deny IPv6 ICMP of IPv6 not type 128
        "#]],
    );
}

#[test]
fn http() {
    global(
        "customer",
        json!({
            "selector": "app == 'tomcat'",
            "ingress": [{
                "action": "Allow",
                "http": {"methods": ["GET", "PUT"], "paths": [{"exact": "/projects/calico"}, {"prefix": "/users"}]},
            }],
            "egress": [{"action": "Allow"}],
        }),
        expect![[r#"
            subject app == "tomcat"
            ingress 0 Allow TCP http GET PUT /projects/calico /users…
            egress 0 Allow everything
        "#]],
    );
}

#[test]
fn logs() {
    global(
        "allow-log",
        json!({
            "tier": "security", "selector": "role == 'database'",
            "types": ["Ingress", "Egress"],
            "ingress": [
                {"action": "Log", "protocol": "TCP", "source": {"selector": "role == 'frontend'"}},
                {"action": "Deny", "protocol": "TCP", "source": {"selector": "role == 'frontend'"}},
                {"action": "Pass", "metadata": {"annotations": {"from": "compliance team", "reason": "high-security"}}},
            ],
        }),
        expect![[r#"
            subject role == "database"
            ingress 0 Log TCP from role == "frontend"
            ingress 1 Deny TCP from role == "frontend"
            ingress 2 `from=compliance team, reason=high-security` Pass everything
            egress nothing
        "#]],
    );
}

#[test]
fn tiers_and_staged_policies() {
    let tier =
        document("Tier", "internal-access", None, json!({"order": 100, "defaultAction": "Pass"}));
    assert!(matches!(convert(&tier), Ok(Some(Object::Tier(_)))));
    let staged = json!({
        "tier": "internal-access", "order": 100, "selector": "all()", "types": ["Ingress", "Egress"],
        "ingress": [{
            "action": "Allow", "protocol": "TCP", "source": {"selector": "type == 'blue'"},
            "destination": {"ports": [80]},
        }],
        "egress": [{"action": "Allow"}], "performanceHints": ["AssumeNeededOnEveryNode"],
    });
    let staged =
        document("StagedNetworkPolicy", "internal-access.allow-tcp-6379", Some("default"), staged);
    expect![[r#"
        subject (all() && NS == "default")
        ingress 0 Allow TCP 80 from (NS == "default" && type == "blue")
        egress 0 Allow everything
    "#]]
    .assert_eq(&shown(&policy(&staged)));
}

#[test]
fn hosts() {
    let mut text = String::new();
    for (name, spec) in [
        (
            "ingress-k8s-workers",
            json!({
                "selector": "role == 'k8s-worker'", "order": 0, "applyOnForward": true, "types": ["Ingress"],
                "ingress": [
                    {"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.0.0.0/8"]}, "destination": {"ports": [22]}},
                    {"action": "Allow", "protocol": "ICMP"},
                ],
            }),
        ),
        (
            "xdp-filter",
            json!({
                "selector": "has(host-endpoint)", "types": ["Ingress"], "doNotTrack": true, "applyOnForward": true,
                "ingress": [{"action": "Deny", "source": {"selector": "xdp-filter == 'true'"}}],
            }),
        ),
    ] {
        let policy = policy(&document("GlobalNetworkPolicy", name, None, spec));
        text += &alloc::format!("{:?} {}", policy.host_traffic, shown(&policy));
    }
    expect![[r#"
        LocalAndForwarded subject role == "k8s-worker"
        ingress 0 Allow TCP 22 from [10.0.0.0/8]
        ingress 1 Allow IPv4 ICMP
        Untracked subject has(host-endpoint)
        ingress 0 Deny everything from xdp-filter == "true"
    "#]]
    .assert_eq(&text);
}
