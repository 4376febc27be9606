//! Our chains and sets as typed values.
//!
//! A [`Rule`] prints itself in the language of `iptables`, without the name of its chain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::{Family, Prefix, Transport};
use netpol_netfilter::LogRate;

use crate::name::Name;
use crate::probe::TableId;

mod display;

/// All that we have in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ruleset {
    /// The chains of each table.
    pub(crate) chains: BTreeMap<TableId, BTreeMap<Name, Chain>>,
    /// The sets of both families.
    pub(crate) sets: BTreeMap<Name, Set>,
}

/// A chain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Chain {
    /// The rules in order.
    pub(crate) rules: Vec<Rule>,
}

impl Chain {
    /// Returns the chains that the rules lead to.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Name> {
        self.rules.iter().filter_map(|rule| rule.action.target())
    }

    /// Returns the sets that the rules refer to.
    pub(crate) fn sets(&self) -> BTreeSet<&Name> {
        self.rules.iter().flat_map(Rule::sets).collect()
    }
}

/// A rule: what it matches, and what happens then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Rule {
    /// All must match, in this order.
    pub(crate) matches: Vec<Match>,
    /// What happens to a packet that matches.
    pub(crate) action: Action,
    /// The comment: `np:`, a short id and a digest.
    pub(crate) comment: String,
}

impl Rule {
    /// Returns the sets that the rule refers to, in order.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Name> {
        self.matches.iter().filter_map(|it| match it {
            Match::Member { set, .. } => Some(set),
            _ => None,
        })
    }

    /// Returns the endpoint that the rule is about, if it is about one.
    pub(crate) fn key(&self) -> Option<Key> {
        self.matches.iter().find_map(|it| match it {
            Match::Interface { name, .. } => Some(Key::Interface(*name)),
            Match::Address { address, .. } => Some(Key::Address(*address)),
            _ => None,
        })
    }
}

/// One condition of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Match {
    /// The packet came in (source) or goes out (destination) through this interface.
    Interface { end: End, name: Interface },
    /// The address at one end is this one.
    Address { end: End, address: IpAddr },
    /// The interface or address at one end begins like this, or does not.
    Under { end: End, prefix: KeyPrefix, sense: Sense },
    /// The address, or the address and port, at one end is in the set, or is not.
    Member { end: End, fields: Fields, set: Name, sense: Sense },
    /// The protocol is this one. Comes before anything that reads ports or an ICMP header.
    Protocol(u8),
    /// The protocol is another one.
    NotProtocol(u8),
    /// The port is in these inclusive ranges, or is not. Comes after [`Match::Protocol`]. `multiport` takes at most
    /// [`MULTIPORT_SLOTS`].
    Ports { transport: Transport, end: End, ranges: Vec<(u16, u16)>, sense: Sense },
    /// The ICMP type, and the code if there is one, or not that. Comes after [`Match::Protocol`].
    Icmp { family: Family, kind: u8, code: Option<u8>, sense: Sense },
    /// The packet is a reset. Comes after [`Match::Protocol`] with TCP.
    Reset,
    /// The hop limit is this one. IPv6 only.
    HopLimit(u8),
    /// The source is an address of the link (`fe80::/10`, RFC 4291 section 2.5.6).
    LinkLocalSource,
    /// What conntrack knows of the flow.
    Flow(FlowState),
    /// All these bits of the packet mark are set.
    Marked(u32),
    /// Packets of the flow in this direction come from this address.
    FlowSource(FlowDirection, IpAddr),
}

/// Most ports of one `multiport` match; a range counts twice.
///
/// Source: `XT_MULTI_PORTS` in `include/uapi/linux/netfilter/xt_multiport.h`.
pub(crate) const MULTIPORT_SLOTS: usize = 15;

/// Which end of a flow a condition is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Whether a value must be among others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sense {
    In,
    NotIn,
}

/// The fields of a packet that are looked up in a set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fields {
    Address,
    AddressAndPort,
}

/// The state of a flow in conntrack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FlowState {
    Established,
    Related,
    /// Conntrack was told to leave the packet alone.
    Untracked,
}

/// A direction of a flow in conntrack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FlowDirection {
    /// That of the packet that opened it, before any NAT.
    Original,
    /// That of the replies, before any NAT.
    Reply,
}

/// What happens to a packet that matched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Verdict(Verdict),
    /// The packet is logged, and the next rule follows.
    Log {
        group: u16,
        prefix: String,
        rate: LogRate,
    },
    /// Conntrack leaves the packet alone, and the next rule follows.
    Untrack,
    /// These bits of the packet mark are set or cleared, and the next rule follows.
    Mark {
        bits: u32,
        to: Bits,
    },
    /// The packet is dropped, and its sender is told so. Only in the table `filter`.
    Reject(Answer),
}

/// What the sender of a packet hears.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// A reset. Comes after [`Match::Protocol`] with TCP.
    Reset,
    /// ICMP: communication is administratively prohibited.
    Prohibited(Family),
}

/// What becomes of bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bits {
    Set,
    Cleared,
}

impl Action {
    pub(crate) fn target(&self) -> Option<&Name> {
        match self {
            Self::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
            Self::Verdict(Verdict::Drop | Verdict::Return)
            | Self::Log { .. }
            | Self::Untrack
            | Self::Mark { .. }
            | Self::Reject(_) => None,
        }
    }
}

/// A verdict of iptables. We never accept: other owners' rules still judge what we let pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// On with another chain, and back when it returns.
    Jump(Name),
    /// On with another chain, and not back.
    Goto(Name),
}

/// What an endpoint's packets are known by.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Key {
    Interface(Interface),
    Address(IpAddr),
}

impl Key {
    /// Returns whether packets of a family can have the key.
    pub(crate) fn occurs_in(self, family: Family) -> bool {
        match self {
            Self::Interface(_) => true,
            Self::Address(address) => Family::of(address) == family,
        }
    }

    /// Returns the condition that the packet's source or destination is the endpoint.
    pub(crate) fn at(self, end: End) -> Match {
        match self {
            Self::Interface(name) => Match::Interface { end, name },
            Self::Address(address) => Match::Address { end, address },
        }
    }

    /// Returns what the key is made of: bytes of a name, or groups of 4 bits of an address.
    pub(crate) fn symbols(self) -> Vec<u8> {
        let nibbles = |bytes: &[u8]| bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
        match self {
            Self::Interface(name) => name.to_string().into_bytes(),
            Self::Address(IpAddr::V4(address)) => nibbles(&address.octets()),
            Self::Address(IpAddr::V6(address)) => nibbles(&address.octets()),
        }
    }

    /// Returns what keys have in common whose first symbols are those of this one; `None` if that is nothing.
    pub(crate) fn prefix(self, symbols: usize) -> Option<KeyPrefix> {
        match self {
            Self::Interface(name) => {
                let text = name.to_string();
                Interface::new(text.get(..symbols)?).map(KeyPrefix::Interface)
            }
            Self::Address(address) => {
                let bits = u8::try_from(symbols * 4).ok().filter(|bits| *bits > 0)?;
                Prefix::containing(address, bits).ok().map(KeyPrefix::Net)
            }
        }
    }
}

/// How the keys of several endpoints begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyPrefix {
    /// Names of interfaces that begin so.
    Interface(Interface),
    /// Addresses in this block.
    Net(Prefix),
}

/// A set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Set {
    pub(crate) shape: Shape,
    /// The members, sorted and without duplicates.
    pub(crate) members: Vec<Member>,
}

/// The type of a set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) storage: Storage,
    pub(crate) family: Family,
}

/// How the kernel stores a set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Storage {
    /// `hash:ip`
    Addresses,
    /// `hash:net`
    Prefixes,
    /// `hash:ip,port`
    Ports,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Member {
    Address(IpAddr),
    Prefix(Prefix),
    Port(IpAddr, Transport, u16),
}

/// The name of a network interface.
///
/// Invariants: 1 to 15 bytes (`IFNAMSIZ` less the NUL); ASCII letters, digits and `.`, `-`, `_`, `@`; not beginning
/// with a hyphen, which would look like an option. A `+` at the end would be the wildcard of `iptables`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Interface {
    bytes: [u8; 15],
}

impl Interface {
    /// Returns the name, or `None` if it breaks an invariant of the type.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
        if name.is_empty() || name.len() > 15 || name.starts_with('-') || !name.bytes().all(good) {
            return None;
        }
        let mut bytes = [0; 15];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Some(Self { bytes })
    }
}
