//! What the kernel lists, read back as a ruleset. Pure: it gets the messages of dumps.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::net::Family;

use crate::attribute::{attributes, find, find_text, find_u32, find_u64, text};
use crate::encode::{key_len, key_type_number};
use crate::expression::raise;
use crate::name::{Name, Owner, TABLE_MARK};
use crate::ruleset::{Base, Chain, Elements, Hook, KeyType, Ruleset, Set, Storage, Verdict};

mod elements;
mod expression;

use self::elements::Listed;

/// The state of our table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Observed {
    /// Whether somebody has put the table to sleep: packets meet nothing of it.
    pub(crate) dormant: bool,
    /// What is in the table, as far as it is ours and can be read.
    pub(crate) ruleset: Ruleset,
    /// Sets whose definition is none of ours, although their name is.
    pub(crate) unreadable: BTreeSet<Name>,
    /// Sets with elements that are none of ours.
    pub(crate) spoiled: BTreeSet<Name>,
    /// How many chains and sets in our table do not carry our prefix. They are left alone.
    pub(crate) foreign: usize,
    /// How many packets met the rules with a comment.
    pub(crate) packets: BTreeMap<String, u64>,
}

impl Observed {
    /// Returns whether both show the same objects; counters may differ.
    pub(crate) fn same_state(&self, other: &Self) -> bool {
        self.dormant == other.dormant
            && self.ruleset == other.ruleset
            && self.unreadable == other.unreadable
            && self.spoiled == other.spoiled
    }
}

/// Whose a table is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ownership {
    /// Our comment is on it.
    Ours {
        /// See [`Observed::dormant`].
        dormant: bool,
    },
    /// Somebody else made it.
    Foreign,
}

/// Returns whose the table of this `NFT_MSG_NEWTABLE` is. The message is what follows `struct nfgenmsg`.
pub(crate) fn ownership(message: &[u8]) -> Ownership {
    /// `NFTA_TABLE_FLAGS`, `NFTA_TABLE_USERDATA`
    const FLAGS: u16 = 2;
    const USERDATA: u16 = 6;
    /// `NFT_TABLE_F_DORMANT`
    const DORMANT: u32 = 0x1;
    let flags = find_u32(message, FLAGS).unwrap_or_default();
    match find(message, USERDATA).and_then(comment) {
        Some(text) if text.starts_with(TABLE_MARK) => {
            Ownership::Ours { dormant: flags & DORMANT != 0 }
        }
        _ => Ownership::Foreign,
    }
}

/// Collects the messages of dumps.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    owner: &'a Owner,
    observed: Observed,
    elements: BTreeMap<Name, Listed>,
}

impl<'a> Listing<'a> {
    /// Returns an empty listing of the table of `owner`.
    pub(crate) fn new(owner: &'a Owner) -> Self {
        Self { owner, observed: Observed::default(), elements: BTreeMap::new() }
    }

    /// Takes an `NFT_MSG_NEWCHAIN`.
    pub(crate) fn chain(&mut self, message: &[u8]) {
        /// `NFTA_CHAIN_NAME`
        const NAME: u16 = 3;
        let Some(name) = self.own_name(message, NAME) else { return };
        self.observed.ruleset.chains.insert(name, Chain { base: base(message), rules: Vec::new() });
    }

    /// Takes an `NFT_MSG_NEWSET`.
    pub(crate) fn set(&mut self, message: &[u8]) {
        /// `NFTA_SET_NAME`
        const NAME: u16 = 2;
        let Some(name) = self.own_name(message, NAME) else { return };
        match set(message) {
            Some(set) => drop(self.observed.ruleset.sets.insert(name, set)),
            None => drop(self.observed.unreadable.insert(name)),
        }
    }

    /// Takes an `NFT_MSG_NEWRULE`. Rules come in the order of their chain.
    pub(crate) fn rule(&mut self, message: &[u8]) {
        /// `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`, `NFTA_RULE_USERDATA`
        const ATTRIBUTES: [u16; 4] = [1, 2, 4, 7];
        let [table, chain, expressions, userdata] = ATTRIBUTES.map(|kind| find(message, kind));
        if table.and_then(text) != Some(self.owner.as_str()) {
            return;
        }
        let Some(chain) = chain
            .and_then(text)
            .and_then(|name| self.observed.ruleset.chains.get_mut(&Name::new(name)))
        else {
            return;
        };
        let comment = userdata.and_then(comment).unwrap_or_default().to_owned();
        let (expressions, packets) = expression::read(expressions.unwrap_or_default());
        if let Some(packets) = packets {
            let sum = self.observed.packets.entry(comment.clone()).or_default();
            *sum = sum.saturating_add(packets);
        }
        chain.rules.push(raise(&expressions, comment));
    }

    /// Takes an `NFT_MSG_NEWSETELEM`.
    pub(crate) fn elements(&mut self, message: &[u8]) {
        /// `NFTA_SET_ELEM_LIST_SET`, `NFTA_SET_ELEM_LIST_ELEMENTS`
        const ATTRIBUTES: [u16; 2] = [2, 3];
        let [name, list] = ATTRIBUTES.map(|kind| find(message, kind));
        let Some(name) = name.and_then(text).map(Name::new) else { return };
        let Some(set) = self.observed.ruleset.sets.get(&name) else { return };
        let listed = self.elements.entry(name).or_default();
        attributes(list.unwrap_or_default()).for_each(|(_, element)| listed.read(set, element));
    }

    /// Returns the names of the sets whose elements are wanted.
    pub(crate) fn sets(&self) -> Vec<Name> {
        self.observed.ruleset.sets.keys().cloned().collect()
    }

    /// Returns what was listed.
    pub(crate) fn finish(mut self) -> Observed {
        for (name, listed) in self.elements {
            if let Some(set) = self.observed.ruleset.sets.get_mut(&name) {
                let elements = listed.finish(set);
                if elements.is_none() {
                    self.observed.spoiled.insert(name);
                }
                set.elements = elements.unwrap_or_else(|| empty(&set.elements));
            }
        }
        self.observed
    }

    /// Returns the name of an object that is ours; the table is the first attribute of every kind of object.
    fn own_name(&mut self, message: &[u8], kind: u16) -> Option<Name> {
        if find_text(message, 1)? != self.owner.as_str() {
            return None;
        }
        let name = Name::new(find_text(message, kind)?);
        if !name.is_own() {
            self.observed.foreign += 1;
            return None;
        }
        Some(name)
    }
}

/// Returns no elements, of the same form.
fn empty(elements: &Elements) -> Elements {
    match elements {
        Elements::Keys(_) => Elements::Keys(Vec::new()),
        Elements::Ranges(_) => Elements::Ranges(Vec::new()),
        Elements::Verdicts(_) => Elements::Verdicts(BTreeMap::new()),
    }
}

fn base(message: &[u8]) -> Option<Base> {
    /// `NFTA_CHAIN_HOOK` with `NFTA_HOOK_HOOKNUM` and `NFTA_HOOK_PRIORITY`, `NFTA_CHAIN_POLICY`, `NFTA_CHAIN_TYPE`
    const HOOK: u16 = 4;
    const HOOKNUM: u16 = 1;
    const PRIORITY: u16 = 2;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    /// `NF_ACCEPT`
    const ACCEPT: u32 = 1;
    let hook = find(message, HOOK)?;
    let number = find_u32(hook, HOOKNUM)?;
    let as_ours =
        find_u32(message, POLICY) == Some(ACCEPT) && find_text(message, TYPE) == Some("filter");
    // Source: `enum nf_inet_hooks` in `include/uapi/linux/netfilter.h`.
    let hook_point = match number {
        0 if as_ours => Hook::Prerouting,
        1 if as_ours => Hook::Input,
        2 if as_ours => Hook::Forward,
        3 if as_ours => Hook::Output,
        4 if as_ours => Hook::Postrouting,
        number => Hook::Other(number),
    };
    Some(Base { hook: hook_point, priority: find_u32(hook, PRIORITY)?.cast_signed() })
}

/// Returns the set of a message, without elements, or `None` if it is not as we make them.
fn set(message: &[u8]) -> Option<Set> {
    /// `NFTA_SET_FLAGS`, `NFTA_SET_KEY_TYPE`, `NFTA_SET_KEY_LEN`, `NFTA_SET_DESC` with `NFTA_SET_DESC_SIZE`
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LEN: u16 = 5;
    const DESC: u16 = 9;
    const DESC_SIZE: u16 = 1;
    /// `NFT_SET_INTERVAL`, `NFT_SET_MAP`
    const INTERVAL: u32 = 0x4;
    const MAP: u32 = 0x8;
    let number = find_u32(message, KEY_TYPE)?;
    let key = KEY_TYPES.into_iter().find(|&key| key_type_number(key) == number)?;
    if find_u32(message, KEY_LEN) != Some(key_len(key)) {
        return None;
    }
    let size = find(message, DESC).and_then(|desc| find_u32(desc, DESC_SIZE)).unwrap_or_default();
    let (storage, elements) = match find_u32(message, FLAGS).unwrap_or_default() {
        0 => (Storage::Hash { size }, Elements::Keys(Vec::new())),
        MAP => (Storage::Hash { size }, Elements::Verdicts(BTreeMap::new())),
        INTERVAL => (Storage::Interval, Elements::Ranges(Vec::new())),
        _ => return None,
    };
    Some(Set { key, storage, elements })
}

/// Every type of key that we use.
const KEY_TYPES: [KeyType; 11] = [
    KeyType::Interface,
    KeyType::Interfaces,
    KeyType::Sender(Family::V4),
    KeyType::Sender(Family::V6),
    KeyType::Address(Family::V4),
    KeyType::Address(Family::V6),
    KeyType::Addresses(Family::V4),
    KeyType::Addresses(Family::V6),
    KeyType::Target(Family::V4),
    KeyType::Target(Family::V6),
    KeyType::Port,
];

/// Returns the verdict of `NFTA_VERDICT_CODE` and `NFTA_VERDICT_CHAIN`.
///
/// Source: `enum nft_verdicts` in `include/uapi/linux/netfilter/nf_tables.h`, and `NF_DROP`.
fn verdict(bytes: &[u8]) -> Option<Verdict> {
    let chain = || find_text(bytes, 2).map(Name::new);
    Some(match find_u32(bytes, 1)?.cast_signed() {
        0 => Verdict::Drop,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        code => Verdict::Other(code),
    })
}

/// Returns the comment in the user data of a table or rule: the part of type 0.
///
/// Source: `struct nftnl_udata` of libnftnl: type and length of one byte each.
fn comment(userdata: &[u8]) -> Option<&str> {
    let mut rest = userdata;
    loop {
        let (&[kind, len], after) = rest.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(usize::from(len))?;
        if kind == 0 {
            return text(value);
        }
        rest = after;
    }
}

/// Returns how many packets a counter has counted (`NFTA_COUNTER_PACKETS`).
fn counted(bytes: &[u8]) -> u64 {
    find_u64(bytes, 2).unwrap_or_default()
}

#[cfg(test)]
mod tests;
