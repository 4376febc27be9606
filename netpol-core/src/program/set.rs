//! Address sets: what rules refer to instead of listing addresses.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use super::addresses::Addresses;
use super::digest::{Digest, digest_of};
use crate::model::{Peers, ServiceName};
use crate::net::{PrefixSet, Transport};
use crate::selector::Selector;

/// Identifies an address set: the digest of its definition, not of its members.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SetId(Digest);

impl SetId {
    /// Returns the id of the set with this definition.
    #[must_use]
    pub fn of(definition: &SetDefinition) -> Self {
        Self(digest_of(&("set", definition)))
    }

    /// Returns the digest.
    #[must_use]
    pub const fn digest(self) -> Digest {
        self.0
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a set stands for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SetDefinition {
    /// The addresses of these.
    Addresses(Peers),
    /// The ports that endpoints give a name.
    NamedPort {
        /// Which endpoints count; `None` for all.
        endpoints: Option<Selector>,
        /// The transport of the port.
        transport: Transport,
        /// The name.
        name: String,
    },
    /// The ports that the backends of a Service have.
    BackendPorts {
        /// The Service.
        service: ServiceName,
        /// The transport of the ports.
        transport: Transport,
    },
}

impl SetDefinition {
    /// Returns the transport of all ports in the set, `None` if it holds addresses.
    #[must_use]
    pub const fn transport(&self) -> Option<Transport> {
        match self {
            Self::Addresses(_) => None,
            Self::NamedPort { transport, .. } | Self::BackendPorts { transport, .. } => {
                Some(*transport)
            }
        }
    }
}

/// A set and its members.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct AddressSet {
    /// What it stands for.
    pub definition: SetDefinition,
    /// Who is in it.
    pub members: Members,
}

impl AddressSet {
    /// Returns the set with these members.
    #[must_use]
    pub const fn new(definition: SetDefinition, members: Members) -> Self {
        Self { definition, members }
    }
}

/// The members of a set.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a set holds addresses or ports of addresses")]
pub enum Members {
    /// Addresses. A set can change at any time, so rules refer to it by id.
    Addresses {
        /// Single addresses. One of them may also be covered by a prefix.
        exact: Addresses,
        /// Blocks, disjoint.
        prefixes: PrefixSet,
    },
    /// Ports of addresses. All have the transport of the definition.
    Ports(BTreeSet<(IpAddr, u16)>),
}

impl Members {
    /// Returns whether an address is in a set of addresses.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Addresses { exact, prefixes } => {
                exact.contains(address) || prefixes.contains(address)
            }
            Self::Ports(_) => false,
        }
    }

    /// Returns whether an address is one of the single addresses of a set of addresses.
    pub(crate) fn contains_exact(&self, address: IpAddr) -> bool {
        matches!(self, Self::Addresses { exact, .. } if exact.contains(address))
    }

    /// Returns whether a port of an address is in a set of ports.
    #[must_use]
    pub fn contains_port(&self, address: IpAddr, port: u16) -> bool {
        match self {
            Self::Addresses { .. } => false,
            Self::Ports(ports) => ports.contains(&(address, port)),
        }
    }
}
