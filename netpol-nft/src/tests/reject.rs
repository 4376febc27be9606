//! Programs that answer what they deny, on the real kernel.

#![expect(clippy::unwrap_used, reason = "test code")]

use netpol_core::model::{Attachment, Endpoint, Policy, PolicyKey, PolicyKind, Tier, TierEnd};
use netpol_core::program::{Denial, Program};
use netpol_core::{Capabilities, Change, Dataplane, Engine, NodeConfig, Selector};
use netpol_netfilter::Logging;

use super::kernel::{apply, generation, in_namespace, nft, observe, rendered_with};
use super::meaning::compare;
use super::program::everything;
use crate::render::MAX_STAGES;
use crate::{NftConfig, NftDataplane};

fn rejecting() -> Program {
    let mut program = everything().build();
    program.denial = Denial::Reject;
    program
}

fn open() -> NftDataplane {
    NftDataplane::open(NftConfig::default()).unwrap()
}

#[test]
fn verdicts_do_not_depend_on_it() {
    let silent = compare(&everything().build());
    assert_eq!(compare(&rejecting()), silent);
}

#[test]
fn what_is_rendered_is_observed_and_listed() {
    in_namespace(|| {
        let program = rejecting();
        let want = rendered_with(&program, Logging::DEFAULT);
        // From silence to answers, and back.
        let silent = apply(&mut open(), &everything().build());
        assert_eq!(apply(&mut open(), &program).ruleset, want);
        let before = generation();
        apply(&mut open(), &program);
        assert_eq!(generation(), before, "the second process changed something");

        let listed = nft(&["list", "ruleset"], "").unwrap();
        assert!(listed.contains("reject with tcp reset"), "{listed}");
        let text = listed.clone();
        let again = in_namespace(move || {
            nft(&["-f", "-"], &text).unwrap();
            nft(&["list", "ruleset"], "").unwrap()
        });
        assert_eq!(listed, again);

        let comment = crate::name::TABLE_COMMENT;
        let text = format!("table inet netpol {{\ncomment \"{comment}\"\n{want}}}\n");
        let compiled = in_namespace(move || {
            nft(&["-f", "-"], &text).unwrap();
            observe()
        });
        assert_eq!(compiled.ruleset.to_string(), want.to_string());
        assert_eq!(compiled.ruleset, want);
        assert_eq!(apply(&mut open(), &everything().build()).ruleset, silent.ruleset);
    });
}

/// The chain that answers comes below all others.
#[test]
fn it_takes_no_stage_from_any_policy() {
    let mut config = NodeConfig::new("node");
    config.denial = Denial::Reject;
    let mut engine = Engine::new(config, &Capabilities::all());
    let attachment = Attachment::Interface("eth0".to_owned());
    engine.upsert(Endpoint::host("host", "node", attachment)).unwrap();
    let pod = Endpoint::pod("x", "pod").on_node("node").attached_to("pod");
    engine.upsert(pod).unwrap();
    for number in 1..=MAX_STAGES {
        let tier = format!("tier-{number}");
        engine.upsert(Tier::new(tier.clone(), None, TierEnd::Pass)).unwrap();
        let kind = PolicyKind::GlobalNetworkPolicy;
        let name = format!("policy-{number}");
        let mut policy = Policy::new(PolicyKey { kind, namespace: None, name }, Selector::all());
        policy.tier = tier;
        (policy.ingress, policy.egress) = (Some(Vec::new()), Some(Vec::new()));
        engine.upsert(policy).unwrap();
    }
    engine.inputs_complete();
    let program = loop {
        let update = engine.poll_update().unwrap();
        if let Change::Full(program) = update.change {
            break Program::clone(&program);
        }
        engine.handle_applied(Ok(netpol_core::Applied::completely(update.generation)));
    };
    in_namespace(move || {
        assert!(open().capabilities().reject);
        assert_eq!(apply(&mut open(), &program).ruleset, rendered_with(&program, Logging::DEFAULT));
    });
}
