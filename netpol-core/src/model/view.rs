//! The label view: what selectors see of an endpoint or network set.

use super::{Endpoint, NetworkSet, keys};
use crate::labels::Labels;
use crate::selector::LabelView;

/// The labels that selectors see of one endpoint or network set.
///
/// The model's own keys come first, then the labels of the namespace and service account under their prefixes, then
/// the object's own labels. A user's label can neither override one of the model's keys nor pass for an inherited
/// one. Equal views are the same to every selector.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
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

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::model::EndpointId;
    use crate::net::PrefixSet;

    /// Every key that a user could try to pass for the model's.
    const SPOOFED: [(&str, &str); 7] = [
        ("app", "a"),
        (keys::NAMESPACE, "spoofed"),
        (keys::ORCHESTRATOR, "spoofed"),
        (keys::SERVICE_ACCOUNT, "spoofed"),
        ("pcns.team", "spoofed"),
        ("pcsa.grade", "spoofed"),
        ("pcns.projectcalico.org/name", "spoofed"),
    ];

    fn values<'a>(view: &'a EndpointLabels<'_>) -> Vec<Option<&'a str>> {
        SPOOFED.iter().map(|(key, _)| view.value(key)).collect()
    }

    #[test]
    fn labels_of_users_pass_for_nothing_else() {
        let (own, none): (Labels, Labels) = (SPOOFED.into_iter().collect(), Labels::new());
        let mut vm = Endpoint::new(EndpointId {
            namespace: None,
            ..EndpointId::workload("", "vm").with_uid("1")
        });
        vm.labels = own.clone();
        let mut absent = [None; SPOOFED.len()];
        absent[0] = Some("a");
        assert_eq!(values(&EndpointLabels::of_endpoint(&vm, None, None)), absent);

        let set = NetworkSet {
            namespace: None,
            name: "set".into(),
            labels: own.clone(),
            nets: PrefixSet::default(),
        };
        assert_eq!(values(&EndpointLabels::of_network_set(&set, None)), absent);

        let mut pod = Endpoint::pod("x", "p");
        pod.labels = own;
        let named = [Some("a"), Some("x"), Some("k8s"), Some("default"), None, None, Some("x")];
        assert_eq!(values(&EndpointLabels::of_endpoint(&pod, None, None)), named);
        assert_eq!(values(&EndpointLabels::of_endpoint(&pod, Some(&none), Some(&none))), named);

        let namespace = [("team", "red"), (keys::NAME, "spoofed")].into_iter().collect();
        let account = [("grade", "gold")].into_iter().collect();
        let mut inherited = named;
        (inherited[4], inherited[5]) = (Some("red"), Some("gold"));
        let view = EndpointLabels::of_endpoint(&pod, Some(&namespace), Some(&account));
        assert_eq!(values(&view), inherited);
    }
}
