//! Classes: addresses that no state tells apart.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::state::State;
use crate::model::EndpointId;
use crate::net::{Family, Prefix, PrefixMap};

/// Addresses that policy treats alike, whatever they send and whoever sends to them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Class {
    /// The family of the addresses.
    pub family: Family,
    /// Who is in it: endpoints in the order of their ids, then addresses that no endpoint has. Not empty.
    pub members: Vec<Member>,
}

/// An address of a class, or a block of addresses that no endpoint has.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Member {
    /// The endpoint. Of two states the one in the later, where it has the address in both.
    pub endpoint: Option<EndpointId>,
    /// Its address, or the block. Longer prefixes and addresses of endpoints in a block are in classes of their own.
    pub prefix: Prefix,
    /// The address, or one of the block.
    pub example: IpAddr,
}

impl Class {
    /// Returns the endpoints of the class.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointId> {
        self.members.iter().filter_map(|it| it.endpoint.as_ref())
    }
}

/// All classes, and which one an address is in.
#[derive(Clone, Debug)]
pub(super) struct Classes<K> {
    pub(super) all: Vec<Class>,
    /// What the states know of each class.
    pub(super) kinds: Vec<K>,
    numbers: PrefixMap<usize>,
}

impl<K: Copy + Ord> Classes<K> {
    /// Cuts the addresses of both families where a state does. `kind_of` tells what the states know of an address.
    pub(super) fn of(states: &[&State], kind_of: impl Fn(IpAddr) -> K) -> Self {
        let mut by_kind: BTreeMap<K, Vec<Member>> = BTreeMap::new();
        for (prefix, example) in places(states) {
            let endpoint = states.iter().rev().find_map(|it| it.owner(example)).cloned();
            by_kind.entry(kind_of(example)).or_default().push(Member { endpoint, prefix, example });
        }
        let order = |it: &Member| (it.endpoint.is_none(), it.endpoint.clone(), it.prefix);
        let mut classes: Vec<(K, Vec<Member>)> = by_kind.into_iter().collect();
        classes.iter_mut().for_each(|(_, members)| members.sort_by_cached_key(order));
        classes.sort_by_cached_key(|(_, members)| {
            members.first().map(|it| (it.prefix.family(), order(it)))
        });
        let mut numbers = PrefixMap::new();
        for (number, (_, members)) in classes.iter().enumerate() {
            numbers.extend(members.iter().map(|it| (it.prefix, number)));
        }
        let kinds = classes.iter().map(|(kind, _)| *kind).collect();
        let class = |(_, members): (K, Vec<Member>)| {
            let family = members.first().map_or(Family::V4, |it| it.prefix.family());
            Class { family, members }
        };
        Self { all: classes.into_iter().map(class).collect(), kinds, numbers }
    }

    /// Returns addresses that stand for a class and a class, different ones if there are.
    pub(super) fn examples(&self, from: usize, to: usize) -> Option<[IpAddr; 2]> {
        let source = self.all.get(from)?.members.first()?;
        let members = &self.all.get(to)?.members;
        let destination = members.get(usize::from(from == to)).or(members.first())?;
        Some([source.example, destination.example])
    }

    /// Returns the number of the class that an address is in.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<usize> {
        self.numbers.longest_match(address).map(|(_, number)| *number)
    }
}

/// Returns all addresses in pieces that no state cuts, each with an address that is in it and in no smaller piece. Each
/// address of an endpoint is a piece.
fn places(states: &[&State]) -> Vec<(Prefix, IpAddr)> {
    let mut singles = BTreeSet::new();
    let mut blocks: BTreeSet<Prefix> = Family::BOTH.into_iter().map(Prefix::all).collect();
    for state in states {
        singles.extend(state.flat.addresses().iter().map(|(address, _)| *address));
        singles.extend(state.owners().keys().copied());
        blocks.extend(state.flat.prefixes().map(|(prefix, _)| prefix));
    }
    let blocks: Vec<Prefix> = blocks.into_iter().collect();
    let free = blocks.iter().enumerate().filter_map(|(number, block)| {
        let inner = blocks.get(number + 1..).unwrap_or_default();
        Some((*block, free_address(*block, inner, &singles)?))
    });
    let singles = singles.iter().map(|&address| (Prefix::host(address), address));
    free.chain(singles).collect()
}

/// Returns an address of a block that is in none of the smaller blocks, which are sorted and begin with those in it, and that is
/// not single: one that people know as an example, or the first.
fn free_address(block: Prefix, inner: &[Prefix], singles: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let example = example(block.family());
    let is_taken = || singles.contains(&example) || inner.iter().any(|it| it.contains(example));
    if block.contains(example) && !is_taken() {
        return Some(example);
    }
    let (mut address, mut inner) = (block.first(), inner);
    loop {
        // Of those that begin at one address the largest comes first.
        while let Some((first, rest)) = inner.split_first().filter(|(it, _)| it.last() < address) {
            (_, inner) = (first, rest);
        }
        let taken = inner.first().filter(|it| it.contains(address)).map(|it| it.last());
        let taken = taken.or_else(|| singles.contains(&address).then_some(address));
        match taken {
            None => return Some(address),
            Some(last) if last >= block.last() => return None,
            Some(last) => address = after(last)?,
        }
    }
}

/// Returns an address that is reserved for documentation (RFC 5737, RFC 3849).
const fn example(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

/// Returns the next address.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => it.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(it) => it.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
