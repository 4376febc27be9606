//! Attempts: probes whose ends are known down to the address.

use std::fmt;
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::{Flow, Origin, Verdict};

use super::error::Problem;
use super::spec::{Exception, MatrixSpec, Party, PartyName, Port, ProbeProtocol, ProbeSpec};
use crate::cluster::{Cluster, Pod, PodNetwork};
use crate::topology::Host;

/// A probe that can be made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attempt {
    /// The source, as the scenario writes it.
    pub from: String,
    /// The destination, as the scenario writes it.
    pub to: String,
    /// What is asked for.
    pub port: ProbePort,
    /// What has to come of it.
    pub expect: Verdict,
    /// Who asks.
    pub source: Host,
    /// Who is asked.
    pub destination: Host,
    /// The first packet.
    pub flow: Flow,
}

/// A protocol, with a port if it has ports.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct ProbePort {
    protocol: ProbeProtocol,
    number: Option<u16>,
}

impl ProbePort {
    /// Returns the port of a protocol.
    ///
    /// # Errors
    ///
    /// [`Problem::Port`] if TCP, UDP or SCTP come without a port, or ICMP with one.
    pub fn new(protocol: ProbeProtocol, number: Option<u16>) -> Result<Self, Problem> {
        if protocol.transport().is_some() == number.is_some() {
            Ok(Self { protocol, number })
        } else {
            Err(Problem::Port { protocol, given: number.is_some() })
        }
    }

    /// Returns the protocol.
    #[must_use]
    pub const fn protocol(self) -> ProbeProtocol {
        self.protocol
    }

    /// Returns the number, `None` for ICMP.
    #[must_use]
    pub const fn number(self) -> Option<u16> {
        self.number
    }

    fn flow(self, source: IpAddr, destination: IpAddr) -> Flow {
        match (self.protocol.transport(), self.number) {
            (Some(transport), Some(port)) => Flow::to_port(source, destination, transport, port),
            _ => Flow::ping(source, destination),
        }
    }
}

/// One end of an attempt: who it is, and the addresses it may use, the preferred one first.
struct End {
    host: Host,
    addresses: Vec<IpAddr>,
}

impl Attempt {
    /// Finds out who the parties are and which addresses they use.
    pub(crate) fn resolve(
        cluster: &Cluster,
        from: &Party,
        to: &Party,
        port: ProbePort,
        expect: Verdict,
    ) -> Result<Self, Problem> {
        let (source, destination) = (End::find(cluster, from)?, End::find(cluster, to)?);
        let addresses = destination.addresses.iter().find_map(|to| {
            let family = Family::of(*to);
            let from = source.addresses.iter().find(|from| Family::of(**from) == family)?;
            Some((*from, *to))
        });
        let Some((source_address, destination_address)) = addresses else {
            return Err(Problem::Family { from: from.written.clone(), to: to.written.clone() });
        };
        let own_node = match (&source.host, &destination.host) {
            (Host::Node(node), Host::Pod(_)) => cluster.node_of(&destination.host) == Some(node),
            _ => false,
        };
        let origin = if own_node { Origin::OwnNode } else { Origin::Endpoint };
        Ok(Self {
            from: from.written.clone(),
            to: to.written.clone(),
            port,
            expect,
            source: source.host,
            destination: destination.host,
            flow: port.flow(source_address, destination_address).from_origin(origin),
        })
    }

    /// Returns the attempt that a probe of a scenario stands for.
    pub(super) fn of_probe(cluster: &Cluster, probe: &ProbeSpec) -> Result<Self, Problem> {
        let port = ProbePort::new(probe.protocol, probe.port.map(|Port(number)| number))?;
        Self::resolve(cluster, &probe.from, &probe.to, port, probe.expect)
    }

    /// Returns the attempts that a matrix stands for: one per ordered pair of different pods with a network of their
    /// own, of which the second declares the port.
    pub(super) fn of_matrix(cluster: &Cluster, matrix: &MatrixSpec) -> Result<Vec<Self>, Problem> {
        let port = ProbePort::new(matrix.protocol, matrix.port.map(|Port(number)| number))?;
        let Some(declared) = matrix.protocol.transport().zip(port.number()) else {
            return Err(Problem::MatrixProtocol(matrix.protocol));
        };
        let exceptions = exceptions(matrix)?;
        let mut hit = vec![false; exceptions.len()];
        let pods =
            || cluster.pods().values().filter(|pod| matches!(pod.network, PodNetwork::Own(_)));
        let mut attempts = Vec::new();
        for from in pods() {
            let from_here: Vec<_> = exceptions
                .iter()
                .enumerate()
                .filter(|(_, exception)| exception.is_from(&from.namespace, &from.name))
                .collect();
            for to in pods().filter(|to| !std::ptr::eq(from, *to) && to.ports.contains(&declared)) {
                let mut expect = matrix.default;
                for (index, _) in from_here
                    .iter()
                    .filter(|(_, exception)| exception.is_to(&to.namespace, &to.name))
                {
                    expect = opposite(matrix.default);
                    if let Some(hit) = hit.get_mut(*index) {
                        *hit = true;
                    }
                }
                attempts.push(Self::resolve(cluster, &party(from), &party(to), port, expect)?);
            }
        }
        match exceptions.iter().zip(hit).find(|(_, hit)| !hit) {
            Some((useless, _)) => Err(Problem::UselessException(useless.written.clone())),
            None => Ok(attempts),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) =
            (End::text(&self.from, self.flow.source), End::text(&self.to, self.flow.destination));
        write!(f, "{from} -> {to} {}", self.port.protocol())?;
        self.port.number().map_or(Ok(()), |port| write!(f, " {port}"))
    }
}

impl End {
    /// Returns how an end was written, with its address if that says more.
    fn text(written: &str, address: IpAddr) -> String {
        if written.parse() == Ok(address) {
            written.to_owned()
        } else {
            format!("{written} ({address})")
        }
    }

    fn find(cluster: &Cluster, party: &Party) -> Result<Self, Problem> {
        let unknown = || Problem::Unknown(party.written.clone());
        match &party.name {
            PartyName::Pod(namespace, name) => {
                let pod = cluster.pods().get(&format!("{namespace}/{name}")).ok_or_else(unknown)?;
                match &pod.network {
                    PodNetwork::Own(addresses) => {
                        Ok(Self { host: Host::Pod(pod.id()), addresses: addresses.clone() })
                    }
                    PodNetwork::Host => Self::node(cluster, &pod.node).ok_or_else(unknown),
                    PodNetwork::None => Err(Problem::NotRunning(party.written.clone())),
                }
            }
            PartyName::Node(name) => Self::node(cluster, name).ok_or_else(unknown),
            PartyName::Address(address) => {
                let host = cluster.owner(*address).unwrap_or(Host::External(*address));
                Ok(Self { host, addresses: vec![*address] })
            }
        }
    }

    fn node(cluster: &Cluster, name: &str) -> Option<Self> {
        let node = cluster.nodes().get(name)?;
        Some(Self { host: Host::Node(name.to_owned()), addresses: node.addresses.clone() })
    }
}

/// Returns the exceptions of a matrix, which must differ from its default.
fn exceptions(matrix: &MatrixSpec) -> Result<&[Exception], Problem> {
    let (exceptions, wrong) = match matrix.default {
        Verdict::Allow => (&matrix.deny, &matrix.allow),
        Verdict::Deny => (&matrix.allow, &matrix.deny),
    };
    if wrong.as_ref().is_some_and(|it| !it.is_empty()) {
        return Err(Problem::Exceptions { wrong: matrix.default });
    }
    Ok(exceptions.as_deref().unwrap_or_default())
}

const fn opposite(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny => Verdict::Allow,
    }
}

fn party(pod: &Pod) -> Party {
    Party { written: pod.id(), name: PartyName::Pod(pod.namespace.clone(), pod.name.clone()) }
}
