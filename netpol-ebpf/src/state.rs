//! Programs and maps together: updates in their order.
//!
//! Prepare: objects that are new are written under ids that nothing refers to. Switch: the record of each endpoint is
//! replaced with one store. Sweep: when no program works with the old records any more, what they referred to is removed.
//! A crash at any point leaves the old policy or the new one in force for each endpoint; what is left over has no name or
//! is referred to by no record, and the next update removes it.

mod delta;
mod grace;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netpol_core::flat::{Flat, classify};
use netpol_core::model::EndpointId;
use netpol_core::program::{Digest, Endpoint};
use netpol_core::{DataplaneError, Program};
use netpol_ebpf_abi as abi;

use self::delta::{Fence, Memory};
use self::unknown::Unknown;
use crate::config::{EbpfConfig, ForeignSources};
use crate::error::EbpfError;
use crate::ids::{Ids, Kind};
use crate::live::Live;
use crate::maps::Maps;
use crate::pins::{Lock, Pins};
use crate::programs::{Programs, Side, index_of};
use crate::render::{self, Desired, Image, Options, Settings};
use crate::sys::wait_for_programs;

/// Endpoints that were closed, and why.
pub(crate) type Isolated = Vec<(EndpointId, DataplaneError)>;

/// Programs and maps.
pub(crate) struct State {
    pub(crate) maps: Maps,
    pub(crate) programs: Programs,
    pub(crate) pins: Pins,
    config: EbpfConfig,
    /// What is in force, if a delta can follow it.
    memory: Option<Memory>,
    fence: Fence,
    unknown: Unknown,
    /// Who had which address before a delta that has not been applied completely.
    before: Holders,
    #[cfg(test)]
    full_updates: u64,
    _lock: Lock,
}

/// What is in force while an update goes on.
struct InForce {
    /// By interface: the number of the record and the record.
    records: BTreeMap<u32, (u32, abi::Endpoint)>,
    /// Numbers that must not be written: records that are in force, or were before this update.
    taken: BTreeSet<u32>,
    /// Every number below this is taken.
    first_free: u32,
    /// The last generation that a record got. All records count together, so that one of an endpoint that comes to another
    /// interface is none that judged flows before.
    generation: u32,
    /// Interfaces that this update wants.
    wanted: BTreeSet<u32>,
    /// Addresses of endpoints that have several.
    own: Own,
    /// Whether anything was switched.
    switched: bool,
}

/// Addresses of endpoints that have several, by their ids.
type Own = BTreeSet<(u32, [u32; 4])>;

/// The ids of endpoints that may have flows, by their addresses, as the map of own addresses has them.
type Holders = BTreeMap<[u32; 4], u32>;

impl InForce {
    /// Returns the holders of addresses among the interfaces that an update wants.
    fn wanted_holders(&self) -> Holders {
        let wanted = self.records.iter().filter(|(interface, _)| self.wanted.contains(interface));
        holders(wanted.map(|(_, (_, record))| record), &self.own)
    }

    /// Returns whether what is in force for an interface is for this endpoint and its addresses.
    fn knows(&self, interface: u32, desired: &Desired, ids: &Ids, own: &Own) -> bool {
        let id = ids.known().get(&(Kind::Endpoint, Digest::of(&desired.id)));
        self.records.get(&interface).is_some_and(|(_, record)| {
            let more = own.iter().filter(|(endpoint, _)| *endpoint == record.id);
            let more: BTreeSet<_> = more.map(|(_, address)| *address).collect();
            Some(&record.id) == id
                && (record.v4, record.v6) == (desired.record.v4, desired.record.v6)
                && more == desired.more.iter().copied().collect()
        })
    }
}

/// Returns who has which address. Isolated endpoints have no flows.
fn holders<'a>(records: impl Iterator<Item = &'a abi::Endpoint>, own: &Own) -> Holders {
    let mut holders = Holders::new();
    for record in records.filter(|record| record.flags & abi::ISOLATED == 0) {
        if record.v4 != 0 {
            holders.insert(render::mapped(record.v4), record.id);
        }
        if record.v6 != [0; 4] {
            holders.insert(record.v6, record.id);
        }
        let more = own.iter().filter(|(endpoint, _)| *endpoint == record.id);
        holders.extend(more.map(|(endpoint, address)| (*address, *endpoint)));
    }
    holders
}

impl State {
    /// Loads the programs and opens the maps. Interfaces that programs of the same version are attached to get ours.
    pub(crate) fn open(pins: &Pins, config: &EbpfConfig) -> Result<Self, EbpfError> {
        let adopts = pins.has_maps();
        pins.make()?;
        let lock = pins.lock()?;
        let programs = Programs::load(pins.clone(), config)?;
        let maps = Maps::open(pins)?;
        let (pins, config) = (pins.clone(), config.clone());
        let (memory, fence) = (None, Fence::default());
        let mut state = Self {
            maps,
            programs,
            pins,
            config,
            memory,
            fence,
            unknown: Unknown::default(),
            before: Holders::new(),
            #[cfg(test)]
            full_updates: 0,
            _lock: lock,
        };
        if adopts {
            let published = state.maps.published()?;
            for interface in state.programs.attached()? {
                // If the interface is gone or another one, or the earlier process crashed while it attached, the next
                // update decides.
                if published.contains_key(&interface) && state.programs.guard(interface) {
                    drop(state.programs.attach(interface));
                }
            }
        }
        Ok(state)
    }

    /// Enforces a whole program.
    pub(crate) fn enforce(&mut self, program: &Program) -> Result<(Isolated, u64), EbpfError> {
        #[cfg(test)]
        {
            self.full_updates += 1;
        }
        self.memory = None;
        self.fence.before_writes();
        self.programs.begin_update();
        let (image, flat, mut ids) = match self.prepare(program) {
            Err(EbpfError::Map { .. } | EbpfError::Ids) => {
                self.reclaim()?;
                self.prepare(program)?
            }
            prepared => prepared?,
        };
        let mut in_force = self.in_force()?;
        let mut before =
            holders(in_force.records.values().map(|(_, record)| record), &self.maps.own()?);
        before.extend(self.before.clone());
        let mut isolated: Isolated = image
            .isolated
            .iter()
            .map(|(id, error)| (id.clone(), closed(Arc::clone(error))))
            .collect();
        for (interface, desired) in &image.endpoints {
            if let Err(error) = self.switch(interface, desired, &mut in_force, &mut ids) {
                isolated.push((desired.id.clone(), closed(Arc::new(error))));
            }
        }
        self.unknown.interfaces.clone_from(&program.unknown);
        self.unknown.settings = Settings::of(program)?;
        self.unknown.known = image.endpoints.keys().cloned().collect();
        let treated = self.treat_all(&mut in_force, &mut ids);
        let (revoked, is_clean) = self.sweep(&image, &in_force, &before);
        self.before.clear();
        if is_clean && isolated.is_empty() && treated.is_ok() {
            let live = Live::of(program, flat, image, ids, self.options(), &self.config.capacity);
            self.remember(live, in_force);
        }
        // An interface that cannot have links yet keeps its filters.
        drop(self.programs.link_more());
        treated?;
        Ok((isolated, revoked))
    }

    /// Isolates the endpoints that nothing is in force for, and changes nothing else.
    pub(crate) fn isolate(&mut self, endpoints: &[Endpoint]) -> Result<Isolated, EbpfError> {
        if let Some(memory) = self.memory.take() {
            self.unknown.known = memory.live.endpoints.into_keys().collect();
        }
        self.fence.before_writes();
        self.programs.begin_update();
        let mut ids = self.maps.ids()?;
        let mut in_force = self.in_force()?;
        let own = self.maps.own()?;
        let mut isolated = Isolated::new();
        for endpoint in endpoints {
            let failed = |error| (endpoint.id.clone(), closed(Arc::new(error)));
            let interface = match render::interface(endpoint) {
                Ok(Some(interface)) => interface,
                Ok(None) => continue,
                Err(error) => {
                    isolated.push(failed(error));
                    continue;
                }
            };
            let desired = render::isolated(endpoint);
            let known = index_of(interface).is_ok_and(|index| {
                self.programs.guard(index)
                    && (!self.programs.is_current(index)
                        || in_force.knows(index, &desired, &ids, &own))
            });
            if !known && let Err(error) = self.switch(interface, &desired, &mut in_force, &mut ids)
            {
                isolated.push(failed(error));
            }
        }
        if in_force.switched {
            self.fence.replaced();
            self.fence.begin();
        }
        Ok(isolated)
    }

    /// Returns how what is in force differs from a program.
    pub(crate) fn differences(&mut self, program: &Program) -> Result<Vec<String>, EbpfError> {
        self.settle()?;
        let (image, mut lines) = self.wanted(program)?;
        lines.extend(self.maps.differences(&image)?);
        let in_force = self.in_force()?;
        let attached = self.programs.attached()?;
        let mut wanted = BTreeSet::new();
        for (interface, desired) in &image.endpoints {
            let Ok(index) = index_of(interface) else {
                lines.push(format!("there is no interface `{interface}`"));
                continue;
            };
            wanted.insert(index);
            for side in Side::BOTH {
                if !self.programs.is_attached(index, interface, side)? {
                    lines.push(format!(
                        "program `{}` is not attached to `{interface}`",
                        side.program()
                    ));
                }
            }
            match in_force.records.get(&index) {
                None => lines.push(format!("`{interface}` has no record")),
                Some((_, record)) if !is_same(record, &desired.record) => {
                    lines.push(format!("the record of `{interface}` was changed"));
                }
                Some(_) => {}
            }
        }
        let known = |it: &str| image.endpoints.contains_key(it);
        lines.extend(self.unknown_differences(program, known, &in_force, &mut wanted)?);
        let extra =
            attached.iter().chain(in_force.records.keys()).filter(|index| !wanted.contains(index));
        let extra: BTreeSet<_> = extra.collect();
        lines.extend(extra.into_iter().map(|index| format!("interface {index} is no endpoint's")));
        if !lines.is_empty() {
            self.memory = None;
        }
        Ok(lines)
    }

    /// Returns what should be in the maps, and how that differs in meaning from a program: after deltas other bytes mean the
    /// same.
    fn wanted(&self, program: &Program) -> Result<(Image, Vec<String>), EbpfError> {
        let Some(Memory { live, .. }) = &self.memory else {
            let (image, _) = self.render(program, &mut self.maps.ids()?)?;
            return Ok((image, Vec::new()));
        };
        let mut ids = live.ids.clone();
        let (image, flat) = self.render(program, &mut ids)?;
        let fresh =
            Live::of(program, flat, image.clone(), ids, self.options(), &self.config.capacity);
        Ok(match (fresh, live.image()) {
            (Some(fresh), Ok(wanted)) => (wanted, live.differences(&fresh)),
            _ => (image, Vec::new()),
        })
    }

    fn options(&self) -> Options {
        let check_source = self.config.foreign_sources == ForeignSources::Drop;
        Options { check_source, ports: self.config.capacity.ports }
    }

    fn render(&self, program: &Program, ids: &mut Ids) -> Result<(Image, Flat), EbpfError> {
        let capacity = &self.config.capacity;
        let flat: Flat = classify(program, &capacity.limits()).map_err(EbpfError::Capacity)?;
        let image = render::render(program, &flat, ids, self.options())?;
        if image.endpoints.len() > capacity.endpoints as usize {
            return Err(EbpfError::Endpoints {
                needed: image.endpoints.len(),
                limit: capacity.endpoints,
            });
        }
        Ok((image, flat))
    }

    /// Renders a program, writes the objects that are not there yet, and gives endpoints their ids.
    fn prepare(&mut self, program: &Program) -> Result<(Image, Flat, Ids), EbpfError> {
        let before = self.maps.ids()?;
        let mut ids = before.clone();
        let (image, flat) = self.render(program, &mut ids)?;
        for desired in image.endpoints.values() {
            ids.id(Kind::Endpoint, Digest::of(&desired.id)).map_err(|_| EbpfError::Ids)?;
        }
        self.maps.note_last(ids.last())?;
        for ((kind, id), object) in render::in_order(&image.objects) {
            if before.known().get(&(*kind, object.digest)) != Some(id) {
                self.maps.write(*kind, *id, object)?;
            }
        }
        Ok((image, flat, ids))
    }

    /// Removes everything that is not in force: what updates that failed, or a process that crashed, left in the maps. It
    /// could take the room of all updates to come.
    pub(crate) fn reclaim(&mut self) -> Result<(), EbpfError> {
        let records: Vec<_> =
            self.in_force()?.records.into_values().map(|(_, record)| record).collect();
        self.maps.keep_only(&self.maps.used_by(&records)?)
    }

    fn in_force(&self) -> Result<InForce, EbpfError> {
        let mut records = BTreeMap::new();
        for (interface, number) in self.maps.published()? {
            records.insert(interface, (number, self.maps.record(number)?));
        }
        let taken = records.values().map(|(number, _)| *number).collect();
        let generation = records.values().map(|(_, record)| record.generation).max();
        let generation = generation.unwrap_or_default();
        let (wanted, own) = (BTreeSet::new(), BTreeSet::new());
        Ok(InForce { records, taken, first_free: 1, generation, wanted, own, switched: false })
    }

    /// Puts in force what is desired for an endpoint, and sees to it that programs are attached. If that fails, nothing
    /// passes the interface.
    fn switch(
        &mut self,
        interface: &str,
        desired: &Desired,
        in_force: &mut InForce,
        ids: &mut Ids,
    ) -> Result<(), EbpfError> {
        let index = index_of(interface)?;
        in_force.wanted.insert(index);
        let switched = self.switch_record((interface, index), desired, in_force, ids);
        if switched.is_err() && in_force.records.remove(&index).is_some() {
            self.maps.withdraw(index)?;
            in_force.switched = true;
        }
        let attached = self.programs.attach(index);
        switched.and(attached)
    }

    /// Puts the record of an endpoint in force, where it is not.
    fn switch_record(
        &self,
        (interface, index): (&str, u32),
        desired: &Desired,
        in_force: &mut InForce,
        ids: &mut Ids,
    ) -> Result<(), EbpfError> {
        let now = in_force.records.get(&index).map(|(_, record)| *record);
        let id = self.id_of(interface, desired, now.as_ref(), ids)?;
        self.maps.add_own(id, &desired.more)?;
        in_force.own.extend(desired.more.iter().map(|address| (id, *address)));
        let wanted = abi::Endpoint { id, generation: 1, interface: index, ..desired.record };
        if !now.is_some_and(|now| now.id == id && is_same(&now, &wanted)) {
            in_force.generation = in_force.generation.wrapping_add(1);
            let record = abi::Endpoint { generation: in_force.generation, ..wanted };
            let number = free_record(in_force, self.config.capacity.records())?;
            self.maps.publish(index, number, &record)?;
            in_force.taken.insert(number);
            in_force.records.insert(index, (number, record));
            in_force.switched = true;
        }
        Ok(())
    }

    /// Returns the id of an endpoint. What is isolated gets a new one, so that none of its flows is known when it is no
    /// longer isolated. What was unknown until now keeps its id, and with it its flows.
    fn id_of(
        &self,
        interface: &str,
        desired: &Desired,
        now: Option<&abi::Endpoint>,
        ids: &mut Ids,
    ) -> Result<u32, EbpfError> {
        let digest = Digest::of(&desired.id);
        let known = ids.known().get(&(Kind::Endpoint, digest)).copied();
        let ends_flows = desired.record.flags & abi::ISOLATED != 0
            && now.is_some_and(|now| now.flags & abi::ISOLATED == 0 && Some(now.id) == known);
        let inherited = now.filter(|now| {
            now.flags & abi::ISOLATED == 0 && desired.record.flags & abi::ISOLATED == 0
        });
        let inherited = inherited.and_then(|now| Self::inherited(interface, now.id, ids, digest));
        let id = if let Some(id) = inherited {
            Ok(id)
        } else if ends_flows {
            ids.renew(Kind::Endpoint, digest)
        } else {
            ids.id(Kind::Endpoint, digest)
        };
        let id = id.map_err(|_| EbpfError::Ids)?;
        self.maps.note_last(ids.last())?;
        self.maps.name(Kind::Endpoint, id, digest)?;
        Ok(id)
    }

    /// Detaches from interfaces that are no longer wanted, ends the flows of addresses that changed hands, and removes what
    /// nothing refers to. What cannot be removed now is tried again with the next update: it is in nobody's way. Returns
    /// how many flows were ended, and whether everything was removed.
    fn sweep(&mut self, image: &Image, in_force: &InForce, before: &Holders) -> (u64, bool) {
        let mut is_clean = true;
        let attached = self.programs.attached().unwrap_or_default();
        let unwanted = |interface: &&u32| !in_force.wanted.contains(interface);
        let mut switched = in_force.switched;
        for interface in attached.iter().chain(in_force.records.keys()).filter(unwanted) {
            switched = true;
            if self.programs.detach(*interface).is_ok() {
                is_clean &= self.maps.withdraw(*interface).is_ok();
            } else {
                is_clean = false;
            }
        }
        if switched {
            wait_for_programs();
        }
        let after = in_force.wanted_holders();
        let lost = before.iter().filter(|(address, holder)| after.get(*address) != Some(*holder));
        let revoked = self.maps.end_flows(&lost.map(|(address, _)| *address).collect());
        let mut used = render::used(image);
        let records =
            in_force.records.iter().filter(|(interface, _)| in_force.wanted.contains(interface));
        used.extend(records.map(|(_, (_, record))| (Kind::Endpoint, record.id)));
        is_clean &= revoked.is_ok();
        is_clean &= self.maps.keep_only(&used).is_ok();
        is_clean &= self.maps.keep_own(&in_force.own).is_ok();
        drop(self.pins.remove_other_maps());
        (revoked.unwrap_or_default(), is_clean)
    }
}

/// Returns whether two records have the same effect.
fn is_same(one: &abi::Endpoint, other: &abi::Endpoint) -> bool {
    let plain =
        |record: &abi::Endpoint| abi::Endpoint { id: 0, generation: 0, interface: 0, ..*record };
    plain(one) == plain(other)
}

fn free_record(in_force: &mut InForce, limit: u32) -> Result<u32, EbpfError> {
    let mut numbers = in_force.first_free..limit;
    let free = numbers.find(|number| !in_force.taken.contains(number));
    let full = EbpfError::Endpoints { needed: in_force.taken.len() + 1, limit: limit / 2 };
    in_force.first_free = free.ok_or(full)?;
    Ok(in_force.first_free)
}

fn closed(error: Arc<EbpfError>) -> DataplaneError {
    DataplaneError::new(error.kind(), "program an endpoint").with_source(error)
}
