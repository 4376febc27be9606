//! Commands run from the root of the workspace.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{Metadata, MetadataCommand};

use crate::Result;

/// Returns the root of the workspace that this run belongs to.
///
/// It is asked for at run time, so that clones that share a build directory do not mistake each other's files
/// for their own.
pub(crate) fn workspace_root() -> Result<PathBuf> {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").ok_or("run this as `cargo xtask`")?;
    let root = Path::new(&manifest_dir).parent().ok_or("the xtask folder has no parent")?;
    Ok(root.to_owned())
}

/// Returns what cargo knows of the workspace members; dependencies are not resolved.
pub(crate) fn metadata() -> Result<Metadata> {
    let manifest = workspace_root()?.join("Cargo.toml");
    Ok(MetadataCommand::new().manifest_path(manifest).no_deps().exec()?)
}

/// Returns the cargo that runs us.
pub(crate) fn cargo_path() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Returns a cargo command with `arguments`, to be run in the root of the workspace.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let mut command = Command::new(cargo_path());
    command.args(arguments).current_dir(workspace_root()?);
    Ok(command)
}

/// Runs `command` with our terminal.
///
/// # Errors
///
/// If it cannot be started or does not end with status 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}`: {status}", shown(command)).into()) }
}

/// Runs `command` and returns what it prints; its errors go to our terminal.
///
/// # Errors
///
/// If it cannot be started or does not end with status 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        return Err(format!("`{}`: {}", shown(command), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the message for a command that did not even start.
pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start `{}`: {error}", command.get_program().display())
}

/// Returns `command` as the user would type it; the program without its folder.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let mut command = Command::new("/usr/lib/cargo");
        command.args(["build", "--release"]);
        assert_eq!(shown(&command), "cargo build --release");
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let error = run(&mut Command::new("false")).map_err(|error| error.to_string());
        assert_eq!(error, Err("`false`: exit status: 1".to_owned()));
        let error = output(&mut Command::new("false")).map_err(|error| error.to_string());
        assert_eq!(error, Err("`false`: exit status: 1".to_owned()));
    }

    #[test]
    fn what_a_command_prints_is_returned() {
        let printed = output(Command::new("echo").arg("a b")).map_err(|error| error.to_string());
        assert_eq!(printed, Ok("a b\n".to_owned()));
    }
}
