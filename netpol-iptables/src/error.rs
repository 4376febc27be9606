//! Errors.

use std::io;
use std::time::Duration;

use netpol_core::model::EndpointId;
use netpol_core::{DataplaneError, DataplaneErrorKind};
use netpol_netfilter::{LogPrefix, LogRate};

use crate::probe::Flavour;

/// Why this dataplane could not be opened or could not do what it was asked.
///
/// At the [`Dataplane`](netpol_core::Dataplane) boundary it is the source of a [`DataplaneError`] of its [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IptablesError {
    /// A tool is not installed.
    #[error("`{program}` could not be started, expected it to be installed and in PATH")]
    NoTool {
        /// The tool.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// A tool failed. Nothing of what it was asked for is in force, unless it was a change of sets.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The tool and its arguments.
        command: String,
        /// What it said, or its exit status if it said nothing.
        message: String,
    },
    /// A tool did not end in time and was killed.
    #[error("`{command}` did not end within {limit:?}")]
    TimedOut {
        /// The tool and its arguments.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// A tool could not be talked to.
    #[error("could not {operation}")]
    Process {
        /// What was being done.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Tracked flows cannot be forgotten.
    #[error(
        "tracked flows of an address could not be forgotten, expected a kernel with CONFIG_NF_CT_NETLINK"
    )]
    Conntrack {
        /// The system's error.
        source: io::Error,
    },
    /// The other flavour has chains of ours.
    #[error(
        "{other} iptables already has our chains; use it, or remove them with `IptablesDataplane::remove_flavour` before {wanted} iptables is used"
    )]
    OtherFlavour {
        /// The flavour to be used.
        wanted: Flavour,
        /// The flavour that has our chains.
        other: Flavour,
    },
    /// Both flavours have chains of ours, so that packets are judged twice.
    #[error(
        "both flavours of iptables have our chains; remove those of the wrong one with `IptablesDataplane::remove_flavour`"
    )]
    BothFlavours,
    /// The nft flavour does not list a table. Somebody has put something into it with another tool, such as `nft`.
    #[error(
        "iptables cannot list table `{table}`, expected nothing in it that only `nft` can show; remove that, or use the other table"
    )]
    Unreadable {
        /// The table.
        table: &'static str,
    },
    /// Host endpoints need the table `filter`: where `mangle` has the packets of the node's processes, they have not met
    /// destination NAT, or are not told from those that it forwards.
    #[error("policy of host endpoints needs the table `filter`, expected it in the configuration")]
    NeedsFilter,
    /// There is no mark for what policy before destination NAT has allowed.
    #[error("the packet mark has no bit, expected one that nobody else uses")]
    NoMark,
    /// The configured prefix of log messages is longer than the kernel takes.
    #[error("log prefix `{prefix}` stands for up to {bytes} bytes, expected at most {max}")]
    LogPrefix {
        /// The prefix.
        prefix: LogPrefix,
        /// How long it can be.
        bytes: usize,
        /// The most that the kernel takes.
        max: usize,
    },
    /// The configured burst of log messages is more than the kernel counts.
    #[error(
        "a burst of {} packets at {rate} is more than comes in a day, expected a smaller burst or a higher rate",
        rate.burst()
    )]
    LogBurst {
        /// The rate.
        rate: LogRate,
    },
    /// Pods behind a bridge cannot be enforced.
    #[error(
        "packets between bridged pods do not pass netfilter, expected `{setting}` to be 1 (module br_netfilter)"
    )]
    BridgedPods {
        /// The setting that is absent or 0.
        setting: &'static str,
    },
    /// A set with one of our names is not as we make them.
    #[error("set `{set}` has a type that is not ours; destroy it to have it made anew")]
    ForeignSet {
        /// The set.
        set: String,
    },
    /// An endpoint's interface has no name that iptables takes.
    #[error(
        "interface `{interface}` is no name that iptables takes, expected 1 to 15 letters, digits, `.`, `-`, `_`, `@`"
    )]
    Interface {
        /// The name.
        interface: String,
    },
    /// Two endpoints with different policy cannot be told apart.
    #[error("endpoint {other:?} claims `{key}` too, so that their packets cannot be told apart")]
    Shared {
        /// The interface or address.
        key: String,
        /// The other endpoint.
        other: Box<EndpointId>,
    },
    /// A policy set needs more chains in a row than the kernel follows.
    #[error("the policy set is {depth} chains deep, expected at most {max}")]
    TooDeep {
        /// How deep it is.
        depth: usize,
        /// The most that the kernel follows.
        max: usize,
    },
    /// A condition that iptables cannot express.
    #[error("iptables cannot match {condition}")]
    Inexpressible {
        /// The condition.
        condition: &'static str,
    },
    /// The program refers to something that it does not have.
    #[error("the program refers to {missing}, which it does not have")]
    Dangling {
        /// What is missing.
        missing: String,
    },
}

impl IptablesError {
    /// Returns the kind by which a caller decides what to do next.
    #[must_use]
    pub fn kind(&self) -> DataplaneErrorKind {
        match self {
            Self::NoTool { .. }
            | Self::BridgedPods { .. }
            | Self::NeedsFilter
            | Self::NoMark
            | Self::LogPrefix { .. }
            | Self::LogBurst { .. }
            | Self::Inexpressible { .. } => DataplaneErrorKind::Unsupported,
            Self::Conntrack { source } => match source.kind() {
                io::ErrorKind::PermissionDenied => DataplaneErrorKind::Permission,
                io::ErrorKind::Unsupported => DataplaneErrorKind::Unsupported,
                _ => DataplaneErrorKind::Transient,
            },
            Self::TimedOut { .. } | Self::Process { .. } => DataplaneErrorKind::Transient,
            Self::OtherFlavour { .. }
            | Self::BothFlavours
            | Self::Unreadable { .. }
            | Self::ForeignSet { .. }
            | Self::Shared { .. } => DataplaneErrorKind::Conflict,
            Self::TooDeep { .. } => DataplaneErrorKind::Capacity,
            Self::Interface { .. } | Self::Dangling { .. } => DataplaneErrorKind::Other,
            Self::Failed { message, .. } => kind_of(message),
        }
    }

    /// Returns whether a tool failed with these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Failed { message, .. } if message.contains(words))
    }

    /// Returns the error for callers of the trait. `operation` is a verb phrase.
    #[must_use]
    pub fn into_dataplane(self, operation: &'static str) -> DataplaneError {
        DataplaneError::new(self.kind(), operation).with_source(self)
    }
}

/// Returns the kind of failure that a tool describes. Its words are all it gives; they are those of iptables 1.8.9 and
/// ipset 7.17, and of the C library.
fn kind_of(message: &str) -> DataplaneErrorKind {
    const WORDS: [(&[&str], DataplaneErrorKind); 5] = [
        (
            &["Permission denied", "Operation not permitted", "you must be root"],
            DataplaneErrorKind::Permission,
        ),
        (
            &[
                "holding the xtables lock",
                "Resource temporarily unavailable",
                "Interrupted",
                "No buffer space",
                "Cannot allocate memory",
            ],
            DataplaneErrorKind::Transient,
        ),
        (
            &["can't initialize", "not supported", "Couldn't load match", "is incompatible"],
            DataplaneErrorKind::Unsupported,
        ),
        (
            &["is full", "No space left", "Too many links", "maximal number", "File too large"],
            DataplaneErrorKind::Capacity,
        ),
        (
            &[
                "doesn't exist",
                "does not exist",
                "No chain/target/match by that name",
                "is not a chain",
                "already exists",
                "it is in use",
                "Device or resource busy",
                "Directory not empty",
            ],
            DataplaneErrorKind::Conflict,
        ),
    ];
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let known = WORDS.iter().find(|(words, _)| says(words));
    known.map_or(DataplaneErrorKind::Other, |&(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_say_has_a_kind() {
        for (message, kind) in [
            (
                "Could not fetch rule set generation id: Permission denied (you must be root)",
                DataplaneErrorKind::Permission,
            ),
            ("Another app is currently holding the xtables lock", DataplaneErrorKind::Transient),
            (
                "Error in line 1: Hash is full, cannot add more elements",
                DataplaneErrorKind::Capacity,
            ),
            ("Chain 'NP-A' does not exist", DataplaneErrorKind::Conflict),
            (
                "Set cannot be destroyed: it is in use by a kernel component",
                DataplaneErrorKind::Conflict,
            ),
            (
                "can't initialize iptables table `filter': Table does not exist",
                DataplaneErrorKind::Unsupported,
            ),
            ("line 2 failed", DataplaneErrorKind::Other),
        ] {
            let command = "iptables-restore".to_owned();
            let error = IptablesError::Failed { command, message: message.to_owned() };
            assert_eq!(error.kind(), kind, "{message}");
        }
    }
}
