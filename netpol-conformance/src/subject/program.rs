//! Programs as a subject: what the engines of all nodes would have their dataplanes enforce.

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_core::model::Inputs;
use netpol_core::program::Outcome;
use netpol_core::{
    Applied, Change, DataplaneError, DataplaneErrorKind, Explanation, Origin, Program, Reason,
    Verdict,
};

use super::feed::Feed;
use super::model::packets_only;
use super::{Observation, Subject, SubjectError};
use crate::cluster::Cluster;
use crate::explain::reasons;
use crate::scenario::{Attempt, Step};

/// One engine per node, and the programs that they yield.
#[derive(Debug, Default)]
pub struct Programs {
    nodes: BTreeMap<String, ProgramNode>,
}

#[derive(Debug)]
struct ProgramNode {
    feed: Feed,
    program: Arc<Program>,
}

impl Subject for Programs {
    fn play(&mut self, step: &Step, _later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
        for name in step.cluster.nodes().keys() {
            let fresh =
                || ProgramNode { feed: Feed::new(name, &packets_only()), program: Arc::default() };
            let node = self.nodes.entry(name.clone()).or_insert_with(fresh);
            node.feed.update(&step.cluster, |_| {})?;
            while let Some(update) = node.feed.poll() {
                node.feed.handle(Ok(Applied::completely(update.generation)));
                match update.change {
                    Change::Full(program) => node.program = program,
                    Change::Delta(delta) => {
                        let program = Arc::make_mut(&mut node.program);
                        program.advance(&delta).map_err(|error| SubjectError::Dataplane {
                            node: name.clone(),
                            source: DataplaneError::new(DataplaneErrorKind::Other, "apply a delta")
                                .with_source(error),
                        })?;
                    }
                    _ => {}
                }
            }
        }
        let inputs = step.cluster.inputs();
        let observe = |attempt| self.observe(&step.cluster, &inputs, attempt);
        Ok(step.attempts.iter().map(observe).collect())
    }
}

impl Programs {
    /// A connection passes if the node of its source lets it out and the node of its destination lets it in.
    fn observe(&self, cluster: &Cluster, inputs: &Inputs, attempt: &Attempt) -> Observation {
        let (from, to) = (cluster.node_of(&attempt.source), cluster.node_of(&attempt.destination));
        let leaving = from.and_then(|node| self.outcome(node, attempt, attempt.flow.origin));
        let entering = if from == to {
            leaving.clone()
        } else {
            to.and_then(|node| self.outcome(node, attempt, Origin::Forwarded))
        };
        let egress = leaving.and_then(|it| it.egress);
        let ingress = entering.and_then(|it| it.ingress);
        let denied =
            [&egress, &ingress].into_iter().flatten().any(|half| half.verdict == Verdict::Deny);
        let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
        let observed =
            Observation::of(verdict, Some(reasons(egress.as_ref(), ingress.as_ref(), inputs)));
        let reason = |half: Option<Explanation>| half.map_or(Reason::NoEndpoint, |it| it.reason);
        observed.because(reason(egress), reason(ingress))
    }

    fn outcome(&self, node: &str, attempt: &Attempt, origin: Origin) -> Option<Outcome> {
        Some(self.nodes.get(node)?.program.outcome(&attempt.flow.from_origin(origin)))
    }
}
