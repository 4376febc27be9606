//! `diff`: what a change of policy changes.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use netpol_conformance::explain::reasons;
use netpol_conformance::manifests;
use netpol_core::analysis::{Diff, Difference, Example, diff as compared, with_staged};
use netpol_core::eval::Judgement;
use netpol_core::model::Inputs;
use netpol_core::{Capabilities, Verdict};
use serde_json::{Value, json};

use super::classes::{Format, described, names, note_hosts};
use super::{Result, files, noted, state, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Manifests of a whole cluster before the change: a file, or a folder of them
    before: PathBuf,
    /// The same after the change
    #[arg(required_unless_present = "staged")]
    after: Option<PathBuf>,
    /// Compare with what would be if the staged policies were enforced
    #[arg(long, conflicts_with = "after")]
    staged: bool,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn diff(arguments: &Arguments) -> Result<ExitCode> {
    let [before, after] = states(arguments)?;
    note_hosts(&after);
    let found = compared(&before, &after, &Capabilities::all())?;
    let text = match arguments.format {
        Format::Pretty => pretty(&found, &before, &after),
        Format::Json => in_json(&found, &before, &after)?,
    };
    write_out(&text, None)?;
    Ok(if found.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn states(arguments: &Arguments) -> Result<[Inputs; 2]> {
    let before = std::slice::from_ref(&arguments.before);
    match &arguments.after {
        Some(after) => {
            let after = files(std::slice::from_ref(after))?;
            let states = manifests::load_change(&files(before)?, &after)?;
            Ok(states.map(|it| noted(it).cluster.inputs()))
        }
        None => {
            let enforced = state(before, None)?.cluster.inputs();
            let pending = with_staged(&enforced);
            Ok([enforced, pending])
        }
    }
}

fn pretty(found: &Diff, before: &Inputs, after: &Inputs) -> String {
    if found.differences.is_empty() {
        return "no difference\n".to_owned();
    }
    // What is the same for the addresses of both families is said once.
    let mut said: Vec<(String, Vec<&Example>)> = Vec::new();
    for Difference { verdict, from, to, traffic, examples, .. } in &found.differences {
        let is_new = if *verdict == Verdict::Allow { "allowed" } else { "denied" };
        let [from, to] = [from, to].map(|it| names(&found.classes, it));
        let head = format!("{is_new} now: {traffic}\n  from {from}\n  to   {to}\n");
        match said.iter_mut().find(|(it, _)| *it == head) {
            Some((_, before)) => before.extend(examples),
            None => said.push((head, examples.iter().collect())),
        }
    }
    let reasons = |it: &Example| [why(&it.before, before), why(&it.after, after)];
    let mut text = String::new();
    for (head, examples) in said {
        text.push_str(&head);
        for alike in examples.chunk_by(|a, b| reasons(a) == reasons(b)) {
            alike.iter().for_each(|it| {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  as {}", it.flow);
            });
            let [was, is] = alike.first().map(|it| reasons(it)).unwrap_or_default();
            write_lines(&mut text, "before", &was);
            write_lines(&mut text, "after", &is);
        }
        text.push('\n');
    }
    text
}

fn write_lines(text: &mut String, when: &str, lines: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "    {when}");
    for line in lines.lines() {
        let _ = writeln!(text, "      {line}");
    }
}

/// Returns what the policies of workloads said.
fn why(judgement: &Judgement, inputs: &Inputs) -> String {
    reasons(Some(&judgement.egress), Some(&judgement.ingress), &[], inputs)
}

fn in_json(found: &Diff, before: &Inputs, after: &Inputs) -> Result<String> {
    let example = |Example { flow, before: was, after: is, .. }: &Example| json!({"flow": flow.to_string(), "before": why(was, before), "after": why(is, after)});
    let difference = |it: &Difference| {
        let Difference { verdict, from, to, traffic, examples, .. } = it;
        let examples: Vec<Value> = examples.iter().map(example).collect();
        json!({
            "verdict": verdict.to_string(), "from": from, "to": to, "what": traffic.to_string(), "traffic": traffic,
            "examples": examples,
        })
    };
    let differences: Vec<_> = found.differences.iter().map(difference).collect();
    let classes: Vec<_> = found.classes.iter().map(described).collect();
    let document = json!({"classes": classes, "differences": differences});
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
