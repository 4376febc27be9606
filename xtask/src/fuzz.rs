//! The fuzz targets: built by a stable compiler, and run for a while, all at once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::Result;
use crate::command::{cannot_start, cargo, output, run, workspace_root};

/// The tool that builds the targets, in a version that does so with a stable compiler.
const TOOL: &str = "cargo-fuzz";
const VERSION: &str = "0.13.2";

/// Where random choices begin, so that two runs on one machine meet the same inputs.
const SEED: u32 = 1;

/// Most seconds for one input, and most megabytes of memory.
const SLOWEST: u32 = 20;
const MEMORY: u32 = 2048;

/// Installs the tool into the build directory, unless it is there.
///
/// # Errors
///
/// If it cannot be built or downloaded.
pub(crate) fn install() -> Result<()> {
    let folder = tools()?;
    let program = folder.join("bin").join(TOOL);
    let installed = program.exists().then(|| output(Command::new(&program).arg("--version")));
    if installed.transpose()?.is_some_and(|it| it.trim().ends_with(VERSION)) {
        return Ok(());
    }
    println!("set-up: installing {TOOL} {VERSION}, which builds the fuzz targets");
    run(cargo(["install", TOOL, "--version", VERSION, "--locked", "--force", "--root"])?
        .arg(folder)
        .env_remove("CARGO_TARGET_DIR"))
}

/// Runs every target for `time`, beginning with its corpus, which stays as it is; new inputs are kept in the build
/// directory, those that break something in `fuzz/artifacts`.
///
/// # Errors
///
/// If a target cannot be built, or an input breaks it.
pub(crate) fn fuzz(time: Duration) -> Result<String> {
    install()?;
    let root = workspace_root()?;
    // The tool has no such option of its own.
    run(&mut cargo(["fetch", "--locked", "--manifest-path", "fuzz/Cargo.toml"])?)?;
    run(fuzz_command(&["build"])?.args(["--target-dir", "target/fuzz"]))?;
    let names = targets(&root)?;
    let mut running = Vec::new();
    for name in names {
        let child = start(&root, &name, time)?;
        running.push((name, child));
    }
    // All of them end by themselves, so that none is left behind by the failure of another.
    let ended: Vec<_> = running
        .into_iter()
        .map(|(name, mut child)| child.wait().map(|status| (name, status.success())))
        .collect::<std::io::Result<_>>()?;
    let mut summaries = Vec::new();
    for (name, has_succeeded) in ended {
        let log = fs::read_to_string(log_of(&root, &name))?;
        if !has_succeeded {
            return Err(format!("{name} failed:\n{}", finding(&log)).into());
        }
        summaries.push(format!("{name} {}", summary(&log).ok_or("no summary from a target")?));
    }
    Ok(summaries.join("; "))
}

fn start(root: &Path, name: &str, time: Duration) -> Result<Child> {
    let kept = root.join("target/fuzz/corpus").join(name);
    fs::create_dir_all(&kept)?;
    let mut command = fuzz_command(&["run"])?;
    command.args(["--target-dir", "target/fuzz", name]).arg(kept);
    command.arg(format!("fuzz/corpus/{name}")).arg("--");
    command.args([
        format!("-seed={SEED}"),
        format!("-max_total_time={}", time.as_secs()),
        format!("-timeout={SLOWEST}"),
        format!("-rss_limit_mb={MEMORY}"),
        "-max_len=4096".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    let words = format!("fuzz/dictionaries/{name}.txt");
    if root.join(&words).exists() {
        command.arg(format!("-dict={words}"));
    }
    let log = File::create(log_of(root, name))?;
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().map_err(|error| cannot_start(&command, &error).into())
}

/// Returns a command of the tool. Without a sanitizer it needs nothing that is unstable; none is missed where there is no
/// unsafe code.
fn fuzz_command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(tools()?.join("bin").join(TOOL));
    command.arg("fuzz").args(arguments).args(["--sanitizer", "none"]);
    command.current_dir(workspace_root()?).env("CARGO", crate::command::cargo_path());
    Ok(command)
}

/// Returns the names of the targets.
fn targets(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    if names.is_empty() { Err("no fuzz target found".into()) } else { Ok(names) }
}

fn tools() -> Result<PathBuf> {
    Ok(workspace_root()?.join("target/tools"))
}

fn log_of(root: &Path, name: &str) -> PathBuf {
    root.join("target/fuzz").join(name).with_extension("log")
}

/// Returns what a run came to: executions, and the coverage that libFuzzer counts.
fn summary(log: &str) -> Option<String> {
    let executed =
        log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    let covered = log.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once(" cov: ")?;
        rest.split(' ').next()
    })?;
    Some(format!("{} runs, coverage {covered}", executed.trim()))
}

/// Returns the lines of a log that say what went wrong.
fn finding(log: &str) -> String {
    let is_progress = |line: &&str| line.starts_with('#') || line.starts_with("INFO:");
    let lines: Vec<_> = log.lines().filter(|line| !is_progress(line)).collect();
    let from = lines.iter().position(|line| line.contains("panicked at") || line.contains("ERROR"));
    lines.get(from.unwrap_or_default()..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 12 ft: 30 corp: 1/1b exec/s: 0 rss: 27Mb\n\
        #9\tDONE   cov: 15 ft: 40 corp: 2/2b lim: 4 exec/s: 9 rss: 27Mb\n\
        Done 9 runs in 1 second(s)\nstat::number_of_executed_units: 9\n";

    #[test]
    fn a_log_is_summed_up() {
        assert_eq!(summary(LOG).as_deref(), Some("9 runs, coverage 15"));
        assert_eq!(summary("INFO: Seed: 1\n"), None);
    }

    #[test]
    fn what_broke_is_found_in_the_log() {
        let log =
            "INFO: Seed: 1\n#2\tINITED cov: 1\nwords\nthread panicked at src/a.rs:1:1:\n#3\nwhy\n";
        assert_eq!(finding(log), "thread panicked at src/a.rs:1:1:\nwhy");
    }
}
