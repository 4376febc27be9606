//! HostEndpoint.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, Field, List, buffered};
use super::super::manifest::{Manifest, Meta, Scope, optional_text, required_text};
use super::super::number::{Number, NumberOrName};
use super::super::report::{Path, Report};
use super::super::{Kind, Refused};
use super::port::check_port_name;
use super::protocol::{WireProtocol, read_protocol};
use crate::model::{Attachment, Endpoint, NamedPort};
use crate::net::Transport;
use crate::verdict::Verdict;

/// The profile that allows what no policy decides.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

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

    /// Returns the host endpoint. One that lists the profile `projectcalico-default-allow` allows where no policy decides, and
    /// every other one denies.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything for which Calico refuses it.
    pub fn to_endpoint(&self) -> Result<Endpoint, Refused> {
        let mut report = Report::default();
        let meta = self.0.meta(Kind::HostEndpoint, Scope::Cluster, &mut report);
        report.unknown_fields(None, &self.0.extra);
        let at = Path::top("spec");
        let spec = report.required(&at, &self.0.spec, "an object with a node");
        let host = spec.and_then(|spec| spec.read(&at, &mut report));
        let endpoint = meta.zip(host).map(|(meta, host)| host.endpoint(meta));
        report.finish(endpoint).map(|it| it.value)
    }
}

/// `spec`, read.
struct Host {
    node: String,
    attachment: Attachment,
    addresses: Vec<IpAddr>,
    default_verdict: Verdict,
    ports: Vec<NamedPort>,
}

impl Host {
    fn endpoint(self, meta: Meta) -> Endpoint {
        let Self { node, attachment, addresses, default_verdict, ports } = self;
        let Meta { namespace: _, name, uid: _, created, labels } = meta;
        let mut endpoint = Endpoint::host(name, node, attachment);
        endpoint.created = created;
        endpoint.labels = labels;
        endpoint.addresses = addresses;
        endpoint.default_verdict = default_verdict;
        endpoint.ports = ports;
        endpoint
    }
}

impl<'de> Deserialize<'de> for HostEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl Spec {
    fn read(&self, at: &Path<'_>, report: &mut Report) -> Option<Host> {
        let Self { node, interface_name, expected_ips, profiles, ports, extra } = self;
        report.unknown_fields(Some(at), extra);
        let node = required_text(report, &at.field("node"), node, "the name of a node");
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
        let mut addresses = Vec::new();
        let expected = "an address";
        report.each_item(&at.field("expectedIPs"), expected_ips, expected, |report, at, text| {
            match text.parse::<IpAddr>() {
                Ok(address) => addresses.push(address),
                Err(_) => report.refuse(
                    at,
                    format!("`{text}` is not an address, expected one such as `10.0.0.1`"),
                ),
            }
        });
        let mut default_verdict = Verdict::Deny;
        report.each_item(&at.field("profiles"), profiles, "a name", |_, _, name| {
            if name == DEFAULT_ALLOW {
                default_verdict = Verdict::Allow;
            }
        });
        let mut named = Vec::new();
        report.each_item(&at.field("ports"), ports, "an object", |report, at, port| {
            named.extend(port.read(at, report));
        });
        let attachment = match interface {
            None => Attachment::Address,
            Some("*") => Attachment::OtherInterfaces,
            Some(name) => Attachment::Interface(name.into()),
        };
        Some(Host { node: node?.into(), attachment, addresses, default_verdict, ports: named })
    }
}

impl EndpointPort {
    fn read(&self, at: &Path<'_>, report: &mut Report) -> Option<NamedPort> {
        let Self { name, protocol, port, extra } = self;
        report.unknown_fields(Some(at), extra);
        let name_at = at.field("name");
        let name = required_text(report, &name_at, name, "a name");
        if let Some(name) = name {
            check_port_name(&name_at, name, report);
        }
        let (protocol_at, expected) = (at.field("protocol"), "`TCP`, `UDP` or `SCTP`");
        report.required(&protocol_at, protocol, expected);
        let mut transport = None;
        if let Some(WireProtocol { protocol, .. }) = read_protocol(&protocol_at, protocol, report) {
            transport = Transport::from_protocol(protocol);
            if transport.is_none() {
                report.refuse(
                    &protocol_at,
                    format!("`{protocol}` has no ports, expected {expected}"),
                );
            }
        }
        let port_at = at.field("port");
        let port = report.required(&port_at, port, "1 to 65535")?.read_port(&port_at, report)?;
        Some(NamedPort { name: name?.into(), transport: transport?, port })
    }
}

/// Returns whether `name` is the name of an interface, or `*` for all of them.
fn is_interface(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name == "*" || (name.len() <= 15 && name.bytes().all(is_inner))
}
