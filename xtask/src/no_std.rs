//! The proof that netpol-core gets along without std.
//!
//! A `no_std` attribute says nothing about dependencies, and a target without std cannot be had everywhere. So the
//! core is linked into a crate that brings its own panic handler: if std is anywhere below, it brings a second one,
//! and rustc refuses (E0152).

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::Message;

use crate::Result;
use crate::command::{cannot_start, cargo, metadata};

/// Builds netpol-core on its own and shows that std is nowhere below it.
///
/// # Errors
///
/// If it does not build, or std is there.
pub(crate) fn prove() -> Result<String> {
    let library = build_core()?;
    let folder = library.parent().ok_or("a library in no folder")?;
    let mut rustc = rustc()?;
    rustc.arg("-L").arg(format!("dependency={}", folder.display()));
    rustc.arg("--extern").arg(format!("netpol_core={}", library.display()));
    accepts(&mut rustc, "netpol_core")?;
    Ok("netpol-core and its dependencies build without std".to_owned())
}

/// Returns the metadata of netpol-core, built alone: other crates of the workspace switch std on in what they share.
fn build_core() -> Result<PathBuf> {
    let mut command =
        cargo(["check", "--locked", "--package", "netpol-core", "--lib", "--message-format=json"])?;
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(&command, &error))?;
    let output = child.stdout.take().ok_or("cargo has no output")?;
    let mut library = None;
    for message in Message::parse_stream(BufReader::new(output)) {
        match message? {
            Message::CompilerArtifact(artifact) if artifact.target.name == "netpol_core" => {
                library =
                    artifact.filenames.into_iter().find(|file| file.extension() == Some("rmeta"));
            }
            Message::CompilerMessage(message) => eprintln!("{message}"),
            _ => {}
        }
    }
    if !child.wait()?.success() {
        return Err("netpol-core does not build".into());
    }
    Ok(library.ok_or("cargo named no library of netpol-core")?.into())
}

fn rustc() -> Result<Command> {
    let output = Path::new(&metadata()?.target_directory).join("libxtask_no_std.rmeta");
    let mut command = Command::new("rustc");
    command.args([
        "--edition",
        "2024",
        "--crate-name",
        "xtask_no_std",
        "--crate-type",
        "lib",
        "--emit",
        "metadata",
    ]);
    command.arg("-o").arg(output).arg("-");
    Ok(command)
}

/// Compiles a crate that brings a panic handler and links `library`.
fn accepts(rustc: &mut Command, library: &str) -> Result<()> {
    let source = format!(
        "#![no_std]\nextern crate {library};\n\
         #[panic_handler] fn panic(_: &core::panic::PanicInfo<'_>) -> ! {{ loop {{}} }}\n"
    );
    let mut child = rustc
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(rustc, &error))?;
    child.stdin.take().ok_or("rustc has no input")?.write_all(source.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{library}` needs std:\n{}", String::from_utf8_lossy(&output.stderr)).into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    #[test]
    fn std_is_found_and_core_is_not_mistaken_for_it() {
        let error = accepts(&mut rustc().unwrap(), "std").unwrap_err().to_string();
        assert!(error.contains("E0152"), "{error}");
        accepts(&mut rustc().unwrap(), "alloc").unwrap();
    }
}
