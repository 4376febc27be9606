//! `demo`: the story of the shipped scenarios, told on a real dataplane.

mod cast;
mod grid;

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use netpol_conformance::report::Row;
use netpol_conformance::runner::{Backend, chain};
use netpol_conformance::scenario::{Plan, Scenario, Step, parse};
use netpol_conformance::subject::{Got, SubjectError};
use serde_json::Value;

use self::cast::cast;
use self::grid::{Cell, Cells, Grid, Place};
use super::backends::{self, Settings};
use super::{Result, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The dataplane to show it on
    #[arg(long)]
    backend: String,
}

/// The chapters: file names and texts of scenarios.
const STORY: [(&str, &str); 11] = [
    ("story-whole.yaml", include_str!("../../../../scenarios/story/story-whole.yaml")),
    (
        "story-allow-frontend-to-backend.yaml",
        include_str!("../../../../scenarios/story/story-allow-frontend-to-backend.yaml"),
    ),
    (
        "story-default-deny-ingress.yaml",
        include_str!("../../../../scenarios/story/story-default-deny-ingress.yaml"),
    ),
    (
        "story-restrict-backend-egress.yaml",
        include_str!("../../../../scenarios/story/story-restrict-backend-egress.yaml"),
    ),
    (
        "story-policy-types-defaulting.yaml",
        include_str!("../../../../scenarios/story/story-policy-types-defaulting.yaml"),
    ),
    (
        "story-namespace-selector.yaml",
        include_str!("../../../../scenarios/story/story-namespace-selector.yaml"),
    ),
    (
        "story-one-peer-or-two.yaml",
        include_str!("../../../../scenarios/story/story-one-peer-or-two.yaml"),
    ),
    (
        "story-ip-block-except.yaml",
        include_str!("../../../../scenarios/story/story-ip-block-except.yaml"),
    ),
    ("story-end-port.yaml", include_str!("../../../../scenarios/story/story-end-port.yaml")),
    ("story-named-ports.yaml", include_str!("../../../../scenarios/story/story-named-ports.yaml")),
    ("story-ipv6.yaml", include_str!("../../../../scenarios/story/story-ipv6.yaml")),
];

const LEGEND: &str = "
Every pod and every node is a network namespace of its own, and every ✓ and ✗ is what came of a real connection.
Rows are sources, columns are destinations with a TCP port (or another protocol's).
✓ a connection was made and answered   ✗ no answer   * changed by the step   · not tried   ! not what the model says
";

/// What was measured so far.
#[derive(Debug, Default)]
struct Tally {
    connections: usize,
    wrong: usize,
}

pub(crate) fn demo(arguments: &Arguments) -> Result<ExitCode> {
    let names = std::slice::from_ref(&arguments.backend);
    let backends = backends::named(names, None, Settings::USUAL)?;
    let [backend] = backends.as_slice() else {
        return Err("the demo runs on one backend, expected the name of one".into());
    };
    let mut tally = Tally::default();
    for (file, text) in STORY {
        match parse(Path::new(file), text)? {
            Scenario::Plan(plan) => tell(plan, backend, &mut tally)?,
            Scenario::Skipped(skipped) => return Err(skipped.reason.into()),
        }
    }
    let Tally { connections, wrong } = tally;
    let agreement = if wrong == 0 {
        "every one as the model says".to_owned()
    } else {
        format!("{wrong} NOT as the model says")
    };
    write_out(
        &format!("\n{connections} connections were tried on {}, {agreement}.\n", backend.name()),
        None,
    )?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays one chapter and prints what each of its steps changed.
fn tell(mut plan: Plan, backend: &Backend, tally: &mut Tally) -> Result<()> {
    let grid = Grid::of(&plan);
    // Steps that only ask again are one with the step before.
    plan.steps.retain(changes_something);
    if let Some(mut start) = plan.steps.first().cloned() {
        "before any policy".clone_into(&mut start.name);
        start.deleted.clear();
        start.applied.clear();
        start.cluster = Arc::clone(&plan.initial);
        plan.steps.insert(0, start);
    }
    let mut places = Vec::new();
    for step in &mut plan.steps {
        let (cells, attempts) = grid.attempts(step).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        step.attempts = attempts;
        places.push(cells);
    }
    let mut rows = backend.run(&Scenario::Plan(plan.clone())).map_err(with_advice)?.into_iter();
    write_out(&format!("\n== {}: {}\n", plan.about.name, plan.about.description.trim()), None)?;
    if tally.connections == 0 {
        write_out(LEGEND, None)?;
    }
    write_out(&format!("\n{}", cast(&plan.initial)), None)?;
    let mut before: Option<Cells> = None;
    for (step, places) in plan.steps.iter().zip(places) {
        let cell = |((place, why), row): ((Place, String), Row)| {
            (place, Cell { got: row.got, status: row.status, why })
        };
        let after: Cells = places.into_iter().zip(&mut rows).map(cell).collect();
        tally.connections += after.len();
        tally.wrong += after.values().filter(|cell| cell.is_wrong()).count();
        write_out(&told(step, &grid, before.as_ref(), &after), None)?;
        before = Some(after);
    }
    Ok(())
}

fn changes_something(step: &Step) -> bool {
    !step.deleted.is_empty() || !step.applied.is_empty()
}

/// Says how to come by what is missing.
fn with_advice(error: SubjectError) -> Box<dyn Error> {
    if error.is_fatal() {
        return format!(
            "{}\nthe demo needs network namespaces: run it as root, or run `cargo xtask demo`",
            chain(&error)
        )
        .into();
    }
    error.into()
}

fn told(step: &Step, grid: &Grid, before: Option<&Cells>, after: &Cells) -> String {
    let mut text = format!("\n-- {}\n", step.name);
    // Writing to a string cannot fail.
    for deleted in &step.deleted {
        let _ = writeln!(text, "\n   - {deleted}");
    }
    for applied in &step.applied {
        let _ = write!(text, "\n{}", excerpt(applied));
    }
    if let Some(before) = before {
        let _ = write!(text, "\n   before\n{}", grid.render(before, None));
    }
    let heading = if before.is_some() { "   after\n" } else { "" };
    let _ = write!(text, "\n{heading}{}", grid.render(after, before));
    let noteworthy: Vec<_> =
        after.iter().filter(|(_, cell)| cell.is_wrong() || cell.got == Some(Got::Deny)).collect();
    if !noteworthy.is_empty() {
        let _ = writeln!(text, "\n   why not");
    }
    for (place, cell) in noteworthy {
        let verdict = if cell.is_wrong() { "the model says otherwise: " } else { "" };
        let _ = writeln!(text, "   {}: {verdict}{}", grid.pair(*place), cell.why);
    }
    text
}

/// Returns what matters of an object: its name and its specification.
fn excerpt(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = text("/metadata/namespace");
    let slash = if namespace.is_empty() { "" } else { "/" };
    let mut excerpt =
        format!("   + {} {namespace}{slash}{}\n", text("/kind"), text("/metadata/name"));
    let spec = object.get("spec").or_else(|| object.pointer("/metadata/labels"));
    for line in spec.and_then(|it| serde_saphyr::to_string(it).ok()).unwrap_or_default().lines() {
        excerpt.push_str("       ");
        excerpt.push_str(line);
        excerpt.push('\n');
    }
    excerpt
}
