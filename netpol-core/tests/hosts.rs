//! Host endpoints: the judge, which sees the cluster, and the program of a node, which sees interfaces, give one answer.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/hosts.rs"]
mod hosts;

use std::net::IpAddr;

use netpol_core::eval::Judge;
use netpol_core::model::Inputs;
use netpol_core::{Capabilities, Flow, Origin, Step, Verdict};
use proptest::prelude::*;
use proptest::sample::Index;

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

    /// Whatever policies and host endpoints there are: what would cut these ports is settings alone, and an engine refuses
    /// such settings.
    #[test]
    fn no_policy_cuts_failsafe_ports(objects in objects(), settings in settings(), port in any::<Index>()) {
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let capabilities = Capabilities::all();
        let judge = Judge::new(&inputs, &capabilities).with_settings(settings.clone());
        let (program, node) = (compiled_with(&objects, &settings), node());
        let other: IpAddr = "198.51.100.1".parse().unwrap();
        for (ports, inbound) in [(&settings.failsafe_inbound, true), (&settings.failsafe_outbound, false)] {
            let Some(port) = ports.iter().nth(port.index(ports.len().max(1))) else { continue };
            for own in &node.addresses {
                let (source, destination) = if inbound { (other, *own) } else { (*own, other) };
                let flow = Flow::to_port(source, destination, port.transport, port.port);
                let judged = judge.evaluate(&flow).enforced;
                prop_assert_eq!(judged.verdict(), Verdict::Allow, "{}: {:?}", flow, judged);
                let passage = passage(&program, &node, &flow).unwrap();
                for said in program.host_judgements(&passage) {
                    prop_assert_eq!(said.explanation.verdict, Verdict::Allow, "{}: {}", flow, said);
                }
            }
        }
    }
}
