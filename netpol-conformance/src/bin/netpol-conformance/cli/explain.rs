//! `explain`: the verdict of the model on one flow, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use netpol_conformance::scenario::{Party, ProbePort, ProbeProtocol, Scenario, load};

use super::{Result, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A scenario file
    file: PathBuf,
    /// The source: `namespace/pod`, `node:NAME` or an IP address
    #[arg(long)]
    from: Party,
    /// The destination, likewise
    #[arg(long)]
    to: Party,
    /// TCP, UDP, SCTP or ICMP
    #[arg(long)]
    protocol: ProbeProtocol,
    /// The destination port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The step after which to look, instead of the last one
    #[arg(long)]
    step: Option<String>,
}

pub(crate) fn explain(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { file, from, to, protocol, port, step } = arguments;
    let plan = match load(file)? {
        Scenario::Plan(plan) => plan,
        Scenario::Skipped(skipped) => {
            return Err(format!("`{}` {}", file.display(), skipped.reason).into());
        }
    };
    let step = plan.step(step.as_deref())?;
    let attempt = step.attempt(from, to, ProbePort::new(*protocol, *port)?)?;
    let evaluation = step.evaluate(&attempt);
    write_out(&format!("{attempt}\nafter step `{}`: {evaluation}\n", step.name), None)?;
    Ok(ExitCode::SUCCESS)
}
