//! The clusters that benches of the engine are about, made on the spot.

use std::net::{IpAddr, Ipv4Addr};

use netpol_core::model::{
    Action, Endpoint, EndpointId, Object, Peers, Policy, PolicyKey, PolicyKind, Rule, RuleMatch,
};
use netpol_core::{Labels, Selector, Verdict};

pub(crate) const NODE: &str = "node-0";

/// Label keys as clusters have them, of which each pod of [`tagged_pod`] has one.
const MARKERS: [&str; 31] = [
    "foo-bar",
    "foo-bar",
    "biff-bop",
    "example.com/fizz",
    "example.com/boff",
    "example.com/bazzle",
    "example.com/razzle",
    "example.com/doop",
    "example.com/some-label",
    "example.com/bored",
    "marker",
    "x-foo-bar",
    "x-biff-bop",
    "x.example.com/fizz",
    "x.example.com/boff",
    "x.example.com/bazzle",
    "x.example.com/razzle",
    "x.example.com/doop",
    "x.example.com/some-label",
    "x.example.com/bored",
    "y-marker",
    "y-foo-bar",
    "y-biff-bop",
    "y.example.com/fizz",
    "y.example.com/boff",
    "y.example.com/bazzle",
    "y.example.com/razzle",
    "y.example.com/doop",
    "y.example.com/some-label",
    "y.example.com/bored",
    "y-marker",
];

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))
}

/// A UID as API servers make them.
fn uid(number: u32) -> String {
    format!("{number:08x}-7c1e-4a5b-9d3f-{number:012x}")
}

/// Returns pod `number` of the load that Felix publishes: in one of 100 namespaces, with labels that take 10, 11, 20, 30
/// and 40 values in turn, and one of 29 marker keys. So 40 920 sets of labels, and 204 600 that selectors can tell apart.
/// The first `local` ones are on the node.
pub(crate) fn tagged_pod(number: u32, local: u32) -> Endpoint {
    let id = EndpointId::workload(format!("namespace-{}", number % 100), format!("wep-{number}"));
    let mut pod = Endpoint::pod("", "");
    pod.id = id.with_uid(uid(number));
    pod.addresses = vec![address(number)];
    let turns = [10, 11, 20, 30, 40]
        .map(|values| (format!("one-in-{values}"), format!("value-{}", number % values)));
    pod.labels = turns.into_iter().collect();
    pod.labels.insert(MARKERS[number as usize % MARKERS.len()], "true");
    on_some_node(pod, number, local)
}

fn on_some_node(pod: Endpoint, number: u32, local: u32) -> Endpoint {
    if number < local {
        pod.on_node(NODE).attached_to(format!("cali{number:08x}"))
    } else {
        pod.on_node(format!("remote-{}", number % 2_500))
    }
}

/// Returns policy `number` of the same load: for all pods with one marker, with 5 rules that allow from those with a
/// marker each. So 29 selectors, and every policy applies to pods of the node.
pub(crate) fn tag_policy(number: u32) -> Policy {
    let marked = |turn: u32| Selector::has(MARKERS[turn as usize % MARKERS.len()]).unwrap();
    let key = PolicyKey {
        kind: PolicyKind::GlobalNetworkPolicy,
        namespace: None,
        name: format!("tag-pol-{number}"),
    };
    let mut policy = Policy::new(key, marked(number));
    let rules = (0..5).map(|index| allow_from(index, marked(number + index)));
    policy.ingress = Some(rules.collect());
    policy
}

pub(crate) fn allow_from(index: u32, peers: Selector) -> Rule {
    let mut matches = RuleMatch::default();
    matches.source.peers = Some(Peers::Endpoints(peers));
    Rule::new(index as usize, Action::Allow, matches)
}

/// Returns a namespace of the same load, with the label that every namespace has.
pub(crate) fn namespace(number: u32) -> Object {
    let name = format!("namespace-{number}");
    let labels = [("kubernetes.io/metadata.name", name.clone())].into_iter().collect();
    Object::Namespace { name, labels }
}

/// Returns the objects of that load: policies, namespaces, then pods, as a caller might list them.
pub(crate) fn tagged(pods: u32, local: u32, policies: u32) -> impl Iterator<Item = Object> {
    let policies = (0..policies).map(|it| tag_policy(it).into());
    let namespaces = (0..100).map(namespace);
    policies.chain(namespaces).chain((0..pods).map(move |it| tagged_pod(it, local).into()))
}

/// Returns the objects of isolated tenants: each a namespace with the labels that it has in Kubernetes and one of 3 plans,
/// a policy that allows its pods to be reached from its pods only, and one pod with the labels of a deployment. One pod in
/// `pods / local` is on the node.
pub(crate) fn tenants(tenants: u32, local: u32) -> impl Iterator<Item = Object> {
    let every = tenants / local;
    (0..tenants).flat_map(move |number| {
        let name = format!("tenant-{number}");
        let labels: Labels = [
            ("kubernetes.io/metadata.name", name.clone()),
            ("plan", format!("plan-{}", number % 3)),
        ]
        .into_iter()
        .collect();
        let mut pod = Endpoint::pod(name.as_str(), format!("web-5d4f8c7b9-{number:05x}"));
        pod.id = pod.id.with_uid(uid(number));
        pod.addresses = vec![address(number)];
        pod.labels = [("app", "web"), ("pod-template-hash", "5d4f8c7b9")].into_iter().collect();
        let place = if number % every == 0 { number / every } else { local + number };
        let pod = on_some_node(pod, place, local);
        let inside = Selector::equal("projectcalico.org/namespace", name.as_str()).unwrap();
        let mut policy =
            Policy::new(PolicyKey::kubernetes(name.as_str(), "isolated"), inside.clone());
        policy.ingress = Some(vec![allow_from(0, inside)]);
        [Object::Namespace { name, labels }, policy.into(), pod.into()]
    })
}

/// A pod on another node that denies by itself, to come and go.
pub(crate) fn passing_pod(number: u32) -> Endpoint {
    let mut pod = tagged_pod(number, 0);
    pod.default_verdict = Verdict::Allow;
    pod
}
