//! What the judge says, for programs and for people.

use alloc::vec::Vec;
use core::fmt;

use crate::flow::Direction;
use crate::model::EndpointId;
use crate::verdict::{Explanation, HostJudgement, Verdict};

/// The judgement in force, and the one that staged policies would lead to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// By the enforced policies.
    pub enforced: Judgement,
    /// As if staged policies were enforced too; equal to [`enforced`](Self::enforced) if there are none.
    pub pending: Judgement,
}

/// Both halves of a judged flow.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Judgement {
    /// The endpoint that sends, if any.
    pub source: Option<EndpointId>,
    /// The verdict on the way out of it.
    pub egress: Explanation,
    /// The endpoint that is to receive, if any.
    pub destination: Option<EndpointId>,
    /// The verdict on the way into it.
    pub ingress: Explanation,
    /// What the host endpoints say that it passes, in order, up to the first that denies.
    pub hosts: Vec<HostJudgement>,
}

impl Judgement {
    /// Returns the verdict on the connection: it passes if both halves and all host endpoints allow it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let of_hosts = self.hosts.iter().map(|it| it.explanation.verdict);
        let verdicts = [self.egress.verdict, self.ingress.verdict].into_iter().chain(of_hosts);
        verdicts.max().unwrap_or(Verdict::Allow)
    }
}

impl fmt::Display for Judgement {
    /// Writes the verdict, and below it, indented, each half with the steps and the reason. No line end follows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict())?;
        write_half(f, Direction::Egress, self.source.as_ref(), &self.egress)?;
        write_half(f, Direction::Ingress, self.destination.as_ref(), &self.ingress)?;
        self.hosts.iter().try_for_each(|it| write!(f, "\n  {it}"))
    }
}

impl fmt::Display for Evaluation {
    /// Writes the judgement in force, and the pending one if it is another. No line end follows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.enforced)?;
        if self.pending != self.enforced {
            write!(f, "\nwith staged policies: {}", self.pending)?;
        }
        Ok(())
    }
}

fn write_half(
    f: &mut fmt::Formatter<'_>,
    direction: Direction,
    endpoint: Option<&EndpointId>,
    explanation: &Explanation,
) -> fmt::Result {
    write!(f, "\n  {direction}")?;
    if let Some(endpoint) = endpoint {
        write!(f, " of {endpoint}")?;
    }
    write!(f, ": {}", explanation.verdict)?;
    for step in &explanation.steps {
        write!(f, "\n    {step}")?;
    }
    write!(f, "\n    {}", explanation.reason)
}
