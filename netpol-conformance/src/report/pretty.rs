//! Reports for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::{Counts, Report, Row, Status};

/// Returns a report for people: what failed and why, what was skipped and why, and a table of counts.
#[must_use]
pub fn pretty(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = failures(&mut text, report)
        .and_then(|()| skips(&mut text, report))
        .and_then(|()| table(&mut text, report));
    text
}

fn failures(out: &mut String, report: &Report) -> fmt::Result {
    let mut place = None;
    for row in report.results.iter().filter(|row| row.status == Status::Fail) {
        let Row { scenario, backend, step, .. } = row;
        if place.replace((scenario, backend, step)) != Some((scenario, backend, step)) {
            writeln!(
                out,
                "FAIL {scenario} on {backend}, step `{}` ({})",
                step.as_deref().unwrap_or_default(),
                row.file
            )?;
        }
        let expected = row.expect.map_or_else(String::new, |it| format!("expected {it}, "));
        let got = row.got.map_or("nothing", |it| it.as_str());
        writeln!(out, "  {}: {expected}got {got}\n    {}", row.probe(), row.reason)?;
    }
    if place.is_some() { out.write_char('\n') } else { Ok(()) }
}

fn skips(out: &mut String, report: &Report) -> fmt::Result {
    let mut by_reason: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for row in report.results.iter().filter(|row| row.status == Status::Skip) {
        by_reason.entry((&row.backend, &row.reason)).or_default().push(&row.scenario);
    }
    for ((backend, reason), scenarios) in &by_reason {
        writeln!(out, "SKIP {} on {backend}: {reason}", scenarios.join(", "))?;
    }
    if by_reason.is_empty() { Ok(()) } else { out.write_char('\n') }
}

fn table(out: &mut String, report: &Report) -> fmt::Result {
    let width =
        report.summary.keys().map(String::len).chain(["backend".len()]).max().unwrap_or_default();
    writeln!(out, "{:width$}  {:>7}  {:>7}  {:>7}", "backend", "pass", "fail", "skip")?;
    for (backend, Counts { pass, fail, skip }) in &report.summary {
        writeln!(out, "{backend:width$}  {pass:>7}  {fail:>7}  {skip:>7}")?;
    }
    Ok(())
}
