//! Addresses for pods and nodes that give none.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::scenario::Problem;

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
}

impl Addresses {
    /// Hands out none of `taken`.
    pub(super) const fn new(taken: BTreeSet<IpAddr>) -> Self {
        Self { taken }
    }

    pub(super) fn of_new_pod(&mut self) -> Result<IpAddr, Problem> {
        self.first_free(
            (FIRST_POD.to_bits()..).map(|it| Ipv4Addr::from_bits(it).into()).take(50 * 256),
        )
    }

    /// Adds an address of each family that is missing: a node reaches all its pods, and can be probed from everywhere.
    pub(super) fn completed(&mut self, mut addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Problem> {
        if !addresses.iter().any(IpAddr::is_ipv4) {
            let pool = (FIRST_NODE.to_bits()..).map(|it| Ipv4Addr::from_bits(it).into());
            addresses.push(self.first_free(pool.take(150))?);
        }
        if !addresses.iter().any(IpAddr::is_ipv6) {
            let pool = (FIRST_NODE_V6.to_bits()..).map(|it| Ipv6Addr::from_bits(it).into());
            addresses.push(self.first_free(pool.take(150))?);
        }
        Ok(addresses)
    }

    fn first_free(&mut self, mut pool: impl Iterator<Item = IpAddr>) -> Result<IpAddr, Problem> {
        pool.find(|it| self.taken.insert(*it)).ok_or(Problem::NoFreeAddress)
    }
}
