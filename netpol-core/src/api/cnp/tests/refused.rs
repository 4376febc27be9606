//! Everything that the API's schema refuses, with the exact texts.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::super::super::shown::shown;
use super::{convert, manifest, rule, spec};
use crate::api::Strictness;

const CIDR: &str = "expected an address and a prefix length such as `10.0.0.0/8`";
const PATTERN: &str = "expected at least two labels of letters, digits, `-` and `_` that begin and end with a letter or \
     digit, after an optional `*.`";
const PEERS: &str = "expected `namespaces`, `pods`, `networks`, `nodes` or `domainNames`";

#[track_caller]
fn check_manifest(manifest: &Value, want: &[&str]) {
    let lines: Vec<_> = match convert(manifest, Strictness::Strict) {
        Ok(accepted) => panic!("accepted: {manifest}\n{}", shown(&accepted.value)),
        Err(refused) => refused.diagnostics.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(lines, want, "{manifest}");
}

#[track_caller]
fn check(spec: Value, want: &[&str]) {
    check_manifest(&manifest(&spec), want);
}

/// Checks a peer of egress.
#[track_caller]
fn check_peer(peer: Value, want: &str) {
    let spec = rule("egress", "Accept", &json!([{"namespaces": {}}, peer]), &Value::Null);
    check(spec, &[&format!("spec.egress[0].to[1]{want}")]);
}

/// Checks a peer of pods, which both directions have.
#[track_caller]
fn check_pods(peer: Value, want: &str) {
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        let spec = rule(direction, "Accept", &json!([{"namespaces": {}}, &peer]), &Value::Null);
        check(spec, &[&format!("spec.{direction}[0].{side}[1]{want}")]);
    }
}

#[track_caller]
fn check_protocol(protocol: Value, want: &str) {
    for direction in ["ingress", "egress"] {
        let protocols = json!([{"udp": {"destinationPort": {"number": 53}}}, &protocol]);
        let spec = rule(direction, "Deny", &json!([{"namespaces": {}}]), &protocols);
        check(spec, &[&format!("spec.{direction}[0].protocols[1]{want}")]);
    }
}

#[test]
fn tiers_priorities_and_subjects() {
    let with = |field: &str, value: Value| {
        let mut spec = spec(&json!([]), &json!([]));
        spec[field] = value;
        spec
    };
    check(with("tier", Value::Null), &["spec.tier: missing, expected `Admin` or `Baseline`"]);
    for tier in ["admin", "Default", "NetworkPolicy", ""] {
        let want = format!("spec.tier: `{tier}` is not a tier, expected `Admin` or `Baseline`");
        check(with("tier", json!(tier)), &[&want]);
    }
    check(with("priority", Value::Null), &["spec.priority: missing, expected 0 to 1000"]);
    for number in [-1, 1001, i64::MAX] {
        let want = format!("spec.priority: `{number}` is not a priority, expected 0 to 1000");
        check(with("priority", json!(number)), &[&want]);
    }
    check(
        with("subject", Value::Null),
        &["spec.subject: missing, expected an object with `namespaces` or `pods`"],
    );
    for empty in [json!({}), json!({"namespaces": null})] {
        check(with("subject", empty), &["spec.subject: empty, expected `namespaces` or `pods`"]);
    }
    check(
        with("subject", json!({"namespaces": {}, "pods": {"podSelector": {}}})),
        &["spec.subject: `namespaces` beside `pods`, expected one of them"],
    );
    check(
        with("subject", json!({"pods": {"namespaceSelector": {}}})),
        &["spec.subject.pods.podSelector: missing, expected a selector, `{}` for all pods"],
    );
    check(
        with("subject", json!({"nodes": {}})),
        &[
            "spec.subject.nodes: unknown field",
            "spec.subject: empty, expected `namespaces` or `pods`",
        ],
    );
}

#[test]
fn objects_without_what_they_need() {
    check(Value::Null, &["spec: missing, expected an object"]);
    check(
        json!({}),
        &[
            "spec.tier: missing, expected `Admin` or `Baseline`",
            "spec.priority: missing, expected 0 to 1000",
            "spec.subject: missing, expected an object with `namespaces` or `pods`",
        ],
    );
    let mut other = manifest(&spec(&json!([]), &json!([])));
    other["apiVersion"] = json!("policy.networking.k8s.io/v1alpha1");
    other["kind"] = json!("AdminNetworkPolicy");
    check_manifest(
        &other,
        &[
            "apiVersion: `policy.networking.k8s.io/v1alpha1` is another kind of object, expected \
         `policy.networking.k8s.io/v1alpha2`",
            "kind: `AdminNetworkPolicy` is another kind of object, expected `ClusterNetworkPolicy`",
        ],
    );
    let mut nameless = manifest(&spec(&json!([]), &json!([])));
    nameless["metadata"] = json!({});
    check_manifest(&nameless, &["metadata.name: missing, expected a name"]);
}

#[test]
fn actions_and_names_of_rules() {
    let expected = "expected `Accept`, `Deny` or `Pass`";
    for direction in ["ingress", "egress"] {
        let peers = json!([{"namespaces": {}}]);
        for action in ["Allow", "accept", "Log", ""] {
            let want =
                format!("spec.{direction}[0].action: `{action}` is not an action, {expected}");
            check(rule(direction, action, &peers, &Value::Null), &[&want]);
        }
    }
    let rules = |rule| json!([rule]);
    check(
        spec(&rules(json!({"from": [{"namespaces": {}}]})), &json!([])),
        &[&format!("spec.ingress[0].action: missing, {expected}")],
    );
    let named = |len| {
        rules(json!({"name": "ä".repeat(len), "action": "Deny", "from": [{"namespaces": {}}]}))
    };
    assert!(convert(&manifest(&spec(&named(100), &json!([]))), Strictness::Strict).is_ok());
    check(
        spec(&named(101), &json!([])),
        &["spec.ingress[0].name: 101 characters, expected at most 100"],
    );
}

#[test]
fn peers_without_or_with_too_many_fields() {
    let none = Value::Null;
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        let at = format!("spec.{direction}[0].{side}");
        check(
            rule(direction, "Accept", &none, &none),
            &[&format!("{at}: missing, expected at least one peer")],
        );
        check(
            rule(direction, "Accept", &json!([]), &none),
            &[&format!("{at}: empty, expected at least one peer")],
        );
    }
    check(
        rule("ingress", "Accept", &json!([{}]), &none),
        &["spec.ingress[0].from[0]: no known field, expected `namespaces` or `pods`"],
    );
    for (name, peer) in [
        ("networks", json!(["10.0.0.0/8"])),
        ("nodes", json!({})),
        ("domainNames", json!(["example.com"])),
    ] {
        check(
            rule("ingress", "Accept", &json!([{name: peer}]), &none),
            &[
                &format!("spec.ingress[0].from[0].{name}: unknown field"),
                "spec.ingress[0].from[0]: no known field, expected `namespaces` or `pods`",
            ],
        );
    }
    check_peer(json!({}), &format!(": no known field, {PEERS}"));
    check_peer(json!({"networks": null}), &format!(": no known field, {PEERS}"));
    check(
        rule("egress", "Accept", &json!([{"services": {}}]), &none),
        &[
            "spec.egress[0].to[0].services: unknown field",
            &format!("spec.egress[0].to[0]: no known field, {PEERS}"),
        ],
    );
    let two = "several fields, expected one of `namespaces`, `pods`, `networks`, `nodes` or `domainNames`";
    check_peer(json!({"namespaces": {}, "networks": ["10.0.0.0/8"]}), &format!(": {two}"));
    check_peer(json!({"nodes": {}, "pods": {"podSelector": {}}}), &format!(": {two}"));
    check_pods(
        json!({"pods": {"namespaceSelector": {}}}),
        ".pods.podSelector: missing, expected a selector, `{}` for all pods",
    );
    let other_side = json!([{"action": "Deny", "from": [{"namespaces": {}}], "to": []}]);
    check(spec(&other_side, &json!([])), &["spec.ingress[0].to: unknown field"]);
}

#[test]
fn peers_of_the_older_api() {
    for (name, value) in [
        ("namespaceSelector", json!({})),
        ("sameLabels", json!(["k"])),
        ("notSameLabels", json!(["k"])),
    ] {
        check_pods(
            json!({"namespaces": {name: value}}),
            &format!(".namespaces.{name}: unknown field"),
        );
    }
    check_pods(
        json!({"pods": {"namespaces": {"namespaceSelector": {}}, "podSelector": {}}}),
        ".pods.namespaces: unknown field",
    );
    let ports = json!([{"action": "Deny", "from": [{"namespaces": {}}], "ports": []}]);
    check(spec(&ports, &json!([])), &["spec.ingress[0].ports: unknown field"]);
}

#[test]
fn selectors() {
    let bad = json!({"matchExpressions": [{"key": "k", "operator": "in", "values": ["v"]}]});
    let want = ".matchExpressions[0].operator: `in` is not an operator, expected `In`, `NotIn`, `Exists` or `DoesNotExist`";
    check_pods(json!({"namespaces": bad}), &format!(".namespaces{want}"));
    check_pods(json!({"pods": {"podSelector": bad}}), &format!(".pods.podSelector{want}"));
    check_pods(
        json!({"pods": {"namespaceSelector": bad, "podSelector": {}}}),
        &format!(".pods.namespaceSelector{want}"),
    );
    check_peer(json!({"nodes": bad}), &format!(".nodes{want}"));
    let mut subject = spec(&json!([]), &json!([]));
    subject["subject"] = json!({"namespaces": bad});
    check(subject, &[&format!("spec.subject.namespaces{want}")]);
}

#[test]
fn networks() {
    for bad in [
        "10.0.0.0",
        "10.0.0.0/33",
        "::/129",
        "010.0.0.0/8",
        "10.0.0.0/08",
        "::ffff:10.0.0.0/104",
        "",
    ] {
        let want = format!(".networks[1]: `{bad}` is not a CIDR block, {CIDR}");
        check_peer(json!({"networks": ["192.0.2.0/24", bad]}), &want);
    }
    check_peer(
        json!({"networks": ["10.0.0.0/8", "::/0", "10.0.0.0/8"]}),
        ".networks[2]: `10.0.0.0/8` twice, expected it once",
    );
    check_peer(
        json!({"networks": []}),
        ".networks: empty, expected a CIDR block such as `10.0.0.0/8`",
    );
}

#[test]
fn domain_names() {
    for bad in [
        "io",
        "io.",
        "*.io",
        "*",
        "*.",
        "",
        ".",
        "a..io",
        "www.*.io",
        "*.*.example.com",
        "w*.example.com",
        "*example.com",
        "_dmarc.example.com",
        "a_.example.com",
        "-a.example.com",
        "[a.example.com",
        "exämple.com.ü",
        "example.com..",
    ] {
        let want = format!(".domainNames[1]: `{bad}` is not a domain name, {PATTERN}");
        check_peer(json!({"domainNames": ["example.org", bad]}), &want);
    }
    for bad in [&*format!("{}.example.com", "a".repeat(64)), "a b.example.com", "a/b.example.com"] {
        let limits =
            "expected at most 253 characters in labels of 1 to 63 letters, digits, `-` and `_`";
        let want = format!(".domainNames[0]: `{bad}` is not a domain name, {limits}");
        check_peer(json!({"domainNames": [bad]}), &want);
    }
    check_peer(
        json!({"domainNames": ["example.com", "example.com"]}),
        ".domainNames[1]: `example.com` twice, expected it once",
    );
    check_peer(json!({"domainNames": []}), ".domainNames: empty, expected a domain name");
    for action in ["Deny", "Pass"] {
        let peers = json!([{"namespaces": {}}, {"domainNames": ["example.com"]}]);
        check(
            rule("egress", action, &peers, &Value::Null),
            &[
                "spec.egress[0].to: `domainNames` in a rule that does not allow, which only rules that allow can have",
            ],
        );
    }
}

#[test]
fn protocols() {
    let none = "expected `tcp`, `udp`, `sctp` or `destinationNamedPort`";
    let peers = json!([{"namespaces": {}}]);
    check(
        rule("ingress", "Deny", &peers, &json!([])),
        &["spec.ingress[0].protocols: empty, expected at least one protocol"],
    );
    check_protocol(json!({}), &format!(": empty, {none}"));
    let icmp = json!([{"icmp": {}}]);
    check(
        rule("ingress", "Deny", &peers, &icmp),
        &[
            "spec.ingress[0].protocols[0].icmp: unknown field",
            &format!("spec.ingress[0].protocols[0]: empty, {none}"),
        ],
    );
    let port = json!({"destinationPort": {"number": 80}});
    check_protocol(
        json!({"tcp": port, "udp": port}),
        ": several fields, expected one of `tcp`, `udp`, `sctp` or `destinationNamedPort`",
    );
    check_protocol(
        json!({"tcp": port, "destinationNamedPort": "web"}),
        ": several fields, expected one of `tcp`, `udp`, `sctp` or `destinationNamedPort`",
    );
    for transport in ["tcp", "udp", "sctp"] {
        check_protocol(
            json!({transport: {}}),
            &format!(
                ".{transport}.destinationPort: missing, expected a port; every port is the range from 1 to 65535"
            ),
        );
    }
    for name in ["", "80", "HTTP", "abcdefghijklmnop"] {
        let expected = "expected at most 15 lower-case letters, digits and single `-` between them, at least one of \
                        them a letter";
        check_protocol(
            json!({"destinationNamedPort": name}),
            &format!(".destinationNamedPort: `{name}` is not a port name, {expected}"),
        );
    }
}

#[test]
fn ports() {
    let check = |port: Value, want: &str| {
        check_protocol(
            json!({"sctp": {"destinationPort": port}}),
            &format!(".sctp.destinationPort{want}"),
        );
    };
    check(json!({}), ": empty, expected `number` or `range`");
    check(
        json!({"number": 5, "range": {"start": 5, "end": 6}}),
        ": `number` beside `range`, expected one of them",
    );
    for number in [0, -1, 65_536] {
        let want = format!("`{number}` is not a port, expected 1 to 65535");
        check(json!({"number": number}), &format!(".number: {want}"));
        check(json!({"range": {"start": number, "end": 80}}), &format!(".range.start: {want}"));
        check(json!({"range": {"start": 80, "end": number}}), &format!(".range.end: {want}"));
    }
    for end in [80, 79] {
        check(
            json!({"range": {"start": 80, "end": end}}),
            &format!(".range.end: `{end}` is not above `start`, expected more than `80`"),
        );
    }
    check(json!({"range": {"start": 80}}), ".range.end: missing, expected 1 to 65535");
    check(json!({"range": {"end": 80}}), ".range.start: missing, expected 1 to 65535");
    check(json!({"number": "80"}), ".number: invalid type: string \"80\", expected a number");
}

#[test]
fn named_ports_beside_what_has_none() {
    let named = json!([{"destinationNamedPort": "web"}]);
    for peer in [
        json!({"networks": ["10.0.0.0/8"]}),
        json!({"nodes": {}}),
        json!({"domainNames": ["example.com"]}),
    ] {
        check(
            rule("egress", "Accept", &json!([{"namespaces": {}}, peer]), &named),
            &[
                "spec.egress[0].to: `networks`, `nodes` or `domainNames` in a rule with a named port, expected \
             `namespaces` or `pods`, which can have one",
            ],
        );
    }
}

#[test]
fn twenty_five_of_everything() {
    let list = |len: usize, item: &dyn Fn(usize) -> Value| (0..len).map(item).collect::<Vec<_>>();
    let rules =
        |len, side: &str| list(len, &|_| json!({"action": "Pass", side: [{"namespaces": {}}]}));
    let peers = |len| list(len, &|_| json!({"namespaces": {}}));
    let networks = |len| list(len, &|index| json!(format!("10.0.{index}.0/24")));
    let names = |len| list(len, &|index| json!(format!("{index}.example.com")));
    let protocols =
        |len| list(len, &|index| json!({"tcp": {"destinationPort": {"number": index + 1}}}));
    let specs = |len| {
        let namespaces = json!([{"namespaces": {}}]);
        [
            ("ingress", spec(&json!(rules(len, "from")), &json!([]))),
            ("egress", spec(&json!([]), &json!(rules(len, "to")))),
            ("ingress[0].from", rule("ingress", "Deny", &json!(peers(len)), &Value::Null)),
            ("egress[0].to", rule("egress", "Deny", &json!(peers(len)), &Value::Null)),
            (
                "egress[0].to[0].networks",
                rule("egress", "Deny", &json!([{"networks": networks(len)}]), &Value::Null),
            ),
            (
                "egress[0].to[0].domainNames",
                rule("egress", "Accept", &json!([{"domainNames": names(len)}]), &Value::Null),
            ),
            ("ingress[0].protocols", rule("ingress", "Deny", &namespaces, &json!(protocols(len)))),
        ]
    };
    for (at, spec) in specs(26) {
        check(spec, &[&format!("spec.{at}: 26 entries, expected at most 25")]);
    }
    for (at, spec) in specs(25) {
        assert!(convert(&manifest(&spec), Strictness::Strict).is_ok(), "{at}");
    }
}

#[test]
fn unknown_fields_at_every_level() {
    let range = json!({"range": {"start": 1, "end": 2, "g": 1}, "f": 1});
    let mut object = manifest(&json!({
        "tier": "Admin", "priority": 0, "subject": {"pods": {"podSelector": {}, "b": 1}, "a": 1},
        "ingress": [{
            "action": "Deny", "from": [{"pods": {"podSelector": {"d": 1}, "c": 1}}],
            "protocols": [{"tcp": {"destinationPort": range, "e": 1}}],
            "sourcePorts": [],
        }],
        "egress": [{"action": "Deny", "to": [{"namespaces": {"matchLabels": {}, "h": 1}, "i": 1}]}],
        "defaultAction": "Deny",
    }));
    object["sepc"] = json!({});
    check_manifest(
        &object,
        &[
            "sepc: unknown field",
            "spec.defaultAction: unknown field",
            "spec.subject.a: unknown field",
            "spec.subject.pods.b: unknown field",
            "spec.ingress[0].sourcePorts: unknown field",
            "spec.ingress[0].from[0].pods.c: unknown field",
            "spec.ingress[0].from[0].pods.podSelector.d: unknown field",
            "spec.ingress[0].protocols[0].tcp.e: unknown field",
            "spec.ingress[0].protocols[0].tcp.destinationPort.f: unknown field",
            "spec.ingress[0].protocols[0].tcp.destinationPort.range.g: unknown field",
            "spec.egress[0].to[0].i: unknown field",
            "spec.egress[0].to[0].namespaces.h: unknown field",
        ],
    );
}

#[test]
fn values_of_another_shape_hide_nothing() {
    check_pods(
        json!({"namespaces": []}),
        ".namespaces: invalid type: sequence, expected an object",
    );
    check_pods(json!({"pods": "all"}), ".pods: invalid type: string \"all\", expected an object");
    check_pods(
        json!({"namespaces": {"matchLabels": ["a"]}}),
        ".namespaces.matchLabels: invalid type: sequence, expected a map",
    );
    check_peer(
        json!({"networks": [5]}),
        ".networks[0]: invalid type: integer `5`, expected a string",
    );
    check_peer(json!({"nodes": []}), ".nodes: invalid type: sequence, expected an object");
    check(
        json!({
            "tier": 5, "priority": "high", "subject": [],
            "ingress": ["x", {"action": {}, "from": {}, "protocols": 5}],
            "egress": {},
        }),
        &[
            "spec.tier: invalid type: integer `5`, expected a string",
            "spec.priority: invalid type: string \"high\", expected a number",
            "spec.subject: invalid type: sequence, expected an object",
            "spec.ingress[0]: invalid type: string \"x\", expected an object",
            "spec.ingress[1].action: invalid type: map, expected a string",
            "spec.ingress[1].from: invalid type: map, expected a sequence",
            "spec.ingress[1].protocols: invalid type: integer `5`, expected a sequence",
            "spec.egress: invalid type: map, expected a sequence",
        ],
    );
}
