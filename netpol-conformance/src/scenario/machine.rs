//! Virtual machines and sandboxes: workloads that are not pods. No API of others has them, so their form is our own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;

use netpol_core::Labels;
use netpol_core::api::Diagnostic;
use netpol_core::api::k8s::{ContainerPort, Phase};
use netpol_core::model::{Endpoint, EndpointId, NamedPort, Object};
use netpol_core::net::Transport;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::Problem;
use super::object::{ObjectId, PodView, decode, group_of, map_below};
use super::spec::{API_VERSION, ApiVersion};
use crate::wire::Conversion;

const KIND: &str = "VirtualMachine";

/// A virtual machine or sandbox as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VirtualMachine {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: Kind,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
enum Kind {
    VirtualMachine,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    name: Option<String>,
    #[serde(default)]
    protocol: Protocol,
    port: NonZero<u16>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

/// Returns whether a document is meant to be one.
pub(crate) fn is_machine(value: &Value) -> bool {
    let is = |key, wanted| value.get(key).and_then(Value::as_str) == Some(wanted);
    is("kind", KIND) && is("apiVersion", API_VERSION)
}

/// Converts a document that is meant to be one.
pub(crate) fn convert(value: &Value) -> Conversion {
    match decode::<VirtualMachine>(value) {
        Ok(machine) => Conversion::Accepted(Some(Arc::new(Object::from(machine.into_endpoint())))),
        Err(Problem::Field { path, message }) => {
            Conversion::Refused(vec![Diagnostic { path, message }])
        }
        Err(other) => {
            let (path, message) = (String::new(), other.to_string());
            Conversion::Refused(vec![Diagnostic { path, message }])
        }
    }
}

/// Returns what the harness must know of it: what it would of a pod.
pub(crate) fn view(value: &Value) -> Result<PodView, Problem> {
    let VirtualMachine { spec, .. } = decode(value)?;
    let Spec { node_name, service_account_name, addresses, ports } = spec;
    let port = |it: Port| ContainerPort {
        name: it.name,
        transport: it.protocol.into(),
        port: it.port.get(),
    };
    Ok(PodView {
        node: node_name,
        host_network: false,
        service_account: service_account_name.unwrap_or_default(),
        phase: Phase::Running,
        addresses,
        ports: ports.into_iter().map(port).collect(),
        labels: BTreeMap::new(),
        ready: true,
        host_ports: Vec::new(),
    })
}

/// Writes into its document what the harness has decided.
pub(crate) fn complete(object: &mut Map<String, Value>, addresses: &[IpAddr]) {
    if let Some(spec) = map_below(object, "spec") {
        let listed = addresses.iter().map(|it| it.to_string().into()).collect();
        spec.insert("addresses".to_owned(), Value::Array(listed));
    }
}

impl ObjectId {
    pub(crate) fn is_machine(&self) -> bool {
        self.kind == KIND && group_of(API_VERSION) == self.group
    }
}

impl VirtualMachine {
    fn into_endpoint(self) -> Endpoint {
        let Self { metadata, spec, .. } = self;
        let id = EndpointId::workload(metadata.namespace, metadata.name).with_uid(metadata.uid);
        let mut endpoint = Endpoint::new(id);
        endpoint.labels = metadata.labels;
        endpoint.node = spec.node_name;
        endpoint.service_account = spec.service_account_name;
        endpoint.addresses = spec.addresses;
        let named = |it: Port| {
            let Port { name, protocol, port } = it;
            Some(NamedPort { name: name?, transport: protocol.into(), port: port.get() })
        };
        endpoint.ports = spec.ports.into_iter().filter_map(named).collect();
        endpoint
    }
}
