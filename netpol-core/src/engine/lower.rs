//! From a rule of the model to the rule of a program, for one endpoint and direction.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::endpoints::Endpoints;
use super::sets::{SetRecord, Sets};
use super::store::Id;
use super::tenancy::{has_tenants, with_tenants};
use super::views::{Time, View, Views};
use super::world::World;
use crate::dataplane::Capabilities;
use crate::flow::Direction;
use crate::model::{
    self, EntityMatch, L4Match, NamedPort, Peers, Policy, PolicyKey, PortConstraint, PortMatch,
    RuleMatch,
};
use crate::net::{Family, PortRange, Prefix, PrefixSet, Transport};
use crate::program::{Address, Ports, Rule, RuleId, SetDefinition, SetId, digest_of};
use crate::selector::Selector;
use crate::verdict::RuleRef;

/// The endpoint that rules are lowered for; nothing of it for rules that are the same for all.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) views: &'a Views,
    pub(super) endpoints: &'a Endpoints,
    pub(super) world: &'a World,
    /// What a host endpoint judges need not be its own.
    pub(super) is_workload: bool,
    pub(super) view: Option<Id<View>>,
    pub(super) ports: &'a [NamedPort],
    /// The addresses that it owns.
    pub(super) addresses: &'a [IpAddr],
}

/// Where rules are lowered for.
struct Lowering<'a> {
    own: Own<'a>,
    capabilities: &'a Capabilities,
    sets: &'a mut Sets,
    /// The sets that the rule at hand refers to, which may still turn out to match nothing. Held.
    held: Vec<Id<SetRecord>>,
    direction: Direction,
}

/// Returns the rules of a policy in one direction as programs hold them, and the sets they refer to, each held once.
pub(super) fn lower(
    policy: &Policy,
    direction: Direction,
    own: Own<'_>,
    capabilities: &Capabilities,
    sets: &mut Sets,
) -> (Vec<Rule>, Vec<Id<SetRecord>>) {
    let rules = policy.rules(direction).unwrap_or_default();
    let mut lowering = Lowering { own, capabilities, sets, held: Vec::new(), direction };
    let (mut lowered, mut used) = (Vec::with_capacity(rules.len()), BTreeSet::new());
    for (rule, id) in rules.iter().zip(rule_ids(policy, direction)) {
        let rule = lowering.rule(&policy.key, rule, id);
        for set in lowering.held.drain(..) {
            if rule.is_none() || !used.insert(set) {
                lowering.sets.let_go(set);
            }
        }
        lowered.extend(rule);
    }
    (lowered, used.into_iter().collect())
}

/// Returns whether what a policy's rules are lowered to depends on the endpoint: one of them has a condition on the
/// endpoint's own side, names a port there, or asks how namespaces stand to the endpoint's.
pub(super) fn depends_on_endpoint(policy: &Policy, direction: Direction) -> bool {
    let any = EntityMatch::default();
    policy.rules(direction).unwrap_or_default().iter().any(|rule| {
        let (entity, ports) = match (direction, &rule.matches.l4) {
            (Direction::Ingress, L4Match::Ports { destination, .. }) => {
                (&rule.matches.destination, Some(destination))
            }
            (Direction::Egress, L4Match::Ports { source, .. }) => {
                (&rule.matches.source, Some(source))
            }
            (Direction::Ingress, _) => (&rule.matches.destination, None),
            (Direction::Egress, _) => (&rule.matches.source, None),
        };
        let lists = ports.into_iter().flat_map(|it| it.any_of.iter().chain(&it.none_of));
        let names_port = lists.into_iter().any(|list| !list.names.is_empty());
        *entity != any || names_port || has_tenants(&rule.matches)
    })
}

/// The end of a flow that a condition is about.
#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    Local,
    Remote,
}

impl Lowering<'_> {
    /// Returns the rule as a program holds it, `None` if it can match nothing here or has no effect.
    fn rule(&mut self, policy: &PolicyKey, rule: &model::Rule, id: RuleId) -> Option<Rule> {
        let action = rule.effective_action(self.capabilities)?;
        let seen = self.own.view.map(|view| self.own.views.seen(view, Time::Now));
        let matches = match &seen {
            Some(seen) => with_tenants(&rule.matches, seen),
            None => Cow::Borrowed(&rule.matches),
        };
        let (remote, local) = self.ends(&matches);
        // Lists for the endpoint's own side restrict the family also where all its addresses are in them.
        let family = family(&matches, [remote.nets.as_ref(), local.nets.as_ref()])?;
        let local = self.local(local)?;
        let l4 = self.l4(&matches)?;
        let remote = self.address(remote, family);
        let local = local.map(|entity| self.address(entity, family));
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
    /// does. A condition that some meet, or an endpoint whose addresses nobody knows, leaves it to the packet, and so does a
    /// Service, whose backends come and go.
    fn local<'m>(&self, entity: &'m EntityMatch) -> Option<Option<&'m EntityMatch>> {
        if *entity == EntityMatch::default() {
            return Some(None);
        }
        let addresses = self.own.addresses;
        let meeting = addresses.iter().filter(|&&address| self.meets(entity, address)).count();
        match meeting {
            _ if addresses.is_empty() || matches!(entity.peers, Some(Peers::BackendsOf(_))) => {
                Some(Some(entity))
            }
            0 => None,
            all if all == addresses.len() => Some(None),
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
            Peers::Nodes(_)
            | Peers::DomainNames(_)
            | Peers::Tenants { .. }
            | Peers::BackendsOf(_) => {
                let definition = SetDefinition::Addresses(peers.clone());
                self.own.world.members(&definition).contains(address)
            }
        }
    }

    fn selected_by(&self, selector: &Selector, address: IpAddr) -> bool {
        let Own { endpoints, world, views, .. } = self.own;
        self.selects_endpoint(selector)
            || world.is_in_network_set(address, selector, views)
            || endpoints.is_of_host(address, selector, views)
    }

    fn selects_endpoint(&self, selector: &Selector) -> bool {
        let seen = self.own.view.map(|view| self.own.views.seen(view, Time::Now));
        seen.is_some_and(|seen| selector.matches(&seen))
    }

    /// Returns what a rule of this family asks of an address.
    fn address(&mut self, entity: &EntityMatch, family: Option<Family>) -> Address {
        let EntityMatch { peers, not_peers, nets, not_nets } = entity;
        let in_set = peers.as_ref().map(|peers| self.set(SetDefinition::Addresses(peers.clone())));
        let not_in_set = not_peers
            .as_ref()
            .map(|selector| self.set(SetDefinition::Addresses(Peers::Endpoints(selector.clone()))));
        // What is left of a whole family takes many more prefixes than what is taken away.
        let is_whole = |nets: &&PrefixSet| {
            family.is_some_and(|family| nets.prefixes() == [Prefix::all(family)])
        };
        match nets.as_ref().filter(|nets| not_nets.is_empty() || !is_whole(nets)) {
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
        let is_own = end == End::Local && self.own.is_workload;
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
        &mut self,
        list: &PortMatch,
        transport: Transport,
        endpoints: Option<&Selector>,
    ) -> Ports {
        let meant = endpoints.is_none_or(|it| self.selects_endpoint(it));
        let own = self.own.ports.iter().filter(|_| meant);
        let named = own.filter(|it| it.transport == transport && list.names.contains(&it.name));
        let named = named.filter_map(|it| PortRange::single(it.port).ok());
        Ports {
            numbers: list.numbers.ranges().iter().copied().chain(named).collect(),
            sets: self.backend_ports(list, transport).into_iter().collect(),
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
        sets.extend(self.backend_ports(list, transport));
        sets.sort_unstable();
        Ports { numbers: list.numbers.clone(), sets }
    }

    fn backend_ports(&mut self, list: &PortMatch, transport: Transport) -> Option<SetId> {
        let service = list.backends_of.clone()?;
        Some(self.set(SetDefinition::BackendPorts { service, transport }))
    }

    fn set(&mut self, definition: SetDefinition) -> SetId {
        let (set, id) = self.sets.hold(definition);
        self.held.push(set);
        id
    }
}

/// Returns the ids of a policy's rules: they follow from a rule's own content, and from how many equal ones precede it.
fn rule_ids(policy: &Policy, direction: Direction) -> Vec<RuleId> {
    let mut seen = BTreeMap::new();
    let rules = policy.rules(direction).unwrap_or_default();
    rules
        .iter()
        .map(|rule| {
            let content =
                digest_of(&(&policy.key, direction, rule.action, &rule.matches, rule.degraded));
            let ordinal = seen.entry(content).or_insert(0_u32);
            let id = RuleId::new(digest_of(&("rule", content, *ordinal)));
            *ordinal += 1;
            id
        })
        .collect()
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
