//! Who has which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::model::{EndpointId, Mode};
use netpol_core::program::Endpoint;
use netpol_core::{DataplaneError, Delta, Program};

/// Who has which address, and whether flows of it may exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holders(BTreeMap<IpAddr, EndpointId>);

impl Holders {
    /// Returns the holders of a program, of which these endpoints were isolated. Isolated endpoints have no flows.
    #[must_use]
    pub fn of(program: &Program, isolated: &[(EndpointId, DataplaneError)]) -> Self {
        let is_isolated = |it: &Endpoint| isolated.iter().any(|(id, _)| *id == it.id);
        let open = program.endpoints.iter().filter(|endpoint| !is_isolated(endpoint));
        Self(open.flat_map(held).collect())
    }

    /// Returns the addresses whose flows end when these holders give way to others.
    #[must_use]
    pub fn ended_by(&self, next: &Self) -> BTreeSet<IpAddr> {
        let lost = self.0.iter().filter(|(address, holder)| next.0.get(address) != Some(holder));
        lost.map(|(&address, _)| address).collect()
    }

    /// Follows a delta, of which no endpoint was isolated. Returns the addresses whose flows end.
    pub fn advance(&mut self, delta: &Delta) -> BTreeSet<IpAddr> {
        let changed = delta.endpoints.iter().filter_map(|it| it.old.as_ref());
        let gone = changed.chain(&delta.removed_endpoints).flat_map(|it| &it.addresses);
        let before: Vec<_> = gone.filter_map(|it| self.0.remove_entry(it)).collect();
        self.0.extend(delta.endpoints.iter().flat_map(|it| held(&it.new)));
        let lost =
            before.into_iter().filter(|(address, holder)| self.0.get(address) != Some(holder));
        lost.map(|(address, _)| address).collect()
    }
}

/// Returns the addresses that an endpoint holds; none if it is isolated, as it has no flows then.
fn held(endpoint: &Endpoint) -> impl Iterator<Item = (IpAddr, EndpointId)> {
    let addresses: &[IpAddr] =
        if endpoint.mode == Mode::Isolate { &[] } else { &endpoint.addresses };
    addresses.iter().map(|&address| (address, endpoint.id.clone()))
}
