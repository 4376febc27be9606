//! The inputs in the form in which changes are cheap, and the program that follows from them.
//!
//! Inputs are taken at once and noted where they matter; the program follows in [`State::settle`], for many changes
//! together. What it costs is what was noted, not what there is.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use super::NodeConfig;
use super::blocks::Blocks;
use super::endpoints::{Endpoints, Record};
use super::labels::Text;
use super::locals::{Locals, Scope};
use super::policies::{Policies, PolicyRecord};
use super::sets::{Contribution, SetRecord, Sets};
use super::store::Id;
use super::views::Views;
use super::world::World;
use crate::dataplane::Capabilities;
use crate::model::{
    self, HostSettings, Inputs, Mode, Object, ObjectKey, Policy, PolicyKey, Timestamp,
};
use crate::net::canonical_address;
use crate::program::{Denial, Endpoint, PolicySet, PolicySetId, Program, SetId};
use crate::verdict::Verdict;

/// Everything that the program of a node depends on, and the program.
pub(super) struct State {
    pub(super) capabilities: Capabilities,
    pub(super) settings: HostSettings,
    pub(super) node: Id<Text>,
    pub(super) views: Views,
    pub(super) endpoints: Endpoints,
    pub(super) policies: Policies,
    pub(super) blocks: Blocks,
    pub(super) sets: Sets,
    pub(super) world: World,
    pub(super) locals: Locals,
    /// Policies that are not in the lists of local views yet.
    pub(super) unlisted: BTreeSet<Id<PolicyRecord>>,
    /// Addresses whose holders may have changed since the program was settled, and what they brought into sets.
    pub(super) dirty: BTreeMap<IpAddr, Vec<Contribution>>,
    /// Host endpoints of any node came, went or changed since the program was settled.
    pub(super) other_hosts_changed: bool,
    /// The set of the nodes' addresses, while the program has host endpoints.
    pub(super) nodes: Option<(Id<SetRecord>, SetId)>,
    /// The program, as it was settled last.
    pub(super) program: Arc<Program>,
    /// How often it was settled.
    pub(super) rounds: u64,
}

/// Taking inputs.
impl State {
    pub(super) fn new(config: &NodeConfig, capabilities: &Capabilities) -> Self {
        let mut views = Views::default();
        let node = views.labels.text(&config.node);
        let unknown = config.unknown.clone();
        let denial = if capabilities.reject { config.denial } else { Denial::Drop };
        let established = config.established;
        let program = Program { established, unknown, denial, ..Program::default() };
        Self {
            capabilities: capabilities.clone(),
            settings: HostSettings::default(),
            node,
            views,
            endpoints: Endpoints::default(),
            policies: Policies::default(),
            blocks: Blocks::default(),
            sets: Sets::default(),
            world: World::default(),
            locals: Locals::default(),
            unlisted: BTreeSet::new(),
            dirty: BTreeMap::new(),
            other_hosts_changed: false,
            nodes: None,
            program: Arc::new(program),
            rounds: 0,
        }
    }

    /// Takes an object. One that is there already changes nothing.
    pub(super) fn upsert(&mut self, object: Object) {
        match object {
            Object::Namespace { name, labels } => {
                let id = self.views.namespace(&name);
                self.views.label_namespace(id, Some(&labels));
                self.views.drop_namespace(id);
            }
            Object::ServiceAccount { namespace, name, labels } => {
                let namespace = self.views.namespace(&namespace);
                let id = self.views.account(Some(namespace), &name);
                self.views.label_account(id, Some(&labels));
                self.views.drop_account(id);
                self.views.drop_namespace(namespace);
            }
            Object::Node(node) => self.world.set_node(node),
            Object::Endpoint(endpoint) => self.upsert_endpoint(endpoint),
            Object::NetworkSet(set) => self.world.set_network_set(set, &mut self.views),
            Object::Tier(tier) => {
                let name = tier.name.clone();
                self.set_tier(&name, Some(tier));
            }
            Object::Policy(policy) => self.upsert_policy(policy),
            Object::DomainAddress(it) => self.world.set_domain_address(it),
            Object::Service(service) => self.world.set_service(service),
            Object::EndpointSlice(slice) => self.world.set_slice(slice),
        }
    }

    /// Returns the settings of the node.
    pub(super) const fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// Takes other settings of the node.
    pub(super) fn set_settings(&mut self, settings: HostSettings) {
        self.locals.hosts_changed |= settings != self.settings;
        self.settings = settings;
    }

    /// Returns the name of the node.
    pub(super) fn node_name(&self) -> &str {
        self.views.labels.str(self.node)
    }

    /// Forgets an object. Returns whether it was there.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        match key {
            ObjectKey::Namespace(name) => self.remove_namespace(name),
            ObjectKey::ServiceAccount(namespace, name) => {
                let Some(namespace) = self.views.find_namespace(namespace) else { return false };
                let id = self.views.account(Some(namespace), name);
                let removed = self.views.label_account(id, None);
                self.views.drop_account(id);
                removed
            }
            ObjectKey::Node(name) => self.world.remove_node(name),
            ObjectKey::Endpoint(id) => self.remove_endpoint(id),
            ObjectKey::NetworkSet(namespace, name) => {
                let name = (namespace.clone(), name.clone());
                self.world.remove_network_set(&name, &mut self.views)
            }
            ObjectKey::Tier(name) => self.set_tier(name, None),
            ObjectKey::Policy(key) => {
                let found = self.policies.find(key);
                found.is_some_and(|id| self.remove_policy(id))
            }
            ObjectKey::DomainAddress(name, address) => {
                self.world.remove_domain_address(name, *address)
            }
            ObjectKey::Service(name) => self.world.remove_service(name),
            ObjectKey::EndpointSlice(namespace, name) => self.world.remove_slice(namespace, name),
        }
    }

    /// Forgets what expires at `now` or before. Returns whether there was anything.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        self.world.expire(now)
    }

    /// Returns when the first thing expires.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.world.next_expiry()
    }

    fn remove_namespace(&mut self, name: &str) -> bool {
        self.world.empty_namespace(name, &mut self.views);
        let Some(id) = self.views.find_namespace(name) else { return false };
        self.views.keep_namespace(id);
        for policy in self.policies.in_namespace(id) {
            self.remove_policy(policy);
        }
        for account in self.views.accounts_in(id) {
            self.views.label_account(account, None);
        }
        let removed = self.views.label_namespace(id, None);
        self.views.drop_namespace(id);
        removed
    }

    fn set_tier(&mut self, name: &str, tier: Option<model::Tier>) -> bool {
        if model::Tier::is_built_in(name) {
            return false;
        }
        let (was_there, is_affected) = self.policies.set_tier(name, tier);
        if is_affected {
            for scope in self.locals.scopes.keys().copied().collect::<Vec<Scope>>() {
                self.forget_lists(scope);
            }
        }
        was_there
    }

    fn upsert_policy(&mut self, policy: Policy) {
        if let Some(id) = self.policies.find(&policy.key) {
            if self.policies.record(id).policy() == policy {
                return;
            }
            self.remove_policy(id);
        }
        let id = self.policies.insert(policy, self.rounds + 1, &mut self.views);
        self.unlisted.insert(id);
    }

    fn remove_policy(&mut self, id: Id<PolicyRecord>) -> bool {
        self.unlisted.remove(&id);
        if self.policies.record(id).lists > 0 {
            for scope in self.locals.scopes.keys().copied().collect::<Vec<Scope>>() {
                self.unlist(id, scope);
            }
        }
        self.policies.remove(id, &mut self.views)
    }

    fn upsert_endpoint(&mut self, mut endpoint: model::Endpoint) {
        endpoint.addresses.iter_mut().for_each(|it| *it = canonical_address(*it));
        endpoint.ports.retain(|it| it.port != 0);
        match self.endpoints.find(&endpoint.id, &self.views) {
            None => {
                self.note(&endpoint.addresses);
                let id = self.endpoints.insert(&endpoint, &mut self.views);
                self.arrive(id);
            }
            Some(id) => {
                if self.endpoints.model_of(id, &self.views) == endpoint {
                    return;
                }
                let before = self.endpoints.record_of(id).addresses().to_vec();
                self.note(&before);
                self.note(&endpoint.addresses);
                self.depart(id);
                self.endpoints.replace(id, &endpoint, &mut self.views);
                self.arrive(id);
            }
        }
    }

    fn remove_endpoint(&mut self, id: &model::EndpointId) -> bool {
        let Some(id) = self.endpoints.find(id, &self.views) else { return false };
        let before = self.endpoints.record_of(id).addresses().to_vec();
        self.note(&before);
        self.depart(id);
        self.endpoints.remove(id, &mut self.views);
        true
    }

    /// Notes what addresses bring into sets, before that can change.
    pub(super) fn note(&mut self, addresses: &[IpAddr]) {
        if !self.sets.follow_views() {
            return;
        }
        for &address in addresses {
            if !self.dirty.contains_key(&address) {
                let contributions = self.endpoints.contributions(address);
                for &(view, ports) in &contributions {
                    self.views.keep(view);
                    ports.map(|it| self.endpoints.keep_ports(it));
                }
                self.dirty.insert(address, contributions);
            }
        }
    }

    /// Makes an endpoint give up its addresses and its place on the node.
    fn depart(&mut self, id: Id<Record>) {
        let view = self.endpoints.record_of(id).view;
        if self.endpoints.is_workload_of(id, self.node) {
            let lists = self.locals.remove(id, &self.endpoints, &self.views);
            lists.into_iter().for_each(|it| self.release_lists(it));
            self.views.drop_view(view);
        } else if self.endpoints.is_host_of(id, self.node) {
            let lists = self.locals.remove_host(id, &self.endpoints, &self.views);
            lists.into_iter().for_each(|it| self.release_lists(it));
            self.views.drop_view(view);
        }
        self.other_hosts_changed |= self.endpoints.record_of(id).is_host();
        let heirs = self.endpoints.disclaim(id, &self.views);
        self.mark(heirs);
    }

    /// Makes an endpoint claim its addresses and its place on the node. There it counts its view once more.
    fn arrive(&mut self, id: Id<Record>) {
        let losers = self.endpoints.claim(id, &self.views);
        self.mark(losers);
        let record = self.endpoints.record_of(id);
        self.other_hosts_changed |= record.is_host();
        let view = record.view;
        if self.endpoints.is_workload_of(id, self.node) {
            self.views.keep(view);
            self.locals.insert(id, &self.endpoints, &self.views);
        } else if self.endpoints.is_host_of(id, self.node) {
            self.views.keep(view);
            self.locals.insert_host(id, &self.endpoints, &self.views);
        }
    }

    /// Says that those of these endpoints that are of the node may have to change.
    fn mark(&mut self, endpoints: Vec<Id<Record>>) {
        for id in endpoints {
            if self.endpoints.is_workload_of(id, self.node) {
                self.locals.dirty.insert(id);
            }
        }
    }
}

/// Answers.
impl State {
    /// Returns the program as it was settled last.
    pub(super) const fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Returns how often the program was settled.
    pub(super) const fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Returns whether there is such an endpoint of the node, and no newer one has its interface.
    pub(super) fn is_local(&self, id: &model::EndpointId) -> bool {
        let id = self.locals.workloads.get(id);
        id.is_some_and(|id| self.locals.is_attached(*id, &self.endpoints, &self.views))
    }

    /// Returns whether an endpoint of the node may have to change.
    pub(super) fn has_local_changed(&self, id: &model::EndpointId) -> bool {
        let found = self.locals.workloads.get(id);
        found.is_some_and(|id| self.locals.dirty.contains(id)) || self.locals.gone.contains(id)
    }

    /// Returns whether an endpoint is in the program.
    pub(super) fn has_program_endpoint(&self, id: &model::EndpointId) -> bool {
        self.program.endpoints.binary_search_by(|it| it.id.cmp(id)).is_ok()
    }

    /// Returns a policy, whether it applies to endpoints of the node, and the round from which on the program has it as it is.
    pub(super) fn policy(&self, key: &PolicyKey) -> Option<(Policy, bool, u64)> {
        let id = self.policies.find(key)?;
        let record = self.policies.record(id);
        Some((record.policy(), record.lists > 0, record.round))
    }

    /// Returns whether workloads of the node changed since this was asked last.
    pub(super) fn take_local_changes(&mut self) -> bool {
        let changed = !self.locals.dirty.is_empty() || !self.locals.gone.is_empty();
        self.locals.dirty.clear();
        self.locals.gone.clear();
        changed
    }

    /// Makes all endpoints of the node be looked at.
    pub(super) fn mark_all(&mut self) {
        self.locals.dirty.extend(self.locals.workloads.values().copied());
        self.locals.hosts_changed = true;
    }

    /// Returns the endpoints of the node as they are known before any policy is: closed.
    pub(super) fn isolated_endpoints(&self) -> Vec<Endpoint> {
        let closed = PolicySet { stages: Vec::new(), default: Verdict::Deny };
        let closed = PolicySetId::of(&closed);
        let locals = self.locals.workloads.iter();
        let attached =
            locals.filter(|(_, id)| self.locals.is_attached(**id, &self.endpoints, &self.views));
        let closed = attached.map(|(name, id)| Endpoint {
            id: name.clone(),
            attachment: self.endpoints.attachment_of(*id, &self.views),
            addresses: self.endpoints.owned_by(*id),
            mode: Mode::Isolate,
            ingress: closed,
            egress: closed,
        });
        closed.collect()
    }

    /// Returns all inputs.
    pub(super) fn snapshot(&self) -> Inputs {
        let mut inputs = Inputs::default();
        for (name, labels) in self.views.namespaces() {
            inputs.upsert(Object::Namespace { name: name.into(), labels });
        }
        for (namespace, name, labels) in self.views.accounts() {
            let (namespace, name) = (namespace.into(), name.into());
            inputs.upsert(Object::ServiceAccount { namespace, name, labels });
        }
        self.world.nodes().for_each(|it| inputs.upsert(it.clone()));
        self.world.network_sets().for_each(|it| inputs.upsert(it.clone()));
        self.world.domain_addresses().for_each(|it| inputs.upsert(it));
        self.world.services().for_each(|it| inputs.upsert(it.clone()));
        self.world.slices().for_each(|it| inputs.upsert(it.clone()));
        self.policies.tiers().for_each(|it| inputs.upsert(it.clone()));
        self.policies.iter().for_each(|it| inputs.upsert(it));
        for id in self.endpoints.iter() {
            inputs.upsert(self.endpoints.model_of(id, &self.views));
        }
        inputs
    }
}

impl fmt::Debug for State {
    /// Writes how many of everything there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("labels", &self.views.labels.counts())
            .field("views", &self.views.counts())
            .field("endpoints", &self.endpoints.counts())
            .field("policies", &self.policies.counts())
            .field("blocks", &self.blocks.counts())
            .field("sets", &self.sets.counts())
            .field("world", &self.world.counts())
            .field("locals", &self.locals.counts())
            .field("unlisted", &self.unlisted.len())
            .field("dirty", &self.dirty.len())
            .finish_non_exhaustive()
    }
}
