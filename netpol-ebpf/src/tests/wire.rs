//! Real packets from pod to pod through a node that forwards: what `BPF_PROG_TEST_RUN` cannot show, because the kernel
//! changes packets before and after the programs see them.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netpol_core::model::{Object, Policy};
use netpol_core::net::Transport;
use netpol_core::{Dataplane, Direction};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

use super::packet::{Packet, checksum};
use super::world::{address, config, full, in_namespace, ip, objects, policy, program, to_ports};
use crate::{EbpfDataplane, PrivateBpfFs};

/// How long a packet that is not denied may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The node's and the pods' ends of `np0`, `np1` and so on.
fn hardware(pod: usize, node: bool) -> [u8; 6] {
    [2, 0, 0, 0, u8::from(node), u8::try_from(pod).unwrap()]
}

fn text(hardware: [u8; 6]) -> String {
    hardware.map(|it| format!("{it:02x}")).join(":")
}

/// A pod's namespace, and a socket on its interface for frames.
pub(super) struct Pod {
    socket: OwnedFd,
    link: LinkAddr,
}

/// A node that forwards between pods.
pub(super) struct Wire {
    pods: Vec<Pod>,
    dataplane: EbpfDataplane,
    _pins: PrivateBpfFs,
}

impl Wire {
    /// Makes a node with three pods; pod 0 has policies.
    pub(super) fn new(policies: Vec<Policy>) -> Self {
        ip("link set lo up");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        let pods = (0..3).map(pod).collect();
        let pins = PrivateBpfFs::new().unwrap();
        let dataplane = EbpfDataplane::open(config(&pins)).unwrap();
        let mut wire = Self { pods, dataplane, _pins: pins };
        wire.apply(&objects(policies));
        wire
    }

    #[track_caller]
    pub(super) fn apply(&mut self, objects: &[Object]) {
        let applied = self.dataplane.apply(full(&program(objects))).unwrap();
        assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
    }

    fn send(&self, pod: usize, mut frame: Vec<u8>) {
        frame[..6].copy_from_slice(&hardware(pod, true));
        frame[6..12].copy_from_slice(&hardware(pod, false));
        let Pod { socket, link } = &self.pods[pod];
        sendto(socket.as_raw_fd(), &frame, link, MsgFlags::empty()).unwrap();
    }

    /// Sends frames and a datagram that is always allowed, both from one pod to another, and returns how many packets
    /// came out before that datagram that hold `mark`.
    pub(super) fn arrive(
        &self,
        from: usize,
        frames: Vec<Vec<u8>>,
        to: usize,
        mark: &[u8],
    ) -> usize {
        for frame in frames {
            self.send(from, frame);
        }
        let mut last =
            Packet::udp((address(pod_of(from), false), 9), (address(pod_of(to), false), 7));
        last.payload.extend_from_slice(b"this is the last one");
        self.send(from, last.bytes());
        let mut count = 0;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let Some(frame) = self.receive(to) else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            let holds = |mark: &[u8]| frame.windows(mark.len()).any(|it| it == mark);
            count += usize::from(holds(mark));
            if holds(b"this is the last one") {
                return count;
            }
        }
        panic!("the last datagram did not arrive");
    }

    fn receive(&self, pod: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        match recv(self.pods[pod].socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(Errno::EAGAIN) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn pod_of(pod: usize) -> u8 {
    u8::try_from(pod).unwrap()
}

/// Makes a pod's namespace with its end of a pair of interfaces, and the routes to it.
fn pod(number: usize) -> Pod {
    ip(&format!(
        "link add np{number} address {} type veth peer name peer{number} address {}",
        text(hardware(number, true)),
        text(hardware(number, false))
    ));
    let (tell, told) = std::sync::mpsc::channel();
    let (ready, go) = std::sync::mpsc::channel::<()>();
    let inside = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tell.send(nix::unistd::gettid()).unwrap();
        go.recv().unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        ip(&format!("link set peer{number} up"));
        let link = *getifaddrs()
            .unwrap()
            .find(|it| it.interface_name.starts_with("peer"))
            .and_then(|it| it.address)
            .unwrap()
            .as_link_addr()
            .unwrap();
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)
                .unwrap();
        bind(socket.as_raw_fd(), &link).unwrap();
        Pod { socket, link }
    });
    let thread = told.recv().unwrap();
    ip(&format!("link set peer{number} netns {thread}"));
    ready.send(()).unwrap();
    let pod = inside.join().unwrap();
    ip(&format!("link set np{number} up"));
    for v6 in [false, true] {
        let (to, family) = (address(pod_of(number), v6), if v6 { "-6" } else { "-4" });
        ip(&format!("{family} route add {to} dev np{number}"));
        let hardware = text(hardware(number, false));
        ip(&format!("{family} neigh replace {to} lladdr {hardware} dev np{number} nud permanent"));
    }
    pod
}

/// Runs nft in the namespace of the calling thread.
pub(super) fn nft(ruleset: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// Pod 0 takes UDP 7 and nothing else.
fn echo_only() -> Vec<Policy> {
    vec![policy("in", Direction::Ingress, vec![to_ports(Transport::Udp, &[(7, 7)])])]
}

pub(super) fn marked(mut packet: Packet) -> Packet {
    packet.payload.extend_from_slice(b"the mark");
    packet
}

#[test]
fn what_policy_allows_arrives_and_nothing_else() {
    in_namespace(|| {
        let wire = Wire::new(echo_only());
        for v6 in [false, true] {
            for (port, count) in [(7, 1), (8, 0)] {
                let packet = marked(Packet::udp((address(1, v6), 9), (address(0, v6), port)));
                assert_eq!(
                    wire.arrive(1, vec![packet.bytes()], 0, b"the mark"),
                    count,
                    "{v6} {port}"
                );
            }
        }
    });
}

#[test]
fn forged_sources_do_not_hide_behind_tags() {
    in_namespace(|| {
        let wire = Wire::new(vec![]);
        // Tags of no network: the kernel takes the first one away before the programs see the packet, the others later.
        let tagged = |source: u8, tags: usize| {
            let packet = marked(Packet::udp((address(source, false), 9), (address(0, false), 5)));
            let bytes = packet.bytes();
            [&bytes[..12], [0x81, 0, 0, 0].repeat(tags).as_slice(), &bytes[12..]].concat()
        };
        for (tags, of_own) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
            assert_eq!(
                wire.arrive(1, vec![tagged(1, tags)], 0, b"the mark"),
                of_own,
                "{tags} tags"
            );
            assert_eq!(wire.arrive(1, vec![tagged(2, tags)], 0, b"the mark"), 0, "{tags} tags");
        }
    });
}

/// A datagram in pieces of these sizes, of which the first is behind more headers than the others: then the kernel has no
/// room for them where it takes the datagram apart again, and makes new packets.
fn pieces(v6: bool, port: u16, sizes: &[usize]) -> Vec<Vec<u8>> {
    let (source, to) = (address(1, v6), address(0, v6));
    let mut whole = Packet::udp((source, 9), (to, port));
    let total: usize = sizes.iter().sum();
    whole.payload[4..6].copy_from_slice(&u16::try_from(total).unwrap().to_be_bytes());
    whole.payload.resize(total, 0x55);
    let mut offset = 0;
    let piece = |(index, size): (usize, &usize)| {
        let more = index + 1 < sizes.len();
        let mut piece = Packet::new(source, to, 17, whole.payload[offset..][..*size].to_vec());
        let eighths = u16::try_from(offset / 8).unwrap();
        piece.fragment = (eighths | if more { 0x2000 } else { 0 }, 77);
        let [high, low] = (eighths << 3 | u16::from(more)).to_be_bytes();
        piece.extensions = vec![(44, vec![0, high, low, 0, 0, 0, 77])];
        if index == 0 {
            piece.options = vec![1; 40];
            piece.extensions.insert(0, (60, [vec![7, 1, 60], vec![0; 60]].concat()));
        }
        offset += size;
        piece.bytes()
    };
    sizes.iter().enumerate().map(piece).collect()
}

#[test]
fn fragments_that_the_node_makes_anew_are_not_its_own() {
    in_namespace(|| {
        let wire = Wire::new(echo_only());
        // Who tracks connections puts datagrams together, and takes them apart again on the way out.
        nft(
            "table inet x { chain c { type filter hook prerouting priority 0; ct state new accept; }; }",
        );
        for v6 in [false, true] {
            for sizes in [&[1200, 800][..], &[8, 1200, 800], &[400, 400, 8, 400]] {
                for port in [7, 8] {
                    let frames = pieces(v6, port, sizes);
                    let arrived = wire.arrive(1, frames, 0, &[0x55; 8]);
                    assert_eq!(arrived > 0, port == 7, "{v6} {sizes:?} {port}: {arrived}");
                }
            }
        }
    });
}

#[test]
fn fragments_of_the_node_itself_arrive() {
    in_namespace(|| {
        let wire = Wire::new(echo_only());
        ip("addr add 10.0.0.200/32 dev lo");
        ip("addr add fd00::200/128 dev lo nodad");
        for v6 in [false, true] {
            let socket =
                std::net::UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            socket.send_to(&[0x55; 4000], (address(0, v6), 8)).unwrap();
            assert_eq!(wire.arrive(1, vec![], 0, &[0x55; 8]), 3, "IPv6: {v6}");
        }
    });
}

#[test]
fn discovery_does_not_leave_the_link() {
    in_namespace(|| {
        let closed =
            || vec![policy("out", Direction::Egress, vec![to_ports(Transport::Udp, &[(7, 7)])])];
        let wire = Wire::new(closed());
        ip("addr add fd00::200/128 dev np0 nodad");
        let message = |to: IpAddr, kind: u8, target: IpAddr, hops: u8| {
            let mut packet = Packet::icmp(address(0, true), to, kind, 0);
            packet.hops = hops;
            packet.payload.truncate(4);
            packet.payload.extend([0; 4]);
            let IpAddr::V6(target) = target else { panic!("IPv6") };
            packet.payload.extend(target.octets());
            // A nonce (RFC 3971, section 5.3.2).
            packet.payload.extend(b"\x0e\x01marked");
            checked(packet).bytes()
        };
        let other = address(1, true);
        for (kind, hops) in [(135, 255), (136, 255), (133, 255), (135, 64)] {
            let frame = message(other, kind, other, hops);
            assert_eq!(wire.arrive(0, vec![frame], 1, b"marked"), 0, "type {kind}");
        }
        // The node is asked for its own address, and answers.
        let node: std::net::Ipv6Addr = "fd00::200".parse().unwrap();
        let is_answer = |frame: Vec<u8>| {
            frame.get(12..14) == Some(&[0x86, 0xdd])
                && frame.get(54) == Some(&136)
                && frame.get(62..78) == Some(&node.octets())
        };
        let end = Instant::now() + PATIENCE;
        while !std::iter::from_fn(|| wire.receive(0)).any(is_answer) {
            assert!(Instant::now() < end, "the node does not answer");
            // The first answer can be lost while the interface comes up.
            wire.send(0, message(node.into(), 135, node.into(), 255));
            thread::sleep(Duration::from_millis(20));
        }
    });
}

/// Gives an ICMPv6 message its checksum (RFC 4443, section 2.3).
fn checked(mut packet: Packet) -> Packet {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        panic!("IPv6")
    };
    let length = u32::try_from(packet.payload.len()).unwrap().to_be_bytes();
    let whole =
        [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, 58], &packet.payload]
            .concat();
    packet.payload[2..4].copy_from_slice(&checksum(&whole));
    packet
}
