//! How the execution of a plan ended.

use netpol_core::DataplaneErrorKind;

use crate::error::IptablesError;
use crate::name::Name;
use crate::plan::{HookChange, SetChange};
use crate::probe::TableId;

/// What was done of a plan.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) members: bool,
    pub(super) tables: Vec<TableId>,
    pub(super) hooks: Vec<(TableId, HookChange)>,
}

/// Returns whether a tool may have done what it was asked for: also if nobody heard from it in the end.
pub(super) fn may_be_done(outcome: &Result<(), IptablesError>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => {
            matches!(error, IptablesError::TimedOut { .. } | IptablesError::Process { .. })
        }
    }
}

/// Why a plan was not executed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: IptablesError,
    /// The set whose change was refused.
    pub(super) set: Option<Name>,
}

impl Failed {
    pub(super) fn is_conflict(&self) -> bool {
        self.error.kind() == DataplaneErrorKind::Conflict
    }

    pub(super) fn elsewhere(error: IptablesError) -> Self {
        Self { error, set: None }
    }

    /// Finds the refused change by its line, which `ipset` names.
    pub(super) fn in_sets(changes: &[SetChange], error: IptablesError) -> Self {
        let text = error.to_string();
        let line = text.split("Error in line ").nth(1).and_then(|rest| rest.split(':').next());
        let index = line.and_then(|it| it.parse::<usize>().ok()).and_then(|it| it.checked_sub(1));
        let set = index.and_then(|index| changes.get(index)).map(|change| change.set().clone());
        Self { error, set }
    }
}
