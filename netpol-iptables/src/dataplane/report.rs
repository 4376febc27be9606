//! What the chains tell: how many packets were judged, and what is not as it should be.

use std::collections::BTreeSet;

use netpol_core::Counters;

use crate::observe::{Observed, Table};
use crate::plan::{ChainChange, HookChange, Plan};

/// Returns how many packets the rules of tables have judged.
pub(super) fn counters<'t>(tables: impl Iterator<Item = &'t Table>) -> Counters {
    let mut counters = Counters::default();
    let rules = tables.flat_map(|table| table.chains.values()).flat_map(|it| &it.rules);
    for rule in rules {
        let id = rule.mark.comment.strip_prefix("np:").and_then(|rest| rest.split(':').next());
        let Some(id) = id else { continue };
        if id == "deny" {
            counters.unmatched = counters.unmatched.saturating_add(rule.packets);
        } else if let Ok(id) = id.parse() {
            let sum = counters.rules.entry(id).or_default();
            *sum = sum.saturating_add(rule.packets);
        }
    }
    counters
}

/// Returns one line for each object that is missing, changed or too many.
pub(super) fn described(observed: &Observed, plan: &Plan) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for change in plan.prepare.iter().chain(&plan.members) {
        let set = change.set();
        let what = if observed.sets.contains_key(set) { "was changed" } else { "is missing" };
        lines.insert(format!("set `{set}` {what}"));
    }
    for (id, changes) in &plan.switch {
        for chain in changes.iter().map(ChainChange::name) {
            let found = observed.chain(*id, chain).is_some();
            let what = if found { "was changed" } else { "is missing" };
            lines.insert(format!("{id} chain `{chain}` {what}"));
        }
    }
    for (id, hooks) in &plan.hooks {
        for HookChange { hook, misplaced, .. } in hooks {
            let what = if misplaced.is_empty() { "is missing" } else { "is not the first" };
            lines.insert(format!("{id} jump from `{hook}` {what}"));
        }
    }
    for (id, jumps) in &plan.sweep_hooks {
        lines.extend(jumps.iter().map(|(hook, _)| format!("{id} jump from `{hook}` is too many")));
    }
    for (id, chains) in &plan.sweep_chains {
        lines.extend(chains.iter().map(|chain| format!("{id} chain `{chain}` is too many")));
    }
    lines.extend(plan.sweep_sets.iter().map(|set| format!("set `{set}` is too many")));
    lines.into_iter().collect()
}
