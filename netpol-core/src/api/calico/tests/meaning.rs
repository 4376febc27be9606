//! What policies mean for flows, by the judge.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use serde_json::{Value, json};

use super::convert;
use crate::api::{Document, Kind, Strictness};
use crate::dataplane::Capabilities;
use crate::eval::{Evaluation, Judge};
use crate::flow::{Flow, Payload};
use crate::model::{Inputs, Object};
use crate::net::{Family, Protocol, Transport};
use crate::verdict::Verdict;

/// Everybody by name, with an address of each family. `web`, `db` and `plain` are pods of namespace `prod`, `dweb` and
/// `dbare` pods of `dev`; `set` is in a network set of `prod`, `dset` in one of `dev`, `gset` in one of the cluster;
/// nobody knows `ext`. Behind the Service `prod/shop` are `web`, `dweb` and `ext`, behind `dev/shop` is `dbare`.
const PARTIES: [(&str, &str, &str); 9] = [
    ("web", "10.0.0.1", "fd00::1"),
    ("db", "10.0.0.2", "fd00::2"),
    ("plain", "10.0.0.3", "fd00::3"),
    ("dweb", "10.0.1.1", "fd00::1:1"),
    ("dbare", "10.0.1.2", "fd00::1:2"),
    ("set", "192.0.2.7", "2001:db8::7"),
    ("dset", "192.0.3.7", "2001:db8:1::7"),
    ("gset", "198.51.100.7", "2001:db8:2::7"),
    ("ext", "203.0.113.7", "2001:db8:3::7"),
];

pub(super) fn cluster() -> Inputs {
    let mut inputs = Inputs::default();
    let mut add = |kind, json: Value| {
        let object = Document::read(kind, &json).unwrap().to_object(Strictness::Strict).unwrap();
        inputs.upsert(object.value.unwrap());
    };
    for (name, labels) in [("prod", json!({"env": "prod"})), ("dev", json!({}))] {
        add(Kind::Namespace, json!({"metadata": {"name": name, "labels": labels}}));
    }
    for (namespace, labels) in [("prod", json!({"grade": "gold"})), ("dev", json!({}))] {
        let metadata = json!({"name": "api", "namespace": namespace, "labels": labels});
        add(Kind::ServiceAccount, json!({"metadata": metadata}));
    }
    let port = |name, protocol, port: u16| json!({"ports": [{"name": name, "protocol": protocol, "containerPort": port}]});
    for (namespace, name, labels, account, containers) in [
        ("prod", "web", json!({"role": "web"}), "api", json!([port("http", "TCP", 8080)])),
        (
            "prod",
            "db",
            json!({"role": "db"}),
            "default",
            json!([port("http", "TCP", 9090), port("http", "UDP", 9091), port("sql", "TCP", 5432)]),
        ),
        ("prod", "plain", json!({}), "default", json!([])),
        ("dev", "dweb", json!({"role": "web"}), "api", json!([port("http", "SCTP", 8080)])),
        ("dev", "dbare", json!({}), "default", json!([])),
    ] {
        let ips = [Family::V4, Family::V6].map(|it| json!({"ip": address(name, it).to_string()}));
        add(
            Kind::Pod,
            json!({
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"serviceAccountName": account, "containers": containers},
                "status": {"podIPs": ips},
            }),
        );
    }
    for (kind, namespace, name, nets) in [
        (Kind::NetworkSet, "prod", "set", ["192.0.2.0/24", "2001:db8::/48"]),
        (Kind::NetworkSet, "dev", "dset", ["192.0.3.0/24", "2001:db8:1::/48"]),
        (Kind::GlobalNetworkSet, "", "gset", ["198.51.100.0/24", "2001:db8:2::/48"]),
    ] {
        let metadata = json!({"name": name, "namespace": namespace, "labels": {"role": "set"}});
        add(kind, json!({"metadata": metadata, "spec": {"nets": nets}}));
    }
    let port = |protocol, port: u16| json!({"name": format!("p{port}"), "protocol": protocol, "port": port});
    for (namespace, name, backends, ports) in [
        ("prod", "shop", &["web", "dweb"][..], json!([port("TCP", 8080), port("UDP", 9090)])),
        ("prod", "shop", &["ext"], json!([port("TCP", 80)])),
        ("dev", "shop", &["dbare"], json!([port("SCTP", 80), {"name": "any"}])),
    ] {
        for (family, kind) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            let of_backend = |it: &&str| json!({"addresses": [address(it, family)], "conditions": {"ready": false}});
            let endpoints = backends.iter().map(of_backend).collect::<Value>();
            let metadata = json!({
                "name": format!("{name}-{}-{kind}", backends.len()).to_lowercase(), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
            });
            let slice = json!({"metadata": metadata, "addressType": kind, "endpoints": endpoints, "ports": ports});
            add(Kind::EndpointSlice, slice);
        }
    }
    inputs
}

fn address(name: &str, family: Family) -> IpAddr {
    let (_, v4, v6) = PARTIES.iter().find(|it| it.0 == name).unwrap();
    match family {
        Family::V4 => v4.parse().unwrap(),
        Family::V6 => v6.parse().unwrap(),
    }
}

/// Returns the flow that `web > db tcp/80`, `web > db udp/53:80` (with a source port), `web > db icmp/8.0` or
/// `web > db 47` says.
fn flow(text: &str, family: Family) -> Flow {
    let words: Vec<_> = text.split(' ').collect();
    let (source, destination) = (address(words[0], family), address(words[2], family));
    let number = |text: &str| -> u16 { text.parse().unwrap() };
    let narrow = |text: &str| u8::try_from(number(text)).unwrap();
    let Some((protocol, detail)) = words[3].split_once('/') else {
        let payload = Payload::Other(Protocol::new(narrow(words[3])));
        return Flow { payload, ..Flow::ping(source, destination) };
    };
    if protocol == "icmp" {
        let (kind, code) = detail.split_once('.').unwrap();
        let payload = Payload::Icmp { kind: narrow(kind), code: narrow(code) };
        return Flow { payload, ..Flow::ping(source, destination) };
    }
    let transport = match protocol {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => {
            assert_eq!(other, "sctp");
            Transport::Sctp
        }
    };
    let (from, to) = detail.split_once(':').unwrap_or(("40000", detail));
    let (from, to) = (number(from), number(to));
    let payload = Payload::Ports { transport, source: from, destination: to };
    Flow { payload, ..Flow::ping(source, destination) }
}

fn evaluate(inputs: &Inputs, flow: &Flow) -> Evaluation {
    let capabilities = Capabilities::all();
    Judge::new(inputs, &capabilities).evaluate(flow)
}

/// An object of Calico. A policy without a name is called `p`, and one of a namespace is in `prod`.
fn object(kind: Kind, name: &str, spec: &Value) -> Object {
    let mut metadata = json!({"name": name});
    if kind.is_namespaced() {
        metadata["namespace"] = "prod".into();
    }
    let json = json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": metadata, "spec": spec});
    convert(&json).unwrap_or_else(|lines| panic!("{json}\n{lines:?}")).unwrap()
}

fn with(objects: impl IntoIterator<Item = Object>) -> Inputs {
    let mut inputs = cluster();
    objects.into_iter().for_each(|it| inputs.upsert(it));
    inputs
}

/// Checks which flows pass and which do not; without the policies each passes.
#[track_caller]
fn check_family(inputs: &Inputs, family: Family, allowed: &[&str], denied: &[&str]) {
    let open = cluster();
    for (flows, want) in [(allowed, Verdict::Allow), (denied, Verdict::Deny)] {
        for text in flows {
            let judgement = evaluate(inputs, &flow(text, family)).enforced;
            assert_eq!(judgement.verdict(), want, "{text} over {family}: {judgement}");
            let control = evaluate(&open, &flow(text, family)).enforced;
            assert_eq!(control.verdict(), Verdict::Allow, "{text}");
        }
    }
}

#[track_caller]
fn check(inputs: &Inputs, allowed: &[&str], denied: &[&str]) {
    for family in Family::BOTH {
        check_family(inputs, family, allowed, denied);
    }
}

/// Checks whom a rule lets `db` talk to and be talked to by: those of `want` and nobody else.
#[track_caller]
fn check_peers_over(family: Family, kind: Kind, entity: &Value, want: &str) {
    for (direction, side) in [("ingress", "source"), ("egress", "destination")] {
        let rule = json!({"action": "Allow", side: entity});
        let policy = object(kind, "p", &json!({"selector": "role == 'db'", direction: [rule]}));
        let inputs = with([policy]);
        let others = PARTIES.iter().map(|it| it.0).filter(|name| *name != "db");
        let passes = |name: &&str| {
            let text = match direction {
                "ingress" => format!("{name} > db tcp/80"),
                _ => format!("db > {name} tcp/80"),
            };
            evaluate(&inputs, &flow(&text, family)).enforced.verdict() == Verdict::Allow
        };
        let got: Vec<_> = others.filter(passes).collect();
        assert_eq!(got.join(" "), want, "{kind} {direction} {entity} over {family}");
    }
}

#[track_caller]
fn check_peers(kind: Kind, entity: Value, want: &str) {
    for family in Family::BOTH {
        check_peers_over(family, kind, &entity, want);
    }
}

const EVERYBODY: &str = "web plain dweb dbare set dset gset ext";

#[test]
fn peers_of_policies_of_a_namespace() {
    let check = |entity, want| {
        check_peers(Kind::NetworkPolicy, entity, want);
    };
    check(json!({}), EVERYBODY);
    check(json!({"selector": "all()"}), "web plain set");
    check(json!({"selector": "role == 'web'"}), "web");
    check(json!({"selector": "role != 'web'"}), "plain set");
    check(json!({"selector": "!has(role)"}), "plain");
    check(json!({"namespaceSelector": "all()"}), "web plain dweb dbare set dset");
    check(json!({"namespaceSelector": "env == 'prod'"}), "web plain set");
    check(json!({"namespaceSelector": "projectcalico.org/name == 'dev'"}), "dweb dbare dset");
    check(json!({"namespaceSelector": "kubernetes.io/metadata.name == 'dev'"}), "dweb dbare dset");
    // What is in no namespace has no label of one either.
    check(json!({"namespaceSelector": "env != 'prod'"}), "dweb dbare dset gset");
    check(json!({"namespaceSelector": "!has(env)"}), "dweb dbare dset gset");
    check(json!({"namespaceSelector": "global()"}), "gset");
    check(json!({"namespaceSelector": "global()", "selector": "role == 'web'"}), "");
    check(json!({"namespaceSelector": "all()", "selector": "role == 'web'"}), "web dweb");
    check(json!({"selector": "role == 'nobody'"}), "");
    // A negated selector stays in the namespace of the policy.
    check(json!({"notSelector": "has(role)"}), "plain");
    check(json!({"notSelector": "role == 'nobody'"}), "web plain set");
    check(json!({"notSelector": "has(role)", "namespaceSelector": "all()"}), "plain dbare");
    check(json!({"notSelector": "role == 'web'", "selector": "has(role)"}), "set");
}

#[test]
fn peers_of_policies_of_the_cluster() {
    let check = |entity, want| {
        check_peers(Kind::GlobalNetworkPolicy, entity, want);
    };
    check(json!({}), EVERYBODY);
    check(json!({"selector": "all()"}), "web plain dweb dbare set dset gset");
    check(json!({"selector": "role == 'set'"}), "set dset gset");
    check(json!({"selector": "!has(role)"}), "plain dbare");
    check(json!({"namespaceSelector": "all()"}), "web plain dweb dbare set dset");
    check(json!({"namespaceSelector": "global()"}), "gset");
    check(json!({"namespaceSelector": "env == 'prod'", "selector": "role == 'set'"}), "set");
    // Addresses that belong to nobody meet a negated selector, and nothing else.
    check(json!({"notSelector": "has(role)"}), "plain dbare ext");
    check(json!({"notSelector": "all()"}), "ext");
    check(json!({"notSelector": "role == 'nobody'"}), EVERYBODY);
    check(json!({"notSelector": "role == 'web'", "selector": "has(role)"}), "set dset gset");
    check(
        json!({"notSelector": "role == 'web'", "namespaceSelector": "env == 'prod'"}),
        "plain set",
    );
}

#[test]
fn peers_by_service_account() {
    for (kind, entity, want) in [
        (Kind::NetworkPolicy, json!({"serviceAccounts": {}}), EVERYBODY),
        (Kind::NetworkPolicy, json!({"serviceAccounts": {"names": ["api"]}}), "web"),
        (Kind::GlobalNetworkPolicy, json!({"serviceAccounts": {"names": ["api"]}}), "web dweb"),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccounts": {"names": ["api", "default"]}}),
            "web plain dweb dbare",
        ),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccounts": {"selector": "grade == 'gold'"}}),
            "web",
        ),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccounts": {"selector": "all()"}}),
            "web plain dweb dbare",
        ),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccounts": {"selector": "projectcalico.org/name == 'api'"}}),
            "web dweb",
        ),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccounts": {"names": ["default"], "selector": "grade == 'gold'"}}),
            "",
        ),
        // An account without an object, and a thing without an account, have no labels of one.
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccounts": {"selector": "!has(grade)"}}),
            "plain dweb dbare set dset gset",
        ),
        (
            Kind::NetworkPolicy,
            json!({"serviceAccounts": {"names": ["api"]}, "namespaceSelector": "all()"}),
            "web dweb",
        ),
        (
            Kind::NetworkPolicy,
            json!({"serviceAccounts": {"names": ["api"]}, "notSelector": "has(role)"}),
            "",
        ),
    ] {
        check_peers(kind, entity, want);
    }
}

#[test]
fn peers_by_block() {
    for kind in [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy] {
        let check = |entity: Value, v4: &str, v6: &str| {
            check_peers_over(Family::V4, kind, &entity, v4);
            check_peers_over(Family::V6, kind, &entity, v6);
        };
        check(json!({"nets": ["10.0.0.0/16"]}), "web plain dweb dbare", "");
        check(json!({"nets": ["fd00::/64"]}), "", "web plain dweb dbare");
        check(json!({"nets": []}), EVERYBODY, EVERYBODY);
        check(json!({"nets": ["0.0.0.0/0"]}), EVERYBODY, "");
        check(json!({"nets": ["10.0.0.0/16"], "notNets": ["10.0.1.0/24"]}), "web plain", "");
        // Without a block of a family the rule is not there for it.
        check(json!({"notNets": ["10.0.0.0/16"]}), "set dset gset ext", "");
        check(json!({"notNets": ["fd00::/64"]}), "", "set dset gset ext");
        check(json!({"notNets": []}), EVERYBODY, EVERYBODY);
        check(json!({"selector": "role == 'web'", "nets": ["10.0.0.0/24"]}), "web", "");
        check(json!({"notSelector": "has(role)", "nets": ["10.0.0.0/24"]}), "plain", "");
    }
}

#[test]
fn the_family_of_a_rule() {
    let egress = |rule| {
        with([object(
            Kind::NetworkPolicy,
            "p",
            &json!({"selector": "role == 'db'", "egress": [rule]}),
        )])
    };
    let (flows, none): (&[_], &[&str]) = (&["db > web tcp/80", "db > ext 47"], &[]);
    for (rule, v4, v6) in [
        (json!({"action": "Allow"}), true, true),
        (json!({"action": "Allow", "ipVersion": 4}), true, false),
        (json!({"action": "Allow", "ipVersion": 6}), false, true),
        (json!({"action": "Allow", "notProtocol": "ICMP"}), true, true),
        (json!({"action": "Allow", "notProtocol": "ICMPv6", "ipVersion": 6}), false, true),
        // A list on the other side counts as well.
        (json!({"action": "Allow", "source": {"nets": ["10.0.0.2/32"]}}), true, false),
        (json!({"action": "Allow", "source": {"notNets": ["10.0.0.3/32"]}}), true, false),
    ] {
        let inputs = egress(rule);
        for (family, passes) in [(Family::V4, v4), (Family::V6, v6)] {
            let (allowed, denied) = if passes { (flows, none) } else { (none, flows) };
            check_family(&inputs, family, allowed, denied);
        }
    }
    for (protocol, v4, v6) in [
        (json!("ICMP"), true, false),
        (json!("ICMPv6"), false, true),
        (json!(1), true, false),
        (json!(58), false, true),
    ] {
        let inputs = egress(json!({"action": "Allow", "protocol": protocol}));
        for (family, passes) in [(Family::V4, v4), (Family::V6, v6)] {
            let flows: &[_] = &["db > web icmp/8.0"];
            let (allowed, denied) = if passes { (flows, none) } else { (none, flows) };
            check_family(&inputs, family, allowed, denied);
            check_family(&inputs, family, none, &["db > web tcp/80"]);
        }
    }
    // A number is that of any family.
    let inputs = egress(json!({"action": "Allow", "protocol": 1}));
    check_family(&inputs, Family::V6, &["db > web 1"], &["db > web icmp/1.0"]);
}

/// Returns the inputs with this ingress rule for `db`, in a policy of the cluster.
fn ingress(rule: Value) -> Inputs {
    let spec = json!({"selector": "role == 'db'", "ingress": [rule]});
    with([object(Kind::GlobalNetworkPolicy, "p", &spec)])
}

#[test]
fn protocols() {
    let check =
        |rule: Value, allowed: &[&str], denied: &[&str]| check(&ingress(rule), allowed, denied);
    check(
        json!({"action": "Allow", "protocol": "UDP"}),
        &["web > db udp/80", "web > db udp/0"],
        &["web > db tcp/80", "web > db 136", "web > db icmp/8.0"],
    );
    for protocol in [json!("UDPLite"), json!(136), json!("136")] {
        check(
            json!({"action": "Allow", "protocol": protocol}),
            &["web > db 136"],
            &["web > db udp/80", "web > db 137"],
        );
    }
    check(
        json!({"action": "Allow", "protocol": 253}),
        &["web > db 253"],
        &["web > db 254", "web > db tcp/80"],
    );
    check(
        json!({"action": "Allow", "notProtocol": "TCP"}),
        &["web > db udp/80", "web > db 47", "web > db icmp/8.0"],
        &["web > db tcp/80"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "notProtocol": "UDP"}),
        &["web > db tcp/80"],
        &["web > db udp/80", "web > db 47"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "notProtocol": 6}),
        &[],
        &["web > db tcp/80"],
    );
}

#[test]
fn messages() {
    let v4 = |rule: Value, allowed: &[&str], denied: &[&str]| {
        check_family(&ingress(rule), Family::V4, allowed, denied);
    };
    v4(
        json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}}),
        &["web > db icmp/8.0", "web > db icmp/8.1"],
        &["web > db icmp/0.0", "web > db tcp/8"],
    );
    v4(
        json!({"action": "Allow", "protocol": 1, "icmp": {"type": 3, "code": 4}}),
        &["web > db icmp/3.4"],
        &["web > db icmp/3.3", "web > db icmp/4.4"],
    );
    v4(
        json!({"action": "Allow", "protocol": "ICMP", "notICMP": {"type": 8}}),
        &["web > db icmp/0.0", "web > db icmp/3.1"],
        &["web > db icmp/8.0", "web > db icmp/8.9", "web > db tcp/80"],
    );
    v4(
        json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 3}, "notICMP": {"type": 3, "code": 4}}),
        &["web > db icmp/3.3"],
        &["web > db icmp/3.4", "web > db icmp/8.0"],
    );
    v4(
        json!({"action": "Allow", "protocol": "ICMPv6", "icmp": {"type": 8}}),
        &[],
        &["web > db icmp/8.0"],
    );
    let v6 = ingress(json!({"action": "Allow", "protocol": "ICMPv6", "icmp": {"type": 128}}));
    check_family(
        &v6,
        Family::V6,
        &["web > db icmp/128.0"],
        &["web > db icmp/129.0", "web > db tcp/80"],
    );
    check_family(&v6, Family::V4, &[], &["web > db icmp/128.0"]);
    // Without a protocol, a condition on messages is one on ICMP.
    let any = ingress(json!({"action": "Allow", "notICMP": {"type": 8}}));
    check(&any, &["web > db icmp/1.0"], &["web > db icmp/8.0", "web > db tcp/80", "web > db 47"]);
}

#[test]
fn ports() {
    let check =
        |rule: Value, allowed: &[&str], denied: &[&str]| check(&ingress(rule), allowed, denied);
    check(
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, "443", "8080:8082", "sql"]}}),
        &["web > db tcp/80", "ext > db tcp/443", "web > db tcp/8082", "web > db tcp/5432"],
        &["web > db tcp/8083", "web > db udp/80", "web > db icmp/8.0", "web > db tcp/80:81"],
    );
    check(
        json!({"action": "Allow", "protocol": "UDP", "source": {"ports": ["53:53"]}}),
        &["web > db udp/53:4000"],
        &["web > db udp/4000:53", "web > db tcp/53:4000"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "destination": {"notPorts": [22, "sql"]}}),
        &["web > db tcp/80"],
        &["web > db tcp/22", "web > db tcp/5432", "web > db udp/80"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": ["20:30"], "notPorts": [22]}}),
        &["web > db tcp/20", "web > db tcp/30"],
        &["web > db tcp/22", "web > db tcp/31"],
    );
}

#[test]
fn names_of_ports() {
    let check =
        |rule: Value, allowed: &[&str], denied: &[&str]| check(&ingress(rule), allowed, denied);
    // The numbers are those of the side on which the name stands.
    check(
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http"]}}),
        &["ext > db tcp/9090"],
        &["ext > db tcp/8080", "ext > db tcp/9091", "ext > db udp/9091"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "source": {"ports": ["http"]}}),
        &["web > db tcp/8080:1"],
        &["web > db tcp/9090:1", "dweb > db tcp/8080:1", "ext > db tcp/8080:1"],
    );
    // Without a protocol, a name is looked up for each that has ports.
    check(
        json!({"action": "Allow", "destination": {"ports": ["http"]}}),
        &["ext > db tcp/9090", "ext > db udp/9091"],
        &["ext > db udp/9090", "ext > db tcp/9091", "ext > db sctp/9090", "ext > db 47"],
    );
    check(
        json!({"action": "Allow", "source": {"ports": ["http"]}}),
        &["web > db tcp/8080:1", "dweb > db sctp/8080:1"],
        &["web > db udp/8080:1", "dweb > db tcp/8080:1"],
    );
    check(
        json!({"action": "Allow", "destination": {"notPorts": ["http"]}}),
        &[
            "ext > db tcp/9091",
            "ext > db udp/9090",
            "ext > db sctp/9090",
            "ext > db icmp/8.0",
            "ext > db 47",
        ],
        &["ext > db tcp/9090", "ext > db udp/9091"],
    );
    check(
        json!({"action": "Allow", "destination": {"notPorts": ["http"]}, "notProtocol": "SCTP"}),
        &["ext > db tcp/9091", "ext > db 47"],
        &["ext > db tcp/9090", "ext > db sctp/1"],
    );
    // Where the side is restricted, only those count who meet it.
    check(
        json!({"action": "Allow", "source": {"ports": ["http"], "notSelector": "role == 'web'", "selector": "all()"}}),
        &[],
        &["web > db tcp/8080:1", "dweb > db sctp/8080:1"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "source": {"notPorts": ["http"], "selector": "role == 'web'"}}),
        &["web > db tcp/8081:1", "dweb > db tcp/8080:1"],
        &["web > db tcp/8080:1", "ext > db tcp/1:1", "plain > db tcp/1:1"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "source": {"ports": ["http", 1], "selector": "role == 'web'"}}),
        &["web > db tcp/8080:5", "web > db tcp/1:5", "dweb > db tcp/1:5"],
        &["plain > db tcp/1:5", "ext > db tcp/1:5", "dweb > db tcp/8080:5"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": ["nobodys"]}}),
        &[],
        &["web > db tcp/9090", "web > db tcp/1"],
    );
    check(
        json!({"action": "Allow", "protocol": "TCP", "destination": {"notPorts": ["nobodys"]}}),
        &["web > db tcp/9090"],
        &["web > db udp/1"],
    );
}

#[test]
fn names_of_ports_of_the_other_side() {
    let spec = json!({"selector": "role == 'db'", "egress": [
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http"]}},
        {"action": "Allow", "protocol": "SCTP", "destination": {"ports": ["http"], "nets": ["10.0.0.0/8"]}},
    ]});
    let inputs = with([object(Kind::NetworkPolicy, "p", &spec)]);
    let denied =
        ["db > dweb tcp/8080", "db > web tcp/9090", "db > ext tcp/8080", "db > plain tcp/8080"];
    check(&inputs, &["db > web tcp/8080"], &denied);
    check_family(&inputs, Family::V4, &["db > dweb sctp/8080"], &["db > web sctp/8080"]);
    check_family(&inputs, Family::V6, &[], &["db > dweb sctp/8080"]);
}

#[test]
fn services_as_sources_are_addresses() {
    for (kind, service, want) in [
        (Kind::NetworkPolicy, json!({"name": "shop"}), "web dweb ext"),
        (Kind::NetworkPolicy, json!({"name": "shop", "namespace": "dev"}), "dbare"),
        (Kind::GlobalNetworkPolicy, json!({"name": "shop", "namespace": "prod"}), "web dweb ext"),
        (Kind::GlobalNetworkPolicy, json!({"name": "none", "namespace": "prod"}), ""),
    ] {
        let rule = json!({"action": "Allow", "source": {"services": service}});
        let policy = object(kind, "p", &json!({"selector": "role == 'db'", "ingress": [rule]}));
        let inputs = with([policy]);
        let others = PARTIES.iter().map(|it| it.0).filter(|name| *name != "db");
        let (allowed, denied): (Vec<_>, Vec<_>) =
            others.partition(|name| want.split(' ').any(|it| it == *name));
        let flows = |names: Vec<&str>| -> Vec<String> {
            let flows = |it| [format!("{it} > db tcp/1"), format!("{it} > db 47")];
            names.into_iter().flat_map(flows).collect()
        };
        let (allowed, denied) = (flows(allowed), flows(denied));
        let [allowed, denied]: [Vec<&str>; 2] =
            [&allowed, &denied].map(|it| it.iter().map(|it| &**it).collect());
        check(&inputs, &allowed, &denied);
    }
    let inputs = ingress(json!({
        "action": "Allow", "protocol": "TCP", "source": {"services": {"name": "shop", "namespace": "prod"}, "ports": [7, "http"]},
    }));
    check(
        &inputs,
        &["dweb > db tcp/7:1", "ext > db tcp/7:1", "web > db tcp/8080:1"],
        &["web > db tcp/8:1", "dweb > db tcp/8080:1", "dweb > db udp/7:1", "dbare > db tcp/7:1"],
    );
}

#[test]
fn services_as_destinations_are_ports_of_addresses() {
    let egress = |rule: Value| {
        with([object(
            Kind::NetworkPolicy,
            "p",
            &json!({"selector": "role == 'db'", "egress": [rule]}),
        )])
    };
    let service = json!({"services": {"name": "shop"}});
    check(
        &egress(json!({"action": "Allow", "destination": service})),
        &["db > web tcp/8080", "db > dweb udp/9090", "db > ext tcp/80"],
        &[
            "db > web tcp/80",
            "db > web udp/8080",
            "db > ext tcp/8080",
            "db > dbare tcp/8080",
            "db > web icmp/8.0",
            "db > web 47",
        ],
    );
    check(
        &egress(json!({"action": "Allow", "protocol": "TCP", "destination": service})),
        &["db > web tcp/8080", "db > ext tcp/80"],
        &["db > dweb udp/9090"],
    );
    check(
        &egress(json!({"action": "Allow", "notProtocol": "TCP", "destination": service})),
        &["db > web udp/9090"],
        &["db > web tcp/8080", "db > web 47"],
    );
    check(
        &egress(json!({"action": "Allow", "protocol": "ICMP", "destination": service})),
        &[],
        &["db > web icmp/8.0", "db > web tcp/8080"],
    );
    check(
        &egress(
            json!({"action": "Allow", "destination": {"services": {"name": "shop", "namespace": "dev"}}}),
        ),
        &["db > dbare sctp/80"],
        &["db > dbare tcp/80", "db > web tcp/8080"],
    );
}

#[test]
fn conditions_on_the_policys_own_side() {
    let spec = json!({"ingress": [
        {"action": "Allow", "source": {"selector": "role == 'web'"}, "destination": {"selector": "role == 'db'"}},
    ]});
    let inputs = with([object(Kind::NetworkPolicy, "p", &spec)]);
    check(
        &inputs,
        &["web > db tcp/1", "web > ext tcp/1"],
        &["plain > db tcp/1", "web > plain tcp/1"],
    );
    let spec = json!({"egress": [
        {"action": "Allow", "source": {"selector": "role == 'web'"}},
        {"action": "Allow", "source": {"nets": ["10.0.0.2/32"]}},
        {"action": "Allow", "source": {"serviceAccounts": {"names": ["default"]}, "notSelector": "has(role)"}, "protocol": "UDP"},
    ]});
    let inputs = with([object(Kind::NetworkPolicy, "p", &spec)]);
    check(&inputs, &["web > db tcp/1", "plain > ext udp/1"], &["plain > ext tcp/1"]);
    check_family(&inputs, Family::V4, &["db > ext tcp/1"], &[]);
    check_family(&inputs, Family::V6, &[], &["db > ext tcp/1"]);
}

#[test]
fn subjects() {
    let (none, deny) = (json!({}), json!([{"action": "Deny"}]));
    for (kind, selection, want) in [
        (Kind::NetworkPolicy, none.clone(), "web db plain"),
        (Kind::NetworkPolicy, json!({"selector": "role == 'web'"}), "web"),
        (Kind::NetworkPolicy, json!({"selector": "projectcalico.org/namespace == 'dev'"}), ""),
        (Kind::NetworkPolicy, json!({"serviceAccountSelector": "grade == 'gold'"}), "web"),
        (Kind::NetworkPolicy, json!({"serviceAccountSelector": "all()"}), "web db plain"),
        (Kind::GlobalNetworkPolicy, none, "web db plain dweb dbare"),
        (Kind::GlobalNetworkPolicy, json!({"selector": "role == 'web'"}), "web dweb"),
        (Kind::GlobalNetworkPolicy, json!({"namespaceSelector": "env == 'prod'"}), "web db plain"),
        (Kind::GlobalNetworkPolicy, json!({"namespaceSelector": "!has(env)"}), "dweb dbare"),
        (
            Kind::GlobalNetworkPolicy,
            json!({"namespaceSelector": "all()", "selector": "!has(role)"}),
            "plain dbare",
        ),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccountSelector": "projectcalico.org/name == 'api'"}),
            "web dweb",
        ),
        (
            Kind::GlobalNetworkPolicy,
            json!({"serviceAccountSelector": "!has(grade)"}),
            "db plain dweb dbare",
        ),
        // These are about hosts only.
        (Kind::GlobalNetworkPolicy, json!({"preDNAT": true, "applyOnForward": true}), ""),
        (Kind::GlobalNetworkPolicy, json!({"doNotTrack": true, "applyOnForward": true}), ""),
        (
            Kind::GlobalNetworkPolicy,
            json!({"applyOnForward": true, "selector": "role == 'db'"}),
            "db",
        ),
    ] {
        let mut spec = selection.clone();
        spec["ingress"] = deny.clone();
        let inputs = with([object(kind, "p", &spec)]);
        let is_denied = |name: &&str| {
            let judgement = evaluate(&inputs, &flow(&format!("ext > {name} tcp/80"), Family::V4));
            judgement.enforced.verdict() == Verdict::Deny
        };
        let got: Vec<_> = PARTIES.iter().map(|it| it.0).filter(is_denied).collect();
        assert_eq!(got.join(" "), want, "{kind} {selection}");
    }
}

#[test]
fn directions() {
    let check_both = |spec: Value, want: [bool; 2]| {
        let inputs = with([object(Kind::NetworkPolicy, "p", &spec)]);
        for (text, passes) in [("ext > db tcp/80", want[0]), ("db > ext tcp/80", want[1])] {
            let (allowed, denied): (&[_], &[_]) =
                if passes { (&[text], &[]) } else { (&[], &[text]) };
            check(&inputs, allowed, denied);
        }
    };
    let allow = json!([{"action": "Allow"}]);
    check_both(json!({}), [false, true]);
    check_both(json!({"egress": allow}), [true, true]);
    check_both(json!({"types": ["Egress"]}), [true, false]);
    check_both(json!({"types": ["Egress"], "ingress": allow}), [true, false]);
    check_both(json!({"types": ["Ingress", "Egress"], "ingress": allow}), [true, false]);
    check_both(json!({"ingress": [{"action": "Log"}]}), [false, true]);
}

#[test]
fn tiers_orders_and_actions() {
    let tier = |name, order: Value, action: &str| {
        object(Kind::Tier, name, &json!({"order": order, "defaultAction": action}))
    };
    let policy = |name, tier: &str, order: Value, actions: &[&str]| {
        let rules: Vec<_> = actions.iter().map(|action| json!({"action": action})).collect();
        object(Kind::NetworkPolicy, name, &json!({"tier": tier, "order": order, "ingress": rules}))
    };
    let passes = |objects: Vec<Object>| {
        let judgement = evaluate(&with(objects), &flow("ext > db tcp/80", Family::V4));
        judgement.enforced.verdict() == Verdict::Allow
    };
    let none = Value::Null;
    let default = |name, order, actions: &[&str]| policy(name, "default", order, actions);
    // Within a tier: by order, where none is last, then by name.
    assert!(!passes(
        [default("a", none.clone(), &["Deny"]), default("b", none.clone(), &["Allow"])].into()
    ));
    assert!(passes(
        [default("b", none.clone(), &["Deny"]), default("a", none.clone(), &["Allow"])].into()
    ));
    assert!(passes(
        [default("a", none.clone(), &["Deny"]), default("b", json!(1), &["Allow"])].into()
    ));
    assert!(passes(
        [default("a", json!(1), &["Deny"]), default("b", json!(-1), &["Allow"])].into()
    ));
    assert!(passes(
        [default("a", json!(1), &["Deny"]), default("b", json!(0.5), &["Allow"])].into()
    ));
    assert!(!passes(
        [default("a", json!(1), &["Log"]), default("b", json!(2), &["Log", "Deny"])].into()
    ));
    // At the end of the last tier the pod's default stands.
    assert!(passes([default("a", none.clone(), &["Pass"])].into()));
    assert!(!passes([default("a", none.clone(), &["Log"])].into()));
    // Between tiers.
    let first = |action| tier("first", json!(-5), action);
    let in_first = |actions: &[&str]| policy("p", "first", none.clone(), actions);
    let deny = || default("p2", none.clone(), &["Deny"]);
    assert!(passes([first("Deny"), in_first(&["Allow"]), deny()].into()));
    assert!(!passes([first("Deny"), in_first(&["Pass"]), deny()].into()));
    let allow = || default("p2", none.clone(), &["Allow"]);
    assert!(!passes([first("Deny"), in_first(&[]), allow()].into()));
    assert!(passes([first("Pass"), in_first(&[]), allow()].into()));
    assert!(passes([first("Deny"), in_first(&["Pass"]), allow()].into()));
    // A tier without order is last, even after the built-in ones; one that does not exist denies.
    let last =
        [tier("last", none.clone(), "Pass"), policy("p", "last", none.clone(), &["Deny"]), allow()];
    assert!(passes(last.into()));
    assert!(!passes(
        [policy("p", "absent", none.clone(), &["Log"]), default("q", none, &["Pass"])].into()
    ));
}

#[test]
fn staged_policies_are_pending() {
    let spec = |action: &str, staged: Value| json!({"selector": "role == 'db'", "ingress": [{"action": action}], "stagedAction": staged});
    let verdicts = |objects: Vec<Option<Object>>| {
        let inputs = with(objects.into_iter().flatten());
        let Evaluation { enforced, pending } =
            evaluate(&inputs, &flow("ext > db tcp/80", Family::V4));
        [enforced.verdict(), pending.verdict()]
    };
    let staged = |kind: Kind, spec: Value| {
        let mut metadata = json!({"name": "p"});
        if kind.is_namespaced() {
            metadata["namespace"] = "prod".into();
        }
        convert(&json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": metadata, "spec": spec})).unwrap()
    };
    let (allow, deny) = (Verdict::Allow, Verdict::Deny);
    for (kind, of) in [
        (Kind::StagedNetworkPolicy, Kind::NetworkPolicy),
        (Kind::StagedGlobalNetworkPolicy, Kind::GlobalNetworkPolicy),
    ] {
        for (action, want) in
            [(json!(null), deny), (json!("Learn"), deny), (json!("Ignore"), allow)]
        {
            assert_eq!(verdicts([staged(kind, spec("Deny", action))].into()), [allow, want]);
        }
        let enforced = |action: &str| {
            let spec = json!({"selector": "role == 'db'", "ingress": [{"action": action}]});
            Some(object(of, "p", &spec))
        };
        // It stands for the enforced one of its name, instead of beside it.
        let replaced = [enforced("Deny"), staged(kind, spec("Allow", json!("Set")))];
        assert_eq!(verdicts(replaced.into()), [deny, allow]);
        let removed = [enforced("Deny"), staged(kind, json!({"stagedAction": "Delete"}))];
        assert_eq!(verdicts(removed.into()), [deny, allow]);
        let ignored = [enforced("Deny"), staged(kind, spec("Allow", json!("Ignore")))];
        assert_eq!(verdicts(ignored.into()), [deny, deny]);
    }
    let kubernetes = staged(
        Kind::StagedKubernetesNetworkPolicy,
        json!({"podSelector": {"matchLabels": {"role": "db"}}}),
    );
    assert_eq!(verdicts([kubernetes].into()), [allow, deny]);
}

#[test]
fn requests_are_judged_only_over_tcp() {
    let inputs = ingress(json!({"action": "Allow", "http": {}}));
    check(&inputs, &["web > db tcp/80"], &["web > db udp/80", "web > db icmp/8.0", "web > db 47"]);
    let without = Capabilities::minimal();
    let judgement = Judge::new(&inputs, &without).evaluate(&flow("web > db tcp/80", Family::V4));
    assert_eq!(judgement.enforced.verdict(), Verdict::Deny);
}

#[test]
fn annotations_are_shown() {
    let annotations = json!({"annotations": {"reason": "high-security"}});
    let inputs = ingress(json!({"action": "Deny", "metadata": annotations}));
    let judgement = evaluate(&inputs, &flow("web > db tcp/80", Family::V4)).enforced;
    let want = "rule GlobalNetworkPolicy p ingress[0] `reason=high-security`";
    assert_eq!(judgement.ingress.reason.to_string(), want);
    let text: String = judgement.to_string();
    assert!(text.ends_with(want), "{text}");
}
