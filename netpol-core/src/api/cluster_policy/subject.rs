//! Which pods a policy applies to.

use alloc::vec::Vec;

use serde::Deserialize;

use super::super::field::{Extra, Field};
use super::super::label_selector::LabelSelector;
use super::super::labels::LabelSpace;
use super::super::pods::Pods;
use super::super::report::{Path, Report};
use super::Dialect;
use crate::selector::Selector;

/// `subject`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(in super::super) struct Subject {
    namespaces: Field<LabelSelector>,
    pods: Field<NamespacedPods>,
    #[serde(flatten)]
    extra: Extra,
}

/// Pods by their labels and those of their namespaces.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct NamespacedPods {
    namespace_selector: Field<LabelSelector>,
    pod_selector: Field<LabelSelector>,
    #[serde(flatten)]
    extra: Extra,
}

impl Subject {
    /// Returns the selector of the pods.
    pub(in super::super) fn read(
        &self,
        at: &Path<'_>,
        dialect: Dialect,
        report: &mut Report,
    ) -> Option<Selector> {
        let Self { namespaces, pods, extra } = self;
        report.unknown_fields(Some(at), extra);
        let everything = Pods::new(report);
        let namespaces_at = at.field("namespaces");
        let of_namespaces = report.given(&namespaces_at, namespaces).map(|it| {
            let namespaces = it.to_terms(LabelSpace::Namespaces, &namespaces_at, report);
            everything.in_namespaces(namespaces, Vec::new())
        });
        let pods_at = at.field("pods");
        let of_pods = report
            .given(&pods_at, pods)
            .and_then(|it| it.read(&pods_at, dialect, &everything, report));
        match (namespaces.is_written(), pods.is_written()) {
            (false, false) => report.refuse(at, "empty, expected `namespaces` or `pods`"),
            (true, true) => {
                report.refuse(at, "`namespaces` beside `pods`, expected one of them");
            }
            _ => {}
        }
        of_namespaces.or(of_pods)
    }
}

impl NamespacedPods {
    fn read(
        &self,
        at: &Path<'_>,
        dialect: Dialect,
        everything: &Pods,
        report: &mut Report,
    ) -> Option<Selector> {
        let Self { namespace_selector, pod_selector, extra } = self;
        report.unknown_fields(Some(at), extra);
        let namespaces = read_namespace_selector(
            &at.field("namespaceSelector"),
            namespace_selector,
            dialect,
            report,
        );
        let pods = read_pod_selector(&at.field("podSelector"), pod_selector, report);
        Some(everything.in_namespaces(namespaces?, pods?))
    }
}

/// Reads the namespaces of pods. Where it may be left out, that means all of them.
pub(super) fn read_namespace_selector(
    at: &Path<'_>,
    selector: &Field<LabelSelector>,
    dialect: Dialect,
    report: &mut Report,
) -> Option<Vec<Selector>> {
    let selector = match (dialect, selector) {
        (Dialect::Cluster, Field::Absent) => return Some(Vec::new()),
        (_, selector) => report.required(at, selector, "a selector, `{}` for all namespaces")?,
    };
    Some(selector.to_terms(LabelSpace::Namespaces, at, report))
}

/// Reads which pods of these namespaces are meant.
pub(super) fn read_pod_selector(
    at: &Path<'_>,
    selector: &Field<LabelSelector>,
    report: &mut Report,
) -> Option<Vec<Selector>> {
    let selector = report.required(at, selector, "a selector, `{}` for all pods")?;
    Some(selector.to_terms(LabelSpace::Pods, at, report))
}
