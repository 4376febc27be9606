//! Labels whose keys the model keeps for itself.
//!
//! To Kubernetes every key is like any other: a selector on `projectcalico.org/namespace` selects the pods that carry
//! such a label, and no expression on it leaves a policy's namespace. The model hides such labels, so that nothing a
//! user writes passes for what the model says. They are kept under another key, and Kubernetes' selectors ask for that.

use alloc::borrow::Cow;
use alloc::format;

use crate::labels::Labels;
use crate::model::keys;

/// What stands before the key of a label that the model hides. No label can have it itself: in keys that Kubernetes
/// accepts there is only one `/`.
const HIDDEN_PREFIX: &str = "k8s//";

/// Whose labels they are.
#[derive(Clone, Copy)]
pub(super) enum LabelSpace {
    /// Those of pods, among which selectors also see those of namespaces and service accounts.
    Pods,
    /// Those of namespaces.
    Namespaces,
}

impl LabelSpace {
    /// Returns the key under which the model has a label.
    pub(super) fn key(self, key: &str) -> Cow<'_, str> {
        let is_hidden = match self {
            Self::Pods => {
                matches!(key, keys::NAMESPACE | keys::ORCHESTRATOR | keys::SERVICE_ACCOUNT)
                    || key.starts_with(keys::NAMESPACE_PREFIX)
                    || key.starts_with(keys::SERVICE_ACCOUNT_PREFIX)
            }
            Self::Namespaces => key == keys::NAME,
        };
        if is_hidden { Cow::Owned(format!("{HIDDEN_PREFIX}{key}")) } else { Cow::Borrowed(key) }
    }

    /// Returns the labels as the model has them.
    pub(super) fn labels(self, labels: &Labels) -> Labels {
        labels.iter().map(|(key, value)| (self.key(key), value)).collect()
    }
}
