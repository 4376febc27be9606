//! Peers in namespaces: by the labels of these, or by how they compare with those of the subject's namespace.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::super::field::{Extra, Field, List};
use super::super::label_selector::LabelSelector;
use super::super::labels::LabelSpace;
use super::super::manifest::check_label_key;
use super::super::pods::Pods;
use super::super::report::{Path, Report};
use super::subject::{read_namespace_selector, read_pod_selector};
use super::{Dialect, alternatives};
use crate::model::{Peers, Tenancy};
use crate::selector::Selector;

/// Most keys of one list.
const MAX_KEYS: usize = 100;

/// Namespaces: a selector, or the form that version 0.1.1 of the API and those before it had.
///
/// Source: `NamespacedPeer` in `apis/v1alpha1` of network-policy-api 0.1.1.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Namespaces {
    namespace_selector: Field<LabelSelector>,
    same_labels: List<String>,
    not_same_labels: List<String>,
    #[serde(flatten)]
    selector: LabelSelector,
}

/// Pods by their labels, in namespaces of either form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct NamespacedPods {
    namespaces: Field<Namespaces>,
    namespace_selector: Field<LabelSelector>,
    pod_selector: Field<LabelSelector>,
    #[serde(flatten)]
    extra: Extra,
}

/// Which namespaces are meant.
enum Which {
    /// Those for which all of this holds.
    Selected(Vec<Selector>),
    /// Those that stand so to the subject's.
    Tenants(Tenancy),
}

impl Namespaces {
    /// Returns all pods of the namespaces.
    pub(super) fn read(
        &self,
        at: &Path<'_>,
        dialect: Dialect,
        pods: &Pods,
        report: &mut Report,
    ) -> Option<Peers> {
        Some(self.which(at, dialect, report)?.peers(pods, Vec::new()))
    }

    fn which(&self, at: &Path<'_>, dialect: Dialect, report: &mut Report) -> Option<Which> {
        let Self { namespace_selector, same_labels, not_same_labels, selector } = self;
        let written = [
            ("namespaceSelector", namespace_selector.is_written()),
            ("sameLabels", same_labels.is_written()),
            ("notSameLabels", not_same_labels.is_written()),
        ];
        let old = written.iter().filter(|(_, is_written)| *is_written).map(|(name, _)| *name);
        match (dialect, old.clone().count()) {
            (_, 0) => {
                let terms = selector.to_terms(LabelSpace::Namespaces, at, report);
                return Some(Which::Selected(terms));
            }
            (Dialect::Cluster, _) => {
                old.for_each(|name| report.refuse(&at.field(name), "unknown field"));
                return None;
            }
            (Dialect::Admin | Dialect::Baseline, 1) if selector.is_empty() => {}
            (Dialect::Admin | Dialect::Baseline, _) => {
                let expected = alternatives(written.iter().map(|(name, _)| *name));
                report.refuse(at, alloc::format!("several fields, expected one of {expected}"));
                return None;
            }
        }
        // Whatever else there is, is no field of the API.
        selector.to_terms(LabelSpace::Namespaces, at, report);
        let selected = at.field("namespaceSelector");
        if namespace_selector.is_written() {
            let selector = report.given(&selected, namespace_selector)?;
            return Some(Which::Selected(selector.to_terms(
                LabelSpace::Namespaces,
                &selected,
                report,
            )));
        }
        let (at, keys, tenancy): (_, _, fn(BTreeSet<String>) -> Tenancy) =
            if same_labels.is_written() {
                (at.field("sameLabels"), same_labels, Tenancy::Same)
            } else {
                (at.field("notSameLabels"), not_same_labels, Tenancy::NotSame)
            };
        Some(Which::Tenants(tenancy(read_keys(&at, keys, report))))
    }
}

impl NamespacedPods {
    /// Returns the pods.
    pub(super) fn read(
        &self,
        at: &Path<'_>,
        dialect: Dialect,
        pods: &Pods,
        report: &mut Report,
    ) -> Option<Peers> {
        let Self { namespaces, namespace_selector, pod_selector, extra } = self;
        report.unknown_fields(Some(at), extra);
        let selected_at = at.field("namespaceSelector");
        let nested_at = at.field("namespaces");
        let which = match (dialect, namespaces) {
            (Dialect::Admin | Dialect::Baseline, Field::Given(_) | Field::Malformed(_)) => {
                if namespace_selector.is_written() {
                    report.refuse(
                        at,
                        "`namespaces` beside `namespaceSelector`, expected one of them",
                    );
                }
                let nested = report.given(&nested_at, namespaces);
                nested.and_then(|it| it.which(&nested_at, dialect, report))
            }
            _ => {
                if namespaces.is_written() {
                    report.refuse(&nested_at, "unknown field");
                }
                read_namespace_selector(&selected_at, namespace_selector, dialect, report)
                    .map(Which::Selected)
            }
        };
        let terms = read_pod_selector(&at.field("podSelector"), pod_selector, report);
        Some(which?.peers(pods, terms?))
    }
}

impl Which {
    /// Returns the pods of the namespaces for which all of `terms` hold.
    fn peers(self, pods: &Pods, terms: Vec<Selector>) -> Peers {
        match self {
            Self::Selected(namespaces) => Peers::Endpoints(pods.in_namespaces(namespaces, terms)),
            Self::Tenants(tenancy) => {
                let endpoints = Selector::and([pods.all().clone()].into_iter().chain(terms));
                Peers::Tenants { endpoints, tenancy }
            }
        }
    }
}

/// Reads keys of labels. Without any the peer is nothing.
fn read_keys(at: &Path<'_>, keys: &List<String>, report: &mut Report) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    report.each_item_up_to(MAX_KEYS, at, keys, "a label key", |report, at, key| {
        if check_label_key(at, key, report) {
            read.insert(LabelSpace::Namespaces.key(key).into_owned());
        }
    });
    read
}
