//! The contract of [`Dataplane`](netpol_core::Dataplane), as checks that anybody can run on their own.
//!
//! Each [`Promise`] is tried on a small topology of its own: one node, three pods, real connections. Whatever must not
//! pass has passed before, in the same check.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use netpol_conformance::contract::Promise;
//! use netpol_conformance::subject::Open;
//! # use netpol_core::MemoryDataplane as YourDataplane;
//!
//! let open: Arc<Open> = Arc::new(|| Ok(Box::new(YourDataplane::default())));
//! for promise in Promise::ALL {
//!     if let Err(broken) = promise.check(&open) {
//!         println!("{promise}: {broken}");
//!     }
//! }
//! ```

mod changing;
mod flows;
mod lab;
mod lasting;
mod stream;
mod unknown;

use std::fmt;
use std::io;
use std::sync::Arc;

use netpol_core::DataplaneError;

use self::lab::Lab;
use crate::runner::chain;
use crate::subject::{Open, OpenError};
use crate::topology::TopologyError;

/// Something that every dataplane promises.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Promise {
    /// Applying what is in force changes nothing.
    Idempotence,
    /// Closing endpoints leaves those alone that are known.
    Isolation,
    /// Enforcement goes on without a process, and a new one adopts it.
    Adoption,
    /// No packet meets neither the old policy nor the new one.
    NoGap,
    /// Updates for changes of the inputs lead where a whole program does, be they deltas or not.
    Updates,
    /// What cannot be programmed is closed and named, and the others proceed.
    OthersProceed,
    /// Removal leaves nothing, and can be repeated.
    Removal,
    /// Established flows go on with [`Keep`](netpol_core::program::Established::Keep).
    Keep,
    /// Denied established flows stop with [`Reevaluate`](netpol_core::program::Established::Reevaluate).
    Reevaluate,
    /// Flows end when an endpoint is isolated, and when its address belongs to another one.
    EndOfFlows,
    /// Counters only grow.
    Counters,
    /// Differences are seen and repaired.
    Drift,
    /// Interfaces that look like those of workloads and belong to none are treated as the program says.
    UnknownInterfaces,
}

impl Promise {
    /// All promises.
    pub const ALL: [Self; 13] = [
        Self::Idempotence,
        Self::Isolation,
        Self::Adoption,
        Self::NoGap,
        Self::Updates,
        Self::OthersProceed,
        Self::Removal,
        Self::Keep,
        Self::Reevaluate,
        Self::EndOfFlows,
        Self::Counters,
        Self::Drift,
        Self::UnknownInterfaces,
    ];

    /// Tries whether a dataplane keeps this promise. Needs root, of the machine or of a user namespace.
    ///
    /// `open` is called in the network namespace of a node, several times in one check, but never while a dataplane that it
    /// made before is open.
    ///
    /// # Errors
    ///
    /// [`Broken::Promise`] if it does not; another one if that could not be found out.
    pub fn check(self, open: &Arc<Open>) -> Result<(), Broken> {
        let mut lab = Lab::build(Arc::clone(open))?;
        match self {
            Self::Idempotence => changing::idempotence(&mut lab),
            Self::Isolation => changing::isolation(&mut lab),
            Self::Adoption => lasting::adoption(&mut lab),
            Self::NoGap => lasting::no_gap(&mut lab),
            Self::Updates => changing::updates(&mut lab),
            Self::OthersProceed => changing::others_proceed(&mut lab),
            Self::Removal => lasting::removal(&mut lab),
            Self::Keep => flows::keep(&mut lab),
            Self::Reevaluate => flows::reevaluate(&mut lab),
            Self::EndOfFlows => flows::end_of_flows(&mut lab),
            Self::Counters => changing::counters(&mut lab),
            Self::Drift => lasting::drift(&mut lab),
            Self::UnknownInterfaces => unknown::unknown_interfaces(&mut lab),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idempotence => "applying what is in force changes nothing",
            Self::Isolation => "closing endpoints leaves those alone that are known",
            Self::Adoption => "enforcement goes on without a process, and a new one adopts it",
            Self::NoGap => "a packet meets the old policy or the new one",
            Self::Updates => "updates lead where a whole program does",
            Self::OthersProceed => "what cannot be programmed is named, and the others proceed",
            Self::Removal => "removal leaves nothing, and can be repeated",
            Self::Keep => "established flows go on, if they are to be kept",
            Self::Reevaluate => "denied established flows stop, if they are to be reevaluated",
            Self::EndOfFlows => "flows end with isolation and with the owner of the address",
            Self::Counters => "counters only grow",
            Self::Drift => "differences are seen and repaired",
            Self::UnknownInterfaces => "unknown interfaces are treated as the program says",
        })
    }
}

/// Why a check did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The dataplane did something else than promised.
    #[error("{what}")]
    Promise {
        /// What it did.
        what: String,
    },
    /// The dataplane failed at something that it must be able to do.
    #[error("{}", chain(source))]
    Dataplane {
        /// Its error.
        #[from]
        source: DataplaneError,
    },
    /// The dataplane could not be opened.
    #[error("the dataplane could not be opened: {0}")]
    Open(OpenError),
    /// The hosts could not be made.
    #[error("{}", chain(source))]
    Topology {
        /// Why.
        #[from]
        source: TopologyError,
    },
    /// A probe could not be made, or failed where nothing stands in its way.
    #[error("the check says nothing: {what}")]
    Inconclusive {
        /// What failed.
        what: String,
    },
    /// A thread or a socket could not be made.
    #[error("cannot make a thread or a socket")]
    System {
        /// The system's error.
        #[from]
        source: io::Error,
    },
}

/// Returns an error if a promise is not kept.
fn promised(kept: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if kept { Ok(()) } else { Err(Broken::Promise { what: otherwise() }) }
}
