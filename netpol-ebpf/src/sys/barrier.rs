//! Waiting until no program works with what was replaced.

use std::thread;
use std::time::Duration;

/// Source: `include/uapi/linux/membarrier.h`.
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// Longer than any program runs: they run to their end without being put aside, in a few microseconds.
const LONG_ENOUGH: Duration = Duration::from_millis(50);

/// Returns when every program that was running has ended.
pub(crate) fn wait_for_programs() {
    // SAFETY: the call takes no pointer. It waits for a grace period of RCU, within which programs run.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Kernels with `nohz_full` refuse it.
        thread::sleep(LONG_ENOUGH);
    }
}
