//! The only unsafe code of this crate: objects of libnftnl and the netlink socket of libmnl.
//!
//! Everything here is a thin, safe wrapper. What the objects mean is in [`crate::encode`], what goes over the socket in
//! [`crate::transport`].

mod expression;
mod messages;
mod set;
mod socket;

pub(crate) use self::expression::RawExpression;
pub(crate) use self::messages::Messages;
pub(crate) use self::set::{RawElement, RawSet};
pub(crate) use self::socket::Socket;

use std::process::abort;
use std::ptr::NonNull;

/// Returns what libnftnl allocated. Like the standard library, it ends the process when memory is exhausted.
fn allocated<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).unwrap_or_else(|| abort())
}

/// Returns an attribute number in the type that libnftnl's setters take. All its attributes are below 32.
#[expect(clippy::cast_possible_truncation, reason = "libnftnl's attribute numbers are below 32")]
const fn attribute(number: u32) -> u16 {
    number as u16
}

/// Returns a length in the type that libnftnl takes. What we pass is at most a few hundred bytes.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or_else(|_| abort())
}
