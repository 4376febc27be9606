//! Changes in the words of `iptables-restore` and `ipset restore`. Pure.
//!
//! Everything in these texts is a name, a digest, an address or a number of ours.

use std::fmt::{self, Write};

use crate::name::{HOOK_COMMENT, Name};
use crate::observe::Table;
use crate::plan::{ChainChange, HookChange, SetChange, limit};
use crate::probe::KernelTable;

/// Returns the script of `ipset restore`, one line per change.
pub(crate) fn set_script(changes: &[SetChange]) -> String {
    let mut script = String::new();
    for change in changes {
        let _infallible = writeln!(script, "{change}");
    }
    script
}

impl fmt::Display for SetChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { set, shape, members } => {
                let (size, limit) = (members.next_power_of_two().max(64), limit(*members));
                write!(f, "create {set} {shape} hashsize {size} maxelem {limit}")
            }
            Self::Add { set, member } => write!(f, "add {set} {member}"),
            Self::Remove { set, member } => write!(f, "del {set} {member}"),
            Self::Swap { one, other } => write!(f, "swap {one} {other}"),
            Self::Destroy { set } => write!(f, "destroy {set}"),
        }
    }
}

/// Returns the script of `iptables-restore --noflush` for changes of chains, which is one transaction.
pub(crate) fn chain_script<'c>(
    table: KernelTable,
    changes: impl IntoIterator<Item = &'c ChainChange> + Clone,
) -> String {
    let declared = changes.clone().into_iter().filter_map(|change| match change {
        ChainChange::Replace { name, .. } => Some(format!(":{name} - [0:0]")),
        ChainChange::Append { .. } => None,
    });
    let rules = changes.into_iter().flat_map(|change| {
        let name = change.name();
        change.rules().iter().map(move |rule| format!("-A {name} {rule}"))
    });
    transaction(table, declared.chain(rules))
}

/// Returns the script that takes a [`chain_script`] back: chains are again as they were; those that were not there are
/// empty.
pub(crate) fn undo_script(table: KernelTable, changes: &[ChainChange], before: &Table) -> String {
    let names = || changes.iter().map(ChainChange::name);
    let declared = names().map(|name| format!(":{name} - [0:0]"));
    let rules = names().flat_map(|name| {
        let rules = before.chains.get(name).map(|chain| chain.rules.as_slice());
        let rules = rules.unwrap_or_default();
        rules.iter().map(move |rule| format!("-A {name} {}", rule.text))
    });
    transaction(table, declared.chain(rules))
}

/// Returns the script that moves our jump to the first place, in one transaction.
pub(crate) fn hook_script(table: KernelTable, change: &HookChange) -> String {
    let HookChange { hook, chain, misplaced, .. } = change;
    let remove = misplaced.iter().map(|name| format!("-D {hook} {}", jump(name)));
    transaction(table, remove.chain([format!("-I {hook} 1 {}", jump(chain))]))
}

/// Returns the scripts that empty chains and then remove them. These are two transactions because the nft flavour
/// does not notice in the same one that a chain is no longer referred to.
pub(crate) fn removal_scripts(table: KernelTable, chains: &[Name]) -> [String; 2] {
    ["-F", "-X"]
        .map(|option| transaction(table, chains.iter().map(|name| format!("{option} {name}"))))
}

/// Returns the rule that enters a chain of ours from a built-in one.
pub(crate) fn jump(chain: &Name) -> String {
    format!("-m comment --comment {HOOK_COMMENT} -j {chain}")
}

fn transaction(table: KernelTable, lines: impl Iterator<Item = String>) -> String {
    let mut script = format!("*{table}\n");
    for line in lines {
        script.push_str(&line);
        script.push('\n');
    }
    script.push_str("COMMIT\n");
    script
}
