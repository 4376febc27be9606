//! Which addresses and keys occur in a program.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::program::{Endpoint, Members};
use netpol_core::{Delta, Program};

use super::Changed;
use crate::render::keys;
use crate::ruleset::Key;

/// What of a program decides how all of it is rendered.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// How many addresses of each family endpoints and sets have.
    addresses: BTreeMap<Family, usize>,
    /// The keys of endpoints, each of one.
    keys: BTreeSet<Key>,
}

/// Whether something comes or goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Added,
    Removed,
}

impl Census {
    /// Counts a program; `None` if endpoints share a key.
    pub(super) fn of(program: &Program) -> Option<Self> {
        let mut census = Self::default();
        program.endpoints.iter().try_for_each(|it| census.endpoint(it, Change::Added))?;
        program.address_sets.values().for_each(|it| census.members(&it.members, Change::Added));
        Some(census)
    }

    /// Returns the families of which there are addresses.
    pub(super) fn families(&self) -> BTreeSet<Family> {
        self.addresses.iter().filter(|it| *it.1 > 0).map(|it| *it.0).collect()
    }

    /// Follows a delta that changes these endpoints; `None` if endpoints share a key then.
    pub(super) fn advance(&mut self, delta: &Delta, endpoints: &[Changed<'_>]) -> Option<()> {
        use Change::{Added, Removed};
        endpoints.iter().filter_map(|it| it.0).try_for_each(|it| self.endpoint(it, Removed))?;
        endpoints.iter().filter_map(|it| it.1).try_for_each(|it| self.endpoint(it, Added))?;
        delta.removed_sets.iter().for_each(|(_, set)| self.members(&set.members, Removed));
        for set in &delta.new_sets {
            self.members(&delta.program.address_sets.get(set)?.members, Added);
        }
        for change in &delta.members {
            let (addresses, ports) = (&change.addresses, &change.ports);
            for (addresses, ports, change) in [
                (&addresses.added, &ports.added, Added),
                (&addresses.removed, &ports.removed, Removed),
            ] {
                let ports = ports.iter().map(|it| &it.0);
                addresses.iter().chain(ports).for_each(|it| self.address(*it, change));
            }
        }
        Some(())
    }

    /// Counts an endpoint; `None` if another one has a key of it.
    fn endpoint(&mut self, endpoint: &Endpoint, change: Change) -> Option<()> {
        endpoint.addresses.iter().for_each(|it| self.address(*it, change));
        let mut keys = keys(endpoint).into_iter().collect::<BTreeSet<_>>().into_iter();
        let is_alone = match change {
            Change::Added => keys.all(|it| self.keys.insert(it)),
            Change::Removed => keys.all(|it| self.keys.remove(&it)),
        };
        is_alone.then_some(())
    }

    fn members(&mut self, members: &Members, change: Change) {
        match members {
            Members::Addresses { exact, .. } => {
                Family::BOTH.into_iter().for_each(|it| self.add(it, exact.len_of(it), change));
            }
            Members::Ports(ports) => ports.iter().for_each(|it| self.address(it.0, change)),
        }
    }

    fn address(&mut self, address: IpAddr, change: Change) {
        self.add(Family::of(address), 1, change);
    }

    fn add(&mut self, family: Family, count: usize, change: Change) {
        let sum = self.addresses.entry(family).or_default();
        *sum = match change {
            Change::Added => sum.saturating_add(count),
            Change::Removed => sum.saturating_sub(count),
        };
    }
}
