//! What the harness writes into objects: what it has decided, and what an API server would add.

use std::net::IpAddr;

use netpol_core::api::k8s::Phase;
use serde_json::{Value, json};

use super::{Pod, PodNetwork};
use crate::scenario::machine;
use crate::scenario::object::{ObjectId, map_below};

impl Pod {
    /// Writes into a pod's object what the harness has decided.
    pub(super) fn complete(&self, id: &ObjectId, value: &mut Value) {
        let Some(object) = value.as_object_mut() else { return };
        if let Some(metadata) = map_below(object, "metadata") {
            metadata.entry("uid").or_insert_with(|| format!("{:08}", self.incarnation).into());
        }
        if let Some(spec) = map_below(object, "spec") {
            spec.insert("nodeName".to_owned(), self.node.clone().into());
        }
        if id.is_machine() {
            return machine::complete(object, self.own_addresses());
        }
        let Some(status) = map_below(object, "status") else { return };
        match &self.network {
            PodNetwork::Own(addresses) => {
                let listed = addresses.iter().map(|it| json!({"ip": it.to_string()})).collect();
                status.insert("podIPs".to_owned(), Value::Array(listed));
                status.remove("podIP");
            }
            // To the API a pending pod owns what it lists. Here it has no network yet, and another pod may have that.
            PodNetwork::None if self.view.phase == Phase::Pending => {
                status.remove("podIPs");
                status.remove("podIP");
            }
            PodNetwork::Host | PodNetwork::None => {}
        }
    }
}

/// Source: the API server's admission adds this label to every namespace.
pub(super) fn label_namespace(value: &mut Value, name: &str) {
    let labels = value
        .as_object_mut()
        .and_then(|object| map_below(object, "metadata"))
        .and_then(|metadata| map_below(metadata, "labels"));
    if let Some(labels) = labels {
        labels.entry("kubernetes.io/metadata.name").or_insert_with(|| name.into());
    }
}

/// Adds the addresses that were chosen for a node to its object.
pub(super) fn list_addresses(node: &mut Value, addresses: &[IpAddr]) {
    let Some(status) = node.as_object_mut().and_then(|object| map_below(object, "status")) else {
        return;
    };
    let address = |it: &IpAddr| json!({"type": "InternalIP", "address": it.to_string()});
    let chosen = addresses.iter().map(address);
    match status.get_mut("addresses").and_then(Value::as_array_mut) {
        Some(listed) => listed.extend(chosen),
        None => {
            status.insert("addresses".to_owned(), Value::Array(chosen.collect()));
        }
    }
}
