//! `reach`: who reaches whom in a whole cluster.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use netpol_conformance::cluster::Cluster;
use netpol_conformance::explain::explain;
use netpol_conformance::scenario::{Party, PartyName};
use netpol_core::analysis::{Cell, Class, Reachability, Traffic, reachability};
use netpol_core::eval::Judge;
use netpol_core::model::Inputs;
use netpol_core::net::Family;
use netpol_core::{Capabilities, Flow, Verdict};
use serde_json::json;

use super::classes::{Format, described, name, note_hosts};
use super::{Result, state, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Manifests of namespaces, pods and policies: files, or folders of them; or a scenario file
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Only from this one, with the rules that lead to each verdict: `namespace/pod`, `node:NAME` or an IP address
    #[arg(long)]
    from: Option<Party>,
    /// Only to this one, likewise
    #[arg(long)]
    to: Option<Party>,
    /// The step of the scenario after which to look, instead of the last one
    #[arg(long)]
    step: Option<String>,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The addresses that are asked for, and the indexes of their classes; `None` for all.
struct Asked {
    from: Option<BTreeMap<usize, IpAddr>>,
    to: Option<BTreeMap<usize, IpAddr>>,
}

pub(crate) fn reach(arguments: &Arguments) -> Result<ExitCode> {
    let cluster = state(&arguments.paths, arguments.step.as_deref())?.cluster;
    let inputs = cluster.inputs();
    note_hosts(&inputs);
    let capabilities = Capabilities::all();
    let found = reachability(&inputs, &capabilities)?;
    let classes = |party: &Option<Party>| {
        party.as_ref().map(|it| classes_of(it, &cluster, &found)).transpose()
    };
    let asked = Asked { from: classes(&arguments.from)?, to: classes(&arguments.to)? };
    let text = match arguments.format {
        Format::Json => in_json(&found, &asked)?,
        Format::Pretty if asked.from.is_some() || asked.to.is_some() => {
            explained(&found, &asked, &inputs, &Judge::new(&inputs, &capabilities))
        }
        Format::Pretty => Family::BOTH.into_iter().map(|it| matrix(&found, it)).collect(),
    };
    write_out(&text, None)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the classes of a party's addresses, each with one of these.
fn classes_of(
    party: &Party,
    cluster: &Cluster,
    found: &Reachability,
) -> Result<BTreeMap<usize, IpAddr>> {
    let addresses: Vec<IpAddr> = match &party.name {
        PartyName::Pod(namespace, name) => {
            let pod = cluster.pods().get(&format!("{namespace}/{name}"));
            pod.map(|it| it.own_addresses().to_vec()).unwrap_or_default()
        }
        PartyName::Node(name) => {
            eprintln!("note: whatever policy says, a node reaches the pods that run on it");
            cluster.nodes().get(name).map(|it| it.addresses.clone()).unwrap_or_default()
        }
        PartyName::Address(address) => vec![*address],
        PartyName::Service(..) => {
            return Err(format!("`{party}` is a Service, expected one of its backends").into());
        }
    };
    if addresses.is_empty() {
        return Err(format!("`{party}` has no address of its own, expected one that has").into());
    }
    Ok(addresses.into_iter().filter_map(|it| Some((found.class_of(it)?, it))).collect())
}

impl Asked {
    /// Returns the cells that are asked for in which an endpoint has a part, with the indexes of their classes.
    fn cells<'a>(
        &'a self,
        found: &'a Reachability,
    ) -> impl Iterator<Item = (usize, usize, Cell<'a>)> {
        let all = 0..found.classes().len();
        let asked = |of: &Option<BTreeMap<usize, IpAddr>>| -> Vec<usize> {
            of.as_ref().map_or_else(|| all.clone().collect(), |it| it.keys().copied().collect())
        };
        let (from, to) = (asked(&self.from), asked(&self.to));
        let pairs =
            from.into_iter().flat_map(move |from| to.clone().into_iter().map(move |to| (from, to)));
        pairs.filter_map(|(from, to)| Some((from, to, judged(found, from, to)?)))
    }

    /// Returns a flow like this one between the addresses that are asked for.
    fn between(&self, flow: Flow, from: usize, to: usize) -> Flow {
        let asked = |of: &Option<BTreeMap<usize, IpAddr>>, class| of.as_ref()?.get(&class).copied();
        let source = asked(&self.from, from).unwrap_or(flow.source);
        let destination = asked(&self.to, to).unwrap_or(flow.destination);
        // Traffic of an address with itself is not judged.
        if source == destination { flow } else { Flow { source, destination, ..flow } }
    }
}

/// Returns a cell in which an endpoint has a part.
fn judged(found: &Reachability, from: usize, to: usize) -> Option<Cell<'_>> {
    let has_endpoint = |it: usize| found.classes().get(it).is_some_and(is_of_endpoints);
    found.cell(from, to).filter(|_| has_endpoint(from) || has_endpoint(to))
}

fn is_of_endpoints(class: &Class) -> bool {
    class.endpoints().next().is_some()
}

/// Writes a table with one row for each class that sends and one column for each that receives.
fn matrix(found: &Reachability, family: Family) -> String {
    let classes: Vec<_> =
        found.classes().iter().enumerate().filter(|(_, it)| it.family == family).collect();
    let mut text = String::new();
    if !classes.iter().any(|(_, it)| is_of_endpoints(it)) {
        return text;
    }
    let mut out = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    out(format!("{family}: from each row to each column"));
    for (index, _) in &classes {
        out(format!("{:>5} {}", number(*index), name(found.classes(), *index)));
    }
    let columns = classes.iter().map(|(it, _)| format!("{:>6}", number(*it)));
    out(format!("\n{:5}{}", "", columns.collect::<String>()));
    let mut keys: BTreeMap<Traffic, String> = BTreeMap::new();
    for (from, _) in &classes {
        let row = classes.iter().map(|(to, _)| {
            let cell = judged(found, *from, *to);
            format!("{:>6}", cell.map_or_else(String::new, |it| key(&it.allowed(), &mut keys)))
        });
        out(format!("{:>5}{}", number(*from), row.collect::<String>()));
    }
    out("\n    + everything, - nothing".to_owned());
    let mut legend: Vec<_> = keys.into_iter().map(|(traffic, key)| (key, traffic)).collect();
    legend.sort_by_key(|(key, _)| (key.len(), key.clone()));
    for (key, traffic) in legend {
        out(format!("{key:>5} {traffic}"));
    }
    text.push('\n');
    text
}

fn number(index: usize) -> String {
    format!("[{index}]")
}

/// Returns what stands for some traffic in a table.
fn key(traffic: &Traffic, keys: &mut BTreeMap<Traffic, String>) -> String {
    if traffic.is_everything() {
        return "+".to_owned();
    }
    if traffic.is_nothing() {
        return "-".to_owned();
    }
    let next = letters(keys.len());
    keys.entry(traffic.clone()).or_insert(next).clone()
}

/// Returns `a` to `z`, then `aa`, `ab` and so on.
fn letters(number: usize) -> String {
    let letter = |number: usize| char::from(b'a' + u8::try_from(number % 26).unwrap_or_default());
    let before = (number / 26).checked_sub(1).map(letters).unwrap_or_default();
    format!("{before}{}", letter(number))
}

/// Writes what the cells allow, and why: what the judge says of a flow that passes and of one that does not.
fn explained(found: &Reachability, asked: &Asked, inputs: &Inputs, judge: &Judge<'_>) -> String {
    let mut text = String::new();
    let class = |index: usize| name(found.classes(), index);
    for (from, to, cell) in asked.cells(found) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} -> {}: {}", class(from), class(to), cell.allowed());
        for flow in [Verdict::Allow, Verdict::Deny].into_iter().filter_map(|it| cell.example(it)) {
            let flow = asked.between(flow, from, to);
            let why = explain(&judge.evaluate(&flow), inputs);
            let _ = writeln!(text, "  {flow}");
            why.lines().for_each(|line| {
                let _ = writeln!(text, "    {line}");
            });
        }
    }
    text
}

fn in_json(found: &Reachability, asked: &Asked) -> Result<String> {
    let cells = asked.cells(found).map(|(from, to, cell)| {
        let allowed = cell.allowed();
        json!({"from": from, "to": to, "allowed": allowed.to_string(), "traffic": *allowed})
    });
    let classes: Vec<_> = found.classes().iter().map(described).collect();
    let document = json!({"classes": classes, "cells": cells.collect::<Vec<_>>()});
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
