//! The dataplane: what happens when, on top of the pure parts.

use std::collections::BTreeMap;
use std::fmt;

use netpol_core::program::{Endpoint, RuleId};
use netpol_core::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind,
    DestinationView, Drift, Program, SourceView, Update,
};
use netpol_ebpf_abi::{self as abi, Statistic};

use crate::config::EbpfConfig;
use crate::denial::Denial;
use crate::error::EbpfError;
use crate::ids::Kind;
use crate::namespace::Namespace;
use crate::pins::Pins;
use crate::programs;
use crate::state::{Isolated, State};

/// A dataplane of eBPF programs, in the network namespace of the thread that opened it.
pub struct EbpfDataplane {
    config: EbpfConfig,
    capabilities: Capabilities,
    namespace: Namespace,
    pins: Pins,
    /// Programs and maps; `None` after everything was removed.
    state: Option<State>,
}

impl EbpfDataplane {
    /// Opens the dataplane. What an earlier one left in force stays in force; if it was of the same version, its programs
    /// are replaced by ours at once.
    ///
    /// # Errors
    ///
    /// [`EbpfError`] if this host cannot enforce: no permission, no BPF file system, a kernel that is too old.
    pub fn open(config: EbpfConfig) -> Result<Self, EbpfError> {
        let namespace = Namespace::of_thread().map_err(|source| EbpfError::Namespace { source })?;
        let pins = Pins::of(&config, namespace.number())?;
        let state = State::open(&pins, &config)?;
        Ok(Self { config, capabilities: capabilities(), namespace, pins, state: Some(state) })
    }

    /// Guards the interfaces that look like those of workloads and appeared since the last update, as the last program of
    /// this process says ([`Program::unknown`]); returns how many. Every update does so, too. Until then such an interface is
    /// open, as the kernel does not tell us of it. So whoever makes interfaces calls this before it gives the pod an address,
    /// or whenever the kernel tells of a new link (`RTM_NEWLINK`).
    ///
    /// # Errors
    ///
    /// [`EbpfError`] if one could not be closed, or all could not be listed.
    pub fn close_unknown(&mut self) -> Result<usize, EbpfError> {
        self.with_state(State::close_new)
    }

    /// Returns the packets that were denied since the last call, as far as the kernel had room for them.
    ///
    /// # Errors
    ///
    /// [`EbpfError`] if the maps could not be read.
    pub fn denials(&mut self) -> Result<Vec<Denial>, EbpfError> {
        let Some(State { maps, .. }) = &mut self.state else { return Ok(Vec::new()) };
        let mut rules = BTreeMap::new();
        for ((kind, id), digest) in maps.names()? {
            if kind == Kind::Rule {
                rules.insert(id, RuleId::new(digest));
            }
        }
        let mut denials = Vec::new();
        // There may be new ones as fast as they are read.
        let most = self.config.capacity.events as usize / size_of::<abi::Event>();
        while let Some(event) = maps.event().filter(|_| denials.len() < most) {
            denials.extend(Denial::new(&event, rules.get(&event.counter).copied()));
        }
        Ok(denials)
    }

    /// Returns what the programs counted.
    ///
    /// # Errors
    ///
    /// [`EbpfError`] if the maps could not be read.
    pub fn statistics(&self) -> Result<BTreeMap<Statistic, u64>, EbpfError> {
        let Some(State { maps, .. }) = &self.state else { return Ok(BTreeMap::new()) };
        Statistic::ALL.into_iter().map(|it| Ok((it, maps.statistic(it)?))).collect()
    }

    #[cfg(test)]
    pub(crate) fn state_mut(&mut self) -> Option<&mut State> {
        self.state.as_mut()
    }

    /// Runs something with programs and maps, which are loaded again if they were removed.
    fn with_state<T: Send>(
        &mut self,
        work: impl FnOnce(&mut State) -> Result<T, EbpfError> + Send,
    ) -> Result<T, EbpfError> {
        let Self { config, namespace, pins, state, .. } = self;
        let run = || {
            if state.is_none() {
                *state = Some(State::open(pins, config)?);
            }
            state
                .as_mut()
                .map_or_else(|| Err(EbpfError::Dangling { missing: "its maps".to_owned() }), work)
        };
        namespace.run(run).map_err(|source| EbpfError::Namespace { source })?
    }

    fn enforce(&mut self, program: &Program) -> Result<(Isolated, u64), EbpfError> {
        self.with_state(|state| state.enforce(program))
    }

    fn isolate(&mut self, endpoints: &[Endpoint]) -> Result<Isolated, EbpfError> {
        self.with_state(|state| state.isolate(endpoints))
    }

    fn delete(&mut self) -> Result<(), EbpfError> {
        self.state = None;
        let Self { namespace, pins, .. } = self;
        let run = || {
            for interface in pins.interfaces()? {
                programs::detach(pins, interface)?;
            }
            pins.remove()
        };
        namespace.run(run).map_err(|source| EbpfError::Namespace { source })?
    }
}

impl fmt::Debug for EbpfDataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EbpfDataplane").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Dataplane for EbpfDataplane {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError> {
        let mut applied = Applied::completely(update.generation);
        match update.change {
            Change::Isolate(endpoints) => {
                applied.isolated = self
                    .isolate(&endpoints)
                    .map_err(|error| error.into_dataplane("isolate endpoints"))?;
            }
            Change::Full(program) => {
                (applied.isolated, applied.revoked) = self
                    .enforce(&program)
                    .map_err(|error| error.into_dataplane("enforce a program"))?;
            }
            Change::Delta(delta) => {
                (applied.isolated, applied.revoked) = self
                    .with_state(|state| state.change(&delta))
                    .map_err(|error| error.into_dataplane("enforce a change of a program"))?;
            }
            _ => {
                return Err(DataplaneError::new(
                    DataplaneErrorKind::Unsupported,
                    "apply this kind of update",
                ));
            }
        }
        Ok(applied)
    }

    fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
        let mut drift = Drift::default();
        drift.differences = self
            .with_state(|state| state.differences(program))
            .map_err(|error| error.into_dataplane("audit the maps"))?;
        Ok(drift)
    }

    fn counters(&mut self) -> Result<Counters, DataplaneError> {
        let Some(state) = &self.state else { return Ok(Counters::default()) };
        state.maps.counters().map_err(|error| error.into_dataplane("read counters"))
    }

    fn remove(&mut self) -> Result<(), DataplaneError> {
        self.delete().map_err(|error| error.into_dataplane("remove programs and maps"))
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.deltas = true;
    capabilities.source_view = SourceView::AfterSourceNat;
    capabilities.destination_view = DestinationView::BeforeDestinationNat;
    capabilities
}
