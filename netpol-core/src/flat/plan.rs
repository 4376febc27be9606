//! What the tables of a program are made from: rules in terms of features, and the classes that each table tells apart.

mod local;
mod rule;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use self::local::unclassifiable;
pub(super) use self::rule::{Cover, RulePlan};
use super::features::{FeatureId, Features};
use super::pool::{Numbered, index};
use super::regions::{ClassId, Regions};
use super::size::{CapacityError, Limits, Resource, SizeBound, by_family, check};
use super::{TableKey, Unclassified};
use crate::flow::Direction;
use crate::net::Family;
use crate::program::{Endpoint, Program, Stage};
use crate::verdict::Verdict;

/// All that is known before a row is made.
#[derive(Debug)]
pub(super) struct Plan<'p> {
    pub(super) features: Features<'p>,
    pub(super) regions: Regions,
    pub(super) sets: Vec<SetPlan<'p>>,
    pub(super) unclassified: BTreeMap<TableKey, Unclassified>,
}

/// A policy set, to be made into a table.
#[derive(Debug)]
pub(super) struct SetPlan<'p> {
    pub(super) key: TableKey,
    pub(super) stages: Vec<StagePlan<'p>>,
    pub(super) default: Verdict,
    /// The different answers that addresses give to the questions of this policy set.
    pub(super) answers: Vec<Answers>,
    /// The answers of the classes `other`, IPv4 and IPv6, by number.
    pub(super) others: [u32; 2],
    /// The classes that answer otherwise, sorted, and the number of their answers.
    pub(super) classes: Vec<(ClassId, u32)>,
    /// The classes of frontends, sorted.
    pub(super) served: Vec<ClassId>,
}

/// A stage, with those of its rules that can match something.
#[derive(Debug)]
pub(super) struct StagePlan<'p> {
    pub(super) stage: &'p Stage,
    pub(super) rules: Vec<RulePlan<'p>>,
}

/// A family, and the questions to which addresses of it answer yes, sorted.
pub(super) type Answers = (Family, Vec<FeatureId>);

impl<'p> Plan<'p> {
    pub(super) fn of(program: &'p Program) -> Self {
        let mut features = Features::new(program);
        let (mut sets, mut unclassified) = (Vec::new(), BTreeMap::new());
        for (key, users) in users(program) {
            let Some(set) = program.policy_sets.get(&key.policy_set) else { continue };
            if let Some(reason) = unclassifiable(program, set, key.direction, &users) {
                unclassified.insert(key, reason);
                continue;
            }
            let mut stage = |stage: &'p Stage| {
                let rules = stage.rules.iter().filter_map(|rule| {
                    let families = local::families(program, rule, &users);
                    RulePlan::of(rule, families, &mut features)
                });
                StagePlan { stage, rules: rules.collect() }
            };
            let stages = set.stages.iter().map(&mut stage).collect();
            let (answers, others, classes) = (Vec::new(), [0, 0], Vec::new());
            let (default, served) = (set.default, Vec::new());
            sets.push(SetPlan { key, stages, default, answers, others, classes, served });
        }
        let mut regions = Regions::of(&features);
        let holders = holders(&features, &regions);
        sets.iter_mut().for_each(|set| set.tell_apart(&regions, &holders));
        regions.serve(&program.frontends);
        sets.iter_mut().for_each(|set| set.serve(&regions));
        Self { features, regions, sets, unclassified }
    }

    pub(super) fn bound(&self) -> SizeBound {
        let addresses = self.regions.addresses().iter().map(|(it, _)| Family::of(*it));
        SizeBound {
            addresses: by_family(addresses),
            prefixes: by_family(self.regions.prefixes().map(|(it, _)| it.family())),
            classes: self.regions.classes().len(),
            entries: self.sets.iter().map(|set| (set.key, set.entries())).collect(),
        }
    }

    /// Takes out the policy sets that are over their share, and checks that the rest can fit.
    pub(super) fn check(&mut self, limits: &Limits) -> Result<(), CapacityError> {
        let bound = self.bound();
        for (number, family) in Family::BOTH.into_iter().enumerate() {
            let count = |counts: &[usize; 2]| counts.get(number).copied().unwrap_or(0);
            let resource = Resource::Addresses(family);
            check(resource, None, count(&bound.addresses), limits.addresses)?;
            check(Resource::Prefixes(family), None, count(&bound.prefixes), limits.prefixes)?;
        }
        let share = |set: &SetPlan<'_>| {
            let resource = Resource::EntriesOfPolicySet;
            check(resource, Some(set.key), set.entries(), limits.entries_per_policy_set)
        };
        let (unclassified, too_large) =
            (&mut self.unclassified, |set: &SetPlan<'p>| share(set).err());
        self.sets.retain(|set| match too_large(set) {
            Some(error) => {
                unclassified.insert(set.key, Unclassified::Capacity(error));
                false
            }
            None => true,
        });
        let total = self.sets.iter().map(SetPlan::entries).sum();
        let largest = self.sets.iter().max_by_key(|set| set.entries()).map(|set| set.key);
        check(Resource::Entries, largest, total, limits.entries)
    }
}

/// Returns the policy sets that are in force in some direction, each with the endpoints that it judges.
fn users(program: &Program) -> BTreeMap<TableKey, Vec<&Endpoint>> {
    let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for endpoint in &program.endpoints {
        for direction in Direction::BOTH {
            let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
            users.entry(key).or_default().push(endpoint);
        }
    }
    users
}

/// Returns for each feature the classes that have it.
fn holders(features: &Features<'_>, regions: &Regions) -> Vec<Vec<ClassId>> {
    let mut holders: Vec<Vec<ClassId>> = Vec::new();
    holders.resize_with(features.len(), Vec::new);
    for (number, class) in regions.classes().iter().enumerate() {
        for &feature in &class.features {
            if let Some(classes) = holders.get_mut(index(feature)) {
                classes.push(ClassId(super::pool::id_of(number)));
            }
        }
    }
    holders
}

impl SetPlan<'_> {
    /// Returns how many entries the table has at most, those of the classes `other` included.
    pub(super) fn entries(&self) -> usize {
        self.classes.len() + self.others.len() + self.served.len()
    }

    /// Finds the classes of frontends.
    fn serve(&mut self, regions: &Regions) {
        let classes = (0..).map(ClassId).zip(regions.classes());
        let served = classes.filter(|(_, class)| class.served.is_some());
        self.served = served.map(|(id, _)| id).collect();
    }

    /// Returns whether backends are asked about in the place of frontends.
    pub(super) fn looks_behind(&self) -> bool {
        self.key.direction == Direction::Egress && !self.stages.is_empty()
    }

    /// Finds the classes that this policy set tells from `other`.
    fn tell_apart(&mut self, regions: &Regions, holders: &[Vec<ClassId>]) {
        let rules = self.stages.iter().flat_map(|stage| &stage.rules);
        let mut questions: Vec<FeatureId> = rules.flat_map(RulePlan::questions).collect();
        questions.sort_unstable();
        questions.dedup();
        let mut yes: Vec<(ClassId, FeatureId)> = Vec::new();
        for &question in &questions {
            let classes = holders.get(index(question)).into_iter().flatten();
            yes.extend(classes.map(|&class| (class, question)));
        }
        yes.sort();
        let mut answers = Numbered::default();
        let of = |class: ClassId| yes.iter().filter(move |(it, _)| *it == class);
        self.others = Family::BOTH.map(|family| {
            let features = of(regions.other(family)).map(|&(_, feature)| feature);
            answers.number((family, features.collect()))
        });
        for group in yes.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((id, class)) =
                group.first().and_then(|(id, _)| Some((*id, regions.class(*id)?)))
            else {
                continue;
            };
            let features = group.iter().map(|&(_, feature)| feature).collect();
            let number = answers.number((class.family, features));
            if !self.others.contains(&number) {
                self.classes.push((id, number));
            }
        }
        self.answers = answers.into_things();
    }
}
