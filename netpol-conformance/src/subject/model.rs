//! The judge as a subject.

use std::fmt::Write;

use netpol_core::eval::{Judge, Judgement};
use netpol_core::{Capabilities, Direction, Explanation, Verdict};

use super::{Observation, Subject, SubjectError};
use crate::scenario::Step;

/// The judge: what the policies of a cluster mean.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Model;

impl Subject for Model {
    fn play(&mut self, step: &Step, _later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
        let (inputs, capabilities) = (step.cluster.inputs(), Capabilities::all());
        let judge = Judge::new(&inputs, &capabilities);
        let observe =
            |judgement: Judgement| Observation::of(judgement.verdict(), Some(summary(&judgement)));
        Ok(step
            .attempts
            .iter()
            .map(|attempt| observe(judge.evaluate(&attempt.flow).enforced))
            .collect())
    }
}

/// Returns a judgement in one line: the half that denies, or both if both allow.
#[must_use]
pub fn summary(judgement: &Judgement) -> String {
    let Judgement { egress, ingress, .. } = judgement;
    halves(Some(egress), Some(ingress))
}

/// As [`summary`], of the halves that were judged.
pub(super) fn halves(egress: Option<&Explanation>, ingress: Option<&Explanation>) -> String {
    let halves = [(Direction::Egress, egress), (Direction::Ingress, ingress)];
    let judged = || halves.iter().filter_map(|(direction, half)| Some((direction, (*half)?)));
    let denied = judged().any(|(_, half)| half.verdict == Verdict::Deny);
    let mut text = String::new();
    for (direction, half) in judged().filter(|(_, half)| !denied || half.verdict == Verdict::Deny) {
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{direction}: ");
        for step in &half.steps {
            let _ = write!(text, "{step}; ");
        }
        let _ = write!(text, "{}", half.reason);
    }
    text
}
