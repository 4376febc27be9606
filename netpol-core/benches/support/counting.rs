//! What other loads on the machine do not change: an allocator that counts the bytes that are in use, and processor time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Returns the time that this thread has been running.
pub(crate) fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// The system's allocator. The bytes that are asked for are counted while that is switched on, as it takes time.
#[derive(Debug)]
pub(crate) struct Counting {
    in_use: AtomicUsize,
    peak: AtomicUsize,
    is_on: AtomicBool,
}

impl Counting {
    pub(crate) const fn new() -> Self {
        Self {
            in_use: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            is_on: AtomicBool::new(false),
        }
    }

    /// Returns the bytes in use.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Returns the most bytes that were in use at once since the peak was reset.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Counts from zero. What was there before must stay until it is switched off.
    pub(crate) fn start(&self) {
        self.in_use.store(0, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
        self.is_on.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
    }

    fn grow(&self, bytes: usize) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let now = self.in_use.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }
}

impl Counting {
    fn shrink(&self, bytes: usize) {
        if self.is_on.load(Ordering::Relaxed) {
            self.in_use.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.shrink(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if there were two blocks for a moment, which there may be.
        self.grow(size);
        self.shrink(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
