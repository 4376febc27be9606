//! What is refused and what becomes of the rest. Manifests are JSON; what they become is compared as text.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

mod converted;
mod documented;
mod meaning;
mod refused;

use serde_json::{Value, json};

use super::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::api::{Accepted, Refused, Strictness};
use crate::model::Policy;

/// Returns an AdminNetworkPolicy `p` for all pods, with these rules.
fn admin(ingress: &Value, egress: &Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"priority": 7, "subject": {"namespaces": {}}, "ingress": ingress, "egress": egress},
    })
}

/// Returns the baseline policy for all pods, with these rules.
fn baseline(ingress: &Value, egress: &Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"},
        "spec": {"subject": {"namespaces": {}}, "ingress": ingress, "egress": egress},
    })
}

/// Converts a policy of the kind that it says it is.
fn convert(manifest: &Value, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
    if manifest["kind"] == "BaselineAdminNetworkPolicy" {
        let policy: BaselineAdminNetworkPolicy = serde::Deserialize::deserialize(manifest).unwrap();
        policy.to_policy(strictness)
    } else {
        let policy: AdminNetworkPolicy = serde::Deserialize::deserialize(manifest).unwrap();
        policy.to_policy(strictness)
    }
}
