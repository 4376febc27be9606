//! TCP: connect, send a token, read the reply.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Outcome, Probe};
use crate::topology::echo::{self, REPLY_HEADER, Token};

/// How often to look for an ICMP message.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) async fn ask(probe: &Probe, port: u16) -> Result<Outcome, Outcome> {
    let to = SocketAddr::new(probe.destination, port);
    let connection = match probe.source_port {
        Some(source) => connect_from(probe, source, to).await?,
        None => {
            let socket = probe.socket(open).await?;
            connect(socket, to).await.map_err(Outcome::stopped("connect"))?
        }
    };
    let token = echo::token();
    match exchange(connection, token).await.map_err(Outcome::stopped("talk over the connection"))? {
        Some(name) => Ok(probe.judge_answer(name)),
        None => Ok(probe.judge_answer("somebody who is no server of ours".to_owned())),
    }
}

fn open(destination: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(destination, 0));
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
}

/// Connects from a port.
///
/// The socket of the attempt before can outlive it: a process that is just being started holds it until it runs its own
/// program.
async fn connect_from(probe: &Probe, source: u16, to: SocketAddr) -> Result<TcpStream, Outcome> {
    loop {
        let socket = probe.socket_on_port(source, open).await?;
        match connect(socket, to).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                sleep(LOOK_EVERY).await
            }
            connected => return connected.map_err(Outcome::stopped("connect")),
        }
    }
}

/// Connects, and notices every ICMP error.
///
/// Between namespaces of one machine an ICMP message arrives while `connect` still holds the socket; Linux 6.18 then
/// takes a note of the error, but wakes nobody.
async fn connect(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
        _ => {}
    }
    let connection = TcpStream::from_std(socket.into())?;
    loop {
        let ready = timeout(LOOK_EVERY, connection.writable()).await;
        if let Some(error) = connection.take_error()? {
            return Err(error);
        }
        if ready.is_ok() {
            return Ok(connection);
        }
    }
}

async fn exchange(mut connection: TcpStream, token: Token) -> io::Result<Option<String>> {
    connection.write_all(&token).await?;
    let mut header = [0; REPLY_HEADER];
    connection.read_exact(&mut header).await?;
    let Some(length) = echo::name_length(token, header) else {
        return Ok(None);
    };
    let mut name = vec![0; length];
    connection.read_exact(&mut name).await?;
    Ok(Some(String::from_utf8_lossy(&name).into_owned()))
}
