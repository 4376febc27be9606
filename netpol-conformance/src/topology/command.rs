//! Tools that are run inside a namespace.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{self, Output, Stdio};

use super::{Namespace, TopologyError};

/// A tool with its arguments and what it reads.
#[derive(Debug)]
pub(super) struct Command {
    tool: OsString,
    arguments: Vec<&'static str>,
    environment: Vec<(&'static str, OsString)>,
    input: String,
}

impl Command {
    pub(super) fn new<const N: usize>(
        tool: impl Into<OsString>,
        arguments: [&'static str; N],
        input: String,
    ) -> Self {
        Self { tool: tool.into(), arguments: arguments.to_vec(), environment: Vec::new(), input }
    }

    /// Returns the same command with one more variable in its environment.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs the tool to its end.
    pub(super) fn run(&self, namespace: &Namespace) -> Result<(), TopologyError> {
        let tool = || self.tool.to_string_lossy().into_owned();
        let failed = |source| TopologyError::Tool { tool: tool(), source };
        let output = namespace.run(|| self.output());
        let output = output.map_err(|source| TopologyError::Thread { source })?.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        // CNI plug-ins say on standard output what is wrong.
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(failed(io::Error::other(format!("{}: {said}", output.status))))
    }

    fn output(&self) -> io::Result<Output> {
        let mut child = process::Command::new(&self.tool)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(self.input.as_bytes()) {
                // It has ended already, and its status says why.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        child.wait_with_output()
    }
}
