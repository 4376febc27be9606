//! What the rules of a program ask of a remote address.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::pool::{id_of, index};
use crate::dataplane::{Delta, MembersChange};
use crate::net::{Prefix, PrefixSet};
use crate::program::{AddressSet, Addresses, Digest, Members, Program, SetId, digest_of};

/// Identifies a feature within a flat form.
pub(super) type FeatureId = u32;

/// A yes-or-no question that some rule asks of a remote address.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Feature {
    /// Is it in this set?
    Set(SetId),
    /// Is it in these prefixes?
    Nets(PrefixSet),
    /// Does it contribute this port to this set of named ports?
    Port(SetId, u16),
}

/// An address, a question, and whether the answer is yes.
pub(super) type Answer = (IpAddr, FeatureId, bool);

/// The questions that the rules of a program ask, numbered in the order in which they come up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Features {
    all: Vec<Feature>,
    sets: BTreeMap<SetId, FeatureId>,
    nets: BTreeMap<PrefixSet, FeatureId>,
    ports: BTreeMap<SetId, Vec<(u16, FeatureId)>>,
    /// The questions about sets that are gone. Nobody asks them, but classes may have them.
    gone: BTreeSet<FeatureId>,
}

impl Features {
    /// Returns the question whether an address is in a set, `None` if no address is.
    pub(super) fn set(&mut self, program: &Program, id: SetId) -> Option<FeatureId> {
        if let Some(known) = self.sets.get(&id) {
            return Some(*known);
        }
        let Members::Addresses { .. } = program.address_sets.get(&id)?.members else {
            return None;
        };
        let feature = add(&mut self.all, Feature::Set(id));
        self.sets.insert(id, feature);
        Some(feature)
    }

    /// Returns the question whether an address is in some prefixes.
    pub(super) fn nets(&mut self, nets: &PrefixSet) -> FeatureId {
        if let Some(known) = self.nets.get(nets) {
            return *known;
        }
        let feature = add(&mut self.all, Feature::Nets(nets.clone()));
        self.nets.insert(nets.clone(), feature);
        feature
    }

    /// Returns the ports of a set of named ports, each with the question whether an address contributes it.
    pub(super) fn ports(&mut self, program: &Program, id: SetId) -> &[(u16, FeatureId)] {
        let Self { all, ports, .. } = self;
        ports.entry(id).or_insert_with(|| {
            let members = program.address_sets.get(&id).map(|set| &set.members);
            let Some(Members::Ports(members)) = members else { return Vec::new() };
            let numbers: BTreeSet<u16> = members.iter().map(|(_, port)| *port).collect();
            numbers.into_iter().map(|port| (port, add(all, Feature::Port(id, port)))).collect()
        })
    }

    /// Returns how many questions there are.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the single addresses that answer yes to a question from this one on, sorted. They may also be in a block.
    pub(super) fn singles(&self, program: &Program, from: usize) -> Vec<(IpAddr, FeatureId)> {
        let mut singles = Vec::new();
        for (feature, id) in self.from(from) {
            match feature {
                Feature::Set(set) => {
                    if let Some((exact, prefixes)) = addresses(program, *set) {
                        singles.extend(exact.iter().chain(hosts(prefixes)).map(|it| (it, id)));
                    }
                }
                Feature::Nets(nets) => singles.extend(hosts(nets).map(|it| (it, id))),
                Feature::Port(..) => {}
            }
        }
        let is_wanted = |id: u32| index(id) >= from;
        for (set, ports) in &self.ports {
            if !ports.iter().any(|(_, id)| is_wanted(*id)) {
                continue;
            }
            let set = program.address_sets.get(set).map(|it| &it.members);
            let Some(Members::Ports(members)) = set else { continue };
            let feature = |&(address, port)| Some((address, of_port(ports, port)?));
            singles.extend(members.iter().filter_map(feature).filter(|(_, id)| is_wanted(*id)));
        }
        // Stable, because it is quick where there are sorted runs, as here.
        singles.sort();
        singles
    }

    /// Returns the prefixes of more than one address that answer yes to a question from this one on, sorted.
    pub(super) fn blocks(&self, program: &Program, from: usize) -> Vec<(Prefix, FeatureId)> {
        let mut blocks = Vec::new();
        for (feature, id) in self.from(from) {
            let prefixes = match feature {
                Feature::Set(set) => addresses(program, *set).map(|(_, prefixes)| prefixes),
                Feature::Nets(prefixes) => Some(prefixes),
                Feature::Port(..) => None,
            };
            let prefixes = prefixes.into_iter().flat_map(PrefixSet::prefixes);
            blocks.extend(prefixes.filter(|it| !is_host(**it)).map(|it| (*it, id)));
        }
        blocks.sort();
        blocks
    }

    /// Returns the answers of addresses that a delta changes, as far as somebody asks. `None` if prefixes change, or if a
    /// set has a port that it did not have.
    pub(super) fn changed(&self, delta: &Delta) -> Option<Vec<Answer>> {
        let mut answers = Vec::new();
        for MembersChange { set, addresses, prefixes, ports } in &delta.members {
            let members = &delta.program.address_sets.get(set)?.members;
            if let Some(&feature) = self.sets.get(set) {
                if !prefixes.is_empty() {
                    return None;
                }
                let changed = addresses.added.iter().chain(&addresses.removed);
                answers.extend(changed.map(|it| (*it, feature, members.contains(*it))));
            }
            if let Some(known) = self.ports.get(set) {
                for (edited, is_there) in [(&ports.added, true), (&ports.removed, false)] {
                    for &(address, port) in edited {
                        answers.push((address, of_port(known, port)?, is_there));
                    }
                }
            }
        }
        Some(answers)
    }

    /// Forgets a set.
    pub(super) fn forget(&mut self, set: SetId) {
        self.gone.extend(self.sets.remove(&set));
        let ports = self.ports.remove(&set).unwrap_or_default();
        self.gone.extend(ports.into_iter().map(|(_, feature)| feature));
    }

    /// Returns whether a question is about a set that is gone.
    pub(super) fn is_gone(&self, feature: FeatureId) -> bool {
        self.gone.contains(&feature)
    }

    /// Returns what a question stands for, whatever the program.
    pub(super) fn digest(&self, feature: FeatureId) -> Option<Digest> {
        Some(match self.all.get(index(feature))? {
            Feature::Set(id) => digest_of(&("in set", id)),
            Feature::Nets(nets) => digest_of(&("in nets", nets)),
            Feature::Port(id, port) => digest_of(&("has port", id, port)),
        })
    }

    fn from(&self, from: usize) -> impl Iterator<Item = (&Feature, FeatureId)> {
        let numbered = self.all.iter().enumerate().skip(from);
        numbered.map(|(number, feature)| (feature, id_of(number)))
    }
}

fn add(all: &mut Vec<Feature>, feature: Feature) -> FeatureId {
    all.push(feature);
    id_of(all.len() - 1)
}

/// Returns the question about a port of a sorted list.
fn of_port(ports: &[(u16, FeatureId)], port: u16) -> Option<FeatureId> {
    let found = ports.binary_search_by_key(&port, |(port, _)| *port).ok()?;
    ports.get(found).map(|(_, feature)| *feature)
}

fn addresses(program: &Program, set: SetId) -> Option<(&Addresses, &PrefixSet)> {
    match &program.address_sets.get(&set)?.members {
        Members::Addresses { exact, prefixes } => Some((exact, prefixes)),
        Members::Ports(_) => None,
    }
}

/// Returns how many single addresses a set has.
pub(super) fn len_of(set: &AddressSet) -> usize {
    match &set.members {
        Members::Addresses { exact, prefixes } => exact.len() + hosts(prefixes).count(),
        Members::Ports(ports) => ports.len(),
    }
}

fn is_host(prefix: Prefix) -> bool {
    prefix.first() == prefix.last()
}

fn hosts(nets: &PrefixSet) -> impl Iterator<Item = IpAddr> + '_ {
    nets.prefixes().iter().filter(|it| is_host(**it)).map(|it| it.first())
}
