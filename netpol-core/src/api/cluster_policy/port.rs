//! What rules say about protocols and ports.

use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use super::super::Strictness;
use super::super::field::{Extra, Field, List};
use super::super::names;
use super::super::number::Number;
use super::super::ports::{PortEntry, Ports, read_transport};
use super::super::report::{Path, Report};
use super::Dialect;
use crate::net::{PortRange, Transport};

const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

/// What stands for any port number.
const PORT: &str = "1 to 65535";

/// An entry of `protocols`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Protocol {
    tcp: Field<TransportPorts>,
    udp: Field<TransportPorts>,
    sctp: Field<TransportPorts>,
    destination_named_port: Field<String>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct TransportPorts {
    destination_port: Field<DestinationPort>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct DestinationPort {
    number: Field<Number>,
    range: Field<Range>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Range {
    start: Field<Number>,
    end: Field<Number>,
    #[serde(flatten)]
    extra: Extra,
}

/// An entry of `ports`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Port {
    port_number: Field<PortNumber>,
    port_range: Field<TransportRange>,
    named_port: Field<String>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct PortNumber {
    protocol: Field<String>,
    port: Field<Number>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct TransportRange {
    protocol: Field<String>,
    start: Field<Number>,
    end: Field<Number>,
    #[serde(flatten)]
    extra: Extra,
}

/// The ports of a rule.
#[derive(Debug, Default)]
pub(super) struct RulePorts {
    pub(super) ports: Ports,
    /// Whether one of them is a name.
    pub(super) has_names: bool,
}

impl RulePorts {
    fn add_name(&mut self, name: &str) {
        self.has_names = true;
        for transport in TRANSPORTS {
            self.ports.add(transport, PortEntry::Name(name));
        }
    }
}

/// Reads `protocols`. Entries that are no protocol of the API refuse the policy, and not just the rule: nobody knows what
/// they stand for.
pub(super) fn read_protocols(
    at: &Path<'_>,
    protocols: &List<Protocol>,
    strictness: Strictness,
    report: &mut Report,
) -> RulePorts {
    let mut read = RulePorts::default();
    if protocols.value().is_some_and(|it| it.is_empty()) {
        report.refuse(at, "empty, expected at least one protocol");
    }
    let limit = Dialect::Cluster.max_items();
    report.each_item_up_to(limit, at, protocols, "an object", |report, at, protocol| {
        protocol.read(at, strictness, &mut read, report);
    });
    read
}

/// Reads `ports`. Without entries the rule is about every protocol.
pub(super) fn read_ports(at: &Path<'_>, ports: &List<Port>, report: &mut Report) -> RulePorts {
    let mut read = RulePorts::default();
    let limit = Dialect::Admin.max_items();
    report.each_item_up_to(limit, at, ports, "an object", |report, at, port| {
        port.read(at, &mut read, report);
    });
    read
}

impl Protocol {
    fn read(
        &self,
        at: &Path<'_>,
        strictness: Strictness,
        read: &mut RulePorts,
        report: &mut Report,
    ) {
        let Self { tcp, udp, sctp, destination_named_port, extra } = self;
        let expected = "`tcp`, `udp`, `sctp` or `destinationNamedPort`";
        report.refuse_object_for_unknown_fields(at, extra);
        let transports = [("tcp", tcp), ("udp", udp), ("sctp", sctp)];
        let name = destination_named_port;
        let written = transports.iter().filter(|(_, field)| field.is_written()).count()
            + usize::from(name.is_written());
        match written {
            0 => report.refuse_object(at, format!("empty, expected {expected}")),
            1 => {}
            _ => report.refuse_object(at, format!("several fields, expected one of {expected}")),
        }
        for (transport, (field, ports)) in TRANSPORTS.into_iter().zip(transports) {
            let at = at.field(field);
            let entry =
                report.given(&at, ports).and_then(|ports| ports.read(&at, strictness, report));
            if let Some(entry) = entry {
                read.ports.add(transport, entry);
            }
        }
        read_name(&at.field("destinationNamedPort"), name, read, report);
    }
}

impl TransportPorts {
    /// The API's overview says that no port means every port, but its schema refuses that.
    fn read(
        &self,
        at: &Path<'_>,
        strictness: Strictness,
        report: &mut Report,
    ) -> Option<PortEntry<'static>> {
        let Self { destination_port, extra } = self;
        report.refuse_object_for_unknown_fields(at, extra);
        let at = at.field("destinationPort");
        if strictness == Strictness::Degraded && !destination_port.is_written() {
            return Some(PortEntry::Every);
        }
        let expected = "a port; every port is the range from 1 to 65535";
        let DestinationPort { number, range, extra } =
            report.required(&at, destination_port, expected)?;
        report.refuse_object_for_unknown_fields(&at, extra);
        let (number_at, range_at) = (at.field("number"), at.field("range"));
        let single = report
            .given(&number_at, number)
            .and_then(|it| it.read_port(&number_at, report))
            .and_then(|port| PortRange::single(port).ok());
        let ports = report.given(&range_at, range).and_then(|Range { start, end, extra }| {
            report.refuse_object_for_unknown_fields(&range_at, extra);
            read_range(&range_at, start, end, report)
        });
        match (number.is_written(), range.is_written()) {
            (false, false) => report.refuse(&at, "empty, expected `number` or `range`"),
            (true, true) => {
                report.refuse(&at, "`number` beside `range`, expected one of them");
            }
            _ => {}
        }
        single.or(ports).map(PortEntry::Numbers)
    }
}

impl Port {
    fn read(&self, at: &Path<'_>, read: &mut RulePorts, report: &mut Report) {
        let Self { port_number, port_range, named_port, extra } = self;
        let expected = "`portNumber`, `portRange` or `namedPort`";
        report.refuse_object_for_unknown_fields(at, extra);
        let written = [port_number.is_written(), port_range.is_written(), named_port.is_written()];
        match written.into_iter().filter(|it| *it).count() {
            0 => report.refuse_object(at, format!("empty, expected {expected}")),
            1 => {}
            _ => report.refuse_object(at, format!("several fields, expected one of {expected}")),
        }
        let number_at = at.field("portNumber");
        if let Some(PortNumber { protocol, port, extra }) = report.given(&number_at, port_number) {
            report.refuse_object_for_unknown_fields(&number_at, extra);
            let transport = read_protocol(&number_at, protocol, report);
            let at = number_at.field("port");
            let port = report.required(&at, port, PORT).and_then(|it| it.read_port(&at, report));
            let port = port.and_then(|port| PortRange::single(port).ok());
            if let (Some(transport), Some(port)) = (transport, port) {
                read.ports.add(transport, PortEntry::Numbers(port));
            }
        }
        let range_at = at.field("portRange");
        if let Some(range) = report.given(&range_at, port_range) {
            let TransportRange { protocol, start, end, extra } = range;
            report.refuse_object_for_unknown_fields(&range_at, extra);
            let transport = read_protocol(&range_at, protocol, report);
            let range = read_range(&range_at, start, end, report);
            if let (Some(transport), Some(range)) = (transport, range) {
                read.ports.add(transport, PortEntry::Numbers(range));
            }
        }
        read_name(&at.field("namedPort"), named_port, read, report);
    }
}

fn read_name(at: &Path<'_>, name: &Field<String>, read: &mut RulePorts, report: &mut Report) {
    let Some(name) = report.given(at, name) else {
        return;
    };
    if !names::is_port_name(name) {
        let expected = names::PORT_NAME;
        report.refuse(at, format!("`{name}` is not a port name, expected {expected}"));
    }
    read.add_name(name);
}

/// Reads the `protocol` of a port, TCP if none is written.
fn read_protocol(
    at: &Path<'_>,
    protocol: &Field<String>,
    report: &mut Report,
) -> Option<Transport> {
    let at = at.field("protocol");
    match protocol {
        Field::Absent => Some(Transport::Tcp),
        given => report.given(&at, given).and_then(|it| read_transport(&at, it, report)),
    }
}

/// Reads a range, which holds more than one port.
fn read_range(
    at: &Path<'_>,
    start: &Field<Number>,
    end: &Field<Number>,
    report: &mut Report,
) -> Option<PortRange> {
    let mut read = |name, number| {
        let at = at.field(name);
        let number: &Number = report.required(&at, number, PORT)?;
        number.read_port(&at, report)
    };
    let (start, end) = (read("start", start), read("end", end));
    let (start, end) = (start?, end?);
    if start >= end {
        let end_at = at.field("end");
        report
            .refuse(&end_at, format!("`{end}` is not above `start`, expected more than `{start}`"));
    }
    PortRange::new(start, end).ok()
}
