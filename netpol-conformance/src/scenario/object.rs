//! Objects in scenarios, as far as the harness itself must understand them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use netpol_core::api::k8s::{ContainerPort, Node, Phase, Pod};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::Problem;
use crate::topology::{PortMapping, Transport};

/// The service account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";

/// Identifies an object of a cluster.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct ObjectId {
    /// The API group; empty for the core group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace, if it is in one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectId {
    /// Returns the identity of an object.
    pub(crate) fn of(value: &Value) -> Result<Self, Problem> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let missing = |field| Problem::Missing { field };
        let version = text(value.get("apiVersion")).ok_or(missing("apiVersion"))?;
        let metadata = value.get("metadata").ok_or(missing("metadata"))?;
        Ok(Self {
            group: group_of(&version).to_owned(),
            kind: text(value.get("kind")).ok_or(missing("kind"))?,
            namespace: text(metadata.get("namespace")).filter(|it| !it.is_empty()),
            name: text(metadata.get("name")).ok_or(missing("metadata.name"))?,
        })
    }

    pub(crate) fn is_core(&self, kind: &str) -> bool {
        self.group.is_empty() && self.kind == kind
    }

    pub(crate) fn is_slice(&self) -> bool {
        self.group == "discovery.k8s.io" && self.kind == "EndpointSlice"
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Returns the group of an `apiVersion`.
pub(crate) fn group_of(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// What a pod says of itself that the harness must know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PodView {
    pub(crate) node: Option<String>,
    pub(crate) host_network: bool,
    /// The one that pods use that name none, too.
    pub(crate) service_account: String,
    pub(crate) phase: Phase,
    /// Empty if the harness is to choose.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ContainerPort>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether Services may send it new connections.
    pub(crate) ready: bool,
    pub(crate) host_ports: Vec<PortMapping>,
}

impl PodView {
    /// Reads a pod; what its API refuses is left out here, and refused when the object is converted.
    pub(crate) fn read(value: &Value) -> Result<Self, Problem> {
        let pod: Pod = decode(value)?;
        let named =
            |field| value.pointer(field).and_then(Value::as_str).filter(|it| !it.is_empty());
        // The second is what the field was called before.
        let account = named("/spec/serviceAccountName").or_else(|| named("/spec/serviceAccount"));
        Ok(Self {
            node: pod.node_name().map(str::to_owned),
            host_network: pod.is_on_host_network(),
            service_account: account.unwrap_or(DEFAULT_ACCOUNT).to_owned(),
            phase: pod.phase(),
            addresses: pod.addresses(),
            ports: pod.container_ports(),
            labels: labels_of(value),
            ready: is_ready(value),
            host_ports: host_ports(value),
        })
    }
}

fn labels_of(value: &Value) -> BTreeMap<String, String> {
    let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}

/// A pod that does not say is ready.
fn is_ready(value: &Value) -> bool {
    let is = |condition: &Value, field, wanted: &str| {
        condition.get(field).and_then(Value::as_str) == Some(wanted)
    };
    let mut conditions = items(value, "/status/conditions");
    !conditions.any(|it| is(it, "type", "Ready") && is(it, "status", "False"))
}

fn host_ports(value: &Value) -> Vec<PortMapping> {
    let ports = items(value, "/spec/containers").flat_map(|it| items(it, "/ports"));
    let mapping = |port: &Value| {
        let number = |field| port.get(field)?.as_u64()?.try_into().ok().filter(|it| *it != 0);
        let transport = match port.get("protocol").and_then(Value::as_str) {
            Some("UDP") => Transport::Udp,
            Some("SCTP") => Transport::Sctp,
            _ => Transport::Tcp,
        };
        let (node_port, pod_port) = (number("hostPort")?, number("containerPort")?);
        Some(PortMapping { transport, node_port, pod_port })
    };
    ports.filter_map(mapping).collect()
}

fn items<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

/// Returns the IP addresses of a node, in the order in which it lists them.
pub(crate) fn node_addresses(value: &Value) -> Result<Vec<IpAddr>, Problem> {
    let node: Node = decode(value)?;
    // What is wrong with it is said when the object is converted.
    Ok(node.to_node().map(|it| it.addresses).unwrap_or_default())
}

/// Decodes a document; the error names the field.
pub(crate) fn decode<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| Problem::Field {
        path: error.path().to_string(),
        message: error.into_inner().to_string(),
    })
}

/// Returns the map below `key`, which is made if it is missing or null.
pub(crate) fn map_below<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let below = object.entry(key).or_insert(Value::Null);
    if below.is_null() {
        *below = Value::Object(Map::new());
    }
    below.as_object_mut()
}
