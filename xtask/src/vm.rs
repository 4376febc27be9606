//! Scenarios on an older kernel than ours, in a virtual machine.
//!
//! The kernel is the one of Debian 12, taken out of its package and never installed. qemu interprets it, so that this
//! needs neither privilege nor a processor that lends itself to virtual machines.

mod initramfs;
mod kernel;
mod machine;
mod verdict;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::initramfs::Initramfs;
use self::kernel::Kernel;
use self::machine::Machine;
use crate::Result;
use crate::command::{metadata, workspace_root};
use crate::demo::{Backend, build_conformance};
use crate::setup::{Purpose, set_up};

/// How long one backend may take, the boot of 3 seconds included; the slowest has taken 5 minutes on busy processors. The
/// machine is killed then.
const LIMIT: Duration = Duration::from_mins(20);

/// How many times as long as usual an answer may take. An attempt usually counts as denied after 300 ms; with other work
/// on our processors, the machine has taken longer for one that was allowed.
const PATIENCE: &str = "4";

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

/// Runs the scenario files on each of `backends`, each in a machine of its own, and returns what passed.
///
/// # Errors
///
/// If a machine cannot be made or does not come to an end, or a backend failed a scenario or ran none.
pub(crate) fn scenarios(backends: &[Backend]) -> Result<String> {
    if ARCH != "x86_64" {
        return Err(format!("the kernel is one for x86_64, but our programs are for {ARCH}").into());
    }
    let binary = build_conformance()?;
    let folder = folder()?;
    let kernel = Kernel::fetch(&folder)?;
    let initramfs = initramfs(&kernel, &binary, backends, &folder)?;
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for backend in backends {
        match run(&kernel, &initramfs, *backend, &folder) {
            Ok(run) => passed.push(run),
            Err(error) => failed.push(format!("{}: {error}", backend.name())),
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
    binary: &Path,
    backends: &[Backend],
    folder: &Path,
) -> Result<PathBuf> {
    let initramfs = Initramfs::new(&folder.join("root"))?;
    initramfs.add_program(binary)?;
    for Tools { packages, programs } in backends.iter().map(|backend| tools(*backend)) {
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

/// Programs of this machine that a backend starts.
struct Tools {
    /// All programs of these packages.
    packages: &'static [&'static str],
    /// Those that are in no package: links to one of several programs, which the administrator chooses.
    programs: &'static [&'static str],
}

const fn tools(backend: Backend) -> Tools {
    match backend {
        Backend::Ebpf | Backend::Nft => Tools { packages: &[], programs: &[] },
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
    let machine = Machine {
        image: &kernel.image(),
        initramfs,
        console: &folder.join(format!("{name}.console")),
        output: &folder.join(format!("{name}.output")),
    };
    let command =
        ["netpol-conformance", "run", "/scenarios", "--patience", PATIENCE, "--backend", name];
    let output = machine.run(&command, LIMIT)?;
    println!("{}", output.trim_end());
    let passed = verdict::passed(&output, kernel.release(), name)?;
    Ok(format!("{name} {passed} passed in {} s", start.elapsed().as_secs()))
}
