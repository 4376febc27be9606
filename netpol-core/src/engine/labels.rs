//! Texts, labels and sets of labels, each stored once and counted.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash, Hasher};

use super::store::{Finder, Id, Relation, Slab};
use crate::labels::Labels;

/// A text that several records share.
#[derive(Debug)]
pub(super) struct Text {
    text: Box<str>,
    uses: u32,
}

/// One label: a key with a value.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Id<Text>,
    pub(super) value: Id<Text>,
    uses: u32,
}

/// The labels of one object, and of all others that have the same.
#[derive(Debug)]
pub(super) struct LabelSet {
    /// In the order of the keys' texts.
    pub(super) pairs: Box<[Id<Pair>]>,
    uses: u32,
}

/// All texts and labels that anything refers to.
#[derive(Default)]
pub(super) struct LabelStore {
    texts: Slab<Text>,
    texts_by_content: Finder<Text>,
    pairs: Slab<Pair>,
    pairs_by_content: Finder<Pair>,
    pairs_by_key: Relation<Text, Pair>,
    sets: Slab<LabelSet>,
    sets_by_content: Finder<LabelSet>,
    sets_by_pair: Relation<Pair, LabelSet>,
}

impl LabelStore {
    /// Returns a text, counted.
    pub(super) fn text(&mut self, text: &str) -> Id<Text> {
        let hash = self.texts_by_content.hash(&text);
        if let Some(id) = self.texts_by_content.find(hash, |id| &*self.texts[id].text == text) {
            self.texts[id].uses += 1;
            return id;
        }
        let id = self.texts.insert(Text { text: text.into(), uses: 1 });
        let Self { texts, texts_by_content, .. } = self;
        let hasher = texts_by_content.hasher().clone();
        texts_by_content.insert(hash, id, |id| hasher.hash_one(&*texts[id].text));
        id
    }

    /// Returns a text that is stored, without counting it.
    pub(super) fn find_text(&self, text: &str) -> Option<Id<Text>> {
        let hash = self.texts_by_content.hash(&text);
        self.texts_by_content.find(hash, |id| &*self.texts[id].text == text)
    }

    /// Returns what a text says.
    pub(super) fn str(&self, id: Id<Text>) -> &str {
        &self.texts[id].text
    }

    pub(super) fn drop_text(&mut self, id: Id<Text>) {
        let text = &mut self.texts[id];
        text.uses -= 1;
        if text.uses > 0 {
            return;
        }
        let Self { texts, texts_by_content, .. } = self;
        let hasher = texts_by_content.hasher().clone();
        let rehash = |id| hasher.hash_one(&*texts[id].text);
        texts_by_content.remove(rehash(id), id, rehash);
        texts.remove(id);
    }

    /// Returns a label, counted.
    pub(super) fn pair(&mut self, key: &str, value: &str) -> Id<Pair> {
        let (key, value) = (self.text(key), self.text(value));
        let hash = self.pairs_by_content.hash(&(key, value));
        let is_it = |id| {
            let pair: &Pair = &self.pairs[id];
            pair.key == key && pair.value == value
        };
        if let Some(id) = self.pairs_by_content.find(hash, is_it) {
            self.pairs[id].uses += 1;
            self.drop_text(key);
            self.drop_text(value);
            return id;
        }
        let id = self.pairs.insert(Pair { key, value, uses: 1 });
        self.pairs_by_key.insert(key, id);
        let Self { pairs, pairs_by_content, .. } = self;
        let hasher = pairs_by_content.hasher().clone();
        let rehash = |id| {
            let pair: &Pair = &pairs[id];
            hasher.hash_one((pair.key, pair.value))
        };
        pairs_by_content.insert(hash, id, rehash);
        id
    }

    /// Returns a label that is stored, without counting it.
    pub(super) fn find_pair(&self, key: &str, value: &str) -> Option<Id<Pair>> {
        let (key, value) = (self.find_text(key)?, self.find_text(value)?);
        let hash = self.pairs_by_content.hash(&(key, value));
        self.pairs_by_content.find(hash, |id| {
            let pair = &self.pairs[id];
            pair.key == key && pair.value == value
        })
    }

    /// Returns the key of a label.
    pub(super) fn key_of(&self, id: Id<Pair>) -> Id<Text> {
        self.pairs[id].key
    }

    pub(super) fn drop_pair(&mut self, id: Id<Pair>) {
        let pair = &mut self.pairs[id];
        pair.uses -= 1;
        if pair.uses > 0 {
            return;
        }
        let (key, value) = (pair.key, pair.value);
        let Self { pairs, pairs_by_content, .. } = self;
        let hasher = pairs_by_content.hasher().clone();
        let rehash = |id| {
            let pair: &Pair = &pairs[id];
            hasher.hash_one((pair.key, pair.value))
        };
        pairs_by_content.remove(rehash(id), id, rehash);
        pairs.remove(id);
        self.pairs_by_key.remove(key, id);
        self.drop_text(key);
        self.drop_text(value);
    }

    /// Returns a set of labels, counted.
    pub(super) fn set(&mut self, labels: &Labels) -> Id<LabelSet> {
        let hash = hash_labels(self.sets_by_content.hasher(), labels.iter());
        let is_it = |id| self.labels(id).eq(labels.iter());
        if let Some(id) = self.sets_by_content.find(hash, is_it) {
            return self.keep_set(id);
        }
        let pairs: Vec<_> = labels.iter().map(|(key, value)| self.pair(key, value)).collect();
        let id = self.sets.insert(LabelSet { pairs: pairs.into(), uses: 1 });
        for &pair in &self.sets[id].pairs {
            self.sets_by_pair.insert(pair, id);
        }
        let Self { sets, sets_by_content, pairs, texts, .. } = self;
        let hasher = sets_by_content.hasher().clone();
        let rehash = |id| hash_labels(&hasher, labels_of(id, sets, pairs, texts));
        sets_by_content.insert(hash, id, rehash);
        id
    }

    pub(super) fn keep_set(&mut self, id: Id<LabelSet>) -> Id<LabelSet> {
        self.sets[id].uses += 1;
        id
    }

    pub(super) fn drop_set(&mut self, id: Id<LabelSet>) {
        let set = &mut self.sets[id];
        set.uses -= 1;
        if set.uses > 0 {
            return;
        }
        let Self { sets, sets_by_content, pairs, texts, .. } = self;
        let hasher = sets_by_content.hasher().clone();
        let rehash = |id| hash_labels(&hasher, labels_of(id, sets, pairs, texts));
        sets_by_content.remove(rehash(id), id, rehash);
        let removed = self.sets.remove(id);
        for &pair in removed.iter().flat_map(|set| &set.pairs) {
            self.sets_by_pair.remove(pair, id);
            self.drop_pair(pair);
        }
    }

    /// Returns the labels of a set, in the order of their keys.
    pub(super) fn pairs(&self, id: Id<LabelSet>) -> &[Id<Pair>] {
        &self.sets[id].pairs
    }

    /// Returns keys and values of a set, in the order of the keys.
    pub(super) fn labels(&self, id: Id<LabelSet>) -> impl Iterator<Item = (&str, &str)> {
        labels_of(id, &self.sets, &self.pairs, &self.texts)
    }

    /// Returns the value that a set gives to a key.
    pub(super) fn value(&self, id: Id<LabelSet>, key: &str) -> Option<&str> {
        self.labels(id).find(|(it, _)| *it == key).map(|(_, value)| value)
    }

    /// Returns the sets with a label.
    pub(super) fn sets_with(&self, pair: Id<Pair>) -> impl Iterator<Item = Id<LabelSet>> + '_ {
        self.sets_by_pair.of(pair)
    }

    /// Returns the sets with a key, whatever its value.
    pub(super) fn sets_with_key(&self, key: Id<Text>) -> impl Iterator<Item = Id<LabelSet>> + '_ {
        self.pairs_by_key.of(key).flat_map(|pair| self.sets_by_pair.of(pair))
    }

    /// Returns how many texts, labels and sets there are.
    pub(super) fn counts(&self) -> [usize; 5] {
        let relations = [self.pairs_by_key.len(), self.sets_by_pair.len()];
        [self.texts.len(), self.pairs.len(), self.sets.len(), relations[0], relations[1]]
    }
}

fn labels_of<'a>(
    id: Id<LabelSet>,
    sets: &'a Slab<LabelSet>,
    pairs: &'a Slab<Pair>,
    texts: &'a Slab<Text>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    sets[id].pairs.iter().map(|&pair| {
        let pair = &pairs[pair];
        (&*texts[pair.key].text, &*texts[pair.value].text)
    })
}

fn hash_labels<'a>(
    hasher: &impl BuildHasher,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> u64 {
    let mut state = hasher.build_hasher();
    labels.for_each(|label| label.hash(&mut state));
    state.finish()
}
