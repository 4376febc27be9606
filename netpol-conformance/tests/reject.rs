//! What the senders of denied packets hear, on dataplanes of netfilter.
//!
//! Needs root, as the other tests on topologies do.

#![cfg(all(feature = "iptables", feature = "nft"))]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use netpol_conformance::topology::{Host, Namespace};
use netpol_core::api::Strictness;
use netpol_core::api::calico::GlobalNetworkPolicy;
use netpol_core::model::{Attachment, Endpoint};
use netpol_core::net::Family;
use netpol_core::program::Denial;
use netpol_core::{Change, Engine, NodeConfig};
use nix::errno::Errno;
use serde_json::{Value, json};

#[expect(dead_code, clippy::expect_used, reason = "test code, of which other tests use the rest")]
#[path = "packets/world.rs"]
mod world;

use self::world::{
    CLIENT, Kind, SERVER, VICTIM, World, node_address, outside, pod_address, pods, udp,
};

/// A port that policy leaves open, and one that it does not.
const OPEN: u16 = 7001;
const CLOSED: u16 = 7002;

/// What somebody hears who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Heard {
    Connection,
    Reset,
    Prohibited,
    Nothing,
}

impl Heard {
    /// Returns how long to wait for it: for an answer as long as a busy machine may take.
    fn patience(self) -> Duration {
        if self == Self::Nothing { Duration::from_millis(300) } else { Duration::from_secs(10) }
    }
}

fn policy(name: &str, spec: Value) -> GlobalNetworkPolicy {
    serde_json::from_value(json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// Only the open port of the server can be reached, and the victim reaches only the open port of anybody. The node lets
/// nobody in from outside but at its open port, and sends nothing there.
fn policies() -> [GlobalNetworkPolicy; 3] {
    let open = || json!([{"action": "Allow", "protocol": "TCP", "destination": {"ports": [OPEN]}}]);
    let denies = json!([
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [OPEN]}},
        {"action": "Deny"},
    ]);
    [
        policy("server", json!({"selector": "name == 'server'", "ingress": open()})),
        policy(
            "victim",
            json!({"selector": "name == 'victim'", "types": ["Egress"], "egress": denies}),
        ),
        policy(
            "host",
            json!({"selector": "host == 'one'", "types": ["Ingress", "Egress"], "ingress": open()}),
        ),
    ]
}

/// Enforces the policies on a node.
fn enforce(world: &World, kind: Kind, denial: Denial) {
    let mut dataplane = world.open(kind);
    let mut config = NodeConfig::new("one");
    config.denial = denial;
    let mut engine = Engine::new(config, dataplane.capabilities());
    assert_eq!(engine.denial(), denial);
    for policy in policies() {
        engine.upsert(policy.to_policy(Strictness::Strict).unwrap().value).unwrap();
    }
    for ((name, number), interface) in pods().into_iter().zip(world.interfaces()) {
        let mut pod = Endpoint::pod("x", name).on_node("one").attached_to(interface);
        pod.addresses = Family::BOTH.map(|family| pod_address(number, family)).to_vec();
        pod.labels = [("name", name)].into_iter().collect();
        engine.upsert(pod).unwrap();
    }
    let mut host = Endpoint::host("h", "one", Attachment::Interface("eth0".to_owned()));
    host.labels = [("host", "one")].into_iter().collect();
    engine.upsert(host).unwrap();
    engine.inputs_complete();
    while let Some(update) = engine.poll_update() {
        let is_program = matches!(update.change, Change::Full(_));
        let outcome = dataplane.apply(update);
        if let Err(error) = &outcome {
            panic!("{kind:?}: {error}: {:?}", std::error::Error::source(error));
        }
        engine.handle_applied(outcome);
        if is_program {
            break;
        }
    }
    assert!(engine.isolated().is_empty(), "{:?}", engine.isolated());
}

#[track_caller]
fn check_connection(from: &Namespace, to: SocketAddr, want: Heard, context: &str) {
    let outcome = from.run(|| TcpStream::connect_timeout(&to, want.patience())).unwrap();
    let got = outcome.map_or_else(|error| heard(&error), |_| Heard::Connection);
    assert_eq!(got, want, "{context}: TCP");
}

fn heard(error: &std::io::Error) -> Heard {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Heard::Reset,
        // ICMP code 13 and ICMPv6 code 1 as errors of sockets: `icmp_err_convert` and `icmpv6_err_convert` in Linux.
        Some(Errno::EHOSTUNREACH | Errno::EACCES) => Heard::Prohibited,
        _ if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Heard::Nothing,
        _ => panic!("{error}"),
    }
}

/// Nobody answers a datagram but who rejects it.
#[track_caller]
fn check_datagram(from: (&Namespace, IpAddr), to: SocketAddr, want: Heard, context: &str) {
    let socket = udp(from.0, from.1, 0);
    socket.set_read_timeout(Some(want.patience())).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"hello").unwrap();
    assert_eq!(heard(&socket.recv(&mut [0; 16]).unwrap_err()), want, "{context}: UDP");
}

fn check(world: &World, kind: Kind, denial: Denial, family: Family) {
    let listeners: Vec<_> =
        [(world.pod(SERVER), pod_address(SERVER, family)), (world.node(), node_address(family))]
            .into_iter()
            .flat_map(|(namespace, address)| {
                let listen =
                    |port| namespace.run(|| TcpListener::bind((address, port))).unwrap().unwrap();
                [OPEN, CLOSED].map(listen)
            })
            .collect();
    let external = world.topology.namespace(&Host::External(outside(family))).unwrap();
    let pod = |number| (world.pod(number), pod_address(number, family));
    let outside = (external, outside(family));
    let [server, node] = [pod_address(SERVER, family), node_address(family)];
    for (what, from, to) in [
        ("ingress of a pod, from another pod", pod(CLIENT), server),
        ("ingress of a pod, from outside", outside, server),
        ("egress of a pod, to another pod", pod(VICTIM), server),
        ("egress of a pod, to its node", pod(VICTIM), node),
        ("ingress of a host, from outside", outside, node),
    ] {
        let context = format!("{kind:?} {denial:?} {family:?}: {what}");
        let [tcp, other] = match denial {
            Denial::Drop => [Heard::Nothing; 2],
            Denial::Reject => [Heard::Reset, Heard::Prohibited],
        };
        check_connection(from.0, (to, OPEN).into(), Heard::Connection, &context);
        check_connection(from.0, (to, CLOSED).into(), tcp, &context);
        check_datagram(from, (to, CLOSED).into(), other, &context);
    }
    drop(listeners);
}

#[test]
fn a_denied_client_hears_at_once_or_nothing() {
    for kind in Kind::ALL {
        let world = World::new();
        for denial in [Denial::Reject, Denial::Drop] {
            enforce(&world, kind, denial);
            Family::BOTH.into_iter().for_each(|family| check(&world, kind, denial, family));
        }
    }
}
