//! ICMP echo, through ping sockets: the kernel picks the id, computes checksums and sorts the replies.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Outcome, Probe, udp};
use crate::topology::echo;

/// Length of the ICMP header of an echo message, in bytes.
const HEADER: usize = 8;

// Types of messages. Source: RFC 792; RFC 4443, section 4.
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// The reply proves a round trip; who replied, it cannot say.
pub(super) async fn ask(probe: &Probe) -> Result<Outcome, Outcome> {
    let socket = probe.socket(open).await?;
    let socket = udp::connected(socket, SocketAddr::new(probe.destination, 0)).await?;
    let (request, reply) = match probe.destination {
        IpAddr::V4(_) => (ECHO_REQUEST_V4, ECHO_REPLY_V4),
        IpAddr::V6(_) => (ECHO_REQUEST_V6, ECHO_REPLY_V6),
    };
    let token = echo::token();
    let message = [&[request, 0, 0, 0, 0, 0, 0, 1], token.as_slice()].concat();
    socket.send(&message).await.map_err(Outcome::stopped("send an echo request"))?;
    let mut buffer = [0; HEADER + size_of::<echo::Token>()];
    loop {
        let length =
            socket.recv(&mut buffer).await.map_err(Outcome::stopped("receive an echo reply"))?;
        let received = buffer.get(..length).and_then(|it| it.split_first_chunk::<HEADER>());
        if received.is_some_and(|([kind, ..], payload)| *kind == reply && *payload == token) {
            return Ok(Outcome::Reached);
        }
    }
}

fn open(destination: IpAddr) -> io::Result<Socket> {
    let protocol = if destination.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    Socket::new(Domain::for_address(SocketAddr::new(destination, 0)), Type::DGRAM, Some(protocol))
}
