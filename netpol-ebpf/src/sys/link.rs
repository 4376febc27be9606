//! Links of programs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::call::{Command, Link, Pin, call};

/// Detaches the link that is pinned at `path`. The pin stays.
///
/// # Errors
///
/// The system's error, also if nothing is attached any more.
pub(crate) fn detach_link(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = Pin { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    let fd = call(Command::Open, &mut pin)?;
    // SAFETY: the kernel has just returned the descriptor, and nobody else has it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    call(Command::DetachLink, &mut Link { fd: link.as_raw_fd().cast_unsigned(), padding: 0 })?;
    Ok(())
}
