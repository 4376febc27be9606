//! `list`: backends and scenarios.

use std::env;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use netpol_conformance::scenario::Scenario;

use super::{Loaded, Result, backends, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Scenario files, or folders of them; without any, the scenarios of this crate if cargo runs the command
    paths: Vec<PathBuf>,
}

pub(crate) fn list(arguments: &Arguments) -> Result<ExitCode> {
    let mut text = String::from("backends:");
    for backend in backends::all(backends::Settings::USUAL) {
        text.push(' ');
        text.push_str(backend.name());
    }
    text.push('\n');
    let paths = if arguments.paths.is_empty() { shipped() } else { arguments.paths.clone() };
    let loaded = Loaded::from_paths(&paths)?;
    let scenarios = &loaded.scenarios;
    let width = scenarios.iter().map(|it| it.about().name.len()).max().unwrap_or_default();
    for scenario in scenarios {
        let about = scenario.about();
        let extent = match scenario {
            Scenario::Plan(plan) => {
                let probes: usize = plan.steps.iter().map(|step| step.attempts.len()).sum();
                format!("{:>3} steps  {probes:>5} probes", plan.steps.len())
            }
            Scenario::Skipped(skipped) => format!("skipped: {}", skipped.reason),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:width$}  {extent}  [{}]", about.name, about.requires.join(", "));
    }
    let _ = writeln!(text, "{} scenarios", scenarios.len());
    write_out(&text, None)?;
    Ok(loaded.status(ExitCode::SUCCESS))
}

/// Returns the scenarios of this crate, where cargo says where that is.
fn shipped() -> Vec<PathBuf> {
    let folder = |root| Path::new(&root).join("scenarios");
    env::var_os("CARGO_MANIFEST_DIR").map(folder).filter(|it| it.is_dir()).into_iter().collect()
}
