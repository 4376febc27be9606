//! What a change of the inputs changes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::classes::{Class, Classes};
use super::state::{Kind, Pool, State, TrafficId, compile};
use super::traffic::Traffic;
use super::{AnalysisError, flow_with};
use crate::dataplane::Capabilities;
use crate::eval::{Judge, Judgement};
use crate::flow::{Direction, Flow};
use crate::model::{Enforcement, HostSettings, Inputs, ObjectKey, Policy, PolicyKey};
use crate::net::Family;
use crate::verdict::Verdict;

/// What is allowed in one state of a cluster and not in another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diff {
    /// The classes of both states together: addresses that neither of them tells apart.
    pub classes: Vec<Class>,
    /// What differs, by destination. Every flow whose verdicts differ is in one of them, and no other.
    pub differences: Vec<Difference>,
}

/// Traffic with another verdict than before, from each of some classes to each of some classes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Difference {
    /// The verdict after the change.
    pub verdict: Verdict,
    /// The classes that send, by their indexes in [`Diff::classes`].
    pub from: Vec<usize>,
    /// The classes that receive, likewise.
    pub to: Vec<usize>,
    /// What is sent.
    pub traffic: Traffic,
    /// A flow for each [part](Traffic::parts) of the traffic, which the judge has confirmed.
    pub examples: Vec<Example>,
}

/// A flow that stands for a difference, and what the judge says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Example {
    /// The flow.
    pub flow: Flow,
    /// The judgement before the change.
    pub before: Judgement,
    /// The judgement after it.
    pub after: Judgement,
}

/// Returns what is allowed after a change and was not before, and what is not any more.
///
/// Addresses are compared, whoever has them: an endpoint with another address than before is two differences. To see what
/// staged policies would change, compare with [`with_staged`].
///
/// Cost: both states are compiled, as if one node had all endpoints, and all pairs of classes are compared.
///
/// # Errors
///
/// [`AnalysisError`] if one of the states cannot be analysed. Nothing is left out.
pub fn diff(
    before: &Inputs,
    after: &Inputs,
    capabilities: &Capabilities,
) -> Result<Diff, AnalysisError> {
    let mut pool = Pool::new();
    let states = [
        State::of(&compile(before, capabilities)?, &mut pool)?,
        State::of(&compile(after, capabilities)?, &mut pool)?,
    ];
    let [old, new] = &states;
    let kinds = |address: IpAddr| [old.kind(address), new.kind(address)];
    let classes = Classes::of(&[old, new], kinds);
    let changes = Comparison { states: &states, classes: &classes, pool }.changes();
    let mut settings = HostSettings::default();
    settings.denied_encapsulation.clear();
    let judges = [before, after]
        .map(|inputs| Judge::new(inputs, capabilities).with_settings(settings.clone()));
    let confirmed = changes.into_iter().map(|it| it.confirmed(&judges, &classes));
    let differences = confirmed.collect::<Result<_, _>>()?;
    Ok(Diff { classes: classes.all, differences })
}

/// Returns the inputs as they would be if staged policies were enforced: each takes the place and the name of the policy that
/// it stands for, or takes it away.
#[must_use]
pub fn with_staged(inputs: &Inputs) -> Inputs {
    let mut enforced = inputs.clone();
    for policy in inputs.policies().filter(|it| it.enforcement != Enforcement::Enforced) {
        let kind = policy.key.kind.staged_for().unwrap_or(policy.key.kind);
        let key = PolicyKey { kind, ..policy.key.clone() };
        for replaced in [&policy.key, &key] {
            enforced.remove(&ObjectKey::Policy(replaced.clone()));
        }
        if policy.enforcement == Enforcement::Staged {
            enforced.upsert(Policy { key, enforcement: Enforcement::Enforced, ..policy.clone() });
        }
    }
    enforced
}

/// A difference that nobody has confirmed.
struct Change {
    verdict: Verdict,
    from: Vec<usize>,
    to: Vec<usize>,
    traffic: Traffic,
}

impl Change {
    fn confirmed(
        self,
        judges: &[Judge<'_>; 2],
        classes: &Classes<[Kind; 2]>,
    ) -> Result<Difference, AnalysisError> {
        let Self { verdict, from, to, traffic } = self;
        let pairs = from.iter().flat_map(|&one| to.iter().map(move |&other| (one, other)));
        let example = pairs.filter_map(|(from, to)| classes.examples(from, to)).next();
        let flows = example.into_iter().flat_map(|[from, to]| flow_with(&traffic, from, to));
        let confirm = |flow: Flow| {
            let [before, after] = judges.each_ref().map(|it| it.evaluate(&flow).enforced);
            let [was, is] = [&before, &after].map(|it| it.egress.verdict.max(it.ingress.verdict));
            if was == verdict || is != verdict {
                return Err(AnalysisError::Disagreement { flow });
            }
            Ok(Example { flow, before, after })
        };
        let examples = flows.map(confirm).collect::<Result<_, _>>()?;
        Ok(Difference { verdict, from, to, traffic, examples })
    }
}

/// Two states, side by side.
struct Comparison<'a> {
    states: &'a [State; 2],
    classes: &'a Classes<[Kind; 2]>,
    pool: Pool,
}

/// What is new in a cell, and what is gone.
type Changed = [(Verdict, TrafficId); 2];

impl Comparison<'_> {
    /// Returns what differs: cells of the same traffic are put together, first by destination, then by sources.
    fn changes(mut self) -> Vec<Change> {
        let mut known: BTreeMap<_, Changed> = BTreeMap::new();
        let mut by_destination: BTreeMap<(usize, Verdict, TrafficId), Vec<usize>> = BTreeMap::new();
        let classes = self.classes;
        for (from, source) in classes.kinds.iter().enumerate() {
            for (to, destination) in classes.kinds.iter().enumerate() {
                let Some(halves) = self.halves((from, source), (to, destination)) else { continue };
                let [old, new] = halves;
                if old == new {
                    continue;
                }
                let family = family(source);
                let changed = *known
                    .entry((family, halves))
                    .or_insert_with(|| changed(&mut self.pool, family, halves));
                for (verdict, traffic) in changed {
                    if traffic != TrafficId::NOTHING {
                        by_destination.entry((to, verdict, traffic)).or_default().push(from);
                    }
                }
            }
        }
        let mut by_sources: BTreeMap<(Verdict, TrafficId, Vec<usize>), Vec<usize>> =
            BTreeMap::new();
        for ((to, verdict, traffic), from) in by_destination {
            by_sources.entry((verdict, traffic, from)).or_default().push(to);
        }
        let change = |((verdict, traffic, from), to)| {
            let traffic = self.pool.get(traffic).clone();
            Change { verdict, from, to, traffic }
        };
        let mut changes: Vec<Change> = by_sources.into_iter().map(change).collect();
        changes.sort_by(|a, b| (&a.to, &a.from).cmp(&(&b.to, &b.from)));
        changes
    }

    /// Returns what leaves the source and what enters the destination in both states. `None` if nothing can be sent.
    fn halves(
        &self,
        (from, source): (usize, &[Kind; 2]),
        (to, destination): (usize, &[Kind; 2]),
    ) -> Option<[[TrafficId; 2]; 2]> {
        let [first, second] = self.classes.examples(from, to)?;
        if first == second || family(source) != family(destination) {
            return None;
        }
        let [old, new] = self.states;
        let ([source_old, source_new], [destination_old, destination_new]) = (source, destination);
        let both = |state: &State, source, destination| {
            [
                state.half(source, Direction::Egress, destination),
                state.half(destination, Direction::Ingress, source),
            ]
        };
        Some([both(old, source_old, destination_old), both(new, source_new, destination_new)])
    }
}

fn family([kind, _]: &[Kind; 2]) -> Family {
    kind.family
}

fn changed(pool: &mut Pool, family: Family, halves: [[TrafficId; 2]; 2]) -> Changed {
    let allowed = |[egress, ingress]: [TrafficId; 2]| {
        let both = pool.get(egress).intersection(pool.get(ingress));
        if family == Family::V6 { both.difference(&Traffic::discovery()) } else { both }
    };
    let [old, new] = halves.map(allowed);
    [
        (Verdict::Allow, pool.add(new.difference(&old))),
        (Verdict::Deny, pool.add(old.difference(&new))),
    ]
}
