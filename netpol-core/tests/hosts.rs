//! Host endpoints: the judge, which sees the cluster, and the program of a node, which sees interfaces, give one answer.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/hosts.rs"]
mod hosts;

use netpol_core::eval::Judge;
use netpol_core::model::Inputs;
use netpol_core::{Capabilities, Origin, Step};
use proptest::prelude::*;

use self::cluster::flows;
use self::hosts::{compiled_with, node, objects, passage, settings};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn judge_and_program_agree_on_hosts(objects in objects(), settings in settings(), seed in 0..1000_usize) {
        let capabilities = Capabilities::all();
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let program = compiled_with(&objects, &settings);
        let judge = Judge::new(&inputs, &capabilities).with_settings(settings);
        let node = node();
        for flow in flows(&objects, seed).into_iter().filter(|it| it.origin == Origin::Endpoint) {
            let mut judged = judge.evaluate(&flow).enforced;
            for said in &mut judged.hosts {
                said.explanation.steps.retain(Step::is_known_to_programs);
            }
            let Some(passage) = passage(&program, &node, &flow) else {
                prop_assert!(judged.hosts.is_empty(), "{}", flow);
                continue;
            };
            prop_assert_eq!(&program.host_judgements(&passage), &judged.hosts, "{} as {:?}", flow, passage);
        }
    }
}
