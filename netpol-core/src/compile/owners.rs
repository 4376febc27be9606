//! Who owns an address.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::net::IpAddr;

use crate::model::{
    Endpoint, EndpointId, EndpointKind, EndpointLabels, Inputs, Lifecycle, Timestamp,
};
use crate::selector::Selector;

/// The owner of each address: the newest running endpoint that claims it.
pub(super) struct Owners<'a> {
    pub(super) inputs: &'a Inputs,
    by_address: BTreeMap<IpAddr, &'a Endpoint>,
    by_labels: OnceCell<ByLabels<'a>>,
}

/// What selectors see of the owners, and the addresses of all that look the same to them.
type ByLabels<'a> = BTreeMap<EndpointLabels<'a>, Vec<(IpAddr, &'a Endpoint)>>;

/// What decides which of two endpoints is newer. The id makes it total.
pub(super) fn age(endpoint: &Endpoint) -> (Timestamp, &str, &EndpointId) {
    (endpoint.created, &endpoint.id.uid, &endpoint.id)
}

impl<'a> Owners<'a> {
    pub(super) fn of(inputs: &'a Inputs) -> Self {
        let mut by_address: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
        let running = |endpoint: &&Endpoint| {
            endpoint.id.kind == EndpointKind::Workload && endpoint.lifecycle == Lifecycle::Running
        };
        for endpoint in inputs.endpoints.values().filter(running) {
            for &address in &endpoint.addresses {
                let owner = by_address.entry(address).or_insert(endpoint);
                if age(owner) < age(endpoint) {
                    *owner = endpoint;
                }
            }
        }
        Self { inputs, by_address, by_labels: OnceCell::new() }
    }

    /// Returns the addresses and their owners that a selector selects. It is matched once for all owners that look the
    /// same to it, and not once for each.
    pub(super) fn selected_by(
        &self,
        selector: &Selector,
    ) -> impl Iterator<Item = (IpAddr, &'a Endpoint)> {
        let selected = self.by_labels().iter().filter(|(labels, _)| selector.matches(*labels));
        selected.flat_map(|(_, owners)| owners).copied()
    }

    fn by_labels(&self) -> &ByLabels<'a> {
        self.by_labels.get_or_init(|| {
            let mut by_labels = ByLabels::new();
            let owned = self.by_address.iter().map(|(&address, &owner)| (address, owner));
            for (address, owner) in owned.chain(self.hosts()) {
                by_labels.entry(self.inputs.labels_of(owner)).or_default().push((address, owner));
            }
            by_labels
        })
    }

    /// Returns the addresses that host endpoints list, which several can share.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (IpAddr, &'a Endpoint)> + use<'a> {
        let hosts = self.inputs.endpoints.values().filter(|it| it.id.kind == EndpointKind::Host);
        hosts.flat_map(|host| host.addresses.iter().map(move |&address| (address, host)))
    }

    /// Returns the addresses that an endpoint owns, sorted.
    pub(super) fn addresses_of(&self, endpoint: &Endpoint) -> Vec<IpAddr> {
        let owned = |address: &IpAddr| {
            self.by_address.get(address).is_some_and(|owner| owner.id == endpoint.id)
        };
        let mut addresses: Vec<_> = endpoint.addresses.iter().copied().filter(owned).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}
