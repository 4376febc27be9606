//! What became of endpoints and policies at the dataplane.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::state::State;
use crate::dataplane::{Capabilities, Change, DataplaneError, Delta};
use crate::flow::Direction;
use crate::model::{Action, EndpointId, PolicyKey};

/// What the dataplane is known to do with the packets of an endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "whoever starts endpoints handles each state")]
pub enum Gate {
    /// It is no running endpoint of this node, or a newer one has its interface. Nothing is done with its packets.
    Unknown,
    /// The dataplane has not been told of it as it is now, or has not answered.
    Pending,
    /// It is closed, or enforced as a former process left it.
    Isolated,
    /// Its policy is enforced.
    Enforcing {
        /// The update of the program that was applied last.
        generation: u64,
    },
}

impl Gate {
    /// Returns whether the endpoint can start without being open where policy says otherwise.
    #[must_use]
    pub const fn may_start(self) -> bool {
        matches!(self, Self::Isolated | Self::Enforcing { .. })
    }
}

/// What became of a policy.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PolicyStatus {
    /// The rules that do something else than they say: they could not be read completely, or the dataplane cannot express
    /// them. Empty for a policy that is accepted as it is.
    pub weak_rules: Vec<WeakRule>,
    /// Whether it applies to endpoints of this node.
    pub applies: bool,
    /// The update of the program that was applied last, if the policy is enforced by it as it is now.
    pub generation: Option<u64>,
}

impl PolicyStatus {
    /// Returns whether some rules do something else than they say.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        !self.weak_rules.is_empty()
    }
}

/// A rule that does something else than it says.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "where the rule is, and what it does instead")]
pub struct WeakRule {
    /// The list that the rule is in.
    pub direction: Direction,
    /// The index of the wire object's rule that it comes from.
    pub index: usize,
    /// What it does: [`Action::Deny`], or nothing.
    pub effect: Option<Action>,
}

/// What is known of the dataplane.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// The update of the program that was applied last.
    generation: Option<u64>,
    /// How often the program had been settled then.
    rounds: u64,
    /// Endpoints that changed since then, as far as the program follows.
    unconfirmed: BTreeSet<EndpointId>,
    /// Endpoints that are closed.
    closed: BTreeSet<EndpointId>,
    /// What the update under way asks for.
    asked: Asked,
}

#[derive(Debug, Default)]
enum Asked {
    #[default]
    Nothing,
    /// To close these.
    Isolation(BTreeSet<EndpointId>),
    /// To enforce the program as it had been settled so often.
    Program(u64),
}

impl Status {
    /// Says that the program was settled.
    pub(super) fn settled(&mut self, delta: &Delta, state: &State) {
        self.unconfirmed.extend(delta.endpoints.iter().map(|it| it.new.id.clone()));
        self.unconfirmed.retain(|id| state.is_local(id));
    }

    /// Says that the program in force is still the right one.
    pub(super) fn unchanged(&mut self, state: &State) {
        self.rounds = state.rounds();
    }

    /// Says that an update was handed out.
    pub(super) fn asked(&mut self, change: &Change, state: &State) {
        self.asked = match change {
            Change::Isolate(endpoints) => {
                let ids: BTreeSet<_> = endpoints.iter().map(|it| it.id.clone()).collect();
                self.unconfirmed.extend(ids.iter().cloned());
                Asked::Isolation(ids)
            }
            Change::Full(_) | Change::Delta(_) => Asked::Program(state.rounds()),
        };
        self.closed.retain(|id| state.is_local(id));
    }

    /// Says that the update under way closed what it asked for.
    pub(super) fn isolated(&mut self) {
        if let Asked::Isolation(ids) = core::mem::take(&mut self.asked) {
            self.unconfirmed.retain(|id| !ids.contains(id));
            self.closed.extend(ids);
        }
    }

    /// Says that the update under way enforced the program, except for endpoints that it closed.
    pub(super) fn enforced(&mut self, generation: u64, isolated: &[(EndpointId, DataplaneError)]) {
        if let Asked::Program(rounds) = core::mem::take(&mut self.asked) {
            self.generation = Some(generation);
            self.rounds = rounds;
            self.unconfirmed.clear();
            self.closed = isolated.iter().map(|(id, _)| id.clone()).collect();
        }
    }

    pub(super) fn gate(&self, id: &EndpointId, state: &State) -> Gate {
        if !state.is_local(id) {
            return Gate::Unknown;
        }
        if state.has_local_changed(id) || self.unconfirmed.contains(id) {
            return Gate::Pending;
        }
        match self.generation {
            _ if self.closed.contains(id) => Gate::Isolated,
            Some(generation) if state.has_program_endpoint(id) => Gate::Enforcing { generation },
            _ => Gate::Pending,
        }
    }

    pub(super) fn of_policy(
        &self,
        key: &PolicyKey,
        state: &State,
        capabilities: &Capabilities,
    ) -> Option<PolicyStatus> {
        let (policy, applies, round) = state.policy(key)?;
        let mut weak_rules = Vec::new();
        for direction in Direction::BOTH {
            for rule in policy.rules(direction).unwrap_or_default() {
                let effect = rule.effective_action(capabilities);
                if effect != Some(rule.action) || rule.degraded {
                    weak_rules.push(WeakRule { direction, index: rule.index, effect });
                }
            }
        }
        weak_rules.dedup();
        let generation = self.generation.filter(|_| round <= self.rounds);
        Some(PolicyStatus { weak_rules, applies, generation })
    }
}
