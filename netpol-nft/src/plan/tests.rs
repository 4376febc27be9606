#![expect(clippy::unwrap_used, reason = "test code")]

use expect_test::{Expect, expect};
use netpol_core::net::Family;

use super::*;
use crate::render::{Options, skeleton};
use crate::ruleset::{Action, End, Fields, KeyType, Match, Rule, Sense, Storage};
use netpol_netfilter::Logging;

fn state(endpoints: &[(u8, &str)], isolated: &[u8], members: &[u8]) -> Ruleset {
    let mut ruleset = skeleton(
        Options { priority: -5, logging: Logging::DEFAULT, mark: 16 },
        &Default::default(),
    );
    let address = |last: u8| Key::V4([10, 0, 0, last].into());
    let set_elements = |ruleset: &mut Ruleset, name: &str, elements| {
        ruleset.sets.get_mut(&Name::new(name)).unwrap().elements = elements;
    };
    let entries = endpoints
        .iter()
        .map(|&(last, chain)| (address(last), Verdict::Jump(Name::new(chain))))
        .collect();
    set_elements(&mut ruleset, "np-in-4", Elements::Verdicts(entries));
    set_elements(&mut ruleset, "np-iso-4", Elements::keys(isolated.iter().copied().map(address)));
    let set = Name::new("np-s4-a-6");
    for &(_, chain) in endpoints {
        let fields = Fields::Address(Family::V4, End::Source);
        let it = Match::Member { fields, set: set.clone(), sense: Sense::In };
        let action = Action::Verdict(Verdict::Return);
        let rule = Rule { matches: vec![it], action, comment: "np:x".to_owned() };
        ruleset.chains.insert(Name::new(chain), Chain { base: None, rules: vec![rule] });
    }
    let elements = Elements::keys(members.iter().copied().map(address));
    ruleset.sets.insert(
        set,
        Set { key: KeyType::Address(Family::V4), storage: Storage::Hash { size: 64 }, elements },
    );
    ruleset
}

#[track_caller]
fn check(from: Option<Ruleset>, to: &Ruleset, want: Expect) {
    let observed = from.map(|ruleset| Observed { ruleset, ..Observed::default() });
    let plan = plan(&Owner::default(), observed.as_ref(), to, Extra::Swept).unwrap();
    let mut lines = Vec::new();
    lines.extend(plan.prepare.iter().map(|it| format!("prepare: {it}")));
    for (step, groups) in &plan.switch {
        for group in groups {
            let group: Vec<String> = group.iter().map(ToString::to_string).collect();
            lines.push(format!("switch {step:?}: {}", group.join("; ")));
        }
    }
    lines.extend(plan.sweep.iter().map(|it| format!("sweep: {it}")));
    want.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn a_new_policy_is_made_then_switched_to_then_the_old_one_goes() {
    let (old, new) = (state(&[(1, "np-in-old")], &[], &[7]), state(&[(1, "np-in-new")], &[], &[7]));
    check(
        Some(old),
        &new,
        expect![[r#"
        prepare: make chain `np-in-new`
        prepare: add to chain `np-in-new` the rule `ip saddr @np-s4-a-6 counter return comment "np:x"`
        switch Dispatch: delete 1 elements of set `np-in-4`; add 1 elements to set `np-in-4`
        sweep: empty chain `np-in-old`
        sweep: remove chain `np-in-old`
    "#]],
    );
}

#[test]
fn endpoints_are_closed_first_and_released_last() {
    let (old, new) =
        (state(&[(1, "np-in-a")], &[2, 3], &[7, 8]), state(&[(2, "np-in-a")], &[1, 3], &[8, 9]));
    check(
        Some(old),
        &new,
        expect![[r#"
        switch Close: add 1 elements to set `np-iso-4`
        switch Members: delete 1 elements of set `np-s4-a-6`; add 1 elements to set `np-s4-a-6`
        switch Dispatch: delete 1 elements of set `np-in-4`; add 1 elements to set `np-in-4`
        switch Release: delete 1 elements of set `np-iso-4`
    "#]],
    );
}

#[test]
fn what_was_left_half_made_is_completed() {
    let mut left = state(&[], &[], &[7]);
    left.chains.insert(Name::new("np-in-a"), Chain::default());
    check(
        Some(left),
        &state(&[(1, "np-in-a")], &[], &[7, 8]),
        expect![[r#"
        prepare: add 1 elements to set `np-s4-a-6`
        prepare: empty chain `np-in-a`
        prepare: add to chain `np-in-a` the rule `ip saddr @np-s4-a-6 counter return comment "np:x"`
        switch Dispatch: add 1 elements to set `np-in-4`
    "#]],
    );
}

#[test]
fn base_chains_come_last_where_there_was_nothing() {
    let mut new = state(&[(1, "np-in-a")], &[], &[7]);
    for chain in new.chains.values_mut().filter(|chain| chain.base.is_some()) {
        chain.rules.truncate(1);
    }
    new.sets.retain(|name, _| ["np-in-4", "np-s4-a-6", "np-ep-if"].contains(&name.as_str()));
    check(
        None,
        &new,
        expect![[r#"
            prepare: make the table
            prepare: make set `np-ep-if`
            prepare: make set `np-s4-a-6`
            prepare: add 1 elements to set `np-s4-a-6`
            prepare: make chain `np-cut`
            prepare: make chain `np-encap`
            prepare: make chain `np-host-fwd`
            prepare: make chain `np-host-in`
            prepare: make chain `np-host-out`
            prepare: make chain `np-in-a`
            prepare: add to chain `np-cut` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 133-137 ip6 hoplimit 255 counter return comment "np:discovery e60a4295a09b9f3e"`
            prepare: add to chain `np-cut` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 130-132 ip6 saddr fe80::/10 counter return comment "np:discovery aef02a95129e3306"`
            prepare: add to chain `np-cut` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 143 ip6 saddr fe80::/10 counter return comment "np:discovery 511cab7b17283f41"`
            prepare: add to chain `np-cut` the rule `counter drop comment "np:isolated 8ce112c88649a28a"`
            prepare: add to chain `np-in-a` the rule `ip saddr @np-s4-a-6 counter return comment "np:x"`
            prepare: make set `np-in-4`
            prepare: add 1 elements to set `np-in-4`
            switch Chains: make chain `np-forward`; add to chain `np-forward` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 134 iifname @np-ep-if counter drop comment "np:router 72220a43ea5f6e2e"`
            switch Chains: make chain `np-input`; add to chain `np-input` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 134 iifname @np-ep-if counter drop comment "np:router 72220a43ea5f6e2e"`
            switch Chains: make chain `np-output`; add to chain `np-output` the rule `counter jump np-host-out comment "np:hosts d5be5cb0692e1626"`
            switch Chains: make chain `np-postrouting`; add to chain `np-postrouting` the rule `oifname @np-iso-if counter goto np-cut comment "np:isolated 8add6f35e858c8eb"`
        "#]],
    );
}

#[test]
fn a_base_chain_at_another_place_is_replaced_at_once() {
    let old =
        skeleton(Options { priority: 0, logging: Logging::DEFAULT, mark: 16 }, &Default::default());
    let mut new = skeleton(
        Options { priority: -5, logging: Logging::DEFAULT, mark: 16 },
        &Default::default(),
    );
    let is_base = |chain: &&mut Chain| chain.base.is_some();
    new.chains.values_mut().filter(is_base).for_each(|chain| chain.rules.truncate(1));
    check(
        Some(old),
        &new,
        expect![[r#"
            switch Chains: empty chain `np-forward`; remove chain `np-forward`; make chain `np-forward`; add to chain `np-forward` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 134 iifname @np-ep-if counter drop comment "np:router 72220a43ea5f6e2e"`
            switch Chains: empty chain `np-input`; remove chain `np-input`; make chain `np-input`; add to chain `np-input` the rule `meta nfproto ipv6 meta l4proto 58 @th,0,8 134 iifname @np-ep-if counter drop comment "np:router 72220a43ea5f6e2e"`
            switch Chains: empty chain `np-output`; remove chain `np-output`; make chain `np-output`; add to chain `np-output` the rule `counter jump np-host-out comment "np:hosts d5be5cb0692e1626"`
            switch Chains: empty chain `np-postrouting`; remove chain `np-postrouting`; make chain `np-postrouting`; add to chain `np-postrouting` the rule `oifname @np-iso-if counter goto np-cut comment "np:isolated 8add6f35e858c8eb"`
        "#]],
    );
}

/// Returns a state with chains that refer to these sets, each with one member. Packets of an endpoint, if there is one, meet
/// one of the chains, and those of a host endpoint another.
fn chained(entry: Option<&str>, host: &str, chains: &[(&str, &[&str])], member: u8) -> Ruleset {
    let entries: Vec<_> = entry.into_iter().map(|chain| (1, chain)).collect();
    let mut ruleset = state(&entries, &[], &[]);
    let endpoints = Elements::keys(entry.map(|_| Key::V4([10, 0, 0, 1].into())));
    ruleset.sets.get_mut(&Name::new("np-ep-4")).unwrap().elements = endpoints;
    for &(chain, sets) in chains {
        let rule = |set: &&str| {
            let fields = Fields::Port(End::Source);
            let it = Match::Member { fields, set: Name::new(set), sense: Sense::In };
            // Of two rules, one allows and one denies.
            let action = if set.starts_with("np-n") { Verdict::Drop } else { Verdict::Return };
            let action = Action::Verdict(action);
            Rule { matches: vec![it], action, comment: String::new() }
        };
        let rules = sets.iter().map(rule).collect();
        ruleset.chains.insert(Name::new(chain), Chain { base: None, rules });
        for set in sets {
            let elements = Elements::keys([Key::V4([10, 0, 0, member].into())]);
            let (key, storage) = (KeyType::Address(Family::V4), Storage::Hash { size: 64 });
            ruleset.sets.insert(Name::new(set), Set { key, storage, elements });
        }
    }
    let jump = Action::Verdict(Verdict::Jump(Name::new(host)));
    let rule = Rule { matches: Vec::new(), action: jump, comment: String::new() };
    ruleset.chains.get_mut(&Name::new("np-host-in")).unwrap().rules = vec![rule];
    ruleset
}

#[test]
fn sets_that_a_packet_can_meet_change_together() {
    let (a4, b4, a6) = ("np-s4-a-6", "np-n4-b-6", "np-s6-a-6");
    let chains: &[(&str, &[&str])] =
        &[("none", &[]), ("one", &[a4]), ("families", &[a4, a6]), ("two", &[a4, b4, a6])];
    for (from, to, want) in [
        ((Some("none"), "none"), (Some("two"), "two"), [].as_slice()),
        ((None, "none"), (Some("two"), "none"), &[]),
        ((Some("two"), "none"), (None, "none"), &[]),
        ((Some("one"), "none"), (Some("one"), "none"), &[]),
        ((Some("families"), "families"), (Some("families"), "families"), &[]),
        ((Some("one"), "none"), (Some("two"), "none"), &[a4]),
        ((Some("families"), "none"), (Some("none"), "none"), &[a4, a6]),
        ((Some("two"), "none"), (Some("two"), "none"), &[b4, a4]),
        ((Some("none"), "two"), (Some("none"), "two"), &[b4, a4]),
        ((Some("none"), "one"), (Some("none"), "families"), &[a4]),
    ] {
        let ruleset = chained(from.0, from.1, chains, 1);
        let observed = Observed { ruleset, ..Observed::default() };
        let got = together(&observed, &chained(to.0, to.1, chains, 2));
        let got: Vec<&str> = got.iter().map(Name::as_str).collect();
        assert_eq!(got, want, "{from:?} to {to:?}");
        assert!(together(&observed, &observed.ruleset).is_empty(), "{from:?}");
    }
}

#[test]
fn a_set_that_is_not_ours_is_a_conflict() {
    let mut old = state(&[], &[], &[]);
    let set = old.sets.get_mut(&Name::new("np-iso-4")).unwrap();
    set.storage = Storage::Hash { size: 1 };
    let observed = Observed { ruleset: old, ..Observed::default() };
    let outcome = plan(&Owner::default(), Some(&observed), &state(&[], &[], &[]), Extra::Swept);
    assert!(matches!(outcome, Err(NftError::ForeignSet { .. })), "{outcome:?}");
}

#[test]
fn elements_come_in_portions() {
    let keys: Vec<Key> = (0..600).map(Key::Port).collect();
    let sizes: Vec<usize> = chunks(&Elements::Keys(keys)).iter().map(Elements::len).collect();
    assert_eq!(sizes, [256, 256, 88]);
    assert_eq!(missing(&[1, 2, 3, 5], &[0, 2, 4, 5, 6]), [1, 3]);
    assert_eq!(missing(&[1, 2], &[]), [1, 2]);
}
