//! The dataplane: what happens when, on top of the pure parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::{fmt, mem};

use netpol_core::model::{EndpointId, UnknownInterfaces};
use netpol_core::program::{Endpoint, Established};
use netpol_core::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Delta,
    Drift, Program, Update,
};
use netpol_netfilter::{EndingFlows, Grace, LogPrefix, Logging};
use nftnl_sys::libc;

use crate::enforced::Enforced;
use crate::error::NftError;
use crate::name::{Name, Owner, Place};
use crate::observe::Observed;
use crate::operation::Operation;
use crate::plan::{Extra, Plan, plan, plan_part, together};
use crate::probe::{self, PodNetwork};
use crate::render::{
    Context, Fixed, Options, PolicyUse, Rendered, check_room, keys, own_keys, render, self_keys,
    skeleton,
};
use crate::ruleset::{Elements, Key, Ruleset};
use crate::transport::{Depth, Kernel, Netlink, Refusal};

mod drift;
mod outcome;

use self::drift::compare;
use self::outcome::{Executed, Failure, Left};

/// How a dataplane is called and where it stands among the other users of nf_tables.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NftConfig {
    /// The name of our table. Several dataplanes can live on one host under different names.
    pub owner: Owner,
    /// The priority of our base chains among those of others; lower comes first. Among equal ones the order is not
    /// defined. The default is just before the usual place of filters. A table that is in force with another priority
    /// is changed in one transaction, but a packet on its way from the new place to the old one may pass both.
    pub priority: i32,
    /// What Log rules write, where, and how often. The kernel takes prefixes of 127 bytes.
    pub logging: Logging,
    /// Where the packets of pods pass.
    pub pods: PodNetwork,
    /// Bits of the packet mark that nobody else uses. They say that policy of a host endpoint before destination NAT has
    /// allowed a packet. Without such policy no mark is read or written.
    pub mark: u32,
}

impl Default for NftConfig {
    /// The table `netpol`, at priority -5, logs to group 100, routed pods.
    fn default() -> Self {
        Self {
            owner: Owner::default(),
            priority: -5,
            logging: Logging::DEFAULT,
            pods: PodNetwork::default(),
            mark: 0x0010_0000,
        }
    }
}

/// A dataplane on nf_tables, in the network namespace of the thread that opened it.
pub struct NftDataplane {
    kernel: Box<dyn Kernel>,
    owner: Owner,
    options: Options,
    pods: PodNetwork,
    capabilities: Capabilities,
    flows: EndingFlows,
    /// The program in force, `None` if that is not known or if something is left over of an earlier one.
    enforced: Option<Enforced>,
    /// What a delta left to be swept, and when that can be.
    unswept: Option<(Grace, Vec<Operation>)>,
    /// Whether there may be flows that an earlier program stopped.
    may_have_stopped: bool,
}

impl NftDataplane {
    /// Opens the dataplane. What an earlier one left in force stays in force.
    ///
    /// # Errors
    ///
    /// [`NftError`] if this host cannot enforce: no permission, no nf_tables, a kernel that is too old, bridged pods that
    /// netfilter does not see, or a table of somebody else that has our name.
    pub fn open(config: NftConfig) -> Result<Self, NftError> {
        probe::check(config.pods)?;
        let kernel = Netlink::open(config.owner.clone())?;
        Self::with_kernel(Box::new(kernel), config)
    }

    pub(crate) fn with_kernel(
        mut kernel: Box<dyn Kernel>,
        config: NftConfig,
    ) -> Result<Self, NftError> {
        check_prefix(config.logging.prefix)?;
        // An empty transaction changes nothing but is refused without permission.
        kernel.commit(&[]).map_err(without_operation)?;
        kernel.observe(Depth::Rules)?;
        let capabilities = capabilities();
        let NftConfig { priority, logging, mark, pods, .. } = config;
        let options = Options { priority, logging, mark };
        let (owner, may_have_stopped) = (config.owner, true);
        let flows = EndingFlows::default();
        let (enforced, unswept) = Default::default();
        Ok(Self {
            kernel,
            owner,
            options,
            pods,
            capabilities,
            flows,
            enforced,
            unswept,
            may_have_stopped,
        })
    }

    /// Enforces a whole program, and returns the endpoints that were isolated.
    fn apply_program(
        &mut self,
        program: &Program,
    ) -> Result<Vec<(EndpointId, DataplaneError)>, NftError> {
        self.forget_enforced();
        let mut refused = BTreeMap::new();
        let mut conflicts = 0;
        loop {
            let observed = self.kernel.observe(Depth::All)?;
            match self.try_program(program, observed.as_ref(), &refused) {
                Ok((rendered, left)) => {
                    let isolated = isolated(&rendered);
                    if isolated.is_empty() && left == Left::Nothing {
                        self.enforced = Enforced::of(program, &rendered, self.options);
                    }
                    self.flows.enforced(program, &isolated);
                    return Ok(isolated);
                }
                Err(Failure::PolicySets { users, error }) => {
                    refused.extend(users.into_iter().map(|user| (user, Arc::clone(&error))));
                }
                Err(Failure::Conflict(_)) if conflicts < CONFLICTS => conflicts += 1,
                Err(Failure::Conflict(error) | Failure::Other(error)) => return Err(error),
            }
        }
    }

    fn try_program(
        &mut self,
        program: &Program,
        observed: Option<&Observed>,
        refused: &BTreeMap<PolicyUse, Arc<NftError>>,
    ) -> Result<(Rendered, Left), Failure> {
        let mut places = places(observed);
        let (rendered, plan) = self.plan(program, observed, &mut places, refused)?;
        match self.execute(&plan, Split::Never) {
            Err(Executed::TooLarge) => {
                change_slots(&mut places, &plan.changed_sets());
                let (rendered, plan) = self.plan(program, observed, &mut places, refused)?;
                let left = self
                    .execute(&plan, Split::Groups)
                    .map_err(|error| error.into_failure(&rendered, refused))?;
                Ok((rendered, left))
            }
            Err(error) => Err(error.into_failure(&rendered, refused)),
            Ok(left) => Ok((rendered, left)),
        }
    }

    /// Enforces the program of a delta, and returns the endpoints that were isolated. What is in force is not looked at. If
    /// the delta cannot be put in force so, or the kernel takes it otherwise than expected, the whole program is.
    fn apply_delta(
        &mut self,
        delta: &Delta,
    ) -> Result<Vec<(EndpointId, DataplaneError)>, NftError> {
        if self.try_delta(delta).is_none() {
            return self.apply_program(&delta.program);
        }
        self.flows.advanced(delta);
        Ok(Vec::new())
    }

    fn try_delta(&mut self, delta: &Delta) -> Option<()> {
        let mut enforced = self.enforced.take()?;
        let mut plan = plan_part(&self.owner, enforced.advance(delta)?).ok()?;
        let sweep = mem::take(&mut plan.sweep);
        let needs_all_swept = !plan.prepare.is_empty() || !sweep.is_empty();
        let left = self.sweep_rest(if needs_all_swept { Wait::Yes } else { Wait::No });
        self.execute(&plan, Split::Never).ok()?;
        if !sweep.is_empty() {
            self.unswept = Some((self.kernel.packets(), sweep));
        }
        self.enforced = (left == Left::Nothing).then_some(enforced);
        Some(())
    }

    /// Begins anew with what the kernel has. What a delta left must be out of every packet's sight before it is used again.
    fn forget_enforced(&mut self) {
        self.enforced = None;
        self.sweep_rest(Wait::Yes);
    }

    /// Sweeps what a delta left, when no packet can meet it any more.
    fn sweep_rest(&mut self, wait: Wait) -> Left {
        match self.unswept.take() {
            Some((grace, operations)) if wait == Wait::Yes || grace.is_over() => {
                grace.wait();
                self.sweep(operations)
            }
            rest => {
                self.unswept = rest;
                Left::Nothing
            }
        }
    }

    /// Plans with the sets in these places. Those that must change together get other ones.
    fn plan(
        &self,
        program: &Program,
        observed: Option<&Observed>,
        places: &mut BTreeMap<String, Place>,
        refused: &BTreeMap<PolicyUse, Arc<NftError>>,
    ) -> Result<(Rendered, Plan), NftError> {
        let options = self.options;
        let mut rendered = render(program, &Context { options, places, refused })?;
        let together = observed.map(|it| together(it, &rendered.ruleset)).unwrap_or_default();
        if !together.is_empty() {
            change_slots(places, &together);
            rendered = render(program, &Context { options, places, refused })?;
        }
        let plan = plan(&self.owner, observed, &rendered.ruleset, Extra::Swept)?;
        Ok((rendered, plan))
    }

    /// Stops the established flows that a program denies, if it wants that; returns how many those were. Another process
    /// may have stopped some; they may go on with a program that keeps established flows.
    fn reevaluate(&mut self, program: &Program) -> Result<u64, DataplaneError> {
        let keeps = program.established == Established::Keep;
        if keeps && !self.may_have_stopped {
            return Ok(0);
        }
        let stopped = self
            .kernel
            .reevaluate_flows(program)
            .map_err(|error| error.into_dataplane("stop established flows"))?;
        self.may_have_stopped = !keeps;
        Ok(stopped)
    }

    /// Isolates the endpoints that the table does not know, and changes nothing else.
    fn isolate(&mut self, endpoints: &[Endpoint]) -> Result<(), NftError> {
        self.forget_enforced();
        let mut conflicts = 0;
        loop {
            let observed = self.kernel.observe(Depth::All)?;
            let known = observed
                .as_ref()
                .map_or_else(Ruleset::default, |observed| observed.ruleset.clone());
            let unknown: Vec<_> = endpoints.iter().filter(|it| !is_known(&known, it)).collect();
            let addresses: Vec<_> = unknown.iter().flat_map(|it| &it.addresses).copied().collect();
            let desired = with_isolated(known, &unknown, self.options)?;
            let plan = plan(&self.owner, observed.as_ref(), &desired, Extra::Kept)?;
            match self.execute(&plan, Split::Groups) {
                Ok(_) => {
                    self.flows.isolated(addresses);
                    return Ok(());
                }
                Err(error) => match error.into_error() {
                    error
                        if error.kind() == DataplaneErrorKind::Conflict
                            && conflicts < CONFLICTS =>
                    {
                        conflicts += 1
                    }
                    error => return Err(error),
                },
            }
        }
    }

    fn execute(&mut self, plan: &Plan, split: Split) -> Result<Left, Executed> {
        let mut rest = plan.prepare.as_slice();
        while !rest.is_empty() {
            let done = self
                .kernel
                .commit_front(rest)
                .map_err(|refusal| Executed::refused(refusal, rest))?;
            rest = rest.get(done..).unwrap_or_default();
        }
        self.switch(plan, split)?;
        if plan.sweep.is_empty() {
            return Ok(Left::Nothing);
        }
        self.kernel.packets().wait();
        Ok(self.sweep(plan.sweep.clone()))
    }

    fn switch(&mut self, plan: &Plan, split: Split) -> Result<(), Executed> {
        let whole = plan.whole_switch();
        if whole.is_empty() {
            return Ok(());
        }
        match self.kernel.commit(&whole) {
            Err(Refusal::TooLarge { .. }) if split == Split::Never => Err(Executed::TooLarge),
            Err(Refusal::TooLarge { .. }) => {
                for group in plan.switch.values().flatten() {
                    self.kernel
                        .commit(group)
                        .map_err(|refusal| Executed::refused(refusal, group))?;
                }
                Ok(())
            }
            outcome => outcome.map_err(|refusal| Executed::refused(refusal, &whole)),
        }
    }

    /// Removes old objects as far as possible. A packet that came before the switch may still be led to them, and would find
    /// a chain empty that is removed: of each chain, the kernel keeps the rules of two generations only, and it frees nothing
    /// but does not wait (`nf_tables_commit`, Linux 6.18). So nothing is removed before such packets are gone. What the kernel does not let go, because something foreign refers to it,
    /// is tried again with the next update.
    fn sweep(&mut self, mut operations: Vec<Operation>) -> Left {
        let mut left = Left::Nothing;
        while !operations.is_empty() {
            match self.kernel.commit_front(&operations) {
                Ok(done) => drop(operations.drain(..done.min(operations.len()))),
                Err(Refusal::Operation { index, .. }) => {
                    left = Left::Something;
                    let Some(object) = operations.get(index).and_then(Operation::object).cloned()
                    else {
                        return left;
                    };
                    operations.retain(|operation| operation.object() != Some(&object));
                }
                Err(Refusal::TooLarge { .. } | Refusal::Socket { .. }) => return Left::Something,
            }
        }
        left
    }

    fn differences(&mut self, program: &Program) -> Result<Vec<String>, NftError> {
        if self.sweep_rest(Wait::Yes) == Left::Something {
            self.enforced = None;
        }
        let Some(observed) = self.kernel.observe(Depth::All)? else {
            return Ok(vec![format!("table `inet {}` is missing", self.owner)]);
        };
        let places = places(Some(&observed));
        let context = Context { options: self.options, places: &places, refused: &BTreeMap::new() };
        Ok(compare(&observed, &render(program, &context)?.ruleset))
    }

    fn count(&mut self) -> Result<Counters, NftError> {
        let packets = self.kernel.observe(Depth::Rules)?.unwrap_or_default().packets;
        let mut counters = Counters::default();
        for (comment, packets) in packets {
            let Some(id) = comment.strip_prefix("np:").and_then(|rest| rest.split(' ').next())
            else {
                continue;
            };
            if id == "deny" {
                counters.unmatched = counters.unmatched.saturating_add(packets);
            } else if let Ok(rule) = id.parse() {
                let sum = counters.rules.entry(rule).or_default();
                *sum = sum.saturating_add(packets);
            }
        }
        Ok(counters)
    }

    fn delete_table(&mut self) -> Result<(), NftError> {
        (self.enforced, self.unswept) = (None, None);
        match self.kernel.observe(Depth::Rules) {
            Ok(None) | Err(NftError::ForeignTable { .. }) => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) => return Err(error),
        }
        let operations = [Operation::DeleteTable];
        match self.kernel.commit(&operations) {
            Err(Refusal::Operation { source, .. })
                if source.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            outcome => outcome.map_err(|refusal| refusal.into_error(&operations)),
        }
    }
}

impl fmt::Debug for NftDataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NftDataplane")
            .field("owner", &self.owner)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Dataplane for NftDataplane {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError> {
        let mut applied = Applied::completely(update.generation);
        match update.change {
            Change::Isolate(endpoints) => {
                self.isolate(&endpoints)
                    .map_err(|error| error.into_dataplane("isolate endpoints"))?;
            }
            Change::Full(program) => {
                applied.isolated = self
                    .apply_program(&program)
                    .map_err(|error| error.into_dataplane("enforce a program"))?;
                applied.revoked = self.reevaluate(&program)?;
            }
            Change::Delta(delta) => {
                applied.isolated = self
                    .apply_delta(&delta)
                    .map_err(|error| error.into_dataplane("enforce a changed program"))?;
                applied.revoked = self.reevaluate(&delta.program)?;
            }
            _ => {
                return Err(DataplaneError::new(
                    DataplaneErrorKind::Unsupported,
                    "apply this kind of update",
                ));
            }
        }
        let ended = self.flows.end(|addresses| self.kernel.forget_flows(addresses));
        applied.revoked = applied
            .revoked
            .saturating_add(ended.map_err(|error| error.into_dataplane("end established flows"))?);
        Ok(applied)
    }

    fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
        let mut drift = Drift::default();
        // Whoever lets bridges bypass netfilter later opens all that is behind them.
        drift.differences = probe::check(self.pods)
            .and_then(|()| self.differences(program))
            .map_err(|error| error.into_dataplane("audit the table"))?;
        Ok(drift)
    }

    fn counters(&mut self) -> Result<Counters, DataplaneError> {
        self.count().map_err(|error| error.into_dataplane("read counters"))
    }

    fn remove(&mut self) -> Result<(), DataplaneError> {
        self.delete_table().map_err(|error| error.into_dataplane("remove the table"))
    }
}

/// How often an update is planned anew because the table was not as read.
const CONFLICTS: u32 = 3;

/// Whether packets are waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wait {
    Yes,
    No,
}

/// Whether a switch that is too large may be made in several transactions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Split {
    Never,
    Groups,
}

/// Source: `NF_LOG_PREFIXLEN` in `include/uapi/linux/netfilter/nf_log.h` is 128 and counts the final NUL.
const LOG_PREFIX_BYTES: usize = 127;

fn check_prefix(prefix: LogPrefix) -> Result<(), NftError> {
    let bytes = prefix.longest();
    if bytes > LOG_PREFIX_BYTES {
        return Err(NftError::LogPrefix { prefix, bytes, max: LOG_PREFIX_BYTES });
    }
    Ok(())
}

/// What nf_tables can express here.
fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.log = true;
    capabilities.deltas = true;
    capabilities.host_endpoints = true;
    capabilities.reject = true;
    capabilities
}

fn without_operation(refusal: Refusal) -> NftError {
    match refusal {
        Refusal::Operation { source, .. }
            if matches!(
                source.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EPROTONOSUPPORT)
            ) =>
        {
            NftError::NoNfTables { source }
        }
        refusal => refusal.into_error(&[]),
    }
}

fn isolated(rendered: &Rendered) -> Vec<(EndpointId, DataplaneError)> {
    let error = |error: &Arc<NftError>| {
        DataplaneError::new(error.kind(), "program an endpoint").with_source(Arc::clone(error))
    };
    rendered.isolated.iter().map(|(id, cause)| (id.clone(), error(cause))).collect()
}

/// Returns where the sets of exact members are. If there are several of one, one that is in force counts.
fn places(observed: Option<&Observed>) -> BTreeMap<String, Place> {
    let Some(observed) = observed else { return BTreeMap::new() };
    let live = observed.ruleset.live();
    let (live, dead): (Vec<_>, Vec<_>) =
        observed.ruleset.sets.keys().partition(|name| live.contains(name));
    let placed = |name: &'_ Name| name.place().map(|(stem, place)| (stem.to_owned(), place));
    dead.into_iter().chain(live).filter_map(placed).collect()
}

/// Puts these sets into their other slots, so that a plan makes them anew instead of changing them.
fn change_slots(places: &mut BTreeMap<String, Place>, sets: &BTreeSet<Name>) {
    for (stem, place) in sets.iter().filter_map(Name::place) {
        places.insert(stem.to_owned(), place.other());
    }
}

/// Returns a ruleset with these endpoints isolated.
fn with_isolated(
    mut ruleset: Ruleset,
    endpoints: &[&Endpoint],
    options: Options,
) -> Result<Ruleset, NftError> {
    let base = skeleton(options, &UnknownInterfaces::default());
    for (name, set) in base.sets {
        ruleset.sets.entry(name).or_insert(set);
    }
    for (name, chain) in base.chains {
        ruleset.chains.entry(name).or_insert(chain);
    }
    for endpoint in endpoints {
        for key in keys(endpoint) {
            insert(&mut ruleset, Fixed::Endpoints, key)?;
            insert(&mut ruleset, Fixed::Isolated, key)?;
        }
        for key in own_keys(endpoint) {
            insert(&mut ruleset, Fixed::Own, key)?;
        }
        for key in self_keys(endpoint) {
            insert(&mut ruleset, Fixed::SelfTraffic, key)?;
        }
    }
    Ok(ruleset)
}

/// Returns whether a table knows an endpoint by its interface and addresses: a successor may have the same interface.
fn is_known(ruleset: &Ruleset, endpoint: &Endpoint) -> bool {
    let has =
        |fixed: Fixed, key: Key| fixed.name(key).is_some_and(|name| ruleset.has_key(&name, key));
    keys(endpoint).into_iter().all(|key| has(Fixed::Endpoints, key))
        && own_keys(endpoint).into_iter().all(|key| has(Fixed::Own, key))
}

fn insert(ruleset: &mut Ruleset, fixed: Fixed, key: Key) -> Result<(), NftError> {
    let Some(name) = fixed.name(key) else { return Ok(()) };
    if let Some(Elements::Keys(keys)) = ruleset.sets.get_mut(&name).map(|set| &mut set.elements)
        && let Err(at) = keys.binary_search(&key)
    {
        keys.insert(at, key);
        check_room(&name, keys.len())?;
    }
    Ok(())
}
