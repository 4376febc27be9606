//! The ports of a rule.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, Field, List};
use super::super::names;
use super::super::report::{Path, Report};
use crate::model::{L4Match, PortConstraint, PortMatch};
use crate::net::{PortRange, Transport};

/// A number as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(i64);

/// An entry of `ports`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct PolicyPort {
    protocol: Field<String>,
    port: Field<NumberOrName>,
    end_port: Field<Number>,
    #[serde(flatten)]
    extra: Extra,
}

/// Source: `IntOrString` in `k8s.io/apimachinery/pkg/util/intstr`.
#[derive(Clone, Debug)]
enum NumberOrName {
    Number(Number),
    Name(String),
}

/// What a rule says about ports. Empty: it says nothing, so it is about every protocol.
pub(super) type Ports = BTreeMap<Transport, PortsOf>;

/// The ports of one transport.
#[derive(Debug, Default)]
pub(super) struct PortsOf {
    /// Every port of the transport, whatever else is listed.
    is_every: bool,
    numbers: Vec<PortRange>,
    names: BTreeSet<String>,
}

/// What one entry is about.
enum Entry<'f> {
    Every,
    Numbers(PortRange),
    Name(&'f str),
}

/// Reads the `ports` of a rule.
pub(super) fn read_ports(at: &Path<'_>, ports: &List<PolicyPort>, report: &mut Report) -> Ports {
    let mut read = Ports::new();
    report.each_item(at, ports, "an object", |report, at, port| {
        let Some((transport, entry)) = port.read(at, report) else {
            return;
        };
        let of = read.entry(transport).or_default();
        match entry {
            Entry::Every => of.is_every = true,
            Entry::Numbers(range) => of.numbers.push(range),
            Entry::Name(name) => {
                of.names.insert(name.into());
            }
        }
    });
    read
}

/// Returns the conditions of which a flow must meet one, where every name is one of the destination's.
pub(super) fn matches(ports: &Ports) -> Vec<L4Match<PortMatch>> {
    if ports.is_empty() {
        return [L4Match::Any].into();
    }
    ports.iter().map(|(&transport, of)| of.matches(transport, &of.numbers, &of.names)).collect()
}

/// Returns the conditions that hold for addresses of any kind, and those that hold for the pods that have ports of
/// these names.
pub(super) fn matches_apart(ports: &Ports) -> (Vec<L4Match<PortMatch>>, Vec<L4Match<PortMatch>>) {
    if ports.is_empty() {
        return ([L4Match::Any].into(), Vec::new());
    }
    let numbered = ports.iter().filter(|(_, of)| of.is_every || !of.numbers.is_empty());
    let named = ports.iter().filter(|(_, of)| !of.is_every && !of.names.is_empty());
    (
        numbered
            .map(|(&transport, of)| of.matches(transport, &of.numbers, &BTreeSet::new()))
            .collect(),
        named.map(|(&transport, of)| of.matches(transport, &[], &of.names)).collect(),
    )
}

impl PortsOf {
    fn matches(
        &self,
        transport: Transport,
        numbers: &[PortRange],
        names: &BTreeSet<String>,
    ) -> L4Match<PortMatch> {
        if self.is_every {
            return L4Match::Is(transport.protocol());
        }
        let ports = PortMatch { numbers: numbers.iter().copied().collect(), names: names.clone() };
        let destination = PortConstraint { any_of: Some(ports), none_of: None };
        L4Match::Ports { transport, source: PortConstraint::default(), destination }
    }
}

impl PolicyPort {
    fn read<'f>(&'f self, at: &Path<'_>, report: &mut Report) -> Option<(Transport, Entry<'f>)> {
        let Self { protocol, port, end_port, extra } = self;
        report.unknown_fields(Some(at), extra);
        let protocol_at = at.field("protocol");
        let transport = match protocol {
            Field::Absent => Some(Transport::Tcp),
            given => report
                .given(&protocol_at, given)
                .and_then(|it| read_transport(&protocol_at, it, report)),
        };
        let entry = read_entry(at, port, end_port, report);
        Some((transport?, entry?))
    }
}

fn read_entry<'f>(
    at: &Path<'_>,
    port: &'f Field<NumberOrName>,
    end_port: &Field<Number>,
    report: &mut Report,
) -> Option<Entry<'f>> {
    let (port_at, end_at) = (at.field("port"), at.field("endPort"));
    let given = report.given(&port_at, port);
    let end = report.given(&end_at, end_port).copied();
    match given {
        None => {
            if matches!(port, Field::Absent) && end.is_some() {
                report.refuse(&end_at, "given without `port`, expected a number in `port`");
            }
            Some(Entry::Every)
        }
        Some(NumberOrName::Name(name)) => {
            if !names::is_port_name(name) {
                let expected = names::PORT_NAME;
                report
                    .refuse(&port_at, format!("`{name}` is not a port name, expected {expected}"));
            }
            if end.is_some() {
                report.refuse(
                    &end_at,
                    format!("given with the port name `{name}`, expected a number in `port`"),
                );
            }
            Some(Entry::Name(name))
        }
        Some(NumberOrName::Number(first)) => {
            read_range(&port_at, *first, &end_at, end, report).map(Entry::Numbers)
        }
    }
}

fn read_range(
    port_at: &Path<'_>,
    first: Number,
    end_at: &Path<'_>,
    end: Option<Number>,
    report: &mut Report,
) -> Option<PortRange> {
    let port = first.read_port(port_at, report);
    let last = match end {
        Some(end) if end.0 < first.0 => {
            report.refuse(
                end_at,
                format!("`{}` is below `port`, expected at least `{}`", end.0, first.0),
            );
            None
        }
        Some(end) => end.read_port(end_at, report),
        None => port,
    };
    PortRange::new(port?, last?).ok()
}

/// Reads the name of a transport, in capitals.
pub(super) fn read_transport(
    at: &Path<'_>,
    protocol: &str,
    report: &mut Report,
) -> Option<Transport> {
    match protocol {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        "SCTP" => Some(Transport::Sctp),
        _ => {
            report.refuse(
                at,
                format!("`{protocol}` is not a protocol, expected `TCP`, `UDP` or `SCTP`"),
            );
            None
        }
    }
}

impl Number {
    /// Returns the number as a port, which is not 0.
    pub(super) fn read_port(self, at: &Path<'_>, report: &mut Report) -> Option<u16> {
        let port = u16::try_from(self.0).ok().filter(|&port| port != 0);
        if port.is_none() {
            report.refuse(at, format!("`{}` is not a port, expected 1 to 65535", self.0));
        }
        port
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(NumberVisitor)
    }
}

impl<'de> Deserialize<'de> for NumberOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrNameVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        // No port is as large, so which number it was does not matter.
        Ok(Number(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

struct NumberOrNameVisitor;

impl Visitor<'_> for NumberOrNameVisitor {
    type Value = NumberOrName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number or a port name")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<NumberOrName, E> {
        NumberVisitor.visit_i64(number).map(NumberOrName::Number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<NumberOrName, E> {
        NumberVisitor.visit_u64(number).map(NumberOrName::Number)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<NumberOrName, E> {
        Ok(NumberOrName::Name(name.into()))
    }
}
