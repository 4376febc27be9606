//! System packages: what is needed, what is missing, and how it is installed.

use std::io;
use std::process::Command;

use crate::Result;
use crate::command::{cannot_start, run};
use crate::demo::Backend;
use crate::privilege::is_root;

/// What the machine is prepared for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// To build everything and run the demo.
    Demo(Backend),
    /// To run the tests too.
    Test,
    /// To run them on an older kernel too.
    Full,
}

/// A Debian package and the reason why it is needed.
#[derive(Debug, Eq, PartialEq)]
struct Package {
    name: &'static str,
    why: &'static str,
}

/// A linker is not listed: without one this program would not have been built.
const BUILD: [Package; 3] = [
    Package { name: "pkg-config", why: "finds the two libraries below at build time" },
    Package { name: "libmnl-dev", why: "netpol-nft talks netlink through libmnl" },
    Package { name: "libnftnl-dev", why: "netpol-nft encodes nf_tables messages with libnftnl" },
];

const IPTABLES: [Package; 2] = [
    Package { name: "ipset", why: "netpol-iptables keeps addresses in sets" },
    Package { name: "iptables", why: "netpol-iptables runs its tools, of both flavours" },
];

const TEST: [Package; 5] = [
    Package {
        name: "containernetworking-plugins",
        why: "its `portmap` lets ports of nodes lead to pods in scenarios",
    },
    Package { name: "g++", why: "the fuzz targets are linked to libFuzzer, which is C++" },
    Package { name: "iproute2", why: "tests make links and addresses with `ip`" },
    Package {
        name: "nftables",
        why: "the tests let `nft` print and re-load what netpol-nft programs, and translate for Services",
    },
    Package { name: "procps", why: "a test lets forged packets through with `sysctl`" },
];

const FULL: [Package; 4] = [
    Package {
        name: "qemu-system-x86",
        why: "runs the scenarios on an older kernel, as a user program",
    },
    Package { name: "busybox-static", why: "mounts file systems in that virtual machine" },
    Package { name: "kmod", why: "loads kernel modules in that virtual machine" },
    Package { name: "cpio", why: "packs the files of that virtual machine" },
];

/// What has to be done.
#[derive(Debug, Eq, PartialEq)]
enum Plan {
    Nothing,
    /// We are root: install them.
    Install(Vec<&'static Package>),
    /// We are not: tell the user how.
    Ask(Vec<&'static Package>),
    /// No dpkg here: name them and go on, the build will say what is missing.
    NotDebian(Vec<&'static Package>),
}

/// Installs what `purpose` needs and the machine lacks.
///
/// # Errors
///
/// If something is missing and we are not root (the error is the command to run), or apt-get fails.
pub(crate) fn set_up(purpose: Purpose) -> Result<()> {
    let wanted = packages(purpose);
    match plan(&wanted, installed(&wanted)?.as_deref(), is_root()) {
        Plan::Nothing => println!("set-up: nothing is missing"),
        Plan::Install(missing) => {
            println!("set-up: installing\n{}", list(&missing));
            install(&missing)?;
        }
        Plan::Ask(missing) => return Err(request(&missing).into()),
        Plan::NotDebian(wanted) => {
            println!(
                "set-up: no dpkg here, so please see that you have what Debian calls\n{}",
                list(&wanted)
            );
        }
    }
    Ok(())
}

fn packages(purpose: Purpose) -> Vec<&'static Package> {
    match purpose {
        Purpose::Demo(Backend::Ebpf | Backend::Nft) => BUILD.iter().collect(),
        Purpose::Demo(Backend::Iptables | Backend::IptablesLegacy) => {
            BUILD.iter().chain(&IPTABLES).collect()
        }
        Purpose::Test => BUILD.iter().chain(&IPTABLES).chain(&TEST).collect(),
        Purpose::Full => BUILD.iter().chain(&IPTABLES).chain(&TEST).chain(&FULL).collect(),
    }
}

fn plan(wanted: &[&'static Package], installed: Option<&[String]>, root: bool) -> Plan {
    let Some(installed) = installed else { return Plan::NotDebian(wanted.to_vec()) };
    let missing: Vec<_> = wanted
        .iter()
        .copied()
        .filter(|package| !installed.iter().any(|name| name == package.name))
        .collect();
    match (missing.is_empty(), root) {
        (true, _) => Plan::Nothing,
        (false, true) => Plan::Install(missing),
        (false, false) => Plan::Ask(missing),
    }
}

/// Returns the names of those `wanted` packages that are installed, or `None` on a machine without dpkg.
fn installed(wanted: &[&Package]) -> Result<Option<Vec<String>>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    query.args(wanted.iter().map(|package| package.name));
    // The exit status says only that some package is unknown, which the output says too.
    match query.output() {
        Ok(output) => Ok(Some(parse_query(&String::from_utf8_lossy(&output.stdout)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_start(&query, &error).into()),
    }
}

fn parse_query(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

fn install(missing: &[&Package]) -> Result<()> {
    run(apt_get().arg("update"))?;
    run(apt_get()
        .args(["install", "-y", "--no-install-recommends"])
        .args(missing.iter().map(|package| package.name)))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-q").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn list(packages: &[&Package]) -> String {
    packages
        .iter()
        .map(|Package { name, why }| format!("  {name:<15} {why}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn request(missing: &[&Package]) -> String {
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    format!(
        "packages are missing:\n{}\ninstall them with\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
        list(missing),
        names.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        let installed = names(&[
            "containernetworking-plugins",
            "g++",
            "ipset",
            "iproute2",
            "iptables",
            "libmnl-dev",
            "libnftnl-dev",
            "nftables",
            "pkg-config",
            "procps",
        ]);
        assert_eq!(plan(&packages(Purpose::Test), Some(&installed), false), Plan::Nothing);
    }

    #[test]
    fn an_older_kernel_needs_more() {
        let installed: Vec<_> =
            packages(Purpose::Test).iter().map(|package| package.name.to_owned()).collect();
        let missing = FULL.iter().collect();
        assert_eq!(plan(&packages(Purpose::Full), Some(&installed), false), Plan::Ask(missing));
    }

    #[test]
    fn only_root_installs() {
        let installed = names(&["libmnl-dev", "pkg-config"]);
        let missing: Vec<_> =
            BUILD.iter().filter(|package| package.name == "libnftnl-dev").collect();
        assert_eq!(
            plan(&packages(Purpose::Demo(Backend::Nft)), Some(&installed), true),
            Plan::Install(missing.clone())
        );
        assert_eq!(
            plan(&packages(Purpose::Demo(Backend::Nft)), Some(&installed), false),
            Plan::Ask(missing)
        );
    }

    #[test]
    fn a_machine_without_dpkg_is_told_the_names() {
        let wanted = packages(Purpose::Demo(Backend::Nft));
        assert_eq!(plan(&wanted, None, true), Plan::NotDebian(wanted.clone()));
    }

    #[test]
    fn a_removed_package_is_not_installed() {
        let output = "libmnl-dev installed\nnftables config-files\nlibnftnl-dev not-installed\n";
        assert_eq!(parse_query(output), names(&["libmnl-dev"]));
    }

    #[test]
    fn the_request_is_a_command_with_reasons() {
        let text = request(&TEST.iter().collect::<Vec<_>>());
        assert!(
            text.ends_with(
                "sudo apt-get install -y --no-install-recommends containernetworking-plugins g++ \
                 iproute2 nftables procps"
            ),
            "{text}"
        );
        assert!(text.contains("the tests let `nft` print"), "{text}");
    }
}
