//! Lists of endpoints as trees of chains, so that a packet need not pass by all of them.
//!
//! A list says what happens to the packets of each of many endpoints. Written one after another, each packet would meet
//! half of the rules. So names of interfaces, and addresses, are grouped by the symbols with which they begin, and each
//! group has a chain of its own, which a packet enters only if it belongs there.

use std::collections::BTreeMap;

use super::base::commented;
use crate::name::{Name, Owner};
use crate::ruleset::{Action, Chain, End, Key, KeyPrefix, Match, Rule, Sense, Verdict};

/// What happens to the packets of each endpoint. All rules have the endpoint's key at the list's end.
pub(super) type List = BTreeMap<Key, Vec<Rule>>;

/// So many endpoints are no tree.
const FEW: usize = 8;

/// Plants trees.
#[derive(Debug)]
pub(super) struct Forest<'a> {
    owner: &'a Owner,
    /// The chains below the roots.
    chains: BTreeMap<Name, Chain>,
    /// What happens to packets that nothing in a list ends.
    otherwise: Vec<Rule>,
}

/// An endpoint of a list.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    symbols: Vec<u8>,
    rules: Vec<Rule>,
}

impl<'a> Forest<'a> {
    pub(super) fn new(owner: &'a Owner) -> Self {
        Self { owner, chains: BTreeMap::new(), otherwise: Vec::new() }
    }

    /// Says what happens to packets that nothing in a list ends; without that they return.
    pub(super) fn with_otherwise(self, otherwise: Vec<Rule>) -> Self {
        Self { otherwise, ..self }
    }

    /// Returns the chains below the roots.
    pub(super) fn finish(self) -> BTreeMap<Name, Chain> {
        self.chains
    }

    /// Returns the chain of a list whose keys are at `end` of a packet; at most `levels` chains follow in a row.
    ///
    /// A packet that is no endpoint's leaves at once, where the endpoints have something in common.
    pub(super) fn plant(&mut self, end: End, levels: usize, list: List) -> Chain {
        let entry = |(key, rules): (Key, Vec<Rule>)| Entry { key, symbols: key.symbols(), rules };
        let entries: Vec<Entry> = list.into_iter().map(entry).collect();
        let is_interface = |it: &Entry| matches!(it.key, Key::Interface(_));
        let (interfaces, addresses) = entries.split_at(entries.partition_point(is_interface));
        let mut rules = Vec::new();
        if !interfaces.is_empty() && !addresses.is_empty() {
            // Who enters a group does not come back, and might have one of the addresses.
            rules.extend(interfaces.iter().flat_map(|it| it.rules.clone()));
            rules.extend(self.node(end, levels, addresses));
        } else {
            rules.extend(self.guard(end, &entries));
            rules.extend(self.node(end, levels, &entries));
        }
        rules.extend(self.otherwise.clone());
        Chain { rules }
    }

    /// Returns the rules of entries of one kind, sorted by key.
    fn node(&mut self, end: End, levels: usize, entries: &[Entry]) -> Vec<Rule> {
        if entries.len() <= FEW || levels == 0 {
            return entries.iter().flat_map(|it| it.rules.clone()).collect();
        }
        let mut groups: Vec<&[Entry]> = split(entries).collect();
        // Another group pays as long as its branch costs less than what it takes from the largest one.
        while let Some((at, largest)) = largest(&groups)
            && largest > FEW
            && groups.len() < cost(largest, levels - 1)
        {
            let group = groups.remove(at);
            groups.extend(split(group));
        }
        groups.into_iter().flat_map(|group| self.group(end, levels - 1, group)).collect()
    }

    /// Returns the rules by which packets of nobody leave a list.
    fn guard(&mut self, end: End, entries: &[Entry]) -> Vec<Rule> {
        let Some(prefix) = prefix(entries).filter(|_| entries.len() > 1) else { return Vec::new() };
        let nobody = Match::Under { end, prefix, sense: Sense::NotIn };
        let rule = |action| commented("list", vec![nobody.clone()], action);
        if self.otherwise.is_empty() {
            return vec![rule(Action::Verdict(Verdict::Return))];
        }
        if self.otherwise.iter().all(|it| it.matches.is_empty()) {
            return self.otherwise.iter().map(|it| rule(it.action.clone())).collect();
        }
        // A rule takes one condition on an interface.
        vec![rule(Action::Verdict(Verdict::Goto(self.part(self.otherwise.clone()))))]
    }

    /// Makes a chain below the root, and returns its name.
    fn part(&mut self, rules: Vec<Rule>) -> Name {
        let chain = Chain { rules };
        let name = self.owner.list_chain(&chain.to_string());
        self.chains.insert(name.clone(), chain);
        name
    }

    fn group(&mut self, end: End, levels: usize, group: &[Entry]) -> Vec<Rule> {
        match (group, prefix(group)) {
            ([], _) => Vec::new(),
            ([only], _) => only.rules.clone(),
            // Not reached: what is in a group shares a symbol.
            (_, None) => group.iter().flat_map(|it| it.rules.clone()).collect(),
            (_, Some(prefix)) => {
                let rules = [self.node(end, levels, group), self.otherwise.clone()].concat();
                let name = self.part(rules);
                let matches = vec![Match::Under { end, prefix, sense: Sense::In }];
                vec![commented("list", matches, Action::Verdict(Verdict::Goto(name)))]
            }
        }
    }
}

/// Returns the groups of entries that have one symbol more in common.
fn split(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let shared = shared(entries);
    let symbol = move |it: &Entry| it.symbols.get(shared).copied();
    entries.chunk_by(move |one, other| symbol(one) == symbol(other))
}

/// Returns where the largest group is, and how large.
fn largest(groups: &[&[Entry]]) -> Option<(usize, usize)> {
    let sizes = groups.iter().map(|group| group.len()).enumerate();
    sizes.max_by_key(|(_, size)| *size)
}

/// Returns about how many rules a packet meets in a tree, where each entry has two rules.
fn cost(entries: usize, levels: usize) -> usize {
    let chains = levels + 1;
    let power = u32::try_from(chains).unwrap_or(u32::MAX);
    let of_one = (1_usize..).find(|it| it.saturating_pow(power) >= 2 * entries);
    of_one.unwrap_or_default() * chains
}

fn prefix(entries: &[Entry]) -> Option<KeyPrefix> {
    entries.first()?.key.prefix(shared(entries))
}

/// Returns how many symbols sorted entries have in common.
fn shared(entries: &[Entry]) -> usize {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return 0 };
    first.symbols.iter().zip(&last.symbols).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
#[expect(clippy::panic, clippy::unwrap_used, reason = "test code")]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::ruleset::Interface;
    use crate::tests::meaning::begins;

    /// Returns a list in which each endpoint has two rules, the first of which never matches.
    fn list(keys: &BTreeSet<Key>) -> List {
        let rule = |key: &Key, action| Rule {
            matches: vec![key.at(End::Source)],
            action: Action::Verdict(action),
            comment: String::new(),
        };
        let rules = |key: &Key| {
            let mut never = rule(key, Verdict::Drop);
            never.matches.push(Match::Protocol(0));
            let name = Owner::default().list_chain(&format!("{key:?}"));
            vec![never, rule(key, Verdict::Goto(name))]
        };
        keys.iter().map(|key| (*key, rules(key))).collect()
    }

    /// A packet with an interface and an address. Returns how many rules it meets, and where it is sent.
    fn walk(
        chain: &Chain,
        chains: &BTreeMap<Name, Chain>,
        packet: [Key; 2],
        met: &mut usize,
    ) -> Option<Name> {
        for rule in &chain.rules {
            *met += 1;
            let matches = rule.matches.iter().all(|it| match it {
                Match::Interface { name, .. } => packet.contains(&Key::Interface(*name)),
                Match::Address { address, .. } => packet.contains(&Key::Address(*address)),
                Match::Under { prefix, sense, .. } => {
                    packet.iter().any(|key| begins(*key, prefix)) == (*sense == Sense::In)
                }
                _ => false,
            });
            match &rule.action {
                _ if !matches => {}
                Action::Verdict(Verdict::Goto(name)) => {
                    return match chains.get(name) {
                        Some(part) => walk(part, chains, packet, met),
                        None => Some(name.clone()),
                    };
                }
                Action::Verdict(Verdict::Return) => return None,
                other => panic!("{other:?}"),
            }
        }
        None
    }

    fn keys() -> impl Strategy<Value = BTreeSet<Key>> {
        let interface = "[ab]{1,3}[a-f0-9]{0,2}";
        let interface = interface.prop_map(|it| Key::Interface(Interface::new(&it).unwrap()));
        let address = (0_u32..0x400)
            .prop_map(|it| Key::Address(Ipv4Addr::from_bits(0x0a00_0000 + it).into()));
        let kinds = prop_oneof![
            proptest::collection::btree_set(interface.clone(), 0..60),
            proptest::collection::btree_set(address.clone(), 0..60),
            proptest::collection::btree_set(prop_oneof![interface, address], 0..60),
        ];
        kinds
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn a_tree_leads_where_its_list_leads(keys in keys(), more in keys(), levels in 0_usize..4) {
            let owner = Owner::default();
            let flat = Chain { rules: list(&keys).into_values().flatten().collect() };
            let mut forest = Forest::new(&owner);
            let root = forest.plant(End::Source, levels, list(&keys));
            let chains = forest.finish();
            let of = |wanted: fn(&Key) -> bool, other: Key| {
                let known = keys.iter().chain(&more).copied().filter(wanted);
                known.chain([other]).collect::<Vec<_>>()
            };
            let uplink = Key::Interface(Interface::new("eth0").unwrap());
            let stranger = Key::Address(IpAddr::from([192, 0, 2, 1]));
            for interface in of(|it| matches!(it, Key::Interface(_)), uplink) {
                for address in of(|it| matches!(it, Key::Address(_)), stranger) {
                    let packet = [interface, address];
                    let want = walk(&flat, &BTreeMap::new(), packet, &mut 0);
                    prop_assert_eq!(walk(&root, &chains, packet, &mut 0), want, "{:?}", packet);
                }
            }
        }
    }

    /// Returns the most rules that an endpoint's packet meets, and what others' packets do.
    fn most(levels: usize, names: impl Iterator<Item = String>) -> (usize, usize) {
        let keys: BTreeSet<Key> =
            names.map(|it| Key::Interface(Interface::new(&it).unwrap())).collect();
        let owner = Owner::default();
        let mut forest = Forest::new(&owner);
        let root = forest.plant(End::Source, levels, list(&keys));
        let chains = forest.finish();
        let stranger = Key::Address(IpAddr::from([192, 0, 2, 1]));
        let rules = |key: Key| {
            let mut met = 0;
            walk(&root, &chains, [key, stranger], &mut met);
            met
        };
        let uplink = Key::Interface(Interface::new("eth0").unwrap());
        (keys.into_iter().map(rules).max().unwrap(), rules(uplink))
    }

    #[test]
    fn few_rules_are_met() {
        // As CNI plugins name them: after a digest, or one after another.
        let digest =
            |number: usize| format!("cali{}", crate::name::short_digest(&number.to_string()));
        let digest = |number: usize| digest(number).get(..15).unwrap().to_owned();
        let counted = |number: usize| format!("veth{number}");
        let mut text = String::new();
        for (endpoints, levels) in [(1, 1), (8, 2), (110, 1), (110, 2), (500, 1), (500, 2)] {
            for name in [&digest as &dyn Fn(usize) -> String, &counted] {
                let (own, others) = most(levels, (0..endpoints).map(name));
                text += &format!("{endpoints} in {levels}: {own} of {}, {others}\n", 2 * endpoints);
            }
        }
        expect_test::expect![[r#"
            1 in 1: 2 of 2, 2
            1 in 1: 2 of 2, 2
            8 in 2: 17 of 16, 1
            8 in 2: 17 of 16, 1
            110 in 1: 36 of 220, 1
            110 in 1: 53 of 220, 1
            110 in 2: 31 of 220, 1
            110 in 2: 36 of 220, 1
            500 in 1: 91 of 1000, 1
            500 in 1: 78 of 1000, 1
            500 in 2: 41 of 1000, 1
            500 in 2: 59 of 1000, 1
        "#]]
        .assert_eq(&text);
    }
}
