//! Everything that CI runs, step by step, with a summary of what really ran.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::command::{cannot_start, cargo, cargo_path, metadata, run, workspace_root};
use crate::demo::{Backend, build_conformance, refusal};
use crate::fuzz::fuzz;
use crate::no_std;
use crate::object::{self, Fresh};
use crate::privilege::{Privilege, is_root};
use crate::setup::{Purpose, set_up};
use crate::tidy::tidy;
use crate::vm;

/// How much is run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// What CI runs.
    Test,
    /// Release mode, benches and an older kernel too.
    Full,
}

impl Extent {
    /// For how long each fuzz target runs.
    const fn fuzz_time(self) -> Duration {
        match self {
            Self::Test => Duration::from_secs(10),
            Self::Full => Duration::from_secs(300),
        }
    }
}

/// Runs all steps of `extent`, also those after one that failed, and prints a summary.
///
/// # Errors
///
/// If this machine cannot run the tests, or some step failed.
pub(crate) fn test(extent: Extent) -> Result<()> {
    set_up(match extent {
        Extent::Test => Purpose::Test,
        Extent::Full => Purpose::Full,
    })?;
    let privilege = Privilege::probe();
    match privilege {
        Privilege::Direct => {}
        Privilege::UserNamespace => {
            println!("not privileged: kernel tests run in a user namespace of their own")
        }
        Privilege::Refused => {
            return Err(refusal(r#"env "PATH=$PATH" cargo xtask test"#, is_root()).into());
        }
    }
    let mut report = Report::default();
    report.step("tidy", tidy);
    report.step("format", || quiet(cargo(["fmt", "--all", "--check"])));
    report.step("clippy", || {
        quiet(cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "--deny=warnings",
        ]))
    });
    report.step("docs", docs);
    report.step("no std in core", no_std::prove);
    report.step("tests", || tests(privilege, &[]));
    report.step("scenarios", || scenarios(privilege));
    report.step("fuzz", || fuzz(extent.fuzz_time()));
    if extent == Extent::Full {
        report.step("release tests", || tests(privilege, &["--release"]));
        report.step("benches", || benches(privilege));
        report.step("eBPF object", || object::build(Fresh::Compared));
        report.step("older kernel", || vm::scenarios(&Backend::ALL));
    }
    println!("\n{report}");
    report.conclusion()
}

/// Runs a command whose own output says all there is to say.
fn quiet(command: Result<Command>) -> Result<String> {
    run(&mut command?).map(|()| String::new())
}

/// Builds the documentation that users see.
fn docs() -> Result<String> {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked"])?;
    run(command.env("RUSTDOCFLAGS", "--deny=warnings")).map(|()| String::new())
}

/// Runs unit, integration and documentation tests, of which there must be some.
fn tests(privilege: Privilege, options: &[&str]) -> Result<String> {
    let arguments = ["test", "--workspace", "--locked", "--no-fail-fast"]
        .into_iter()
        .chain(options.iter().copied());
    let mut command = kernel_cargo(privilege, arguments)?;
    if privilege == Privilege::UserNamespace {
        println!("without root there is no eBPF: its tests do not run");
        let skipped = ["--skip", "ebpf_passes_all_scenarios", "--skip", "ebpf_keeps_the_contract"];
        command.args(["--exclude", "netpol-ebpf", "--"]).args(skipped);
    }
    let (tally, run) = count(&mut command)?;
    match (run, tally.passed) {
        (Err(error), _) => Err(format!("{tally}; {error}").into()),
        (Ok(()), 0) => Err("no test ran".into()),
        (Ok(()), _) => Ok(tally.to_string()),
    }
}

/// Returns a cargo command whose tests or benches may use the kernel.
fn kernel_cargo<'a>(
    privilege: Privilege,
    arguments: impl IntoIterator<Item = &'a str> + Clone,
) -> Result<Command> {
    if privilege == Privilege::UserNamespace {
        // There is no network in there: what has to be downloaded is downloaded before.
        run(cargo(arguments.clone())?.arg("--no-run"))?;
    }
    let mut command = privilege.command(Path::new(&cargo_path()));
    command.args(arguments).current_dir(workspace_root()?);
    Ok(command)
}

/// Runs `command`, shows what it prints without the passed tests, and counts all of them.
fn count(command: &mut Command) -> Result<(Tally, Result<()>)> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(command, &error))?;
    let output = child.stdout.take().ok_or("the tests have no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        tally.add(&line);
        if is_news(&line) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    Ok((tally, if status.success() { Ok(()) } else { Err(status.to_string().into()) }))
}

/// Whether a line of test output is worth showing.
fn is_news(line: &str) -> bool {
    let passed = line.starts_with("test ") && line.ends_with("ok");
    let count =
        line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test"));
    let empty = line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored;");
    !(passed || count || empty || line.trim().is_empty())
}

/// Counted tests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds the numbers of a line like `test result: ok. 3 passed; 0 failed; 1 ignored; …`, and of no other.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let Some((Ok(number), name)) =
                part.trim().split_once(' ').map(|(number, name)| (number.parse(), name))
            else {
                continue;
            };
            let number: u64 = number;
            match name {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored")
    }
}

/// Runs the scenario files on the model, the program and every backend; the binary fails if none ran.
fn scenarios(privilege: Privilege) -> Result<String> {
    let binary = build_conformance()?;
    let works = |backend: &Backend| {
        privilege != Privilege::UserNamespace || backend.works_in_user_namespace()
    };
    let kernels = Backend::ALL.into_iter().filter(works).map(Backend::name);
    let backends: Vec<_> = ["model", "program"].into_iter().chain(kernels).collect();
    let backends = backends.join(",");
    let mut command = privilege.command(&binary);
    command
        .args(["run", "netpol-conformance/scenarios", "--backend", &backends])
        .current_dir(workspace_root()?);
    run(&mut command).map(|()| format!("on {backends}"))
}

/// Runs every bench once.
fn benches(privilege: Privilege) -> Result<String> {
    let names: Vec<_> = metadata()?
        .workspace_packages()
        .into_iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_bench())
        .map(|target| target.name.clone())
        .collect();
    if names.is_empty() {
        return Err("no bench found".into());
    }
    let arguments = ["bench", "--workspace", "--locked", "--bench", "*"];
    run(kernel_cargo(privilege, arguments)?.args(["--", "--test"])).map(|()| names.join(", "))
}

/// What the steps came to.
#[derive(Debug, Default)]
struct Report {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    outcome: std::result::Result<String, String>,
    took: Duration,
}

impl Report {
    fn step(&mut self, name: &'static str, body: impl FnOnce() -> Result<String>) {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = body().map_err(|error| error.to_string());
        if let Err(error) = &outcome {
            eprintln!("{error}");
        }
        self.steps.push(Step { name, outcome, took: start.elapsed() });
    }

    /// Returns the last line: what passed, or the error that names what failed.
    fn conclusion(&self) -> Result<()> {
        let failed: Vec<_> =
            self.steps.iter().filter(|step| step.outcome.is_err()).map(|step| step.name).collect();
        if self.steps.is_empty() {
            return Err("nothing ran".into());
        }
        if !failed.is_empty() {
            return Err(format!(
                "{} of {} steps failed: {}",
                failed.len(),
                self.steps.len(),
                failed.join(", ")
            )
            .into());
        }
        println!("all {} steps passed", self.steps.len());
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { name, outcome, took } in &self.steps {
            let (word, detail) = match outcome {
                Ok(detail) => ("ok", detail.as_str()),
                Err(error) => ("FAILED", error.lines().next().unwrap_or_default()),
            };
            let line = format!("{name:<16} {word:<7} {:>6.1} s  {detail}", took.as_secs_f64());
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test result_is_not_this ... ok",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn passed_tests_are_no_news() {
        for (line, news) in [
            ("test a::b ... ok", false),
            ("test src/lib.rs - (line 3) - compile ... ok", false),
            ("running 2 tests", false),
            ("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out", false),
            ("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out", true),
            ("test a::b ... FAILED", true),
            ("test a::b ... ignored, needs a kernel", true),
            ("thread 'a::b' panicked at src/lib.rs:1:1:", true),
        ] {
            assert_eq!(is_news(line), news, "{line}");
        }
    }

    #[test]
    fn one_failed_step_fails_the_run_and_is_named() {
        let mut report = Report::default();
        report.step("good", || Ok("2 passed".to_owned()));
        report.step("bad", || Err("broke\ndetails".into()));
        let error = report.conclusion().map_err(|error| error.to_string());
        assert_eq!(error, Err("1 of 2 steps failed: bad".to_owned()));
        assert!(
            report.to_string().contains("FAILED") && !report.to_string().contains("details"),
            "{report}"
        );
    }

    #[test]
    fn a_run_without_steps_fails() {
        assert!(Report::default().conclusion().is_err());
    }

    #[test]
    fn a_run_without_tests_is_counted_as_such() {
        let (tally, status) = match count(&mut Command::new("true")) {
            Ok(counted) => counted,
            Err(error) => return assert_eq!(error.to_string(), ""),
        };
        assert!(status.is_ok());
        assert_eq!(tally, Tally::default());
    }
}
