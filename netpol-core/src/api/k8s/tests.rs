//! What is refused and what becomes of the rest. Manifests are JSON; what they become is compared as text.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

mod converted;
mod documented;
mod meaning;
mod objects;
mod refused;

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write;

use serde_json::{Value, json};

use super::NetworkPolicy;
use crate::api::{Accepted, Refused, Strictness};
use crate::model::{EntityMatch, L4Match, Peers, Policy, PortMatch, Rule};

/// Returns a policy `p` in namespace `ns`.
fn manifest(spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": spec,
    })
}

fn convert(manifest: &Value, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
    let policy: NetworkPolicy = serde::Deserialize::deserialize(manifest).unwrap();
    policy.to_policy(strictness)
}

/// Prints what a policy does, one rule a line. `PODS` stands for the orchestrator's term, `NS` for the key of the
/// namespace.
fn shown(policy: &Policy) -> String {
    let mut text = format!("subject {}\n", policy.subject);
    for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        match rules.as_deref() {
            None => {}
            Some([]) => writeln!(text, "{direction} nothing").unwrap(),
            Some(rules) => {
                for rule in rules {
                    writeln!(text, "{direction} {}", shown_rule(rule)).unwrap();
                }
            }
        }
    }
    text.replace(r#"projectcalico.org/orchestrator == "k8s""#, "PODS")
        .replace("projectcalico.org/namespace", "NS")
}

fn shown_rule(rule: &Rule) -> String {
    let mut text = format!("{} {:?} {}", rule.index, rule.action, shown_l4(&rule.matches.l4));
    for (side, entity) in [("from", &rule.matches.source), ("to", &rule.matches.destination)] {
        if *entity != EntityMatch::default() {
            write!(text, " {side} {}", shown_entity(entity)).unwrap();
        }
    }
    if rule.degraded {
        text.push_str(" degraded");
    }
    assert_eq!((rule.matches.family, &rule.name), (None, &None), "{text}");
    text
}

fn shown_l4(l4: &L4Match<PortMatch>) -> String {
    match l4 {
        L4Match::Any => "everything".into(),
        L4Match::Is(protocol) => protocol.to_string(),
        L4Match::Ports { transport, source, destination } => {
            assert_eq!(
                (&source.any_of, &source.none_of, &destination.none_of),
                (&None, &None, &None)
            );
            let PortMatch { numbers, names } = destination.any_of.as_ref().unwrap();
            let mut text = transport.to_string();
            if !numbers.is_empty() {
                write!(text, " {numbers}").unwrap();
            }
            for name in names {
                write!(text, " `{name}`").unwrap();
            }
            text
        }
        other => format!("{other:?}"),
    }
}

fn shown_entity(entity: &EntityMatch) -> String {
    assert_eq!(entity.not_peers, None);
    let mut text = String::new();
    match &entity.peers {
        None => {}
        Some(Peers::Endpoints(selector)) => write!(text, "{selector}").unwrap(),
        Some(Peers::Nodes(selector)) => write!(text, "nodes {selector}").unwrap(),
    }
    if let Some(nets) = &entity.nets {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}[{nets}]").unwrap();
    }
    if !entity.not_nets.is_empty() {
        write!(text, " but [{}]", entity.not_nets).unwrap();
    }
    text
}
