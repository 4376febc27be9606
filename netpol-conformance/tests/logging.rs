//! What Log rules write for packets, on dataplanes of netfilter.
//!
//! Needs root, as the other tests on topologies do.

#![cfg(all(feature = "iptables", feature = "nft"))]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::os::fd::{AsRawFd, OwnedFd};

use netpol_conformance::topology::Namespace;
use netpol_core::api::Strictness;
use netpol_core::api::calico::GlobalNetworkPolicy;
use netpol_core::model::Endpoint;
use netpol_core::net::Family;
use netpol_core::program::RuleId;
use netpol_core::{Change, Engine, NodeConfig, Program};
use netpol_nft::{LogRate, Logging, Period};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;

#[expect(dead_code, clippy::expect_used, reason = "test code, of which other tests use the rest")]
#[path = "packets/world.rs"]
mod world;

use self::world::{CLIENT, Kind, SERVER, World, converse, pod_address, pods, udp};

const GROUP: u16 = 7;

/// What is logged to a group in a network namespace.
struct Log(OwnedFd);

impl Log {
    /// Source of the numbers: `include/uapi/linux/netfilter/nfnetlink_log.h`.
    fn open(namespace: &Namespace) -> Self {
        let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkNetFilter);
        let open = || socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol);
        let log = Self(namespace.run(open).unwrap().unwrap());
        bind(log.0.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        setsockopt(&log.0, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500)).unwrap();
        // `NFULA_CFG_CMD`: `NFULNL_CFG_CMD_BIND`; `NFULA_CFG_MODE`: no bytes of packets (`NFULNL_COPY_META`);
        // `NFULA_CFG_QTHRESH`: each message on its own.
        log.configure(1, &[1]);
        log.configure(2, &[0, 0, 0, 0, 1, 0]);
        log.configure(5, &1_u32.to_be_bytes());
        log
    }

    fn configure(&self, attribute: u16, value: &[u8]) {
        let attribute_len = u16::try_from(4 + value.len()).unwrap();
        let mut body = vec![0, 0];
        body.extend(GROUP.to_be_bytes());
        body.extend(attribute_len.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
        // `NFNL_SUBSYS_ULOG`, `NFULNL_MSG_CONFIG`; `NLM_F_REQUEST | NLM_F_ACK`
        let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend([0x0401_u16, 0x0005].map(u16::to_ne_bytes).concat());
        message.extend([0; 8]);
        message.extend(body);
        let (socket, kernel) = (self.0.as_raw_fd(), NetlinkAddr::new(0, 0));
        sendto(socket, &message, &kernel, MsgFlags::empty()).unwrap();
        let answer = self.receive().unwrap();
        assert_eq!(answer[16..20], [0; 4], "an acknowledgement without an error");
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => return Some(buffer[..length].to_vec()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Returns the prefixes of all messages, until none comes for a while.
    fn prefixes(&self) -> Vec<String> {
        let mut prefixes = Vec::new();
        while let Some(bytes) = self.receive() {
            let mut rest = bytes.as_slice();
            while rest.len() >= 16 {
                let length = usize::try_from(u32::from_ne_bytes(rest[..4].try_into().unwrap()));
                let (message, after) = rest.split_at(length.unwrap().next_multiple_of(4));
                // `NFULNL_MSG_PACKET`
                if message[4..6] == 0x0400_u16.to_ne_bytes() {
                    prefixes.push(prefix(&message[20..]));
                }
                rest = after;
            }
        }
        prefixes
    }
}

/// Returns the `NFULA_PREFIX` of a message.
fn prefix(mut attributes: &[u8]) -> String {
    while attributes.len() >= 4 {
        let number = |at: usize| u16::from_ne_bytes([attributes[at], attributes[at + 1]]);
        let (length, kind) = (usize::from(number(0)), number(2));
        if kind == 10 {
            let text = attributes[4..length].strip_suffix(b"\0").unwrap();
            return String::from_utf8(text.to_vec()).unwrap();
        }
        attributes = &attributes[length.next_multiple_of(4)..];
    }
    panic!("a message without prefix");
}

/// Returns the program of a node whose server logs what comes in, and allows it.
fn program(interfaces: &[String], capabilities: &netpol_core::Capabilities) -> Program {
    let policy: GlobalNetworkPolicy = serde_json::from_value(json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "secret"},
        "spec": {
            "selector": "name == 'server'",
            "ingress": [{"action": "Log", "protocol": "UDP"}, {"action": "Allow"}],
        },
    }))
    .unwrap();
    let mut engine = Engine::new(NodeConfig::new("one"), capabilities);
    engine.upsert(policy.to_policy(Strictness::Strict).unwrap().value).unwrap();
    for ((name, number), interface) in pods().into_iter().zip(interfaces) {
        let mut pod = Endpoint::pod("x", name).on_node("one").attached_to(interface.clone());
        pod.addresses = vec![pod_address(number, Family::V4)];
        pod.labels = [("name", name)].into_iter().collect();
        engine.upsert(pod).unwrap();
    }
    engine.inputs_complete();
    loop {
        let update = engine.poll_update().unwrap();
        match update.change {
            Change::Full(program) => return Program::clone(&program),
            _ => engine.handle_applied(Ok(netpol_core::Applied::completely(update.generation))),
        }
    }
}

fn check(kind: Kind) {
    let world = World::new();
    let rate = LogRate::new(3, Period::Day).unwrap().with_burst(3).unwrap();
    let logging = Logging { group: GROUP, prefix: "(a b) %k %d %i: ".parse().unwrap(), rate };
    let mut dataplane = world.node().run(|| kind.open_with(logging)).unwrap();
    let program = program(&world.interfaces(), dataplane.capabilities());
    let full = Change::Full(program.clone().into());
    dataplane.apply(netpol_core::Update::new(1, full)).unwrap();

    let log = Log::open(world.node());
    let server = udp(world.pod(SERVER), pod_address(SERVER, Family::V4), 7001);
    for port in 9001..9008 {
        // The rate is one of messages; what they are about passes.
        let client = udp(world.pod(CLIENT), pod_address(CLIENT, Family::V4), port);
        converse(&client, &server);
    }
    let prefixes = log.prefixes();
    let [first, second, third] = prefixes.as_slice() else { panic!("{kind:?}: {prefixes:?}") };
    assert_eq!([first, first], [second, third]);
    let id = first.strip_prefix("(a b) gnp in ").and_then(|it| it.strip_suffix(": "));
    let id: RuleId = id.unwrap_or_else(|| panic!("{kind:?}: {first}")).parse().unwrap();
    let rule = program.rule(id).unwrap();
    assert_eq!(rule.origin.to_string(), "GlobalNetworkPolicy secret ingress[0]");
}

#[test]
fn messages_lead_to_rules_and_have_a_rate_of_their_own() {
    Kind::ALL.into_iter().for_each(check);
}
