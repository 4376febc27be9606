//! The hosts of a cluster, kept in step with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::{Flow, Payload, net};
use tokio::runtime::Handle;

use super::super::SubjectError;
use super::SourcePorts;
use crate::cluster::{Cluster, Pod, PodNetwork, Receiver};
use crate::probe::{Probe, Request};
use crate::scenario::{Attempt, ProbeProtocol};
use crate::topology::{ExternalSpec, Host, Layout, Listener, NodeSpec, PodSpec, Proxy, Topology};

/// A topology, and what is in it.
#[derive(Debug)]
pub(super) struct Hosts {
    topology: Topology,
    nodes: BTreeMap<String, Vec<IpAddr>>,
    pods: BTreeMap<String, Machine>,
    externals: BTreeSet<IpAddr>,
    listening: BTreeSet<(Host, Listener)>,
}

/// What a pod must not change while its namespace stays.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Machine {
    incarnation: u32,
    node: String,
    addresses: Vec<IpAddr>,
}

impl Hosts {
    /// Makes the nodes of a cluster.
    pub(super) fn build(cluster: &Cluster, runtime: &Handle) -> Result<Self, SubjectError> {
        let mut hosts = Self {
            topology: Topology::build(Layout::default(), runtime)?,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            externals: BTreeSet::new(),
            listening: BTreeSet::new(),
        };
        hosts.update_nodes(cluster)?;
        Ok(hosts)
    }

    /// Returns whether these hosts can become those of the cluster. They cannot if an address that was external
    /// belongs to a pod or node now, or if a node has changed.
    pub(super) fn fits(&self, cluster: &Cluster) -> bool {
        let nodes_fit = self.nodes.iter().all(|(name, addresses)| {
            cluster.nodes().get(name).is_some_and(|node| node.addresses == *addresses)
        });
        let mut owned = self.externals.iter().filter_map(|address| cluster.owner(*address));
        nodes_fit && owned.next().is_none()
    }

    /// Brings pods, external hosts and listeners up to what the cluster has and the attempts need.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        attempts: &[&Attempt],
        proxy: Proxy,
    ) -> Result<(), SubjectError> {
        self.update_nodes(cluster)?;
        self.update_pods(cluster)?;
        for attempt in attempts {
            self.add_if_external(&attempt.source)?;
            for Receiver { host, flow, .. } in &attempt.receivers {
                self.add_if_external(host)?;
                if let Payload::Ports { transport, destination, .. } = flow.payload {
                    self.listen(host.clone(), transport, destination)?;
                }
            }
        }
        self.update_translation(cluster, proxy)
    }

    fn update_translation(&mut self, cluster: &Cluster, proxy: Proxy) -> Result<(), SubjectError> {
        for name in cluster.nodes().keys() {
            self.topology.translate(name, proxy, cluster.frontends(name))?;
        }
        for address in cluster.virtual_addresses() {
            if let Some(node) = cluster.entry(address) {
                self.topology.route(address, node)?;
            }
        }
        Ok(())
    }

    /// Runs `job` in the network namespace of a node.
    pub(super) fn run_in<T: Send>(
        &self,
        node: &str,
        job: impl FnOnce() -> T + Send,
    ) -> Result<T, SubjectError> {
        let host = Host::Node(node.to_owned());
        let unknown = || crate::topology::TopologyError::UnknownHost(host.clone());
        let namespace = self.topology.namespace(&host).ok_or_else(unknown)?;
        namespace.run(job).map_err(|source| SubjectError::Thread { source })
    }

    /// Returns the name of a pod's interface on its node.
    pub(super) fn interface(&self, pod: &str) -> Option<&str> {
        self.topology.attachment(pod).map(|it| it.interface)
    }

    /// Returns the probe that an attempt stands for.
    ///
    /// Its sentinel is the destination, which asks itself for the same: that is outside of every policy.
    pub(super) fn probe(
        &self,
        attempt: &Attempt,
        ports: SourcePorts,
    ) -> Result<Probe, SubjectError> {
        let probe = |from: &Host, flow: &Flow| {
            self.topology.probe(from, flow.destination, request(attempt.port.protocol(), flow))
        };
        let receivers = attempt.receivers.iter();
        let names = receivers.map(|it| it.host.to_string()).collect();
        let mut made = probe(&attempt.source, &attempt.flow)?.answered_by(names);
        if let Some(Receiver { host, flow, .. }) = attempt.receivers.first() {
            made = made.with_sentinel(probe(host, flow)?);
        }
        let made = match attempt.forged {
            Some(address) => made.from_address(address),
            None => made,
        };
        Ok(match (ports, attempt.port.source()) {
            (SourcePorts::Wanted, Some(port)) => made.from_port(port),
            _ => made,
        })
    }

    fn update_nodes(&mut self, cluster: &Cluster) -> Result<(), SubjectError> {
        for (name, node) in cluster.nodes() {
            if !self.nodes.contains_key(name) {
                let spec = NodeSpec::new(name.clone(), node.addresses.iter().copied());
                self.topology.add_node(spec.with_pods(cluster.pod_links()))?;
                self.nodes.insert(name.clone(), node.addresses.clone());
            }
        }
        Ok(())
    }

    fn update_pods(&mut self, cluster: &Cluster) -> Result<(), SubjectError> {
        let wanted: BTreeMap<_, _> =
            cluster.pods().iter().filter_map(|(id, pod)| Some((id, Machine::of(pod)?))).collect();
        let gone: Vec<_> = self
            .pods
            .iter()
            .filter(|(id, pod)| wanted.get(id) != Some(pod))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.topology.remove_pod(&id)?;
            self.pods.remove(&id);
            self.listening.retain(|(host, _)| *host != Host::Pod(id.clone()));
        }
        for (id, machine) in wanted {
            if !self.pods.contains_key(id) {
                let Machine { node, addresses, .. } = &machine;
                self.topology.add_pod(PodSpec::new(
                    id.clone(),
                    node.clone(),
                    addresses.iter().copied(),
                ))?;
                let mappings = cluster.pods().get(id).map(Pod::mapped_ports).unwrap_or_default();
                if !mappings.is_empty() {
                    self.topology.map_ports(id, mappings.to_vec())?;
                }
                self.pods.insert(id.clone(), machine);
            }
        }
        for (id, pod) in cluster.pods() {
            let host = match pod.network {
                PodNetwork::Own(_) => Host::Pod(id.clone()),
                PodNetwork::Host => Host::Node(pod.node.clone()),
                PodNetwork::None => continue,
            };
            for (transport, port) in &pod.ports {
                self.listen(host.clone(), *transport, *port)?;
            }
        }
        Ok(())
    }

    fn add_if_external(&mut self, host: &Host) -> Result<(), SubjectError> {
        if let Host::External(address) = host
            && self.externals.insert(*address)
        {
            self.topology.add_external(ExternalSpec::new(*address))?;
        }
        Ok(())
    }

    fn listen(
        &mut self,
        host: Host,
        transport: net::Transport,
        port: u16,
    ) -> Result<(), SubjectError> {
        let listener = Listener { transport: transport.into(), port };
        if self.listening.contains(&(host.clone(), listener)) {
            return Ok(());
        }
        self.topology.listen(&host, listener)?;
        self.listening.insert((host, listener));
        Ok(())
    }
}

impl Machine {
    /// Returns `None` for a pod without a network of its own.
    fn of(pod: &Pod) -> Option<Self> {
        match &pod.network {
            PodNetwork::Own(addresses) => Some(Self {
                incarnation: pod.incarnation,
                node: pod.node.clone(),
                addresses: addresses.clone(),
            }),
            PodNetwork::Host | PodNetwork::None => None,
        }
    }
}

/// An echo request has a reply; other messages are looked for where they should arrive.
fn request(protocol: ProbeProtocol, flow: &Flow) -> Request {
    match (protocol, flow.payload) {
        (ProbeProtocol::Tcp, Payload::Ports { destination, .. }) => Request::Tcp(destination),
        (ProbeProtocol::Udp, Payload::Ports { destination, .. }) => Request::Udp(destination),
        (ProbeProtocol::Sctp, Payload::Ports { destination, .. }) => Request::Sctp(destination),
        (ProbeProtocol::Number(number), _) => Request::Packet(number),
        (_, Payload::Icmp { kind, code })
            if flow.payload != Flow::ping(flow.source, flow.destination).payload =>
        {
            Request::Icmp { kind, code }
        }
        _ => Request::Echo,
    }
}
