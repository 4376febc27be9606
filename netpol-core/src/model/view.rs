//! The label view: what selectors see of an endpoint or network set.

use super::{Endpoint, NetworkSet, keys};
use crate::labels::Labels;
use crate::selector::LabelView;

/// The labels that selectors see of one endpoint or network set.
///
/// The model's own keys come first, then the labels of the namespace and service account under their prefixes, then
/// the object's own labels. A user's label can neither override one of the model's keys nor pass for an inherited
/// one.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLabels<'a> {
    own: &'a Labels,
    namespace: Option<(&'a str, Option<&'a Labels>)>,
    service_account: Option<(&'a str, Option<&'a Labels>)>,
    orchestrator: Option<&'a str>,
}

impl<'a> EndpointLabels<'a> {
    /// Returns the view of an endpoint, given the labels of its namespace and of its service account where these
    /// exist.
    #[must_use]
    pub fn of_endpoint(
        endpoint: &'a Endpoint,
        namespace: Option<&'a Labels>,
        service_account: Option<&'a Labels>,
    ) -> Self {
        Self {
            own: &endpoint.labels,
            namespace: endpoint.id.namespace.as_deref().map(|name| (name, namespace)),
            service_account: endpoint
                .service_account
                .as_deref()
                .map(|name| (name, service_account)),
            orchestrator: endpoint.orchestrator.as_deref(),
        }
    }

    /// Returns the view of a network set, given the labels of its namespace where that exists.
    #[must_use]
    pub fn of_network_set(set: &'a NetworkSet, namespace: Option<&'a Labels>) -> Self {
        Self {
            own: &set.labels,
            namespace: set.namespace.as_deref().map(|name| (name, namespace)),
            service_account: None,
            orchestrator: None,
        }
    }
}

impl LabelView for EndpointLabels<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        match key {
            keys::NAMESPACE => self.namespace.map(|(name, _)| name),
            keys::ORCHESTRATOR => self.orchestrator,
            keys::SERVICE_ACCOUNT => self.service_account.map(|(name, _)| name),
            _ => {
                if let Some(rest) = key.strip_prefix(keys::NAMESPACE_PREFIX) {
                    inherited(self.namespace, rest)
                } else if let Some(rest) = key.strip_prefix(keys::SERVICE_ACCOUNT_PREFIX) {
                    inherited(self.service_account, rest)
                } else {
                    self.own.value(key)
                }
            }
        }
    }
}

fn inherited<'a>(parent: Option<(&'a str, Option<&'a Labels>)>, key: &str) -> Option<&'a str> {
    let (name, labels) = parent?;
    if key == keys::NAME { Some(name) } else { labels?.value(key) }
}
