//! Frontends: addresses of Services, for dataplanes that judge before nodes translate them.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use crate::flow::{Flow, Payload};
use crate::net::Transport;

/// An address and port that the node translates to those of backends.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "what a packet is translated by")]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The transport.
    pub transport: Transport,
    /// The port.
    pub port: u16,
}

/// An address and port that a frontend stands for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "what a packet is translated to")]
pub struct Backend {
    /// The address, of the frontend's family.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// The frontends of a node, and the backends of each.
///
/// Nobody who judges a packet before it is translated knows which backend it is for. So where policies apply to what an
/// endpoint sends, they are asked about every backend in place of the frontend, and all must be allowed. A frontend without
/// backends is denied then: the next moment it may have some.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frontends {
    backends: BTreeMap<Frontend, BTreeSet<Backend>>,
    /// The addresses of all of them.
    addresses: BTreeSet<IpAddr>,
}

impl Frontend {
    /// Returns where a flow goes, `None` if it has no ports.
    #[must_use]
    pub const fn of(flow: &Flow) -> Option<Self> {
        match flow.payload {
            Payload::Ports { transport, destination, .. } => {
                Some(Self { address: flow.destination, transport, port: destination })
            }
            Payload::Icmp { .. } | Payload::Other(_) => None,
        }
    }
}

impl Backend {
    /// Returns a flow as it is when it has been translated to this backend.
    #[must_use]
    pub const fn translated(self, flow: &Flow) -> Flow {
        match flow.payload {
            Payload::Ports { transport, source, .. } => {
                let payload = Payload::Ports { transport, source, destination: self.port };
                Flow { destination: self.address, payload, ..*flow }
            }
            Payload::Icmp { .. } | Payload::Other(_) => *flow,
        }
    }
}

impl Frontends {
    /// Adds backends to a frontend, which is there from then on also if there are none. Those of another family are left
    /// out.
    pub fn add(&mut self, frontend: Frontend, backends: impl IntoIterator<Item = Backend>) {
        let of_family = |it: &Backend| it.address.is_ipv4() == frontend.address.is_ipv4();
        let known = self.backends.entry(frontend).or_default();
        self.addresses.insert(frontend.address);
        for backend in backends.into_iter().filter(of_family) {
            known.insert(backend);
            self.addresses.insert(backend.address);
        }
    }

    /// Returns the backends of the frontend that a flow goes to, in order; `None` if it goes to none.
    #[must_use]
    pub fn backends_for(&self, flow: &Flow) -> Option<&BTreeSet<Backend>> {
        self.backends.get(&Frontend::of(flow)?)
    }

    /// Returns the frontends with their backends, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Frontend, &BTreeSet<Backend>)> {
        self.backends.iter().map(|(frontend, backends)| (*frontend, backends))
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Returns whether an address is one of a frontend or backend.
    pub(crate) fn concern(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}
