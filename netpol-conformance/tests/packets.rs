//! What no scenario can tell, on dataplanes of netfilter: forged packets, and packets that are on their way while policy
//! changes and processes come, go and are killed.
//!
//! Needs root, as the other tests on topologies do.

#![cfg(all(feature = "iptables", feature = "nft"))]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::env;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netpol_conformance::topology::{Host, Namespace};
use netpol_core::model::{
    Action, Endpoint, EndpointId, EntityMatch, L4Match, Mode, Object, Peers, Policy, PolicyKey,
    PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{Family, PortRange, Transport};
use netpol_core::{Change, Dataplane, Engine, NodeConfig, Program, Selector, Update};
use netpol_iptables::Flavour;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};

#[path = "packets/world.rs"]
mod world;

use self::world::{
    CLIENT, Kind, SERVER, VICTIM, World, check_arrivals, converse, node_address, outside,
    pod_address, pods, receive, udp, wait_for,
};

/// The port of each pod on which policy lets clients in, and one on which it does not.
const ALLOWED: u16 = 7001;
const DENIED: u16 = 7002;

/// Tells a process that was started anew to enforce with this dataplane until it is killed.
const ROLE: &str = "NETPOL_PACKETS_TEST_ROLE";

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

fn to_port(first: u16, last: u16) -> L4Match<PortMatch> {
    let numbers = [PortRange::new(first, last).unwrap()].into_iter().collect();
    let any_of = Some(PortMatch { numbers, ..PortMatch::default() });
    let destination = PortConstraint { any_of, none_of: None };
    L4Match::Ports { transport: Transport::Udp, source: PortConstraint::default(), destination }
}

fn from(text: &str, l4: L4Match<PortMatch>) -> RuleMatch {
    let peers = Some(Peers::Endpoints(selector(text)));
    RuleMatch {
        source: EntityMatch { peers, ..EntityMatch::default() },
        l4,
        ..RuleMatch::default()
    }
}

/// Returns the pods, each with its name and some more labels.
fn endpoints(interfaces: &[String], labels: &[(u8, &str, String)]) -> Vec<Object> {
    let pod = |((name, number), interface): ((&str, u8), &String)| {
        let mut pod = Endpoint::pod("x", name).on_node("one").attached_to(interface.clone());
        pod.addresses = Family::BOTH.map(|family| pod_address(number, family)).to_vec();
        let own = labels.iter().filter(|(pod, ..)| *pod == number);
        let own = own.map(|(_, key, value)| ((*key).to_owned(), value.clone()));
        pod.labels = own.chain([("name".to_owned(), name.to_owned())]).collect();
        Object::from(pod)
    };
    pods().into_iter().zip(interfaces).map(pod).collect()
}

fn ingress(pods: &str, rules: Vec<(Action, RuleMatch)>) -> Object {
    let mut policy = Policy::new(PolicyKey::kubernetes("x", pods), selector(pods));
    let rules = rules.into_iter().enumerate();
    policy.ingress =
        Some(rules.map(|(index, (action, it))| Rule::new(index, action, it)).collect());
    policy.into()
}

fn program(objects: Vec<Object>, dataplane: &dyn Dataplane) -> Arc<Program> {
    let mut engine = Engine::new(NodeConfig::new("one"), dataplane.capabilities());
    objects.into_iter().for_each(|object| engine.upsert(object).unwrap());
    engine.inputs_complete();
    loop {
        let update = engine.poll_update().unwrap();
        match update.change {
            Change::Full(program) => return program,
            _ => engine.handle_applied(Ok(netpol_core::Applied::completely(update.generation))),
        }
    }
}

fn apply(dataplane: &mut dyn Dataplane, objects: Vec<Object>) {
    let program = program(objects, dataplane);
    let applied = dataplane.apply(Update::new(1, Change::Full(program))).unwrap();
    assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
}

/// What holds in one of many generations. In all of them the server lets the client reach one port and not the other, but
/// because of other rules, chains and sets. Where the client moves, these are not the same sets either: it changes its team,
/// and what it is blocked for, all the time.
fn generation(interfaces: &[String], number: u16) -> Vec<Object> {
    let labels = [
        (CLIENT, "team", (number % 3).to_string()),
        (CLIENT, "blocked", (number % 2).to_string()),
        (VICTIM, "team", (number % 5).to_string()),
    ];
    let mut objects = endpoints(interfaces, &labels);
    let mut rules: Vec<_> = (0..2)
        .map(|it| (Action::Deny, from(&format!("blocked == '{it}'"), to_port(DENIED, DENIED))))
        .collect();
    rules.extend((0..3).map(|it| {
        (Action::Allow, from(&format!("team == '{it}'"), to_port(ALLOWED, ALLOWED + number % 4)))
    }));
    // Rules and sets that come and go.
    let more = number % 4;
    rules.extend((0..more).map(|it| {
        let it = it + number;
        (Action::Allow, from(&format!("name == 'nobody{it}'"), to_port(8000 + it, 9000)))
    }));
    objects.push(ingress("name == 'server'", rules));
    // Somebody elsewhere, who changes teams too.
    for other in 0..number % 7 {
        let mut remote = Endpoint::new(EndpointId::workload("x", format!("remote{other}")));
        remote.addresses = vec![IpAddr::from([10, 244, 1, u8::try_from(other).unwrap() + 1])];
        remote.labels = [("team", (number % 3).to_string())].into_iter().collect();
        objects.push(remote.into());
    }
    objects
}

/// Starts a process that enforces one generation after another in a namespace, until it is killed.
fn start_enforcer(world: &World, kind: Kind) -> Child {
    let number = Kind::ALL.iter().position(|it| *it == kind).unwrap();
    let role = format!("{number} {}", world.interfaces().join(" "));
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "an_enforcer_works_until_it_is_killed", "--nocapture"]);
    command.env(ROLE, role).stdout(Stdio::null()).stderr(Stdio::inherit());
    world.node().run(move || command.spawn().unwrap()).unwrap()
}

#[test]
fn an_enforcer_works_until_it_is_killed() {
    let Ok(role) = env::var(ROLE) else { return };
    let (number, interfaces) = role.split_once(' ').unwrap();
    let kind = Kind::ALL[number.parse::<usize>().unwrap()];
    let interfaces: Vec<String> = interfaces.split(' ').map(str::to_owned).collect();
    let mut dataplane = kind.open();
    for number in 0.. {
        let number = number % 1000;
        apply(dataplane.as_mut(), generation(&interfaces, number));
    }
}

/// Counts what arrives at a socket, until nothing does after the end.
fn count(
    socket: UdpSocket,
    counter: Arc<AtomicU32>,
    end: Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    // Room for what comes while this thread waits for a processor.
    setsockopt(&socket, RcvBufForce, &(32 << 20)).unwrap();
    thread::spawn(move || {
        loop {
            let ended = end.load(Ordering::Relaxed);
            match receive(&socket) {
                Some(_) => drop(counter.fetch_add(1, Ordering::Relaxed)),
                None if ended => return,
                None => {}
            }
        }
    })
}

/// Waits until no more than some of the datagrams that were sent are on their way. Returns how many are after too long.
///
/// Without it, a machine that is busy would drop what waits for a processor (`net.core.netdev_max_backlog`).
fn missing(arrived: &AtomicU32, sent: u32, on_their_way: u32, limit: Duration) -> u32 {
    let end = Instant::now() + limit;
    loop {
        let missing = sent - arrived.load(Ordering::Relaxed);
        if missing <= on_their_way {
            return 0;
        }
        if Instant::now() > end {
            return missing;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn never_lost_never_leaked(kind: Kind) {
    let world = World::new();
    let interfaces = world.interfaces();
    let mut dataplane = Some(world.open(kind));
    apply(dataplane.as_mut().unwrap().as_mut(), generation(&interfaces, 0));

    let denied = Arc::new(AtomicU32::new(0));
    let [stop, end] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        let server = pod_address(SERVER, family);
        let arrived = Arc::new(AtomicU32::new(0));
        for (port, counter) in [(ALLOWED, &arrived), (DENIED, &denied)] {
            let socket = udp(world.pod(SERVER), server, port);
            receivers.push(count(socket, Arc::clone(counter), Arc::clone(&end)));
        }
        let (stop, client) = (Arc::clone(&stop), pod_address(CLIENT, family));
        // Without replies, each datagram is judged as the first one of its flow.
        let socket = udp(world.pod(CLIENT), client, 0);
        senders.push(thread::spawn(move || {
            let (mut sent, mut lost) = (0_u32, 0);
            while !stop.load(Ordering::Relaxed) {
                for port in [ALLOWED, DENIED] {
                    socket.send_to(b"x", (server, port)).unwrap();
                }
                sent += 1;
                thread::sleep(Duration::from_micros(200));
                lost += missing(&arrived, sent - lost, 100, Duration::from_secs(5));
            }
            (sent, lost + missing(&arrived, sent - lost, 0, Duration::from_secs(5)))
        }));
    }
    let mut number = 0;
    let mut next = |dataplane: &mut Option<Box<dyn Dataplane>>| {
        number += 1;
        apply(dataplane.as_mut().unwrap().as_mut(), generation(&interfaces, number));
    };
    for _ in 0..6 {
        (0..7).for_each(|_| next(&mut dataplane));
        drop(dataplane.take());
        dataplane = Some(world.open(kind));
    }
    for round in 0..12_u64 {
        drop(dataplane.take());
        let mut enforcer = start_enforcer(&world, kind);
        thread::sleep(Duration::from_millis(60 + 37 * round));
        enforcer.kill().unwrap();
        enforcer.wait().unwrap();
        dataplane = Some(world.open(kind));
        next(&mut dataplane);
    }
    stop.store(true, Ordering::Relaxed);
    for (sent, lost) in senders.into_iter().map(|it| it.join().unwrap()) {
        assert_eq!(lost, 0, "{kind:?}: what is allowed is never lost, of {sent}");
        assert!(sent > 500, "only {sent} datagrams");
    }
    end.store(true, Ordering::Relaxed);
    receivers.into_iter().for_each(|it| it.join().unwrap());
    assert_eq!(denied.load(Ordering::Relaxed), 0, "{kind:?}: what is denied never passes");
    let mut dataplane = dataplane.unwrap();
    let last = program(generation(&interfaces, number), dataplane.as_ref());
    assert_eq!(dataplane.audit(&last).unwrap().differences, Vec::<String>::new());
    dataplane.remove().unwrap();
    // The control: without policy, what is denied gets through.
    for family in Family::BOTH {
        let server = pod_address(SERVER, family);
        let receiver = udp(world.pod(SERVER), server, DENIED);
        let sender = udp(world.pod(CLIENT), pod_address(CLIENT, family), 0);
        sender.send_to(b"x", (server, DENIED)).unwrap();
        wait_for(&receiver);
    }
}

#[test]
fn nothing_is_lost_or_leaked_by_nft() {
    never_lost_never_leaked(Kind::Nft);
}

#[test]
fn nothing_is_lost_or_leaked_by_iptables() {
    never_lost_never_leaked(Kind::Iptables(Flavour::Nft));
}

#[test]
fn nothing_is_lost_or_leaked_by_iptables_legacy() {
    never_lost_never_leaked(Kind::Iptables(Flavour::Legacy));
}

/// Between two states that both deny, there is none that allows.
#[test]
fn what_is_denied_stays_denied_while_an_endpoint_is_isolated() {
    for kind in Kind::ALL {
        let world = World::new();
        let mut dataplane = world.open(kind);
        let programs = [Mode::Enforce, Mode::Isolate].map(|mode| {
            let mut objects = endpoints(&world.interfaces(), &[]);
            if let Some(Object::Endpoint(victim)) = objects.last_mut() {
                victim.mode = mode;
            }
            objects.push(ingress("name == 'victim'", Vec::new()));
            program(objects, dataplane.as_ref())
        });
        let update = |number: usize| {
            Update::new(1, Change::Full(Arc::clone(&programs[number % programs.len()])))
        };
        dataplane.apply(update(0)).unwrap();
        let victim = udp(world.pod(VICTIM), pod_address(VICTIM, Family::V4), DENIED);
        let to = victim.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let sender = {
            let stop = Arc::clone(&stop);
            let socket = udp(world.pod(CLIENT), pod_address(CLIENT, Family::V4), 0);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    socket.send_to(b"x", to).unwrap();
                    // The kernel has one queue for all namespaces, and other tests fill it too.
                    thread::sleep(Duration::from_micros(20));
                }
            })
        };
        let end = Instant::now() + Duration::from_secs(3);
        for number in (1..).take_while(|_| Instant::now() < end) {
            dataplane.apply(update(number)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        check_arrivals(&victim, &[], &format!("{kind:?}"));
        // The control.
        dataplane.remove().unwrap();
        let client = udp(world.pod(CLIENT), pod_address(CLIENT, Family::V4), 0);
        client.send_to(b"open", to).unwrap();
        check_arrivals(&victim, &[b"open"], &format!("{kind:?}"));
    }
}

/// Only the first fragment of a datagram has ports.
#[test]
fn fragments_are_judged_as_the_whole() {
    for kind in Kind::ALL {
        let world = World::new();
        let mut dataplane = world.open(kind);
        for enforced in [false, true] {
            if enforced {
                apply(dataplane.as_mut(), generation(&world.interfaces(), 0));
            }
            for (family, port) in
                Family::BOTH.into_iter().flat_map(|it| [(it, ALLOWED), (it, DENIED)])
            {
                let server = udp(world.pod(SERVER), pod_address(SERVER, family), port);
                let client = udp(world.pod(CLIENT), pod_address(CLIENT, family), 0);
                client.send_to(&[0; 4000], server.local_addr().unwrap()).unwrap();
                let want: &[&[u8]] = if enforced && port == DENIED { &[] } else { &[&[0; 4000]] };
                check_arrivals(&server, want, &format!("{kind:?}, {family}, {port}, {enforced}"));
            }
        }
    }
}

/// Sends a datagram from an address and port that may be somebody else's.
fn forge(namespace: &Namespace, from: (IpAddr, u16), to: SocketAddr) {
    let length = if from.0.is_ipv4() { 32 } else { 128 };
    let address = format!("{}/{length}", from.0);
    namespace
        .run(|| {
            for action in ["add", "del"] {
                if action == "del" {
                    UdpSocket::bind(from).unwrap().send_to(b"forged", to).unwrap();
                }
                let mut command = Command::new("ip");
                command.args(["address", action, &address, "dev", "lo"]);
                command.args(from.0.is_ipv6().then_some("nodad").filter(|_| action == "add"));
                assert!(command.status().unwrap().success());
            }
        })
        .unwrap();
}

/// The server lets the victim in, and the host outside; the client may send nothing.
fn closed_client(interfaces: &[String]) -> Vec<Object> {
    let mut objects = endpoints(interfaces, &[]);
    let mut client =
        Policy::new(PolicyKey::kubernetes("x", "closed"), selector("name == 'client'"));
    client.egress = Some(Vec::new());
    let everybody = from("name == 'client'", L4Match::Any);
    let others = RuleMatch { l4: L4Match::Any, ..RuleMatch::default() };
    objects.extend([
        client.into(),
        ingress("name == 'server'", vec![(Action::Deny, everybody), (Action::Allow, others)]),
        ingress("name == 'victim'", Vec::new()),
    ]);
    objects
}

#[test]
fn nobody_sends_into_flows_of_others() {
    for kind in Kind::ALL {
        let world = World::new();
        let mut dataplane = world.open(kind);
        for enforced in [false, true] {
            if enforced {
                apply(dataplane.as_mut(), closed_client(&world.interfaces()));
            }
            for family in Family::BOTH {
                // Without policy, in other flows: what was forged then belongs to a flow.
                let port = if enforced { 5000 } else { 6000 };
                let fabric = world.topology.namespace(&Host::External(outside(family))).unwrap();
                let server = udp(world.pod(SERVER), pod_address(SERVER, family), port);
                for (namespace, address) in
                    [(world.pod(VICTIM), pod_address(VICTIM, family)), (fabric, outside(family))]
                {
                    let peer = udp(namespace, address, port);
                    converse(&peer, &server);
                    forge(world.pod(CLIENT), (address, port), server.local_addr().unwrap());
                    let context = format!("{kind:?}, {address}, policy {enforced}");
                    check_arrivals(&server, if enforced { &[] } else { &[b"forged"] }, &context);
                    peer.send_to(b"again", server.local_addr().unwrap()).unwrap();
                    check_arrivals(&server, &[b"again"], &context);
                }
            }
        }
    }
}

/// The same towards the node, whose own processes have no policy.
#[test]
fn nobody_sends_to_the_node_in_flows_of_others() {
    for kind in Kind::ALL {
        let world = World::new();
        let mut dataplane = world.open(kind);
        for enforced in [false, true] {
            if enforced {
                apply(dataplane.as_mut(), closed_client(&world.interfaces()));
            }
            for family in Family::BOTH {
                let port = if enforced { 5000 } else { 6000 };
                let server = udp(world.node(), node_address(family), port);
                let victim = udp(world.pod(VICTIM), pod_address(VICTIM, family), port);
                let from = converse(&victim, &server);
                forge(world.pod(CLIENT), (from.ip(), port), server.local_addr().unwrap());
                let context = format!("{kind:?}, {family}, policy {enforced}");
                check_arrivals(&server, if enforced { &[] } else { &[b"forged"] }, &context);
            }
        }
    }
}

/// The node finds out only after it has chosen a way that what it sends to a Service goes to an endpoint.
#[test]
fn the_node_does_not_reach_isolated_endpoints_through_a_service() {
    let mangle = [Flavour::Nft, Flavour::Legacy].map(Kind::Mangle);
    for kind in Kind::ALL.into_iter().chain(mangle) {
        let world = World::new();
        let victim = udp(world.pod(VICTIM), pod_address(VICTIM, Family::V4), 80);
        let table = "table ip services { chain output { type nat hook output priority -100; \
            ip daddr 10.96.0.1 dnat to 10.244.0.3; }; }";
        let status = world.node().run(|| Command::new("nft").arg(table).status().unwrap());
        assert!(status.unwrap().success());
        let mut dataplane = world.open(kind);
        for isolated in [false, true] {
            let mut objects = endpoints(&world.interfaces(), &[]);
            if let (true, Some(Object::Endpoint(victim))) = (isolated, objects.last_mut()) {
                victim.mode = Mode::Isolate;
            }
            apply(dataplane.as_mut(), objects);
            let node = udp(world.node(), node_address(Family::V4), 0);
            node.send_to(b"hello", "10.96.0.1:80").unwrap_or_default();
            let context = format!("{kind:?}, isolated {isolated}");
            check_arrivals(&victim, if isolated { &[] } else { &[b"hello"] }, &context);
        }
    }
}

/// Sends the ICMP error "port unreachable" about a datagram.
fn send_error(namespace: &Namespace, about: (SocketAddr, SocketAddr)) {
    let (from, to) = about;
    let (domain, protocol, kind) = match from.ip() {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, [3, 3]),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, [1, 4]),
    };
    let mut bytes = [kind[0], kind[1], 0, 0, 0, 0, 0, 0].to_vec();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0].to_vec();
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&header).to_be_bytes();
            header.splice(10..12, sum);
            bytes.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0, 0, 9, 17, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("{from} and {to} are not of one family"),
    }
    bytes.extend([from.port().to_be_bytes(), to.port().to_be_bytes(), [0, 9], [1, 1]].concat());
    bytes.push(b'x');
    // The kernel computes the checksum of ICMPv6 (RFC 3542, section 3.1).
    let sum = checksum(&bytes).to_be_bytes();
    bytes.splice(2..4, sum);
    let send = || {
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.send_to(&bytes, &SocketAddr::new(from.ip(), 0).into()).unwrap();
    };
    namespace.run(send).unwrap();
}

/// Returns the checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |it| u32::from(*it));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Checks whether a connected socket hears that its other end is unreachable.
#[track_caller]
fn check_error(socket: &UdpSocket, want: bool, context: &str) {
    let mut patience = if want { 20 } else { 1 };
    while patience > 0 {
        match socket.recv(&mut [0; 8]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => patience -= 1,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => panic!("{context}: {other:?}"),
        }
    }
    assert_eq!(patience > 0, want, "{context}");
}

/// An ICMP error belongs to a flow if it is about one, whoever sends it; so its sender must be an end of that flow.
#[test]
fn nobody_reports_errors_of_flows_of_others() {
    for kind in Kind::ALL {
        let world = World::new();
        let mut dataplane = world.open(kind);
        for enforced in [false, true] {
            if enforced {
                apply(dataplane.as_mut(), closed_client(&world.interfaces()));
            }
            for family in Family::BOTH {
                let port = if enforced { 5000 } else { 6000 };
                let server = udp(world.pod(SERVER), pod_address(SERVER, family), port);
                let fabric = world.topology.namespace(&Host::External(outside(family))).unwrap();
                let stranger = udp(fabric, outside(family), port);
                for (peer, end) in [(&server, world.pod(SERVER)), (&stranger, fabric)] {
                    let to = peer.local_addr().unwrap();
                    let victim = udp(world.pod(VICTIM), pod_address(VICTIM, family), 0);
                    let from = converse(&victim, peer);
                    victim.connect(to).unwrap();
                    send_error(world.pod(CLIENT), (from, to));
                    let context = format!("{kind:?}, {to}, policy {enforced}");
                    check_error(&victim, !enforced, &context);
                    // The other end may say so, and so may every router between.
                    send_error(end, (from, to));
                    check_error(&victim, true, &context);
                }
            }
        }
    }
}
