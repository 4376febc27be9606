//! Programs as a subject: what the engines of all nodes would have their dataplanes enforce.

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_core::model::{Attachment, EndpointKind, Inputs, Object};
use netpol_core::program::Passage;
use netpol_core::{
    Applied, Change, DataplaneError, DataplaneErrorKind, Explanation, Origin, Program, Reason,
    Verdict,
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
        let (mut egress, mut ingress, mut hosts) = (None, None, Vec::new());
        let [input, output] =
            [&attempt.source, &attempt.destination].map(|host| interface_of(cluster, host));
        for (node, passage) in passages(cluster, attempt, input.as_deref(), output.as_deref()) {
            let Some(ProgramNode { program, .. }) = self.nodes.get(node) else { continue };
            let outcome = program.outcome_of(&passage);
            egress = egress.or(outcome.egress);
            ingress = ingress.or(outcome.ingress);
            // What a host sends to itself passes none of its interfaces.
            if attempt.source != attempt.destination {
                let passage = Passage { flow: attempt.flow, ..passage };
                hosts.extend(program.host_judgements(&passage));
            }
        }
        let halves = [&egress, &ingress].into_iter().flatten();
        let said = halves.chain(hosts.iter().map(|it| &it.explanation));
        let verdict = said.map(|it| it.verdict).max().unwrap_or(Verdict::Allow);
        let why = reasons(egress.as_ref(), ingress.as_ref(), &hosts, inputs);
        let observed = Observation::of(verdict, Some(why));
        let reason = |half: Option<Explanation>| half.map_or(Reason::NoEndpoint, |it| it.reason);
        observed.because(reason(egress), reason(ingress))
    }
}

/// Returns the nodes on the way of an attempt, and its way through each. `input` and `output` are the interfaces of its
/// ends on their nodes.
fn passages<'a>(
    cluster: &'a Cluster,
    attempt: &'a Attempt,
    input: Option<&'a str>,
    output: Option<&'a str>,
) -> Vec<(&'a str, Passage<'a>)> {
    let passage = |input, output, flow| Passage { input, output, flow, before_nat: attempt.flow };
    let ends = [&attempt.source, &attempt.destination].map(|host| cluster.node_of(host));
    if let [Some(from), Some(to)] = ends
        && from == to
    {
        return vec![(from, passage(input, output, attempt.flow))];
    }
    let forwarded = attempt.flow.from_origin(Origin::Forwarded);
    let ways =
        [passage(input, Some(UPLINK), attempt.flow), passage(Some(UPLINK), output, forwarded)];
    ends.into_iter().zip(ways).filter_map(|(node, way)| Some((node?, way))).collect()
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
