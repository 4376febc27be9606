//! Rules and members in the languages of `iptables` and `ipset`.

use std::fmt;

use netpol_core::net::{Family, Transport};
use netpol_netfilter::LogRate;

use super::{
    Action, Answer, Bits, Chain, End, Fields, FlowDirection, FlowState, Interface, KeyPrefix,
    Match, Member, Rule, Sense, Shape, Storage, Verdict,
};

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|it| write!(f, "{it} "))?;
        if let Action::Log { rate, .. } = self.action {
            write!(f, "-m limit --limit {rate} ")?;
            if rate.burst() != LogRate::BURST {
                write!(f, "--limit-burst {} ", rate.burst())?;
            }
        }
        if !self.comment.is_empty() {
            write!(f, "-m comment --comment {} ", self.comment)?;
        }
        self.action.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { end: End::Source, name } => write!(f, "-i {name}"),
            Self::Interface { end: End::Destination, name } => write!(f, "-o {name}"),
            Self::Address { end: End::Source, address } => write!(f, "-s {address}"),
            Self::Address { end: End::Destination, address } => write!(f, "-d {address}"),
            Self::Under { end, prefix, sense } => under(f, *end, prefix, *sense),
            Self::Member { end, fields, set, sense } => {
                let (not, end) = (sense.not(), end.short());
                match fields {
                    Fields::Address => write!(f, "-m set{not} --match-set {set} {end}"),
                    Fields::AddressAndPort => {
                        write!(f, "-m set{not} --match-set {set} {end},{end}")
                    }
                }
            }
            Self::Protocol(number) => write!(f, "-p {}", protocol(*number)),
            Self::NotProtocol(number) => write!(f, "! -p {}", protocol(*number)),
            Self::Ports { transport, end, ranges, sense } => {
                ports(f, *transport, *end, ranges, *sense)
            }
            Self::Icmp { family, kind, code, sense } => icmp(f, *family, *kind, *code, *sense),
            Self::Reset => f.write_str("-m tcp --tcp-flags RST RST"),
            Self::HopLimit(hops) => write!(f, "-m hl --hl-eq {hops}"),
            Self::LinkLocalSource => f.write_str("-s fe80::/10"),
            Self::Flow(FlowState::Established) => f.write_str("-m conntrack --ctstate ESTABLISHED"),
            Self::Flow(FlowState::Related) => f.write_str("-m conntrack --ctstate RELATED"),
            Self::Flow(FlowState::Untracked) => f.write_str("-m conntrack --ctstate UNTRACKED"),
            Self::Marked(bits) => write!(f, "-m mark --mark {bits:#x}/{bits:#x}"),
            Self::FlowSource(FlowDirection::Original, address) => {
                write!(f, "-m conntrack --ctorigsrc {address}")
            }
            Self::FlowSource(FlowDirection::Reply, address) => {
                write!(f, "-m conntrack --ctreplsrc {address}")
            }
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(Verdict::Drop) => f.write_str("-j DROP"),
            Self::Verdict(Verdict::Return) => f.write_str("-j RETURN"),
            Self::Verdict(Verdict::Jump(chain)) => write!(f, "-j {chain}"),
            Self::Verdict(Verdict::Goto(chain)) => write!(f, "-g {chain}"),
            Self::Log { group, prefix, .. } => {
                let quote = if prefix.contains(' ') { "\"" } else { "" };
                write!(f, "-j NFLOG --nflog-group {group} --nflog-prefix {quote}{prefix}{quote}")
            }
            Self::Reject(answer) => {
                let with = match answer {
                    Answer::Reset => "tcp-reset",
                    Answer::Prohibited(Family::V4) => "icmp-admin-prohibited",
                    Answer::Prohibited(Family::V6) => "icmp6-adm-prohibited",
                };
                write!(f, "-j REJECT --reject-with {with}")
            }
            Self::Untrack => f.write_str("-j CT --notrack"),
            Self::Mark { bits, to } => {
                let value = match to {
                    Bits::Set => bits,
                    Bits::Cleared => &0,
                };
                write!(f, "-j MARK --set-xmark {value:#x}/{bits:#x}")
            }
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Port(address, transport, port) => {
                // Names of protocols are known only where `/etc/protocols` has them.
                write!(f, "{address},{}:{port}", transport.protocol().number())
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        write!(f, "{} family {family}", self.storage.type_name())
    }
}

impl Storage {
    /// Returns the name of the set type.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Addresses => "hash:ip",
            Self::Prefixes => "hash:net",
            Self::Ports => "hash:ip,port",
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(self.bytes.len());
        let name = self.bytes.get(..end).and_then(|it| std::str::from_utf8(it).ok());
        f.write_str(name.unwrap_or_default())
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Sense {
    fn not(self) -> &'static str {
        match self {
            Self::In => "",
            Self::NotIn => " !",
        }
    }
}

impl End {
    fn short(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
        }
    }
}

fn under(f: &mut fmt::Formatter<'_>, end: End, prefix: &KeyPrefix, sense: Sense) -> fmt::Result {
    f.write_str(match sense {
        Sense::In => "",
        Sense::NotIn => "! ",
    })?;
    match (prefix, end) {
        (KeyPrefix::Interface(name), End::Source) => write!(f, "-i {name}+"),
        (KeyPrefix::Interface(name), End::Destination) => write!(f, "-o {name}+"),
        (KeyPrefix::Net(net), End::Source) => write!(f, "-s {net}"),
        (KeyPrefix::Net(net), End::Destination) => write!(f, "-d {net}"),
    }
}

fn ports(
    f: &mut fmt::Formatter<'_>,
    transport: Transport,
    end: End,
    ranges: &[(u16, u16)],
    sense: Sense,
) -> fmt::Result {
    let (not, end) = (sense.not(), end.short().get(..1).unwrap_or_default());
    if let [range] = ranges {
        let name = transport_name(transport);
        return write!(f, "-m {name}{not} --{end}port {}", range_text(*range));
    }
    let list: Vec<String> = ranges.iter().copied().map(range_text).collect();
    write!(f, "-m multiport{not} --{end}ports {}", list.join(","))
}

fn range_text((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

fn icmp(
    f: &mut fmt::Formatter<'_>,
    family: Family,
    kind: u8,
    code: Option<u8>,
    sense: Sense,
) -> fmt::Result {
    let not = sense.not();
    match family {
        Family::V4 => write!(f, "-m icmp{not} --icmp-type {kind}")?,
        Family::V6 => write!(f, "-m icmp6{not} --icmpv6-type {kind}")?,
    }
    code.map_or(Ok(()), |code| write!(f, "/{code}"))
}

/// Returns the protocol as `iptables` knows it without asking the system.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Sctp => "sctp",
    }
}
