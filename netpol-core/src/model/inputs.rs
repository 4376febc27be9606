//! Everything that verdicts depend on, by key.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use core::net::IpAddr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    DomainAddress, DomainName, Endpoint, EndpointId, EndpointLabels, EndpointSlice, Policy,
    PolicyKey, Service, ServiceName, Tier, Timestamp,
};
use crate::labels::Labels;
use crate::net::{PrefixSet, canonical_address};

/// A node of the cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "policy knows nodes by labels and addresses")]
pub struct Node {
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Labels,
    /// Every address the node reports.
    pub addresses: Vec<IpAddr>,
    /// Its interfaces to the outside, as far as they are known: by them host endpoints are found.
    pub interfaces: Vec<Interface>,
}

/// An interface of a node to the outside.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "policy knows interfaces by name and addresses")]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The addresses it has.
    pub addresses: Vec<IpAddr>,
}

/// A labelled set of addresses that can only be a peer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
    /// An address that a domain name stands for.
    DomainAddress(DomainAddress),
    /// A Service.
    Service(Service),
    /// Some of the backends of a Service.
    EndpointSlice(EndpointSlice),
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
    /// An address that a domain name stands for, by both.
    DomainAddress(DomainName, IpAddr),
    /// A Service.
    Service(ServiceName),
    /// A slice, by namespace and name.
    EndpointSlice(String, String),
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
            Self::DomainAddress(it) => ObjectKey::DomainAddress(it.name.clone(), it.address),
            Self::Service(service) => ObjectKey::Service(service.name.clone()),
            Self::EndpointSlice(slice) => {
                ObjectKey::EndpointSlice(slice.service.namespace.clone(), slice.name.clone())
            }
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

impl From<DomainAddress> for Object {
    fn from(address: DomainAddress) -> Self {
        Self::DomainAddress(address)
    }
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(service)
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice)
    }
}

/// Everything that verdicts depend on, and nothing derived from it.
///
/// Invariants: equal inputs are equal values, however they came about. Addresses are canonical: one that was given as an
/// IPv4-mapped IPv6 address is the IPv4 address. No port has the reserved number 0.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inputs {
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) service_accounts: BTreeMap<(String, String), Labels>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) endpoints: BTreeMap<EndpointId, Endpoint>,
    pub(crate) network_sets: BTreeMap<(Option<String>, String), NetworkSet>,
    pub(crate) tiers: BTreeMap<String, Tier>,
    pub(crate) policies: BTreeMap<PolicyKey, Policy>,
    /// The addresses of each name, and when they expire. No name is without addresses.
    pub(crate) domain_addresses: BTreeMap<DomainName, BTreeMap<IpAddr, Timestamp>>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    /// By namespace and name.
    pub(crate) endpoint_slices: BTreeMap<(String, String), EndpointSlice>,
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
            Object::Node(mut node) => {
                let of_interfaces = node.interfaces.iter_mut().flat_map(|it| &mut it.addresses);
                node.addresses
                    .iter_mut()
                    .chain(of_interfaces)
                    .for_each(|it| *it = canonical_address(*it));
                self.nodes.insert(node.name.clone(), node);
            }
            Object::Endpoint(mut endpoint) => {
                endpoint.addresses.iter_mut().for_each(|it| *it = canonical_address(*it));
                endpoint.ports.retain(|it| it.port != 0);
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
            Object::DomainAddress(DomainAddress { name, address, expires }) => {
                let of_name = self.domain_addresses.entry(name).or_default();
                of_name.insert(canonical_address(address), expires);
            }
            Object::Service(service) => {
                self.services.insert(service.name.clone(), service.canonical());
            }
            Object::EndpointSlice(slice) => {
                let key = (slice.service.namespace.clone(), slice.name.clone());
                self.endpoint_slices.insert(key, slice.canonical());
            }
        }
    }

    /// Removes the object with this key; a namespace takes along all that is in it but its endpoints, which are there
    /// until they themselves are removed. Returns whether it was there.
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
            ObjectKey::DomainAddress(name, address) => self.remove_domain_address(name, *address),
            ObjectKey::Service(name) => self.services.remove(name).is_some(),
            ObjectKey::EndpointSlice(namespace, name) => {
                self.endpoint_slices.remove(&(namespace.clone(), name.clone())).is_some()
            }
        }
    }

    /// Returns all objects: those that others refer to come first.
    pub fn into_objects(self) -> impl Iterator<Item = Object> {
        let domain_addresses: Vec<_> = self.domain_addresses().collect();
        let Self {
            namespaces,
            service_accounts,
            nodes,
            endpoints,
            network_sets,
            tiers,
            policies,
            domain_addresses: _,
            services,
            endpoint_slices,
        } = self;
        let namespaces = namespaces.into_iter();
        let namespaces = namespaces.map(|(name, labels)| Object::Namespace { name, labels });
        let accounts = service_accounts
            .into_iter()
            .map(|((namespace, name), labels)| Object::ServiceAccount { namespace, name, labels });
        namespaces
            .chain(accounts)
            .chain(nodes.into_values().map(Object::Node))
            .chain(network_sets.into_values().map(Object::NetworkSet))
            .chain(tiers.into_values().map(Object::Tier))
            .chain(policies.into_values().map(Object::Policy))
            .chain(domain_addresses.into_iter().map(Object::DomainAddress))
            .chain(services.into_values().map(Object::Service))
            .chain(endpoint_slices.into_values().map(Object::EndpointSlice))
            .chain(endpoints.into_values().map(Object::Endpoint))
    }

    /// Forgets the addresses of domain names that expire at `now` or before. Returns whether there were any.
    ///
    /// There is no clock here: until this is called, an address counts.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let mut expired = false;
        self.domain_addresses.retain(|_, addresses| {
            let before = addresses.len();
            addresses.retain(|_, expires| *expires > now);
            expired |= addresses.len() < before;
            !addresses.is_empty()
        });
        expired
    }

    /// Returns when the first address of a domain name expires, `None` if there is none.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.domain_addresses.values().flat_map(BTreeMap::values).min().copied()
    }

    /// Returns the endpoints, finished ones included, in the order of their ids.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// Returns the policies in the order of their keys.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// Returns the policy with this key.
    #[must_use]
    pub fn policy(&self, key: &PolicyKey) -> Option<&Policy> {
        self.policies.get(key)
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

    /// Returns the addresses that domain names stand for, in the order of names.
    pub fn domain_addresses(&self) -> impl Iterator<Item = DomainAddress> {
        self.domain_addresses.iter().flat_map(|(name, addresses)| {
            addresses.iter().map(|(&address, &expires)| DomainAddress {
                name: name.clone(),
                address,
                expires,
            })
        })
    }

    fn remove_domain_address(&mut self, name: &DomainName, address: IpAddr) -> bool {
        let Some(addresses) = self.domain_addresses.get_mut(name) else {
            return false;
        };
        let removed = addresses.remove(&canonical_address(address)).is_some();
        if addresses.is_empty() {
            self.domain_addresses.remove(name);
        }
        removed
    }

    fn empty_namespace(&mut self, name: &str) {
        let inside = |namespace: &Option<String>| namespace.as_deref() == Some(name);
        self.policies.retain(|key, _| !inside(&key.namespace));
        self.network_sets.retain(|(namespace, _), _| !inside(namespace));
        self.service_accounts.retain(|(namespace, _), _| namespace != name);
        self.services.retain(|service, _| service.namespace != name);
        self.endpoint_slices.retain(|(namespace, _), _| namespace != name);
    }
}

/// As the list of all [objects](Inputs::into_objects).
impl Serialize for Inputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.clone().into_objects())
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut inputs = Self::default();
        Vec::<Object>::deserialize(deserializer)?.into_iter().for_each(|it| inputs.upsert(it));
        Ok(inputs)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::model::NamedPort;
    use crate::net::Transport;
    use crate::selector::Selector;

    fn service(namespace: &str, address: &str) -> Service {
        let addresses = [address.parse().unwrap()].into();
        Service { name: ServiceName::new(namespace, "n"), addresses, ports: [].into() }
    }

    fn slice(namespace: &str, address: &str) -> EndpointSlice {
        let port = |port| NamedPort { name: "web".into(), transport: Transport::Tcp, port };
        EndpointSlice {
            name: "n".into(),
            service: ServiceName::new(namespace, "n"),
            addresses: [address.parse().unwrap()].into(),
            ports: [port(80)].into(),
        }
    }

    /// What is written reads back as the same, numbers and paths included that not every format has room for.
    #[test]
    fn what_is_written_reads_back() {
        use crate::model::{
            Action, HttpMatch, HttpPathMatch, L4Match, Order, PortConstraint, PortMatch, Rule,
            RuleMatch, TierEnd,
        };
        use crate::net::PortRange;

        let mut inputs = Inputs::default();
        for (name, order) in [("a", f64::INFINITY), ("b", -0.1), ("c", 1e300)] {
            let order = Order::new(order).ok();
            inputs.upsert(Object::Tier(Tier::new(name, order, TierEnd::Pass)));
        }
        let mut matches = RuleMatch::default();
        let path = HttpPathMatch::Exact("/a%20b/%25/%ff;x/%3f".parse().unwrap());
        matches.http = Some(HttpMatch { paths: [path].into(), ..HttpMatch::default() });
        let numbers = [(1, 2), (80, 80)].map(|(first, last)| PortRange::new(first, last).unwrap());
        let list = PortMatch { numbers: numbers.into_iter().collect(), ..PortMatch::default() };
        matches.l4 = L4Match::Ports {
            transport: Transport::Tcp,
            source: PortConstraint::default(),
            destination: PortConstraint { any_of: Some(list), none_of: None },
        };
        matches.source.nets = Some(["10.0.0.0/8".parse().unwrap()].into_iter().collect());
        let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), "!has(a)".parse().unwrap());
        policy.ingress = Some(vec![Rule::new(0, Action::Allow, matches)]);
        inputs.upsert(policy);
        inputs.upsert(Endpoint::pod("x", "p").attached_to("veth0"));
        inputs.upsert(service("x", "10.96.0.1"));
        inputs.upsert(slice("x", "10.0.0.1"));
        let written = serde_json::to_string(&inputs).unwrap();
        assert_eq!(serde_json::from_str::<Inputs>(&written).unwrap(), inputs);
        for nonsense in [
            written.replace("10.0.0.0/8", "10.0.0.0/99"),
            written.replace("[1,2]", "[2,1]"),
            written.replace("[1,2]", "[0,1]"),
            written.replace("!has(a)", "!has("),
            written.replace("/a%20b", "a%20b"),
            written.replace("\"inf\"", "\"nan\""),
        ] {
            assert_ne!(nonsense, written);
            assert!(serde_json::from_str::<Inputs>(&nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn what_goes_in_is_canonical() {
        let [mapped, plain] = ["::ffff:10.0.0.1", "10.0.0.1"].map(|it| it.parse().unwrap());
        let port = |port| NamedPort { name: "web".into(), transport: Transport::Tcp, port };
        let mut pod = Endpoint::pod("x", "p");
        (pod.addresses, pod.ports) = (vec![mapped], vec![port(0), port(80)]);
        let node = Node { name: "n".into(), addresses: vec![mapped], ..Node::default() };
        let mut inputs = Inputs::default();
        inputs.upsert(pod.clone());
        inputs.upsert(node.clone());
        inputs.upsert(service("x", "::ffff:10.0.0.1"));
        inputs.upsert(slice("x", "::ffff:10.0.0.1"));
        (pod.addresses, pod.ports) = (vec![plain], vec![port(80)]);
        let mut want = Inputs::default();
        want.endpoints.insert(pod.id.clone(), pod);
        want.nodes.insert(node.name.clone(), Node { addresses: vec![plain], ..node });
        let (service, slice) = (service("x", "10.0.0.1"), slice("x", "10.0.0.1"));
        want.services.insert(service.name.clone(), service);
        want.endpoint_slices.insert(("x".into(), "n".into()), slice);
        assert_eq!(inputs, want);
    }

    #[test]
    fn a_namespace_takes_along_what_is_in_it_but_its_endpoints() {
        let objects = |namespace: &str| {
            let name = String::from("n");
            let labels = Labels::new();
            let set = NetworkSet {
                namespace: Some(namespace.into()),
                name: name.clone(),
                labels: labels.clone(),
                nets: PrefixSet::default(),
            };
            [
                Object::Namespace { name: namespace.into(), labels: labels.clone() },
                Object::ServiceAccount { namespace: namespace.into(), name, labels },
                set.into(),
                service(namespace, "10.96.0.1").into(),
                slice(namespace, "10.0.0.1").into(),
                Endpoint::pod(namespace, "n").into(),
                Policy::new(PolicyKey::kubernetes(namespace, "n"), Selector::all()).into(),
            ]
        };
        let mut want = Inputs::default();
        objects("y").into_iter().for_each(|it| want.upsert(it));
        let mut inputs = want.clone();
        objects("x").into_iter().for_each(|it| inputs.upsert(it));
        want.upsert(Endpoint::pod("x", "n"));
        assert!(inputs.remove(&ObjectKey::Namespace("x".into())));
        assert_eq!(inputs, want);
        assert!(!inputs.remove(&ObjectKey::Namespace("x".into())));
    }
}
