//! Attempts: probes whose ends are known down to the address.

use std::fmt::{self, Write};
use std::net::IpAddr;

use netpol_core::model::HttpRequest;
use netpol_core::net::{Family, Protocol};
use netpol_core::{Flow, Origin, Payload, Verdict};

use super::error::Problem;
use super::reason::Reasons;
use super::spec::{
    Exception, IcmpMessage, MatrixSpec, Party, PartyName, Port, ProbeProtocol, ProbeSpec,
};
use crate::cluster::{Cluster, Pod, PodNetwork, Receiver};
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
    /// The HTTP request that is made over the connection, if one is.
    pub http: Option<HttpRequest>,
    /// The address in whose name the packet is sent, if it is not the source's own.
    pub forged: Option<IpAddr>,
    /// What has to come of it.
    pub expect: Verdict,
    /// What would have to come of it if staged policies were enforced, if that is asked.
    pub pending: Option<Verdict>,
    /// Why, as far as that is asked.
    pub reasons: Reasons,
    /// Who asks.
    pub source: Host,
    /// The first packet, as it is sent.
    pub flow: Flow,
    /// Who may be asked: the backends of a Service, each as likely as the others. One host where nothing is translated,
    /// and nobody if it is asked for a Service without backends.
    pub receivers: Vec<Receiver>,
}

/// What a probe asks for: a protocol, with ports if it has some, or a kind of message.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct ProbePort {
    protocol: ProbeProtocol,
    number: Option<u16>,
    source: Option<u16>,
    icmp: Option<IcmpMessage>,
}

impl ProbePort {
    /// Returns the port of a protocol.
    ///
    /// # Errors
    ///
    /// [`Problem::Port`] if TCP, UDP or SCTP come without a port, or another protocol with one.
    pub fn new(protocol: ProbeProtocol, number: Option<u16>) -> Result<Self, Problem> {
        if protocol.transport().is_some() == number.is_some() {
            Ok(Self { protocol, number, source: None, icmp: None })
        } else {
            Err(Problem::Port { protocol, given: number.is_some() })
        }
    }

    /// Returns the same, asked from a port.
    ///
    /// # Errors
    ///
    /// [`Problem::Port`] if the protocol has no ports.
    pub fn from_port(self, source: u16) -> Result<Self, Problem> {
        match self.protocol.transport() {
            Some(_) => Ok(Self { source: Some(source), ..self }),
            None => Err(Problem::Port { protocol: self.protocol, given: true }),
        }
    }

    /// Returns the same, as another message than an echo request.
    ///
    /// # Errors
    ///
    /// [`Problem::Icmp`] if the protocol is not ICMP.
    pub fn with_message(self, message: IcmpMessage) -> Result<Self, Problem> {
        match self.protocol {
            ProbeProtocol::Icmp => Ok(Self { icmp: Some(message), ..self }),
            protocol => Err(Problem::Icmp(protocol)),
        }
    }

    /// Returns the same, from a port that does not matter.
    #[must_use]
    pub const fn from_any_port(self) -> Self {
        Self { source: None, ..self }
    }

    /// Returns the protocol.
    #[must_use]
    pub const fn protocol(self) -> ProbeProtocol {
        self.protocol
    }

    /// Returns the number, `None` for protocols without ports.
    #[must_use]
    pub const fn number(self) -> Option<u16> {
        self.number
    }

    /// Returns the source port, `None` where it does not matter.
    #[must_use]
    pub const fn source(self) -> Option<u16> {
        self.source
    }

    /// Returns the ICMP message, `None` for an echo request and for other protocols.
    #[must_use]
    pub const fn message(self) -> Option<IcmpMessage> {
        self.icmp
    }

    fn of(probe: &ProbeSpec) -> Result<Self, Problem> {
        let mut port = Self::new(probe.protocol, probe.port.map(|Port(number)| number))?;
        if let Some(Port(source)) = probe.source_port {
            port = port.from_port(source)?;
        }
        if let Some(message) = probe.icmp {
            port = port.with_message(message)?;
        }
        Ok(port)
    }

    fn flow(self, source: IpAddr, destination: IpAddr) -> Flow {
        let ping = Flow::ping(source, destination);
        let payload = match (self.protocol, self.number) {
            (ProbeProtocol::Number(number), _) => Payload::Other(Protocol::new(number)),
            (protocol, Some(destination)) if let Some(transport) = protocol.transport() => {
                Payload::Ports {
                    transport,
                    source: self.source.unwrap_or(Flow::EPHEMERAL),
                    destination,
                }
            }
            _ => match self.icmp {
                Some(IcmpMessage { kind, code }) => Payload::Icmp { kind, code },
                None => ping.payload,
            },
        };
        Flow { payload, ..ping }
    }
}

/// One end of an attempt: who it is, and the addresses it may use, the preferred one first.
struct End {
    /// Nobody has the address of a Service.
    host: Option<Host>,
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
        let Some(host) = source.host else {
            return Err(Problem::Source(from.written.clone()));
        };
        let addresses = destination.addresses.iter().find_map(|to| {
            let family = Family::of(*to);
            let from = source.addresses.iter().find(|from| Family::of(**from) == family)?;
            Some((*from, *to))
        });
        let Some((source_address, destination_address)) = addresses else {
            return Err(Problem::Family { from: from.written.clone(), to: to.written.clone() });
        };
        let own_node = match (&host, &destination.host) {
            (Host::Node(node), Some(to @ Host::Pod(_))) => cluster.node_of(to) == Some(node),
            _ => false,
        };
        let origin = if own_node { Origin::OwnNode } else { Origin::Endpoint };
        let flow = port.flow(source_address, destination_address).from_origin(origin);
        let receivers = cluster.receivers(&host, flow, destination.host);
        let untranslated = || Problem::Untranslated { to: to.written.clone(), port };
        Ok(Self {
            from: from.written.clone(),
            to: to.written.clone(),
            port,
            http: None,
            forged: None,
            expect,
            pending: None,
            reasons: Reasons::default(),
            source: host,
            flow,
            receivers: receivers.ok_or_else(untranslated)?,
        })
    }

    /// Returns whether a node gives it another destination.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.direct().is_none()
    }

    /// Returns who is asked, if no node gives the packet another destination.
    #[must_use]
    pub fn direct(&self) -> Option<&Host> {
        match &self.receivers[..] {
            [Receiver { host, flow }] if *flow == self.flow => Some(host),
            _ => None,
        }
    }

    /// Returns what the protocol and port leave out, such as ` from port 5000`; mostly nothing.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = self.port.source().map_or_else(String::new, |it| format!(" from port {it}"));
        // Writing to a string cannot fail.
        if let Some(IcmpMessage { kind, code }) = self.port.message() {
            let _ = write!(text, " type {kind} code {code}");
        }
        if let Some(address) = self.forged {
            let _ = write!(text, " in the name of {address}");
        }
        if let Some(request) = &self.http {
            let _ = write!(text, " {request}");
        }
        text
    }

    /// Returns the attempt that a probe of a scenario stands for.
    pub(super) fn of_probe(cluster: &Cluster, probe: &ProbeSpec) -> Result<Self, Problem> {
        if probe.http.is_some() && probe.protocol != ProbeProtocol::Tcp {
            return Err(Problem::Http(probe.protocol));
        }
        let port = ProbePort::of(probe)?;
        let attempt = Self {
            http: probe.http.clone(),
            pending: probe.pending,
            reasons: probe.reasons.clone(),
            ..Self::resolve(cluster, &probe.from, &probe.to, port, probe.expect)?
        };
        match probe.source_address {
            Some(address) => attempt.in_the_name_of(address),
            None => Ok(attempt),
        }
    }

    /// Returns the same attempt with another source address. Whoever has that gets the answers, so only what needs none
    /// can be sent so.
    fn in_the_name_of(mut self, address: IpAddr) -> Result<Self, Problem> {
        let needs_answer = self.flow.payload == Flow::ping(address, self.flow.destination).payload
            || self.port.number().is_some();
        let is_pod = matches!(self.source, Host::Pod(_));
        if needs_answer || !is_pod || Family::of(address) != self.flow.family() {
            return Err(Problem::Forged(address));
        }
        (self.forged, self.flow.source) = (Some(address), address);
        Ok(self)
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
        self.port.number().map_or(Ok(()), |port| write!(f, " {port}"))?;
        f.write_str(&self.details())
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
                        let host = Some(Host::Pod(pod.id()));
                        Ok(Self { host, addresses: addresses.clone() })
                    }
                    PodNetwork::Host => Self::node(cluster, &pod.node).ok_or_else(unknown),
                    PodNetwork::None => Err(Problem::NotRunning(party.written.clone())),
                }
            }
            PartyName::Node(name) => Self::node(cluster, name).ok_or_else(unknown),
            PartyName::Address(address) => {
                let nobody = !cluster.is_of_service(*address);
                let external = || nobody.then_some(Host::External(*address));
                let host = cluster.owner(*address).or_else(external);
                Ok(Self { host, addresses: vec![*address] })
            }
            PartyName::Service(namespace, name) => {
                let addresses = cluster.service_addresses(namespace, name).ok_or_else(unknown)?;
                Ok(Self { host: None, addresses })
            }
        }
    }

    fn node(cluster: &Cluster, name: &str) -> Option<Self> {
        let node = cluster.nodes().get(name)?;
        let host = Some(Host::Node(name.to_owned()));
        Some(Self { host, addresses: node.addresses.clone() })
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
