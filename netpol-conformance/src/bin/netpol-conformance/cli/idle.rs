//! `idle`: rules that do nothing in a cluster.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use netpol_conformance::explain::policy;
use netpol_conformance::text::printable;
use netpol_core::Capabilities;
use netpol_core::analysis::{Idle, IdleRule, idle_rules};
use serde_json::json;

use super::classes::{Format, note_hosts};
use super::{Result, state, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Manifests of namespaces, pods and policies: files, or folders of them; or a scenario file
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The step of the scenario after which to look, instead of the last one
    #[arg(long)]
    step: Option<String>,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn idle(arguments: &Arguments) -> Result<ExitCode> {
    let inputs = state(&arguments.paths, arguments.step.as_deref())?.cluster.inputs();
    note_hosts(&inputs);
    let found = idle_rules(&inputs, &Capabilities::all())?;
    let text = match arguments.format {
        Format::Pretty => pretty(&found),
        Format::Json => in_json(&found)?,
    };
    write_out(&text, None)?;
    Ok(ExitCode::SUCCESS)
}

fn pretty(found: &[IdleRule]) -> String {
    if found.is_empty() {
        return "every rule does something\n".to_owned();
    }
    let mut text = String::new();
    for IdleRule { rule, why, .. } in found {
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{}, {}", printable(&policy(&rule.policy).to_string()), rule.place());
        match why {
            Idle::Shadowed { by } => {
                let _ = writeln!(text, "  shadowed: whatever it matches is decided before, by");
                for reason in by {
                    let _ = writeln!(text, "    {}", printable(&reason.to_string()));
                }
            }
            other => {
                let _ = writeln!(text, "  {other}");
            }
        }
    }
    text
}

fn in_json(found: &[IdleRule]) -> Result<String> {
    let rule = |IdleRule { rule, why, .. }: &IdleRule| {
        let (name, by) = match why {
            Idle::NoSubject => ("no-subject", Vec::new()),
            Idle::NoTraffic => ("no-traffic", Vec::new()),
            Idle::Shadowed { by } => ("shadowed", by.iter().map(ToString::to_string).collect()),
            _ => ("other", Vec::new()),
        };
        json!({
            "policy": policy(&rule.policy).to_string(), "rule": rule.place().to_string(), "why": name, "by": by,
            "message": why.to_string(),
        })
    };
    let rules: Vec<_> = found.iter().map(rule).collect();
    Ok(serde_json::to_string_pretty(&json!({"rules": rules}))? + "\n")
}
