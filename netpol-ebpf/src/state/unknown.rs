//! Interfaces that look like those of workloads and belong to none.
//!
//! An interface with our programs and without a record lets nothing pass, so a closed one has no record. One whose endpoint
//! may open flows has a record without addresses. When an endpoint turns out to have it, the endpoint gets the id of that
//! record, and so the flows that it has opened.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::Program;
use netpol_core::model::{Treatment, UnknownInterfaces};
use netpol_core::program::Digest;
use nix::net::if_::if_nameindex;

use super::delta::Memory;
use super::{InForce, State, is_same};
use crate::error::EbpfError;
use crate::ids::{Ids, Kind};
use crate::programs::{Side, index_of};
use crate::render::{self, Settings};

/// What is known of unknown interfaces.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    pub(super) interfaces: UnknownInterfaces,
    pub(super) settings: Settings,
    /// Interfaces of endpoints, where nothing else remembers them.
    pub(super) known: BTreeSet<String>,
    /// The interfaces that were treated as unknown.
    treated: BTreeSet<u32>,
}

impl Unknown {
    /// Returns whether programs of ours are to be at an interface although no endpoint has it.
    pub(super) fn holds(&self, interface: &str) -> bool {
        self.interfaces.treatment != Treatment::Open && self.interfaces.look_like(interface)
    }

    /// Returns whether an unknown interface has the record that it is to have.
    fn has_record(&self, index: u32, interface: &str, in_force: &InForce) -> bool {
        match (self.interfaces.treatment, in_force.records.get(&index)) {
            (Treatment::EgressTracked, Some((_, record))) => {
                is_same(record, &render::tracked(interface, self.settings).record)
            }
            (Treatment::EgressTracked, None) => false,
            (Treatment::Closed | Treatment::Open, record) => record.is_none(),
        }
    }

    /// Returns the interfaces that look like those of workloads, where programs of ours are to be.
    fn list(&self) -> Result<BTreeMap<u32, String>, EbpfError> {
        if self.interfaces.treatment == Treatment::Open || self.interfaces.prefixes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let all = if_nameindex().map_err(|error| EbpfError::Interfaces { source: error.into() })?;
        let names = all.iter().map(|it| (it.index(), it.name().to_string_lossy().into_owned()));
        Ok(names.filter(|(_, name)| self.interfaces.look_like(name)).collect())
    }
}

impl State {
    /// Treats all unknown interfaces, when the endpoints are in force. None keeps the others from it.
    pub(super) fn treat_all(
        &mut self,
        in_force: &mut InForce,
        ids: &mut Ids,
    ) -> Result<(), EbpfError> {
        let known = &self.unknown.known;
        let found: Vec<_> =
            self.unknown.list()?.into_iter().filter(|(_, name)| !known.contains(name)).collect();
        self.unknown.treated = found.iter().map(|(index, _)| *index).collect();
        let mut failed = Ok(());
        for (_, name) in found {
            let treated = self.treat(&name, in_force, ids);
            if failed.is_ok() && index_of(&name).is_ok() {
                failed = treated;
            }
        }
        failed
    }

    /// Treats the unknown interfaces that are new, and forgets those that are gone. Where an endpoint has a new one of the same
    /// name, the endpoint is put in force there. Returns how many are new.
    pub(super) fn treat_new(&mut self, memory: &mut Memory) -> Result<usize, EbpfError> {
        let Memory { live, in_force, indexes, .. } = memory;
        let mut found = self.unknown.list()?;
        let mut new = 0;
        for (&index, name) in &found {
            // An endpoint's interface may have been made anew.
            let before = indexes.get(name).copied().filter(|before| *before != index);
            let (Some(before), Some(desired)) = (before, live.endpoints.get(name)) else {
                continue;
            };
            self.leave(before, in_force)?;
            match self.switch(name, desired, in_force, &mut live.ids) {
                Err(error) if index_of(name).is_ok() => return Err(error),
                Err(_) => {}
                Ok(()) => {
                    indexes.insert(name.clone(), index);
                    new += 1;
                }
            }
        }
        found.retain(|_, name| !live.endpoints.contains_key(name));
        let endpoints: BTreeSet<u32> = indexes.values().copied().collect();
        let treated: BTreeSet<u32> = found.keys().copied().collect();
        for index in std::mem::replace(&mut self.unknown.treated, treated) {
            if !found.contains_key(&index) && !endpoints.contains(&index) {
                self.leave(index, in_force)?;
            }
        }
        for (index, name) in found {
            if !self.is_treated(index, &name, in_force) {
                match self.treat(&name, in_force, &mut live.ids) {
                    Err(error) if index_of(&name).is_ok() => return Err(error),
                    treated => new += usize::from(treated.is_ok()),
                }
            }
        }
        Ok(new)
    }

    /// Closes the interfaces that look like those of workloads and where no program of ours is, whether an endpoint has them
    /// or none. Returns how many.
    pub(crate) fn close_new(&mut self) -> Result<usize, EbpfError> {
        if let Some(mut memory) = self.memory.take() {
            self.programs.begin_update();
            let new = self.treat_new(&mut memory)?;
            self.memory = Some(memory);
            return Ok(new);
        }
        self.programs.begin_update();
        let mut new = 0;
        for (index, name) in self.unknown.list()? {
            if self.programs.is_current(index) {
                continue;
            }
            // Without a record nothing passes; the next update makes one.
            match self.programs.attach(index) {
                Err(error) if index_of(&name).is_ok() => return Err(error),
                attached => new += usize::from(attached.is_ok()),
            }
        }
        Ok(new)
    }

    /// Returns how unknown interfaces differ from what a program says. They count as `wanted`.
    pub(super) fn unknown_differences(
        &mut self,
        program: &Program,
        is_known: impl Fn(&str) -> bool,
        in_force: &InForce,
        wanted: &mut BTreeSet<u32>,
    ) -> Result<Vec<String>, EbpfError> {
        let (unknown, settings) = (&program.unknown, Settings::of(program)?);
        let of_program = Unknown { interfaces: unknown.clone(), settings, ..Unknown::default() };
        let mut lines = Vec::new();
        for (index, name) in of_program.list()?.into_iter().filter(|(_, name)| !is_known(name)) {
            wanted.insert(index);
            for side in Side::BOTH {
                if !self.programs.is_attached(index, &name, side)? {
                    let program = side.program();
                    lines.push(format!(
                        "program `{program}` is not attached to `{name}`, which is unknown"
                    ));
                }
            }
            if !of_program.has_record(index, &name, in_force) {
                lines.push(format!("`{name}` is unknown and has another record"));
            }
        }
        Ok(lines)
    }

    /// Returns the id of what had an interface as an unknown one, for the endpoint that has it. The endpoint's flows may have
    /// it from then on.
    pub(super) fn inherited(interface: &str, now: u32, ids: &mut Ids, heir: Digest) -> Option<u32> {
        let name = Digest::of(&render::unknown_at(interface));
        if ids.known().get(&(Kind::Endpoint, name)) != Some(&now) {
            return None;
        }
        ids.rename(Kind::Endpoint, name, heir);
        Some(now)
    }

    fn treat(
        &mut self,
        interface: &str,
        in_force: &mut InForce,
        ids: &mut Ids,
    ) -> Result<(), EbpfError> {
        match self.unknown.interfaces.treatment {
            Treatment::Open => Ok(()),
            Treatment::EgressTracked => {
                let tracked = render::tracked(interface, self.unknown.settings);
                self.switch(interface, &tracked, in_force, ids)
            }
            Treatment::Closed => {
                let index = index_of(interface)?;
                in_force.wanted.insert(index);
                if in_force.records.remove(&index).is_some() {
                    self.maps.withdraw(index)?;
                    in_force.switched = true;
                }
                self.programs.attach(index)
            }
        }
    }

    fn is_treated(&self, index: u32, interface: &str, in_force: &InForce) -> bool {
        self.programs.is_current(index) && self.unknown.has_record(index, interface, in_force)
    }
}
