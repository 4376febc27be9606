//! A dataplane that keeps the program in memory and enforces it nowhere.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;

use super::{Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, Drift, Update};
use crate::flow::{Direction, Flow};
use crate::model::{EndpointId, Mode};
use crate::program::{Endpoint, Outcome, Program};

/// A dataplane that keeps the program in memory: for tests, examples, and for answering what a node would do.
#[derive(Debug)]
pub struct MemoryDataplane {
    capabilities: Capabilities,
    program: Arc<Program>,
    isolated: BTreeMap<EndpointId, Endpoint>,
}

impl Default for MemoryDataplane {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::all(),
            program: Arc::default(),
            isolated: BTreeMap::new(),
        }
    }
}

impl MemoryDataplane {
    /// Returns the program in force.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
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
                self.isolated.clear();
            }
        }
        Ok(Applied::completely(update.generation))
    }

    fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
        let mut drift = Drift::default();
        if *program != *self.program {
            let (held, wanted) = (self.program.endpoints.len(), program.endpoints.len());
            drift
                .differences
                .push(format!("another program is held: {held} endpoints, expected {wanted}"));
        }
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
