//! Programs as filters of the clsact queueing discipline: where the kernel has no TCX, and where an interface waits for
//! its links.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle,
    qdisc_add_clsact,
};
use aya::programs::{ProgramError, SchedClassifier};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::{Side, refused};
use crate::error::EbpfError;
use crate::pins::{self, Pins};

/// Where our filters are on an interface, with the handle of their owner. Fixed, so that they can be found and replaced.
const PRIORITY: u16 = 50;

/// Attaches a program as a filter, or replaces the one of an earlier process. A marker says that it is there.
pub(super) fn attach(
    program: &mut SchedClassifier,
    pins: &Pins,
    interface: u32,
    name: &str,
    side: Side,
) -> Result<(), EbpfError> {
    let marker = &pins.filter(interface);
    let failed = |error: ProgramError| refused("attach a filter", error);
    // Where it is there already, the attachment works; where it could not be added, that fails.
    drop(qdisc_add_clsact(name));
    let handle = handle(pins);
    let options = NlOptions { priority: PRIORITY, handle, ..NlOptions::default() };
    let replaced = marker.exists().then(|| replace(program, name, side, handle));
    let id = match replaced.flatten() {
        Some(id) => id,
        None => program
            .attach_with_options(name, side.attach_type(), TcAttachOptions::Netlink(options))
            .map_err(failed)?,
    };
    let link = program.take_link(id).map_err(failed)?;
    // Dropping it would remove the filter, which has to outlive us.
    std::mem::forget(link);
    match fs::create_dir(marker) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(pins::error("make", marker, source))
        }
        _ => Ok(()),
    }
}

/// Removes our filters from an interface, and the marker, if there is one. Others may have removed filters before; `name` is
/// that of the interface, if it is still there.
pub(super) fn detach(pins: &Pins, interface: u32, name: Option<&str>) -> Result<(), EbpfError> {
    let marker = &pins.filter(interface);
    if !marker.exists() {
        return Ok(());
    }
    for side in Side::BOTH {
        let there = name.map(|name| {
            SchedClassifierLink::attached(name, side.attach_type(), PRIORITY, handle(pins), None)
        });
        // Dropping it removes the filter.
        drop(there);
    }
    fs::remove_dir(marker).map_err(|source| pins::error("remove", marker, source))
}

/// Returns the id of the program that our filter on an interface runs, if it is there.
pub(super) fn program_at(pins: &Pins, interface: u32, side: Side) -> io::Result<Option<u32>> {
    if !pins.filter(interface).exists() {
        return Ok(None);
    }
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(socket.as_raw_fd(), &listing_of(interface, side), MsgFlags::empty())?;
    let mut found = None;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in messages(buffer.get(..length).unwrap_or_default()) {
            match message {
                Message { kind: DONE, .. } => return Ok(found),
                Message { kind: ERROR, body } => {
                    let code = u32_at(body, 0).unwrap_or_default().cast_signed();
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                Message { kind: NEW_FILTER, body } => {
                    found = found.or(program_of(body, pins.handle()))
                }
                Message { .. } => {}
            }
        }
    }
}

/// Has the filter of an earlier process run a program in one step, if there is one.
fn replace(
    program: &mut SchedClassifier,
    name: &str,
    side: Side,
    handle: TcHandle,
) -> Option<SchedClassifierLinkId> {
    // The value removes the filter when it is dropped, so it must not exist for anything else.
    let there =
        SchedClassifierLink::attached(name, side.attach_type(), PRIORITY, handle, None).ok()?;
    program.attach_to_link(there).ok()
}

fn handle(pins: &Pins) -> TcHandle {
    let [a, b, c, d] = pins.handle().to_be_bytes();
    TcHandle::new(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Kinds of messages and flags of requests.
///
/// Source: `include/uapi/linux/netlink.h` and `rtnetlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
const REQUEST_OF_ALL: u16 = 0x301;

/// Both directions of clsact, as parents of filters.
///
/// Source: `include/uapi/linux/pkt_sched.h`.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// The size of `struct nlmsghdr` and of `struct tcmsg`, and where two fields of the latter are.
const HEADER: usize = 16;
const FILTER: usize = 20;
const FILTER_HANDLE: usize = 8;
const FILTER_PRIORITY: usize = 18;

/// Attributes of filters.
///
/// Source: `TCA_KIND` and `TCA_OPTIONS` in `include/uapi/linux/rtnetlink.h`, `TCA_BPF_ID` in `pkt_cls.h`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_ID: u16 = 11;

/// A message of netlink.
struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

/// Returns the request for all filters of a side of an interface.
fn listing_of(interface: u32, side: Side) -> Vec<u8> {
    let parent = match side {
        Side::From => CLSACT_INGRESS,
        Side::To => CLSACT_EGRESS,
    };
    let length = u32::try_from(HEADER + FILTER).unwrap_or_default();
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(GET_FILTER.to_ne_bytes());
    request.extend(REQUEST_OF_ALL.to_ne_bytes());
    // Neither a number nor an address is needed for a single answer.
    for word in [0, 0, 0, interface, 0, parent, 0] {
        request.extend(word.to_ne_bytes());
    }
    request
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message { kind: u16_at(bytes, 4)?, body: bytes.get(HEADER..length)? };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Returns the id of the program of a filter, if it has our priority and a handle.
fn program_of(filter: &[u8], handle: u32) -> Option<u32> {
    let is_ours = u32_at(filter, FILTER_HANDLE) == Some(handle)
        && u16_at(filter, FILTER_PRIORITY) == Some(PRIORITY);
    let all = filter.get(FILTER..).filter(|_| is_ours)?;
    let kind = attribute(all, KIND)?;
    let options = attribute(all, OPTIONS).filter(|_| kind.starts_with(b"bpf\0"))?;
    u32_at(attribute(options, BPF_ID)?, 0)
}

/// Returns an attribute among those that follow each other in `bytes`.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// The bits that do not say how the attribute is to be read.
    const KINDS: u16 = 0x3fff;
    loop {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)? & KINDS);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], start: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(start..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], start: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(start..)?.first_chunk()?))
}
