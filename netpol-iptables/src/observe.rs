//! What the tools list, read back. Pure.
//!
//! A rule is known by its comment, the sets that it refers to and its target; what `iptables-save` prints of the rest is
//! not what was put in, and differs between versions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::name::Name;
use crate::probe::{KernelTable, TableId};
use crate::ruleset::{Chain, Key, Member, Rule, Shape};

mod record;
mod save;
mod sets;

pub(crate) use self::record::Record;
pub(crate) use self::save::{holds_chains_of, table};
pub(crate) use self::sets::sets;

/// What there is of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Observed {
    pub(crate) tables: BTreeMap<TableId, Table>,
    pub(crate) sets: BTreeMap<Name, ObservedSet>,
}

impl Observed {
    /// Returns the chain called `name`, if there is one.
    pub(crate) fn chain(&self, id: TableId, name: &Name) -> Option<&Listed> {
        self.tables.get(&id)?.chains.get(name)
    }

    /// Returns the sets that packets can meet.
    pub(crate) fn live_sets(&self) -> BTreeSet<&Name> {
        self.tables.values().flat_map(Table::live_sets).collect()
    }
}

/// What there is of ours in one table of one family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Table {
    pub(crate) name: KernelTable,
    pub(crate) chains: BTreeMap<Name, Listed>,
    /// Our jumps in the built-in chains: their positions, from 0, and where they lead.
    pub(crate) hooks: BTreeMap<String, Vec<(usize, Name)>>,
}

impl Table {
    /// Returns whether nothing of ours is in the table.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.hooks.is_empty()
    }

    /// Returns the chains that packets can meet.
    pub(crate) fn live_chains(&self) -> BTreeSet<&Name> {
        let entries = self.chains.iter().filter(|(_, chain)| !chain.entered_from.is_empty());
        self.reachable(entries.map(|(name, _)| name).collect())
    }

    fn live_sets(&self) -> Vec<&Name> {
        self.live_chains().into_iter().flat_map(|name| self.sets(name)).collect()
    }

    /// Returns the chains that these lead to, themselves included.
    pub(crate) fn reachable<'t>(&'t self, mut todo: Vec<&'t Name>) -> BTreeSet<&'t Name> {
        let mut reached = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if let Some((name, chain)) = self.chains.get_key_value(name)
                && reached.insert(name)
            {
                todo.extend(chain.rules.iter().filter_map(|rule| rule.target.as_ref()));
            }
        }
        reached
    }

    fn sets<'t>(&'t self, chain: &Name) -> impl Iterator<Item = &'t Name> + use<'t> {
        let rules = self.chains.get(chain).map(|chain| chain.rules.as_slice()).unwrap_or_default();
        rules.iter().flat_map(|rule| &rule.mark.sets)
    }

    /// Returns the rules of a list of endpoints, those of its parts included.
    pub(crate) fn listed<'t>(&'t self, root: &Name) -> Vec<&'t ListedRule> {
        let (mut rules, mut seen) = (Vec::new(), BTreeSet::new());
        let mut todo: Vec<&Listed> = self.chains.get(root).into_iter().collect();
        while let Some(chain) = todo.pop() {
            rules.extend(chain.rules.iter().filter(|rule| rule.key.is_some()));
            let parts = chain.rules.iter().filter(|rule| rule.key.is_none());
            let parts = parts.filter_map(|rule| rule.target.as_ref());
            let new: Vec<&Name> = parts.filter(|part| seen.insert(*part)).collect();
            todo.extend(new.into_iter().filter_map(|part| self.chains.get(part)));
        }
        rules
    }

    /// Returns the sets that the chain called `name` leads to.
    pub(crate) fn sets_below<'t>(&'t self, name: &'t Name) -> BTreeSet<&'t Name> {
        self.reachable(vec![name]).into_iter().flat_map(|chain| self.sets(chain)).collect()
    }

    /// Returns where a list leads the packets of each endpoint.
    pub(crate) fn dispatch<'t>(&'t self, root: &Name) -> BTreeMap<Key, &'t Name> {
        let rules = self.listed(root).into_iter();
        rules.filter_map(|rule| Some((rule.key?, rule.target.as_ref()?))).collect()
    }
}

/// A chain of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Listed {
    pub(crate) rules: Vec<ListedRule>,
    /// The built-in chains that jump here with our comment.
    pub(crate) entered_from: BTreeSet<String>,
}

impl Listed {
    /// Returns those of some rules that the chain does not have.
    pub(crate) fn missing<'r>(&self, rules: &'r [Rule]) -> Vec<&'r Rule> {
        let id = |mark: &Mark| (mark.comment.clone(), mark.target.clone());
        let known: BTreeSet<_> = self.rules.iter().map(|listed| id(&listed.mark)).collect();
        rules.iter().filter(|rule| !known.contains(&id(&Mark::of(rule)))).collect()
    }

    /// Returns whether the chain is the desired one.
    pub(crate) fn is(&self, desired: &Chain) -> bool {
        let marks = desired.rules.iter().map(Mark::of);
        marks.eq(self.rules.iter().map(|rule| rule.mark.clone()))
    }
}

/// A rule in a chain of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ListedRule {
    pub(crate) mark: Mark,
    /// The endpoint that the rule is about, if it is about one: by its interface if the rule has one.
    pub(crate) key: Option<Key>,
    /// The source address, if it must be a certain one.
    pub(crate) source: Option<IpAddr>,
    /// The chain of ours that the rule leads to.
    pub(crate) target: Option<Name>,
    /// How many packets met the rule.
    pub(crate) packets: u64,
    /// The rule as listed, without the name of its chain.
    pub(crate) text: String,
}

/// What a rule is known by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    pub(crate) comment: String,
    pub(crate) sets: Vec<Name>,
    /// The option and the name of the target.
    pub(crate) target: String,
}

impl Mark {
    /// Returns the mark of a rendered rule.
    pub(crate) fn of(rule: &Rule) -> Self {
        let target = rule.action.to_string();
        let mut words = target.split(' ');
        let target = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ");
        Self { comment: rule.comment.clone(), sets: rule.sets().cloned().collect(), target }
    }
}

/// A set of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ObservedSet {
    /// Its type; `None` if it is none of ours.
    pub(crate) shape: Option<Shape>,
    /// The most members that it takes.
    pub(crate) limit: usize,
    /// The members, sorted.
    pub(crate) members: Vec<Member>,
    /// Whether there are members that we cannot read.
    pub(crate) spoiled: bool,
}
