//! Established flows whose ends are both held here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netpol_core::net::Family;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Broken;
use super::lab::{Lab, PASSES_WITHIN, Pod, RETRY, STOPPED_FOR};
use crate::topology::{Host, Transport, echo};

/// Room for what arrives at once.
const BUFFER: usize = 4096;

/// An established flow to the server.
#[derive(Debug)]
pub(super) struct Stream {
    label: String,
    opener: End,
    server: End,
}

/// Which end speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaker {
    Opener,
    Server,
}

impl Speaker {
    /// The server first: to whom nobody listens any more must not open the flow again.
    pub(super) const BOTH: [Self; 2] = [Self::Server, Self::Opener];
}

#[derive(Debug)]
enum End {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Stream {
    /// Opens a flow from a host, and has both ends speak.
    pub(super) fn open(
        lab: &Lab,
        from: &Host,
        transport: Transport,
        family: Family,
    ) -> Result<Self, Broken> {
        let label = format!("{transport} flow over {family} from {from}");
        let address = SocketAddr::new(Pod::Server.address(family), 0);
        let opened = match transport {
            Transport::Tcp => tcp(lab, from, address),
            Transport::Udp | Transport::Sctp => udp(lab, from, address),
        };
        let (opener, server) = opened?;
        let mut stream = Self { label, opener, server };
        stream.goes_on(lab)?;
        Ok(stream)
    }

    /// Both ends hear each other.
    pub(super) fn goes_on(&mut self, lab: &Lab) -> Result<(), Broken> {
        for speaker in [Speaker::Opener, Speaker::Server] {
            let heard = lab.runtime().block_on(self.says(speaker, PASSES_WITHIN))?;
            super::promised(heard, || format!("{} stops: {speaker:?} is not heard", self.label))?;
        }
        Ok(())
    }

    /// Neither end hears the other.
    pub(super) fn has_stopped(&mut self, lab: &Lab) -> Result<(), Broken> {
        Speaker::BOTH.into_iter().try_for_each(|speaker| self.is_not_heard(lab, speaker))
    }

    pub(super) fn is_not_heard(&mut self, lab: &Lab, speaker: Speaker) -> Result<(), Broken> {
        let heard = lab.runtime().block_on(self.says(speaker, STOPPED_FOR))?;
        lab.sentinel()?;
        let late = lab.runtime().block_on(self.hears_anything(speaker))?;
        super::promised(!heard && !late, || format!("{} goes on: {speaker:?} is heard", self.label))
    }

    /// Says something, again and again where packets may be lost, and returns whether it is heard in time.
    async fn says(&mut self, speaker: Speaker, limit: Duration) -> Result<bool, Broken> {
        let token = echo::token();
        let end = Instant::now() + limit;
        let (from, to) = match speaker {
            Speaker::Opener => (&mut self.opener, &mut self.server),
            Speaker::Server => (&mut self.server, &mut self.opener),
        };
        let (mut heard, mut next) = (Vec::new(), Instant::now());
        while Instant::now() < end {
            // A stream says it once: the kernel repeats it.
            if Instant::now() >= next {
                from.send(&token).await?;
                next = if matches!(from, End::Tcp(_)) { end } else { next + RETRY };
            }
            if let Ok(received) = timeout_at(next.min(end), to.receive(&mut heard)).await {
                received?;
                if heard.windows(token.len()).any(|it| it == token) {
                    return Ok(true);
                }
            }
        }
        sleep_until(end).await;
        Ok(false)
    }

    async fn hears_anything(&mut self, speaker: Speaker) -> Result<bool, Broken> {
        let to = match speaker {
            Speaker::Opener => &mut self.server,
            Speaker::Server => &mut self.opener,
        };
        let mut heard = Vec::new();
        match timeout(RETRY, to.receive(&mut heard)).await {
            Ok(received) => received.map(|()| !heard.is_empty()),
            Err(_) => Ok(false),
        }
    }
}

impl End {
    /// Sends bytes. A host that is not allowed to send has said nothing.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let sent = match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Udp(socket) => socket.send(bytes).await.map(drop),
        };
        match sent {
            Err(error) if is_refusal(&error) => Ok(()),
            sent => Ok(sent?),
        }
    }

    async fn receive(&mut self, into: &mut Vec<u8>) -> Result<(), Broken> {
        let mut buffer = [0; BUFFER];
        let received = match self {
            Self::Tcp(stream) => stream.read(&mut buffer).await,
            Self::Udp(socket) => socket.recv(&mut buffer).await,
        };
        match received {
            // Nothing more is heard.
            Ok(0) => {
                sleep(RETRY).await;
                Ok(())
            }
            Ok(length) => {
                into.extend(buffer.get(..length).unwrap_or_default());
                Ok(())
            }
            // The next packet may come all the same.
            Err(error) if is_refusal(&error) => {
                sleep(RETRY).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns whether an error is what the network says of a packet.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::BrokenPipe
            | Kind::PermissionDenied
            | Kind::HostUnreachable
    )
}

fn tcp(lab: &Lab, from: &Host, server: SocketAddr) -> Result<(End, End), Broken> {
    let listener = lab.namespace(&Pod::Server.host())?.run(|| {
        let listener = std::net::TcpListener::bind(server)?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    })??;
    let address = listener.local_addr()?;
    let connected = lab.namespace(from)?.run(|| {
        let stream = std::net::TcpStream::connect_timeout(&address, PASSES_WITHIN)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    })??;
    lab.runtime().block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let (server, _) = listener.accept().await?;
        server.set_nodelay(true)?;
        Ok((End::Tcp(TcpStream::from_std(connected)?), End::Tcp(server)))
    })
}

fn udp(lab: &Lab, from: &Host, server: SocketAddr) -> Result<(End, End), Broken> {
    let bound = |at: SocketAddr| {
        move || {
            let socket = std::net::UdpSocket::bind(at)?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        }
    };
    let mut unspecified = server;
    unspecified.set_ip(match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    });
    let server = lab.namespace(&Pod::Server.host())?.run(bound(server))??;
    let opener = lab.namespace(from)?.run(bound(unspecified))??;
    opener.connect(server.local_addr()?)?;
    server.connect(opener.local_addr()?)?;
    lab.runtime().block_on(async {
        let [opener, server] = [opener, server].map(UdpSocket::from_std);
        Ok((End::Udp(opener?), End::Udp(server?)))
    })
}
