//! Flows end when their endpoint goes, is isolated, or loses its address.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netpol_core::model::{EndpointId, Mode};
use netpol_core::program::Program;
use netpol_core::{Change, Dataplane, Update};
use nftnl_sys::libc;
use nix::unistd::{Pid, gettid};

use super::fake::Fake;
use super::kernel::{in_namespace, observe};
use super::program::Builder;
use crate::{NftConfig, NftDataplane};

/// A program of endpoints: name, UID, address, mode.
fn program(endpoints: &[(&str, &str, &str, Mode)]) -> Program {
    let mut builder = Builder::new();
    for &(name, uid, address, mode) in endpoints {
        let mut endpoint = builder.endpoint(name, &[address]);
        endpoint.id = EndpointId::workload("ns", name).with_uid(uid);
        endpoint.mode = mode;
        builder.add(endpoint);
    }
    builder.build()
}

/// Applies a program and returns how many flows ended.
fn apply(dataplane: &mut NftDataplane, program: &Program) -> u64 {
    let applied = dataplane.apply(Update::new(1, Change::Full(Arc::new(program.clone())))).unwrap();
    assert!(applied.isolated.is_empty());
    applied.revoked
}

fn open(fake: &Fake) -> NftDataplane {
    let dataplane =
        NftDataplane::with_kernel(Box::new(fake.clone()), NftConfig::default()).unwrap();
    fake.take_forgotten();
    dataplane
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn whoever_changes_hands_is_forgotten_and_nobody_else() {
    use Mode::{Audit, Enforce, Isolate};
    let before = [("a", "1", "10.0.0.1", Enforce), ("b", "1", "10.0.0.2", Enforce)];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str, Mode)], &'a [&'a str]);
    let cases: [Case<'_>; 7] = [
        ("nothing changes", &before, &[]),
        ("one goes", &before[1..], &["10.0.0.1"]),
        ("all go", &[], &["10.0.0.1", "10.0.0.2"]),
        ("same name, other endpoint", &[("a", "2", "10.0.0.1", Enforce), before[1]], &["10.0.0.1"]),
        ("other address", &[("a", "1", "10.0.0.9", Enforce), before[1]], &["10.0.0.1"]),
        ("isolated", &[("a", "1", "10.0.0.1", Isolate), before[1]], &["10.0.0.1"]),
        ("audited", &[("a", "1", "10.0.0.1", Audit), before[1]], &[]),
    ];
    for (case, after, want) in cases {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        apply(&mut dataplane, &program(&before));
        assert_eq!(fake.take_forgotten(), ips(&[]), "{case}: a first program ends no flow");
        apply(&mut dataplane, &program(after));
        assert_eq!(fake.take_forgotten(), ips(want), "{case}");
    }
}

#[test]
fn endpoints_that_are_isolated_before_the_program_is_known_have_no_flows() {
    let fake = Fake::default();
    apply(&mut open(&fake), &program(&[("a", "1", "10.0.0.1", Mode::Enforce)]));
    let mut dataplane = open(&fake);
    let both =
        program(&[("a", "1", "10.0.0.1", Mode::Enforce), ("b", "1", "10.0.0.2", Mode::Enforce)]);
    dataplane.apply(Update::new(1, Change::Isolate(both.endpoints.into()))).unwrap();
    assert_eq!(fake.take_forgotten(), ips(&["10.0.0.2"]), "`a` was adopted");
}

#[test]
fn what_could_not_be_forgotten_is_tried_again() {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    apply(&mut dataplane, &program(&[("a", "1", "10.0.0.1", Mode::Enforce)]));
    fake.fail_flows(Some(libc::ENOMEM));
    let update = Update::new(2, Change::Full(Arc::new(program(&[]))));
    dataplane.apply(update).unwrap_err();
    assert_eq!(fake.take_forgotten(), ips(&[]));
    fake.fail_flows(None);
    apply(&mut dataplane, &program(&[]));
    assert_eq!(fake.take_forgotten(), ips(&["10.0.0.1"]));
}

/// Returns how many flows the network namespace of the calling thread tracks.
fn tracked() -> usize {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    count.trim().parse().unwrap()
}

/// Waits for what the kernel does after it was asked to.
#[track_caller]
fn await_that(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "it does not become so");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_kernel_forgets_the_flows_of_both_ends_and_families() {
    in_namespace(|| {
        bring_up_loopback();
        let mut dataplane = NftDataplane::open(NftConfig::default()).unwrap();
        let pods = program(&[
            ("a", "1", "127.0.0.2", Mode::Enforce),
            ("b", "1", "2001:db8::2", Mode::Enforce),
        ]);
        apply(&mut dataplane, &pods);
        let send = |from: &str, to: &str| UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
        send("127.0.0.1:0", "127.0.0.2:9");
        send("127.0.0.2:0", "127.0.0.3:9");
        send("127.0.0.1:0", "127.0.0.3:9");
        send("[2001:db8::1]:0", "[2001:db8::2]:9");
        send("[2001:db8::2]:0", "[2001:db8::1]:9");
        send("[::1]:0", "[2001:db8::1]:9");
        await_that(|| tracked() == 6);
        assert_eq!(apply(&mut dataplane, &pods), 0, "nothing changed hands");
        assert_eq!(tracked(), 6);
        assert_eq!(apply(&mut dataplane, &program(&[("b", "1", "2001:db8::2", Mode::Enforce)])), 2);
        assert_eq!(tracked(), 4, "both flows of 127.0.0.2 end");
        assert_eq!(apply(&mut dataplane, &program(&[])), 2);
        assert_eq!(tracked(), 2, "flows of strangers go on");
    });
}

/// A forged packet to its sender must not open a flow: the replies would reach whoever it names as its source.
#[test]
fn a_forged_packet_opens_no_flow() {
    in_namespace(|| {
        let mut builder = Builder::new();
        let mut pod = builder.endpoint("pod", &["10.0.0.1", "10.0.0.2"]);
        let closed = builder.policy(super::program::deny_unless(Vec::new()));
        (pod.ingress, pod.egress) = (closed, closed);
        builder.add(pod);
        let mut dataplane = NftDataplane::open(NftConfig::default()).unwrap();
        apply(&mut dataplane, &builder.build());
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let node = gettid();
        in_namespace(move || {
            link_to(node);
            let send = |from: &str| {
                UdpSocket::bind((from, 53)).unwrap().send_to(b"x", "10.0.0.1:9").unwrap()
            };
            send("192.0.2.1");
            send("10.0.0.2");
        });
        let dropped = || {
            let packets = observe().packets;
            packets
                .iter()
                .filter(|(rule, _)| rule.starts_with("np:forged "))
                .map(|it| it.1)
                .sum::<u64>()
        };
        await_that(|| dropped() == 1 && tracked() == 1);
    });
}

/// Makes a pod of the calling thread's namespace. It has an address of somebody else beside one of its own two, and sends
/// what is for the other one to its node, the namespace of the thread `node`.
fn link_to(node: Pid) {
    let run = |command: &str| {
        let mut words = command.split(' ');
        let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
        assert!(status.success(), "{command}");
    };
    let pod = |arguments: &str| run(&format!("ip {arguments}"));
    let on_node = |arguments: &str| run(&format!("nsenter --net=/proc/{node}/ns/net {arguments}"));
    pod(&format!("link add eth0 address 02:00:00:00:00:02 type veth peer name pod netns {node}"));
    on_node("ip address add 10.0.0.254/32 dev pod");
    on_node("ip link set pod up");
    on_node("ip route add 10.0.0.0/24 dev pod");
    on_node("ip neigh add 10.0.0.1 lladdr 02:00:00:00:00:02 dev pod");
    on_node("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.pod.rp_filter=0");
    pod("address add 10.0.0.2/32 dev eth0");
    pod("address add 192.0.2.1/32 dev eth0");
    pod("link set eth0 up");
    pod("route add 10.0.0.254 dev eth0");
    pod("route add 10.0.0.1 via 10.0.0.254");
}

/// Brings the loopback interface up, with two addresses of IPv6 beside its own.
fn bring_up_loopback() {
    let address = |it| vec!["address", "add", it, "dev", "lo", "nodad"];
    let up = vec!["link", "set", "lo", "up"];
    for arguments in [up, address("2001:db8::1/128"), address("2001:db8::2/128")] {
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
    }
    // The kernel makes the routes to new addresses of IPv6 after it has said that it is done.
    let [one, two] = ["[2001:db8::1]:0", "[2001:db8::2]:0"].map(|it| UdpSocket::bind(it).unwrap());
    for (from, to) in [(&one, &two), (&two, &one)] {
        to.set_nonblocking(true).unwrap();
        await_that(|| {
            from.send_to(b"x", to.local_addr().unwrap()).unwrap();
            to.recv(&mut [0]).is_ok()
        });
    }
}
