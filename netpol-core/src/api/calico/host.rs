//! HostEndpoint.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, Field, List, buffered};
use super::super::manifest::{Manifest, Scope, optional_text, required_text};
use super::super::number::{Number, NumberOrName};
use super::super::report::{Path, Report};
use super::super::{Kind, Refused};
use super::port::check_port_name;
use super::protocol::{WireProtocol, read_protocol};
use crate::net::Transport;

/// A `projectcalico.org/v3` HostEndpoint as it is written.
#[derive(Clone, Debug)]
pub struct HostEndpoint(Manifest<Spec, IgnoredAny>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct Spec {
    node: Field<String>,
    interface_name: Field<String>,
    #[serde(rename = "expectedIPs")]
    expected_ips: List<String>,
    profiles: List<String>,
    ports: List<EndpointPort>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct EndpointPort {
    name: Field<String>,
    protocol: Field<NumberOrName>,
    port: Field<Number>,
    #[serde(flatten)]
    extra: Extra,
}

impl HostEndpoint {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns why the object is refused: for everything for which Calico refuses it, or because host endpoints are not
    /// supported.
    #[must_use]
    pub fn refused(&self) -> Refused {
        let mut report = Report::default();
        let is_valid = report.complete(|report| {
            self.0.meta(Kind::HostEndpoint, Scope::Cluster, report);
            report.unknown_fields(None, &self.0.extra);
            let at = Path::top("spec");
            let expected = "an object with a node";
            if let Some(spec) = report.required(&at, &self.0.spec, expected) {
                spec.check(&at, report);
            }
        });
        if is_valid.is_some() {
            report.refuse(&Path::top("kind"), "host endpoints are not supported");
        }
        report.into_refused()
    }
}

impl<'de> Deserialize<'de> for HostEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl Spec {
    fn check(&self, at: &Path<'_>, report: &mut Report) {
        let Self { node, interface_name, expected_ips, profiles, ports, extra } = self;
        report.unknown_fields(Some(at), extra);
        required_text(report, &at.field("node"), node, "the name of a node");
        let interface_at = at.field("interfaceName");
        let interface = optional_text(report, &interface_at, interface_name);
        if let Some(name) = interface
            && !is_interface(name)
        {
            let expected = "`*` or at most 15 letters, digits, `_`, `.` and `-`";
            report.refuse(
                &interface_at,
                format!("`{name}` is not the name of an interface, expected {expected}"),
            );
        }
        if !interface_name.says_something() && !expected_ips.says_something() {
            report.refuse(
                at,
                "says nothing of its interface, expected `interfaceName` or `expectedIPs`",
            );
        }
        report.each_item(&at.field("expectedIPs"), expected_ips, "an address", |report, at, text| {
            if text.parse::<IpAddr>().is_err() {
                report.refuse(at, format!("`{text}` is not an address, expected one such as `10.0.0.1`"));
            }
        });
        report.each_item(&at.field("profiles"), profiles, "a name", |_, _, _| {});
        report.each_item(&at.field("ports"), ports, "an object", |report, at, port| {
            port.check(at, report);
        });
    }
}

impl EndpointPort {
    fn check(&self, at: &Path<'_>, report: &mut Report) {
        let Self { name, protocol, port, extra } = self;
        report.unknown_fields(Some(at), extra);
        let name_at = at.field("name");
        if let Some(name) = required_text(report, &name_at, name, "a name") {
            check_port_name(&name_at, name, report);
        }
        let (protocol_at, expected) = (at.field("protocol"), "`TCP`, `UDP` or `SCTP`");
        report.required(&protocol_at, protocol, expected);
        if let Some(WireProtocol { protocol, .. }) = read_protocol(&protocol_at, protocol, report)
            && Transport::from_protocol(protocol).is_none()
        {
            report.refuse(&protocol_at, format!("`{protocol}` has no ports, expected {expected}"));
        }
        let port_at = at.field("port");
        if let Some(port) = report.required(&port_at, port, "1 to 65535") {
            port.read_port(&port_at, report);
        }
    }
}

/// Returns whether `name` is the name of an interface, or `*` for all of them.
fn is_interface(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name == "*" || (name.len() <= 15 && name.bytes().all(is_inner))
}
