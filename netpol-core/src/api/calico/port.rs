//! Lists of ports.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::super::field::List;
use super::super::number::NumberOrName;
use super::super::report::{Path, Report};
use crate::model::PortMatch;
use crate::net::{PortRange, Protocol, Transport};

/// Most entries of a list of ports.
///
/// Source: `EntityRule` in Calico's `api/pkg/apis/projectcalico/v3`.
const MAX_PORTS: usize = 50;

/// Most characters of the name of a port in a rule.
const MAX_NAME: usize = 128;

/// What a rule says about its protocol, as far as its ports depend on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PortsOf {
    /// It cannot be read.
    Unknown,
    /// It says nothing, so names stand for ports of every transport, and numbers for none.
    EveryTransport,
    /// It is about this one.
    Protocol(Protocol),
}

impl PortsOf {
    /// Returns whether this is a protocol without ports.
    pub(super) fn has_none(self) -> bool {
        matches!(self, Self::Protocol(it) if Transport::from_protocol(it).is_none())
    }
}

/// Reads `ports` or `notPorts`; without entries there is no condition.
pub(super) fn read_ports(
    at: &Path<'_>,
    ports: &List<NumberOrName>,
    of: PortsOf,
    report: &mut Report,
) -> Option<PortMatch> {
    if ports.value().is_some_and(Vec::is_empty) {
        return None;
    }
    report.given(at, ports)?;
    let (mut numbers, mut names) = (Vec::new(), BTreeSet::new());
    let mut has_numbers = false;
    report.each_item_up_to(MAX_PORTS, at, ports, "a port", |report, at, port| match port {
        NumberOrName::Number(number) => {
            has_numbers = true;
            let port = number.read_port(at, report);
            numbers.extend(port.and_then(|port| PortRange::single(port).ok()));
        }
        NumberOrName::Name(text) if begins_as_number(text) => {
            has_numbers = true;
            numbers.extend(read_range(at, text, report));
        }
        NumberOrName::Name(name) if is_port_name(name) => {
            names.insert(name.clone());
        }
        NumberOrName::Name(text) => refuse_port(at, text, report),
    });
    match of {
        PortsOf::EveryTransport if has_numbers => report.refuse(
            at,
            "numbers without a protocol, expected `protocol` to be `TCP`, `UDP` or `SCTP`",
        ),
        PortsOf::Protocol(protocol) if of.has_none() => {
            report.refuse(
                at,
                format!("given for `{protocol}`, expected `protocol` to be `TCP`, `UDP` or `SCTP`"),
            );
        }
        PortsOf::EveryTransport | PortsOf::Unknown | PortsOf::Protocol(_) => {}
    }
    Some(PortMatch { numbers: numbers.into_iter().collect(), names, backends_of: None })
}

/// Returns whether a text is a number or a range of numbers, and no name.
fn begins_as_number(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    match text.split_once(':') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(text),
    }
}

/// Reads `80` or `80:90`.
fn read_range(at: &Path<'_>, text: &str, report: &mut Report) -> Option<PortRange> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else {
        refuse_port(at, text, report);
        return None;
    };
    PortRange::new(first, last)
        .map_err(|error| report.refuse(at, format!("`{text}`: {error}")))
        .ok()
}

fn refuse_port(at: &Path<'_>, text: &str, report: &mut Report) {
    report.refuse(
        at,
        format!(
            "`{text}` is not a port, expected 1 to 65535, a range such as `80:90`, or a name of at most {MAX_NAME} \
             letters, digits, `_`, `.` and `-`"
        ),
    );
}

/// Refuses what is not the name of a port.
pub(super) fn check_port_name(at: &Path<'_>, name: &str, report: &mut Report) {
    if !is_port_name(name) {
        let expected = format!("at most {MAX_NAME} letters, digits, `_`, `.` and `-`");
        report.refuse(at, format!("`{name}` is not a port name, expected {expected}"));
    }
}

fn is_port_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_inner)
}
