//! Whether two flat forms say the same, whatever their ids.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::pool::index;
use super::{ClassId, Flat, LeafId, RowId, SourceId, TableKey, Then};
use crate::net::{Family, Prefix};

impl Flat {
    /// Returns the policy sets of which another flat form says something else, to whatever address.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<TableKey> {
        let mut keys: BTreeSet<TableKey> =
            self.tables.keys().chain(other.tables.keys()).copied().collect();
        keys.extend(self.unclassified.keys().chain(other.unclassified.keys()));
        let classes = self.pairs(other);
        let mut known = BTreeMap::new();
        keys.retain(|key| {
            let (Some(one), Some(two)) = (self.tables.get(key), other.tables.get(key)) else {
                return self.unclassified.get(key) != other.unclassified.get(key)
                    || self.tables.contains_key(key) != other.tables.contains_key(key);
            };
            !classes.iter().all(|&(family, here, there)| {
                let rows = (one.row(here, family), two.row(there, family));
                *known.entry(rows).or_insert_with(|| self.is_same_row(rows.0, other, rows.1))
            })
        });
        keys.into_iter().collect()
    }

    /// Returns the classes that the same addresses have here and there.
    fn pairs(&self, other: &Self) -> BTreeSet<(Family, ClassId, ClassId)> {
        let everything = Family::BOTH.map(Prefix::all);
        let blocks = self.prefixes().chain(other.prefixes()).map(|(prefix, _)| prefix);
        let blocks = blocks.chain(everything).map(|prefix| {
            (prefix.family(), self.regions.within(prefix), other.regions.within(prefix))
        });
        let addresses = self.regions.addresses().chain(other.regions.addresses());
        let addresses = addresses.map(|(address, _)| {
            (Family::of(address), self.class_of(address), other.class_of(address))
        });
        blocks.chain(addresses).collect()
    }

    fn is_same_row(&self, RowId(one): RowId, other: &Self, RowId(two): RowId) -> bool {
        let (Some(one), Some(two)) = (self.rows().get(index(one)), other.rows().get(index(two)))
        else {
            return false;
        };
        self.is_same_leaf(one.default, other, two.default)
            && one.cells.len() == two.cells.len()
            && one.cells.iter().zip(&two.cells).all(|(one, two)| {
                (one.protocol, one.first, one.last) == (two.protocol, two.first, two.last)
                    && match (one.then, two.then) {
                        (Then::Leaf(one), Then::Leaf(two)) => self.is_same_leaf(one, other, two),
                        (Then::BySource(one), Then::BySource(two)) => {
                            self.is_same_list(one, other, two)
                        }
                        _ => false,
                    }
            })
    }

    fn is_same_list(&self, SourceId(one): SourceId, other: &Self, SourceId(two): SourceId) -> bool {
        let (one, two) = (self.sources().get(index(one)), other.sources().get(index(two)));
        let (Some(one), Some(two)) = (one, two) else { return false };
        one.len() == two.len()
            && one.iter().zip(two).all(|(one, two)| {
                (one.first, one.last) == (two.first, two.last)
                    && self.is_same_leaf(one.leaf, other, two.leaf)
            })
    }

    fn is_same_leaf(&self, LeafId(one): LeafId, other: &Self, LeafId(two): LeafId) -> bool {
        let (Some(one), Some(two)) =
            (self.leaves().get(index(one)), other.leaves().get(index(two)))
        else {
            return false;
        };
        let counters =
            (self.counters().get(index(one.counter.0)), other.counters().get(index(two.counter.0)));
        counters.0 == counters.1
            && (one.verdict, &one.reason, &one.logs) == (two.verdict, &two.reason, &two.logs)
    }
}
