//! The chains that are always there.
//!
//! The built-in chains `FORWARD`, `INPUT` and `OUTPUT` (of the table `mangle`: `POSTROUTING`) jump to `NP-FWD`, `NP-IN` and
//! `NP-OUT` before anything else. What
//! happens to a packet, in order:
//!
//! 1. Whatever comes from or goes to an isolated endpoint is dropped in `NP-CUT`, established flows included. Neighbour
//!    and multicast listener discovery goes on. The same happens at closed interfaces that look like those of endpoints and
//!    are none's (`NP-UNK-FROM` and `NP-UNK-TO`, only if there can be such); where those may open flows, only new ones to
//!    them are dropped, after `NP-INGRESS`.
//! 2. What comes in on an endpoint's interface and does not carry one of its addresses is dropped in `NP-OWN`, whether it
//!    belongs to a flow or not. Otherwise an endpoint could send into flows of others, or send itself a packet in the name
//!    of somebody else, and would then reach that one as with a reply. Packets for the node itself may also carry
//!    addresses of the link, and none at all.
//! 3. Established flows pass, and ICMP errors that belong to one; those that an endpoint sends must be about a flow of its
//!    own, and are judged otherwise (`NP-RELATED`). (Discovery is never part of a flow.)
//! 4. Router advertisements and redirects that an endpoint sends are dropped; other discovery passes.
//! 5. New packets of an endpoint that carry others are dropped (`NP-ENCAP`). The packet is judged by the sender's egress policy, then by the receiver's ingress policy. Traffic between an
//!    endpoint and itself passes. Forwarded traffic is judged by policy of the node's interfaces before (`NP-HOST-FWD`).
//!
//! To pass is to return to the built-in chain: other owners' rules still judge. So every chain below is entered with
//! `goto`, except where its end must come back.
//!
//! `NP-IN` has packets for the node itself, `NP-OUT` the node's own packets: policy of the node's interfaces judges them
//! (`NP-HOST-IN`, after the sender's egress policy; `NP-HOST-OUT`), see [`super::hosts`]. What the node sends is outside of
//! policy of endpoints, unless the endpoint is isolated; such packets are known by the hook, never by an address. Where the node
//! sends to a Service, the hook still sees the interface that was chosen before destination NAT, so isolated endpoints are
//! known by their addresses too (`NP-ISO-AT`).
//!
//! `NP-ENDPOINTS` is where router messages are dropped, and what carries others. It has a rule for every endpoint, the open ones included, and so
//! is also the record of which endpoints are known. IPv4 has no such messages, and only the record.
//!
//! What most packets meet is a tree (see [`super::tree`]): `NP-OWN`, and for new flows `NP-EGRESS` and `NP-INGRESS`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::model::{Treatment, UnknownInterfaces};
use netpol_core::net::Family;
use netpol_core::program::Endpoint;

use super::tree::{Forest, List};
use super::{Disposition, keys, own_addresses, unknown};
use crate::name::{Fixed, Name, Owner, Side, short_digest};
use crate::probe::KernelTable;
use crate::ruleset::{
    Action, Chain, End, FlowDirection, FlowState, Key, Match, Rule, Sense, Verdict,
};

/// ICMP and ICMPv6 as protocol numbers (IANA).
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
/// Router advertisement and redirect (RFC 4861, sections 4.2 and 4.5).
const ROUTER_MESSAGES: [u8; 2] = [134, 137];
/// The rest of neighbour discovery (RFC 4861), which is sent with hop limit 255 and so never comes from beyond the link.
const NEIGHBOUR_DISCOVERY: [u8; 3] = [133, 135, 136];
const HOP_LIMIT: u8 = 255;
/// Multicast listener discovery (RFC 2710: 130 to 132, RFC 3810: 143), which is sent from an address of the link.
const LISTENER_DISCOVERY: [u8; 4] = [130, 131, 132, 143];

/// Returns the built-in chains of a table that we hook into, each with the one of our `chains` there that it jumps to.
///
/// `OUTPUT` of `mangle` comes before destination NAT: what the node sends to a Service is not yet on its way to an endpoint.
pub(crate) fn hook_chains(
    owner: &Owner,
    table: KernelTable,
    chains: &BTreeMap<Name, Chain>,
) -> Vec<(&'static str, Name)> {
    let output = match table {
        KernelTable::Raw | KernelTable::Filter => "OUTPUT",
        KernelTable::Mangle => "POSTROUTING",
    };
    let all = [
        ("FORWARD", Fixed::Forward),
        ("INPUT", Fixed::Input),
        (output, Fixed::Output),
        ("PREROUTING", Fixed::RawInput),
        ("OUTPUT", Fixed::RawOutput),
        ("PREROUTING", Fixed::BeforeNat),
    ];
    let named = all.map(|(hook, chain)| (hook, owner.chain(chain)));
    named.into_iter().filter(|(_, chain)| chains.contains_key(chain)).collect()
}

/// Most chains of a tree in a row below its root, for new flows and for all packets. Every level of the former is one that
/// policy sets do not have, see [`MAX_DEPTH`](super::policy::MAX_DEPTH).
pub(super) const LEVELS: usize = 1;
pub(super) const OWN_LEVELS: usize = 2;

/// The endpoints as the chains list them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    unknown: UnknownInterfaces,
    all: BTreeSet<Key>,
    isolated: BTreeSet<Key>,
    /// The addresses of isolated endpoints.
    isolated_at: BTreeSet<IpAddr>,
    /// The addresses of the endpoints for which some are known.
    own: BTreeMap<Key, BTreeSet<IpAddr>>,
    /// All keys of the endpoint that has a key.
    same: BTreeMap<Key, BTreeSet<Key>>,
    dispatch: BTreeMap<(Side, Family), BTreeMap<Key, Name>>,
}

impl Lists {
    /// Returns empty lists of a node that treats unknown interfaces so.
    pub(crate) fn new(unknown: &UnknownInterfaces) -> Self {
        Self { unknown: unknown.clone(), ..Self::default() }
    }

    /// Adds an endpoint.
    pub(crate) fn add(&mut self, endpoint: &Endpoint, disposition: &Disposition) {
        let keys = keys(endpoint);
        self.all.extend(&keys);
        let addresses = own_addresses(endpoint);
        if !addresses.is_empty() {
            keys.iter().for_each(|&key| self.own.entry(key).or_default().extend(&addresses));
        }
        match disposition {
            Disposition::Open => {}
            Disposition::Isolated => {
                self.isolated.extend(keys);
                self.isolated_at.extend(addresses);
            }
            Disposition::Judged(entries) => {
                for (&place, chain) in entries {
                    let known = keys.iter().filter(|key| key.occurs_in(place.1));
                    let list = self.dispatch.entry(place).or_default();
                    list.extend(known.map(|&key| (key, chain.clone())));
                }
                keys.iter().for_each(|&key| self.same.entry(key).or_default().extend(&keys));
            }
        }
    }

    /// Adds an endpoint that is isolated and of which nothing else is to be known.
    pub(crate) fn close(&mut self, endpoint: &Endpoint) {
        self.all.extend(keys(endpoint));
        self.isolated.extend(keys(endpoint));
        self.isolated_at.extend(own_addresses(endpoint));
    }

    /// Returns the chains of a family.
    pub(crate) fn chains(&self, owner: &Owner, family: Family) -> BTreeMap<Name, Chain> {
        let to = |fixed| owner.chain(fixed);
        let mut forest = Forest::new(owner);
        let mut tree = |end, levels, list| forest.plant(end, levels, list);
        let own = tree(End::Source, OWN_LEVELS, self.own(family));
        let related = tree(End::Source, LEVELS, self.related(owner, family));
        let egress = tree(End::Source, LEVELS, self.dispatch(Side::Egress, family));
        forest = forest.with_otherwise(unknown::stop_new(&self.unknown, owner));
        let ingress = forest.plant(End::Destination, LEVELS, self.dispatch(Side::Ingress, family));
        let mut chains = forest.finish();
        chains.extend(unknown::chains(&self.unknown, &self.all, owner));
        let list = |rules: Vec<Rule>| Chain { rules };
        chains.extend([
            (to(Fixed::Forward), list(forward(owner, family))),
            (to(Fixed::Input), list(input(owner, family))),
            (to(Fixed::Output), list(output(owner))),
            (to(Fixed::IsolatedFrom), list(self.isolation(owner, family, End::Source))),
            (to(Fixed::IsolatedTo), list(self.isolation(owner, family, End::Destination))),
            (to(Fixed::IsolatedAt), list(self.isolation_at(owner, family))),
            (to(Fixed::Cut), list(cut(family))),
            (to(Fixed::Own), own),
            (to(Fixed::InputOwn), list(input_own(owner, family))),
            (to(Fixed::Related), related),
            (to(Fixed::Egress), egress),
            (to(Fixed::Ingress), ingress),
            (to(Fixed::Endpoints), list(self.endpoints(family))),
        ]);
        let from_settings =
            [Fixed::HostInput, Fixed::HostOutput, Fixed::HostForward, Fixed::Encapsulated];
        chains.extend(from_settings.map(|chain| (to(chain), Chain::default())));
        if family == Family::V6 {
            chains.insert(to(Fixed::ForwardDiscovery), list(discovery(owner, judge(owner))));
            chains.insert(to(Fixed::InputDiscovery), list(discovery(owner, judge_input(owner))));
        }
        chains
    }

    fn isolation(&self, owner: &Owner, family: Family, end: End) -> Vec<Rule> {
        let cut = |key: &Key| commented("isolated", vec![key.at(end)], goto(owner, Fixed::Cut));
        let isolated = self.isolated.iter().filter(|key| key.occurs_in(family)).map(cut);
        // It comes back, as what is to be isolated before anything else is known comes behind.
        let unknown = unknown::chain_at(&self.unknown, end).map(|chain| jump(owner, chain));
        let is_closed = self.unknown.treatment == Treatment::Closed;
        isolated.chain(unknown.filter(|_| is_closed)).collect()
    }

    fn isolation_at(&self, owner: &Owner, family: Family) -> Vec<Rule> {
        let cut = |address| {
            let matches = vec![Match::Address { end: End::Destination, address }];
            commented("isolated", matches, goto(owner, Fixed::Cut))
        };
        of_family(&self.isolated_at, family).map(cut).collect()
    }

    /// Returns what drops packets that endpoints send in the name of others.
    fn own(&self, family: Family) -> List {
        let rules = |(&key, addresses): (&Key, &BTreeSet<IpAddr>)| {
            let from = key.at(End::Source);
            let own = of_family(addresses, family).map(|address| {
                let own = Match::Address { end: End::Source, address };
                commented("own", vec![from.clone(), own], Action::Verdict(Verdict::Return))
            });
            let forged = commented("forged", vec![from.clone()], Action::Verdict(Verdict::Drop));
            (key, own.chain([forged]).collect())
        };
        let by_interface = self.own.iter().filter(|(key, _)| matches!(key, Key::Interface(_)));
        by_interface.map(rules).collect()
    }

    /// Returns what judges ICMP errors that endpoints send about flows of others. Those about their own return.
    fn related(&self, owner: &Owner, family: Family) -> List {
        let rules = |(&key, addresses): (&Key, &BTreeSet<IpAddr>)| {
            let from = |it: Option<Match>| [key.at(End::Source)].into_iter().chain(it).collect();
            let own = |address| {
                [FlowDirection::Original, FlowDirection::Reply].map(|direction| {
                    let flow = Match::FlowSource(direction, address);
                    commented("own", from(Some(flow)), Action::Verdict(Verdict::Return))
                })
            };
            let judge = Side::BOTH.map(|side| {
                let chain = owner.chain(side.dispatch());
                commented("next", from(None), Action::Verdict(Verdict::Jump(chain)))
            });
            let own: Vec<Rule> = of_family(addresses, family).flat_map(own).collect();
            (key, own.into_iter().chain(judge).collect())
        };
        self.own.iter().filter(|(key, _)| key.occurs_in(family)).map(rules).collect()
    }

    /// Returns what leads to the chains of policy sets; traffic between an endpoint and itself returns before.
    fn dispatch(&self, side: Side, family: Family) -> List {
        let end = match side {
            Side::Egress => End::Source,
            Side::Ingress => End::Destination,
        };
        let rules = |(&key, chain): (&Key, &Name)| {
            let others = self.same.get(&key).into_iter().flatten();
            let to_itself = others.filter(|other| other.occurs_in(family)).map(|&other| {
                let (from, to) = if end == End::Source { (key, other) } else { (other, key) };
                let matches = vec![from.at(End::Source), to.at(End::Destination)];
                commented("self", matches, Action::Verdict(Verdict::Return))
            });
            let judge = Action::Verdict(Verdict::Goto(chain.clone()));
            (key, to_itself.chain([commented("dispatch", vec![key.at(end)], judge)]).collect())
        };
        self.dispatch.get(&(side, family)).into_iter().flatten().map(rules).collect()
    }

    fn endpoints(&self, family: Family) -> Vec<Rule> {
        let drop = |key: &Key| {
            commented("router", vec![key.at(End::Source)], Action::Verdict(Verdict::Drop))
        };
        let known = self.all.iter().filter(|key| key.occurs_in(family)).map(drop);
        let drop = Action::Verdict(Verdict::Drop);
        known.chain(unknown::at_interfaces(&self.unknown, End::Source, "router", &drop)).collect()
    }
}

fn of_family(addresses: &BTreeSet<IpAddr>, family: Family) -> impl Iterator<Item = IpAddr> {
    addresses.iter().copied().filter(move |it| Family::of(*it) == family)
}

fn forward(owner: &Owner, family: Family) -> Vec<Rule> {
    let mut rules =
        [Fixed::IsolatedFrom, Fixed::IsolatedTo, Fixed::Own].map(|it| jump(owner, it)).to_vec();
    rules.extend(established(owner, family));
    rules.extend(to_discovery(owner, family, Fixed::ForwardDiscovery));
    rules.extend(judge(owner));
    rules
}

/// Returns the rules for what is new and forwarded.
fn judge(owner: &Owner) -> Vec<Rule> {
    let chains = [Fixed::Encapsulated, Fixed::HostForward, Fixed::Egress, Fixed::Ingress];
    chains.map(|it| jump(owner, it)).to_vec()
}

/// Returns the rules for what is new and for the node itself.
fn judge_input(owner: &Owner) -> Vec<Rule> {
    let host = goto_rule("new", owner, Fixed::HostInput);
    vec![jump(owner, Fixed::Encapsulated), jump(owner, Fixed::Egress), host]
}

fn output(owner: &Owner) -> Vec<Rule> {
    [Fixed::IsolatedTo, Fixed::IsolatedAt, Fixed::HostOutput].map(|it| jump(owner, it)).to_vec()
}

fn input(owner: &Owner, family: Family) -> Vec<Rule> {
    let mut rules = [Fixed::IsolatedFrom, Fixed::InputOwn].map(|it| jump(owner, it)).to_vec();
    rules.extend(established(owner, family));
    rules.extend(to_discovery(owner, family, Fixed::InputDiscovery));
    rules.extend(judge_input(owner));
    rules
}

/// Returns the rules for sources of packets for the node itself. Nobody has the unspecified address, and those of the link
/// are the business of the link.
fn input_own(owner: &Owner, family: Family) -> Vec<Rule> {
    let address = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let of_link = (family == Family::V6).then_some(Match::LinkLocalSource);
    let unspecified = Match::Address { end: End::Source, address };
    let pass = |it| commented("own", vec![it], Action::Verdict(Verdict::Return));
    let rules = [unspecified].into_iter().chain(of_link).map(pass);
    rules.chain([goto_rule("next", owner, Fixed::Own)]).collect()
}

fn established(owner: &Owner, family: Family) -> [Rule; 3] {
    let icmp = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    let pass = || Action::Verdict(Verdict::Return);
    let related = || vec![Match::Protocol(icmp), Match::Flow(FlowState::Related)];
    let about_others = Action::Verdict(Verdict::Jump(owner.chain(Fixed::Related)));
    [
        commented("established", vec![Match::Flow(FlowState::Established)], pass()),
        commented("related", related(), about_others),
        commented("related", related(), pass()),
    ]
}

fn to_discovery(owner: &Owner, family: Family, chain: Fixed) -> Option<Rule> {
    let rule = || commented("discovery", vec![Match::Protocol(ICMPV6)], goto(owner, chain));
    (family == Family::V6).then(rule)
}

/// Returns the rules for new ICMPv6 packets; those that are no discovery go on with `judge`.
fn discovery(owner: &Owner, judge: Vec<Rule>) -> Vec<Rule> {
    let drop_from_endpoints = |kind| {
        let action = Action::Verdict(Verdict::Jump(owner.chain(Fixed::Endpoints)));
        commented("router", icmpv6(kind), action)
    };
    let rules = ROUTER_MESSAGES.into_iter().map(drop_from_endpoints);
    rules.chain(genuine_discovery()).chain(judge).collect()
}

/// Returns the rules for packets of isolated endpoints.
fn cut(family: Family) -> Vec<Rule> {
    let discovery = match family {
        Family::V4 => Vec::new(),
        Family::V6 => genuine_discovery(),
    };
    let drop = commented("isolated", Vec::new(), Action::Verdict(Verdict::Drop));
    discovery.into_iter().chain([drop]).collect()
}

/// Returns the rules that let discovery pass. What a router has forwarded is none.
pub(super) fn genuine_discovery() -> Vec<Rule> {
    let pass = |kind, genuine| {
        let matches = [icmpv6(kind), vec![genuine]].concat();
        commented("discovery", matches, Action::Verdict(Verdict::Return))
    };
    let neighbours = NEIGHBOUR_DISCOVERY.into_iter().chain(ROUTER_MESSAGES);
    let neighbours = neighbours.map(|kind| pass(kind, Match::HopLimit(HOP_LIMIT)));
    let listeners = LISTENER_DISCOVERY.into_iter();
    neighbours.chain(listeners.map(|kind| pass(kind, Match::LinkLocalSource))).collect()
}

fn icmpv6(kind: u8) -> Vec<Match> {
    let it = Match::Icmp { family: Family::V6, kind, code: None, sense: Sense::In };
    vec![Match::Protocol(ICMPV6), it]
}

pub(super) fn jump(owner: &Owner, chain: Fixed) -> Rule {
    commented("next", Vec::new(), Action::Verdict(Verdict::Jump(owner.chain(chain))))
}

pub(super) fn goto_rule(id: &str, owner: &Owner, chain: Fixed) -> Rule {
    commented(id, Vec::new(), goto(owner, chain))
}

pub(super) fn goto(owner: &Owner, chain: Fixed) -> Action {
    Action::Verdict(Verdict::Goto(owner.chain(chain)))
}

/// Returns a rule whose comment has an id and a digest of the rest.
pub(super) fn commented(id: &str, matches: Vec<Match>, action: Action) -> Rule {
    let mut rule = Rule { matches, action, comment: String::new() };
    rule.comment = format!("np:{id}:{}", short_digest(&rule.to_string()));
    rule
}
