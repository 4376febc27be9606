//! What every Kubernetes object has: its kind and its metadata.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::field::{Extra, Field, Map};
use super::report::{Path, Report};
use super::{Kind, names, time};
use crate::labels::Labels;
use crate::model::Timestamp;

/// Fields that a wire type leaves out because policy does not depend on them.
///
/// It also keeps serde from reading a list as the fields of an object.
pub(super) type Ignored = ();

const METADATA: Path<'_> = Path::top("metadata");

/// An object as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub(super) struct Manifest<Spec, Status> {
    #[serde(default)]
    pub(super) api_version: Field<String>,
    #[serde(default)]
    pub(super) kind: Field<String>,
    #[serde(default)]
    pub(super) metadata: Field<Metadata>,
    #[serde(default = "Field::default")]
    pub(super) spec: Field<Spec>,
    #[serde(default = "Field::default")]
    pub(super) status: Field<Status>,
    #[serde(flatten)]
    pub(super) extra: Extra,
}

/// `metadata`, as far as policy depends on it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Metadata {
    pub(super) name: Field<String>,
    pub(super) namespace: Field<String>,
    pub(super) uid: Field<String>,
    pub(super) creation_timestamp: Field<String>,
    pub(super) labels: Map,
    #[serde(flatten)]
    pub(super) ignored: Ignored,
}

/// Where an object lives, which also decides what its name may be.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    /// It is a namespace.
    Namespace,
    /// In no namespace.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// What the name of an object may be.
#[derive(Clone, Copy)]
pub(super) struct NameSyntax {
    pub(super) is_valid: fn(&str) -> bool,
    pub(super) expected: &'static str,
}

/// `metadata`, read.
pub(super) struct Meta {
    /// Empty for objects in no namespace.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) created: Timestamp,
    pub(super) labels: Labels,
}

impl<Spec, Status> Manifest<Spec, Status> {
    /// Returns the name as it is written.
    pub(super) fn name(&self) -> Option<&str> {
        self.metadata.value()?.name.value().map(String::as_str)
    }

    /// Returns the namespace as it is written.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.metadata.value()?.namespace.value().map(String::as_str)
    }

    /// Reads what comes before `spec`. `apiVersion` and `kind` may be missing, as in the items of lists.
    pub(super) fn meta(&self, kind: Kind, scope: Scope, report: &mut Report) -> Option<Meta> {
        self.meta_of_named(kind, scope, scope.names(), report)
    }

    /// Does the same for an object whose name has a syntax of its own.
    pub(super) fn meta_of_named(
        &self,
        kind: Kind,
        scope: Scope,
        names: NameSyntax,
        report: &mut Report,
    ) -> Option<Meta> {
        for (at, field, expected) in [
            ("apiVersion", &self.api_version, kind.api_version()),
            ("kind", &self.kind, kind.as_str()),
        ] {
            let at = Path::top(at);
            if let Some(got) = report.given(&at, field)
                && got != expected
            {
                report.refuse(
                    &at,
                    format!("`{got}` is another kind of object, expected `{expected}`"),
                );
            }
        }
        let metadata = report.required(&METADATA, &self.metadata, "an object with a name")?;
        metadata.read(scope, names, report)
    }
}

impl Scope {
    const fn names(self) -> NameSyntax {
        match self {
            Self::Namespace => {
                NameSyntax { is_valid: names::is_dns_label, expected: names::DNS_LABEL }
            }
            Self::Cluster | Self::Namespaced => {
                NameSyntax { is_valid: names::is_dns_subdomain, expected: names::DNS_SUBDOMAIN }
            }
        }
    }
}

impl Metadata {
    fn read(&self, scope: Scope, names: NameSyntax, report: &mut Report) -> Option<Meta> {
        let Self { name, namespace, uid, creation_timestamp, labels, ignored: () } = self;
        let name = read_name(name, names, report);
        let namespace = match scope {
            Scope::Namespaced => read_namespace(namespace, report),
            Scope::Namespace | Scope::Cluster => Some(String::new()),
        };
        let uid = report.given(&METADATA.field("uid"), uid).cloned().unwrap_or_default();
        let created = read_created(creation_timestamp, report);
        let labels = read_labels(labels, report);
        Some(Meta { namespace: namespace?, name: name?, uid, created, labels })
    }
}

/// Returns what a field holds; refuses the object if that is nothing or the empty text.
pub(super) fn required_text<'f>(
    report: &mut Report,
    at: &Path<'_>,
    field: &'f Field<String>,
    expected: &str,
) -> Option<&'f str> {
    let text = match field {
        Field::Given(text) if text.is_empty() => &Field::Absent,
        field => field,
    };
    report.required(at, text, expected).map(String::as_str)
}

/// Returns what a field holds unless it is empty, which means the same as nothing.
pub(super) fn optional_text<'f>(
    report: &mut Report,
    at: &Path<'_>,
    field: &'f Field<String>,
) -> Option<&'f str> {
    report.given(at, field).map(String::as_str).filter(|text| !text.is_empty())
}

fn read_name(name: &Field<String>, syntax: NameSyntax, report: &mut Report) -> Option<String> {
    let NameSyntax { is_valid, expected } = syntax;
    let at = METADATA.field("name");
    let name = required_text(report, &at, name, "a name")?;
    if !is_valid(name) {
        report.refuse(&at, format!("`{name}` is not a name, expected {expected}"));
    }
    Some(name.into())
}

fn read_namespace(namespace: &Field<String>, report: &mut Report) -> Option<String> {
    let at = METADATA.field("namespace");
    let namespace = required_text(report, &at, namespace, "the name of a namespace")?;
    if !names::is_dns_label(namespace) {
        let expected = names::DNS_LABEL;
        report.refuse(
            &at,
            format!("`{namespace}` is not the name of a namespace, expected {expected}"),
        );
    }
    Some(namespace.into())
}

fn read_created(created: &Field<String>, report: &mut Report) -> Timestamp {
    let at = METADATA.field("creationTimestamp");
    let Some(text) = report.given(&at, created) else {
        return Timestamp::default();
    };
    time::parse_time(text).unwrap_or_else(|| {
        report.refuse(
            &at,
            format!("`{text}` is not a time, expected one such as `2026-01-31T08:00:00Z`"),
        );
        Timestamp::default()
    })
}

fn read_labels(labels: &Map, report: &mut Report) -> Labels {
    read_pairs(&METADATA.field("labels"), labels, report).into_iter().collect()
}

/// Reads labels, or the labels that a selector requires.
pub(super) fn read_pairs<'f>(
    at: &Path<'_>,
    pairs: &'f Map,
    report: &mut Report,
) -> Vec<(&'f str, &'f str)> {
    let Some(pairs) = report.given(at, pairs) else {
        return Vec::new();
    };
    if !report.is_within_limit(at, pairs.len()) {
        return Vec::new();
    }
    let mut read = Vec::with_capacity(pairs.len());
    for (key, value) in pairs.iter() {
        let has_key = check_label_key(at, key, report);
        // An API server reads null as the empty text.
        let value = report.given(&at.field(key), value).map_or("", String::as_str);
        if check_label_value(at, value, report) && has_key {
            read.push((key.as_str(), value));
        }
    }
    read
}

/// Returns whether `key` is a label key; refuses the object if not.
pub(super) fn check_label_key(at: &Path<'_>, key: &str, report: &mut Report) -> bool {
    let is_valid = names::is_label_key(key);
    if !is_valid {
        report.refuse(at, format!("`{key}` is not a label key, expected {}", names::LABEL_KEY));
    }
    is_valid
}

/// Returns whether a label can have `value`; refuses the object if not.
pub(super) fn check_label_value(at: &Path<'_>, value: &str, report: &mut Report) -> bool {
    let is_valid = names::is_label_value(value);
    if !is_valid {
        report
            .refuse(at, format!("`{value}` is not a label value, expected {}", names::LABEL_VALUE));
    }
    is_valid
}
