//! The judge as a subject.

use std::fmt::Write;

use netpol_core::eval::{Evaluation, Judge, Judgement};
use netpol_core::model::{HostSettings, Inputs};
use netpol_core::{Capabilities, Direction, HostJudgement, Verdict};

use super::{Observation, Subject, SubjectError};
use crate::explain::reasons;
use crate::scenario::{Attempt, Step};

/// The judge: what the policies of a cluster mean.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Model;

impl Subject for Model {
    fn play(&mut self, step: &Step, _later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
        let inputs = step.cluster.inputs();
        let judges = Judges::new(&inputs, step.cluster.settings());
        let observe = |attempt| observe(judges.evaluate(attempt), &inputs);
        Ok(step.attempts.iter().map(observe).collect())
    }

    fn inability(&self, _attempt: &Attempt) -> Option<String> {
        None
    }
}

fn observe(evaluation: Evaluation, inputs: &Inputs) -> Observation {
    let Evaluation { enforced, pending, .. } = evaluation;
    let reasons = reasons(Some(&enforced.egress), Some(&enforced.ingress), &enforced.hosts, inputs);
    let observed = Observation::of(enforced.verdict(), Some(reasons))
        .because(enforced.egress.reason, enforced.ingress.reason);
    Observation { pending: Some(pending.verdict()), ..observed }
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
    of_packets: Judge<'a>,
    of_requests: Judge<'a>,
}

impl<'a> Judges<'a> {
    pub(crate) fn new(inputs: &'a Inputs, settings: &HostSettings) -> Self {
        let judge = |capabilities| Judge::new(inputs, capabilities).with_settings(settings.clone());
        Self { of_packets: judge(&OF_PACKETS), of_requests: judge(&OF_REQUESTS) }
    }

    /// Returns what is said of an attempt.
    pub(crate) fn evaluate(&self, attempt: &Attempt) -> Evaluation {
        match &attempt.http {
            Some(request) => self.of_requests.evaluate_request(&attempt.flow, request),
            None => self.of_packets.evaluate(&attempt.flow),
        }
    }
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
