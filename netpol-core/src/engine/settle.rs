//! Making the program follow the inputs.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::blocks::{Block, Stack};
use super::endpoints::Record;
use super::locals::{Listed, Scope};
use super::lower::{Own, lower};
use super::policies::PolicyRecord;
use super::state::State;
use super::store::Id;
use crate::dataplane::{Delta, DestinationView, EndpointChange};
use crate::flow::Direction;
use crate::model::{self, Bucket};
use crate::program::{Endpoint, PolicySetId, Program};

/// The policy sets that lists of policies led to since the program began to be settled.
pub(super) type Known = BTreeMap<(Stack, Vec<Listed>), PolicySetId>;

/// What changed when the program was settled.
pub(super) struct Settled {
    pub(super) delta: Delta,
    /// The delta does not say all of it, so only the whole program does.
    pub(super) is_whole: bool,
}

impl State {
    /// Returns whether anything was noted since the program was settled.
    pub(super) fn has_changed(&self) -> bool {
        !self.dirty.is_empty()
            || !self.unlisted.is_empty()
            || self.locals.has_changed()
            || self.views.has_changed()
            || self.world.has_changed()
            || self.world.have_frontends_changed()
            || self.other_hosts_changed
    }

    /// Makes the program follow the inputs. Returns what changed.
    pub(super) fn settle(&mut self) -> Settled {
        self.follow_inherited_labels();
        for policy in core::mem::take(&mut self.unlisted) {
            self.enlist(policy);
        }
        if self.world.has_changed() || self.views.has_changed() || self.other_hosts_changed {
            self.mark_dependent();
        }
        self.other_hosts_changed = false;
        self.locals.hosts_changed |= self.world.others_changed() && !self.locals.hosts.is_empty();
        let mut delta = Delta::default();
        let mut program = core::mem::take(&mut self.program);
        let it = Arc::make_mut(&mut program);
        let mut is_whole = self.settle_frontends(it);
        let mut known = Known::new();
        self.settle_endpoints(it, &mut known, &mut delta);
        self.settle_hosts(it, &mut known, &mut delta);
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
        self.rounds += 1;
        (delta.new_policy_sets, delta.removed_policy_sets) = (policy_sets.new, policy_sets.removed);
        (delta.new_sets, delta.members, delta.removed_sets) =
            (sets.new, sets.members, sets.removed);
        delta.program = Arc::clone(&self.program);
        is_whole |= delta.concerns(&self.program.frontends);
        Settled { delta, is_whole }
    }

    /// Follows Services, where the dataplane must know what the node translates. Returns whether anything changed.
    fn settle_frontends(&mut self, program: &mut Program) -> bool {
        if self.capabilities.destination_view == DestinationView::AfterDestinationNat
            || !self.world.have_frontends_changed()
        {
            return false;
        }
        let frontends = self.world.frontends(self.node_name());
        let has_changed = *program.frontends != frontends;
        if has_changed {
            program.frontends = Arc::new(frontends);
        }
        has_changed
    }

    /// Notes what changes with the labels of namespaces and service accounts.
    fn follow_inherited_labels(&mut self) {
        if !self.views.has_changed() {
            return;
        }
        for view in self.views.changed() {
            for scope in self.locals.scopes_of(view).collect::<Vec<_>>() {
                self.forget_lists(scope);
            }
            let endpoints: Vec<_> = self.views.endpoints_of(view).collect();
            for id in endpoints {
                let addresses = self.endpoints.record_of(id).addresses().to_vec();
                self.note(&addresses);
            }
        }
    }

    fn settle_endpoints(&mut self, program: &mut Program, known: &mut Known, delta: &mut Delta) {
        for id in core::mem::take(&mut self.locals.dirty) {
            if !self.locals.contains(id, &self.endpoints) {
                continue;
            }
            if self.locals.is_attached(id, &self.endpoints, &self.views) {
                let endpoint = self.compile(id, program, known);
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
    fn compile(&mut self, id: Id<Record>, program: &mut Program, known: &mut Known) -> Endpoint {
        let addresses = self.endpoints.owned_by(id);
        let default = self.endpoints.record_of(id).default_verdict;
        let stack = Stack { default, bucket: Bucket::Normal };
        let [ingress, egress] = Direction::BOTH
            .map(|direction| self.policy_set(id, stack, direction, &addresses, program, known));
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
    pub(super) fn policy_set(
        &mut self,
        id: Id<Record>,
        stack: Stack,
        direction: Direction,
        addresses: &[IpAddr],
        program: &mut Program,
        known: &mut Known,
    ) -> PolicySetId {
        let scope = Scope { view: self.endpoints.record_of(id).view, bucket: stack.bucket };
        let list = self.list_of(scope, direction).to_vec();
        let is_shared = list.iter().all(|it| it.shared.is_some());
        let key = (stack, list);
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
        let set = all.use_policy_set(&blocks, stack, policies, sets, program);
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
            endpoints: &self.endpoints,
            world: &self.world,
            is_workload: !record.is_host(),
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
