//! The content of our table as typed values, desired or observed.
//!
//! [`Display`](std::fmt::Display) prints it in the language of `nft`, which loads it to the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use netpol_core::net::Family;
use netpol_netfilter::LogRate;

use crate::name::{Name, SizeClass};

mod display;

/// The chains, sets and maps of one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ruleset {
    /// Sets and maps, which share one name space.
    pub(crate) sets: BTreeMap<Name, Set>,
    /// Chains.
    pub(crate) chains: BTreeMap<Name, Chain>,
}

impl Ruleset {
    /// Returns the chains and sets that a packet can meet: all that the base chains lead to.
    pub(crate) fn live(&self) -> BTreeSet<&Name> {
        self.below(self.bases().collect())
    }

    /// Returns these chains and sets, and all that they lead to.
    pub(crate) fn below<'a>(&'a self, mut todo: Vec<&'a Name>) -> BTreeSet<&'a Name> {
        let mut below = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if below.insert(name) {
                todo.extend(self.references(name));
            }
        }
        below
    }

    /// Returns whether the set called `name` has a key.
    pub(crate) fn has_key(&self, name: &Name, key: Key) -> bool {
        let elements = self.sets.get(name).map(|set| &set.elements);
        matches!(elements, Some(Elements::Keys(keys)) if keys.binary_search(&key).is_ok())
    }

    /// Returns what the chain or set called `name` refers to.
    pub(crate) fn references(&self, name: &Name) -> Vec<&Name> {
        let chain = self
            .chains
            .get(name)
            .into_iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(Rule::references);
        let set = self.sets.get(name).into_iter().flat_map(|set| set.elements.references());
        chain.chain(set).collect()
    }

    fn bases(&self) -> impl Iterator<Item = &Name> {
        self.chains.iter().filter(|(_, chain)| chain.base.is_some()).map(|(name, _)| name)
    }
}

/// A chain: a base chain if it has a hook.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Chain {
    /// Where the kernel enters the chain; `None` if only other chains do.
    pub(crate) base: Option<Base>,
    /// The rules in order.
    pub(crate) rules: Vec<Rule>,
}

/// The place of a base chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Base {
    /// The hook.
    pub(crate) hook: Hook,
    /// The priority among the chains at that hook; lower comes first.
    pub(crate) priority: i32,
}

/// A netfilter hook of the `inet` family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hook {
    /// Packets that come in, before they are routed.
    Prerouting,
    /// Packets for this host.
    Input,
    /// Packets that pass through this host.
    Forward,
    /// Packets of this host.
    Output,
    /// Packets on their way out, after the last decision where they go.
    Postrouting,
    /// A hook that we do not use, by its number.
    Other(u32),
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
    /// Returns the sets and chains that the rule refers to.
    fn references(&self) -> impl Iterator<Item = &Name> {
        let sets = self.matches.iter().filter_map(|it| match it {
            Match::Member { set, .. } => Some(set),
            _ => None,
        });
        let target = match &self.action {
            Action::Verdict(verdict) => verdict.target(),
            Action::Dispatch { map, .. } => Some(map),
            Action::Log { .. }
            | Action::Untrack
            | Action::Mark(_)
            | Action::Unmark(_)
            | Action::Reject(_)
            | Action::Unknown => None,
        };
        sets.chain(target)
    }
}

/// One condition of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Match {
    /// The packet is of this family. Comes before anything that reads an address.
    Family(Family),
    /// The key made of the packet's fields is in the set, or is not.
    Member {
        /// The fields.
        fields: Fields,
        /// The set.
        set: Name,
        /// In it or not in it.
        sense: Sense,
    },
    /// The protocol is this one. Comes before anything that reads ports or an ICMP header.
    Protocol(u8),
    /// The protocol is another one.
    NotProtocol(u8),
    /// The port is in this inclusive range, or is not. Comes after [`Match::Protocol`].
    Ports {
        /// Source or destination.
        end: End,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
        /// In it or not in it.
        sense: Sense,
    },
    /// The ICMP type, and the code if there is one. Comes after [`Match::Protocol`] with ICMP or ICMPv6, as do the
    /// following.
    Icmp {
        /// The type.
        kind: u8,
        /// The code; `None` matches every code.
        code: Option<u8>,
    },
    /// The ICMP type is another one.
    NotIcmpType(u8),
    /// The ICMP code is another one. Type and code cannot be negated together: `nft` lists that as something else.
    NotIcmpCode(u8),
    /// The ICMP type is in this inclusive range.
    IcmpTypes {
        /// The first type.
        first: u8,
        /// The last type.
        last: u8,
    },
    /// The hop limit of an IPv6 packet. Comes after [`Match::Family`], as does the following.
    HopLimit(u8),
    /// The source of an IPv6 packet is an address of the link, `fe80::/10`, or is not. No router forwards such a packet.
    LinkLocalSource(Sense),
    /// The source is an address that somebody can have. Comes after [`Match::Family`] with the same family.
    SpecifiedSource(Family),
    /// What conntrack knows of the flow.
    Flow(FlowState),
    /// The packet is of a flow that conntrack was told to leave alone, or is not.
    Untracked(Sense),
    /// The packet comes in or goes out on this interface, or does not.
    Interface {
        /// In, as a source, or out.
        end: End,
        /// The interface.
        name: Interface,
        /// On it or not on it.
        sense: Sense,
    },
    /// The name of the interface on which the packet comes in or goes out begins so, or does not.
    InterfacePrefix {
        /// In, as a source, or out.
        end: End,
        /// How it begins: at most 14 bytes.
        prefix: Interface,
        /// So or otherwise.
        sense: Sense,
    },
    /// The packet is a reset. Comes after [`Match::Protocol`] with TCP.
    Reset,
    /// None of these bits of the packet's mark is set.
    Unmarked(u32),
    /// A condition that we never write. A rule of ours with it was changed by somebody.
    Unknown,
}

/// Which end of a flow a field belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

/// Whether a value must be among others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sense {
    /// It must be.
    In,
    /// It must not be.
    NotIn,
}

/// The state of a flow in conntrack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FlowState {
    /// Packets were seen in both directions.
    Established,
    /// The packet begins something that an established flow announced, such as an ICMP error about it.
    Related,
}

/// The directions of a flow in conntrack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FlowDirection {
    /// That of the first packet.
    Original,
    /// The other one. Its source is the destination of the first packet after destination NAT.
    Reply,
}

impl FlowDirection {
    pub(crate) const BOTH: [Self; 2] = [Self::Original, Self::Reply];
}

/// The fields of a packet that make the key of a lookup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fields {
    /// The interface on which the packet came in.
    InputInterface,
    /// The interface on which it goes out.
    OutputInterface,
    /// Both interfaces.
    Interfaces,
    /// The interface on which the packet came in, and its source address.
    Sender(Family),
    /// The address at one end.
    Address(Family, End),
    /// Source and destination address.
    Addresses(Family),
    /// The interface on which the packet came in, and the source of its flow in a direction.
    FlowSender(Family, FlowDirection),
    /// The source address of the packet, and the source of its flow in a direction.
    FlowAddresses(Family, FlowDirection),
    /// The address at one end, the protocol, and the port at the same end.
    Target(Family, End),
    /// The port at one end. Comes after [`Match::Protocol`].
    Port(End),
}

/// What happens to a packet that matched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// The packet is counted and judged.
    Verdict(Verdict),
    /// The verdict is looked up; without an entry the next rule follows.
    Dispatch {
        /// The fields that make the key.
        fields: Fields,
        /// The map.
        map: Name,
    },
    /// The packet is counted, conntrack is told to leave it alone, and it goes back to the chain that jumped here.
    Untrack,
    /// The packet is counted and gets these bits of the mark, and it goes back to the chain that jumped here.
    Mark(u32),
    /// The packet is counted and loses these bits of the mark, and the next rule follows.
    Unmark(u32),
    /// The packet is counted and logged, and the next rule follows.
    Log {
        /// The NFLOG group.
        group: u16,
        /// The prefix of the log message.
        prefix: String,
        /// How often.
        rate: LogRate,
    },
    /// The packet is counted and dropped, and its sender is told so.
    Reject(Answer),
    /// Something that we never write. A rule of ours with it was changed by somebody.
    Unknown,
}

/// What the sender of a packet hears.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// A reset. Comes after [`Match::Protocol`] with TCP.
    Reset,
    /// ICMP or ICMPv6: communication is administratively prohibited.
    Prohibited,
}

/// A verdict of nf_tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The packet is dropped.
    Drop,
    /// Back to the chain that jumped here; from a base chain, to its policy.
    Return,
    /// On with another chain, and back when it returns.
    Jump(Name),
    /// On with another chain, and not back.
    Goto(Name),
    /// A verdict that we never write, by its code.
    Other(i32),
}

impl Verdict {
    pub(crate) fn target(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Drop | Self::Return | Self::Other(_) => None,
        }
    }
}

/// A set or a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Set {
    /// What its keys are.
    pub(crate) key: KeyType,
    /// How the kernel stores it.
    pub(crate) storage: Storage,
    /// Its elements.
    pub(crate) elements: Elements,
}

/// How the kernel stores a set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Storage {
    /// A hash table with a hard limit.
    Hash {
        /// The most elements that it takes; 0 if there is no limit.
        size: u32,
    },
    /// A structure for ranges.
    Interval,
}

impl Storage {
    pub(crate) fn hash(class: SizeClass) -> Self {
        Self::Hash { size: u32::try_from(class.capacity()).unwrap_or(u32::MAX) }
    }
}

/// The type of a set's keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyType {
    /// `ifname`
    Interface,
    /// `ifname . ifname`
    Interfaces,
    /// An interface and an address: `ifname . ipv4_addr`, or the same for IPv6.
    Sender(Family),
    /// `ipv4_addr` or `ipv6_addr`
    Address(Family),
    /// Two addresses of one family.
    Addresses(Family),
    /// `ipv4_addr . inet_proto . inet_service`, or the same for IPv6.
    Target(Family),
    /// `inet_service`
    Port,
}

/// The elements of a set, sorted and without duplicates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Elements {
    /// The keys of a hash set.
    Keys(Vec<Key>),
    /// Disjoint, inclusive ranges.
    Ranges(Vec<(Key, Key)>),
    /// The entries of a verdict map.
    Verdicts(BTreeMap<Key, Verdict>),
}

impl Elements {
    /// Returns the keys, sorted and without duplicates.
    pub(crate) fn keys(keys: impl IntoIterator<Item = Key>) -> Self {
        let mut keys: Vec<Key> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self::Keys(keys)
    }

    /// Returns how many elements there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Keys(keys) => keys.len(),
            Self::Ranges(ranges) => ranges.len(),
            Self::Verdicts(entries) => entries.len(),
        }
    }

    /// Returns whether there is no element.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn references(&self) -> impl Iterator<Item = &Name> {
        let entries = match self {
            Self::Verdicts(entries) => Some(entries),
            Self::Keys(_) | Self::Ranges(_) => None,
        };
        entries.into_iter().flat_map(BTreeMap::values).filter_map(Verdict::target)
    }
}

/// The key of an element.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Key {
    /// An interface.
    Interface(Interface),
    /// Two interfaces: of entry and of exit.
    Interfaces(Interface, Interface),
    /// An interface and an IPv4 address that may come in on it.
    Sender4(Interface, Ipv4Addr),
    /// An interface and an IPv6 address that may come in on it.
    Sender6(Interface, Ipv6Addr),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// Two IPv4 addresses.
    Pair4(Ipv4Addr, Ipv4Addr),
    /// Two IPv6 addresses.
    Pair6(Ipv6Addr, Ipv6Addr),
    /// An IPv4 address, a protocol and a port.
    Target4(Ipv4Addr, u8, u16),
    /// An IPv6 address, a protocol and a port.
    Target6(Ipv6Addr, u8, u16),
    /// A port.
    Port(u16),
}

/// The name of a network interface.
///
/// Invariants: 1 to 15 bytes without a NUL, padded with NULs to 16 (`IFNAMSIZ`); printable ASCII without blanks, quotes,
/// backslash, `*` (the wildcard of `nft`) and `/` (refused by the kernel).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Interface([u8; 16]);

impl Interface {
    /// Returns the name, or `None` if it breaks an invariant of the type.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let good =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'*' | b'/');
        if name.is_empty() || name.len() > 15 || !name.bytes().all(good) {
            return None;
        }
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Some(Self(bytes))
    }

    /// Returns the name as the kernel's key: padded with NULs.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns the interface of a kernel's key.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == 0)?;
        if bytes.iter().skip(end).any(|&byte| byte != 0) {
            return None;
        }
        Self::new(std::str::from_utf8(bytes.get(..end)?).ok()?)
    }
}
