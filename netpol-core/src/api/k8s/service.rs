//! Services and the slices of their endpoints.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Field, List, buffered};
use super::super::manifest::{
    Ignored, Manifest, Meta, NameSyntax, Scope, optional_text, required_text,
};
use super::super::number::Number;
use super::super::ports::read_transport;
use super::super::report::{Path, Report};
use super::super::{Kind, Refused, address, names};
use crate::model::{self, NamedPort, ServiceName, ServicePort};
use crate::net::{Family, Transport};

/// What a Service without an address of its own has in the place of one.
///
/// Source: `ClusterIPNone` in `k8s.io/api/core/v1`.
const NO_ADDRESS: &str = "None";

/// The label of a slice that names its Service.
///
/// Source: `LabelServiceName` in `k8s.io/api/discovery/v1`.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Most endpoints of a slice, and most addresses of one of them.
///
/// Source: `EndpointSlice` and `Endpoint` in `k8s.io/api/discovery/v1`.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

/// A `v1` Service as it is written.
#[derive(Clone, Debug)]
pub struct Service(Manifest<ServiceSpec, ServiceStatus>);

/// A `discovery.k8s.io/v1` EndpointSlice as it is written.
#[derive(Clone, Debug)]
pub struct EndpointSlice(Slice);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Field<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Field<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: List<String>,
    #[serde(rename = "externalIPs")]
    external_ips: List<String>,
    ports: List<WireServicePort>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct WireServicePort {
    name: Field<String>,
    protocol: Field<String>,
    port: Field<Number>,
    node_port: Field<Number>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct ServiceStatus {
    load_balancer: Field<LoadBalancer>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct LoadBalancer {
    ingress: List<LoadBalancerAddress>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct LoadBalancerAddress {
    ip: Field<String>,
    ip_mode: Field<String>,
    #[serde(flatten)]
    ignored: Ignored,
}

/// A slice has no `spec`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct Slice {
    #[serde(default)]
    address_type: Field<String>,
    #[serde(default = "Field::default")]
    endpoints: List<WireEndpoint>,
    #[serde(default = "Field::default")]
    ports: List<WireEndpointPort>,
    #[serde(flatten)]
    manifest: Manifest<IgnoredAny, IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct WireEndpoint {
    addresses: List<String>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct WireEndpointPort {
    name: Field<String>,
    protocol: Field<String>,
    port: Field<Number>,
    #[serde(flatten)]
    ignored: Ignored,
}

/// What a slice has in `addressType`.
#[derive(Clone, Copy)]
enum AddressType {
    Addresses(Family),
    Names,
}

impl Service {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace as it is written.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// Returns the Service with the addresses that nodes translate; `None` if it has no address of its own, so that they
    /// translate none for it. Addresses of load balancers that take the traffic themselves (`ipMode: Proxy`) are left out.
    ///
    /// # Errors
    ///
    /// [`Refused`] with everything that is wrong with the fields that policy depends on.
    pub fn to_service(&self) -> Result<Option<model::Service>, Refused> {
        let mut report = Report::default();
        let names = NameSyntax { is_valid: names::is_dns_label, expected: names::DNS_LABEL };
        let meta = self.0.meta_of_named(Kind::Service, Scope::Namespaced, names, &mut report);
        let at = Path::top("spec");
        let read = report.given(&at, &self.0.spec).map(|spec| spec.read(&at, &mut report));
        let of_load_balancer = self.load_balancer(&mut report);
        let service = meta.map(|meta| {
            let Meta { namespace, name, uid: _, created: _, labels: _ } = meta;
            let (mut addresses, ports) = read.flatten()?;
            addresses.extend(of_load_balancer);
            Some(model::Service { name: ServiceName { namespace, name }, addresses, ports })
        });
        report.finish(service).map(|it| it.value)
    }

    fn load_balancer(&self, report: &mut Report) -> BTreeSet<IpAddr> {
        let mut read = BTreeSet::new();
        let at = Path::top("status");
        let Some(status) = report.given(&at, &self.0.status) else { return read };
        let ServiceStatus { load_balancer, ignored: () } = status;
        let at = at.field("loadBalancer");
        let Some(LoadBalancer { ingress, ignored: () }) = report.given(&at, load_balancer) else {
            return read;
        };
        report.each_item(&at.field("ingress"), ingress, "an object", |report, at, item| {
            let LoadBalancerAddress { ip, ip_mode, ignored: () } = item;
            let ip_at = at.field("ip");
            let ip = optional_text(report, &ip_at, ip);
            let ip = ip.and_then(|text| address::read_address(&ip_at, text, report));
            let mode_at = at.field("ipMode");
            match optional_text(report, &mode_at, ip_mode) {
                None | Some("VIP") => read.extend(ip),
                Some("Proxy") => {}
                Some(text) => {
                    let expected = "`VIP` or `Proxy`";
                    report.refuse(&mode_at, format!("`{text}` is not a mode, expected {expected}"));
                }
            }
        });
        read
    }
}

impl ServiceSpec {
    /// Returns the addresses and ports, `None` if the Service has no address of its own.
    fn read(
        &self,
        at: &Path<'_>,
        report: &mut Report,
    ) -> Option<(BTreeSet<IpAddr>, BTreeSet<ServicePort>)> {
        let Self { kind, cluster_ip, cluster_ips, external_ips, ports, ignored: () } = self;
        let kind_at = at.field("type");
        let is_name = match optional_text(report, &kind_at, kind) {
            None | Some("ClusterIP" | "NodePort" | "LoadBalancer") => false,
            Some("ExternalName") => true,
            Some(text) => {
                let expected = "`ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`";
                report.refuse(
                    &kind_at,
                    format!("`{text}` is not a type of Service, expected {expected}"),
                );
                false
            }
        };
        let mut addresses = BTreeSet::new();
        let own_at = at.field("clusterIP");
        let own = optional_text(report, &own_at, cluster_ip);
        addresses.extend(own.and_then(|text| read_own_address(&own_at, text, report)));
        let list_at = at.field("clusterIPs");
        report.each_item(&list_at, cluster_ips, "an address", |report, at, text| {
            addresses.extend(read_own_address(at, text, report));
        });
        let has_own = !addresses.is_empty();
        let list_at = at.field("externalIPs");
        report.each_item(&list_at, external_ips, "an address", |report, at, text| {
            addresses.extend(address::read_address(at, text, report));
        });
        let ports = read_service_ports(&at.field("ports"), ports, report);
        (has_own && !is_name).then_some((addresses, ports))
    }
}

impl EndpointSlice {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.manifest.name()
    }

    /// Returns the namespace as it is written.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.manifest.namespace()
    }

    /// Returns the slice; `None` if it is for no Service. Endpoints are in it whether or not they are ready. Names of
    /// hosts have no addresses, and ports without a number are left out.
    ///
    /// # Errors
    ///
    /// [`Refused`] with everything that is wrong with the fields that policy depends on.
    pub fn to_slice(&self) -> Result<Option<model::EndpointSlice>, Refused> {
        let Slice { address_type, endpoints, ports, manifest } = &self.0;
        let mut report = Report::default();
        let meta = manifest.meta(Kind::EndpointSlice, Scope::Namespaced, &mut report);
        let kind = read_address_type(address_type, &mut report);
        let mut addresses = BTreeSet::new();
        let at = Path::top("endpoints");
        report.each_item_up_to(
            MAX_ENDPOINTS,
            &at,
            endpoints,
            "an object",
            |report, at, endpoint| {
                let WireEndpoint { addresses: list, ignored: () } = endpoint;
                let at = at.field("addresses");
                report.each_item_up_to(MAX_ADDRESSES, &at, list, "an address", |report, at, it| {
                    if let Some(AddressType::Addresses(family)) = kind {
                        addresses.extend(read_address_of(family, at, it, report));
                    }
                });
            },
        );
        let ports = read_endpoint_ports(ports, &mut report);
        let slice = meta.map(|meta| {
            let Meta { namespace, name, uid: _, created: _, labels } = meta;
            let service = labels.value(SERVICE_LABEL).filter(|it| !it.is_empty())?;
            let service = ServiceName { namespace, name: service.into() };
            Some(model::EndpointSlice { name, service, addresses, ports })
        });
        report.finish(slice).map(|it| it.value)
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for EndpointSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

fn read_service_ports(
    at: &Path<'_>,
    ports: &List<WireServicePort>,
    report: &mut Report,
) -> BTreeSet<ServicePort> {
    let (mut read, mut named, mut numbered) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    report.each_item(at, ports, "an object", |report, at, port| {
        let WireServicePort { name, protocol, port, node_port, ignored: () } = port;
        let name = read_port_name(at, name, report);
        if !named.insert(name) {
            let at = at.field("name");
            match name {
                "" => report.refuse(&at, "two ports without a name"),
                _ => report.refuse(&at, format!("`{name}` names two ports")),
            }
        }
        let transport = read_protocol(at, protocol, report);
        let port_at = at.field("port");
        let port = report.required(&port_at, port, "a port, 1 to 65535");
        let port = port.and_then(|it| it.read_port(&port_at, report));
        let node_at = at.field("nodePort");
        let node_port = report.given(&node_at, node_port).filter(|it| it.value() != 0);
        let node_port = node_port.and_then(|it| it.read_port(&node_at, report));
        if let (Some(transport), Some(port)) = (transport, port) {
            if !numbered.insert((transport, port)) {
                report.refuse(&port_at, format!("`{port}` is twice a port of one protocol"));
            }
            read.insert(ServicePort { name: name.into(), transport, port, node_port });
        }
    });
    read
}

fn read_endpoint_ports(ports: &List<WireEndpointPort>, report: &mut Report) -> BTreeSet<NamedPort> {
    let mut read = BTreeSet::new();
    report.each_item(&Path::top("ports"), ports, "an object", |report, at, port| {
        let WireEndpointPort { name, protocol, port, ignored: () } = port;
        let name = read_port_name(at, name, report);
        let transport = read_protocol(at, protocol, report);
        let at = at.field("port");
        let port = report.given(&at, port).and_then(|it| it.read_port(&at, report));
        if let (Some(transport), Some(port)) = (transport, port) {
            read.insert(NamedPort { name: name.into(), transport, port });
        }
    });
    read
}

/// Returns the name of a port, empty if it has none.
fn read_port_name<'f>(at: &Path<'_>, name: &'f Field<String>, report: &mut Report) -> &'f str {
    let at = at.field("name");
    let name = optional_text(report, &at, name).unwrap_or_default();
    if !name.is_empty() && !names::is_dns_label(name) {
        report.refuse(&at, format!("`{name}` is not a name, expected {}", names::DNS_LABEL));
    }
    name
}

fn read_protocol(
    at: &Path<'_>,
    protocol: &Field<String>,
    report: &mut Report,
) -> Option<Transport> {
    let at = at.field("protocol");
    match optional_text(report, &at, protocol) {
        Some(protocol) => read_transport(&at, protocol, report),
        None => Some(Transport::Tcp),
    }
}

/// Reads an address of a Service in the cluster, which it need not have.
fn read_own_address(at: &Path<'_>, text: &str, report: &mut Report) -> Option<IpAddr> {
    if text == NO_ADDRESS { None } else { address::read_address(at, text, report) }
}

fn read_address_of(
    family: Family,
    at: &Path<'_>,
    text: &str,
    report: &mut Report,
) -> Option<IpAddr> {
    let address = address::parse_address(text).filter(|it| Family::of(*it) == family);
    if address.is_none() {
        report.refuse(at, format!("`{text}` is not an address, expected one of {family}"));
    }
    address
}

fn read_address_type(kind: &Field<String>, report: &mut Report) -> Option<AddressType> {
    let at = Path::top("addressType");
    let expected = "`IPv4`, `IPv6` or `FQDN`";
    match required_text(report, &at, kind, expected)? {
        "IPv4" => Some(AddressType::Addresses(Family::V4)),
        "IPv6" => Some(AddressType::Addresses(Family::V6)),
        "FQDN" => Some(AddressType::Names),
        text => {
            report.refuse(&at, format!("`{text}` is not a type of address, expected {expected}"));
            None
        }
    }
}
