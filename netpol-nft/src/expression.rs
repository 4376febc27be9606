//! Rules as the kernel knows them: expressions that load a field into a register and test it.
//!
//! [`lower`] writes a rule as expressions, [`raise`] reads it back; both are pure, and `raise(lower(rule)) == rule`.
//! The expressions are those that `nft` itself writes, so that it can list what we program: an operand goes to the
//! first register, the fields of a concatenation to the words behind it.

use netpol_core::net::Family;
use netpol_netfilter::LogRate;

use crate::name::Name;
use crate::ruleset::{
    Action, Answer, End, Fields, FlowDirection, FlowState, Match, Rule, Sense, Verdict,
};

mod raise;

pub(crate) use self::raise::raise;

/// One expression.
///
/// Source: `enum nft_*_attributes` in `include/uapi/linux/netfilter/nf_tables.h`, Linux 6.18.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Expression {
    /// Loads a field into a register.
    Load { field: Field, register: Register },
    /// Compares the first register with a value.
    Compare { test: Test, value: Vec<u8> },
    /// Tests whether the first register lies outside of a range.
    OutsideRange { first: Vec<u8>, last: Vec<u8> },
    /// Masks the first register.
    Mask { mask: Vec<u8> },
    /// Sets bits of the first register.
    SetBits { bits: Vec<u8> },
    /// Stores the first register as the packet's mark.
    StoreMark,
    /// Tells conntrack to leave the packet alone.
    Untrack,
    /// Looks the first registers up.
    Lookup { set: Name, result: LookupResult },
    /// Counts the packet.
    Counter,
    /// Goes on with so many packets.
    Limit(LogRate),
    /// Logs the packet.
    Log { group: u16, prefix: String },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Drops the packet and answers it.
    Reject(Answer),
    /// An expression that we never write.
    Unknown,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    /// The network protocol, 1 byte.
    Family,
    /// The transport protocol, 1 byte.
    Protocol,
    /// The interface of entry, 16 bytes.
    InputInterface,
    /// The interface of exit, 16 bytes.
    OutputInterface,
    /// The state of the flow, 4 bytes.
    FlowState,
    /// The source address of the flow in a direction.
    FlowSource(Family, FlowDirection),
    /// The mark, 4 bytes.
    Mark,
    /// Bytes of the network header.
    Network { offset: u32, len: u32 },
    /// Bytes of the transport header.
    Transport { offset: u32, len: u32 },
}

/// A register, counted in words of 4 bytes from the first one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Register(pub(crate) u32);

/// A comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Test {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
}

/// What a lookup yields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LookupResult {
    /// Whether the key is in the set.
    Member(Sense),
    /// The verdict of the key's entry.
    Verdict,
}

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [(Family, u8); 2] = [(Family::V4, 2), (Family::V6, 10)];
/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
const FLOW_STATES: [(FlowState, u32); 2] = [(FlowState::Established, 2), (FlowState::Related, 4)];
/// `NF_CT_STATE_UNTRACKED_BIT`.
const UNTRACKED: u32 = 1 << 6;
/// The protocols whose first header bytes are a type and a code: ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];
/// Where ICMP and ICMPv6 have type and code (RFC 792, RFC 4443 section 2.1).
const ICMP_TYPE: Field = Field::Transport { offset: 0, len: 1 };
const ICMP_CODE: Field = Field::Transport { offset: 1, len: 1 };
const ICMP_TYPE_AND_CODE: Field = Field::Transport { offset: 0, len: 2 };
/// Where TCP has its flags, and the one of a reset (RFC 9293, section 3.1).
const TCP_FLAGS: Field = Field::Transport { offset: 13, len: 1 };
const RESET: u8 = 1 << 2;
/// Where IPv6 has its hop limit (RFC 8200, section 3).
const HOP_LIMIT: Field = Field::Network { offset: 7, len: 1 };
/// Mask and prefix of the addresses of a link, `fe80::/10` (RFC 4291, section 2.5.6).
const LINK_LOCAL: [[u8; 16]; 2] = [
    [0xff, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

/// Writes a rule as expressions.
pub(crate) fn lower(rule: &Rule) -> Vec<Expression> {
    let mut out = Vec::new();
    rule.matches.iter().for_each(|it| lower_match(it, &mut out));
    match &rule.action {
        Action::Verdict(verdict) => {
            out.extend([Expression::Counter, Expression::Verdict(verdict.clone())])
        }
        Action::Dispatch { fields, map } => {
            lower_lookup(*fields, map, LookupResult::Verdict, &mut out)
        }
        Action::Log { group, prefix, rate } => out.extend([
            Expression::Counter,
            Expression::Limit(*rate),
            Expression::Log { group: *group, prefix: prefix.clone() },
        ]),
        Action::Untrack => out.extend([
            Expression::Counter,
            Expression::Untrack,
            Expression::Verdict(Verdict::Return),
        ]),
        Action::Mark(bits) => out.extend([
            Expression::Counter,
            Expression::Load { field: Field::Mark, register: Register(0) },
            Expression::SetBits { bits: bits.to_ne_bytes().to_vec() },
            Expression::StoreMark,
            Expression::Verdict(Verdict::Return),
        ]),
        Action::Unmark(bits) => out.extend([
            Expression::Counter,
            Expression::Load { field: Field::Mark, register: Register(0) },
            Expression::Mask { mask: (!bits).to_ne_bytes().to_vec() },
            Expression::StoreMark,
        ]),
        Action::Reject(answer) => out.extend([Expression::Counter, Expression::Reject(*answer)]),
        Action::Unknown => out.push(Expression::Unknown),
    }
    out
}

fn lower_match(it: &Match, out: &mut Vec<Expression>) {
    match it {
        Match::Family(family) => {
            let number =
                FAMILIES.iter().find(|(known, _)| known == family).map_or(0, |&(_, number)| number);
            lower_compare(Field::Family, Test::Equal, vec![number], out);
        }
        Match::Member { fields, set, sense } => {
            lower_lookup(*fields, set, LookupResult::Member(*sense), out)
        }
        Match::Protocol(number) => lower_compare(Field::Protocol, Test::Equal, vec![*number], out),
        Match::NotProtocol(number) => {
            lower_compare(Field::Protocol, Test::NotEqual, vec![*number], out)
        }
        Match::Ports { end, first, last, sense } => {
            lower_range(
                port(*end),
                first.to_be_bytes().to_vec(),
                last.to_be_bytes().to_vec(),
                *sense,
                out,
            );
        }
        Match::Icmp { kind, code } => {
            let value: Vec<u8> = [*kind].into_iter().chain(*code).collect();
            let field = if code.is_some() { ICMP_TYPE_AND_CODE } else { ICMP_TYPE };
            lower_compare(field, Test::Equal, value, out);
        }
        Match::NotIcmpType(kind) => lower_compare(ICMP_TYPE, Test::NotEqual, vec![*kind], out),
        Match::NotIcmpCode(code) => lower_compare(ICMP_CODE, Test::NotEqual, vec![*code], out),
        Match::IcmpTypes { first, last } => {
            lower_range(ICMP_TYPE, vec![*first], vec![*last], Sense::In, out);
        }
        Match::HopLimit(limit) => lower_compare(HOP_LIMIT, Test::Equal, vec![*limit], out),
        Match::LinkLocalSource(sense) => {
            let [mask, prefix] = LINK_LOCAL.map(Vec::from);
            let field = address(Family::V6, End::Source);
            out.push(Expression::Load { field, register: Register(0) });
            out.push(Expression::Mask { mask });
            out.push(Expression::Compare { test: equality(*sense), value: prefix });
        }
        Match::SpecifiedSource(family) => {
            let unspecified = vec![0; address_len(*family)];
            lower_compare(address(*family, End::Source), Test::NotEqual, unspecified, out);
        }
        Match::Flow(state) => {
            let bit =
                FLOW_STATES.iter().find(|(known, _)| known == state).map_or(0, |&(_, bit)| bit);
            lower_bits(Field::FlowState, bit, Test::NotEqual, out);
        }
        Match::Untracked(sense) => {
            let test = match sense {
                Sense::In => Test::NotEqual,
                Sense::NotIn => Test::Equal,
            };
            lower_bits(Field::FlowState, UNTRACKED, test, out);
        }
        Match::Interface { end, name, sense } => {
            lower_compare(interface(*end), equality(*sense), name.bytes().to_vec(), out);
        }
        Match::InterfacePrefix { end, prefix, sense } => {
            // A shorter value is compared with as many bytes of the name.
            let bytes = prefix.to_string().into_bytes();
            lower_compare(interface(*end), equality(*sense), bytes, out);
        }
        Match::Reset => {
            out.push(Expression::Load { field: TCP_FLAGS, register: Register(0) });
            out.push(Expression::Mask { mask: vec![RESET] });
            out.push(Expression::Compare { test: Test::NotEqual, value: vec![0] });
        }
        Match::Unmarked(bits) => lower_bits(Field::Mark, *bits, Test::Equal, out),
        Match::Unknown => out.push(Expression::Unknown),
    }
}

/// Compares some bits of a field with zero.
fn lower_bits(field: Field, bits: u32, test: Test, out: &mut Vec<Expression>) {
    out.push(Expression::Load { field, register: Register(0) });
    out.push(Expression::Mask { mask: bits.to_ne_bytes().to_vec() });
    out.push(Expression::Compare { test, value: vec![0; 4] });
}

fn interface(end: End) -> Field {
    match end {
        End::Source => Field::InputInterface,
        End::Destination => Field::OutputInterface,
    }
}

fn lower_compare(field: Field, test: Test, value: Vec<u8>, out: &mut Vec<Expression>) {
    out.push(Expression::Load { field, register: Register(0) });
    out.push(Expression::Compare { test, value });
}

fn lower_range(
    field: Field,
    first: Vec<u8>,
    last: Vec<u8>,
    sense: Sense,
    out: &mut Vec<Expression>,
) {
    if first == last {
        return lower_compare(field, equality(sense), first, out);
    }
    out.push(Expression::Load { field, register: Register(0) });
    match sense {
        Sense::In => {
            out.push(Expression::Compare { test: Test::AtLeast, value: first });
            out.push(Expression::Compare { test: Test::AtMost, value: last });
        }
        Sense::NotIn => out.push(Expression::OutsideRange { first, last }),
    }
}

fn lower_lookup(fields: Fields, set: &Name, result: LookupResult, out: &mut Vec<Expression>) {
    let mut word = 0;
    for field in loads(fields) {
        out.push(Expression::Load { field, register: Register(word) });
        word += field.len().div_ceil(4);
    }
    out.push(Expression::Lookup { set: set.clone(), result });
}

fn sense_of(test: Test) -> Option<Sense> {
    match test {
        Test::Equal => Some(Sense::In),
        Test::NotEqual => Some(Sense::NotIn),
        Test::AtLeast | Test::AtMost => None,
    }
}

fn equality(sense: Sense) -> Test {
    match sense {
        Sense::In => Test::Equal,
        Sense::NotIn => Test::NotEqual,
    }
}

/// Returns the fields that make a key, in the order of the key's parts.
fn loads(fields: Fields) -> Vec<Field> {
    match fields {
        Fields::InputInterface => vec![Field::InputInterface],
        Fields::OutputInterface => vec![Field::OutputInterface],
        Fields::Interfaces => vec![Field::InputInterface, Field::OutputInterface],
        Fields::Sender(family) => vec![Field::InputInterface, address(family, End::Source)],
        Fields::Address(family, end) => vec![address(family, end)],
        Fields::Addresses(family) => {
            vec![address(family, End::Source), address(family, End::Destination)]
        }
        Fields::FlowSender(family, way) => {
            vec![Field::InputInterface, Field::FlowSource(family, way)]
        }
        Fields::FlowAddresses(family, way) => {
            vec![address(family, End::Source), Field::FlowSource(family, way)]
        }
        Fields::Target(family, end) => vec![address(family, end), Field::Protocol, port(end)],
        Fields::Port(end) => vec![port(end)],
    }
}

/// Every combination of fields that we look up.
const ALL_FIELDS: [Fields; 25] = [
    Fields::InputInterface,
    Fields::OutputInterface,
    Fields::Interfaces,
    Fields::Sender(Family::V4),
    Fields::Sender(Family::V6),
    Fields::Address(Family::V4, End::Source),
    Fields::Address(Family::V4, End::Destination),
    Fields::Address(Family::V6, End::Source),
    Fields::Address(Family::V6, End::Destination),
    Fields::Addresses(Family::V4),
    Fields::Addresses(Family::V6),
    Fields::FlowSender(Family::V4, FlowDirection::Original),
    Fields::FlowSender(Family::V4, FlowDirection::Reply),
    Fields::FlowSender(Family::V6, FlowDirection::Original),
    Fields::FlowSender(Family::V6, FlowDirection::Reply),
    Fields::FlowAddresses(Family::V4, FlowDirection::Original),
    Fields::FlowAddresses(Family::V4, FlowDirection::Reply),
    Fields::FlowAddresses(Family::V6, FlowDirection::Original),
    Fields::FlowAddresses(Family::V6, FlowDirection::Reply),
    Fields::Target(Family::V4, End::Source),
    Fields::Target(Family::V4, End::Destination),
    Fields::Target(Family::V6, End::Source),
    Fields::Target(Family::V6, End::Destination),
    Fields::Port(End::Source),
    Fields::Port(End::Destination),
];

/// Returns the address at one end of a packet (RFC 791 section 3.1, RFC 8200 section 3).
fn address(family: Family, end: End) -> Field {
    let (offset, len) = match (family, end) {
        (Family::V4, End::Source) => (12, 4),
        (Family::V4, End::Destination) => (16, 4),
        (Family::V6, End::Source) => (8, 16),
        (Family::V6, End::Destination) => (24, 16),
    };
    Field::Network { offset, len }
}

/// Returns how many bytes an address has.
fn address_len(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// Returns the port at one end of a TCP, UDP or SCTP packet.
fn port(end: End) -> Field {
    let offset = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    Field::Transport { offset, len: 2 }
}

impl Field {
    /// Returns how many bytes the field has.
    pub(crate) fn len(self) -> u32 {
        match self {
            Self::Family | Self::Protocol => 1,
            Self::InputInterface | Self::OutputInterface => 16,
            Self::FlowState | Self::Mark | Self::FlowSource(Family::V4, _) => 4,
            Self::FlowSource(Family::V6, _) => 16,
            Self::Network { len, .. } | Self::Transport { len, .. } => len,
        }
    }
}

#[cfg(test)]
mod tests;
