//! The ruleset in the language of `nft`.

use std::fmt::{self, Display, Formatter, Write};

use netpol_core::net::Family;
use netpol_netfilter::LogRate;

use super::{
    Action, Answer, Base, Chain, Elements, End, Fields, FlowDirection, FlowState, Hook, Interface,
    Key, KeyType, Match, Rule, Ruleset, Sense, Set, Storage, Verdict,
};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, set) in &self.sets {
            let keyword = if matches!(set.elements, Elements::Verdicts(_)) { "map" } else { "set" };
            write!(f, "{keyword} {name} {set}")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "chain {name} {{")?;
            write!(f, "{chain}")?;
            f.write_str("}\n")?;
        }
        Ok(())
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(base) = self.base {
            writeln!(f, "\t{base}")?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t{rule}"))
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "type filter hook {} priority {}; policy accept;", self.hook, self.priority)
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prerouting => f.write_str("prerouting"),
            Self::Input => f.write_str("input"),
            Self::Forward => f.write_str("forward"),
            Self::Output => f.write_str("output"),
            Self::Postrouting => f.write_str("postrouting"),
            Self::Other(number) => write!(f, "unknown({number})"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|it| write!(f, "{it} "))?;
        write!(f, "{} comment \"{}\"", self.action, self.comment)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Member { fields, set, sense } => write!(f, "{fields} {sense}@{set}"),
            Self::Protocol(number) => write!(f, "meta l4proto {number}"),
            Self::NotProtocol(number) => write!(f, "meta l4proto != {number}"),
            Self::Ports { end, first, last, sense } if first == last => {
                write!(f, "{} {sense}{first}", Fields::Port(*end))
            }
            Self::Ports { end, first, last, sense } => {
                write!(f, "{} {sense}{first}-{last}", Fields::Port(*end))
            }
            Self::Icmp { kind, code: None } => write!(f, "@th,0,8 {kind}"),
            Self::Icmp { kind, code: Some(code) } => {
                write!(f, "@th,0,16 {}", u16::from_be_bytes([*kind, *code]))
            }
            Self::NotIcmpType(kind) => write!(f, "@th,0,8 != {kind}"),
            Self::NotIcmpCode(code) => write!(f, "@th,8,8 != {code}"),
            Self::IcmpTypes { first, last } => write!(f, "@th,0,8 {first}-{last}"),
            Self::Reset => f.write_str("tcp flags rst"),
            Self::HopLimit(limit) => write!(f, "ip6 hoplimit {limit}"),
            Self::LinkLocalSource(sense) => write!(f, "ip6 saddr {sense}fe80::/10"),
            Self::SpecifiedSource(Family::V4) => f.write_str("ip saddr != 0.0.0.0"),
            Self::SpecifiedSource(Family::V6) => f.write_str("ip6 saddr != ::"),
            Self::Flow(FlowState::Established) => f.write_str("ct state established"),
            Self::Flow(FlowState::Related) => f.write_str("ct state related"),
            Self::Untracked(sense) => write!(f, "ct state {sense}untracked"),
            Self::Interface { end: End::Source, name, sense } => {
                write!(f, "iifname {sense}\"{name}\"")
            }
            Self::Interface { end: End::Destination, name, sense } => {
                write!(f, "oifname {sense}\"{name}\"")
            }
            Self::InterfacePrefix { end: End::Source, prefix, sense } => {
                write!(f, "iifname {sense}\"{prefix}*\"")
            }
            Self::InterfacePrefix { end: End::Destination, prefix, sense } => {
                write!(f, "oifname {sense}\"{prefix}*\"")
            }
            Self::Unmarked(bits) => write!(f, "meta mark & {bits:#010x} == 0x00000000"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Display for Sense {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "",
            Self::NotIn => "!= ",
        })
    }
}

impl Display for FlowDirection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Reply => "reply",
        })
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FlowSender(Family::V4, way) => return write!(f, "iifname . ct {way} ip saddr"),
            Self::FlowSender(Family::V6, way) => return write!(f, "iifname . ct {way} ip6 saddr"),
            Self::FlowAddresses(Family::V4, way) => {
                return write!(f, "ip saddr . ct {way} ip saddr");
            }
            Self::FlowAddresses(Family::V6, way) => {
                return write!(f, "ip6 saddr . ct {way} ip6 saddr");
            }
            Self::InputInterface => "iifname",
            Self::OutputInterface => "oifname",
            Self::Interfaces => "iifname . oifname",
            Self::Sender(Family::V4) => "iifname . ip saddr",
            Self::Sender(Family::V6) => "iifname . ip6 saddr",
            Self::Address(Family::V4, End::Source) => "ip saddr",
            Self::Address(Family::V4, End::Destination) => "ip daddr",
            Self::Address(Family::V6, End::Source) => "ip6 saddr",
            Self::Address(Family::V6, End::Destination) => "ip6 daddr",
            Self::Addresses(Family::V4) => "ip saddr . ip daddr",
            Self::Addresses(Family::V6) => "ip6 saddr . ip6 daddr",
            Self::Target(Family::V4, End::Source) => "ip saddr . meta l4proto . th sport",
            Self::Target(Family::V4, End::Destination) => "ip daddr . meta l4proto . th dport",
            Self::Target(Family::V6, End::Source) => "ip6 saddr . meta l4proto . th sport",
            Self::Target(Family::V6, End::Destination) => "ip6 daddr . meta l4proto . th dport",
            Self::Port(End::Source) => "th sport",
            Self::Port(End::Destination) => "th dport",
        })
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => write!(f, "counter {verdict}"),
            Self::Dispatch { fields, map } => write!(f, "{fields} vmap @{map}"),
            Self::Untrack => f.write_str("counter notrack return"),
            Self::Mark(bits) => write!(f, "counter meta mark set meta mark | {bits:#010x} return"),
            Self::Unmark(bits) => write!(f, "counter meta mark set meta mark & {:#010x}", !bits),
            Self::Log { group, prefix, rate } => {
                write!(f, "counter limit rate {rate} ")?;
                if rate.burst() != LogRate::BURST {
                    write!(f, "burst {} packets ", rate.burst())?;
                }
                write!(f, "log prefix \"{prefix}\" group {group} snaplen 64")
            }
            Self::Reject(Answer::Reset) => f.write_str("counter reject with tcp reset"),
            Self::Reject(Answer::Prohibited) => {
                f.write_str("counter reject with icmpx type admin-prohibited")
            }
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Other(code) => write!(f, "unknown({code})"),
        }
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let map = if matches!(self.elements, Elements::Verdicts(_)) { " : verdict" } else { "" };
        writeln!(f, "{{\n\ttype {}{map};", self.key)?;
        match self.storage {
            Storage::Hash { size: 0 } => {}
            Storage::Hash { size } => writeln!(f, "\tsize {size};")?,
            Storage::Interval => f.write_str("\tflags interval;\n")?,
        }
        if !self.elements.is_empty() {
            writeln!(f, "\telements = {{ {} }}", self.elements)?;
        }
        f.write_str("}\n")
    }
}

impl Display for KeyType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interface => "ifname",
            Self::Interfaces => "ifname . ifname",
            Self::Sender(Family::V4) => "ifname . ipv4_addr",
            Self::Sender(Family::V6) => "ifname . ipv6_addr",
            Self::Address(Family::V4) => "ipv4_addr",
            Self::Address(Family::V6) => "ipv6_addr",
            Self::Addresses(Family::V4) => "ipv4_addr . ipv4_addr",
            Self::Addresses(Family::V6) => "ipv6_addr . ipv6_addr",
            Self::Target(Family::V4) => "ipv4_addr . inet_proto . inet_service",
            Self::Target(Family::V6) => "ipv6_addr . inet_proto . inet_service",
            Self::Port => "inet_service",
        })
    }
}

impl Display for Elements {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => separated(f, keys, |f, key| write!(f, "{key}")),
            Self::Ranges(ranges) => separated(f, ranges, |f, (first, last)| {
                if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
            }),
            Self::Verdicts(entries) => {
                separated(f, entries, |f, (key, verdict)| write!(f, "{key} : {verdict}"))
            }
        }
    }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    each: impl Fn(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Interfaces(one, two) => write!(f, "\"{one}\" . \"{two}\""),
            Self::Sender4(interface, address) => write!(f, "\"{interface}\" . {address}"),
            Self::Sender6(interface, address) => write!(f, "\"{interface}\" . {address}"),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Pair4(one, two) => write!(f, "{one} . {two}"),
            Self::Pair6(one, two) => write!(f, "{one} . {two}"),
            Self::Target4(address, protocol, port) => write!(f, "{address} . {protocol} . {port}"),
            Self::Target6(address, protocol, port) => write!(f, "{address} . {protocol} . {port}"),
            Self::Port(port) => port.fmt(f),
        }
    }
}

impl Display for Interface {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take_while(|&&byte| byte != 0)
            .try_for_each(|&byte| f.write_char(char::from(byte)))
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}
