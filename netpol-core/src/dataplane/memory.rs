//! A dataplane that keeps the program in memory and enforces it nowhere.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Delta,
    DeltaMismatch, Drift, Update,
};
use crate::flow::{Direction, Flow};
use crate::model::{EndpointId, Mode};
use crate::program::{Endpoint, Outcome, Program};

/// A dataplane that keeps the program in memory: for tests, examples, and for answering what a node would do.
///
/// Updates go wrong when it is told so, in the ways in which those of a kernel do:
///
/// ```
/// use netpol_core::{Dataplane, DataplaneErrorKind, Engine, Fault, MemoryDataplane, NodeConfig};
///
/// let mut dataplane = MemoryDataplane::default();
/// let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
/// engine.inputs_complete();
/// dataplane.inject([Fault::Fails(DataplaneErrorKind::Transient)]);
/// let mut attempts = 0;
/// while let Some(update) = engine.poll_update() {
///     engine.handle_applied(dataplane.apply(update));
///     attempts += 1;
/// }
/// assert_eq!(attempts, 2, "the work is kept");
/// ```
#[derive(Debug)]
pub struct MemoryDataplane {
    capabilities: Capabilities,
    program: Arc<Program>,
    isolated: BTreeMap<EndpointId, Endpoint>,
    faults: VecDeque<Fault>,
}

/// What goes wrong with one update of a [`MemoryDataplane`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with an error of this kind, and nothing is switched.
    Fails(DataplaneErrorKind),
    /// This endpoint cannot be programmed: it is closed, and all others proceed.
    Isolates(EndpointId),
}

impl Default for MemoryDataplane {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::all(),
            program: Arc::default(),
            isolated: BTreeMap::new(),
            faults: VecDeque::new(),
        }
    }
}

impl MemoryDataplane {
    /// Returns the program in force.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Makes the next updates go wrong, one fault each, in this order.
    pub fn inject(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
    }

    /// Applies a delta to the program in force, and checks that what comes out is the delta's program.
    fn advance(&mut self, delta: &Delta) -> Result<(), DeltaMismatch> {
        let mut program = (*self.program).clone();
        program.advance(delta)?;
        if program != *delta.program {
            return Err(DeltaMismatch);
        }
        self.program = Arc::new(program);
        Ok(())
    }

    /// Makes this endpoint of the program the only closed one.
    fn close(&mut self, id: Option<&EndpointId>) -> Vec<(EndpointId, DataplaneError)> {
        let closed = self.program.endpoints.iter().find(|it| Some(&it.id) == id).cloned();
        self.isolated = closed.into_iter().map(|it| (it.id.clone(), it)).collect();
        let error = || DataplaneError::new(DataplaneErrorKind::Capacity, "program an endpoint");
        self.isolated.keys().map(|id| (id.clone(), error())).collect()
    }

    /// Returns what this node does with a flow.
    #[must_use]
    pub fn outcome(&self, flow: &Flow) -> Outcome {
        let mut outcome = self.program.outcome(flow);
        for endpoint in self.isolated.values() {
            let closed = Endpoint { mode: Mode::Isolate, ..endpoint.clone() };
            for (direction, address) in
                [(Direction::Egress, flow.source), (Direction::Ingress, flow.destination)]
            {
                if closed.addresses.contains(&address) {
                    outcome.set(direction, self.program.explain(&closed, direction, flow));
                }
            }
        }
        outcome
    }
}

impl Dataplane for MemoryDataplane {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError> {
        let unprogrammable = match self.faults.pop_front() {
            Some(Fault::Fails(kind)) => return Err(DataplaneError::new(kind, "apply an update")),
            Some(Fault::Isolates(id)) => Some(id),
            None => None,
        };
        let mut applied = Applied::completely(update.generation);
        match update.change {
            Change::Isolate(endpoints) => {
                let known = |endpoint: &Endpoint| {
                    self.program.endpoints.iter().any(|it| {
                        it.id == endpoint.id
                            && it.attachment == endpoint.attachment
                            && endpoint.addresses.iter().all(|own| it.addresses.contains(own))
                    })
                };
                for endpoint in endpoints.iter().filter(|endpoint| !known(endpoint)) {
                    self.isolated.insert(endpoint.id.clone(), endpoint.clone());
                }
            }
            Change::Full(program) => {
                self.program = program;
                applied.isolated = self.close(unprogrammable.as_ref());
            }
            Change::Delta(delta) => {
                self.advance(&delta).map_err(|error| {
                    let kind = DataplaneErrorKind::Other;
                    DataplaneError::new(kind, "apply a delta").with_source(error)
                })?;
                applied.isolated = self.close(unprogrammable.as_ref());
            }
        }
        Ok(applied)
    }

    fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
        let mut drift = Drift::default();
        if *program != *self.program {
            let (held, wanted) = (self.program.endpoints.len(), program.endpoints.len());
            drift
                .differences
                .push(format!("another program is held: {held} endpoints, expected {wanted}"));
        }
        drift.differences.extend(self.isolated.keys().map(|id| format!("`{id}` is closed")));
        Ok(drift)
    }

    fn counters(&mut self) -> Result<Counters, DataplaneError> {
        Ok(Counters::default())
    }

    fn remove(&mut self) -> Result<(), DataplaneError> {
        *self = Self::default();
        Ok(())
    }
}
