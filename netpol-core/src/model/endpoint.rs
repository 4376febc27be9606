//! Endpoints: the things policy applies to.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use core::net::IpAddr;
use serde::{Deserialize, Serialize};

use super::keys;
use crate::labels::Labels;
use crate::net::Transport;
use crate::verdict::Verdict;

/// What an endpoint is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "policy applies to workloads and hosts")]
pub enum EndpointKind {
    /// A pod, a virtual machine or a sandbox.
    Workload,
    /// Interfaces of a host.
    Host,
}

/// Identifies an endpoint. Injective: no two endpoints share one, whatever their names.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "kind, namespace, name and UID identify an object for good"
)]
pub struct EndpointId {
    /// What the endpoint is.
    pub kind: EndpointKind,
    /// Its namespace; `None` for endpoints outside of all namespaces.
    pub namespace: Option<String>,
    /// Its name, unique among the running endpoints of its namespace.
    pub name: String,
    /// What tells it from an earlier or later endpoint of the same name; empty where nothing does.
    pub uid: String,
}

impl EndpointId {
    /// Returns the id of a workload in a namespace, without a UID.
    pub fn workload(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: EndpointKind::Workload,
            namespace: Some(namespace.into()),
            name: name.into(),
            uid: String::new(),
        }
    }

    /// Returns the id of a host endpoint.
    pub fn host(name: impl Into<String>) -> Self {
        let (kind, uid) = (EndpointKind::Host, String::new());
        Self { kind, namespace: None, name: name.into(), uid }
    }

    /// Returns the same id with a UID.
    #[must_use]
    pub fn with_uid(self, uid: impl Into<String>) -> Self {
        Self { uid: uid.into(), ..self }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        if self.kind == EndpointKind::Host {
            f.write_str(" (host)")?;
        }
        Ok(())
    }
}

/// How a packet is known to be an endpoint's.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum Attachment {
    /// It passes this interface on the host's side. Nothing in the packet can forge that.
    Interface(String),
    /// It carries one of the endpoint's addresses (pods behind a bridge). Such an endpoint can forge others'. For a host:
    /// it passes an interface that has one of the endpoint's addresses, unless another endpoint names that interface.
    Address,
    /// For hosts only: it passes an interface of the node that no other host endpoint has, those of workloads included.
    OtherInterfaces,
}

/// What is done with an endpoint's verdicts.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[expect(clippy::exhaustive_enums, reason = "every dataplane has to handle each of them")]
pub enum Mode {
    /// Flows that are denied are dropped.
    #[default]
    Enforce,
    /// Verdicts are reported; nothing is dropped but what no endpoint may send: router advertisements and redirects, packets
    /// in the name of others, and packets that [carry others](super::HostSettings::denied_encapsulation).
    Audit,
    /// Nothing passes but neighbour discovery; established flows stop too.
    Isolate,
}

/// Whether an endpoint still runs.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[expect(clippy::exhaustive_enums, reason = "it runs or it has finished")]
pub enum Lifecycle {
    /// It runs, or will, or is being stopped: it owns its addresses.
    #[default]
    Running,
    /// It has finished. Addresses it still lists may already belong to another endpoint, so it owns none.
    Finished,
}

/// A point in time, in seconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[expect(clippy::exhaustive_structs, reason = "a number with its unit")]
pub struct Timestamp(pub i64);

/// A port that an endpoint has given a name.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a name stands for a transport and a number")]
pub struct NamedPort {
    /// The name. One name may stand for several ports, of one transport or of several.
    pub name: String,
    /// The transport.
    pub transport: Transport,
    /// The number. 0 is reserved and stands for no port.
    pub port: u16,
}

/// Something that policy applies to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// Which endpoint this is.
    pub id: EndpointId,
    /// When it was created. Of two running endpoints with one address the newer owns it.
    pub created: Timestamp,
    /// The node it runs on, once that is known.
    pub node: Option<String>,
    /// Its own labels.
    pub labels: Labels,
    /// The name of its service account.
    pub service_account: Option<String>,
    /// The orchestrator that runs it, [`keys::KUBERNETES`] for pods.
    pub orchestrator: Option<String>,
    /// Its addresses, of both families, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// How its packets are known. Only its own node needs to know.
    pub attachment: Attachment,
    /// The verdict where no policy decides: allow for pods, deny for everything else.
    pub default_verdict: Verdict,
    /// What is done with its verdicts.
    pub mode: Mode,
    /// Whether it still runs.
    pub lifecycle: Lifecycle,
}

impl Endpoint {
    /// Returns a running endpoint without labels or addresses that denies where no policy decides.
    #[must_use]
    pub fn new(id: EndpointId) -> Self {
        Self {
            id,
            created: Timestamp::default(),
            node: None,
            labels: Labels::default(),
            service_account: None,
            orchestrator: None,
            addresses: Vec::new(),
            ports: Vec::new(),
            attachment: Attachment::Address,
            default_verdict: Verdict::Deny,
            mode: Mode::Enforce,
            lifecycle: Lifecycle::Running,
        }
    }

    /// Returns a host endpoint of a node that denies where no policy decides, except for failsafe ports.
    #[must_use]
    pub fn host(name: impl Into<String>, node: impl Into<String>, attachment: Attachment) -> Self {
        Self { node: Some(node.into()), attachment, ..Self::new(EndpointId::host(name)) }
    }

    /// Returns a running Kubernetes pod of the service account `default`, without labels or addresses. It allows where no
    /// policy decides.
    #[must_use]
    pub fn pod(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            service_account: Some("default".into()),
            orchestrator: Some(keys::KUBERNETES.into()),
            default_verdict: Verdict::Allow,
            ..Self::new(EndpointId::workload(namespace, name))
        }
    }

    /// Returns the same endpoint, known by its interface on the host's side.
    #[must_use]
    pub fn attached_to(mut self, interface: impl Into<String>) -> Self {
        self.attachment = Attachment::Interface(interface.into());
        self
    }

    /// Returns the same endpoint on a node.
    #[must_use]
    pub fn on_node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }
}
