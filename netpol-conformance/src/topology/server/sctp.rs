//! An SCTP server on a raw socket.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::UdpSocket;

use super::super::echo;
use super::super::sctp::{Chunk, MAX_PACKET, Packet, raw_socket};
use super::Task;

/// Turns the tag that a client chose into the one that we choose: the server keeps no state between packets.
const TAG: u32 = 0x6e70_6321;

/// The sequence number of our only message.
const TSN: u32 = 1;

type Ports = Arc<RwLock<BTreeSet<u16>>>;

/// Answers all SCTP packets to one address; a port that is not open is refused.
#[derive(Debug)]
pub(super) struct Responder {
    ports: Ports,
    _task: Task,
}

impl Responder {
    /// Must be called within the runtime.
    pub(super) fn start(socket: UdpSocket, address: IpAddr, name: Arc<str>) -> Self {
        let ports = Ports::default();
        let task = tokio::spawn(serve(socket, address, name, Arc::clone(&ports)));
        Self { ports, _task: Task(task) }
    }

    pub(super) fn open(&self, port: u16) {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).insert(port);
    }

    pub(super) fn close(&self, port: u16) {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }

    pub(super) fn serves(&self, port: u16) -> bool {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).contains(&port)
    }
}

/// Opens the raw socket for `address` in the calling thread's namespace.
pub(super) fn open(address: IpAddr) -> io::Result<StdUdpSocket> {
    let socket = raw_socket(address)?;
    socket2::SockRef::from(&socket).bind(&SocketAddr::new(address, 0).into())?;
    Ok(socket)
}

async fn serve(socket: UdpSocket, address: IpAddr, name: Arc<str>, ports: Ports) {
    let mut buffer = [0; MAX_PACKET];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(packet) = buffer.get(..length).and_then(|it| Packet::decode_received(address, it))
        else {
            continue;
        };
        let open =
            ports.read().unwrap_or_else(PoisonError::into_inner).contains(&packet.destination);
        let answer = if open { answer(&packet, &name) } else { refusal(&packet) };
        if let Some(answer) = answer {
            // Raw sockets know no ports.
            let _ = socket.send_to(&answer.encode(), SocketAddr::new(client.ip(), 0)).await;
        }
    }
}

fn answer(packet: &Packet, name: &str) -> Option<Packet> {
    // After the handshake the client sends the tag that we derived from its own.
    let clients = packet.tag ^ TAG;
    let (tag, chunks) = packet.chunks.iter().find_map(|chunk| match chunk {
        Chunk::Init { tag, .. } => {
            let cookie = tag.to_be_bytes().to_vec();
            Some((*tag, vec![Chunk::InitAck { tag: tag ^ TAG, tsn: TSN, cookie }]))
        }
        Chunk::CookieEcho(cookie) if *cookie == clients.to_be_bytes() => {
            Some((clients, vec![Chunk::CookieAck]))
        }
        Chunk::Data { tsn, message } => {
            let token = message.as_slice().try_into().ok()?;
            let message = echo::reply(token, name);
            Some((clients, vec![Chunk::Sack { tsn: *tsn }, Chunk::Data { tsn: TSN, message }]))
        }
        _ => None,
    })?;
    Some(reply(packet, tag, chunks))
}

/// Source: RFC 9260, section 8.4: an ABORT, with the tag of the INIT.
fn refusal(packet: &Packet) -> Option<Packet> {
    packet.chunks.iter().find_map(|chunk| match chunk {
        Chunk::Init { tag, .. } => Some(reply(packet, *tag, vec![Chunk::Abort])),
        _ => None,
    })
}

fn reply(packet: &Packet, tag: u32, chunks: Vec<Chunk>) -> Packet {
    Packet { source: packet.destination, destination: packet.source, tag, chunks }
}
