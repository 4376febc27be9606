//! Programs that answer what they deny, on the real tools and kernel.

#![expect(clippy::unwrap_used, reason = "test code")]

use netpol_core::model::Action;
use netpol_core::program::{Denial, PolicySet, Program, StageEnd};
use netpol_core::{Dataplane, DataplaneErrorKind, Verdict};

use super::kernel::{apply, config, full, in_namespaces, no_condition_is_lost, open};
use super::meaning::compare;
use super::program::{Builder, everything, rule, stage};
use crate::render::MAX_DEPTH;
use crate::{IptablesConfig, IptablesDataplane, TableName};

fn rejecting(mut program: Program) -> Program {
    program.denial = Denial::Reject;
    program
}

#[test]
fn verdicts_do_not_depend_on_it() {
    let silent = compare(&everything().build());
    assert_eq!(compare(&rejecting(everything().build())), silent);
}

#[test]
fn what_is_rendered_is_listed() {
    in_namespaces(|flavour| {
        let silent = apply(&mut open(flavour), &everything().build());
        let program = rejecting(everything().build());
        let state = apply(&mut open(flavour), &program);
        for answer in ["tcp-reset", "icmp-admin-prohibited", "icmp6-adm-prohibited"] {
            let rule = format!(" -j REJECT --reject-with {answer}\n");
            assert!(state.contains(&rule), "{answer}: {state}");
        }
        no_condition_is_lost(flavour, &program);
        let mut second = open(flavour);
        assert!(second.audit(&program).unwrap().is_none());
        assert_eq!(apply(&mut second, &program), state);
        assert_eq!(apply(&mut open(flavour), &everything().build()), silent);
    });
}

/// The kernel rejects nothing in `mangle`.
#[test]
fn another_table_than_filter_denies_silently() {
    in_namespaces(|flavour| {
        let config = IptablesConfig { table: TableName::Mangle, ..config(flavour) };
        let mut dataplane = IptablesDataplane::open(config).unwrap();
        assert!(!dataplane.capabilities().reject);
        let state = apply(&mut dataplane, &rejecting(everything().build()));
        assert!(!state.contains("REJECT"), "{state}");
    });
}

/// The chain that answers is one in the row.
#[test]
fn a_policy_set_has_a_chain_less() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        for (name, count) in [("fits", MAX_DEPTH - 1), ("too-many", MAX_DEPTH)] {
            let stages = (0..count).map(|number| {
                let rules = vec![rule(u8::try_from(number).unwrap(), Action::Allow)];
                stage(rules, StageEnd::Next)
            });
            let policy = PolicySet { stages: stages.collect(), default: Verdict::Deny };
            let mut pod = builder.endpoint(name, &["10.0.0.1"]);
            (pod.ingress, pod.egress) = (builder.policy(policy), pod.egress);
            builder.add(pod);
        }
        let mut dataplane = open(flavour);
        let applied = dataplane.apply(full(&rejecting(builder.build()))).unwrap();
        let kinds: Vec<_> =
            applied.isolated.iter().map(|(id, it)| (id.name.as_str(), it.kind())).collect();
        assert_eq!(kinds, [("too-many", DataplaneErrorKind::Capacity)]);
    });
}
