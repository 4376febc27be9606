//! Analysis against the judge, which shares no code with it: on flows at the edges of what rules can tell apart.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/hosts.rs"]
mod hosts;

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::analysis::{Diff, Idle, diff, idle_rules, reachability, with_staged};
use netpol_core::eval::{Judge, Judgement};
use netpol_core::model::{Enforcement, Inputs, Object, PolicyKind, Rule};
use netpol_core::net::{Family, Protocol, Transport};
use netpol_core::{Capabilities, Direction, Flow, Payload, Reason, RuleRef, Step, Verdict};
use proptest::prelude::*;

use self::cluster::{crowded, flows, objects};

/// Clusters of every kind: sparse, crowded, and with host endpoints, which are peers.
fn clusters() -> BoxedStrategy<Vec<Object>> {
    prop_oneof![2 => objects().boxed(), 2 => crowded().boxed(), 1 => hosts::objects().boxed()]
        .boxed()
}

fn inputs(objects: &[Object]) -> Inputs {
    let mut inputs = Inputs::default();
    objects.iter().for_each(|object| inputs.upsert(object.clone()));
    inputs
}

/// Returns the verdict of both halves, `None` where policy is not asked or cannot read the packet.
fn judged(judgement: &Judgement, flow: &Flow) -> Option<Verdict> {
    let Judgement { egress, ingress, .. } = judgement;
    let outside = [&egress.reason, &ingress.reason].into_iter().any(|reason| {
        matches!(reason, Reason::NeighbourDiscovery | Reason::RouterMessage | Reason::OwnNode)
    });
    let has_more = |it| {
        Transport::from_protocol(it).is_some()
            || matches!(
                (it, flow.family()),
                (Protocol::ICMP, Family::V4) | (Protocol::ICMPV6, Family::V6)
            )
    };
    let is_cut = matches!(flow.payload, Payload::Other(it) if has_more(it));
    (!outside && !is_cut).then(|| egress.verdict.max(ingress.verdict))
}

fn is_discovery(flow: &Flow) -> bool {
    matches!(flow.payload, Payload::Icmp { kind: 130..=137 | 143, .. } if flow.family() == Family::V6)
}

fn from_endpoints(objects: &[Object], seed: usize) -> impl Iterator<Item = Flow> {
    let flows =
        flows(objects, seed).into_iter().map(|it| it.from_origin(netpol_core::Origin::Endpoint));
    flows.filter(|it| !is_discovery(it))
}

/// Returns the verdict that a difference says a flow has now, `None` if the verdicts do not differ.
fn differs(diff: &Diff, flow: &Flow) -> Vec<Verdict> {
    let class = |address| {
        let holds = |number: &usize| {
            let members = diff.classes[*number].members.iter();
            members.filter(|it| it.prefix.contains(address)).map(|it| it.prefix.len()).max()
        };
        (0..diff.classes.len()).filter_map(|it| Some((holds(&it)?, it))).max().unwrap().1
    };
    let (from, to) = (class(flow.source), class(flow.destination));
    let is_meant = |it: &&netpol_core::analysis::Difference| {
        it.from.contains(&from) && it.to.contains(&to) && it.traffic.contains(flow)
    };
    diff.differences.iter().filter(is_meant).map(|it| it.verdict).collect()
}

fn check_diff(
    before: &Inputs,
    after: &Inputs,
    flows: impl Iterator<Item = Flow>,
) -> Result<usize, TestCaseError> {
    let capabilities = Capabilities::all();
    let found = diff(before, after, &capabilities).unwrap();
    let judges = [before, after].map(|it| Judge::new(it, &capabilities));
    let mut different = 0;
    for flow in flows.filter(|it| it.source != it.destination) {
        let [was, is] = judges.each_ref().map(|it| judged(&it.evaluate(&flow).enforced, &flow));
        let (Some(was), Some(is)) = (was, is) else { continue };
        let want = if was == is { Vec::new() } else { vec![is] };
        different += want.len();
        prop_assert_eq!(differs(&found, &flow), want, "{}", flow);
    }
    for difference in &found.differences {
        prop_assert!(!difference.examples.is_empty() && !difference.traffic.is_nothing());
    }
    Ok(different)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn cells_say_what_the_judge_says(objects in clusters(), seed in 0..1000_usize) {
        let (inputs, capabilities) = (inputs(&objects), Capabilities::all());
        let judge = Judge::new(&inputs, &capabilities);
        let found = reachability(&inputs, &capabilities).unwrap();
        for flow in from_endpoints(&objects, seed) {
            let [from, to] = [flow.source, flow.destination].map(|it| found.class_of(it).unwrap());
            let judgement = judge.evaluate(&flow).enforced;
            let is_own = judgement.source.is_some() && judgement.source == judgement.destination;
            if is_own {
                let cell = found.cell(from, to);
                prop_assert!(cell.is_none() || from == to, "{}", flow);
                continue;
            }
            if let Some(want) = judged(&judgement, &flow) {
                let cell = found.cell(from, to).unwrap();
                let halves = [cell.egress.contains(&flow), cell.ingress.contains(&flow)];
                let wanted = [&judgement.egress, &judgement.ingress].map(|it| it.verdict == Verdict::Allow);
                prop_assert_eq!(halves, wanted, "{}", flow);
                prop_assert_eq!(cell.allowed().contains(&flow), want == Verdict::Allow, "{}", flow);
            }
        }
        let classes = 0..found.classes().len();
        for (from, to) in classes.clone().flat_map(|from| classes.clone().map(move |to| (from, to))) {
            for verdict in [Verdict::Allow, Verdict::Deny] {
                let flow = found.cell(from, to).and_then(|it| it.example(verdict));
                if let Some(flow) = flow {
                    let said = judge.evaluate(&flow).enforced;
                    prop_assert_eq!(judged(&said, &flow), Some(verdict), "{}", flow);
                    prop_assert_eq!([flow.source, flow.destination].map(|it| found.class_of(it)), [Some(from), Some(to)]);
                }
            }
        }
    }

    #[test]
    fn a_diff_has_every_flow_whose_verdicts_differ_and_no_other(
        objects in clusters(), others in clusters(),
        keep in 0..4_usize, seed in 0..1000_usize,
    ) {
        // From a small change to another cluster.
        let cut = objects.len() * keep / 3;
        let after: Vec<_> = objects.iter().take(cut).chain(others.iter().skip(others.len() * keep / 4)).cloned().collect();
        let all: Vec<_> = objects.iter().chain(&after).cloned().collect();
        check_diff(&inputs(&objects), &inputs(&after), from_endpoints(&all, seed))?;
    }

    #[test]
    fn enforced_staged_policies_are_what_was_pending(objects in clusters(), stage in any::<u8>(), seed in 0..1000_usize) {
        let mut objects = objects;
        let policies = objects.iter_mut().filter_map(|it| if let Object::Policy(it) = it { Some(it) } else { None });
        for (number, policy) in policies.enumerate() {
            let staged = match policy.key.kind {
                PolicyKind::NetworkPolicy => Some(PolicyKind::StagedNetworkPolicy),
                PolicyKind::GlobalNetworkPolicy => Some(PolicyKind::StagedGlobalNetworkPolicy),
                PolicyKind::KubernetesNetworkPolicy => Some(PolicyKind::StagedKubernetesNetworkPolicy),
                _ => None,
            };
            (policy.key.kind, policy.enforcement) = match staged {
                Some(kind) if stage >> (number % 8) & 1 == 0 => {
                    (kind, if number % 3 == 0 { Enforcement::StagedRemoval } else { Enforcement::Staged })
                }
                _ => (policy.key.kind, Enforcement::Enforced),
            };
        }
        let (inputs, capabilities) = (inputs(&objects), Capabilities::all());
        let after = with_staged(&inputs);
        let (judge, judge_after) = (Judge::new(&inputs, &capabilities), Judge::new(&after, &capabilities));
        for flow in flows(&objects, seed) {
            let pending = judge.evaluate(&flow).pending;
            let said = judge_after.evaluate(&flow).enforced;
            prop_assert_eq!([pending.egress.verdict, pending.ingress.verdict], [said.egress.verdict, said.ingress.verdict], "{}", flow);
        }
        check_diff(&inputs, &after, from_endpoints(&objects, seed))?;
    }

    #[test]
    fn idle_rules_are_never_asked_and_can_go(objects in clusters(), seed in 0..1000_usize) {
        let (inputs, capabilities) = (inputs(&objects), Capabilities::all());
        let judge = Judge::new(&inputs, &capabilities);
        let idle: BTreeMap<RuleRef, Idle> =
            idle_rules(&inputs, &capabilities).unwrap().into_iter().map(|it| (it.rule, it.why)).collect();
        let mut asked = BTreeSet::new();
        for flow in from_endpoints(&objects, seed) {
            let judgement = judge.evaluate(&flow).enforced;
            if judged(&judgement, &flow).is_none() {
                continue;
            }
            for half in [judgement.egress, judgement.ingress] {
                if let Reason::Rule(rule) = half.reason {
                    asked.insert(rule);
                }
                asked.extend(half.steps.into_iter().filter_map(|step| match step {
                    Step::Logged(rule) | Step::Passed(rule) => Some(rule),
                    _ => None,
                }));
            }
        }
        for rule in asked {
            prop_assert_eq!(idle.get(&rule), None, "{}", rule);
        }
        let mut rest = inputs.clone();
        for policy in inputs.policies() {
            let mut policy = policy.clone();
            let key = policy.key.clone();
            for (direction, rules) in [(Direction::Ingress, &mut policy.ingress), (Direction::Egress, &mut policy.egress)] {
                let origin = |it: &Rule| RuleRef { policy: key.clone(), direction, index: it.index, name: None };
                rules.iter_mut().for_each(|rules| rules.retain(|it| !idle.contains_key(&origin(it))));
            }
            rest.upsert(policy);
        }
        prop_assert!(diff(&inputs, &rest, &capabilities).unwrap().differences.is_empty());
    }
}
