//! UDP: send a token, read the reply.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Outcome, Probe};
use crate::topology::echo::{self, MAX_REPLY};

pub(super) async fn ask(probe: &Probe, port: u16) -> Result<Outcome, Outcome> {
    let socket = match probe.source_port {
        Some(source) => probe.socket_on_port(source, open).await?,
        None => probe.socket_on_fresh_port(open).await?,
    };
    let socket = connected(socket, SocketAddr::new(probe.destination, port)).await?;
    let token = echo::token();
    socket.send(&token).await.map_err(Outcome::stopped("send a datagram"))?;
    let mut buffer = vec![0; MAX_REPLY];
    loop {
        let length =
            socket.recv(&mut buffer).await.map_err(Outcome::stopped("receive a datagram"))?;
        if let Some(name) = buffer.get(..length).and_then(|it| echo::name_in(token, it)) {
            return Ok(probe.judge_answer(name));
        }
    }
}

/// Connects a socket that sends whole packets, so that it hears of ICMP errors, of soft ones too.
pub(super) async fn connected(socket: Socket, to: SocketAddr) -> Result<UdpSocket, Outcome> {
    let told = match to {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true),
    };
    told.map_err(|errno| Outcome::failed("ask for ICMP errors", errno.into()))?;
    let socket = UdpSocket::from_std(socket.into())
        .map_err(|error| Outcome::failed("use a socket", error))?;
    socket.connect(to).await.map_err(Outcome::stopped("connect"))?;
    Ok(socket)
}

fn open(destination: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(destination, 0));
    Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
}
