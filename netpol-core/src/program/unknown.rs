//! The meaning of a program at interfaces that look like those of workloads and belong to none.

use super::host::Passage;
use super::interp::{Outcome, discovery};
use super::{Endpoint, Program};
use crate::flow::{Direction, Flow, Origin};
use crate::model::{Attachment, Treatment};
use crate::verdict::{Explanation, Reason, Verdict};

impl Program {
    /// Returns whether an interface looks like that of a workload and belongs to none of the program.
    #[must_use]
    pub fn is_unknown(&self, interface: &str) -> bool {
        self.unknown.look_like(interface) && self.workload_at(interface).is_none()
    }

    /// Returns what becomes of a new flow at the unknown interfaces that it passes. [`Self::outcome`] knows nothing of them.
    #[must_use]
    pub fn unknown_outcome(&self, passage: &Passage<'_>) -> Outcome {
        let half = |direction, interface: Option<&str>| {
            interface.filter(|it| self.is_unknown(it))?;
            Some(self.explain_unknown(direction, &passage.flow))
        };
        Outcome {
            egress: half(Direction::Egress, passage.input),
            ingress: half(Direction::Ingress, passage.output),
        }
    }

    fn explain_unknown(&self, direction: Direction, flow: &Flow) -> Explanation {
        if let Some(known) = discovery(direction, flow) {
            return known;
        }
        let (verdict, reason) = match (self.unknown.treatment, direction) {
            (Treatment::Closed, _) => (Verdict::Deny, Reason::Unknown),
            (_, Direction::Egress) if self.denies_to_send(flow) => {
                (Verdict::Deny, Reason::Encapsulated)
            }
            (_, Direction::Ingress) if flow.origin == Origin::OwnNode => {
                (Verdict::Allow, Reason::OwnNode)
            }
            (Treatment::EgressTracked, Direction::Ingress) => (Verdict::Deny, Reason::Unknown),
            (Treatment::Open | Treatment::EgressTracked, _) => (Verdict::Allow, Reason::Unknown),
        };
        Explanation::at_once(verdict, reason)
    }

    pub(super) fn workload_at(&self, interface: &str) -> Option<&Endpoint> {
        let is_its = |it: &&Endpoint| matches!(&it.attachment, Attachment::Interface(own) if own == interface);
        self.endpoints.iter().find(is_its)
    }
}
