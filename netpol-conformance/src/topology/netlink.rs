//! Batches of rtnetlink messages: many changes, one system call.

use std::io;
use std::sync::{Mutex, PoisonError};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Most bytes of one request; well below the send buffer of an unprivileged socket.
const MAX_REQUEST: usize = 64 * 1024;

/// Room for one answer; the kernel repeats the message that it refuses.
const MAX_ANSWER: usize = 64 * 1024;

/// A route netlink socket; it belongs to the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Mutex<Socket>,
}

/// Changes in order, each with a few words that name it in errors.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Vec<(String, NetlinkMessage<RouteNetlinkMessage>)>,
}

/// What the kernel refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) operation: String,
    pub(super) source: io::Error,
}

impl Batch {
    /// Adds something that must not exist yet.
    pub(super) fn create(&mut self, operation: impl Into<String>, message: RouteNetlinkMessage) {
        self.push(operation.into(), NLM_F_CREATE | NLM_F_EXCL, message);
    }

    /// Adds something that takes the place of its like.
    pub(super) fn replace(&mut self, operation: impl Into<String>, message: RouteNetlinkMessage) {
        self.push(operation.into(), NLM_F_CREATE | NLM_F_REPLACE, message);
    }

    /// Adds a change to, or the removal of, something that exists.
    pub(super) fn change(&mut self, operation: impl Into<String>, message: RouteNetlinkMessage) {
        self.push(operation.into(), 0, message);
    }

    fn push(&mut self, operation: String, flags: u16, message: RouteNetlinkMessage) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        self.changes.push((operation, message));
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket: Mutex::new(socket) })
    }

    /// Performs all changes, in order, and returns the first refusal.
    ///
    /// The kernel goes on after a refused change.
    pub(super) fn perform(&self, batch: Batch) -> Result<(), Refused> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = batch.changes;
        while !changes.is_empty() {
            let rest = changes.split_off(fitting(&changes));
            send_and_collect(&socket, &mut changes)?;
            changes = rest;
        }
        Ok(())
    }

    /// Returns the queueing discipline of interface `index`; it is `noop` until the interface can send.
    pub(super) fn queueing(&self, index: u32) -> io::Result<Option<String>> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut query = LinkMessage::default();
        query.header.index = index;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let payload = NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetLink(query));
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        socket.send(&buffer, 0)?;
        match receive(&socket)?.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                Ok(link.attributes.into_iter().find_map(|it| match it {
                    LinkAttribute::Qdisc(name) => Some(name),
                    _ => None,
                }))
            }
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Ok(None),
        }
    }
}

/// Returns how many changes, at least one, make a request of bounded size.
fn fitting(changes: &[(String, NetlinkMessage<RouteNetlinkMessage>)]) -> usize {
    let mut size = 0;
    let fit = changes.iter().take_while(|(_, message)| {
        size += message.buffer_len();
        size <= MAX_REQUEST
    });
    fit.count().max(1)
}

fn send_and_collect(
    socket: &Socket,
    changes: &mut [(String, NetlinkMessage<RouteNetlinkMessage>)],
) -> Result<(), Refused> {
    let transport = |source| Refused { operation: "talk to the kernel".to_owned(), source };
    let mut buffer = Vec::new();
    let last = changes.len().saturating_sub(1);
    for (number, (_, message)) in changes.iter_mut().enumerate() {
        message.header.sequence_number = u32::try_from(number).unwrap_or(u32::MAX);
        if number == last {
            // Refusals are reported without being asked for; only the end needs a word.
            message.header.flags |= NLM_F_ACK;
        }
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        buffer.append(&mut bytes);
    }
    socket.send(&buffer, 0).map_err(transport)?;
    let mut refused = None;
    loop {
        let answer = receive(socket).map_err(transport)?;
        let number = usize::try_from(answer.header.sequence_number).unwrap_or(usize::MAX);
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            let operation =
                changes.get(number).map(|(operation, _)| operation.clone()).unwrap_or_default();
            refused.get_or_insert(Refused { operation, source: error.to_io() });
        }
        if number == last {
            return refused.map_or(Ok(()), Err);
        }
    }
}

fn receive(socket: &Socket) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    let mut buffer = Vec::with_capacity(MAX_ANSWER);
    socket.recv(&mut buffer, 0)?;
    NetlinkMessage::deserialize(&buffer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
