//! A stream of packets, each of which is the first of a flow.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netpol_core::net::Family;

use crate::contract::Broken;
use crate::contract::lab::{Lab, Pod};

/// Time from packet to packet.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a flood lasts at least.
const SHORTEST: Duration = Duration::from_millis(100);

/// For how long nothing may arrive before a flood is over.
const QUIET: Duration = Duration::from_millis(300);

/// Two threads: one sends to the server, the other counts what arrives.
pub(in crate::contract) struct Flood {
    started: Instant,
    stopped: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<usize>>,
    receiver: JoinHandle<io::Result<usize>>,
}

/// How many packets there were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::contract) struct Tally {
    pub(in crate::contract) sent: usize,
    pub(in crate::contract) arrived: usize,
}

impl Flood {
    pub(in crate::contract) fn start(lab: &Lab, from: Pod) -> Result<Self, Broken> {
        let stopped = Arc::new(AtomicBool::new(false));
        let address = |pod: Pod| SocketAddr::new(pod.address(Family::V4), 0);
        let bind = || UdpSocket::bind(address(Pod::Server));
        let server = lab.namespace(&Pod::Server.host())?.run(bind)??;
        server.set_read_timeout(Some(QUIET))?;
        let to = server.local_addr()?;
        let told = Arc::clone(&stopped);
        let sender = lab.namespace(&from.host())?.run(|| {
            // A thread stays in the namespace of the one that starts it.
            thread::Builder::new().spawn(move || send(address(from), to, &told))
        })??;
        let told = Arc::clone(&stopped);
        let receiver = thread::Builder::new().spawn(move || receive(&server, &told))?;
        Ok(Self { started: Instant::now(), stopped, sender, receiver })
    }

    /// Ends the flood, when all that is under way has arrived.
    pub(in crate::contract) fn stop(self, lab: &Lab) -> Result<Tally, Broken> {
        thread::sleep(SHORTEST.saturating_sub(self.started.elapsed()));
        self.stopped.store(true, Ordering::Relaxed);
        lab.sentinel()?;
        let died = |_| io::Error::other("a thread has died");
        let sent = self.sender.join().map_err(died)??;
        Ok(Tally { sent, arrived: self.receiver.join().map_err(died)?? })
    }
}

fn send(from: SocketAddr, to: SocketAddr, stopped: &AtomicBool) -> io::Result<usize> {
    let mut sent = 0;
    while !stopped.load(Ordering::Relaxed) {
        UdpSocket::bind(from)?.send_to(b"x", to)?;
        sent += 1;
        thread::sleep(PAUSE);
    }
    Ok(sent)
}

fn receive(server: &UdpSocket, stopped: &AtomicBool) -> io::Result<usize> {
    let mut arrived = 0;
    loop {
        match server.recv(&mut [0; 8]) {
            Ok(_) => arrived += 1,
            Err(error) if is_quiet(&error) => {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(arrived);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
