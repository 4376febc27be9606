//! `check`: whether the APIs accept documents, and whether they say what their authors may mean.

use std::fmt::Write;
use std::io::{self, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use netpol_conformance::check::{Checked, Entry, EntryFinding};
use netpol_conformance::document;
use netpol_conformance::text::printable;
use netpol_core::lint::Severity;

use super::{Result, files, write_out};

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files of documents in YAML or JSON, folders of them, or `-` for standard input
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Fail on findings, not only on what is refused: on all of them, or only on those that matter as much as this
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "note")]
    deny_findings: Option<Least>,
}

/// How much a finding must matter.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Least {
    /// Every finding
    Note,
    /// What is probably not meant
    Warning,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Pretty,
    /// One document, for programs
    Json,
}

pub(crate) fn check(arguments: &Arguments) -> Result<ExitCode> {
    let mut checked = Checked::default();
    for path in &arguments.paths {
        if path == Path::new(STANDARD_INPUT) {
            match document::text_of(stdin()) {
                Err(error) if is_no_text(&error) => checked.refuse(path, &error),
                text => checked
                    .add(path, &text.map_err(|it| format!("standard input cannot be read: {it}"))?),
            }
            continue;
        }
        for file in files(std::slice::from_ref(path))? {
            match document::text(&file) {
                Err(error) if is_no_text(&error.source) => checked.refuse(&file, &error.source),
                text => checked.add(&file, &text?),
            }
        }
    }
    checked.lint();
    let text = match arguments.format {
        Format::Pretty => pretty(&checked),
        Format::Json => serde_json::to_string_pretty(&checked)? + "\n",
    };
    write_out(&text, None)?;
    if checked.results.is_empty() {
        return Err("nothing to check: no documents".into());
    }
    let is_found = arguments.deny_findings.is_some_and(|least| {
        let least = match least {
            Least::Note => Severity::Note,
            Least::Warning => Severity::Warning,
        };
        checked.findings(least) > 0
    });
    Ok(if checked.any_refused() || is_found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns whether something was read that is no UTF-8: it is refused, and hides nothing else.
fn is_no_text(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn pretty(checked: &Checked) -> String {
    let mut text = String::new();
    for entry in &checked.results {
        let verdict = match entry.accepted {
            Some(true) => "accepted",
            Some(false) => "refused ",
            None => "ignored ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{verdict}  {}, document {}: {}",
            entry.file,
            entry.document,
            printable(&describe(entry))
        );
        if let Some(reason) = &entry.reason {
            let _ = writeln!(text, "          {}", printable(reason));
        }
        for error in &entry.errors {
            let colon = if error.path.is_empty() { "" } else { ": " };
            let _ = writeln!(
                text,
                "          {}{colon}{}",
                printable(&error.path),
                printable(&error.message)
            );
        }
        for EntryFinding { severity, lint, rule, message, .. } in &entry.findings {
            let place = rule.as_ref().map_or_else(String::new, |it| format!("{it}: "));
            let _ = writeln!(text, "          {severity}: {place}{message} [{lint}]");
        }
    }
    text
}

fn describe(entry: &Entry) -> String {
    let namespace = entry.namespace.as_ref().map_or_else(String::new, |it| format!("{it}/"));
    match (&entry.kind, &entry.name) {
        (Some(kind), Some(name)) => format!("{kind} {namespace}{name}"),
        (Some(kind), None) => format!("{kind} without a name"),
        (None, _) => "no object".to_owned(),
    }
}
