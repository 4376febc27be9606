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
mod diagnostic;
mod field;
pub mod k8s;
mod names;
mod report;
mod time;

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer};

pub use self::diagnostic::{Accepted, Diagnostic, Refused, Strictness};
use crate::model::Object;

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
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::ServiceAccount,
        Self::KubernetesNetworkPolicy,
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
            Self::Namespace | Self::Node | Self::Pod | Self::ServiceAccount => "v1",
            Self::KubernetesNetworkPolicy => "networking.k8s.io/v1",
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
            Self::KubernetesNetworkPolicy => "NetworkPolicy",
        }
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
    /// A Kubernetes network policy.
    KubernetesNetworkPolicy(k8s::NetworkPolicy),
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
            Kind::KubernetesNetworkPolicy => {
                Self::KubernetesNetworkPolicy(Deserialize::deserialize(deserializer)?)
            }
        })
    }

    /// Returns what the object says about policy; `None` for a host-network pod, which is its node.
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
            Self::KubernetesNetworkPolicy(policy) => {
                policy.to_policy(strictness).map(|it| it.map(|policy| Some(policy.into())))
            }
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
            Self::KubernetesNetworkPolicy(it) => it.name(),
        }
    }

    /// Returns the object's namespace, `None` if it has none or one that is no text.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(_) | Self::Node(_) => None,
            Self::Pod(it) => it.namespace(),
            Self::ServiceAccount(it) => it.namespace(),
            Self::KubernetesNetworkPolicy(it) => it.namespace(),
        }
    }
}
