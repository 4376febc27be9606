//! Host endpoints of the node.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::blocks::Stack;
use super::endpoints::Record;
use super::locals::Scope;
use super::settle::Known;
use super::state::State;
use super::store::Id;
use crate::dataplane::Delta;
use crate::flow::Direction;
use crate::model::{Attachment, Bucket, EndpointId, Peers};
use crate::program::{HostEndpoint, Hosts, Interfaces, PolicySetId, Program, SetDefinition};
use crate::selector::Selector;
use crate::verdict::Verdict;

impl State {
    /// Makes what the node enforces on its own interfaces follow the inputs.
    pub(super) fn settle_hosts(
        &mut self,
        program: &mut Program,
        known: &mut Known,
        delta: &mut Delta,
    ) {
        if !core::mem::take(&mut self.locals.hosts_changed) {
            return;
        }
        let chosen = self.chosen_hosts();
        let mut endpoints = Vec::with_capacity(chosen.len());
        for (name, (id, interfaces)) in chosen {
            endpoints.push(self.host(name, id, interfaces, program, known));
        }
        for endpoint in &program.hosts.endpoints {
            policy_sets(endpoint).for_each(|it| self.blocks.unuse(it));
        }
        let nodes = self.hold_nodes(!endpoints.is_empty());
        let settings = self.settings.clone();
        let hosts = Hosts { endpoints, settings, nodes };
        if hosts != program.hosts {
            delta.hosts = Some(core::mem::replace(&mut program.hosts, hosts));
        }
    }

    /// Keeps the set of the nodes' addresses in the program, or does not. Returns its id if it does.
    fn hold_nodes(&mut self, is_needed: bool) -> Option<crate::program::SetId> {
        if is_needed == self.nodes.is_some() {
            return self.nodes.map(|(_, id)| id);
        }
        self.nodes = if is_needed {
            let definition = SetDefinition::Addresses(Peers::Nodes(Selector::all()));
            let held = self.sets.hold(definition);
            self.sets.use_it(held.0);
            Some(held)
        } else {
            if let Some((set, _)) = self.nodes {
                self.sets.unuse(set);
                self.sets.let_go(set);
            }
            None
        };
        self.nodes.map(|(_, id)| id)
    }

    /// Returns the host endpoints that have interfaces, with these. Of several that could have an interface, it is the one
    /// that names it, else one that has an address of it, and of those the first by name.
    fn chosen_hosts(&self) -> BTreeMap<EndpointId, (Id<Record>, Interfaces)> {
        let hosts = || {
            let attached = |id| self.endpoints.attachment_of(id, &self.views);
            self.locals.hosts.iter().map(move |(name, &id)| (name, id, attached(id)))
        };
        let mut named: BTreeMap<String, (&EndpointId, Id<Record>)> = BTreeMap::new();
        for (name, id, attachment) in hosts() {
            if let Attachment::Interface(interface) = attachment {
                named.entry(interface).or_insert((name, id));
            }
        }
        for (name, id, attachment) in hosts() {
            if attachment == Attachment::Address {
                for interface in self.interfaces_with_address_of(id) {
                    named.entry(interface).or_insert((name, id));
                }
            }
        }
        let mut chosen = BTreeMap::new();
        for (interface, (name, id)) in named {
            let (_, interfaces) = chosen
                .entry(name.clone())
                .or_insert_with(|| (id, Interfaces::Named(BTreeSet::new())));
            if let Interfaces::Named(names) = interfaces {
                names.insert(interface);
            }
        }
        let other = hosts().find(|it| it.2 == Attachment::OtherInterfaces);
        chosen.extend(other.map(|(name, id, _)| (name.clone(), (id, Interfaces::Other))));
        chosen
    }

    /// Returns the interfaces of the node that have an address of an endpoint.
    fn interfaces_with_address_of(&self, id: Id<Record>) -> Vec<String> {
        let addresses = self.endpoints.record_of(id).addresses();
        let node = self.world.node(self.views.labels.str(self.node));
        let interfaces = node.into_iter().flat_map(|node| &node.interfaces);
        interfaces
            .filter(|it| it.addresses.iter().any(|own| addresses.contains(own)))
            .map(|it| it.name.clone())
            .collect()
    }

    /// Returns a host endpoint as the program has it. Its policy sets are counted.
    fn host(
        &mut self,
        name: EndpointId,
        id: Id<Record>,
        interfaces: Interfaces,
        program: &mut Program,
        known: &mut Known,
    ) -> HostEndpoint {
        let mut some = |bucket, direction| {
            self.host_policy_set(
                id,
                Stack { default: Verdict::Allow, bucket },
                direction,
                program,
                known,
            )
        };
        let untracked = Direction::BOTH.map(|direction| some(Bucket::Untracked, direction));
        let pre_dnat = some(Bucket::PreDnat, Direction::Ingress);
        let forward = Direction::BOTH.map(|direction| some(Bucket::Forward, direction));
        let default = self.endpoints.record_of(id).default_verdict;
        let stack = Stack { default, bucket: Bucket::Normal };
        let normal = Direction::BOTH
            .map(|direction| self.policy_set(id, stack, direction, &[], program, known));
        HostEndpoint { id: name, interfaces, untracked, pre_dnat, forward, normal }
    }

    /// Returns the policy set of a bucket, `None` if no policy applies.
    fn host_policy_set(
        &mut self,
        id: Id<Record>,
        stack: Stack,
        direction: Direction,
        program: &mut Program,
        known: &mut Known,
    ) -> Option<PolicySetId> {
        let view = self.endpoints.record_of(id).view;
        let scope = Scope { view, bucket: stack.bucket };
        let is_asked = !self.list_of(scope, direction).is_empty();
        is_asked.then(|| self.policy_set(id, stack, direction, &[], program, known))
    }
}

/// Returns the policy sets that a host endpoint refers to.
fn policy_sets(endpoint: &HostEndpoint) -> impl Iterator<Item = PolicySetId> {
    let HostEndpoint { id: _, interfaces: _, untracked, pre_dnat, forward, normal } = endpoint;
    let some = untracked.iter().chain([pre_dnat]).chain(forward).copied().flatten();
    some.chain(normal.iter().copied())
}
