//! Everything that the schemas refuse, with the exact texts, as far as ClusterNetworkPolicy does not refuse it too.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::{admin, baseline, convert};
use crate::api::Strictness;

#[track_caller]
fn check(manifest: &Value, want: &[&str]) {
    let lines: Vec<_> = match convert(manifest, Strictness::Strict) {
        Ok(accepted) => panic!("accepted: {manifest}\n{}", shown(&accepted.value)),
        Err(refused) => refused.diagnostics.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(lines, want, "{manifest}");
}

/// Checks a peer of either direction of either kind.
#[track_caller]
fn check_peer(peer: Value, want: &[&str]) {
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        let rules = json!([{"action": "Deny", side: [{"namespaces": {}}, &peer]}]);
        let none = json!([]);
        let (ingress, egress) = if side == "from" { (&rules, &none) } else { (&none, &rules) };
        let want: Vec<_> =
            want.iter().map(|it| format!("spec.{direction}[0].{side}[1]{it}")).collect();
        let want: Vec<_> = want.iter().map(String::as_str).collect();
        check(&admin(ingress, egress), &want);
        check(&baseline(ingress, egress), &want);
    }
}

#[track_caller]
fn check_port(port: Value, want: &[&str]) {
    let ports = json!([{"portNumber": {"port": 53}}, &port]);
    let rules = json!([{"action": "Deny", "from": [{"namespaces": {}}], "ports": ports}]);
    let want: Vec<_> = want.iter().map(|it| format!("spec.ingress[0].ports[1]{it}")).collect();
    let want: Vec<_> = want.iter().map(String::as_str).collect();
    check(&admin(&rules, &json!([])), &want);
    check(&baseline(&rules, &json!([])), &want);
}

#[test]
fn priorities_and_names() {
    let none = json!([]);
    let mut nothing = admin(&none, &none);
    nothing["spec"] = json!({});
    check(
        &nothing,
        &[
            "spec.priority: missing, expected 0 to 1000",
            "spec.subject: missing, expected an object with `namespaces` or `pods`",
        ],
    );
    for number in [-1, 1001] {
        let mut manifest = admin(&none, &none);
        manifest["spec"]["priority"] = json!(number);
        let want = format!("spec.priority: `{number}` is not a priority, expected 0 to 1000");
        check(&manifest, &[&want]);
    }
    let mut other = baseline(&none, &none);
    other["metadata"]["name"] = json!("other");
    check(&other, &["metadata.name: `other` is not the baseline policy, expected `default`"]);
    let mut prior = baseline(&none, &none);
    prior["spec"]["priority"] = json!(5);
    check(&prior, &["spec.priority: unknown field"]);
    let mut tier = admin(&none, &none);
    tier["spec"]["tier"] = json!("Admin");
    check(&tier, &["spec.tier: unknown field"]);
}

#[test]
fn subjects_need_both_selectors() {
    let none = json!([]);
    for manifest in [admin(&none, &none), baseline(&none, &none)] {
        let with = |subject: Value| {
            let mut manifest = manifest.clone();
            manifest["spec"]["subject"] = subject;
            manifest
        };
        check(&with(json!({})), &["spec.subject: empty, expected `namespaces` or `pods`"]);
        check(
            &with(json!({"pods": {}})),
            &[
                "spec.subject.pods.namespaceSelector: missing, expected a selector, `{}` for all namespaces",
                "spec.subject.pods.podSelector: missing, expected a selector, `{}` for all pods",
            ],
        );
        check(
            &with(json!({"namespaces": {"sameLabels": ["k"]}})),
            &["spec.subject.namespaces.sameLabels: unknown field"],
        );
    }
}

#[test]
fn actions() {
    let rules = |action: &str| json!([{"action": action, "from": [{"namespaces": {}}]}]);
    for action in ["Accept", "allow", "Log"] {
        let want = format!(
            "spec.ingress[0].action: `{action}` is not an action, expected `Allow`, `Deny` or `Pass`"
        );
        check(&admin(&rules(action), &json!([])), &[&want]);
    }
    for action in ["Accept", "Pass"] {
        let want = format!(
            "spec.ingress[0].action: `{action}` is not an action, expected `Allow` or `Deny`"
        );
        check(&baseline(&rules(action), &json!([])), &[&want]);
    }
}

#[test]
fn peers() {
    check_peer(
        json!({"pods": {"podSelector": {}}}),
        &[".pods.namespaceSelector: missing, expected a selector, `{}` for all namespaces"],
    );
    check_peer(
        json!({"pods": {"namespaceSelector": {}}}),
        &[".pods.podSelector: missing, expected a selector, `{}` for all pods"],
    );
    check_peer(
        json!({"pods": {"namespaceSelector": {}, "namespaces": {}, "podSelector": {}}}),
        &[".pods: `namespaces` beside `namespaceSelector`, expected one of them"],
    );
    let old =
        "several fields, expected one of `namespaceSelector`, `sameLabels` or `notSameLabels`";
    for namespaces in [
        json!({"namespaceSelector": {}, "sameLabels": ["k"]}),
        json!({"sameLabels": ["k"], "notSameLabels": ["k"]}),
        json!({"sameLabels": ["k"], "matchLabels": {}}),
        json!({"namespaceSelector": {}, "matchExpressions": []}),
    ] {
        check_peer(json!({"namespaces": namespaces}), &[&format!(".namespaces: {old}")]);
        check_peer(
            json!({"pods": {"namespaces": namespaces, "podSelector": {}}}),
            &[&format!(".pods.namespaces: {old}")],
        );
    }
    check_peer(
        json!({"namespaces": {"sameLabels": ["k"], "future": 1}}),
        &[".namespaces.future: unknown field"],
    );
    check_peer(
        json!({"namespaces": {"notSameLabels": ["k", "a b"]}}),
        &[&format!(
            ".namespaces.notSameLabels[1]: `a b` is not a label key, expected {}",
            super::super::super::names::LABEL_KEY
        )],
    );
    let keys: Vec<_> = (0..101).map(|it| format!("k{it}")).collect();
    check_peer(
        json!({"namespaces": {"sameLabels": keys}}),
        &[".namespaces.sameLabels: 101 entries, expected at most 100"],
    );
}

#[test]
fn peers_of_egress() {
    let rules = |action: &str, peer: Value| json!([{"action": action, "to": [peer]}]);
    let name = json!({"domainNames": ["example.com"]});
    check(
        &baseline(&json!([]), &rules("Allow", name.clone())),
        &[
            "spec.egress[0].to[0].domainNames: unknown field",
            "spec.egress[0].to[0]: no known field, expected `namespaces`, `pods`, `networks` or `nodes`",
        ],
    );
    check(
        &admin(&json!([]), &rules("Deny", name)),
        &[
            "spec.egress[0].to: `domainNames` in a rule that does not allow, which only rules that allow can have",
        ],
    );
    for peer in [json!({"networks": ["10.0.0.0/8"]}), json!({"nodes": {}})] {
        let mut rules = rules("Deny", peer);
        rules[0]["ports"] = json!([{"portNumber": {"port": 80}}, {"namedPort": "web"}]);
        let want = "spec.egress[0].to: `networks`, `nodes` or `domainNames` in a rule with a named port, expected \
                    `namespaces` or `pods`, which can have one";
        check(&admin(&json!([]), &rules), &[want]);
        check(&baseline(&json!([]), &rules), &[want]);
    }
}

#[test]
fn ports() {
    let expected = "`portNumber`, `portRange` or `namedPort`";
    check_port(json!({}), &[&format!(": empty, expected {expected}")]);
    check_port(json!({"namedPort": null}), &[&format!(": empty, expected {expected}")]);
    check_port(
        json!({"portNumber": {"port": 1}, "namedPort": "web"}),
        &[&format!(": several fields, expected one of {expected}")],
    );
    check_port(json!({"portNumber": {}}), &[".portNumber.port: missing, expected 1 to 65535"]);
    check_port(
        json!({"portNumber": {"port": 0, "protocol": "tcp"}}),
        &[
            ".portNumber.protocol: `tcp` is not a protocol, expected `TCP`, `UDP` or `SCTP`",
            ".portNumber.port: `0` is not a port, expected 1 to 65535",
        ],
    );
    check_port(
        json!({"portRange": {"start": 80, "end": 80}}),
        &[".portRange.end: `80` is not above `start`, expected more than `80`"],
    );
    check_port(
        json!({"portRange": {"end": 65536}}),
        &[
            ".portRange.start: missing, expected 1 to 65535",
            ".portRange.end: `65536` is not a port, expected 1 to 65535",
        ],
    );
    check_port(
        json!({"tcp": {"destinationPort": {"number": 1}}}),
        &[".tcp: unknown field", &format!(": empty, expected {expected}")],
    );
    let protocols = json!([{"action": "Deny", "from": [{"namespaces": {}}], "protocols": []}]);
    check(&admin(&protocols, &json!([])), &["spec.ingress[0].protocols: unknown field"]);
}

#[test]
fn one_hundred_of_everything() {
    let rules = |len: usize| -> Value {
        (0..len).map(|_| json!({"action": "Deny", "from": [{"namespaces": {}}]})).collect()
    };
    let peers = |len: usize| -> Value {
        let peers: Value = (0..len).map(|_| json!({"namespaces": {}})).collect();
        json!([{"action": "Deny", "from": peers}])
    };
    let ports = |len: usize| -> Value {
        let ports: Value = (1..=len).map(|it| json!({"portNumber": {"port": it}})).collect();
        json!([{"action": "Deny", "from": [{"namespaces": {}}], "ports": ports}])
    };
    let none = json!([]);
    for (at, with) in [
        ("ingress", &rules as &dyn Fn(usize) -> Value),
        ("ingress[0].from", &peers),
        ("ingress[0].ports", &ports),
    ] {
        let want = format!("spec.{at}: 101 entries, expected at most 100");
        check(&admin(&with(101), &none), &[&want]);
        check(&baseline(&with(101), &none), &[&want]);
        assert!(convert(&admin(&with(100), &none), Strictness::Strict).is_ok(), "{at}");
    }
    let networks: Vec<_> = (0..26).map(|it| format!("10.0.{it}.0/24")).collect();
    let egress = json!([{"action": "Deny", "to": [{"networks": networks}]}]);
    check(
        &admin(&none, &egress),
        &["spec.egress[0].to[0].networks: 26 entries, expected at most 25"],
    );
}
