//! The meaning of a ruleset on a flow, so that it can be compared with that of the program that it was rendered from.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::model::Attachment;
use netpol_core::net::{Family, Transport};
use netpol_core::program::{Members, Program};
use netpol_core::{Flow, Origin, Payload, Verdict as PolicyVerdict};

use proptest::prelude::*;

use super::laws::treating;
use super::program::{Builder, deny_unless, everything};
use crate::name::Name;
use crate::render::{Context, Options, address_key, render};
use crate::ruleset::{
    Action, Elements, End, Fields, FlowDirection, FlowState, Interface, Key, Match, Rule, Ruleset,
    Sense, Set, Verdict,
};
use netpol_netfilter::Logging;

/// A packet at the forward hook, new or with an ICMP error.
pub(super) struct Packet {
    flow: Flow,
    /// The source and, in the other direction, the source of the flow that the ICMP error is about.
    about: Option<[IpAddr; 2]>,
    input: Interface,
    output: Interface,
    way: Way,
    /// Conntrack was told to leave it alone.
    pub(super) is_untracked: Cell<bool>,
    mark: Cell<u32>,
}

/// How a packet came to the hook.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Over a link: what says that it is neighbour or listener discovery is.
    Link,
    /// Through a router, which is the node itself or one before it.
    Router,
}

impl Packet {
    pub(super) fn new(flow: Flow, input: Interface, output: Interface) -> Self {
        let (is_untracked, mark) = Default::default();
        Self { flow, about: None, input, output, way: Way::Link, is_untracked, mark }
    }

    /// Returns the packet with these bits of the mark.
    pub(super) fn marked(self, bits: u32) -> Self {
        self.mark.set(bits);
        self
    }

    fn address(&self, end: End) -> IpAddr {
        match end {
            End::Source => self.flow.source,
            End::Destination => self.flow.destination,
        }
    }

    fn port(&self, end: End) -> Option<u16> {
        match (self.flow.payload, end) {
            (Payload::Ports { source, .. }, End::Source) => Some(source),
            (Payload::Ports { destination, .. }, End::Destination) => Some(destination),
            _ => None,
        }
    }

    fn icmp(&self) -> Option<(u8, u8)> {
        match self.flow.payload {
            Payload::Icmp { kind, code } => Some((kind, code)),
            _ => None,
        }
    }

    /// Returns the key that a lookup makes; `None` if the packet has no such fields.
    fn key(&self, fields: Fields) -> Option<Key> {
        let one = |end| address_key(self.address(end));
        let sender = |address: IpAddr| match address {
            IpAddr::V4(address) => Key::Sender4(self.input, address),
            IpAddr::V6(address) => Key::Sender6(self.input, address),
        };
        let about = |way| match (self.about?, way) {
            ([source, _], FlowDirection::Original) | ([_, source], FlowDirection::Reply) => {
                Some(source)
            }
        };
        let protocol = self.flow.protocol().number();
        match fields {
            Fields::InputInterface => Some(Key::Interface(self.input)),
            Fields::OutputInterface => Some(Key::Interface(self.output)),
            Fields::Interfaces => Some(Key::Interfaces(self.input, self.output)),
            Fields::Sender(family) => {
                (family == self.flow.family()).then(|| sender(self.address(End::Source)))
            }
            Fields::Address(family, end) => (family == self.flow.family()).then(|| one(end)),
            Fields::FlowSender(_, way) => Some(sender(about(way)?)),
            Fields::FlowAddresses(_, way) => {
                crate::render::pair(one(End::Source), address_key(about(way)?))
            }
            Fields::Addresses(_) => crate::render::pair(one(End::Source), one(End::Destination)),
            Fields::Target(_, end) => match (self.address(end), self.port(end)?) {
                (IpAddr::V4(address), port) => Some(Key::Target4(address, protocol, port)),
                (IpAddr::V6(address), port) => Some(Key::Target6(address, protocol, port)),
            },
            Fields::Port(end) => Some(Key::Port(self.port(end)?)),
        }
    }

    /// Returns whether the packet meets a condition. Like the kernel, a rule ends where a field cannot be read.
    fn meets(&self, found: &Found<'_>, it: &Match) -> bool {
        let sense = |found: bool, sense: Sense| found == (sense == Sense::In);
        match it {
            Match::Family(family) => self.flow.family() == *family,
            Match::Member { fields, set, sense: wanted } => {
                let Some(key) = self.key(*fields) else { return false };
                sense(contains(&found.set(set).elements, key), *wanted)
            }
            Match::Protocol(number) => self.flow.protocol().number() == *number,
            Match::NotProtocol(number) => self.flow.protocol().number() != *number,
            Match::Ports { end, first, last, sense: wanted } => {
                self.port(*end).is_some_and(|port| sense((*first..=*last).contains(&port), *wanted))
            }
            Match::Icmp { kind, code } => {
                self.icmp().is_some_and(|it| it.0 == *kind && code.is_none_or(|code| it.1 == code))
            }
            Match::NotIcmpType(kind) => self.icmp().is_some_and(|it| it.0 != *kind),
            Match::NotIcmpCode(code) => self.icmp().is_some_and(|it| it.1 != *code),
            Match::IcmpTypes { first, last } => {
                self.icmp().is_some_and(|it| (*first..=*last).contains(&it.0))
            }
            Match::HopLimit(_) => self.way == Way::Link,
            Match::LinkLocalSource(wanted) => sense(self.way == Way::Link, *wanted),
            Match::SpecifiedSource(_) => !self.flow.source.is_unspecified(),
            Match::Flow(FlowState::Related) => self.about.is_some(),
            Match::Flow(FlowState::Established) => false,
            Match::Untracked(wanted) => sense(self.is_untracked.get(), *wanted),
            Match::Interface { end, name, sense: wanted } => {
                let interface = match end {
                    End::Source => self.input,
                    End::Destination => self.output,
                };
                sense(interface == *name, *wanted)
            }
            Match::InterfacePrefix { end, prefix, sense: wanted } => {
                let interface = match end {
                    End::Source => self.input,
                    End::Destination => self.output,
                };
                sense(interface.to_string().starts_with(&prefix.to_string()), *wanted)
            }
            Match::Reset => false,
            Match::Unmarked(bits) => self.mark.get() & bits == 0,
            Match::Unknown => panic!("a rendered rule is known"),
        }
    }
}

fn contains(elements: &Elements, key: Key) -> bool {
    match elements {
        Elements::Keys(keys) => keys.contains(&key),
        Elements::Ranges(ranges) => {
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&key))
        }
        Elements::Verdicts(entries) => entries.contains_key(&key),
    }
}

/// What a packet finds on its way. It keeps the rules that were there when it came, and looks keys up in what is there then.
pub(super) struct Found<'a> {
    rules: &'a Ruleset,
    later: &'a Ruleset,
    /// How many lookups it makes before what is there becomes `later`.
    before: Cell<usize>,
}

impl<'a> Found<'a> {
    pub(super) fn on_the_way(rules: &'a Ruleset, later: &'a Ruleset, before: usize) -> Self {
        Self { rules, later, before: Cell::new(before) }
    }

    /// Returns a set as it is at the next lookup. What is removed later stays for the packet.
    fn set(&self, name: &Name) -> &'a Set {
        let left = self.before.get();
        self.before.set(left.saturating_sub(1));
        let later = self.later.sets.get(name).filter(|_| left == 0);
        later.unwrap_or_else(|| self.rules.sets.get(name).unwrap())
    }

    /// Returns how many lookups of those before the change were not made.
    pub(super) fn left(&self) -> usize {
        self.before.get()
    }
}

/// How a chain ended.
#[derive(Debug, PartialEq)]
pub(super) enum Walked {
    Dropped,
    Returned,
}

pub(super) fn walk(ruleset: &Ruleset, chain: &Name, packet: &Packet) -> Walked {
    walk_on(&Found::on_the_way(ruleset, ruleset, 0), chain, packet)
}

pub(super) fn walk_on(found: &Found<'_>, chain: &Name, packet: &Packet) -> Walked {
    for rule in &found.rules.chains.get(chain).unwrap().rules {
        if !rule.matches.iter().all(|it| packet.meets(found, it)) {
            continue;
        }
        match decision(found, rule, packet) {
            Some(Verdict::Drop) => return Walked::Dropped,
            Some(Verdict::Return) => return Walked::Returned,
            Some(Verdict::Goto(next)) => return walk_on(found, &next, packet),
            Some(Verdict::Jump(next)) if walk_on(found, &next, packet) == Walked::Dropped => {
                return Walked::Dropped;
            }
            Some(Verdict::Jump(_)) | None => {}
            Some(Verdict::Other(code)) => panic!("verdict {code}"),
        }
    }
    Walked::Returned
}

fn decision(found: &Found<'_>, rule: &Rule, packet: &Packet) -> Option<Verdict> {
    match &rule.action {
        Action::Verdict(verdict) => Some(verdict.clone()),
        Action::Dispatch { fields, map } => match &found.set(map).elements {
            Elements::Verdicts(entries) => entries.get(&packet.key(*fields)?).cloned(),
            _ => panic!("{map} is no map"),
        },
        Action::Log { .. } => None,
        Action::Untrack => {
            packet.is_untracked.set(true);
            Some(Verdict::Return)
        }
        Action::Unmark(bits) => {
            packet.mark.set(packet.mark.get() & !bits);
            None
        }
        Action::Mark(bits) => {
            packet.mark.set(packet.mark.get() | bits);
            Some(Verdict::Return)
        }
        Action::Reject(_) => Some(Verdict::Drop),
        Action::Unknown => panic!("a rendered rule is known"),
    }
}

/// Returns addresses that rules of the program can tell apart, and some that they cannot: those of endpoints, some of
/// each set, and the edges of prefixes.
fn addresses(program: &Program) -> BTreeSet<IpAddr> {
    let mut addresses: BTreeSet<IpAddr> =
        program.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied()).collect();
    for set in program.address_sets.values() {
        match &set.members {
            Members::Addresses { exact, prefixes } => {
                addresses.extend(exact.iter().take(3));
                addresses.extend(
                    prefixes.prefixes().iter().flat_map(|prefix| [prefix.first(), prefix.last()]),
                );
            }
            Members::Ports(ports) => addresses.extend(ports.iter().map(|(address, _)| *address)),
        }
    }
    let others = [
        "10.0.0.4",
        "10.8.255.255",
        "10.10.0.0",
        "127.255.255.255",
        "128.0.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "255.255.255.255",
        "2001:db7::",
        "2001:db9::",
        "fe80::1",
    ];
    addresses.extend(others.iter().map(|it| it.parse::<IpAddr>().unwrap()));
    addresses
}

/// Returns flows between these addresses.
fn flows(program: &Program) -> Vec<Flow> {
    let addresses = addresses(program);
    let ports = [
        0, 1, 4, 5, 9, 53, 79, 80, 81, 442, 443, 450, 451, 999, 1000, 2000, 2001, 8080, 8081,
        65_000, 65_535,
    ];
    let mut payloads: Vec<Payload> = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        for destination in ports {
            for source in [1023, 1024, 1999, 2000, 2010, 2011] {
                payloads.push(Payload::Ports { transport, source, destination });
            }
        }
    }
    for kind in [0, 3, 8, 128, 129, 130, 134, 137, 143] {
        payloads.extend([0, 12, 13].map(|code| Payload::Icmp { kind, code }));
    }
    payloads.push(Payload::Other(netpol_core::net::Protocol::new(47)));
    let mut flows = Vec::new();
    for &source in &addresses {
        for &destination in addresses.iter().filter(|it| Family::of(**it) == Family::of(source)) {
            let local =
                program.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&source));
            let origin = if local { Origin::Endpoint } else { Origin::Forwarded };
            flows.extend(payloads.iter().map(|&payload| Flow {
                source,
                destination,
                payload,
                origin,
            }));
        }
    }
    flows
}

fn interfaces(program: &Program) -> BTreeMap<IpAddr, Interface> {
    let attached = program.endpoints.iter().filter_map(|endpoint| match &endpoint.attachment {
        Attachment::Interface(name) => Some((endpoint, Interface::new(name)?)),
        _ => None,
    });
    attached
        .flat_map(|(endpoint, name)| endpoint.addresses.iter().map(move |&address| (address, name)))
        .collect()
}

/// Compares ruleset and program on many flows. Returns how many passed and how many did not.
pub(super) fn compare(program: &Program) -> [usize; 2] {
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
    let ruleset =
        render(program, &Context { options, places: &places, refused: &refused }).unwrap().ruleset;
    let interfaces = interfaces(program);
    let uplink = Interface::new("eth0").unwrap();
    let interface = |address: IpAddr| interfaces.get(&address).copied().unwrap_or(uplink);
    let mut denied = 0;
    let flows = flows(program);
    for &flow in &flows {
        let packet = Packet::new(flow, interface(flow.source), interface(flow.destination));
        let got = match walk(&ruleset, &Name::new("np-forward"), &packet) {
            Walked::Dropped => PolicyVerdict::Deny,
            Walked::Returned => PolicyVerdict::Allow,
        };
        let outcome = program.outcome(&flow);
        assert_eq!(got, outcome.verdict(), "{flow:?}: {outcome:?}");
        denied += usize::from(got == PolicyVerdict::Deny);
    }
    [flows.len() - denied, denied]
}

#[test]
fn a_ruleset_means_what_its_program_means() {
    let [allowed, denied] = compare(&everything().build());
    assert!(allowed > 1_000 && denied > 1_000, "{allowed} allowed, {denied} denied");
}

/// With a forged packet to itself, an endpoint could open a flow whose replies pass: to anybody, whatever its policy.
#[test]
fn nobody_sends_in_the_name_of_others() {
    let program = everything().build();
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
    let context = Context { options, places: &places, refused: &refused };
    let ruleset = render(&program, &context).unwrap().ruleset;
    let pod = Interface::new("pod-a").unwrap();
    let own: BTreeSet<IpAddr> =
        ["10.0.1.1", "2001:db8:1::1"].iter().map(|it| it.parse().unwrap()).collect();
    for flow in flows(&program).into_iter().filter(|flow| own.contains(&flow.destination)) {
        let packet = Packet::new(flow, pod, pod);
        let forged = !own.contains(&flow.source) && !is_discovery(&flow);
        let got = walk(&ruleset, &Name::new("np-forward"), &packet);
        assert_eq!(got == Walked::Dropped, forged || is_router_message(&flow), "{flow:?}");
    }
}

/// Conntrack asks only what an error is about, so an endpoint could report errors of flows of others.
#[test]
fn an_endpoint_reports_errors_of_its_own_flows() {
    let mut builder = Builder::new();
    let closed = builder.policy(deny_unless(Vec::new()));
    for (name, addresses) in [
        ("pod", ["10.0.0.1", "10.0.0.2", "2001:db8::1"].as_slice()),
        ("bridged", ["10.0.0.3", "10.0.0.4", "2001:db8::3"].as_slice()),
        ("unknown", [].as_slice()),
    ] {
        let mut pod = builder.endpoint(name, addresses);
        (pod.ingress, pod.egress) = (closed, closed);
        if name == "bridged" {
            pod.attachment = Attachment::Address;
        }
        builder.add(pod);
    }
    let program = builder.build();
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
    let context = Context { options, places: &places, refused: &refused };
    let ruleset = render(&program, &context).unwrap().ruleset;
    let check = |input: &str, source: &str, about: [&str; 2], passes: bool| {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let [input, output] = [input, "eth0"].map(|it| Interface::new(it).unwrap());
        let source = address(source);
        let (destination, kind) = match source {
            IpAddr::V4(_) => (address("192.0.2.1"), 3),
            IpAddr::V6(_) => (address("2001:db8:f::1"), 1),
        };
        let payload = Payload::Icmp { kind, code: 4 };
        let flow = Flow { source, destination, payload, origin: Origin::Endpoint };
        let about = Some(about.map(address));
        for chain in ["np-forward", "np-input"] {
            let packet = Packet { about, way: Way::Router, ..Packet::new(flow, input, output) };
            let walked = walk(&ruleset, &Name::new(chain), &packet);
            assert_eq!(walked == Walked::Returned, passes, "{chain}: {flow:?} about {about:?}");
        }
    };
    let (others4, others6) = (["192.0.2.1", "192.0.2.2"], ["2001:db8:f::1", "2001:db8:f::2"]);
    for (input, own, own6) in [
        ("pod", ["10.0.0.1", "10.0.0.2"], "2001:db8::1"),
        ("br0", ["10.0.0.3", "10.0.0.4"], "2001:db8::3"),
    ] {
        for end in own {
            check(input, own[0], [end, "192.0.2.1"], true);
            check(input, own[0], ["192.0.2.1", end], true);
        }
        check(input, own[0], others4, false);
        check(input, own[0], ["10.0.0.9", "192.0.2.1"], false);
        check(input, own6, [own6, "2001:db8:f::1"], true);
        check(input, own6, ["2001:db8:f::1", own6], true);
        check(input, own6, others6, false);
    }
    // Routers report errors of any flow; an endpoint without a known address is not held to one.
    for input in ["eth0", "unknown"] {
        check(input, "198.51.100.1", ["10.0.0.1", "192.0.2.1"], true);
        check(input, "2001:db8:e::1", others6, true);
    }
}

/// A packet for the node itself needs no address of the endpoint if it cannot leave the link.
#[test]
fn nobody_sends_to_the_node_in_the_name_of_others() {
    let mut builder = Builder::new();
    let pod = builder.endpoint("pod", &["10.0.0.1", "2001:db8::1"]);
    let unknown = builder.endpoint("unknown", &[]);
    let program = builder.add(pod).add(unknown).build();
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
    let context = Context { options, places: &places, refused: &refused };
    let ruleset = render(&program, &context).unwrap().ruleset;
    for (input, source, way, passes) in [
        ("pod", "10.0.0.1", Way::Router, true),
        ("pod", "10.0.0.2", Way::Router, false),
        ("pod", "0.0.0.0", Way::Router, true),
        ("pod", "2001:db8::1", Way::Router, true),
        ("pod", "2001:db8::2", Way::Router, false),
        ("pod", "::", Way::Router, true),
        ("pod", "fe80::1", Way::Link, true),
        ("unknown", "10.0.0.2", Way::Router, true),
        ("unknown", "2001:db8::2", Way::Router, true),
        ("eth0", "10.0.0.2", Way::Router, true),
    ] {
        let source: IpAddr = source.parse().unwrap();
        let destination = if source.is_ipv4() { "10.0.0.254" } else { "2001:db8::ff" };
        let payload = Payload::Ports { transport: Transport::Udp, source: 68, destination: 67 };
        let destination = destination.parse().unwrap();
        let flow = Flow { source, destination, payload, origin: Origin::Endpoint };
        let [input, none] = [input, "none"].map(|it| Interface::new(it).unwrap());
        let packet = Packet { way, ..Packet::new(flow, input, none) };
        let walked = walk(&ruleset, &Name::new("np-input"), &packet);
        assert_eq!(walked == Walked::Returned, passes, "{source} on {input:?}");
    }
}

/// Else everybody could send anything to everybody, as long as it says that it is discovery.
#[test]
fn what_a_router_forwards_is_no_discovery() {
    let mut builder = Builder::new();
    let closed = builder.policy(deny_unless(Vec::new()));
    let mut pod = builder.endpoint("pod", &["2001:db8::1"]);
    (pod.ingress, pod.egress) = (closed, closed);
    let program = builder.add(pod).build();
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
    let context = Context { options, places: &places, refused: &refused };
    let ruleset = render(&program, &context).unwrap().ruleset;
    let [input, output] = ["pod", "eth0"].map(|it| Interface::new(it).unwrap());
    let [source, destination] = ["2001:db8::1", "2001:db8:f::1"].map(|it| it.parse().unwrap());
    for kind in 128..=143 {
        let payload = Payload::Icmp { kind, code: 0 };
        let flow = Flow { source, destination, payload, origin: Origin::Endpoint };
        for (way, passes) in [(Way::Link, is_discovery(&flow)), (Way::Router, false)] {
            let packet = Packet { way, ..Packet::new(flow, input, output) };
            let walked = walk(&ruleset, &Name::new("np-forward"), &packet);
            assert_eq!(walked == Walked::Returned, passes, "type {kind}");
        }
    }
}

fn is_discovery(flow: &Flow) -> bool {
    let kinds = [130, 131, 132, 133, 135, 136, 143];
    matches!(flow.payload, Payload::Icmp { kind, .. } if kinds.contains(&kind))
        && flow.family() == Family::V6
}

fn is_router_message(flow: &Flow) -> bool {
    matches!(flow.payload, Payload::Icmp { kind: 134 | 137, .. }) && flow.family() == Family::V6
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn random_rulesets_mean_what_their_programs_mean(program in treating()) {
        compare(&program);
    }
}
