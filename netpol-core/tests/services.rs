//! Services: programs follow the slices, in which peers are, and what the node translates.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_core::eval::Judge;
use netpol_core::model::{
    Action, Endpoint, EndpointSlice, Inputs, L4Match, NamedPort, Node, Object, ObjectKey, Peers,
    Policy, PolicyKey, PortConstraint, PortMatch, Rule, RuleMatch, Service, ServiceName,
    ServicePort,
};
use netpol_core::net::{Prefix, Transport};
use netpol_core::program::{Backend, Frontend, Passage};
use netpol_core::{
    Applied, Capabilities, Change, Delta, DestinationView, Engine, Flow, NodeConfig, Program,
    Selector, Verdict,
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

fn service() -> Service {
    let (name, transport) = (String::new(), Transport::Tcp);
    Service {
        name: ServiceName::new("x", "s"),
        addresses: ["10.96.0.1".parse().unwrap()].into(),
        ports: [ServicePort { name, transport, port: 80, node_port: Some(30_080) }].into(),
    }
}

fn node(address: &str) -> Node {
    let addresses = vec![address.parse().unwrap()];
    Node { name: "node-a".into(), addresses, ..Node::default() }
}

/// What a dataplane must know that judges before the node translates: nothing of it, or all that the node translates.
#[test]
fn only_who_judges_before_translation_is_told_of_frontends() {
    for (view, want) in [
        (DestinationView::AfterDestinationNat, ""),
        (
            DestinationView::BeforeDestinationNat,
            "10.96.0.1:80 -> 198.51.100.1:8080 198.51.100.2:8080, \
             172.18.0.2:30080 -> 198.51.100.1:8080 198.51.100.2:8080, ",
        ),
    ] {
        let mut capabilities = Capabilities::all();
        capabilities.destination_view = view;
        let mut engine = Engine::new(NodeConfig::new("node-a"), &capabilities);
        let other = Node { name: "node-b".into(), ..node("172.18.0.3") };
        let objects: [Object; 4] = [
            service().into(),
            slice("s-1", "s", &[1, 2], &[8080]).into(),
            node("172.18.0.2").into(),
            other.into(),
        ];
        objects.into_iter().for_each(|it| engine.upsert(it).unwrap());
        engine.inputs_complete();
        let program = program(&mut engine, false);
        let mut got = String::new();
        for (Frontend { address, transport: _, port }, backends) in program.frontends.iter() {
            write!(got, "{address}:{port} ->").unwrap();
            for Backend { address, port } in backends {
                write!(got, " {address}:{port}").unwrap();
            }
            got.push_str(", ");
        }
        assert_eq!(got, want);
    }
}

/// Returns the program of the next update, which must be a delta or not.
fn program(engine: &mut Engine, is_delta: bool) -> Arc<Program> {
    let update = engine.poll_update().unwrap();
    engine.handle_applied(Ok(Applied::completely(update.generation)));
    match update.change {
        Change::Delta(delta) if is_delta => Arc::clone(&delta.program),
        Change::Full(program) if !is_delta => program,
        other => panic!("is it a delta? {is_delta}: {other:?}"),
    }
}

#[test]
fn what_leaves_is_judged_before_translation_and_what_comes_in_after_it() {
    let mut capabilities = Capabilities::all();
    capabilities.destination_view = DestinationView::BeforeDestinationNat;
    let mut inputs = Inputs::default();
    let pod = |name: &str, address: IpAddr| {
        let mut pod = Endpoint::pod("x", name).on_node("node-a").attached_to(name);
        pod.addresses = vec![address];
        pod.labels = [("app", name)].into_iter().collect();
        pod
    };
    let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), "app == 'a'".parse().unwrap());
    let mut matches = RuleMatch::default();
    matches.destination.nets = Some([Prefix::host(backend(1))].into_iter().collect());
    policy.egress = Some(vec![Rule::new(0, Action::Allow, matches)]);
    let objects: [Object; 5] = [
        pod("a", POD).into(),
        pod("b", backend(1)).into(),
        policy.into(),
        service().into(),
        slice("s-1", "s", &[1, 2], &[8080]).into(),
    ];
    let mut engine = Engine::new(NodeConfig::new("node-a"), &capabilities);
    for object in objects {
        inputs.upsert(object.clone());
        engine.upsert(object).unwrap();
    }
    engine.inputs_complete();
    let program = program(&mut engine, false);
    let judge = Judge::new(&inputs, &capabilities);
    let before_nat = Flow::to_port(POD, "10.96.0.1".parse().unwrap(), Transport::Tcp, 80);
    let flow = Flow::to_port(POD, backend(1), Transport::Tcp, 8080);
    let passage = Passage { input: Some("a"), output: Some("b"), flow, before_nat };
    let judged = judge.evaluate_translated(&flow, &before_nat).enforced;
    let outcome = program.outcome_of(&passage);
    assert_eq!(outcome.egress.as_ref(), Some(&judged.egress));
    assert_eq!(outcome.ingress.as_ref(), Some(&judged.ingress));
    assert_eq!((judged.egress.verdict, judged.ingress.verdict), (Verdict::Deny, Verdict::Allow));
    assert_eq!(
        judged.egress.to_string(),
        "asked about the Service's backend 198.51.100.2 port 8080; deny: no rule matched in tier `default`; asked: \
         KubernetesNetworkPolicy x/p"
    );
    assert_eq!(judge.evaluate(&flow).enforced.verdict(), Verdict::Allow, "the backend itself");
}

/// A dataplane derives what frontends say from what their backends do, so a delta that names neither must leave it alone.
#[test]
fn what_could_change_the_word_of_a_frontend_comes_as_a_whole() {
    let mut capabilities = Capabilities::all();
    capabilities.destination_view = DestinationView::BeforeDestinationNat;
    let mut engine = Engine::new(NodeConfig::new("node-a"), &capabilities);
    let pod = |name: &str, address: &str, label: &str| {
        let mut pod = Endpoint::pod("x", name);
        pod.addresses = vec![address.parse().unwrap()];
        pod.labels = [("app", label)].into_iter().collect();
        pod
    };
    let to = |name: &str, label: &str| {
        let subject = "app == 'web'".parse().unwrap();
        let mut policy = Policy::new(PolicyKey::kubernetes("x", name), subject);
        let mut matches = RuleMatch::default();
        let selector = Selector::equal("app", label).unwrap();
        matches.destination.peers = Some(Peers::Endpoints(selector));
        policy.egress = Some(vec![Rule::new(0, Action::Allow, matches)]);
        policy
    };
    let web = pod("web", "10.0.0.1", "web").on_node("node-a").attached_to("veth0");
    let objects: [Object; 4] = [
        service().into(),
        slice("s-1", "s", &[1], &[8080]).into(),
        web.into(),
        to("p", "db").into(),
    ];
    objects.into_iter().for_each(|it| engine.upsert(it).unwrap());
    engine.inputs_complete();
    program(&mut engine, false);
    let changes: [(&str, Object, bool); 9] = [
        ("a peer that is no backend", pod("other", "10.0.0.9", "db").into(), true),
        ("a backend becomes a peer", pod("db", "198.51.100.1", "db").into(), false),
        ("it is none any more", pod("db", "198.51.100.1", "x").into(), false),
        ("a peer has the Service's address", pod("odd", "10.96.0.1", "db").into(), false),
        ("another backend", slice("s-2", "s", &[2], &[8080]).into(), false),
        ("another policy", to("q", "cache").into(), false),
        (
            "another endpoint with the same policies",
            pod("web-2", "10.0.0.2", "web").on_node("node-a").attached_to("veth1").into(),
            true,
        ),
        ("the node, with node ports", node("172.18.0.2").into(), false),
        ("another port", Service { ports: [].into(), ..service() }.into(), false),
    ];
    for (what, object, is_delta) in changes {
        engine.upsert(object.clone()).unwrap();
        println!("{what}");
        program(&mut engine, is_delta);
        engine.upsert(object).unwrap();
        assert_eq!(engine.poll_update(), None, "{what}, once more");
    }
    engine.upsert(slice("t-1", "t", &[1], &[1])).unwrap();
    assert_eq!(engine.poll_update(), None, "a slice of a Service that is not there");
}
