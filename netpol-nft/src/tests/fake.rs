//! A kernel in memory, as unkind as the real one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use netpol_core::Program;
use netpol_netfilter::Grace;
use nftnl_sys::libc;

use crate::encode::{Batch, Fit};
use crate::error::NftError;
use crate::name::{Name, Owner};
use crate::observe::Observed;
use crate::operation::{Content, MAX_ELEMENTS, Operation};
use crate::ruleset::{Chain, Elements, Key, Match, Rule, Ruleset, Set, Storage};
use crate::transport::{Depth, Kernel, Refusal};

/// A handle on a fake kernel; clones are the same kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    table: Option<Ruleset>,
    /// The state after each transaction.
    history: Vec<Ruleset>,
    /// Most operations of a transaction.
    limit: Option<usize>,
    /// The transactions from now on that fail, by number, and how.
    faults: Vec<(usize, i32)>,
    /// Objects that nothing may be done with, and how that fails.
    refused: Vec<(Name, i32)>,
    transactions: usize,
    /// The chains that packets may meet which came since packets were waited for.
    met: BTreeSet<Name>,
    /// How often the table was read.
    observations: usize,
    /// How many bytes the transactions would have had on their way to the real kernel.
    bytes: usize,
    /// The addresses whose flows were forgotten, in order.
    forgotten: Vec<IpAddr>,
    /// How forgetting flows fails, if it does.
    flows_fault: Option<i32>,
}

impl Fake {
    /// Makes transactions larger than this impossible.
    pub(crate) fn limit(&self, operations: usize) {
        self.0.lock().unwrap().limit = Some(operations);
    }

    /// Lets the `nth` transaction from now on fail at its last operation.
    pub(crate) fn fail(&self, nth: usize, errno: i32) {
        let mut state = self.0.lock().unwrap();
        let number = state.transactions + nth;
        state.faults.push((number, errno));
    }

    /// Lets no transaction fail any more.
    pub(crate) fn take_faults(&self) {
        self.0.lock().unwrap().faults.clear();
    }

    /// Lets every operation on an object fail, or none any more.
    pub(crate) fn refuse(&self, object: Option<(Name, i32)>) {
        self.0.lock().unwrap().refused = object.into_iter().collect();
    }

    /// Lets forgetting flows fail, or work again.
    pub(crate) fn fail_flows(&self, errno: Option<i32>) {
        self.0.lock().unwrap().flows_fault = errno;
    }

    /// Returns the addresses whose flows were forgotten since the last call.
    pub(crate) fn take_forgotten(&self) -> Vec<IpAddr> {
        std::mem::take(&mut self.0.lock().unwrap().forgotten)
    }

    /// Returns how often the table was read since the last call.
    pub(crate) fn take_observations(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().observations)
    }

    /// Returns how many bytes were sent since the last call.
    pub(crate) fn take_bytes(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().bytes)
    }

    pub(crate) fn table(&self) -> Option<Ruleset> {
        self.0.lock().unwrap().table.clone()
    }

    /// Changes the table behind the back of everybody.
    pub(crate) fn set_table(&self, table: Ruleset) {
        self.0.lock().unwrap().table = Some(table);
    }

    /// Returns the states after each transaction since the last call.
    pub(crate) fn take_history(&self) -> Vec<Ruleset> {
        std::mem::take(&mut self.0.lock().unwrap().history)
    }
}

impl Kernel for Fake {
    fn commit_front(&mut self, operations: &[Operation]) -> Result<usize, Refusal> {
        let mut state = self.0.lock().unwrap();
        let count = state.limit.unwrap_or(usize::MAX).min(operations.len());
        state.transaction(&operations[..count])?;
        Ok(count)
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<(), Refusal> {
        let mut state = self.0.lock().unwrap();
        match state.limit {
            Some(limit) if operations.len() > limit => Err(Refusal::TooLarge { limit }),
            _ => state.transaction(operations),
        }
    }

    fn packets(&mut self) -> Grace {
        let mut state = self.0.lock().unwrap();
        let live = state.table.iter().flat_map(|it| it.live().into_iter().cloned());
        state.met = live.collect();
        Grace::over()
    }

    fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<u64, NftError> {
        let mut state = self.0.lock().unwrap();
        if let Some(errno) = state.flows_fault {
            return Err(NftError::Conntrack { source: io::Error::from_raw_os_error(errno) });
        }
        state.forgotten.extend(addresses);
        Ok(addresses.len() as u64)
    }

    fn reevaluate_flows(&mut self, _: &Program) -> Result<u64, NftError> {
        Ok(0)
    }

    fn observe(&mut self, _: Depth) -> Result<Option<Observed>, NftError> {
        self.0.lock().unwrap().observations += 1;
        Ok(self.table().map(|mut ruleset| {
            ruleset.chains.retain(|name, _| name.is_own());
            ruleset.sets.retain(|name, _| name.is_own());
            Observed { ruleset, ..Observed::default() }
        }))
    }
}

impl State {
    fn transaction(&mut self, operations: &[Operation]) -> Result<(), Refusal> {
        if operations.is_empty() {
            return Ok(());
        }
        let number = self.transactions;
        self.transactions += 1;
        let mut batch = Batch::new(&Owner::default());
        assert!(operations.iter().all(|it| batch.try_push(it, usize::MAX) == Fit::Fits));
        self.bytes += batch.finish().len();
        let refuse = |index, errno| {
            Err(Refusal::Operation {
                index,
                source: io::Error::from_raw_os_error(errno),
                reason: None,
            })
        };
        if let Some(&(_, errno)) = self.faults.iter().find(|(nth, _)| *nth == number) {
            return refuse(operations.len() - 1, errno);
        }
        let mut next = self.table.clone();
        let mut filled = BTreeSet::new();
        for (index, operation) in operations.iter().enumerate() {
            if let Some((_, errno)) =
                self.refused.iter().find(|(name, _)| operation.object() == Some(name))
            {
                return refuse(index, *errno);
            }
            if let Err(errno) = run(&mut next, operation, &mut filled) {
                return refuse(index, errno);
            }
        }
        // The real kernel takes this, and shows packets a set without the new elements for a moment.
        let live = next.as_ref().map(Ruleset::live).unwrap_or_default();
        let unsafe_sets: Vec<&Name> = filled.iter().filter(|name| live.contains(name)).collect();
        assert!(
            unsafe_sets.is_empty(),
            "{unsafe_sets:?} are filled in the transaction that puts them in force"
        );
        if let (Some(before), Some(after)) = (&self.table, &next) {
            let is_gone = |name: &&Name| {
                before.chains.contains_key(*name) && !after.chains.contains_key(*name)
            };
            // Where a whole hook goes, nothing is judged any more.
            let bases = before.chains.iter().filter(|it| it.1.base.is_some()).map(|it| it.0);
            let hooks = before.below(bases.filter(is_gone).collect());
            let gone = self.met.iter().filter(is_gone).filter(|it| !hooks.contains(it));
            let gone: Vec<&Name> = gone.collect();
            assert!(gone.is_empty(), "{gone:?} are removed while packets may meet them");
        }
        self.met.extend(live.into_iter().cloned());
        self.table = next;
        self.history.extend(self.table.clone());
        Ok(())
    }
}

/// Runs one operation. `filled` are the interval sets that the transaction gave elements to.
fn run(
    table: &mut Option<Ruleset>,
    operation: &Operation,
    filled: &mut BTreeSet<Name>,
) -> Result<(), i32> {
    if let Operation::AddTable = operation {
        table.get_or_insert_default();
        return Ok(());
    }
    let ruleset = table.as_mut().ok_or(libc::ENOENT)?;
    match operation {
        Operation::AddTable => {}
        Operation::DeleteTable => *table = None,
        Operation::AddChain { name, base } => {
            let chain = Chain { base: *base, rules: Vec::new() };
            absent(ruleset.chains.insert(name.clone(), chain))?;
        }
        Operation::FlushChain { name } => {
            ruleset.chains.get_mut(name).ok_or(libc::ENOENT)?.rules.clear()
        }
        Operation::DeleteChain { name } => {
            unused(ruleset, name)?;
            let chain = ruleset.chains.remove(name).ok_or(libc::ENOENT)?;
            chain.rules.is_empty().then_some(()).ok_or(libc::EBUSY)?;
        }
        Operation::AddRule { chain, rule } => add_rule(ruleset, chain, rule)?,
        Operation::AddSet { name, key, storage, content } => {
            let elements = match (content, storage) {
                (Content::Verdicts, _) => Elements::Verdicts(Default::default()),
                (Content::Keys, Storage::Interval) => Elements::Ranges(Vec::new()),
                (Content::Keys, Storage::Hash { .. }) => Elements::Keys(Vec::new()),
            };
            absent(
                ruleset.sets.insert(name.clone(), Set { key: *key, storage: *storage, elements }),
            )?;
        }
        Operation::FlushSet { name } => {
            let set = ruleset.sets.get_mut(name).ok_or(libc::ENOENT)?;
            match &mut set.elements {
                Elements::Keys(keys) => keys.clear(),
                Elements::Ranges(ranges) => ranges.clear(),
                Elements::Verdicts(entries) => entries.clear(),
            }
        }
        Operation::DeleteSet { name } => {
            unused(ruleset, name)?;
            ruleset.sets.remove(name).ok_or(libc::ENOENT)?;
        }
        Operation::AddElements { set, elements, .. } => {
            add_elements(ruleset, set, elements)?;
            if let Elements::Ranges(_) = elements {
                filled.insert(set.clone());
            }
        }
        Operation::DeleteElements { set, elements, .. } => delete_elements(ruleset, set, elements)?,
    }
    Ok(())
}

fn absent<T>(previous: Option<T>) -> Result<(), i32> {
    previous.map_or(Ok(()), |_| Err(libc::EEXIST))
}

fn unused(ruleset: &Ruleset, name: &Name) -> Result<(), i32> {
    let names = ruleset.chains.keys().chain(ruleset.sets.keys());
    let used = names.filter(|it| *it != name).any(|it| ruleset.references(it).contains(&name));
    if used { Err(libc::EBUSY) } else { Ok(()) }
}

fn add_rule(ruleset: &mut Ruleset, chain: &Name, rule: &Rule) -> Result<(), i32> {
    let with_rule = Ruleset {
        chains: [(chain.clone(), Chain { base: None, rules: vec![rule.clone()] })].into(),
        ..Ruleset::default()
    };
    for name in with_rule.references(chain) {
        if !ruleset.chains.contains_key(name) && !ruleset.sets.contains_key(name) {
            return Err(libc::ENOENT);
        }
    }
    assert!(!rule.matches.contains(&Match::Unknown), "{rule}");
    ruleset.chains.get_mut(chain).ok_or(libc::ENOENT)?.rules.push(rule.clone());
    Ok(())
}

fn add_elements(ruleset: &mut Ruleset, name: &Name, new: &Elements) -> Result<(), i32> {
    if new.len() > MAX_ELEMENTS || new.is_empty() {
        return Err(libc::EMSGSIZE);
    }
    if let Elements::Verdicts(entries) = new {
        let dangling = |target: &Name| !ruleset.chains.contains_key(target);
        if entries.values().filter_map(|verdict| verdict.target()).any(dangling) {
            return Err(libc::ENOENT);
        }
    }
    let set = ruleset.sets.get_mut(name).ok_or(libc::ENOENT)?;
    match (&mut set.elements, new) {
        (Elements::Keys(have), Elements::Keys(new)) => {
            have.extend(new);
            have.sort_unstable();
            have.dedup();
        }
        (Elements::Ranges(have), Elements::Ranges(new)) => {
            for range in new {
                let overlaps = |it: &&(Key, Key)| it.0 <= range.1 && range.0 <= it.1;
                match have.iter().find(overlaps) {
                    Some(it) if it != range => return Err(libc::EEXIST),
                    Some(_) => {}
                    None => have.push(*range),
                }
            }
            have.sort_unstable();
        }
        (Elements::Verdicts(have), Elements::Verdicts(new)) => {
            for (key, verdict) in new {
                if have.insert(*key, verdict.clone()).is_some_and(|old| old != *verdict) {
                    return Err(libc::EEXIST);
                }
            }
        }
        _ => return Err(libc::EINVAL),
    }
    match set.storage {
        Storage::Hash { size } if size != 0 && set.elements.len() > size as usize => {
            Err(libc::ENFILE)
        }
        _ => Ok(()),
    }
}

fn delete_elements(ruleset: &mut Ruleset, name: &Name, old: &Elements) -> Result<(), i32> {
    let set = ruleset.sets.get_mut(name).ok_or(libc::ENOENT)?;
    let before = set.elements.len();
    match (&mut set.elements, old) {
        (Elements::Keys(have), Elements::Keys(old)) => have.retain(|key| !old.contains(key)),
        (Elements::Ranges(have), Elements::Ranges(old)) => {
            have.retain(|range| !old.contains(range))
        }
        (Elements::Verdicts(have), Elements::Verdicts(old)) => {
            have.retain(|key, _| !old.contains_key(key))
        }
        _ => return Err(libc::EINVAL),
    }
    if set.elements.len() + old.len() == before { Ok(()) } else { Err(libc::ENOENT) }
}
