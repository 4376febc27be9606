//! Wire types of the policy APIs, and their conversion to the model.
//!
//! The types implement [`Deserialize`] and read any self-describing format. They take whatever has the outline of their
//! object; the conversion then refuses what the API server would, and says *everything* that is wrong, each
//! [`Diagnostic`] with its place. How deeply a document may nest is for the format's reader to bound.
//!
//! [`Document`] is for callers who learn the kind of an object from the object itself:
//!
//! ```
//! use netpol_core::api::{Document, Kind, Strictness};
//!
//! let json = serde_json::json!({
//!     "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
//!     "metadata": {"name": "web", "namespace": "shop"},
//!     "spec": {
//!         "podSelector": {"matchLabels": {"app": "web"}},
//!         "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}], "ports": [{"port": 0}]}],
//!     },
//! });
//! let kind = Kind::recognise("networking.k8s.io/v1", "NetworkPolicy").ok_or("another kind")?;
//! let document = Document::read(kind, &json)?;
//! let refused = document.to_object(Strictness::Strict).unwrap_err();
//! assert_eq!(refused.to_string(), "\
//! spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0/33` is not a CIDR block, expected an address and a prefix length \
//! such as `10.0.0.0/8`
//! spec.ingress[0].ports[0].port: `0` is not a port, expected 1 to 65535");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod address;
pub mod anp;
pub mod calico;
mod cluster_policy;
pub mod cnp;
mod diagnostic;
mod field;
pub mod k8s;
mod label_selector;
mod labels;
mod manifest;
mod names;
mod number;
#[cfg(test)]
mod oracle;
mod pods;
mod ports;
mod report;
mod rules;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod shown;
mod time;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer};

pub use self::diagnostic::{Accepted, Diagnostic, Refused, Strictness};
use crate::model::{EndpointId, Object, ObjectKey, PolicyKey, PolicyKind, ServiceName};

/// Most entries of one list or map of an object that is converted.
///
/// The APIs have no such limit. An API server's objects stay below it, as etcd takes requests of 1.5 MiB and a peer
/// or port takes some 30 bytes (`--max-request-bytes` of etcd).
pub const MAX_ITEMS: usize = 50_000;

/// A kind of object that the core knows.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy,
    /// `projectcalico.org/v3` Tier.
    Tier,
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// `projectcalico.org/v3` StagedNetworkPolicy.
    StagedNetworkPolicy,
    /// `projectcalico.org/v3` StagedGlobalNetworkPolicy.
    StagedGlobalNetworkPolicy,
    /// `projectcalico.org/v3` StagedKubernetesNetworkPolicy.
    StagedKubernetesNetworkPolicy,
    /// `projectcalico.org/v3` NetworkSet.
    NetworkSet,
    /// `projectcalico.org/v3` GlobalNetworkSet.
    GlobalNetworkSet,
    /// `projectcalico.org/v3` HostEndpoint.
    HostEndpoint,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::ServiceAccount,
        Self::Service,
        Self::EndpointSlice,
        Self::KubernetesNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::Tier,
        Self::NetworkPolicy,
        Self::GlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::NetworkSet,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
    ];

    /// Returns the kind of an object with these fields, `None` if the core does not know it.
    #[must_use]
    pub fn recognise(api_version: &str, kind: &str) -> Option<Self> {
        let is_meant = |it: &Self| it.api_version() == api_version && it.as_str() == kind;
        Self::ALL.iter().copied().find(is_meant)
    }

    /// Returns what an object of this kind has in `apiVersion`.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::ServiceAccount | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::KubernetesNetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                "policy.networking.k8s.io/v1alpha1"
            }
            Self::Tier
            | Self::NetworkPolicy
            | Self::GlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy
            | Self::NetworkSet
            | Self::GlobalNetworkSet
            | Self::HostEndpoint => "projectcalico.org/v3",
        }
    }

    /// Returns what an object of this kind has in `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::KubernetesNetworkPolicy | Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::Tier => "Tier",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::NetworkSet => "NetworkSet",
            Self::GlobalNetworkSet => "GlobalNetworkSet",
            Self::HostEndpoint => "HostEndpoint",
        }
    }

    /// Returns whether objects of this kind are in a namespace.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        match self {
            Self::Namespace
            | Self::Node
            | Self::ClusterNetworkPolicy
            | Self::AdminNetworkPolicy
            | Self::BaselineAdminNetworkPolicy
            | Self::Tier
            | Self::GlobalNetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::GlobalNetworkSet
            | Self::HostEndpoint => false,
            Self::Pod
            | Self::ServiceAccount
            | Self::Service
            | Self::EndpointSlice
            | Self::KubernetesNetworkPolicy
            | Self::NetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy
            | Self::NetworkSet => true,
        }
    }

    /// Returns the key of what an object of this kind and name becomes, for those who learn of its end. It is `None` if
    /// the namespace is missing or too much, and for a pod, which is told apart from others of its name by its UID.
    ///
    /// ```
    /// use netpol_core::api::Kind;
    ///
    /// let key = Kind::NetworkPolicy.object_key(Some("shop"), "db").ok_or("no key")?;
    /// assert!(!netpol_core::model::Inputs::default().remove(&key));
    /// assert_eq!(Kind::Tier.object_key(Some("shop"), "db"), None);
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn object_key(self, namespace: Option<&str>, name: &str) -> Option<ObjectKey> {
        if self.is_namespaced() != namespace.is_some() {
            return None;
        }
        let (namespace, name) = (namespace.map(String::from), String::from(name));
        if let Some(kind) = self.policy_kind() {
            return Some(ObjectKey::Policy(PolicyKey { kind, namespace, name }));
        }
        Some(match self {
            Self::Namespace => ObjectKey::Namespace(name),
            Self::Node => ObjectKey::Node(name),
            Self::ServiceAccount => ObjectKey::ServiceAccount(namespace?, name),
            Self::Service => ObjectKey::Service(ServiceName { namespace: namespace?, name }),
            Self::EndpointSlice => ObjectKey::EndpointSlice(namespace?, name),
            Self::Tier => ObjectKey::Tier(name),
            Self::NetworkSet | Self::GlobalNetworkSet => ObjectKey::NetworkSet(namespace, name),
            Self::HostEndpoint => ObjectKey::Endpoint(EndpointId::host(name)),
            _ => return None,
        })
    }

    /// Returns what a policy of this kind becomes; `None` for what is no policy.
    const fn policy_kind(self) -> Option<PolicyKind> {
        Some(match self {
            Self::KubernetesNetworkPolicy => PolicyKind::KubernetesNetworkPolicy,
            Self::ClusterNetworkPolicy => PolicyKind::KubernetesClusterNetworkPolicy,
            Self::AdminNetworkPolicy => PolicyKind::KubernetesAdminNetworkPolicy,
            Self::BaselineAdminNetworkPolicy => PolicyKind::KubernetesBaselineAdminNetworkPolicy,
            Self::NetworkPolicy => PolicyKind::NetworkPolicy,
            Self::GlobalNetworkPolicy => PolicyKind::GlobalNetworkPolicy,
            Self::StagedNetworkPolicy => PolicyKind::StagedNetworkPolicy,
            Self::StagedGlobalNetworkPolicy => PolicyKind::StagedGlobalNetworkPolicy,
            Self::StagedKubernetesNetworkPolicy => PolicyKind::StagedKubernetesNetworkPolicy,
            Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::ServiceAccount
            | Self::Service
            | Self::EndpointSlice
            | Self::Tier
            | Self::NetworkSet
            | Self::GlobalNetworkSet
            | Self::HostEndpoint => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.as_str())
    }
}

/// An object of any kind that the core knows, as it was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Document {
    /// A namespace.
    Namespace(k8s::Namespace),
    /// A node.
    Node(k8s::Node),
    /// A pod.
    Pod(k8s::Pod),
    /// A service account.
    ServiceAccount(k8s::ServiceAccount),
    /// A Service.
    Service(k8s::Service),
    /// Some of the endpoints of a Service.
    EndpointSlice(k8s::EndpointSlice),
    /// A Kubernetes network policy.
    KubernetesNetworkPolicy(k8s::NetworkPolicy),
    /// A Kubernetes policy of the whole cluster.
    ClusterNetworkPolicy(cnp::ClusterNetworkPolicy),
    /// An administrator's Kubernetes policy.
    AdminNetworkPolicy(anp::AdminNetworkPolicy),
    /// The Kubernetes policy that holds where no other does.
    BaselineAdminNetworkPolicy(anp::BaselineAdminNetworkPolicy),
    /// A tier.
    Tier(calico::Tier),
    /// A Calico network policy.
    NetworkPolicy(calico::NetworkPolicy),
    /// A Calico policy of the whole cluster.
    GlobalNetworkPolicy(calico::GlobalNetworkPolicy),
    /// A Calico network policy that is not enforced yet.
    StagedNetworkPolicy(calico::StagedNetworkPolicy),
    /// A Calico policy of the whole cluster that is not enforced yet.
    StagedGlobalNetworkPolicy(calico::StagedGlobalNetworkPolicy),
    /// A Kubernetes network policy that is not enforced yet.
    StagedKubernetesNetworkPolicy(calico::StagedKubernetesNetworkPolicy),
    /// A network set of a namespace.
    NetworkSet(calico::NetworkSet),
    /// A network set of the whole cluster.
    GlobalNetworkSet(calico::GlobalNetworkSet),
    /// A host endpoint.
    HostEndpoint(calico::HostEndpoint),
}

impl Document {
    /// Reads an object of a kind.
    ///
    /// # Errors
    ///
    /// The reader's, if there is no object or no well-formed document. What is in the object is looked at by
    /// [`to_object`](Self::to_object).
    pub fn read<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::Namespace => Self::Namespace(Deserialize::deserialize(deserializer)?),
            Kind::Node => Self::Node(Deserialize::deserialize(deserializer)?),
            Kind::Pod => Self::Pod(Deserialize::deserialize(deserializer)?),
            Kind::ServiceAccount => Self::ServiceAccount(Deserialize::deserialize(deserializer)?),
            Kind::Service => Self::Service(Deserialize::deserialize(deserializer)?),
            Kind::EndpointSlice => Self::EndpointSlice(Deserialize::deserialize(deserializer)?),
            Kind::KubernetesNetworkPolicy => {
                Self::KubernetesNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::ClusterNetworkPolicy => {
                Self::ClusterNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::AdminNetworkPolicy => {
                Self::AdminNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::BaselineAdminNetworkPolicy => {
                Self::BaselineAdminNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::Tier => Self::Tier(Deserialize::deserialize(deserializer)?),
            Kind::NetworkPolicy => Self::NetworkPolicy(Deserialize::deserialize(deserializer)?),
            Kind::GlobalNetworkPolicy => {
                Self::GlobalNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::StagedNetworkPolicy => {
                Self::StagedNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::StagedGlobalNetworkPolicy => {
                Self::StagedGlobalNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::StagedKubernetesNetworkPolicy => {
                Self::StagedKubernetesNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
            Kind::NetworkSet => Self::NetworkSet(Deserialize::deserialize(deserializer)?),
            Kind::GlobalNetworkSet => {
                Self::GlobalNetworkSet(Deserialize::deserialize(deserializer)?)
            }
            Kind::HostEndpoint => Self::HostEndpoint(Deserialize::deserialize(deserializer)?),
        })
    }

    /// Returns what the object says about policy; `None` for what says nothing: a host-network pod, which is its node, a
    /// built-in tier as it always is, a staged policy that is to be ignored, a Service without addresses, a slice for none.
    /// An earlier version of it is to be removed.
    ///
    /// # Errors
    ///
    /// [`Refused`] with everything that is wrong with the object.
    pub fn to_object(&self, strictness: Strictness) -> Result<Accepted<Option<Object>>, Refused> {
        let accepted = |object| Accepted { value: object, diagnostics: Vec::new() };
        match self {
            Self::Namespace(namespace) => namespace.to_object().map(|it| accepted(Some(it))),
            Self::Node(node) => node.to_node().map(|it| accepted(Some(it.into()))),
            Self::Pod(pod) => pod.to_endpoint().map(|it| accepted(it.map(Object::from))),
            Self::ServiceAccount(account) => account.to_object().map(|it| accepted(Some(it))),
            Self::Service(service) => service.to_service().map(|it| accepted(it.map(Object::from))),
            Self::EndpointSlice(slice) => slice.to_slice().map(|it| accepted(it.map(Object::from))),
            Self::KubernetesNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
            Self::ClusterNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
            Self::AdminNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
            Self::BaselineAdminNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
            Self::Tier(tier) => tier.to_tier().map(|it| accepted(it.map(Object::from))),
            Self::NetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
            Self::GlobalNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
            Self::StagedNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| policy.map(Object::from)))
            }
            Self::StagedGlobalNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| policy.map(Object::from)))
            }
            Self::StagedKubernetesNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| policy.map(Object::from)))
            }
            Self::NetworkSet(set) => set.to_set().map(|it| accepted(Some(it.into()))),
            Self::GlobalNetworkSet(set) => set.to_set().map(|it| accepted(Some(it.into()))),
            Self::HostEndpoint(host) => host.to_endpoint().map(|it| accepted(Some(it.into()))),
        }
    }

    /// Returns the object's name, `None` if it has none or one that is no text.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Namespace(it) => it.name(),
            Self::Node(it) => it.name(),
            Self::Pod(it) => it.name(),
            Self::ServiceAccount(it) => it.name(),
            Self::Service(it) => it.name(),
            Self::EndpointSlice(it) => it.name(),
            Self::KubernetesNetworkPolicy(it) => it.name(),
            Self::ClusterNetworkPolicy(it) => it.name(),
            Self::AdminNetworkPolicy(it) => it.name(),
            Self::BaselineAdminNetworkPolicy(it) => it.name(),
            Self::Tier(it) => it.name(),
            Self::NetworkPolicy(it) => it.name(),
            Self::GlobalNetworkPolicy(it) => it.name(),
            Self::StagedNetworkPolicy(it) => it.name(),
            Self::StagedGlobalNetworkPolicy(it) => it.name(),
            Self::StagedKubernetesNetworkPolicy(it) => it.name(),
            Self::NetworkSet(it) => it.name(),
            Self::GlobalNetworkSet(it) => it.name(),
            Self::HostEndpoint(it) => it.name(),
        }
    }

    /// Returns the object's namespace, `None` if it has none or one that is no text.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(_)
            | Self::Node(_)
            | Self::ClusterNetworkPolicy(_)
            | Self::AdminNetworkPolicy(_)
            | Self::BaselineAdminNetworkPolicy(_)
            | Self::Tier(_)
            | Self::GlobalNetworkPolicy(_)
            | Self::StagedGlobalNetworkPolicy(_)
            | Self::GlobalNetworkSet(_)
            | Self::HostEndpoint(_) => None,
            Self::Pod(it) => it.namespace(),
            Self::ServiceAccount(it) => it.namespace(),
            Self::Service(it) => it.namespace(),
            Self::EndpointSlice(it) => it.namespace(),
            Self::KubernetesNetworkPolicy(it) => it.namespace(),
            Self::NetworkPolicy(it) => it.namespace(),
            Self::StagedNetworkPolicy(it) => it.namespace(),
            Self::StagedKubernetesNetworkPolicy(it) => it.namespace(),
            Self::NetworkSet(it) => it.namespace(),
        }
    }
}
