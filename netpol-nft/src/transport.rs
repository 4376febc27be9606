//! Reading and changing our table: the trait that the dataplane works on, and the kernel behind it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netpol_core::Program;
use netpol_netfilter::{Conntrack, Grace};
use nftnl_sys::libc;

use crate::attribute::{Message, find_text, find_u32, messages};
use crate::encode::{Batch, Fit};
use crate::error::NftError;
use crate::name::{Name, Owner};
use crate::observe::{Listing, Observed, Ownership, ownership};
use crate::operation::Operation;
use crate::sys::{Messages, Socket};

/// The table of one owner.
pub(crate) trait Kernel: Send {
    /// Makes one transaction of as many operations from the front as fit, and returns how many those were.
    fn commit_front(&mut self, operations: &[Operation]) -> Result<usize, Refusal>;

    /// Makes one transaction of all operations.
    fn commit(&mut self, operations: &[Operation]) -> Result<(), Refusal>;

    /// Returns the time until all packets are gone that are on their way now.
    fn packets(&mut self) -> Grace;

    /// Returns the state of the table, `None` if there is none.
    fn observe(&mut self, depth: Depth) -> Result<Option<Observed>, NftError>;

    /// Forgets all tracked flows of these addresses, and returns how many those were.
    fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<u64, NftError>;

    /// Stops the tracked flows that a program denies, and returns how many those were; if the program keeps established
    /// flows, those that were stopped before may go on.
    fn reevaluate_flows(&mut self, program: &Program) -> Result<u64, NftError>;
}

/// How much of a table is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Depth {
    /// Everything.
    All,
    /// Everything but the elements of sets.
    Rules,
}

/// Why a transaction did not happen.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The kernel refused the operation with this index.
    Operation { index: usize, source: io::Error, reason: Option<String> },
    /// The transaction does not fit into a message.
    TooLarge { limit: usize },
    /// The socket failed.
    Socket { source: io::Error },
}

impl Refusal {
    /// Returns the error to report, given the operations of the transaction.
    pub(crate) fn into_error(self, operations: &[Operation]) -> NftError {
        match self {
            Self::Operation { source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
                NftError::Permission { source }
            }
            Self::Operation { index, source, reason } => NftError::Refused {
                operation: operations
                    .get(index)
                    .map_or_else(|| "take the batch".to_owned(), ToString::to_string),
                reason: reason.unwrap_or_else(|| source.to_string()),
                source,
            },
            Self::TooLarge { limit } => NftError::TooLarge { operations: operations.len(), limit },
            Self::Socket { source } => NftError::Socket { operation: "send a batch", source },
        }
    }
}

/// The buffers that we ask for, in bytes. They are limits, not allocations.
const SEND_BUFFER: usize = 64 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;
/// What the kernel wants to have free in the send buffer beyond the message (`netlink_sendmsg`).
const SEND_RESERVE: usize = 32;
/// Size of the buffer that answers are read into: twice what the kernel puts into one (`netlink_dump`).
const ANSWER: usize = 64 << 10;
/// Operations that are not part of the switch go in batches of at most this size, so that no other user of nf_tables
/// has to wait long for us.
const CHUNK: usize = 1 << 20;

/// How often a table that changes while it is read is read again.
const READS: usize = 8;

/// Types of messages that every netlink socket knows.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the table changed between two parts of a dump.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_ACK_TLVS`: an error has attributes behind it.
const ERROR_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: what the kernel says about an error.
const ERROR_MESSAGE: u16 = 1;

/// A table in the kernel, through one long-lived socket.
///
/// The socket is never closed while the dataplane lives: closing one that deleted something waits for a grace period of
/// RCU, 16 to 25 ms.
pub(crate) struct Netlink {
    socket: Socket,
    conntrack: Conntrack,
    owner: Owner,
    limit: usize,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(owner: Owner) -> Result<Self, NftError> {
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => NftError::NoNfTables { source },
            Some(libc::EPERM | libc::EACCES) => NftError::Permission { source },
            _ => NftError::Socket { operation: "open a netlink socket", source },
        };
        let mut socket = Socket::open().map_err(failed)?;
        socket.grow(SEND_BUFFER, RECEIVE_BUFFER);
        let limit = socket.send_buffer().map_err(failed)?.saturating_sub(SEND_RESERVE);
        let conntrack = Conntrack::open().map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => NftError::Permission { source },
            _ => NftError::Conntrack { source },
        })?;
        Ok(Self { socket, conntrack, owner, limit, sequence: 1, buffer: vec![0; ANSWER] })
    }

    /// Returns the number of the ruleset's generation, which every transaction of anybody changes.
    pub(crate) fn generation(&mut self) -> io::Result<u32> {
        /// `NFTA_GEN_ID`
        const ID: u16 = 1;
        let mut generation = None;
        self.request(libc::NFT_MSG_GETGEN, REQUEST, &[], |message| {
            generation = find_u32(message, ID)
        })?;
        generation.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the answer has no generation")
        })
    }

    /// Makes batches no larger than if the send buffer had this many bytes.
    #[cfg(test)]
    pub(crate) fn limit_batches(&mut self, send_buffer: usize) {
        self.limit = send_buffer - SEND_RESERVE;
    }

    fn batch(&self, operations: &[Operation], limit: usize) -> (Batch, usize) {
        let mut batch = Batch::new(&self.owner);
        let count =
            operations.iter().take_while(|it| batch.try_push(it, limit) == Fit::Fits).count();
        (batch, count)
    }

    fn send(&mut self, mut batch: Batch) -> Result<(), Refusal> {
        self.discard().map_err(|source| Refusal::Socket { source })?;
        let sent = self.socket.send(batch.finish());
        // The kernel has run the batch inside of the send, and answers only if something failed.
        let first = self.first_error().map_err(|source| Refusal::Socket { source })?;
        match (first, sent) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(source)) => Err(Refusal::Socket { source }),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Throws away answers that nobody waits for any more.
    fn discard(&mut self) -> io::Result<()> {
        loop {
            match self.socket.receive(&mut self.buffer) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                // Some of them were lost already.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the error of the first operation that failed.
    fn first_error(&mut self) -> io::Result<Option<Refusal>> {
        let mut first = None;
        while let Some(datagram) = self.socket.receive(&mut self.buffer)? {
            for message in messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                if first.is_none()
                    && let Some((source, reason)) = error(&message)
                {
                    let index = usize::try_from(message.sequence.saturating_sub(Batch::FIRST))
                        .unwrap_or_default();
                    first = Some(Refusal::Operation { index, source, reason });
                }
            }
        }
        Ok(first)
    }

    /// Sends a request about our table and gives each message of the answer to `each`, without its `struct nfgenmsg`.
    fn request(
        &mut self,
        kind: libc::c_int,
        flags: u16,
        attributes: &[(u16, &str)],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<Settled> {
        self.discard()?;
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Messages::new();
        request.push_bare(subsystem_message(kind), flags, self.sequence, [family(), 0, 0, 0]);
        for &(kind, value) in attributes {
            let value: Vec<u8> = value.bytes().chain([0]).collect();
            request.push_attribute(kind, &value);
        }
        self.socket.send(request.bytes())?;
        let mut settled = Settled::Yes;
        while let Some(datagram) = self.socket.receive(&mut self.buffer)? {
            for message in messages(datagram).filter(|message| message.sequence == self.sequence) {
                if message.flags & DUMP_INTERRUPTED != 0 {
                    settled = Settled::No;
                }
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return error(&message).map_or(Ok(settled), |(source, _)| Err(source));
                    }
                    _ => each(message.payload.get(4..).unwrap_or_default()),
                }
            }
            if flags & DUMP == 0 {
                return Ok(settled);
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer has no end"))
    }

    /// Reads the table once.
    fn read(&mut self, depth: Depth) -> io::Result<(Observed, Settled)> {
        let owner = self.owner.clone();
        let table = owner.as_str();
        let mut listing = Listing::new(&owner);
        let before = self.generation()?;
        let mut settled = vec![
            self.request(libc::NFT_MSG_GETCHAIN, REQUEST | DUMP, &[(1, table)], |it| {
                listing.chain(it)
            })?,
            self.request(libc::NFT_MSG_GETSET, REQUEST | DUMP, &[(1, table)], |it| {
                listing.set(it)
            })?,
            self.request(libc::NFT_MSG_GETRULE, REQUEST | DUMP, &[(1, table)], |it| {
                listing.rule(it)
            })?,
        ];
        let sets = if depth == Depth::All { listing.sets() } else { Vec::new() };
        for set in sets {
            settled.push(self.read_elements(&set, &mut listing)?);
        }
        let still = self.generation()? == before && settled.iter().all(|it| *it == Settled::Yes);
        Ok((listing.finish(), if still { Settled::Yes } else { Settled::No }))
    }

    fn read_elements(&mut self, set: &Name, listing: &mut Listing<'_>) -> io::Result<Settled> {
        let table = self.owner.as_str().to_owned();
        let attributes = [(1, table.as_str()), (2, set.as_str())];
        self.request(libc::NFT_MSG_GETSETELEM, REQUEST | DUMP, &attributes, |it| {
            listing.elements(it)
        })
    }

    /// Returns whose the table with our name is, `None` if there is none.
    fn ownership(&mut self) -> Result<Option<Ownership>, NftError> {
        let owner = self.owner.as_str().to_owned();
        let mut found = None;
        let answer = self.request(libc::NFT_MSG_GETTABLE, REQUEST, &[(1, &owner)], |it| {
            if find_text(it, 1) == Some(owner.as_str()) {
                found = Some(ownership(it));
            }
        });
        match answer {
            Ok(_) => Ok(found),
            Err(source) => match source.raw_os_error() {
                Some(libc::ENOENT) => Ok(None),
                Some(libc::EPERM | libc::EACCES) => Err(NftError::Permission { source }),
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EAFNOSUPPORT) => {
                    Err(NftError::NoNfTables { source })
                }
                _ => Err(NftError::Socket { operation: "read the table", source }),
            },
        }
    }
}

impl Kernel for Netlink {
    fn commit_front(&mut self, operations: &[Operation]) -> Result<usize, Refusal> {
        let limit = self.limit.min(CHUNK);
        let (batch, count) = self.batch(operations, limit);
        if count == 0 {
            return Err(Refusal::TooLarge { limit });
        }
        self.send(batch)?;
        Ok(count)
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<(), Refusal> {
        let (batch, count) = self.batch(operations, self.limit);
        if count < operations.len() {
            return Err(Refusal::TooLarge { limit: self.limit });
        }
        self.send(batch)
    }

    fn packets(&mut self) -> Grace {
        Grace::begin()
    }

    /// Other owners' transactions count as changes too, so a table that was read twice with the same result is taken
    /// as read.
    fn observe(&mut self, depth: Depth) -> Result<Option<Observed>, NftError> {
        let mut last: Option<Observed> = None;
        for _ in 0..READS {
            let dormant = match self.ownership()? {
                None => return Ok(None),
                Some(Ownership::Foreign) => {
                    return Err(NftError::ForeignTable { owner: self.owner.to_string() });
                }
                Some(Ownership::Ours { dormant }) => dormant,
            };
            match self.read(depth) {
                Ok((observed, Settled::Yes)) => return Ok(Some(Observed { dormant, ..observed })),
                Ok((observed, Settled::No)) => {
                    let observed = Observed { dormant, ..observed };
                    if last.as_ref().is_some_and(|last| last.same_state(&observed)) {
                        return Ok(Some(observed));
                    }
                    last = Some(observed);
                }
                Err(source) if source.raw_os_error() == Some(libc::ENOENT) => {}
                Err(source) => {
                    return Err(NftError::Socket { operation: "read the table", source });
                }
            }
        }
        Err(NftError::Unsettled)
    }

    fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<u64, NftError> {
        self.conntrack.forget(addresses).map_err(|source| NftError::Conntrack { source })
    }

    fn reevaluate_flows(&mut self, program: &Program) -> Result<u64, NftError> {
        self.conntrack.reevaluate(program).map_err(|source| NftError::Conntrack { source })
    }
}

/// Whether a dump shows one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Settled {
    Yes,
    No,
}

/// Returns the error that a message reports, with the kernel's words if it has some.
///
/// Source: `struct nlmsgerr` in `include/uapi/linux/netlink.h`: the number, the header of the request (all of it that
/// there is, because of `NETLINK_CAP_ACK`), attributes.
fn error(message: &Message<'_>) -> Option<(io::Error, Option<String>)> {
    let (number, rest) = message.payload.split_first_chunk::<4>()?;
    let number = i32::from_ne_bytes(*number);
    if number == 0 {
        return None;
    }
    let has_attributes = message.kind == NLMSG_ERROR && message.flags & ERROR_ATTRIBUTES != 0;
    let reason = has_attributes
        .then(|| find_text(rest.get(16..).unwrap_or_default(), ERROR_MESSAGE).map(str::to_owned))
        .flatten();
    Some((io::Error::from_raw_os_error(number.saturating_neg()), reason))
}

/// Returns the type of a message of nf_tables: subsystem 10 in the upper byte.
fn subsystem_message(kind: libc::c_int) -> u16 {
    let kind = u16::try_from(kind).unwrap_or_default();
    (u16::try_from(libc::NFNL_SUBSYS_NFTABLES).unwrap_or_default() << 8) | kind
}

/// `NFPROTO_INET`
fn family() -> u8 {
    u8::try_from(libc::NFPROTO_INET).unwrap_or_default()
}
