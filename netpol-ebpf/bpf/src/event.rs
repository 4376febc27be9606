//! Events and statistics.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use netpol_ebpf_abi::{Event, Reason, Statistic};

use crate::maps;
use crate::packet::Packet;

/// `BPF_RB_NO_WAKEUP`: the reader polls, so that a denied packet costs no wake-up.
///
/// Source: `include/uapi/linux/bpf.h`.
const NO_WAKEUP: u64 = 1;

/// What a packet was denied for.
#[derive(Clone, Copy)]
pub struct Denial {
    pub reason: Reason,
    /// The counter of the leaf that denied, where one did.
    pub counter: u32,
}

impl From<Reason> for Denial {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { reason, counter: 0 }
    }
}

/// Where a packet was denied.
#[derive(Clone, Copy)]
pub struct Place {
    pub endpoint: u32,
    pub interface: u32,
    pub direction: u32,
    /// 4, 6 or 0.
    pub version: u8,
    pub audited: bool,
}

/// Adds one to a statistic.
#[inline(always)]
pub fn count(statistic: Statistic) {
    if let Some(value) = maps::STATISTICS.get_ptr_mut(statistic as u32) {
        // SAFETY: the element belongs to this CPU, and programs of this kind do not interrupt each other on it.
        unsafe { *value += 1 };
    }
}

/// Reports a denied packet.
#[inline(always)]
pub fn report(place: Place, packet: &Packet, denial: Denial) {
    let Some(mut entry) = maps::EVENTS.reserve(0) else {
        count(Statistic::LostEvents);
        return;
    };
    entry.write(Event {
        // SAFETY: the helper has no precondition.
        time: unsafe { bpf_ktime_get_ns() },
        endpoint: place.endpoint,
        interface: place.interface,
        remote: packet.remote,
        local: packet.local,
        remote_port: if packet.icmp.is_some() { packet.icmp.judged() } else { packet.remote_port },
        local_port: packet.local_port,
        protocol: packet.protocol as u8,
        direction: place.direction as u8,
        version: place.version,
        reason: denial.reason as u8,
        counter: denial.counter,
        audited: place.audited as u32,
    });
    entry.submit(NO_WAKEUP);
}
