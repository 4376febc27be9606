//! Reports for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::{Counts, Report, Row, Status};

/// Returns a report for people: what failed and why, what was skipped and why, where backends disagree, and a table of
/// counts.
#[must_use]
pub fn pretty(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = failures(&mut text, report)
        .and_then(|()| skips(&mut text, report))
        .and_then(|()| disagreements(&mut text, report))
        .and_then(|()| table(&mut text, report));
    text
}

fn failures(out: &mut String, report: &Report) -> fmt::Result {
    let mut place = None;
    for row in report.results.iter().filter(|row| row.status == Status::Fail) {
        let Row { scenario, backend, step, .. } = row;
        if place.replace((scenario, backend, step)) != Some((scenario, backend, step)) {
            let step = step.as_ref().map_or_else(String::new, |it| format!(", step `{it}`"));
            writeln!(out, "FAIL {scenario} on {backend}{step} ({})", row.file)?;
        }
        if row.from.is_none() {
            writeln!(out, "  {}", row.reason)?;
            continue;
        }
        let expected = row.expect.map_or_else(String::new, |it| format!("expected {it}, "));
        let got = row.got.map_or("nothing", |it| it.as_str());
        writeln!(out, "  {}: {expected}got {got}", row.probe())?;
        row.reason.lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    if place.is_some() { out.write_char('\n') } else { Ok(()) }
}

fn skips(out: &mut String, report: &Report) -> fmt::Result {
    let mut by_reason: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for row in report.results.iter().filter(|row| row.status == Status::Skip) {
        let scenarios = by_reason.entry((&row.backend, &row.reason)).or_default();
        // Several probes of one scenario can be skipped; they follow each other.
        if scenarios.last() != Some(&row.scenario.as_str()) {
            scenarios.push(&row.scenario);
        }
    }
    for ((backend, reason), scenarios) in &by_reason {
        writeln!(out, "SKIP {} on {backend}: {reason}", scenarios.join(", "))?;
    }
    if by_reason.is_empty() { Ok(()) } else { out.write_char('\n') }
}

/// Which backends saw what, of one probe.
type Seen<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Writes the probes of which not all backends saw the same.
fn disagreements(out: &mut String, report: &Report) -> fmt::Result {
    let mut by_probe: BTreeMap<_, Seen<'_>> = BTreeMap::new();
    for row in &report.results {
        if let Some(got) = row.got {
            let probe = (&row.file, &row.step, row.probe());
            by_probe.entry(probe).or_default().entry(got.as_str()).or_default().push(&row.backend);
        }
    }
    by_probe.retain(|_, seen| seen.len() > 1);
    for ((file, step, probe), seen) in &by_probe {
        writeln!(out, "DISAGREE {probe}, step `{}` ({file})", step.as_deref().unwrap_or_default())?;
        for (got, backends) in seen {
            writeln!(out, "  {got}: {}", backends.join(", "))?;
        }
    }
    if by_probe.is_empty() { Ok(()) } else { out.write_char('\n') }
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

#[cfg(test)]
mod tests {
    use netpol_core::Verdict;

    use super::*;
    use crate::scenario::ProbeProtocol;
    use crate::subject::Got;

    #[test]
    fn backends_that_see_different_things_are_set_against_each_other() {
        let row = |backend: &str, port: u16, got: Got| Row {
            file: "f.yaml".into(),
            scenario: "f".into(),
            backend: backend.into(),
            step: Some("one".into()),
            from: Some("x/a".into()),
            to: Some("x/b".into()),
            protocol: Some(ProbeProtocol::Tcp),
            port: Some(port),
            details: String::new(),
            expect: Some(Verdict::Allow),
            got: Some(got),
            status: Status::Pass,
            reason: String::new(),
        };
        let mut report = Report::new(["model", "nft", "ebpf"]);
        report.extend([
            row("model", 80, Got::Allow),
            row("nft", 80, Got::Deny),
            row("ebpf", 80, Got::Allow),
        ]);
        report.extend([row("model", 81, Got::Allow), row("nft", 81, Got::Allow)]);
        let mut text = String::new();
        disagreements(&mut text, &report).unwrap_or_default();
        let want = "DISAGREE x/a -> x/b TCP 80, step `one` (f.yaml)\n  allow: model, ebpf\n  deny: nft\n\n";
        assert_eq!(text, want);
    }
}
