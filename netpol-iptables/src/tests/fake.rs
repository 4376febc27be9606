//! Tools in memory, as unkind as the real ones.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpol_core::Program;
use netpol_core::net::Family;

use crate::error::IptablesError;
use crate::name::Name;
use crate::probe::KernelTable;
use crate::restore::jump;
use crate::transport::{Tools, Variant};

/// A handle on fake tools; clones are the same host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

/// What a table has: its chains with their rules, as `iptables-save` prints them.
pub(crate) type FakeTable = BTreeMap<String, Vec<String>>;

/// A set: its type, its limit, its members.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct FakeSet {
    pub(crate) shape: String,
    pub(crate) limit: usize,
    pub(crate) members: BTreeSet<String>,
}

/// All that packets can meet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Host {
    pub(crate) tables: BTreeMap<(Variant, KernelTable), FakeTable>,
    pub(crate) sets: BTreeMap<String, FakeSet>,
}

#[derive(Debug, Default)]
struct State {
    host: Host,
    /// The host after each change.
    history: Vec<Host>,
    /// The changes from now on that fail, by number, and how.
    faults: BTreeMap<usize, Fault>,
    /// Words with which nothing can be done, and what the tool says.
    refused: Vec<(String, String)>,
    changes: usize,
    /// How often something was listed.
    listings: usize,
    /// The addresses whose flows were forgotten.
    forgotten: BTreeSet<IpAddr>,
    /// Whether flows cannot be forgotten.
    clinging: bool,
}

/// How a change fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// It is refused.
    Refused,
    /// It is done, but nobody hears of it in time.
    Late,
}

/// What stands for a message where there is none.
const LATE: &str = "late";

impl Fake {
    /// Lets the `nth` change from now on fail. A transaction and a line of `ipset restore` are a change each.
    pub(crate) fn fail(&self, nth: usize, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        let number = state.changes + nth;
        state.faults.insert(number, fault);
    }

    /// Lets everything fail that has this word, or nothing any more.
    pub(crate) fn refuse(&self, refused: Option<(&str, &str)>) {
        let owned = refused.map(|(word, message)| (word.to_owned(), message.to_owned()));
        self.0.lock().unwrap().refused = owned.into_iter().collect();
    }

    /// Lets no flow be forgotten, or again.
    pub(crate) fn cling(&self, clinging: bool) {
        self.0.lock().unwrap().clinging = clinging;
    }

    /// Returns the addresses whose flows were forgotten since the last call.
    pub(crate) fn take_forgotten(&self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.0.lock().unwrap().forgotten)
    }

    /// Returns how often something was listed since the last call.
    pub(crate) fn take_listings(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().listings)
    }

    pub(crate) fn host(&self) -> Host {
        self.0.lock().unwrap().host.clone()
    }

    /// Returns the hosts after each change since the last call.
    pub(crate) fn take_history(&self) -> Vec<Host> {
        std::mem::take(&mut self.0.lock().unwrap().history)
    }

    /// Changes the host behind the back of everybody.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Host)) {
        change(&mut self.0.lock().unwrap().host);
    }
}

fn failed(message: impl Into<String>) -> IptablesError {
    let (command, message) = ("fake".to_owned(), message.into());
    if message.ends_with(LATE) {
        return IptablesError::TimedOut { command, limit: Duration::from_secs(1) };
    }
    IptablesError::Failed { command, message }
}

impl State {
    fn change(
        &mut self,
        text: &str,
        change: impl FnOnce(&mut Host) -> Result<(), String>,
    ) -> Result<(), String> {
        let number = self.changes;
        self.changes += 1;
        let fault = self.faults.get(&number).copied();
        if fault == Some(Fault::Refused) {
            return Err("Resource temporarily unavailable".to_owned());
        }
        if let Some((_, message)) = self.refused.iter().find(|(word, _)| text.contains(word)) {
            return Err(message.clone());
        }
        let mut host = self.host.clone();
        change(&mut host)?;
        self.history.push(host.clone());
        self.host = host;
        if fault == Some(Fault::Late) { Err(LATE.to_owned()) } else { Ok(()) }
    }
}

impl Tools for Fake {
    fn version(&mut self) -> Result<String, IptablesError> {
        Ok("iptables v1.8.9 (nf_tables)".to_owned())
    }

    fn save(
        &mut self,
        variant: Variant,
        table: Option<KernelTable>,
    ) -> Result<String, IptablesError> {
        self.0.lock().unwrap().listings += 1;
        let mut text = String::from("# Generated by a fake\n");
        for ((_, name), chains) in
            self.host().tables.iter().filter(|((it, name), _)| {
                *it == variant && table.is_none_or(|table| table == *name)
            })
        {
            text += &format!("*{name}\n");
            chains.keys().for_each(|chain| text += &format!(":{chain} - [0:0]\n"));
            for (chain, rules) in chains {
                rules.iter().for_each(|rule| text += &format!("[0:0] -A {chain} {rule}\n"));
            }
            text += "COMMIT\n";
        }
        Ok(text)
    }

    fn restore(&mut self, variant: Variant, script: &str) -> Result<(), IptablesError> {
        let mut state = self.0.lock().unwrap();
        for transaction in script.split_inclusive("COMMIT\n") {
            let outcome = state.change(transaction, |host| restore(host, variant, transaction));
            outcome.map_err(failed)?;
        }
        Ok(())
    }

    fn insert_jump(
        &mut self,
        variant: Variant,
        table: KernelTable,
        hook: &str,
        chain: &Name,
    ) -> Result<(), IptablesError> {
        self.restore(variant, &format!("*{table}\n-I {hook} 1 {}\nCOMMIT\n", jump(chain)))
    }

    fn delete_jump(
        &mut self,
        variant: Variant,
        table: KernelTable,
        hook: &str,
        chain: &Name,
    ) -> Result<(), IptablesError> {
        self.restore(variant, &format!("*{table}\n-D {hook} {}\nCOMMIT\n", jump(chain)))
    }

    fn save_sets(&mut self) -> Result<String, IptablesError> {
        self.0.lock().unwrap().listings += 1;
        let mut text = String::new();
        for (name, set) in self.host().sets {
            text += &format!("create {name} {} hashsize 64 maxelem {}\n", set.shape, set.limit);
            set.members.iter().for_each(|member| text += &format!("add {name} {member}\n"));
        }
        Ok(text)
    }

    fn restore_sets(&mut self, script: &str) -> Result<(), IptablesError> {
        let mut state = self.0.lock().unwrap();
        for (index, line) in script.lines().enumerate() {
            let outcome = state.change(line, |host| set_line(host, line));
            outcome.map_err(|error| failed(format!("Error in line {}: {error}", index + 1)))?;
        }
        Ok(())
    }

    fn wait_for_packets(&mut self) {}

    fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<u64, IptablesError> {
        let mut state = self.0.lock().unwrap();
        if state.clinging {
            let source = std::io::ErrorKind::OutOfMemory.into();
            return Err(IptablesError::Conntrack { source });
        }
        state.forgotten.extend(addresses);
        Ok(addresses.len().try_into().unwrap())
    }

    fn reevaluate_flows(&mut self, _: &Program) -> Result<u64, IptablesError> {
        Ok(0)
    }
}

fn restore(host: &mut Host, variant: Variant, transaction: &str) -> Result<(), String> {
    let mut lines = transaction.lines();
    let name = match lines.next() {
        Some("*raw") => KernelTable::Raw,
        Some("*filter") => KernelTable::Filter,
        Some("*mangle") => KernelTable::Mangle,
        other => return Err(format!("no table: {other:?}")),
    };
    let table = host.tables.entry((variant, name)).or_default();
    for hook in ["FORWARD", "INPUT", "OUTPUT", "POSTROUTING", "PREROUTING"] {
        table.entry(hook.to_owned()).or_default();
    }
    for line in lines.filter(|line| *line != "COMMIT") {
        let (option, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(chain) = option.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap();
            assert!(name.len() <= 28, "{name}");
            table.insert(chain.to_owned(), Vec::new());
            continue;
        }
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        let missing = format!("Chain '{chain}' does not exist");
        let rules = table.get(chain).ok_or(missing)?.clone();
        match option {
            "-A" | "-I" => {
                let rule = rule.strip_prefix("1 ").unwrap_or(rule);
                refers_to_what_exists(table, &host.sets, rule)?;
                let rules = table.get_mut(chain).unwrap();
                let at = if option == "-A" { rules.len() } else { 0 };
                rules.insert(at, printed(rule));
            }
            "-D" => {
                let at = rules.iter().position(|it| *it == printed(rule));
                table.get_mut(chain).unwrap().remove(at.ok_or("Bad rule (does not exist)")?);
            }
            "-F" => table.get_mut(chain).unwrap().clear(),
            "-X" => {
                let used = table.values().flatten().any(|it| target(it) == Some(chain));
                if used || !rules.is_empty() {
                    return Err("Too many links".to_owned());
                }
                table.remove(chain);
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(())
}

fn refers_to_what_exists(
    table: &FakeTable,
    sets: &BTreeMap<String, FakeSet>,
    rule: &str,
) -> Result<(), String> {
    if let Some(set) = sets_of(rule).find(|set| !sets.contains_key(*set)) {
        return Err(format!("Set {set} doesn't exist."));
    }
    match target(rule) {
        Some("DROP" | "RETURN" | "NFLOG" | "CT" | "MARK" | "REJECT") => Ok(()),
        Some(chain) if table.contains_key(chain) => Ok(()),
        other => Err(format!("goto '{other:?}' is not a chain")),
    }
}

/// Returns the names of the sets that a rule refers to.
pub(crate) fn sets_of(rule: &str) -> impl Iterator<Item = &str> {
    rule.split("--match-set ").skip(1).filter_map(|rest| rest.split(' ').next())
}

/// Returns where a rule leads.
pub(crate) fn target(rule: &str) -> Option<&str> {
    let rest = rule.split(" -j ").nth(1).or_else(|| rule.split(" -g ").nth(1));
    let rest = rest.or_else(|| rule.strip_prefix("-j ")).or_else(|| rule.strip_prefix("-g "));
    rest?.split(' ').next()
}

/// Returns a rule as iptables prints it.
fn printed(rule: &str) -> String {
    let mut words: Vec<String> = rule.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        let before = words[index - 1].clone();
        let word = &mut words[index];
        match before.as_str() {
            "--comment" => *word = format!("\"{}\"", word.trim_matches('"')),
            "-s" | "-d" if !word.contains('/') => {
                *word += if word.contains(':') { "/128" } else { "/32" };
            }
            "--limit" => *word = "10/sec".to_owned(),
            _ => {}
        }
    }
    words.join(" ")
}

fn set_line(host: &mut Host, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    let used = |host: &Host, name: &str| {
        let rules = host.tables.values().flat_map(BTreeMap::values).flatten();
        rules.into_iter().any(|rule| sets_of(rule).any(|set| set == name))
    };
    match words.as_slice() {
        ["create", name, kind, "family", family, "hashsize", _, "maxelem", limit] => {
            if host.sets.contains_key(*name) {
                return Err(
                    "Set cannot be created: set with the same name already exists".to_owned()
                );
            }
            assert!(name.len() <= 31, "{name}");
            let (shape, limit) = (format!("{kind} family {family}"), limit.parse().unwrap());
            let members = BTreeSet::new();
            host.sets.insert((*name).to_owned(), FakeSet { shape, limit, members });
        }
        ["add", name, member] => {
            let set =
                host.sets.get_mut(*name).ok_or("The set with the given name does not exist")?;
            if member.starts_with("0.0.0.0,") || ["0.0.0.0", "::"].contains(member) {
                return Err(
                    "Null-valued element, cannot be stored in a hash type of set".to_owned()
                );
            }
            if set.members.insert((*member).to_owned()) && set.members.len() > set.limit {
                return Err("Hash is full, cannot add more elements".to_owned());
            }
        }
        ["del", name, member] => {
            let set =
                host.sets.get_mut(*name).ok_or("The set with the given name does not exist")?;
            set.members.remove(*member);
        }
        ["swap", one, other] => {
            let sets = [one, other].map(|name| host.sets.get(*name).cloned());
            let [Some(first), Some(second)] = sets else { return Err("does not exist".to_owned()) };
            if first.shape != second.shape {
                return Err("The sets cannot be swapped: their type does not match".to_owned());
            }
            host.sets.insert((*one).to_owned(), second);
            host.sets.insert((*other).to_owned(), first);
        }
        ["destroy", name] if used(host, name) => {
            return Err("Set cannot be destroyed: it is in use by a kernel component".to_owned());
        }
        ["destroy", name] => drop(host.sets.remove(*name)),
        _ => return Err(format!("Syntax error: {line}")),
    }
    Ok(())
}

impl Host {
    /// Returns the table that the dataplane uses by default.
    pub(crate) fn filter(&self, family: Family) -> FakeTable {
        let variant = Variant { flavour: crate::Flavour::Nft, family };
        self.tables.get(&(variant, KernelTable::Filter)).cloned().unwrap_or_default()
    }
}
