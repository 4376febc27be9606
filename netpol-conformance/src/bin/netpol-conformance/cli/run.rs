//! `run`: scenarios on backends.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use netpol_conformance::report::{self, Conclusion, Report, Row};
use netpol_conformance::runner;
use netpol_conformance::topology::Proxy;

use super::backends::{self, Settings};
use super::progress::Bar;
use super::{Loaded, Result, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Scenario files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What to run them on; `all` for every backend of this build
    #[arg(long, required = true, value_delimiter = ',')]
    backend: Vec<String>,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to write the report, instead of standard output
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many files to run at a time
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// How many times as long as usual to wait for answers: more than 1 on a slow machine
    #[arg(long, default_value_t = Settings::USUAL.patience, value_name = "FACTOR")]
    patience: NonZero<u32>,
    /// What translates the addresses of Services on nodes, as kube-proxy does
    #[arg(long, value_enum, default_value_t)]
    proxy: ProxyTool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ProxyTool {
    /// A table of nf_tables
    #[default]
    Nft,
    /// Chains of iptables
    Iptables,
}

impl From<ProxyTool> for Proxy {
    fn from(tool: ProxyTool) -> Self {
        match tool {
            ProxyTool::Nft => Self::Nft,
            ProxyTool::Iptables => Self::Iptables,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Pretty,
    /// One document, for programs
    Json,
    /// For continuous integration
    Junit,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let settings = Settings { patience: arguments.patience, proxy: arguments.proxy.into() };
    let backends = backends::named(&arguments.backend, arguments.jobs, settings)?;
    let loaded = Loaded::from_paths(&arguments.paths)?;
    let bar = Bar::new(loaded.scenarios.len() * backends.len());
    let mut report = runner::run(&loaded.scenarios, &backends, &bar)?;
    bar.finish();
    for backend in &backends {
        let rows = loaded.broken.iter().map(|error| {
            Row::unloadable(&error.file, backend.name(), format!("cannot be loaded: {error}"))
        });
        report.extend(rows);
    }
    write_out(&render(&report, arguments.format)?, arguments.out.as_deref())?;
    Ok(loaded.status(match report.conclusion() {
        Conclusion::Passed => ExitCode::SUCCESS,
        Conclusion::Failed => ExitCode::FAILURE,
        Conclusion::NothingRan => {
            eprintln!("error: nothing ran");
            ExitCode::from(crate::COULD_NOT_RUN)
        }
    }))
}

fn render(report: &Report, format: Format) -> Result<String> {
    Ok(match format {
        Format::Pretty => report::pretty(report),
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
        Format::Junit => report::junit(report)?,
    })
}
