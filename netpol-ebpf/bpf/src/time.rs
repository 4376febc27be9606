//! Time, in ticks of the kernel: reading them costs next to nothing.

use aya_ebpf::helpers::bpf_jiffies64;

/// Ticks in a second. The loader sets it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
static TICKS_PER_SECOND: u64 = 1000;

/// Returns the ticks in a second.
#[inline(always)]
pub fn per_second() -> u64 {
    // SAFETY: the static is initialized and aligned. It is read as volatile because the loader changes its value.
    unsafe { core::ptr::read_volatile(&TICKS_PER_SECOND) }
}

/// Returns the ticks that have passed.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_jiffies64() }
}
