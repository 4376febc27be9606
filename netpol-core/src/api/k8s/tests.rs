//! What is refused and what becomes of the rest. Manifests are JSON; what they become is compared as text.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

mod converted;
mod documented;
mod meaning;
mod objects;
mod refused;
mod services;

use serde_json::{Value, json};

use super::super::shown::shown;
use super::NetworkPolicy;
use crate::api::{Accepted, Refused, Strictness};
use crate::model::Policy;

/// Returns a policy `p` in namespace `ns`.
fn manifest(spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": spec,
    })
}

fn convert(manifest: &Value, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
    let policy: NetworkPolicy = serde::Deserialize::deserialize(manifest).unwrap();
    policy.to_policy(strictness)
}
