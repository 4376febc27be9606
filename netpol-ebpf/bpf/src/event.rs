//! Events and statistics.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use netpol_ebpf_abi::{self as abi, Event, Reason, Statistic};

use crate::packet::Packet;
use crate::{maps, time};

/// `BPF_RB_NO_WAKEUP`: the reader polls, so that a denied packet costs no wake-up.
///
/// Source: `include/uapi/linux/bpf.h`.
const NO_WAKEUP: u64 = 1;

/// How many events an interface may send in a second, so that no endpoint takes all the room. The loader sets it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
static EVENTS_PER_SECOND: u32 = 100;

/// What a packet was denied for.
#[derive(Clone, Copy)]
pub struct Denial {
    pub reason: Reason,
    /// The counter of the leaf that denied, where one did.
    pub counter: u32,
}

impl Denial {
    /// Returns whether the packet is dropped in audit mode too.
    #[inline(always)]
    pub fn is_final(self) -> bool {
        matches!(self.reason, Reason::RouterMessage | Reason::Source | Reason::Encapsulated)
    }
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

/// Returns whether an interface may send an event, and counts it. Processors that count at the same time may forget some.
#[inline(always)]
fn may_send(interface: u32) -> bool {
    let Some(word) = maps::RATES.get_ptr_mut(interface & (abi::RATES - 1)) else { return true };
    let now = time::now().checked_div(time::per_second()).unwrap_or_default() as u32;
    // SAFETY: the pointer is to an element of the array.
    let (second, events) = abi::rated(unsafe { core::ptr::read_volatile(word) });
    let events = if second == now { events } else { 0 };
    // SAFETY: the static is initialized and aligned. It is read as volatile because the loader changes its value.
    if events >= unsafe { core::ptr::read_volatile(&EVENTS_PER_SECOND) } {
        return false;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(word, abi::rate(now, events + 1)) };
    true
}

/// Reports a denied packet, if its interface has not sent too many events.
#[inline(always)]
pub fn report(place: Place, packet: &Packet, denial: Denial) {
    if !may_send(place.interface) {
        count(Statistic::LimitedEvents);
        return;
    }
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
