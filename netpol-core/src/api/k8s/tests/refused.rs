//! Everything that an API server refuses, with the exact texts.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::{convert, manifest};
use crate::api::{MAX_ITEMS, Strictness};

const LABEL_KEY: &str = "expected a name of at most 63 letters, digits, `-`, `_` and `.` that begins and ends with a \
     letter or digit, after an optional DNS subdomain and `/`";
const LABEL_VALUE: &str = "expected nothing, or at most 63 letters, digits, `-`, `_` and `.`, beginning and ending \
     with a letter or digit";
const PORT_NAME: &str = "expected at most 15 lower-case letters, digits and single `-` between them, at least one of them a letter";
const DNS_LABEL: &str = "expected at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";
const DNS_SUBDOMAIN: &str = "expected at most 253 lower-case letters, digits, `-` and `.`, each part beginning and \
     ending with a letter or digit";
const CIDR: &str = "expected an address and a prefix length such as `10.0.0.0/8`";

#[track_caller]
fn check_manifest(manifest: &Value, want: &[&str]) {
    let got = convert(manifest, Strictness::Strict).map(|it| super::shown(&it.value));
    let lines: Vec<_> = match &got {
        Ok(policy) => panic!("accepted: {manifest}\n{policy}"),
        Err(refused) => refused.diagnostics.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(lines, want, "{manifest}");
}

#[track_caller]
fn check(spec: Value, want: &str) {
    check_manifest(&manifest(&spec), &[want]);
}

#[track_caller]
fn check_peer(peer: Value, want: &str) {
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        let rule = json!({ side: [{"podSelector": {}}, &peer] });
        let want = format!("spec.{direction}[0].{side}[1]{want}");
        check(json!({ direction: [rule] }), &want);
    }
}

#[track_caller]
fn check_port(port: Value, want: &str) {
    for direction in ["ingress", "egress"] {
        let want = format!("spec.{direction}[1].ports[0]{want}");
        check(json!({ direction: [{}, {"ports": [&port]}] }), &want);
    }
}

/// Checks a selector wherever there can be one.
#[track_caller]
fn check_selector(selector: Value, want: &str) {
    check(json!({"podSelector": &selector}), &format!("spec.podSelector{want}"));
    check_peer(json!({"podSelector": &selector}), &format!(".podSelector{want}"));
    check_peer(json!({"namespaceSelector": &selector}), &format!(".namespaceSelector{want}"));
}

#[track_caller]
fn check_requirement(requirement: Value, want: &str) {
    check_selector(
        json!({"matchExpressions": [requirement]}),
        &format!(".matchExpressions[0]{want}"),
    );
}

#[test]
fn policy_types() {
    let want = "spec.policyTypes: 3 entries, expected at most 2";
    check(json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}), want);
    for text in ["ingress", "Both", ""] {
        let want = format!(
            "spec.policyTypes[1]: `{text}` is not a policy type, expected `Ingress` or `Egress`"
        );
        check(json!({"policyTypes": ["Ingress", text]}), &want);
    }
}

#[test]
fn peers_without_or_with_too_many_fields() {
    check_peer(json!({}), ": empty, expected `podSelector`, `namespaceSelector` or `ipBlock`");
    check_peer(
        json!({"podSelector": null}),
        ": empty, expected `podSelector`, `namespaceSelector` or `ipBlock`",
    );
    for selector in ["podSelector", "namespaceSelector"] {
        check_peer(
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, selector: {}}),
            ": `ipBlock` beside a selector, expected `ipBlock` alone",
        );
    }
}

#[test]
fn blocks() {
    for missing in [json!({}), json!({"cidr": ""}), json!({"cidr": null})] {
        check_peer(
            json!({"ipBlock": missing}),
            ".ipBlock.cidr: missing, expected a CIDR block such as `10.0.0.0/8`",
        );
    }
    for bad in [
        "10.0.0.0",
        "10.0.0.0/33",
        "::/129",
        "10.0.0/8",
        "10.0.0.0/8 ",
        "all",
        "10.0.0.0/255.0.0.0",
    ] {
        let want = format!("`{bad}` is not a CIDR block, {CIDR}");
        check_peer(json!({"ipBlock": {"cidr": bad}}), &format!(".ipBlock.cidr: {want}"));
        let block = json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", bad]});
        check_peer(json!({"ipBlock": block}), &format!(".ipBlock.except[1]: {want}"));
    }
}

#[test]
fn exceptions_that_are_not_inside() {
    for (cidr, except) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.1.2.3/8"),
        ("10.0.0.0/8", "10.0.0.0/7"),
        ("10.0.0.0/8", "11.0.0.0/16"),
        ("10.0.0.0/8", "2001:db8::/64"),
        ("2001:db8::/32", "10.0.0.0/16"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "::/1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ] {
        let block = json!({"cidr": cidr, "except": [except]});
        let canonical: crate::net::Prefix = cidr.parse().unwrap();
        let want =
            format!("`{except}` is not strictly inside `cidr`, expected part of `{canonical}`");
        check_peer(json!({"ipBlock": block}), &format!(".ipBlock.except[0]: {want}"));
    }
}

#[test]
fn port_numbers() {
    for number in [0, -1, 65_536, i64::MAX, i64::MIN] {
        let want = format!("`{number}` is not a port, expected 1 to 65535");
        check_port(json!({"port": number}), &format!(".port: {want}"));
    }
    for last in [65_536, 100_000] {
        let want = format!(".endPort: `{last}` is not a port, expected 1 to 65535");
        check_port(json!({"port": 80, "endPort": last}), &want);
    }
    check_port(
        json!({"port": 81, "endPort": 80}),
        ".endPort: `80` is below `port`, expected at least `81`",
    );
    check_port(
        json!({"port": 1, "endPort": 0}),
        ".endPort: `0` is below `port`, expected at least `1`",
    );
    check_port(
        json!({"endPort": 80}),
        ".endPort: given without `port`, expected a number in `port`",
    );
    check_port(
        json!({"port": "http", "endPort": 80}),
        ".endPort: given with the port name `http`, expected a number in `port`",
    );
}

#[test]
fn port_names() {
    for name in ["", "80", "8-0", "HTTP", "-a", "a-", "a--b", "a_b", "a.b", "abcdefghijklmnop", "ä"]
    {
        let want = format!(".port: `{name}` is not a port name, {PORT_NAME}");
        check_port(json!({"port": name}), &want);
    }
}

#[test]
fn protocols() {
    for protocol in ["tcp", "Udp", "ICMP", "6", ""] {
        let want =
            format!(".protocol: `{protocol}` is not a protocol, expected `TCP`, `UDP` or `SCTP`");
        check_port(json!({"protocol": protocol, "port": 80}), &want);
    }
}

#[test]
fn operators_and_their_values() {
    for operator in ["in", "IN", "Notin", "NotExists", "Gt", ""] {
        check_requirement(
            json!({"key": "k", "operator": operator, "values": ["v"]}),
            &format!(
                ".operator: `{operator}` is not an operator, expected `In`, `NotIn`, `Exists` or `DoesNotExist`"
            ),
        );
    }
    check_requirement(
        json!({"key": "k", "values": ["v"]}),
        ".operator: missing, expected `In`, `NotIn`, `Exists` or `DoesNotExist`",
    );
    for operator in ["In", "NotIn"] {
        let want = ".values: missing, expected at least one value for `In` and `NotIn`";
        check_requirement(json!({"key": "k", "operator": operator}), want);
        check_requirement(json!({"key": "k", "operator": operator, "values": []}), want);
    }
    for operator in ["Exists", "DoesNotExist"] {
        let want = ".values: given, expected no values for `Exists` and `DoesNotExist`";
        check_requirement(json!({"key": "k", "operator": operator, "values": ["v"]}), want);
    }
}

#[test]
fn label_keys_and_values() {
    let long = "a".repeat(64);
    let long_prefix = "a".repeat(254) + "/a";
    for key in ["", "-a", "a-", "a b", "a/b/c", "/a", "a/", "A_/b", "pod@x", &long, &long_prefix] {
        let want = format!("`{key}` is not a label key, {LABEL_KEY}");
        check_selector(json!({"matchLabels": {key: "v"}}), &format!(".matchLabels: {want}"));
        check_requirement(json!({"key": key, "operator": "Exists"}), &format!(".key: {want}"));
    }
    check_requirement(json!({"operator": "Exists"}), ".key: missing, expected a label key");
    for value in ["-a", "a-", "a b", "a/b", "'", &long] {
        let want = format!("`{value}` is not a label value, {LABEL_VALUE}");
        check_selector(json!({"matchLabels": {"k": value}}), &format!(".matchLabels: {want}"));
        check_requirement(
            json!({"key": "k", "operator": "In", "values": ["v", value]}),
            &format!(".values[1]: {want}"),
        );
    }
}

#[test]
fn metadata() {
    let with = |metadata: Value| json!({"metadata": metadata, "spec": {}});
    check_manifest(&json!({"spec": {}}), &["metadata: missing, expected an object with a name"]);
    check_manifest(
        &with(json!({})),
        &[
            "metadata.name: missing, expected a name",
            "metadata.namespace: missing, expected the name of a namespace",
        ],
    );
    check_manifest(
        &with(json!({"name": "p", "namespace": ""})),
        &["metadata.namespace: missing, expected the name of a namespace"],
    );
    for name in ["P", "-p", "p-", "a..b", "a_b", "a/b"] {
        let want = format!("metadata.name: `{name}` is not a name, {DNS_SUBDOMAIN}");
        check_manifest(&with(json!({"name": name, "namespace": "ns"})), &[&want]);
    }
    for namespace in ["Ns", "a.b", "-", &"a".repeat(64)] {
        let want = format!(
            "metadata.namespace: `{namespace}` is not the name of a namespace, {DNS_LABEL}"
        );
        check_manifest(&with(json!({"name": "p", "namespace": namespace})), &[&want]);
    }
    let labels = json!({"name": "p", "namespace": "ns", "labels": {"a b": "c d"}});
    check_manifest(
        &with(labels),
        &[
            &format!("metadata.labels: `a b` is not a label key, {LABEL_KEY}"),
            &format!("metadata.labels: `c d` is not a label value, {LABEL_VALUE}"),
        ],
    );
    check_manifest(
        &with(json!({"name": "p", "namespace": "ns", "creationTimestamp": "now"})),
        &[
            "metadata.creationTimestamp: `now` is not a time, expected one such as `2026-01-31T08:00:00Z`",
        ],
    );
}

#[test]
fn other_kinds_of_objects() {
    let mut other = manifest(&json!({}));
    other["apiVersion"] = "projectcalico.org/v3".into();
    other["kind"] = "Policy".into();
    check_manifest(
        &other,
        &[
            "apiVersion: `projectcalico.org/v3` is another kind of object, expected `networking.k8s.io/v1`",
            "kind: `Policy` is another kind of object, expected `NetworkPolicy`",
        ],
    );
}

#[test]
fn unknown_fields_at_every_level() {
    let block = json!({"cidr": "10.0.0.0/8", "e": 1});
    let selector =
        json!({"matchExpressions": [{"key": "k", "operator": "Exists", "f": 1}], "g": {}});
    let mut object = manifest(&json!({
        "podSelector": selector,
        "ingress": [{"from": [{"ipBlock": block, "d": 1}], "to": []}],
        "egress": [{"to": [{"namespaceSelector": {"b": 1}}], "ports": [{"c": 1}], "from": []}],
        "PolicyTypes": ["Ingress"],
        "a": null,
    }));
    object["sepc"] = json!({});
    check_manifest(
        &object,
        &[
            "sepc: unknown field",
            "spec.PolicyTypes: unknown field",
            "spec.a: unknown field",
            "spec.podSelector.g: unknown field",
            "spec.podSelector.matchExpressions[0].f: unknown field",
            "spec.ingress[0].to: unknown field",
            "spec.ingress[0].from[0].d: unknown field",
            "spec.ingress[0].from[0].ipBlock.e: unknown field",
            "spec.egress[0].from: unknown field",
            "spec.egress[0].to[0].namespaceSelector.b: unknown field",
            "spec.egress[0].ports[0].c: unknown field",
        ],
    );
}

#[test]
fn values_of_another_shape_hide_nothing() {
    check(json!([]), "spec: invalid type: sequence, expected an object");
    check(json!({"ingress": {}}), "spec.ingress: invalid type: map, expected a sequence");
    check(json!({"ingress": [null]}), "spec.ingress[0]: missing, expected an object");
    check(
        json!({"podSelector": ["app"]}),
        "spec.podSelector: invalid type: sequence, expected an object",
    );
    check_peer(json!(null), ": missing, expected an object");
    check_peer(json!("web"), ": invalid type: string \"web\", expected an object");
    check_peer(
        json!({"ipBlock": ["10.0.0.0/8"]}),
        ".ipBlock: invalid type: sequence, expected an object",
    );
    check_peer(
        json!({"ipBlock": {"cidr": 10}}),
        ".ipBlock.cidr: invalid type: integer `10`, expected a string",
    );
    check_port(
        json!({"port": true}),
        ".port: invalid type: boolean `true`, expected a number or a name",
    );
    check_port(
        json!({"port": 80.5, "endPort": 90}),
        ".port: invalid type: floating point `80.5`, expected a number or a name",
    );
    check_selector(
        json!({"matchLabels": {"version": 1}}),
        ".matchLabels.version: invalid type: integer `1`, expected a string",
    );
    check_requirement(
        json!({"key": "k", "operator": "In", "values": "v"}),
        ".values: invalid type: string \"v\", expected a sequence",
    );
}

#[test]
fn everything_is_said_at_once() {
    let object = json!({
        "metadata": {"name": "P"},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": "k", "operator": "in"}, {"operator": "Exists"}]},
            "policyTypes": ["egress"],
            "ingress": [
                {"from": [{}, {"ipBlock": {"cidr": "x", "except": ["y"]}}], "ports": [{"port": 0, "protocol": "tcp"}]},
                {"ports": [{"endPort": 5}]},
            ],
            "egress": [{"to": [{"podSelector": 5}], "prots": []}],
        },
    });
    check_manifest(
        &object,
        &[
            &format!("metadata.name: `P` is not a name, {DNS_SUBDOMAIN}"),
            "metadata.namespace: missing, expected the name of a namespace",
            "spec.podSelector.matchExpressions[0].operator: `in` is not an operator, expected `In`, `NotIn`, `Exists` or \
         `DoesNotExist`",
            "spec.podSelector.matchExpressions[1].key: missing, expected a label key",
            "spec.policyTypes[0]: `egress` is not a policy type, expected `Ingress` or `Egress`",
            "spec.ingress[0].from[0]: empty, expected `podSelector`, `namespaceSelector` or `ipBlock`",
            &format!("spec.ingress[0].from[1].ipBlock.cidr: `x` is not a CIDR block, {CIDR}"),
            &format!("spec.ingress[0].from[1].ipBlock.except[0]: `y` is not a CIDR block, {CIDR}"),
            "spec.ingress[0].ports[0].protocol: `tcp` is not a protocol, expected `TCP`, `UDP` or `SCTP`",
            "spec.ingress[0].ports[0].port: `0` is not a port, expected 1 to 65535",
            "spec.ingress[1].ports[0].endPort: given without `port`, expected a number in `port`",
            "spec.egress[0].prots: unknown field",
            "spec.egress[0].to[0].podSelector: invalid type: integer `5`, expected an object",
        ],
    );
}

#[test]
fn lists_that_are_too_long() {
    let too_many = MAX_ITEMS + 1;
    let want = format!("{too_many} entries, expected at most {MAX_ITEMS}");
    let items: Vec<_> = (0..too_many).map(|_| json!({})).collect();
    check(json!({"ingress": &items}), &format!("spec.ingress: {want}"));
    check(json!({"egress": [{"to": &items}]}), &format!("spec.egress[0].to: {want}"));
    check(json!({"ingress": [{"ports": &items}]}), &format!("spec.ingress[0].ports: {want}"));
    let at_the_limit = json!({"ingress": [{"ports": items.split_last().unwrap().1}]});
    assert!(convert(&manifest(&at_the_limit), Strictness::Strict).is_ok());
}

#[test]
fn a_rule_can_be_degraded_on_its_own() {
    let spec = json!({
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": 80}]}, {"from": [{"future": {}}, {"podSelector": {}}]}, "x", {}],
        "egress": [{"ports": [{"port": 0}]}],
    });
    let accepted = convert(&manifest(&spec), Strictness::Degraded).unwrap();
    expect_test::expect![[r#"
        subject (NS == "ns" && PODS)
        ingress 0 Allow TCP 80
        ingress 1 Allow everything from [] degraded
        ingress 2 Allow everything from [] degraded
        ingress 3 Allow everything
        egress 0 Allow everything from [] degraded
    "#]]
    .assert_eq(&super::shown(&accepted.value));
    let said: Vec<_> = accepted.diagnostics.iter().map(ToString::to_string).collect();
    let all = convert(&manifest(&spec), Strictness::Strict).unwrap_err().diagnostics;
    assert_eq!(said, all.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(
        said,
        [
            "spec.ingress[1].from[0].future: unknown field",
            "spec.ingress[1].from[0]: empty, expected `podSelector`, `namespaceSelector` or `ipBlock`",
            "spec.ingress[2]: invalid type: string \"x\", expected an object",
            "spec.egress[0].ports[0].port: `0` is not a port, expected 1 to 65535",
        ]
    );
}

#[test]
fn subject_and_directions_are_never_degraded() {
    for spec in [
        json!({"podSelector": {"matchLabels": {"a b": ""}}}),
        json!({"policyTypes": ["ingress"]}),
        json!({"policyTypes": "Ingress"}),
        json!({"egress": {}}),
        json!({"precedence": 5}),
        json!("deny"),
    ] {
        let strict = convert(&manifest(&spec), Strictness::Strict).unwrap_err();
        assert_eq!(convert(&manifest(&spec), Strictness::Degraded), Err(strict), "{spec}");
    }
}

/// Of two values of one key, an author may mean the one that does not count.
#[test]
fn keys_that_come_twice() {
    for (text, want) in [
        (
            r#"{"podSelector": {"matchLabels": {"a": "1", "b": "", "a": "2"}}}"#,
            "spec.podSelector.matchLabels: duplicate key `a`",
        ),
        (r#"{"podSelector": {}, "podSelector": {}}"#, "spec: duplicate field `podSelector`"),
        (
            r#"{"podSelector": {"matchLabels": {}, "matchLabels": {}}}"#,
            "spec.podSelector: duplicate field `matchLabels`",
        ),
    ] {
        let text = format!(r#"{{"metadata": {{"namespace": "x", "name": "p"}}, "spec": {text}}}"#);
        let policy: crate::api::k8s::NetworkPolicy = serde_json::from_str(&text).unwrap();
        let refused = policy.to_policy(Strictness::Strict).unwrap_err();
        let lines: Vec<_> = refused.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [want], "{text}");
    }
}
