//! Who owns an address.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::model::{Endpoint, EndpointId, Inputs, Lifecycle, Timestamp};
use crate::net::canonical_address;

/// The owner of each address: the newest running endpoint that claims it.
pub(super) struct Owners<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) by_address: BTreeMap<IpAddr, &'a Endpoint>,
}

/// What decides which of two endpoints is newer. The id makes it total.
pub(super) fn age(endpoint: &Endpoint) -> (Timestamp, &str, &EndpointId) {
    (endpoint.created, &endpoint.id.uid, &endpoint.id)
}

impl<'a> Owners<'a> {
    pub(super) fn of(inputs: &'a Inputs) -> Self {
        let mut by_address: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
        let running = |endpoint: &&Endpoint| endpoint.lifecycle == Lifecycle::Running;
        for endpoint in inputs.endpoints.values().filter(running) {
            for &address in &endpoint.addresses {
                let owner = by_address.entry(canonical_address(address)).or_insert(endpoint);
                if age(owner) < age(endpoint) {
                    *owner = endpoint;
                }
            }
        }
        Self { inputs, by_address }
    }

    /// Returns the addresses that an endpoint owns, sorted.
    pub(super) fn addresses_of(&self, endpoint: &Endpoint) -> Vec<IpAddr> {
        let owned = |address: &IpAddr| {
            self.by_address.get(address).is_some_and(|owner| owner.id == endpoint.id)
        };
        let mut addresses: Vec<_> = endpoint
            .addresses
            .iter()
            .map(|&address| canonical_address(address))
            .filter(owned)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}
