//! The endpoints of the node, and which policies apply to them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::blocks::Block;
use super::endpoints::{Endpoints, Record};
use super::labels::Text;
use super::policies::PolicyRecord;
use super::store::Id;
use super::views::{View, Views};
use crate::model::EndpointId;

/// A policy that applies, with its rules where all endpoints have the same.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Listed {
    pub(super) policy: Id<PolicyRecord>,
    pub(super) shared: Option<Id<Block>>,
}

/// What is known of the endpoints of the node that look the same.
#[derive(Debug, Default)]
pub(super) struct LocalView {
    pub(super) endpoints: BTreeSet<Id<Record>>,
    /// The policies that apply, by direction, in the order in which they are asked. `None` until somebody needs it.
    pub(super) lists: Option<[Vec<Listed>; 2]>,
}

/// The running endpoints of the node.
#[derive(Debug, Default)]
pub(super) struct Locals {
    pub(super) endpoints: BTreeMap<EndpointId, Id<Record>>,
    pub(super) views: BTreeMap<Id<View>, LocalView>,
    interfaces: BTreeMap<Id<Text>, BTreeSet<Id<Record>>>,
    /// Endpoints that may have to change in the program.
    pub(super) dirty: BTreeSet<Id<Record>>,
    /// Endpoints that may have to leave the program.
    pub(super) gone: BTreeSet<EndpointId>,
}

impl Locals {
    /// Adds an endpoint of the node, as it is now.
    pub(super) fn insert(&mut self, id: Id<Record>, endpoints: &Endpoints, views: &Views) {
        let record = endpoints.record_of(id);
        let name = endpoints.id_of(id, views);
        self.gone.remove(&name);
        self.endpoints.insert(name, id);
        self.views.entry(record.view).or_default().endpoints.insert(id);
        if let Some(interface) = record.interface {
            self.interfaces.entry(interface).or_default().insert(id);
            self.mark_interface(interface);
        }
        self.dirty.insert(id);
    }

    /// Takes an endpoint out, which is still stored as it was. Returns the list of its view, if that has no other endpoint.
    pub(super) fn remove(
        &mut self,
        id: Id<Record>,
        endpoints: &Endpoints,
        views: &Views,
    ) -> Option<[Vec<Listed>; 2]> {
        let record = endpoints.record_of(id);
        let name = endpoints.id_of(id, views);
        self.endpoints.remove(&name)?;
        self.gone.insert(name);
        self.dirty.remove(&id);
        if let Some(interface) = record.interface {
            self.mark_interface(interface);
            self.dirty.remove(&id);
            if let Some(sharing) = self.interfaces.get_mut(&interface) {
                sharing.remove(&id);
                if sharing.is_empty() {
                    self.interfaces.remove(&interface);
                }
            }
        }
        let view = self.views.get_mut(&record.view)?;
        view.endpoints.remove(&id);
        if !view.endpoints.is_empty() {
            return None;
        }
        self.views.remove(&record.view)?.lists
    }

    /// Says that the endpoints of an interface may have to change: only the newest is enforced.
    fn mark_interface(&mut self, interface: Id<Text>) {
        self.dirty.extend(self.interfaces.get(&interface).into_iter().flatten());
    }

    /// Says that the endpoints of a view may have to change.
    pub(super) fn mark_view(&mut self, view: Id<View>) {
        self.dirty.extend(self.views.get(&view).into_iter().flat_map(|it| &it.endpoints));
    }

    /// Returns whether an endpoint is one of the node.
    pub(super) fn contains(&self, id: Id<Record>, endpoints: &Endpoints) -> bool {
        let view = endpoints.get(id).and_then(|record| self.views.get(&record.view));
        view.is_some_and(|view| view.endpoints.contains(&id))
    }

    /// Returns whether an endpoint of the node is the newest with its interface.
    pub(super) fn is_attached(&self, id: Id<Record>, endpoints: &Endpoints, views: &Views) -> bool {
        let interface = endpoints.record_of(id).interface;
        let sharing = interface.and_then(|it| self.interfaces.get(&it));
        let mut others = sharing.into_iter().flatten().filter(|it| **it != id);
        !others.any(|other| endpoints.is_newer(*other, id, views))
    }

    /// Returns whether anything may have to change.
    pub(super) fn has_changed(&self) -> bool {
        !self.dirty.is_empty() || !self.gone.is_empty()
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 5] {
        let Self { endpoints, views, interfaces, dirty, gone } = self;
        [endpoints.len(), views.len(), interfaces.len(), dirty.len(), gone.len()]
    }
}
