//! The tools of the host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

use netpol_core::Program;
use netpol_core::net::Family;
use netpol_netfilter::{Conntrack, wait_for_packets};

use crate::error::IptablesError;
use crate::name::{Name, Owner};
use crate::probe::{Flavour, KernelTable};
use crate::restore::jump;

mod orphans;
mod process;
mod worker;

use self::process::Command;
use self::worker::Worker;

/// One of the four sets of tools: a flavour and a family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Variant {
    pub(crate) flavour: Flavour,
    pub(crate) family: Family,
}

impl Variant {
    /// Returns the name of the command that changes single rules.
    pub(crate) const fn command(self) -> &'static str {
        match (self.family, self.flavour) {
            (Family::V4, Flavour::Nft) => "iptables-nft",
            (Family::V4, Flavour::Legacy) => "iptables-legacy",
            (Family::V6, Flavour::Nft) => "ip6tables-nft",
            (Family::V6, Flavour::Legacy) => "ip6tables-legacy",
        }
    }
}

/// What the dataplane needs of its host. All calls may block for as long as a tool takes.
pub(crate) trait Tools: Send {
    /// Returns what `iptables --version` says, for the command without a flavour in its name.
    fn version(&mut self) -> Result<String, IptablesError>;

    /// Lists a table, or all tables that exist, with counters.
    fn save(
        &mut self,
        variant: Variant,
        table: Option<KernelTable>,
    ) -> Result<String, IptablesError>;

    /// Runs a script of `iptables-restore`. Each of its transactions is done wholly or not at all.
    fn restore(&mut self, variant: Variant, script: &str) -> Result<(), IptablesError>;

    /// Makes a chain of ours the first that a built-in chain enters.
    fn insert_jump(
        &mut self,
        variant: Variant,
        table: KernelTable,
        hook: &str,
        chain: &Name,
    ) -> Result<(), IptablesError>;

    /// Removes the first jump of a built-in chain to a chain of ours.
    fn delete_jump(
        &mut self,
        variant: Variant,
        table: KernelTable,
        hook: &str,
        chain: &Name,
    ) -> Result<(), IptablesError>;

    /// Lists all sets with their members.
    fn save_sets(&mut self) -> Result<String, IptablesError>;

    /// Runs a script of `ipset restore`. It stops at the first line that fails; those before it stay done.
    fn restore_sets(&mut self, script: &str) -> Result<(), IptablesError>;

    /// Waits until all packets are gone that are on their way now.
    fn wait_for_packets(&mut self);

    /// Forgets all tracked flows of these addresses, and returns how many those were.
    fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<u64, IptablesError>;

    /// Stops the tracked flows that a program denies, and returns how many those were; if the program keeps established
    /// flows, those that were stopped before may go on.
    fn reevaluate_flows(&mut self, program: &Program) -> Result<u64, IptablesError>;
}

/// The real tools, in the network namespace of the thread that started them here.
#[derive(Debug)]
pub(crate) struct Processes {
    worker: Worker,
    owner: Owner,
    limit: Duration,
    conntrack: Conntrack,
}

/// What the legacy flavour says where it may change tables but not list their names: in a user namespace, whose root does
/// not own `/proc/net/ip_tables_names` (Linux 6.18). To list a table by name makes it there.
const NO_TABLE_NAMES: &str = "Failed to list table names";

/// What it says of a table that the kernel does not have, so that nothing can be in it.
const NO_TABLE: &str = "Table does not exist";

/// How long a tool waits for the lock of the legacy flavour, in seconds.
const WAIT: &str = "5";

impl Processes {
    /// Starts a thread for the tools. None of them may take longer than `limit`. Those of an earlier process have ended
    /// when this returns.
    pub(crate) fn start(owner: &Owner, limit: Duration) -> Result<Self, IptablesError> {
        let start = |source| IptablesError::Process { operation: "start a thread", source };
        let worker = Worker::start().map_err(start)?;
        let conntrack = Conntrack::open().map_err(|source| IptablesError::Conntrack { source })?;
        let waiting = owner.clone();
        let wait = move || orphans::wait(&waiting).map_err(start);
        worker.call("wait for tools of an earlier process", Duration::MAX, wait)??;
        Ok(Self { worker, owner: owner.clone(), limit, conntrack })
    }

    /// Runs a tool that changes nothing, and returns what it prints.
    fn read(&self, program: &str, arguments: &[&str]) -> Result<String, IptablesError> {
        self.run(Command::new(program, arguments, self.limit))
    }

    /// Runs a tool that changes what a script says.
    fn change(&self, program: &str, arguments: &[&str], script: &str) -> Result<(), IptablesError> {
        let command = Command::new(program, arguments, self.limit);
        self.run(command.with_script(script, &self.owner)).map(drop)
    }

    fn run(&self, command: Command) -> Result<String, IptablesError> {
        // The limit of the command ends it; the worker needs a little longer to say so.
        self.worker.call("run a tool", self.limit.saturating_mul(2), move || command.run())?
    }

    /// Calls the `iptables` crate, which runs the command without a limit.
    fn with_crate<T: Send + 'static>(
        &self,
        variant: Variant,
        call: impl FnOnce(iptables::IPTables) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, IptablesError> {
        let failed = move |error: Failure| IptablesError::Failed {
            command: variant.command().to_owned(),
            message: error.to_string(),
        };
        let job = move || {
            let mut iptables = iptables::new(variant.family == Family::V6).map_err(failed)?;
            iptables.cmd = variant.command();
            call(iptables).map_err(failed)
        };
        self.worker.call("run a tool", self.limit, job)?
    }
}

/// The error of the `iptables` crate.
type Failure = Box<dyn std::error::Error>;

impl Tools for Processes {
    fn version(&mut self) -> Result<String, IptablesError> {
        self.read("iptables", &["--version"])
    }

    fn save(
        &mut self,
        variant: Variant,
        table: Option<KernelTable>,
    ) -> Result<String, IptablesError> {
        let program = format!("{}-save", variant.command());
        let list = |table: KernelTable| self.read(&program, &["-c", "-t", table.as_str()]);
        match table {
            Some(table) => list(table),
            None => match self.read(&program, &["-c"]) {
                Err(error) if error.says(NO_TABLE_NAMES) => {
                    let raw = match list(KernelTable::Raw) {
                        Err(error) if error.says(NO_TABLE) => String::new(),
                        outcome => outcome?,
                    };
                    Ok(list(KernelTable::Filter)? + &list(KernelTable::Mangle)? + &raw)
                }
                outcome => outcome,
            },
        }
    }

    fn restore(&mut self, variant: Variant, script: &str) -> Result<(), IptablesError> {
        let program = format!("{}-restore", variant.command());
        self.change(&program, &["-w", WAIT, "--noflush"], script)
    }

    fn insert_jump(
        &mut self,
        variant: Variant,
        table: KernelTable,
        hook: &str,
        chain: &Name,
    ) -> Result<(), IptablesError> {
        let (hook, rule) = (hook.to_owned(), jump(chain));
        self.with_crate(variant, move |it| it.insert(table.as_str(), &hook, &rule, 1))
    }

    fn delete_jump(
        &mut self,
        variant: Variant,
        table: KernelTable,
        hook: &str,
        chain: &Name,
    ) -> Result<(), IptablesError> {
        let (hook, rule) = (hook.to_owned(), jump(chain));
        self.with_crate(variant, move |it| it.delete(table.as_str(), &hook, &rule))
    }

    fn save_sets(&mut self) -> Result<String, IptablesError> {
        self.read("ipset", &["save"])
    }

    fn restore_sets(&mut self, script: &str) -> Result<(), IptablesError> {
        self.change("ipset", &["-exist", "restore"], script)
    }

    fn wait_for_packets(&mut self) {
        wait_for_packets();
    }

    fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<u64, IptablesError> {
        self.conntrack.forget(addresses).map_err(|source| IptablesError::Conntrack { source })
    }

    fn reevaluate_flows(&mut self, program: &Program) -> Result<u64, IptablesError> {
        self.conntrack.reevaluate(program).map_err(|source| IptablesError::Conntrack { source })
    }
}

/// Returns what a tool printed.
fn printed(command: &str, output: Output) -> Result<String, IptablesError> {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = match said.trim() {
        "" => output.status.to_string(),
        said => said.replace('\n', "; "),
    };
    Err(IptablesError::Failed { command: command.to_owned(), message })
}
