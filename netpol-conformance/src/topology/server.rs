//! Servers that answer with the name of their host.

mod sctp;

use std::collections::BTreeMap;
use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::echo::{self, Token};
use super::{Host, Listener, Namespace, TopologyError, Transport};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long to wait after an error of `accept`.
const PAUSE: Duration = Duration::from_millis(10);

/// The servers of one namespace.
#[derive(Debug, Default)]
pub(super) struct Servers {
    tasks: BTreeMap<(IpAddr, Listener), Task>,
    sctp: BTreeMap<IpAddr, sctp::Responder>,
}

impl Servers {
    /// Listens on each of `listeners` at each of `addresses` and answers as `host`.
    ///
    /// What is listened on already is left alone.
    pub(super) fn start(
        &mut self,
        runtime: &Handle,
        namespace: &Namespace,
        host: &Host,
        addresses: &[IpAddr],
        listeners: &[Listener],
    ) -> Result<(), TopologyError> {
        let wanted: Vec<_> = addresses
            .iter()
            .flat_map(|address| listeners.iter().map(|listener| (*address, *listener)))
            .filter(|(address, listener)| !self.serves(*address, *listener))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let sctp_missing = |address: &IpAddr| !self.sctp.contains_key(address);
        let opened = namespace.run(|| {
            let mut responders: Vec<IpAddr> = Vec::new();
            wanted
                .into_iter()
                .map(|(address, listener)| {
                    let first = sctp_missing(&address) && !responders.contains(&address);
                    if listener.transport == Transport::Sctp && first {
                        responders.push(address);
                    }
                    let opened = Opened::open(address, listener, first).map_err(|source| {
                        TopologyError::Listen { host: host.clone(), listener, source }
                    });
                    Ok((address, listener, opened?))
                })
                .collect::<Result<Vec<_>, TopologyError>>()
        });
        let _context = runtime.enter();
        let name: Arc<str> = host.to_string().into();
        for (address, listener, opened) in
            opened.map_err(|source| TopologyError::Thread { source })??
        {
            let failed = |source| TopologyError::Listen { host: host.clone(), listener, source };
            self.serve(address, listener, opened, Arc::clone(&name)).map_err(failed)?;
        }
        Ok(())
    }

    /// Stops listening on `listener` at each of `addresses`; open connections end.
    pub(super) fn stop(&mut self, addresses: &[IpAddr], listener: Listener) {
        for address in addresses {
            self.tasks.remove(&(*address, listener));
            if let (Transport::Sctp, Some(responder)) = (listener.transport, self.sctp.get(address))
            {
                responder.close(listener.port);
            }
        }
    }

    fn serves(&self, address: IpAddr, listener: Listener) -> bool {
        match listener.transport {
            Transport::Tcp | Transport::Udp => self.tasks.contains_key(&(address, listener)),
            Transport::Sctp => self.sctp.get(&address).is_some_and(|it| it.serves(listener.port)),
        }
    }

    /// Must be called within the runtime.
    fn serve(
        &mut self,
        address: IpAddr,
        listener: Listener,
        opened: Opened,
        name: Arc<str>,
    ) -> io::Result<()> {
        let task = match opened {
            Opened::Tcp(socket) => {
                Task(tokio::spawn(serve_tcp(TcpListener::from_std(socket)?, name)))
            }
            Opened::Udp(socket) => {
                Task(tokio::spawn(serve_udp(UdpSocket::from_std(socket)?, name)))
            }
            Opened::Sctp(socket) => {
                if let Some(socket) = socket {
                    let responder =
                        sctp::Responder::start(UdpSocket::from_std(socket)?, address, name);
                    self.sctp.insert(address, responder);
                }
                if let Some(responder) = self.sctp.get(&address) {
                    responder.open(listener.port);
                }
                return Ok(());
            }
        };
        self.tasks.insert((address, listener), task);
        Ok(())
    }
}

/// A task that ends with this value.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Opened {
    Tcp(net::TcpListener),
    Udp(net::UdpSocket),
    /// One responder serves all ports of an address.
    Sctp(Option<net::UdpSocket>),
}

impl Opened {
    fn open(address: IpAddr, listener: Listener, first: bool) -> io::Result<Self> {
        let at = SocketAddr::new(address, listener.port);
        let domain = Domain::for_address(at);
        Ok(match listener.transport {
            Transport::Tcp => {
                let socket = Socket::new(domain, Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&at.into())?;
                socket.listen(BACKLOG)?;
                Self::Tcp(socket.into())
            }
            Transport::Udp => {
                let socket = net::UdpSocket::bind(at)?;
                socket.set_nonblocking(true)?;
                Self::Udp(socket)
            }
            Transport::Sctp => Self::Sctp(if first { Some(sctp::open(address)?) } else { None }),
        })
    }
}

async fn serve_tcp(listener: TcpListener, name: Arc<str>) {
    let mut connections = JoinSet::new();
    loop {
        // Errors of accept concern one connection, or pass (no file descriptors left).
        if let Ok((connection, _)) = listener.accept().await {
            connections.spawn(serve_connection(connection, Arc::clone(&name)));
        } else {
            sleep(PAUSE).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(mut connection: TcpStream, name: Arc<str>) {
    let mut token = Token::default();
    // A client that goes away ends the loop.
    while connection.read_exact(&mut token).await.is_ok() {
        if connection.write_all(&echo::reply(token, &name)).await.is_err() {
            return;
        }
    }
}

/// The socket is bound to one address, so replies leave from the address that was asked.
async fn serve_udp(socket: UdpSocket, name: Arc<str>) {
    let mut token = Token::default();
    loop {
        // An error is that of an earlier reply, whose client has gone.
        if let Ok((length, client)) = socket.recv_from(&mut token).await
            && length == token.len()
        {
            let _ = socket.send_to(&echo::reply(token, &name), client).await;
        }
    }
}
