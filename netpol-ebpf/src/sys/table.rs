//! Maps as tables of bytes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::call::{Batch, Command, Element, call};

/// What the kernel says where it has no batches for a kind of map (`ENOTSUPP`, which user space has no name for).
const NOT_SUPPORTED: i32 = 524;

/// How many keys are read at once.
const ROOM: usize = 4096;

/// A map whose keys and values have these sizes. Not for maps with a value for each CPU.
#[derive(Debug)]
pub(crate) struct Table {
    map: OwnedFd,
    key: usize,
    value: usize,
}

impl Table {
    /// Returns the table of a map, which must have keys and values of these sizes in bytes.
    pub(crate) const fn new(map: OwnedFd, key: usize, value: usize) -> Self {
        Self { map, key, value }
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key, 1, self.key)?;
        let mut value = vec![0; self.value];
        let mut element = self.element(key.as_ptr(), value.as_mut_ptr());
        match call(Command::Lookup, &mut element) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the value of a key.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, 1, self.key)?;
        self.check(value, 1, self.value)?;
        call(Command::Update, &mut self.element(key.as_ptr(), value.as_ptr().cast_mut())).map(drop)
    }

    /// Sets the values of keys that follow each other in memory. After an error some of them may be set.
    pub(crate) fn set_all(&self, keys: &[u8], values: &[u8]) -> io::Result<()> {
        let count = keys.len() / self.key;
        self.check(keys, count, self.key)?;
        self.check(values, count, self.value)?;
        if count > 1 && self.batch(Command::UpdateBatch, keys, values, count)? {
            return Ok(());
        }
        keys.chunks(self.key)
            .zip(values.chunks(self.value))
            .try_for_each(|(key, value)| self.set(key, value))
    }

    /// Removes a key. It may be absent.
    pub(crate) fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.check(key, 1, self.key)?;
        match call(Command::Delete, &mut self.element(key.as_ptr(), std::ptr::null_mut())) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes keys that follow each other in memory. They may be absent.
    pub(crate) fn remove_all(&self, keys: &[u8]) -> io::Result<()> {
        let count = keys.len() / self.key;
        self.check(keys, count, self.key)?;
        if count > 1 && self.batch(Command::DeleteBatch, keys, &[], count)? {
            return Ok(());
        }
        keys.chunks(self.key).try_for_each(|key| self.remove(key))
    }

    /// Returns all keys, one after the other.
    pub(crate) fn keys(&self) -> io::Result<Vec<u8>> {
        let mut keys: Vec<u8> = Vec::new();
        let mut next = vec![0; self.key];
        loop {
            let last = keys.len().checked_sub(self.key).and_then(|at| keys.get(at..));
            let last = last.map_or(std::ptr::null(), <[u8]>::as_ptr);
            match call(Command::NextKey, &mut self.element(last, next.as_mut_ptr())) {
                Ok(_) => keys.extend_from_slice(&next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns all keys of a hash that programs write to meanwhile, one after the other. The kernel goes through its buckets,
    /// so what was there before and is there after is found, whatever comes and goes.
    pub(crate) fn keys_of_busy(&self) -> io::Result<Vec<u8>> {
        let mut all: Vec<u8> = Vec::new();
        let mut cursor: Option<u64> = None;
        let mut room = ROOM;
        loop {
            let (mut keys, mut values) = (vec![0; room * self.key], vec![0; room * self.value]);
            let mut after = 0_u64;
            let mut batch = Batch {
                in_batch: cursor
                    .as_mut()
                    .map_or(0, |it| std::ptr::from_mut(it).expose_provenance() as u64),
                out_batch: (&raw mut after).expose_provenance() as u64,
                keys: keys.as_mut_ptr().expose_provenance() as u64,
                values: values.as_mut_ptr().expose_provenance() as u64,
                count: u32::try_from(room).map_err(io::Error::other)?,
                map: self.number(),
                element_flags: 0,
                flags: 0,
            };
            let looked_up = call(Command::LookupBatch, &mut batch);
            let code = looked_up.as_ref().err().and_then(io::Error::raw_os_error);
            if code == Some(libc::ENOSPC) {
                // More keys than that are in one bucket.
                room *= 2;
                continue;
            }
            if !matches!(code, None | Some(libc::ENOENT)) {
                return looked_up.map(|_| all);
            }
            all.extend(keys.get(..batch.count as usize * self.key).unwrap_or_default());
            if code.is_some() {
                return Ok(all);
            }
            cursor = Some(after);
        }
    }

    /// Returns the size of a key, in bytes.
    pub(crate) const fn key_size(&self) -> usize {
        self.key
    }

    /// Returns the size of a value, in bytes.
    pub(crate) const fn value_size(&self) -> usize {
        self.value
    }

    /// Returns whether the kernel did it; it may not know batches of this kind of map.
    fn batch(
        &self,
        command: Command,
        keys: &[u8],
        values: &[u8],
        count: usize,
    ) -> io::Result<bool> {
        let values = if values.is_empty() { std::ptr::null() } else { values.as_ptr() };
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr().expose_provenance() as u64,
            values: values.expose_provenance() as u64,
            count: u32::try_from(count).map_err(io::Error::other)?,
            map: self.number(),
            element_flags: 0,
            flags: 0,
        };
        match call(command, &mut batch) {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                // A key that is absent ends a batch of removals.
                Some(NOT_SUPPORTED | libc::EINVAL | libc::ENOENT) => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn element(&self, key: *const u8, value: *mut u8) -> Element {
        let (key, value) = (key.expose_provenance() as u64, value.expose_provenance() as u64);
        Element { map: self.number(), padding: 0, key, value, flags: 0 }
    }

    fn number(&self) -> u32 {
        self.map.as_raw_fd().cast_unsigned()
    }

    /// The kernel trusts that buffers are large enough.
    fn check(&self, bytes: &[u8], count: usize, size: usize) -> io::Result<()> {
        if bytes.len() == count * size { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}
