//! Pods.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Deserializer};

use super::super::field::{Field, List, buffered};
use super::super::labels::LabelSpace;
use super::super::manifest::{Ignored, Manifest, Meta, Scope, optional_text};
use super::super::number::Number;
use super::super::ports::read_transport;
use super::super::report::{Path, Report};
use super::super::{Kind, Refused, address, names};
use crate::model::{Endpoint, EndpointId, Lifecycle, NamedPort, keys};
use crate::net::Transport;
use crate::verdict::Verdict;

/// The service account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";

/// The condition of a pod that has its network, though its phase may still be `Pending`.
///
/// Source: `PodReadyToStartContainers` in `k8s.io/api/core/v1`, set by the kubelet since Kubernetes 1.29.
const READY_CONDITION: &str = "PodReadyToStartContainers";

/// A `v1` Pod as it is written.
#[derive(Clone, Debug)]
pub struct Pod(Manifest<PodSpec, PodStatus>);

/// Where a pod stands in its life.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the phases of a pod are closed: k8s.io/api/core/v1, PodPhase"
)]
pub enum Phase {
    /// Its containers were not all started.
    Pending,
    /// At least one container runs. A pod without a phase is taken to.
    #[default]
    Running,
    /// All containers have ended well.
    Succeeded,
    /// All containers have ended, not all of them well.
    Failed,
    /// Its node cannot be asked.
    Unknown,
}

/// A port that a container declares.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "policy knows ports by name, transport and number")]
pub struct ContainerPort {
    /// The name, if it has one.
    pub name: Option<String>,
    /// The transport, TCP if none is written.
    pub transport: Transport,
    /// The number, never 0.
    pub port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct PodSpec {
    node_name: Field<String>,
    host_network: Field<bool>,
    service_account_name: Field<String>,
    /// The old name of `serviceAccountName`.
    service_account: Field<String>,
    init_containers: List<Container>,
    containers: List<Container>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct Container {
    ports: List<WirePort>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct WirePort {
    name: Field<String>,
    protocol: Field<String>,
    container_port: Field<Number>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct PodStatus {
    phase: Field<String>,
    #[serde(rename = "podIP")]
    pod_ip: Field<String>,
    #[serde(rename = "podIPs")]
    pod_ips: List<PodIp>,
    conditions: List<Condition>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct PodIp {
    ip: Field<String>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Condition {
    #[serde(rename = "type")]
    kind: Field<String>,
    status: Field<String>,
    #[serde(flatten)]
    ignored: Ignored,
}

/// `spec`, read.
#[derive(Default)]
struct Spec {
    node: Option<String>,
    is_on_host_network: bool,
    service_account: String,
    ports: Vec<ContainerPort>,
}

/// `status`, read.
#[derive(Default)]
struct Status {
    phase: Phase,
    is_ready: bool,
    addresses: Vec<IpAddr>,
}

/// What is written, valid or not; what cannot be read is left out.
impl Pod {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// Returns the name of the pod's node, once it has one.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        let name = self.0.spec.value()?.node_name.value()?;
        (!name.is_empty()).then_some(name)
    }

    /// Returns whether the pod has its node's network instead of its own.
    #[must_use]
    pub fn is_on_host_network(&self) -> bool {
        self.0.spec.value().and_then(|it| it.host_network.value()).is_some_and(|&it| it)
    }

    /// Returns where the pod stands in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status(&mut Report::default()).phase
    }

    /// Returns the addresses that the status lists, the primary one first, whether or not the pod still owns them.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.status(&mut Report::default()).addresses
    }

    /// Returns the ports of all containers, init containers included.
    #[must_use]
    pub fn container_ports(&self) -> Vec<ContainerPort> {
        self.spec(&mut Report::default()).ports
    }
}

impl Pod {
    /// Returns the pod as an endpoint, `None` if it is on its node's network and thus no endpoint of its own.
    ///
    /// A pod that is `Pending` owns no address, unless it has the condition `PodReadyToStartContainers`: what it
    /// lists otherwise may be another pod's. A network plugin knows better, and sets
    /// [`addresses`](Endpoint::addresses) to what it gave the pod. Labels whose keys the model keeps for itself (`pcns.`, …)
    /// are found by Kubernetes' selectors only.
    ///
    /// # Errors
    ///
    /// [`Refused`] with everything that is wrong with the fields that policy depends on.
    pub fn to_endpoint(&self) -> Result<Option<Endpoint>, Refused> {
        let mut report = Report::default();
        let meta = self.0.meta(Kind::Pod, Scope::Namespaced, &mut report);
        let spec = self.spec(&mut report);
        let status = self.status(&mut report);
        let endpoint =
            meta.map(|meta| (!spec.is_on_host_network).then(|| endpoint(meta, spec, status)));
        report.finish(endpoint).map(|it| it.value)
    }

    fn spec(&self, report: &mut Report) -> Spec {
        let at = Path::top("spec");
        let Some(spec) = report.given(&at, &self.0.spec) else {
            return Spec { service_account: DEFAULT_ACCOUNT.into(), ..Spec::default() };
        };
        let PodSpec {
            node_name,
            host_network,
            service_account_name,
            service_account,
            init_containers,
            containers,
            ignored: (),
        } = spec;
        let node = optional_text(report, &at.field("nodeName"), node_name);
        let is_on_host_network =
            report.given(&at.field("hostNetwork"), host_network).is_some_and(|&it| it);
        let account = optional_text(report, &at.field("serviceAccountName"), service_account_name);
        let old_account = optional_text(report, &at.field("serviceAccount"), service_account);
        let mut ports = Vec::new();
        // Kubernetes leaves open whether init containers that end count; to Calico they do.
        for (field, containers) in [("initContainers", init_containers), ("containers", containers)]
        {
            report.each_item(&at.field(field), containers, "an object", |report, at, container| {
                ports.extend(container.ports(at, report));
            });
        }
        Spec {
            node: node.map(Into::into),
            is_on_host_network,
            service_account: account.or(old_account).unwrap_or(DEFAULT_ACCOUNT).into(),
            ports,
        }
    }

    fn status(&self, report: &mut Report) -> Status {
        let at = Path::top("status");
        let Some(status) = report.given(&at, &self.0.status) else {
            return Status::default();
        };
        let PodStatus { phase, pod_ip, pod_ips, conditions, ignored: () } = status;
        let phase_at = at.field("phase");
        let phase = optional_text(report, &phase_at, phase)
            .map_or(Phase::Running, |text| read_phase(&phase_at, text, report));
        let mut addresses = Vec::new();
        report.each_item(&at.field("podIPs"), pod_ips, "an object", |report, at, item| {
            let PodIp { ip, ignored: () } = item;
            let at = at.field("ip");
            let ip = report.required(&at, ip, "an address");
            addresses.extend(ip.and_then(|text| address::read_address(&at, text, report)));
        });
        let at = at.field("podIP");
        let ip = optional_text(report, &at, pod_ip);
        addresses.extend(ip.and_then(|text| address::read_address(&at, text, report)));
        let addresses = address::distinct(addresses);
        Status { phase, is_ready: conditions.values().any(Condition::is_network_ready), addresses }
    }
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl Container {
    fn ports(&self, at: &Path<'_>, report: &mut Report) -> Vec<ContainerPort> {
        let Self { ports, ignored: () } = self;
        let at = at.field("ports");
        let mut read = Vec::new();
        let mut names = BTreeSet::new();
        report.each_item(&at, ports, "an object", |report, at, port| {
            let Some(port) = port.read(at, report) else {
                return;
            };
            if let Some(name) = &port.name
                && !names.insert(name.clone())
            {
                report.refuse(
                    &at.field("name"),
                    format!("`{name}` names two ports of one container"),
                );
            }
            read.push(port);
        });
        read
    }
}

impl WirePort {
    fn read(&self, at: &Path<'_>, report: &mut Report) -> Option<ContainerPort> {
        let Self { name, protocol, container_port, ignored: () } = self;
        let name_at = at.field("name");
        let name = optional_text(report, &name_at, name);
        if let Some(name) = name.filter(|it| !names::is_port_name(it)) {
            report.refuse(
                &name_at,
                format!("`{name}` is not a port name, expected {}", names::PORT_NAME),
            );
        }
        let protocol_at = at.field("protocol");
        let transport = match optional_text(report, &protocol_at, protocol) {
            Some(protocol) => read_transport(&protocol_at, protocol, report),
            None => Some(Transport::Tcp),
        };
        let at = at.field("containerPort");
        let port =
            report.required(&at, container_port, "a port, 1 to 65535")?.read_port(&at, report);
        Some(ContainerPort { name: name.map(Into::into), transport: transport?, port: port? })
    }
}

impl Condition {
    fn is_network_ready(&self) -> bool {
        let Self { kind, status, ignored: () } = self;
        let is = |field: &Field<String>, text| field.value().is_some_and(|it| it == text);
        is(kind, READY_CONDITION) && is(status, "True")
    }
}

fn read_phase(at: &Path<'_>, text: &str, report: &mut Report) -> Phase {
    match text {
        "Pending" => Phase::Pending,
        "Running" => Phase::Running,
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        "Unknown" => Phase::Unknown,
        _ => {
            let expected = "`Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`";
            report.refuse(at, format!("`{text}` is not a phase, expected {expected}"));
            Phase::default()
        }
    }
}

fn endpoint(meta: Meta, spec: Spec, status: Status) -> Endpoint {
    let Meta { namespace, name, uid, created, labels } = meta;
    let Spec { node, is_on_host_network: _, service_account, ports } = spec;
    let Status { phase, is_ready, addresses } = status;
    let (lifecycle, has_network) = match phase {
        Phase::Pending => (Lifecycle::Running, is_ready),
        Phase::Running | Phase::Unknown => (Lifecycle::Running, true),
        Phase::Succeeded | Phase::Failed => (Lifecycle::Finished, true),
    };
    let mut endpoint = Endpoint::new(EndpointId::workload(namespace, name).with_uid(uid));
    endpoint.created = created;
    endpoint.node = node;
    endpoint.labels = LabelSpace::Pods.labels(&labels);
    endpoint.service_account = Some(service_account);
    endpoint.orchestrator = Some(keys::KUBERNETES.into());
    endpoint.addresses = if has_network { addresses } else { Vec::new() };
    endpoint.ports = named_ports(ports);
    endpoint.default_verdict = Verdict::Allow;
    endpoint.lifecycle = lifecycle;
    endpoint
}

fn named_ports(ports: Vec<ContainerPort>) -> Vec<NamedPort> {
    let named =
        |ContainerPort { name, transport, port }| Some(NamedPort { name: name?, transport, port });
    let mut named: Vec<_> = ports.into_iter().filter_map(named).collect();
    named.sort_unstable();
    named.dedup();
    named
}
