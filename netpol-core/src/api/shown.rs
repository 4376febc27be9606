//! Policies as text, for tests of the conversions.

#![expect(clippy::unwrap_used, reason = "test code")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use crate::model::{
    EntityMatch, HttpMatch, HttpPathMatch, L4Match, Peers, Policy, PortMatch, Rule, Tenancy,
};
use crate::net::IcmpMatch;

/// Prints what a policy does, one rule a line. `PODS` stands for the orchestrator's term, `NS` for the key of the
/// namespace.
pub(super) fn shown(policy: &Policy) -> String {
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
    let mut text = rule.index.to_string();
    if let Some(name) = &rule.name {
        write!(text, " `{name}`").unwrap();
    }
    write!(text, " {:?} ", rule.action).unwrap();
    if let Some(family) = rule.matches.family {
        write!(text, "{family} ").unwrap();
    }
    text.push_str(&shown_l4(&rule.matches.l4));
    for (side, entity) in [("from", &rule.matches.source), ("to", &rule.matches.destination)] {
        if *entity != EntityMatch::default() {
            write!(text, " {side} {}", shown_entity(entity)).unwrap();
        }
    }
    if let Some(HttpMatch { methods, paths }) = &rule.matches.http {
        text.push_str(" http");
        for method in methods {
            write!(text, " {method}").unwrap();
        }
        for path in paths {
            match path {
                HttpPathMatch::Exact(path) => write!(text, " {path}").unwrap(),
                HttpPathMatch::Prefix(path) => write!(text, " {path}…").unwrap(),
            }
        }
    }
    if rule.degraded {
        text.push_str(" degraded");
    }
    text
}

fn shown_l4(l4: &L4Match<PortMatch>) -> String {
    match l4 {
        L4Match::Any => "everything".into(),
        L4Match::Is(protocol) => protocol.to_string(),
        L4Match::IsNot(protocols) => {
            let protocols: Vec<_> = protocols.iter().map(ToString::to_string).collect();
            format!("not {}", protocols.join(" "))
        }
        L4Match::Ports { transport, source, destination } => {
            let lists = [
                (" source", &source.any_of),
                (" source not", &source.none_of),
                ("", &destination.any_of),
                (" not", &destination.none_of),
            ];
            let mut text = transport.to_string();
            for (word, list) in lists {
                if let Some(list) = list {
                    write!(text, "{word}{}", shown_ports(list)).unwrap();
                }
            }
            text
        }
        L4Match::Icmp { family, is, is_not } => {
            let mut text = format!("ICMP of {family}");
            for (word, message) in [("", is), (" not", is_not)] {
                if let Some(IcmpMatch { kind, code }) = message {
                    write!(text, "{word} type {kind}").unwrap();
                    code.iter().for_each(|code| write!(text, " code {code}").unwrap());
                }
            }
            text
        }
    }
}

fn shown_ports(list: &PortMatch) -> String {
    let PortMatch { numbers, names, backends_of } = list;
    let mut text = String::new();
    if !numbers.is_empty() {
        write!(text, " {numbers}").unwrap();
    }
    for name in names {
        write!(text, " `{name}`").unwrap();
    }
    if let Some(service) = backends_of {
        write!(text, " of backends of {service}").unwrap();
    }
    text
}

fn shown_entity(entity: &EntityMatch) -> String {
    let mut text = String::new();
    match &entity.peers {
        None => {}
        Some(Peers::Endpoints(selector)) => write!(text, "{selector}").unwrap(),
        Some(Peers::Nodes(selector)) => write!(text, "nodes {selector}").unwrap(),
        Some(Peers::Tenants { endpoints, tenancy }) => {
            let (word, keys) = match tenancy {
                Tenancy::Same(keys) => ("same", keys),
                Tenancy::NotSame(keys) => ("other", keys),
            };
            write!(text, "{endpoints} of {word} {keys:?}").unwrap();
        }
        Some(Peers::DomainNames(patterns)) => {
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            write!(text, "names {}", patterns.join(" ")).unwrap();
        }
        Some(Peers::BackendsOf(service)) => write!(text, "backends of {service}").unwrap(),
    }
    if let Some(selector) = &entity.not_peers {
        write!(text, "but {selector}").unwrap();
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
