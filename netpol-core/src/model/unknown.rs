//! Interfaces that look like those of workloads and belong to none.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Which interfaces look like those of workloads, and what becomes of packets there while no workload has them. The default
/// leaves all of them alone.
///
/// Whoever sets this closes what nobody has told the dataplane of: a pod that starts before the agent hears of it, one whose
/// endpoint is gone while its processes live on, and an interface that its owner forgot. A host endpoint that names such an
/// interface does not make it known. So nothing else may have such a name: no interface of the host itself, no bridge behind
/// which workloads are, and none of the workloads of another owner's dataplane. A workload that would be known by its address
/// has no interface of its own, so nobody sees that it is unknown.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "which interfaces, and what becomes of them")]
pub struct UnknownInterfaces {
    /// How names of workloads' interfaces begin on the host's side.
    pub prefixes: BTreeSet<InterfacePrefix>,
    /// What becomes of packets there while no workload has the interface.
    pub treatment: Treatment,
}

impl UnknownInterfaces {
    /// Returns whether an interface looks like that of a workload.
    #[must_use]
    pub fn look_like(&self, interface: &str) -> bool {
        self.prefixes.iter().any(|it| interface.starts_with(it.as_str()))
    }
}

/// What becomes of packets at an interface that looks like that of a workload and belongs to none. Nobody knows the addresses
/// of whoever is behind it, so where it is not closed, that one can send in the name of others.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "every dataplane has to handle each of them")]
pub enum Treatment {
    /// As at that of an [isolated](super::Mode::Isolate) endpoint: nothing passes but neighbour discovery, and a dataplane
    /// may drop that too.
    #[default]
    Closed,
    /// As at that of an endpoint to which no policy applies: everything passes but router advertisements and redirects that
    /// come from there, if the dataplane sees them.
    Open,
    /// As at that of an endpoint that may open flows to anybody, and to which nobody but its own node may open one. Flows
    /// that it opened go on in both directions.
    EgressTracked,
}

/// How the names of some interfaces begin: 1 to 14 ASCII letters, digits, `-`, `_` and `.`, the first of them no `-`. Names
/// have at most 15 bytes (`IFNAMSIZ`, less the NUL), one of which `iptables` needs for its wildcard.
///
/// ```
/// use netpol_core::model::InterfacePrefix;
///
/// let prefix: InterfacePrefix = "cali".parse()?;
/// assert_eq!(prefix.as_str(), "cali");
/// assert!("cali*".parse::<InterfacePrefix>().is_err(), "no wildcard is needed");
/// assert!("l".parse::<InterfacePrefix>().is_err(), "`lo` is of no workload");
/// # Ok::<(), netpol_core::model::InterfacePrefixError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfacePrefix(String);

/// Why names of workloads' interfaces cannot begin so.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InterfacePrefixError {
    /// No dataplane could look for it.
    #[error(
        "interfaces cannot be told by `{prefix}`, expected 1 to 14 ASCII letters, digits, `-`, `_` and `.`, not first a `-`"
    )]
    Text {
        /// The text as given.
        prefix: String,
    },
    /// The loopback interface has such a name.
    #[error(
        "`{prefix}` is how `lo` begins, expected what only names of workloads' interfaces begin with"
    )]
    Loopback {
        /// The text as given.
        prefix: String,
    },
}

impl InterfacePrefix {
    const MAX: usize = 14;

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfacePrefix {
    type Err = InterfacePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let prefix = || text.to_owned();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let length = text.len();
        if length == 0 || length > Self::MAX || text.starts_with('-') || !text.bytes().all(good) {
            return Err(InterfacePrefixError::Text { prefix: prefix() });
        }
        if "lo".starts_with(text) {
            return Err(InterfacePrefixError::Loopback { prefix: prefix() });
        }
        Ok(Self(prefix()))
    }
}

impl fmt::Display for InterfacePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[track_caller]
    fn check(text: &str, is_prefix: bool) {
        let parsed = text.parse::<InterfacePrefix>();
        assert_eq!(parsed.is_ok(), is_prefix, "`{text}`: {parsed:?}");
    }

    #[test]
    fn prefixes_are_what_every_dataplane_can_look_for() {
        for good in ["cali", "v", "veth", "lxc_", "tap.0-", "loc", "abcdefghijklmn", "_"] {
            check(good, true);
        }
        for bad in [
            "",
            "l",
            "lo",
            "cali*",
            "cali+",
            "-v",
            "a/b",
            "a b",
            "ü",
            "abcdefghijklmno",
            "a:b",
            "!a",
            "\"a",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn an_interface_looks_like_that_of_a_workload_by_how_its_name_begins() {
        let prefixes = ["cali", "veth"].map(|it| it.parse().unwrap()).into();
        let unknown = UnknownInterfaces { prefixes, ..UnknownInterfaces::default() };
        for (name, looks_so) in [
            ("cali0", true),
            ("cali", true),
            ("veth1a2b", true),
            ("cal", false),
            ("eth0", false),
            ("xveth", false),
        ] {
            assert_eq!(unknown.look_like(name), looks_so, "{name}");
        }
        assert!(!UnknownInterfaces::default().look_like("cali0"), "without prefixes, none does");
    }
}
