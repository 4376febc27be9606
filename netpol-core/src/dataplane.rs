//! The interface between the engine and whatever enforces its programs.

mod delta;
mod error;
mod memory;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use self::delta::{Delta, DeltaMismatch, Edit, EndpointChange, MembersChange};
pub use self::error::{DataplaneError, DataplaneErrorKind};
pub use self::memory::{Fault, MemoryDataplane};
use crate::model::EndpointId;
use crate::program::{Endpoint, Program, RuleId};

/// Something that enforces programs.
///
/// The contract. `Promise::check` of `netpol_conformance::contract` tries each promise on any implementation, with real
/// packets:
///
/// 1. **No gap.** While one program gives way to another, or one process to the next, a packet meets a policy that was to
///    be in force: what both deny never passes, what both allow is never lost.
/// 2. **Others proceed.** An endpoint whose interface is missing, or that cannot be programmed for another reason, keeps no
///    other endpoint from being enforced. Only such endpoints are in [`Applied::isolated`].
/// 3. **Isolation.** [`Change::Isolate`] closes the endpoints that are not known by their interface and addresses, with
///    their established flows, and leaves those that are alone. [`Change::Full`] opens them.
/// 4. **Updates**, [deltas](Change::Delta) too, lead where a whole program does. To apply the program in force again stops
///    no flow, sets back no counter and leaves no difference.
/// 5. **Adoption.** Enforcement goes on while no process runs. A new one, without memory, finds what is in force: it sees no
///    difference, stops no flow, and knows the endpoints.
/// 6. **Drift.** [`audit`](Self::audit) sees no difference after an update, and some when another program is in force or when
///    nothing is. [`Change::Full`] repairs it.
/// 7. **Removal.** [`remove`](Self::remove) leaves nothing that judges a packet, whoever put it there under the same name.
///    It can be repeated, and updates can follow.
/// 8. **Established flows** that a new program denies go on with [`Established::Keep`]. With
///    [`Established::Reevaluate`] they stop, and neither end hears the other (TCP and UDP, both families); those that it
///    allows go on, and so do those that the node itself opened. What is allowed again can be opened again.
/// 9. **The end of flows.** An endpoint that is isolated loses its established flows, in both directions. The flows of one
///    that is gone do not reach the next owner of its address where policy denies them.
/// 10. **Counters.** They count what is denied and what is allowed, and only grow while their rule stays.
/// 11. **Unknown interfaces** are [treated](crate::model::Treatment) as the program says. An endpoint is known no sooner
///     than its policy is in force, and no longer than that; the flows of one that is gone end where its interface is closed.
///
/// What nobody can see from outside, each implementation tests itself: that after an `Err` the old state is in force,
/// that what is in [`Applied::isolated`] is closed, that nothing foreign is touched, and that an error has the right
/// [kind](DataplaneErrorKind), which is all that callers look at.
///
/// Calls may block for as long as the kernel takes, and may be retried. A dataplane belongs to the network namespace of
/// the thread that opened it; afterwards it can be used from any thread.
///
/// [`Established::Keep`]: crate::program::Established::Keep
/// [`Established::Reevaluate`]: crate::program::Established::Reevaluate
pub trait Dataplane: Send {
    /// Returns what this dataplane can express, which the compiler must know.
    fn capabilities(&self) -> &Capabilities;

    /// Puts an update in force.
    ///
    /// # Errors
    ///
    /// [`DataplaneError`] if nothing was switched, or if all was and flows that must end go on, or unknown interfaces that
    /// must be closed are open. The caller keeps the work; the next update should be a full one.
    fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError>;

    /// Compares what is in force with a program. [`Change::Full`] repairs what differs.
    ///
    /// # Errors
    ///
    /// [`DataplaneError`] if the state could not be read.
    fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError>;

    /// Returns how many packets were judged, by rule and by end of stage. They only grow while their rule stays.
    ///
    /// # Errors
    ///
    /// [`DataplaneError`] if the state could not be read.
    fn counters(&mut self) -> Result<Counters, DataplaneError>;

    /// Removes all that is ours and nothing else. Removing nothing is no error.
    ///
    /// # Errors
    ///
    /// [`DataplaneError`] if something of ours may be left.
    fn remove(&mut self) -> Result<(), DataplaneError>;
}

/// What a dataplane can express.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It can record the flows that Log rules match.
    pub log: bool,
    /// An enforcer behind it judges HTTP requests, so that it may admit the connections that carry them.
    pub http: bool,
    /// Which source address ingress is judged on.
    pub source_view: SourceView,
    /// Which destination address egress is judged on.
    pub destination_view: DestinationView,
    /// It applies [`Change::Delta`]. Without it every update of an engine is a full one.
    pub deltas: bool,
    /// It enforces [host endpoints](crate::program::Hosts), and keeps workloads from their own host where settings
    /// [say so](crate::model::WorkloadToHost::Deny). Without it an engine refuses host endpoints of its node and such settings.
    pub host_endpoints: bool,
    /// It answers what it denies, if a program [wants that](crate::program::Denial). Without it an engine wants silence.
    pub reject: bool,
}

impl Capabilities {
    /// Returns the capabilities that every dataplane has; one that has more adds them.
    #[must_use]
    pub const fn minimal() -> Self {
        Self {
            log: false,
            http: false,
            source_view: SourceView::BeforeSourceNat,
            destination_view: DestinationView::AfterDestinationNat,
            deltas: false,
            host_endpoints: false,
            reject: false,
        }
    }

    /// Returns the capabilities of a dataplane that can do everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            log: true,
            http: true,
            source_view: SourceView::BeforeSourceNat,
            destination_view: DestinationView::AfterDestinationNat,
            deltas: true,
            host_endpoints: true,
            reject: true,
        }
    }
}

/// Which source address of a packet ingress is judged on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a hook is before the node's own source NAT or after it"
)]
pub enum SourceView {
    /// The one before this node's source NAT.
    BeforeSourceNat,
    /// The one after it.
    AfterSourceNat,
}

/// Which destination address of a packet egress is judged on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a hook is before the node's own destination NAT or after it"
)]
pub enum DestinationView {
    /// The one after this node's destination NAT.
    AfterDestinationNat,
    /// The one before it. Programs hold [frontends](crate::program::Frontends) then, and an update that could change what
    /// policy says of one is a full one.
    BeforeDestinationNat,
}

/// A change for a dataplane to put in force. Cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Update {
    /// Counts the updates of an engine, from 1.
    pub generation: u64,
    /// What to do.
    pub change: Change,
}

impl Update {
    /// Returns an update.
    #[must_use]
    pub const fn new(generation: u64, change: Change) -> Self {
        Self { generation, change }
    }
}

/// What an update asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// Close these endpoints, unless they are already known from before, by the same interface and addresses: then
    /// leave them as they are. Change nothing else. This is what an engine asks for before it knows all inputs; it asks
    /// again for an endpoint whose interface or addresses change.
    Isolate(Arc<[Endpoint]>),
    /// Enforce this program, whatever was enforced before.
    Full(Arc<Program>),
    /// Enforce this delta's program, given that the program of the last update is in force and nothing failed since.
    Delta(Arc<Delta>),
}

/// What applying an update did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Applied {
    /// The generation of the update.
    pub generation: u64,
    /// Endpoints that were closed because theirs could not be programmed.
    pub isolated: Vec<(EndpointId, DataplaneError)>,
    /// How many established flows were stopped, as far as the dataplane knows now: one that judges flows when their packets
    /// come does not.
    pub revoked: u64,
}

impl Applied {
    /// Returns the outcome of an update that was applied completely.
    #[must_use]
    pub const fn completely(generation: u64) -> Self {
        Self { generation, isolated: Vec::new(), revoked: 0 }
    }
}

/// How what is in force differs from a program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Drift {
    /// One line for each object of ours that is missing, changed or too many.
    pub differences: Vec<String>,
}

impl Drift {
    /// Returns whether nothing differs.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.differences.is_empty()
    }
}

/// How many packets were judged.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// By rule.
    pub rules: BTreeMap<RuleId, u64>,
    /// Denied at the end of a stage or by a default verdict, because no rule matched.
    pub unmatched: u64,
}
