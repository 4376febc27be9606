//! A small cluster of network namespaces: nodes, pods and external hosts, with real links between them.
//!
//! One namespace per node and per pod, and one more, the *fabric*, which routes between the nodes and owns every external
//! address. Nothing is filtered, and nothing is translated but what nodes are told to: until somebody programs a dataplane
//! in a node's namespace, everything reaches everything. The pods of a node are routed by it, or bridged ([`PodLinks`]).
//!
//! Every host answers on its listeners with its own name, so that a [`Probe`] knows who answered. Needs root, of the
//! machine or of a user namespace (`unshare -Urnm` with a tmpfs on `/run`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use self::namespace::{
    Forwarding, prepare_directory, readable, remove_leftovers, show_bridged_packets,
};
use self::netlink::Batch;
use self::portmap::Operation;
use self::proxy::Translator;
use self::server::Servers;
pub(crate) use self::wiring::POD_INTERFACES;
use self::wiring::{FIRST_OUTER, Families, Mac};
use crate::probe::{Probe, Request};

pub use self::error::TopologyError;
pub use self::layout::{
    ExternalSpec, Host, Layout, Listener, NodeSpec, PodLinks, PodSpec, PortMapping, Transport,
};
pub use self::namespace::Namespace;
pub(crate) use self::opener::Opener;
pub use self::proxy::{Frontend, Proxy, Rewrite};

mod command;
pub(crate) mod echo;
mod error;
mod layout;
mod namespace;
mod netlink;
mod opener;
mod portmap;
mod proxy;
pub(crate) mod sctp;
mod server;
mod wiring;

/// The name of a node's interface to everything but its own pods.
pub const UPLINK: &str = wiring::INNER_INTERFACE;

/// Longest name of an interface, in bytes. Source: `IFNAMSIZ` in `include/uapi/linux/if.h` is 16 and counts the NUL.
const MAX_INTERFACE: usize = 15;

/// How long a link may take to come up; it takes milliseconds.
const LINK_UP_WITHIN: Duration = Duration::from_secs(5);

/// A running topology. Dropping it removes everything.
#[derive(Debug)]
pub struct Topology {
    runtime: Handle,
    opener: Opener,
    pods: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Node>,
    fabric: Site,
    owners: BTreeMap<IpAddr, Host>,
}

/// How a node knows a pod's packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Attachment<'a> {
    /// The node that the pod runs on.
    pub node: &'a str,
    /// The name of the pod's interface in the node's namespace: `podN-NAME`, at most 15 bytes.
    pub interface: &'a str,
}

/// A namespace with its servers. INVARIANT: the servers are dropped first.
#[derive(Debug)]
struct Site {
    servers: Servers,
    namespace: Namespace,
    /// How many outer ends were ever made.
    outers: u32,
}

#[derive(Debug)]
struct Node {
    site: Site,
    addresses: Vec<IpAddr>,
    /// Index of the fabric's end.
    outer: u32,
    pods: PodLinks,
    translator: Translator,
}

#[derive(Debug)]
struct Pod {
    site: Site,
    addresses: Vec<IpAddr>,
    node: String,
    interface: String,
    /// Index of the node's end.
    outer: u32,
    /// Of the pod's end.
    mac: Mac,
    mappings: Vec<PortMapping>,
}

impl Topology {
    /// Builds the topology and starts its servers on `runtime`, which needs I/O and time enabled.
    ///
    /// Removes what crashed runs have left behind, first.
    ///
    /// # Errors
    ///
    /// See [`TopologyError`]. What was built so far is removed.
    pub fn build(layout: Layout, runtime: &Handle) -> Result<Self, TopologyError> {
        prepare_directory()?;
        remove_leftovers();
        let opener = Opener::start().map_err(|source| TopologyError::Thread { source })?;
        let mut topology = Self {
            runtime: runtime.clone(),
            opener,
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            fabric: Site::create("fabric", Forwarding::On)?,
            owners: BTreeMap::new(),
        };
        topology.fabric.perform(wiring::loopback)?;
        for external in layout.externals {
            topology.add_external(external)?;
        }
        let nodes: Vec<_> = layout.nodes.iter().map(|it| it.name.clone()).collect();
        for node in layout.nodes {
            topology.connect_node(node)?;
        }
        let pods: Vec<_> = layout.pods.iter().map(|it| it.id.clone()).collect();
        for pod in layout.pods {
            topology.connect_pod(pod)?;
        }
        // Links come up while the next ones are made.
        nodes.iter().try_for_each(|name| topology.await_node(name))?;
        pods.iter().try_for_each(|id| topology.await_pod(id))?;
        Ok(topology)
    }

    /// Adds a node.
    ///
    /// # Errors
    ///
    /// See [`TopologyError`].
    pub fn add_node(&mut self, node: NodeSpec) -> Result<(), TopologyError> {
        let name = node.name.clone();
        self.connect_node(node)?;
        self.await_node(&name)
    }

    /// Adds a pod; its addresses must be free.
    ///
    /// # Errors
    ///
    /// See [`TopologyError`].
    pub fn add_pod(&mut self, pod: PodSpec) -> Result<(), TopologyError> {
        let id = pod.id.clone();
        self.connect_pod(pod)?;
        self.await_pod(&id)
    }

    /// Adds an external host.
    ///
    /// # Errors
    ///
    /// See [`TopologyError`].
    pub fn add_external(&mut self, external: ExternalSpec) -> Result<(), TopologyError> {
        let ExternalSpec { address, listeners } = external;
        let host = Host::External(address);
        self.check_free(&host, &[address])?;
        self.fabric.perform(|batch| wiring::loopback_address(batch, address))?;
        let listeners: Vec<_> = listeners.into_iter().collect();
        self.fabric.listen(&self.runtime, &host, &[address], &listeners)?;
        self.owners.insert(address, host);
        Ok(())
    }

    /// Removes a pod: its connections end, and its addresses are free.
    ///
    /// # Errors
    ///
    /// If there is no such pod, or the kernel refuses.
    pub fn remove_pod(&mut self, id: &str) -> Result<(), TopologyError> {
        let Some(pod) = self.pods.remove(id) else {
            return Err(TopologyError::UnknownHost(Host::Pod(id.to_owned())));
        };
        self.owners.retain(|_, owner| !matches!(owner, Host::Pod(it) if it == id));
        let Some(node) = self.nodes.get(&pod.node) else {
            return Err(TopologyError::UnknownHost(Host::Node(pod.node)));
        };
        if !pod.mappings.is_empty() {
            let (inner, outer) = (&pod.site.namespace, &node.site.namespace);
            portmap::run(Operation::Delete, outer, inner, &pod.addresses, &pod.mappings)?;
        }
        self.fabric.perform(|batch| wiring::no_routes(batch, node.outer, &pod.addresses))?;
        if node.pods == PodLinks::Bridged {
            node.site.perform(|batch| wiring::no_bridged_routes(batch, &pod.addresses))?;
            for other in self.pods.values().filter(|other| other.node == pod.node) {
                other.site.perform(|batch| wiring::no_neighbour_pod(batch, &pod.addresses))?;
            }
        }
        node.site.perform(|batch| wiring::no_end(batch, pod.outer))
    }

    /// Makes `host` listen, at all its addresses; nothing happens where it does so already.
    ///
    /// # Errors
    ///
    /// If there is no such host, or the port is taken.
    pub fn listen(&mut self, host: &Host, listener: Listener) -> Result<(), TopologyError> {
        let runtime = self.runtime.clone();
        let (site, addresses) = self.site(host)?;
        site.listen(&runtime, host, &addresses, &[listener])
    }

    /// Makes `host` stop listening.
    ///
    /// # Errors
    ///
    /// If there is no such host.
    pub fn stop_listening(&mut self, host: &Host, listener: Listener) -> Result<(), TopologyError> {
        let (site, addresses) = self.site(host)?;
        site.servers.stop(&addresses, listener);
        Ok(())
    }

    /// Has a node translate these frontends, and no others.
    ///
    /// # Errors
    ///
    /// If there is no such node, or a tool fails.
    pub fn translate(
        &mut self,
        node: &str,
        proxy: Proxy,
        frontends: &[Frontend],
    ) -> Result<(), TopologyError> {
        let unknown = || TopologyError::UnknownHost(Host::Node(node.to_owned()));
        let Node { site, translator, .. } = self.nodes.get_mut(node).ok_or_else(unknown)?;
        translator.translate(&site.namespace, proxy, frontends)
    }

    /// Lets external hosts reach `address` through a node, instead of through the one that they did before.
    ///
    /// # Errors
    ///
    /// If there is no such node, or the kernel refuses.
    pub fn route(&self, address: IpAddr, node: &str) -> Result<(), TopologyError> {
        let unknown = || TopologyError::UnknownHost(Host::Node(node.to_owned()));
        let outer = self.nodes.get(node).ok_or_else(unknown)?.outer;
        self.fabric.perform(|batch| wiring::routes(batch, outer, &[address], &[]))
    }

    /// Lets ports of its node lead to a pod, for as long as it is there.
    ///
    /// # Errors
    ///
    /// If there is no such pod, or the plug-in `portmap` fails.
    pub fn map_ports(&mut self, id: &str, mappings: Vec<PortMapping>) -> Result<(), TopologyError> {
        let unknown = || TopologyError::UnknownHost(Host::Pod(id.to_owned()));
        let pod = self.pods.get_mut(id).ok_or_else(unknown)?;
        let node = self.nodes.get(&pod.node).ok_or_else(unknown)?;
        let (inner, outer) = (&pod.site.namespace, &node.site.namespace);
        portmap::run(Operation::Add, outer, inner, &pod.addresses, &mappings)?;
        pod.mappings.extend(mappings);
        Ok(())
    }

    /// Returns how the node of pod `id` knows its packets.
    #[must_use]
    pub fn attachment(&self, id: &str) -> Option<Attachment<'_>> {
        let pod = self.pods.get(id)?;
        Some(Attachment { node: &pod.node, interface: &pod.interface })
    }

    /// Returns the namespace of `host`; all external hosts share the fabric's.
    #[must_use]
    pub fn namespace(&self, host: &Host) -> Option<&Namespace> {
        match host {
            Host::Pod(id) => self.pods.get(id).map(|it| &it.site.namespace),
            Host::Node(name) => self.nodes.get(name).map(|it| &it.site.namespace),
            Host::External(address) => {
                (self.owner(*address) == Some(host)).then_some(&self.fabric.namespace)
            }
        }
    }

    /// Returns the host that has `address`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Host> {
        self.owners.get(&address)
    }

    /// Returns the probe that asks `request` of address `to`, from `from`.
    ///
    /// External hosts speak from their own address, others from their first one of the family of `to`. The probe expects
    /// an answer of whoever has `to` now, and outlives changes of the topology, except that nobody may be left to answer.
    ///
    /// # Errors
    ///
    /// If there is no host `from`.
    pub fn probe(&self, from: &Host, to: IpAddr, request: Request) -> Result<Probe, TopologyError> {
        let namespace =
            self.namespace(from).ok_or_else(|| TopologyError::UnknownHost(from.clone()))?;
        let source = match from {
            Host::External(address) => Some(*address),
            Host::Pod(_) | Host::Node(_) => None,
        };
        Ok(Probe {
            opener: self.opener.clone(),
            namespace: Arc::clone(namespace.handle()),
            receiver: self
                .owner(to)
                .and_then(|host| self.namespace(host))
                .map(|namespace| Arc::clone(namespace.handle())),
            source,
            source_port: None,
            destination: to,
            request,
            expected: self.owner(to).map(Host::to_string).into_iter().collect(),
            sentinel: None,
        })
    }

    fn connect_node(&mut self, spec: NodeSpec) -> Result<(), TopologyError> {
        let NodeSpec { name, addresses, listeners, pods } = spec;
        let host = Host::Node(name.clone());
        self.check_free(&host, &addresses)?;
        let mut site = Site::create(&name, Forwarding::On)?;
        let families = Families::supported();
        let (outer, interface) = self.fabric.next_outer("node", &name);
        self.fabric.perform(|batch| {
            wiring::outer_end(batch, outer, &interface, site.namespace.handle(), families);
            wiring::routes(batch, outer, &addresses, &[]);
        })?;
        site.perform(|batch| {
            wiring::loopback(batch);
            wiring::inner_end(batch, &addresses, families, wiring::OUTER_MAC);
        })?;
        if pods == PodLinks::Bridged {
            show_bridged_packets(&site.namespace)?;
            site.perform(|batch| wiring::bridge(batch, families))?;
        }
        let listeners: Vec<_> = listeners.into_iter().collect();
        site.listen(&self.runtime, &host, &addresses, &listeners)?;
        self.owners.extend(addresses.iter().map(|it| (*it, host.clone())));
        let translator = Translator::default();
        self.nodes.insert(name, Node { site, addresses, outer, pods, translator });
        Ok(())
    }

    fn connect_pod(&mut self, spec: PodSpec) -> Result<(), TopologyError> {
        let PodSpec { id, node: node_name, addresses, listeners } = spec;
        let host = Host::Pod(id.clone());
        self.check_free(&host, &addresses)?;
        let Some(node) = self.nodes.get_mut(&node_name) else {
            return Err(TopologyError::UnknownHost(Host::Node(node_name)));
        };
        let short = id.rsplit_once('/').map_or(id.as_str(), |(_, name)| name);
        let mut site = Site::create(&id, Forwarding::Off)?;
        let families = Families::of(&addresses);
        let (outer, interface) = node.site.next_outer(POD_INTERFACES, short);
        let (inside, own) = (site.namespace.handle(), &node.addresses);
        let (mac, gateway) = match node.pods {
            PodLinks::Routed => (wiring::INNER_MAC, wiring::OUTER_MAC),
            PodLinks::Bridged => (wiring::mac_of_port(outer), wiring::BRIDGE_MAC),
        };
        node.site.perform(|batch| match node.pods {
            PodLinks::Routed => {
                wiring::outer_end(batch, outer, &interface, inside, families);
                wiring::routes(batch, outer, &addresses, own);
            }
            PodLinks::Bridged => {
                wiring::bridge_port(batch, outer, &interface, inside, mac);
                wiring::bridged_routes(batch, &addresses, mac, own);
            }
        })?;
        site.perform(|batch| {
            wiring::loopback(batch);
            wiring::inner_end(batch, &addresses, families, gateway);
        })?;
        if node.pods == PodLinks::Bridged {
            for other in self.pods.values().filter(|other| other.node == node_name) {
                let theirs = &other.addresses;
                site.perform(|batch| wiring::neighbour_pod(batch, theirs, other.mac, &addresses))?;
                other
                    .site
                    .perform(|batch| wiring::neighbour_pod(batch, &addresses, mac, theirs))?;
            }
        }
        self.fabric.perform(|batch| wiring::routes(batch, node.outer, &addresses, &[]))?;
        let listeners: Vec<_> = listeners.into_iter().collect();
        site.listen(&self.runtime, &host, &addresses, &listeners)?;
        self.owners.extend(addresses.iter().map(|it| (*it, host.clone())));
        let pod =
            Pod { site, addresses, node: node_name, interface, outer, mac, mappings: Vec::new() };
        self.pods.insert(id, pod);
        Ok(())
    }

    fn check_free(&self, host: &Host, addresses: &[IpAddr]) -> Result<(), TopologyError> {
        if self.namespace(host).is_some() {
            return Err(TopologyError::DuplicateHost(host.clone()));
        }
        if addresses.is_empty() {
            return Err(TopologyError::NoAddress(host.clone()));
        }
        addresses.iter().try_for_each(|address| match self.owner(*address) {
            None => Ok(()),
            Some(owner) => Err(TopologyError::DuplicateAddress {
                address: *address,
                owner: owner.clone(),
                claimant: host.clone(),
            }),
        })
    }

    fn await_node(&self, name: &str) -> Result<(), TopologyError> {
        let up = self.nodes.get(name).is_some_and(|node| self.fabric.link_comes_up(node.outer));
        if up { Ok(()) } else { Err(TopologyError::LinkDown(Host::Node(name.to_owned()))) }
    }

    fn await_pod(&self, id: &str) -> Result<(), TopologyError> {
        let node = |pod: &Pod| self.nodes.get(&pod.node);
        let up = self
            .pods
            .get(id)
            .is_some_and(|pod| node(pod).is_some_and(|it| it.site.link_comes_up(pod.outer)));
        if up { Ok(()) } else { Err(TopologyError::LinkDown(Host::Pod(id.to_owned()))) }
    }

    fn site(&mut self, host: &Host) -> Result<(&mut Site, Vec<IpAddr>), TopologyError> {
        let known = match host {
            Host::Pod(id) => self.pods.get_mut(id).map(|it| (&mut it.site, it.addresses.clone())),
            Host::Node(name) => {
                self.nodes.get_mut(name).map(|it| (&mut it.site, it.addresses.clone()))
            }
            Host::External(address) if self.owners.get(address) == Some(host) => {
                Some((&mut self.fabric, vec![*address]))
            }
            Host::External(_) => None,
        };
        known.ok_or_else(|| TopologyError::UnknownHost(host.clone()))
    }
}

impl Site {
    fn create(label: &str, forwarding: Forwarding) -> Result<Self, TopologyError> {
        let namespace = Namespace::create(label, forwarding)?;
        Ok(Self { servers: Servers::default(), namespace, outers: 0 })
    }

    /// Returns the index of the next outer end, and its name.
    fn next_outer(&mut self, kind: &str, name: &str) -> (u32, String) {
        self.outers += 1;
        let start = format!("{kind}{}-", self.outers);
        let room = MAX_INTERFACE.saturating_sub(start.len());
        (FIRST_OUTER + self.outers, start + &readable(name, room))
    }

    fn perform(&self, fill: impl FnOnce(&mut Batch)) -> Result<(), TopologyError> {
        let mut batch = Batch::default();
        fill(&mut batch);
        let refused = |it| TopologyError::link(self.namespace.name(), it);
        self.namespace.netlink().perform(batch).map_err(refused)
    }

    fn listen(
        &mut self,
        runtime: &Handle,
        host: &Host,
        addresses: &[IpAddr],
        listeners: &[Listener],
    ) -> Result<(), TopologyError> {
        self.servers.start(runtime, &self.namespace, host, addresses, listeners)
    }

    /// Waits until the link of an outer end carries packets; before that it would swallow them.
    fn link_comes_up(&self, outer: u32) -> bool {
        let end = Instant::now() + LINK_UP_WITHIN;
        loop {
            match self.namespace.netlink().queueing(outer) {
                Ok(Some(name)) if name != "noop" => return true,
                Ok(_) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
                _ => return false,
            }
        }
    }
}
