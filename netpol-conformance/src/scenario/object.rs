//! Objects in scenarios, as far as the harness itself must understand them.

use std::fmt;
use std::net::IpAddr;

use netpol_core::net::Transport;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::Problem;

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
            namespace: text(metadata.get("namespace")),
            name: text(metadata.get("name")).ok_or(missing("metadata.name"))?,
        })
    }

    pub(crate) fn is_core(&self, kind: &str) -> bool {
        self.group.is_empty() && self.kind == kind
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
    pub(crate) service_account: Option<String>,
    pub(crate) phase: Phase,
    /// Empty if the harness is to choose.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ContainerPort>,
}

/// Where a pod is in its life. Source: `PodPhase` in `k8s.io/api/core/v1`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) enum Phase {
    Pending,
    #[default]
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A port that a container declares.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default = "tcp", deserialize_with = "transport")]
    pub(crate) protocol: Transport,
    #[serde(rename = "containerPort")]
    pub(crate) number: u16,
}

#[derive(Deserialize)]
struct WirePod {
    #[serde(default)]
    spec: WirePodSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: WirePodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodSpec {
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    service_account_name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    containers: Vec<WireContainer>,
}

#[derive(Deserialize)]
struct WireContainer {
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ContainerPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodStatus {
    phase: Option<Phase>,
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
    #[serde(default, rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<WirePodIp>,
}

#[derive(Deserialize)]
struct WirePodIp {
    ip: IpAddr,
}

impl PodView {
    pub(crate) fn read(value: &Value) -> Result<Self, Problem> {
        let WirePod { spec, status } = decode(value)?;
        let listed: Vec<IpAddr> = status.pod_ips.into_iter().map(|it| it.ip).collect();
        Ok(Self {
            node: spec.node_name,
            host_network: spec.host_network,
            service_account: spec.service_account_name,
            phase: status.phase.unwrap_or_default(),
            addresses: if listed.is_empty() { status.pod_ip.into_iter().collect() } else { listed },
            ports: spec.containers.into_iter().flat_map(|it| it.ports).collect(),
        })
    }
}

#[derive(Deserialize)]
struct WireNode {
    #[serde(default, deserialize_with = "or_default")]
    status: WireNodeStatus,
}

#[derive(Default, Deserialize)]
struct WireNodeStatus {
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<WireNodeAddress>,
}

#[derive(Deserialize)]
struct WireNodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// Returns the IP addresses of a node, in the order in which it lists them.
pub(crate) fn node_addresses(value: &Value) -> Result<Vec<IpAddr>, Problem> {
    let WireNode { status } = decode(value)?;
    let mut addresses = Vec::new();
    for WireNodeAddress { kind, address } in status.addresses {
        if let Ok(address) = address.parse()
            && matches!(kind.as_str(), "InternalIP" | "ExternalIP")
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    Ok(addresses)
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

const fn tcp() -> Transport {
    Transport::Tcp
}

/// The API server takes null for "not given".
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn transport<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Transport, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Word {
        Tcp,
        Udp,
        Sctp,
    }
    Ok(match Word::deserialize(deserializer)? {
        Word::Tcp => Transport::Tcp,
        Word::Udp => Transport::Udp,
        Word::Sctp => Transport::Sctp,
    })
}
