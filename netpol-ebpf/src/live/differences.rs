//! Whether what is in force means what a program says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_core::flat::TableKey;
use netpol_core::net::{Family, Prefix};
use netpol_ebpf_abi as abi;

use super::{Live, family_number};
use crate::ids::Kind;
use crate::render::Desired;

impl Live {
    /// Returns how this differs in meaning from what another one has in force, whose lists and counters have the same ids.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let interfaces: BTreeSet<&String> =
            self.endpoints.keys().chain(other.endpoints.keys()).collect();
        for interface in interfaces {
            match (self.endpoints.get(interface), other.endpoints.get(interface)) {
                (Some(one), Some(wanted))
                    if plain(one) == plain(wanted) && self.judges_alike(one, other, wanted) => {}
                (None, _) => lines.push(format!("`{interface}` has no record")),
                (_, None) => lines.push(format!("`{interface}` is no endpoint's")),
                _ => lines.push(format!("the record of `{interface}` is another one")),
            }
        }
        let tables: BTreeSet<TableKey> =
            self.tables.keys().chain(other.tables.keys()).copied().collect();
        let classes = self.pairs(other);
        for key in tables {
            let same = match (self.tables.get(&key), other.tables.get(&key)) {
                (Some(_), Some(_)) => classes.iter().all(|(family, one, wanted)| {
                    self.row(key, *family, *one) == other.row(key, *family, *wanted)
                }),
                _ => false,
            };
            if !same {
                lines.push(format!("the table of policy set {key} is another one"));
            }
        }
        for (name, object) in &other.objects {
            if name.0 == Kind::List && self.objects.get(name) != Some(object) {
                lines.push(format!("list {} is missing", name.1));
            }
        }
        lines
    }

    /// Returns whether an endpoint is judged by the same policy sets here and there.
    fn judges_alike(&self, here: &Desired, other: &Self, there: &Desired) -> bool {
        here.record.tables.iter().zip(&there.record.tables).all(|(one, wanted)| {
            let mut keys = self.tables.iter().filter(|(_, table)| table.id == *one);
            *one == abi::OPEN && *wanted == abi::OPEN
                || keys.any(|(key, _)| other.tables.get(key).is_some_and(|it| it.id == *wanted))
        })
    }

    /// Returns the classes that the same addresses have here and there.
    fn pairs(&self, other: &Self) -> BTreeSet<(Family, u32, u32)> {
        let mut pairs = BTreeSet::new();
        let everything = Family::BOTH.map(Prefix::all);
        let blocks = self.blocks.iter().chain(other.blocks.iter()).map(|(prefix, _)| prefix);
        for prefix in blocks.chain(everything) {
            pairs.insert((prefix.family(), self.within(prefix), other.within(prefix)));
        }
        let addresses: BTreeSet<&IpAddr> =
            self.addresses.keys().chain(other.addresses.keys()).collect();
        for address in addresses {
            let family = Family::of(*address);
            pairs.insert((family, self.class_of(*address), other.class_of(*address)));
        }
        pairs
    }

    /// Returns the class of the addresses of a prefix that are in no smaller one.
    fn within(&self, prefix: Prefix) -> u32 {
        let other = || abi::class_of_others(prefix.family() == Family::V6);
        self.blocks.covering(prefix).last().map_or_else(other, |(_, class)| *class)
    }

    fn class_of(&self, address: IpAddr) -> u32 {
        let record = self.addresses.get(&address).and_then(|number| self.keys.get(*number));
        record.map_or_else(|| self.around(address), |record| record.class)
    }

    fn row(&self, key: TableKey, family: Family, class: u32) -> Option<abi::Row> {
        let table = self.tables.get(&key)?;
        table.rows.get(&class).or_else(|| table.others.get(family_number(family))).copied()
    }
}

/// Returns what is to be in force for an endpoint, without ids.
fn plain(desired: &Desired) -> Desired {
    let flags = desired.record.flags & !(abi::PREFIXES_V4 | abi::PREFIXES_V6);
    let record = abi::Endpoint { space: 0, tables: [0; 2], flags, ..desired.record };
    Desired { record, ..desired.clone() }
}
