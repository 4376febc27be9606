//! Services as peers: programs follow the slices.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_core::model::{
    Action, Endpoint, EndpointSlice, L4Match, NamedPort, Object, ObjectKey, Peers, Policy,
    PolicyKey, PortConstraint, PortMatch, Rule, RuleMatch, ServiceName,
};
use netpol_core::net::Transport;
use netpol_core::{
    Applied, Capabilities, Change, Delta, Engine, Flow, NodeConfig, Selector, Verdict,
};

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn slice(name: &str, service: &str, hosts: &[u8], ports: &[u16]) -> EndpointSlice {
    let port = |&port: &u16| NamedPort { name: String::new(), transport: Transport::Tcp, port };
    EndpointSlice {
        name: name.into(),
        service: ServiceName::new("x", service),
        addresses: hosts.iter().copied().map(backend).collect(),
        ports: ports.iter().map(port).collect(),
    }
}

fn backend(host: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, host).into()
}

/// Returns an engine whose only pod may talk to the ports of Service `s`, and be talked to by the addresses of `t`.
fn engine() -> Engine {
    let mut engine = Engine::new(NodeConfig::new("node-a"), &Capabilities::all());
    let mut pod = Endpoint::pod("x", "p").on_node("node-a");
    pod.addresses = vec![POD];
    let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
    let mut from = RuleMatch::default();
    from.source.peers = Some(Peers::BackendsOf(ServiceName::new("x", "t")));
    policy.ingress = Some(vec![Rule::new(0, Action::Allow, from)]);
    let list = PortMatch { backends_of: Some(ServiceName::new("x", "s")), ..PortMatch::default() };
    let destination = PortConstraint { any_of: Some(list), none_of: None };
    let (transport, source) = (Transport::Tcp, PortConstraint::default());
    let l4 = L4Match::Ports { transport, source, destination };
    let to = RuleMatch { l4, ..RuleMatch::default() };
    policy.egress = Some(vec![Rule::new(0, Action::Allow, to)]);
    engine.upsert(pod).unwrap();
    engine.upsert(policy).unwrap();
    engine
}

fn delta(engine: &mut Engine) -> Arc<Delta> {
    let update = engine.poll_update().unwrap();
    engine.handle_applied(Ok(Applied::completely(update.generation)));
    match update.change {
        Change::Delta(delta) => delta,
        other => panic!("expected a delta, got {other:?}"),
    }
}

/// The ports of backends that the pod may talk to, and the hosts that may talk to it.
fn open(delta: &Delta) -> (Vec<(u8, u16)>, Vec<u8>) {
    let passes = |source, destination, port| {
        let flow = Flow::to_port(source, destination, Transport::Tcp, port);
        delta.program.outcome(&flow).verdict() == Verdict::Allow
    };
    let ports = (1..4).flat_map(|host| [80, 81].map(|port| (host, port)));
    (
        ports.filter(|(host, port)| passes(POD, backend(*host), *port)).collect(),
        (1..4).filter(|host| passes(backend(*host), POD, 7)).collect(),
    )
}

#[test]
fn a_slice_that_changes_touches_the_sets_of_its_service_alone() {
    let mut engine = engine();
    engine.inputs_complete();
    let update = engine.poll_update().unwrap();
    engine.handle_applied(Ok(Applied::completely(update.generation)));
    let upsert = |engine: &mut Engine, slice: EndpointSlice| engine.upsert(slice).unwrap();
    let remove = |engine: &mut Engine, name: &str| {
        assert!(engine.remove(&ObjectKey::EndpointSlice("x".into(), name.into())));
    };

    upsert(&mut engine, slice("s-1", "s", &[1, 2], &[80]));
    let first = delta(&mut engine);
    assert_eq!(open(&first), ([(1, 80), (2, 80)].into(), [].into()));
    let [members] = &first.members[..] else { panic!("{first:?}") };
    assert_eq!((members.ports.added.len(), members.ports.removed.len()), (2, 0));
    assert!(first.endpoints.is_empty() && first.new_policy_sets.is_empty());

    // What two slices list is there until neither does.
    upsert(&mut engine, slice("s-2", "s", &[2, 3], &[80]));
    upsert(&mut engine, slice("t-1", "t", &[3], &[]));
    assert_eq!(open(&delta(&mut engine)), ([(1, 80), (2, 80), (3, 80)].into(), [3].into()));
    upsert(&mut engine, slice("s-1", "s", &[1], &[80, 81]));
    let moved = delta(&mut engine);
    assert_eq!(open(&moved), ([(1, 80), (1, 81), (2, 80), (3, 80)].into(), [3].into()));
    let [members] = &moved.members[..] else { panic!("{moved:?}") };
    assert_eq!(
        (&members.ports.added[..], &members.ports.removed[..]),
        (&[(backend(1), 81)][..], &[][..])
    );

    // A slice can come to belong to another Service.
    upsert(&mut engine, slice("s-2", "t", &[2, 3], &[80]));
    assert_eq!(open(&delta(&mut engine)), ([(1, 80), (1, 81)].into(), [2, 3].into()));
    remove(&mut engine, "t-1");
    assert_eq!(engine.poll_update(), None, "the other slice lists the same address");
    remove(&mut engine, "s-1");
    assert_eq!(open(&delta(&mut engine)), ([].into(), [2, 3].into()));

    // What nobody asks for changes nothing.
    upsert(&mut engine, slice("u-1", "u", &[1], &[80]));
    let mut foreign = slice("s-1", "s", &[1], &[80]);
    foreign.service.namespace = "y".into();
    upsert(&mut engine, foreign);
    assert_eq!(engine.poll_update(), None);
    engine
        .upsert(Object::Namespace { name: "x".into(), labels: [("a", "b")].into_iter().collect() })
        .unwrap();
    assert!(engine.remove(&ObjectKey::Namespace("x".into())));
    assert!(!engine.remove(&ObjectKey::EndpointSlice("x".into(), "u-1".into())));
}
