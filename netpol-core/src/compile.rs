//! The compiler: from the inputs to the program of one node.
//!
//! It resolves tiers, order and selection per endpoint and direction, and leaves the rest to the dataplane: rules refer
//! to address sets by definition, so that a pod that comes or goes changes members and no rule.

mod lower;
mod members;
mod owners;
mod tiers;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use self::lower::Lowering;
use self::owners::Owners;
use self::tiers::{TierPolicies, by_tier};
use crate::dataplane::Capabilities;
use crate::engine::NodeConfig;
use crate::flow::Direction;
use crate::model::{
    self, Attachment, Enforcement, EntityMatch, Inputs, Lifecycle, Policy, Tier, TierEnd,
};
use crate::program::{
    AddressSet, Endpoint, PolicySet, PolicySetId, Program, RuleId, SetDefinition, SetId, Stage,
    StageEnd, digest_of,
};
use crate::verdict::Verdict;

/// Returns what the node of `config` must enforce, on a dataplane with these capabilities.
pub(crate) fn compile(
    inputs: &Inputs,
    config: &NodeConfig,
    capabilities: &Capabilities,
) -> Program {
    let (owners, tiers) = (Owners::of(inputs), by_tier(inputs));
    let mut compiler = Compiler {
        inputs,
        capabilities,
        owners: &owners,
        tiers: &tiers,
        shared: BTreeMap::new(),
        rule_ids: BTreeMap::new(),
        definitions: BTreeSet::new(),
        policy_sets: BTreeMap::new(),
    };
    let endpoints = local_endpoints(inputs, config, &owners)
        .map(|(endpoint, addresses)| compiler.endpoint(endpoint, addresses))
        .collect();
    let Compiler { definitions, policy_sets, .. } = compiler;
    Program {
        endpoints,
        policy_sets,
        address_sets: address_sets(&owners, definitions),
        established: config.established,
    }
}

/// Returns the endpoints of the node as they are known before any policy is: closed.
pub(crate) fn isolated_endpoints(inputs: &Inputs, config: &NodeConfig) -> Vec<Endpoint> {
    let owners = Owners::of(inputs);
    let closed = PolicySet { stages: Vec::new(), default: Verdict::Deny };
    let closed = PolicySetId::of(&closed);
    local_endpoints(inputs, config, &owners)
        .map(|(endpoint, addresses)| Endpoint {
            id: endpoint.id.clone(),
            attachment: endpoint.attachment.clone(),
            addresses,
            mode: model::Mode::Isolate,
            ingress: closed,
            egress: closed,
        })
        .collect()
}

/// Returns the node's running endpoints, each with the addresses it owns. Of two endpoints with one interface only the
/// newer is returned.
fn local_endpoints<'a>(
    inputs: &'a Inputs,
    config: &'a NodeConfig,
    owners: &'a Owners<'_>,
) -> impl Iterator<Item = (&'a model::Endpoint, Vec<IpAddr>)> {
    let local = move |endpoint: &&model::Endpoint| {
        endpoint.lifecycle == Lifecycle::Running
            && endpoint.node.as_deref() == Some(config.node.as_str())
    };
    let mut interfaces: BTreeMap<&str, &model::Endpoint> = BTreeMap::new();
    for endpoint in inputs.endpoints.values().filter(local) {
        if let Attachment::Interface(name) = &endpoint.attachment {
            let newest = interfaces.entry(name).or_insert(endpoint);
            if owners::age(newest) < owners::age(endpoint) {
                *newest = endpoint;
            }
        }
    }
    let attached = move |endpoint: &&model::Endpoint| match &endpoint.attachment {
        Attachment::Interface(name) => {
            interfaces.get(name.as_str()).is_some_and(|it| it.id == endpoint.id)
        }
        Attachment::Address => true,
    };
    let with_addresses = |endpoint: &'a model::Endpoint| (endpoint, owners.addresses_of(endpoint));
    inputs.endpoints.values().filter(local).filter(attached).map(with_addresses)
}

fn address_sets(
    owners: &Owners<'_>,
    definitions: BTreeSet<SetDefinition>,
) -> BTreeMap<SetId, Arc<AddressSet>> {
    definitions
        .into_iter()
        .map(|definition| {
            let members = owners.members(&definition);
            (SetId::of(&definition), Arc::new(AddressSet { definition, members }))
        })
        .collect()
}

struct Compiler<'a> {
    inputs: &'a Inputs,
    capabilities: &'a Capabilities,
    owners: &'a Owners<'a>,
    tiers: &'a [TierPolicies<'a>],
    /// The policy sets that no rule makes depend on more than this of an endpoint. So a policy is lowered once for all
    /// that look the same, and not once for each.
    shared: BTreeMap<Look<'a>, PolicySetId>,
    rule_ids: BTreeMap<(&'a model::PolicyKey, Direction), Vec<RuleId>>,
    definitions: BTreeSet<SetDefinition>,
    policy_sets: BTreeMap<PolicySetId, Arc<PolicySet>>,
}

/// What the policy set of an endpoint depends on, unless a rule has a condition on the endpoint's own side.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Look<'a> {
    labels: model::EndpointLabels<'a>,
    ports: &'a [model::NamedPort],
    default: Verdict,
    direction: Direction,
}

impl<'a> Compiler<'a> {
    fn endpoint(&mut self, endpoint: &'a model::Endpoint, addresses: Vec<IpAddr>) -> Endpoint {
        let [ingress, egress] =
            Direction::BOTH.map(|direction| self.policy_set_id(endpoint, &addresses, direction));
        let (attachment, mode) = (endpoint.attachment.clone(), endpoint.mode);
        Endpoint { id: endpoint.id.clone(), attachment, addresses, mode, ingress, egress }
    }

    fn policy_set_id(
        &mut self,
        endpoint: &'a model::Endpoint,
        addresses: &[IpAddr],
        direction: Direction,
    ) -> PolicySetId {
        let (labels, ports) = (self.inputs.labels_of(endpoint), &*endpoint.ports);
        let look = Look { labels, ports, default: endpoint.default_verdict, direction };
        if let Some(&id) = self.shared.get(&look) {
            return id;
        }
        let stages = self.applicable(&look);
        let mut policies = stages.iter().flat_map(|(_, policies)| policies);
        let is_shared = !policies.any(|policy| has_local_condition(policy, direction));
        let set = self.policy_set(stages, endpoint, addresses, direction);
        let id = PolicySetId::of(&set);
        self.policy_sets.entry(id).or_insert_with(|| Arc::new(set));
        if is_shared {
            self.shared.insert(look, id);
        }
        id
    }

    /// Returns the tiers with policies that apply, and these.
    fn applicable(&self, look: &Look<'_>) -> Vec<(&'a Tier, Vec<&'a Policy>)> {
        let applies = |policy: &&Policy| {
            policy.enforcement == Enforcement::Enforced
                && policy.rules(look.direction).is_some()
                && policy.subject.matches(&look.labels)
        };
        let of_tier = |tier: &'a TierPolicies<'a>| {
            (&tier.tier, tier.policies.iter().copied().filter(applies).collect::<Vec<_>>())
        };
        self.tiers.iter().map(of_tier).filter(|(_, policies)| !policies.is_empty()).collect()
    }

    fn policy_set(
        &mut self,
        applicable: Vec<(&'a Tier, Vec<&'a Policy>)>,
        endpoint: &model::Endpoint,
        addresses: &[IpAddr],
        direction: Direction,
    ) -> PolicySet {
        let mut stages = Vec::with_capacity(applicable.len());
        for (tier, policies) in applicable {
            let (name, end) = (tier.name.clone(), stage_end(tier.end));
            let rules = policies
                .iter()
                .flat_map(|policy| self.rules(policy, endpoint, addresses, direction))
                .map(Arc::new)
                .collect();
            let policies = policies.iter().map(|policy| policy.key.clone()).collect();
            stages.push(Stage { tier: name, policies, rules, end });
        }
        PolicySet { stages, default: endpoint.default_verdict }
    }

    fn rules(
        &mut self,
        policy: &'a Policy,
        endpoint: &model::Endpoint,
        addresses: &[IpAddr],
        direction: Direction,
    ) -> Vec<crate::program::Rule> {
        let rules = policy.rules(direction).unwrap_or_default();
        let ids = self
            .rule_ids
            .entry((&policy.key, direction))
            .or_insert_with(|| rule_ids(policy, direction));
        let mut lowering = Lowering {
            owners: self.owners,
            capabilities: self.capabilities,
            definitions: &mut self.definitions,
            pending: Vec::new(),
            endpoint,
            addresses,
            direction,
        };
        rules
            .iter()
            .zip(&*ids)
            .filter_map(|(rule, &id)| lowering.rule(&policy.key, rule, id))
            .collect()
    }
}

/// Returns whether a policy has a rule with a condition on the endpoint's own side.
fn has_local_condition(policy: &Policy, direction: Direction) -> bool {
    let any = EntityMatch::default();
    policy.rules(direction).unwrap_or_default().iter().any(|rule| match direction {
        Direction::Ingress => rule.matches.destination != any,
        Direction::Egress => rule.matches.source != any,
    })
}

fn stage_end(end: TierEnd) -> StageEnd {
    match end {
        TierEnd::Deny => StageEnd::Deny,
        TierEnd::Pass => StageEnd::Next,
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
