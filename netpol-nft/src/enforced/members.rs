//! How the members of sets change, and which of them must not in place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::program::{AddressSet, Members, SetId};
use netpol_core::{Delta, Edit, MembersChange};
use netpol_netfilter::{Lookups, Way};

use crate::name::{self, Name, Place, SizeClass};
use crate::render::{address_key, target_key};
use crate::ruleset::{Elements, Fields, Key, Set, Storage};

/// The sets that a delta changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Those with other exact members, by their names.
    exact: BTreeMap<Name, Change>,
    /// Those with other prefixes, which become part of chains.
    pub(super) other_prefixes: BTreeSet<SetId>,
}

/// How the exact members of one family change.
#[derive(Debug)]
struct Change {
    set: SetId,
    kind: name::Members,
    family: Family,
    before: Place,
    after: Place,
    keys: Edit<Key>,
}

impl Changes {
    /// Reads a delta; `None` if it does not fit its own program. Sets without a place are in no chain.
    pub(super) fn of(delta: &Delta, places: &BTreeMap<String, Place>) -> Option<Self> {
        let mut changes = Self::default();
        for change in &delta.members {
            let set = delta.program.address_sets.get(&change.set)?;
            if !change.prefixes.is_empty() {
                changes.other_prefixes.insert(change.set);
            }
            let id = change.set.to_string();
            for family in Family::BOTH {
                let (kind, keys) = keys(change, set, family);
                let stem = Name::members_stem(kind, family, &id);
                if let Some(&before) = places.get(&stem).filter(|_| !keys.is_empty()) {
                    let class = SizeClass::kept_or_new(Some(before.class), count(set, family));
                    let after = Place { class, ..before };
                    let name = Name::members(kind, family, &id, before);
                    let it = Change { set: change.set, kind, family, before, after, keys };
                    changes.exact.insert(name, it);
                }
            }
        }
        Some(changes)
    }

    /// Returns all sets that change.
    pub(super) fn sets(&self) -> BTreeSet<SetId> {
        self.exact.values().map(|it| it.set).chain(self.other_prefixes.iter().copied()).collect()
    }

    /// Moves those sets that must not change in place below a policy which makes these lookups, and which stays or does not.
    pub(super) fn settle(&mut self, lookups: &BTreeMap<Name, Lookups<Fields>>, is_kept: bool) {
        for family in Family::BOTH {
            let of_family = self.exact.iter_mut().filter(|it| it.1.family == family);
            let seen = of_family.filter_map(|(name, it)| Some((*lookups.get(name)?, it)));
            let (seen, changes): (Vec<_>, Vec<_>) =
                seen.map(|(lookups, it)| ((lookups, it.way()), it)).unzip();
            if !is_kept || Lookups::are_torn(&seen) {
                changes.into_iter().for_each(Change::relocate);
            }
        }
    }

    /// Returns the sets whose names change in the rules that refer to them.
    pub(super) fn elsewhere(&self) -> BTreeSet<SetId> {
        let moved = self.exact.values().filter(|it| it.is_moved()).map(|it| it.set);
        moved.chain(self.other_prefixes.iter().copied()).collect()
    }

    /// Returns where sets move to, by the stem of their names.
    pub(super) fn new_places(&self) -> impl Iterator<Item = (String, Place)> {
        let moved = self.exact.iter().filter(|it| it.1.is_moved());
        moved.filter_map(|(name, it)| Some((name.place()?.0.to_owned(), it.after)))
    }

    /// Returns the sets that change in place, each with the elements that go and those that come.
    pub(super) fn in_place(self) -> impl Iterator<Item = (Name, Set, Set)> {
        let stays = self.exact.into_iter().filter(|it| !it.1.is_moved());
        stays.map(|(name, it)| {
            let key = it.kind.key_type(it.family);
            let storage = Storage::hash(it.before.class);
            let set = |keys| Set { key, storage, elements: Elements::keys(keys) };
            (name, set(it.keys.removed), set(it.keys.added))
        })
    }
}

impl Change {
    fn is_moved(&self) -> bool {
        self.before != self.after
    }

    fn relocate(&mut self) {
        if !self.is_moved() {
            self.after = self.before.other();
        }
    }

    fn way(&self) -> Way {
        Way::of(&self.keys.added, &self.keys.removed)
    }
}

/// Returns what the keys of a set are, and how those of a family change.
fn keys(change: &MembersChange, set: &AddressSet, family: Family) -> (name::Members, Edit<Key>) {
    match set.definition.transport() {
        Some(transport) => {
            let protocol = transport.protocol().number();
            let key = |it: &(IpAddr, u16)| {
                (Family::of(it.0) == family).then(|| target_key(it.0, protocol, it.1))
            };
            (name::Members::NamedPorts, edit(&change.ports, key))
        }
        None => {
            let key = |it: &IpAddr| (Family::of(*it) == family).then(|| address_key(*it));
            (name::Members::Addresses, edit(&change.addresses, key))
        }
    }
}

fn edit<T>(edit: &Edit<T>, key: impl Fn(&T) -> Option<Key>) -> Edit<Key> {
    let keys = |of: &[T]| of.iter().filter_map(&key).collect();
    Edit { added: keys(&edit.added), removed: keys(&edit.removed) }
}

fn count(set: &AddressSet, family: Family) -> usize {
    match &set.members {
        Members::Addresses { exact, .. } => exact.len_of(family),
        Members::Ports(ports) => ports.iter().filter(|it| Family::of(it.0) == family).count(),
    }
}
