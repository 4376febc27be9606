//! Who has which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::model::{EndpointId, Mode};
use netpol_core::program::Endpoint;
use netpol_core::{DataplaneError, Program};

/// Who has which address, and whether flows of it may exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holders(BTreeMap<IpAddr, EndpointId>);

impl Holders {
    /// Returns the holders of a program, of which these endpoints were isolated. Isolated endpoints have no flows.
    #[must_use]
    pub fn of(program: &Program, isolated: &[(EndpointId, DataplaneError)]) -> Self {
        let is_isolated =
            |it: &Endpoint| it.mode == Mode::Isolate || isolated.iter().any(|(id, _)| *id == it.id);
        let with_flows = program.endpoints.iter().filter(|endpoint| !is_isolated(endpoint));
        let holders =
            with_flows.flat_map(|it| it.addresses.iter().map(|&address| (address, it.id.clone())));
        Self(holders.collect())
    }

    /// Returns the addresses whose flows end when these holders give way to others.
    #[must_use]
    pub fn ended_by(&self, next: &Self) -> BTreeSet<IpAddr> {
        let lost = self.0.iter().filter(|(address, holder)| next.0.get(address) != Some(holder));
        lost.map(|(&address, _)| address).collect()
    }
}
