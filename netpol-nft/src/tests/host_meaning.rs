//! The meaning of the chains of host endpoints, compared with that of the program that they were rendered from.

#![expect(clippy::unwrap_used, reason = "test code")]

use netpol_core::model::{Attachment, Endpoint, HostSettings, Object};
use netpol_core::net::Protocol;
use netpol_core::program::{Passage, Program};
use netpol_core::{Flow, Origin, Payload, Verdict};
use proptest::prelude::*;

use super::cluster::flows;
use super::hosts::{compiled_with, node, objects, passage, settings};
use super::meaning::{Packet, Walked, walk};
use super::unknown::{compiled_half, half_known};
use crate::error::NftError;
use crate::name::Name;
use crate::render::{Context, Options, render};
use crate::ruleset::{Interface, Ruleset};
use netpol_netfilter::Logging;

/// Walks a packet through the base chains that it meets, as far as they are there.
fn passes(ruleset: &Ruleset, packet: &Packet, chains: &[&str]) -> bool {
    let there = chains.iter().map(|it| Name::new(it)).filter(|it| ruleset.chains.contains_key(it));
    let mut chains = there;
    chains.all(|chain| walk(ruleset, &chain, packet) == Walked::Returned)
}

fn interface(name: Option<&str>) -> Interface {
    Interface::new(name.unwrap_or("none")).unwrap()
}

/// Returns whether the chains let a flow pass, its reply included if conntrack does not know it.
fn ruleset_allows(ruleset: &Ruleset, passage: &Passage<'_>) -> bool {
    let Passage { input, output, flow, .. } = *passage;
    let (passes, is_untracked) = one_way(ruleset, input, output, &flow);
    if !passes {
        return false;
    }
    let (reply_passes, reply_is_untracked) = one_way(ruleset, output, input, &reversed(&flow));
    if is_untracked || reply_is_untracked {
        return reply_passes;
    }
    // Conntrack knows the reply, so only what comes before conntrack can stop it.
    let reply = Packet::new(reversed(&flow), interface(output), interface(input));
    let raw = if output.is_some() { "np-raw-in" } else { "np-raw-out" };
    self::passes(ruleset, &reply, &[raw])
}

/// Returns whether a packet passes, and whether conntrack was told to leave it alone.
fn one_way(
    ruleset: &Ruleset,
    input: Option<&str>,
    output: Option<&str>,
    flow: &Flow,
) -> (bool, bool) {
    // Somebody may have left our mark on it, such as a tunnel that it came out of.
    let packet = Packet::new(*flow, interface(input), interface(output)).marked(16);
    let chains: &[&str] = match (input, output) {
        (Some(_), Some(_)) => &["np-raw-in", "np-dnat", "np-forward"],
        (Some(_), None) => &["np-raw-in", "np-dnat", "np-input"],
        _ => &["np-raw-out", "np-output", "np-postrouting"],
    };
    (passes(ruleset, &packet, chains), packet.is_untracked.get())
}

fn reversed(flow: &Flow) -> Flow {
    let payload = match flow.payload {
        Payload::Ports { transport, source, destination } => {
            Payload::Ports { transport, source: destination, destination: source }
        }
        Payload::Icmp { kind: 8, code } if flow.source.is_ipv4() => Payload::Icmp { kind: 0, code },
        Payload::Icmp { kind: 128, code } if flow.source.is_ipv6() => {
            Payload::Icmp { kind: 129, code }
        }
        other => other,
    };
    Flow { source: flow.destination, destination: flow.source, payload, ..*flow }
}

fn program_allows(program: &Program, passage: &Passage<'_>) -> bool {
    let is_allowed = |it: Verdict| it == Verdict::Allow;
    let hosts = program.host_judgements(passage);
    let hosts = hosts.iter().all(|it| is_allowed(it.explanation.verdict));
    let outcome = program.outcome_of(passage);
    let workloads = match (passage.input, passage.output) {
        (None, _) => true,
        (_, None) => outcome.egress.is_none_or(|it| is_allowed(it.verdict)),
        _ => is_allowed(outcome.verdict()),
    };
    let origin = if passage.input.is_none() { Origin::OwnNode } else { passage.flow.origin };
    let unknown = Passage { flow: passage.flow.from_origin(origin), ..*passage };
    let unknown = is_allowed(program.unknown_outcome(&unknown).verdict());
    hosts && workloads && unknown
}

/// Compares chains and program on flows between all endpoints that there are, also where the node is not told of them.
fn check(program: &Program, all: &[Object], seed: usize) -> Result<(), TestCaseError> {
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
    let ruleset =
        render(program, &Context { options, places: &places, refused: &refused }).unwrap().ruleset;
    let (wiring, node) = (compiled_with(all, &HostSettings::default()), node());
    // A program says that ICMP without a header is not ICMP; nf_tables, which has no such packets, looks at the number.
    let is_packet =
        |it: &Flow| !matches!(it.payload, Payload::Other(Protocol::ICMP | Protocol::ICMPV6));
    let flows = flows(all, seed).into_iter().filter(|it| it.origin == Origin::Endpoint);
    for flow in flows.filter(is_packet) {
        if let Some(passage) = passage(&wiring, &node, &flow) {
            prop_assert_eq!(
                ruleset_allows(&ruleset, &passage),
                program_allows(program, &passage),
                "{} as {:?}: {:#?}\n{}",
                flow,
                passage,
                program.host_judgements(&passage),
                ruleset
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn chains_of_hosts_mean_what_their_program_means(objects in objects(), settings in settings(), seed in 0..1000_usize) {
        check(&compiled_with(&objects, &settings), &objects, seed)?;
    }

    #[test]
    fn chains_mean_the_same_where_interfaces_are_unknown(it in half_known(), settings in settings(), seed in 0..1000_usize) {
        check(&compiled_half(&it, &settings), &it.all, seed)?;
    }
}

/// Its policy would stand nowhere, and nobody would hear of it.
#[test]
fn host_endpoints_on_interfaces_that_no_rule_can_name_are_refused() {
    for (name, is_refused) in
        [("eth0", false), ("eth+0", false), ("eth*0", true), ("eth\"0", true), ("\u{e9}th0", true)]
    {
        let attachment = Attachment::Interface(name.to_owned());
        let host = Object::Endpoint(Endpoint::host("host", node().name, attachment));
        let program = compiled_with(&[host], &HostSettings::default());
        let (places, refused) = Default::default();
        let options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };
        match render(&program, &Context { options, places: &places, refused: &refused }) {
            Ok(rendered) => {
                assert!(!is_refused, "{name}");
                assert!(rendered.ruleset.to_string().contains(&format!("iifname \"{name}\"")));
            }
            Err(error) => {
                let of_it =
                    matches!(&error, NftError::Interface { interface } if interface == name);
                assert!(is_refused && of_it, "{name}: {error}");
            }
        }
    }
}
