//! Probes: real connections that show whether one host reaches another.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::Socket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::topology::Opener;

mod icmp;
mod packet;
mod sctp;
mod tcp;
mod udp;

/// Shortest pause between two attempts of a probe.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// How often a sentinel has to get through before silence counts.
const SENTINEL_ROUNDS: usize = 2;

/// How many times as long as its sentinel takes a window lasts at least.
const SENTINEL_FACTOR: u32 = 8;

/// How long a sentinel may take; on an idle machine it takes less than a millisecond.
const SENTINEL_WINDOW: Window = Window::new(Duration::from_secs(30), Duration::from_millis(250));

/// How many ports may be taken before the search for a free one ends.
const PORT_TRIES: usize = 64;

/// An attempt that can be repeated, always with a new connection.
///
/// Made by [`Topology::probe`](crate::topology::Topology::probe).
#[derive(Clone, Debug)]
pub struct Probe {
    pub(crate) opener: Opener,
    pub(crate) namespace: Arc<OwnedFd>,
    /// The namespace of the host that has the destination address.
    pub(crate) receiver: Option<Arc<OwnedFd>>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) destination: IpAddr,
    pub(crate) request: Request,
    /// The names of the hosts of which one has to answer.
    pub(crate) expected: Vec<String>,
    pub(crate) sentinel: Option<Arc<Self>>,
}

/// What a probe asks for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the protocols of the scenario format")]
pub enum Request {
    /// A TCP connection to this port, and an answer on it.
    Tcp(u16),
    /// An answer to a datagram to this UDP port.
    Udp(u16),
    /// An SCTP association with this port, and an answer on it.
    Sctp(u16),
    /// An ICMP or ICMPv6 echo reply.
    Echo,
    /// That an ICMP or ICMPv6 message arrives.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// That a packet of the protocol with this number arrives.
    Packet(u8),
}

/// What came of a probe.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "nothing else can come of it")]
pub enum Outcome {
    /// A full round trip: the right host has answered.
    Reached,
    /// No answer within the time given.
    Silent,
    /// Somebody said no: a TCP reset, an SCTP abort, or an ICMP error.
    Refused,
    /// No route leads there, whatever policy says.
    NoRoute,
    /// The probe says nothing about policy.
    Failed(ProbeError),
}

/// Why a probe says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Another host has answered.
    #[error("`{answered}` answered instead of {}", or_nobody(expected))]
    WrongHost {
        /// The hosts of which one should answer.
        expected: Vec<String>,
        /// The host that answered.
        answered: String,
    },
    /// Not even the sentinel got through: the machine is too slow, or whoever should answer is gone.
    #[error("silence says nothing, as the sentinel did not get through either: {0}")]
    Sentinel(Box<Outcome>),
    /// A socket could not be opened or used.
    #[error("cannot {operation}")]
    Socket {
        /// What failed.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// For how long a probe is repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Window {
    /// When to give up.
    pub length: Duration,
    /// When to make the second attempt; the pause doubles with each further one. Earlier attempts go on.
    pub retry: Duration,
}

impl Window {
    /// Returns a window.
    #[must_use]
    pub const fn new(length: Duration, retry: Duration) -> Self {
        Self { length, retry }
    }
}

impl Probe {
    /// Returns the same probe with a sentinel: another probe, which nothing but a broken or busy machine can stop.
    ///
    /// At the end of its window the probe waits until the sentinel was reached. So silence is never that of a machine
    /// that did not get round to answering. Both have to run on the same single-threaded runtime, where what started
    /// earlier is ahead.
    #[must_use]
    pub fn with_sentinel(self, sentinel: Self) -> Self {
        Self { sentinel: Some(Arc::new(sentinel)), ..self }
    }

    /// Returns the same probe, which asks from one port; with other protocols than TCP, UDP and SCTP, the same probe.
    ///
    /// Its attempts never overlap: each ends when the next one begins.
    #[must_use]
    pub fn from_port(self, port: u16) -> Self {
        Self { source_port: Some(port), ..self }
    }

    /// Returns the same probe, which one of these hosts has to answer, instead of whoever has the address.
    #[must_use]
    pub fn answered_by(self, names: Vec<String>) -> Self {
        Self { expected: names, ..self }
    }

    /// Returns the same probe, whose packets have this source address, be it that of another host. Only what nobody answers
    /// can be asked so.
    #[must_use]
    pub fn from_address(self, address: IpAddr) -> Self {
        Self { source: Some(address), ..self }
    }

    /// Makes one attempt.
    pub async fn attempt(&self, limit: Duration) -> Outcome {
        timeout(limit, self.ask()).await.unwrap_or(Outcome::Silent)
    }

    async fn ask(&self) -> Outcome {
        let asked = match self.request {
            Request::Tcp(port) => tcp::ask(self, port).await,
            Request::Udp(port) => udp::ask(self, port).await,
            Request::Sctp(port) => sctp::ask(self, port).await,
            Request::Echo => icmp::ask(self).await,
            Request::Icmp { kind, code } => packet::ask_icmp(self, kind, code).await,
            Request::Packet(protocol) => packet::ask(self, protocol).await,
        };
        asked.unwrap_or_else(|stopped| stopped)
    }

    /// Makes attempts until one reaches its destination, or the window closes.
    ///
    /// For a probe that must succeed, the window is the time it may take; for one that must not, the time over which
    /// this must hold. An answer to an early attempt counts for as long as the window is open.
    ///
    /// Returns [`Outcome::Reached`] or [`ProbeError::WrongHost`] at once, and at the end the most telling of the other
    /// outcomes: a failure before a missing route before a refusal before silence.
    pub async fn watch(&self, window: Window) -> Outcome {
        let begin = Instant::now();
        let end = begin + window.length;
        let (mut next, mut pause) = (begin, window.retry.max(MIN_PAUSE));
        let mut attempts = JoinSet::new();
        let mut telling = Outcome::Silent;
        let mut closed = pin!(self.close(begin, end));
        loop {
            tokio::select! {
                // An answer counts as long as nobody has closed the window.
                biased;
                Some(outcome) = attempts.join_next() => match outcome {
                    Ok(Outcome::Reached) => return Outcome::Reached,
                    Ok(wrong @ Outcome::Failed(ProbeError::WrongHost { .. })) => return wrong,
                    Ok(outcome) => telling = telling.or_more_telling(outcome),
                    Err(error) => telling = Outcome::failed("run an attempt", error.into()),
                },
                () = sleep_until(next), if next < end => {
                    if self.source_port.is_some() {
                        attempts.shutdown().await;
                    }
                    let probe = self.clone();
                    attempts.spawn(async move { probe.ask().await });
                    next = next.checked_add(pause).unwrap_or(end);
                    pause = pause.saturating_mul(2);
                }
                sentinel = &mut closed => return sentinel.map_or_else(Outcome::Failed, |()| telling),
            }
        }
    }

    /// Waits for the end of a window, and then until the sentinel was reached often enough.
    ///
    /// The slower the machine is, the longer the window: it lasts several times as long as the sentinel needs.
    async fn close(&self, begin: Instant, end: Instant) -> Result<(), ProbeError> {
        sleep_until(end).await;
        let Some(sentinel) = &self.sentinel else { return Ok(()) };
        let (mut rounds, mut slowest) = (0, Duration::ZERO);
        while rounds < SENTINEL_ROUNDS || begin.elapsed() < slowest * SENTINEL_FACTOR {
            let sent = Instant::now();
            match Box::pin(sentinel.watch(SENTINEL_WINDOW)).await {
                Outcome::Reached => {}
                other => return Err(ProbeError::Sentinel(Box::new(other))),
            }
            rounds += 1;
            slowest = slowest.max(sent.elapsed());
            sleep(slowest).await;
        }
        Ok(())
    }

    /// Opens a socket in the namespace that the probe comes from, bound to its source address.
    async fn socket(&self, open: fn(IpAddr) -> io::Result<Socket>) -> Result<Socket, Outcome> {
        let (source, destination) = (self.source, self.destination);
        self.opened(&self.namespace, move || {
            let socket = open(destination)?;
            if let Some(source) = source {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            Ok(socket)
        })
        .await
    }

    /// As [`socket`](Self::socket), bound to a port that this topology has not spoken from for a long time.
    ///
    /// A dataplane remembers flows for minutes and lets them go on. A port that the kernel picks at random may be that
    /// of such a flow, and then the attempt would open no new one.
    async fn socket_on_fresh_port(
        &self,
        open: fn(IpAddr) -> io::Result<Socket>,
    ) -> Result<Socket, Outcome> {
        let (opener, destination) = (self.opener.clone(), self.destination);
        let source = self.source.unwrap_or(unspecified(destination));
        self.opened(&self.namespace, move || {
            let mut tries = PORT_TRIES;
            loop {
                let socket = open(destination)?;
                match socket.bind(&SocketAddr::new(source, opener.fresh_port()).into()) {
                    // A server may have the port.
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {
                        tries -= 1;
                    }
                    bound => return bound.map(|()| socket),
                }
            }
        })
        .await
    }

    /// As [`socket`](Self::socket), bound to the port that the probe asks from.
    async fn socket_on_port(
        &self,
        port: u16,
        open: fn(IpAddr) -> io::Result<Socket>,
    ) -> Result<Socket, Outcome> {
        let destination = self.destination;
        let source = SocketAddr::new(self.source.unwrap_or(unspecified(destination)), port);
        self.opened(&self.namespace, move || {
            let socket = open(destination)?;
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
            Ok(socket)
        })
        .await
    }

    async fn opened(
        &self,
        namespace: &Arc<OwnedFd>,
        open: impl FnOnce() -> io::Result<Socket> + Send + 'static,
    ) -> Result<Socket, Outcome> {
        let opened = self.opener.open(namespace, || {
            let socket = open()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        opened.await.map_err(|error| Outcome::failed("open a socket", error))
    }

    /// Judges who has answered.
    fn judge_answer(&self, answered: String) -> Outcome {
        if self.expected.contains(&answered) {
            return Outcome::Reached;
        }
        Outcome::Failed(ProbeError::WrongHost { expected: self.expected.clone(), answered })
    }
}

impl Outcome {
    fn failed(operation: &'static str, source: io::Error) -> Self {
        Self::Failed(ProbeError::Socket { operation, source })
    }

    /// Judges an error of an open socket: most are the network's answer.
    fn stopped(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| match error.raw_os_error().map(Errno::from_raw) {
            // What an ICMP error or a reset becomes. Source: `icmp_err_convert` in `net/ipv4/icmp.c`,
            // `icmpv6_err_convert` in `net/ipv6/icmp.c`.
            Some(
                Errno::ECONNREFUSED
                | Errno::ECONNRESET
                | Errno::EHOSTUNREACH
                | Errno::ENOPROTOOPT
                | Errno::EPROTO
                | Errno::EACCES,
            ) => Self::Refused,
            Some(Errno::ENETUNREACH) => Self::NoRoute,
            // The host's own output hook has dropped the packet.
            Some(Errno::EPERM) => Self::Silent,
            _ => Self::failed(operation, error),
        }
    }

    fn or_more_telling(self, other: Self) -> Self {
        let weight = |it: &Self| match it {
            Self::Silent => 0,
            Self::Refused => 1,
            Self::NoRoute => 2,
            Self::Failed(_) => 3,
            Self::Reached => 4,
        };
        if weight(&other) > weight(&self) { other } else { self }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached => f.write_str("reached"),
            Self::Silent => f.write_str("no answer"),
            Self::Refused => f.write_str("refused"),
            Self::NoRoute => f.write_str("no route"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

fn or_nobody(names: &[String]) -> String {
    match names {
        [] => "nobody".to_owned(),
        names => format!("`{}`", names.join("` or `")),
    }
}

/// Returns the address that stands for any of a family.
fn unspecified(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Watches all probes together and returns their outcomes in the same order.
pub async fn watch_all(probes: impl IntoIterator<Item = (Probe, Window)>) -> Vec<Outcome> {
    let tasks: Vec<_> = probes
        .into_iter()
        .map(|(probe, window)| tokio::spawn(async move { probe.watch(window).await }))
        .collect();
    let mut outcomes = Vec::with_capacity(tasks.len());
    for task in tasks {
        let failed = |error: tokio::task::JoinError| Outcome::failed("run a probe", error.into());
        outcomes.push(task.await.unwrap_or_else(failed));
    }
    outcomes
}
