//! What the host must have before anything is programmed.

use std::fs;
use std::io;

use crate::error::NftError;

/// The oldest kernel that we support: comments on tables and the reliable replacement of elements came with it.
const OLDEST: (u32, u32) = (5, 10);

/// Where the kernel tells its release.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// What makes packets between bridged pods pass netfilter, for IPv4 and IPv6.
///
/// Source: `Documentation/networking/ip-sysctl.rst`, `bridge-nf-call-iptables`. The settings belong to the network
/// namespace of the thread that reads them, and are absent without the module `br_netfilter`.
const BRIDGE: [&str; 2] = [
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
];

/// Where the packets of pods pass on their way between each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a pod's packets are routed or bridged by its node")]
pub enum PodNetwork {
    /// The node routes them. Endpoints are known by interface.
    #[default]
    Routed,
    /// A bridge of the node forwards them. Endpoints are known by address, and the kernel must be set to show bridged
    /// packets to netfilter.
    Bridged,
}

/// Checks that the host can enforce.
///
/// # Errors
///
/// [`NftError::KernelTooOld`], [`NftError::BridgedPods`], [`NftError::Socket`] if the kernel does not tell.
pub(crate) fn check(pods: PodNetwork) -> Result<(), NftError> {
    check_with(pods, |path| fs::read_to_string(path))
}

fn check_with(pods: PodNetwork, read: impl Fn(&str) -> io::Result<String>) -> Result<(), NftError> {
    let release = read(RELEASE)
        .map_err(|source| NftError::Socket { operation: "read the kernel's release", source })?;
    let release = release.trim().to_owned();
    if version(&release).is_none_or(|found| found < OLDEST) {
        return Err(NftError::KernelTooOld { release });
    }
    if pods == PodNetwork::Bridged {
        let off = |path: &&'static str| !read(path).is_ok_and(|text| text.trim() == "1");
        if let Some(setting) = BRIDGE.iter().copied().find(off) {
            return Err(NftError::BridgedPods { setting });
        }
    }
    Ok(())
}

/// Returns the major and minor version in a release such as `6.18.44-cloud`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_host(
        pods: PodNetwork,
        release: &str,
        iptables: Option<&str>,
        ip6tables: Option<&str>,
    ) -> String {
        let read = |path: &str| {
            let text = match path {
                RELEASE => Some(release),
                path if path.ends_with("-iptables") => iptables,
                _ => ip6tables,
            };
            text.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        check_with(pods, read).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn old_kernels_are_refused() {
        for (release, good) in [
            ("6.18.44-cloud\n", true),
            ("5.10.0-30-amd64", true),
            ("5.9.16", false),
            ("4.19", false),
            ("10.0.1", true),
            ("", false),
        ] {
            let found = check_host(PodNetwork::Routed, release, None, None);
            assert_eq!(found == "fine", good, "{release}: {found}");
        }
    }

    #[test]
    fn bridged_pods_need_the_bridge_to_call_netfilter() {
        let check =
            |iptables, ip6tables| check_host(PodNetwork::Bridged, "6.1.0", iptables, ip6tables);
        assert_eq!(check(Some("1\n"), Some("1\n")), "fine");
        for (iptables, ip6tables, setting) in [
            (None, None, "bridge-nf-call-iptables"),
            (Some("0\n"), Some("1\n"), "bridge-nf-call-iptables"),
            (Some("1\n"), Some("0\n"), "bridge-nf-call-ip6tables"),
        ] {
            let found = check(iptables, ip6tables);
            assert!(found.contains(setting), "{found}");
        }
    }
}
