//! Repository chores: set-up, demo, test, full, fuzz, object, vm, tidy.
//!
//! This crate depends on nothing that needs a system library, so that it can be built before `setup` has
//! installed any.

mod command;
mod demo;
mod fuzz;
mod no_std;
mod object;
mod privilege;
mod setup;
mod test;
mod tidy;
mod vm;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::demo::Backend;
use crate::object::Fresh;
use crate::setup::Purpose;
use crate::test::Extent;

/// What a chore returns; an error is shown to the user as it is.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Repository chores.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Installs the system packages and the tool that the build and the tests need, saying which and why
    Setup,
    /// Builds a small cluster of network namespaces, enforces policy in it and shows what changed
    Demo {
        /// The dataplane that enforces
        #[arg(long, value_enum, default_value_t = Backend::Nft)]
        backend: Backend,
    },
    /// Set-up, then every check and every test, kernel tests included (what CI runs)
    Test,
    /// Everything in `test`, then the tests in release mode, each bench once, the eBPF object built again, and `vm`
    Full,
    /// Runs the fuzz targets, each with inputs that follow from its corpus, until something breaks or the time is over
    Fuzz {
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Runs the scenarios on an older kernel, in a virtual machine
    Vm {
        /// The dataplanes that enforce; all if none is named
        #[arg(long, value_enum, value_delimiter = ',')]
        backend: Vec<Backend>,
    },
    /// Builds the eBPF object that is checked in; needs tools that nothing else needs (CONTRIBUTING.md)
    Object,
    /// Checks the rules of this repository that no compiler or linter knows
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Setup => setup::set_up(Purpose::Test).and_then(|()| fuzz::install()),
        Chore::Demo { backend } => demo::demo(backend),
        Chore::Test => test::test(Extent::Test),
        Chore::Full => test::test(Extent::Full),
        Chore::Fuzz { seconds } => {
            fuzz::fuzz(Duration::from_secs(seconds)).map(|summary| println!("fuzz: {summary}"))
        }
        Chore::Vm { backend } => vm::vm(&backend),
        Chore::Object => object::build(Fresh::Kept).map(|summary| println!("object: {summary}")),
        Chore::Tidy => tidy::tidy().map(|summary| println!("tidy: {summary}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
