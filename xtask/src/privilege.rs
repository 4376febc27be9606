//! What this user may do to the kernel, found out by trying.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// How commands that make network namespaces are run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Privilege {
    /// Directly: we are root and may make namespaces.
    Direct,
    /// As the root of a user namespace of its own, which needs no privilege where the kernel permits it.
    UserNamespace,
    /// Not at all.
    Refused,
}

impl Privilege {
    /// Finds out by making namespaces and throwing them away.
    pub(crate) fn probe() -> Self {
        let direct = is_root() && succeeds(unshare(&["--net", "--mount"]).arg("true"));
        Self::choose(direct, || succeeds(&mut in_user_namespace(Path::new("true"))))
    }

    fn choose(direct: bool, user_namespace: impl FnOnce() -> bool) -> Self {
        if direct {
            Self::Direct
        } else if user_namespace() {
            Self::UserNamespace
        } else {
            Self::Refused
        }
    }

    /// Returns the command that runs `program`, without arguments yet. It finds the tools of the system.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Direct | Self::Refused => Command::new(program),
            Self::UserNamespace => in_user_namespace(program),
        };
        command.env("PATH", search_path());
        command
    }
}

/// Returns the search path with the folders of system tools such as `nft`, which on Debian only root has in it.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    effective_uid().is_ok_and(|uid| uid == 0)
}

/// Returns the effective user id: the owner of our own folder in /proc (proc(5)).
fn effective_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Returns the command that runs `program` as root of new user, network and mount namespaces.
///
/// /run is covered, because names of network namespaces are files in /run/netns.
fn in_user_namespace(program: &Path) -> Command {
    const SCRIPT: &str = r#"mount -t tmpfs tmpfs /run && exec "$0" "$@""#;
    let mut command = unshare(&["--user", "--map-root-user", "--net", "--mount"]);
    command.args(["sh", "-c", SCRIPT]).arg(program);
    command
}

fn unshare(namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespaces);
    command
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_is_the_second_choice() {
        assert_eq!(Privilege::choose(true, || true), Privilege::Direct);
        assert_eq!(Privilege::choose(true, || false), Privilege::Direct);
        assert_eq!(Privilege::choose(false, || true), Privilege::UserNamespace);
        assert_eq!(Privilege::choose(false, || false), Privilege::Refused);
    }

    #[test]
    fn arguments_reach_the_program_in_the_user_namespace() {
        let mut command = Privilege::UserNamespace.command(Path::new("demo"));
        command.args(["--backend", "nft"]);
        let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(
            arguments.get(arguments.len() - 3..),
            Some(&["demo", "--backend", "nft"].map(Into::into)[..])
        );
    }

    #[test]
    fn tools_of_the_system_are_found() {
        let found = Privilege::Direct
            .command(Path::new("sh"))
            .args(["-c", "case $PATH in *:/usr/sbin:*) ;; *) exit 1;; esac"])
            .status();
        assert!(found.is_ok_and(|status| status.success()));
    }
}
