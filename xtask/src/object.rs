//! The eBPF object that is checked in: built again, and compared byte by byte.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::command::{cannot_start, cargo, run, workspace_root};

/// The folder of the program, of its object and of the record of the tools that made it.
const PROGRAM: &str = "netpol-ebpf/bpf";
const OBJECT: &str = "netpol-ebpf/object/netpol.bpf.o";
const TOOLS: &str = "netpol-ebpf/object/tools.txt";

/// What becomes of a fresh object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fresh {
    /// It is compared with the one that is checked in.
    Compared,
    /// It takes its place, and the tools are recorded.
    Kept,
}

/// Builds the object.
///
/// # Errors
///
/// If a tool is missing, the build fails, or the object differs although the tools are those of the record. If the tools
/// are others, the tests of the dataplane are run with the fresh object instead.
pub(crate) fn build(fresh: Fresh) -> Result<String> {
    let root = workspace_root()?;
    let (tools, bytes) = (tools()?, compile(&root)?);
    let (object, record) = (root.join(OBJECT), root.join(TOOLS));
    if fresh == Fresh::Kept {
        fs::write(&object, &bytes)?;
        fs::write(&record, &tools)?;
        return Ok(format!("{OBJECT}: {} bytes", bytes.len()));
    }
    let checked_in = fs::read(&object)?;
    if checked_in == bytes {
        return Ok("the fresh object equals the one that is checked in".to_owned());
    }
    if fs::read_to_string(&record)? == tools {
        return Err(format!("{OBJECT} differs from its source; run `cargo xtask object`").into());
    }
    fs::write(&object, &bytes)?;
    let tested = run(&mut cargo(["test", "--locked", "--package", "netpol-ebpf"])?);
    fs::write(&object, checked_in)?;
    tested.map(|()| "other tools than recorded; the tests pass with the fresh object".to_owned())
}

/// Compiles the program and strips what is only for debuggers.
fn compile(root: &Path) -> Result<Vec<u8>> {
    let target = root.join("target/bpf");
    let home = cargo_home()?;
    // The object holds names of source files, which must not depend on the machine.
    let flags = [(root, "/netpol"), (home.as_path(), "/cargo")]
        .map(|(from, to)| format!("\"--remap-path-prefix={}={to}\"", from.display()));
    let flags = format!("target.bpfel-unknown-none.rustflags=[{}]", flags.join(","));
    let mut command = Command::new(tool("NETPOL_BPF_CARGO", "/usr/bin/cargo"));
    command
        .args(["build", "--release", "--locked", "--ignore-rust-version", "--config", &flags])
        .current_dir(root.join(PROGRAM))
        .env("RUSTC", tool("NETPOL_BPF_RUSTC", "/usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS");
    run(&mut command)?;
    let (built, stripped) =
        (target.join("bpfel-unknown-none/release/netpol"), target.join("netpol.bpf.o"));
    let strip = tool("NETPOL_BPF_STRIP", "llvm-strip-22");
    run(Command::new(strip).arg("-g").arg(built).arg("-o").arg(&stripped))?;
    Ok(fs::read(stripped)?)
}

/// Returns the versions of the tools, one in a line.
fn tools() -> Result<String> {
    let version = |program: OsString| -> Result<String> {
        let mut command = Command::new(program);
        let output = command.arg("--version").output().map_err(|error| {
            format!(
                "{}; CONTRIBUTING.md says how the eBPF tools are installed",
                cannot_start(&command, &error)
            )
        })?;
        let text = String::from_utf8(output.stdout)?;
        let line = text.lines().map(str::trim).find(|line| line.contains('.'));
        Ok(line.ok_or("no version in the output of `--version`")?.to_owned())
    };
    let linker = version("bpf-linker".into())?;
    let compiler = version(tool("NETPOL_BPF_RUSTC", "/usr/bin/rustc"))?;
    let strip = version(tool("NETPOL_BPF_STRIP", "llvm-strip-22"))?;
    Ok(format!("{compiler}\n{linker}\n{strip}\n"))
}

fn tool(variable: &str, usual: &str) -> OsString {
    env::var_os(variable).unwrap_or_else(|| usual.into())
}

fn cargo_home() -> Result<PathBuf> {
    let usual = || env::home_dir().map(|home| home.join(".cargo"));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(usual);
    Ok(home.ok_or("no home for cargo, expected the variable CARGO_HOME")?)
}
