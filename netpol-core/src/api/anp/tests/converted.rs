//! What accepted policies become, as far as it is not what ClusterNetworkPolicies become.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::{admin, baseline, convert};
use crate::api::{Document, Kind, Strictness};
use crate::model::{Object, ObjectKey, Order, PolicyKey, PolicyKind, Tier};

#[track_caller]
fn check(manifest: &Value, want: Expect) {
    want.assert_eq(&shown(&convert(manifest, Strictness::Strict).unwrap().value));
}

/// Checks peers and ports of a rule of ingress.
#[track_caller]
fn check_rule(from: Value, ports: Value, want: Expect) {
    let rules = json!([{"action": "Allow", "from": from, "ports": ports}]);
    let policy = convert(&admin(&rules, &json!([])), Strictness::Strict).unwrap().value;
    want.assert_eq(&shown(&policy));
    // The baseline policy is no different, nor is egress.
    let of_baseline = convert(&baseline(&rules, &json!([])), Strictness::Strict).unwrap().value;
    assert_eq!(
        (of_baseline.subject, of_baseline.ingress),
        (policy.subject, policy.ingress.clone())
    );
    let rules = json!([{"action": "Allow", "to": rules[0]["from"], "ports": rules[0]["ports"]}]);
    let egress = convert(&admin(&json!([]), &rules), Strictness::Strict).unwrap().value.egress;
    let mut turned = egress.unwrap();
    for rule in &mut turned {
        core::mem::swap(&mut rule.matches.source, &mut rule.matches.destination);
    }
    assert_eq!(Some(turned), policy.ingress);
}

#[test]
fn identity_and_place() {
    let none = json!([]);
    for (kind, manifest, policy_kind, name, place) in [
        (
            Kind::AdminNetworkPolicy,
            admin(&none, &none),
            PolicyKind::KubernetesAdminNetworkPolicy,
            "p",
            (Tier::KUBE_ADMIN, Some(Order::whole(7))),
        ),
        (
            Kind::BaselineAdminNetworkPolicy,
            baseline(&none, &none),
            PolicyKind::KubernetesBaselineAdminNetworkPolicy,
            "default",
            (Tier::KUBE_BASELINE, None),
        ),
    ] {
        let accepted = convert(&manifest, Strictness::Strict).unwrap();
        assert_eq!(accepted.diagnostics, []);
        let policy = accepted.value;
        let key = PolicyKey { kind: policy_kind, namespace: None, name: name.into() };
        assert_eq!(policy.key, key);
        assert_eq!((policy.tier.as_str(), policy.order), place);
        assert_eq!((&policy.ingress, &policy.egress), (&None, &None));
        let document = Document::read(kind, &manifest).unwrap();
        let object = document.to_object(Strictness::Strict).unwrap().value;
        assert_eq!(object, Some(Object::from(policy)));
        assert_eq!(kind.object_key(None, name), Some(ObjectKey::Policy(key)));
    }
}

#[test]
fn actions() {
    let rules = |actions: &[&str]| {
        actions
            .iter()
            .map(|it| json!({"action": it, "from": [{"namespaces": {}}]}))
            .collect::<Value>()
    };
    check(
        &admin(&rules(&["Allow", "Deny", "Pass"]), &json!([])),
        expect![[r#"
        subject (has(NS) && PODS)
        ingress 0 Allow everything from (has(NS) && PODS)
        ingress 1 Deny everything from (has(NS) && PODS)
        ingress 2 Pass everything from (has(NS) && PODS)
    "#]],
    );
    check(
        &baseline(&rules(&["Allow", "Deny"]), &json!([])),
        expect![[r#"
        subject (has(NS) && PODS)
        ingress 0 Allow everything from (has(NS) && PODS)
        ingress 1 Deny everything from (has(NS) && PODS)
    "#]],
    );
}

#[test]
fn ports() {
    let namespaces = || json!([{"namespaces": {}}]);
    for none in [Value::Null, json!([])] {
        let rules = json!([{"action": "Deny", "from": namespaces(), "ports": none}]);
        let policy = convert(&admin(&rules, &json!([])), Strictness::Strict).unwrap().value;
        assert_eq!(
            shown(&policy),
            "subject (has(NS) && PODS)\ningress 0 Deny everything from (has(NS) && PODS)\n"
        );
    }
    check_rule(
        namespaces(),
        json!([
            {"portNumber": {"port": 80}},
            {"portNumber": {"protocol": "UDP", "port": 53}},
            {"portRange": {"start": 8000, "end": 8080}},
            {"portRange": {"protocol": "SCTP", "start": 1, "end": 65535}},
            {"namedPort": "web"},
        ]),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Allow TCP 80,8000-8080 `web` from (has(NS) && PODS)
            ingress 0 Allow UDP 53 `web` from (has(NS) && PODS)
            ingress 0 Allow SCTP 1-65535 `web` from (has(NS) && PODS)
        "#]],
    );
}

#[test]
fn peers() {
    check_rule(
        json!([
            {"namespaces": {"matchLabels": {"team": "red"}}},
            {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}},
        ]),
        Value::Null,
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Allow everything from (pcns.team == "red" && PODS)
            ingress 0 Allow everything from (app == "web" && has(NS) && PODS)
        "#]],
    );
    let egress = json!([{"action": "Deny", "to": [
        {"nodes": {"matchLabels": {"os": "linux"}}},
        {"networks": ["10.1.2.3/8", "::/0"]},
    ]}]);
    check(
        &admin(&json!([]), &egress),
        expect![[r#"
        subject (has(NS) && PODS)
        egress 0 Deny everything to nodes os == "linux"
        egress 0 Deny everything to [10.0.0.0/8, ::/0]
    "#]],
    );
    check(
        &baseline(&json!([]), &egress),
        expect![[r#"
        subject (has(NS) && PODS)
        egress 0 Deny everything to nodes os == "linux"
        egress 0 Deny everything to [10.0.0.0/8, ::/0]
    "#]],
    );
    let names = json!([{"action": "Allow", "to": [{"domainNames": ["*.example.com"]}]}]);
    check(
        &admin(&json!([]), &names),
        expect![[r#"
        subject (has(NS) && PODS)
        egress 0 Allow everything to names *.example.com
    "#]],
    );
}

#[test]
fn peers_of_version_0_1_1() {
    check_rule(
        json!([
            {"namespaces": {"namespaceSelector": {}}},
            {"namespaces": {"namespaceSelector": {"matchLabels": {"team": "red"}}}},
            {"pods": {
                "namespaces": {"namespaceSelector": {"matchLabels": {"team": "red"}}},
                "podSelector": {"matchLabels": {"app": "web"}},
            }},
        ]),
        json!([{"portNumber": {"port": 80}}]),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Allow TCP 80 from (has(NS) && PODS)
            ingress 0 Allow TCP 80 from (pcns.team == "red" && PODS)
            ingress 0 Allow TCP 80 from (app == "web" && pcns.team == "red" && PODS)
        "#]],
    );
}

#[test]
fn tenancy() {
    check_rule(
        json!([
            {"namespaces": {"sameLabels": ["tenant", "stage", "tenant"]}},
            {"namespaces": {"notSameLabels": ["tenant"]}},
            {"namespaces": {"sameLabels": []}},
            {"namespaces": {"notSameLabels": ["projectcalico.org/name"]}},
            {"pods": {"namespaces": {"sameLabels": ["tenant"]}, "podSelector": {"matchLabels": {"app": "web"}}}},
        ]),
        json!([{"namedPort": "web"}]),
        expect![[r#"
            subject (has(NS) && PODS)
            ingress 0 Allow TCP `web` from PODS of same {"stage", "tenant"}
            ingress 0 Allow UDP `web` from PODS of same {"stage", "tenant"}
            ingress 0 Allow SCTP `web` from PODS of same {"stage", "tenant"}
            ingress 0 Allow TCP `web` from PODS of other {"tenant"}
            ingress 0 Allow UDP `web` from PODS of other {"tenant"}
            ingress 0 Allow SCTP `web` from PODS of other {"tenant"}
            ingress 0 Allow TCP `web` from PODS of same {}
            ingress 0 Allow UDP `web` from PODS of same {}
            ingress 0 Allow SCTP `web` from PODS of same {}
            ingress 0 Allow TCP `web` from PODS of other {"k8s//projectcalico.org/name"}
            ingress 0 Allow UDP `web` from PODS of other {"k8s//projectcalico.org/name"}
            ingress 0 Allow SCTP `web` from PODS of other {"k8s//projectcalico.org/name"}
            ingress 0 Allow TCP `web` from (app == "web" && PODS) of same {"tenant"}
            ingress 0 Allow UDP `web` from (app == "web" && PODS) of same {"tenant"}
            ingress 0 Allow SCTP `web` from (app == "web" && PODS) of same {"tenant"}
        "#]],
    );
}

#[test]
fn rules_with_unknown_peers_fail_closed() {
    for peers in [
        json!([{}]),
        json!([{"future": {}}]),
        json!([{"namespaces": {}}, {"future": {}}]),
        json!([{"namespaces": {"future": {}}}]),
        json!([{"namespaces": {"sameLabels": ["k"], "notSameLabels": ["k"]}}]),
    ] {
        let rules = |actions: &[&str]| {
            actions.iter().map(|it| json!({"action": it, "from": peers})).collect::<Value>()
        };
        let all =
            convert(&admin(&rules(&["Allow", "Deny", "Pass"]), &json!([])), Strictness::Degraded);
        let all = all.unwrap();
        assert!(all.diagnostics.len() >= 3, "{peers}");
        assert_eq!(
            shown(&all.value),
            "subject (has(NS) && PODS)\n\
             ingress 0 Allow everything from [] degraded\n\
             ingress 1 Deny everything degraded\n\
             ingress 2 Pass everything degraded\n",
            "{peers}"
        );
        let two = convert(&baseline(&rules(&["Allow", "Deny"]), &json!([])), Strictness::Degraded);
        assert_eq!(two.unwrap().value.ingress.as_deref(), all.value.ingress.unwrap().get(..2));
    }
    let namespaces = json!([{"namespaces": {}}]);
    for rule in [
        json!({"action": "Accept", "from": namespaces}),
        json!({"from": namespaces}),
        json!({"action": "Deny", "from": namespaces, "ports": [{"future": 1}]}),
        json!({"action": "Deny", "from": namespaces, "ports": [{"portNumber": {"port": 1, "future": 1}}]}),
        json!({"action": "Deny", "from": namespaces, "ports": [{}]}),
    ] {
        let manifest = admin(&json!([rule]), &json!([]));
        let strict = convert(&manifest, Strictness::Strict).unwrap_err();
        assert_eq!(convert(&manifest, Strictness::Degraded), Err(strict), "{manifest}");
    }
}
