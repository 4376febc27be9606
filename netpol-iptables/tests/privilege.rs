//! What a process may do: the dataplane in an unprivileged user namespace, and without any right.
//!
//! A process with several threads cannot enter a user namespace, so this file has its own `main`, which starts itself
//! anew through `unshare`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;

use libtest_mimic::{Arguments, Failed, Trial};
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update};
use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane, IptablesError};
use nix::sched::{CloneFlags, unshare};

#[expect(dead_code, reason = "shared with other tests")]
#[path = "../src/tests/program.rs"]
mod program;

/// Says which job a process that was started anew has.
const JOB: &str = "NETPOL_IPTABLES_TEST_JOB";

fn main() -> ExitCode {
    match std::env::var(JOB).as_deref() {
        Ok("enforce") => enforce(),
        Ok("refuse") => refuse(),
        Ok(job) => panic!("unknown job `{job}`"),
        Err(_) => {
            let trials = vec![
                Trial::test("a_user_namespace_suffices", || {
                    again("enforce", &["--user", "--map-root-user", "--net"])
                }),
                Trial::test("without_rights_there_is_a_clear_error", || {
                    again("refuse", &["--user", "--map-root-user"])
                }),
            ];
            return libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
        }
    }
    ExitCode::SUCCESS
}

/// Runs this program again with a job, under `unshare`, and in a network namespace of its own.
fn again(job: &str, arguments: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new("unshare");
    command.args(arguments).arg(std::env::current_exe()?).env(JOB, job);
    // Nobody but root may write the usual lock file of the legacy flavour.
    let lock = std::env::temp_dir().join(format!("netpol-iptables-{}.lock", std::process::id()));
    command.env("XTABLES_LOCKFILE", &lock);
    let thread = thread::spawn(move || {
        // An unprivileged process cannot do this, and its job runs where it has no rights anyway.
        let _ = unshare(CloneFlags::CLONE_NEWNET);
        command.output()
    });
    let output = thread.join().expect("the thread does not panic");
    drop(std::fs::remove_file(lock));
    let output = output?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn open(flavour: Flavour) -> Result<IptablesDataplane, IptablesError> {
    let mut config = IptablesConfig::default();
    config.flavour = Some(flavour);
    IptablesDataplane::open(config)
}

fn enforce() {
    for flavour in Flavour::BOTH {
        let mut dataplane = open(flavour).unwrap();
        for members in [100, 101] {
            let program = Arc::new(program::many_members(4, members));
            let update = Update::new(1, Change::Full(Arc::clone(&program)));
            let applied = dataplane.apply(update).unwrap();
            assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
            assert!(dataplane.audit(&program).unwrap().is_none());
        }
        dataplane.remove().unwrap();
    }
}

/// The namespace belongs to another user namespace than the process.
fn refuse() {
    for flavour in Flavour::BOTH {
        let error = open(flavour).unwrap_err();
        assert_eq!(error.kind(), DataplaneErrorKind::Permission, "{error:?}");
    }
}
