//! The eBPF program of netpol: judges the packets of every endpoint of a node.
//!
//! One program for each direction is attached to the host's side of each endpoint's interface. Endpoints and policy are
//! data: they are found by the interface's index. What a packet goes through:
//!
//! 1. `endpoint`: which endpoint is it? Without one, nothing passes.
//! 2. `packet`: addresses, protocol, ports. `fragment` supplies the ports of later fragments.
//! 3. `verdict`: discovery, isolation, source address, then `flow`: packets of flows that are known pass.
//! 4. `policy`: everything else is judged; what is allowed opens a flow.
//!
//! Everything is inlined: a call costs, and the verifier follows fewer ways through one function. It also leaves no symbol
//! whose name depends on where the program is built.
//!
//! A packet that may pass goes on to whoever comes next ([`NEXT`]), never past them.

#![no_std]
#![no_main]

mod endpoint;
mod event;
mod flow;
mod fragment;
mod icmp;
mod maps;
mod packet;
mod policy;
mod time;
mod verdict;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use netpol_ebpf_abi::{EGRESS, INGRESS};

/// Lets the next program or filter decide: `TCX_NEXT`, which is `TC_ACT_UNSPEC`.
///
/// Source: `include/uapi/linux/bpf.h` and `include/uapi/linux/pkt_cls.h`.
const NEXT: i32 = -1;

/// Drops the packet: `TCX_DROP`, which is `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// Judges what an endpoint sends: ingress of the host's side of its interface.
#[classifier]
#[inline(always)]
pub fn from_endpoint(context: TcContext) -> i32 {
    verdict::judge::<EGRESS>(&context)
}

/// Judges what an endpoint is to receive: egress of the host's side of its interface.
#[classifier]
#[inline(always)]
pub fn to_endpoint(context: TcContext) -> i32 {
    verdict::judge::<INGRESS>(&context)
}

/// Does nothing: what measurements are compared with.
#[classifier]
#[inline(always)]
pub fn nothing(_context: TcContext) -> i32 {
    NEXT
}

// SAFETY: the section's name is what the loader looks for, and nothing else is put there.
#[unsafe(link_section = "license")]
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never called: nothing in the program panics, and the kernel would refuse the loop.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
