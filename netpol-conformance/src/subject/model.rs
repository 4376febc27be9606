//! The judge as a subject.

use std::fmt::Write;

use netpol_core::eval::{Evaluation, Judge, Judgement};
use netpol_core::model::{EndpointId, Inputs};
use netpol_core::{Capabilities, Direction, Flow, HostJudgement, Verdict};

use super::{Observation, Subject, SubjectError};
use crate::cluster::{Cluster, Leg, Receiver};
use crate::explain::reasons;
use crate::scenario::{Attempt, Step};

/// The judge: what the policies of a cluster mean.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Model;

impl Subject for Model {
    fn play(&mut self, step: &Step, _later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
        let inputs = step.cluster.inputs();
        let judges = Judges::new(&inputs, &step.cluster);
        let observe = |attempt| {
            let ways = judges.ways(&step.cluster, attempt);
            let Some(worst) = worst(&ways) else { return Observation::no_backend() };
            let verdicts = |it: &Evaluation| (it.enforced.verdict(), it.pending.verdict());
            if ways.iter().any(|it| verdicts(it) != verdicts(worst)) {
                return Observation::error("the backends of the Service are judged differently");
            }
            observe(worst, &inputs)
        };
        Ok(step.attempts.iter().map(observe).collect())
    }

    fn inability(&self, attempt: &Attempt) -> Option<String> {
        knows_no_sender(attempt)
    }
}

fn observe(evaluation: &Evaluation, inputs: &Inputs) -> Observation {
    let Evaluation { enforced, pending, .. } = evaluation.clone();
    let reasons = reasons(Some(&enforced.egress), Some(&enforced.ingress), &enforced.hosts, inputs);
    let observed = Observation::of(enforced.verdict(), Some(reasons))
        .because(enforced.egress.reason, enforced.ingress.reason);
    Observation { pending: Some(pending.verdict()), ..observed }
}

/// Returns why nothing can be said of a packet that is sent in another's name by whoever knows senders by that alone.
pub(super) fn knows_no_sender(attempt: &Attempt) -> Option<String> {
    attempt.forged.is_some().then(|| "knows senders by their addresses".to_owned())
}

/// Returns what a dataplane can do at most: without an enforcer behind it that looks into connections.
pub(crate) const fn packets_only() -> Capabilities {
    let mut capabilities = Capabilities::all();
    capabilities.http = false;
    capabilities
}

/// What a dataplane can do that judges packets.
const OF_PACKETS: Capabilities = packets_only();

/// What a dataplane can do that has somebody behind it who judges requests.
const OF_REQUESTS: Capabilities = Capabilities::all();

/// The judges of one state: requests need somebody to judge them, and everything else is judged as packets are.
pub(crate) struct Judges<'a> {
    inputs: &'a Inputs,
    of_packets: Judge<'a>,
    of_requests: Judge<'a>,
}

impl<'a> Judges<'a> {
    /// Returns the judges of a cluster, of which these are the inputs.
    pub(crate) fn new(inputs: &'a Inputs, cluster: &Cluster) -> Self {
        let judge = |capabilities| {
            let judge = Judge::new(inputs, capabilities).with_settings(cluster.settings().clone());
            match cluster.unknown_interfaces() {
                Some(treatment) => judge.with_unknown(cluster.unknown_addresses(), treatment),
                None => judge,
            }
        };
        Self { inputs, of_packets: judge(&OF_PACKETS), of_requests: judge(&OF_REQUESTS) }
    }

    /// Returns what is said of an attempt; if it may be received by several hosts, of one that it does not reach, if there
    /// is such. To a Service without backends it is judged as nobody translates it.
    pub(crate) fn evaluate(&self, cluster: &Cluster, attempt: &Attempt) -> Evaluation {
        let direct = || self.evaluate_flow(attempt, &attempt.flow, &attempt.flow);
        worst(&self.ways(cluster, attempt)).cloned().unwrap_or_else(direct)
    }

    /// Returns what is said of an attempt for each host that may receive it.
    fn ways(&self, cluster: &Cluster, attempt: &Attempt) -> Vec<Evaluation> {
        if !attempt.is_translated() {
            return vec![self.evaluate_flow(attempt, &attempt.flow, &attempt.flow)];
        }
        let way = |receiver| self.evaluate_way(cluster, attempt, receiver);
        attempt.receivers.iter().filter_map(way).collect()
    }

    /// Its sender is judged on the packet that its own node sends on, its receiver on the one that comes there.
    fn evaluate_way(
        &self,
        cluster: &Cluster,
        attempt: &Attempt,
        receiver: &Receiver,
    ) -> Option<Evaluation> {
        let legs = cluster.legs(attempt, receiver);
        let last = legs.last()?;
        let at_legs: Vec<_> = legs
            .iter()
            .map(|leg| (leg, self.evaluate_flow(attempt, &leg.flow, &leg.before_nat)))
            .collect();
        let entering = self.evaluate_flow(attempt, &last.entering, &last.before_nat);
        let mut whole = at_legs.first()?.1.clone();
        self.join(
            &mut whole.enforced,
            entering.enforced,
            at_legs.iter().map(|(leg, it)| (*leg, &it.enforced)),
        );
        self.join(
            &mut whole.pending,
            entering.pending,
            at_legs.iter().map(|(leg, it)| (*leg, &it.pending)),
        );
        Some(whole)
    }

    /// Makes the judgement on the first leg one on the whole way.
    fn join<'b>(
        &self,
        whole: &mut Judgement,
        entering: Judgement,
        legs: impl Iterator<Item = (&'b Leg, &'b Judgement)>,
    ) {
        let at = |node: &str, id: &EndpointId| {
            let mut hosts = self.inputs.endpoints().filter(|it| it.id == *id);
            hosts.any(|it| it.node.as_deref() == Some(node))
        };
        let hosts = legs.flat_map(|(leg, judgement)| {
            let hosts = judgement.hosts.iter();
            hosts.filter(|it| at(&leg.node, &it.endpoint)).cloned()
        });
        whole.hosts = hosts.collect();
        whole.destination = entering.destination;
        whole.ingress = entering.ingress;
    }

    fn evaluate_flow(&self, attempt: &Attempt, flow: &Flow, before_nat: &Flow) -> Evaluation {
        match &attempt.http {
            Some(request) => self.of_requests.evaluate_request(flow, request),
            None => self.of_packets.evaluate_translated(flow, before_nat),
        }
    }
}

/// Returns one that denies, if there is one.
fn worst(ways: &[Evaluation]) -> Option<&Evaluation> {
    ways.iter().max_by_key(|it| it.enforced.verdict())
}

/// Returns a judgement in one line: what denies, or everything if all allow.
#[must_use]
pub fn summary(judgement: &Judgement) -> String {
    let Judgement { egress, ingress, hosts, .. } = judgement;
    let halves = [(Direction::Egress, egress), (Direction::Ingress, ingress)];
    let halves = halves.map(|(direction, half)| (direction.to_string(), half));
    let hosts =
        hosts.iter().map(|HostJudgement { endpoint, bucket, direction, explanation, .. }| {
            (format!("{bucket} {direction} of {endpoint}"), explanation)
        });
    let denied = judgement.verdict() == Verdict::Deny;
    let mut text = String::new();
    for (title, half) in halves.into_iter().chain(hosts) {
        if !denied || half.verdict == Verdict::Deny {
            let separator = if text.is_empty() { "" } else { "; " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{title}: ");
            for step in &half.steps {
                let _ = write!(text, "{step}; ");
            }
            let _ = write!(text, "{}", half.reason);
        }
    }
    text
}
