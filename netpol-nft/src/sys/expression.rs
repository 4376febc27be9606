//! Expressions of rules.

use std::ffi::CStr;
use std::ptr::NonNull;

use nftnl_sys as nftnl;

use super::{allocated, attribute, length};

/// An expression under construction. It owns its object until [`into_raw`](Self::into_raw).
pub(crate) struct RawExpression(NonNull<nftnl::nftnl_expr>);

impl RawExpression {
    /// Returns an expression without attributes. `kind` is a name that libnftnl knows, such as `meta`.
    pub(crate) fn new(kind: &'static CStr) -> Self {
        // SAFETY: `kind` is a NUL-terminated string that outlives the call.
        Self(allocated(unsafe { nftnl::nftnl_expr_alloc(kind.as_ptr()) }))
    }

    /// Sets an attribute that has 8 bits.
    pub(crate) fn u8(self, number: u32, value: u8) -> Self {
        // SAFETY: the object is alive, and the callee copies `value`.
        unsafe { nftnl::nftnl_expr_set_u8(self.0.as_ptr(), attribute(number), value) };
        self
    }

    /// Sets an attribute that has 16 bits.
    pub(crate) fn u16(self, number: u32, value: u16) -> Self {
        // SAFETY: the object is alive, and the callee copies `value`.
        unsafe { nftnl::nftnl_expr_set_u16(self.0.as_ptr(), attribute(number), value) };
        self
    }

    /// Sets an attribute that has 32 bits.
    pub(crate) fn u32(self, number: u32, value: u32) -> Self {
        // SAFETY: the object is alive, and the callee copies `value`.
        unsafe { nftnl::nftnl_expr_set_u32(self.0.as_ptr(), attribute(number), value) };
        self
    }

    /// Sets an attribute that has 64 bits.
    pub(crate) fn u64(self, number: u32, value: u64) -> Self {
        // SAFETY: the object is alive, and the callee copies `value`.
        unsafe { nftnl::nftnl_expr_set_u64(self.0.as_ptr(), attribute(number), value) };
        self
    }

    /// Sets an attribute that is a string.
    pub(crate) fn string(self, number: u32, value: &CStr) -> Self {
        // SAFETY: the object is alive, and the callee copies the NUL-terminated string.
        let result = unsafe {
            nftnl::nftnl_expr_set_str(self.0.as_ptr(), attribute(number), value.as_ptr())
        };
        debug_assert!(result >= 0, "no memory for a string attribute");
        self
    }

    /// Sets an attribute that is a value of a register, at most 64 bytes (`union nftnl_data_reg`).
    pub(crate) fn data(self, number: u32, value: &[u8]) -> Self {
        let len = length(value);
        // SAFETY: the object is alive, `value` is readable for `len` bytes, and the callee copies them and refuses more
        // than its object holds.
        unsafe {
            nftnl::nftnl_expr_set(self.0.as_ptr(), attribute(number), value.as_ptr().cast(), len)
        };
        self
    }

    /// Returns the object. The caller owns it and must hand it to a rule.
    pub(crate) fn into_raw(self) -> NonNull<nftnl::nftnl_expr> {
        let raw = self.0;
        std::mem::forget(self);
        raw
    }
}

impl Drop for RawExpression {
    fn drop(&mut self) {
        // SAFETY: the object is alive and ours: `into_raw` forgets `self`.
        unsafe { nftnl::nftnl_expr_free(self.0.as_ptr()) };
    }
}
