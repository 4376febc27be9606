//! One run of qemu.

use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;
use std::time::Duration;

use crate::Result;
use crate::command::cannot_start;

/// Memory, in MiB; 200 hold the file system.
const MEMORY: &str = "2048";

/// Most processors; more of them wait for each other more than they work.
const MAX_PROCESSORS: usize = 4;

/// How the kernel starts: quiet, ending on a panic, and without the costly defences against its own processor.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 mitigations=off --";

/// The exit status of timeout(1) if it was too long.
const TIMED_OUT: i32 = 124;

/// How much of the console an error shows, in lines: a panic with its registers takes 50.
const CONSOLE_LINES: usize = 60;

/// What a machine is made of, and where its two serial ports go.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a Path,
    /// Messages of the kernel.
    pub(super) console: &'a Path,
    /// What the command prints.
    pub(super) output: &'a Path,
}

impl Machine<'_> {
    /// Boots, runs a command and returns what it prints, followed by a line with its exit status.
    ///
    /// # Errors
    ///
    /// If the machine does not come to its end within `limit`; with the end of its console.
    pub(super) fn run(&self, command: &[&str], limit: Duration) -> Result<String> {
        for file in [self.console, self.output] {
            fs::write(file, "")?;
        }
        let mut qemu = self.qemu(command, limit);
        let status = qemu.status().map_err(|error| cannot_start(&qemu, &error))?;
        match status.code() {
            Some(0) => {}
            Some(TIMED_OUT) => {
                let limit = limit.as_secs();
                return Err(self.failed(&format!("the machine took more than {limit} s")).into());
            }
            _ => return Err(self.failed(&format!("qemu: {status}")).into()),
        }
        let output = read(self.output)?;
        if output.trim().is_empty() {
            return Err(self.failed("the machine ended without a word").into());
        }
        Ok(output)
    }

    /// timeout(1) ends qemu even if we are killed before that.
    fn qemu(&self, command: &[&str], limit: Duration) -> Command {
        let processors = available_parallelism().map_or(1, NonZero::get).min(MAX_PROCESSORS);
        let mut qemu = Command::new("timeout");
        qemu.args(["--foreground", "--kill-after=5", &limit.as_secs().to_string()]);
        qemu.args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", MEMORY]);
        qemu.args(["-smp", &processors.to_string()]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        qemu.args(["-append", &format!("{KERNEL_OPTIONS} {}", command.join(" "))]);
        for file in [self.console, self.output] {
            let mut port = OsString::from("file:");
            port.push(file);
            qemu.arg("-serial").arg(port);
        }
        qemu.stdin(Stdio::null());
        qemu
    }

    /// Returns an error with the end of the console.
    fn failed(&self, what: &str) -> String {
        let console = read(self.console).unwrap_or_default();
        let lines: Vec<_> = console.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(CONSOLE_LINES)..).unwrap_or_default();
        format!("{what}; the end of {}:\n{}", self.console.display(), shown.join("\n"))
    }
}

/// Returns the text of a file, whatever the bytes of a serial port are.
fn read(file: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_the_first_process_gets() {
        let file = Path::new("f");
        let machine = Machine { image: file, initramfs: file, console: file, output: file };
        let qemu = machine.qemu(&["run", "--backend", "nft"], Duration::from_secs(7));
        let arguments: Vec<_> = qemu.get_args().map(|word| word.to_string_lossy()).collect();
        assert!(arguments.iter().any(|word| word.ends_with(" -- run --backend nft")));
        assert!(arguments.iter().any(|word| word == "7"), "the limit of timeout");
    }
}
