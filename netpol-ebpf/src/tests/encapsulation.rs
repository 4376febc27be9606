//! Packets that carry others: endpoints may not send them, wherever policy stands.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_core::model::{Mode, Policy, Tunnel};
use netpol_core::program::{Established, Program};
use netpol_core::{Direction, Verdict};

use super::packet::{Packet, SYN};
use super::world::{
    DROPPED, Node, PASSED, address, config, in_namespace, index, objects, objects_in, policy,
    program, to_nets,
};
use crate::programs::Side;
use crate::{DenialReason, EbpfConfig, EbpfDataplane, EbpfError, ForeignSources};

use Verdict::{Allow, Deny};

fn denying(mut program: Program, tunnels: &[Tunnel]) -> Program {
    program.hosts.settings.denied_encapsulation = tunnels.iter().copied().collect();
    program
}

/// The addresses of the pod and of a stranger, for both families.
fn pairs() -> [(IpAddr, IpAddr); 2] {
    [false, true].map(|v6| (address(0, v6), address(1, v6)))
}

fn open() -> Vec<Policy> {
    vec![policy("out", Direction::Egress, vec![to_nets(&["0.0.0.0/0", "::/0"])])]
}

fn ip_in_ip(from: IpAddr, to: IpAddr) -> Packet {
    Packet::new(from, to, 4, vec![0; 20])
}

#[test]
fn no_endpoint_sends_packets_that_carry_others() {
    in_namespace(|| {
        let mut node = Node::new(Vec::new());
        for (policies, mode) in
            [(Vec::new(), Mode::Enforce), (open(), Mode::Enforce), (Vec::new(), Mode::Audit)]
        {
            node.apply(&objects_in(mode, policies));
            for (pod, stranger) in pairs() {
                let vxlan = |from: u16, to: u16| Packet::udp((pod, from), (stranger, to));
                assert_eq!(node.sends(&vxlan(5000, 4789)), Deny);
                assert_eq!(node.sends(&vxlan(5000, 4788)), Allow);
                assert_eq!(node.sends(&vxlan(4789, 5000)), Allow);
                assert_eq!(node.sends(&Packet::tcp((pod, 1), (stranger, 4789), SYN)), Allow);
                assert_eq!(node.sends(&ip_in_ip(pod, stranger)), Deny);
                assert_eq!(node.sends(&ip_in_ip(pod, pod)), Deny);
                // Another one: an answer would pass.
                let other = address(2, pod.is_ipv6());
                assert_eq!(node.receives(&ip_in_ip(other, pod)), Allow);
                let query = Packet::udp((stranger, 4789), (pod, 53));
                assert_eq!(node.receives(&query), Allow);
                assert_eq!(node.sends(&query.reply()), Allow, "an answer, to whatever port");
            }
            let denials = node.dataplane.denials().unwrap();
            let reasons: BTreeSet<_> = denials.iter().map(|it| (it.reason, it.audited)).collect();
            assert_eq!(reasons, [(DenialReason::Encapsulated, false)].into());
        }
    });
}

/// What cannot be read could carry others; policy alone would let it pass where there is none.
#[test]
fn nothing_hides_that_a_packet_carries_others() {
    in_namespace(|| {
        let mut node = Node::new(Vec::new());
        let (pod, stranger) = pairs()[0];
        let mut routed = Packet::udp((pod, 1), (stranger, 4789));
        routed.options = [vec![131, 7, 4], vec![10, 0, 0, 3], vec![0]].concat();
        let mut first = Packet::udp((pod, 1), (stranger, 4789));
        first.fragment = (0x2000, 99);
        let (pod, stranger) = pairs()[1];
        let mut long = Packet::udp((pod, 1), (stranger, 4789));
        long.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0]); 9];
        // A first fragment that ends before its headers do.
        let mut cut = Packet::udp((pod, 1), (stranger, 4789));
        let options = [vec![1, 1, 12], vec![0; 12]].concat();
        cut.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 77]), (60, options)];
        cut.length = Some(14 + 40 + 8 + 8);
        for packet in [&routed, &first, &long, &cut] {
            assert_eq!(node.sends(packet), Deny, "{packet:?}");
        }
        node.enforce(&denying(program(&objects(Vec::new())), &[]));
        for packet in [&routed, &first, &long, &cut] {
            assert_eq!(node.sends(packet), Allow, "{packet:?}");
        }
    });
}

/// The kernel takes tags of no network away after the programs have seen the packet.
#[test]
fn nothing_that_carries_others_hides_behind_tags() {
    in_namespace(|| {
        let Node { dataplane, pins } = Node::new(Vec::new());
        drop(dataplane);
        let foreign_sources = ForeignSources::Judge;
        let config = EbpfConfig { foreign_sources, ..config(&pins) };
        let mut node = Node { dataplane: EbpfDataplane::open(config).unwrap(), pins };
        let (pod, stranger) = pairs()[0];
        let bytes = ip_in_ip(pod, stranger).bytes();
        let tagged = [&bytes[..12], &[0x81, 0, 0, 0], &bytes[12..]].concat();
        let np0 = index("np0");
        for (tunnels, want) in [(&[Tunnel::IpInIp][..], DROPPED), (&[], PASSED)] {
            node.enforce(&denying(program(&objects(Vec::new())), tunnels));
            let [sent, received] = [Side::From, Side::To]
                .map(|side| node.state().programs.run(side, &tagged, np0, 1, 1).0);
            assert_eq!((sent, received), (want, PASSED), "{tunnels:?}");
        }
    });
}

#[test]
fn settings_say_what_carries_others() {
    in_namespace(|| {
        let mut node = Node::new(Vec::new());
        let (pod, stranger) = pairs()[0];
        for (round, ports) in (0..).zip([&[][..], &[4790], &[1, 0, 3, 4790]]) {
            let tunnels: Vec<_> = ports.iter().copied().map(Tunnel::Udp).collect();
            node.enforce(&denying(program(&objects(open())), &tunnels));
            for port in [0, 1, 2, 3, 4, 4789, 4790] {
                let want = if ports.contains(&port) { Deny } else { Allow };
                // From another port each time: flows that are known pass.
                let packet = Packet::udp((pod, 6000 + round), (stranger, port));
                assert_eq!(node.sends(&packet), want, "{port} of {ports:?}");
            }
        }
        assert_eq!(node.sends(&ip_in_ip(pod, stranger)), Allow);
        let ports: Vec<_> = (1..6).map(Tunnel::Udp).collect();
        let many = denying(program(&objects(open())), &ports);
        let error = node.state().enforce(&many).unwrap_err();
        assert!(matches!(error, EbpfError::Tunnels { needed: 5 }), "{error:?}");
    });
}

#[test]
fn flows_that_carry_others_stop_where_flows_are_judged_again() {
    in_namespace(|| {
        let mut node = Node::new(Vec::new());
        let program = |established, tunnels: &[Tunnel]| {
            let mut program = denying(program(&objects(open())), tunnels);
            program.established = established;
            program
        };
        for (pod, stranger) in pairs() {
            for (established, want) in [(Established::Keep, Allow), (Established::Reevaluate, Deny)]
            {
                let vxlan = Packet::udp((pod, 5000), (stranger, 4789));
                node.enforce(&program(established, &[]));
                assert_eq!(node.sends(&vxlan), Allow);
                node.enforce(&program(established, &[Tunnel::Udp(4789)]));
                assert_eq!(node.receives(&vxlan.reply()), want, "{established:?}");
                assert_eq!(node.sends(&vxlan), want, "{established:?}");
            }
        }
    });
}
