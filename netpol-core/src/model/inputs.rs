//! Everything that verdicts depend on, by key.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Endpoint, EndpointId, EndpointLabels, Policy, PolicyKey, Tier};
use crate::labels::Labels;
use crate::net::PrefixSet;

/// A node of the cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "policy knows nodes by labels and addresses")]
pub struct Node {
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Labels,
    /// Every address the node reports.
    pub addresses: Vec<IpAddr>,
}

/// A labelled set of addresses that can only be a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "policy knows network sets by labels and addresses")]
pub struct NetworkSet {
    /// The namespace; `None` for sets of the whole cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Labels,
    /// The addresses.
    pub nets: PrefixSet,
}

/// An object of the model, as the engine takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Object {
    /// A namespace and its labels.
    Namespace {
        /// The name.
        name: String,
        /// The labels.
        labels: Labels,
    },
    /// A service account and its labels.
    ServiceAccount {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The labels.
        labels: Labels,
    },
    /// A node.
    Node(Node),
    /// An endpoint.
    Endpoint(Endpoint),
    /// A network set.
    NetworkSet(NetworkSet),
    /// A tier. The built-in ones cannot be changed.
    Tier(Tier),
    /// A policy.
    Policy(Policy),
}

/// Identifies an object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum ObjectKey {
    /// A namespace, by name.
    Namespace(String),
    /// A service account, by namespace and name.
    ServiceAccount(String, String),
    /// A node, by name.
    Node(String),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A network set, by namespace and name.
    NetworkSet(Option<String>, String),
    /// A tier, by name.
    Tier(String),
    /// A policy.
    Policy(PolicyKey),
}

impl Object {
    /// Returns what identifies the object.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Namespace { name, .. } => ObjectKey::Namespace(name.clone()),
            Self::ServiceAccount { namespace, name, .. } => {
                ObjectKey::ServiceAccount(namespace.clone(), name.clone())
            }
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
            Self::Endpoint(endpoint) => ObjectKey::Endpoint(endpoint.id.clone()),
            Self::NetworkSet(set) => ObjectKey::NetworkSet(set.namespace.clone(), set.name.clone()),
            Self::Tier(tier) => ObjectKey::Tier(tier.name.clone()),
            Self::Policy(policy) => ObjectKey::Policy(policy.key.clone()),
        }
    }
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl From<Endpoint> for Object {
    fn from(endpoint: Endpoint) -> Self {
        Self::Endpoint(endpoint)
    }
}

impl From<NetworkSet> for Object {
    fn from(set: NetworkSet) -> Self {
        Self::NetworkSet(set)
    }
}

impl From<Tier> for Object {
    fn from(tier: Tier) -> Self {
        Self::Tier(tier)
    }
}

impl From<Policy> for Object {
    fn from(policy: Policy) -> Self {
        Self::Policy(policy)
    }
}

/// Everything that verdicts depend on, and nothing derived from it.
///
/// Invariant: equal inputs are equal values, however they came about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inputs {
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) service_accounts: BTreeMap<(String, String), Labels>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) endpoints: BTreeMap<EndpointId, Endpoint>,
    pub(crate) network_sets: BTreeMap<(Option<String>, String), NetworkSet>,
    pub(crate) tiers: BTreeMap<String, Tier>,
    pub(crate) policies: BTreeMap<PolicyKey, Policy>,
}

impl Inputs {
    /// Adds an object or replaces the one with its key. A built-in tier stays what it is.
    pub fn upsert(&mut self, object: impl Into<Object>) {
        match object.into() {
            Object::Namespace { name, labels } => {
                self.namespaces.insert(name, labels);
            }
            Object::ServiceAccount { namespace, name, labels } => {
                self.service_accounts.insert((namespace, name), labels);
            }
            Object::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Object::Endpoint(endpoint) => {
                self.endpoints.insert(endpoint.id.clone(), endpoint);
            }
            Object::NetworkSet(set) => {
                self.network_sets.insert((set.namespace.clone(), set.name.clone()), set);
            }
            Object::Tier(tier) if Tier::is_built_in(&tier.name) => {}
            Object::Tier(tier) => {
                self.tiers.insert(tier.name.clone(), tier);
            }
            Object::Policy(policy) => {
                self.policies.insert(policy.key.clone(), policy);
            }
        }
    }

    /// Removes the object with this key; a namespace takes along all that is in it. Returns whether it was there.
    pub fn remove(&mut self, key: &ObjectKey) -> bool {
        match key {
            ObjectKey::Namespace(name) => {
                self.empty_namespace(name);
                self.namespaces.remove(name).is_some()
            }
            ObjectKey::ServiceAccount(namespace, name) => {
                self.service_accounts.remove(&(namespace.clone(), name.clone())).is_some()
            }
            ObjectKey::Node(name) => self.nodes.remove(name).is_some(),
            ObjectKey::Endpoint(id) => self.endpoints.remove(id).is_some(),
            ObjectKey::NetworkSet(namespace, name) => {
                self.network_sets.remove(&(namespace.clone(), name.clone())).is_some()
            }
            ObjectKey::Tier(name) => self.tiers.remove(name).is_some(),
            ObjectKey::Policy(key) => self.policies.remove(key).is_some(),
        }
    }

    /// Returns the endpoints, finished ones included, in the order of their ids.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// Returns the policies in the order of their keys.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// Returns what selectors see of an endpoint.
    #[must_use]
    pub fn labels_of<'a>(&'a self, endpoint: &'a Endpoint) -> EndpointLabels<'a> {
        let namespace = endpoint.id.namespace.as_ref();
        let account = namespace.zip(endpoint.service_account.as_ref());
        EndpointLabels::of_endpoint(
            endpoint,
            namespace.and_then(|name| self.namespaces.get(name)),
            account.and_then(|(namespace, name)| {
                self.service_accounts.get(&(namespace.clone(), name.clone()))
            }),
        )
    }

    /// Returns what selectors see of a network set.
    #[must_use]
    pub fn labels_of_set<'a>(&'a self, set: &'a NetworkSet) -> EndpointLabels<'a> {
        EndpointLabels::of_network_set(
            set,
            set.namespace.as_ref().and_then(|name| self.namespaces.get(name)),
        )
    }

    fn empty_namespace(&mut self, name: &str) {
        let inside = |namespace: &Option<String>| namespace.as_deref() == Some(name);
        self.endpoints.retain(|id, _| !inside(&id.namespace));
        self.policies.retain(|key, _| !inside(&key.namespace));
        self.network_sets.retain(|(namespace, _), _| !inside(namespace));
        self.service_accounts.retain(|(namespace, _), _| namespace != name);
    }
}
