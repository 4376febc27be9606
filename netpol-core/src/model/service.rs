//! Services, and the slices that list their backends.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::NamedPort;
use crate::net::{Transport, canonical_address};

/// Identifies a Service.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a Service is known by namespace and name")]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

/// A Service: addresses and ports that nodes translate to those of its backends. The backends are those that its
/// [slices](EndpointSlice) list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a Service is a name for addresses and ports that are translated"
)]
pub struct Service {
    /// Which Service this is.
    pub name: ServiceName,
    /// The addresses that are translated: in the cluster, outside of it, and of load balancers.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports of these addresses that are translated.
    pub ports: BTreeSet<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a port is a number for each kind of address that is translated"
)]
pub struct ServicePort {
    /// What the slices call the ports of the backends that this one stands for. Empty if there is only one.
    pub name: String,
    /// The transport.
    pub transport: Transport,
    /// The number on the Service's own addresses.
    pub port: u16,
    /// The number on the nodes' addresses, if these are translated too.
    pub node_port: Option<u16>,
}

/// Some of the backends of a Service: each of these addresses, with each of these ports.
///
/// Backends count whether or not they are ready: traffic of established flows goes to those that are about to end, and one
/// that gets ready must not be met by policy that does not know it yet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a slice lists addresses and ports for a Service")]
pub struct EndpointSlice {
    /// The name. The namespace is that of the Service.
    pub name: String,
    /// The Service, which need not exist.
    pub service: ServiceName,
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports, by the names that the Service has for them.
    pub ports: BTreeSet<NamedPort>,
}

impl ServiceName {
    /// Returns the name of a Service.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Service {
    /// Returns the same with canonical addresses and without ports of the reserved number 0.
    pub(crate) fn canonical(mut self) -> Self {
        self.addresses = self.addresses.into_iter().map(canonical_address).collect();
        self.ports.retain(|it| it.port != 0);
        self
    }
}

impl EndpointSlice {
    /// Returns the same with canonical addresses and without ports of the reserved number 0.
    pub(crate) fn canonical(mut self) -> Self {
        self.addresses = self.addresses.into_iter().map(canonical_address).collect();
        self.ports.retain(|it| it.port != 0);
        self
    }
}
