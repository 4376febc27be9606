//! From a rule of the model to the rule of a program, for one endpoint and direction.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::members::numbers_of;
use super::owners::Owners;
use super::tenancy::with_tenants;
use crate::dataplane::Capabilities;
use crate::flow::Direction;
use crate::model::{
    self, EndpointKind, EntityMatch, L4Match, Peers, PolicyKey, PortConstraint, PortMatch,
    RuleMatch,
};
use crate::net::{Family, PortRange, PrefixSet, Transport};
use crate::program::{Address, Ports, Rule, RuleId, SetDefinition, SetId};
use crate::selector::Selector;
use crate::verdict::RuleRef;

/// Where rules are lowered for.
pub(super) struct Lowering<'a, 'o> {
    pub(super) owners: &'a Owners<'o>,
    pub(super) capabilities: &'a Capabilities,
    /// The sets that rules refer to.
    pub(super) definitions: &'a mut BTreeSet<SetDefinition>,
    /// The sets that the rule at hand refers to, which may still turn out to match nothing.
    pub(super) pending: Vec<SetDefinition>,
    pub(super) endpoint: &'a model::Endpoint,
    /// The addresses that the endpoint owns.
    pub(super) addresses: &'a [IpAddr],
    pub(super) direction: Direction,
}

/// The end of a flow that a condition is about.
#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    Local,
    Remote,
}

impl Lowering<'_, '_> {
    /// Returns the rule as a program holds it, `None` if it can match nothing here or has no effect.
    pub(super) fn rule(
        &mut self,
        policy: &PolicyKey,
        rule: &model::Rule,
        id: RuleId,
    ) -> Option<Rule> {
        self.pending.clear();
        let lowered = self.lowered(policy, rule, id)?;
        self.definitions.extend(self.pending.drain(..));
        Some(lowered)
    }

    fn lowered(&mut self, policy: &PolicyKey, rule: &model::Rule, id: RuleId) -> Option<Rule> {
        let action = rule.effective_action(self.capabilities)?;
        let matches = with_tenants(&rule.matches, &self.owners.inputs.labels_of(self.endpoint));
        let (remote, local) = self.ends(&matches);
        let local = self.local(local)?;
        let family =
            family(&matches, [remote.nets.as_ref(), local.and_then(|it| it.nets.as_ref())])?;
        let l4 = self.l4(&matches)?;
        let remote = self.address(remote);
        let local = local.map(|entity| self.address(entity));
        let index = rule.index;
        let origin = RuleRef {
            policy: policy.clone(),
            direction: self.direction,
            index,
            name: rule.name.clone(),
        };
        Some(Rule { id, origin, action, family, l4, remote, local })
    }

    fn ends<'m>(&self, matches: &'m RuleMatch) -> (&'m EntityMatch, &'m EntityMatch) {
        match self.direction {
            Direction::Ingress => (&matches.source, &matches.destination),
            Direction::Egress => (&matches.destination, &matches.source),
        }
    }

    /// Resolves the condition on the endpoint's own address: `Some(None)` if all its addresses meet it, `None` if none
    /// does. A condition that some meet, or an endpoint whose addresses nobody knows, leaves it to the packet.
    fn local<'m>(&self, entity: &'m EntityMatch) -> Option<Option<&'m EntityMatch>> {
        if *entity == EntityMatch::default() {
            return Some(None);
        }
        let meeting = self.addresses.iter().filter(|&&address| self.meets(entity, address)).count();
        match meeting {
            _ if self.addresses.is_empty() => Some(Some(entity)),
            0 => None,
            all if all == self.addresses.len() => Some(None),
            _ => Some(Some(entity)),
        }
    }

    /// Returns whether an address of the endpoint meets a condition.
    fn meets(&self, entity: &EntityMatch, address: IpAddr) -> bool {
        let EntityMatch { peers, not_peers, nets, not_nets } = entity;
        peers.as_ref().is_none_or(|peers| self.is_one_of(peers, address))
            && !not_peers.as_ref().is_some_and(|it| self.selected_by(it, address))
            && nets.as_ref().is_none_or(|nets| nets.contains(address))
            && !not_nets.contains(address)
    }

    fn is_one_of(&self, peers: &Peers, address: IpAddr) -> bool {
        match peers {
            Peers::Endpoints(selector) => self.selected_by(selector, address),
            Peers::Nodes(_) | Peers::DomainNames(_) | Peers::Tenants { .. } => {
                self.owners.members(&SetDefinition::Addresses(peers.clone())).contains(address)
            }
        }
    }

    fn selected_by(&self, selector: &Selector, address: IpAddr) -> bool {
        let inputs = self.owners.inputs;
        let in_set = |set: &model::NetworkSet| {
            set.nets.contains(address) && selector.matches(&inputs.labels_of_set(set))
        };
        selector.matches(&inputs.labels_of(self.endpoint))
            || inputs.network_sets.values().any(in_set)
            || self.owners.hosts().any(|(listed, host)| {
                listed == address && selector.matches(&inputs.labels_of(host))
            })
    }

    fn address(&mut self, entity: &EntityMatch) -> Address {
        let EntityMatch { peers, not_peers, nets, not_nets } = entity;
        let in_set = peers.as_ref().map(|peers| self.set(SetDefinition::Addresses(peers.clone())));
        let not_in_set = not_peers
            .as_ref()
            .map(|selector| self.set(SetDefinition::Addresses(Peers::Endpoints(selector.clone()))));
        match nets {
            Some(nets) => {
                let nets = Some(nets.difference(not_nets));
                Address { in_set, not_in_set, nets, not_nets: PrefixSet::default() }
            }
            None => Address { in_set, not_in_set, nets: None, not_nets: not_nets.clone() },
        }
    }

    fn l4(&mut self, matches: &RuleMatch) -> Option<L4Match<Ports>> {
        Some(match &matches.l4 {
            L4Match::Any => L4Match::Any,
            L4Match::Is(protocol) => L4Match::Is(*protocol),
            L4Match::IsNot(protocols) => L4Match::IsNot(protocols.clone()),
            L4Match::Icmp { family, is, is_not } => {
                L4Match::Icmp { family: *family, is: *is, is_not: *is_not }
            }
            L4Match::Ports { transport, source, destination } => {
                let [of_source, of_destination] = match self.direction {
                    Direction::Ingress => [End::Remote, End::Local],
                    Direction::Egress => [End::Local, End::Remote],
                };
                L4Match::Ports {
                    transport: *transport,
                    source: self.ports(source, *transport, &matches.source, of_source)?,
                    destination: self.ports(
                        destination,
                        *transport,
                        &matches.destination,
                        of_destination,
                    )?,
                }
            }
        })
    }

    /// Resolves a condition on a port; `None` if no port meets it.
    fn ports(
        &mut self,
        constraint: &PortConstraint<PortMatch>,
        transport: Transport,
        entity: &EntityMatch,
        end: End,
    ) -> Option<PortConstraint<Ports>> {
        let endpoints = match &entity.peers {
            Some(Peers::Endpoints(selector)) => Some(selector),
            _ => None,
        };
        // What a host endpoint judges need not be its own.
        let is_own = end == End::Local && self.endpoint.id.kind == EndpointKind::Workload;
        let mut resolve = |list: &PortMatch| match end {
            End::Local if is_own => self.local_ports(list, transport, endpoints),
            End::Local | End::Remote => self.remote_ports(list, transport, endpoints),
        };
        let any_of = constraint.any_of.as_ref().map(&mut resolve);
        let none_of = constraint
            .none_of
            .as_ref()
            .map(&mut resolve)
            .filter(|ports| *ports != Ports::default());
        let impossible = any_of.as_ref().is_some_and(|ports| *ports == Ports::default());
        (!impossible).then_some(PortConstraint { any_of, none_of })
    }

    /// Resolves the names on the endpoint's own side: they are its own ports.
    fn local_ports(
        &self,
        list: &PortMatch,
        transport: Transport,
        endpoints: Option<&Selector>,
    ) -> Ports {
        let meant =
            endpoints.is_none_or(|it| it.matches(&self.owners.inputs.labels_of(self.endpoint)));
        let names = list.names.iter().filter(|_| meant);
        let named = names.flat_map(|name| numbers_of(self.endpoint, transport, name));
        let named = named.filter_map(|port| PortRange::single(port).ok());
        Ports {
            numbers: list.numbers.ranges().iter().copied().chain(named).collect(),
            sets: Vec::new(),
        }
    }

    /// Resolves the names on the other side: each address has its own numbers for them.
    fn remote_ports(
        &mut self,
        list: &PortMatch,
        transport: Transport,
        endpoints: Option<&Selector>,
    ) -> Ports {
        let definition = |name: &_| SetDefinition::NamedPort {
            endpoints: endpoints.cloned(),
            transport,
            name: String::clone(name),
        };
        let mut sets: Vec<SetId> =
            list.names.iter().map(|name| self.set(definition(name))).collect();
        sets.sort_unstable();
        Ports { numbers: list.numbers.clone(), sets }
    }

    fn set(&mut self, definition: SetDefinition) -> SetId {
        let id = SetId::of(&definition);
        self.pending.push(definition);
        id
    }
}

/// Returns the family that a rule is restricted to, by itself or by its lists of prefixes: `None` if it can match
/// nothing, `Some(None)` if both families can match.
fn family(matches: &RuleMatch, nets: [Option<&PrefixSet>; 2]) -> Option<Option<Family>> {
    let of_icmp = match matches.l4 {
        L4Match::Icmp { family, .. } => Some(family),
        _ => None,
    };
    let possible = |family: Family| {
        matches.family.is_none_or(|it| it == family)
            && of_icmp.is_none_or(|it| it == family)
            && nets.into_iter().flatten().all(|nets| nets.of_family(family).next().is_some())
    };
    match Family::BOTH.map(possible) {
        [true, true] => Some(None),
        [true, false] => Some(Some(Family::V4)),
        [false, true] => Some(Some(Family::V6)),
        [false, false] => None,
    }
}
