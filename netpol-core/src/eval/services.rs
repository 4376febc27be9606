//! Flows to Services, judged before they are translated.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::matching::Sides;
use super::{Half, Judge, Scope};
use crate::dataplane::DestinationView;
use crate::flow::{Direction, Flow, Payload};
use crate::model::{NamedPort, Service, ServicePort};
use crate::program::Backend;
use crate::verdict::{Explanation, Reason, Step, Verdict};

impl Judge<'_> {
    /// Returns the backends of the Service that a flow of an endpoint goes to; `None` if it goes to none, or is judged when
    /// it has been translated.
    pub(super) fn backends(&self, half: &Half<'_>) -> Option<BTreeSet<Backend>> {
        let flow = &half.sides.flow;
        let Payload::Ports { transport, destination, .. } = flow.payload else { return None };
        if half.direction == Direction::Ingress
            || self.capabilities.destination_view == DestinationView::AfterDestinationNat
        {
            return None;
        }
        let own_node = half.endpoint.node.as_ref().and_then(|it| self.inputs.nodes.get(it));
        let is_own_node = own_node.is_some_and(|node| {
            let of_interfaces = node.interfaces.iter().flat_map(|it| &it.addresses);
            node.addresses.iter().chain(of_interfaces).any(|it| *it == flow.destination)
        });
        let is_meant = |service: &Service, port: &ServicePort| {
            let is_own = service.addresses.contains(&flow.destination) && port.port == destination;
            port.transport == transport
                && (is_own || is_own_node && port.node_port == Some(destination))
        };
        let mut backends = None;
        for service in self.inputs.services.values() {
            for port in service.ports.iter().filter(|port| is_meant(service, port)) {
                let known: &mut BTreeSet<_> = backends.get_or_insert_default();
                known.extend(self.listed(service, port, flow));
            }
        }
        backends
    }

    fn listed(&self, service: &Service, port: &ServicePort, flow: &Flow) -> Vec<Backend> {
        let mut listed = Vec::new();
        for slice in self.inputs.endpoint_slices.values().filter(|it| it.service == service.name) {
            let is_meant = |it: &&NamedPort| it.name == port.name && it.transport == port.transport;
            for number in slice.ports.iter().filter(is_meant).map(|it| it.port) {
                let of_family =
                    slice.addresses.iter().filter(|it| it.is_ipv4() == flow.destination.is_ipv4());
                listed.extend(of_family.map(|it| Backend { address: *it, port: number }));
            }
        }
        listed
    }

    /// Returns whether any policy applies.
    pub(super) fn is_governed(&self, half: &Half<'_>, scope: Scope) -> bool {
        self.levels.iter().any(|level| !self.applicable(level, half, scope).is_empty())
    }

    /// Asks policy about each backend in the place of the Service's address. All must be allowed.
    pub(super) fn ask_about_all(
        &self,
        backends: &BTreeSet<Backend>,
        half: &Half<'_>,
        scope: Scope,
    ) -> Explanation {
        let mut allowed = None;
        for backend in backends {
            let mut flow = half.sides.flow;
            flow.destination = backend.address;
            if let Payload::Ports { destination, .. } = &mut flow.payload {
                *destination = backend.port;
            }
            let sides = Sides::new(self.inputs, &self.owners, &flow, half.sides.request);
            let mut explanation = self.ask_tiers(&Half { sides: &sides, ..*half }, scope);
            explanation.steps.insert(0, Step::Backend(*backend));
            if explanation.verdict == Verdict::Deny {
                return explanation;
            }
            allowed.get_or_insert(explanation);
        }
        allowed.unwrap_or_else(|| Explanation::at_once(Verdict::Deny, Reason::NoBackends))
    }
}
