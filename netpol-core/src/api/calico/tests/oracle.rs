//! Converted policies mean what Calico documents: an oracle that reads the manifests themselves, and shares no code with
//! the conversion, the selectors or the judge, gives the same verdicts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use serde_json::{Map, Value, json};

use super::convert;
use super::meaning::cluster;
use crate::api::{Document, Kind, Strictness};
use crate::dataplane::Capabilities;
use crate::eval::Judge;
use crate::flow::{Flow, Origin, Payload};
use crate::model::Inputs;
use crate::net::{Protocol, Transport};
use crate::verdict::Verdict;

/// What there is, as [`cluster`] has it.
struct Thing {
    addresses: [&'static str; 2],
    role: Option<&'static str>,
    namespace: Option<&'static str>,
    account: Option<&'static str>,
    ports: &'static [(&'static str, Transport, u16)],
    is_pod: bool,
}

const THINGS: [Thing; 8] = [
    pod(["10.0.0.1", "fd00::1"], Some("web"), "prod", "api", &[("http", Transport::Tcp, 8080)]),
    pod(
        ["10.0.0.2", "fd00::2"],
        Some("db"),
        "prod",
        "default",
        &[
            ("http", Transport::Tcp, 9090),
            ("http", Transport::Udp, 9091),
            ("sql", Transport::Tcp, 5432),
        ],
    ),
    pod(["10.0.0.3", "fd00::3"], None, "prod", "default", &[]),
    pod(["10.0.1.1", "fd00::1:1"], Some("web"), "dev", "api", &[("http", Transport::Sctp, 8080)]),
    pod(["10.0.1.2", "fd00::1:2"], None, "dev", "default", &[]),
    set(["192.0.2.", "2001:db8::"], Some("prod")),
    set(["192.0.3.", "2001:db8:1::"], Some("dev")),
    set(["198.51.100.", "2001:db8:2::"], None),
];

const fn pod(
    addresses: [&'static str; 2],
    role: Option<&'static str>,
    namespace: &'static str,
    account: &'static str,
    ports: &'static [(&'static str, Transport, u16)],
) -> Thing {
    Thing {
        addresses,
        role,
        namespace: Some(namespace),
        account: Some(account),
        ports,
        is_pod: true,
    }
}

/// A network set of all addresses that begin so.
const fn set(addresses: [&'static str; 2], namespace: Option<&'static str>) -> Thing {
    Thing { addresses, role: Some("set"), namespace, account: None, ports: &[], is_pod: false }
}

const ADDRESSES: [[&str; 2]; 9] = [
    ["10.0.0.1", "fd00::1"],
    ["10.0.0.2", "fd00::2"],
    ["10.0.0.3", "fd00::3"],
    ["10.0.1.1", "fd00::1:1"],
    ["10.0.1.2", "fd00::1:2"],
    ["192.0.2.7", "2001:db8::7"],
    ["192.0.3.7", "2001:db8:1::7"],
    ["198.51.100.7", "2001:db8:2::7"],
    ["203.0.113.7", "2001:db8:3::7"],
];

/// Blocks of one family each, and what the addresses in them begin with.
const BLOCKS: [[(&str, &str); 3]; 2] = [
    [("10.0.0.0/24", "10.0.0."), ("192.0.2.0/23", "192.0."), ("10.0.1.1/32", "10.0.1.1")],
    [("fd00::/112", "fd00::"), ("2001:db8::/48", "2001:db8::"), ("fd00::1:1/128", "fd00::1:1")],
];

type Backends = (&'static str, &'static [usize], &'static [(Transport, u16)]);

/// The Services of [`cluster`]: by namespace the numbers of some of [`ADDRESSES`], and the ports that these have.
const BACKENDS: [Backends; 3] = [
    ("prod", &[0, 3], &[(Transport::Tcp, 8080), (Transport::Udp, 9090)]),
    ("prod", &[8], &[(Transport::Tcp, 80)]),
    ("dev", &[4], &[(Transport::Sctp, 80)]),
];

type Test = fn(&Thing) -> bool;

/// Selectors of things, with what they say.
const SELECTORS: [(&str, Test); 7] = [
    ("all()", |_| true),
    ("role == 'web'", |it| it.role == Some("web")),
    ("role != 'web'", |it| it.role != Some("web")),
    ("!has(role)", |it| it.role.is_none()),
    ("role in {'db', 'set'} || !has(role)", |it| it.role != Some("web")),
    ("has(projectcalico.org/serviceaccount)", |it| it.is_pod),
    ("projectcalico.org/namespace == 'dev'", |it| it.namespace == Some("dev")),
];
const NAMESPACES: [(&str, Test); 6] = [
    ("all()", |it| it.namespace.is_some()),
    ("env == 'prod'", |it| it.namespace == Some("prod")),
    ("!has(env)", |it| it.namespace != Some("prod")),
    ("projectcalico.org/name == 'dev'", |it| it.namespace == Some("dev")),
    ("!all()", |it| it.namespace.is_none()),
    ("global()", |it| it.namespace.is_none()),
];
const ACCOUNTS: [(&str, Test); 4] = [
    ("all()", |it| it.account.is_some()),
    ("grade == 'gold'", |it| it.account == Some("api") && it.namespace == Some("prod")),
    ("grade != 'gold'", |it| it.account != Some("api") || it.namespace != Some("prod")),
    ("projectcalico.org/name == 'api'", |it| it.account == Some("api")),
];

fn says(tests: &[(&str, Test)], text: &Value, thing: &Thing) -> bool {
    tests.iter().find(|it| *text == it.0).unwrap().1(thing)
}

// The oracle.

fn owns(thing: &Thing, address: &str) -> bool {
    thing
        .addresses
        .iter()
        .any(|it| if thing.is_pod { *it == address } else { address.starts_with(it) })
}

fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Returns whether a thing is one that a side selects; `None` if the side selects nothing in particular.
fn selects(entity: &Value, own: Option<&str>, thing: &Thing) -> Option<bool> {
    let accounts = &entity["serviceAccounts"];
    let names = items(accounts, "names");
    let has_accounts = !names.is_empty() || accounts["selector"].is_string();
    let is_meant = has_accounts
        || ["selector", "notSelector", "namespaceSelector"].iter().any(|it| entity[it].is_string());
    let mut terms = Vec::new();
    if entity["namespaceSelector"].is_string() {
        terms.push(says(&NAMESPACES, &entity["namespaceSelector"], thing));
    } else if let (Some(own), true) = (own, is_meant) {
        terms.push(thing.namespace == Some(own));
    }
    if !names.is_empty() {
        terms.push(names.iter().any(|name| thing.account.is_some_and(|it| name == it)));
    }
    if accounts["selector"].is_string() {
        terms.push(says(&ACCOUNTS, &accounts["selector"], thing));
    }
    if entity["selector"].is_string() {
        terms.push(says(&SELECTORS, &entity["selector"], thing));
    }
    if terms.is_empty() {
        return None;
    }
    let excluded = &entity["notSelector"];
    Some(
        terms.into_iter().all(|it| it)
            && !(excluded.is_string() && says(&SELECTORS, excluded, thing)),
    )
}

fn meets(entity: &Value, own: Option<&str>, address: &str) -> bool {
    let owners: Vec<_> = THINGS.iter().filter(|it| owns(it, address)).collect();
    let peers = match selects(entity, own, &THINGS[0]) {
        Some(_) => owners.iter().any(|it| selects(entity, own, it) == Some(true)),
        None if entity["notSelector"].is_string() => {
            !owners.iter().any(|it| says(&SELECTORS, &entity["notSelector"], it))
        }
        None => true,
    };
    let is_in = |net: &Value| {
        let block = BLOCKS.iter().flatten().find(|it| *net == it.0).unwrap();
        if block.0.ends_with("/32") || block.0.ends_with("/128") {
            block.1 == address
        } else if block.0 == "fd00::/112" {
            address.starts_with("fd00::") && !address.starts_with("fd00::1:")
        } else {
            address.starts_with(block.1)
        }
    };
    let nets = items(entity, "nets");
    peers
        && (nets.is_empty() || nets.iter().any(is_in))
        && !items(entity, "notNets").iter().any(is_in)
}

/// Returns whether one side of a flow is at a backend of the Service that is asked for, as a destination with its port.
fn is_backend(entity: &Value, side: &str, address: &str, flow: &Flow) -> bool {
    let service = &entity["services"];
    if service.is_null() {
        return true;
    }
    let namespace = service["namespace"].as_str().unwrap();
    let mut of_service =
        BACKENDS.iter().filter(|it| service["name"] == "shop" && it.0 == namespace);
    let is_port = |ports: &[(Transport, u16)]| match flow.payload {
        Payload::Ports { transport, destination, .. } => ports.contains(&(transport, destination)),
        _ => false,
    };
    of_service.any(|(_, backends, ports)| {
        backends.iter().any(|it| ADDRESSES[*it].contains(&address))
            && (side == "source" || is_port(ports))
    })
}

/// Returns whether a list of ports lists the port of an address.
fn lists(
    list: &[Value],
    entity: &Value,
    own: Option<&str>,
    address: &str,
    transport: Transport,
    port: u16,
) -> bool {
    let owner = THINGS.iter().find(|it| it.is_pod && owns(it, address));
    let owner = owner.filter(|it| selects(entity, own, it) != Some(false));
    list.iter().any(|item| match item {
        Value::Number(number) => number.as_u64() == Some(port.into()),
        Value::String(text) => match text.split_once(':') {
            Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).contains(&port),
            None => owner.is_some_and(|it| it.ports.contains(&(leak(text), transport, port))),
        },
        _ => unreachable!(),
    })
}

/// Returns the name of a port as the things have it.
fn leak(text: &str) -> &'static str {
    ["http", "sql"].into_iter().find(|it| *it == text).unwrap()
}

fn number(protocol: &Value) -> Option<u64> {
    match protocol {
        Value::Null => None,
        Value::Number(number) => number.as_u64(),
        Value::String(text) => Some(match text.as_str() {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            "ICMP" => 1,
            "ICMPv6" => 58,
            "UDPLite" => 136,
            digits => digits.parse().unwrap(),
        }),
        _ => unreachable!(),
    }
}

fn is_message(icmp: &Value, flow: &Flow) -> bool {
    match flow.payload {
        Payload::Icmp { kind, code } => {
            icmp["type"] == kind && (icmp["code"].is_null() || icmp["code"] == code)
        }
        _ => false,
    }
}

fn rule_matches(rule: &Value, own: Option<&str>, flow: &Flow) -> bool {
    let version: u64 = if flow.source.is_ipv4() { 4 } else { 6 };
    let protocol = u64::from(flow.protocol().number());
    let nets = ["source", "destination"]
        .iter()
        .flat_map(|side| ["nets", "notNets"].map(|list| items(&rule[side], list)));
    let mut families =
        nets.flatten().map(|net| if net.as_str().unwrap().contains(':') { 6 } else { 4 });
    let by_name = match rule["protocol"].as_str() {
        Some("ICMP") => Some(4),
        Some("ICMPv6") => Some(6),
        _ => None,
    };
    let (icmp, not_icmp) = (&rule["icmp"], &rule["notICMP"]);
    let is_icmp = matches!(flow.payload, Payload::Icmp { .. });
    if rule["ipVersion"].as_u64().is_some_and(|it| it != version)
        || by_name.is_some_and(|it| it != version)
        || families.any(|it| it != version)
        || number(&rule["protocol"]).is_some_and(|it| it != protocol)
        || number(&rule["notProtocol"]) == Some(protocol)
        || (icmp["type"].is_number() && !is_message(icmp, flow))
        || (not_icmp["type"].is_number() && (!is_icmp || is_message(not_icmp, flow)))
    {
        return false;
    }
    [("source", flow.source), ("destination", flow.destination)].into_iter().all(
        |(side, address)| {
            let (entity, address) = (&rule[side], format!("{address}"));
            let (any_of, none_of) = (items(entity, "ports"), items(entity, "notPorts"));
            let ports = match flow.payload {
                Payload::Ports { transport, source, destination } => {
                    let port = if side == "source" { source } else { destination };
                    (any_of.is_empty() || lists(any_of, entity, own, &address, transport, port))
                        && !lists(none_of, entity, own, &address, transport, port)
                }
                // What has no ports is none of those that are excluded.
                _ => {
                    any_of.is_empty() && (none_of.is_empty() || number(&rule["protocol"]).is_none())
                }
            };
            ports && meets(entity, own, &address) && is_backend(entity, side, &address, flow)
        },
    )
}

/// Returns the verdict of policies that stand in their order: those of tier `first`, then those of the default one.
fn half(subject: &Thing, direction: &str, flow: &Flow, first: &Value, policies: &[Value]) -> bool {
    for (tier, end) in
        [("first", first["spec"]["defaultAction"].as_str()), ("default", Some("Deny"))]
    {
        let mut is_governed = false;
        let mut passed = false;
        'policies: for policy in policies {
            let (spec, own) = (&policy["spec"], policy["metadata"]["namespace"].as_str());
            let (ingress, egress) = (items(spec, "ingress"), items(spec, "egress"));
            let governs = match items(spec, "types") {
                [] if direction == "ingress" => !ingress.is_empty() || egress.is_empty(),
                [] => !egress.is_empty(),
                types => types.iter().any(|it| it.as_str().unwrap().to_lowercase() == direction),
            };
            let selected = own.is_none_or(|own| subject.namespace == Some(own))
                && (spec["selector"].is_null() || says(&SELECTORS, &spec["selector"], subject))
                && (spec["namespaceSelector"].is_null()
                    || says(&NAMESPACES, &spec["namespaceSelector"], subject))
                && (spec["serviceAccountSelector"].is_null()
                    || says(&ACCOUNTS, &spec["serviceAccountSelector"], subject));
            if spec["tier"].as_str().unwrap_or("default") != tier || !governs || !selected {
                continue;
            }
            is_governed = true;
            for rule in if direction == "ingress" { ingress } else { egress } {
                if rule_matches(rule, own, flow) {
                    match rule["action"].as_str().unwrap() {
                        "Allow" => return true,
                        "Deny" => return false,
                        "Pass" => {
                            passed = true;
                            break 'policies;
                        }
                        _ => {}
                    }
                }
            }
        }
        if is_governed && !passed && end != Some("Pass") {
            return false;
        }
    }
    true
}

fn is_allowed(flow: &Flow, first: &Value, policies: &[Value]) -> bool {
    let pod =
        |address: IpAddr| THINGS.iter().find(|it| it.is_pod && owns(it, &format!("{address}")));
    let half = |address, direction| {
        pod(address).is_none_or(|it| half(it, direction, flow, first, policies))
    };
    flow.source == flow.destination
        || (half(flow.source, "egress") && half(flow.destination, "ingress"))
}

// Manifests.

fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((String::from(name), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

fn texts<const N: usize>(tests: [(&'static str, Test); N]) -> impl Strategy<Value = Value> {
    select(tests.map(|it| json!(it.0)).to_vec())
}

fn entity(family: usize) -> impl Strategy<Value = Value> {
    let blocks =
        || subsequence(BLOCKS[family].map(|it| json!(it.0)).to_vec(), 1..3).prop_map(Value::from);
    let ports = || {
        let ports = [json!("http"), json!("sql"), json!(80), json!(8080), json!("5000:9090")];
        prop_oneof![
            subsequence(ports.to_vec(), 1..4).prop_map(Value::from),
            select([json!(["http"]), json!(["http", "sql"])].to_vec()),
        ]
    };
    let accounts = (
        option::of(select([json!([]), json!(["api"]), json!(["api", "default"])].to_vec())),
        option::of(texts(ACCOUNTS)),
    )
        .prop_map(|(names, selector)| object([("names", names), ("selector", selector)]));
    (
        option::weighted(0.3, texts(SELECTORS)),
        option::weighted(0.2, texts(SELECTORS)),
        option::weighted(0.2, texts(NAMESPACES)),
        option::weighted(0.1, accounts),
        option::weighted(0.15, blocks()),
        option::weighted(0.1, blocks()),
        option::weighted(0.2, ports()),
        option::weighted(0.2, ports()),
    )
        .prop_map(|(selector, not, namespaces, accounts, nets, not_nets, ports, not_ports)| {
            object([
                ("selector", selector),
                ("notSelector", not),
                ("namespaceSelector", namespaces),
                ("serviceAccounts", accounts),
                ("nets", nets),
                ("notNets", not_nets),
                ("ports", ports),
                ("notPorts", not_ports),
            ])
        })
}

fn rule(direction: &'static str) -> impl Strategy<Value = Value> {
    let protocol = || {
        select(
            [
                json!("TCP"),
                json!("UDP"),
                json!("SCTP"),
                json!(6),
                json!("ICMP"),
                json!("ICMPv6"),
                json!(1),
                json!("58"),
                json!(47),
            ]
            .to_vec(),
        )
    };
    let icmp =
        || select([json!({"type": 8}), json!({"type": 8, "code": 1}), json!({"type": 3})].to_vec());
    let action =
        prop_oneof![4 => Just("Allow"), 2 => Just("Deny"), 1 => Just("Pass"), 1 => Just("Log")];
    let entities = (0..2_usize).prop_flat_map(|family| (entity(family), entity(family)));
    let service = option::weighted(
        0.15,
        select(
            [
                json!({"name": "shop", "namespace": "prod"}),
                json!({"name": "shop", "namespace": "dev"}),
                json!({"name": "none", "namespace": "prod"}),
            ]
            .to_vec(),
        ),
    );
    (
        action,
        option::weighted(0.1, select([4, 6].to_vec())),
        option::weighted(0.5, protocol()),
        option::weighted(0.1, protocol()),
        option::weighted(0.1, icmp()),
        option::weighted(0.1, icmp()),
        (entities, service),
    )
        .prop_map(move |(action, version, is, is_not, icmp, not_icmp, (entities, service))| {
            let (mut source, mut destination) = entities;
            match (service, direction) {
                (Some(it), "ingress") => source = json!({"services": it}),
                (Some(it), _) => destination = json!({"services": it}),
                (None, _) => {}
            }
            object([
                ("action", Some(action.into())),
                ("ipVersion", version.map(Value::from)),
                ("protocol", is),
                ("notProtocol", is_not),
                ("icmp", icmp),
                ("notICMP", not_icmp),
                ("source", Some(source)),
                ("destination", Some(destination)),
            ])
        })
        .prop_filter("Calico refuses it", move |rule| {
            convert(&policy_of(json!({direction: [rule]}), None, "p")).is_ok()
        })
}

fn policy_of(spec: Value, namespace: Option<&str>, name: &str) -> Value {
    let kind = if namespace.is_some() { "NetworkPolicy" } else { "GlobalNetworkPolicy" };
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

/// Returns policies, each with an order that puts it before the next one.
fn policies() -> impl Strategy<Value = Vec<Value>> {
    let rules = |direction| option::weighted(0.7, vec(rule(direction), 0..4).prop_map(Value::from));
    let types = || {
        option::weighted(
            0.3,
            subsequence([json!("Ingress"), json!("Egress")].to_vec(), 0..=2).prop_map(Value::from),
        )
    };
    let policy = (
        option::weighted(0.5, select(["prod", "dev"].to_vec())),
        option::of(Just(json!("first"))),
        option::weighted(0.4, texts(SELECTORS)),
        option::weighted(
            0.3,
            select(NAMESPACES[..5].iter().map(|it| json!(it.0)).collect::<Vec<_>>()),
        ),
        option::weighted(0.2, texts(ACCOUNTS)),
        types(),
        rules("ingress"),
        rules("egress"),
    );
    vec(policy, 1..4).prop_map(|policies| {
        let mut manifests = Vec::new();
        for (index, (namespace, tier, selector, namespaces, accounts, types, ingress, egress)) in
            policies.into_iter().enumerate()
        {
            let spec = object([
                ("tier", tier),
                ("order", Some(json!(f64::from(u8::try_from(index).unwrap_or(0)) / 2.0 - 1.0))),
                ("selector", selector),
                ("namespaceSelector", namespaces.filter(|_| namespace.is_none())),
                ("serviceAccountSelector", accounts),
                ("types", types),
                ("ingress", ingress),
                ("egress", egress),
            ]);
            // Names in the opposite order: only equal orders are told apart by them.
            manifests.push(policy_of(spec, namespace, &format!("p{}", 9 - index)));
        }
        manifests
    })
}

fn payloads() -> Vec<Payload> {
    let mut payloads = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        for (source, destination) in [
            (40_000, 80),
            (8080, 9090),
            (9090, 8080),
            (80, 9091),
            (5432, 5432),
            (4999, 5000),
            (9091, 1),
        ] {
            payloads.push(Payload::Ports { transport, source, destination });
        }
    }
    for (kind, code) in [(8, 0), (8, 1), (3, 1), (0, 0)] {
        payloads.push(Payload::Icmp { kind, code });
    }
    payloads.extend([47, 136].map(|it| Payload::Other(Protocol::new(it))));
    payloads
}

fn flows() -> impl Iterator<Item = Flow> {
    let pairs =
        ADDRESSES.into_iter().flat_map(|from| ADDRESSES.into_iter().map(move |to| (from, to)));
    pairs.flat_map(|(from, to)| (0..2).map(move |family| [from[family], to[family]])).flat_map(
        |ends| {
            let [source, destination] = ends.map(|it| it.parse().unwrap());
            let flow =
                move |payload| Flow { source, destination, payload, origin: Origin::Endpoint };
            payloads().into_iter().map(flow)
        },
    )
}

/// Returns the rule with one thing in it made unreadable, in every way: a field has another name or a value of another
/// type, or a list one more entry.
fn spoilt(value: &Value) -> Vec<Value> {
    let mut spoilt = Vec::new();
    for (name, inner) in value.as_object().unwrap() {
        let with = |change: &dyn Fn(&mut Map<String, Value>)| {
            let mut value = value.clone();
            change(value.as_object_mut().unwrap());
            value
        };
        spoilt.push(with(&|fields| {
            let inner = fields.remove(name).unwrap();
            fields.insert(format!("{name}s"), inner);
        }));
        spoilt.push(with(&|fields| {
            fields.insert(name.clone(), json!(true));
        }));
        if inner.is_array() {
            spoilt.push(with(&|fields| fields[name].as_array_mut().unwrap().push(json!(null))));
        }
        if inner.is_object() {
            let changed = self::spoilt(inner);
            spoilt.extend(changed.into_iter().map(|it| with(&|fields| fields[name] = it.clone())));
        }
    }
    spoilt
}

fn inputs(policies: &[Value], first: &Value) -> Inputs {
    let mut inputs = cluster();
    for manifest in policies.iter().chain([first]) {
        let text = |field: &str| manifest[field].as_str().unwrap();
        let kind = Kind::recognise(text("apiVersion"), text("kind")).unwrap();
        let object = Document::read(kind, manifest).unwrap().to_object(Strictness::Degraded);
        inputs.upsert(object.unwrap().value.unwrap());
    }
    inputs
}

fn tier(end: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "first"},
        "spec": {"order": 5, "defaultAction": end},
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn converted_policies_mean_what_they_say(policies in policies(), end in select(["Deny", "Pass"].to_vec())) {
        let first = tier(end);
        let inputs = inputs(&policies, &first);
        let capabilities = Capabilities::all();
        let judge = Judge::new(&inputs, &capabilities);
        for flow in flows() {
            let want = is_allowed(&flow, &first, &policies);
            let got = judge.evaluate(&flow).enforced;
            prop_assert_eq!(got.verdict() == Verdict::Allow, want, "{}: {}", flow, got);
        }
    }

    #[test]
    fn a_rule_that_cannot_be_read_lets_nothing_pass(
        policies in policies(), end in select(["Deny", "Pass"].to_vec()), choice in any::<[Index; 2]>(),
    ) {
        let mut places = Vec::new();
        for (index, policy) in policies.iter().enumerate() {
            for direction in ["ingress", "egress"] {
                let rules = items(&policy["spec"], direction).len();
                places.extend((0..rules).map(|rule| (index, direction, rule)));
            }
        }
        prop_assume!(!places.is_empty());
        let (index, direction, rule) = *choice[0].get(&places);
        let mut changed = policies.clone();
        let rule = &mut changed[index]["spec"][direction][rule];
        *rule = choice[1].get(&spoilt(rule)).clone();
        let rule = rule.clone();
        let first = tier(end);
        let inputs = inputs(&changed, &first);
        let capabilities = Capabilities::all();
        let judge = Judge::new(&inputs, &capabilities);
        for flow in flows() {
            let got = judge.evaluate(&flow).enforced;
            let is_wider = got.verdict() == Verdict::Allow && !is_allowed(&flow, &first, &policies);
            prop_assert!(!is_wider, "{}: {}\n{}", flow, got, rule);
        }
    }
}
