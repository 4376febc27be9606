//! Which class an address is in.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::features::{FeatureId, Features};
use super::pool::{id_of, index};
use crate::net::{Family, Prefix, Transport};
use crate::program::{Frontend, Frontends};

/// Identifies a class of a flat form.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an index into the classes of a flat form")]
pub struct ClassId(pub u32);

/// Addresses that nothing in a program tells apart.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Class {
    /// The family of the addresses.
    pub family: Family,
    /// The questions to which they answer yes, sorted.
    pub(super) features: Vec<FeatureId>,
    /// What the node translates at these addresses, and the class that they would have otherwise.
    pub(super) served: Option<(ClassId, Vec<Served>)>,
}

/// A port that the node translates, at addresses of a class.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Served {
    pub(super) transport: Transport,
    pub(super) port: u16,
    /// What it is translated to, in the order in which policy is asked: classes of addresses, and their ports.
    pub(super) backends: Vec<(ClassId, u16)>,
}

/// The class of every address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Regions {
    classes: Vec<Class>,
    addresses: Vec<(IpAddr, ClassId)>,
    blocks: Vec<Block>,
}

/// A prefix and its class.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Block {
    prefix: Prefix,
    class: ClassId,
    /// The next larger prefix that holds it, by its index.
    outer: Option<usize>,
}

impl Regions {
    /// Returns the classes of all addresses, as these questions tell them apart.
    pub(super) fn of(features: &Features<'_>) -> Self {
        let blocks = features.blocks();
        let everything = |family| {
            let all = Prefix::all(family);
            blocks.iter().filter(|(it, _)| *it == all).map(|&(_, feature)| feature).collect()
        };
        let mut classes = Classes::new(Family::BOTH.map(everything));
        let blocks = lay_out(&blocks, &mut classes);
        let mut regions = Self { classes: Vec::new(), addresses: Vec::new(), blocks };
        for group in features.singles().chunk_by(|(a, _), (b, _)| a == b) {
            let Some(&(address, _)) = group.first() else { continue };
            let around = regions.around(address);
            let class = classes.within(around, Family::of(address), group);
            if class != around {
                regions.addresses.push((address, class));
            }
        }
        regions.classes = classes.all;
        regions
    }

    /// Gives the addresses of frontends classes of their own. What backends and they themselves would be otherwise is known
    /// by then, so nothing is translated twice.
    pub(super) fn serve(&mut self, frontends: &Frontends) {
        let mut served: BTreeMap<IpAddr, Vec<Served>> = BTreeMap::new();
        for (Frontend { address, transport, port }, backends) in frontends.iter() {
            let backends = backends.iter().map(|it| (self.class_of(it.address), it.port));
            let mut seen = BTreeSet::new();
            let backends = backends.filter(|it| seen.insert(*it)).collect();
            served.entry(address).or_default().push(Served { transport, port, backends });
        }
        let mut known: BTreeMap<(ClassId, Vec<Served>), ClassId> = BTreeMap::new();
        let mut addresses: BTreeMap<_, _> = self.addresses.iter().copied().collect();
        for (address, ports) in served {
            let around = self.class_of(address);
            let class = *known.entry((around, ports)).or_insert_with_key(|(around, ports)| {
                let features = self.class(*around).map(|it| it.features.clone());
                let (family, served) = (Family::of(address), Some((*around, ports.clone())));
                let class = ClassId(id_of(self.classes.len()));
                self.classes.push(Class { family, features: features.unwrap_or_default(), served });
                class
            });
            addresses.insert(address, class);
        }
        self.addresses = addresses.into_iter().collect();
    }

    /// Returns the class of an address: that of the address itself, or of the longest prefix, or of everything else.
    pub(super) fn class_of(&self, address: IpAddr) -> ClassId {
        match self.addresses.binary_search_by(|(it, _)| it.cmp(&address)) {
            Ok(found) => self.addresses.get(found).map(|(_, class)| *class),
            Err(_) => None,
        }
        .unwrap_or_else(|| self.around(address))
    }

    pub(super) fn addresses(&self) -> &[(IpAddr, ClassId)] {
        &self.addresses
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Prefix, ClassId)> + '_ {
        self.blocks.iter().map(|block| (block.prefix, block.class))
    }

    pub(super) const fn other(&self, family: Family) -> ClassId {
        other(family)
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(super) fn class(&self, id: ClassId) -> Option<&Class> {
        self.classes.get(index(id.0))
    }

    /// Returns the class of the longest prefix that holds an address, or of everything else.
    fn around(&self, address: IpAddr) -> ClassId {
        let after = self.blocks.partition_point(|block| block.prefix.first() <= address);
        let last = after.checked_sub(1).and_then(|it| self.blocks.get(it));
        let outer = |block: &&Block| block.outer.and_then(|it| self.blocks.get(it));
        core::iter::successors(last, outer)
            .find(|block| block.prefix.contains(address))
            .map_or(other(Family::of(address)), |block| block.class)
    }
}

/// Returns the class of all addresses of a family that have no other class.
const fn other(family: Family) -> ClassId {
    match family {
        Family::V4 => ClassId(0),
        Family::V6 => ClassId(1),
    }
}

/// Gives each sorted prefix its class: it answers yes to its own questions and to those of the prefixes around it. The
/// prefixes that hold all addresses are left out.
fn lay_out(blocks: &[(Prefix, FeatureId)], classes: &mut Classes) -> Vec<Block> {
    let mut laid_out: Vec<Block> = Vec::new();
    for group in blocks.chunk_by(|(a, _), (b, _)| a == b) {
        let Some(&(prefix, _)) = group.first().filter(|(prefix, _)| prefix.len() > 0) else {
            continue;
        };
        // The one before in the order is inside of every prefix that could hold this one, or is one of them.
        let mut outer = laid_out.len().checked_sub(1);
        let block = |at: Option<usize>| at.and_then(|it| laid_out.get(it));
        while block(outer).is_some_and(|it| !it.prefix.covers(prefix)) {
            outer = block(outer).and_then(|it| it.outer);
        }
        let around = block(outer).map_or(other(prefix.family()), |it| it.class);
        let class = classes.within(around, prefix.family(), group);
        laid_out.push(Block { prefix, class, outer });
    }
    laid_out
}

/// The classes found so far.
struct Classes {
    all: Vec<Class>,
    /// By features, for each family.
    known: [BTreeMap<Vec<FeatureId>, ClassId>; 2],
    /// Room for the features at hand.
    scratch: Vec<FeatureId>,
}

impl Classes {
    /// Returns the classes `other`, whose addresses answer yes to these.
    fn new(features: [Vec<FeatureId>; 2]) -> Self {
        let mut classes = Self {
            all: Vec::new(),
            known: [BTreeMap::new(), BTreeMap::new()],
            scratch: Vec::new(),
        };
        for (family, features) in Family::BOTH.into_iter().zip(features) {
            classes.scratch = features;
            classes.intern(family);
        }
        classes
    }

    /// Returns the class of what is in a class and answers yes to more.
    fn within<T>(&mut self, around: ClassId, family: Family, more: &[(T, FeatureId)]) -> ClassId {
        self.scratch.clear();
        if let Some(around) = self.all.get(index(around.0)) {
            self.scratch.extend_from_slice(&around.features);
        }
        self.scratch.extend(more.iter().map(|&(_, feature)| feature));
        self.scratch.sort_unstable();
        self.scratch.dedup();
        self.intern(family)
    }

    fn intern(&mut self, family: Family) -> ClassId {
        let [v4, v6] = &mut self.known;
        let known = if family == Family::V4 { v4 } else { v6 };
        if let Some(&class) = known.get(self.scratch.as_slice()) {
            return class;
        }
        let class = ClassId(id_of(self.all.len()));
        known.insert(self.scratch.clone(), class);
        self.all.push(Class { family, features: self.scratch.clone(), served: None });
        class
    }
}
