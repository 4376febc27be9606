//! Waiting for packets that are on their way.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// What is waited where the kernel cannot be asked, for want of `CAP_NET_RAW`. A packet takes microseconds.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Waits until every packet that the kernel was working on has gone through all hooks: one that was judged by the old
/// policy may be just about to confirm its flow.
///
/// To close a packet socket takes as long (`synchronize_net` in `packet_release`), 10 to 30 ms.
pub(crate) fn wait_for_packets() {
    match socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
        Ok(socket) => drop(socket),
        Err(_) => sleep(LONG_ENOUGH),
    }
}
