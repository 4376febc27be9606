//! Waiting for packets that are on their way.

use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// What is waited where the kernel cannot be asked, for want of `CAP_NET_RAW`. A packet takes microseconds.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Waits until every packet that the kernel was working on has gone through all hooks: one that was judged by the old
/// policy may be just about to confirm its flow, or to enter a chain that is no longer needed.
///
/// To close a packet socket takes as long (`synchronize_net` in `packet_release`), 10 to 30 ms.
pub fn wait_for_packets() {
    match socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
        Ok(socket) => drop(socket),
        Err(_) => sleep(LONG_ENOUGH),
    }
}

/// The time until every packet is gone that was on its way when this was made.
#[derive(Debug)]
pub struct Grace(Option<JoinHandle<()>>);

impl Grace {
    /// Begins to [wait](wait_for_packets), in a thread of its own.
    #[must_use]
    pub fn begin() -> Self {
        let thread = thread::Builder::new().name("netpol-grace".to_owned()).spawn(wait_for_packets);
        if thread.is_err() {
            wait_for_packets();
        }
        Self(thread.ok())
    }

    /// Returns a time that is over.
    #[must_use]
    pub const fn over() -> Self {
        Self(None)
    }

    /// Returns whether all these packets are gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until they are.
    pub fn wait(self) {
        // The thread does not panic.
        let _result = self.0.map(JoinHandle::join);
    }
}
