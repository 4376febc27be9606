//! The endpoints of the node, and which policies apply to them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::blocks::Block;
use super::endpoints::{Endpoints, Record};
use super::labels::Text;
use super::policies::PolicyRecord;
use super::store::Id;
use super::views::{View, Views};
use crate::model::{Bucket, EndpointId};

/// What decides which policies apply: what selectors see, and where on their way packets meet them. Workloads meet the
/// policies of [`Bucket::Normal`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Scope {
    pub(super) view: Id<View>,
    pub(super) bucket: Bucket,
}

/// A policy that applies, with its rules where all endpoints have the same.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Listed {
    pub(super) policy: Id<PolicyRecord>,
    pub(super) shared: Option<Id<Block>>,
}

/// The policies that apply, by direction, in the order in which they are asked.
pub(super) type Lists = [Vec<Listed>; 2];

/// What is known of the endpoints of the node that have a scope.
#[derive(Debug, Default)]
pub(super) struct Local {
    workloads: BTreeSet<Id<Record>>,
    hosts: BTreeSet<Id<Record>>,
    /// `None` until somebody needs them.
    pub(super) lists: Option<Lists>,
}

/// The endpoints of the node.
#[derive(Debug, Default)]
pub(super) struct Locals {
    /// Running workloads.
    pub(super) workloads: BTreeMap<EndpointId, Id<Record>>,
    pub(super) hosts: BTreeMap<EndpointId, Id<Record>>,
    pub(super) scopes: BTreeMap<Scope, Local>,
    interfaces: BTreeMap<Id<Text>, BTreeSet<Id<Record>>>,
    /// Workloads that may have to change in the program.
    pub(super) dirty: BTreeSet<Id<Record>>,
    /// Workloads that may have to leave the program.
    pub(super) gone: BTreeSet<EndpointId>,
    /// Host endpoints may have to change, come or go in the program.
    pub(super) hosts_changed: bool,
}

/// The places where host endpoints have policies.
pub(super) const BUCKETS: [Bucket; 4] =
    [Bucket::Untracked, Bucket::PreDnat, Bucket::Forward, Bucket::Normal];

impl Locals {
    /// Adds a workload of the node, as it is now.
    pub(super) fn insert(&mut self, id: Id<Record>, endpoints: &Endpoints, views: &Views) {
        let record = endpoints.record_of(id);
        let name = endpoints.id_of(id, views);
        self.gone.remove(&name);
        self.workloads.insert(name, id);
        let scope = Scope { view: record.view, bucket: Bucket::Normal };
        self.scopes.entry(scope).or_default().workloads.insert(id);
        if let Some(interface) = record.interface() {
            self.interfaces.entry(interface).or_default().insert(id);
            self.mark_interface(interface);
        }
        self.dirty.insert(id);
    }

    /// Takes a workload out, which is still stored as it was. Returns the lists that nobody has any more.
    pub(super) fn remove(
        &mut self,
        id: Id<Record>,
        endpoints: &Endpoints,
        views: &Views,
    ) -> Option<Lists> {
        let record = endpoints.record_of(id);
        let name = endpoints.id_of(id, views);
        self.workloads.remove(&name);
        self.gone.insert(name);
        if let Some(interface) = record.interface() {
            self.mark_interface(interface);
            if let Some(sharing) = self.interfaces.get_mut(&interface) {
                sharing.remove(&id);
                if sharing.is_empty() {
                    self.interfaces.remove(&interface);
                }
            }
        }
        self.dirty.remove(&id);
        self.leave(id, Scope { view: record.view, bucket: Bucket::Normal })
    }

    /// Adds a host endpoint of the node, as it is now.
    pub(super) fn insert_host(&mut self, id: Id<Record>, endpoints: &Endpoints, views: &Views) {
        self.hosts.insert(endpoints.id_of(id, views), id);
        self.hosts_changed = true;
        let view = endpoints.record_of(id).view;
        for bucket in BUCKETS {
            self.scopes.entry(Scope { view, bucket }).or_default().hosts.insert(id);
        }
    }

    /// Takes a host endpoint out, which is still stored as it was. Returns the lists that nobody has any more.
    pub(super) fn remove_host(
        &mut self,
        id: Id<Record>,
        endpoints: &Endpoints,
        views: &Views,
    ) -> Vec<Lists> {
        self.hosts.remove(&endpoints.id_of(id, views));
        self.hosts_changed = true;
        let view = endpoints.record_of(id).view;
        BUCKETS.iter().filter_map(|&bucket| self.leave(id, Scope { view, bucket })).collect()
    }

    fn leave(&mut self, id: Id<Record>, scope: Scope) -> Option<Lists> {
        let local = self.scopes.get_mut(&scope)?;
        local.workloads.remove(&id);
        local.hosts.remove(&id);
        if local.workloads.is_empty() && local.hosts.is_empty() {
            return self.scopes.remove(&scope)?.lists;
        }
        None
    }

    /// Returns the scopes with a view.
    pub(super) fn scopes_of(&self, view: Id<View>) -> impl Iterator<Item = Scope> {
        BUCKETS
            .map(|bucket| Scope { view, bucket })
            .into_iter()
            .filter(|it| self.scopes.contains_key(it))
    }

    /// Says that the workloads with an interface may have to change: only the newest is enforced.
    fn mark_interface(&mut self, interface: Id<Text>) {
        self.dirty.extend(self.interfaces.get(&interface).into_iter().flatten());
    }

    /// Says that the endpoints of a scope may have to change.
    pub(super) fn mark(&mut self, scope: Scope) {
        if let Some(local) = self.scopes.get(&scope) {
            self.dirty.extend(&local.workloads);
            self.hosts_changed |= !local.hosts.is_empty();
        }
    }

    /// Returns whether an endpoint is a workload of the node.
    pub(super) fn contains(&self, id: Id<Record>, endpoints: &Endpoints) -> bool {
        let scope = endpoints.get(id).map(|it| Scope { view: it.view, bucket: Bucket::Normal });
        let local = scope.and_then(|it| self.scopes.get(&it));
        local.is_some_and(|local| local.workloads.contains(&id))
    }

    /// Returns whether a workload of the node is the newest with its interface.
    pub(super) fn is_attached(&self, id: Id<Record>, endpoints: &Endpoints, views: &Views) -> bool {
        let interface = endpoints.record_of(id).interface();
        let sharing = interface.and_then(|it| self.interfaces.get(&it));
        let mut others = sharing.into_iter().flatten().filter(|it| **it != id);
        !others.any(|other| endpoints.is_newer(*other, id, views))
    }

    /// Returns whether anything may have to change.
    pub(super) fn has_changed(&self) -> bool {
        !self.dirty.is_empty() || !self.gone.is_empty() || self.hosts_changed
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 6] {
        let Self { workloads, hosts, scopes, interfaces, dirty, gone, hosts_changed: _ } = self;
        let noted = dirty.len() + gone.len();
        let scoped = scopes.values().map(|it| it.workloads.len() + it.hosts.len()).sum();
        [workloads.len(), hosts.len(), scopes.len(), scoped, interfaces.len(), noted]
    }
}
