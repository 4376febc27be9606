//! Labels whose keys the model keeps for itself.
//!
//! To Kubernetes every key is like any other: a selector on `projectcalico.org/namespace` selects the pods that carry
//! such a label, and no expression on it leaves a policy's namespace. The model hides such labels, so that nothing a
//! user writes passes for what the model says. They are kept under another key, and Kubernetes' selectors ask for that.

use alloc::borrow::Cow;
use alloc::format;

use crate::labels::Labels;
use crate::model::keys;
use crate::selector::{Selector, SelectorError};

/// The label that every namespace has, with its own name as the value.
///
/// Source: `LabelMetadataName` in `k8s.io/api/core/v1`.
pub(super) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

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
    /// Those of nodes, of which the model keeps none for itself.
    Nodes,
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
            Self::Nodes => false,
        };
        if is_hidden { Cow::Owned(format!("{HIDDEN_PREFIX}{key}")) } else { Cow::Borrowed(key) }
    }

    /// Returns the selector of those for which `absent` holds and whose labels are known. Pods and nodes come with their
    /// labels; a pod may come before its namespace, and until then nothing is absent.
    pub(super) fn known_and(
        self,
        absent: Result<Selector, SelectorError>,
    ) -> Result<Selector, SelectorError> {
        match self {
            Self::Pods | Self::Nodes => absent,
            Self::Namespaces => Ok(Selector::and([absent?, Selector::has(NAME_LABEL)?])),
        }
    }

    /// Returns the labels as the model has them.
    pub(super) fn labels(self, labels: &Labels) -> Labels {
        labels.iter().map(|(key, value)| (self.key(key), value)).collect()
    }
}
