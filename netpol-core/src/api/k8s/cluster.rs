//! What pods live in, on and as: namespaces, nodes, service accounts.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Field, List, buffered};
use super::super::labels::{LabelSpace, NAME_LABEL};
use super::super::manifest::{Ignored, Manifest, Meta, Scope};
use super::super::report::{Path, Report};
use super::super::{Kind, Refused, address};
use crate::model;
use crate::model::Object;

/// A `v1` Namespace as it is written.
#[derive(Clone, Debug)]
pub struct Namespace(Manifest<IgnoredAny, IgnoredAny>);

/// A `v1` Node as it is written.
#[derive(Clone, Debug)]
pub struct Node(Manifest<IgnoredAny, NodeStatus>);

/// A `v1` ServiceAccount as it is written.
#[derive(Clone, Debug)]
pub struct ServiceAccount(Manifest<IgnoredAny, IgnoredAny>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct NodeStatus {
    addresses: List<NodeAddress>,
    #[serde(flatten)]
    ignored: Ignored,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: Field<String>,
    address: Field<String>,
    #[serde(flatten)]
    ignored: Ignored,
}

impl Namespace {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace with its labels, among them `kubernetes.io/metadata.name`, which always is its name.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it is another kind of object, or for its name or labels.
    pub fn to_object(&self) -> Result<Object, Refused> {
        let mut report = Report::default();
        let object = self.0.meta(Kind::Namespace, Scope::Namespace, &mut report).map(|meta| {
            let Meta { namespace: _, name, uid: _, created: _, labels } = meta;
            let mut labels = LabelSpace::Namespaces.labels(&labels);
            labels.insert(NAME_LABEL, name.as_str());
            Object::Namespace { name, labels }
        });
        report.finish(object).map(|it| it.value)
    }
}

impl Node {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the node with its labels and all its addresses, of whatever type. Names, and what is no address, are left
    /// out.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it is another kind of object, or for its name or labels or the shape of its addresses.
    pub fn to_node(&self) -> Result<model::Node, Refused> {
        let mut report = Report::default();
        let meta = self.0.meta(Kind::Node, Scope::Cluster, &mut report);
        let addresses = self.addresses(&mut report);
        let node = meta.map(|meta| {
            let Meta { namespace: _, name, uid: _, created: _, labels } = meta;
            model::Node { name, labels, addresses, interfaces: Vec::new() }
        });
        report.finish(node).map(|it| it.value)
    }

    fn addresses(&self, report: &mut Report) -> Vec<core::net::IpAddr> {
        let at = Path::top("status");
        let Some(NodeStatus { addresses, ignored: () }) = report.given(&at, &self.0.status) else {
            return Vec::new();
        };
        let at = at.field("addresses");
        let mut read = Vec::new();
        report.each_item(&at, addresses, "an object", |report, at, address| {
            let NodeAddress { kind, address, ignored: () } = address;
            report.given(&at.field("type"), kind);
            let address = report.given(&at.field("address"), address);
            read.extend(address.and_then(|text| address::parse_address(text)));
        });
        address::distinct(read)
    }
}

impl ServiceAccount {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace as it is written.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// Returns the service account with its labels.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it is another kind of object, or for its name, namespace or labels.
    pub fn to_object(&self) -> Result<Object, Refused> {
        let mut report = Report::default();
        let object =
            self.0.meta(Kind::ServiceAccount, Scope::Namespaced, &mut report).map(|meta| {
                let Meta { namespace, name, uid: _, created: _, labels } = meta;
                Object::ServiceAccount { namespace, name, labels }
            });
        report.finish(object).map(|it| it.value)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for ServiceAccount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}
