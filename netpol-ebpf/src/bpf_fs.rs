//! BPF file systems of one process.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A BPF file system that only this process sees. What is pinned there ends with the value, or with the process: for
/// tests and for whoever must leave nothing behind, not for enforcement that is to go on.
#[derive(Debug)]
pub struct PrivateBpfFs {
    /// Keeps the file system, which is mounted nowhere.
    root: File,
}

impl PrivateBpfFs {
    /// Makes a file system.
    ///
    /// # Errors
    ///
    /// The system's error, where a file system cannot be mounted.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let point =
            std::env::temp_dir().join(format!("netpol-bpf-{}-{number}", std::process::id()));
        fs::create_dir(&point)?;
        let mounted = mount(Some("bpf"), &point, Some("bpf"), MsFlags::empty(), None::<&str>);
        let root = mounted.map_err(io::Error::from).and_then(|()| {
            let root = File::open(&point);
            umount2(&point, MntFlags::MNT_DETACH)?;
            root
        });
        fs::remove_dir(&point)?;
        Ok(Self { root: root? })
    }

    /// Returns the path of the file system, which leads there only within this process.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }
}
