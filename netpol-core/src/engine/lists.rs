//! Which policies apply to the endpoints of the node that look the same, and stand in the same place.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::locals::{Listed, Lists, Scope};
use super::lower::{Own, lower};
use super::policies::{PolicyRecord, side, takes_part};
use super::state::State;
use super::store::Id;
use super::views::Time;
use crate::flow::Direction;

impl State {
    /// Takes a policy out of the lists of a scope.
    pub(super) fn unlist(&mut self, policy: Id<PolicyRecord>, scope: Scope) {
        let Some(local) = self.locals.scopes.get_mut(&scope) else { return };
        let Some(lists) = &mut local.lists else { return };
        let mut found = 0;
        for list in lists {
            let before = list.len();
            list.retain(|it| it.policy != policy);
            found += u32::from(list.len() < before);
        }
        if found > 0 {
            self.locals.mark(scope);
            self.release(policy, found);
        }
    }

    /// Takes uses of a policy in lists away. When there are none left, its blocks go too.
    pub(super) fn release(&mut self, policy: Id<PolicyRecord>, uses: u32) {
        let record = self.policies.record_mut(policy);
        record.lists -= uses;
        if record.lists == 0 {
            let blocks = core::mem::take(&mut record.shared);
            blocks.into_iter().flatten().for_each(|it| self.blocks.unshare(it, &mut self.sets));
        }
    }

    pub(super) fn release_lists(&mut self, lists: Lists) {
        lists.into_iter().flatten().for_each(|it| self.release(it.policy, 1));
    }

    /// Makes the lists of a scope be made anew.
    pub(super) fn forget_lists(&mut self, scope: Scope) {
        self.locals.mark(scope);
        let lists = self.locals.scopes.get_mut(&scope).and_then(|it| it.lists.take());
        lists.into_iter().for_each(|it| self.release_lists(it));
    }

    /// Returns the policies that apply to a scope of endpoints of the node.
    pub(super) fn list_of(&mut self, scope: Scope, direction: Direction) -> &[Listed] {
        self.make_lists(scope);
        let lists = self.locals.scopes.get(&scope).and_then(|it| it.lists.as_ref());
        lists.and_then(|it| it.get(side(direction))).map(Vec::as_slice).unwrap_or_default()
    }

    fn make_lists(&mut self, scope: Scope) {
        if self.locals.scopes.get(&scope).is_none_or(|it| it.lists.is_some()) {
            return;
        }
        let mut applying = self.policies.applying_to(scope.view, &self.views);
        applying.retain(|it| self.policies.record(*it).head().host_traffic.is_in(scope.bucket));
        let lists = Direction::BOTH.map(|direction| {
            applying.iter().filter_map(|policy| self.list(*policy, direction)).collect::<Vec<_>>()
        });
        if let Some(local) = self.locals.scopes.get_mut(&scope) {
            local.lists = Some(lists);
        }
    }

    /// Returns a policy as lists have it, counted; `None` if it says nothing about the direction.
    pub(super) fn list(
        &mut self,
        policy: Id<PolicyRecord>,
        direction: Direction,
    ) -> Option<Listed> {
        let record = self.policies.record(policy);
        if !record.applies_to(direction) {
            return None;
        }
        let at = side(direction);
        let mut shared = record.shared.get(at).copied().flatten();
        if shared.is_none() && !record.depends_on_endpoint(direction) {
            let Self { views, endpoints, world, .. } = self;
            let (view, ports, addresses) = (None, &[][..], &[][..]);
            // The same for all endpoints, so nothing of any.
            let own = Own { views, endpoints, world, is_workload: true, view, ports, addresses };
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

    /// Puts a policy into the lists of the scopes that it applies to.
    pub(super) fn enlist(&mut self, policy: Id<PolicyRecord>) {
        let Some(record) = self.policies.get(policy) else { return };
        if !takes_part(record.head()) {
            return;
        }
        let (subject, traffic) = (record.head().subject.clone(), record.head().host_traffic);
        let listed = self.locals.scopes.iter().filter(|(_, local)| local.lists.is_some());
        let applies = |scope: &Scope| {
            traffic.is_in(scope.bucket) && subject.matches(&self.views.seen(scope.view, Time::Now))
        };
        let scopes: Vec<_> = listed.map(|(scope, _)| *scope).filter(applies).collect();
        for scope in scopes {
            for direction in Direction::BOTH {
                let Some(listed) = self.list(policy, direction) else { continue };
                let local = self.locals.scopes.get_mut(&scope).and_then(|it| it.lists.as_mut());
                let Some(list) = local.and_then(|it| it.get_mut(side(direction))) else { continue };
                let at = list.partition_point(|it| {
                    self.policies.compare(it.policy, policy) == Ordering::Less
                });
                list.insert(at, listed);
            }
            self.locals.mark(scope);
        }
    }

    /// Marks the endpoints whose rules depend on more than labels, ports and addresses of the endpoint.
    pub(super) fn mark_dependent(&mut self) {
        let scopes = self.locals.scopes.iter().filter(|(_, local)| {
            local.lists.iter().flatten().flatten().any(|it| it.shared.is_none())
        });
        for scope in scopes.map(|(scope, _)| *scope).collect::<Vec<_>>() {
            self.locals.mark(scope);
        }
    }
}
