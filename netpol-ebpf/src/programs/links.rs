//! Programs with links of TCX, which are pinned.

use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};

use super::{Side, refused};
use crate::error::EbpfError;
use crate::pins;
use crate::sys::detach_link;

/// Has a pinned link run a program. Returns whether it does; there may be no link, or one whose interface is gone or that
/// was detached by force.
pub(super) fn replace(program: &mut SchedClassifier, pin: &Path) -> bool {
    PinnedLink::from_pin(pin).is_ok_and(|link| try_replace(program, link, pin).is_ok())
}

/// Attaches a program with a link, before those of others, and pins the link.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &str,
    side: Side,
    pin: &Path,
) -> Result<(), EbpfError> {
    let failed = |error: ProgramError| refused("attach a program", error);
    unpin(pin)?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(name, side.attach_type(), first).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|error| link_error(pin, error))?;
    link.pin(pin).map_err(|error| pins::error("pin a link at", pin, io::Error::other(error)))?;
    Ok(())
}

/// Returns whether the program of a pinned link is attached to an interface.
pub(super) fn is_attached(pin: &Path, name: &str, side: Side) -> bool {
    let Ok(link) = PinnedLink::from_pin(pin) else { return false };
    let Ok(info) = FdLink::from(link).info() else { return false };
    runs(name, side, info.program_id()).unwrap_or_default()
}

/// Returns whether a program is attached to an interface with TCX.
pub(super) fn runs(name: &str, side: Side, program: u32) -> Result<bool, EbpfError> {
    let (_, attached) = SchedClassifier::query_tcx(name, side.attach_type())
        .map_err(|error| refused("find attached programs", error))?;
    Ok(attached.iter().any(|it| it.id() == program))
}

/// Detaches a pinned link and removes the pin. It may be absent.
pub(super) fn unpin(pin: &Path) -> Result<(), EbpfError> {
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

fn try_replace(
    program: &mut SchedClassifier,
    link: PinnedLink,
    pin: &Path,
) -> Result<(), EbpfError> {
    let failed = |error: ProgramError| refused("replace a program", error);
    let link = SchedClassifierLink::try_from(FdLink::from(link))
        .map_err(|error| link_error(pin, error))?;
    let id = program.attach_to_link(link).map_err(failed)?;
    // The pin holds the link.
    drop(program.take_link(id).map_err(failed)?);
    Ok(())
}

fn link_error(pin: &Path, error: LinkError) -> EbpfError {
    pins::error("use the link at", pin, io::Error::other(error))
}
