//! The chains that are always there.
//!
//! The built-in chains `FORWARD`, `INPUT` and `OUTPUT` jump to `NP-FWD`, `NP-IN` and `NP-OUT` before anything else. What
//! happens to a packet, in order:
//!
//! 1. Whatever comes from or goes to an isolated endpoint is dropped in `NP-CUT`, established flows included. Neighbour
//!    and multicast listener discovery goes on.
//! 2. Established flows pass, and ICMP errors that belong to one. (Discovery is never part of a flow.)
//! 3. Router advertisements and redirects that an endpoint sends are dropped; other discovery passes.
//! 4. What comes in on an endpoint's interface to be forwarded and does not carry one of its addresses is dropped.
//!    Otherwise an endpoint could send itself a packet in the name of somebody else, and would then reach that one as with
//!    a reply.
//! 5. Traffic between an endpoint and itself passes.
//! 6. The packet is judged by the sender's egress policy, then by the receiver's ingress policy.
//!
//! To pass is to return to the built-in chain: other owners' rules still judge. So every chain below is entered with
//! `goto`, except where its end must come back.
//!
//! `NP-IN` has packets for the node itself, which has no ingress policy here. `NP-OUT` has the node's own packets, which
//! are outside of policy unless the endpoint is isolated; they are known by the hook, never by an address.
//!
//! `NP-ENDPOINTS` is where router messages are dropped. It has a rule for every endpoint, the open ones included, and so
//! is also the record of which endpoints are known. IPv4 has no such messages, and only the record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::Family;

use super::Disposition;
use crate::name::{Fixed, Name, Owner, Side, short_digest};
use crate::ruleset::{Action, Chain, End, FlowState, Interface, Key, Match, Rule, Sense, Verdict};

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

/// Returns the built-in chains that we hook into, each with the chain of ours that it jumps to.
pub(crate) fn hook_chains(owner: &Owner) -> [(&'static str, Name); 3] {
    [("FORWARD", Fixed::Forward), ("INPUT", Fixed::Input), ("OUTPUT", Fixed::Output)]
        .map(|(hook, chain)| (hook, owner.chain(chain)))
}

/// The endpoints as the chains list them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    all: BTreeSet<Key>,
    isolated: BTreeSet<Key>,
    /// Interfaces of endpoints whose addresses are known, each with these.
    own: BTreeMap<Interface, BTreeSet<IpAddr>>,
    /// Pairs of keys that belong to one endpoint.
    same: BTreeSet<(Key, Key)>,
    dispatch: BTreeMap<(Side, Family), BTreeMap<Key, Name>>,
}

impl Lists {
    /// Adds an endpoint.
    pub(crate) fn add(
        &mut self,
        keys: &[Key],
        own: &[(Interface, IpAddr)],
        disposition: &Disposition,
    ) {
        self.all.extend(keys);
        for &(interface, address) in own {
            self.own.entry(interface).or_default().insert(address);
        }
        match disposition {
            Disposition::Open => {}
            Disposition::Isolated => self.isolated.extend(keys),
            Disposition::Judged(entries) => {
                for (&place, chain) in entries {
                    let known = keys.iter().filter(|key| key.occurs_in(place.1));
                    let list = self.dispatch.entry(place).or_default();
                    list.extend(known.map(|&key| (key, chain.clone())));
                }
                if !entries.is_empty() {
                    let pairs = keys.iter().flat_map(|&one| keys.iter().map(move |&it| (one, it)));
                    self.same.extend(pairs);
                }
            }
        }
    }

    /// Returns the chains of a family.
    pub(crate) fn chains(&self, owner: &Owner, family: Family) -> BTreeMap<Name, Chain> {
        let to = |fixed| owner.chain(fixed);
        let list = |rules: Vec<Rule>| Chain { rules };
        let mut chains = BTreeMap::from([
            (to(Fixed::Forward), list(forward(owner, family))),
            (to(Fixed::Input), list(input(owner, family))),
            (to(Fixed::Output), list(vec![jump(owner, Fixed::IsolatedTo)])),
            (to(Fixed::IsolatedFrom), list(self.isolation(owner, family, End::Source))),
            (to(Fixed::IsolatedTo), list(self.isolation(owner, family, End::Destination))),
            (to(Fixed::Cut), list(cut(family))),
            (to(Fixed::New), list(self.new_flows(owner, family))),
            (to(Fixed::Genuine), list(self.genuine(owner, family))),
            (to(Fixed::Egress), list(self.dispatch(Side::Egress, family))),
            (to(Fixed::Ingress), list(self.dispatch(Side::Ingress, family))),
            (to(Fixed::Endpoints), list(self.endpoints(family))),
        ]);
        if family == Family::V6 {
            chains.insert(to(Fixed::ForwardDiscovery), list(discovery(owner, Fixed::New)));
            chains.insert(to(Fixed::InputDiscovery), list(discovery(owner, Fixed::Egress)));
        }
        chains
    }

    fn isolation(&self, owner: &Owner, family: Family, end: End) -> Vec<Rule> {
        let cut = |key: &Key| commented("isolated", vec![key.at(end)], goto(owner, Fixed::Cut));
        self.isolated.iter().filter(|key| key.occurs_in(family)).map(cut).collect()
    }

    /// Returns the rules that drop what endpoints send in the name of others.
    fn new_flows(&self, owner: &Owner, family: Family) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (&name, addresses) in &self.own {
            let from = Match::Interface { end: End::Source, name };
            for &address in addresses.iter().filter(|it| Family::of(**it) == family) {
                let own = Match::Address { end: End::Source, address };
                rules.push(commented("own", vec![from.clone(), own], goto(owner, Fixed::Genuine)));
            }
            rules.push(commented("forged", vec![from], Action::Verdict(Verdict::Drop)));
        }
        rules.push(commented("next", Vec::new(), goto(owner, Fixed::Genuine)));
        rules
    }

    fn genuine(&self, owner: &Owner, family: Family) -> Vec<Rule> {
        let to_itself = |(one, other): &(Key, Key)| {
            let matches = vec![one.at(End::Source), other.at(End::Destination)];
            commented("self", matches, Action::Verdict(Verdict::Return))
        };
        let both = |(one, other): &&(Key, Key)| one.occurs_in(family) && other.occurs_in(family);
        let to_itself = self.same.iter().filter(both).map(to_itself);
        to_itself.chain(Side::BOTH.map(|side| jump(owner, side.dispatch()))).collect()
    }

    fn dispatch(&self, side: Side, family: Family) -> Vec<Rule> {
        let end = match side {
            Side::Egress => End::Source,
            Side::Ingress => End::Destination,
        };
        let rule = |(key, chain): (&Key, &Name)| {
            let action = Action::Verdict(Verdict::Goto(chain.clone()));
            commented("dispatch", vec![key.at(end)], action)
        };
        self.dispatch.get(&(side, family)).into_iter().flatten().map(rule).collect()
    }

    fn endpoints(&self, family: Family) -> Vec<Rule> {
        let drop = |key: &Key| {
            commented("router", vec![key.at(End::Source)], Action::Verdict(Verdict::Drop))
        };
        self.all.iter().filter(|key| key.occurs_in(family)).map(drop).collect()
    }
}

fn forward(owner: &Owner, family: Family) -> Vec<Rule> {
    let mut rules = vec![jump(owner, Fixed::IsolatedFrom), jump(owner, Fixed::IsolatedTo)];
    rules.extend(established(family));
    rules.extend(to_discovery(owner, family, Fixed::ForwardDiscovery));
    rules.push(commented("new", Vec::new(), goto(owner, Fixed::New)));
    rules
}

fn input(owner: &Owner, family: Family) -> Vec<Rule> {
    let mut rules = vec![jump(owner, Fixed::IsolatedFrom)];
    rules.extend(established(family));
    rules.extend(to_discovery(owner, family, Fixed::InputDiscovery));
    rules.push(commented("new", Vec::new(), goto(owner, Fixed::Egress)));
    rules
}

fn established(family: Family) -> [Rule; 2] {
    let pass = || Action::Verdict(Verdict::Return);
    let icmp = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    let related = vec![Match::Protocol(icmp), Match::Flow(FlowState::Related)];
    [
        commented("established", vec![Match::Flow(FlowState::Established)], pass()),
        commented("related", related, pass()),
    ]
}

fn to_discovery(owner: &Owner, family: Family, chain: Fixed) -> Option<Rule> {
    let rule = || commented("discovery", vec![Match::Protocol(ICMPV6)], goto(owner, chain));
    (family == Family::V6).then(rule)
}

/// Returns the rules for new ICMPv6 packets; those that are no discovery go on with `next`.
fn discovery(owner: &Owner, next: Fixed) -> Vec<Rule> {
    let drop_from_endpoints = |kind| {
        let action = Action::Verdict(Verdict::Jump(owner.chain(Fixed::Endpoints)));
        commented("router", icmpv6(kind), action)
    };
    let mut rules: Vec<Rule> = ROUTER_MESSAGES.into_iter().map(drop_from_endpoints).collect();
    rules.extend(genuine_discovery());
    rules.push(commented("new", Vec::new(), goto(owner, next)));
    rules
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
fn genuine_discovery() -> Vec<Rule> {
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

fn jump(owner: &Owner, chain: Fixed) -> Rule {
    commented("next", Vec::new(), Action::Verdict(Verdict::Jump(owner.chain(chain))))
}

fn goto(owner: &Owner, chain: Fixed) -> Action {
    Action::Verdict(Verdict::Goto(owner.chain(chain)))
}

/// Returns a rule whose comment has an id and a digest of the rest.
pub(super) fn commented(id: &str, matches: Vec<Match>, action: Action) -> Rule {
    let mut rule = Rule { matches, action, comment: String::new() };
    rule.comment = format!("np:{id}:{}", short_digest(&rule.to_string()));
    rule
}
