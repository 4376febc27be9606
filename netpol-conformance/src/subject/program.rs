//! Programs as a subject: what the engines of all nodes would have their dataplanes enforce.

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_core::model::{Attachment, EndpointKind, Inputs, Object};
use netpol_core::program::Passage;
use netpol_core::{
    Applied, Change, DataplaneError, DataplaneErrorKind, Explanation, Program, Reason, Verdict,
};

use super::feed::Feed;
use super::model::{knows_no_sender, packets_only};
use super::{Observation, Subject, SubjectError, no_requests};
use crate::cluster::{Cluster, Link, Pod, Receiver};
use crate::explain::reasons;
use crate::scenario::{Attempt, Step};
use crate::topology::{POD_INTERFACES, UPLINK};

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
            let fresh = || ProgramNode {
                feed: Feed::new(name, &step.cluster, &packets_only()),
                program: Arc::default(),
            };
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

    fn inability(&self, attempt: &Attempt) -> Option<String> {
        no_requests(attempt).or_else(|| knows_no_sender(attempt))
    }
}

impl Programs {
    fn observe(&self, cluster: &Cluster, inputs: &Inputs, attempt: &Attempt) -> Observation {
        let way = |receiver| self.observe_way(cluster, inputs, attempt, receiver);
        let ways: Vec<_> = attempt.receivers.iter().map(way).collect();
        match &ways[..] {
            [] => Observation::no_backend(),
            [first, others @ ..] if others.iter().any(|it| it.got != first.got) => {
                Observation::error("the backends of the Service are judged differently")
            }
            [first, ..] => first.clone(),
        }
    }

    /// A connection passes if the node of its source lets it out and the node of its destination lets it in, the host
    /// endpoints of all nodes on the way included.
    fn observe_way(
        &self,
        cluster: &Cluster,
        inputs: &Inputs,
        attempt: &Attempt,
        receiver: &Receiver,
    ) -> Observation {
        let legs = cluster.legs(attempt, receiver);
        let (mut egress, mut ingress, mut hosts) = (None, None, Vec::new());
        for leg in &legs {
            let Some(ProgramNode { program, .. }) = self.nodes.get(&leg.node) else { continue };
            let interface = |link: &Option<Link>| link.as_ref().map(|it| interface_of(cluster, it));
            let [input, output] = [&leg.input, &leg.output].map(interface);
            let passage = |flow| Passage {
                input: input.as_deref(),
                output: output.as_deref(),
                flow,
                before_nat: leg.before_nat,
            };
            let leaving = passage(leg.flow);
            if matches!(leg.input, Some(Link::Pod(_))) {
                egress = program.outcome_of(&leaving).egress;
            }
            if matches!(leg.output, Some(Link::Pod(_))) {
                ingress = program.outcome_of(&passage(leg.entering)).ingress;
            }
            hosts.extend(program.host_judgements(&leaving));
        }
        if legs.is_empty() {
            let own = |node: &str| self.nodes.get(node).map(|it| it.program.outcome(&attempt.flow));
            let own = cluster.node_of(&attempt.source).and_then(own);
            (egress, ingress) = own.map_or((None, None), |it| (it.egress, it.ingress));
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

/// Returns the name of an interface of a node.
fn interface_of(cluster: &Cluster, link: &Link) -> String {
    match link {
        Link::Pod(id) => cluster.pods().get(id).map(interface_of_pod).unwrap_or_default(),
        Link::Uplink => UPLINK.to_owned(),
    }
}

fn interface_of_pod(pod: &Pod) -> String {
    format!("{POD_INTERFACES}{}", pod.incarnation)
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
