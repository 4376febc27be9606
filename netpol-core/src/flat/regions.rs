//! Which class an address is in.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;

use super::features::{Answer, FeatureId, Features};
use super::pool::{id_of, index};
use super::ranges::Ranges;
use crate::net::{Family, Prefix, Transport};
use crate::program::{Frontend, Frontends, Program};

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
    classes: Classes,
    addresses: HashMap<IpAddr, ClassId>,
    blocks: Vec<Block>,
    /// The ranges into which blocks cut the addresses of IPv4, and of IPv6.
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// A single address that is in another class than before. A class is `None` where it is that of the longest prefix around
/// the address, or `other`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "an address, what was and what is")]
pub struct Move {
    /// The address.
    pub address: IpAddr,
    /// Its own class before.
    pub before: Option<ClassId>,
    /// Its own class now.
    pub after: Option<ClassId>,
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
    pub(super) fn of(features: &Features, program: &Program) -> Self {
        let blocks = features.blocks(program, 0);
        let everything = |family| {
            let all = Prefix::all(family);
            blocks.iter().filter(|(it, _)| *it == all).map(|&(_, feature)| feature).collect()
        };
        let mut classes = Classes::new(Family::BOTH.map(everything));
        let blocks = lay_out(&blocks, &mut classes);
        let (v4, v6) = ranges(&blocks);
        let mut regions = Self { classes, addresses: HashMap::new(), blocks, v4, v6 };
        for group in features.singles(program, 0).chunk_by(|(a, _), (b, _)| a == b) {
            let Some(&(address, _)) = group.first() else { continue };
            let around = regions.around(address);
            let class = regions.classes.within(around, Family::of(address), group);
            if class != around {
                regions.addresses.insert(address, class);
            }
        }
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
        for (address, ports) in served {
            let around = self.class_of(address);
            let class = self.classes.serve(around, Family::of(address), ports);
            self.addresses.insert(address, class);
        }
    }

    /// Returns the classes of frontends, sorted.
    pub(super) fn served(&self) -> &[ClassId] {
        &self.classes.served
    }

    /// Gives single addresses the classes of their new answers. New classes come after all others.
    pub(super) fn change(&mut self, mut answers: Vec<Answer>, features: &Features) -> Vec<Move> {
        answers.sort_unstable();
        let mut moves = Vec::new();
        for group in answers.chunk_by(|(a, ..), (b, ..)| a == b) {
            let Some(&(address, ..)) = group.first() else { continue };
            let (before, around) = (self.addresses.get(&address).copied(), self.around(address));
            let class = self.class(before.unwrap_or(around));
            let mut yes: BTreeSet<FeatureId> =
                class.into_iter().flat_map(|it| &it.features).copied().collect();
            yes.retain(|feature| !features.is_gone(*feature));
            for (_, feature, answer) in group {
                let _ = if *answer { yes.insert(*feature) } else { yes.remove(feature) };
            }
            let class = self.classes.of(Family::of(address), yes.into_iter().collect());
            let after = (class != around).then_some(class);
            match after {
                Some(class) => self.addresses.insert(address, class),
                None => self.addresses.remove(&address),
            };
            if before != after {
                moves.push(Move { address, before, after });
            }
        }
        moves
    }

    /// Returns the class of an address: that of the address itself, or of the longest prefix, or of everything else.
    pub(super) fn class_of(&self, address: IpAddr) -> ClassId {
        let own = self.addresses.get(&address).copied();
        own.unwrap_or_else(|| self.around(address))
    }

    /// Returns the single addresses that have a class of their own, in no order.
    pub(super) fn addresses(&self) -> impl ExactSizeIterator<Item = (IpAddr, ClassId)> + '_ {
        self.addresses.iter().map(|(address, class)| (*address, *class))
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Prefix, ClassId)> + '_ {
        self.blocks.iter().map(|block| (block.prefix, block.class))
    }

    pub(super) const fn other(&self, family: Family) -> ClassId {
        other(family)
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes.all
    }

    pub(super) fn class(&self, id: ClassId) -> Option<&Class> {
        self.classes.all.get(index(id.0))
    }

    /// Returns the classes whose addresses answer a question with yes, sorted.
    pub(super) fn holders(&self, feature: FeatureId) -> &[ClassId] {
        self.classes.holders.get(index(feature)).map_or(&[], Vec::as_slice)
    }

    /// Returns the class of the addresses of a prefix that are in no smaller one.
    pub(super) fn within(&self, prefix: Prefix) -> ClassId {
        let after = self.blocks.partition_point(|block| block.prefix <= prefix);
        let covers = |block: &&Block| block.prefix.covers(prefix);
        self.outwards(after).find(covers).map_or(other(prefix.family()), |block| block.class)
    }

    /// Returns the class of the longest prefix that holds an address, or of everything else.
    fn around(&self, address: IpAddr) -> ClassId {
        match address {
            IpAddr::V4(it) => self.v4.class_of(it.to_bits()),
            IpAddr::V6(it) => self.v6.class_of(it.to_bits()),
        }
        .unwrap_or_else(|| other(Family::of(address)))
    }

    /// Returns the block before an index, and those around it, from the smallest to the largest.
    fn outwards(&self, after: usize) -> impl Iterator<Item = &Block> {
        let last = after.checked_sub(1).and_then(|it| self.blocks.get(it));
        let outer = |block: &&Block| block.outer.and_then(|it| self.blocks.get(it));
        core::iter::successors(last, outer)
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

/// Returns the ranges into which sorted blocks cut the addresses of each family, with the class that each is in.
fn ranges(blocks: &[Block]) -> (Ranges<u32>, Ranges<u128>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut begin = |address, class| match address {
        IpAddr::V4(it) => v4.push((it.to_bits(), class)),
        IpAddr::V6(it) => v6.push((it.to_bits(), class)),
    };
    let mut open: Vec<&Block> = Vec::new();
    for next in blocks.iter().map(Some).chain([None]) {
        let ends = |block: &mut &Block| !next.is_some_and(|it| block.prefix.covers(it.prefix));
        while let Some(block) = open.pop_if(ends) {
            let around = open.last().map_or(other(block.prefix.family()), |it| it.class);
            after(block.prefix.last()).into_iter().for_each(|it| begin(it, around));
        }
        if let Some(next) = next {
            begin(next.prefix.first(), next.class);
            open.push(next);
        }
    }
    (Ranges::of(v4), Ranges::of(v6))
}

/// Returns the address after this one, if there is one of its family.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => it.to_bits().checked_add(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(it) => it.to_bits().checked_add(1).map(|it| IpAddr::V6(it.into())),
    }
}

/// The classes found so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Classes {
    all: Vec<Class>,
    known: HashMap<Class, ClassId>,
    /// By feature, the classes that have it.
    holders: Vec<Vec<ClassId>>,
    /// Those of frontends.
    served: Vec<ClassId>,
}

impl Classes {
    /// Returns the classes `other`, whose addresses answer yes to these.
    fn new(features: [Vec<FeatureId>; 2]) -> Self {
        let mut classes = Self::default();
        for (family, features) in Family::BOTH.into_iter().zip(features) {
            classes.of(family, features);
        }
        classes
    }

    /// Returns the class of what is in a class and answers yes to more.
    fn within<T>(&mut self, around: ClassId, family: Family, more: &[(T, FeatureId)]) -> ClassId {
        let around = self.all.get(index(around.0)).map(|it| it.features.as_slice());
        let mut features = around.unwrap_or_default().to_vec();
        features.extend(more.iter().map(|&(_, feature)| feature));
        features.sort_unstable();
        features.dedup();
        self.of(family, features)
    }

    /// Returns the class of what answers yes to these questions, which are sorted, and no to all others.
    fn of(&mut self, family: Family, features: Vec<FeatureId>) -> ClassId {
        let class = Class { family, features, served: None };
        if let Some(&known) = self.known.get(&class) {
            return known;
        }
        let id = ClassId(id_of(self.all.len()));
        let needed = class.features.last().map_or(0, |last| index(*last) + 1);
        self.holders.resize_with(needed.max(self.holders.len()), Vec::new);
        for &feature in &class.features {
            self.holders.get_mut(index(feature)).into_iter().for_each(|it| it.push(id));
        }
        self.known.insert(class.clone(), id);
        self.all.push(class);
        id
    }

    /// Returns the class of frontends that would be in a class otherwise.
    fn serve(&mut self, around: ClassId, family: Family, ports: Vec<Served>) -> ClassId {
        let features = self.all.get(index(around.0)).map(|it| it.features.clone());
        let features = features.unwrap_or_default();
        let class = Class { family, features, served: Some((around, ports)) };
        if let Some(&known) = self.known.get(&class) {
            return known;
        }
        let id = ClassId(id_of(self.all.len()));
        self.known.insert(class.clone(), id);
        self.all.push(class);
        self.served.push(id);
        id
    }
}
