//! Converted policies mean what the API says: an oracle that reads the manifests themselves, and shares no code with
//! the conversion or the judge, gives the same verdicts.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::super::oracle::{is_in, items, selects};
use super::convert;
use crate::api::{Document, Kind, Strictness};
use crate::dataplane::Capabilities;
use crate::eval::Judge;
use crate::flow::Flow;
use crate::model::Inputs;
use crate::net::Transport;
use crate::verdict::Verdict;

/// Namespaces with one label, apart from that of their name.
const NAMESPACES: [(&str, &str); 3] = [("x", "red"), ("y", "blue"), ("z", "")];
const TRANSPORTS: [(Transport, &str); 3] =
    [(Transport::Tcp, "TCP"), (Transport::Udp, "UDP"), (Transport::Sctp, "SCTP")];
/// Two nets below the pods' 10.0.0.0/16, each with a pod; around them are addresses that are no pod's.
const BLOCKS: [(&str, &[&str]); 4] = [
    ("10.0.0.0/16", &["10.0.1.0/24", "10.0.2.1/32"]),
    ("10.0.1.0/24", &["10.0.1.1/32", "10.0.1.128/25"]),
    ("0.0.0.0/0", &["10.0.0.0/15", "192.0.2.0/24"]),
    ("192.0.2.7/31", &["192.0.2.6/32"]),
];
const EXTERNAL: [&str; 4] = ["10.0.1.200", "10.1.0.1", "192.0.2.6", "192.0.2.7"];

struct Pod {
    namespace: &'static str,
    labels: Value,
    address: Ipv4Addr,
    /// Name, transport, number.
    ports: Vec<(&'static str, &'static str, u16)>,
}

fn pods() -> Vec<Pod> {
    let pod = |namespace, labels, address: [u8; 4], ports: &[_]| Pod {
        namespace,
        labels,
        address: address.into(),
        ports: ports.into(),
    };
    [
        pod("x", json!({"app": "a"}), [10, 0, 0, 1], &[("web", "TCP", 80)]),
        pod(
            "x",
            json!({"app": "b", "e": ""}),
            [10, 0, 1, 1],
            &[("web", "TCP", 81), ("web", "UDP", 80)],
        ),
        pod(
            "y",
            json!({"app": "a", "e": "f"}),
            [10, 0, 1, 2],
            &[("web", "UDP", 81), ("dns", "TCP", 80)],
        ),
        pod("y", json!({}), [10, 0, 2, 1], &[]),
        pod("z", json!({"app": "c"}), [10, 0, 2, 2], &[("web", "SCTP", 82)]),
    ]
    .into()
}

// The manifests of the cluster.

fn inputs(pods: &[Pod], policies: &[Value]) -> Inputs {
    let mut inputs = Inputs::default();
    let mut add = |kind, json: Value| {
        let document = Document::read(kind, &json).unwrap();
        inputs.upsert(document.to_object(Strictness::Strict).unwrap().value.unwrap());
    };
    for (name, color) in NAMESPACES {
        let labels = if color.is_empty() { json!({}) } else { json!({"color": color}) };
        add(Kind::Namespace, json!({"metadata": {"name": name, "labels": labels}}));
    }
    for (index, pod) in pods.iter().enumerate() {
        let port = |&(name, protocol, port)| json!({"ports": [{"name": name, "protocol": protocol, "containerPort": port}]});
        let containers: Vec<_> = pod.ports.iter().map(port).collect();
        add(
            Kind::Pod,
            json!({
                "metadata": {"name": format!("p{index}"), "namespace": pod.namespace, "labels": pod.labels},
                "spec": {"containers": containers},
                "status": {"podIPs": [{"ip": pod.address.to_string()}]},
            }),
        );
    }
    for policy in policies {
        inputs.upsert(convert(policy, Strictness::Strict).unwrap().value);
    }
    inputs
}

// The oracle: what the API documents, on JSON.

struct Probe<'a> {
    peer: Option<&'a Pod>,
    peer_address: Ipv4Addr,
    destination: Option<&'a Pod>,
    /// `None` is ICMP.
    port: Option<(&'static str, u16)>,
}

fn half_is_allowed(subject: &Pod, direction: &str, probe: &Probe<'_>, policies: &[Value]) -> bool {
    let mut is_isolated = false;
    for policy in policies {
        let spec = &policy["spec"];
        let types = items(spec, "policyTypes");
        let is_in_force = if types.is_empty() {
            direction == "Ingress" || !items(spec, "egress").is_empty()
        } else {
            types.iter().any(|it| it == direction)
        };
        let is_selected = policy["metadata"]["namespace"] == subject.namespace
            && selects(&spec["podSelector"], |key| subject.labels[key].as_str());
        if !is_in_force || !is_selected {
            continue;
        }
        is_isolated = true;
        let (rules, peers) =
            if direction == "Ingress" { ("ingress", "from") } else { ("egress", "to") };
        let own = policy["metadata"]["namespace"].as_str().unwrap();
        for rule in items(spec, rules) {
            let (peers, ports) = (items(rule, peers), items(rule, "ports"));
            let has_peer = peers.is_empty() || peers.iter().any(|it| is_peer(it, own, probe));
            let has_port = ports.is_empty() || ports.iter().any(|it| is_port(it, probe));
            if has_peer && has_port {
                return true;
            }
        }
    }
    !is_isolated
}

fn is_peer(peer: &Value, own: &str, probe: &Probe<'_>) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let except = items(block, "except");
        return is_in(probe.peer_address, &block["cidr"])
            && !except.iter().any(|it| is_in(probe.peer_address, it));
    }
    let Some(pod) = probe.peer else {
        return false;
    };
    let is_namespace = match peer.get("namespaceSelector") {
        None => pod.namespace == own,
        Some(selector) => selects(selector, |key| match key {
            "kubernetes.io/metadata.name" => Some(pod.namespace),
            "color" => NAMESPACES
                .iter()
                .find(|it| it.0 == pod.namespace)
                .map(|it| it.1)
                .filter(|it| !it.is_empty()),
            _ => None,
        }),
    };
    is_namespace
        && peer.get("podSelector").is_none_or(|it| selects(it, |key| pod.labels[key].as_str()))
}

fn is_port(entry: &Value, probe: &Probe<'_>) -> bool {
    let Some((protocol, number)) = probe.port else {
        return false;
    };
    if entry["protocol"].as_str().unwrap_or("TCP") != protocol {
        return false;
    }
    match &entry["port"] {
        Value::Null => true,
        Value::String(name) => probe
            .destination
            .is_some_and(|pod| pod.ports.contains(&(name.as_str(), protocol, number))),
        first => {
            let first = first.as_u64().unwrap();
            (first..=entry["endPort"].as_u64().unwrap_or(first)).contains(&u64::from(number))
        }
    }
}

// Policies.

fn label_selector(key: &'static str, values: &'static [&'static str]) -> BoxedStrategy<Value> {
    let requirement =
        (select(&["In", "NotIn", "Exists", "DoesNotExist"]), subsequence(values, 1..=values.len()))
            .prop_map(move |(operator, values)| match operator {
                "In" | "NotIn" => json!({"key": key, "operator": operator, "values": values}),
                _ => json!({"key": key, "operator": operator}),
            });
    prop_oneof![
        Just(json!({})),
        select(values).prop_map(move |value| json!({"matchLabels": {key: value}})),
        prop::collection::vec(requirement, 1..3).prop_map(|them| json!({"matchExpressions": them})),
    ]
    .boxed()
}

fn pod_selector() -> BoxedStrategy<Value> {
    prop_oneof![3 => label_selector("app", &["a", "b", "none"]), 1 => label_selector("e", &["", "f"])].boxed()
}

fn namespace_selector() -> BoxedStrategy<Value> {
    prop_oneof![
        label_selector("color", &["red", "blue"]),
        label_selector("kubernetes.io/metadata.name", &["x", "z"]),
    ]
    .boxed()
}

fn peer() -> BoxedStrategy<Value> {
    let block = select(&BLOCKS).prop_flat_map(|(cidr, except)| {
        subsequence(except, 0..=except.len())
            .prop_map(move |except| json!({"cidr": cidr, "except": except}))
    });
    prop_oneof![
        block.prop_map(|it| json!({"ipBlock": it})),
        pod_selector().prop_map(|it| json!({"podSelector": it})),
        namespace_selector().prop_map(|it| json!({"namespaceSelector": it})),
        (namespace_selector(), pod_selector()).prop_map(
            |(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})
        ),
    ]
    .boxed()
}

fn port() -> BoxedStrategy<Value> {
    let ports = prop_oneof![
        1 => Just(json!({})),
        2 => (79_u16..=82).prop_map(|port| json!({"port": port})),
        1 => (79_u16..=82, 0_u16..=2).prop_map(|(port, more)| json!({"port": port, "endPort": port + more})),
        3 => select(&["web", "dns", "nobody"]).prop_map(|name| json!({"port": name})),
    ];
    (ports, select(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]))
        .prop_map(|(mut port, protocol)| {
            if let Some(protocol) = protocol {
                port["protocol"] = protocol.into();
            }
            port
        })
        .boxed()
}

fn rules(side: &'static str) -> BoxedStrategy<Vec<Value>> {
    let rule = (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..4));
    let rule = rule.prop_map(move |(peers, ports)| json!({side: peers, "ports": ports}));
    prop::collection::vec(rule, 0..3).boxed()
}

fn policy() -> BoxedStrategy<Value> {
    let types = subsequence(&["Ingress", "Egress"], 0..=2);
    let namespace = NAMESPACES.map(|(name, _)| name);
    (select(namespace.to_vec()), pod_selector(), types, rules("from"), rules("to"))
        .prop_map(|(namespace, subject, types, ingress, egress)| {
            json!({
                "metadata": {"namespace": namespace},
                "spec": {"podSelector": subject, "policyTypes": types, "ingress": ingress, "egress": egress},
            })
        })
        .boxed()
}

fn policies() -> BoxedStrategy<Vec<Value>> {
    let named = |(index, mut policy): (usize, Value)| {
        policy["metadata"]["name"] = format!("p{index}").into();
        policy
    };
    prop::collection::vec(policy(), 1..4)
        .prop_map(move |policies| policies.into_iter().enumerate().map(named).collect())
        .boxed()
}

fn check(policies: &[Value]) -> Result<(), TestCaseError> {
    let pods = pods();
    let inputs = inputs(&pods, policies);
    let capabilities = Capabilities::all();
    let judge = Judge::new(&inputs, &capabilities);
    let external = EXTERNAL.map(|it| it.parse::<Ipv4Addr>().unwrap());
    let addresses: Vec<_> = pods.iter().map(|it| it.address).chain(external).collect();
    let find = |address| pods.iter().find(|it| it.address == address);
    let ports: Vec<_> = TRANSPORTS
        .iter()
        .flat_map(|it| (78..=85).map(move |port| Some((it, port))))
        .chain([None])
        .collect();
    for &source in &addresses {
        for &destination in addresses.iter().filter(|&&it| it != source) {
            for port in &ports {
                let flow = match port {
                    Some((transport, port)) => Flow::to_port(
                        IpAddr::V4(source),
                        IpAddr::V4(destination),
                        transport.0,
                        *port,
                    ),
                    None => Flow::ping(IpAddr::V4(source), IpAddr::V4(destination)),
                };
                let probe = |peer| Probe {
                    peer: find(peer),
                    peer_address: peer,
                    destination: find(destination),
                    port: port.map(|(transport, port)| (transport.1, port)),
                };
                let half = |subject, direction, peer| {
                    find(subject)
                        .is_none_or(|it| half_is_allowed(it, direction, &probe(peer), policies))
                };
                let is_allowed =
                    half(source, "Egress", destination) && half(destination, "Ingress", source);
                let want = if is_allowed { Verdict::Allow } else { Verdict::Deny };
                let judgement = judge.evaluate(&flow).enforced;
                prop_assert_eq!(judgement.verdict(), want, "{}\n{}", flow, judgement);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn converted_policies_mean_what_the_api_says(policies in policies()) {
        check(&policies)?;
    }
}

/// Inputs may come in any order: a namespace that is not known yet has no label, but does not lack one either.
#[test]
fn a_pod_that_comes_before_its_namespace_matches_no_selector_by_what_it_lacks() {
    let (pods, allowed) = (pods(), |namespaces: &Inputs| {
        let capabilities = Capabilities::all();
        let [from, to] = ["10.0.1.2", "10.0.0.1"].map(|it| it.parse().unwrap());
        let flow = Flow::to_port(from, to, Transport::Tcp, 80);
        Judge::new(namespaces, &capabilities).evaluate(&flow).enforced.verdict()
    });
    for requirement in [
        json!({"key": "color", "operator": "NotIn", "values": ["red"]}),
        json!({"key": "secret", "operator": "DoesNotExist"}),
    ] {
        let policy = json!({
            "metadata": {"name": "p", "namespace": "x"},
            "spec": {"ingress": [
                {"from": [{"namespaceSelector": {"matchExpressions": [requirement]}}]},
            ]},
        });
        let mut inputs = inputs(&pods, &[policy]);
        assert_eq!(allowed(&inputs), Verdict::Allow, "{requirement}");
        inputs.namespaces.remove("y");
        assert_eq!(allowed(&inputs), Verdict::Deny, "{requirement}");
    }
}

/// What is read never panics, whatever its shape.
#[test]
fn any_json_is_read() {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(&["", "a", "Ingress", "10.0.0.0/8", "::/0", "TCP", "In"]).prop_map(Value::from),
    ];
    let names = [
        "metadata",
        "name",
        "namespace",
        "labels",
        "spec",
        "podSelector",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "policyTypes",
        "ingress",
        "egress",
        "from",
        "to",
        "ports",
        "port",
        "endPort",
        "ipBlock",
        "cidr",
        "except",
        "status",
        "podIPs",
        "ip",
        "addresses",
        "containers",
        "creationTimestamp",
        "tier",
        "priority",
        "subject",
        "action",
        "namespaces",
        "pods",
        "networks",
        "nodes",
        "domainNames",
        "sameLabels",
        "protocols",
        "tcp",
        "destinationPort",
        "range",
        "start",
        "portNumber",
        "other",
    ];
    let json = leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(select(names.to_vec()), inner, 0..8).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (String::from(key), value))
                .collect::<Value>()),
        ]
    });
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(json in json)| {
        for &kind in Kind::ALL {
            if let Ok(document) = Document::read(kind, &json) {
                let strict = document.to_object(Strictness::Strict);
                let degraded = document.to_object(Strictness::Degraded);
                prop_assert!(strict.is_err() || strict == degraded, "{}", json);
                prop_assert!(strict.err().is_none_or(|it| !it.diagnostics.is_empty()));
            }
        }
    });
}
