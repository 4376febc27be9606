//! Small clusters with host endpoints, and the ways of flows through their node. Shares nothing with what it tests.

use std::net::IpAddr;

use netpol_core::model::{
    Attachment, Endpoint, Enforcement, FailsafePort, HostSettings, HostTraffic, Interface,
    Lifecycle, Node, Object, Policy, PolicyKind, Tunnel, WorkloadToHost,
};
use netpol_core::net::{Family, Transport};
use netpol_core::program::{Passage, Program};
use netpol_core::{Capabilities, Change, Engine, Flow, NodeConfig, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{NODE, crowded, labels, policy};

/// The node whose program is compiled.
pub(crate) fn node() -> Node {
    node_with(NODE, "10.0.0.6", "192.0.2.7")
}

/// A node with two interfaces; the first of its addresses is the one of the second.
pub(crate) fn node_with(name: &str, first: &str, second: &str) -> Node {
    let [first, second] = [first, second].map(|it| it.parse::<IpAddr>().unwrap());
    let interface = |name: &str, address| Interface { name: name.into(), addresses: vec![address] };
    Node {
        name: name.into(),
        labels: [("zone", "a")].into_iter().collect(),
        addresses: vec![first, second],
        interfaces: vec![interface("eth0", second), interface("eth1", first)],
    }
}

pub(crate) fn host() -> impl Strategy<Value = Endpoint> {
    let attachment = prop_oneof![
        Just(Attachment::OtherInterfaces),
        Just(Attachment::Address),
        select(vec!["eth0", "eth1"]).prop_map(|name| Attachment::Interface(name.into())),
    ];
    let addresses = vec(select(vec!["10.0.0.6", "192.0.2.7", "192.0.2.9"]), 0..2);
    let default = select(vec![Verdict::Allow, Verdict::Deny]);
    (select(vec!["h1", "h2", "h3"]), attachment, addresses, labels(), default).prop_map(
        |(name, attachment, addresses, labels, default)| {
            let mut host = Endpoint::host(name, NODE, attachment);
            host.addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
            host.labels = labels;
            host.default_verdict = default;
            host
        },
    )
}

pub(crate) fn objects() -> impl Strategy<Value = Vec<Object>> {
    let traffic = select(vec![
        HostTraffic::Local,
        HostTraffic::LocalAndForwarded,
        HostTraffic::LocalAndForwarded,
        HostTraffic::BeforeDestinationNat,
        HostTraffic::Untracked,
    ]);
    let policies = vec((policy(), traffic), 1..8).prop_map(|policies| {
        let of_hosts = |(index, (mut policy, traffic)): (usize, (Policy, HostTraffic))| {
            policy.key.kind = PolicyKind::GlobalNetworkPolicy;
            policy.key.namespace = None;
            policy.key.name = format!("g{index}");
            policy.host_traffic = traffic;
            policy.enforcement = Enforcement::Enforced;
            Object::Policy(policy)
        };
        policies.into_iter().enumerate().map(of_hosts).collect::<Vec<_>>()
    });
    (crowded(), vec(host(), 1..4), policies).prop_map(|(mut objects, hosts, policies)| {
        objects.retain(|it| !matches!(it, Object::Node(_)));
        for object in &mut objects {
            if let Object::Endpoint(it) = object {
                it.attachment = Attachment::Interface(format!("v{}{}", it.id.name, it.id.uid));
                // One endpoint of a name at a time, as their interfaces have one.
                it.lifecycle = Lifecycle::Running;
            }
        }
        objects.push(Object::Node(node()));
        objects.extend(hosts.into_iter().map(Object::Endpoint));
        objects.extend(policies);
        objects
    })
}

pub(crate) fn settings() -> impl Strategy<Value = HostSettings> {
    let workload_to_host =
        select(vec![WorkloadToHost::Deny, WorkloadToHost::Allow, WorkloadToHost::Judge]);
    let encapsulation = vec(
        select(vec![
            Tunnel::IpInIp,
            Tunnel::Udp(80),
            Tunnel::Udp(4789),
            Tunnel::Udp(Flow::EPHEMERAL),
        ]),
        0..4,
    );
    (workload_to_host, encapsulation, any::<bool>()).prop_map(
        |(workload_to_host, denied, failsafe)| {
            let mut settings =
                if failsafe { HostSettings::default() } else { HostSettings::without_failsafe() };
            settings.workload_to_host = workload_to_host;
            settings.denied_encapsulation = denied.into_iter().collect();
            if failsafe {
                let port = |port| FailsafePort { transport: Transport::Tcp, port, net: None };
                settings.failsafe_inbound.insert(port(80));
                settings.failsafe_outbound.insert(port(8080));
            }
            settings
        },
    )
}

pub(crate) fn compiled_with(objects: &[Object], settings: &HostSettings) -> Program {
    compiled_by(objects, settings, NodeConfig::new(NODE))
}

pub(crate) fn compiled_by(
    objects: &[Object],
    settings: &HostSettings,
    config: NodeConfig,
) -> Program {
    let mut engine = Engine::new(config, &Capabilities::all());
    engine.force_settings(settings.clone()).unwrap();
    objects.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
    engine.inputs_complete();
    match engine.poll_update().unwrap().change {
        Change::Full(program) => (*program).clone(),
        other => panic!("expected a full program, got {other:?}"),
    }
}

/// The way of a flow through the node: which interfaces it passes, as routing would have it. What does not leave its host
/// passes none.
pub(crate) fn passage<'a>(
    program: &'a Program,
    node: &'a Node,
    flow: &Flow,
) -> Option<Passage<'a>> {
    let workload = |address: IpAddr| {
        let endpoint = program.endpoints.iter().find(|it| it.addresses.contains(&address))?;
        match &endpoint.attachment {
            Attachment::Interface(name) => Some(name.as_str()),
            _ => None,
        }
    };
    let with = |address: IpAddr| {
        node.interfaces.iter().find(|it| it.addresses.contains(&address)).map(|it| it.name.as_str())
    };
    let is_own = |address: IpAddr| node.addresses.contains(&address);
    let uplink = || match flow.family() {
        Family::V4 => "eth1",
        Family::V6 => "another",
    };
    let (source, destination) = (flow.source, flow.destination);
    let is_local = |address: IpAddr| workload(address).is_some() || is_own(address);
    let input = match workload(source) {
        Some(name) => Some(name),
        None if is_own(source) => None,
        None if is_own(destination) => with(destination),
        None => Some(uplink()),
    };
    let output = match workload(destination) {
        Some(name) => Some(name),
        None if is_own(destination) => None,
        None if is_own(source) => with(source),
        None => Some(uplink()),
    };
    let passes = is_local(source) || is_local(destination);
    let stays = workload(source).is_some() && workload(source) == workload(destination);
    let loops = stays || is_own(source) && is_own(destination);
    (passes && !loops).then_some(Passage { input, output, flow: *flow, before_nat: *flow })
}
