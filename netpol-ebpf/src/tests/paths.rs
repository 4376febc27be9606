//! Packets that no policy is about, and ways through the program that a new flow does not take.

use std::net::IpAddr;

use netpol_core::model::{L4Match, Mode, Policy, RuleMatch};
use netpol_core::net::{Protocol, Transport};
use netpol_core::{Dataplane, Direction, Verdict};

use super::packet::{ACK, Packet, RST, SYN, SYN_ACK};
use super::world::{
    Node, address, in_namespace, index, objects, objects_in, policy, program, to_nets, to_ports,
};
use crate::programs::Side;
use crate::{DenialReason, Statistic};

use Verdict::{Allow, Deny};

/// Pod 0 takes TCP 80 and UDP 53 from everybody, and sends nothing on its own.
fn closed_but_for_two_ports() -> Vec<Policy> {
    vec![
        policy(
            "in",
            Direction::Ingress,
            vec![to_ports(Transport::Tcp, &[(80, 80)]), to_ports(Transport::Udp, &[(53, 53)])],
        ),
        policy("out", Direction::Egress, vec![]),
    ]
}

fn node(policies: Vec<Policy>, body: impl FnOnce(&mut Node) + Send + 'static) {
    in_namespace(|| body(&mut Node::new(policies)));
}

/// The addresses of pod 0 and of a stranger, for both families.
fn pairs() -> [(IpAddr, IpAddr); 2] {
    [false, true].map(|v6| (address(0, v6), address(1, v6)))
}

#[test]
fn replies_pass_and_nothing_else_does() {
    node(closed_but_for_two_ports(), |node| {
        for (pod, stranger) in pairs() {
            let query = Packet::udp((stranger, 4000), (pod, 53));
            assert_eq!(node.sends(&query.reply()), Deny, "an answer nobody asked for");
            assert_eq!(node.receives(&query), Allow);
            assert_eq!(node.sends(&query.reply()), Allow);
            assert_eq!(node.sends(&Packet::udp((pod, 53), (stranger, 4001))), Deny);
            assert_eq!(node.receives(&Packet::udp((stranger, 4000), (pod, 54))), Deny);
            let syn = Packet::tcp((stranger, 4000), (pod, 80), SYN);
            assert_eq!(node.receives(&syn), Allow);
            assert_eq!(node.sends(&syn.reply()), Allow);
            assert_eq!(node.receives(&syn.clone().with_flags(ACK)), Allow);
            assert_eq!(
                node.sends(&syn.reply().with_flags(SYN)),
                Deny,
                "a new connection from a known pair of ports"
            );
        }
    });
}

#[test]
fn pings_are_answered_and_answers_open_nothing() {
    let ping = RuleMatch { l4: L4Match::Is(Protocol::ICMP), ..RuleMatch::default() };
    let ping6 = RuleMatch { l4: L4Match::Is(Protocol::ICMPV6), ..RuleMatch::default() };
    let policies = vec![
        policy("in", Direction::Ingress, vec![ping, ping6]),
        policy("out", Direction::Egress, vec![]),
    ];
    node(policies, |node| {
        for ((pod, stranger), echo) in pairs().into_iter().zip([8, 128]) {
            let query = Packet::icmp(stranger, pod, echo, 0);
            assert_eq!(node.receives(&query.reply()), Allow, "policy allows every type");
            assert_eq!(
                node.sends(&Packet::icmp(pod, stranger, echo, 0)),
                Deny,
                "an answer is no flow"
            );
            assert_eq!(node.receives(&query), Allow);
            assert_eq!(node.sends(&query.reply()), Allow);
        }
    });
}

#[test]
fn established_flows_outlive_a_change_of_policy() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        let syn = Packet::tcp((stranger, 4000), (pod, 80), SYN);
        assert_eq!(node.receives(&syn), Allow);
        node.apply(&objects(vec![policy("in", Direction::Ingress, vec![])]));
        assert_eq!(node.receives(&syn.clone().with_flags(ACK)), Allow);
        assert_eq!(node.receives(&syn), Deny, "a new connection is judged, whatever its ports");
        assert_eq!(node.receives(&Packet::tcp((stranger, 4001), (pod, 80), SYN)), Deny);
    });
}

#[test]
fn revoked_flows_stop_in_both_directions_and_can_come_back() {
    use netpol_core::program::Established::Reevaluate;

    let reevaluated = |policies| {
        let mut program = program(&objects(policies));
        program.established = Reevaluate;
        program
    };
    node(Vec::new(), move |node| {
        let allowing =
            || vec![policy("in", Direction::Ingress, vec![to_ports(Transport::Tcp, &[(80, 80)])])];
        let denying = || vec![policy("in", Direction::Ingress, vec![])];
        for (pod, stranger) in pairs() {
            node.enforce(&reevaluated(allowing()));
            let syn = Packet::tcp((stranger, 4000), (pod, 80), SYN);
            let (there, back) = (syn.clone().with_flags(ACK), syn.reply().with_flags(ACK));
            assert_eq!(node.receives(&syn), Allow);
            assert_eq!(node.sends(&syn.reply()), Allow);
            node.enforce(&reevaluated(denying()));
            // The first packet after the change goes the other way, which nothing isolates.
            assert_eq!(node.sends(&back), Deny);
            assert_eq!(node.receives(&there), Deny);
            assert_eq!(
                node.sends(&back),
                Deny,
                "it would open the flow again, the wrong way round"
            );
            node.enforce(&reevaluated(allowing()));
            assert_eq!(node.receives(&there), Allow);
            assert_eq!(node.sends(&back), Allow);
        }
        let statistics = node.dataplane.statistics().unwrap();
        assert_eq!(statistics.get(&Statistic::Revoked), Some(&2));
    });
}

#[test]
fn isolation_ends_flows_for_good() {
    node(closed_but_for_two_ports(), |node| {
        for (pod, stranger) in pairs() {
            let query = Packet::udp((stranger, 4000), (pod, 53));
            assert_eq!(node.receives(&query), Allow);
            node.apply(&objects_in(Mode::Isolate, closed_but_for_two_ports()));
            assert_eq!(node.receives(&query), Deny);
            assert_eq!(node.sends(&query.reply()), Deny);
            assert_eq!(node.receives_from_node(&query), Deny);
            node.apply(&objects(closed_but_for_two_ports()));
            assert_eq!(node.sends(&query.reply()), Deny);
            assert_eq!(node.receives(&query), Allow);
        }
    });
}

#[test]
fn the_own_node_is_known_by_the_interface_and_not_by_an_address() {
    node(closed_but_for_two_ports(), |node| {
        for (pod, stranger) in pairs() {
            let probe = Packet::tcp((stranger, 4000), (pod, 8080), SYN);
            assert_eq!(node.receives(&probe), Deny);
            assert_eq!(node.receives_from_node(&probe), Allow);
            assert_eq!(node.sends(&probe.reply()), Allow);
            assert_eq!(node.receives_from_node(&Packet::udp((stranger, 1), (pod, 1))), Allow);
        }
    });
}

#[test]
fn a_pod_and_itself_are_outside_of_policy() {
    node(closed_but_for_two_ports(), |node| {
        let np0 = index("np0");
        for (pod, stranger) in pairs() {
            let own = Packet::tcp((pod, 4000), (pod, 8080), SYN);
            assert_eq!(node.sends(&own), Allow);
            assert_eq!(node.judges(Side::To, "np0", &own, np0), Allow);
            // The node may have put its own address on the way through a Service.
            let masked = Packet::tcp((stranger, 4000), (pod, 8081), SYN);
            assert_eq!(node.judges(Side::To, "np0", &masked, np0), Allow);
            let forged = Packet::tcp((pod, 4001), (pod, 8080), SYN);
            assert_eq!(node.receives(&forged), Deny, "it came from elsewhere");
        }
    });
}

#[test]
fn forged_sources_are_dropped() {
    node(Vec::new(), |node| {
        for (pod, stranger) in pairs() {
            assert_eq!(node.sends(&Packet::udp((pod, 1), (stranger, 2))), Allow);
            assert_eq!(
                node.sends(&Packet::udp((stranger, 1), (address(2, stranger.is_ipv6()), 2))),
                Deny
            );
        }
        let denials = node.dataplane.denials().unwrap();
        let reasons: Vec<_> = denials.iter().map(|denial| denial.reason).collect();
        assert_eq!(reasons, [DenialReason::Source; 2]);
    });
}

#[test]
fn discovery_always_passes_but_pods_are_no_routers() {
    node(closed_but_for_two_ports(), |node| {
        for mode in [Mode::Enforce, Mode::Isolate] {
            node.apply(&objects_in(mode, closed_but_for_two_ports()));
            let (pod, stranger) = pairs()[1];
            let link: IpAddr = "fe80::7".parse().unwrap();
            for kind in (130..=137).chain([143]) {
                let listener = matches!(kind, 130..=132 | 143);
                let (hops, pod, stranger) =
                    if listener { (1, link, link) } else { (255, pod, stranger) };
                let sent = Packet { hops, ..Packet::icmp(pod, stranger, kind, 0) };
                let verdict = if matches!(kind, 134 | 137) { Deny } else { Allow };
                assert_eq!(node.sends(&sent), verdict, "type {kind}");
                let received = Packet { hops, ..Packet::icmp(stranger, pod, kind, 0) };
                assert_eq!(node.receives(&received), Allow, "type {kind}");
            }
            // A host that has no address yet asks whether somebody has it (RFC 4862, section 5.4.2), and says who listens.
            let nobody: IpAddr = "::".parse().unwrap();
            for (kind, hops) in [(135, 255), (143, 1)] {
                let sent = Packet { hops, ..Packet::icmp(nobody, stranger, kind, 0) };
                assert_eq!(node.sends(&sent), Allow, "type {kind}");
            }
            // Listener reports come behind a hop-by-hop header (RFC 3810, section 5).
            let mut report = Packet::icmp(link, stranger, 143, 0);
            report.extensions = vec![(0, vec![0, 5, 2, 0, 0, 1, 0])];
            assert_eq!(node.sends(&report), Allow);
            let mut arp = Packet::udp((pod, 1), (stranger, 2)).bytes();
            (arp[12], arp[13]) = (8, 6);
            let np0 = index("np0");
            assert_eq!(node.state().programs.run(Side::From, &arp, np0, 1, 1).0, u32::MAX);
        }
    });
}

#[test]
fn errors_pass_with_their_flow_only() {
    node(closed_but_for_two_ports(), |node| {
        for ((pod, stranger), unreachable) in pairs().into_iter().zip([3, 1]) {
            let router = address(2, pod.is_ipv6());
            let query = Packet::udp((stranger, 4000), (pod, 53));
            let other = Packet::udp((stranger, 4000), (pod, 54));
            let of_pod = |about: &Packet| Packet::error(pod, stranger, unreachable, about);
            let of_router = |about: &Packet| Packet::error(router, pod, unreachable, about);
            assert_eq!(node.sends(&of_pod(&query)), Deny, "there is no flow yet");
            assert_eq!(node.receives(&query), Allow);
            assert_eq!(node.sends(&of_pod(&query)), Allow);
            assert_eq!(node.sends(&of_pod(&other)), Deny);
            let elsewhere = Packet::error(pod, router, unreachable, &query);
            assert_eq!(
                node.sends(&elsewhere),
                Deny,
                "an error goes to the sender, and to nobody else"
            );
            assert_eq!(node.receives(&of_router(&query.reply())), Allow);
            assert_eq!(node.receives(&of_router(&query)), Deny, "the pod did not send that");
            if pod.is_ipv4() {
                let mut later = query.reply();
                later.fragment = (1, 7);
                assert_eq!(node.receives(&of_router(&later)), Deny, "what it holds are no ports");
            }
            let mut short = of_router(&query.reply());
            short.payload.truncate(8 + if pod.is_ipv6() { 40 } else { 20 });
            assert_eq!(node.receives(&short), Deny);
            let syn = Packet::tcp((stranger, 9), (pod, 80), SYN);
            assert_eq!(node.receives(&syn), Allow);
            assert_eq!(node.receives(&of_router(&syn.reply())), Allow);
        }
    });
}

#[test]
fn errors_are_tied_to_pings_and_through_headers() {
    let ping = RuleMatch { l4: L4Match::Is(Protocol::ICMPV6), ..RuleMatch::default() };
    let policies = vec![
        policy("in", Direction::Ingress, vec![]),
        policy("out", Direction::Egress, vec![ping, to_ports(Transport::Udp, &[(53, 53)])]),
    ];
    node(policies, |node| {
        let (pod, stranger) = pairs()[1];
        let query = Packet::icmp(pod, stranger, 128, 0);
        assert_eq!(node.receives(&Packet::error(stranger, pod, 1, &query)), Deny);
        assert_eq!(node.sends(&query), Allow);
        assert_eq!(node.receives(&Packet::error(stranger, pod, 1, &query)), Allow);
        let mut datagram = Packet::udp((pod, 9), (stranger, 53));
        datagram.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
        assert_eq!(node.sends(&datagram), Allow);
        assert_eq!(node.receives(&Packet::error(stranger, pod, 3, &datagram)), Allow);
    });
}

#[test]
fn options_and_extension_headers_are_skipped() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        for (port, verdict) in [(80, Allow), (81, Deny)] {
            let mut packet = Packet::tcp((stranger, 4000), (pod, port), SYN);
            // Router alert (RFC 2113), which would read as ports if it were not skipped.
            packet.options = vec![0x94, 4, 0, 80, 0, 80, 0, 80];
            assert_eq!(node.receives(&packet), verdict);
        }
        let (pod, stranger) = pairs()[1];
        let padding =
            |length: u8| [vec![length, 1, 4], vec![0; 4 + usize::from(length) * 8]].concat();
        let authentication = [vec![4, 0, 0], vec![0; 20]].concat();
        let chains = [
            vec![(0, padding(0))],
            vec![(0, padding(1)), (43, padding(2)), (60, padding(0))],
            vec![(51, authentication.clone()), (60, padding(0))],
            vec![(60, padding(0)), (51, authentication)],
            vec![(60, padding(0)); 7],
        ];
        for extensions in chains {
            for (port, verdict) in [(80, Allow), (81, Deny)] {
                let mut packet = Packet::tcp((stranger, 4000), (pod, port), SYN);
                packet.extensions = extensions.clone();
                assert_eq!(node.receives(&packet), verdict, "{extensions:?}");
            }
        }
        let mut packet = Packet::tcp((stranger, 4000), (pod, 80), SYN);
        packet.extensions = vec![(60, padding(0)); 9];
        assert_eq!(node.receives(&packet), Deny, "more headers than are followed");
        let reasons: Vec<_> =
            node.dataplane.denials().unwrap().iter().map(|it| it.reason).collect();
        assert_eq!(reasons.last(), Some(&DenialReason::ExtensionHeaders));
    });
}

#[test]
fn fragments_follow_their_first_one() {
    const MORE: u16 = 0x2000;
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        let part = |port: u16, fragment: u16, id: u16| {
            let mut packet = Packet::udp((stranger, 4000), (pod, port));
            packet.fragment = (fragment, id);
            if fragment & 0x1fff != 0 {
                // What follows reads as allowed ports.
                packet.payload = vec![0, 53, 0, 53, 0, 53, 0, 53];
            }
            packet
        };
        assert_eq!(node.receives(&part(53, 1, 7)), Deny, "no first fragment");
        assert_eq!(node.receives(&part(53, MORE, 7)), Allow);
        assert_eq!(node.receives(&part(53, MORE | 1, 7)), Allow);
        assert_eq!(node.receives(&part(53, 2, 7)), Allow);
        assert_eq!(node.receives(&part(53, 2, 8)), Deny, "another datagram");
        assert_eq!(node.receives(&part(54, MORE, 9)), Deny);
        assert_eq!(node.receives(&part(54, 1, 9)), Deny);

        let (pod, stranger) = pairs()[1];
        let part = |port: u16, offset_more: u16, id: u8| {
            let mut packet = Packet::udp((stranger, 4000), (pod, port));
            let [high, low] = offset_more.to_be_bytes();
            packet.extensions = vec![(44, vec![0, high, low, 0, 0, 0, id])];
            packet
        };
        assert_eq!(node.receives(&part(53, 8, 7)), Deny, "no first fragment");
        assert_eq!(node.receives(&part(53, 1, 7)), Allow);
        assert_eq!(node.receives(&part(53, 8, 7)), Allow);
        assert_eq!(node.receives(&part(54, 1, 9)), Deny);
        assert_eq!(node.receives(&part(54, 8, 9)), Deny);
        assert_eq!(node.receives(&part(53, 0, 10)), Allow, "an atomic fragment (RFC 6946)");
        // Options may be in the first fragment only; the later ones have the same identification and another next header.
        let options = (60, vec![0, 1, 4, 0, 0, 0, 0]);
        let mut first = part(53, 1, 11);
        first.extensions.push(options);
        let mut later = part(53, 16, 11);
        later.protocol = 60;
        assert_eq!(node.receives(&later), Deny, "no first fragment");
        assert_eq!(node.receives(&first), Allow);
        assert_eq!(node.receives(&later), Allow);
    });
}

#[test]
fn fragments_do_not_replace_the_flags_of_tcp() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        let mut first = Packet::tcp((stranger, 4000), (pod, 80), SYN);
        first.fragment = (0x2000, 7);
        let mut later = first.clone();
        later.fragment = (0x2000 | 1, 7);
        assert_eq!(node.receives(&first), Allow);
        assert_eq!(node.receives(&later), Deny);
        later.fragment = (2, 7);
        assert_eq!(node.receives(&later), Allow);

        let (pod, stranger) = pairs()[1];
        let with_header = |flags: u8| {
            let mut part = Packet::tcp((stranger, 4000), (pod, 80), SYN);
            part.extensions = vec![(44, vec![0, 0, flags, 0, 0, 0, 7])];
            part
        };
        assert_eq!(node.receives(&with_header(1)), Allow);
        assert_eq!(node.receives(&with_header(8 | 1)), Deny);
        assert_eq!(node.receives(&with_header(16)), Allow);
    });
}

#[test]
fn fragments_are_the_own_nodes_only_with_a_socket() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[1];
        let mut part = Packet::udp((stranger, 4000), (pod, 54));
        part.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 7])];
        // The kernel gives packets of tests a socket; `wire` has those that have none.
        assert_eq!(node.receives_from_node(&part), Allow);
        assert_eq!(node.receives(&part), Allow, "the flow is known now");
    });
}

#[test]
fn forwarded_discovery_is_a_message_like_any_other() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[1];
        for kind in (130..=137).chain([143]) {
            let there = Packet { hops: 254, ..Packet::icmp(stranger, pod, kind, 0) };
            assert_eq!(node.receives(&there), Deny, "type {kind}");
            let back = Packet { hops: 254, ..Packet::icmp(pod, stranger, kind, 0) };
            assert_eq!(node.sends(&back), Deny, "type {kind}");
        }
    });
}

#[test]
fn further_destinations_are_refused() {
    let nets = ["10.0.0.0/8", "fd00::/16"];
    node(vec![policy("out", Direction::Egress, vec![to_nets(&nets)])], |node| {
        let (pod, stranger) = pairs()[0];
        let address = [10, 0, 0, 3];
        for (options, verdict) in [
            (vec![1, 1, 1, 0], Allow),
            (vec![148, 4, 0, 0], Allow),
            ([vec![131, 7, 4], address.to_vec(), vec![0]].concat(), Deny),
            ([vec![137, 7, 4], address.to_vec(), vec![0]].concat(), Deny),
            ([vec![1; 32], vec![131, 7, 4], address.to_vec(), vec![0]].concat(), Deny),
            ([vec![7, 7, 4], address.to_vec(), vec![0]].concat(), Allow),
            ([vec![0; 4], vec![131, 7, 4], address.to_vec(), vec![0]].concat(), Allow),
            (vec![7, 1, 1, 1], Deny),
        ] {
            let packet = Packet { options, ..Packet::udp((pod, 1), (stranger, 2)) };
            assert_eq!(node.sends(&packet), verdict, "{:?}", packet.options);
        }
        let (pod, stranger) = pairs()[1];
        for (left, verdict) in [(0, Allow), (1, Deny)] {
            let mut packet = Packet::udp((pod, 1), (stranger, 2));
            packet.extensions = vec![(43, [vec![2, 4, left], vec![0; 20]].concat())];
            assert_eq!(node.sends(&packet), verdict, "{left} left");
        }
        let reasons: Vec<_> =
            node.dataplane.denials().unwrap().iter().map(|it| it.reason).collect();
        assert_eq!(reasons.last(), Some(&DenialReason::SourceRoute));
    });
}

#[test]
fn extensions_that_the_kernel_does_not_follow_are_protocols() {
    let mobility = RuleMatch { l4: L4Match::Is(Protocol::new(135)), ..RuleMatch::default() };
    let policies =
        || vec![policy("in", Direction::Ingress, vec![to_ports(Transport::Udp, &[(53, 53)])])];
    node(policies(), move |node| {
        let (pod, stranger) = pairs()[1];
        let mut packet = Packet::udp((stranger, 4000), (pod, 53));
        packet.extensions = vec![(135, vec![0, 0, 0, 0, 0, 0, 0])];
        assert_eq!(node.receives(&packet), Deny);
        let policies = vec![policy("in", Direction::Ingress, vec![mobility])];
        node.apply(&objects(policies));
        assert_eq!(node.receives(&packet), Allow);
    });
}

#[test]
fn headers_may_be_anywhere() {
    node(closed_but_for_two_ports(), |node| {
        for (pod, stranger) in pairs() {
            // One byte less than the header of TCP that the program looks at.
            let whole = Packet::tcp((stranger, 4000), (pod, 80), SYN);
            let short = Packet { length: Some(whole.bytes().len() - 7), ..whole.clone() };
            assert_eq!(node.receives(&short), Deny);
            assert_eq!(node.receives(&whole), Allow);
        }
    });
}

#[test]
fn a_flow_that_another_processor_has_just_seen_is_live() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        let query = Packet::udp((stranger, 4000), (pod, 53));
        assert_eq!(node.receives(&query), Allow);
        node.state().maps.age_flows(-5);
        assert_eq!(node.sends(&query.reply()), Allow);
        node.state().maps.age_flows(1_000_000);
        assert_eq!(node.sends(&query.reply()), Deny, "it was idle for too long");
    });
}

#[test]
fn what_was_revoked_comes_back_also_where_flows_are_kept() {
    use netpol_core::program::Established::{Keep, Reevaluate};

    let closed = || vec![policy("in", Direction::Ingress, vec![])];
    node(closed_but_for_two_ports(), move |node| {
        let (pod, stranger) = pairs()[0];
        let there = Packet::udp((stranger, 4000), (pod, 53));
        let enforce = |node: &mut Node, policies, established| {
            let mut program = program(&objects(policies));
            program.established = established;
            node.enforce(&program);
            node.receives(&there)
        };
        for (open, established, verdict) in [
            (true, Reevaluate, Allow),
            (false, Reevaluate, Deny),
            (false, Keep, Deny),
            (true, Keep, Allow),
            (false, Keep, Allow),
        ] {
            let policies = if open { closed_but_for_two_ports() } else { closed() };
            assert_eq!(enforce(node, policies, established), verdict, "{open} {established:?}");
        }
    });
}

#[test]
fn where_sources_are_not_checked_nobody_answers_for_others() {
    in_namespace(|| {
        let to_itself = || vec![policy("out", Direction::Egress, vec![to_nets(&["10.0.0.1/32"])])];
        let Node { dataplane, pins } = Node::new(vec![]);
        drop(dataplane);
        let foreign_sources = crate::ForeignSources::Judge;
        let config = crate::EbpfConfig { foreign_sources, ..super::world::config(&pins) };
        let mut node = Node { dataplane: crate::EbpfDataplane::open(config).unwrap(), pins };
        node.apply(&objects(to_itself()));
        let np0 = index("np0");
        let (pod, stranger) = pairs()[0];
        let forged = Packet::udp((stranger, 4000), (pod, 53));
        assert_eq!(node.sends(&forged), Allow, "the pod may talk to itself");
        assert_eq!(node.judges(Side::To, "np0", &forged, np0), Allow, "nothing isolates it");
        let own = Packet::udp((pod, 4000), (pod, 53));
        assert_eq!(node.judges(Side::To, "np0", &own, np0), Allow);
        let isolated = || vec![policy("in", Direction::Ingress, vec![]), to_itself().remove(0)];
        node.apply(&objects(isolated()));
        let forged = Packet::udp((stranger, 4001), (pod, 53));
        assert_eq!(node.judges(Side::To, "np0", &forged, np0), Deny);
        assert_eq!(node.sends(&forged.reply()), Deny);
        assert_eq!(node.judges(Side::To, "np0", &own, np0), Allow);
    });
}

#[test]
fn an_interface_tells_of_so_many_denials_and_no_more() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        let denied = Packet::udp((stranger, 4000), (pod, 54));
        let other = Packet::udp((address(2, false), 1), (pod, 1));
        for _ in 0..500 {
            node.receives(&denied);
        }
        let told = node.dataplane.denials().unwrap().len();
        let statistics = node.dataplane.statistics().unwrap();
        let limited = statistics[&Statistic::LimitedEvents];
        // The second may have ended in between.
        assert!((100..=200).contains(&told), "{told}");
        assert_eq!(told as u64 + limited, 500);
        assert_eq!(statistics[&Statistic::Dropped], 500);
        assert_eq!(node.judges(Side::From, "np1", &other, 0), Deny);
        assert_eq!(node.dataplane.denials().unwrap().len(), 1, "others are heard");
    });
}

#[test]
fn what_cannot_be_judged_passes_only_where_everything_does() {
    let odd = || {
        let (pod, stranger) = pairs()[0];
        let mut cut = Packet::tcp((stranger, 4000), (pod, 80), SYN);
        cut.length = Some(14 + 20 + 6);
        let mut wrong = Packet::tcp((stranger, 4000), (pod, 80), SYN).bytes();
        wrong[14] = 0x43;
        let mut later = Packet::udp((stranger, 4000), (pod, 53));
        later.fragment = (1, 99);
        let mut other = later.bytes();
        (other[12], other[13]) = (0x88, 0xcc);
        [cut.bytes(), wrong, later.bytes(), other]
    };
    node(closed_but_for_two_ports(), move |node| {
        let np0 = index("np0");
        let run =
            |node: &mut Node| odd().map(|it| node.state().programs.run(Side::To, &it, np0, 1, 1).0);
        assert_eq!(run(node), [2; 4]);
        let reasons: Vec<_> =
            node.dataplane.denials().unwrap().iter().map(|it| it.reason).collect();
        use DenialReason::{EtherType, Fragment, Malformed};
        assert_eq!(reasons, [Malformed, Malformed, Fragment, EtherType]);
        node.apply(&objects(vec![]));
        assert_eq!(run(node), [u32::MAX; 4]);
        node.apply(&objects_in(Mode::Audit, closed_but_for_two_ports()));
        assert_eq!(run(node), [u32::MAX; 4]);
        let denials = node.dataplane.denials().unwrap();
        assert!(denials.len() == 4 && denials.iter().all(|it| it.audited), "{denials:?}");
    });
}

#[test]
fn long_rows_and_prefixes_are_looked_up() {
    let ranges: Vec<(u16, u16)> = (1..=40).map(|it| (it * 1000, it * 1000 + 137)).collect();
    let policies = vec![
        policy("in", Direction::Ingress, vec![to_ports(Transport::Tcp, &ranges)]),
        policy(
            "out",
            Direction::Egress,
            vec![to_nets(&["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/61"])],
        ),
    ];
    node(policies, move |node| {
        for (pod, stranger) in pairs() {
            for &(first, last) in &ranges {
                for (port, verdict) in
                    [(first - 1, Deny), (first, Allow), (last, Allow), (last + 1, Deny)]
                {
                    assert_eq!(
                        node.receives(&Packet::tcp((stranger, 9), (pod, port), SYN)),
                        verdict,
                        "port {port}"
                    );
                }
            }
        }
        for (to, verdict) in [
            ("192.0.1.255", Deny),
            ("192.0.2.0", Allow),
            ("192.0.2.255", Allow),
            ("192.0.3.0", Deny),
            ("198.51.100.7", Allow),
            ("198.51.100.6", Deny),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", Deny),
            ("2001:db8::", Allow),
            ("2001:db8:0:7:ffff::", Allow),
            ("2001:db8:0:8::", Deny),
        ] {
            let to: IpAddr = to.parse().unwrap();
            let pod = address(0, to.is_ipv6());
            assert_eq!(node.sends(&Packet::udp((pod, 9), (to, 9))), verdict, "{to}");
        }
    });
}

#[test]
fn an_endpoint_may_have_several_addresses() {
    node(Vec::new(), |node| {
        let mut objects = objects(vec![policy("in", Direction::Ingress, vec![])]);
        let more: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.9", "fd00::1", "fd00::9"].map(|it| it.parse().unwrap()).to_vec();
        if let Some(netpol_core::model::Object::Endpoint(pod)) = objects.first_mut() {
            pod.addresses = more.clone();
        }
        node.apply(&objects);
        for pair in more.chunks(2) {
            let stranger = address(1, pair[0].is_ipv6());
            assert_eq!(node.sends(&Packet::udp((pair[1], 1), (stranger, 2))), Allow);
            assert_eq!(node.sends(&Packet::udp((stranger, 1), (pair[1], 2))), Deny);
            assert_eq!(node.sends(&Packet::tcp((pair[0], 1), (pair[1], 2), SYN)), Allow, "its own");
            assert_eq!(node.receives(&Packet::tcp((stranger, 1), (pair[1], 2), SYN)), Deny);
        }
    });
}

#[test]
fn rules_are_counted_and_denials_tell_their_rule() {
    node(closed_but_for_two_ports(), |node| {
        let (pod, stranger) = pairs()[0];
        for _ in 0..3 {
            node.receives(&Packet::tcp((stranger, 4000), (pod, 80), SYN));
        }
        node.receives(&Packet::tcp((stranger, 4000), (pod, 81), SYN));
        node.sends(&Packet::tcp((pod, 81), (stranger, 4000), SYN_ACK));
        node.sends(&Packet::tcp((pod, 81), (stranger, 4000), RST));
        let counters = node.dataplane.counters().unwrap();
        assert_eq!(counters.unmatched, 3);
        assert_eq!(counters.rules.values().sum::<u64>(), 3);
        let denials = node.dataplane.denials().unwrap();
        let first = denials.first().unwrap();
        assert_eq!(first.addresses, Some((stranger, pod)));
        assert_eq!((first.ports, first.direction), ((4000, 81), Direction::Ingress));
        assert_eq!((first.protocol, first.reason), (Protocol::TCP, DenialReason::Policy));
        assert_eq!(denials.len(), 3);
    });
}
