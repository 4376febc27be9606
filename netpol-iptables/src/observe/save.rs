//! The output of `iptables-save`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Listed, ListedRule, Mark, Table};
use crate::error::IptablesError;
use crate::name::{HOOK_COMMENT, Name, Owner};
use crate::probe::KernelTable;
use crate::ruleset::{Interface, Key};

/// Returns what a listing has of ours in a table.
///
/// # Errors
///
/// [`IptablesError::Unreadable`] if the listing says so. What it has else of the table is nothing then.
pub(crate) fn table(
    owner: &Owner,
    name: KernelTable,
    listing: &str,
) -> Result<Table, IptablesError> {
    // Printed by iptables 1.8.9, which ends with success then.
    if listing.contains(&format!("# Table `{name}' is incompatible")) {
        return Err(IptablesError::Unreadable { table: name.as_str() });
    }
    let mut table = Table { name, ..Table::default() };
    let mut positions = BTreeMap::new();
    for line in lines_of(name.as_str(), listing) {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap_or_default();
            if let Some(name) = owner.own_chain(name) {
                table.chains.entry(name).or_default();
            }
            continue;
        }
        let Some((packets, chain, text)) = rule(line) else { continue };
        match owner.own_chain(chain) {
            Some(name) => {
                let rule = listed(owner, packets, text);
                table.chains.entry(name).or_default().rules.push(rule);
            }
            None => {
                let position = positions.entry(chain.to_owned()).or_insert(0_usize);
                if let Some(entered) = hook(owner, text) {
                    let hooks = table.hooks.entry(chain.to_owned()).or_default();
                    hooks.push((*position, entered.clone()));
                    let entered: &mut Listed = table.chains.entry(entered).or_default();
                    entered.entered_from.insert(chain.to_owned());
                }
                *position += 1;
            }
        }
    }
    Ok(table)
}

/// Returns whether a listing of all tables has chains of an owner, as far as it can be read.
pub(crate) fn holds_chains_of(owner: &Owner, listing: &str) -> bool {
    let holds = |name| table(owner, name, listing).is_ok_and(|table| !table.is_empty());
    KernelTable::ALL.into_iter().any(holds)
}

/// Returns the lines of one table in a listing of one or more.
fn lines_of<'l>(wanted: &str, listing: &'l str) -> impl Iterator<Item = &'l str> {
    let mut inside = false;
    listing.lines().filter(move |line| {
        if let Some(name) = line.strip_prefix('*') {
            inside = name == wanted;
        }
        inside
    })
}

/// Splits a line such as `[3:180] -A CHAIN -j DROP` into the number of packets, the chain and the rest.
fn rule(line: &str) -> Option<(u64, &str, &str)> {
    let (packets, rest) = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((counters, rest)) => (counters.split(':').next()?.parse().ok()?, rest),
        None => (0, line),
    };
    let rest = rest.strip_prefix("-A ")?;
    let (chain, text) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((packets, chain, text))
}

/// Returns the chain that a rule of a built-in chain enters, if the rule is our jump.
fn hook(owner: &Owner, text: &str) -> Option<Name> {
    let words = words(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["-m", "comment", "--comment", comment, "-j", chain] if *comment == HOOK_COMMENT => {
            owner.own_chain(chain)
        }
        _ => None,
    }
}

fn listed(owner: &Owner, packets: u64, text: &str) -> ListedRule {
    let words = words(text);
    let mut mark = Mark { comment: String::new(), sets: Vec::new(), target: String::new() };
    let (mut interface, mut source, mut destination, mut target) = (None, None, None, None);
    for pair in words.windows(2) {
        let [option, value] = pair else { continue };
        match option.as_str() {
            "--comment" => mark.comment.clone_from(value),
            "--match-set" => mark.sets.extend(owner.own_set(value)),
            "-j" | "-g" => {
                mark.target = format!("{option} {value}");
                target = owner.own_chain(value);
            }
            "-i" | "-o" => interface = interface.or_else(|| Interface::new(value)),
            "-s" => source = address(value),
            "-d" => destination = address(value),
            _ => {}
        }
    }
    let address = source.or(destination).map(Key::Address);
    let key = interface.map(Key::Interface).or(address);
    ListedRule { mark, key, source, target, packets, text: text.to_owned() }
}

/// Returns the address of a text such as `10.0.0.1/32`.
fn address(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    matches!(length, "" | "32" | "128").then(|| address.parse().ok())?
}

/// Splits a rule into words as `iptables-restore` does: quotes hold a word together, a backslash takes the next
/// character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    /// Printed by iptables 1.8.9, with and without counters.
    const LISTING: &str = r#"# Warning: iptables-legacy tables present, use iptables-legacy-save to see them
# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sat Nov 21 02:19:29 2026
*mangle
:PREROUTING ACCEPT [0:0]
:NP-FWD - [0:0]
-A FORWARD -m comment --comment "np:hook" -j NP-FWD
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:NP-FWD - [0:0]
:NP-I-aaaaaaaaaaaaaaaaaaaa - [0:0]
:KUBE-FORWARD - [0:0]
[7:80] -A FORWARD -s 10.0.0.1/32 -m comment --comment "it's \"np:hook\" -j NP-FWD" -j ACCEPT
[7:80] -A FORWARD -m comment --comment "np:hook" -j NP-FWD
[0:0] -A FORWARD -j NP-FWD
[5:0] -A NP-FWD -i veth.a-b@c -m comment --comment "np:dispatch:1" -g NP-I-aaaaaaaaaaaaaaaaaaaa
-A NP-FWD -s 10.0.0.2/32 -j DROP
[12:9] -A NP-I-aaaaaaaaaaaaaaaaaaaa -p tcp -m set --match-set np4s-a src -m set ! --match-set other src -m comment --comment "np:1:2" -j RETURN
-A NP-I-aaaaaaaaaaaaaaaaaaaa -m limit --limit 10/sec -m comment --comment np:3:4 -j NFLOG --nflog-prefix  "np1:in:0123456789" --nflog-group 100
COMMIT
"#;

    #[test]
    fn a_table_is_read() {
        let owner = Owner::default();
        let table = table(&owner, KernelTable::Filter, LISTING).unwrap();
        let hooks = format!("{:?}", table.hooks);
        assert_eq!(hooks, r#"{"FORWARD": [(1, Name("NP-FWD"))]}"#);
        let names: Vec<&str> = table.chains.keys().map(Name::as_str).collect();
        assert_eq!(names, ["NP-FWD", "NP-I-aaaaaaaaaaaaaaaaaaaa"]);
        let rules: Vec<String> = table
            .chains
            .values()
            .flat_map(|chain| &chain.rules)
            .map(|it| {
                let sets: Vec<&str> = it.mark.sets.iter().map(Name::as_str).collect();
                format!(
                    "{} {sets:?} {} {:?} {}",
                    it.mark.comment, it.mark.target, it.key, it.packets
                )
            })
            .collect();
        assert_eq!(
            rules,
            [
                "np:dispatch:1 [] -g NP-I-aaaaaaaaaaaaaaaaaaaa Some(Interface(veth.a-b@c)) 5",
                " [] -j DROP Some(Address(10.0.0.2)) 0",
                r#"np:1:2 ["np4s-a"] -j RETURN None 12"#,
                "np:3:4 [] -j NFLOG None 0",
            ]
        );
        assert_eq!(table.live_chains().len(), 2);
    }

    #[test]
    fn a_table_that_is_not_listed_is_not_empty() {
        let listing = format!("# Table `filter' is incompatible, use 'nft' tool.\n{LISTING}");
        let read = |name| table(&Owner::default(), name, &listing);
        assert!(matches!(
            read(KernelTable::Filter).unwrap_err(),
            IptablesError::Unreadable { table: "filter" }
        ));
        assert!(!read(KernelTable::Mangle).unwrap().is_empty());
        assert!(holds_chains_of(&Owner::default(), &listing));
    }

    #[test]
    fn other_owners_have_nothing() {
        assert!(holds_chains_of(&Owner::default(), LISTING));
        let other = Owner::new("a").unwrap_or_default();
        assert!(!holds_chains_of(&other, LISTING));
    }

    #[test]
    fn words_are_those_of_iptables_restore() {
        assert_eq!(
            words(r#"-m comment --comment "a \"b\" \\ c" -j X"#).join("|"),
            r#"-m|comment|--comment|a "b" \ c|-j|X"#
        );
        assert_eq!(words("  a   b ").join("|"), "a|b");
        assert_eq!(words(r#"a "" b"#).join("|"), "a||b");
        assert_eq!(words(r#"a "unfinished"#).join("|"), "a|unfinished");
    }
}
