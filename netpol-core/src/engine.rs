//! The engine: a state machine between the inputs and a dataplane.
//!
//! This file decides when updates are made and of which kind. What they are made of:
//!
//! | module | what it is |
//! |---|---|
//! | `state` | takes inputs at once and notes where they matter |
//! | `settle`, `hosts` | makes the program follow what was noted, for many changes together |
//! | `views`, `labels` | what selectors see, stored once for all that look the same |
//! | `selectors` | which of many selectors select a view |
//! | `endpoints`, `world` | who has which address: pods and hosts; network sets, nodes and domain names |
//! | `policies`, `lists` | policies and their order; which apply to endpoints of the node |
//! | `lower`, `tenancy`, `blocks` | rules as programs hold them, and policy sets made of them |
//! | `sets` | which address sets exist, and who is in them |
//! | `status` | what the dataplane has said |
//! | `store`, `packed` | slots, tables and relations; policies without empty room |
//!
//! Three rules keep it right. Nothing is derived that could be asked for when it is needed: members follow from who holds an
//! address now and from which selectors select it, not from counts of changes. What was true when the program was settled
//! last can still be asked ([`Time::Settled`](views::Time)), so what leaves is found as what comes. And one way leads to a
//! program: a first one is made of changes like any other, so tests can compare each with that of a fresh engine.

#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod blocks;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod endpoints;
mod hosts;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod labels;
mod lists;
mod locals;
mod lower;
mod packed;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod policies;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod selectors;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod sets;
mod settle;
mod state;
mod status;
mod store;
mod tenancy;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod views;
#[expect(clippy::indexing_slicing, reason = "records, whose ids are counted")]
mod world;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{fmt, mem};

use self::settle::Settled;
use self::state::State;
use self::status::Status;
pub use self::status::{Gate, PolicyStatus, WeakRule};
use crate::dataplane::{Applied, Capabilities, Change, DataplaneError, Update};
use crate::flow::Direction;
use crate::model::{
    Attachment, EndpointId, EndpointKind, FailsafePort, HostSettings, Inputs, Object, ObjectKey,
    PolicyKey, Tier, Timestamp, UnknownInterfaces, WorkloadToHost,
};
use crate::program::{Denial, Endpoint, Established};

/// What an engine must know of its node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The node's name. Endpoints with this [`node`](crate::model::Endpoint::node) are enforced here.
    pub node: String,
    /// What happens to established flows that a new program denies.
    pub established: Established,
    /// Which interfaces look like those of workloads, and what becomes of packets there while no workload has them: from the
    /// first program on, and while no process runs. Before that, an engine closes the endpoints that it is told of.
    pub unknown: UnknownInterfaces,
    /// What the senders of denied packets hear, where the dataplane [can answer](Capabilities::reject). Verdicts do not
    /// depend on it.
    pub denial: Denial,
}

impl NodeConfig {
    /// Returns the configuration of a node that keeps established flows, leaves unknown interfaces alone, and drops silently
    /// what it denies.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            established: Established::Keep,
            unknown: UnknownInterfaces::default(),
            denial: Denial::Drop,
        }
    }
}

/// Why an engine refused an object, or settings. Nothing changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The tier always exists and cannot be changed.
    #[error("tier `{name}` is built in and cannot be changed")]
    BuiltInTier {
        /// The tier's name.
        name: String,
    },
    /// The endpoint's interface has a name that no interface can have.
    #[error(
        "`{name}` cannot name an interface, expected 1 to 15 bytes without `/`, `:` and white space"
    )]
    InterfaceName {
        /// The name as given.
        name: String,
    },
    /// The host endpoint is one of this node, whose dataplane cannot enforce any. Those of other nodes are peers.
    #[error("`{id}` is of this node, whose dataplane does not enforce host endpoints")]
    HostEndpoint {
        /// The endpoint.
        id: EndpointId,
    },
    /// The settings keep workloads from their own host, and the dataplane cannot.
    #[error("the dataplane cannot keep workloads from their own host")]
    OwnHost,
    /// The settings leave ports to policy that no policy could close until now.
    #[error("the settings no longer keep open failsafe ports ({direction}): {}", listed(.ports))]
    Failsafe {
        /// Seen from the host.
        direction: Direction,
        /// The ports.
        ports: Vec<FailsafePort>,
    },
}

fn listed(ports: &[FailsafePort]) -> impl fmt::Display + '_ {
    fmt::from_fn(|f| {
        let mut ports = ports.iter();
        ports.next().map_or(Ok(()), |it| write!(f, "{it}"))?;
        ports.try_for_each(|it| write!(f, ", {it}"))
    })
}

/// Decides what a dataplane must enforce, and when.
///
/// The caller feeds inputs in any order, then drains [`poll_update`](Self::poll_update): it hands each update to the
/// dataplane and the outcome back to [`handle_applied`](Self::handle_applied). There is no clock, thread or kernel
/// inside. What the engine yields depends only on the inputs it holds, not on their order or history.
///
/// Until [`inputs_complete`](Self::inputs_complete), endpoints of the node are closed as they become known, unless the
/// dataplane knows them from before; nothing else changes. So a restart opens nothing and forgets nothing.
///
/// ```
/// use netpol_core::model::{Endpoint, EndpointId};
/// use netpol_core::{Dataplane, Engine, MemoryDataplane, NodeConfig};
///
/// let mut dataplane = MemoryDataplane::default();
/// let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
/// let pod = Endpoint::new(EndpointId::workload("default", "web")).on_node("node-a").attached_to("veth0");
/// engine.upsert(pod)?;
/// engine.inputs_complete();
/// while let Some(update) = engine.poll_update() {
///     let outcome = dataplane.apply(update);
///     engine.handle_applied(outcome);
///     if engine.last_error().is_some() {
///         break; // and try again after a while
///     }
/// }
/// assert_eq!(dataplane.program().endpoints.len(), 1);
/// # Ok::<(), netpol_core::EngineError>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    capabilities: Capabilities,
    state: State,
    phase: Phase,
    /// There is something to do whether or not inputs changed.
    due: bool,
    /// What was applied before no longer counts.
    repair: bool,
    generation: u64,
    /// The update that was handed out and not answered yet.
    in_flight: Option<Asked>,
    /// The program was put in force, completely, as it was settled last.
    in_force: bool,
    status: Status,
    /// How many updates of the program failed in a row.
    failures: u32,
    /// Endpoints were closed, or could not be, since an update of the program failed last.
    closed: bool,
    isolated: Vec<(EndpointId, DataplaneError)>,
    last_error: Option<DataplaneError>,
}

/// Which side of the barrier an engine is on.
#[derive(Debug)]
enum Phase {
    /// Inputs may be missing. These endpoints have been closed, by these interfaces and addresses.
    Gathering { closed: BTreeMap<EndpointId, Endpoint> },
    /// The inputs are all there.
    Complete,
}

/// What an update asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Isolation,
    Program,
}

impl Engine {
    /// Returns an engine without inputs, for a dataplane with these capabilities.
    #[must_use]
    pub fn new(config: NodeConfig, capabilities: &Capabilities) -> Self {
        Self {
            capabilities: capabilities.clone(),
            state: State::new(&config, capabilities),
            phase: Phase::Gathering { closed: BTreeMap::new() },
            due: false,
            repair: false,
            generation: 0,
            in_flight: None,
            in_force: false,
            status: Status::default(),
            failures: 0,
            closed: false,
            isolated: Vec::new(),
            last_error: None,
        }
    }

    /// Takes a new object, or a new version of one.
    ///
    /// # Errors
    ///
    /// [`EngineError`] if the object cannot be. Then nothing changes.
    pub fn upsert(&mut self, object: impl Into<Object>) -> Result<(), EngineError> {
        let object = object.into();
        check(&object)?;
        self.check_host(&object)?;
        self.state.upsert(object);
        Ok(())
    }

    /// A host endpoint that nothing enforces would leave its interfaces open.
    fn check_host(&self, object: &Object) -> Result<(), EngineError> {
        match object {
            Object::Endpoint(it)
                if it.id.kind == EndpointKind::Host
                    && !self.capabilities.host_endpoints
                    && it.node.as_deref() == Some(self.state.node_name()) =>
            {
                Err(EngineError::HostEndpoint { id: it.id.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Forgets an object; a namespace takes along all that is in it but its endpoints. Returns whether it was there.
    pub fn remove(&mut self, key: &ObjectKey) -> bool {
        self.state.remove(key)
    }

    /// Takes other settings of the node than the [usual ones](HostSettings::default).
    ///
    /// No policy and no host endpoint can cut failsafe ports, as these are asked for first. Only settings can, so those that
    /// leave out a port, or keep it open for fewer others than the settings so far, are refused; see
    /// [`force_settings`](Self::force_settings).
    ///
    /// # Errors
    ///
    /// [`EngineError::Failsafe`], or [`EngineError::OwnHost`] if the dataplane cannot do what they say. Then nothing changes.
    pub fn set_settings(&mut self, settings: HostSettings) -> Result<(), EngineError> {
        let now = self.state.settings();
        for (direction, now, next) in [
            (Direction::Ingress, &now.failsafe_inbound, &settings.failsafe_inbound),
            (Direction::Egress, &now.failsafe_outbound, &settings.failsafe_outbound),
        ] {
            let stays = |port: &&FailsafePort| next.iter().any(|it| it.covers(port));
            let ports: Vec<_> = now.iter().filter(|port| !stays(port)).copied().collect();
            if !ports.is_empty() {
                return Err(EngineError::Failsafe { direction, ports });
            }
        }
        self.force_settings(settings)
    }

    /// As [`set_settings`](Self::set_settings), failsafe ports that they leave out or not: policy may cut off the node then.
    ///
    /// # Errors
    ///
    /// [`EngineError::OwnHost`] if the dataplane cannot do what they say. Then nothing changes.
    pub fn force_settings(&mut self, settings: HostSettings) -> Result<(), EngineError> {
        let denies = settings.workload_to_host == WorkloadToHost::Deny;
        if denies && !self.capabilities.host_endpoints {
            return Err(EngineError::OwnHost);
        }
        self.state.set_settings(settings);
        Ok(())
    }

    /// Says what time it is, as there is no clock here: addresses of domain names that expire now or before are forgotten.
    /// Returns whether there were any.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        self.state.expire(now)
    }

    /// Returns when the caller has to say again [what time it is](Self::expire), `None` if no domain name has an address.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.state.next_expiry()
    }

    /// Says that every input that exists has been given: from now on the engine enforces, and sweeps what is left from
    /// before.
    pub fn inputs_complete(&mut self) {
        if matches!(self.phase, Phase::Gathering { .. }) {
            self.phase = Phase::Complete;
            self.state.mark_all();
            self.due = true;
        }
    }

    /// Returns the next update for the dataplane; `None` if there is nothing to do, or if the last one is not answered.
    ///
    /// The program follows the inputs here, for all changes since the last time together; changes that undo each other
    /// cost nothing at the dataplane. What it costs is what changed: members of sets for a pod, policy sets for a
    /// policy. The first program is a full one, and so is the one after an error; between them come deltas, if the
    /// dataplane takes them.
    ///
    /// After an error the work comes back at once, as the engine has no clock: a caller that drains it stops at an error
    /// and comes back later. When full updates keep failing, every other update only closes the endpoints that the
    /// dataplane does not know yet, so that what is new does not stay open.
    #[must_use = "an update that is not applied must be answered with an error"]
    pub fn poll_update(&mut self) -> Option<Update> {
        if self.in_flight.is_some() {
            return None;
        }
        if mem::take(&mut self.repair) {
            self.in_force = false;
            if let Phase::Gathering { closed } = &mut self.phase {
                closed.clear();
            }
        }
        let due = mem::take(&mut self.due);
        let change = match &mut self.phase {
            Phase::Gathering { closed } => {
                let changed = self.state.take_local_changes();
                if !changed && !due {
                    return None;
                }
                newcomers(&self.state, closed).map(Change::Isolate)
            }
            Phase::Complete if !due && !self.state.has_changed() => None,
            Phase::Complete if self.failures > 1 && !self.closed => {
                Some(Change::Isolate(self.state.isolated_endpoints().into()))
            }
            Phase::Complete => self.settle(),
        }?;
        self.in_flight = Some(match &change {
            Change::Isolate(_) => Asked::Isolation,
            Change::Full(_) | Change::Delta(_) => Asked::Program,
        });
        self.generation += 1;
        self.status.asked(&change, &self.state);
        Some(Update::new(self.generation, change))
    }

    /// Makes the program follow the inputs. Returns what the dataplane must do about it.
    fn settle(&mut self) -> Option<Change> {
        let Settled { delta, is_whole } = self.state.settle();
        self.status.settled(&delta, &self.state);
        match (self.in_force, self.capabilities.deltas && !is_whole) {
            (true, _) if delta.is_empty() && !is_whole => {
                self.status.unchanged(&self.state);
                None
            }
            (true, true) => Some(Change::Delta(Arc::new(delta))),
            (true, false) | (false, _) => Some(Change::Full(Arc::clone(self.state.program()))),
        }
    }

    /// Takes the outcome of the last update. After an error the work is kept, and the next update is a full one, or one that
    /// closes what is new before that.
    pub fn handle_applied(&mut self, outcome: Result<Applied, DataplaneError>) {
        let Some(asked) = self.in_flight.take() else { return };
        match (outcome, asked) {
            (Ok(applied), Asked::Program) => {
                // Endpoints that could not be programmed are tried again with the next change.
                self.in_force = applied.isolated.is_empty();
                self.isolated = applied.isolated;
                self.status.enforced(self.generation, &self.isolated);
                self.failures = 0;
                self.last_error = None;
            }
            (Ok(_), Asked::Isolation) => {
                self.status.isolated();
                self.due |= self.failures > 0;
                self.closed = true;
                self.last_error = None;
            }
            (Err(error), _) => {
                self.resync();
                self.closed = asked == Asked::Isolation;
                self.failures = self.failures.saturating_add(u32::from(!self.closed));
                self.last_error = Some(error);
            }
        }
    }

    /// Makes the next update a full one, whatever is in force and also if an update is under way: what repairs drift.
    /// Before [`inputs_complete`](Self::inputs_complete) it closes the endpoints again.
    pub fn resync(&mut self) {
        self.repair = true;
        self.due = true;
    }

    /// Returns what the dataplane is known to do with the packets of an endpoint. A caller that has just attached one, such as
    /// a CNI plugin, lets it start when this says [so](Gate::may_start).
    #[must_use]
    pub fn gate(&self, id: &EndpointId) -> Gate {
        self.status.gate(id, &self.state)
    }

    /// Returns what became of a policy, `None` if there is none with this key.
    #[must_use]
    pub fn policy_status(&self, key: &PolicyKey) -> Option<PolicyStatus> {
        self.status.of_policy(key, &self.state, &self.capabilities)
    }

    /// Returns the inputs: feeding them to another engine makes it yield the same program. They can be written with serde,
    /// for a report of what went wrong.
    ///
    /// It costs as much as there is, as the engine does not keep them in this form.
    #[must_use]
    pub fn snapshot(&self) -> Inputs {
        self.state.snapshot()
    }

    /// Returns the capabilities that programs are compiled for.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Returns what the senders of denied packets hear: what the node's configuration wants, or nothing, if the dataplane
    /// cannot answer.
    #[must_use]
    pub fn denial(&self) -> Denial {
        self.state.program().denial
    }

    /// Returns the endpoints that are closed because they could not be programmed, and why.
    #[must_use]
    pub fn isolated(&self) -> &[(EndpointId, DataplaneError)] {
        &self.isolated
    }

    /// Returns the error of the last update, `None` if it was applied.
    #[must_use]
    pub const fn last_error(&self) -> Option<&DataplaneError> {
        self.last_error.as_ref()
    }
}

fn check(object: &Object) -> Result<(), EngineError> {
    match object {
        Object::Tier(tier) if Tier::is_built_in(&tier.name) => {
            Err(EngineError::BuiltInTier { name: tier.name.clone() })
        }
        Object::Endpoint(endpoint) => match &endpoint.attachment {
            Attachment::Interface(name) if !is_interface_name(name) => {
                Err(EngineError::InterfaceName { name: name.clone() })
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Source: `dev_valid_name` in `net/core/dev.c`, `IFNAMSIZ` in `include/uapi/linux/if.h`.
fn is_interface_name(name: &str) -> bool {
    let fits = (1..16).contains(&name.len()) && name != "." && name != "..";
    fits && !name.contains(|it: char| {
        it == '/' || it == ':' || it == '\0' || it.is_ascii_whitespace() || it == '\x0b'
    })
}

/// Returns the node's endpoints that were not closed yet as they are now, and notes them as closed.
fn newcomers(
    state: &State,
    closed: &mut BTreeMap<EndpointId, Endpoint>,
) -> Option<Arc<[Endpoint]>> {
    let endpoints = state.isolated_endpoints();
    let is_new = |endpoint: &&Endpoint| closed.get(&endpoint.id) != Some(endpoint);
    let newcomers: Vec<_> = endpoints.iter().filter(is_new).cloned().collect();
    *closed = endpoints.into_iter().map(|it| (it.id.clone(), it)).collect();
    (!newcomers.is_empty()).then(|| newcomers.into())
}
