//! Scenarios, and tests of the eBPF program, on an older kernel than ours, in a virtual machine.
//!
//! The kernel is the one of Debian 12, taken out of its package and never installed. qemu interprets it, so that this
//! needs neither privilege nor a processor that lends itself to virtual machines.

mod initramfs;
mod kernel;
mod machine;
mod verdict;

use std::env::consts::ARCH;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cargo_metadata::Message;

use self::initramfs::Initramfs;
use self::kernel::Kernel;
use self::machine::Machine;
use crate::Result;
use crate::command::{cannot_start, cargo, metadata, workspace_root};
use crate::demo::{Backend, build_conformance};
use crate::setup::{Purpose, set_up};

/// How long one backend may take, the boot of 3 seconds included; the slowest has taken 5 minutes on busy processors. The
/// machine is killed then.
const LIMIT: Duration = Duration::from_mins(20);

/// How many times as long as usual an answer may take. An attempt usually counts as denied after 300 ms; with other work
/// on our processors, the machine has taken longer for one that was allowed.
const PATIENCE: &str = "4";

/// The tests of the eBPF program that say what an older kernel makes of it: what the verifier has to do, and verdicts on
/// single packets. The others need TCX, or the time that an interpreted processor does not have.
const PROGRAM_TESTS: [&str; 3] = ["tests::measure::the_verifier", "tests::paths", "tests::wire"];

/// Sets up and runs the scenario files on `backends`, or on all if there are none.
///
/// # Errors
///
/// Those of [`set_up`] and [`scenarios`].
pub(crate) fn vm(backends: &[Backend]) -> Result<()> {
    set_up(Purpose::Full)?;
    let passed = scenarios(if backends.is_empty() { &Backend::ALL } else { backends })?;
    println!("{passed}");
    Ok(())
}

/// Runs the scenario files on each of `backends`, each in a machine of its own, and the tests of the eBPF program if it is
/// one of them. Returns what passed.
///
/// # Errors
///
/// If a machine cannot be made or does not come to an end, or a backend failed a scenario or ran none.
pub(crate) fn scenarios(backends: &[Backend]) -> Result<String> {
    if ARCH != "x86_64" {
        return Err(format!("the kernel is one for x86_64, but our programs are for {ARCH}").into());
    }
    let mut programs = vec![build_conformance()?];
    if backends.contains(&Backend::Ebpf) {
        programs.push(build_program_tests()?);
    }
    let folder = folder()?;
    let kernel = Kernel::fetch(&folder)?;
    let initramfs = initramfs(&kernel, &programs, backends, &folder)?;
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for backend in backends {
        match run(&kernel, &initramfs, *backend, &folder) {
            Ok(run) => passed.push(run),
            Err(error) => failed.push(format!("{}: {error}", backend.name())),
        }
    }
    if let [_, tests] = programs.as_slice() {
        match run_program_tests(&kernel, &initramfs, tests, &folder) {
            Ok(run) => passed.push(run),
            Err(error) => failed.push(format!("tests of the eBPF program: {error}")),
        }
    }
    match (passed.is_empty(), failed.is_empty()) {
        (_, false) => Err(failed.join("\n").into()),
        (true, true) => Err("no backend to run".into()),
        (false, true) => Ok(format!("{}: {}", kernel.release(), passed.join(", "))),
    }
}

/// Returns where all files of the machines are, in the build directory.
fn folder() -> Result<PathBuf> {
    let folder = Path::new(&metadata()?.target_directory).join("vm");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Packs what all machines are made of.
fn initramfs(
    kernel: &Kernel,
    binaries: &[PathBuf],
    backends: &[Backend],
    folder: &Path,
) -> Result<PathBuf> {
    let initramfs = Initramfs::new(&folder.join("root"))?;
    for binary in binaries {
        initramfs.add_program(binary)?;
    }
    for Tools { packages, programs } in backends.iter().map(|it| tools(*it)).chain([SCENARIOS]) {
        for package in packages {
            initramfs.add_package(package)?;
        }
        for program in programs {
            initramfs.add_program(Path::new(program))?;
        }
    }
    initramfs.add_folder(&workspace_root()?.join("netpol-conformance/scenarios"), "scenarios")?;
    initramfs.add_modules(kernel)?;
    initramfs.pack(&folder.join("initramfs.cpio"))
}

/// Programs of this machine that are started in another one.
struct Tools {
    /// All programs of these packages.
    packages: &'static [&'static str],
    /// Those that are in no package: links to one of several programs, which the administrator chooses.
    programs: &'static [&'static str],
}

/// What translates in scenarios with Services and mapped ports.
const SCENARIOS: Tools = Tools {
    packages: &["nftables", "iptables"],
    programs: &["/usr/lib/cni/portmap", "/usr/sbin/iptables", "/usr/sbin/ip6tables"],
};

const fn tools(backend: Backend) -> Tools {
    match backend {
        Backend::Nft => Tools { packages: &[], programs: &[] },
        // What the tests of the program start.
        Backend::Ebpf => Tools { packages: &["iproute2", "nftables"], programs: &[] },
        Backend::Iptables | Backend::IptablesLegacy => Tools {
            // ipset looks names of protocols up in a file of netbase.
            packages: &["iptables", "ipset", "netbase"],
            programs: &["/usr/sbin/iptables", "/usr/sbin/ip6tables"],
        },
    }
}

/// Boots a machine that runs the scenarios on `backend`, and returns what passed.
fn run(kernel: &Kernel, initramfs: &Path, backend: Backend, folder: &Path) -> Result<String> {
    let name = backend.name();
    println!("booting {} for the scenarios on {name}", kernel.release());
    let start = Instant::now();
    let command =
        ["netpol-conformance", "run", "/scenarios", "--patience", PATIENCE, "--backend", name];
    let output = boot(kernel, initramfs, name, &command, folder)?;
    let passed = verdict::passed(&output, kernel.release(), name)?;
    Ok(format!("{name} {passed} passed in {} s", start.elapsed().as_secs()))
}

/// Boots a machine that runs the tests of the eBPF program, and returns what passed.
fn run_program_tests(
    kernel: &Kernel,
    initramfs: &Path,
    tests: &Path,
    folder: &Path,
) -> Result<String> {
    println!("booting {} for the tests of the eBPF program", kernel.release());
    let start = Instant::now();
    let program = tests.file_name().and_then(|it| it.to_str()).ok_or("tests without a name")?;
    let mut command = vec![program, "--nocapture", "--test-threads", "1"];
    command.extend(PROGRAM_TESTS);
    let output = boot(kernel, initramfs, "ebpf-tests", &command, folder)?;
    let passed = verdict::tests_passed(&output, kernel.release())?;
    Ok(format!("{passed} tests of the eBPF program passed in {} s", start.elapsed().as_secs()))
}

/// Boots a machine that runs a command, and returns and shows what that prints.
fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    name: &str,
    command: &[&str],
    folder: &Path,
) -> Result<String> {
    let machine = Machine {
        image: &kernel.image(),
        initramfs,
        console: &folder.join(format!("{name}.console")),
        output: &folder.join(format!("{name}.output")),
    };
    let output = machine.run(command, LIMIT)?;
    println!("{}", output.trim_end());
    Ok(output)
}

/// Builds the tests of netpol-ebpf and returns their program.
fn build_program_tests() -> Result<PathBuf> {
    println!("building the tests of netpol-ebpf");
    let mut command = cargo([
        "test",
        "--locked",
        "--package",
        "netpol-ebpf",
        "--lib",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ])?;
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(&command, &error))?;
    let output = child.stdout.take().ok_or("cargo has no output")?;
    let mut program = None;
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message? {
            program = artifact.executable.or(program);
        }
    }
    if !child.wait()?.success() {
        return Err("the tests of netpol-ebpf do not compile".into());
    }
    Ok(program.ok_or("cargo names no program of tests")?.into())
}
