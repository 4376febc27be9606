//! The conformance binary, and the demo that it runs.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::Result;
use crate::command::{cargo, metadata, run};
use crate::privilege::{Privilege, is_root};
use crate::setup::{Purpose, set_up};

/// A dataplane that can enforce in the demo.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Backend {
    /// eBPF programs at the interfaces; needs root
    Ebpf,
    /// nf_tables over netlink
    Nft,
    /// iptables and ipset, in the nft flavour
    Iptables,
    /// iptables and ipset, in the legacy flavour
    IptablesLegacy,
}

impl Backend {
    /// Every backend of the workspace.
    pub(crate) const ALL: [Self; 4] = [Self::Ebpf, Self::Nft, Self::Iptables, Self::IptablesLegacy];

    /// Returns the name under which the conformance binary knows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    /// Whether it works in a user namespace: the kernel loads no programs there.
    pub(crate) const fn works_in_user_namespace(self) -> bool {
        !matches!(self, Self::Ebpf)
    }
}

/// Sets up, builds, and runs the demo on `backend`.
///
/// # Errors
///
/// If a step fails, or this user may not make network namespaces (the error is the command to run).
pub(crate) fn demo(backend: Backend) -> Result<()> {
    set_up(Purpose::Demo(backend))?;
    let binary = build_conformance()?;
    let privilege = Privilege::probe();
    match privilege {
        Privilege::Direct => {}
        Privilege::UserNamespace if backend.works_in_user_namespace() => {
            println!("not privileged: the demo runs in a user namespace of its own")
        }
        Privilege::UserNamespace | Privilege::Refused => {
            let arguments = format!("{} demo --backend {}", binary.display(), backend.name());
            return Err(refusal(&arguments, is_root()).into());
        }
    }
    run(privilege.command(&binary).args(["demo", "--backend", backend.name()]))
}

/// Builds the conformance binary in release mode and returns its path.
pub(crate) fn build_conformance() -> Result<PathBuf> {
    println!("building netpol-conformance");
    run(&mut cargo(["build", "--release", "--locked", "--package", "netpol-conformance"])?)?;
    Ok(metadata()?.target_directory.join("release/netpol-conformance").into())
}

/// Returns what to tell a user who may not make network namespaces but wants to run `command`.
pub(crate) fn refusal(command: &str, root: bool) -> String {
    if root {
        return format!(
            "this machine lets not even root make network namespaces (a container needs CAP_SYS_ADMIN and \
             CAP_NET_ADMIN); elsewhere, run\n  {command}"
        );
    }
    format!("this machine does not permit this without root; run\n  sudo {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_with_the_command_to_run() {
        assert!(refusal("demo --backend nft", false).ends_with("\n  sudo demo --backend nft"));
        assert!(refusal("demo --backend nft", true).ends_with("\n  demo --backend nft"));
    }
}
