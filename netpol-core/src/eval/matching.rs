//! Whether a rule's conditions hold for a flow.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::order::Owners;
use crate::flow::{Flow, Payload};
use crate::model::{
    DomainName, Endpoint, EndpointLabels, EndpointSlice, EntityMatch, HttpMatch, HttpRequest,
    Inputs, L4Match, NetworkSet, Node, Peers, PortConstraint, PortMatch, RuleMatch, ServiceName,
    Tenancy, keys,
};
use crate::net::{Family, IcmpMatch, Transport};
use crate::selector::{LabelView, Selector};

/// A flow, and what the model knows of its two addresses.
pub(super) struct Sides<'a> {
    pub(super) flow: Flow,
    /// `None` if it is not known whether the flow is HTTP.
    pub(super) request: Option<&'a HttpRequest>,
    pub(super) source: Side<'a>,
    pub(super) destination: Side<'a>,
}

/// What the model knows of an address.
pub(super) struct Side<'a> {
    inputs: &'a Inputs,
    pub(super) address: IpAddr,
    /// The workload that owns it.
    pub(super) owner: Option<&'a Endpoint>,
    /// The host endpoints that list it.
    hosts: Vec<&'a Endpoint>,
    network_sets: Vec<&'a NetworkSet>,
    nodes: Vec<&'a Node>,
    domain_names: Vec<&'a DomainName>,
    /// The slices that list it.
    slices: Vec<&'a EndpointSlice>,
}

impl<'a> Sides<'a> {
    pub(super) fn new(
        inputs: &'a Inputs,
        owners: &Owners<'a>,
        flow: &Flow,
        request: Option<&'a HttpRequest>,
    ) -> Self {
        let side = |address| Side {
            inputs,
            address,
            owner: owners.workloads.get(&address).copied(),
            hosts: owners
                .hosts
                .iter()
                .filter(|it| it.addresses.contains(&address))
                .copied()
                .collect(),
            network_sets: inputs
                .network_sets
                .values()
                .filter(|set| set.nets.contains(address))
                .collect(),
            nodes: inputs.nodes.values().filter(|node| node.addresses.contains(&address)).collect(),
            domain_names: inputs
                .domain_addresses
                .iter()
                .filter(|(_, addresses)| addresses.contains_key(&address))
                .map(|(name, _)| name)
                .collect(),
            slices: inputs
                .endpoint_slices
                .values()
                .filter(|slice| slice.addresses.contains(&address))
                .collect(),
        };
        let (source, destination) = (side(flow.source), side(flow.destination));
        Self { flow: *flow, request, source, destination }
    }

    /// Returns the same for a packet that answers.
    pub(super) fn reversed(&self, inputs: &'a Inputs, owners: &Owners<'a>) -> Self {
        let payload = match self.flow.payload {
            Payload::Ports { transport, source, destination } => {
                Payload::Ports { transport, source: destination, destination: source }
            }
            Payload::Icmp { kind, code } => {
                Payload::Icmp { kind: echo_reply(kind, self.flow.family()), code }
            }
            other @ Payload::Other(_) => other,
        };
        let (source, destination) = (self.flow.destination, self.flow.source);
        Self::new(inputs, owners, &Flow { source, destination, payload, ..self.flow }, None)
    }
}

impl Side<'_> {
    fn owner_is(&self, selector: &Selector) -> bool {
        self.owner.is_some_and(|owner| selector.matches(&self.inputs.labels_of(owner)))
    }

    /// Returns whether the address belongs to an endpoint or network set that `selector` selects.
    fn belongs_to(&self, selector: &Selector) -> bool {
        let selects = |set: &&NetworkSet| selector.matches(&self.inputs.labels_of_set(set));
        self.owner_is(selector)
            || self.hosts_selected(selector).next().is_some()
            || self.network_sets.iter().any(selects)
    }

    fn hosts_selected(&self, selector: &Selector) -> impl Iterator<Item = &'_ Endpoint> {
        let selected = |it: &&Endpoint| selector.matches(&self.inputs.labels_of(it));
        self.hosts.iter().copied().filter(selected)
    }

    fn owner_is_tenant(&self, endpoints: &Selector, tenancy: &Tenancy, subject: &Endpoint) -> bool {
        self.owner.is_some_and(|owner| {
            let labels = self.inputs.labels_of(owner);
            endpoints.matches(&labels)
                && are_tenants(tenancy, &labels, &self.inputs.labels_of(subject))
        })
    }

    fn is_one_of(&self, peers: &Peers, subject: &Endpoint) -> bool {
        match peers {
            Peers::Endpoints(selector) => self.belongs_to(selector),
            Peers::Tenants { endpoints, tenancy } => {
                let own = self.inputs.labels_of(subject);
                self.owner_is_tenant(endpoints, tenancy, subject)
                    || self.network_sets.iter().any(|set| {
                        let labels = self.inputs.labels_of_set(set);
                        endpoints.matches(&labels) && are_tenants(tenancy, &labels, &own)
                    })
            }
            Peers::Nodes(selector) => self.nodes.iter().any(|node| selector.matches(&node.labels)),
            Peers::DomainNames(patterns) => {
                let is_meant = |name: &&DomainName| patterns.iter().any(|it| it.matches(name));
                self.domain_names.iter().any(is_meant)
            }
            Peers::BackendsOf(service) => self.slices.iter().any(|it| it.service == *service),
        }
    }

    fn meets(&self, entity: &EntityMatch, subject: &Endpoint) -> bool {
        let EntityMatch { peers, not_peers, nets, not_nets } = entity;
        peers.as_ref().is_none_or(|peers| self.is_one_of(peers, subject))
            && not_peers.as_ref().is_none_or(|selector| !self.belongs_to(selector))
            && nets.as_ref().is_none_or(|nets| nets.contains(self.address))
            && !not_nets.contains(self.address)
    }

    fn is_port_of(&self, service: &ServiceName, transport: Transport, port: u16) -> bool {
        let slices = self.slices.iter().filter(|it| it.service == *service);
        slices.flat_map(|it| &it.ports).any(|it| it.transport == transport && it.port == port)
    }

    /// Returns whether `port` is in a list, where names are those that the owner of the address gives. If the side's
    /// peers are selected, the names of an owner that is not among them do not count.
    fn lists(
        &self,
        list: &PortMatch,
        entity: &EntityMatch,
        subject: &Endpoint,
        transport: Transport,
        port: u16,
    ) -> bool {
        let is_counted = match &entity.peers {
            Some(Peers::Endpoints(selector)) => self.owner_is(selector),
            Some(Peers::Tenants { endpoints, tenancy }) => {
                self.owner_is_tenant(endpoints, tenancy, subject)
            }
            Some(Peers::Nodes(_) | Peers::DomainNames(_) | Peers::BackendsOf(_)) | None => true,
        };
        let hosts: Vec<_> = match &entity.peers {
            Some(Peers::Endpoints(selector)) => self.hosts_selected(selector).collect(),
            _ => self.hosts.clone(),
        };
        let owners = self.owner.filter(|_| is_counted).into_iter().chain(hosts);
        list.numbers.contains(port)
            || list.backends_of.as_ref().is_some_and(|it| self.is_port_of(it, transport, port))
            || owners.flat_map(|it| &it.ports).any(|it| {
                it.transport == transport && it.port == port && list.names.contains(&it.name)
            })
    }

    fn meets_ports(
        &self,
        ports: &PortConstraint<PortMatch>,
        entity: &EntityMatch,
        subject: &Endpoint,
        transport: Transport,
        port: u16,
    ) -> bool {
        let PortConstraint { any_of, none_of } = ports;
        let listed = |list| self.lists(list, entity, subject, transport, port);
        any_of.as_ref().is_none_or(listed) && !none_of.as_ref().is_some_and(listed)
    }
}

/// Returns the type of the message that answers an echo request (RFC 792, RFC 4443); others are not answered.
const fn echo_reply(kind: u8, family: Family) -> u8 {
    match (family, kind) {
        (Family::V4, 8) => 0,
        (Family::V6, 128) => 129,
        _ => kind,
    }
}

/// Returns whether two namespaces stand so to each other, by what selectors see of things in them.
fn are_tenants(tenancy: &Tenancy, one: &EndpointLabels<'_>, other: &EndpointLabels<'_>) -> bool {
    let (Tenancy::Same(keys) | Tenancy::NotSame(keys)) = tenancy;
    let mut differ = false;
    for key in keys {
        let key = [keys::NAMESPACE_PREFIX, key].concat();
        let (Some(one), Some(other)) = (one.value(&key), other.value(&key)) else {
            return false;
        };
        differ |= one != other;
    }
    match tenancy {
        Tenancy::Same(keys) => !keys.is_empty() && !differ,
        Tenancy::NotSame(_) => differ,
    }
}

/// Returns whether a flow meets all conditions of a rule that `subject` is asked about. A flow of which no request is known
/// meets those on requests: a connection may carry any.
pub(super) fn rule_matches(matches: &RuleMatch, sides: &Sides<'_>, subject: &Endpoint) -> bool {
    let RuleMatch { family, l4, source, destination, http } = matches;
    let is_asked_for = |http: &HttpMatch| sides.request.is_none_or(|request| http.matches(request));
    family.is_none_or(|family| family == sides.flow.family())
        && l4_matches(l4, matches, sides, subject)
        && sides.source.meets(source, subject)
        && sides.destination.meets(destination, subject)
        && http.as_ref().is_none_or(is_asked_for)
}

fn l4_matches(
    l4: &L4Match<PortMatch>,
    matches: &RuleMatch,
    sides: &Sides<'_>,
    subject: &Endpoint,
) -> bool {
    let protocol = sides.flow.protocol();
    match l4 {
        L4Match::Any => true,
        L4Match::Is(wanted) => protocol == *wanted,
        L4Match::IsNot(unwanted) => !unwanted.contains(&protocol),
        L4Match::Ports { transport, source, destination } => match sides.flow.payload {
            Payload::Ports { transport: actual, source: from, destination: to } => {
                actual == *transport
                    && sides.source.meets_ports(source, &matches.source, subject, actual, from)
                    && sides.destination.meets_ports(
                        destination,
                        &matches.destination,
                        subject,
                        actual,
                        to,
                    )
            }
            Payload::Icmp { .. } | Payload::Other(_) => false,
        },
        L4Match::Icmp { family, is, is_not } => icmp_matches(*family, *is, *is_not, &sides.flow),
    }
}

fn icmp_matches(
    family: Family,
    is: Option<IcmpMatch>,
    is_not: Option<IcmpMatch>,
    flow: &Flow,
) -> bool {
    match flow.payload {
        Payload::Icmp { kind, code } => {
            flow.family() == family
                && is.is_none_or(|it| it.matches(kind, code))
                && !is_not.is_some_and(|it| it.matches(kind, code))
        }
        Payload::Ports { .. } | Payload::Other(_) => false,
    }
}
