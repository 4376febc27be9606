//! Deltas: what changed between two programs, in the order in which it can be put in force.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::net::Prefix;
use crate::program::{
    AddressSet, Endpoint, Frontends, Hosts, Members, PolicySet, PolicySetId, Program, SetId,
};

/// What changed since the program of the last update.
///
/// The parts come in the order in which a dataplane puts them in force: what is new comes before what refers to it, and
/// nothing is removed before the last reference to it. Each list is sorted and names a thing once; a thing that is in
/// none of them is as it was.
///
/// Law: [`Program::advance`] turns the program of the last update into [`program`](Self::program).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Delta {
    /// The whole program after the change. A dataplane that lets go of it when it has applied the update spares the
    /// engine a copy.
    pub program: Arc<Program>,
    /// Sets that are new, with the members that they have in [`program`](Self::program).
    pub new_sets: Vec<SetId>,
    /// Members of sets that stay.
    pub members: Vec<MembersChange>,
    /// Policy sets that are new, as they are in [`program`](Self::program).
    pub new_policy_sets: Vec<PolicySetId>,
    /// Endpoints that are new or changed.
    pub endpoints: Vec<EndpointChange>,
    /// Endpoints that are gone, as they were.
    pub removed_endpoints: Vec<Endpoint>,
    /// What the node enforced on its own interfaces, if that changed.
    pub hosts: Option<Hosts>,
    /// Policy sets that no endpoint refers to any more, as they were.
    pub removed_policy_sets: Vec<(PolicySetId, Arc<PolicySet>)>,
    /// Sets that no rule refers to any more, as they were before the change.
    pub removed_sets: Vec<(SetId, Arc<AddressSet>)>,
}

/// What changed in the members of one set. Only the lists that its kind of members has are ever used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct MembersChange {
    /// The set.
    pub set: SetId,
    /// Its single addresses.
    pub addresses: Edit<IpAddr>,
    /// Its prefixes of more than one address. They are disjoint after the change, which they are not in between.
    pub prefixes: Edit<Prefix>,
    /// Its ports of addresses.
    pub ports: Edit<(IpAddr, u16)>,
}

/// What was added to a list, and what was removed. Both sorted; nothing is in both.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a member is added or removed")]
pub struct Edit<T> {
    /// What is new.
    pub added: Vec<T>,
    /// What is gone.
    pub removed: Vec<T>,
}

/// An endpoint that is new or changed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what there was and what there is")]
pub struct EndpointChange {
    /// What it was; `None` if it is new.
    pub old: Option<Endpoint>,
    /// What it is.
    pub new: Endpoint,
}

/// Why a delta does not fit a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the delta does not belong to this program, expected the one of the last update")]
#[non_exhaustive]
pub struct DeltaMismatch;

impl<T> Default for Edit<T> {
    fn default() -> Self {
        Self { added: Vec::new(), removed: Vec::new() }
    }
}

impl<T> Edit<T> {
    /// Returns whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl MembersChange {
    /// Returns no change of a set.
    #[must_use]
    pub fn new(set: SetId) -> Self {
        Self { set, addresses: Edit::default(), prefixes: Edit::default(), ports: Edit::default() }
    }

    /// Returns whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.prefixes.is_empty() && self.ports.is_empty()
    }
}

impl Delta {
    /// Returns whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.new_sets.is_empty()
            && self.members.is_empty()
            && self.new_policy_sets.is_empty()
            && self.endpoints.is_empty()
            && self.removed_endpoints.is_empty()
            && self.hosts.is_none()
            && self.removed_policy_sets.is_empty()
            && self.removed_sets.is_empty()
    }

    /// Returns whether it could change what policy says of a frontend.
    pub(crate) fn concerns(&self, frontends: &Frontends) -> bool {
        let has_no_rules = |set: &PolicySet| set.stages.iter().all(|it| it.rules.is_empty());
        // Only a policy set without rules can be in force in one direction and come to be in the other.
        let may_be_new = |change: &EndpointChange| {
            let set = self.program.policy_sets.get(&change.new.egress);
            set.is_some_and(|set| !set.is_open() && has_no_rules(set))
        };
        let touches = |change: &MembersChange| {
            let MembersChange { set: _, addresses, prefixes, ports } = change;
            let addresses = addresses.added.iter().chain(&addresses.removed);
            let ports = ports.added.iter().chain(&ports.removed).map(|(address, _)| address);
            !prefixes.is_empty() || addresses.chain(ports).any(|it| frontends.concern(*it))
        };
        !frontends.is_empty()
            && (!self.new_sets.is_empty()
                || !self.new_policy_sets.is_empty()
                || self.members.iter().any(touches)
                || self.endpoints.iter().any(may_be_new))
    }
}

impl Program {
    /// Applies a delta, step by step in its order. Of the delta's program only what the delta calls new is read.
    ///
    /// # Errors
    ///
    /// [`DeltaMismatch`] if the delta is not one of this program. Part of it may have been applied then.
    pub fn advance(&mut self, delta: &Delta) -> Result<(), DeltaMismatch> {
        for id in &delta.new_sets {
            let set = delta.program.address_sets.get(id).ok_or(DeltaMismatch)?;
            none(self.address_sets.insert(*id, Arc::clone(set)))?;
        }
        for change in &delta.members {
            let set = self.address_sets.get_mut(&change.set).ok_or(DeltaMismatch)?;
            Arc::make_mut(set).members.change(change)?;
        }
        for id in &delta.new_policy_sets {
            let set = delta.program.policy_sets.get(id).ok_or(DeltaMismatch)?;
            none(self.policy_sets.insert(*id, Arc::clone(set)))?;
        }
        for change in &delta.endpoints {
            self.change_endpoint(change)?;
        }
        for endpoint in &delta.removed_endpoints {
            let at = self.endpoints.iter().position(|it| it == endpoint).ok_or(DeltaMismatch)?;
            self.endpoints.remove(at);
        }
        if let Some(hosts) = &delta.hosts {
            if self.hosts != *hosts {
                return Err(DeltaMismatch);
            }
            self.hosts.clone_from(&delta.program.hosts);
        }
        for (id, _) in &delta.removed_policy_sets {
            self.policy_sets.remove(id).ok_or(DeltaMismatch)?;
        }
        for (id, _) in &delta.removed_sets {
            self.address_sets.remove(id).ok_or(DeltaMismatch)?;
        }
        Ok(())
    }

    fn change_endpoint(&mut self, change: &EndpointChange) -> Result<(), DeltaMismatch> {
        let found = self.endpoints.binary_search_by(|it| it.id.cmp(&change.new.id));
        match (found, &change.old) {
            (Ok(at), Some(old)) => {
                let place = self.endpoints.get_mut(at).filter(|it| *it == old);
                *place.ok_or(DeltaMismatch)? = change.new.clone();
            }
            (Err(at), None) => self.endpoints.insert(at, change.new.clone()),
            _ => return Err(DeltaMismatch),
        }
        Ok(())
    }
}

impl Members {
    /// Applies a change, which must remove only what is there and add only what is not.
    fn change(&mut self, change: &MembersChange) -> Result<(), DeltaMismatch> {
        let fits = match self {
            Self::Addresses { exact, prefixes } => {
                let removed = change.addresses.removed.iter().all(|it| exact.remove(*it));
                let added = change.addresses.added.iter().all(|it| exact.insert(*it));
                let is_kept = |it: &Prefix| change.prefixes.removed.binary_search(it).is_err();
                let kept = prefixes.prefixes().iter().filter(|it| is_kept(it));
                *prefixes = kept.chain(&change.prefixes.added).copied().collect();
                removed && added && change.ports.is_empty()
            }
            Self::Ports(ports) => {
                change.ports.removed.iter().all(|it| ports.remove(it))
                    && change.ports.added.iter().all(|it| ports.insert(*it))
                    && change.addresses.is_empty()
                    && change.prefixes.is_empty()
            }
        };
        if fits { Ok(()) } else { Err(DeltaMismatch) }
    }
}

fn none<T>(before: Option<T>) -> Result<(), DeltaMismatch> {
    before.map_or(Ok(()), |_| Err(DeltaMismatch))
}
