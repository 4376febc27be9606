//! Sets of single addresses, stored by family.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::Family;

/// A set of single addresses: the exact members of an address set.
///
/// IPv4 comes first, then IPv6, each in the order of its addresses. An address that is added or removed costs one
/// search; an IPv4 address takes about nine bytes.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Addresses {
    v4: BTreeSet<Ipv4Addr>,
    v6: BTreeSet<Ipv6Addr>,
}

impl Addresses {
    /// Adds an address. Returns whether it was not there.
    pub fn insert(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => self.v4.insert(it),
            IpAddr::V6(it) => self.v6.insert(it),
        }
    }

    /// Removes an address. Returns whether it was there.
    pub fn remove(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => self.v4.remove(&it),
            IpAddr::V6(it) => self.v6.remove(&it),
        }
    }

    /// Returns whether an address is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => self.v4.contains(&it),
            IpAddr::V6(it) => self.v6.contains(&it),
        }
    }

    /// Returns the addresses in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// Returns the number of addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Returns the number of addresses of one family.
    #[must_use]
    pub fn len_of(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        }
    }

    /// Returns whether no address is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(it) => v4.push(it),
                IpAddr::V6(it) => v6.push(it),
            }
        }
        Self { v4: v4.into_iter().collect(), v6: v6.into_iter().collect() }
    }
}

impl Extend<IpAddr> for Addresses {
    fn extend<I: IntoIterator<Item = IpAddr>>(&mut self, addresses: I) {
        addresses.into_iter().for_each(|address| {
            self.insert(address);
        });
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
