//! Laws of planning and executing, on random programs and fake tools.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::model::{Action, Attachment, Mode, Treatment, UnknownInterfaces};
use netpol_core::net::{Family, Prefix, Transport};
use netpol_core::program::{Members, Program, StageEnd};
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update, Verdict};
use proptest::prelude::*;
use proptest::sample::select;

use super::fake::{Fake, FakeTable, Fault, Host, sets_of, target};
use super::program::{Builder, deny_unless, in_nets, in_set, numbers, rule, stage, to_ports};
use crate::{IptablesConfig, IptablesDataplane};

/// Returns a program for every list of numbers: one endpoint for each, with a policy of rules that follow from it.
pub(super) fn program(seeds: &[u16], members: &[u8]) -> Program {
    let mut builder = Builder::new();
    let texts: Vec<String> =
        members.iter().map(|member| format!("10.0.{}.{member}", member % 4)).collect();
    let sets: Vec<_> = (0..3)
        .map(|set| {
            let chosen: BTreeSet<&str> =
                texts.iter().skip(set).step_by(set + 1).map(String::as_str).collect();
            let all: Vec<&str> = chosen.into_iter().chain(["10.9.0.0/16"]).collect();
            builder.addresses(&format!("set{set}"), &all)
        })
        .collect();
    let ports: Vec<(&str, u16)> = texts.iter().step_by(2).map(|it| (it.as_str(), 80)).collect();
    let http = builder.named_port("http", &ports);
    for (index, seed) in seeds.iter().enumerate() {
        let bits = |shift: u32, mask: u16| (seed >> shift) & mask;
        let actions = [Action::Allow, Action::Deny, Action::Pass, Action::Log];
        let rules = (0..bits(0, 3)).map(|number| {
            let id = u8::try_from(bits(2, 3) + number).unwrap();
            let mut rule = rule(id, actions[usize::from(bits(4, 3) + number) % 4]);
            rule.remote = match (bits(6, 3) + number) % 4 {
                0 => in_nets(&["10.0.0.0/9", "2001:db8::/32"]),
                it => in_set(sets[usize::from(it - 1)]),
            };
            let ranges = [(80, 80), (100 + bits(8, 3), 110)];
            let mut ports = numbers(&ranges[..usize::from(1 + number % 2)]);
            ports.sets.extend((number == 2).then_some(http));
            rule.l4 = to_ports(Transport::Tcp, ports);
            rule
        });
        let end = if bits(10, 1) == 0 { StageEnd::Deny } else { StageEnd::Next };
        let default = if bits(11, 1) == 0 { Verdict::Allow } else { Verdict::Deny };
        let stages = (0..=bits(12, 1)).map(|_| stage(rules.clone().collect(), end)).collect();
        let policy = builder.policy(netpol_core::program::PolicySet { stages, default });
        let addresses = [format!("10.1.0.{index}"), format!("fd00::{index}")];
        let mut endpoint =
            builder.endpoint(&format!("pod{index}"), &addresses.each_ref().map(String::as_str));
        endpoint.ingress = policy;
        if bits(13, 1) == 1 {
            endpoint.egress = policy;
        }
        if bits(14, 1) == 1 {
            endpoint.attachment = Attachment::Address;
        }
        if bits(13, 7) == 7 {
            endpoint.mode = Mode::Isolate;
        }
        builder.add(endpoint);
    }
    builder.build()
}

pub(crate) fn programs() -> impl Strategy<Value = Program> {
    let members = proptest::collection::vec(any::<u8>(), 0..60);
    let treatments = vec![Treatment::Closed, Treatment::Open, Treatment::EgressTracked];
    let unknown = (proptest::sample::subsequence(vec!["pod", "cali"], 0..=2), select(treatments));
    (proptest::collection::vec(any::<u16>(), 0..5), members, unknown).prop_map(
        |(seeds, members, (prefixes, treatment))| {
            let prefixes = prefixes.iter().map(|it| it.parse().unwrap()).collect();
            let mut program = program(&seeds, &members);
            program.unknown = UnknownInterfaces { prefixes, treatment };
            program
        },
    )
}

/// Returns programs of so many endpoints that lists of them are trees.
fn crowds() -> impl Strategy<Value = Program> {
    let members = proptest::collection::vec(any::<u8>(), 0..4);
    (proptest::collection::vec(any::<u16>(), 10..14), members)
        .prop_map(|(seeds, members)| program(&seeds, &members))
}

/// Returns programs of the same endpoints whose members differ a little, as when pods change labels.
fn relabelled() -> impl Strategy<Value = (Program, Program)> {
    let seeds = proptest::collection::vec(any::<u16>(), 1..4);
    let members = proptest::collection::vec(any::<u8>(), 1..20);
    (
        seeds,
        members,
        any::<proptest::sample::Index>(),
        any::<proptest::sample::Index>(),
        any::<u16>(),
    )
        .prop_map(|(seeds, members, one, other, edit)| {
            let mut changed = members.clone();
            changed.swap(one.index(members.len()), other.index(members.len()));
            changed.truncate(members.len() - usize::from(edit & 1));
            let mut edited = seeds.clone();
            if edit & 2 == 2 {
                edited[0] ^= edit & 0x0fff;
            }
            (program(&seeds, &members), program(&edited, &changed))
        })
}

fn full(program: &Program) -> Update {
    Update::new(1, Change::Full(Arc::new(program.clone())))
}

pub(super) fn open(fake: &Fake) -> IptablesDataplane {
    let (families, config) = (Family::BOTH.to_vec(), IptablesConfig::default());
    IptablesDataplane::with_tools(Box::new(fake.clone()), families, config).unwrap()
}

/// What judges an endpoint in one direction, as a packet of one remote address meets it: every look-up is replaced by
/// its result, every jump by the rules there.
type Policies = BTreeMap<(Family, String, IpAddr), String>;

fn policies(host: &Host, remotes: &BTreeSet<IpAddr>) -> Policies {
    let mut policies = Policies::new();
    for family in Family::BOTH {
        let table = host.filter(family);
        let mut expanded = BTreeMap::new();
        for list in ["NP-EGRESS", "NP-INGRESS", "NP-OWN", "NP-ISO-FROM", "NP-ISO-TO"] {
            for rule in listed(&table, list) {
                let key = format!("{list} {}", rule.split(" -m ").next().unwrap());
                for &remote in remotes.iter().filter(|it| Family::of(**it) == family) {
                    let entry = target(rule).unwrap();
                    let text = expanded
                        .entry((entry.to_owned(), remote))
                        .or_insert_with(|| expand(host, &table, entry, remote));
                    policies.insert((family, key.clone(), remote), text.clone());
                }
            }
        }
    }
    policies
}

/// Returns the rules of a list, and of its parts in their place.
fn listed<'t>(table: &'t FakeTable, list: &str) -> Vec<&'t str> {
    let rules = table.get(list).into_iter().flatten();
    let part = |rule: &'t String| match target(rule) {
        Some(part) if part.starts_with("NP-L-") => listed(table, part),
        // What leaves a list depends on who else is in it.
        Some("RETURN") if rule.starts_with("! ") => Vec::new(),
        _ => vec![rule.as_str()],
    };
    rules.flat_map(part).collect()
}

pub(super) fn expand(host: &Host, table: &FakeTable, chain: &str, remote: IpAddr) -> String {
    let Some(rules) = table.get(chain) else { return chain.to_owned() };
    let mut text = String::new();
    for rule in rules {
        let target = target(rule).unwrap();
        // The words of a rule, its comment with the digest of its text taken out.
        let mut seen = rule.replace(target, &expand(host, table, target, remote));
        if let Some((before, rest)) = seen.clone().split_once("--comment \"np:") {
            let rest = rest.split_once("\" ").unwrap().1;
            seen = format!("{before}{rest}");
        }
        for set in sets_of(rule) {
            seen = seen.replace(set, &found(host, set, remote));
        }
        text += &format!("{{{seen}}}");
    }
    text
}

fn found(host: &Host, set: &str, remote: IpAddr) -> String {
    let members = &host.sets[set].members;
    let prefix = format!("{remote},");
    let with_ports = members.iter().filter_map(|it| it.strip_prefix(&prefix)).collect::<Vec<_>>();
    let covers = |it: &String| it.parse::<Prefix>().is_ok_and(|prefix| prefix.contains(remote));
    let found = members.contains(&remote.to_string()) || members.iter().any(covers);
    format!("{found} {with_ports:?}")
}

pub(super) fn remotes(programs: [&Program; 2]) -> BTreeSet<IpAddr> {
    let sets = programs.into_iter().flat_map(|program| program.address_sets.values());
    let addresses = sets.flat_map(|set| match &set.members {
        Members::Addresses { exact, .. } => exact.iter().collect::<Vec<_>>(),
        Members::Ports(ports) => ports.iter().map(|(address, _)| *address).collect(),
    });
    let others = ["10.0.9.9", "10.9.0.1", "11.0.0.1", "fd00::9"].map(|it| it.parse().unwrap());
    addresses.chain(others).collect()
}

/// Returns the entries of endpoints that both programs have.
fn stay(policies: Policies, old: &Policies, new: &Policies) -> Policies {
    let keys = |it: &Policies| it.keys().cloned().collect::<BTreeSet<_>>();
    let both: BTreeSet<_> = keys(old).intersection(&keys(new)).cloned().collect();
    policies.into_iter().filter(|(key, _)| both.contains(key)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn a_program_is_enforced_and_then_nothing_is_left_to_do(one in programs(), two in programs()) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        for program in [&one, &two, &one] {
            let applied = dataplane.apply(full(program)).unwrap();
            prop_assert!(applied.isolated.is_empty());
            fake.take_history();
            dataplane.apply(full(program)).unwrap();
            open(&fake).apply(full(program)).unwrap();
            prop_assert!(fake.take_history().is_empty(), "something was left to do");
            prop_assert_eq!(dataplane.audit(program).unwrap().differences, Vec::<String>::new());
        }
        dataplane.remove().unwrap();
        let host = fake.host();
        prop_assert_eq!(host.sets, BTreeMap::new());
        prop_assert!(host.tables.values().all(|table| table.values().all(Vec::is_empty) && table.len() == 5));
    }

    #[test]
    fn packets_meet_the_old_policy_or_the_new_one(
        random in (programs(), programs()), related in relabelled(),
    ) {
        meets_the_old_or_the_new(random)?;
        meets_the_old_or_the_new(related)?;
    }

    #[test]
    fn a_failure_leaves_the_old_state_in_force(
        random in (programs(), programs()), related in relabelled(), nth in 0_usize..60, late: bool,
    ) {
        let fault = if late { Fault::Late } else { Fault::Refused };
        for (one, two) in [random, related] {
            let fake = Fake::default();
            let mut dataplane = open(&fake);
            dataplane.apply(full(&one)).unwrap();
            let remotes = remotes([&one, &two]);
            let old = policies(&fake.host(), &remotes);
            fake.fail(nth, fault);
            if let Err(error) = dataplane.apply(full(&two)) {
                prop_assert_eq!(error.kind(), DataplaneErrorKind::Transient);
                prop_assert_eq!(&policies(&fake.host(), &remotes), &old);
            }
            dataplane.apply(full(&two)).unwrap();
            dataplane.apply(full(&two)).unwrap();
            prop_assert_eq!(dataplane.audit(&two).unwrap().differences, Vec::<String>::new());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn so_they_do_where_lists_are_trees(crowds in (crowds(), crowds())) {
        meets_the_old_or_the_new(crowds)?;
    }
}

/// Checks what packets meet between any two changes on the way from one program to another.
fn meets_the_old_or_the_new((one, two): (Program, Program)) -> Result<(), TestCaseError> {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    dataplane.apply(full(&one)).unwrap();
    let remotes = remotes([&one, &two]);
    let old = policies(&fake.host(), &remotes);
    fake.take_history();
    dataplane.apply(full(&two)).unwrap();
    let new = policies(&fake.host(), &remotes);
    for host in fake.take_history() {
        for (entry, policy) in stay(policies(&host, &remotes), &old, &new) {
            prop_assert!(
                old[&entry] == policy || new[&entry] == policy,
                "{:?}: {}\nold {}\nnew {}",
                entry,
                policy,
                old[&entry],
                new[&entry]
            );
        }
    }
    Ok(())
}

/// Returns a program of two endpoints that need different sets of prefixes.
fn good_and_bad() -> Program {
    let mut builder = Builder::new();
    for (name, net) in [("bad", "10.0.0.0/24"), ("good", "10.0.1.0/24")] {
        let mut it = rule(1, Action::Allow);
        it.remote = in_nets(&[net]);
        let mut endpoint = builder.endpoint(name, &["10.1.0.1"]);
        endpoint.ingress = builder.policy(deny_unless(vec![it]));
        builder.add(endpoint);
    }
    builder.build()
}

#[test]
fn what_the_kernel_refuses_isolates_only_who_needs_it() {
    let program = good_and_bad();
    let reference = Fake::default();
    open(&reference).apply(full(&program)).unwrap();
    let want = reference.host();
    let bad = want.sets.iter().find(|(_, set)| set.members.contains("10.0.0.0/24")).unwrap().0;
    let chain = want.filter(Family::V4);
    let chain = chain.iter().find(|(_, rules)| rules.iter().any(|it| it.contains(bad.as_str())));
    let chain = chain.unwrap().0;
    for (line, message) in [
        (format!("add {bad}"), "Hash is full, cannot add more elements"),
        (format!("-A {chain}"), "line 3 failed: File too large."),
    ] {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        fake.refuse(Some((&line, message)));
        let applied = dataplane.apply(full(&program)).unwrap();
        let names: Vec<_> =
            applied.isolated.iter().map(|(id, error)| (id.name.as_str(), error.kind())).collect();
        assert_eq!(names, [("bad", DataplaneErrorKind::Capacity)], "{line}");
        let table = fake.host().filter(Family::V4);
        assert!(table["NP-ISO-FROM"][0].starts_with("-i bad "), "{table:?}");
        let dispatched = table["NP-INGRESS"].iter().filter(|it| it.contains(" -g "));
        assert_eq!(dispatched.count(), 1);

        // The next update has another chance.
        fake.refuse(None);
        assert!(dataplane.apply(full(&program)).unwrap().isolated.is_empty());
        assert_eq!(fake.host(), want);
    }
}

/// Members change in place here, because no chain of their policy changes, and then something else fails.
#[test]
fn members_are_taken_back_too() {
    let build = |members: &[&str], net: &str| {
        let mut builder = Builder::new();
        let (mut of_set, mut of_net) = (rule(1, Action::Allow), rule(2, Action::Allow));
        of_set.remote = in_set(builder.addresses("peers", members));
        of_net.remote = in_nets(&[net]);
        for (name, rule) in [("one", of_set), ("two", of_net)] {
            let mut endpoint = builder.endpoint(name, &["10.1.0.1"]);
            endpoint.ingress = builder.policy(deny_unless(vec![rule]));
            builder.add(endpoint);
        }
        builder.build()
    };
    let (one, two) = (build(&["10.0.0.1"], "10.0.0.0/24"), build(&["10.0.0.2"], "10.0.1.0/24"));
    let remotes = remotes([&one, &two]);
    let mut failures = 0;
    for nth in 0..20 {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        let old = policies(&fake.host(), &remotes);
        fake.fail(nth, Fault::Refused);
        if dataplane.apply(full(&two)).is_err() {
            failures += 1;
            assert_eq!(policies(&fake.host(), &remotes), old, "change {nth}");
        }
    }
    assert!(failures >= 5, "{failures}");
}

#[test]
fn what_is_held_back_by_others_is_swept_later() {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    dataplane.apply(full(&good_and_bad())).unwrap();
    let set = fake.host().sets.keys().next().unwrap().clone();
    let holder = vec![format!("-m set --match-set {set} src -j DROP")];
    let variant = *fake.host().tables.keys().next().unwrap();
    fake.change(|host| {
        host.tables.get_mut(&variant).unwrap().insert("OTHER".to_owned(), holder);
    });
    dataplane.apply(full(&program(&[], &[]))).unwrap();
    assert_eq!(fake.host().sets.keys().collect::<Vec<_>>(), [&set], "it is in use");
    fake.change(|host| {
        host.tables.get_mut(&variant).unwrap().remove("OTHER");
    });
    dataplane.apply(full(&program(&[], &[]))).unwrap();
    assert_eq!(fake.host().sets, BTreeMap::new());
}

#[test]
fn jumps_stay_the_first() {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    let program = good_and_bad();
    dataplane.apply(full(&program)).unwrap();
    let want = fake.host();
    let variant = *want.tables.keys().next().unwrap();
    let forward = |fake: &Fake| fake.host().tables[&variant]["FORWARD"].clone();
    let jump = forward(&fake)[0].clone();
    for before in [vec!["-j DROP".to_owned(), jump.clone()], vec![jump.clone(), jump.clone()]] {
        fake.change(|host| {
            host.tables.get_mut(&variant).unwrap().insert("FORWARD".to_owned(), before.clone());
        });
        fake.take_history();
        dataplane.apply(full(&program)).unwrap();
        assert_eq!(forward(&fake)[0], jump);
        assert_eq!(forward(&fake).iter().filter(|rule| **rule == jump).count(), 1);
        // It is never away.
        assert!(
            fake.take_history().iter().all(|host| host.tables[&variant]["FORWARD"].contains(&jump))
        );
    }
}
