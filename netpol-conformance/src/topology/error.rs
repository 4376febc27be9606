//! What can go wrong while a topology is built or changed.

use std::io;
use std::net::IpAddr;

use super::netlink::Refused;
use super::{Host, Listener};

/// Why a topology could not be built or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The process may not do what network namespaces need.
    #[error(
        "no permission to {operation}; run as root, or in a user namespace: \
         `unshare -Urnm sh -c 'mount -t tmpfs tmpfs /run && exec …'`"
    )]
    Permission {
        /// What was refused.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The machine could not do what every namespace needs.
    #[error("cannot {operation}")]
    System {
        /// What failed.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread could not be started, or could not enter its namespace.
    #[error("cannot start a thread in a network namespace")]
    Thread {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A namespace could not be set up.
    #[error("namespace `{name}`: cannot {operation}")]
    Namespace {
        /// The namespace.
        name: String,
        /// What failed.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a link, address, neighbour or route.
    #[error("cannot {operation} in namespace `{namespace}`")]
    Link {
        /// The namespace.
        namespace: String,
        /// What failed.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Bridged packets do not pass netfilter on this machine.
    #[error("the kernel shows no bridged packets to netfilter, expected the module br_netfilter")]
    NoBridgeNetfilter,
    /// A tool that translates addresses failed.
    #[error("cannot run `{tool}`")]
    Tool {
        /// The tool.
        tool: String,
        /// The system's answer, or what the tool said.
        source: io::Error,
    },
    /// The link of a host did not come up.
    #[error("the link of `{0}` does not come up")]
    LinkDown(Host),
    /// A server could not be started.
    #[error("`{host}` cannot listen on {listener}")]
    Listen {
        /// The host.
        host: Host,
        /// What it should listen on.
        listener: Listener,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such host.
    #[error("there is no host `{0}`")]
    UnknownHost(Host),
    /// The host exists already.
    #[error("there is a host `{0}` already")]
    DuplicateHost(Host),
    /// A host would have no address.
    #[error("`{0}` has no address")]
    NoAddress(Host),
    /// Two hosts claim one address.
    #[error("address `{address}` of `{claimant}` belongs to `{owner}` already")]
    DuplicateAddress {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: Host,
        /// Who wants it.
        claimant: Host,
    },
}

impl TopologyError {
    /// Returns the error for `source`, which is a matter of permission or of the machine.
    pub(super) fn permission(operation: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { operation, source }
            }
            _ => Self::System { operation, source },
        }
    }

    pub(super) fn link(namespace: &str, refused: Refused) -> Self {
        let Refused { operation, source } = refused;
        Self::Link { namespace: namespace.to_owned(), operation, source }
    }
}
