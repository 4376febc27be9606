//! NetworkSet and GlobalNetworkSet.

use alloc::string::String;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, List, buffered};
use super::super::manifest::{Manifest, Meta, Scope};
use super::super::report::{Path, Report};
use super::super::{Kind, Refused};
use super::net::read_members;
use crate::model::{self, keys};
use crate::net::PrefixSet;

type SetManifest = Manifest<Spec, IgnoredAny>;

/// A `projectcalico.org/v3` NetworkSet as it is written.
#[derive(Clone, Debug)]
pub struct NetworkSet(SetManifest);

/// A `projectcalico.org/v3` GlobalNetworkSet as it is written.
#[derive(Clone, Debug)]
pub struct GlobalNetworkSet(SetManifest);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Spec {
    nets: List<String>,
    #[serde(flatten)]
    extra: Extra,
}

impl NetworkSet {
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

    /// Returns the set in the model's terms. Host bits of CIDR blocks are masked, and an address is a block of one.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything that Calico refuses, unknown fields included, among it a label that says in which
    /// namespace the set is.
    pub fn to_set(&self) -> Result<model::NetworkSet, Refused> {
        to_set(&self.0, Kind::NetworkSet, Scope::Namespaced)
    }
}

impl GlobalNetworkSet {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the set in the model's terms, as [`NetworkSet::to_set`] does.
    ///
    /// # Errors
    ///
    /// As for [`NetworkSet::to_set`].
    pub fn to_set(&self) -> Result<model::NetworkSet, Refused> {
        to_set(&self.0, Kind::GlobalNetworkSet, Scope::Cluster)
    }
}

impl<'de> Deserialize<'de> for NetworkSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for GlobalNetworkSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

fn to_set(manifest: &SetManifest, kind: Kind, scope: Scope) -> Result<model::NetworkSet, Refused> {
    let mut report = Report::default();
    let meta = manifest.meta(kind, scope, &mut report);
    report.unknown_fields(None, &manifest.extra);
    let at = Path::top("spec");
    let nets = match report.given(&at, &manifest.spec) {
        Some(Spec { nets, extra }) => {
            report.unknown_fields(Some(&at), extra);
            read_members(&at.field("nets"), nets, &mut report)
        }
        None => PrefixSet::default(),
    };
    let set = meta.map(|Meta { namespace, name, uid: _, created: _, labels }| {
        if labels.value(keys::NAMESPACE).is_some() {
            let at = Path::top("metadata");
            let at = at.field("labels");
            report.refuse(
                &at.field(keys::NAMESPACE),
                "reserved for the namespace of the set itself, expected another label",
            );
        }
        let namespace = matches!(scope, Scope::Namespaced).then_some(namespace);
        model::NetworkSet { namespace, name, labels, nets }
    });
    report.finish(set).map(|it| it.value)
}
