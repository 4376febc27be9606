//! Protocols and ICMP messages.

use alloc::format;

use serde::Deserialize;

use super::super::field::{Extra, Field};
use super::super::number::{Number, NumberOrName};
use super::super::report::{Path, Report};
use crate::net::{Family, IcmpMatch, Protocol};

/// A protocol as a rule names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct WireProtocol {
    pub(super) protocol: Protocol,
    /// The family to which the name restricts the rule. A number restricts it to none.
    pub(super) family: Option<Family>,
}

impl WireProtocol {
    pub(super) const TCP: Self = Self { protocol: Protocol::TCP, family: None };
}

/// `icmp` or `notICMP`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(super) struct Icmp {
    #[serde(rename = "type")]
    kind: Field<Number>,
    code: Field<Number>,
    #[serde(flatten)]
    extra: Extra,
}

/// Reads a protocol: a name, or a number as such or as text.
pub(super) fn read_protocol(
    at: &Path<'_>,
    protocol: &Field<NumberOrName>,
    report: &mut Report,
) -> Option<WireProtocol> {
    let written = report.given(at, protocol)?;
    let protocol = match written {
        NumberOrName::Number(number) => by_number(number.value()),
        NumberOrName::Name(name) => by_name(name),
    };
    if protocol.is_none() {
        let expected = "`TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`, `UDPLite` or 1 to 255";
        report.refuse(at, format!("`{written}` is not a protocol, expected {expected}"));
    }
    protocol
}

fn by_number(number: i64) -> Option<WireProtocol> {
    let number = u8::try_from(number).ok().filter(|&number| number != 0)?;
    Some(WireProtocol { protocol: Protocol::new(number), family: None })
}

fn by_name(name: &str) -> Option<WireProtocol> {
    let (protocol, family) = match name {
        "TCP" => (Protocol::TCP, None),
        "UDP" => (Protocol::UDP, None),
        "ICMP" => (Protocol::ICMP, Some(Family::V4)),
        "ICMPv6" => (Protocol::ICMPV6, Some(Family::V6)),
        "SCTP" => (Protocol::SCTP, None),
        "UDPLite" => (Protocol::UDPLITE, None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            return by_number(digits.parse().ok()?);
        }
        _ => return None,
    };
    Some(WireProtocol { protocol, family })
}

/// Returns the family whose ICMP a protocol is.
pub(super) const fn family_of_icmp(protocol: Protocol) -> Option<Family> {
    match protocol {
        Protocol::ICMP => Some(Family::V4),
        Protocol::ICMPV6 => Some(Family::V6),
        _ => None,
    }
}

/// Returns the ICMP of a family.
pub(super) const fn icmp_of(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}

/// Reads a condition on ICMP messages. Without a type there is none.
pub(super) fn read_icmp(
    at: &Path<'_>,
    icmp: &Field<Icmp>,
    report: &mut Report,
) -> Option<IcmpMatch> {
    let Icmp { kind, code, extra } = report.given(at, icmp)?;
    report.unknown_fields(Some(at), extra);
    let kind_at = at.field("type");
    let code_at = at.field("code");
    if matches!((kind, code), (Field::Absent, Field::Given(_))) {
        report.refuse(&code_at, "given without `type`, expected a number in `type`");
    }
    // 255 is reserved (RFC 2780, section 7), and iptables takes it for every type.
    let kind = read_number(&kind_at, kind, "an ICMP type", 254, report);
    let code = read_number(&code_at, code, "an ICMP code", 255, report);
    Some(IcmpMatch { kind: kind?, code })
}

fn read_number(
    at: &Path<'_>,
    number: &Field<Number>,
    what: &str,
    largest: u8,
    report: &mut Report,
) -> Option<u8> {
    let number = report.given(at, number)?.value();
    let read = u8::try_from(number).ok().filter(|&number| number <= largest);
    if read.is_none() {
        report.refuse(at, format!("`{number}` is not {what}, expected 0 to {largest}"));
    }
    read
}
