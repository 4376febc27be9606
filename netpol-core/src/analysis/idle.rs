//! Rules that do nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::AnalysisError;
use super::classes::Classes;
use super::state::{Pool, State, compile};
use super::traffic::Traffic;
use crate::dataplane::Capabilities;
use crate::flat::{Flat, Leaf, LeafId, RowId, Then};
use crate::flow::Direction;
use crate::model::{Action, EndpointKind, Enforcement, Inputs, Mode, Policy, PolicyKey};
use crate::program::{Program, Rule, Stage, StageEnd};
use crate::verdict::{Reason, RuleRef};

/// A rule that does nothing: no flow is decided, passed on or logged by it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct IdleRule {
    /// The rule.
    pub rule: RuleRef,
    /// Why it does nothing.
    pub why: Idle,
}

/// Why a rule does nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Idle {
    /// Its policy applies to no endpoint that has an address and is enforced.
    NoSubject,
    /// No flow meets its conditions, as addresses are now.
    NoTraffic,
    /// Every flow that meets its conditions is decided before it is asked.
    Shadowed {
        /// What decides them, each once.
        by: Vec<Reason>,
    },
}

/// Writes why, without naming the rule.
impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSubject => f.write_str("its policy applies to no endpoint"),
            Self::NoTraffic => f.write_str("no flow meets its conditions"),
            Self::Shadowed { by } => {
                f.write_str("whatever it matches is decided before: ")?;
                for (index, reason) in by.iter().enumerate() {
                    write!(f, "{}{reason}", if index == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

/// Returns the rules of enforced policies that do nothing, in order.
///
/// That a rule does nothing is so for the endpoints and addresses that there are; [`lint`](crate::lint) tells of rules that
/// could never do anything. Rules of policies that apply to host endpoints are left out, and those that the dataplane
/// leaves out.
///
/// # Errors
///
/// [`AnalysisError`] if the rules in force for an endpoint cannot be analysed.
pub fn idle_rules(
    inputs: &Inputs,
    capabilities: &Capabilities,
) -> Result<Vec<IdleRule>, AnalysisError> {
    let mut program = compile(inputs, capabilities)?;
    program.endpoints.retain(|it| it.mode == Mode::Enforce);
    let mut pool = Pool::new();
    let traced = State::of(&traced(&program), &mut pool)?;
    let asked = asked(&traced);
    let mut idle: BTreeMap<RuleRef, Idle> = BTreeMap::new();
    let applied = applied(&program);
    for policy in inputs.policies().filter(|it| is_about_workloads(it, inputs)) {
        for rule in rules_of(policy, capabilities).filter(|it| !asked.contains(it)) {
            let applies = applied.contains(&(&rule.policy, rule.direction));
            idle.insert(rule, if applies { Idle::NoTraffic } else { Idle::NoSubject });
        }
    }
    let shadowed = Shadows { inputs, traced: &traced, by: BTreeMap::new() };
    for (rule, by) in shadowed.of(&only(&program, &idle), &mut pool)? {
        idle.insert(rule, Idle::Shadowed { by: by.into_iter().collect() });
    }
    Ok(idle.into_iter().map(|(rule, why)| IdleRule { rule, why }).collect())
}

fn is_about_workloads(policy: &Policy, inputs: &Inputs) -> bool {
    let mut hosts = inputs.endpoints().filter(|it| it.id.kind == EndpointKind::Host);
    policy.enforcement == Enforcement::Enforced
        && !hosts.any(|it| policy.subject.matches(&inputs.labels_of(it)))
}

/// Returns the rules of a policy that a dataplane does not leave out. What is one rule to its author is so here.
fn rules_of(policy: &Policy, capabilities: &Capabilities) -> impl Iterator<Item = RuleRef> {
    Direction::BOTH.into_iter().flat_map(move |direction| {
        let rules = policy.rules(direction).unwrap_or_default().iter();
        let rules = rules.filter(|it| it.effective_action(capabilities).is_some());
        rules.map(move |rule| RuleRef {
            policy: policy.key.clone(),
            direction,
            index: rule.index,
            name: rule.name.clone(),
        })
    })
}

/// Returns the policies that apply to an endpoint, and in which direction.
fn applied(program: &Program) -> BTreeSet<(&PolicyKey, Direction)> {
    let mut applied = BTreeSet::new();
    for endpoint in &program.endpoints {
        for direction in Direction::BOTH {
            let stages =
                program.policy_set(endpoint, direction).into_iter().flat_map(|it| &it.stages);
            applied.extend(stages.flat_map(|it| &it.policies).map(|it| (it, direction)));
        }
    }
    applied
}

/// Returns the same program with a Log rule before each Pass rule, which leaves a trace of flows that are passed on.
fn traced(program: &Program) -> Program {
    with_rules(program, |stage| {
        let rules = stage.rules.iter().flat_map(|rule| {
            let trace = (rule.action == Action::Pass).then(|| logging(rule));
            trace.into_iter().chain([Arc::clone(rule)])
        });
        Stage { rules: rules.collect(), ..stage.clone() }
    })
}

/// Returns a program in which some rules only log, and there are no others.
fn only(program: &Program, rules: &BTreeMap<RuleRef, Idle>) -> Program {
    with_rules(program, |stage| {
        let kept = stage.rules.iter().filter(|it| rules.contains_key(&it.origin));
        Stage { rules: kept.map(|it| logging(it)).collect(), end: StageEnd::Next, ..stage.clone() }
    })
}

fn with_rules(program: &Program, change: impl Fn(&Stage) -> Stage) -> Program {
    let mut program = program.clone();
    for set in program.policy_sets.values_mut() {
        let set = Arc::make_mut(set);
        set.stages = set.stages.iter().map(&change).collect();
    }
    program
}

fn logging(rule: &Rule) -> Arc<Rule> {
    let mut rule = rule.clone();
    rule.action = Action::Log;
    rule.into()
}

/// Returns the rules that some flow meets and is decided or logged by.
fn asked(state: &State) -> BTreeSet<RuleRef> {
    let classes = Classes::of(&[state], |address| state.kind(address));
    let mut rows = BTreeSet::new();
    for (table, family) in state.uses() {
        let remotes = classes.kinds.iter().filter(|it| it.family == family);
        rows.extend(remotes.filter_map(|remote| state.row(table, remote)));
    }
    let mut asked = BTreeSet::new();
    for row in rows {
        for (_, leaf) in leaves(&state.flat, row) {
            asked.extend(leaf.logs.iter().map(|it| it.origin.clone()));
            if let Reason::Rule(rule) = &leaf.reason {
                asked.insert(rule.clone());
            }
        }
    }
    asked
}

/// What decides flows before rules that are never asked.
struct Shadows<'a> {
    inputs: &'a Inputs,
    /// The program with traces of what is passed on.
    traced: &'a State,
    by: BTreeMap<RuleRef, BTreeSet<Reason>>,
}

impl Shadows<'_> {
    /// Returns what decides the flows that rules match, given a program that only logs these. Rules that match nothing are
    /// not among them.
    fn of(
        mut self,
        only: &Program,
        pool: &mut Pool,
    ) -> Result<BTreeMap<RuleRef, BTreeSet<Reason>>, AnalysisError> {
        let (traced, only) = (self.traced, State::of(only, pool)?);
        let classes =
            Classes::of(&[traced, &only], |address| [traced.kind(address), only.kind(address)]);
        let mut rows = BTreeSet::new();
        // Both programs have the same endpoints and policy sets, so their tables have the same numbers.
        for (table, family) in traced.uses() {
            let remotes = classes.kinds.iter().filter(|[it, _]| it.family == family);
            rows.extend(remotes.filter_map(|[in_traced, in_only]| {
                Some((traced.row(table, in_traced)?, only.row(table, in_only)?))
            }));
        }
        for (row, logs) in rows {
            self.note(row, &only.flat, logs);
        }
        Ok(self.by)
    }

    /// Notes what decides, in a row, what rules match that are logged in another.
    fn note(&mut self, row: RowId, only: &Flat, logs: RowId) {
        let mut rules: BTreeMap<&RuleRef, BTreeSet<LeafId>> = BTreeMap::new();
        for (id, leaf) in leaves(only, logs) {
            for log in &leaf.logs {
                rules.entry(&log.origin).or_default().insert(id);
            }
        }
        for (rule, matched) in rules {
            let matched = traffic(only, logs, |leaf| matched.contains(&leaf));
            for (id, leaf) in leaves(&self.traced.flat, row) {
                let decided = traffic(&self.traced.flat, row, |it| it == id);
                if !decided.intersection(&matched).is_nothing() {
                    let by = self.decider(rule, leaf);
                    self.by.entry(rule.clone()).or_default().insert(by);
                }
            }
        }
    }

    /// Returns what keeps a flow from a rule: what passed it on, if that was in the rule's tier, or what decided it.
    fn decider(&self, rule: &RuleRef, leaf: &Leaf) -> Reason {
        let tier = |it: &RuleRef| self.inputs.policy(&it.policy).map(|policy| &policy.tier);
        let passed = leaf
            .logs
            .iter()
            .map(|it| &it.origin)
            .find(|it| tier(it) == tier(rule) && self.passes(it));
        passed.map_or_else(|| leaf.reason.clone(), |it| Reason::Rule(it.clone()))
    }

    fn passes(&self, rule: &RuleRef) -> bool {
        let policy = self.inputs.policy(&rule.policy);
        let mut rules = policy.and_then(|it| it.rules(rule.direction)).into_iter().flatten();
        rules.any(|it| it.index == rule.index && it.action == Action::Pass)
    }
}

/// Returns the leaves of a row, each once.
fn leaves(flat: &Flat, row: RowId) -> impl Iterator<Item = (LeafId, &Leaf)> {
    let row = index(row.0, flat.rows());
    let default = row.map(|it| it.default);
    let cells = row.into_iter().flat_map(|it| &it.cells).flat_map(|cell| {
        let (leaf, list) = match cell.then {
            Then::Leaf(leaf) => (Some(leaf), None),
            Then::BySource(list) => (None, index(list.0, flat.sources())),
        };
        leaf.into_iter().chain(list.into_iter().flatten().map(|it| it.leaf))
    });
    let ids: BTreeSet<LeafId> = default.into_iter().chain(cells).collect();
    ids.into_iter().filter_map(|id| Some((id, index(id.0, flat.leaves())?)))
}

/// Returns what leads to some leaves of a row.
fn traffic(flat: &Flat, row: RowId, is_wanted: impl Fn(LeafId) -> bool) -> Traffic {
    let row = index(row.0, flat.rows());
    row.map_or_else(Traffic::nothing, |it| Traffic::of_row(it, flat.sources(), is_wanted))
}

fn index<T>(id: u32, things: &[T]) -> Option<&T> {
    usize::try_from(id).ok().and_then(|it| things.get(it))
}
