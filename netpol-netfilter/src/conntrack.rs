//! Tracked flows over netlink.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use netpol_core::net::Family;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::grace::wait_for_packets;
use crate::local::LocalAddresses;
use crate::message::{ACKNOWLEDGE, Answer, DUMP, NESTED, REQUEST, answers, find, message};

/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE` and `IPCTNL_MSG_CT_GET_STATS` of the subsystem `NFNL_SUBSYS_CTNETLINK`.
///
/// Source, like the attributes below: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
pub(crate) const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const STATISTICS: u16 = SUBSYSTEM | 5;
pub(crate) const SUBSYSTEM: u16 = 1 << 8;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`
pub(crate) const ORIGINAL: u16 = 1;
pub(crate) const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_IP` in a tuple, `CTA_IP_V4_SRC` and `CTA_IP_V6_SRC` in that.
const ADDRESSES: u16 = 1;
const SOURCE_V4: u16 = 1;
const SOURCE_V6: u16 = 3;

/// The largest answer that the kernel sends at once is 32 KiB (`netlink_dump`).
const BUFFER: usize = 64 * 1024;

/// How long the kernel may take for an answer, in seconds.
const PATIENCE: i64 = 10;

/// The tracked flows of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    socket: OwnedFd,
    sequence: u32,
    pub(crate) local: LocalAddresses,
}

/// A tracked flow: what the kernel needs for finding it, as it wrote it.
///
/// Flows are listed and deleted one by one. The kernel could delete by address, but its filter for IPv6 takes every
/// address but the one that is meant (`ctnetlink_filter_match_tuple`, Linux 5.8 to 6.18).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TrackedFlow {
    pub(crate) original: Vec<u8>,
    id: Option<Vec<u8>>,
    pub(crate) zone: Option<Vec<u8>>,
}

impl Conntrack {
    /// Opens a socket, and asks the kernel something that changes nothing.
    ///
    /// # Errors
    ///
    /// The system's: no permission, or a kernel without `CONFIG_NF_CT_NETLINK`.
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        let mut conntrack = Self { socket, sequence: 0, local: LocalAddresses::open()? };
        conntrack.ask(STATISTICS, ACKNOWLEDGE, 0, &[], |_| {})?;
        Ok(conntrack)
    }

    /// Forgets all tracked flows of these addresses: opened by them, or opened to them. Returns how many those were.
    ///
    /// The policy that ends them must be in force. A packet that the one before let pass may confirm its flow later than
    /// that, so this [waits](wait_for_packets) first.
    ///
    /// # Errors
    ///
    /// The system's. Some flows may have been forgotten; it can be tried again.
    pub fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<u64> {
        if addresses.is_empty() {
            return Ok(0);
        }
        wait_for_packets();
        let mut forgotten = 0;
        for family in Family::BOTH {
            if addresses.iter().any(|&it| Family::of(it) == family) {
                let number = family_number(family);
                let mut flows = Vec::new();
                self.ask(GET, DUMP, number, &[], |it| {
                    flows.extend(TrackedFlow::of(addresses, it));
                })?;
                for flow in flows {
                    forgotten += self.delete(&flow, number)?;
                }
            }
        }
        Ok(forgotten)
    }

    /// Deletes one flow, and returns 1, or 0 if it has ended by itself.
    pub(crate) fn delete(&mut self, flow: &TrackedFlow, family: u8) -> io::Result<u64> {
        let optional = [(ID, &flow.id), (ZONE, &flow.zone)];
        let optional = optional.iter().filter_map(|(kind, value)| Some((*kind, value.as_deref()?)));
        let attributes: Vec<(u16, &[u8])> =
            [(ORIGINAL | NESTED, flow.original.as_slice())].into_iter().chain(optional).collect();
        match self.ask(DELETE, ACKNOWLEDGE, family, &attributes, |_| {}) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(0),
            outcome => outcome.map(|()| 1),
        }
    }

    /// Sends a request and gives each object of the answer to `each`.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[(u16, &[u8])],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message(kind, REQUEST | flags, self.sequence, family, attributes);
        let descriptor = self.socket.as_raw_fd();
        sendto(descriptor, &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(descriptor, &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            for answer in answers(buffer.get(..length).unwrap_or_default(), self.sequence) {
                match answer {
                    Answer::Object(attributes) => each(attributes),
                    Answer::Done => return Ok(()),
                    Answer::Failed(number) => return Err(io::Error::from_raw_os_error(number)),
                }
            }
        }
    }
}

impl TrackedFlow {
    /// Reads the attributes of a flow; `None` if it is not a flow of one of these addresses: opened by it, or opened to
    /// it, after destination NAT too, so that its replies come from it.
    fn of(addresses: &BTreeSet<IpAddr>, attributes: &[u8]) -> Option<Self> {
        let original = find(attributes, ORIGINAL)?;
        let ends = [Some(original), find(attributes, REPLY)];
        let concerned =
            ends.into_iter().flatten().filter_map(source).any(|it| addresses.contains(&it));
        concerned.then(|| Self::with(original, attributes))
    }

    /// Returns what the kernel needs for finding the flow with these attributes, of which one is its tuple.
    pub(crate) fn with(original: &[u8], attributes: &[u8]) -> Self {
        let owned = |kind| find(attributes, kind).map(<[u8]>::to_vec);
        Self { original: original.to_vec(), id: owned(ID), zone: owned(ZONE) }
    }
}

/// Returns the source address of a tuple.
fn source(tuple: &[u8]) -> Option<IpAddr> {
    let addresses = find(tuple, ADDRESSES)?;
    let v4 =
        find(addresses, SOURCE_V4).and_then(|it| <[u8; 4]>::try_from(it).ok()).map(IpAddr::from);
    v4.or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(find(addresses, SOURCE_V6)?).ok()?)))
}

/// Returns a family as netlink writes it: `AF_INET` and `AF_INET6`.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
