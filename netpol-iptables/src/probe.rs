//! What the host must have before anything is programmed, and which flavour of iptables it uses.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use netpol_core::net::Family;

use crate::error::IptablesError;
use crate::name::Owner;
use crate::observe::holds_chains_of;

/// Which of the two implementations of iptables is meant. The kernel evaluates the rules of both, so a host should use
/// only one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "there is the old kernel interface and nf_tables")]
pub enum Flavour {
    /// `iptables-nft`: rules are translated to nf_tables.
    Nft,
    /// `iptables-legacy`: the kernel's own iptables.
    Legacy,
}

impl Flavour {
    /// Both flavours.
    pub const BOTH: [Self; 2] = [Self::Nft, Self::Legacy];

    /// Returns the other flavour.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

/// The table whose built-in chains we hook into.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    clippy::exhaustive_enums,
    reason = "these tables have all chains that we need and can drop"
)]
pub enum TableName {
    /// The usual place.
    #[default]
    Filter,
    /// Before the table `filter`: a packet that another owner accepts there has passed us already.
    Mangle,
}

impl TableName {
    /// Returns the table itself.
    pub(crate) const fn table(self) -> KernelTable {
        match self {
            Self::Filter => KernelTable::Filter,
            Self::Mangle => KernelTable::Mangle,
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table().fmt(f)
    }
}

/// A table in which we may have chains, in the order in which packets meet them.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum KernelTable {
    /// Before conntrack looks at a packet.
    Raw,
    /// Before destination NAT.
    Mangle,
    #[default]
    Filter,
}

impl KernelTable {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Filter];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Filter => "filter",
        }
    }
}

impl fmt::Display for KernelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A table of one family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TableId {
    pub(crate) family: Family,
    pub(crate) table: KernelTable,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.table)
    }
}

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

/// What makes packets between bridged pods pass netfilter, for IPv4 and IPv6.
///
/// Source: `Documentation/networking/ip-sysctl.rst`, `bridge-nf-call-iptables`. The settings belong to the network
/// namespace of the thread that reads them, and are absent without the module `br_netfilter`.
const BRIDGE: [(Family, &str); 2] = [
    (Family::V4, "/proc/sys/net/bridge/bridge-nf-call-iptables"),
    (Family::V6, "/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
];

/// Exists where the kernel has IPv6. It belongs to the network namespace of the thread that looks.
const HAS_IPV6: &str = "/proc/thread-self/net/if_inet6";

/// Returns the families that this host has.
pub(crate) fn families() -> Vec<Family> {
    let has_ipv6 = Path::new(HAS_IPV6).exists();
    Family::BOTH.into_iter().filter(|&family| family == Family::V4 || has_ipv6).collect()
}

/// Checks that netfilter sees the packets of pods.
///
/// # Errors
///
/// [`IptablesError::BridgedPods`]
pub(crate) fn check_bridge(pods: PodNetwork, families: &[Family]) -> Result<(), IptablesError> {
    check_bridge_with(pods, families, |path| fs::read_to_string(path))
}

fn check_bridge_with(
    pods: PodNetwork,
    families: &[Family],
    read: impl Fn(&str) -> io::Result<String>,
) -> Result<(), IptablesError> {
    let off = |path: &str| !read(path).is_ok_and(|text| text.trim() == "1");
    let mut settings = BRIDGE.into_iter().filter(|(family, _)| families.contains(family));
    match settings.find(|(_, path)| pods == PodNetwork::Bridged && off(path)) {
        Some((_, setting)) => Err(IptablesError::BridgedPods { setting }),
        None => Ok(()),
    }
}

/// What decides on the flavour.
#[derive(Debug)]
pub(crate) struct Clues<'a> {
    pub(crate) owner: &'a Owner,
    /// What the configuration asks for.
    pub(crate) wanted: Option<Flavour>,
    /// The flavour of the command `iptables`.
    pub(crate) system: Flavour,
    /// What `iptables-save` and `ip6tables-save` of each flavour list, as far as it is installed.
    pub(crate) listings: &'a BTreeMap<Flavour, String>,
}

/// Returns the flavour to use: the one asked for; or the one that has our chains; or the one that kubelet marks
/// (`KUBE-IPTABLES-HINT`, and before 1.24 `KUBE-KUBELET-CANARY`); or the one with more rules; or that of the command
/// `iptables`.
///
/// # Errors
///
/// [`IptablesError::OtherFlavour`] if the other flavour has chains of ours, [`IptablesError::BothFlavours`] if both have.
pub(crate) fn choose(clues: &Clues<'_>) -> Result<Flavour, IptablesError> {
    let listing = |flavour| clues.listings.get(&flavour).map(String::as_str).unwrap_or_default();
    let has = |test: &dyn Fn(&str) -> bool| {
        Flavour::BOTH.into_iter().filter(|&flavour| test(listing(flavour))).collect::<Vec<_>>()
    };
    let ours = has(&|it| holds_chains_of(clues.owner, it));
    let only = |flavours: &[Flavour]| match flavours {
        [one] => Some(*one),
        _ => None,
    };
    let hinted = || only(&has(&|it| it.contains(":KUBE-IPTABLES-HINT ")));
    let canary = || only(&has(&|it| it.contains(":KUBE-KUBELET-CANARY ")));
    let fuller = || {
        let [nft, legacy] = Flavour::BOTH.map(|flavour| rules(listing(flavour)));
        (nft != legacy).then_some(if nft > legacy { Flavour::Nft } else { Flavour::Legacy })
    };
    if ours == Flavour::BOTH {
        return Err(IptablesError::BothFlavours);
    }
    let chosen = clues.wanted.or_else(|| only(&ours)).or_else(hinted).or_else(canary);
    let wanted = chosen.or_else(fuller).unwrap_or(clues.system);
    let other = wanted.other();
    if ours.contains(&other) {
        return Err(IptablesError::OtherFlavour { wanted, other });
    }
    Ok(wanted)
}

fn rules(listing: &str) -> usize {
    listing.lines().filter(|line| line.starts_with("-A ") || line.starts_with('[')).count()
}

/// Returns the flavour that `iptables --version` tells.
pub(crate) fn flavour_of(version: &str) -> Flavour {
    if version.contains("nf_tables") { Flavour::Nft } else { Flavour::Legacy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: Option<Flavour>, nft: &str, legacy: &str) -> String {
        let listings =
            BTreeMap::from([(Flavour::Nft, nft.to_owned()), (Flavour::Legacy, legacy.to_owned())]);
        let (owner, system) = (Owner::default(), flavour_of("iptables v1.8.9 (legacy)"));
        match choose(&Clues { owner: &owner, wanted, system, listings: &listings }) {
            Ok(flavour) => flavour.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn the_flavour_is_that_of_the_host() {
        let ours = "*filter\n:NP-FWD - [0:0]\nCOMMIT\n";
        let rules = "*filter\n-A FORWARD -j ACCEPT\n[0:0] -A FORWARD -j ACCEPT\nCOMMIT\n";
        let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
        let canary = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
        for (wanted, nft, legacy, want) in [
            (None, "", "", "legacy"),
            (None, rules, "", "nft"),
            (None, "", rules, "legacy"),
            (None, hint, rules, "nft"),
            (None, rules, canary, "legacy"),
            (None, ours, rules, "nft"),
            (None, hint, ours, "legacy"),
            (Some(Flavour::Nft), "", rules, "nft"),
        ] {
            assert_eq!(chosen(wanted, nft, legacy), want, "{nft} / {legacy}");
        }
    }

    #[test]
    fn our_chains_in_the_other_flavour_are_an_error() {
        let ours = "*mangle\n:NP-FWD - [0:0]\nCOMMIT\n";
        for (wanted, nft, legacy, want) in [
            (Some(Flavour::Legacy), ours, "", "error: nft iptables already has our chains"),
            (Some(Flavour::Nft), "", ours, "error: legacy iptables already has our chains"),
            (None, ours, ours, "error: both flavours of iptables have our chains"),
            (Some(Flavour::Nft), ours, ours, "error: both flavours of iptables have our chains"),
        ] {
            let got = chosen(wanted, nft, legacy);
            assert!(got.starts_with(want), "{got}");
        }
    }

    #[test]
    fn bridged_pods_need_the_bridge_to_call_netfilter() {
        let check = |pods, families: &[Family], setting: Option<&str>| {
            let read = |_: &str| setting.map(str::to_owned).ok_or(io::ErrorKind::NotFound.into());
            check_bridge_with(pods, families, read).is_ok()
        };
        assert!(check(PodNetwork::Routed, &Family::BOTH, None));
        assert!(check(PodNetwork::Bridged, &Family::BOTH, Some("1\n")));
        assert!(!check(PodNetwork::Bridged, &Family::BOTH, Some("0\n")));
        assert!(!check(PodNetwork::Bridged, &[Family::V4], None));
    }
}
