//! Running one tool to its end, or until it takes too long.
//!
//! A tool gets its input as a whole, as a file in memory. From a pipe it would read half a script when this process is
//! killed, and take half an address for another one.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{self, Child, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{orphans, printed};
use crate::error::IptablesError;
use crate::name::Owner;

/// What becomes of what a tool prints.
#[derive(Clone, Debug)]
pub(super) enum Printed {
    /// It is wanted.
    Wanted,
    /// There is nothing of interest; the tool holds a name instead, see [`orphans`].
    Holding(Owner),
}

/// A tool with its arguments and its input.
#[derive(Debug)]
pub(super) struct Command {
    program: String,
    arguments: Vec<String>,
    input: String,
    printed: Printed,
    limit: Duration,
}

impl Command {
    /// Returns a tool with no input whose output is wanted.
    pub(super) fn new(program: &str, arguments: &[&str], limit: Duration) -> Self {
        let arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        let (program, input) = (program.to_owned(), String::new());
        Self { program, arguments, input, printed: Printed::Wanted, limit }
    }

    /// Returns the same for a tool that changes something: with a script, and holding a name.
    pub(super) fn with_script(self, script: &str, owner: &Owner) -> Self {
        Self { input: script.to_owned(), printed: Printed::Holding(owner.clone()), ..self }
    }

    /// Runs the tool in the network namespace of the calling thread, and returns what it printed.
    pub(super) fn run(self) -> Result<String, IptablesError> {
        let name = format!("{} {}", self.program, self.arguments.join(" "));
        let talk = |source| IptablesError::Process { operation: "talk to a tool", source };
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments).stdin(in_memory(&self.input).map_err(talk)?);
        // Errors are known by their words.
        command.stdout(self.printed.output().map_err(talk)?);
        command.stderr(Stdio::piped()).env("LC_ALL", "C");
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => IptablesError::NoTool { program: self.program, source },
            _ => IptablesError::Process { operation: "start a tool", source },
        })?;
        // The tool alone holds its name now.
        drop(command);
        match communicate(&mut child, self.limit) {
            Ok(Some(output)) => printed(&name, output),
            Ok(None) => Err(IptablesError::TimedOut { command: name, limit: self.limit }),
            Err(source) => Err(talk(source)),
        }
    }
}

impl Printed {
    fn output(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Wanted => Stdio::piped(),
            Self::Holding(owner) => orphans::hold(owner)?.map_or_else(Stdio::null, Stdio::from),
        })
    }
}

/// Returns a file that holds a text and exists nowhere else.
fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"netpol-iptables", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Collects what a process prints; `None` if it had to be killed.
fn communicate(child: &mut Child, limit: Duration) -> io::Result<Option<Output>> {
    let end = Instant::now() + limit;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let (out, err) = (read(scope, stdout), read(scope, stderr));
        let left = || end.saturating_duration_since(Instant::now());
        let printed = out.recv_timeout(left()).and_then(|it| Ok((it, err.recv_timeout(left())?)));
        if printed.is_err() {
            child.kill()?;
        }
        let status = child.wait()?;
        Ok(printed.ok().map(|(stdout, stderr)| Output { status, stdout, stderr }))
    })
}

/// Reads a pipe to its end in a thread of its own.
fn read<'s>(
    scope: &'s thread::Scope<'s, '_>,
    pipe: Option<impl Read + Send + 's>,
) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    scope.spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is all there is.
        let _result = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    receiver
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, IptablesError> {
        let command = Command::new(program, arguments, Duration::from_secs(10));
        Command { input: input.to_owned(), ..command }.run()
    }

    #[test]
    fn a_tool_gets_its_input_and_its_output_is_returned() {
        let input = "0123456789".repeat(100_000);
        assert_eq!(run("cat", &[], &input).unwrap(), input);
    }

    #[test]
    fn a_tool_that_fails_says_why() {
        let error = run("sh", &["-c", "echo no >&2; exit 3"], &"x".repeat(1_000_000)).unwrap_err();
        assert!(error.to_string().ends_with("failed: no"), "{error}");
        let error = run("sh", &["-c", "exit 3"], "").unwrap_err();
        assert!(error.to_string().ends_with("failed: exit status: 3"), "{error}");
        let error = run("no-such-tool", &[], "").unwrap_err();
        assert!(matches!(error, IptablesError::NoTool { .. }), "{error}");
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        let command = Command::new("sleep", &["60"], Duration::from_millis(50));
        assert!(matches!(command.run().unwrap_err(), IptablesError::TimedOut { .. }));
    }
}
