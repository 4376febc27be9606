//! What tenants are to one endpoint: endpoints that a selector selects.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::model::{EntityMatch, Peers, RuleMatch, Tenancy, keys};
use crate::selector::{LabelView, Selector};

/// Returns what a rule matches if it is asked for an endpoint with these labels: without [`Peers::Tenants`].
pub(super) fn with_tenants<'m>(
    matches: &'m RuleMatch,
    subject: &impl LabelView,
) -> Cow<'m, RuleMatch> {
    if !has_tenants(matches) {
        return Cow::Borrowed(matches);
    }
    let mut resolved = matches.clone();
    for side in [&mut resolved.source, &mut resolved.destination] {
        if let Some(Peers::Tenants { endpoints, tenancy }) = &side.peers {
            let selector = Selector::and([endpoints.clone(), tenants(tenancy, subject)]);
            side.peers = Some(Peers::Endpoints(selector));
        }
    }
    Cow::Owned(resolved)
}

/// Returns whether what a rule matches depends on the namespace of the endpoint that it is asked for.
pub(super) fn has_tenants(matches: &RuleMatch) -> bool {
    let is_tenants = |side: &EntityMatch| matches!(side.peers, Some(Peers::Tenants { .. }));
    is_tenants(&matches.source) || is_tenants(&matches.destination)
}

/// Returns the selector of everything in namespaces that stand so to the subject's.
fn tenants(tenancy: &Tenancy, subject: &impl LabelView) -> Selector {
    let (Tenancy::Same(keys) | Tenancy::NotSame(keys)) = tenancy;
    let with_value = |key: &String| {
        let key = [keys::NAMESPACE_PREFIX, key].concat();
        subject.value(&key).map(|value| (key, value))
    };
    let Some(own) = keys.iter().map(with_value).collect::<Option<Vec<_>>>() else {
        return Selector::none();
    };
    if own.is_empty() {
        return Selector::none();
    }
    let equal =
        Selector::and(own.iter().map(|(key, value)| Selector::of_label(key.clone(), value)));
    match tenancy {
        Tenancy::Same(_) => equal,
        Tenancy::NotSame(_) => {
            let present = own.into_iter().map(|(key, _)| Selector::of_key(key));
            Selector::and(present.chain([!equal]))
        }
    }
}
