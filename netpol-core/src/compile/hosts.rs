//! Host endpoints of the node.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Compiler;
use crate::engine::NodeConfig;
use crate::flow::Direction;
use crate::model::{Attachment, Bucket, Endpoint, EndpointId, EndpointKind, Inputs, Node, Peers};
use crate::program::{HostEndpoint, Hosts, Interfaces, PolicySetId, SetDefinition, SetId};
use crate::selector::Selector;

/// Returns what the node enforces on its own interfaces.
pub(super) fn hosts(compiler: &mut Compiler<'_>, config: &NodeConfig) -> Hosts {
    let chosen = chosen(compiler.inputs, config);
    let endpoints: Vec<_> = chosen
        .into_values()
        .map(|(endpoint, interfaces)| compiler.host(endpoint, interfaces))
        .collect();
    let nodes = (!endpoints.is_empty()).then(|| {
        let definition = SetDefinition::Addresses(Peers::Nodes(Selector::all()));
        let id = SetId::of(&definition);
        compiler.definitions.insert(definition);
        id
    });
    Hosts { endpoints, settings: config.hosts.clone(), nodes }
}

/// Returns the host endpoints that have interfaces, with these. Of several that could have an interface, it is the one that
/// names it, else one that has an address of it, and of those the first by name.
fn chosen<'a>(
    inputs: &'a Inputs,
    config: &NodeConfig,
) -> BTreeMap<&'a EndpointId, (&'a Endpoint, Interfaces)> {
    let of_node = |it: &&Endpoint| {
        it.id.kind == EndpointKind::Host && it.node.as_deref() == Some(config.node.as_str())
    };
    let mut named: BTreeMap<&str, &Endpoint> = BTreeMap::new();
    for endpoint in inputs.endpoints.values().filter(of_node) {
        if let Attachment::Interface(name) = &endpoint.attachment {
            named.entry(name).or_insert(endpoint);
        }
    }
    for endpoint in inputs.endpoints.values().filter(of_node) {
        if endpoint.attachment == Attachment::Address {
            for name in interfaces_of(inputs.nodes.get(&config.node), endpoint) {
                named.entry(name).or_insert(endpoint);
            }
        }
    }
    let mut chosen = BTreeMap::new();
    for (name, endpoint) in named {
        let (_, Interfaces::Named(names)) = chosen
            .entry(&endpoint.id)
            .or_insert_with(|| (endpoint, Interfaces::Named(BTreeSet::new())))
        else {
            continue;
        };
        names.insert(name.into());
    }
    let other = inputs
        .endpoints
        .values()
        .filter(of_node)
        .find(|it| it.attachment == Attachment::OtherInterfaces);
    chosen.extend(other.map(|it| (&it.id, (it, Interfaces::Other))));
    chosen
}

/// Returns the interfaces of a node that have an address of an endpoint.
fn interfaces_of<'a>(
    node: Option<&'a Node>,
    endpoint: &'a Endpoint,
) -> impl Iterator<Item = &'a str> {
    let interfaces = node.map(|node| node.interfaces.iter()).into_iter().flatten();
    interfaces
        .filter(|it| it.addresses.iter().any(|own| endpoint.addresses.contains(own)))
        .map(|it| it.name.as_str())
}

impl<'a> Compiler<'a> {
    fn host(&mut self, endpoint: &'a Endpoint, interfaces: Interfaces) -> HostEndpoint {
        let mut both = |bucket| {
            Direction::BOTH.map(|direction| self.policy_set_of(endpoint, direction, bucket))
        };
        let (untracked, forward) = (both(Bucket::Untracked), both(Bucket::Forward));
        let pre_dnat = self.policy_set_of(endpoint, Direction::Ingress, Bucket::PreDnat);
        let normal = Direction::BOTH
            .map(|direction| self.policy_set_id(endpoint, &[], direction, Bucket::Normal));
        HostEndpoint { id: endpoint.id.clone(), interfaces, untracked, pre_dnat, forward, normal }
    }

    /// Returns the policy set of a bucket, `None` if no policy applies.
    fn policy_set_of(
        &mut self,
        endpoint: &'a Endpoint,
        direction: Direction,
        bucket: Bucket,
    ) -> Option<PolicySetId> {
        let look = self.look(endpoint, direction, bucket);
        let is_asked = !self.applicable(&look).is_empty();
        is_asked.then(|| self.policy_set_id(endpoint, &[], direction, bucket))
    }
}
