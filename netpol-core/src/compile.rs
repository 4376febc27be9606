//! The compiler: from the inputs to the program of one node.
//!
//! It resolves tiers, order and selection per endpoint and direction, and leaves the rest to the dataplane: rules refer
//! to address sets by definition, so that a pod that comes or goes changes members and no rule.

mod lower;
mod members;
mod owners;
mod tiers;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::IpAddr;

use self::lower::Lowering;
use self::owners::Owners;
use self::tiers::{TierPolicies, by_tier};
use crate::dataplane::Capabilities;
use crate::engine::NodeConfig;
use crate::flow::Direction;
use crate::model::{self, Attachment, Enforcement, Inputs, Lifecycle, Policy, TierEnd};
use crate::program::{
    AddressSet, Endpoint, PolicySet, PolicySetId, Program, RuleId, SetDefinition, SetId, Stage,
    StageEnd, digest_of,
};

/// Returns what the node of `config` must enforce, on a dataplane with these capabilities.
pub(crate) fn compile(
    inputs: &Inputs,
    config: &NodeConfig,
    capabilities: &Capabilities,
) -> Program {
    let owners = Owners::of(inputs);
    let mut compiler = Compiler {
        inputs,
        capabilities,
        owners: &owners,
        tiers: by_tier(inputs),
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
    let closed = PolicySet { stages: Vec::new(), default: crate::Verdict::Deny };
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
) -> BTreeMap<SetId, AddressSet> {
    definitions
        .into_iter()
        .map(|definition| {
            let members = owners.members(&definition);
            (SetId::of(&definition), AddressSet { definition, members })
        })
        .collect()
}

struct Compiler<'a> {
    inputs: &'a Inputs,
    capabilities: &'a Capabilities,
    owners: &'a Owners<'a>,
    tiers: Vec<TierPolicies<'a>>,
    rule_ids: BTreeMap<(&'a model::PolicyKey, Direction), Vec<RuleId>>,
    definitions: BTreeSet<SetDefinition>,
    policy_sets: BTreeMap<PolicySetId, PolicySet>,
}

impl<'a> Compiler<'a> {
    fn endpoint(&mut self, endpoint: &'a model::Endpoint, addresses: Vec<IpAddr>) -> Endpoint {
        let [ingress, egress] = Direction::BOTH.map(|direction| {
            let set = self.policy_set(endpoint, &addresses, direction);
            let id = PolicySetId::of(&set);
            self.policy_sets.entry(id).or_insert(set);
            id
        });
        let (attachment, mode) = (endpoint.attachment.clone(), endpoint.mode);
        Endpoint { id: endpoint.id.clone(), attachment, addresses, mode, ingress, egress }
    }

    fn policy_set(
        &mut self,
        endpoint: &model::Endpoint,
        addresses: &[IpAddr],
        direction: Direction,
    ) -> PolicySet {
        let labels = self.inputs.labels_of(endpoint);
        let mut stages = Vec::new();
        for index in 0..self.tiers.len() {
            let Some(tier) = self.tiers.get(index) else { break };
            let applies = |policy: &&Policy| {
                policy.enforcement == Enforcement::Enforced
                    && policy.rules(direction).is_some()
                    && policy.subject.matches(&labels)
            };
            let policies: Vec<&'a Policy> = tier.policies.iter().copied().filter(applies).collect();
            if policies.is_empty() {
                continue;
            }
            let (name, end) = (tier.tier.name.to_string(), stage_end(tier.tier.end));
            let rules = policies
                .iter()
                .flat_map(|policy| self.rules(policy, endpoint, addresses, direction))
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
