//! Calico: `projectcalico.org/v3`.
//!
//! ```
//! use netpol_core::api::{Strictness, calico};
//!
//! let json = r#"{
//!     "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
//!     "metadata": {"name": "allow-tcp-6379", "namespace": "production"},
//!     "spec": {
//!         "selector": "color == 'red'",
//!         "ingress": [
//!             {"action": "Allow", "protocol": "TCP", "source": {"selector": "color == 'blue'"}, "destination": {"ports": [6379]}}
//!         ]
//!     }
//! }"#;
//! let policy: calico::NetworkPolicy = serde_json::from_str(json)?;
//! let policy = policy.to_policy(Strictness::Strict)?.value;
//! assert_eq!(
//!     policy.subject.to_string(),
//!     r#"(color == "red" && projectcalico.org/namespace == "production")"#,
//! );
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! What a policy means is what Calico's nftables dataplane makes of it, except that
//!
//! - `global()` is refused wherever it has no meaning, and taken for what it is inside of a value;
//! - a rule about HTTP is about TCP, whatever protocol it leaves open;
//! - profiles are not there: the default verdict of an endpoint stands for them;
//! - rules that match Services, and host endpoints, are refused.

mod entity;
mod host;
mod http;
mod l4;
mod names;
mod net;
mod policy;
mod port;
mod protocol;
mod rule;
mod selector;
mod set;
mod staged;
#[cfg(test)]
mod tests;
mod tier;

pub use self::host::HostEndpoint;
pub use self::policy::{GlobalNetworkPolicy, NetworkPolicy};
pub use self::set::{GlobalNetworkSet, NetworkSet};
pub use self::staged::{
    StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy, StagedNetworkPolicy,
};
pub use self::tier::Tier;
