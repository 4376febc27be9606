//! Single packets of any protocol, sent at one host and looked for at the other.
//!
//! Nobody answers them. A raw socket at the destination gets a copy of every packet of its protocol that arrives there,
//! whatever the kernel does with it.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Outcome, Probe, udp};
use crate::topology::echo;

/// Room for a packet of ours, with its headers.
const MAX_PACKET: usize = 256;

// Source: IANA "Assigned Internet Protocol Numbers".
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Sends a packet of the protocol with this number.
pub(super) async fn ask(probe: &Probe, protocol: u8) -> Result<Outcome, Outcome> {
    let token = echo::token();
    deliver(probe, protocol, &token, token).await
}

/// Sends an ICMP message, or an ICMPv6 one if the destination has an address of that family.
pub(super) async fn ask_icmp(probe: &Probe, kind: u8, code: u8) -> Result<Outcome, Outcome> {
    let token = echo::token();
    // An identifier of its own makes it a flow of its own.
    let [high, low] = probe.opener.fresh_port().to_be_bytes();
    let head = [kind, code, 0, 0, high, low, 0, 1];
    let mut message = [head.as_slice(), token.as_slice()].concat();
    if probe.destination.is_ipv6() {
        // The kernel computes the checksum of ICMPv6 (RFC 3542, section 3.1).
        return deliver(probe, ICMPV6, &message, token).await;
    }
    let sum = checksum(&message).to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum);
    }
    deliver(probe, ICMP, &message, token).await
}

/// Sends a packet that ends with `token`, and waits until it arrives.
async fn deliver(
    probe: &Probe,
    protocol: u8,
    packet: &[u8],
    token: echo::Token,
) -> Result<Outcome, Outcome> {
    let receiver = match &probe.receiver {
        Some(namespace) => Some(receiving(probe, namespace, protocol).await?),
        None => None,
    };
    let sender = probe.opened(&probe.namespace, sending(probe, protocol)).await?;
    let sender = udp::connected(sender, SocketAddr::new(probe.destination, 0)).await?;
    sender.send(packet).await.map_err(Outcome::stopped("send a packet"))?;
    tokio::select! {
        arrived = arrive(receiver.as_ref(), token) => arrived,
        refused = refuse(&sender) => refused,
    }
}

/// Waits for the packet that ends with `token`; where nobody has the address, for ever.
async fn arrive(receiver: Option<&UdpSocket>, token: echo::Token) -> Result<Outcome, Outcome> {
    let Some(receiver) = receiver else { return pending().await };
    let mut buffer = [0; MAX_PACKET];
    loop {
        let received = receiver.recv(&mut buffer).await;
        let length = received.map_err(|error| Outcome::failed("receive a packet", error))?;
        if buffer.get(..length).is_some_and(|it| it.ends_with(&token)) {
            return Ok(Outcome::Reached);
        }
    }
}

/// Waits for an ICMP error; whatever else arrives at the sender means nothing.
async fn refuse(sender: &UdpSocket) -> Result<Outcome, Outcome> {
    let mut buffer = [0; MAX_PACKET];
    loop {
        sender.recv(&mut buffer).await.map_err(Outcome::stopped("receive an answer"))?;
    }
}

async fn receiving(
    probe: &Probe,
    namespace: &Arc<OwnedFd>,
    protocol: u8,
) -> Result<UdpSocket, Outcome> {
    let at = probe.destination;
    let socket = probe.opened(namespace, move || {
        let socket = raw(at, protocol)?;
        socket.bind(&SocketAddr::new(at, 0).into())?;
        Ok(socket)
    });
    let socket = std::net::UdpSocket::from(socket.await?);
    UdpSocket::from_std(socket).map_err(|error| Outcome::failed("use a socket", error))
}

fn sending(probe: &Probe, protocol: u8) -> impl FnOnce() -> io::Result<Socket> + use<> {
    let (source, destination) = (probe.source, probe.destination);
    move || {
        let socket = raw(destination, protocol)?;
        if let Some(source) = source {
            // It may be the address of another host.
            match source {
                IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                IpAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }
}

fn raw(family: IpAddr, protocol: u8) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(family, 0));
    let protocol = Protocol::from(i32::from(protocol));
    Socket::new(domain, Type::from(nix::libc::SOCK_RAW), Some(protocol))
}

/// Returns the Internet checksum of bytes. Source: RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|it| match *it {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(u16::from_be_bytes([high, 0])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).map_or(0, |it| !it)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the example of RFC 1071, section 3.
    #[test]
    fn the_checksum_is_that_of_the_internet() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x12]), !0x1200);
    }
}
