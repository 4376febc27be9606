//! The objects that are always there: base chains, and the maps and sets of endpoints.
//!
//! The rules of a base chain, in order:
//!
//! 1. Router advertisements and redirects that an endpoint sends are dropped; other neighbour and multicast listener
//!    discovery passes. What a router has forwarded is neither, whatever its type: it could carry anything anywhere.
//! 2. Whatever comes from or goes to an isolated endpoint, or a closed interface that looks like one's and is none's
//!    ([`unknown`]), is dropped, established flows included.
//! 3. What comes in on an endpoint's interface and does not carry one of its addresses is dropped, whether it belongs to a
//!    flow or not. Otherwise an endpoint could send into flows of others, or send itself a packet in the name of somebody
//!    else, and would then reach that one as with a reply. Packets for the node itself may also carry addresses of the
//!    link, and none at all.
//! 4. Established flows pass, and ICMP errors that belong to one. Those that an endpoint sends must be about a flow of its
//!    own, and are judged otherwise: conntrack asks only what an error is about, not who sends it.
//! 5. New packets of an endpoint that carry others are dropped (`np-encap`); traffic between an endpoint and itself passes.
//! 6. The packet is judged by the sender's egress policy, then by the receiver's ingress policy. A chain that allows
//!    returns, and so does the end of the base chain: other owners' chains still judge. In between, what has met no policy
//!    because its interface is unknown is dropped.
//!
//! `np-input` has packets for the node itself, which has no ingress policy here. `np-output` has the node's own packets,
//! which are outside of policy unless the endpoint is isolated; they are known by the hook, never by an address. Whether
//! the endpoint is isolated is asked in `np-postrouting`: before, a packet to a Service has the interface that was chosen
//! before destination NAT.

use std::collections::BTreeMap;

use netpol_core::model::UnknownInterfaces;
use netpol_core::net::Family;

use super::{Options, unknown};
use crate::name::{Name, SizeClass, short_digest};
use crate::ruleset::{
    Action, Base, Chain, Elements, End, Fields, FlowDirection, FlowState, Hook, Key, KeyType,
    Match, Rule, Ruleset, Sense, Set, Storage, Verdict,
};

/// ICMP and ICMPv6 as protocol numbers (IANA).
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Router advertisement and redirect (RFC 4861, sections 4.2 and 4.5).
pub(super) const ROUTER_MESSAGES: [u8; 2] = [134, 137];
/// Neighbour discovery (RFC 4861), and the hop limit that tells that no router has forwarded it (section 3.1).
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);
const HOP_LIMIT: u8 = 255;
/// Multicast listener discovery (RFC 2710) and its reports of version 2 (RFC 3810). It comes from addresses of the link.
const LISTENER_DISCOVERY: [(u8, u8); 2] = [(130, 132), (143, 143)];

/// The chains of host endpoints that are always there.
pub(super) const HOST_INPUT: &str = "np-host-in";
pub(super) const HOST_OUTPUT: &str = "np-host-out";
pub(super) const HOST_FORWARD: &str = "np-host-fwd";
/// The chain of what no workload may send.
pub(super) const ENCAPSULATED: &str = "np-encap";
const FROM_SETTINGS: [&str; 4] = [HOST_INPUT, HOST_OUTPUT, HOST_FORWARD, ENCAPSULATED];

/// The chain that drops packets to isolated endpoints.
const CUT: &str = "np-cut";

/// A map or set whose name is fixed. There is one for interfaces and one for the addresses of each family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fixed {
    /// All endpoints.
    Endpoints,
    /// Isolated endpoints.
    Isolated,
    /// Interfaces of endpoints whose addresses are known, each with these addresses.
    Own,
    /// Pairs of keys that belong to one endpoint.
    SelfTraffic,
    /// From endpoints to the chains of their egress policy.
    Egress,
    /// From endpoints to the chains of their ingress policy.
    Ingress,
}

/// By what an endpoint is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum By {
    Interface,
    Address(Family),
}

impl By {
    pub(super) const ALL: [Self; 3] =
        [Self::Interface, Self::Address(Family::V4), Self::Address(Family::V6)];

    fn suffix(self) -> &'static str {
        match self {
            Self::Interface => "if",
            Self::Address(Family::V4) => "4",
            Self::Address(Family::V6) => "6",
        }
    }

    /// Returns the fields that tell the endpoint at one end of a packet.
    fn fields(self, end: End) -> Fields {
        match (self, end) {
            (Self::Interface, End::Source) => Fields::InputInterface,
            (Self::Interface, End::Destination) => Fields::OutputInterface,
            (Self::Address(family), end) => Fields::Address(family, end),
        }
    }

    /// Returns the fields that tell both endpoints of a packet.
    fn both(self) -> Fields {
        match self {
            Self::Interface => Fields::Interfaces,
            Self::Address(family) => Fields::Addresses(family),
        }
    }

    /// Returns what must be tested before the fields are read.
    pub(super) fn guard(self) -> Option<Match> {
        match self {
            Self::Interface => None,
            Self::Address(family) => Some(Match::Family(family)),
        }
    }
}

impl Fixed {
    const ALL: [Self; 6] = [
        Self::Endpoints,
        Self::Isolated,
        Self::Own,
        Self::SelfTraffic,
        Self::Egress,
        Self::Ingress,
    ];

    /// Returns the name of the map or set that takes a key, if one does.
    pub(crate) fn name(self, key: Key) -> Option<Name> {
        match key {
            Key::Interface(_) | Key::Interfaces(..) => Some(self.name_by(By::Interface)),
            Key::V4(_) | Key::Pair4(..) | Key::Sender4(..) => {
                Some(self.name_by(By::Address(Family::V4)))
            }
            Key::V6(_) | Key::Pair6(..) | Key::Sender6(..) => {
                Some(self.name_by(By::Address(Family::V6)))
            }
            Key::Target4(..) | Key::Target6(..) | Key::Port(_) => None,
        }
    }

    /// Returns whether one of its maps or sets has this name.
    pub(crate) fn is_called(self, name: &Name) -> bool {
        By::ALL.iter().any(|by| self.name_by(*by) == *name)
    }

    pub(super) fn name_by(self, by: By) -> Name {
        let stem = match self {
            Self::Endpoints => "ep",
            Self::Isolated => "iso",
            Self::Own => "own",
            Self::SelfTraffic => "self",
            Self::Egress => "eg",
            Self::Ingress => "in",
        };
        Name::new(&format!("np-{stem}-{}", by.suffix()))
    }

    fn empty(self, by: By) -> Set {
        let key = match (self, by) {
            (Self::SelfTraffic, By::Interface) => KeyType::Interfaces,
            (Self::SelfTraffic, By::Address(family)) => KeyType::Addresses(family),
            (Self::Own, By::Address(family)) => KeyType::Sender(family),
            (_, By::Interface) => KeyType::Interface,
            (_, By::Address(family)) => KeyType::Address(family),
        };
        let elements = match self {
            Self::Egress | Self::Ingress => Elements::Verdicts(BTreeMap::new()),
            Self::Endpoints | Self::Isolated | Self::Own | Self::SelfTraffic => {
                Elements::Keys(Vec::new())
            }
        };
        Set { key, storage: Storage::hash(SizeClass::ENDPOINTS), elements }
    }
}

/// Returns the maps and sets whose names are fixed, empty.
pub(super) fn fixed_sets() -> BTreeMap<Name, Set> {
    let by_all = |fixed: Fixed| By::ALL.map(|by| (fixed.name_by(by), fixed.empty(by)));
    Fixed::ALL.into_iter().flat_map(by_all).collect()
}

/// Returns the base chains with empty maps and sets: a table that changes the fate of no endpoint's packets.
pub(crate) fn skeleton(options: Options, unknown: &UnknownInterfaces) -> Ruleset {
    let sets = fixed_sets();
    let chain = |name: &str, hook: Hook, rules: Vec<Rule>| {
        (Name::new(name), Chain { base: Some(Base { hook, priority: options.priority }), rules })
    };
    let of_hosts =
        FROM_SETTINGS.map(|name| (Name::new(name), Chain { base: None, rules: Vec::new() }));
    let chains = [
        chain("np-forward", Hook::Forward, forward(unknown)),
        chain("np-input", Hook::Input, input(unknown)),
        chain("np-output", Hook::Output, vec![to_hosts(HOST_OUTPUT)]),
        chain("np-postrouting", Hook::Postrouting, postrouting(unknown)),
        (Name::new(CUT), Chain { base: None, rules: cut() }),
    ];
    let chains = chains.into_iter().chain(of_hosts).collect();
    Ruleset { sets, chains }
}

fn forward(unknown: &UnknownInterfaces) -> Vec<Rule> {
    [
        router_messages(),
        unknown::router_messages(unknown),
        discovery(),
        isolation(End::Source),
        isolation(End::Destination),
        unknown::closed(unknown, End::Source, &Verdict::Drop),
        unknown::closed(unknown, End::Destination, &Verdict::Drop),
        forged(Held::Forwarded),
        established_of_own(),
        encapsulated(),
        self_traffic(),
        vec![to_hosts(HOST_FORWARD)],
        dispatch(Fixed::Egress, End::Source),
        dispatch(Fixed::Ingress, End::Destination),
        unknown::sent(unknown),
        unknown::received(unknown),
    ]
    .concat()
}

fn input(unknown: &UnknownInterfaces) -> Vec<Rule> {
    [
        router_messages(),
        unknown::router_messages(unknown),
        discovery(),
        isolation(End::Source),
        unknown::closed(unknown, End::Source, &Verdict::Drop),
        forged(Held::ToNode),
        established_of_own(),
        encapsulated(),
        dispatch(Fixed::Egress, End::Source),
        unknown::sent(unknown),
        vec![to_hosts(HOST_INPUT)],
    ]
    .concat()
}

fn postrouting(unknown: &UnknownInterfaces) -> Vec<Rule> {
    let cut = Verdict::Goto(Name::new(CUT));
    let rule = |by: By| {
        let it = member(Fixed::Isolated, by, End::Destination);
        let matches = by.guard().into_iter().chain([it]).collect();
        base_rule("isolated", matches, Action::Verdict(cut.clone()))
    };
    [By::ALL.map(rule).to_vec(), unknown::closed(unknown, End::Destination, &cut)].concat()
}

fn cut() -> Vec<Rule> {
    let drop = base_rule("isolated", Vec::new(), Action::Verdict(Verdict::Drop));
    discovery().into_iter().chain([drop]).collect()
}

/// Returns the rule that leads to what no workload may send.
fn encapsulated() -> Vec<Rule> {
    let action = Action::Verdict(Verdict::Jump(Name::new(ENCAPSULATED)));
    vec![base_rule("encapsulated", Vec::new(), action)]
}

/// Returns the rule that leads to the policy of host endpoints.
fn to_hosts(chain: &str) -> Rule {
    base_rule("hosts", Vec::new(), Action::Verdict(Verdict::Jump(Name::new(chain))))
}

fn router_messages() -> Vec<Rule> {
    let by = [By::Interface, By::Address(Family::V6)];
    let rule = |kind: u8, by: By| {
        let mut matches = icmpv6(Match::Icmp { kind, code: None });
        matches.push(member(Fixed::Endpoints, by, End::Source));
        base_rule("router", matches, Action::Verdict(Verdict::Drop))
    };
    ROUTER_MESSAGES.into_iter().flat_map(|kind| by.map(|by| rule(kind, by))).collect()
}

pub(super) fn discovery() -> Vec<Rule> {
    let rule = |(first, last), genuine: Match| {
        let kinds = if first == last {
            Match::Icmp { kind: first, code: None }
        } else {
            Match::IcmpTypes { first, last }
        };
        let matches = [icmpv6(kinds), vec![genuine]].concat();
        base_rule("discovery", matches, Action::Verdict(Verdict::Return))
    };
    let neighbours = rule(NEIGHBOUR_DISCOVERY, Match::HopLimit(HOP_LIMIT));
    let listeners = LISTENER_DISCOVERY.map(|kinds| rule(kinds, Match::LinkLocalSource(Sense::In)));
    [neighbours].into_iter().chain(listeners).collect()
}

pub(super) fn icmpv6(it: Match) -> Vec<Match> {
    vec![Match::Family(Family::V6), Match::Protocol(ICMPV6), it]
}

fn isolation(end: End) -> Vec<Rule> {
    let rule = |by: By| {
        let matches = by.guard().into_iter().chain([member(Fixed::Isolated, by, end)]).collect();
        base_rule("isolated", matches, Action::Verdict(Verdict::Drop))
    };
    By::ALL.map(rule).to_vec()
}

/// Which packets of endpoints are held to their addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    Forwarded,
    /// Those for the node itself, which need no address of the endpoint where they stay on the link.
    ToNode,
}

fn forged(held: Held) -> Vec<Rule> {
    let rule = |family: Family| {
        let fields = Fields::Sender(family);
        let set = Fixed::Own.name_by(By::Address(family));
        let mut matches =
            vec![Match::Family(family), member(Fixed::Own, By::Interface, End::Source)];
        if held == Held::ToNode {
            matches.push(Match::SpecifiedSource(family));
            matches.extend((family == Family::V6).then_some(Match::LinkLocalSource(Sense::NotIn)));
        }
        matches.push(Match::Member { fields, set, sense: Sense::NotIn });
        base_rule("forged", matches, Action::Verdict(Verdict::Drop))
    };
    Family::BOTH.map(rule).to_vec()
}

/// Returns the rules for established flows, and for ICMP errors that belong to one.
pub(super) fn established() -> Vec<Rule> {
    let related = Family::BOTH.map(|family| related(family, Vec::new()));
    [established_flows()].into_iter().chain(related).collect()
}

/// The same, where an ICMP error that an endpoint sends must be about a flow of its own. An endpoint without a known
/// address is not held to any.
fn established_of_own() -> Vec<Rule> {
    let related = Family::BOTH.into_iter().flat_map(|family| {
        let by = By::Address(family);
        let flows = FlowDirection::BOTH.into_iter().flat_map(move |way| {
            [
                (Fields::FlowSender(family, way), Fixed::Own.name_by(by)),
                (Fields::FlowAddresses(family, way), Fixed::SelfTraffic.name_by(by)),
            ]
        });
        let own = flows.map(move |(fields, set)| {
            related(family, vec![Match::Member { fields, set, sense: Sense::In }])
        });
        let strangers = [(Fixed::Own, By::Interface), (Fixed::Endpoints, by)]
            .map(|(fixed, by)| not_member(fixed, by, End::Source))
            .to_vec();
        own.chain([related(family, strangers)])
    });
    [established_flows()].into_iter().chain(related).collect()
}

fn established_flows() -> Rule {
    let matches = vec![Match::Flow(FlowState::Established)];
    base_rule("established", matches, Action::Verdict(Verdict::Return))
}

fn related(family: Family, more: Vec<Match>) -> Rule {
    let protocol = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    let mut matches =
        vec![Match::Flow(FlowState::Related), Match::Family(family), Match::Protocol(protocol)];
    matches.extend(more);
    base_rule("related", matches, Action::Verdict(Verdict::Return))
}

fn self_traffic() -> Vec<Rule> {
    let rule = |by: By| {
        let it = Match::Member {
            fields: by.both(),
            set: Fixed::SelfTraffic.name_by(by),
            sense: Sense::In,
        };
        base_rule(
            "self",
            by.guard().into_iter().chain([it]).collect(),
            Action::Verdict(Verdict::Return),
        )
    };
    By::ALL.map(rule).to_vec()
}

fn dispatch(fixed: Fixed, end: End) -> Vec<Rule> {
    let rule = |by: By| {
        let action = Action::Dispatch { fields: by.fields(end), map: fixed.name_by(by) };
        base_rule("dispatch", by.guard().into_iter().collect(), action)
    };
    By::ALL.map(rule).to_vec()
}

pub(super) fn member(fixed: Fixed, by: By, end: End) -> Match {
    Match::Member { fields: by.fields(end), set: fixed.name_by(by), sense: Sense::In }
}

/// Returns the condition that what is at one end of a packet is not in a set.
pub(super) fn not_member(fixed: Fixed, by: By, end: End) -> Match {
    Match::Member { fields: by.fields(end), set: fixed.name_by(by), sense: Sense::NotIn }
}

pub(super) fn base_rule(id: &str, matches: Vec<Match>, action: Action) -> Rule {
    commented(id, matches, action)
}

/// Returns a rule whose comment has an id and a digest of the rest.
pub(super) fn commented(id: &str, matches: Vec<Match>, action: Action) -> Rule {
    let mut rule = Rule { matches, action, comment: String::new() };
    rule.comment = format!("np:{id} {}", short_digest(rule.to_string().as_bytes()));
    rule
}
