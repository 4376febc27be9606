//! Kubernetes: `v1` Namespace, Node, Pod, Service and ServiceAccount, `discovery.k8s.io/v1` EndpointSlice,
//! `networking.k8s.io/v1` NetworkPolicy.
//!
//! ```
//! use netpol_core::api::{Strictness, k8s};
//! use netpol_core::Direction;
//!
//! let json = r#"{
//!     "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
//!     "metadata": {"name": "db", "namespace": "shop"},
//!     "spec": {
//!         "podSelector": {"matchLabels": {"app": "db"}},
//!         "ingress": [
//!             {"from": [{"podSelector": {"matchLabels": {"role": "backend"}}}], "ports": [{"port": 3306}]}
//!         ]
//!     }
//! }"#;
//! let policy: k8s::NetworkPolicy = serde_json::from_str(json)?;
//! let policy = policy.to_policy(Strictness::Strict)?.value;
//! assert_eq!(policy.key.to_string(), "KubernetesNetworkPolicy shop/db");
//! assert_eq!(policy.rules(Direction::Ingress).map(<[_]>::len), Some(1));
//! assert_eq!(policy.rules(Direction::Egress), None);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod cluster;
mod peer;
mod pod;
mod policy;
mod port;
mod service;
#[cfg(test)]
mod tests;

pub use self::cluster::{Namespace, Node, ServiceAccount};
pub use self::pod::{ContainerPort, Phase, Pod};
pub use self::policy::NetworkPolicy;
pub(super) use self::policy::Spec as NetworkPolicySpec;
pub use self::service::{EndpointSlice, Service};
