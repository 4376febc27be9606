//! What the rules of a program ask of a remote address.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::pool::id_of;
use crate::net::{Prefix, PrefixSet};
use crate::program::{Addresses, Digest, Members, Program, SetId, digest_of};

/// Identifies a feature within a plan.
pub(super) type FeatureId = u32;

/// A yes-or-no question that some rule asks of a remote address.
#[derive(Debug)]
enum Feature<'p> {
    /// Is it in this set?
    Set(SetId, &'p Addresses, &'p PrefixSet),
    /// Is it in these prefixes?
    Nets(&'p PrefixSet),
    /// Does it contribute this port to this set of named ports?
    Port(SetId, u16, Vec<IpAddr>),
}

/// The questions that the rules of a program ask, numbered in the order in which they come up.
#[derive(Debug)]
pub(super) struct Features<'p> {
    program: &'p Program,
    all: Vec<Feature<'p>>,
    sets: BTreeMap<SetId, FeatureId>,
    nets: BTreeMap<&'p PrefixSet, FeatureId>,
    ports: BTreeMap<SetId, Vec<(u16, FeatureId)>>,
}

impl<'p> Features<'p> {
    /// Returns no questions about a program.
    pub(super) const fn new(program: &'p Program) -> Self {
        Self {
            program,
            all: Vec::new(),
            sets: BTreeMap::new(),
            nets: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// Returns the question whether an address is in a set, `None` if no address is.
    pub(super) fn set(&mut self, id: SetId) -> Option<FeatureId> {
        let Members::Addresses { exact, prefixes } = &self.program.address_sets.get(&id)?.members
        else {
            return None;
        };
        let next = id_of(self.all.len());
        Some(*self.sets.entry(id).or_insert_with(|| {
            self.all.push(Feature::Set(id, exact, prefixes));
            next
        }))
    }

    /// Returns the question whether an address is in some prefixes.
    pub(super) fn nets(&mut self, nets: &'p PrefixSet) -> FeatureId {
        let next = id_of(self.all.len());
        *self.nets.entry(nets).or_insert_with(|| {
            self.all.push(Feature::Nets(nets));
            next
        })
    }

    /// Returns the ports of a set of named ports, each with the question whether an address contributes it.
    pub(super) fn ports(&mut self, id: SetId) -> &[(u16, FeatureId)] {
        self.ports.entry(id).or_insert_with(|| {
            let members = self.program.address_sets.get(&id).map(|set| &set.members);
            let Some(Members::Ports(members)) = members else { return Vec::new() };
            let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
            members.iter().for_each(|&(it, port)| by_port.entry(port).or_default().push(it));
            let feature = |(port, addresses)| {
                self.all.push(Feature::Port(id, port, addresses));
                (port, id_of(self.all.len() - 1))
            };
            by_port.into_iter().map(feature).collect()
        })
    }

    /// Returns how many questions there are.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the single addresses that answer yes to some question, sorted. They may also be in a block.
    pub(super) fn singles(&self) -> Vec<(IpAddr, FeatureId)> {
        let mut singles = Vec::new();
        for (index, feature) in self.all.iter().enumerate() {
            let id = id_of(index);
            match feature {
                Feature::Set(_, exact, prefixes) => {
                    singles.extend(exact.iter().map(|it| (it, id)));
                    singles.extend(hosts(prefixes).map(|it| (it, id)));
                }
                Feature::Nets(nets) => singles.extend(hosts(nets).map(|it| (it, id))),
                Feature::Port(_, _, addresses) => {
                    singles.extend(addresses.iter().map(|&it| (it, id)))
                }
            }
        }
        // Stable, because it is quick where there are sorted runs, as here.
        singles.sort();
        singles
    }

    /// Returns the prefixes of more than one address that answer yes to some question, sorted.
    pub(super) fn blocks(&self) -> Vec<(Prefix, FeatureId)> {
        let mut blocks = Vec::new();
        for (index, feature) in self.all.iter().enumerate() {
            if let Feature::Set(_, _, prefixes) | Feature::Nets(prefixes) = feature {
                let of_feature = prefixes.prefixes().iter().filter(|it| !is_host(**it));
                blocks.extend(of_feature.map(|&it| (it, id_of(index))));
            }
        }
        blocks.sort();
        blocks
    }

    /// Returns what each question stands for, whatever the program.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let digest = |feature: &Feature<'_>| match feature {
            Feature::Set(id, _, _) => digest_of(&("in set", id)),
            Feature::Nets(nets) => digest_of(&("in nets", nets)),
            Feature::Port(id, port, _) => digest_of(&("has port", id, port)),
        };
        self.all.iter().map(digest).collect()
    }
}

fn is_host(prefix: Prefix) -> bool {
    prefix.first() == prefix.last()
}

fn hosts(nets: &PrefixSet) -> impl Iterator<Item = IpAddr> + '_ {
    nets.prefixes().iter().filter(|it| is_host(**it)).map(|it| it.first())
}
