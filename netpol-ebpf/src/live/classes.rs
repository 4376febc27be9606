//! Members: single addresses that go from class to class.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_core::Delta;
use netpol_core::net::Family;
use netpol_core::program::SetId;
use netpol_ebpf_abi as abi;

use super::build::{has_blocks, of_members};
use super::{Item, Key, Live, MOVES, Steps, Unfit, family_number};
use crate::ids::Kind;

/// What is added to the keys of addresses, and what is removed.
type Edits = BTreeMap<IpAddr, (Vec<Item>, Vec<Item>)>;

impl Live {
    /// Gives addresses whose memberships change their new classes. Returns the keys that no address had before.
    pub(super) fn change_members(
        &mut self,
        delta: &Delta,
        steps: &mut Steps,
    ) -> Result<Vec<usize>, Unfit> {
        let mut fresh = Vec::new();
        for (address, (added, removed)) in self.edits(delta)? {
            let before = self.addresses.get(&address).copied();
            let record = before.and_then(|number| self.keys.get(number));
            let around = record.map_or_else(|| self.around(address), |it| it.key.around);
            let mut items: Vec<Item> = record.map_or_else(Vec::new, |it| it.key.items.clone());
            let class_before = record.map_or(around, |it| it.class);
            let is_kept = |item: &Item| {
                !removed.contains(item)
                    && !matches!(item, Item::Set(set, _) if self.gone.contains(set))
            };
            items.retain(is_kept);
            items.extend(added);
            items.sort();
            items.dedup();
            let class_after = if items.is_empty() {
                self.release(address);
                around
            } else {
                let number = self.number_key(Key { around, items }, address, &mut fresh);
                self.release(address);
                self.attach(address, number);
                self.keys.get(number).ok_or(Unfit)?.class
            };
            match (class_before == around, class_after == around) {
                _ if class_before == class_after => {}
                (true, _) => steps.added.push((address, class_after)),
                (_, true) => steps.removed.push(address),
                _ => steps.moved.push((address, class_after)),
            }
        }
        if steps.moved.len() > MOVES {
            return Err(Unfit);
        }
        if !(steps.added.is_empty() && steps.moved.is_empty() && steps.removed.is_empty()) {
            self.rename((Kind::Space, self.space.id), steps);
        }
        Ok(fresh)
    }

    /// Returns how the keys of addresses change.
    fn edits(&mut self, delta: &Delta) -> Result<Edits, Unfit> {
        let mut edits = Edits::new();
        for id in &delta.new_sets {
            let set = delta.program.address_sets.get(id).ok_or(Unfit)?;
            if has_blocks(&set.members) {
                return Err(Unfit);
            }
            let number = self.number_set(*id);
            for (address, item) in of_members(&set.members, number) {
                edits.entry(address).or_default().0.push(item);
            }
        }
        for change in &delta.members {
            let number = *self.sets.get(&change.set).ok_or(Unfit)?;
            if !change.prefixes.is_empty() {
                return Err(Unfit);
            }
            let whole = |it: &IpAddr| (*it, Item::Set(number, None));
            let port = |(it, port): &(IpAddr, u16)| (*it, Item::Set(number, Some(*port)));
            let (addresses, ports) = (&change.addresses, &change.ports);
            let added = addresses.added.iter().map(whole).chain(ports.added.iter().map(port));
            for (address, item) in added {
                edits.entry(address).or_default().0.push(item);
            }
            let removed = addresses.removed.iter().map(whole).chain(ports.removed.iter().map(port));
            for (address, item) in removed {
                edits.entry(address).or_default().1.push(item);
            }
        }
        Ok(edits)
    }

    /// Forgets the sets that no rule refers to. The keys of their addresses stay as they are.
    pub(super) fn forget_sets(&mut self, delta: &Delta) {
        for (id, set) in &delta.removed_sets {
            if let Some(number) = self.sets.remove(id) {
                self.left_over += of_members(&set.members, number).len();
                self.gone.insert(number);
            }
        }
    }

    pub(super) fn number_set(&mut self, id: SetId) -> u32 {
        self.last_set += 1;
        self.sets.insert(id, self.last_set);
        self.last_set
    }

    /// Returns the class of the prefix around an address.
    pub(super) fn around(&self, address: IpAddr) -> u32 {
        let other = || abi::class_of_others(address.is_ipv6());
        self.blocks.longest_match(address).map_or_else(other, |(_, class)| *class)
    }

    fn number_key(&mut self, key: Key, sample: IpAddr, fresh: &mut Vec<usize>) -> usize {
        if let Some(number) = self.known.get(&key) {
            return *number;
        }
        let class = self.next_class;
        self.next_class += 1;
        let number = self.insert_key(key, class, sample);
        fresh.push(number);
        number
    }

    pub(super) fn attach(&mut self, address: IpAddr, number: usize) {
        if let Some(record) = self.keys.get_mut(number) {
            record.users += 1;
        }
        if self.addresses.insert(address, number).is_none()
            && let Some(count) = self.counts.get_mut(family_number(Family::of(address)))
        {
            *count += 1;
        }
    }

    fn release(&mut self, address: IpAddr) {
        let Some(number) = self.addresses.remove(&address) else { return };
        if let Some(record) = self.keys.get_mut(number) {
            record.users -= 1;
        }
        if let Some(count) = self.counts.get_mut(family_number(Family::of(address))) {
            *count -= 1;
        }
    }
}
