//! The commands.

mod backends;
mod check;
mod classes;
mod demo;
mod diff;
mod explain;
mod idle;
mod list;
mod progress;
mod reach;
mod run;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use netpol_conformance::document;
use netpol_conformance::manifests::{self, Manifests};
use netpol_conformance::scenario::{Scenario, ScenarioError, Step, load};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Anything that goes wrong in a command.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connectivity scenarios for network policy, on the model and on real dataplanes
#[derive(Debug, Parser)]
#[command(name = "netpol-conformance", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios. Exit status 0: something ran and nothing failed; 1: something failed; 2: could not run
    Run(run::Arguments),
    /// Say of each document whether its API accepts it, and what policies say that may not be meant. Exit status 1: one was
    /// refused, or there is a finding and `--deny-findings`; 2: could not be read
    Check(check::Arguments),
    /// Show the verdict of the model on one flow of a scenario or of manifests, and the rules that led to it
    Explain(explain::Arguments),
    /// Show who reaches whom in a whole cluster, by classes of addresses that policy treats alike
    Reach(reach::Arguments),
    /// Show what a change of policy changes: who may reach whom now and could not, and the other way round. Exit status 0:
    /// nothing; 1: something; 2: could not compare
    Diff(diff::Arguments),
    /// Show the rules that do nothing in a cluster, and why: what decides before they are asked, or that nothing meets them
    Idle(idle::Arguments),
    /// Tell the story of the shipped scenarios on a real dataplane: what each policy changes, and why
    Demo(demo::Arguments),
    /// List the backends of this build, and scenarios
    List(list::Arguments),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        raise_file_limit();
        match self.command {
            Command::Run(arguments) => run::run(&arguments),
            Command::Check(arguments) => check::check(&arguments),
            Command::Explain(arguments) => explain::explain(&arguments),
            Command::Reach(arguments) => reach::reach(&arguments),
            Command::Diff(arguments) => diff::diff(&arguments),
            Command::Idle(arguments) => idle::idle(&arguments),
            Command::Demo(arguments) => demo::demo(&arguments),
            Command::List(arguments) => list::list(&arguments),
        }
    }
}

/// Lets this process open as many files as it may: every listener and every attempt is one, often thousands together.
fn raise_file_limit() {
    // As much as there was is enough for small runs.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
}

/// The files below some paths: scenarios, and what could not be loaded.
struct Loaded {
    scenarios: Vec<Scenario>,
    broken: Vec<ScenarioError>,
}

impl Loaded {
    /// Loads all files below `paths`, and says of each that is no scenario what is wrong with it.
    fn from_paths(paths: &[PathBuf]) -> Result<Self> {
        let (mut scenarios, mut broken) = (Vec::new(), Vec::new());
        for file in files(paths)? {
            match load(&file) {
                Ok(scenario) => scenarios.push(scenario),
                Err(error) => {
                    eprintln!("error: {error}");
                    broken.push(error);
                }
            }
        }
        Ok(Self { scenarios, broken })
    }

    /// Returns the exit status of a command that did its work otherwise.
    fn status(&self, otherwise: ExitCode) -> ExitCode {
        match self.broken.len() {
            0 => return otherwise,
            1 => eprintln!("error: one file is no scenario"),
            number => eprintln!("error: {number} files are no scenarios"),
        }
        ExitCode::from(crate::COULD_NOT_RUN)
    }
}

/// Returns the files that `paths` stand for, each once.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        for file in document::files(path)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Returns the state that a scenario leads to after a step, or that of manifests.
fn state(paths: &[PathBuf], step: Option<&str>) -> Result<Step> {
    if let [file] = paths
        && file.is_file()
        && manifests::holds_scenario(file)?
    {
        return match load(file)? {
            Scenario::Plan(plan) => Ok(plan.step(step)?.clone()),
            Scenario::Skipped(skipped) => {
                Err(format!("`{}` {}", file.display(), skipped.reason).into())
            }
        };
    }
    if step.is_some() {
        return Err("--step without a scenario, expected one scenario file".into());
    }
    Ok(noted(manifests::load(&files(paths)?)?))
}

/// Returns the state of manifests, and says which objects are not in it.
fn noted(Manifests { state, ignored, .. }: Manifests) -> Step {
    if !ignored.is_empty() {
        eprintln!("note: these say nothing about policy here: {}", ignored.join(", "));
    }
    state
}

/// Writes `text` to `file`, or to standard output.
fn write_out(text: &str, file: Option<&Path>) -> Result<()> {
    match file {
        Some(file) => fs::write(file, text)
            .map_err(|error| format!("cannot write `{}`: {error}", file.display()).into()),
        None => match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        },
    }
}
