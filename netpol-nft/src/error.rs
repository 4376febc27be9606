//! Errors.

use std::io;

use netpol_core::model::EndpointId;
use netpol_core::{DataplaneError, DataplaneErrorKind};
use netpol_netfilter::LogPrefix;
use nftnl_sys::libc;

/// Why this dataplane could not be opened or could not do what it was asked.
///
/// At the [`Dataplane`](netpol_core::Dataplane) boundary it is the source of a [`DataplaneError`] of its [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The process may not change nf_tables.
    #[error("nf_tables may not be changed here, expected CAP_NET_ADMIN in the network namespace")]
    Permission {
        /// The system's error.
        source: io::Error,
    },
    /// The kernel has no nf_tables.
    #[error(
        "the kernel has no nf_tables, expected a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
    )]
    NoNfTables {
        /// The system's error.
        source: io::Error,
    },
    /// The kernel is older than what we support.
    #[error("kernel `{release}` is too old, expected 5.10 or later")]
    KernelTooOld {
        /// The kernel's release.
        release: String,
    },
    /// Pods behind a bridge cannot be enforced.
    #[error(
        "packets between bridged pods do not pass netfilter, expected `{setting}` to be 1 (module br_netfilter)"
    )]
    BridgedPods {
        /// The setting that is absent or 0.
        setting: &'static str,
    },
    /// A table with our name is not ours.
    #[error(
        "the table `inet {owner}` was made by somebody else; remove it or choose another owner"
    )]
    ForeignTable {
        /// The name.
        owner: String,
    },
    /// A set with one of our names is not as we make them.
    #[error(
        "set `{set}` has a definition that is not ours; remove the table `inet {owner}` to have it made anew"
    )]
    ForeignSet {
        /// The table.
        owner: String,
        /// The set.
        set: String,
    },
    /// The kernel refused an operation. Nothing of its batch is in force.
    #[error("the kernel refused to {operation}: {reason}")]
    Refused {
        /// The operation and its object.
        operation: String,
        /// The kernel's own words, or else the error's.
        reason: String,
        /// The system's error.
        source: io::Error,
    },
    /// What must change in one step does not fit into one message.
    #[error(
        "a step of {operations} operations is larger than the socket's send buffer of {limit} bytes"
    )]
    TooLarge {
        /// How many operations the step has.
        operations: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The table did not hold still while it was read.
    #[error("the table kept changing while it was read")]
    Unsettled,
    /// Tracked flows could not be forgotten.
    #[error(
        "tracked flows of an address could not be forgotten, expected a kernel with CONFIG_NF_CT_NETLINK"
    )]
    Conntrack {
        /// The system's error.
        source: io::Error,
    },
    /// The socket failed.
    #[error("could not {operation}")]
    Socket {
        /// What was being done.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// An endpoint's interface has no name that a rule can have so that `nft` lists it.
    #[error(
        "interface `{interface}` is no name that rules can have, expected 1 to 15 printable ASCII characters without quotes, `\\`, `*` and `/`"
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
    /// A policy set has more stages than the kernel follows.
    #[error("the policy set has {stages} stages, expected at most {max}")]
    TooManyStages {
        /// How many stages it has.
        stages: usize,
        /// The most that nf_tables follows.
        max: usize,
    },
    /// There are more endpoints than the maps hold.
    #[error("{entries} entries are too many for `{map}`, expected at most {max}")]
    TooManyEndpoints {
        /// The map.
        map: String,
        /// How many entries it would have.
        entries: usize,
        /// The most that it holds.
        max: usize,
    },
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
    /// The program refers to something that it does not have.
    #[error("the program refers to {missing}, which it does not have")]
    Dangling {
        /// What is missing.
        missing: String,
    },
}

impl NftError {
    /// Returns the kind by which a caller decides what to do next.
    #[must_use]
    pub fn kind(&self) -> DataplaneErrorKind {
        match self {
            Self::Permission { .. } => DataplaneErrorKind::Permission,
            Self::NoNfTables { .. }
            | Self::KernelTooOld { .. }
            | Self::BridgedPods { .. }
            | Self::LogPrefix { .. } => DataplaneErrorKind::Unsupported,
            Self::ForeignTable { .. } | Self::ForeignSet { .. } | Self::Shared { .. } => {
                DataplaneErrorKind::Conflict
            }
            Self::TooLarge { .. } | Self::TooManyStages { .. } | Self::TooManyEndpoints { .. } => {
                DataplaneErrorKind::Capacity
            }
            Self::Unsettled => DataplaneErrorKind::Transient,
            Self::Interface { .. } | Self::Dangling { .. } => DataplaneErrorKind::Other,
            Self::Conntrack { source } if source.raw_os_error() == Some(libc::EINVAL) => {
                DataplaneErrorKind::Unsupported
            }
            Self::Conntrack { source }
            | Self::Refused { source, .. }
            | Self::Socket { source, .. } => kind_of(source),
        }
    }

    /// Returns the error for callers of the trait. `operation` is a verb phrase.
    #[must_use]
    pub fn into_dataplane(self, operation: &'static str) -> DataplaneError {
        DataplaneError::new(self.kind(), operation).with_source(self)
    }
}

/// Returns the kind of a system error as nf_tables uses it.
fn kind_of(error: &io::Error) -> DataplaneErrorKind {
    match error.raw_os_error().unwrap_or_default() {
        libc::EPERM | libc::EACCES => DataplaneErrorKind::Permission,
        libc::ENFILE
        | libc::ENOSPC
        | libc::E2BIG
        | libc::EMLINK
        | libc::EMFILE
        | libc::EMSGSIZE => DataplaneErrorKind::Capacity,
        libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM | libc::ERESTART => {
            DataplaneErrorKind::Transient
        }
        libc::EBUSY | libc::EEXIST | libc::ENOENT | libc::ENOTEMPTY => DataplaneErrorKind::Conflict,
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => {
            DataplaneErrorKind::Unsupported
        }
        _ => DataplaneErrorKind::Other,
    }
}
