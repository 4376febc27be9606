//! Interfaces that look like those of workloads and belong to none: the judge, which is told who is behind them, and the
//! program of a node, which sees their names, give one answer.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/hosts.rs"]
mod host_support;
#[path = "support/unknown.rs"]
mod unknown;

use std::net::IpAddr;

use netpol_core::eval::Judge;
use netpol_core::model::{HostSettings, Inputs, Object, Treatment};
use netpol_core::net::Prefix;
use netpol_core::program::Passage;
use netpol_core::{Capabilities, Explanation, Origin, Reason, Step, Verdict};
use proptest::prelude::*;

use self::cluster::flows;
use self::host_support::{compiled_with, node, passage};
use self::unknown::{HalfKnown, compiled_half, half_known};

/// The addresses of the workloads that the node is not told of.
fn strangers(it: &HalfKnown) -> Vec<IpAddr> {
    let addresses = |objects: &[Object]| -> Vec<IpAddr> {
        let endpoints = objects.iter().filter_map(|it| match it {
            Object::Endpoint(it) => Some(it.addresses.clone()),
            _ => None,
        });
        endpoints.flatten().collect()
    };
    let known = addresses(&it.known);
    addresses(&it.all).into_iter().filter(|it| !known.contains(it)).collect()
}

fn judged(mut half: Explanation) -> Explanation {
    half.steps.retain(Step::is_known_to_programs);
    half.steps.dedup();
    half
}

/// Checks all flows of a cluster. Returns how many halves were denied at unknown interfaces, and how many were not.
fn check(it: &HalfKnown, seed: usize) -> Result<[usize; 2], TestCaseError> {
    let (capabilities, settings) = (Capabilities::all(), HostSettings::default());
    let mut inputs = Inputs::default();
    it.known.iter().for_each(|object| inputs.upsert(object.clone()));
    let (wiring, program) = (compiled_with(&it.all, &settings), compiled_half(it, &settings));
    let strangers = strangers(it).into_iter().map(Prefix::host).collect();
    let judge = Judge::new(&inputs, &capabilities).with_unknown(strangers, it.treatment);
    let (node, mut counts) = (node(), [0, 0]);
    for flow in flows(&it.all, seed) {
        let is_of_node = flow.origin == Origin::OwnNode;
        let Some(passage) = passage(&wiring, &node, &flow) else { continue };
        let passage = Passage { input: passage.input.filter(|_| !is_of_node), ..passage };
        let (known, unknown) = (program.outcome(&flow), program.unknown_outcome(&passage));
        let nobody = || Explanation::at_once(Verdict::Allow, Reason::NoEndpoint);
        let said = [known.egress.or(unknown.egress), known.ingress.or(unknown.ingress)];
        let said = said.map(|it| it.unwrap_or_else(nobody));
        let judgement = judge.evaluate(&flow).enforced;
        prop_assert_eq!(
            &said,
            &[judged(judgement.egress), judged(judgement.ingress)],
            "{} as {:?}",
            flow,
            passage
        );
        for half in said.iter().filter(|it| it.reason == Reason::Unknown) {
            counts[usize::from(half.verdict == Verdict::Allow)] += 1;
        }
    }
    Ok(counts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn judge_and_program_agree_on_unknown_interfaces(it in half_known(), seed in 0..1000_usize) {
        let [denied, allowed] = check(&it, seed)?;
        match it.treatment {
            Treatment::Closed => prop_assert!(denied > 0 && allowed == 0),
            Treatment::Open => prop_assert!(denied == 0 && allowed > 0),
            Treatment::EgressTracked => prop_assert!(denied > 0 && allowed > 0),
        }
    }
}
