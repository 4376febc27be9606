//! Which endpoints are pods.

use alloc::vec::Vec;

use super::report::{Path, Report};
use crate::model::keys;
use crate::selector::Selector;

/// The selector of all pods, to which the selectors of pods of every API are confined.
pub(super) struct Pods(Selector);

impl Pods {
    /// Returns the selector of all pods.
    pub(super) fn new(report: &mut Report) -> Self {
        let pods = Selector::equal(keys::ORCHESTRATOR, keys::KUBERNETES);
        Self(pods.unwrap_or_else(|error| {
            report.refuse(&Path::top("metadata"), error);
            Selector::none()
        }))
    }

    /// Returns the selector of all pods.
    pub(super) const fn all(&self) -> &Selector {
        &self.0
    }

    /// Returns the selector of the pods for which all of `terms` hold, in the namespaces for which all of
    /// `namespaces` hold.
    pub(super) fn in_namespaces(
        &self,
        namespaces: Vec<Selector>,
        terms: Vec<Selector>,
    ) -> Selector {
        let namespaces = Selector::and(namespaces).in_namespaces();
        Selector::and([namespaces, self.0.clone()].into_iter().chain(terms))
    }
}
