//! `check`: whether the APIs accept documents.

use std::fmt::Write;
use std::io::{self, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use netpol_conformance::check::{Checked, Entry};
use netpol_conformance::document;

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
    let text = match arguments.format {
        Format::Pretty => pretty(&checked),
        Format::Json => serde_json::to_string_pretty(&checked)? + "\n",
    };
    write_out(&text, None)?;
    if checked.results.is_empty() {
        return Err("nothing to check: no documents".into());
    }
    Ok(if checked.any_refused() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
            describe(entry)
        );
        for error in &entry.errors {
            let colon = if error.path.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "          {}{colon}{}", error.path, error.message);
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
