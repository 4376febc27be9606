//! Running one tool to its end, or until it takes too long.

use std::io::{self, Read, Write};
use std::process::{self, Child, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::printed;
use crate::error::IptablesError;

/// A tool with its arguments and its input.
#[derive(Debug)]
pub(super) struct Command {
    program: String,
    arguments: Vec<String>,
    input: String,
    limit: Duration,
}

impl Command {
    pub(super) fn new(program: &str, arguments: &[&str], input: &str, limit: Duration) -> Self {
        let arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        Self { program: program.to_owned(), arguments, input: input.to_owned(), limit }
    }

    /// Runs the tool in the network namespace of the calling thread, and returns what it printed.
    pub(super) fn run(self) -> Result<String, IptablesError> {
        let name = format!("{} {}", self.program, self.arguments.join(" "));
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => IptablesError::NoTool { program: self.program, source },
            _ => IptablesError::Process { operation: "start a tool", source },
        })?;
        match communicate(&mut child, &self.input, self.limit) {
            Ok(Some(output)) => printed(&name, output),
            Ok(None) => Err(IptablesError::TimedOut { command: name, limit: self.limit }),
            Err(source) => Err(IptablesError::Process { operation: "talk to a tool", source }),
        }
    }
}

/// Feeds a process and collects what it prints; `None` if it had to be killed.
fn communicate(child: &mut Child, input: &str, limit: Duration) -> io::Result<Option<Output>> {
    let end = Instant::now() + limit;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // A tool that fails does not read to the end; its exit status tells more than the broken pipe.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
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
        Command::new(program, arguments, input, Duration::from_secs(10)).run()
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
        let command = Command::new("sleep", &["60"], "", Duration::from_millis(50));
        assert!(matches!(command.run().unwrap_err(), IptablesError::TimedOut { .. }));
    }
}
