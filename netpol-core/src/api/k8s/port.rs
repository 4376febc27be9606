//! The ports of a rule.

use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use super::super::field::{Extra, Field, List};
use super::super::names;
use super::super::number::{Number, NumberOrName};
use super::super::ports::{PortEntry, Ports, read_transport};
use super::super::report::{Path, Report};
use crate::net::{PortRange, Transport};

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

/// Reads the `ports` of a rule.
pub(super) fn read_ports(at: &Path<'_>, ports: &List<PolicyPort>, report: &mut Report) -> Ports {
    let mut read = Ports::default();
    report.each_item(at, ports, "an object", |report, at, port| {
        if let Some((transport, entry)) = port.read(at, report) {
            read.add(transport, entry);
        }
    });
    read
}

impl PolicyPort {
    fn read<'f>(
        &'f self,
        at: &Path<'_>,
        report: &mut Report,
    ) -> Option<(Transport, PortEntry<'f>)> {
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
) -> Option<PortEntry<'f>> {
    let (port_at, end_at) = (at.field("port"), at.field("endPort"));
    let given = report.given(&port_at, port);
    let end = report.given(&end_at, end_port).copied();
    match given {
        None => {
            if matches!(port, Field::Absent) && end.is_some() {
                report.refuse(&end_at, "given without `port`, expected a number in `port`");
            }
            Some(PortEntry::Every)
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
            Some(PortEntry::Name(name))
        }
        Some(NumberOrName::Number(first)) => {
            read_range(&port_at, *first, &end_at, end, report).map(PortEntry::Numbers)
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
        Some(end) if end.value() < first.value() => {
            report.refuse(
                end_at,
                format!("`{}` is below `port`, expected at least `{}`", end.value(), first.value()),
            );
            None
        }
        Some(end) => end.read_port(end_at, report),
        None => port,
    };
    PortRange::new(port?, last?).ok()
}
