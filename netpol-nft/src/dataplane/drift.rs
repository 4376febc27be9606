//! How what is in force differs from what is wanted.

use std::collections::BTreeMap;

use crate::name::Name;
use crate::observe::Observed;
use crate::ruleset::Ruleset;

/// Returns one line for each object that is missing, changed or too many.
pub(super) fn compare(observed: &Observed, desired: &Ruleset) -> Vec<String> {
    let mut lines = Vec::new();
    if observed.dormant {
        lines.push("the table is dormant, so that nothing of it is in force".to_owned());
    }
    compare_objects("set", &observed.ruleset.sets, &desired.sets, &mut lines);
    compare_objects("chain", &observed.ruleset.chains, &desired.chains, &mut lines);
    lines.extend(
        observed
            .unreadable
            .iter()
            .map(|name| format!("set `{name}` has a definition that is not ours")),
    );
    lines.extend(
        observed.spoiled.iter().map(|name| format!("set `{name}` has elements that are not ours")),
    );
    lines
}

fn compare_objects<T: PartialEq>(
    kind: &str,
    observed: &BTreeMap<Name, T>,
    desired: &BTreeMap<Name, T>,
    lines: &mut Vec<String>,
) {
    for (name, want) in desired {
        match observed.get(name) {
            None => lines.push(format!("{kind} `{name}` is missing")),
            Some(have) if have != want => lines.push(format!("{kind} `{name}` was changed")),
            Some(_) => {}
        }
    }
    let extra = observed.keys().filter(|name| !desired.contains_key(name));
    lines.extend(extra.map(|name| format!("{kind} `{name}` is too many")));
}
