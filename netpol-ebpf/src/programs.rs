//! Programs and their links.

#[cfg(test)]
mod run;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle,
    qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use netpol_ebpf_abi::maps;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::time::{ClockId, clock_getres};

use crate::config::{Capacity, Hook};
use crate::error::EbpfError;
use crate::pins::{self, Pins};
use crate::sys::detach_link;

/// The object, without debug information. `object/README.md` says how it is built.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../object/netpol.bpf.o");

/// The first kernel with TCX.
const FIRST_WITH_TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// Where our filters are on an interface. Fixed, so that they can be found and replaced.
const PRIORITY: u16 = 50;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Maps that only userland uses are pinned too.
const PINNED: [&str; 18] = [
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
}

impl Programs {
    /// Loads the object. Maps that are pinned already are used, others are made and pinned.
    pub(crate) fn load(pins: Pins, capacity: &Capacity, hook: Hook) -> Result<Self, EbpfError> {
        let ticks = ticks_per_second();
        let mut loader = EbpfLoader::new();
        loader.override_global("TICKS_PER_SECOND", &ticks, true);
        for (map, size) in capacity.sizes() {
            loader.map_max_entries(map, size);
        }
        for map in PINNED {
            loader.map_pin_path(map, pins.map(map));
        }
        let mut object =
            loader.load(OBJECT).map_err(|source| EbpfError::Load { source: Box::new(source) })?;
        for side in Side::BOTH {
            program(&mut object, side)?.load().map_err(|error| refused("load a program", error))?;
        }
        let hook = match hook {
            Hook::Detected if KernelVersion::current().is_ok_and(|it| it >= FIRST_WITH_TCX) => {
                Hook::Tcx
            }
            Hook::Detected => Hook::Clsact,
            hook => hook,
        };
        Ok(Self { object, hook, pins, current: BTreeSet::new() })
    }

    /// Returns the indexes of the interfaces that programs of ours are attached to, of an earlier process too.
    pub(crate) fn attached(&self) -> Result<BTreeSet<u32>, EbpfError> {
        self.pins.interfaces()
    }

    /// Returns whether these programs are attached to an interface, not those of an earlier process.
    pub(crate) fn is_current(&self, interface: u32) -> bool {
        self.current.contains(&interface)
    }

    /// Attaches the programs to an interface on both sides, where they are not. Where one of an earlier process is
    /// attached, it is replaced in one step. Filters are always replaced, because others can remove them.
    pub(crate) fn attach(&mut self, interface: u32) -> Result<(), EbpfError> {
        let name = name_of(interface)?;
        let is_current = self.current.contains(&interface);
        for side in Side::BOTH {
            let may_be_gone = self.pins.filter(interface).exists();
            if !is_current || may_be_gone || !self.is_attached(interface, &name, side)? {
                self.attach_side(interface, &name, side)?;
            }
        }
        self.current.insert(interface);
        Ok(())
    }

    /// Returns whether a program of this process is still attached. Of filters only the marker is known.
    pub(crate) fn is_attached(
        &mut self,
        interface: u32,
        name: &str,
        side: Side,
    ) -> Result<bool, EbpfError> {
        let has_filter = self.pins.filter(interface).exists();
        if has_filter || self.hook == Hook::Clsact {
            return Ok(has_filter);
        }
        let failed = |error| refused("find attached programs", error);
        let ours = program(&mut self.object, side)?.info().map_err(failed)?.id();
        let (_, attached) = SchedClassifier::query_tcx(name, side.attach_type()).map_err(failed)?;
        Ok(attached.iter().any(|program| program.id() == ours))
    }

    fn attach_side(&mut self, interface: u32, name: &str, side: Side) -> Result<(), EbpfError> {
        let pin = self.pins.link(interface, side);
        let marker = self.pins.filter(interface);
        let program = program(&mut self.object, side)?;
        if let Ok(link) = PinnedLink::from_pin(&pin) {
            if replace(program, link, &pin).is_ok() {
                return Ok(());
            }
            // The link holds on to an interface that is gone, or was detached by force.
            unpin(&pin)?;
        }
        if self.hook == Hook::Tcx && !marker.exists() {
            attach_link(program, name, side, &pin)
        } else {
            attach_filter(program, name, side, &marker)
        }
    }

    /// Detaches the programs from an interface. It may be gone.
    pub(crate) fn detach(&mut self, interface: u32) -> Result<(), EbpfError> {
        self.current.remove(&interface);
        detach(&self.pins, interface)
    }
}

/// Detaches programs from an interface, of whatever process. The interface may be gone.
pub(crate) fn detach(pins: &Pins, interface: u32) -> Result<(), EbpfError> {
    for side in Side::BOTH {
        unpin(&pins.link(interface, side))?;
    }
    let marker = pins.filter(interface);
    if marker.exists() {
        if let Ok(name) = name_of(interface) {
            for side in Side::BOTH {
                let filter = SchedClassifierLink::attached(
                    &name,
                    side.attach_type(),
                    PRIORITY,
                    HANDLE,
                    None,
                );
                // Dropping it removes the filter; it may have been removed by others.
                drop(filter);
            }
        }
        fs::remove_dir(&marker).map_err(|source| pins::error("remove", &marker, source))?;
    }
    Ok(())
}

/// Has a pinned link run a program.
fn replace(program: &mut SchedClassifier, link: PinnedLink, pin: &Path) -> Result<(), EbpfError> {
    let failed = |error: ProgramError| refused("replace a program", error);
    let link = SchedClassifierLink::try_from(FdLink::from(link))
        .map_err(|error| link_error(pin, error))?;
    let id = program.attach_to_link(link).map_err(failed)?;
    // The pin holds the link.
    drop(program.take_link(id).map_err(failed)?);
    Ok(())
}

/// Attaches a program with a link, before those of others, and pins the link.
fn attach_link(
    program: &mut SchedClassifier,
    name: &str,
    side: Side,
    pin: &Path,
) -> Result<(), EbpfError> {
    let failed = |error: ProgramError| refused("attach a program", error);
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(name, side.attach_type(), first).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|error| link_error(pin, error))?;
    link.pin(pin).map_err(|error| pins::error("pin a link at", pin, io::Error::other(error)))?;
    Ok(())
}

/// Detaches a pinned link and removes the pin. It may be absent.
fn unpin(pin: &Path) -> Result<(), EbpfError> {
    if pin.exists() {
        // Removing the pin alone would detach some time later. A link whose interface is gone has nothing to detach.
        drop(detach_link(pin));
    }
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(pins::error("remove", pin, source))
        }
        _ => Ok(()),
    }
}

/// Attaches a program as a filter, or replaces the one of an earlier process. The marker says that it is there.
fn attach_filter(
    program: &mut SchedClassifier,
    name: &str,
    side: Side,
    marker: &Path,
) -> Result<(), EbpfError> {
    let failed = |error: ProgramError| refused("attach a filter", error);
    // Where it is there already, the attachment works; where it could not be added, that fails.
    drop(qdisc_add_clsact(name));
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() };
    let id = match replace_filter(program, name, side, marker) {
        Some(id) => id,
        None => program
            .attach_with_options(name, side.attach_type(), TcAttachOptions::Netlink(options))
            .map_err(failed)?,
    };
    let link = program.take_link(id).map_err(failed)?;
    // Dropping it would remove the filter, which has to outlive us.
    std::mem::forget(link);
    match fs::create_dir(marker) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(pins::error("make", marker, source))
        }
        _ => Ok(()),
    }
}

/// Has the filter of an earlier process run a program in one step, if there is one.
fn replace_filter(
    program: &mut SchedClassifier,
    name: &str,
    side: Side,
    marker: &Path,
) -> Option<SchedClassifierLinkId> {
    if !marker.exists() {
        return None;
    }
    // The value removes the filter when it is dropped, so it must not exist for anything else.
    let there =
        SchedClassifierLink::attached(name, side.attach_type(), PRIORITY, HANDLE, None).ok()?;
    program.attach_to_link(there).ok()
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

fn link_error(pin: &Path, error: LinkError) -> EbpfError {
    pins::error("use the link at", pin, io::Error::other(error))
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
