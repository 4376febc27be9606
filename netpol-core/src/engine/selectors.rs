//! An index of selectors: which of many select a view, without asking each of them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use super::labels::{LabelStore, Pair, Text};
use super::store::{Few, Finder, Id, Slab};
use super::views::{Time, View, Views};
use crate::model::keys;
use crate::selector::{Restriction, Selector};

/// One selector, and who uses it.
#[derive(Debug)]
pub(super) struct Entry<U> {
    selector: Selector,
    /// Where it is filed: under one of these each view that it can select is found.
    places: Box<[Place]>,
    users: Few<U>,
}

/// A fact about a view that selectors are filed under. Texts and labels in it are counted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Place {
    OwnLabel(Id<Pair>),
    OwnKey(Id<Text>),
    NamespaceName(Id<Text>),
    NamespaceLabel(Id<Pair>),
    NamespaceKey(Id<Text>),
    AccountName(Id<Text>),
    AccountLabel(Id<Pair>),
    AccountKey(Id<Text>),
    /// Every view.
    Anywhere,
}

/// The part of a view that a label key is about.
#[derive(Clone, Copy)]
enum Part {
    Own,
    Namespace,
    Account,
}

/// Selectors and their users, filed by what all that a selector selects has in common.
pub(super) struct SelectorIndex<U> {
    entries: Slab<Entry<U>>,
    by_selector: Finder<Entry<U>>,
    filed: BTreeMap<Place, Few<Id<Entry<U>>>>,
}

impl<U: Copy + Ord> SelectorIndex<U> {
    /// Adds a user of a selector.
    pub(super) fn insert(&mut self, selector: &Selector, user: U, labels: &mut LabelStore) {
        let hash = self.by_selector.hash(selector);
        let is_it = |id| self.entries[id].selector == *selector;
        if let Some(id) = self.by_selector.find(hash, is_it) {
            self.entries[id].users.insert(user);
            return;
        }
        let places = self.places(selector, labels);
        let entry = Entry {
            selector: selector.clone(),
            places: places.as_slice().into(),
            users: Few::One(user),
        };
        let id = self.entries.insert(entry);
        for place in places {
            self.filed.entry(place).or_insert(Few::None).insert(id);
        }
        let Self { entries, by_selector, .. } = self;
        let hasher = by_selector.hasher().clone();
        by_selector.insert(hash, id, |id| hasher.hash_one(&entries[id].selector));
    }

    /// Returns a stored selector that is equal, so that equal ones share their memory.
    pub(super) fn stored(&self, selector: &Selector) -> Option<Selector> {
        let hash = self.by_selector.hash(selector);
        let found = self.by_selector.find(hash, |id| self.entries[id].selector == *selector);
        found.map(|id| self.entries[id].selector.clone())
    }

    /// Removes a user of a selector.
    pub(super) fn remove(&mut self, selector: &Selector, user: U, labels: &mut LabelStore) {
        let hash = self.by_selector.hash(selector);
        let is_it = |id| self.entries[id].selector == *selector;
        let Some(id) = self.by_selector.find(hash, is_it) else { return };
        let entry = &mut self.entries[id];
        entry.users.remove(user);
        if !entry.users.is_empty() {
            return;
        }
        let Self { entries, by_selector, .. } = self;
        let hasher = by_selector.hasher().clone();
        by_selector.remove(hash, id, |id| hasher.hash_one(&entries[id].selector));
        for place in entries.remove(id).into_iter().flat_map(|entry| entry.places) {
            if let Some(ids) = self.filed.get_mut(&place) {
                ids.remove(id);
                if ids.is_empty() {
                    self.filed.remove(&place);
                }
            }
            drop_place(place, labels);
        }
    }

    /// Returns the users of all selectors that select a view, sorted.
    pub(super) fn users_selecting(&self, view: Id<View>, time: Time, views: &Views) -> Vec<U> {
        let seen = views.seen(view, time);
        let mut users = Vec::new();
        let mut ask = |place: Place| {
            for id in self.filed.get(&place).into_iter().flat_map(Few::iter) {
                let entry = &self.entries[id];
                if entry.selector.matches(&seen) {
                    users.extend(entry.users.iter());
                }
            }
        };
        if self.filed.is_empty() {
            return users;
        }
        let key = views.key(view);
        let [namespace, account] = views.names(key);
        let [of_namespace, of_account] = views.inherited(key, time);
        namespace.into_iter().for_each(|it| ask(Place::NamespaceName(it)));
        account.into_iter().for_each(|it| ask(Place::AccountName(it)));
        for (set, part) in [
            (Some(key.own), Part::Own),
            (of_namespace, Part::Namespace),
            (of_account, Part::Account),
        ] {
            for &pair in set.into_iter().flat_map(|it| views.labels.pairs(it)) {
                ask(part.label(pair));
                ask(part.key(views.labels.key_of(pair)));
            }
        }
        ask(Place::Anywhere);
        users.sort_unstable();
        users
    }

    /// Returns where to file a selector: where the fewest are, of all places that are possible.
    fn places(&self, selector: &Selector, labels: &mut LabelStore) -> Vec<Place> {
        let Some(restrictions) = selector.restrictions() else { return Vec::new() };
        let mut best: Option<(usize, Vec<Place>)> = None;
        for (key, restriction) in &restrictions {
            let places = places_by(key, restriction, labels);
            if places.is_empty() {
                continue;
            }
            let filed = |it: &Place| self.filed.get(it).map_or(0, Few::len) + 1;
            let size = places.iter().map(filed).sum();
            let worse = if best.as_ref().is_none_or(|(least, _)| size < *least) {
                best.replace((size, places)).map(|(_, places)| places)
            } else {
                Some(places)
            };
            worse.into_iter().flatten().for_each(|place| drop_place(place, labels));
        }
        best.map_or_else(|| [Place::Anywhere].into(), |(_, places)| places)
    }

    /// Returns how many selectors, places and users there are.
    pub(super) fn counts(&self) -> [usize; 3] {
        let users = self.entries.iter().map(|(_, entry)| entry.users.len()).sum();
        [self.entries.len(), self.filed.len(), users]
    }
}

impl<U> Default for SelectorIndex<U> {
    fn default() -> Self {
        Self { entries: Slab::default(), by_selector: Finder::default(), filed: BTreeMap::new() }
    }
}

impl Part {
    const fn label(self, pair: Id<Pair>) -> Place {
        match self {
            Self::Own => Place::OwnLabel(pair),
            Self::Namespace => Place::NamespaceLabel(pair),
            Self::Account => Place::AccountLabel(pair),
        }
    }

    const fn key(self, key: Id<Text>) -> Place {
        match self {
            Self::Own => Place::OwnKey(key),
            Self::Namespace => Place::NamespaceKey(key),
            Self::Account => Place::AccountKey(key),
        }
    }
}

/// Returns the places under which each view that meets a restriction is found, counted; none if it is of no help.
fn places_by(key: &str, restriction: &Restriction<'_>, labels: &mut LabelStore) -> Vec<Place> {
    let names = |place: fn(Id<Text>) -> Place, labels: &mut LabelStore| match restriction {
        Restriction::OneOf(names) => names.iter().map(|it| place(labels.text(it))).collect(),
        Restriction::Absent | Restriction::Present => Vec::new(),
    };
    let (part, key) = match key {
        keys::NAMESPACE => return names(Place::NamespaceName, labels),
        keys::SERVICE_ACCOUNT => return names(Place::AccountName, labels),
        // Nearly everything has the same.
        keys::ORCHESTRATOR => return Vec::new(),
        _ => match (
            key.strip_prefix(keys::NAMESPACE_PREFIX),
            key.strip_prefix(keys::SERVICE_ACCOUNT_PREFIX),
        ) {
            (Some(keys::NAME), _) => return names(Place::NamespaceName, labels),
            (_, Some(keys::NAME)) => return names(Place::AccountName, labels),
            (Some(rest), _) => (Part::Namespace, rest),
            (_, Some(rest)) => (Part::Account, rest),
            (None, None) => (Part::Own, key),
        },
    };
    match restriction {
        Restriction::Absent => Vec::new(),
        Restriction::Present => [part.key(labels.text(key))].into(),
        Restriction::OneOf(values) => {
            values.iter().map(|value| part.label(labels.pair(key, value))).collect()
        }
    }
}

fn drop_place(place: Place, labels: &mut LabelStore) {
    match place {
        Place::OwnLabel(it) | Place::NamespaceLabel(it) | Place::AccountLabel(it) => {
            labels.drop_pair(it);
        }
        Place::OwnKey(it)
        | Place::NamespaceKey(it)
        | Place::AccountKey(it)
        | Place::NamespaceName(it)
        | Place::AccountName(it) => labels.drop_text(it),
        Place::Anywhere => {}
    }
}
