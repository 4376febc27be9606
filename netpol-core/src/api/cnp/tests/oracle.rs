//! Converted policies mean what the API says: an oracle that reads the manifests themselves, and shares no code with the
//! conversion or the judge, gives the same verdicts.

use alloc::format;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::super::oracle::{is_in, items, selects};
use super::super::super::sample::{cluster, np};
use super::convert;
use crate::api::Strictness;
use crate::dataplane::Capabilities;
use crate::eval::Judge;
use crate::flow::Flow;
use crate::model::{DomainAddress, Timestamp};
use crate::net::Transport;
use crate::verdict::Verdict;

/// A pod of the sample, as the oracle knows it.
struct Pod {
    namespace: &'static str,
    team: &'static str,
    app: Option<&'static str>,
    address: &'static str,
    /// Name, transport, number.
    ports: &'static [(&'static str, &'static str, u16)],
}

const PODS: [Pod; 4] = [
    Pod {
        namespace: "x",
        team: "red",
        app: Some("a"),
        address: "10.0.0.1",
        ports: &[("web", "tcp", 80), ("dns", "udp", 53)],
    },
    Pod {
        namespace: "x",
        team: "red",
        app: Some("b"),
        address: "10.0.0.2",
        ports: &[("web", "udp", 81)],
    },
    Pod {
        namespace: "y",
        team: "blue",
        app: Some("a"),
        address: "10.0.1.1",
        ports: &[("web", "tcp", 81)],
    },
    Pod { namespace: "y", team: "blue", app: None, address: "10.0.1.2", ports: &[] },
];

/// What the names that the rules know stand for.
const NAMES: [(&str, &str); 3] = [
    ("www.example.com", "192.0.2.1"),
    ("example.com", "192.0.2.7"),
    ("pod.example.com", "10.0.1.1"),
];

/// Addresses of the node, of no pod, and of nobody.
const OTHERS: [&str; 4] = ["172.18.0.2", "10.0.0.77", "192.0.2.1", "192.0.2.7"];

#[derive(Clone, Copy)]
struct Probe<'a> {
    subject: &'a Pod,
    direction: &'static str,
    peer: Ipv4Addr,
    destination: Option<&'a Pod>,
    /// `None` is ICMP.
    port: Option<(&'static str, u16)>,
}

fn find(address: Ipv4Addr) -> Option<&'static Pod> {
    PODS.iter().find(|it| it.address.parse() == Ok(address))
}

fn is_in_namespace(pod: &Pod, selector: &Value) -> bool {
    selects(selector, |key| match key {
        "kubernetes.io/metadata.name" => Some(pod.namespace),
        "team" => Some(pod.team),
        _ => None,
    })
}

fn is_pod(pod: &Pod, both: &Value) -> bool {
    both.get("namespaceSelector").is_none_or(|it| is_in_namespace(pod, it))
        && selects(&both["podSelector"], |key| pod.app.filter(|_| key == "app"))
}

fn is_either(pod: &Pod, either: &Value) -> bool {
    either.get("namespaces").is_some_and(|it| is_in_namespace(pod, it))
        || either.get("pods").is_some_and(|it| is_pod(pod, it))
}

fn is_peer(peer: &Value, probe: Probe<'_>) -> bool {
    let is_name = |pattern: &Value| {
        let pattern = pattern.as_str().unwrap();
        NAMES.iter().any(|(name, address)| {
            address.parse() == Ok(probe.peer)
                && match pattern.strip_prefix('*') {
                    Some(end) => name.ends_with(end),
                    None => *name == pattern,
                }
        })
    };
    let is_node = probe.peer == Ipv4Addr::new(172, 18, 0, 2);
    find(probe.peer).is_some_and(|pod| is_either(pod, peer))
        || items(peer, "networks").iter().any(|it| is_in(probe.peer, it))
        || items(peer, "domainNames").iter().any(is_name)
        || peer
            .get("nodes")
            .is_some_and(|it| is_node && selects(it, |key| Some("linux").filter(|_| key == "os")))
}

fn is_protocol(entry: &Value, probe: Probe<'_>) -> bool {
    let Some((transport, number)) = probe.port else {
        return false;
    };
    if let Some(name) = entry["destinationNamedPort"].as_str() {
        return probe.destination.is_some_and(|it| it.ports.contains(&(name, transport, number)));
    }
    let port = &entry[transport]["destinationPort"];
    let range = &port["range"];
    let (first, last) = (range["start"].as_u64(), range["end"].as_u64());
    let is_in_range =
        first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&number.into()));
    port["number"] == number || is_in_range
}

/// Returns what a tier says; `None` if it passes or nothing matches.
fn of_tier(tier: &str, policies: &[Value], probe: Probe<'_>) -> Option<bool> {
    let mut policies: Vec<_> = policies.iter().filter(|it| it["spec"]["tier"] == tier).collect();
    policies.sort_by_key(|it| it["spec"]["priority"].as_u64());
    let (rules, side) =
        if probe.direction == "ingress" { ("ingress", "from") } else { ("egress", "to") };
    for policy in policies {
        if !is_either(probe.subject, &policy["spec"]["subject"]) {
            continue;
        }
        for rule in items(&policy["spec"], rules) {
            let protocols = items(rule, "protocols");
            let matches = items(rule, side).iter().any(|it| is_peer(it, probe))
                && (protocols.is_empty() || protocols.iter().any(|it| is_protocol(it, probe)));
            match rule["action"].as_str() {
                Some("Accept") if matches => return Some(true),
                Some("Deny") if matches => return Some(false),
                Some("Pass") if matches => return None,
                _ => {}
            }
        }
    }
    None
}

/// The NetworkPolicy, if there is one, isolates ingress of namespace `x` but for its own pods.
fn is_allowed(policies: &[Value], isolated: bool, probe: Probe<'_>) -> bool {
    let of_np = || {
        let applies = isolated && probe.direction == "ingress" && probe.subject.namespace == "x";
        applies.then(|| find(probe.peer).is_some_and(|it| it.namespace == "x"))
    };
    of_tier("Admin", policies, probe)
        .or_else(of_np)
        .or_else(|| of_tier("Baseline", policies, probe))
        .unwrap_or(true)
}

// Policies.

fn selector(key: &'static str, values: &'static [&'static str]) -> BoxedStrategy<Value> {
    let requirement = (select(&["In", "NotIn", "Exists", "DoesNotExist"]), select(values))
        .prop_map(move |(operator, value)| match operator {
            "In" | "NotIn" => json!({"key": key, "operator": operator, "values": [value]}),
            _ => json!({"key": key, "operator": operator}),
        });
    prop_oneof![
        Just(json!({})),
        select(values).prop_map(move |value| json!({"matchLabels": {key: value}})),
        requirement.prop_map(|it| json!({"matchExpressions": [it]})),
    ]
    .boxed()
}

fn namespaces() -> BoxedStrategy<Value> {
    prop_oneof![
        selector("team", &["red", "blue"]),
        selector("kubernetes.io/metadata.name", &["x", "y"])
    ]
    .boxed()
}

fn pods() -> BoxedStrategy<Value> {
    let pods = || selector("app", &["a", "b"]);
    prop_oneof![
        namespaces().prop_map(|it| json!({"namespaces": it})),
        pods().prop_map(|it| json!({"pods": {"podSelector": it}})),
        (namespaces(), pods()).prop_map(|(namespaces, pods)| {
            json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}})
        }),
    ]
    .boxed()
}

fn destinations(action: &str) -> BoxedStrategy<Value> {
    let blocks = ["10.0.1.9/24", "0.0.0.0/0", "192.0.2.6/31", "172.18.0.2/32", "10.0.0.0/9"];
    let names = ["example.com", "*.example.com", "www.example.com", "*.com.example"];
    let networks = subsequence(blocks.to_vec(), 1..3).prop_map(|it| json!({"networks": it}));
    let nodes = selector("os", &["linux", "windows"]).prop_map(|it| json!({"nodes": it}));
    let names = subsequence(names.to_vec(), 1..3).prop_map(|it| json!({"domainNames": it}));
    if action == "Accept" {
        prop_oneof![2 => pods(), 1 => networks, 1 => nodes, 1 => names].boxed()
    } else {
        prop_oneof![2 => pods(), 1 => networks, 1 => nodes].boxed()
    }
}

fn protocol() -> BoxedStrategy<Value> {
    let port = prop_oneof![
        (79_u16..=82).prop_map(|it| json!({"number": it})),
        (52_u16..=80, 1_u16..=2)
            .prop_map(|(start, more)| json!({"range": {"start": start, "end": start + more}})),
    ];
    prop_oneof![
        3 => (select(&["tcp", "udp", "sctp"]), port)
            .prop_map(|(transport, port)| json!({transport: {"destinationPort": port}})),
        2 => select(&["web", "dns", "nobody"]).prop_map(|it| json!({"destinationNamedPort": it})),
    ]
    .boxed()
}

fn rule(side: &'static str) -> BoxedStrategy<Value> {
    select(&["Accept", "Deny", "Pass"])
        .prop_flat_map(move |action| {
            let peer = if side == "to" { destinations(action) } else { pods() };
            let peers = prop::collection::vec(peer, 1..3);
            let protocols = prop_oneof![Just(Vec::new()), prop::collection::vec(protocol(), 1..3)];
            (peers, protocols).prop_map(move |(peers, mut protocols)| {
                if peers.iter().any(|it| it.get("namespaces").or_else(|| it.get("pods")).is_none())
                {
                    protocols.retain(|it| it.get("destinationNamedPort").is_none());
                }
                let mut rule = json!({"action": action, side: peers});
                if !protocols.is_empty() {
                    rule["protocols"] = protocols.into();
                }
                rule
            })
        })
        .boxed()
}

fn policies() -> BoxedStrategy<Vec<Value>> {
    let rules = |side| prop::collection::vec(rule(side), 0..4);
    let policy = (select(&["Admin", "Baseline"]), pods(), rules("from"), rules("to"));
    // Each has a priority of its own, which does not sort like its name.
    prop::collection::vec(policy, 1..5)
        .prop_map(|policies| {
            let named = policies.into_iter().zip([100, 20, 3, 1000]).enumerate();
            named
                .map(|(index, ((tier, subject, ingress, egress), priority))| {
                    json!({
                        "metadata": {"name": format!("p{index}")},
                        "spec": {
                            "tier": tier, "priority": priority, "subject": subject,
                            "ingress": ingress, "egress": egress,
                        },
                    })
                })
                .collect()
        })
        .boxed()
}

fn check(policies: &[Value], isolated: bool) -> Result<(), TestCaseError> {
    let mut inputs = cluster();
    for policy in policies {
        inputs.upsert(convert(policy, Strictness::Strict).unwrap().value);
    }
    if isolated {
        inputs.upsert(np(json!({"ingress": [{"from": [{"podSelector": {}}]}]})));
    }
    for (name, address) in NAMES {
        inputs.upsert(DomainAddress {
            name: name.parse().unwrap(),
            address: address.parse().unwrap(),
            expires: Timestamp(1),
        });
    }
    let capabilities = Capabilities::all();
    let judge = Judge::new(&inputs, &capabilities);
    let addresses: Vec<Ipv4Addr> =
        PODS.iter().map(|it| it.address).chain(OTHERS).map(|it| it.parse().unwrap()).collect();
    let transports = [(Transport::Tcp, "tcp"), (Transport::Udp, "udp"), (Transport::Sctp, "sctp")];
    let ports: Vec<_> = transports
        .into_iter()
        .flat_map(|it| [51, 52, 53, 54, 79, 80, 81, 82, 83].map(|port| Some((it, port))))
        .chain([None])
        .collect();
    for &source in &addresses {
        for &destination in addresses.iter().filter(|it| **it != source) {
            for port in &ports {
                let (from, to) = (IpAddr::V4(source), IpAddr::V4(destination));
                let flow = match port {
                    Some((transport, port)) => Flow::to_port(from, to, transport.0, *port),
                    None => Flow::ping(from, to),
                };
                let half = |address, direction, peer| {
                    find(address).is_none_or(|subject| {
                        let port = port.map(|(transport, port)| (transport.1, port));
                        let destination = find(destination);
                        is_allowed(
                            policies,
                            isolated,
                            Probe { subject, direction, peer, destination, port },
                        )
                    })
                };
                let allowed =
                    half(source, "egress", destination) && half(destination, "ingress", source);
                let want = if allowed { Verdict::Allow } else { Verdict::Deny };
                let judgement = judge.evaluate(&flow).enforced;
                prop_assert_eq!(judgement.verdict(), want, "{}\n{}", flow, judgement);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn converted_policies_mean_what_the_api_says(policies in policies(), isolated in any::<bool>()) {
        check(&policies, isolated)?;
    }
}
