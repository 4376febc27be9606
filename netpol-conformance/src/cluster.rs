//! The state of a cluster, and how a scenario changes it.

mod addresses;
mod completion;
mod route;
mod services;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::api::Strictness;
use netpol_core::api::k8s::Phase;
use netpol_core::model::{
    self, Attachment, EndpointKind, HostSettings, Inputs, Interface, Object, ObjectKey, Treatment,
};
use netpol_core::net::{Family, Transport};
use netpol_core::{DestinationView, SourceView};
use serde_json::Value;

use self::addresses::Addresses;
use self::completion::{label_namespace, list_addresses};
use self::services::{Services, Translated};
use crate::scenario::object::{ObjectId, PodView, group_of, node_addresses};
use crate::scenario::spec::ObjectRef;
use crate::scenario::{Problem, machine};
use crate::topology::{Host, PodLinks, PortMapping, UPLINK};
use crate::wire::{self, Conversion};

/// The node of pods that name none, where no node is declared.
const IMPLICIT_NODE: &str = "node";

/// Everything that exists at one time.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// With the object of the model that each stands for; a host-network pod stands for none.
    objects: BTreeMap<ObjectId, Option<Arc<Object>>>,
    pods: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Node>,
    default_node: String,
    addresses: Addresses,
    incarnations: u32,
    /// Objects that follow from others: nodes that only have host endpoints, and slices of Services that select pods.
    implied: Vec<Object>,
    services: Services,
    /// By node.
    translated: BTreeMap<String, Translated>,
    settings: HostSettings,
    /// Pods that no dataplane is told of.
    unknown: BTreeSet<String>,
    reading: Reading,
}

pub use self::route::{Leg, Link, Receiver};

/// How objects are taken where that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// What becomes of a ClusterNetworkPolicy with something that its API does not know.
    pub(crate) unknown_fields: Strictness,
    /// What a host endpoint is that names no interface.
    pub(crate) nameless_hosts: NamelessHosts,
    /// How the pods of a node are connected.
    pub(crate) pods: PodLinks,
    /// Which source ingress is judged on, if that matters.
    pub(crate) source_view: Option<SourceView>,
    /// Which destination egress is judged on, if that matters.
    pub(crate) destination_view: Option<DestinationView>,
    /// What becomes of packets at interfaces of pods that no dataplane is told of; `None` if nothing does.
    pub(crate) unknown_interfaces: Option<Treatment>,
}

/// What a host endpoint is that names no interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NamelessHosts {
    /// Only a peer.
    Peers,
    /// The interfaces of its node that have one of its addresses, as its API says.
    Enforced,
}

/// A node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// The addresses, of which the first is primary. There is one of each family at least.
    pub addresses: Vec<IpAddr>,
    /// Those that its object lists.
    listed: Vec<IpAddr>,
}

/// A pod, or a virtual machine.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Pod {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The node that it is placed on.
    pub node: String,
    /// How it takes part in the network.
    pub network: PodNetwork,
    /// The ports that its containers declare.
    pub ports: BTreeSet<(Transport, u16)>,
    /// Tells it from earlier and later pods of the same name.
    pub incarnation: u32,
    view: PodView,
}

/// How a pod takes part in the network.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a pod has a network, borrows one, or does not run")]
pub enum PodNetwork {
    /// It has a network namespace with these addresses, of which the first is primary.
    Own(Vec<IpAddr>),
    /// It lives in that of its node.
    Host,
    /// It does not run.
    None,
}

impl Cluster {
    /// Returns an empty cluster in which no address of `taken` is given away.
    ///
    /// Pods that name no node are placed on `default_node`.
    pub(crate) fn new(
        default_node: Option<String>,
        taken: BTreeSet<IpAddr>,
        reading: Reading,
    ) -> Self {
        Self {
            objects: BTreeMap::new(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            default_node: default_node.unwrap_or_else(|| IMPLICIT_NODE.to_owned()),
            addresses: Addresses::new(taken),
            incarnations: 0,
            implied: Vec::new(),
            services: Services::default(),
            translated: BTreeMap::new(),
            settings: HostSettings::default(),
            unknown: BTreeSet::new(),
            reading,
        }
    }

    /// Returns the same cluster, in which hosts that give no addresses get those that they have in another one.
    pub(crate) fn with_addresses_of(mut self, other: &Self) -> Self {
        for (name, node) in &other.nodes {
            self.addresses.keep(Host::Node(name.clone()), &node.addresses);
        }
        for (id, pod) in &other.pods {
            self.addresses.keep(Host::Pod(id.clone()), pod.own_addresses());
        }
        self
    }

    /// Creates an object, or replaces the one of the same group, kind, namespace and name.
    ///
    /// Whether its namespace exists is found by [`settle`](Self::settle): objects come in any order.
    pub(crate) fn apply(&mut self, value: &Value) -> Result<(), Problem> {
        let id = ObjectId::of(value)?;
        let mut value = value.clone();
        match (id.group.as_str(), id.kind.as_str()) {
            ("", "Namespace") => label_namespace(&mut value, &id.name),
            ("", "Node") => self.apply_node(&id.name, &mut value)?,
            ("", "Pod") => self.apply_pod(&id, PodView::read(&value)?, &mut value)?,
            _ if id.is_machine() => self.apply_pod(&id, machine::view(&value)?, &mut value)?,
            _ if is_cluster_wide(&id) => {}
            _ => require_namespaced(&id)?,
        }
        match wire::convert_as(&value, self.strictness(&id)) {
            Conversion::Accepted(object) => {
                let object = object.map(|object| self.finished(object));
                self.services.apply(&id, &value)?;
                self.objects.insert(id, object);
                Ok(())
            }
            Conversion::Refused(diagnostics) => {
                Err(Problem::Refused { id: Box::new(id), diagnostics })
            }
            Conversion::Unknown { .. } => Err(Problem::Kind {
                version: value
                    .get("apiVersion")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                kind: id.kind,
                expected: "a kind that this harness knows",
            }),
        }
    }

    /// Deletes an object; a namespace takes along all that is in it.
    pub(crate) fn delete(&mut self, wanted: &ObjectRef) -> Result<(), Problem> {
        let group = wanted.api_version.as_deref().map(group_of);
        let is_meant = |id: &&ObjectId| {
            id.kind == wanted.kind
                && id.namespace == wanted.namespace
                && id.name == wanted.name
                && group.is_none_or(|group| group == id.group)
        };
        let mut found = self.objects.keys().filter(is_meant);
        let Some(id) = found.next().cloned() else {
            return Err(Problem::NothingToDelete(wanted.to_string()));
        };
        if found.next().is_some() {
            return Err(Problem::Ambiguous(wanted.to_string()));
        }
        self.remove(&id);
        Ok(())
    }

    /// Completes what the objects leave open, and checks that the cluster can exist.
    pub(crate) fn settle(&mut self) -> Result<(), Problem> {
        for name in self.pods.values().map(|pod| &pod.node) {
            if !self.nodes.contains_key(name) {
                let addresses = self.addresses.completed(name, Vec::new())?;
                self.nodes.insert(name.clone(), Node { addresses, listed: Vec::new() });
            }
        }
        self.require_namespaces()?;
        let derived = self.derived_slices();
        self.translated = self.translations(&derived);
        let slices = derived.into_iter().map(|it| it.slice.into());
        self.implied = self.implied_nodes().into_iter().chain(slices).collect();
        self.owners().map(|_| ())
    }

    /// Returns the settings of all nodes.
    #[must_use]
    pub const fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// Changes the settings of all nodes.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut HostSettings)) {
        change(&mut self.settings);
    }

    /// Returns the objects of the model that judges and dataplanes are told of, by key.
    #[must_use]
    pub fn model(&self) -> BTreeMap<ObjectKey, &Object> {
        let applied = self.objects.values().flatten().map(|object| &**object);
        let told = applied.filter(|object| self.tells_of(object));
        told.chain(&self.implied).map(|object| (object.key(), object)).collect()
    }

    /// Returns what the judge sees.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::default();
        for object in self.model().into_values() {
            inputs.upsert(object.clone());
        }
        inputs
    }

    /// Returns the pods, by `namespace/name`.
    #[must_use]
    pub const fn pods(&self) -> &BTreeMap<String, Pod> {
        &self.pods
    }

    /// Returns the nodes, by name.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// Returns how the pods of a node are connected.
    #[must_use]
    pub const fn pod_links(&self) -> PodLinks {
        self.reading.pods
    }

    /// Returns the pod or node that has `address`, if any.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<Host> {
        let node = self.nodes.iter().find(|(_, node)| node.addresses.contains(&address));
        let pod = || self.pods.values().find(|pod| pod.own_addresses().contains(&address));
        node.map(|(name, _)| Host::Node(name.clone()))
            .or_else(|| pod().map(|it| Host::Pod(it.id())))
    }

    /// Returns the node on which a host is: a pod's, or the node itself.
    #[must_use]
    pub fn node_of<'a>(&'a self, host: &'a Host) -> Option<&'a str> {
        match host {
            Host::Pod(id) => self.pods.get(id).map(|pod| pod.node.as_str()),
            Host::Node(name) => Some(name),
            Host::External(_) => None,
        }
    }

    /// Returns what tells a host from earlier and later ones of the same name.
    #[must_use]
    pub fn incarnation(&self, host: &Host) -> u32 {
        match host {
            Host::Pod(id) => self.pods.get(id).map_or(0, |pod| pod.incarnation),
            Host::Node(_) | Host::External(_) => 0,
        }
    }

    /// Returns which source of packets the verdicts of the scenario depend on, if they do.
    pub(crate) const fn source_view(&self) -> Option<SourceView> {
        self.reading.source_view
    }

    /// Returns which destination of packets the verdicts of the scenario depend on, if they do.
    pub(crate) const fn destination_view(&self) -> Option<DestinationView> {
        self.reading.destination_view
    }

    fn owners(&self) -> Result<BTreeMap<IpAddr, Host>, Problem> {
        let nodes = self
            .nodes
            .iter()
            .map(|(name, node)| (Host::Node(name.clone()), node.addresses.as_slice()));
        let pods = self.pods.values().map(|pod| (Host::Pod(pod.id()), pod.own_addresses()));
        let mut owners = BTreeMap::new();
        for (host, addresses) in nodes.chain(pods) {
            for address in addresses {
                if let Some(first) = owners.insert(*address, host.clone()) {
                    let (first, second) = (first.to_string(), host.to_string());
                    return Err(Problem::SharedAddress { address: *address, first, second });
                }
            }
        }
        Ok(owners)
    }

    /// Checks that the namespaces of all objects exist.
    fn require_namespaces(&self) -> Result<(), Problem> {
        let exist: BTreeSet<&str> = self
            .objects
            .keys()
            .filter(|id| id.is_core("Namespace"))
            .map(|id| id.name.as_str())
            .collect();
        for id in self.objects.keys() {
            if let Some(namespace) = &id.namespace
                && !exist.contains(namespace.as_str())
            {
                return Err(no_namespace(id));
            }
        }
        Ok(())
    }

    fn strictness(&self, id: &ObjectId) -> Strictness {
        match (id.group.as_str(), id.kind.as_str()) {
            ("policy.networking.k8s.io", "ClusterNetworkPolicy") => self.reading.unknown_fields,
            _ => Strictness::Strict,
        }
    }

    /// Adds what no object says: the interfaces of nodes, and which host endpoints are only peers.
    fn finished(&self, mut object: Arc<Object>) -> Arc<Object> {
        match Arc::make_mut(&mut object) {
            Object::Node(node) => node.interfaces = self.interfaces_of(&node.name),
            Object::Endpoint(endpoint)
                if endpoint.id.kind == EndpointKind::Host
                    && endpoint.attachment == Attachment::Address
                    && self.reading.nameless_hosts == NamelessHosts::Peers =>
            {
                endpoint.node = None;
            }
            _ => {}
        }
        object
    }

    fn interfaces_of(&self, node: &str) -> Vec<Interface> {
        let interface =
            |it: &Node| Interface { name: UPLINK.to_owned(), addresses: it.addresses.clone() };
        self.nodes.get(node).map(interface).into_iter().collect()
    }

    /// Makes up the objects of nodes with host endpoints: a machine has interfaces whether or not anybody declares it.
    fn implied_nodes(&self) -> Vec<Object> {
        let host = |object: &Arc<Object>| match &**object {
            Object::Endpoint(it) if it.id.kind == EndpointKind::Host => it.node.clone(),
            _ => None,
        };
        let declared: BTreeSet<_> = self.objects.keys().filter(|id| id.is_core("Node")).collect();
        let is_declared = |name: &String| declared.iter().any(|id| id.name == *name);
        let names: BTreeSet<_> = self.objects.values().flatten().filter_map(host).collect();
        let implied = names.into_iter().filter(|name| !is_declared(name)).filter_map(|name| {
            let addresses = self.nodes.get(&name)?.addresses.clone();
            let interfaces = self.interfaces_of(&name);
            let labels = netpol_core::Labels::default();
            Some(Object::Node(model::Node { name, labels, addresses, interfaces }))
        });
        implied.collect()
    }

    fn apply_node(&mut self, name: &str, value: &mut Value) -> Result<(), Problem> {
        let listed = node_addresses(value)?;
        let addresses = match self.nodes.get(name) {
            Some(before) if before.listed == listed => before.addresses.clone(),
            _ => self.addresses.completed(name, listed.clone())?,
        };
        if listed.is_empty() {
            list_addresses(value, &addresses);
        }
        self.nodes.insert(name.to_owned(), Node { addresses, listed });
        Ok(())
    }

    /// A virtual machine takes part in the network as a pod does.
    fn apply_pod(
        &mut self,
        id: &ObjectId,
        view: PodView,
        value: &mut Value,
    ) -> Result<(), Problem> {
        require_namespaced(id)?;
        let is_other = |it: &&ObjectId| {
            is_workload(it) && *it != id && (&it.namespace, &it.name) == (&id.namespace, &id.name)
        };
        if let Some(other) = self.objects.keys().find(is_other) {
            let (first, second) = (Box::new(other.clone()), Box::new(id.clone()));
            return Err(Problem::SharedName { first, second });
        }
        let pod = self.next_pod(id, view)?;
        pod.complete(id, value);
        self.pods.insert(pod.id(), pod);
        Ok(())
    }

    /// Returns the pod that `id` is from now on: the one that runs, or a new one.
    fn next_pod(&mut self, id: &ObjectId, view: PodView) -> Result<Pod, Problem> {
        let (namespace, name) = (id.namespace.clone().unwrap_or_default(), id.name.clone());
        let before = self.pods.get(&format!("{namespace}/{name}"));
        let survivor = before.filter(|pod| pod.becomes(&view));
        let node = view.node.clone().or_else(|| Some(survivor?.node.clone()));
        let network = match (view.phase, view.host_network) {
            (Phase::Pending | Phase::Succeeded | Phase::Failed, _) => PodNetwork::None,
            (Phase::Running | Phase::Unknown, true) => PodNetwork::Host,
            (Phase::Running | Phase::Unknown, false) if !view.addresses.is_empty() => {
                PodNetwork::Own(view.addresses.clone())
            }
            (Phase::Running | Phase::Unknown, false) => match survivor.map(|pod| &pod.network) {
                Some(own @ PodNetwork::Own(_)) => own.clone(),
                _ => PodNetwork::Own(self.addresses.of_new_pod(format!("{namespace}/{name}"))?),
            },
        };
        let incarnation = match survivor {
            Some(pod) => pod.incarnation,
            None => {
                self.incarnations += 1;
                self.incarnations
            }
        };
        let ports = view.ports.iter().map(|it| (it.transport, it.port)).collect();
        let node = node.unwrap_or_else(|| self.default_node.clone());
        Ok(Pod { namespace, name, node, network, ports, incarnation, view })
    }

    /// A node without its object stays: it is a machine.
    fn remove(&mut self, id: &ObjectId) {
        let whole_namespace = id.is_core("Namespace").then_some(id.name.as_str());
        self.objects.retain(|it, _| {
            it != id && (whole_namespace.is_none() || it.namespace.as_deref() != whole_namespace)
        });
        self.pods.retain(|_, pod| {
            let deleted = is_workload(id)
                && id.name == pod.name
                && id.namespace.as_deref() == Some(pod.namespace.as_str());
            !deleted && whole_namespace != Some(pod.namespace.as_str())
        });
        let objects = &self.objects;
        self.services.retain(|id| objects.contains_key(id));
    }
}

impl Node {
    /// Returns the first address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|it| Family::of(*it) == family)
    }
}

impl Pod {
    /// Returns `namespace/name`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Returns the addresses that belong to the pod alone.
    #[must_use]
    pub fn own_addresses(&self) -> &[IpAddr] {
        match &self.network {
            PodNetwork::Own(addresses) => addresses,
            PodNetwork::Host | PodNetwork::None => &[],
        }
    }

    /// Returns the ports of its node that lead to it.
    #[must_use]
    pub fn mapped_ports(&self) -> &[PortMapping] {
        &self.view.host_ports
    }

    /// Returns whether this same pod can turn into what `next` describes, without being made anew.
    fn becomes(&self, next: &PodView) -> bool {
        let now = &self.view;
        next.node.as_ref().is_none_or(|node| *node == self.node)
            && (next.addresses.is_empty()
                || next.addresses == now.addresses
                || next.addresses == self.own_addresses())
            && next.host_network == now.host_network
            && next.service_account == now.service_account
            && next.ports == now.ports
            && next.host_ports == now.host_ports
            && (!is_final(now.phase) || is_final(next.phase))
    }
}

fn require_namespaced(id: &ObjectId) -> Result<(), Problem> {
    if id.namespace.is_some() { Ok(()) } else { Err(no_namespace(id)) }
}

fn no_namespace(id: &ObjectId) -> Problem {
    let namespace = id.namespace.clone().unwrap_or_default();
    Problem::NoNamespace { id: Box::new(id.clone()), namespace }
}

/// Returns whether a host of its own stands for the object.
fn is_workload(id: &ObjectId) -> bool {
    id.is_core("Pod") || id.is_machine()
}

const fn is_final(phase: Phase) -> bool {
    matches!(phase, Phase::Succeeded | Phase::Failed)
}

pub(crate) fn is_cluster_wide(id: &ObjectId) -> bool {
    const KINDS: [(&str, &str); 8] = [
        ("policy.networking.k8s.io", "ClusterNetworkPolicy"),
        ("policy.networking.k8s.io", "AdminNetworkPolicy"),
        ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"),
        ("projectcalico.org", "GlobalNetworkPolicy"),
        ("projectcalico.org", "StagedGlobalNetworkPolicy"),
        ("projectcalico.org", "GlobalNetworkSet"),
        ("projectcalico.org", "Tier"),
        ("projectcalico.org", "HostEndpoint"),
    ];
    KINDS.contains(&(&id.group, &id.kind))
}
