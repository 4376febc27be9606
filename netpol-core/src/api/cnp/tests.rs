//! What is refused and what becomes of the rest. Manifests are JSON; what they become is compared as text.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

mod converted;
mod degraded;
mod documented;
mod meaning;
mod oracle;
mod refused;

use serde_json::{Value, json};

use super::ClusterNetworkPolicy;
use crate::api::{Accepted, Refused, Strictness};
use crate::model::Policy;

/// Returns a policy `p`.
fn manifest(spec: &Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": spec,
    })
}

/// Returns a specification with these rules for all pods.
fn spec(ingress: &Value, egress: &Value) -> Value {
    json!({
        "tier": "Admin", "priority": 0, "subject": {"namespaces": {}}, "ingress": ingress, "egress": egress,
    })
}

/// Returns a list of one rule with these peers and protocols, for each direction.
fn rule(direction: &str, action: &str, peers: &Value, protocols: &Value) -> Value {
    let side = if direction == "ingress" { "from" } else { "to" };
    let rules = json!([{"action": action, side: peers, "protocols": protocols}]);
    match direction {
        "ingress" => spec(&rules, &json!([])),
        _ => spec(&json!([]), &rules),
    }
}

fn convert(manifest: &Value, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
    let policy: ClusterNetworkPolicy = serde::Deserialize::deserialize(manifest).unwrap();
    policy.to_policy(strictness)
}
