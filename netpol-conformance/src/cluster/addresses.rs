//! Addresses for pods and nodes that give none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::net::Family;

use crate::scenario::Problem;
use crate::topology::Host;

/// Where the addresses of pods that give none begin. Scenarios keep pods in 10.244.0.0/16.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 200, 1);

/// Where the addresses of nodes that give none begin. Scenarios keep nodes in 172.18.0.0/24.
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 100);

/// As [`FIRST_NODE`].
const FIRST_NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 0x100);

/// Hands out addresses, each only once.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    taken: BTreeSet<IpAddr>,
    /// What is kept for hosts of a name.
    kept: BTreeMap<Host, Vec<IpAddr>>,
}

impl Addresses {
    /// Hands out none of `taken`.
    pub(super) const fn new(taken: BTreeSet<IpAddr>) -> Self {
        Self { taken, kept: BTreeMap::new() }
    }

    /// Keeps the addresses of a host for the one of its name.
    pub(super) fn keep(&mut self, host: Host, addresses: &[IpAddr]) {
        self.taken.extend(addresses);
        self.kept.insert(host, addresses.to_vec());
    }

    /// Returns addresses for a pod that gives none.
    pub(super) fn of_new_pod(&mut self, id: String) -> Result<Vec<IpAddr>, Problem> {
        let kept = self.kept.get(&Host::Pod(id)).filter(|it| !it.is_empty());
        if let Some(kept) = kept {
            return Ok(kept.clone());
        }
        let pool = (FIRST_POD.to_bits()..).map(|it| Ipv4Addr::from_bits(it).into());
        Ok(vec![self.first_free(pool.take(50 * 256))?])
    }

    /// Adds an address of each family that is missing: a node reaches all its pods, and can be probed from everywhere.
    pub(super) fn completed(
        &mut self,
        node: &str,
        mut addresses: Vec<IpAddr>,
    ) -> Result<Vec<IpAddr>, Problem> {
        let kept = self.kept.get(&Host::Node(node.to_owned())).cloned().unwrap_or_default();
        for family in Family::BOTH {
            let is_meant = |it: &IpAddr| Family::of(*it) == family;
            if addresses.iter().any(&is_meant) {
                continue;
            }
            let kept = kept.iter().copied().find(&is_meant);
            addresses.push(kept.map_or_else(|| self.of_new_node(family), Ok)?);
        }
        Ok(addresses)
    }

    fn of_new_node(&mut self, family: Family) -> Result<IpAddr, Problem> {
        match family {
            Family::V4 => {
                let pool = (FIRST_NODE.to_bits()..).map(|it| Ipv4Addr::from_bits(it).into());
                self.first_free(pool.take(150))
            }
            Family::V6 => {
                let pool = (FIRST_NODE_V6.to_bits()..).map(|it| Ipv6Addr::from_bits(it).into());
                self.first_free(pool.take(150))
            }
        }
    }

    fn first_free(&mut self, mut pool: impl Iterator<Item = IpAddr>) -> Result<IpAddr, Problem> {
        pool.find(|it| self.taken.insert(*it)).ok_or(Problem::NoFreeAddress)
    }
}
