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
use super::blocks::{Block, Blocks};
use super::endpoints::{Endpoints, Record};
use super::labels::Text;
use super::locals::{Listed, Locals};
use super::lower::{Own, lower};
use super::policies::{Policies, PolicyRecord, side, takes_part};
use super::sets::{Contribution, Sets};
use super::store::Id;
use super::views::{View, Views};
use super::world::World;
use crate::dataplane::{Capabilities, Delta, EndpointChange};
use crate::flow::Direction;
use crate::model::{self, Inputs, Mode, Object, ObjectKey, Policy};
use crate::net::canonical_address;
use crate::program::{Endpoint, PolicySet, PolicySetId, Program};
use crate::verdict::Verdict;

/// Everything that the program of a node depends on, and the program.
pub(super) struct State {
    capabilities: Capabilities,
    node: Id<Text>,
    views: Views,
    endpoints: Endpoints,
    policies: Policies,
    blocks: Blocks,
    sets: Sets,
    world: World,
    locals: Locals,
    /// Policies that are not in the lists of local views yet.
    unlisted: BTreeSet<Id<PolicyRecord>>,
    /// Addresses whose owner may have changed since the program was settled, and what the last one brought into sets.
    dirty: BTreeMap<IpAddr, Option<Contribution>>,
    /// The program, as it was settled last.
    program: Arc<Program>,
}

/// Taking inputs.
impl State {
    pub(super) fn new(config: &NodeConfig, capabilities: &Capabilities) -> Self {
        let mut views = Views::default();
        let node = views.labels.text(&config.node);
        let program = Program { established: config.established, ..Program::default() };
        Self {
            capabilities: capabilities.clone(),
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
            program: Arc::new(program),
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
        }
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
        }
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
            for view in self.locals.views.keys().copied().collect::<Vec<_>>() {
                self.forget_lists(view);
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
        let id = self.policies.insert(policy, &mut self.views);
        self.unlisted.insert(id);
    }

    fn remove_policy(&mut self, id: Id<PolicyRecord>) -> bool {
        self.unlisted.remove(&id);
        if self.policies.record(id).lists > 0 {
            for view in self.locals.views.keys().copied().collect::<Vec<_>>() {
                self.unlist(id, view);
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
    fn note(&mut self, addresses: &[IpAddr]) {
        if !self.sets.follow_views() {
            return;
        }
        for &address in addresses {
            if !self.dirty.contains_key(&address) {
                let contribution = self.contribution(address);
                self.keep(contribution);
                self.dirty.insert(address, contribution);
            }
        }
    }

    fn contribution(&self, address: IpAddr) -> Option<Contribution> {
        let owner = self.endpoints.record_of(self.endpoints.owner(address)?);
        Some((owner.view, owner.ports))
    }

    fn keep(&mut self, contribution: Option<Contribution>) {
        if let Some((view, ports)) = contribution {
            self.views.keep(view);
            ports.map(|it| self.endpoints.keep_ports(it));
        }
    }

    /// Makes an endpoint give up its addresses and its place on the node.
    fn depart(&mut self, id: Id<Record>) {
        if self.endpoints.is_on(id, Some(self.node)) {
            let view = self.endpoints.record_of(id).view;
            let lists = self.locals.remove(id, &self.endpoints, &self.views);
            if let Some(lists) = lists {
                self.release_lists(lists);
                self.views.drop_view(view);
            } else if !self.locals.views.contains_key(&view) {
                self.views.drop_view(view);
            }
        }
        let heirs = self.endpoints.disclaim(id, &self.views);
        self.mark(heirs);
    }

    /// Makes an endpoint claim its addresses and its place on the node.
    fn arrive(&mut self, id: Id<Record>) {
        let losers = self.endpoints.claim(id, &self.views);
        self.mark(losers);
        if self.endpoints.is_on(id, Some(self.node)) {
            let view = self.endpoints.record_of(id).view;
            if !self.locals.views.contains_key(&view) {
                self.views.keep(view);
            }
            self.locals.insert(id, &self.endpoints, &self.views);
        }
    }

    /// Says that those of these endpoints that are of the node may have to change.
    fn mark(&mut self, endpoints: Vec<Id<Record>>) {
        for id in endpoints {
            if self.endpoints.is_on(id, Some(self.node)) {
                self.locals.dirty.insert(id);
            }
        }
    }
}

/// Lists of policies.
impl State {
    /// Takes a policy out of the lists of a view.
    fn unlist(&mut self, policy: Id<PolicyRecord>, view: Id<View>) {
        let Some(local) = self.locals.views.get_mut(&view) else { return };
        let Some(lists) = &mut local.lists else { return };
        let mut found = 0;
        for list in lists {
            let before = list.len();
            list.retain(|it| it.policy != policy);
            found += u32::from(list.len() < before);
        }
        if found > 0 {
            self.locals.mark_view(view);
            self.release(policy, found);
        }
    }

    /// Takes uses of a policy in lists away. When there are none left, its blocks go too.
    fn release(&mut self, policy: Id<PolicyRecord>, uses: u32) {
        let record = self.policies.record_mut(policy);
        record.lists -= uses;
        if record.lists == 0 {
            let blocks = core::mem::take(&mut record.shared);
            blocks.into_iter().flatten().for_each(|it| self.blocks.unshare(it, &mut self.sets));
        }
    }

    fn release_lists(&mut self, lists: [Vec<Listed>; 2]) {
        lists.into_iter().flatten().for_each(|it| self.release(it.policy, 1));
    }

    /// Makes the lists of a view be made anew.
    fn forget_lists(&mut self, view: Id<View>) {
        self.locals.mark_view(view);
        let lists = self.locals.views.get_mut(&view).and_then(|it| it.lists.take());
        lists.into_iter().for_each(|it| self.release_lists(it));
    }

    /// Makes the lists of a view, if there are none.
    fn make_lists(&mut self, view: Id<View>) {
        if self.locals.views.get(&view).is_none_or(|it| it.lists.is_some()) {
            return;
        }
        let applying = self.policies.applying_to(view, &self.views);
        let lists = Direction::BOTH.map(|direction| {
            applying.iter().filter_map(|policy| self.list(*policy, direction)).collect::<Vec<_>>()
        });
        if let Some(local) = self.locals.views.get_mut(&view) {
            local.lists = Some(lists);
        }
    }

    /// Returns a policy as lists have it, counted; `None` if it says nothing about the direction.
    fn list(&mut self, policy: Id<PolicyRecord>, direction: Direction) -> Option<Listed> {
        let record = self.policies.record(policy);
        if !record.applies_to(direction) {
            return None;
        }
        let at = side(direction);
        let mut shared = record.shared.get(at).copied().flatten();
        if shared.is_none() && !record.depends_on_endpoint(direction) {
            let (views, world) = (&self.views, &self.world);
            let own = Own { views, world, view: None, ports: &[], addresses: &[] };
            let (capabilities, sets) = (&self.capabilities, &mut self.sets);
            let (rules, used) = lower(&record.policy(), direction, own, capabilities, sets);
            shared = Some(self.blocks.insert(record, rules, used, true));
        }
        let record = self.policies.record_mut(policy);
        record.lists += 1;
        if let Some(place) = record.shared.get_mut(at) {
            *place = shared;
        }
        Some(Listed { policy, shared })
    }

    /// Puts a policy into the lists of the views that it applies to.
    fn enlist(&mut self, policy: Id<PolicyRecord>) {
        let Some(record) = self.policies.get(policy) else { return };
        if !takes_part(record.head()) {
            return;
        }
        let subject = record.head().subject.clone();
        let listed = self.locals.views.iter().filter(|(_, local)| local.lists.is_some());
        let applies =
            |view: &Id<View>| subject.matches(&self.views.seen(*view, super::views::Time::Now));
        let views: Vec<_> = listed.map(|(view, _)| *view).filter(applies).collect();
        for view in views {
            for direction in Direction::BOTH {
                let Some(listed) = self.list(policy, direction) else { continue };
                let local = self.locals.views.get_mut(&view).and_then(|it| it.lists.as_mut());
                let Some(list) = local.and_then(|it| it.get_mut(side(direction))) else { continue };
                let at = list.partition_point(|it| {
                    self.policies.compare(it.policy, policy) == core::cmp::Ordering::Less
                });
                list.insert(at, listed);
            }
            self.locals.mark_view(view);
        }
    }
}

/// Following the inputs.
impl State {
    /// Returns whether anything was noted since the program was settled.
    pub(super) fn has_changed(&self) -> bool {
        !self.dirty.is_empty()
            || !self.unlisted.is_empty()
            || self.locals.has_changed()
            || self.views.has_changed()
            || self.world.has_changed()
    }

    /// Makes the program follow the inputs. Returns what changed.
    pub(super) fn settle(&mut self) -> Delta {
        self.follow_inherited_labels();
        for policy in core::mem::take(&mut self.unlisted) {
            self.enlist(policy);
        }
        if self.world.has_changed() {
            self.mark_dependent();
        }
        let mut delta = Delta::default();
        let mut program = core::mem::take(&mut self.program);
        let it = Arc::make_mut(&mut program);
        self.settle_endpoints(it, &mut delta);
        let policy_sets = self.blocks.sweep(&mut self.sets, it);
        let dirty = core::mem::take(&mut self.dirty);
        let sets = self.sets.update(&dirty, &mut self.views, &self.endpoints, &self.world, it);
        for (view, ports) in dirty.into_values().flatten() {
            self.views.drop_view(view);
            ports.into_iter().for_each(|it| self.endpoints.drop_ports(it));
        }
        self.views.settle();
        self.world.settle(&mut self.views);
        self.program = program;
        (delta.new_policy_sets, delta.removed_policy_sets) = (policy_sets.new, policy_sets.removed);
        (delta.new_sets, delta.members, delta.removed_sets) =
            (sets.new, sets.members, sets.removed);
        delta.program = Arc::clone(&self.program);
        delta
    }

    /// Notes what changes with the labels of namespaces and service accounts.
    fn follow_inherited_labels(&mut self) {
        if !self.views.has_changed() {
            return;
        }
        for view in self.views.changed() {
            if self.locals.views.contains_key(&view) {
                self.forget_lists(view);
            }
            let endpoints: Vec<_> = self.views.endpoints_of(view).collect();
            for id in endpoints {
                let addresses = self.endpoints.owned_by(id);
                self.note(&addresses);
            }
        }
    }

    /// Marks the endpoints whose rules depend on more than labels, ports and addresses of the endpoint.
    fn mark_dependent(&mut self) {
        let depends = |local: &super::locals::LocalView| {
            local.lists.iter().flatten().flatten().any(|it| it.shared.is_none())
        };
        let views = self.locals.views.iter().filter(|(_, local)| depends(local));
        for view in views.map(|(view, _)| *view).collect::<Vec<_>>() {
            self.locals.mark_view(view);
        }
    }

    fn settle_endpoints(&mut self, program: &mut Program, delta: &mut Delta) {
        let mut known = BTreeMap::new();
        for id in core::mem::take(&mut self.locals.dirty) {
            if !self.locals.contains(id, &self.endpoints) {
                continue;
            }
            if self.locals.is_attached(id, &self.endpoints, &self.views) {
                let endpoint = self.compile(id, program, &mut known);
                self.put(endpoint, program, delta);
            } else {
                let name = self.endpoints.id_of(id, &self.views);
                self.take(&name, program, delta);
            }
        }
        for name in core::mem::take(&mut self.locals.gone) {
            self.take(&name, program, delta);
        }
        delta.endpoints.sort_by(|one, other| one.new.id.cmp(&other.new.id));
        delta.removed_endpoints.sort_by(|one, other| one.id.cmp(&other.id));
    }

    /// Puts an endpoint into the program. Its policy sets have been counted for it.
    fn put(&mut self, new: Endpoint, program: &mut Program, delta: &mut Delta) {
        match program.endpoints.binary_search_by(|it| it.id.cmp(&new.id)) {
            Ok(at) => {
                let Some(place) = program.endpoints.get_mut(at) else { return };
                self.unuse_policy_sets(place);
                if *place != new {
                    let old = core::mem::replace(place, new.clone());
                    delta.endpoints.push(EndpointChange { old: Some(old), new });
                }
            }
            Err(at) => {
                program.endpoints.insert(at, new.clone());
                delta.endpoints.push(EndpointChange { old: None, new });
            }
        }
    }

    /// Takes an endpoint out of the program, if it is there.
    fn take(&mut self, id: &model::EndpointId, program: &mut Program, delta: &mut Delta) {
        let found = program.endpoints.binary_search_by(|it| it.id.cmp(id));
        if let Ok(at) = found {
            let endpoint = program.endpoints.remove(at);
            self.unuse_policy_sets(&endpoint);
            delta.removed_endpoints.push(endpoint);
        }
    }

    fn unuse_policy_sets(&mut self, endpoint: &Endpoint) {
        for direction in Direction::BOTH {
            self.blocks.unuse(endpoint.policy_set(direction));
        }
    }

    /// Returns an endpoint as the program has it.
    fn compile(
        &mut self,
        id: Id<Record>,
        program: &mut Program,
        known: &mut BTreeMap<(Verdict, Vec<Listed>), PolicySetId>,
    ) -> Endpoint {
        let addresses = self.endpoints.owned_by(id);
        self.make_lists(self.endpoints.record_of(id).view);
        let [ingress, egress] = Direction::BOTH
            .map(|direction| self.policy_set(id, direction, &addresses, program, known));
        Endpoint {
            id: self.endpoints.id_of(id, &self.views),
            attachment: self.endpoints.attachment_of(id, &self.views),
            addresses,
            mode: self.endpoints.record_of(id).mode,
            ingress,
            egress,
        }
    }

    /// Returns the policy set of an endpoint, counted.
    fn policy_set(
        &mut self,
        id: Id<Record>,
        direction: Direction,
        addresses: &[IpAddr],
        program: &mut Program,
        known: &mut BTreeMap<(Verdict, Vec<Listed>), PolicySetId>,
    ) -> PolicySetId {
        let record = self.endpoints.record_of(id);
        let lists = self.locals.views.get(&record.view).and_then(|it| it.lists.as_ref());
        let list = lists.and_then(|it| it.get(side(direction))).cloned().unwrap_or_default();
        let default = record.default_verdict;
        let is_shared = list.iter().all(|it| it.shared.is_some());
        let key = (default, list);
        if is_shared && let Some(&set) = known.get(&key) {
            self.blocks.use_again(set);
            return set;
        }
        let blocks: Vec<_> = key
            .1
            .iter()
            .map(|it| {
                (
                    it.policy,
                    it.shared.unwrap_or_else(|| self.lower(it.policy, id, direction, addresses)),
                )
            })
            .collect();
        let Self { policies, blocks: all, sets, .. } = self;
        let set = all.use_policy_set(&blocks, default, policies, sets, program);
        if is_shared {
            known.insert(key, set);
        }
        set
    }

    /// Returns the rules of a policy for one endpoint.
    fn lower(
        &mut self,
        policy: Id<PolicyRecord>,
        endpoint: Id<Record>,
        direction: Direction,
        addresses: &[IpAddr],
    ) -> Id<Block> {
        let record = self.endpoints.record_of(endpoint);
        let own = Own {
            views: &self.views,
            world: &self.world,
            view: Some(record.view),
            ports: self.endpoints.ports_of(record.ports),
            addresses,
        };
        let record = self.policies.record(policy);
        let (capabilities, sets) = (&self.capabilities, &mut self.sets);
        let (rules, used) = lower(&record.policy(), direction, own, capabilities, sets);
        self.blocks.insert(record, rules, used, false)
    }
}

/// Answers.
impl State {
    /// Returns the program as it was settled last.
    pub(super) const fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Returns whether endpoints of the node changed since this was asked last.
    pub(super) fn take_local_changes(&mut self) -> bool {
        let changed = self.locals.has_changed();
        self.locals.dirty.clear();
        self.locals.gone.clear();
        changed
    }

    /// Makes all endpoints of the node be looked at.
    pub(super) fn mark_all(&mut self) {
        self.locals.dirty.extend(self.locals.endpoints.values().copied());
    }

    /// Returns the endpoints of the node as they are known before any policy is: closed.
    pub(super) fn isolated_endpoints(&self) -> Vec<Endpoint> {
        let closed = PolicySet { stages: Vec::new(), default: Verdict::Deny };
        let closed = PolicySetId::of(&closed);
        let locals = self.locals.endpoints.iter();
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
