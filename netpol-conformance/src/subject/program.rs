//! Programs as a subject: what the engines of all nodes would have their dataplanes enforce.

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_core::model::{Attachment, EndpointKind, Inputs, Object};
use netpol_core::program::{Outcome, Passage};
use netpol_core::{
    Applied, Change, DataplaneError, DataplaneErrorKind, Explanation, HostJudgement, Origin,
    Program, Reason, Verdict,
};

use super::feed::Feed;
use super::model::packets_only;
use super::{Observation, Subject, SubjectError};
use crate::cluster::{Cluster, Pod};
use crate::explain::reasons;
use crate::scenario::{Attempt, Step};
use crate::topology::{Host, UPLINK};

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
            node.feed.update(&step.cluster, |object| attach(object, &step.cluster))?;
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
    /// A connection passes if the node of its source lets it out and the node of its destination lets it in, the host
    /// endpoints of both included.
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
        let hosts = self.host_judgements(cluster, attempt);
        let halves = [&egress, &ingress].into_iter().flatten();
        let said = halves.chain(hosts.iter().map(|it| &it.explanation));
        let verdict = said.map(|it| it.verdict).max().unwrap_or(Verdict::Allow);
        let why = reasons(egress.as_ref(), ingress.as_ref(), &hosts, inputs);
        let observed = Observation::of(verdict, Some(why));
        let reason = |half: Option<Explanation>| half.map_or(Reason::NoEndpoint, |it| it.reason);
        observed.because(reason(egress), reason(ingress))
    }

    /// Returns what the host endpoints of all nodes on the way say.
    fn host_judgements(&self, cluster: &Cluster, attempt: &Attempt) -> Vec<HostJudgement> {
        let (source, destination) = (&attempt.source, &attempt.destination);
        let [from, to] = [source, destination].map(|host| cluster.node_of(host));
        let flow = attempt.flow;
        let judgements = |node: &str, input: Option<&str>, output: Option<&str>| {
            let passage = Passage { input, output, flow, before_nat: flow };
            self.nodes.get(node).map(|it| it.program.host_judgements(&passage)).unwrap_or_default()
        };
        let [input, output] = [source, destination].map(|host| interface_of(cluster, host));
        let (input, output) = (input.as_deref(), output.as_deref());
        match (from, to) {
            // What a host sends to itself passes none of its interfaces.
            (Some(_), Some(_)) if source == destination => Vec::new(),
            (Some(from), Some(to)) if from == to => judgements(from, input, output),
            (from, to) => {
                let leaving = from.map(|node| judgements(node, input, Some(UPLINK)));
                let entering = to.map(|node| judgements(node, Some(UPLINK), output));
                leaving.into_iter().chain(entering).flatten().collect()
            }
        }
    }

    fn outcome(&self, node: &str, attempt: &Attempt, origin: Origin) -> Option<Outcome> {
        Some(self.nodes.get(node)?.program.outcome(&attempt.flow.from_origin(origin)))
    }
}

/// Returns the name of the interface that a node has for a host; `None` for a process of the node itself.
fn interface_of(cluster: &Cluster, host: &Host) -> Option<String> {
    match host {
        Host::Pod(id) => cluster.pods().get(id).map(interface_of_pod),
        Host::Node(_) => None,
        Host::External(_) => Some(UPLINK.to_owned()),
    }
}

fn interface_of_pod(pod: &Pod) -> String {
    format!("pod{}", pod.incarnation)
}

/// Tells an engine how the packets of a pod are known.
fn attach(object: &mut Object, cluster: &Cluster) {
    if let Object::Endpoint(endpoint) = object
        && endpoint.id.kind == EndpointKind::Workload
        && let Some(pod) = cluster.pods().get(&endpoint.id.to_string())
        && !pod.own_addresses().is_empty()
    {
        endpoint.attachment = Attachment::Interface(interface_of_pod(pod));
    }
}
