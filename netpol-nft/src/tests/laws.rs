//! Laws of planning and executing, on random programs and the fake kernel.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netpol_core::model::{Action, Attachment, Mode, Treatment, UnknownInterfaces};
use netpol_core::net::Transport;
use netpol_core::program::{Program, StageEnd};
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update, Verdict};
use nftnl_sys::libc;
use proptest::prelude::*;
use proptest::sample::select;

use super::fake::Fake;
use super::on_the_way::on_the_way;
use super::program::{Builder, in_nets, in_set, numbers, rule, stage, to_ports};
use crate::name::{Name, Owner};
use crate::observe::Observed;
use crate::plan::{Extra, plan};
use crate::render::{Context, Options, render};
use crate::ruleset::{Elements, Ruleset, Verdict as NftVerdict};
use crate::transport::Kernel;
use crate::{NftConfig, NftDataplane};
use netpol_netfilter::Logging;

const OPTIONS: Options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };

/// Returns a program for every list of numbers: one endpoint for each, with a policy of rules that follow from it.
pub(super) fn program(seeds: &[u16], members: &[u8]) -> Program {
    let mut builder = Builder::new();
    let texts: Vec<String> =
        members.iter().map(|member| format!("10.0.{}.{member}", member % 4)).collect();
    let sets: Vec<_> = (0..3)
        .map(|set| {
            let chosen = texts
                .iter()
                .skip(set)
                .step_by(set + 1)
                .map(String::as_str)
                .collect::<BTreeSet<_>>();
            builder.addresses(
                &format!("set{set}"),
                &chosen.into_iter().chain(["10.9.0.0/16"]).collect::<Vec<_>>(),
            )
        })
        .collect();
    for (index, seed) in seeds.iter().enumerate() {
        let bits = |shift: u32, mask: u16| (seed >> shift) & mask;
        let actions = [Action::Allow, Action::Deny, Action::Pass, Action::Log];
        let rules = (0..bits(0, 3)).map(|number| {
            let mut rule = rule(
                u8::try_from(bits(2, 3) + number).unwrap(),
                actions[usize::from(bits(4, 3) + number) % 4],
            );
            rule.remote = match (bits(6, 3) + number) % 4 {
                0 => in_nets(&["10.0.0.0/9", "2001:db8::/32"]),
                it => in_set(sets[usize::from(it - 1)]),
            };
            rule.l4 = to_ports(
                Transport::Tcp,
                numbers(&[(80, 80), (100 + bits(8, 3), 110)][..usize::from(1 + number % 2)]),
            );
            rule
        });
        let end = if bits(10, 1) == 0 { StageEnd::Deny } else { StageEnd::Next };
        let default = if bits(11, 1) == 0 { Verdict::Allow } else { Verdict::Deny };
        let stages: Vec<_> =
            (0..=bits(12, 1)).map(|_| stage(rules.clone().collect(), end)).collect();
        let policy = builder.policy(netpol_core::program::PolicySet { stages, default });
        let mut endpoint = builder.endpoint(
            &format!("pod{index}"),
            &[&format!("10.1.0.{index}"), &format!("fd00::{index}")],
        );
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

/// Programs of nodes that may treat unknown interfaces in any way.
pub(crate) fn treating() -> impl Strategy<Value = Program> {
    let treatments = vec![Treatment::Closed, Treatment::Open, Treatment::EgressTracked];
    let unknown = (proptest::sample::subsequence(vec!["pod", "cali"], 0..=2), select(treatments));
    (programs(), unknown).prop_map(|(mut program, (prefixes, treatment))| {
        let prefixes = prefixes.iter().map(|it| it.parse().unwrap()).collect();
        program.unknown = UnknownInterfaces { prefixes, treatment };
        program
    })
}

pub(crate) fn programs() -> impl Strategy<Value = Program> {
    let members = proptest::collection::vec(any::<u8>(), 0..60);
    (proptest::collection::vec(any::<u16>(), 0..5), members)
        .prop_map(|(seeds, members)| program(&seeds, &members))
}

fn full(program: &Program) -> Update {
    Update::new(1, Change::Full(Arc::new(program.clone())))
}

fn open(fake: &Fake) -> NftDataplane {
    NftDataplane::with_kernel(Box::new(fake.clone()), NftConfig::default()).unwrap()
}

/// Returns what packets can meet.
fn live(ruleset: &Ruleset) -> Ruleset {
    let names: BTreeSet<Name> = ruleset.live().into_iter().cloned().collect();
    let mut live = ruleset.clone();
    live.sets.retain(|name, _| names.contains(name));
    live.chains.retain(|name, _| names.contains(name));
    live
}

/// Returns what each entry of a dispatch map leads to, as text.
fn policies(ruleset: &Ruleset) -> BTreeMap<(Name, String), String> {
    let mut policies = BTreeMap::new();
    for (name, set) in &ruleset.sets {
        let Elements::Verdicts(entries) = &set.elements else { continue };
        for (key, verdict) in entries {
            let policy = match verdict {
                NftVerdict::Jump(chain) => reached(ruleset, chain).to_string(),
                verdict => verdict.to_string(),
            };
            policies.insert((name.clone(), key.to_string()), policy);
        }
    }
    policies
}

fn reached(ruleset: &Ruleset, from: &Name) -> Ruleset {
    let mut reached = Ruleset::default();
    let mut todo = vec![from.clone()];
    while let Some(name) = todo.pop() {
        todo.extend(
            ruleset
                .references(&name)
                .into_iter()
                .filter(|it| !reached.chains.contains_key(it))
                .cloned(),
        );
        reached.chains.extend(ruleset.chains.get(&name).map(|chain| (name.clone(), chain.clone())));
        reached.sets.extend(ruleset.sets.get(&name).map(|set| (name.clone(), set.clone())));
    }
    reached
}

/// Returns what each known endpoint is judged by: the key, the map, and what the map leads to.
fn known(ruleset: &Ruleset) -> BTreeSet<(Name, String, Option<String>)> {
    let policies = policies(ruleset);
    let mut known = BTreeSet::new();
    for by in ["if", "4", "6"] {
        let endpoints = &ruleset.sets[&Name::new(&format!("np-ep-{by}"))].elements;
        let Elements::Keys(keys) = endpoints else { continue };
        for key in keys.iter().map(ToString::to_string) {
            for map in ["eg", "in"].map(|map| Name::new(&format!("np-{map}-{by}"))) {
                let policy = policies.get(&(map.clone(), key.clone())).cloned();
                known.insert((map, key.clone(), policy));
            }
        }
    }
    known
}

fn dangling(ruleset: &Ruleset) -> Vec<&Name> {
    let names = ruleset.chains.keys().chain(ruleset.sets.keys());
    names
        .flat_map(|name| ruleset.references(name))
        .filter(|name| !ruleset.chains.contains_key(name) && !ruleset.sets.contains_key(name))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_program_is_enforced_and_then_nothing_is_left_to_do(one in treating(), two in treating()) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        for program in [&one, &two, &one] {
            let applied = dataplane.apply(full(program)).unwrap();
            prop_assert!(applied.isolated.is_empty());
            fake.take_history();
            dataplane.apply(full(program)).unwrap();
            prop_assert!(fake.take_history().is_empty(), "something was left to do");
            prop_assert_eq!(dataplane.audit(program).unwrap().differences, Vec::<String>::new());
        }
    }

    #[test]
    fn the_plan_leads_to_what_is_desired(one in treating(), two in treating()) {
        let (places, refused) = Default::default();
        let context = Context { options: OPTIONS, places: &places, refused: &refused };
        let rendered = |program: &Program| render(program, &context).unwrap().ruleset;
        let observed = Observed { ruleset: rendered(&one), ..Observed::default() };
        let want = rendered(&two);
        let steps = plan(&Owner::default(), Some(&observed), &want, Extra::Swept).unwrap();
        let fake = Fake::default();
        fake.set_table(observed.ruleset);
        let mut kernel = fake.clone();
        for operations in [&steps.prepare, &steps.whole_switch(), &steps.sweep] {
            kernel.packets().wait();
            kernel.commit(operations).unwrap();
        }
        let got = Observed { ruleset: fake.table().unwrap(), ..Observed::default() };
        prop_assert_eq!(&got.ruleset, &want);
        prop_assert!(plan(&Owner::default(), Some(&got), &want, Extra::Swept).unwrap().is_empty());
    }

    #[test]
    fn packets_meet_the_old_state_or_the_new_one(one in treating(), two in treating()) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        let old = live(&fake.table().unwrap());
        fake.take_history();
        dataplane.apply(full(&two)).unwrap();
        let new = live(&fake.table().unwrap());
        let mut switched = false;
        for state in fake.take_history() {
            prop_assert_eq!(dangling(&state), Vec::<&Name>::new());
            let now = live(&state);
            switched |= now != old;
            prop_assert_eq!(&now, if switched { &new } else { &old });
        }
    }

    #[test]
    fn each_endpoint_switches_at_once_even_if_the_whole_is_too_large(
        one in programs(), two in programs(), limit in 2_usize..8,
    ) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        fake.limit(limit);
        let (old, old_known) = (policies(&fake.table().unwrap()), known(&fake.table().unwrap()));
        fake.take_history();
        dataplane.apply(full(&two)).unwrap();
        let (new, new_known) = (policies(&fake.table().unwrap()), known(&fake.table().unwrap()));
        for state in fake.take_history() {
            // Whoever is not known may be closed; whoever is known has its policy.
            for it in known(&state) {
                prop_assert!(old_known.contains(&it) || new_known.contains(&it), "{:?} is without its policy", it);
            }
            for (entry, policy) in policies(&state) {
                let known = [old.get(&entry), new.get(&entry)].into_iter().flatten().any(|it| *it == policy);
                prop_assert!(known, "{:?} leads to {}", entry, policy);
            }
        }
        // What did not fit is swept later.
        fake.limit(usize::MAX);
        dataplane.apply(full(&two)).unwrap();
        prop_assert_eq!(dataplane.audit(&two).unwrap().differences, Vec::<String>::new());
    }

    #[test]
    fn a_failure_leaves_the_old_state_in_force(one in programs(), two in programs(), nth in 0_usize..4, limit in 40_usize..200) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        let old = live(&fake.table().unwrap());
        fake.limit(limit);
        fake.fail(nth, libc::ENOMEM);
        if let Err(error) = dataplane.apply(full(&two)) {
            prop_assert_eq!(error.kind(), DataplaneErrorKind::Transient);
            prop_assert_eq!(live(&fake.table().unwrap()), old);
        }
        dataplane.apply(full(&two)).unwrap();
        prop_assert_eq!(dataplane.audit(&two).unwrap().differences, Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn packets_on_their_way_meet_the_old_policy_or_the_new_one(
        seeds in proptest::array::uniform2(proptest::collection::vec(any::<u16>(), 1..5)),
        members in proptest::array::uniform2(proptest::collection::vec(any::<u8>(), 0..60)),
        limit in proptest::option::of(40_usize..48),
    ) {
        let [one, two, three] =
            [(0, 0), (0, 1), (1, 0)].map(|(seed, member)| program(&seeds[seed], &members[member]));
        let fake = Fake::default();
        if let Some(limit) = limit {
            fake.limit(limit);
        }
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        for program in [&two, &three, &two, &one] {
            let mut before = fake.table().unwrap();
            fake.take_history();
            dataplane.apply(full(program)).unwrap();
            for state in fake.take_history() {
                on_the_way(&before, &state)?;
                before = state;
            }
        }
    }
}

#[test]
fn what_the_kernel_refuses_isolates_only_who_needs_it() {
    let mut builder = Builder::new();
    for (name, net) in [("bad", "10.0.0.0/24"), ("good", "10.0.1.0/24")] {
        let mut it = rule(1, Action::Allow);
        it.remote = in_nets(&[net]);
        let policy = builder.policy(super::program::deny_unless(vec![it]));
        let mut endpoint = builder.endpoint(name, &["10.1.0.1"]);
        endpoint.ingress = policy;
        builder.add(endpoint);
    }
    let program = builder.build();
    let (places, refused) = Default::default();
    let rendered =
        render(&program, &Context { options: OPTIONS, places: &places, refused: &refused })
            .unwrap()
            .ruleset;
    let bad = rendered
        .sets
        .iter()
        .find(|(_, set)| set.elements.to_string().starts_with("10.0.0.0-"))
        .unwrap()
        .0;

    let fake = Fake::default();
    let mut dataplane = open(&fake);
    fake.refuse(Some((bad.clone(), libc::ENOSPC)));
    let applied = dataplane.apply(full(&program)).unwrap();
    let names: Vec<_> =
        applied.isolated.iter().map(|(id, error)| (id.name.as_str(), error.kind())).collect();
    assert_eq!(names, [("bad", DataplaneErrorKind::Capacity)]);
    let table = fake.table().unwrap();
    assert_eq!(table.sets[&Name::new("np-iso-if")].elements.to_string(), "\"bad\"");
    let policies = table.sets[&Name::new("np-in-if")].elements.to_string();
    assert!(policies.starts_with(r#""bad" : drop, "good" : jump "#), "{policies}");

    // The next update has another chance.
    fake.refuse(None);
    assert!(dataplane.apply(full(&program)).unwrap().isolated.is_empty());
    assert_eq!(fake.table().unwrap(), rendered);
}

#[test]
fn what_is_held_back_by_others_is_swept_later() {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    dataplane.apply(full(&program(&[0x0fff], &[1, 2, 3]))).unwrap();
    let old = fake.table().unwrap();
    let set = old.sets.keys().find(|name| name.place().is_some()).unwrap().clone();
    let holder = old
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .find(|rule| rule.to_string().contains(set.as_str()));
    let mut table = old.clone();
    table.chains.insert(
        Name::new("someone"),
        crate::ruleset::Chain { base: None, rules: vec![holder.unwrap().clone()] },
    );
    fake.set_table(table);
    dataplane.apply(full(&program(&[], &[]))).unwrap();
    let table = fake.table().unwrap();
    assert!(table.sets.contains_key(&set), "it is in use");
}
