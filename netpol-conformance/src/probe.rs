//! Probes: real connections that show whether one host reaches another.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::Socket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::topology::Opener;

mod icmp;
mod sctp;
mod tcp;
mod udp;

/// Shortest pause between two attempts of a probe.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// An attempt that can be repeated, always with a new connection.
///
/// Made by [`Topology::probe`](crate::topology::Topology::probe).
#[derive(Clone, Debug)]
pub struct Probe {
    pub(crate) opener: Opener,
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: IpAddr,
    pub(crate) request: Request,
    /// The name of the host that has to answer.
    pub(crate) expected: Option<String>,
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
    /// The probe says nothing about policy.
    Failed(ProbeError),
}

/// Why a probe says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Another host has answered.
    #[error("`{answered}` answered instead of {}", expected.as_ref().map_or("nobody".to_owned(), |it| format!("`{it}`")))]
    WrongHost {
        /// The host that has the address.
        expected: Option<String>,
        /// The host that answered.
        answered: String,
    },
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
    /// Makes one attempt.
    pub async fn attempt(&self, limit: Duration) -> Outcome {
        let attempt = async {
            match self.request {
                Request::Tcp(port) => tcp::ask(self, port).await,
                Request::Udp(port) => udp::ask(self, port).await,
                Request::Sctp(port) => sctp::ask(self, port).await,
                Request::Echo => icmp::ask(self).await,
            }
        };
        timeout(limit, attempt)
            .await
            .map_or(Outcome::Silent, |it| it.unwrap_or_else(|stopped| stopped))
    }

    /// Makes attempts until one reaches its destination, or the window closes.
    ///
    /// For a probe that must succeed, the window is the time it may take; for one that must not, the time over which
    /// this must hold. An answer to an early attempt counts for as long as the window is open.
    ///
    /// Returns [`Outcome::Reached`] or [`ProbeError::WrongHost`] at once, and at the end the most telling of the other
    /// outcomes: a failure before a refusal before silence.
    pub async fn watch(&self, window: Window) -> Outcome {
        let end = Instant::now() + window.length;
        let (mut next, mut pause) = (Instant::now(), window.retry.max(MIN_PAUSE));
        let mut attempts = JoinSet::new();
        let mut telling = Outcome::Silent;
        loop {
            tokio::select! {
                () = sleep_until(next), if next < end => {
                    let probe = self.clone();
                    attempts.spawn(async move { probe.attempt(end - Instant::now()).await });
                    next = next.checked_add(pause).unwrap_or(end);
                    pause = pause.saturating_mul(2);
                }
                Some(outcome) = attempts.join_next() => match outcome {
                    Ok(Outcome::Reached) => return Outcome::Reached,
                    Ok(wrong @ Outcome::Failed(ProbeError::WrongHost { .. })) => return wrong,
                    Ok(outcome) => telling = telling.or_more_telling(outcome),
                    Err(error) => telling = Outcome::failed("run an attempt", error.into()),
                },
                () = sleep_until(end), if next >= end && attempts.is_empty() => return telling,
            }
        }
    }

    /// Opens a socket in the namespace that the probe comes from, bound to its source address.
    async fn socket(&self, open: fn(IpAddr) -> io::Result<Socket>) -> Result<Socket, Outcome> {
        let (source, destination) = (self.source, self.destination);
        let opened = self.opener.open(&self.namespace, move || {
            let socket = open(destination)?;
            socket.set_nonblocking(true)?;
            if let Some(source) = source {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            Ok(socket)
        });
        opened.await.map_err(|error| Outcome::failed("open a socket", error))
    }

    /// Judges who has answered.
    fn answered_by(&self, answered: String) -> Outcome {
        if self.expected.as_ref() == Some(&answered) {
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
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::EPROTO
                | Errno::EACCES,
            ) => Self::Refused,
            // The host's own output hook has dropped the packet.
            Some(Errno::EPERM) => Self::Silent,
            _ => Self::failed(operation, error),
        }
    }

    fn or_more_telling(self, other: Self) -> Self {
        let weight = |it: &Self| match it {
            Self::Silent => 0,
            Self::Refused => 1,
            Self::Failed(_) => 2,
            Self::Reached => 3,
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
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
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
