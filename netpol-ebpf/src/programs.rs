//! Programs and their links.

mod filters;
mod links;
#[cfg(test)]
mod run;

use std::collections::BTreeSet;
use std::io;

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use netpol_ebpf_abi::maps;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::time::{ClockId, clock_getres};

use crate::config::{EbpfConfig, Hook};
use crate::error::EbpfError;
use crate::pins::Pins;

/// The object, without debug information. `CONTRIBUTING.md` in the repository says how it is built.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../object/netpol.bpf.o");

/// The first kernel with TCX.
const FIRST_WITH_TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// How many interfaces get links in an update. While the kernel attaches one (`tcx_link_attach`), it waits for a grace
/// period of RCU and has everybody else wait for the lock of all interfaces: about 15 ms for each of the two. A filter
/// takes 50 µs (`mini_qdisc_pair_swap` waits for an expedited one, if at all). So where there are many new interfaces,
/// as on a node that had no dataplane, most of them get filters at once, and links with the updates that follow.
const LINKS_PER_UPDATE: u32 = 2;

/// How often a program is given to the kernel. Its verifier gives up with `EAGAIN` when a signal is pending (`do_check`
/// in `kernel/bpf/verifier.c`). libbpf tries again, too (`PROG_LOAD_ATTEMPTS`).
const LOAD_TRIES: usize = 20;

/// Maps that only userland uses are pinned too.
const PINNED: [&str; 19] = [
    maps::INTERFACES,
    maps::SPILLED,
    maps::ENDPOINTS,
    maps::OWN,
    maps::ADDRESSES4,
    maps::ADDRESSES6,
    maps::PREFIXES4,
    maps::PREFIXES6,
    maps::ROWS,
    maps::PORTS,
    maps::FLOWS4,
    maps::FLOWS6,
    maps::FRAGMENTS,
    maps::COUNTERS,
    maps::STATISTICS,
    maps::EVENTS,
    maps::RATES,
    maps::NAMES,
    maps::NEXT,
];

/// A direction, as the host's side of an interface has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// What the endpoint sends comes in there.
    From,
    /// What it is to receive goes out there.
    To,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::From, Self::To];

    /// Returns the name of the program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::From => "from_endpoint",
            Self::To => "to_endpoint",
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self {
            Self::From => TcAttachType::Ingress,
            Self::To => TcAttachType::Egress,
        }
    }
}

/// The loaded programs.
pub(crate) struct Programs {
    object: Ebpf,
    hook: Hook,
    pins: Pins,
    /// Interfaces that run these programs, not those of an earlier process.
    current: BTreeSet<u32>,
    /// How many interfaces may get links in this update.
    links_left: u32,
}

impl Programs {
    /// Loads the object. Maps that are pinned already are used, others are made and pinned.
    pub(crate) fn load(pins: Pins, config: &EbpfConfig) -> Result<Self, EbpfError> {
        let EbpfConfig { capacity, hook, denials_per_second: denials, .. } = config;
        let ticks = ticks_per_second();
        let mut loader = EbpfLoader::new();
        loader.override_global("TICKS_PER_SECOND", &ticks, true);
        loader.override_global("EVENTS_PER_SECOND", denials, true);
        for (map, size) in capacity.sizes() {
            loader.map_max_entries(map, size);
        }
        for map in PINNED {
            loader.map_pin_path(map, pins.map(map));
        }
        let mut object =
            loader.load(OBJECT).map_err(|source| EbpfError::Load { source: Box::new(source) })?;
        for side in Side::BOTH {
            let program = program(&mut object, side)?;
            verify(program).map_err(|error| refused("load a program", error))?;
        }
        let hook = match *hook {
            Hook::Detected if KernelVersion::current().is_ok_and(|it| it >= FIRST_WITH_TCX) => {
                Hook::Tcx
            }
            Hook::Detected => Hook::Clsact,
            hook => hook,
        };
        Ok(Self { object, hook, pins, current: BTreeSet::new(), links_left: 0 })
    }

    /// Returns the indexes of the interfaces that programs of ours are attached to, of an earlier process too.
    pub(crate) fn attached(&self) -> Result<BTreeSet<u32>, EbpfError> {
        self.pins.interfaces()
    }

    /// Returns whether these programs are attached to an interface, not those of an earlier process.
    pub(crate) fn is_current(&self, interface: u32) -> bool {
        self.current.contains(&interface)
    }

    /// Returns whether what passes an interface is judged by programs of ours, of whatever process.
    pub(crate) fn guard(&self, interface: u32) -> bool {
        let Ok(name) = name_of(interface) else { return false };
        Side::BOTH.into_iter().all(|side| {
            let filter = || filters::program_at(&self.pins, interface, side).ok().flatten();
            links::is_attached(&self.pins.link(interface, side), &name, side) || filter().is_some()
        })
    }

    /// Allows as many links as an update may make.
    pub(crate) fn begin_update(&mut self) {
        self.links_left = LINKS_PER_UPDATE;
    }

    /// Attaches the programs to an interface on both sides, where they are not. Where one of an earlier process is
    /// attached, it is replaced in one step.
    pub(crate) fn attach(&mut self, interface: u32) -> Result<(), EbpfError> {
        let name = name_of(interface)?;
        let is_current = self.current.contains(&interface);
        let has_filters = self.pins.filter(interface).exists();
        let may_link = self.hook == Hook::Tcx && !has_filters && self.links_left > 0;
        let mut linked = false;
        for side in Side::BOTH {
            if is_current && self.is_attached(interface, &name, side)? {
                continue;
            }
            let pin = self.pins.link(interface, side);
            let program = program(&mut self.object, side)?;
            if links::replace(program, &pin) {
                continue;
            }
            links::unpin(&pin)?;
            if may_link {
                links::attach(program, &name, side, &pin)?;
                linked = true;
            } else {
                filters::attach(program, &self.pins, interface, &name, side)?;
            }
        }
        self.links_left -= u32::from(linked);
        self.current.insert(interface);
        self.drop_filters(interface, &name)
    }

    /// Gives links to interfaces that have filters, as many as this update may still make.
    pub(crate) fn link_more(&mut self) -> Result<(), EbpfError> {
        if self.hook != Hook::Tcx {
            return Ok(());
        }
        for interface in self.pins.interfaces_with_filters()? {
            if self.links_left == 0 {
                break;
            }
            let Ok(name) = name_of(interface) else { continue };
            self.links_left -= 1;
            for side in Side::BOTH {
                let pin = self.pins.link(interface, side);
                if !links::is_attached(&pin, &name, side) {
                    links::attach(program(&mut self.object, side)?, &name, side, &pin)?;
                }
            }
            self.drop_filters(interface, &name)?;
        }
        Ok(())
    }

    /// Returns whether a program of this process is still attached.
    pub(crate) fn is_attached(
        &mut self,
        interface: u32,
        name: &str,
        side: Side,
    ) -> Result<bool, EbpfError> {
        let failed = |error| refused("find attached programs", error);
        let ours = program(&mut self.object, side)?.info().map_err(failed)?.id();
        let filter = filters::program_at(&self.pins, interface, side)
            .map_err(|source| EbpfError::Filters { interface: name.to_owned(), source })?;
        if filter == Some(ours) {
            return Ok(true);
        }
        if self.pins.link(interface, side).exists() {
            links::runs(name, side, ours)
        } else {
            Ok(false)
        }
    }

    /// Detaches the programs from an interface. It may be gone.
    pub(crate) fn detach(&mut self, interface: u32) -> Result<(), EbpfError> {
        self.current.remove(&interface);
        detach(&self.pins, interface)
    }

    /// Removes the filters of an interface whose links are complete.
    fn drop_filters(&self, interface: u32, name: &str) -> Result<(), EbpfError> {
        let is_linked = |side| links::is_attached(&self.pins.link(interface, side), name, side);
        let has_filters = self.pins.filter(interface).exists();
        if has_filters && Side::BOTH.into_iter().all(is_linked) {
            filters::detach(&self.pins, interface, Some(name))?;
        }
        Ok(())
    }
}

/// Detaches programs from an interface, of whatever process. The interface may be gone.
pub(crate) fn detach(pins: &Pins, interface: u32) -> Result<(), EbpfError> {
    for side in Side::BOTH {
        links::unpin(&pins.link(interface, side))?;
    }
    filters::detach(pins, interface, name_of(interface).ok().as_deref())
}

/// Returns the index of an interface.
pub(crate) fn index_of(interface: &str) -> Result<u32, EbpfError> {
    if_nametoindex(interface).map_err(|error| EbpfError::Interface {
        interface: interface.to_owned(),
        source: error.into(),
    })
}

fn name_of(interface: u32) -> Result<String, EbpfError> {
    let failed = |source| EbpfError::Interface { interface: interface.to_string(), source };
    let name = if_indextoname(interface).map_err(|error| failed(error.into()))?;
    name.into_string().map_err(|error| failed(io::Error::other(error)))
}

fn program(object: &mut Ebpf, side: Side) -> Result<&mut SchedClassifier, EbpfError> {
    let missing = || EbpfError::Dangling { missing: format!("program `{}`", side.program()) };
    let program = object.program_mut(side.program()).ok_or_else(missing)?;
    program.try_into().map_err(|error| refused("find a program", error))
}

/// Loads a program, again where the kernel was interrupted.
fn verify(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let mut tries = LOAD_TRIES;
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock && tries > 1 =>
            {
                tries -= 1;
            }
            done => return done,
        }
    }
}

fn refused(operation: &'static str, error: ProgramError) -> EbpfError {
    EbpfError::Program { operation, source: Box::new(error) }
}

/// Returns how often the kernel's clock ticks. The coarse clock has exactly that resolution.
fn ticks_per_second() -> u64 {
    const NANOSECONDS: i64 = 1_000_000_000;
    // The most usual one, if the clock does not tell.
    const USUAL: u64 = 250;
    let tick =
        clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(|it| it.tv_nsec()).unwrap_or_default();
    u64::try_from(tick)
        .ok()
        .filter(|tick| *tick > 0)
        .map_or(USUAL, |tick| NANOSECONDS.unsigned_abs() / tick)
}
