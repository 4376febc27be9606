//! Who is in an address set.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::owners::Owners;
use crate::model::{Endpoint, Peers};
use crate::net::{Prefix, PrefixSet, Transport};
use crate::program::{Members, SetDefinition};
use crate::selector::Selector;

impl Owners<'_> {
    /// Returns the members of the set with this definition.
    pub(super) fn members(&self, definition: &SetDefinition) -> Members {
        match definition {
            SetDefinition::Addresses(peers) => self.addresses(peers),
            SetDefinition::NamedPort { endpoints, transport, name } => {
                self.named_ports(endpoints.as_ref(), *transport, name)
            }
        }
    }

    fn addresses(&self, peers: &Peers) -> Members {
        let (mut exact, prefixes): (Vec<_>, _) = match peers {
            Peers::Endpoints(selector) => {
                (self.selected_by(selector).map(|it| it.0).collect(), self.network_sets(selector))
            }
            Peers::Nodes(selector) => (self.node_addresses(selector), PrefixSet::default()),
        };
        let (hosts, prefixes): (Vec<Prefix>, Vec<Prefix>) =
            prefixes.prefixes().iter().partition(|prefix| prefix.first() == prefix.last());
        exact.extend(hosts.into_iter().map(Prefix::first));
        let exact = exact.into_iter().collect();
        Members::Addresses { exact, prefixes: prefixes.into_iter().collect() }
    }

    fn network_sets(&self, selector: &Selector) -> PrefixSet {
        let sets = self.inputs.network_sets.values();
        let selected = sets.filter(|set| selector.matches(&self.inputs.labels_of_set(set)));
        selected.flat_map(|set| set.nets.prefixes().iter().copied()).collect()
    }

    fn node_addresses(&self, selector: &Selector) -> Vec<IpAddr> {
        let selected = self.inputs.nodes.values().filter(|node| selector.matches(&node.labels));
        selected.flat_map(|node| node.addresses.iter().copied()).collect()
    }

    fn named_ports(
        &self,
        endpoints: Option<&Selector>,
        transport: Transport,
        name: &str,
    ) -> Members {
        let everything = Selector::all();
        let mut ports = BTreeSet::new();
        for (address, owner) in self.selected_by(endpoints.unwrap_or(&everything)) {
            ports.extend(numbers_of(owner, transport, name).map(|number| (address, number)));
        }
        Members::Ports(ports)
    }
}

/// Returns the numbers that an endpoint gives to a name.
pub(super) fn numbers_of(
    endpoint: &Endpoint,
    transport: Transport,
    name: &str,
) -> impl Iterator<Item = u16> {
    let meant =
        endpoint.ports.iter().filter(move |port| port.transport == transport && port.name == name);
    meant.map(|port| port.port)
}
