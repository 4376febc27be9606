//! How the execution of a plan ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_core::DataplaneErrorKind;

use crate::error::NftError;
use crate::name::Name;
use crate::operation::Operation;
use crate::render::{PolicyUse, Rendered};
use crate::transport::Refusal;

/// What an executed plan left of what nothing refers to any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    Nothing,
    Something,
}

/// Why a plan was not executed.
#[derive(Debug)]
pub(super) enum Executed {
    /// The kernel or the socket refused a transaction.
    Refused { object: Option<Name>, error: NftError },
    /// The switch does not fit into one transaction.
    TooLarge,
}

impl Executed {
    pub(super) fn refused(refusal: Refusal, operations: &[Operation]) -> Self {
        let object = match &refusal {
            Refusal::Operation { index, .. } => {
                operations.get(*index).and_then(Operation::object).cloned()
            }
            Refusal::TooLarge { .. } => operations.first().and_then(Operation::object).cloned(),
            Refusal::Socket { .. } => None,
        };
        Self::Refused { object, error: refusal.into_error(operations) }
    }

    pub(super) fn into_error(self) -> NftError {
        match self {
            Self::Refused { error, .. } => error,
            Self::TooLarge => NftError::TooLarge { operations: 0, limit: 0 },
        }
    }

    /// Returns what to do about it. If policy sets need the refused object, only their endpoints are concerned.
    pub(super) fn into_failure(
        self,
        rendered: &Rendered,
        refused: &BTreeMap<PolicyUse, Arc<NftError>>,
    ) -> Failure {
        let Self::Refused { object, error } = self else {
            return Failure::Other(self.into_error());
        };
        let users = object.and_then(|object| rendered.users.get(&object));
        match (error.kind(), users) {
            (DataplaneErrorKind::Conflict, _) => Failure::Conflict(error),
            (
                DataplaneErrorKind::Capacity
                | DataplaneErrorKind::Other
                | DataplaneErrorKind::Unsupported,
                Some(users),
            ) if users.iter().any(|user| !refused.contains_key(user)) => Failure::PolicySets {
                users: users.iter().copied().collect(),
                error: Arc::new(error),
            },
            _ => Failure::Other(error),
        }
    }
}

/// Why a program was not enforced.
#[derive(Debug)]
pub(super) enum Failure {
    /// These policy sets cannot be programmed. Without them it may work.
    PolicySets { users: Vec<PolicyUse>, error: Arc<NftError> },
    /// The table was not as it was read.
    Conflict(NftError),
    /// Nothing of it can be done.
    Other(NftError),
}

impl From<NftError> for Failure {
    fn from(error: NftError) -> Self {
        Self::Other(error)
    }
}
