//! An array of words that is mapped into memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The words of an array map. Programs read a word while it is replaced, and see the old one or the new one.
#[derive(Debug)]
pub(crate) struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the words are atomic, and the mapping belongs to no thread.
unsafe impl Send for Words {}

impl Words {
    /// Maps an array with at least this many elements of 8 bytes that was made to be mapped.
    pub(crate) fn map(array: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let length = count * size_of::<u64>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel likes, touches no memory of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, array.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, count })
    }

    /// Returns a word, 0 if there is none.
    pub(crate) fn get(&self, index: u32) -> u64 {
        self.word(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Replaces a word. What was written before is seen by whoever sees the word.
    pub(crate) fn set(&self, index: u32, value: u64) {
        if let Some(word) = self.word(index) {
            word.store(value, Ordering::Release);
        }
    }

    /// Returns the words that are not 0, with their indexes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0..)
            .map_while(|index| Some((index, self.word(index)?.load(Ordering::Acquire))))
            .filter(|(_, it)| *it != 0)
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.count)?;
        // SAFETY: the index is below the count, so the result is within the mapping.
        let word = unsafe { self.start.add(index) };
        // SAFETY: the mapping is aligned to a page, lives as long as `self`, and is only touched atomically.
        Some(unsafe { word.as_ref() })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}
