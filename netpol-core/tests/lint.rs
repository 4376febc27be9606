//! What the lint says of rules and policies is so, as the judge sees it.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;

use std::cell::Cell;
use std::collections::BTreeSet;

use netpol_core::eval::{Evaluation, Judge};
use netpol_core::lint::{Finding, Lint, lint};
use netpol_core::model::{
    Action, Enforcement, Inputs, L4Match, Object, Peers, Policy, PolicyKey, PortMatch, Rule,
    RuleMatch,
};
use netpol_core::net::{Family, Transport};
use netpol_core::{
    Capabilities, Explanation, Flow, Origin, Reason, RuleRef, Selector, Step, Verdict,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::cluster::{crowded, flows, objects, payloads};

fn inputs(objects: &[Object]) -> Inputs {
    let mut inputs = Inputs::default();
    objects.iter().for_each(|object| inputs.upsert(object.clone()));
    inputs
}

/// Puts rules after each list that differ from an earlier one in one condition or in none, and decide otherwise.
fn with_similar_rules(mut objects: Vec<Object>, seed: usize) -> Vec<Object> {
    let vary = |rules: &mut Vec<Rule>| {
        let originals = rules.clone();
        for (index, original) in originals.iter().enumerate() {
            let mut rule = original.clone();
            let other = &originals[(index + 1) % originals.len()].matches;
            match (seed + index) % 7 {
                0 => rule.matches.family = other.family,
                1 => rule.matches.l4 = other.l4.clone(),
                2 => rule.matches.source = other.source.clone(),
                3 => rule.matches.destination.nets = other.source.nets.clone(),
                4 => rule.matches.source.peers = other.destination.peers.clone(),
                5 => rule.matches.destination.not_peers = other.source.not_peers.clone(),
                _ => {}
            }
            rule.action = [Action::Deny, Action::Allow, Action::Log][(seed + index) % 3];
            rule.index = rules.len();
            rules.push(rule);
        }
    };
    for object in &mut objects {
        if let Object::Policy(policy) = object {
            policy.ingress.iter_mut().for_each(vary);
            policy.egress.iter_mut().for_each(vary);
        }
    }
    objects
}

fn similar() -> impl Strategy<Value = Vec<Object>> {
    (prop_oneof![objects(), crowded()], 0..42_usize)
        .prop_map(|(objects, seed)| with_similar_rules(objects, seed))
}

fn explanations(evaluation: &Evaluation) -> [&Explanation; 4] {
    let Evaluation { enforced, pending, .. } = evaluation;
    [&enforced.egress, &enforced.ingress, &pending.egress, &pending.ingress]
}

/// Every rule that has a part in an explanation.
fn rules_of(explanation: &Explanation) -> impl Iterator<Item = &RuleRef> {
    let steps = explanation.steps.iter().filter_map(|step| match step {
        Step::Logged(rule)
        | Step::Passed(rule)
        | Step::LeftOut(rule, _)
        | Step::Tightened(rule, _)
        | Step::Connection(rule) => Some(rule),
        _ => None,
    });
    let decided = match &explanation.reason {
        Reason::Rule(rule) => Some(rule),
        _ => None,
    };
    steps.chain(decided)
}

#[test]
fn no_flow_meets_a_rule_that_is_found_dead() {
    let found = Cell::new([0; 2]);
    let mut runner = TestRunner::new(Config::with_cases(512));
    let outcome = runner.run(&(similar(), 0..1000_usize), |(objects, seed)| {
        let inputs = inputs(&objects);
        let capabilities = Capabilities::all();
        let judge = Judge::new(&inputs, &capabilities);
        let mut dead = BTreeSet::new();
        for Finding { rule, lint, .. } in lint(&inputs) {
            let [mut unreachable, mut impossible] = found.get();
            match lint {
                Lint::Unreachable { .. } => unreachable += 1,
                Lint::Impossible(_) => impossible += 1,
                _ => continue,
            }
            found.set([unreachable, impossible]);
            dead.insert(rule.unwrap());
        }
        if dead.is_empty() {
            return Ok(());
        }
        for flow in flows(&objects, seed) {
            let evaluation = judge.evaluate(&flow);
            for rule in explanations(&evaluation).into_iter().flat_map(rules_of) {
                prop_assert!(!dead.contains(rule), "{} meets {}", flow, rule);
            }
        }
        Ok(())
    });
    outcome.unwrap();
    let [unreachable, impossible] = found.get();
    assert!(
        unreachable > 500 && impossible > 100,
        "{unreachable} unreachable, {impossible} impossible"
    );
}

/// Changes one detail of what a rule asks for.
fn vary(matches: &mut RuleMatch, detail: usize) {
    let name = || PortMatch { names: ["web".to_owned()].into(), ..PortMatch::default() };
    match &mut matches.l4 {
        L4Match::Ports { transport, source, destination } => match detail % 8 {
            0 => destination.none_of = destination.any_of.take(),
            1 => destination.none_of = None,
            2 => destination.any_of = Some(name()),
            3 => destination.none_of = Some(name()),
            4 => source.none_of = Some(name()),
            5 => source.any_of = None,
            6 => *transport = Transport::Udp,
            _ => {}
        },
        L4Match::Icmp { family, is, is_not } => match detail % 8 {
            0 => is.iter_mut().for_each(|it| it.code = None),
            1 => is.iter_mut().for_each(|it| it.code = Some(1)),
            2 => is_not.iter_mut().for_each(|it| it.code = None),
            3 => is_not.iter_mut().for_each(|it| it.code = Some(1)),
            4 => *is_not = is.take(),
            5 => *is = None,
            6 => *family = if *family == Family::V4 { Family::V6 } else { Family::V4 },
            _ => {}
        },
        _ => {}
    }
    match detail / 8 {
        0 => matches.destination.peers = None,
        1 => matches.source.peers = None,
        2 => matches.destination.not_peers = Some("app == 'a'".parse().unwrap()),
        3 => matches.destination.not_peers = Some("app == 'a' && has(role)".parse().unwrap()),
        4 => matches.destination.peers = Some(Peers::Endpoints("app == 'a'".parse().unwrap())),
        5 => matches.destination.peers = Some(Peers::Endpoints("has(app)".parse().unwrap())),
        6 => matches.destination.peers = Some(Peers::Nodes(Selector::all())),
        _ => {}
    }
}

/// Two rules that are one but for details, each behind the other once: every payload between some addresses.
#[test]
fn no_payload_meets_a_rule_that_is_found_dead() {
    let found = Cell::new(0);
    let mut runner = TestRunner::new(Config::with_cases(1024));
    let outcome =
        runner.run(&(crowded(), 0..64_usize, 0..64_usize), |(mut objects, one, other)| {
            let mut rule = None;
            for object in &objects {
                if let Object::Policy(policy) = object {
                    let is_exact = |it: &&Rule| {
                        matches!(it.matches.l4, L4Match::Ports { .. } | L4Match::Icmp { .. })
                    };
                    rule = rule.or(policy.ingress.iter().flatten().find(is_exact).cloned());
                }
            }
            let Some(rule) = rule else { return Ok(()) };
            objects.retain(|it| !matches!(it, Object::Policy(_)));
            let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
            let varied = [(Action::Deny, one), (Action::Allow, other)].into_iter().enumerate();
            policy.ingress = Some(
                varied
                    .map(|(index, (action, detail))| {
                        let mut matches = rule.matches.clone();
                        vary(&mut matches, detail);
                        Rule::new(index, action, matches)
                    })
                    .collect(),
            );
            objects.push(policy.into());
            let inputs = inputs(&objects);
            let is_dead = |it: &Finding| matches!(it.lint, Lint::Unreachable { .. });
            let Some(dead) = lint(&inputs).into_iter().find(is_dead).and_then(|it| it.rule) else {
                return Ok(());
            };
            found.set(found.get() + 1);
            let capabilities = Capabilities::all();
            let judge = Judge::new(&inputs, &capabilities);
            for (source, destination) in [
                ("10.0.0.1", "10.0.0.2"),
                ("10.0.0.2", "10.0.0.4"),
                ("10.0.0.4", "10.0.0.1"),
                ("fd00::1", "fd00::2"),
                ("fd00::4", "fd00::1"),
            ] {
                let [source, destination] = [source, destination].map(|it| it.parse().unwrap());
                for payload in payloads(&objects) {
                    let flow = Flow { source, destination, payload, origin: Origin::Endpoint };
                    let evaluation = judge.evaluate(&flow);
                    prop_assert_ne!(
                        rules_of(&evaluation.enforced.ingress).last(),
                        Some(&dead),
                        "{}",
                        flow
                    );
                }
            }
            Ok(())
        });
    outcome.unwrap();
    assert!(found.get() > 30, "{} found", found.get());
}

/// The same policies, with names that put those of equal order into the opposite order.
fn renamed(objects: &[Object]) -> Vec<Object> {
    let mut policies: Vec<_> = objects
        .iter()
        .filter_map(|it| if let Object::Policy(policy) = it { Some(&policy.key) } else { None })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    policies.sort_by(|one, other| other.tie_break(one));
    let rename = |policy: &Policy| {
        let mut policy = policy.clone();
        let rank = policies.iter().position(|it| **it == policy.key).unwrap();
        policy.key.name = format!("{rank:03}");
        policy
    };
    let objects = objects.iter().map(|it| match it {
        Object::Policy(policy) => Object::Policy(rename(policy)),
        other => other.clone(),
    });
    objects.collect()
}

#[test]
fn names_decide_nothing_where_no_tie_is_found() {
    let (tied, free) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config::with_cases(512));
    let outcome = runner.run(&(prop_oneof![objects(), crowded()], 0..1000_usize), |(objects, seed)| {
        let is_enforced = |it: &Object| {
            !matches!(it, Object::Policy(policy) if policy.enforcement != Enforcement::Enforced)
        };
        let mut objects: Vec<_> = objects.into_iter().filter(is_enforced).collect();
        for object in &mut objects {
            if let Object::Policy(policy) = object {
                // One place for all, so that names decide among many.
                (policy.tier, policy.order) = ("default".into(), None);
            }
        }
        let before = inputs(&objects);
        if before.policies().count() < 2 {
            return Ok(());
        }
        if lint(&before).iter().any(|it| matches!(it.lint, Lint::Tie { .. })) {
            tied.set(tied.get() + 1);
            return Ok(());
        }
        free.set(free.get() + 1);
        let after = inputs(&renamed(&objects));
        let capabilities = Capabilities::all();
        let (one, other) = (Judge::new(&before, &capabilities), Judge::new(&after, &capabilities));
        for flow in flows(&objects, seed) {
            let verdict = |judge: &Judge<'_>| judge.evaluate(&flow).enforced.verdict();
            let [one, other]: [Verdict; 2] = [verdict(&one), verdict(&other)];
            prop_assert_eq!(one, other, "{}", flow);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(tied.get() > 30 && free.get() > 100, "{} tied, {} free", tied.get(), free.get());
}
