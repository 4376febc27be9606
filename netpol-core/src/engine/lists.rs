//! Which policies apply to the endpoints of the node that look the same.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::locals::{Listed, LocalView};
use super::lower::{Own, lower};
use super::policies::{PolicyRecord, side, takes_part};
use super::state::State;
use super::store::Id;
use super::views::{Time, View};
use crate::flow::Direction;

impl State {
    /// Takes a policy out of the lists of a view.
    pub(super) fn unlist(&mut self, policy: Id<PolicyRecord>, view: Id<View>) {
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
    pub(super) fn release(&mut self, policy: Id<PolicyRecord>, uses: u32) {
        let record = self.policies.record_mut(policy);
        record.lists -= uses;
        if record.lists == 0 {
            let blocks = core::mem::take(&mut record.shared);
            blocks.into_iter().flatten().for_each(|it| self.blocks.unshare(it, &mut self.sets));
        }
    }

    pub(super) fn release_lists(&mut self, lists: [Vec<Listed>; 2]) {
        lists.into_iter().flatten().for_each(|it| self.release(it.policy, 1));
    }

    /// Makes the lists of a view be made anew.
    pub(super) fn forget_lists(&mut self, view: Id<View>) {
        self.locals.mark_view(view);
        let lists = self.locals.views.get_mut(&view).and_then(|it| it.lists.take());
        lists.into_iter().for_each(|it| self.release_lists(it));
    }

    /// Makes the lists of a view, if there are none.
    pub(super) fn make_lists(&mut self, view: Id<View>) {
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
    pub(super) fn enlist(&mut self, policy: Id<PolicyRecord>) {
        let Some(record) = self.policies.get(policy) else { return };
        if !takes_part(record.head()) {
            return;
        }
        let subject = record.head().subject.clone();
        let listed = self.locals.views.iter().filter(|(_, local)| local.lists.is_some());
        let applies = |view: &Id<View>| subject.matches(&self.views.seen(*view, Time::Now));
        let views: Vec<_> = listed.map(|(view, _)| *view).filter(applies).collect();
        for view in views {
            for direction in Direction::BOTH {
                let Some(listed) = self.list(policy, direction) else { continue };
                let local = self.locals.views.get_mut(&view).and_then(|it| it.lists.as_mut());
                let Some(list) = local.and_then(|it| it.get_mut(side(direction))) else { continue };
                let at = list.partition_point(|it| {
                    self.policies.compare(it.policy, policy) == Ordering::Less
                });
                list.insert(at, listed);
            }
            self.locals.mark_view(view);
        }
    }

    /// Marks the endpoints whose rules depend on more than labels, ports and addresses of the endpoint.
    pub(super) fn mark_dependent(&mut self) {
        let depends = |local: &LocalView| {
            local.lists.iter().flatten().flatten().any(|it| it.shared.is_none())
        };
        let views = self.locals.views.iter().filter(|(_, local)| depends(local));
        for view in views.map(|(view, _)| *view).collect::<Vec<_>>() {
            self.locals.mark_view(view);
        }
    }
}
