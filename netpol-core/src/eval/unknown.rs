//! What becomes of flows of whoever is behind an interface that looks like that of a workload and belongs to none.

use super::matching::Sides;
use super::{Judge, carries, is_discovery, is_router_message};
use crate::flow::{Direction, Origin};
use crate::model::Treatment;
use crate::net::PrefixSet;
use crate::verdict::{Explanation, Reason, Verdict};

/// Who is behind unknown interfaces, and how they are treated.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    pub(super) addresses: PrefixSet,
    pub(super) treatment: Treatment,
}

impl Judge<'_> {
    /// Judges the half of a flow whose end belongs to no endpoint.
    pub(super) fn judge_stranger(&self, direction: Direction, sides: &Sides<'_>) -> Explanation {
        let flow = &sides.flow;
        let side = match direction {
            Direction::Ingress => &sides.destination,
            Direction::Egress => &sides.source,
        };
        let mut nodes = self.inputs.nodes.values();
        let is_known = side.owner.is_some() || nodes.any(|it| it.addresses.contains(&side.address));
        if is_known || !self.strangers.addresses.contains(side.address) {
            return Explanation::at_once(Verdict::Allow, Reason::NoEndpoint);
        }
        let (verdict, reason) = if is_router_message(flow) && direction == Direction::Egress {
            (Verdict::Deny, Reason::RouterMessage)
        } else if is_discovery(flow) || is_router_message(flow) {
            (Verdict::Allow, Reason::NeighbourDiscovery)
        } else {
            let is_of_node = flow.origin == Origin::OwnNode;
            match self.strangers.treatment {
                Treatment::Closed => (Verdict::Deny, Reason::Unknown),
                _ if direction == Direction::Egress
                    && carries(flow, &self.settings.denied_encapsulation) =>
                {
                    (Verdict::Deny, Reason::Encapsulated)
                }
                Treatment::Open | Treatment::EgressTracked if is_of_node => {
                    (Verdict::Allow, Reason::OwnNode)
                }
                Treatment::EgressTracked if direction == Direction::Ingress => {
                    (Verdict::Deny, Reason::Unknown)
                }
                Treatment::Open | Treatment::EgressTracked => (Verdict::Allow, Reason::Unknown),
            }
        };
        Explanation::at_once(verdict, reason)
    }
}
