//! SCTP as packets: the whole handshake, a message and its reply.

use std::net::SocketAddr;

use socket2::Socket;
use tokio::net::UdpSocket;

use super::{Outcome, Probe, udp};
use crate::topology::echo;
use crate::topology::sctp::{Chunk, MAX_PACKET, Packet, raw_socket};

/// Our first sequence number.
const TSN: u32 = 1;

pub(super) async fn ask(probe: &Probe, port: u16) -> Result<Outcome, Outcome> {
    let socket = probe.socket(|destination| Ok(Socket::from(raw_socket(destination)?))).await?;
    let socket = udp::connected(socket, SocketAddr::new(probe.destination, 0)).await?;
    let mut association = Association::new(probe, socket, port);
    let outcome = association.converse().await;
    if matches!(outcome, Ok(Outcome::Reached)) {
        // Nobody waits for an answer.
        let _ = association.send(vec![Chunk::Abort]).await;
    }
    outcome
}

struct Association<'a> {
    probe: &'a Probe,
    socket: UdpSocket,
    local_port: u16,
    port: u16,
    /// The tag that we chose.
    local_tag: u32,
    /// The tag that the peer chose; zero until we know it.
    tag: u32,
}

impl<'a> Association<'a> {
    fn new(probe: &'a Probe, socket: UdpSocket, port: u16) -> Self {
        let local_port = probe.source_port.unwrap_or_else(|| probe.opener.fresh_port());
        let [a, b, c, d, ..] = echo::token();
        // Zero means that no tag is known yet.
        let local_tag = u32::from_be_bytes([a, b, c, d]).max(1);
        Self { probe, socket, local_port, port, local_tag, tag: 0 }
    }

    async fn converse(&mut self) -> Result<Outcome, Outcome> {
        self.send(vec![Chunk::Init { tag: self.local_tag, tsn: TSN }]).await?;
        let acknowledged = self.receive(|chunk| match chunk {
            Chunk::InitAck { tag, cookie, .. } => Some((tag, cookie)),
            _ => None,
        });
        let (tag, cookie) = acknowledged.await?;
        self.tag = tag;
        self.send(vec![Chunk::CookieEcho(cookie)]).await?;
        self.receive(|chunk| (chunk == Chunk::CookieAck).then_some(())).await?;
        let token = echo::token();
        self.send(vec![Chunk::Data { tsn: TSN, message: token.to_vec() }]).await?;
        let answer = self.receive(|chunk| match chunk {
            Chunk::Data { tsn, message } => echo::name_in(token, &message).map(|name| (tsn, name)),
            _ => None,
        });
        let (tsn, name) = answer.await?;
        self.send(vec![Chunk::Sack { tsn }]).await?;
        Ok(self.probe.judge_answer(name))
    }

    async fn send(&self, chunks: Vec<Chunk>) -> Result<(), Outcome> {
        let packet =
            Packet { source: self.local_port, destination: self.port, tag: self.tag, chunks };
        let sent = self.socket.send(&packet.encode()).await;
        sent.map(drop).map_err(Outcome::stopped("send an SCTP packet"))
    }

    /// Waits for the chunk that `wanted` picks; a raw socket hears everybody's packets.
    async fn receive<T>(&self, wanted: impl Fn(Chunk) -> Option<T>) -> Result<T, Outcome> {
        let mut buffer = [0; MAX_PACKET];
        loop {
            let received = self.socket.recv(&mut buffer).await;
            let length = received.map_err(Outcome::stopped("receive an SCTP packet"))?;
            let packet = buffer
                .get(..length)
                .and_then(|it| Packet::decode_received(self.probe.destination, it));
            let Some(packet) = packet.filter(|it| self.is_for_us(it)) else {
                continue;
            };
            if packet.chunks.contains(&Chunk::Abort) {
                return Err(Outcome::Refused);
            }
            if let Some(found) = packet.chunks.into_iter().find_map(&wanted) {
                return Ok(found);
            }
        }
    }

    fn is_for_us(&self, packet: &Packet) -> bool {
        packet.source == self.port
            && packet.destination == self.local_port
            && packet.tag == self.local_tag
    }
}
