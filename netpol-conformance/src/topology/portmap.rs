//! Ports of nodes that lead to pods, by the CNI plug-in `portmap`.
//!
//! It is driven as a container runtime does. Source: the CNI specification 0.4.0, sections "Parameters" and "Port
//! Mapping" of its conventions.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::command::Command;
use super::layout::PortMapping;
use super::{Namespace, TopologyError};

/// Where it may be: where Debian's `containernetworking-plugins` puts it, and where others do.
const FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

const PLUGIN: &str = "portmap";

/// What is asked of the plug-in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Add,
    Delete,
}

/// Lets ports of a node lead to those of a pod, or no longer.
pub(super) fn run(
    operation: Operation,
    node: &Namespace,
    pod: &Namespace,
    addresses: &[IpAddr],
    mappings: &[PortMapping],
) -> Result<(), TopologyError> {
    let ips = addresses.iter().map(|address| {
        let (version, bits) = if address.is_ipv4() { ("4", 32) } else { ("6", 128) };
        json!({"version": version, "address": format!("{address}/{bits}")})
    });
    let mappings = mappings.iter().map(|mapping| {
        let protocol = mapping.transport.keyword();
        let PortMapping { node_port, pod_port, .. } = mapping;
        json!({"hostPort": node_port, "containerPort": pod_port, "protocol": protocol})
    });
    let configuration = json!({
        "cniVersion": "0.4.0",
        "name": "npc",
        "type": "portmap",
        "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": mappings.collect::<Vec<_>>()},
        "prevResult": {"cniVersion": "0.4.0", "ips": ips.collect::<Vec<_>>()},
    });
    let command = match operation {
        Operation::Add => "ADD",
        Operation::Delete => "DEL",
    };
    let places = FOLDERS.map(|folder| Path::new(folder).join(PLUGIN));
    let found = places.iter().find(|it| it.exists()).map_or(Path::new(PLUGIN), PathBuf::as_path);
    Command::new(found, [], configuration.to_string())
        .with("CNI_COMMAND", command)
        .with("CNI_CONTAINERID", pod.name())
        .with("CNI_NETNS", pod.path())
        .with("CNI_IFNAME", super::UPLINK)
        .with("CNI_PATH", FOLDERS.join(":"))
        .run(node)
}
