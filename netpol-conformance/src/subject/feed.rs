//! An engine that follows a cluster.

use std::collections::BTreeMap;

use netpol_core::model::{Object, ObjectKey, UnknownInterfaces};
use netpol_core::{Applied, Capabilities, DataplaneError, Engine, NodeConfig, Update};

use super::SubjectError;
use crate::cluster::Cluster;
use crate::topology::POD_INTERFACES;

/// An engine that is kept up to date with a cluster, by the differences between its states.
#[derive(Debug)]
pub(super) struct Feed {
    engine: Engine,
    node: String,
    known: BTreeMap<ObjectKey, Object>,
}

impl Feed {
    /// Returns the engine of a node, which is told nothing yet.
    pub(super) fn new(node: &str, cluster: &Cluster, capabilities: &Capabilities) -> Self {
        let mut config = NodeConfig::new(node);
        if let (Some(treatment), Ok(prefix)) =
            (cluster.unknown_interfaces(), POD_INTERFACES.parse())
        {
            config.unknown = UnknownInterfaces { prefixes: [prefix].into(), treatment };
        }
        Self {
            engine: Engine::new(config, capabilities),
            node: node.to_owned(),
            known: BTreeMap::new(),
        }
    }

    /// Tells the engine what changed since the last time. `finish` completes what only the node knows.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        finish: impl Fn(&mut Object),
    ) -> Result<(), SubjectError> {
        let wanted: BTreeMap<_, _> = cluster
            .model()
            .into_iter()
            .map(|(key, object)| {
                let mut object = object.clone();
                finish(&mut object);
                (key, object)
            })
            .collect();
        let refused = |source| SubjectError::Engine { node: self.node.clone(), source };
        // A scenario says what is, and need not be careful.
        self.engine.force_settings(cluster.settings().clone()).map_err(refused)?;
        for key in self.known.keys().filter(|key| !wanted.contains_key(key)) {
            self.engine.remove(key);
        }
        for (key, object) in &wanted {
            if self.known.get(key) != Some(object) {
                self.engine.upsert(object.clone()).map_err(refused)?;
            }
        }
        self.known = wanted;
        self.engine.inputs_complete();
        Ok(())
    }

    pub(super) fn poll(&mut self) -> Option<Update> {
        self.engine.poll_update()
    }

    pub(super) fn handle(&mut self, outcome: Result<Applied, DataplaneError>) {
        self.engine.handle_applied(outcome);
    }

    /// Says that the dataplane enforces nothing any more.
    pub(super) fn resync(&mut self) {
        self.engine.resync();
    }

    /// Returns whether the engine has been told anything yet.
    pub(super) fn has_spoken(&self) -> bool {
        !self.known.is_empty()
    }
}
