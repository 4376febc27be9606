//! What the tables of a program are made from: rules in terms of features, and the classes that each table tells apart.

mod local;
mod rule;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub(super) use self::local::unclassifiable;
pub(super) use self::rule::{Cover, RulePlan};
use super::features::{FeatureId, Features};
use super::pool::{Numbered, Pool};
use super::regions::{ClassId, Regions};
use super::size::{CapacityError, Limits, Resource, SizeBound, by_family, check};
use super::{TableKey, Unclassified};
use crate::flow::Direction;
use crate::net::Family;
use crate::program::{Endpoint, PolicySet, Program, StageEnd};
use crate::verdict::Verdict;

/// All that is known before a row is made.
#[derive(Debug)]
pub(super) struct Plan<'p> {
    pub(super) features: Features,
    pub(super) regions: Regions,
    pub(super) pool: Pool,
    pub(super) sets: Vec<SetPlan<'p>>,
    pub(super) unclassified: BTreeMap<TableKey, Unclassified>,
}

/// A policy set, to be made into a table.
#[derive(Debug)]
pub(super) struct SetPlan<'p> {
    pub(super) key: TableKey,
    pub(super) stages: Vec<StagePlan<'p>>,
    pub(super) default: Verdict,
    /// What it asks of remote addresses, sorted.
    pub(super) questions: Vec<FeatureId>,
    /// Whether a rule asks for the endpoint's own address.
    pub(super) is_local: bool,
    /// The different answers that addresses give to its questions.
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
    /// Its number in the pool.
    pub(super) number: u32,
    pub(super) end: StageEnd,
    rules: Vec<RulePlan<'p>>,
    /// The rules that match only addresses that answer a question with yes, by that question.
    asking: BTreeMap<FeatureId, Vec<usize>>,
    /// The others.
    plain: Vec<usize>,
}

/// A family, and the questions to which addresses of it answer yes, sorted.
pub(super) type Answers = (Family, Vec<FeatureId>);

impl<'p> Plan<'p> {
    pub(super) fn of(program: &'p Program) -> Self {
        let (mut features, mut pool) = (Features::default(), Pool::default());
        let (mut sets, mut unclassified) = (Vec::new(), BTreeMap::new());
        for (key, users) in users(program) {
            let Some(set) = program.policy_sets.get(&key.policy_set) else { continue };
            if let Some(reason) = unclassifiable(program, set, key.direction, &users) {
                unclassified.insert(key, reason);
                continue;
            }
            sets.push(SetPlan::of(program, key, set, &users, &mut features, &mut pool));
        }
        let mut regions = Regions::of(&features, program);
        regions.serve(&program.frontends);
        sets.iter_mut().for_each(|set| set.tell_apart(&regions));
        Self { features, regions, pool, sets, unclassified }
    }

    pub(super) fn bound(&self) -> SizeBound {
        let addresses = self.regions.addresses().map(|(it, _)| Family::of(it));
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
        let unclassified = &mut self.unclassified;
        self.sets.retain(|set| match set.check(limits) {
            Err(error) => {
                unclassified.insert(set.key, Unclassified::Capacity(error));
                false
            }
            Ok(()) => true,
        });
        let total = self.sets.iter().map(SetPlan::entries).sum();
        let largest = self.sets.iter().max_by_key(|set| set.entries()).map(|set| set.key);
        check(Resource::Entries, largest, total, limits.entries)
    }
}

/// Returns the policy sets that are in force in some direction, each with the endpoints that it judges.
pub(super) fn users(program: &Program) -> BTreeMap<TableKey, Vec<&Endpoint>> {
    let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for endpoint in &program.endpoints {
        for direction in Direction::BOTH {
            let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
            users.entry(key).or_default().push(endpoint);
        }
    }
    users
}

impl<'p> SetPlan<'p> {
    /// Returns the plan of a policy set, which has no conditions on the endpoint's own side that its users leave open. No
    /// class is told apart yet.
    pub(super) fn of(
        program: &Program,
        key: TableKey,
        set: &'p Arc<PolicySet>,
        users: &[&Endpoint],
        features: &mut Features,
        pool: &mut Pool,
    ) -> Self {
        let mut stages = Vec::with_capacity(set.stages.len());
        for (number, stage) in set.stages.iter().enumerate() {
            let rules = stage.rules.iter().filter_map(|rule| {
                let families = local::families(program, rule, users);
                RulePlan::of(program, rule, families, features, pool)
            });
            let rules: Vec<_> = rules.collect();
            stages.push(StagePlan::of(pool.stage(set, number), stage.end, rules));
        }
        let rules = stages.iter().flat_map(|stage| &stage.rules);
        let mut questions: Vec<FeatureId> = rules.flat_map(RulePlan::questions).collect();
        questions.sort_unstable();
        questions.dedup();
        let mut rules = set.stages.iter().flat_map(|stage| &stage.rules);
        Self {
            key,
            stages,
            default: set.default,
            questions,
            is_local: rules.any(|rule| rule.local.is_some()),
            answers: Vec::new(),
            others: [0, 0],
            classes: Vec::new(),
            served: Vec::new(),
        }
    }

    /// Returns how many entries the table has at most, those of the classes `other` included.
    pub(super) fn entries(&self) -> usize {
        self.classes.len() + self.others.len() + self.served.len()
    }

    /// Returns whether backends are asked about in the place of frontends.
    pub(super) fn looks_behind(&self) -> bool {
        self.key.direction == Direction::Egress && !self.stages.is_empty()
    }

    /// Checks that the table is within the share of a policy set.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), CapacityError> {
        let resource = Resource::EntriesOfPolicySet;
        check(resource, Some(self.key), self.entries(), limits.entries_per_policy_set)
    }

    /// Finds the classes that this policy set tells from `other`, and those of frontends.
    pub(super) fn tell_apart(&mut self, regions: &Regions) {
        let mut yes: Vec<(ClassId, FeatureId)> = Vec::new();
        for &question in &self.questions {
            yes.extend(regions.holders(question).iter().map(|&class| (class, question)));
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
        self.served = regions.served().to_vec();
    }
}

impl<'p> StagePlan<'p> {
    fn of(number: u32, end: StageEnd, rules: Vec<RulePlan<'p>>) -> Self {
        let (mut asking, mut plain): (BTreeMap<_, Vec<_>>, _) = (BTreeMap::new(), Vec::new());
        for (at, rule) in rules.iter().enumerate() {
            match rule.first_question() {
                Some(question) => asking.entry(question).or_default().push(at),
                None => plain.push(at),
            }
        }
        Self { number, end, rules, asking, plain }
    }

    /// Returns the rules that can match addresses that answer these questions with yes, in order.
    pub(super) fn rules(&self, yes: &[FeatureId]) -> impl Iterator<Item = &RulePlan<'p>> {
        let asking = yes.iter().filter_map(|question| self.asking.get(question));
        let mut found: Vec<usize> = asking.chain([&self.plain]).flatten().copied().collect();
        found.sort_unstable();
        found.into_iter().filter_map(|at| self.rules.get(at))
    }
}
