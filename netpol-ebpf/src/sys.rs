//! The kernel's side of maps: the only unsafe code of this crate.
//!
//! [`Table`] reads and writes maps of any layout as bytes, many elements at a time, which aya 0.14 cannot. [`Words`] is an
//! array that is mapped into memory, so that an element is replaced with one store. [`detach_link`] detaches at once.

mod barrier;
mod call;
mod cookie;
mod link;
mod table;
mod words;

pub(crate) use self::barrier::wait_for_programs;
pub(crate) use self::cookie::namespace_cookie;
pub(crate) use self::link::detach_link;
pub(crate) use self::table::Table;
pub(crate) use self::words::Words;
