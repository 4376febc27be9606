//! Everything that Calico's validator refuses, with the exact texts. V1 to V26 are its conditions.
//!
//! Source: `libcalico-go/lib/validator/v3/validator.go` and the rules in Calico's `api/pkg/apis/projectcalico/v3`.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::{convert, manifest, refuses};
use crate::api::Kind;

const PORT: &str = "expected 1 to 65535, a range such as `80:90`, or a name of at most 128 letters, digits, `_`, `.` \
     and `-`";
const PROTOCOL: &str = "expected `TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`, `UDPLite` or 1 to 255";
const WITH_PORTS: &str = "expected `protocol` to be `TCP`, `UDP` or `SCTP`";
const ICMP: &str = "expected `protocol` to be `ICMP` or `ICMPv6`";
const GLOBAL: &str =
    "`global()` means nothing here, expected it as the `namespaceSelector` of a rule, alone";
const DNS_LABEL: &str = "expected at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";
const POLICY_NAME: &str = "expected one or two parts with a `.` between them, each at most 63 lower-case letters, digits \
     and `-`, beginning and ending with a letter or digit";

const POLICIES: [Kind; 4] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
];

/// The port lists of a rule.
const PORT_LISTS: [(&str, &str); 4] = [
    ("source", "ports"),
    ("source", "notPorts"),
    ("destination", "ports"),
    ("destination", "notPorts"),
];

/// Checks policies of every kind.
#[track_caller]
fn check_spec(spec: Value, want: &[&str]) {
    for kind in POLICIES {
        refuses(&manifest(kind, &spec), want);
    }
}

/// Checks a rule, as the second one of each direction of every kind of policy. `@` stands for its place.
#[track_caller]
fn check_rule(rule: Value, want: &[&str]) {
    for direction in ["ingress", "egress"] {
        let place = format!("spec.{direction}[1]");
        let want: Vec<_> = want.iter().map(|line| line.replace('@', &place)).collect();
        let want: Vec<_> = want.iter().map(String::as_str).collect();
        check_spec(json!({direction: [{"action": "Allow"}, &rule]}), &want);
    }
}

#[track_caller]
fn check_one(rule: Value, want: &str) {
    check_rule(rule, &[want]);
}

#[track_caller]
fn accepts(kind: Kind, spec: Value) {
    convert(&manifest(kind, &spec)).unwrap_or_else(|lines| panic!("refused: {spec}\n{lines:?}"));
}

#[track_caller]
fn accepts_rule(rule: Value) {
    for kind in POLICIES {
        for direction in ["ingress", "egress"] {
            accepts(kind, json!({direction: [&rule]}));
        }
    }
}

#[test]
fn v1_numbers_of_ports_without_a_protocol() {
    for (side, list) in PORT_LISTS {
        for ports in [json!([80]), json!(["80"]), json!(["80:81"]), json!(["http", 80])] {
            let rule = json!({"action": "Allow", side: {list: ports}});
            let want = format!("@.{side}.{list}: numbers without a protocol, {WITH_PORTS}");
            check_one(rule, &want);
        }
        accepts_rule(json!({"action": "Allow", side: {list: ["http", "dns"]}}));
        accepts_rule(json!({"action": "Allow", side: {list: []}}));
    }
    // `notProtocol` names none.
    check_one(
        json!({"action": "Deny", "notProtocol": "TCP", "destination": {"ports": [80]}}),
        &format!("@.destination.ports: numbers without a protocol, {WITH_PORTS}"),
    );
}

#[test]
fn v2_ports_of_a_protocol_without_ports() {
    for (side, list) in PORT_LISTS {
        for (protocol, name) in [
            (json!("ICMP"), "ICMP"),
            (json!("UDPLite"), "UDPLite"),
            (json!(136), "UDPLite"),
            (json!("47"), "47"),
        ] {
            let rule = json!({"action": "Allow", "protocol": protocol, side: {list: ["http"]}});
            let want = format!("@.{side}.{list}: given for `{name}`, {WITH_PORTS}");
            check_one(rule, &want);
        }
        for protocol in [json!("TCP"), json!("UDP"), json!("SCTP"), json!(6), json!("17")] {
            accepts_rule(
                json!({"action": "Allow", "protocol": protocol, side: {list: ["http", 80]}}),
            );
        }
        accepts_rule(json!({"action": "Allow", "protocol": "ICMP", side: {list: []}}));
    }
}

#[test]
fn v3_messages_of_a_protocol_without_any() {
    for field in ["icmp", "notICMP"] {
        for (protocol, name) in [(json!("TCP"), "TCP"), (json!(132), "SCTP"), (json!("2"), "2")] {
            let rule = json!({"action": "Allow", "protocol": protocol, field: {"type": 8}});
            check_one(rule, &format!("@.{field}: given for `{name}`, {ICMP}"));
        }
        for protocol in [json!("ICMP"), json!("ICMPv6"), json!(1), json!("58")] {
            accepts_rule(json!({"action": "Allow", "protocol": protocol, field: {"type": 8}}));
        }
    }
    check_one(
        json!({"action": "Allow", "icmp": {"type": 8}}),
        &format!("@.icmp: given without a protocol, {ICMP}"),
    );
    check_one(
        json!({"action": "Allow", "notProtocol": "TCP", "icmp": {}}),
        &format!("@.icmp: given without a protocol, {ICMP}"),
    );
    accepts_rule(json!({"action": "Allow", "notICMP": {"type": 8}}));
}

#[test]
fn v4_types_and_codes_of_messages() {
    for field in ["icmp", "notICMP"] {
        let check = |icmp: Value, want: &str| {
            let rule = json!({"action": "Allow", "protocol": "ICMP", field: icmp});
            check_one(rule, &format!("@.{field}{want}"));
        };
        check(json!({"code": 1}), ".code: given without `type`, expected a number in `type`");
        for kind in [-1, 255, 256] {
            let want = format!(".type: `{kind}` is not an ICMP type, expected 0 to 254");
            check(json!({"type": kind}), &want);
        }
        for code in [-1, 256] {
            let want = format!(".code: `{code}` is not an ICMP code, expected 0 to 255");
            check(json!({"type": 8, "code": code}), &want);
        }
        check(json!({"type": 8.5}), ".type: invalid type: floating point `8.5`, expected a number");
        check(json!({"kind": 8}), ".kind: unknown field");
        for icmp in [json!({}), json!({"type": 0, "code": 0}), json!({"type": 254, "code": 255})] {
            accepts_rule(json!({"action": "Allow", "protocol": "ICMP", field: icmp}));
        }
    }
}

#[test]
fn v5_messages_of_the_other_family() {
    for field in ["protocol", "notProtocol"] {
        for (protocol, name, version, own) in [
            (json!("ICMP"), "ICMP", 6, 4),
            (json!(1), "ICMP", 6, 4),
            (json!("ICMPv6"), "ICMPv6", 4, 6),
            (json!("58"), "ICMPv6", 4, 6),
        ] {
            check_one(
                json!({"action": "Allow", "ipVersion": version, field: protocol}),
                &format!(
                    "@.{field}: `{name}` belongs to IPv{own}, expected `ipVersion` to be {own} or left out"
                ),
            );
            accepts_rule(json!({"action": "Allow", "ipVersion": own, field: protocol}));
            accepts_rule(json!({"action": "Allow", field: protocol}));
        }
    }
}

#[test]
fn v6_protocols() {
    for field in ["protocol", "notProtocol"] {
        for (protocol, shown) in [
            (json!(0), "0"),
            (json!(256), "256"),
            (json!(-1), "-1"),
            (json!("0"), "0"),
            (json!("256"), "256"),
            (json!("99999999999999999999"), "99999999999999999999"),
            (json!("tcp"), "tcp"),
            (json!("Udp"), "Udp"),
            (json!("ICMPV6"), "ICMPV6"),
            (json!("UDPLITE"), "UDPLITE"),
            (json!("+6"), "+6"),
            (json!("6 "), "6 "),
            (json!("GRE"), "GRE"),
            (json!(""), ""),
        ] {
            check_one(
                json!({"action": "Allow", field: protocol}),
                &format!("@.{field}: `{shown}` is not a protocol, {PROTOCOL}"),
            );
        }
        check_one(
            json!({"action": "Allow", field: true}),
            &format!("@.{field}: invalid type: boolean `true`, expected a number or a name"),
        );
        for protocol in [json!(1), json!(255), json!("255"), json!("006"), json!("UDPLite")] {
            accepts_rule(json!({"action": "Allow", field: protocol}));
        }
    }
}

#[test]
fn v7_versions_of_ip() {
    for version in [0, 5, 46, -4] {
        check_one(
            json!({"action": "Allow", "ipVersion": version}),
            &format!("@.ipVersion: `{version}` is not a version of IP, expected 4 or 6"),
        );
    }
    check_one(
        json!({"action": "Allow", "ipVersion": "4"}),
        "@.ipVersion: invalid type: string \"4\", expected a number",
    );
    accepts_rule(json!({"action": "Allow", "ipVersion": 4}));
    accepts_rule(json!({"action": "Allow", "ipVersion": null}));
}

#[test]
fn v8_blocks() {
    let expected = "expected an address and a prefix length such as `10.0.0.0/8`";
    for (side, list) in [("source", "nets"), ("destination", "notNets")] {
        for text in [
            "",
            "10.0.0.1",
            "fd00::1",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "010.0.0.0/8",
            " 10.0.0.0/8",
            "fe80::%eth0/64",
            "all",
        ] {
            check_one(
                json!({"action": "Allow", side: {list: ["192.0.2.0/24", text]}}),
                &format!("@.{side}.{list}[1]: `{text}` is not a CIDR block, {expected}"),
            );
        }
        for (text, block) in [
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("192.0.2.7/31", "192.0.2.6/31"),
            ("fd00::1/64", "fd00::/64"),
            ("1.0.0.0/0", "0.0.0.0/0"),
        ] {
            check_one(
                json!({"action": "Allow", side: {list: [text]}}),
                &format!("@.{side}.{list}[0]: `{text}` has host bits set, expected `{block}`"),
            );
        }
        check_one(
            json!({"action": "Allow", side: {list: "10.0.0.0/8"}}),
            &format!("@.{side}.{list}: invalid type: string \"10.0.0.0/8\", expected a sequence"),
        );
        check_one(
            json!({"action": "Allow", side: {list: [null]}}),
            &format!("@.{side}.{list}[0]: missing, expected a CIDR block"),
        );
        for nets in [json!(["10.0.0.1/32"]), json!(["fd00::/8"]), json!(["::ffff:10.0.0.0/104"])] {
            accepts_rule(json!({"action": "Allow", side: {list: nets}}));
        }
    }
    accepts_rule(json!({"action": "Allow", "source": {"nets": ["0.0.0.0/0"]}}));
    accepts_rule(json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8", "10.1.0.0/16"]}}));
}

#[test]
fn v9_blocks_of_both_families() {
    let lists = [
        ("source", "nets"),
        ("source", "notNets"),
        ("destination", "nets"),
        ("destination", "notNets"),
    ];
    for (index, (side, list)) in lists.into_iter().enumerate() {
        check_one(
            json!({"action": "Allow", side: {list: ["10.0.0.0/8", "fd00::/8"]}}),
            &format!(
                "@.{side}.{list}[1]: `fd00::/8` is IPv6, expected IPv4 as the blocks before it"
            ),
        );
        check_one(
            json!({"action": "Allow", "ipVersion": 4, side: {list: ["10.0.0.0/8", "fd00::/8"]}}),
            &format!(
                "@.{side}.{list}[1]: `fd00::/8` is IPv6, expected IPv4 because of `ipVersion`"
            ),
        );
        check_one(
            json!({"action": "Allow", "ipVersion": 6, side: {list: ["10.0.0.0/8"]}}),
            &format!(
                "@.{side}.{list}[0]: `10.0.0.0/8` is IPv4, expected IPv6 because of `ipVersion`"
            ),
        );
        for (other_side, other_list) in &lists[..index] {
            let mut rule = json!({"action": "Allow", "source": {}, "destination": {}});
            rule[other_side][other_list] = json!(["10.0.0.0/8"]);
            rule[side][list] = json!(["fd00::/8"]);
            check_one(
                rule,
                &format!(
                    "@.{side}.{list}[0]: `fd00::/8` is IPv6, expected IPv4 as the blocks before it"
                ),
            );
        }
    }
    accepts_rule(json!({
        "action": "Allow", "ipVersion": 6,
        "source": {"nets": ["fd00::/8"], "notNets": ["fd00::/16"]}, "destination": {"nets": ["2001:db8::/32"]},
    }));
}

#[test]
fn v10_blocks_that_leave_nothing() {
    for block in ["0.0.0.0/0", "::/0"] {
        for side in ["source", "destination"] {
            check_one(
                json!({"action": "Allow", side: {"notNets": [block]}}),
                &format!(
                    "@.{side}.notNets[0]: `{block}` is every address, expected a smaller block"
                ),
            );
        }
    }
}

/// The side on which a rule may match a Service, and the other one.
const SERVICE_SIDES: [(&str, &str, &str); 2] =
    [("ingress", "source", "destination"), ("egress", "destination", "source")];

#[test]
fn v11_services_beside_other_conditions() {
    for (direction, side, _) in SERVICE_SIDES {
        for (field, value) in [
            ("nets", json!(["10.0.0.0/8"])),
            ("selector", json!("all()")),
            ("namespaceSelector", json!("all()")),
            ("notNets", json!(["10.0.0.0/8"])),
            ("notSelector", json!("all()")),
            ("serviceAccounts", json!({})),
        ] {
            let service = json!({"name": "s", "namespace": "ns"});
            let rule = json!({"action": "Allow", side: {"services": service, field: value}});
            let want = format!(
                "spec.{direction}[0].{side}.services: given with `{field}`, expected it without"
            );
            check_spec(json!({direction: [rule]}), &[&want]);
        }
    }
}

#[test]
fn v12_services() {
    for (direction, side, other) in SERVICE_SIDES {
        let at = format!("spec.{direction}[0].{side}.services");
        for service in [json!({"namespace": "ns"}), json!({"name": "", "namespace": "ns"})] {
            check_spec(
                json!({direction: [{"action": "Allow", side: {"services": service}}]}),
                &[&format!("{at}.name: missing, expected the name of a Service")],
            );
        }
        let spec = json!({direction: [{"action": "Allow", side: {"services": {"name": "s"}}}]});
        for kind in [Kind::GlobalNetworkPolicy, Kind::StagedGlobalNetworkPolicy] {
            let want = format!("{at}.namespace: missing, expected the namespace of the Service");
            refuses(&manifest(kind, &spec), &[&want]);
        }
        let service = json!({"name": "s", "namespace": "ns"});
        check_spec(
            json!({direction: [{"action": "Allow", other: {"services": &service}}]}),
            &[&format!(
                "spec.{direction}[0].{other}.services: given for the policy's own side, expected it as `source` of \
                 `ingress` or `destination` of `egress`"
            )],
        );
    }
    for field in ["ports", "notPorts"] {
        let entity = json!({"services": {"name": "s", "namespace": "ns"}, field: ["http"]});
        check_spec(
            json!({"egress": [{"action": "Allow", "destination": entity}]}),
            &[&format!(
                "spec.egress[0].destination.services: given with `{field}`, expected it without"
            )],
        );
    }
}

#[track_caller]
fn check_http(rule: Value, want: &str) {
    check_spec(json!({"ingress": [rule]}), &[&format!("spec.ingress[0].http{want}")]);
}

#[test]
fn v13_http_where_nobody_asks_for_it() {
    for action in ["Deny", "Pass", "Log"] {
        check_http(
            json!({"action": action, "http": {}}),
            &format!(": given with the action `{action}`, expected `Allow`"),
        );
    }
    for (protocol, name) in [(json!("UDP"), "UDP"), (json!(1), "ICMP"), (json!("132"), "SCTP")] {
        check_http(
            json!({"action": "Allow", "protocol": protocol, "http": {}}),
            &format!(": given for `{name}`, expected `protocol` to be `TCP` or left out"),
        );
    }
    check_spec(
        json!({"egress": [{"action": "Allow", "http": {}}]}),
        &["spec.egress[0].http: given for `egress`, expected it in `ingress` only"],
    );
    for protocol in [json!(null), json!("TCP"), json!(6)] {
        let rule = json!({"action": "Allow", "protocol": protocol, "http": {"methods": ["GET"]}});
        accepts(Kind::NetworkPolicy, json!({"ingress": [rule]}));
    }
}

#[test]
fn v14_methods_and_paths() {
    let check =
        |http: Value, want: &str| check_http(json!({"action": "Allow", "http": http}), want);
    check(
        json!({"paths": [{"exact": "/a", "prefix": "/b"}]}),
        ".paths[0]: both `exact` and `prefix`, expected one of them",
    );
    for path in [json!({}), json!({"exact": ""}), json!({"exact": null, "prefix": ""})] {
        check(json!({"paths": [path]}), ".paths[0]: empty, expected `exact` or `prefix`");
    }
    for field in ["exact", "prefix"] {
        for path in ["a", " /a", "/a?b", "/a#b", "/a b", "?"] {
            check(
                json!({"paths": [{"exact": "/x"}, {field: path}]}),
                &format!(
                    ".paths[1].{field}: `{path}` is not a path, expected one that begins with `/`, without `?`, `#` \
                     and spaces"
                ),
            );
        }
    }
    check(
        json!({"methods": ["GET", "PUT", "GET"]}),
        ".methods[2]: `GET` is listed before, expected each method once",
    );
    let methods: Vec<_> = (0..21).map(|it| format!("M{it}")).collect();
    check(json!({"methods": methods}), ".methods: 21 entries, expected at most 20");
    let paths: Vec<_> = (0..21).map(|it| json!({"exact": format!("/{it}")})).collect();
    check(json!({"paths": paths}), ".paths: 21 entries, expected at most 20");
    check(json!({"hosts": ["a"]}), ".hosts: unknown field");
    let many = json!({"methods": methods[..20], "paths": paths[..20]});
    accepts(Kind::NetworkPolicy, json!({"ingress": [{"action": "Allow", "http": many}]}));
}

#[test]
fn v15_global_where_it_means_nothing() {
    for text in ["global()", "global() || a == 'b'", "!global()", "a == 'b' && !( global( ) )"] {
        check_spec(json!({"selector": text}), &[&format!("spec.selector: {GLOBAL}")]);
        check_spec(
            json!({"serviceAccountSelector": text}),
            &[&format!("spec.serviceAccountSelector: {GLOBAL}")],
        );
        for kind in [Kind::GlobalNetworkPolicy, Kind::StagedGlobalNetworkPolicy] {
            let policy = manifest(kind, &json!({"namespaceSelector": text}));
            refuses(&policy, &[&format!("spec.namespaceSelector: {GLOBAL}")]);
        }
        for side in ["source", "destination"] {
            for field in ["selector", "notSelector"] {
                let rule = json!({"action": "Allow", side: {field: text}});
                check_one(rule, &format!("@.{side}.{field}: {GLOBAL}"));
            }
            let accounts = json!({"selector": text});
            let rule = json!({"action": "Allow", side: {"serviceAccounts": accounts}});
            check_one(rule, &format!("@.{side}.serviceAccounts.selector: {GLOBAL}"));
        }
    }
}

#[test]
fn v16_selectors() {
    let long = format!("a == '{}'", "x".repeat(1018));
    for (text, want) in [
        (
            "a = 'b'",
            "at byte 2: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`, found `=`",
        ),
        ("a == 'b", "string at byte 5 is not closed, expected `'`"),
        ("has()", "at byte 4: expected a label key, found `)`"),
        (long.as_str(), "selector has 1025 characters, more than 1024"),
    ] {
        check_spec(json!({"selector": text}), &[&format!("spec.selector: {want}")]);
        let want_accounts = format!("spec.serviceAccountSelector: {want}");
        check_spec(json!({"serviceAccountSelector": text}), &[&want_accounts]);
        let global = manifest(Kind::GlobalNetworkPolicy, &json!({"namespaceSelector": text}));
        refuses(&global, &[&format!("spec.namespaceSelector: {want}")]);
        for side in ["source", "destination"] {
            for field in ["selector", "notSelector", "namespaceSelector"] {
                let rule = json!({"action": "Allow", side: {field: text}});
                check_one(rule, &format!("@.{side}.{field}: {want}"));
            }
            let rule = json!({"action": "Allow", side: {"serviceAccounts": {"selector": text}}});
            check_one(rule, &format!("@.{side}.serviceAccounts.selector: {want}"));
        }
    }
    accepts(Kind::NetworkPolicy, json!({"selector": long.replacen("xx", "x", 1)}));
    let quotes = json!({"names": ["a", "'\""]});
    check_one(
        json!({"action": "Allow", "source": {"serviceAccounts": quotes}}),
        "@.source.serviceAccounts.names: value `'\"` holds both `'` and `\"`, expected at most one kind of quote",
    );
}

#[test]
fn v17_actions() {
    let expected = "expected `Allow`, `Deny`, `Pass` or `Log`";
    check_one(json!({}), &format!("@.action: missing, {expected}"));
    for action in ["", "allow", "ALLOW", "Accept", "Reject", "next-tier"] {
        check_one(
            json!({"action": action}),
            &format!("@.action: `{action}` is not an action, {expected}"),
        );
    }
    for action in ["Allow", "Deny", "Pass", "Log"] {
        accepts_rule(json!({"action": action}));
    }
}

#[test]
fn v18_types() {
    let expected = "expected `Ingress` or `Egress`";
    check_spec(
        json!({"types": ["Ingress", "Ingress"]}),
        &["spec.types[1]: `Ingress` is listed before, expected each type once"],
    );
    for text in ["ingress", "Both", ""] {
        check_spec(
            json!({"types": [text]}),
            &[&format!("spec.types[0]: `{text}` is not a type, {expected}")],
        );
    }
    check_spec(
        json!({"types": ["Ingress", "Egress", "Egress", "All"]}),
        &[
            "spec.types[2]: `Egress` is listed before, expected each type once",
            &format!("spec.types[3]: `All` is not a type, {expected}"),
        ],
    );
}

#[test]
fn v19_flags_of_host_endpoints() {
    let check = |spec: Value, want: &[&str]| {
        for kind in [Kind::GlobalNetworkPolicy, Kind::StagedGlobalNetworkPolicy] {
            refuses(&manifest(kind, &spec), want);
        }
    };
    check(
        json!({"preDNAT": true, "doNotTrack": true, "applyOnForward": true}),
        &["spec.preDNAT: given with `doNotTrack`, expected one of them"],
    );
    for flag in ["preDNAT", "doNotTrack"] {
        let want = format!("spec.applyOnForward: not `true`, expected it to be with `{flag}`");
        check(json!({flag: true}), &[&want]);
        check(json!({flag: true, "applyOnForward": false}), &[&want]);
        let types = json!({flag: true, "applyOnForward": true, "types": ["Ingress"]});
        accepts(Kind::GlobalNetworkPolicy, types);
    }
    let egress = "spec.preDNAT: given for `egress`, expected `ingress` only";
    let pre_dnat = |more: Value| {
        let mut spec = json!({"preDNAT": true, "applyOnForward": true});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(pre_dnat(json!({"types": ["Egress"]})), &[egress]);
    check(pre_dnat(json!({"types": ["Ingress"], "egress": [{"action": "Allow"}]})), &[egress]);
    check(pre_dnat(json!({"egress": [{"action": "Allow"}]})), &[egress]);
    accepts(
        Kind::GlobalNetworkPolicy,
        json!({"doNotTrack": true, "applyOnForward": true, "egress": [{"action": "Allow"}]}),
    );
    check(
        json!({"applyOnForward": "yes"}),
        &["spec.applyOnForward: invalid type: string \"yes\", expected a boolean"],
    );
}

#[test]
fn v20_ports() {
    for (side, list) in PORT_LISTS {
        let check = |port: Value, want: &str| {
            let entity = json!({list: [80, port]});
            let rule = json!({"action": "Allow", "protocol": "TCP", side: entity});
            check_one(rule, &format!("@.{side}.{list}[1]{want}"));
        };
        for port in [json!(0), json!(65_536), json!(-1)] {
            check(port.clone(), &format!(": `{port}` is not a port, expected 1 to 65535"));
        }
        check(json!("0"), ": `0`: port 0 is reserved, expected 1 to 65535");
        check(json!("0:80"), ": `0:80`: port 0 is reserved, expected 1 to 65535");
        check(json!("90:80"), ": `90:80`: the last port 80 is below the first port 90");
        let long = "a".repeat(129);
        for text in
            ["65536", "80:65536", "80:", ":80", "80:90:100", "80-90 ", "http:80", "a b", "", &long]
        {
            check(json!(text), &format!(": `{text}` is not a port, {PORT}"));
        }
        check(json!(80.5), ": invalid type: floating point `80.5`, expected a number or a name");
        check(json!(null), ": missing, expected a port");
        for port in
            [json!("80:80"), json!("1:65535"), json!("A_b.c-9"), json!("-"), json!(long[..128])]
        {
            let rule = json!({"action": "Allow", "protocol": "TCP", side: {list: [port]}});
            accepts_rule(rule);
        }
    }
}

#[test]
fn v21_limits() {
    for direction in ["ingress", "egress"] {
        let rules = json!(vec![json!({"action": "Allow"}); 1025]);
        check_spec(
            json!({direction: rules}),
            &[&format!("spec.{direction}: 1025 entries, expected at most 1024")],
        );
        let spec = json!({direction: vec![json!({"action": "Allow"}); 1024]});
        accepts(Kind::NetworkPolicy, spec);
    }
    for list in ["nets", "notNets"] {
        let nets: Vec<_> =
            (0..257).map(|it| format!("10.{}.{}.0/24", it / 256, it % 256)).collect();
        check_one(
            json!({"action": "Allow", "source": {list: nets}}),
            &format!("@.source.{list}: 257 entries, expected at most 256"),
        );
        accepts_rule(json!({"action": "Allow", "source": {list: nets[..256]}}));
    }
    for (side, list) in PORT_LISTS {
        let ports: Vec<_> = (1..52).collect();
        check_one(
            json!({"action": "Allow", "protocol": "TCP", side: {list: ports}}),
            &format!("@.{side}.{list}: 51 entries, expected at most 50"),
        );
        accepts_rule(json!({"action": "Allow", "protocol": "TCP", side: {list: ports[..50]}}));
    }
}

#[test]
fn v22_names() {
    let named = |kind, name: &str| {
        let mut policy = manifest(kind, &json!({}));
        policy["metadata"]["name"] = name.into();
        policy
    };
    let long = "a".repeat(64);
    for kind in POLICIES {
        let mut bad =
            Vec::from(["A", "a.b.c", ".a", "a.", "a_b", "-a", "a b", &long, "knp.default.A"]);
        if !kind.is_namespaced() {
            bad.extend(["knp.default.a", "ossg.default.a"]);
        }
        for name in bad {
            let want = format!("metadata.name: `{name}` is not a name, {POLICY_NAME}");
            refuses(&named(kind, name), &[&want]);
        }
        let mut good = Vec::from(["a", "a-1.b-2", &long[1..]]);
        if kind.is_namespaced() {
            good.extend(["knp.default.a.b-c.d", "ossg.default.a"]);
        }
        for name in good {
            convert(&named(kind, name)).unwrap();
        }
        refuses(&named(kind, ""), &["metadata.name: missing, expected a name"]);
    }
    for name in ["a.b", "A", "-a", &long] {
        let want = format!("metadata.name: `{name}` is not a name, {DNS_LABEL}");
        refuses(&named(Kind::Tier, name), &[&want]);
    }
    for (tier, kind) in [("a.b", Kind::NetworkPolicy), ("A", Kind::GlobalNetworkPolicy)] {
        let want = format!("spec.tier: `{tier}` is not the name of a tier, {DNS_LABEL}");
        refuses(&manifest(kind, &json!({"tier": tier})), &[&want]);
    }
}

#[test]
fn v23_hints() {
    let hint = "AssumeNeededOnEveryNode";
    check_spec(
        json!({"performanceHints": [hint, hint]}),
        &[
            "spec.performanceHints[1]: `AssumeNeededOnEveryNode` is listed before, expected each hint once",
        ],
    );
    check_spec(
        json!({"performanceHints": ["Fast"]}),
        &["spec.performanceHints[0]: `Fast` is not a hint, expected `AssumeNeededOnEveryNode`"],
    );
    for kind in POLICIES {
        accepts(kind, json!({"performanceHints": [hint]}));
    }
}

#[test]
fn v24_deletions_that_say_more() {
    let fields = [
        ("order", json!(1)),
        ("selector", json!("all()")),
        ("serviceAccountSelector", json!("all()")),
        ("types", json!(["Ingress"])),
        ("ingress", json!([{"action": "Allow"}])),
        ("egress", json!([{"action": "Allow"}])),
        ("performanceHints", json!(["AssumeNeededOnEveryNode"])),
    ];
    let of_cluster = [("namespaceSelector", json!("all()")), ("applyOnForward", json!(true))];
    let expected = "given with the staged action `Delete`, expected nothing but `tier`";
    let check = |kind, fields: &[(&str, Value)]| {
        for (field, value) in fields {
            let spec = json!({"stagedAction": "Delete", "tier": "t", *field: value});
            refuses(&manifest(kind, &spec), &[&format!("spec.{field}: {expected}")]);
        }
        let nothing = json!({"stagedAction": "Delete", "tier": "t", "selector": "", "ingress": []});
        accepts(kind, nothing);
    };
    check(Kind::StagedNetworkPolicy, &fields);
    check(Kind::StagedGlobalNetworkPolicy, &fields);
    check(Kind::StagedGlobalNetworkPolicy, &of_cluster);
    let kubernetes = Kind::StagedKubernetesNetworkPolicy;
    for (field, value) in [
        ("podSelector", json!({"matchLabels": {"a": "b"}})),
        ("policyTypes", json!(["Ingress"])),
        ("ingress", json!([{}])),
        ("egress", json!([{}])),
    ] {
        let spec = json!({"stagedAction": "Delete", field: value});
        let want = format!("spec.{field}: given with the staged action `Delete`, expected nothing");
        refuses(&manifest(kubernetes, &spec), &[&want]);
    }
    accepts(kubernetes, json!({"stagedAction": "Delete", "podSelector": {}, "ingress": []}));
    let expected = "expected `Set`, `Delete`, `Learn` or `Ignore`";
    for kind in [Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy, kubernetes] {
        let want = format!("spec.stagedAction: `set` is not a staged action, {expected}");
        refuses(&manifest(kind, &json!({"stagedAction": "set"})), &[&want]);
    }
}

#[test]
fn v25_sets() {
    for kind in [Kind::NetworkSet, Kind::GlobalNetworkSet] {
        let mut set = manifest(kind, &json!({"nets": []}));
        set["metadata"]["labels"] = json!({"projectcalico.org/namespace": "x", "a": "b"});
        refuses(
            &set,
            &[
                "metadata.labels.projectcalico.org/namespace: reserved for the namespace of the set itself, expected \
               another label",
            ],
        );
        for text in ["", "10.0.0.0/33", "10.0.0", "host", "010.0.0.1", "10.0.0.1-10.0.0.2"] {
            let want = format!(
                "spec.nets[1]: `{text}` is neither a CIDR block nor an address, expected one such as `10.0.0.0/8`"
            );
            refuses(&manifest(kind, &json!({"nets": ["10.0.0.0/8", text]})), &[&want]);
        }
        refuses(&manifest(kind, &json!({"net": []})), &["spec.net: unknown field"]);
        accepts(kind, json!({"nets": ["10.0.0.1", "10.1.2.3/8", "fd00::1", "0.0.0.0/0", "::/0"]}));
    }
}

#[test]
fn v26_host_endpoints() {
    let check = |spec: Value, want: &[&str]| refuses(&manifest(Kind::HostEndpoint, &spec), want);
    let valid = json!({
        "node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1", "fd00::1"], "profiles": ["p"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    });
    accepts(Kind::HostEndpoint, valid.clone());
    let with = |field: &str, value: Value| {
        let mut spec = valid.clone();
        spec[field] = value;
        spec
    };
    check(with("node", json!("")), &["spec.node: missing, expected the name of a node"]);
    check(
        json!({"node": "n", "interfaceName": "", "expectedIPs": []}),
        &["spec: says nothing of its interface, expected `interfaceName` or `expectedIPs`"],
    );
    for name in ["a b", "eth0/1", "sixteen-letters-"] {
        let want = format!(
            "spec.interfaceName: `{name}` is not the name of an interface, expected `*` or at most 15 letters, digits, \
             `_`, `.` and `-`"
        );
        check(with("interfaceName", json!(name)), &[&want]);
    }
    for name in ["*", "", "fifteen_letters", "eth0.1"] {
        accepts(Kind::HostEndpoint, with("interfaceName", json!(name)));
    }
    check(
        with("expectedIPs", json!(["10.0.0.0/8"])),
        &["spec.expectedIPs[0]: `10.0.0.0/8` is not an address, expected one such as `10.0.0.1`"],
    );
    let check_port = |port: Value, want: &str| {
        check(with("ports", json!([port])), &[&format!("spec.ports[0]{want}")]);
    };
    for protocol in ["ICMP", "UDPLite", "47"] {
        check_port(
            json!({"name": "x", "protocol": protocol, "port": 80}),
            &format!(".protocol: `{protocol}` has no ports, expected `TCP`, `UDP` or `SCTP`"),
        );
    }
    check_port(
        json!({"name": "x", "protocol": "TCP", "port": 0}),
        ".port: `0` is not a port, expected 1 to 65535",
    );
    check_port(
        json!({"name": "a b", "protocol": 6, "port": 80}),
        ".name: `a b` is not a port name, expected at most 128 letters, digits, `_`, `.` and `-`",
    );
    check_port(
        json!({"name": "x", "port": 1}),
        ".protocol: missing, expected `TCP`, `UDP` or `SCTP`",
    );
    let none = manifest(Kind::HostEndpoint, &json!(null));
    refuses(&none, &["spec: missing, expected an object with a node"]);
}

#[test]
fn tiers() {
    let check = |spec: Value, want: &str| refuses(&manifest(Kind::Tier, &spec), &[want]);
    for action in ["Allow", "deny", "Log"] {
        check(
            json!({"defaultAction": action}),
            &format!(
                "spec.defaultAction: `{action}` is not a default action, expected `Deny` or `Pass`"
            ),
        );
    }
    check(json!({"order": "1"}), "spec.order: invalid type: string \"1\", expected a number");
    check(json!({"priority": 1}), "spec.priority: unknown field");
    let mut default = manifest(Kind::Tier, &json!({"order": 5, "defaultAction": "Pass"}));
    default["metadata"]["name"] = "default".into();
    refuses(
        &default,
        &[
            "spec.order: the built-in tier `default` cannot be changed, expected 1000000",
            "spec.defaultAction: the built-in tier `default` cannot be changed, expected `Deny`",
        ],
    );
}

#[test]
fn fields_that_a_kind_does_not_have() {
    check_spec(json!({"podSelector": {}}), &["spec.podSelector: unknown field"]);
    for field in ["namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward"] {
        let spec = json!({field: if field == "namespaceSelector" { json!("all()") } else { json!(false) }});
        for kind in [Kind::NetworkPolicy, Kind::StagedNetworkPolicy] {
            refuses(&manifest(kind, &spec), &[&format!("spec.{field}: unknown field")]);
        }
        accepts(Kind::GlobalNetworkPolicy, spec);
    }
    for kind in [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy] {
        let staged = manifest(kind, &json!({"stagedAction": "Set"}));
        refuses(&staged, &["spec.stagedAction: unknown field"]);
    }
    for (rule, at) in [
        (json!({"action": "Allow", "from": []}), "from"),
        (json!({"action": "Allow", "source": {"podSelector": {}}}), "source.podSelector"),
        (
            json!({"action": "Allow", "source": {"serviceAccounts": {"name": "a"}}}),
            "source.serviceAccounts.name",
        ),
        (json!({"action": "Allow", "metadata": {"labels": {}}}), "metadata.labels"),
    ] {
        check_one(rule, &format!("@.{at}: unknown field"));
    }
    let mut policy = manifest(Kind::NetworkPolicy, &json!({}));
    policy["data"] = json!({});
    refuses(&policy, &["data: unknown field"]);
}

#[test]
fn orders() {
    for kind in POLICIES {
        for order in [json!(1), json!(-1.5), json!(0), json!(1e300), json!(u64::MAX), json!(null)] {
            accepts(kind, json!({"order": order}));
        }
    }
    check_spec(
        json!({"order": "10"}),
        &["spec.order: invalid type: string \"10\", expected a number"],
    );
}

#[test]
fn annotations() {
    check_one(
        json!({"action": "Allow", "metadata": {"annotations": {"a b": "x"}}}),
        "@.metadata.annotations: `a b` is not a label key, expected a name of at most 63 letters, digits, `-`, `_` and \
         `.` that begins and ends with a letter or digit, after an optional DNS subdomain and `/`",
    );
    check_one(
        json!({"action": "Allow", "metadata": {"annotations": {"a": "x".repeat(262_144)}}}),
        "@.metadata.annotations: 262146 bytes, expected at most 262144",
    );
}

#[test]
fn everything_that_is_wrong_comes_at_once() {
    check_spec(
        json!({
            "tier": "A",
            "selector": "a = 'b'",
            "types": ["In"],
            "ingress": [
                {"action": "Permit", "protocol": "tcp", "source": {"nets": ["10.0.0.1"], "selector": "global()"}},
                null,
                {"action": "Deny", "destination": {"ports": [0], "notPorts": ["x y"]}},
            ],
            "egress": "none",
        }),
        &[
            &format!("spec.tier: `A` is not the name of a tier, {DNS_LABEL}"),
            "spec.selector: at byte 2: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`, found `=`",
            "spec.types[0]: `In` is not a type, expected `Ingress` or `Egress`",
            "spec.ingress[0].action: `Permit` is not an action, expected `Allow`, `Deny`, `Pass` or `Log`",
            &format!("spec.ingress[0].protocol: `tcp` is not a protocol, {PROTOCOL}"),
            "spec.ingress[0].source.nets[0]: `10.0.0.1` is not a CIDR block, expected an address and a prefix length \
             such as `10.0.0.0/8`",
            &format!("spec.ingress[0].source.selector: {GLOBAL}"),
            "spec.ingress[1]: missing, expected an object",
            "spec.ingress[2].destination.ports[0]: `0` is not a port, expected 1 to 65535",
            &format!("spec.ingress[2].destination.ports: numbers without a protocol, {WITH_PORTS}"),
            &format!("spec.ingress[2].destination.notPorts[0]: `x y` is not a port, {PORT}"),
            "spec.egress: invalid type: string \"none\", expected a sequence",
        ],
    );
}

#[test]
fn what_is_no_such_object() {
    for value in [json!(null), json!("x"), json!(7), json!(["x"])] {
        for kind in Kind::ALL.iter().filter(|it| it.api_version() == "projectcalico.org/v3") {
            assert!(crate::api::Document::read(*kind, &value).is_err(), "{kind}: {value}");
        }
    }
    let mut policy = manifest(Kind::NetworkPolicy, &json!({}));
    policy["spec"] = json!([]);
    refuses(&policy, &["spec: invalid type: sequence, expected an object"]);
    policy["spec"] = json!({"ingress": [[]]});
    refuses(&policy, &["spec.ingress[0]: invalid type: sequence, expected an object"]);
}
