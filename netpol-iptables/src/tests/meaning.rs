//! The meaning of chains on a flow, so that it can be compared with that of the program that they were rendered from.

#![expect(clippy::panic, clippy::unwrap_used, reason = "test code")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::model::Attachment;
use netpol_core::net::{Family, Protocol, Transport};
use netpol_core::program::{Members, Program};
use netpol_core::{Flow, Origin, Payload, Verdict as PolicyVerdict};
use proptest::prelude::*;

use super::laws::programs;
use super::program::everything;
use crate::name::{Fixed, Name};
use crate::probe::{KernelTable, TableId};
use crate::render::{Context, render};
use crate::ruleset::{
    Action, Bits, End, Fields, FlowState, Interface, Key, KeyPrefix, Match, Member, Rule, Ruleset,
    Sense, Verdict,
};
use netpol_netfilter::Logging;

/// A new packet on its way through the built-in chains.
pub(super) struct Packet {
    pub(super) flow: Flow,
    input: Option<Interface>,
    output: Option<Interface>,
    /// The table where it is.
    pub(super) table: KernelTable,
    /// Whether conntrack was told to leave it alone.
    pub(super) is_untracked: Cell<bool>,
    mark: Cell<u32>,
}

impl Packet {
    pub(super) fn new(flow: Flow, input: Option<Interface>, output: Option<Interface>) -> Self {
        let (is_untracked, mark) = Default::default();
        Self { flow, input, output, table: KernelTable::Filter, is_untracked, mark }
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

    fn is_member(&self, ruleset: &Ruleset, end: End, fields: Fields, set: &Name) -> bool {
        let address = self.address(end);
        let members = &ruleset.sets.get(set).unwrap().members;
        let is_it = |member: &Member| match (*member, fields) {
            (Member::Address(it), Fields::Address) => it == address,
            (Member::Prefix(it), Fields::Address) => it.contains(address),
            (Member::Port(it, transport, port), Fields::AddressAndPort) => {
                it == address
                    && transport.protocol() == self.flow.protocol()
                    && Some(port) == self.port(end)
            }
            _ => panic!("{member} in a look-up of {fields:?}"),
        };
        members.iter().any(is_it)
    }

    /// Returns whether the packet meets a condition. Like the kernel, a rule ends where a field cannot be read, even if
    /// it must have another value.
    fn meets(&self, ruleset: &Ruleset, it: &Match) -> bool {
        let sense = |found: bool, sense: Sense| found == (sense == Sense::In);
        match it {
            Match::Interface { end: End::Source, name } => self.input == Some(*name),
            Match::Interface { end: End::Destination, name } => self.output == Some(*name),
            Match::Address { end, address } => self.address(*end) == *address,
            Match::Under { end, prefix, sense: wanted } => {
                let interface = match end {
                    End::Source => self.input,
                    End::Destination => self.output,
                };
                let keys = [interface.map(Key::Interface), Some(Key::Address(self.address(*end)))];
                let begins = |key: &Key| begins(*key, prefix);
                sense(keys.iter().flatten().any(begins), *wanted)
            }
            Match::Member { end, fields, set, sense: wanted } => {
                sense(self.is_member(ruleset, *end, *fields, set), *wanted)
            }
            Match::Protocol(number) => self.flow.protocol().number() == *number,
            Match::NotProtocol(number) => self.flow.protocol().number() != *number,
            Match::Ports { end, ranges, sense: wanted, .. } => {
                let listed = |port| ranges.iter().any(|(from, to)| (*from..=*to).contains(&port));
                self.port(*end).is_some_and(|port| sense(listed(port), *wanted))
            }
            Match::Icmp { kind, code, sense: wanted, .. } => self.icmp().is_some_and(|it| {
                sense(it.0 == *kind && code.is_none_or(|code| it.1 == code), *wanted)
            }),
            // Discovery here is what hosts send on their link.
            Match::Reset => false,
            Match::HopLimit(_) | Match::LinkLocalSource => true,
            Match::Flow(FlowState::Untracked) => self.is_untracked.get(),
            Match::Flow(_) | Match::FlowSource(..) => false,
            Match::Marked(bits) => self.mark.get() & bits == *bits,
        }
    }
}

/// Returns whether a key begins so.
pub(crate) fn begins(key: Key, prefix: &KeyPrefix) -> bool {
    match (key, prefix) {
        (Key::Interface(name), KeyPrefix::Interface(prefix)) => {
            name.to_string().starts_with(&prefix.to_string())
        }
        (Key::Address(address), KeyPrefix::Net(prefix)) => prefix.contains(address),
        _ => false,
    }
}

/// How a chain ended.
#[derive(Debug, PartialEq)]
pub(super) enum Walked {
    Dropped,
    Returned,
}

pub(super) fn walk(ruleset: &Ruleset, chain: &Name, packet: &Packet) -> Walked {
    let id = TableId { family: packet.flow.family(), table: packet.table };
    let chains = &ruleset.chains.get(&id).unwrap();
    for Rule { matches, action, .. } in &chains.get(chain).unwrap().rules {
        if !matches.iter().all(|it| packet.meets(ruleset, it)) {
            continue;
        }
        match action {
            Action::Verdict(Verdict::Drop) | Action::Reject(_) => return Walked::Dropped,
            Action::Verdict(Verdict::Return) => return Walked::Returned,
            Action::Verdict(Verdict::Goto(next)) => return walk(ruleset, next, packet),
            Action::Verdict(Verdict::Jump(next))
                if walk(ruleset, next, packet) == Walked::Dropped =>
            {
                return Walked::Dropped;
            }
            Action::Verdict(Verdict::Jump(_)) | Action::Log { .. } => {}
            Action::Untrack => packet.is_untracked.set(true),
            Action::Mark { bits, to: Bits::Set } => packet.mark.set(packet.mark.get() | bits),
            Action::Mark { bits, to: Bits::Cleared } => {
                packet.mark.set(packet.mark.get() & !bits);
            }
        }
    }
    Walked::Returned
}

/// Returns addresses that rules of the program can tell apart, and some that they cannot.
fn addresses(program: &Program) -> BTreeSet<IpAddr> {
    let endpoints = program.endpoints.iter().flat_map(|endpoint| endpoint.addresses.clone());
    let mut addresses: BTreeSet<IpAddr> = endpoints.collect();
    for set in program.address_sets.values() {
        match &set.members {
            Members::Addresses { exact, prefixes } => {
                addresses.extend(exact.iter().take(3));
                let edges = prefixes.prefixes().iter().flat_map(|it| [it.first(), it.last()]);
                addresses.extend(edges);
            }
            Members::Ports(ports) => addresses.extend(ports.iter().take(3).map(|(it, _)| *it)),
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
    let ports =
        [0, 1, 4, 5, 9, 53, 79, 80, 81, 442, 443, 450, 451, 999, 1000, 2000, 2001, 8080, 65_535];
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
    payloads.push(Payload::Other(Protocol::new(47)));
    let mut flows = Vec::new();
    for &source in &addresses {
        for &destination in addresses.iter().filter(|it| Family::of(**it) == Family::of(source)) {
            let local = program.endpoints.iter().any(|it| it.addresses.contains(&source));
            let origin = if local { Origin::Endpoint } else { Origin::Forwarded };
            let flow = |&payload: &Payload| Flow { source, destination, payload, origin };
            flows.extend(payloads.iter().map(flow));
        }
    }
    flows
}

/// Returns the interface of each address that has one.
fn interfaces(program: &Program) -> BTreeMap<IpAddr, Interface> {
    let mut interfaces = BTreeMap::new();
    for endpoint in &program.endpoints {
        if let Attachment::Interface(name) = &endpoint.attachment {
            let name = Interface::new(name).unwrap();
            interfaces.extend(endpoint.addresses.iter().map(|&address| (address, name)));
        }
    }
    interfaces
}

/// Compares chains and program on many flows. Returns how many passed and how many did not.
pub(super) fn compare(program: &Program) -> [usize; 2] {
    let (owner, second_slots, refused) = Default::default();
    let context = Context {
        owner: &owner,
        families: &Family::BOTH,
        table: KernelTable::Filter,
        mark: 16,
        logging: Logging::DEFAULT,
        second_slots: &second_slots,
        refused: &refused,
    };
    let ruleset = render(program, context).ruleset;
    let interfaces = interfaces(program);
    let uplink = Interface::new("eth0").unwrap();
    let interface = |address: IpAddr| Some(interfaces.get(&address).copied().unwrap_or(uplink));
    let judge = |chain: Fixed, packet: &Packet| match walk(&ruleset, &owner.chain(chain), packet) {
        Walked::Dropped => PolicyVerdict::Deny,
        Walked::Returned => PolicyVerdict::Allow,
    };
    let mut denied = 0;
    let flows = flows(program);
    for &flow in &flows {
        let (input, output) = (interface(flow.source), interface(flow.destination));
        let outcome = program.outcome(&flow);
        let got = judge(Fixed::Forward, &Packet::new(flow, input, output));
        assert_eq!(got, outcome.verdict(), "{flow:?}: {outcome:?}");
        denied += usize::from(got == PolicyVerdict::Deny);

        // To the node itself: egress only. From the node itself: outside of policy.
        if !program.endpoints.iter().any(|it| it.addresses.contains(&flow.destination)) {
            let got = judge(Fixed::Input, &Packet::new(flow, input, None));
            assert_eq!(got, outcome.verdict(), "input {flow:?}: {outcome:?}");
        }
        if !program.endpoints.iter().any(|it| it.addresses.contains(&flow.source)) {
            let own = flow.from_origin(Origin::OwnNode);
            let got = judge(Fixed::Output, &Packet::new(flow, None, output));
            let outcome = program.outcome(&own);
            assert_eq!(got, outcome.verdict(), "output {flow:?}: {outcome:?}");
        }
    }
    [flows.len() - denied, denied]
}

#[test]
fn chains_mean_what_their_program_means() {
    let [allowed, denied] = compare(&everything().build());
    assert!(allowed > 1_000 && denied > 1_000, "{allowed} allowed, {denied} denied");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn random_chains_mean_what_their_programs_mean(program in programs()) {
        compare(&program);
    }
}
