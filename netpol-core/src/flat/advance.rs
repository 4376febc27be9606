//! Deltas: a flat form follows its program, and only what a delta names is made.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::plan::{Answers, SetPlan, unclassifiable, users};
use super::pool::id_of;
use super::regions::Regions;
use super::size::{Resource, check};
use super::{CapacityError, ClassId, Flat, Limits, Move, RowId, Table, TableKey, features, rows};
use crate::dataplane::Delta;
use crate::net::Family;
use crate::program::{PolicySet, PolicySetId};

/// Of classes, rows and so on there may be this many that nothing leads to, beside as many as there were at first.
const SPARE: usize = 4096;

/// What changed in a flat form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Changes {
    /// The single addresses that went to another class.
    pub moves: Vec<Move>,
    /// The rows of new classes in the tables that were there, those included that are gone now: who moves addresses before
    /// endpoints leave a table needs them.
    pub entries: Vec<(TableKey, ClassId, RowId)>,
    /// The tables that are new.
    pub new_tables: Vec<TableKey>,
    /// The tables that are gone, as they were, with the rows of new classes.
    pub removed_tables: Vec<(TableKey, Table)>,
}

impl Flat {
    /// Makes this, the flat form of the program before a delta, the one of the delta's program, and returns what changed. What
    /// has an id keeps it, and rows are never changed. `None` if everything has to be made anew by [`classify`]; this is the
    /// flat form of neither program then.
    ///
    /// It says the same as a new one would ([`Self::differences`]), but what nothing leads to any more may stay for a while.
    /// Cost: an address that joins or leaves a set goes to the class of its new answers. If there is none, the new class gets
    /// a row in each table, of which only those are made whose answers are new. A policy set that is new gets its table.
    ///
    /// Everything is made anew where prefixes come or go, frontends or what they lead to changes, a set of named ports gets a port that it never had, a rule asks for
    /// the endpoint's own address, or where much is left that nothing leads to. So it is near the limits, which are
    /// checked here as [`size_bound`](super::size_bound) has them.
    ///
    /// [`classify`]: super::classify
    #[must_use = "without changes this is worth nothing"]
    pub fn advance(&mut self, delta: &Delta, limits: &Limits) -> Option<Changes> {
        if !self.unclassified.is_empty() || self.tables.values().any(|table| table.is_local) {
            return None;
        }
        let mut answers = self.features.changed(delta)?;
        let (questions, classes) = (self.features.len(), self.regions.classes().len());
        let (mut changes, plans, gone) = self.plans(delta)?;
        let program = &*delta.program;
        if program.frontends != self.frontends
            || !self.features.blocks(program, questions).is_empty()
        {
            return None;
        }
        let singles = self.features.singles(program, questions);
        answers.extend(singles.into_iter().map(|(address, feature)| (address, feature, true)));
        if answers.iter().any(|(address, ..)| self.frontends.concern(*address)) {
            return None;
        }
        let asked = self.features.len();
        changes.moves = self.regions.change(answers, &self.features);
        changes.entries = self.add_classes(delta, classes, limits)?;
        if self.features.len() > asked {
            // A rule that was there asks for a set that was not.
            return None;
        }
        self.add_tables(plans, limits)?;
        let gone = gone.into_iter().filter_map(|key| self.tables.remove_entry(&key));
        changes.removed_tables = gone.collect();
        for (id, set) in &delta.removed_sets {
            self.left_over += features::len_of(set);
            self.features.forget(*id);
        }
        self.fits(&changes, limits).then_some(changes)
    }

    /// Returns how much there is of what a delta may leave behind.
    pub(super) fn weight(&self) -> usize {
        self.regions.classes().len() + self.pool.weight()
    }

    /// Returns which tables come, their plans, and which go.
    fn plans<'d>(
        &mut self,
        delta: &'d Delta,
    ) -> Option<(Changes, Vec<SetPlan<'d>>, Vec<TableKey>)> {
        let (mut changes, mut plans) = (Changes::default(), Vec::new());
        if delta.endpoints.is_empty() && delta.removed_endpoints.is_empty() {
            return Some((changes, plans, Vec::new()));
        }
        let users = users(&delta.program);
        let is_gone = |key: &&TableKey| !users.contains_key(*key);
        let gone = self.tables.keys().filter(is_gone).copied().collect();
        for (key, users) in users {
            if self.tables.contains_key(&key) {
                continue;
            }
            let set = delta.program.policy_sets.get(&key.policy_set)?;
            if unclassifiable(&delta.program, set, key.direction, &users).is_some() {
                return None;
            }
            let Self { features, pool, .. } = self;
            plans.push(SetPlan::of(&delta.program, key, set, &users, features, pool));
            changes.new_tables.push(key);
        }
        plans.iter().all(|plan| !plan.is_local).then_some((changes, plans, gone))
    }

    /// Gives classes from this one on a row in each table.
    fn add_classes(
        &mut self,
        delta: &Delta,
        first: usize,
        limits: &Limits,
    ) -> Option<Vec<(TableKey, ClassId, RowId)>> {
        let Self { features, regions, tables, pool, .. } = self;
        let mut entries = Vec::new();
        for (key, table) in tables {
            let mut plan = None;
            let others = Family::BOTH.map(|it| table.answers(regions, regions.other(it)));
            for id in (first..regions.classes().len()).map(|it| ClassId(id_of(it))) {
                let answers = table.answers(regions, id)?;
                let family = answers.0;
                table.told_apart += usize::from(!others.contains(&Some(answers.clone())));
                let row = if let Some(row) = table.known.get(&answers) {
                    *row
                } else {
                    let set = policy_set(delta, key.policy_set)?;
                    let plan = plan.get_or_insert_with(|| {
                        SetPlan::of(&delta.program, *key, set, &[], features, pool)
                    });
                    let row = rows::row(plan, &answers, pool, limits).ok()?;
                    table.known.insert(answers, row);
                    row
                };
                if row != table.other(family) {
                    table.entries.push((id, row));
                    entries.push((*key, id, row));
                }
            }
        }
        Some(entries)
    }

    fn add_tables(&mut self, plans: Vec<SetPlan<'_>>, limits: &Limits) -> Option<()> {
        for mut plan in plans {
            plan.tell_apart(&self.regions);
            plan.check(limits).ok()?;
            let table = rows::table(&plan, &self.regions, &mut self.pool, limits).ok()?;
            self.tables.insert(plan.key, table);
        }
        Some(())
    }

    /// Returns whether this is within the limits, and has not much that nothing leads to.
    fn fits(&self, changes: &Changes, limits: &Limits) -> bool {
        // More than are of any family.
        let addresses = self.regions.addresses().len();
        let has_grown = !(changes.entries.is_empty() && changes.new_tables.is_empty());
        check(Resource::Addresses(Family::V4), None, addresses, limits.addresses).is_ok()
            && (!has_grown || self.check_entries(limits).is_ok())
            && self.weight() <= 2 * self.built + SPARE
            && self.left_over <= addresses / 2 + SPARE
    }

    fn check_entries(&self, limits: &Limits) -> Result<(), CapacityError> {
        let mut total = 0;
        for (key, table) in &self.tables {
            let bound = table.told_apart + table.others.len();
            let resource = Resource::EntriesOfPolicySet;
            check(resource, Some(*key), bound, limits.entries_per_policy_set)?;
            total += bound;
        }
        check(Resource::Entries, None, total, limits.entries)
    }
}

impl Table {
    /// Returns what a class answers to the questions of the policy set.
    fn answers(&self, regions: &Regions, class: ClassId) -> Option<Answers> {
        let class = regions.class(class)?;
        let is_asked = |feature: &&u32| self.questions.binary_search(feature).is_ok();
        Some((class.family, class.features.iter().filter(is_asked).copied().collect()))
    }
}

/// Returns a policy set of the program before or after a delta.
fn policy_set(delta: &Delta, id: PolicySetId) -> Option<&Arc<PolicySet>> {
    let removed = || delta.removed_policy_sets.iter().find(|(it, _)| *it == id);
    delta.program.policy_sets.get(&id).or_else(|| removed().map(|(_, set)| set))
}
