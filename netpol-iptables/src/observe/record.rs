//! Which endpoints the chains know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::program::Endpoint;

use super::{Observed, Table};
use crate::name::{Fixed, Owner};
use crate::probe::TableId;
use crate::render::{keys, own_addresses};
use crate::ruleset::{Interface, Key};

/// The endpoints that the chains of each family know.
#[derive(Debug)]
pub(crate) struct Record(BTreeMap<Family, Known>);

#[derive(Debug)]
struct Known {
    all: BTreeSet<Key>,
    /// Isolated on their way out, and on the way in.
    isolated: [BTreeSet<Key>; 2],
    own: BTreeMap<Interface, BTreeSet<IpAddr>>,
}

impl Record {
    /// Returns what the chains in the table of endpoints know, which is all that was observed.
    pub(crate) fn of(owner: &Owner, observed: &Observed) -> Self {
        let known = |(id, it): (&TableId, &Table)| (id.family, Known::of(owner, it));
        Self(observed.tables.iter().map(known).collect())
    }

    /// Returns whether an endpoint is known in each family, by the same interface and addresses.
    pub(crate) fn knows(&self, endpoint: &Endpoint) -> bool {
        let addresses = own_addresses(endpoint);
        let is_known = |(&family, known): (&Family, &Known)| {
            let own = addresses.iter().filter(|it| Family::of(**it) == family).collect();
            keys(endpoint)
                .iter()
                .filter(|key| key.occurs_in(family))
                .all(|key| known.all.contains(key) && known.has_addresses(*key, &own))
        };
        self.0.iter().all(is_known)
    }

    /// Returns whether an endpoint is isolated in each family.
    pub(crate) fn is_closed(&self, endpoint: &Endpoint) -> bool {
        self.0.iter().all(|(&family, known)| {
            let isolated = |key: &Key| known.isolated.iter().all(|list| list.contains(key));
            keys(endpoint).iter().filter(|key| key.occurs_in(family)).all(isolated)
        })
    }
}

impl Known {
    fn of(owner: &Owner, table: &Table) -> Self {
        let list = |fixed| {
            let chain = owner.chain(fixed);
            table.listed(&chain).into_iter().filter_map(|rule| rule.key).collect()
        };
        let mut own: BTreeMap<Interface, BTreeSet<IpAddr>> = BTreeMap::new();
        for rule in table.listed(&owner.chain(Fixed::Own)) {
            if let Some(Key::Interface(interface)) = rule.key {
                own.entry(interface).or_default().extend(rule.source);
            }
        }
        let isolated = [Fixed::IsolatedFrom, Fixed::IsolatedTo].map(list);
        Self { all: list(Fixed::Endpoints), isolated, own }
    }

    fn has_addresses(&self, key: Key, addresses: &BTreeSet<&IpAddr>) -> bool {
        match key {
            Key::Address(_) => true,
            Key::Interface(interface) => {
                let own = self.own.get(&interface);
                own.into_iter().flatten().eq(addresses.iter().copied())
            }
        }
    }
}
