//! The network namespace of a dataplane.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::sys::namespace_cookie;

/// What names the network namespace of the calling thread.
const OF_THREAD: &str = "/proc/thread-self/ns/net";

/// A network namespace. Interfaces are looked up and programs attached within it, whatever thread asks.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    inode: u64,
    number: u64,
}

impl Namespace {
    /// Returns the namespace of the calling thread.
    pub(crate) fn of_thread() -> io::Result<Self> {
        let (file, inode) = (File::open(OF_THREAD)?, inode_of_thread()?);
        // Before Linux 5.14 there is only a number that a later namespace may have again.
        let number = namespace_cookie().unwrap_or(inode);
        Ok(Self { file, inode, number })
    }

    /// Returns the number of the namespace, which no other one has or will have until the machine is started again.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Runs something within the namespace: at once if the calling thread is there, else on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if inode_of_thread()? == self.inode {
            return Ok(work());
        }
        let within = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(within).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn inode_of_thread() -> io::Result<u64> {
    Ok(fs::metadata(OF_THREAD)?.ino())
}
