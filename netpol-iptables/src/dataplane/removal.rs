//! Removing all that is ours.

use std::collections::BTreeMap;

use netpol_core::net::Family;

use super::installed;
use crate::error::IptablesError;
use crate::name::{Name, Owner};
use crate::observe::{sets, table};
use crate::plan::SetChange;
use crate::probe::{Flavour, KernelTable};
use crate::restore::{removal_scripts, set_script};
use crate::transport::{Tools, Variant};

/// Removes our jumps and chains from a table of a flavour. A flavour that is not installed has none.
pub(super) fn clear(
    tools: &mut dyn Tools,
    owner: &Owner,
    families: &[Family],
    (flavour, name): (Flavour, KernelTable),
) -> Result<(), IptablesError> {
    for &family in families {
        let variant = Variant { flavour, family };
        // A listing of all tables makes none, as one of a table of the legacy flavour would.
        let Some(listing) = installed(tools.save(variant, None))? else { continue };
        let found = table(owner, name, &listing)?;
        for (hook, jumps) in &found.hooks {
            for (_, chain) in jumps {
                tools.delete_jump(variant, name, hook, chain)?;
            }
        }
        let chains: Vec<Name> = found.chains.into_keys().collect();
        if !chains.is_empty() {
            for script in removal_scripts(name, &chains) {
                tools.restore(variant, &script)?;
            }
        }
    }
    Ok(())
}

/// Destroys all sets of ours.
pub(super) fn destroy_all(tools: &mut dyn Tools, owner: &Owner) -> Result<(), IptablesError> {
    let sets = sets(owner, &tools.save_sets()?);
    let destroy: Vec<SetChange> = sets.into_keys().map(|set| SetChange::Destroy { set }).collect();
    if destroy.is_empty() {
        return Ok(());
    }
    tools.restore_sets(&set_script(&destroy))
}

/// Destroys sets, as many as possible.
pub(super) fn destroy(tools: &mut dyn Tools, names: impl IntoIterator<Item = Name>) {
    let changes: Vec<SetChange> = names.into_iter().map(|set| SetChange::Destroy { set }).collect();
    if changes.is_empty() || tools.restore_sets(&set_script(&changes)).is_ok() {
        return;
    }
    for change in changes {
        let _result = tools.restore_sets(&set_script(&[change]));
    }
}

/// Removes what is ours in one flavour, and the sets that nothing needs then.
pub(super) fn remove_flavour(
    tools: &mut dyn Tools,
    owner: &Owner,
    families: &[Family],
    flavour: Flavour,
) -> Result<(), IptablesError> {
    for name in KernelTable::ALL.into_iter().rev() {
        clear(tools, owner, families, (flavour, name))?;
    }
    let sets: BTreeMap<Name, _> = sets(owner, &tools.save_sets()?);
    destroy(tools, sets.into_keys());
    Ok(())
}
