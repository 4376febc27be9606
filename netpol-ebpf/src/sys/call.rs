//! The system call `bpf(2)`.

use std::io;

/// Commands of `bpf(2)`.
///
/// Source: `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy)]
pub(super) enum Command {
    Lookup = 1,
    Update = 2,
    Delete = 3,
    NextKey = 4,
    Open = 7,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
    DetachLink = 34,
}

/// What a command is given.
///
/// # Safety
///
/// The value must be laid out as the part of `union bpf_attr` that its commands read, and all that its addresses lead to
/// must be alive and as large as the kernel expects, whenever it is given to [`call`].
pub(super) unsafe trait Attributes {}

/// Source: the second anonymous struct of `union bpf_attr`.
#[repr(C)]
pub(super) struct Element {
    pub(super) map: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

/// Source: struct `batch` of `union bpf_attr`.
#[repr(C)]
pub(super) struct Batch {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map: u32,
    pub(super) element_flags: u64,
    pub(super) flags: u64,
}

/// Source: the anonymous struct of `union bpf_attr` for `BPF_OBJ_*`.
#[repr(C)]
pub(super) struct Pin {
    pub(super) path: u64,
    pub(super) fd: u32,
    pub(super) flags: u32,
}

/// Source: struct `link_detach` of `union bpf_attr`.
#[repr(C)]
pub(super) struct Link {
    pub(super) fd: u32,
    pub(super) padding: u32,
}

// SAFETY: the layout is that of the header; `Table` checks its buffers against the sizes of its map.
unsafe impl Attributes for Element {}
// SAFETY: the layout is that of the header; `Table` checks its buffers against the sizes of its map and the count.
unsafe impl Attributes for Batch {}
// SAFETY: the layout is that of the header; the path is a C string that is alive.
unsafe impl Attributes for Pin {}
// SAFETY: the layout is that of the header, and there are no addresses.
unsafe impl Attributes for Link {}

/// Makes the call. Returns what it returned, a file descriptor with some commands.
pub(super) fn call<T: Attributes>(command: Command, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `Attributes` promises that they are what the command takes; the kernel reads no more than their size.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as i32, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
