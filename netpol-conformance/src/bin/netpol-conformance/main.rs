//! The command `netpol-conformance`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// The exit status if a command could not do what it is for.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {}", netpol_conformance::runner::chain(&*error));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}
