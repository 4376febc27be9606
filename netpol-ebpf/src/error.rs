//! Errors.

use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;
use netpol_core::flat::{CapacityError, Unclassified};
use netpol_core::model::EndpointId;
use netpol_core::{DataplaneError, DataplaneErrorKind};

/// Why this dataplane could not be opened or could not do what it was asked.
///
/// At the [`Dataplane`](netpol_core::Dataplane) boundary it is the source of a [`DataplaneError`] of its [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EbpfError {
    /// The folder for pins is not in a BPF file system.
    #[error("`{path}` is not in a BPF file system, expected one (`mount -t bpf bpf {path}`)")]
    NoBpfFs {
        /// The folder.
        path: PathBuf,
    },
    /// The owner's name cannot be one of a folder.
    #[error("`{owner}` is no name for an owner, expected 1 to 64 letters, digits or `_`")]
    Owner {
        /// The name.
        owner: String,
    },
    /// The folder of pins could not be changed.
    #[error("could not {operation} `{path}`")]
    Pin {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The program has host endpoints, or keeps workloads from their own host.
    #[error(
        "the program judges traffic of the node's own interfaces, which this dataplane does not"
    )]
    Hosts,
    /// There are more UDP ports of tunnels that workloads may not use than records have room for.
    #[error(
        "workloads are kept from {needed} UDP ports of tunnels, expected at most {}",
        netpol_ebpf_abi::TUNNELS
    )]
    Tunnels {
        /// How many ports there are.
        needed: usize,
    },
    /// The kernel did not take the object.
    #[error("the kernel does not take the maps and programs")]
    Load {
        /// Why.
        source: Box<aya::EbpfError>,
    },
    /// The kernel did not take a program.
    #[error("could not {operation}")]
    Program {
        /// What was being done.
        operation: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The filters of an interface could not be listed.
    #[error("could not list the filters of `{interface}`")]
    Filters {
        /// The interface.
        interface: String,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has the dataplane.
    #[error("another process uses `{path}`, expected one for each owner and network namespace")]
    Busy {
        /// The folder of its pins.
        path: PathBuf,
    },
    /// A map could not be read or written.
    #[error("could not {operation} map `{map}`")]
    Map {
        /// What was being done.
        operation: &'static str,
        /// The map.
        map: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The network namespace could not be entered.
    #[error("could not enter the network namespace of the dataplane")]
    Namespace {
        /// The system's error.
        source: io::Error,
    },
    /// There is no such interface (yet).
    #[error("there is no interface `{interface}`")]
    Interface {
        /// The name.
        interface: String,
        /// The system's error.
        source: io::Error,
    },
    /// The endpoint is known by its address, and programs are attached to interfaces.
    #[error(
        "endpoints that are known by an address cannot be enforced here, expected an interface"
    )]
    Address,
    /// The interfaces could not be listed.
    #[error("could not list the interfaces")]
    Interfaces {
        /// The system's error.
        source: io::Error,
    },
    /// Two endpoints claim one interface.
    #[error(
        "endpoint {other:?} claims interface `{interface}` too, so that their packets cannot be told apart"
    )]
    Shared {
        /// The interface.
        interface: String,
        /// The other endpoint.
        other: Box<EndpointId>,
    },
    /// A policy set has no flat form.
    #[error("the policy set has no flat form")]
    Unclassified(#[source] Unclassified),
    /// The program is too large.
    #[error("the program does not fit into the maps")]
    Capacity(#[source] CapacityError),
    /// The lists of ports are too long.
    #[error("lists of ports need {needed} entries, the limit is {limit}")]
    Ports {
        /// How many entries they need.
        needed: usize,
        /// The limit.
        limit: u32,
    },
    /// There are more endpoints than records.
    #[error("{needed} endpoints are too many, the limit is {limit}")]
    Endpoints {
        /// How many there are.
        needed: usize,
        /// The limit.
        limit: u32,
    },
    /// There are more counters than there is room for, or every number was used once.
    #[error("no number is left for a counter or an object")]
    Ids,
    /// The program refers to something that it does not have.
    #[error("the program refers to {missing}, which it does not have")]
    Dangling {
        /// What is missing.
        missing: String,
    },
}

impl EbpfError {
    /// Returns the kind by which a caller decides what to do next.
    #[must_use]
    pub fn kind(&self) -> DataplaneErrorKind {
        match self {
            Self::NoBpfFs { .. } | Self::Address | Self::Hosts => DataplaneErrorKind::Unsupported,
            Self::Shared { .. } | Self::Busy { .. } => DataplaneErrorKind::Conflict,
            Self::Capacity(_)
            | Self::Ports { .. }
            | Self::Endpoints { .. }
            | Self::Tunnels { .. }
            | Self::Ids => DataplaneErrorKind::Capacity,
            Self::Unclassified(Unclassified::Capacity(_)) => DataplaneErrorKind::Capacity,
            Self::Unclassified(_) => DataplaneErrorKind::Unsupported,
            Self::Interface { .. } => DataplaneErrorKind::Transient,
            Self::Owner { .. } | Self::Dangling { .. } => DataplaneErrorKind::Other,
            Self::Pin { source, .. }
            | Self::Map { source, .. }
            | Self::Filters { source, .. }
            | Self::Interfaces { source }
            | Self::Namespace { source } => kind_of(source),
            Self::Load { source } => kind_of_cause(&**source),
            Self::Program { source, .. } => kind_of_cause(&**source),
        }
    }

    /// Returns the error for callers of the trait. `operation` is a verb phrase.
    #[must_use]
    pub fn into_dataplane(self, operation: &'static str) -> DataplaneError {
        DataplaneError::new(self.kind(), operation).with_source(self)
    }
}

/// Returns the kind of the first system error among the causes.
fn kind_of_cause(error: &(dyn std::error::Error + 'static)) -> DataplaneErrorKind {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref().map(kind_of)).unwrap_or(DataplaneErrorKind::Other)
}

/// Returns the kind of a system error as `bpf(2)` uses it.
fn kind_of(error: &io::Error) -> DataplaneErrorKind {
    match error.raw_os_error().unwrap_or_default() {
        libc::EPERM | libc::EACCES => DataplaneErrorKind::Permission,
        libc::E2BIG | libc::ENOSPC | libc::ENFILE | libc::EMFILE => DataplaneErrorKind::Capacity,
        libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::EBUSY | libc::ENODEV => {
            DataplaneErrorKind::Transient
        }
        libc::EEXIST => DataplaneErrorKind::Conflict,
        libc::ENOSYS | libc::EOPNOTSUPP => DataplaneErrorKind::Unsupported,
        _ => DataplaneErrorKind::Other,
    }
}
