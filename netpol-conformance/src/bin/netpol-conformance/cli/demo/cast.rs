//! Who takes part in a chapter, and what policy can know of them.

use std::fmt::Write;

use netpol_conformance::cluster::{Cluster, Pod};
use netpol_core::Labels;
use netpol_core::model::{Endpoint, NamedPort, Object};

/// Returns the pods of a cluster with their addresses, labels and ports, and the namespaces if there are several.
pub(super) fn cast(cluster: &Cluster) -> String {
    let objects = cluster.model();
    let namespaces = objects.values().filter_map(|object| match object {
        Object::Namespace { name, labels } => Some((name, labels)),
        _ => None,
    });
    let namespaces: Vec<_> = namespaces.collect();
    let mut text = String::new();
    // Writing to a string cannot fail.
    if namespaces.len() > 1 {
        for (name, its) in namespaces {
            let _ = writeln!(text, "   namespace {name}: {}", labels(its));
        }
    }
    for object in objects.values() {
        if let Object::Endpoint(endpoint) = object
            && let Some(pod) = cluster.pods().get(&endpoint.id.to_string())
        {
            let _ = writeln!(text, "   {}", described(endpoint, pod));
        }
    }
    text
}

fn described(endpoint: &Endpoint, pod: &Pod) -> String {
    let addresses: Vec<_> = pod.own_addresses().iter().map(ToString::to_string).collect();
    let mut text =
        format!("pod {} at {}: {}", pod.id(), addresses.join(", "), labels(&endpoint.labels));
    for (index, (transport, port)) in pod.ports.iter().enumerate() {
        let separator = if index == 0 { "; listens on" } else { "," };
        let _ = write!(text, "{separator} {transport} {port}");
        let is_it = |it: &&NamedPort| (&it.transport, &it.port) == (transport, port);
        if let Some(named) = endpoint.ports.iter().find(is_it) {
            let _ = write!(text, " ({})", named.name);
        }
    }
    text
}

/// Returns labels in one line, without the one that every namespace has.
fn labels(labels: &Labels) -> String {
    let own = labels.iter().filter(|(key, _)| *key != "kubernetes.io/metadata.name");
    let own: Vec<_> = own.map(|(key, value)| format!("{key}={value}")).collect();
    if own.is_empty() { "no labels".to_owned() } else { own.join(", ") }
}
