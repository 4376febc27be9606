//! Sets and their elements.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use nftnl::{MsgType, NlMsg};
use nftnl_sys as raw;
use nftnl_sys::libc;

use super::{allocated, attribute, length};

/// A set of the `inet` family with some elements. As a message it is the set; [`RawSet::elements`] is the elements.
pub(crate) struct RawSet(NonNull<raw::nftnl_set>);

impl RawSet {
    /// Returns a set without attributes but its place.
    pub(crate) fn new(table: &CStr, name: &CStr) -> Self {
        // SAFETY: the call has no requirements.
        let set = Self(allocated(unsafe { raw::nftnl_set_alloc() }));
        set.u32(raw::NFTNL_SET_FAMILY, libc::NFPROTO_INET.unsigned_abs())
            .string(raw::NFTNL_SET_TABLE, table)
            .string(raw::NFTNL_SET_NAME, name)
    }

    /// Sets an attribute that has 32 bits.
    pub(crate) fn u32(self, number: u32, value: u32) -> Self {
        // SAFETY: the object is alive, and the callee copies `value`.
        unsafe { raw::nftnl_set_set_u32(self.0.as_ptr(), attribute(number), value) };
        self
    }

    /// Adds an element.
    pub(crate) fn add(&mut self, element: RawElement) {
        let element = element.into_raw();
        // SAFETY: both objects are alive; the element belongs to nobody else and from now on to the set, which frees it.
        unsafe { raw::nftnl_set_elem_add(self.0.as_ptr(), element.as_ptr()) };
    }

    /// Returns the elements as a message. They must fit into one attribute, 65535 bytes.
    pub(crate) fn elements(&self) -> RawElements<'_> {
        RawElements(self)
    }

    fn string(self, number: u32, value: &CStr) -> Self {
        // SAFETY: the object is alive, and the callee copies the NUL-terminated string.
        let result =
            unsafe { raw::nftnl_set_set_str(self.0.as_ptr(), attribute(number), value.as_ptr()) };
        debug_assert!(result >= 0, "no memory for a string attribute");
        self
    }
}

impl Drop for RawSet {
    fn drop(&mut self) {
        // SAFETY: the object is alive and ours; it owns its elements.
        unsafe { raw::nftnl_set_free(self.0.as_ptr()) };
    }
}

// SAFETY: the message is a header and a few attributes of bounded size, far below `nft_nlmsg_maxsize` bytes.
unsafe impl NlMsg for RawSet {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, msg_type: MsgType) {
        let kind = match msg_type {
            MsgType::Add => libc::NFT_MSG_NEWSET,
            MsgType::Del => libc::NFT_MSG_DELSET,
        };
        // SAFETY: our caller's contract: `buf` has room for a whole message.
        let header = unsafe { header(buf, kind, seq) };
        // SAFETY: `header` is at the start of a buffer with that room, and the object is alive.
        unsafe { raw::nftnl_set_nlmsg_build_payload(header, self.0.as_ptr()) };
    }
}

/// The elements of a set as a message.
pub(crate) struct RawElements<'a>(&'a RawSet);

// SAFETY: the elements are one nested attribute, whose length has 16 bits, so that with the header and two names the
// message stays below `nft_nlmsg_maxsize` bytes; `crate::encode` keeps it below that by the number of elements.
unsafe impl NlMsg for RawElements<'_> {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, msg_type: MsgType) {
        let kind = match msg_type {
            MsgType::Add => libc::NFT_MSG_NEWSETELEM,
            MsgType::Del => libc::NFT_MSG_DELSETELEM,
        };
        // SAFETY: our caller's contract: `buf` has room for a whole message.
        let header = unsafe { header(buf, kind, seq) };
        // SAFETY: `header` is at the start of a buffer with that room, and the object is alive.
        unsafe { raw::nftnl_set_elems_nlmsg_build_payload(header, self.0.0.as_ptr()) };
    }
}

/// Writes the header of a message.
///
/// # Safety
///
/// `buf` must have room for a header and be aligned to 4 bytes.
unsafe fn header(buf: *mut c_void, kind: libc::c_int, seq: u32) -> *mut libc::nlmsghdr {
    let kind = u16::try_from(kind).unwrap_or_default();
    let family = u16::try_from(libc::NFPROTO_INET).unwrap_or_default();
    // SAFETY: our caller's contract.
    unsafe { raw::nftnl_nlmsg_build_hdr(buf.cast(), kind, family, 0, seq) }
}

/// An element under construction. It owns its object until it is added to a set.
pub(crate) struct RawElement(NonNull<raw::nftnl_set_elem>);

impl RawElement {
    /// Returns the element with this key, at most 64 bytes (`union nftnl_data_reg`).
    pub(crate) fn new(key: &[u8]) -> Self {
        // SAFETY: the call has no requirements.
        let element = Self(allocated(unsafe { raw::nftnl_set_elem_alloc() }));
        let len = length(key);
        debug_assert!(len <= 64, "key of {len} bytes");
        // SAFETY: the object is alive, `key` is readable for `len` bytes, and the callee copies them.
        let result = unsafe {
            raw::nftnl_set_elem_set(
                element.0.as_ptr(),
                attribute(raw::NFTNL_SET_ELEM_KEY),
                key.as_ptr().cast(),
                len,
            )
        };
        debug_assert!(result >= 0, "no memory for a key");
        element
    }

    /// Sets an attribute that has 32 bits.
    pub(crate) fn u32(self, number: u32, value: u32) -> Self {
        // SAFETY: the object is alive, and the callee copies `value`.
        unsafe { raw::nftnl_set_elem_set_u32(self.0.as_ptr(), attribute(number), value) };
        self
    }

    /// Sets an attribute that is a string.
    pub(crate) fn string(self, number: u32, value: &CStr) -> Self {
        // SAFETY: the object is alive, and the callee copies the NUL-terminated string.
        let result = unsafe {
            raw::nftnl_set_elem_set_str(self.0.as_ptr(), attribute(number), value.as_ptr())
        };
        debug_assert!(result >= 0, "no memory for a string attribute");
        self
    }

    fn into_raw(self) -> NonNull<raw::nftnl_set_elem> {
        let pointer = self.0;
        std::mem::forget(self);
        pointer
    }
}

impl Drop for RawElement {
    fn drop(&mut self) {
        // SAFETY: the object is alive and ours: `into_raw` forgets `self`.
        unsafe { raw::nftnl_set_elem_free(self.0.as_ptr()) };
    }
}
