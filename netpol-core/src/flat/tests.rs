//! Flat forms written out, for programs built by hand.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod capacity;
mod classes;
mod local;
mod rows;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::IpAddr;

use super::*;
use crate::model::{
    Action, Attachment, EndpointId, L4Match, Mode, Peers, PolicyKey, PortConstraint,
};
use crate::net::{PortRange, PortSet, PrefixSet, Transport};
use crate::program::{
    AddressSet, Endpoint, Members, PolicySet, Ports, Rule, SetDefinition, SetId, Stage, StageEnd,
};
use crate::selector::Selector;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> PrefixSet {
    texts.iter().map(|text| text.parse::<Prefix>().unwrap()).collect()
}

fn ports(ranges: &[(u16, u16)]) -> Ports {
    let numbers: PortSet =
        ranges.iter().map(|&(first, last)| PortRange::new(first, last).unwrap()).collect();
    Ports { numbers, sets: Vec::new() }
}

/// TCP to some ports.
fn tcp_to(ranges: &[(u16, u16)]) -> L4Match<Ports> {
    tcp(PortConstraint::default(), PortConstraint { any_of: Some(ports(ranges)), none_of: None })
}

fn tcp(source: PortConstraint<Ports>, destination: PortConstraint<Ports>) -> L4Match<Ports> {
    L4Match::Ports { transport: Transport::Tcp, source, destination }
}

/// A rule whose index tells it from others.
fn rule(index: usize, action: Action, l4: L4Match<Ports>) -> Rule {
    let policy = PolicyKey::kubernetes("ns", "policy");
    let origin = RuleRef { policy, direction: Direction::Ingress, index, name: None };
    Rule { l4, ..Rule::matching_all(RuleId::new(digest_of(&index)), origin, action) }
}

fn allow(index: usize, l4: L4Match<Ports>) -> Rule {
    rule(index, Action::Allow, l4)
}

fn deny(index: usize, l4: L4Match<Ports>) -> Rule {
    rule(index, Action::Deny, l4)
}

/// The same rule for remote addresses in some prefixes.
fn from(texts: &[&str], mut rule: Rule) -> Rule {
    rule.remote.nets = Some(nets(texts));
    rule
}

/// The same rule for remote addresses in a set.
fn from_set(name: &str, mut rule: Rule) -> Rule {
    rule.remote.in_set = Some(SetId::of(&set_of(name)));
    rule
}

fn set_of(name: &str) -> SetDefinition {
    SetDefinition::Addresses(Peers::Endpoints(Selector::equal("app", name).unwrap()))
}

fn port_set_of(name: &str) -> SetDefinition {
    let (endpoints, transport) = (None, Transport::Tcp);
    SetDefinition::NamedPort { endpoints, transport, name: name.into() }
}

fn stage(rules: Vec<Rule>, end: StageEnd) -> Stage {
    let policies = vec![PolicyKey::kubernetes("ns", "policy")];
    let rules = rules.into_iter().map(Arc::new).collect();
    Stage { tier: "default".into(), policies, rules, end }
}

/// A program of one endpoint, `10.9.0.1` and `fd99::1`, with these stages for its ingress and none for its egress.
fn program(stages: Vec<Stage>) -> Program {
    let mut program = Program::default();
    add_endpoint(&mut program, "pod", &["10.9.0.1", "fd99::1"], stages);
    program
}

/// A program of one endpoint with one stage of these rules, which denies at its end.
fn program_of(rules: Vec<Rule>) -> Program {
    program(vec![stage(rules, StageEnd::Deny)])
}

fn add_endpoint(program: &mut Program, name: &str, addresses: &[&str], stages: Vec<Stage>) {
    let [ingress, egress] = [stages, Vec::new()].map(|stages| {
        let set = PolicySet { stages, default: Verdict::Allow };
        let id = PolicySetId::of(&set);
        program.policy_sets.insert(id, Arc::new(set));
        id
    });
    program.endpoints.push(Endpoint {
        id: EndpointId::workload("ns", name),
        attachment: Attachment::Address,
        addresses: addresses.iter().map(|text| address(text)).collect(),
        mode: Mode::Enforce,
        ingress,
        egress,
    });
}

/// Adds a set of addresses that rules can refer to by name.
fn add_set(program: &mut Program, name: &str, exact: &[&str], prefixes: &[&str]) {
    let exact = exact.iter().map(|text| address(text)).collect();
    let members = Members::Addresses { exact, prefixes: nets(prefixes) };
    let set = AddressSet::new(set_of(name), members);
    program.address_sets.insert(SetId::of(&set.definition), Arc::new(set));
}

/// Adds a set of named ports of TCP.
fn add_port_set(program: &mut Program, name: &str, members: &[(&str, u16)]) {
    let members = members.iter().map(|&(text, port)| (address(text), port)).collect();
    let set = AddressSet::new(port_set_of(name), Members::Ports(members));
    program.address_sets.insert(SetId::of(&set.definition), Arc::new(set));
}

fn flat(program: &Program) -> Flat {
    classify(program, &Limits::unlimited()).unwrap()
}

/// The table for traffic into the first endpoint.
fn ingress(program: &Program) -> TableKey {
    TableKey { policy_set: program.endpoints[0].ingress, direction: Direction::Ingress }
}

/// Writes out what a row says to a remote address of the first endpoint.
fn row_of(program: &Program, remote: &str) -> Vec<String> {
    let flat = flat(program);
    let row = flat.row(ingress(program), flat.class_of(address(remote))).unwrap();
    written(&flat, row)
}

fn written(flat: &Flat, row: &Row) -> Vec<String> {
    let mut lines = vec![format!("else {}", leaf(flat, row.default))];
    for Cell { protocol, first, last, then } in &row.cells {
        let then = match then {
            Then::Leaf(it) => leaf(flat, *it),
            Then::BySource(list) => {
                let ranges = flat.sources()[list.0 as usize].iter();
                let ranges: Vec<_> = ranges
                    .map(|it| format!("{}-{} {}", it.first, it.last, leaf(flat, it.leaf)))
                    .collect();
                format!("by source [{}]", ranges.join(", "))
            }
        };
        lines.push(format!("{protocol} {first}-{last} {then}"));
    }
    lines
}

fn leaf(flat: &Flat, id: LeafId) -> String {
    let leaf = &flat.leaves()[id.0 as usize];
    let reason = match &leaf.reason {
        Reason::Rule(origin) => format!("rule {}", origin.index),
        Reason::NoMatch { .. } => "no match".to_string(),
        other => format!("{other:?}"),
    };
    let logs: Vec<_> =
        leaf.logs.iter().map(|it| format!(", logged by {}", it.origin.index)).collect();
    format!("{}: {reason}{}", leaf.verdict, logs.concat())
}
