//! What outlives a process, what an update leaves, and what a removal does not touch.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use netpol_core::model::{Mode, Object, Policy};
use netpol_core::net::Transport;
use netpol_core::program::Established;
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Direction, Update, Verdict};
use netpol_ebpf_abi as abi;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::packet::{ACK, Packet, SYN};
use super::world::{
    Node, address, config, full, in_namespace, index, interface, interfaces, ip, listing, objects,
    objects_in, pod, policy, program, to_nets, to_ports,
};
use crate::programs::Side;
use crate::{Capacity, EbpfConfig, EbpfDataplane, EbpfError, Hook, PrivateBpfFs};

use Verdict::{Allow, Deny};

fn attached(interface: &str) -> usize {
    let count = |side| SchedClassifier::query_tcx(interface, side).unwrap().1.len();
    count(TcAttachType::Ingress) + count(TcAttachType::Egress)
}

/// Takes TCP 80 only.
fn web() -> Vec<Object> {
    objects(vec![policy("in", Direction::Ingress, vec![to_ports(Transport::Tcp, &[(80, 80)])])])
}

fn is_web(node: &mut Node) -> bool {
    let (pod, stranger) = (address(0, false), address(1, false));
    let mut judge = |port| node.receives(&Packet::tcp((stranger, 9), (pod, port), SYN));
    (judge(80), judge(81)) == (Allow, Deny)
}

fn reopen(node: Node) -> Node {
    let Node { dataplane, pins } = node;
    drop(dataplane);
    Node { dataplane: EbpfDataplane::open(config(&pins)).unwrap(), pins }
}

#[test]
fn a_new_process_adopts_what_is_in_force() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        node.apply(&web());
        let query = Packet::udp((address(0, false), 5), (address(1, false), 6));
        assert_eq!(node.sends(&query), Allow);
        let before = node.state().maps.published().unwrap();
        let Node { dataplane, pins } = node;
        drop(dataplane);
        assert_eq!(attached("np0"), 2, "enforcement goes on");
        let mut node = Node { dataplane: EbpfDataplane::open(config(&pins)).unwrap(), pins };
        assert!(is_web(&mut node));
        assert_eq!(node.receives(&query.reply()), Allow, "flows are known");
        node.apply(&web());
        assert_eq!(node.state().maps.published().unwrap(), before, "nothing was switched");
        assert!(node.dataplane.audit(&program(&web())).unwrap().is_none());
        assert_eq!(attached("np0"), 2, "no program was added");
    });
}

#[test]
fn before_all_is_known_only_newcomers_are_closed() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        node.apply(&web());
        let mut node = reopen(node);
        ip("link add np3 type veth peer name peer3");
        let mut all = web();
        all.push(Object::Endpoint(pod(3)));
        let endpoints = program(&all).endpoints.into();
        let applied = node.dataplane.apply(Update::new(1, Change::Isolate(endpoints))).unwrap();
        assert!(applied.isolated.is_empty());
        assert!(is_web(&mut node));
        let probe = Packet::tcp((address(1, false), 9), (address(3, false), 80), SYN);
        let np3 = |node: &mut Node| node.judges(Side::To, "np3", &probe, 1);
        assert_eq!(np3(&mut node), Deny);
        node.apply(&all);
        assert_eq!(np3(&mut node), Allow);
    });
}

#[test]
fn removal_leaves_what_is_not_ours() {
    in_namespace(|| {
        interfaces(3);
        let pins = PrivateBpfFs::new().unwrap();
        let mut foreign =
            EbpfDataplane::open(EbpfConfig { owner: "foreign".into(), ..config(&pins) }).unwrap();
        assert!(foreign.apply(full(&program(&objects(vec![])))).unwrap().isolated.is_empty());
        let mut node = Node { dataplane: EbpfDataplane::open(config(&pins)).unwrap(), pins };
        node.apply(&web());
        assert_eq!(attached("np0"), 4);
        node.dataplane.remove().unwrap();
        assert_eq!(attached("np0"), 2);
        assert_eq!(listing(&node.pins, "netpol").len(), 1);
        node.dataplane.remove().unwrap();
        node.apply(&web());
        assert!(is_web(&mut node));
        foreign.remove().unwrap();
        node.dataplane.remove().unwrap();
        assert_eq!(listing(&node.pins, "netpol"), Vec::<String>::new());
        assert_eq!(attached("np0"), 0);
    });
}

#[test]
fn endpoints_that_go_take_everything_along() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        node.apply(&web());
        ip("link del np1");
        ip("link add np1 type veth peer name peer1");
        node.apply(&web());
        assert!(node.dataplane.audit(&program(&web())).unwrap().is_none());
        assert_eq!(attached("np1"), 2);
        node.apply(&objects(vec![])[1..]);
        assert_eq!(attached("np0"), 0);
        assert_eq!(
            node.state().maps.names().unwrap().len(),
            4,
            "a space, a counter and two endpoints"
        );
        node.apply(&[]);
        assert_eq!(attached("np1"), 0);
        let names = node.state().maps.names().unwrap();
        assert_eq!(names.len(), 1, "a space: {names:?}");
    });
}

#[test]
fn an_interface_that_is_missing_is_one_endpoints_trouble() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let mut all = web();
        all.push(Object::Endpoint(pod(7)));
        let applied = node.dataplane.apply(full(&program(&all))).unwrap();
        let [(id, error)] = applied.isolated.as_slice() else { panic!("{:?}", applied.isolated) };
        assert_eq!((id.name.as_str(), error.kind()), ("pod7", DataplaneErrorKind::Transient));
        assert!(is_web(&mut node));
    });
}

#[test]
fn what_does_not_fit_changes_nothing() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        node.apply(&web());
        let nets: Vec<String> =
            (0..5000_u32).map(|it| format!("10.{}.{}.0/25", it / 256, it % 256)).collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let large = objects(vec![policy("out", Direction::Egress, vec![to_nets(&nets)])]);
        let error = node.dataplane.apply(full(&program(&large))).unwrap_err();
        assert_eq!(error.kind(), DataplaneErrorKind::Capacity);
        assert!(is_web(&mut node));
        assert!(node.dataplane.audit(&program(&web())).unwrap().is_none());
    });
}

#[test]
fn drift_is_seen_and_repaired() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let program = program(&web());
        node.enforce(&program);
        let spoil: [fn(&mut Node); 4] = [
            |node| node.state().maps.spoil(crate::render::Map::Rows),
            |node| node.state().maps.withdraw(index("np0")).unwrap(),
            |node| crate::programs::detach(&node.state().pins.clone(), index("np0")).unwrap(),
            |node| {
                let np0 = index("np0");
                let (_, number) = node
                    .state()
                    .maps
                    .published()
                    .unwrap()
                    .into_iter()
                    .find(|it| it.0 == np0)
                    .unwrap();
                let open =
                    abi::Endpoint { tables: [0; 2], ..node.state().maps.record(number).unwrap() };
                node.state().maps.publish(np0, 50, &open).unwrap();
            },
        ];
        for (number, spoil) in spoil.into_iter().enumerate() {
            spoil(&mut node);
            let drift = node.dataplane.audit(&program).unwrap();
            assert!(!drift.is_none(), "case {number}");
            node.enforce(&program);
            let drift = node.dataplane.audit(&program).unwrap();
            assert!(drift.is_none(), "case {number}: {drift:?}");
            assert!(is_web(&mut node));
        }
    });
}

#[test]
fn interfaces_may_share_a_word() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        ip(&format!(
            "link add np3 index {} type veth peer name peer3",
            index("np0") + abi::INTERFACES
        ));
        let mut all = web();
        all.push(Object::Endpoint(pod(3)));
        node.apply(&all);
        assert!(is_web(&mut node));
        let probe = Packet::tcp((address(1, false), 9), (address(3, false), 81), SYN);
        assert_eq!(node.judges(Side::To, "np3", &probe, 1), Allow);
        assert!(node.dataplane.audit(&program(&all)).unwrap().is_none());
        node.apply(&web());
        assert!(is_web(&mut node));
        assert!(node.dataplane.audit(&program(&web())).unwrap().is_none());
    });
}

#[test]
fn maps_of_another_size_take_over() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        node.apply(&web());
        let Node { dataplane, pins } = node;
        drop(dataplane);
        let larger = Capacity { endpoints: 100, ..Capacity::small() };
        let dataplane =
            EbpfDataplane::open(EbpfConfig { capacity: larger, ..config(&pins) }).unwrap();
        let mut node = Node { dataplane, pins };
        let endpoints = program(&web()).endpoints.into();
        node.dataplane.apply(Update::new(1, Change::Isolate(endpoints))).unwrap();
        assert!(node.state().maps.published().unwrap().is_empty(), "the old maps are in force");
        node.apply(&web());
        assert!(is_web(&mut node));
        assert_eq!(attached("np0"), 2);
        let folder = listing(&node.pins, "netpol").pop().unwrap();
        assert_eq!(
            listing(&node.pins, &format!("netpol/{folder}")).len(),
            2,
            "links and one folder of maps"
        );
    });
}

#[test]
fn an_update_may_come_from_another_namespace() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let program = program(&web());
        let mut node = in_namespace(move || {
            node.enforce(&program);
            node.dataplane.remove().unwrap();
            node.enforce(&program);
            node
        });
        assert_eq!(attached("np0"), 2);
        assert!(is_web(&mut node));
    });
}

#[test]
fn refusals_say_why() {
    in_namespace(|| {
        let elsewhere = EbpfConfig { bpf_fs: "/".into(), ..EbpfConfig::default() };
        assert!(matches!(EbpfDataplane::open(elsewhere), Err(EbpfError::NoBpfFs { .. })));
        let pins = PrivateBpfFs::new().unwrap();
        for owner in ["", "a.b", "../x", &"x".repeat(65)] {
            let named = EbpfConfig { owner: owner.to_owned(), ..config(&pins) };
            assert!(matches!(EbpfDataplane::open(named), Err(EbpfError::Owner { .. })), "{owner}");
        }
    });
}

/// A pod's end of `np0` in a namespace of its own, with routes: 10.0.0.1, and the node is 10.0.0.254.
fn with_pod<T: Send + 'static>(
    node: impl FnOnce() -> T + Send + 'static,
    in_pod: impl FnOnce() + Send + 'static,
) -> T {
    in_namespace(move || {
        ip("link set lo up");
        let (tell, told) = std::sync::mpsc::channel();
        let (ready, go) = std::sync::mpsc::channel::<()>();
        let pod = thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(nix::unistd::gettid()).unwrap();
            go.recv().unwrap();
            ip("link set lo up");
            ip("addr add 10.0.0.1/24 dev peer0");
            ip("link set peer0 up");
            in_pod();
        });
        interfaces(3);
        let pod_thread = told.recv().unwrap();
        ip(&format!("link set peer0 netns {pod_thread}"));
        ip("addr add 10.0.0.254/24 dev np0");
        ip("link set np0 up");
        ready.send(()).unwrap();
        let result = node();
        pod.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result
    })
}

/// The pod sends to an allowed and a denied port of the node, while processes come and go and policy changes.
fn never_lost_never_leaked(hook: Hook) {
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let (sent, count) = std::sync::mpsc::channel();
    let in_pod = move || {
        let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
        let mut number = 0_u32;
        // Until the node listens and enforces, which the first datagram that comes back tells.
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut buffer = [0; 8];
        while socket.recv(&mut buffer).is_err() {
            let _ = socket.send_to(b"hello", "10.0.0.254:7000");
        }
        while !done.load(Ordering::Relaxed) {
            number += 1;
            socket.send_to(&number.to_ne_bytes(), "10.0.0.254:7001").unwrap();
            socket.send_to(&number.to_ne_bytes(), "10.0.0.254:7002").unwrap();
            thread::sleep(Duration::from_micros(100));
        }
        sent.send(number).unwrap();
    };
    let on_node = move || {
        let pins = PrivateBpfFs::new().unwrap();
        let config = EbpfConfig { hook, ..config(&pins) };
        let generation = |number: u16| {
            let allowed = [(7000, 7001), (8000 + number, 8000 + number)];
            let rules = vec![to_ports(Transport::Udp, &allowed)];
            program(&objects(vec![policy("out", Direction::Egress, rules)]))
        };
        let open = || EbpfDataplane::open(config.clone()).unwrap();
        let mut dataplane = open();
        assert!(dataplane.apply(full(&generation(0))).unwrap().isolated.is_empty());
        let bind = |port: u16| UdpSocket::bind(SocketAddr::from(([10, 0, 0, 254], port))).unwrap();
        let (hello, allowed, denied) = (bind(7000), bind(7001), bind(7002));
        let receiver = thread::spawn(move || {
            // Room for what comes while this thread waits for a processor.
            setsockopt(&allowed, RcvBufForce, &(32 << 20)).unwrap();
            allowed.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut buffer = [0; 8];
            let mut count = 0_u32;
            while allowed.recv(&mut buffer).is_ok() {
                count += 1;
            }
            count
        });
        let (_, pod) = hello.recv_from(&mut [0; 8]).unwrap();
        hello.send_to(b"go", pod).unwrap();
        for number in 0..10 {
            for change in 0..4 {
                assert!(
                    dataplane
                        .apply(full(&generation(number * 4 + change)))
                        .unwrap()
                        .isolated
                        .is_empty()
                );
            }
            drop(dataplane);
            dataplane = open();
        }
        stop.store(true, Ordering::Relaxed);
        let sent: u32 = count.recv().unwrap();
        assert!(sent > 1000, "only {sent} datagrams");
        assert_eq!(receiver.join().unwrap(), sent, "what is allowed is never lost");
        denied.set_nonblocking(true).unwrap();
        assert!(denied.recv(&mut [0; 8]).is_err(), "what is denied never passes");
        dataplane.remove().unwrap();
    };
    with_pod(on_node, in_pod);
}

#[test]
fn nothing_is_lost_or_leaked_while_processes_come_and_go() {
    never_lost_never_leaked(Hook::Tcx);
}

#[test]
fn filters_do_the_same_where_there_is_no_tcx() {
    never_lost_never_leaked(Hook::Clsact);
}

#[test]
fn modes_are_switched_in_place() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let closed = || vec![policy("in", Direction::Ingress, vec![])];
        let probe = Packet::tcp((address(1, true), 9), (address(0, true), 81), SYN);
        for (mode, verdict) in [
            (Mode::Enforce, Deny),
            (Mode::Audit, Allow),
            (Mode::Isolate, Deny),
            (Mode::Enforce, Deny),
        ] {
            node.apply(&objects_in(mode, closed()));
            assert_eq!(node.receives(&probe), verdict, "{mode:?}");
        }
    });
}

#[test]
fn an_address_that_changes_hands_ends_its_flows() {
    in_namespace(|| {
        let mut node = Node::new(vec![policy("in", Direction::Ingress, vec![])]);
        for v6 in [false, true] {
            let query = Packet::udp((address(0, v6), 5), (address(1, v6), 6));
            let other = Packet::udp((address(0, v6), 5), (address(2, v6), 6));
            node.apply(&objects(vec![policy("in", Direction::Ingress, vec![])]));
            assert_eq!((node.sends(&query), node.sends(&other)), (Allow, Allow));
            let mut successor = objects(vec![policy("in", Direction::Ingress, vec![])]);
            if let Some(Object::Endpoint(pod)) = successor.get_mut(1) {
                pod.id = pod.id.clone().with_uid("2");
            }
            let applied = node.dataplane.apply(full(&program(&successor))).unwrap();
            assert_eq!(applied.revoked, 1);
            assert_eq!(node.receives(&query.reply()), Deny);
            assert_eq!(node.receives(&other.reply()), Allow);
        }
    });
}

#[test]
fn revoked_flows_stop_at_another_interface_too() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let program = |policies: Vec<Policy>, interface: &str| {
            let mut objects = objects(policies);
            if let Some(Object::Endpoint(pod)) = objects.first_mut() {
                *pod = pod.clone().attached_to(interface);
            }
            let mut program = program(&objects);
            program.established = Established::Reevaluate;
            program
        };
        let denying = || vec![policy("in", Direction::Ingress, vec![])];
        let syn = Packet::tcp((address(1, false), 9), (address(0, false), 80), SYN);
        let next = syn.clone().with_flags(ACK);
        interface(3);
        for (before, after) in [("np0", "np0"), ("np0", "np3")] {
            ip("link del np0");
            interface(0);
            node.enforce(&program(vec![], before));
            let [first, second] = [&syn, &next].map(|it| node.judges(Side::To, before, it, 1));
            assert_eq!((first, second), (Allow, Allow));
            // Its packets are not seen by then.
            node.enforce(&program(denying(), before));
            if before == after {
                ip("link del np0");
                interface(0);
            }
            node.enforce(&program(denying(), after));
            assert_eq!(node.judges(Side::To, after, &next, 1), Deny, "from {before} to {after}");
        }
    });
}

#[test]
fn a_newcomer_at_a_known_interface_is_closed() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let mut changed = pod(0);
        changed.addresses = vec!["10.0.0.77".parse().unwrap()];
        for pod in [changed, {
            let mut pod = pod(0);
            pod.id = pod.id.with_uid("2");
            pod
        }] {
            node.apply(&web());
            assert!(is_web(&mut node));
            let endpoints = program(&[Object::Endpoint(pod)]).endpoints.into();
            node.dataplane.apply(Update::new(1, Change::Isolate(endpoints))).unwrap();
            assert!(!is_web(&mut node));
        }
    });
}

/// Returns the names of the links and markers of an owner.
fn pinned(node: &Node) -> Vec<String> {
    let folder = listing(&node.pins, "netpol").pop().unwrap();
    listing(&node.pins, &format!("netpol/{folder}/links"))
}

#[test]
fn many_interfaces_get_filters_at_once_and_links_later() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let mut all = web();
        for number in 3..9 {
            ip(&format!("link add np{number} type veth peer name peer{number}"));
            all.push(Object::Endpoint(pod(number)));
        }
        let mut links = Vec::new();
        for _ in 0..6 {
            node.apply(&all);
            for number in 0..9 {
                assert!(node.state().programs.guard(index(&format!("np{number}"))), "np{number}");
            }
            assert!(node.dataplane.audit(&program(&all)).unwrap().is_none());
            let names = pinned(&node);
            links.push((names.len(), names.iter().filter(|it| it.ends_with("-filter")).count()));
        }
        // Two of three in the beginning, and two with each update.
        assert_eq!(links, [(13, 5), (15, 3), (17, 1), (18, 0), (18, 0), (18, 0)]);
        assert!((0..9).all(|number| attached(&format!("np{number}")) == 2));
        node.apply(&[]);
        assert_eq!(pinned(&node), Vec::<String>::new());
    });
}

#[test]
fn what_others_detach_is_seen_and_attached_again() {
    let tc = |arguments: &str| {
        let status = std::process::Command::new("tc").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "tc {arguments}");
    };
    in_namespace(move || {
        for hook in [Hook::Clsact, Hook::Tcx] {
            let mut node = Node::new(vec![]);
            node.dataplane.remove().unwrap();
            drop(node.dataplane);
            let config = EbpfConfig { hook, ..config(&node.pins) };
            node.dataplane = EbpfDataplane::open(config).unwrap();
            node.apply(&web());
            let np0 = index("np0");
            assert!(node.state().programs.guard(np0));
            match hook {
                Hook::Clsact => tc("qdisc del dev np0 clsact"),
                _ => {
                    let pin = node.state().pins.link(np0, Side::To);
                    crate::sys::detach_link(&pin).unwrap();
                }
            }
            assert!(!node.state().programs.guard(np0));
            let drift = node.dataplane.audit(&program(&web())).unwrap();
            assert!(!drift.is_none(), "{hook:?}");
            node.apply(&web());
            assert!(node.state().programs.guard(np0));
            assert!(node.dataplane.audit(&program(&web())).unwrap().is_none());
            for number in 0..3 {
                ip(&format!("link del np{number}"));
            }
        }
    });
}

#[test]
fn there_is_one_process_at_a_time() {
    in_namespace(|| {
        let node = Node::new(vec![]);
        let second = EbpfDataplane::open(config(&node.pins));
        assert!(matches!(second, Err(EbpfError::Busy { .. })), "{second:?}");
        let other = EbpfConfig { owner: "other".into(), ..config(&node.pins) };
        assert!(EbpfDataplane::open(other).is_ok());
        let mut node = reopen(node);
        node.apply(&web());
        assert!(is_web(&mut node));
    });
}

#[test]
fn what_a_crash_left_takes_no_room_for_good() {
    use crate::ids::Kind;
    use crate::render::Map;

    in_namespace(|| {
        let mut node = Node::new(vec![]);
        // Lists of ports with source ports are at the end of a long way from the records.
        let long: Vec<(u16, u16)> = (1..=40).map(|it| (it * 1000, it * 1000 + 137)).collect();
        let lists = || {
            objects(vec![policy("in", Direction::Ingress, vec![to_ports(Transport::Tcp, &long)])])
        };
        node.apply(&lists());
        let probe = |port| Packet::tcp((address(1, false), 9), (address(0, false), port), SYN);
        let left = node.state().maps.fill(Kind::Space, 1_000_000, Map::Prefixes4);
        assert!(left > 4000, "{left}");
        assert_eq!((node.receives(&probe(1000)), node.receives(&probe(999))), (Allow, Deny));
        let nets: Vec<String> =
            (0..3000_u32).map(|it| format!("10.{}.{}.0/25", it / 256, it % 256)).collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let mut all = lists();
        all.push(Object::Policy(policy("out", Direction::Egress, vec![to_nets(&nets)])));
        node.state().reclaim().unwrap();
        assert_eq!((node.receives(&probe(1000)), node.receives(&probe(999))), (Allow, Deny));
        node.state().maps.fill(Kind::Space, 1_000_000, Map::Prefixes4);
        node.apply(&all);
        assert!(node.dataplane.audit(&program(&all)).unwrap().is_none());
    });
}

#[test]
fn what_cannot_be_put_in_force_lets_nothing_pass() {
    in_namespace(|| {
        let closed = || objects(vec![policy("in", Direction::Ingress, vec![])]);
        let mut node = Node::new(vec![]);
        node.apply(&closed());
        let query = Packet::udp((address(0, false), 5), (address(1, false), 6));
        assert_eq!((node.sends(&query), node.receives(&query.reply())), (Allow, Allow));
        let mut all = closed();
        if let Some(Object::Endpoint(pod)) = all.first_mut() {
            // More than all endpoints may have.
            pod.addresses.extend(
                (0..1000_u32).map(|it| {
                    std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + it))
                }),
            );
        }
        let applied = node.dataplane.apply(full(&program(&all))).unwrap();
        let [(id, error)] = applied.isolated.as_slice() else { panic!("{:?}", applied.isolated) };
        assert_eq!((id.name.as_str(), error.kind()), ("pod0", DataplaneErrorKind::Capacity));
        assert_eq!((node.sends(&query), node.receives(&query.reply())), (Deny, Deny));
        node.apply(&closed());
        assert_eq!(node.receives(&query.reply()), Deny, "its flows are forgotten");
        assert_eq!(node.sends(&query), Allow);
    });
}

#[test]
fn an_interface_with_the_index_of_one_that_is_gone_is_closed() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        node.apply(&web());
        let np1 = index("np1");
        ip("link del np1");
        let mut node = reopen(node);
        ip(&format!("link add np1 index {np1} type veth peer name peer1"));
        assert_eq!(attached("np1"), 0);
        let endpoints = program(&web()).endpoints.into();
        node.dataplane.apply(Update::new(1, Change::Isolate(endpoints))).unwrap();
        assert!(node.state().programs.guard(np1));
        let probe = Packet::tcp((address(2, false), 9), (address(1, false), 80), SYN);
        let to_np1 = |node: &mut Node| node.judges(Side::To, "np1", &probe, 1);
        assert_eq!(to_np1(&mut node), Deny);
        assert!(is_web(&mut node));
        node.apply(&web());
        assert_eq!(to_np1(&mut node), Allow);
    });
}
