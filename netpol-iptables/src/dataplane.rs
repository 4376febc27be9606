//! The dataplane: what happens when, on top of the pure parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use netpol_core::model::EndpointId;
use netpol_core::net::Family;
use netpol_core::program::{Endpoint, Established};
use netpol_core::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Delta,
    Drift, Program, Update,
};
use netpol_netfilter::EndingFlows;

use crate::enforced::Enforced;
use crate::error::IptablesError;
use crate::name::Fixed;
use crate::observe::{Observed, Record, Table, sets, table};
use crate::plan::{
    ChainChange, HookChange, Plan, SetChange, plan, plan_isolation, second_slots, switched,
    together,
};
use crate::probe::{self, Clues, Flavour, KernelTable, TableId};
use crate::render::{Context, Lists, PolicyUse, Rendered, check_hosts, render, tables_of_hosts};
use crate::restore::{chain_script, hook_script, removal_scripts, set_script, undo_script};
use crate::transport::{Processes, Tools, Variant};

mod config;
mod outcome;
mod removal;
mod report;

pub use self::config::IptablesConfig;
use self::config::{capabilities, check_logging};
use self::outcome::{Done, Failed, may_be_done};

/// A dataplane on iptables and ipset, in the network namespace of the thread that opened it.
pub struct IptablesDataplane {
    tools: Box<dyn Tools>,
    config: IptablesConfig,
    flavour: Flavour,
    families: Vec<Family>,
    capabilities: Capabilities,
    /// The tables, beside the one of endpoints, in which chains of ours may be: those of host endpoints, or of another
    /// configuration.
    elsewhere: BTreeSet<KernelTable>,
    flows: EndingFlows,
    /// The program in force, `None` if that is not known.
    enforced: Option<Enforced>,
    /// Whether there may be flows that an earlier program stopped.
    may_have_stopped: bool,
}

impl IptablesDataplane {
    /// Opens the dataplane. What an earlier one left in force stays in force.
    ///
    /// # Errors
    ///
    /// [`IptablesError`] if this host cannot enforce: a tool is not installed, no permission, bridged pods that netfilter
    /// does not see, or chains of ours in the other flavour ([`remove_flavour`](Self::remove_flavour) takes them away).
    pub fn open(config: IptablesConfig) -> Result<Self, IptablesError> {
        let families = probe::families();
        probe::check_bridge(config.pods, &families)?;
        let tools = Processes::start(&config.owner, config.time_limit)?;
        Self::with_tools(Box::new(tools), families, config)
    }

    pub(crate) fn with_tools(
        mut tools: Box<dyn Tools>,
        families: Vec<Family>,
        config: IptablesConfig,
    ) -> Result<Self, IptablesError> {
        check_logging(config.logging)?;
        let system = probe::flavour_of(&tools.version()?);
        let listings = listings(tools.as_mut(), &families)?;
        let (owner, wanted) = (&config.owner, config.flavour);
        let flavour = probe::choose(&Clues { owner, wanted, system, listings: &listings })?;
        let listing = listings.get(&flavour).ok_or_else(|| IptablesError::NoTool {
            program: Variant { flavour, family: Family::V4 }.command().to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        table(owner, config.table.table(), listing)?;
        let has = |name: &KernelTable| table(owner, *name, listing).is_ok_and(|it| !it.is_empty());
        let others = KernelTable::ALL.into_iter().filter(|name| *name != config.table.table());
        let elsewhere = others.filter(has).collect();
        tools.save_sets()?;
        let capabilities = capabilities(&config);
        let flows = EndingFlows::default();
        let may_have_stopped = true;
        Ok(Self {
            tools,
            config,
            flavour,
            families,
            capabilities,
            elsewhere,
            flows,
            enforced: None,
            may_have_stopped,
        })
    }

    /// Removes the chains and jumps of an owner from one flavour of iptables, and those of its sets that the other one
    /// does not refer to. This is the way out of [`IptablesError::BothFlavours`] and [`IptablesError::OtherFlavour`]:
    /// what the other flavour has goes on judging.
    ///
    /// # Errors
    ///
    /// [`IptablesError`] if something of ours may be left in this flavour. One that is not installed has nothing.
    pub fn remove_flavour(config: &IptablesConfig, flavour: Flavour) -> Result<(), IptablesError> {
        let mut tools = Processes::start(&config.owner, config.time_limit)?;
        removal::remove_flavour(&mut tools, &config.owner, &probe::families(), flavour)
    }

    /// Returns the flavour of iptables that is used.
    #[must_use]
    pub const fn flavour(&self) -> Flavour {
        self.flavour
    }

    fn variant(&self, family: Family) -> Variant {
        Variant { flavour: self.flavour, family }
    }

    /// Returns what there is of ours, and in the tables that a program needs.
    fn observe(&mut self, program: &Program) -> Result<Observed, IptablesError> {
        let tables = self.tables(&tables_of_hosts(program))?;
        let mut observed = Observed { tables, ..Observed::default() };
        observed.sets = sets(&self.config.owner, &self.tools.save_sets()?);
        Ok(observed)
    }

    /// Lists the table of endpoints, these ones, and those in which chains of ours may be as far as they can be read.
    fn tables(
        &mut self,
        needed: &BTreeSet<KernelTable>,
    ) -> Result<BTreeMap<TableId, Table>, IptablesError> {
        let mut tables = self.tables_of_endpoints()?;
        let main = self.config.table.table();
        let names: BTreeSet<KernelTable> = self.elsewhere.union(needed).copied().collect();
        for table in names.into_iter().filter(|name| *name != main) {
            for family in self.families.clone() {
                let id = TableId { family, table };
                match self.table(id) {
                    // What others do in tables that we do not need is their business.
                    Err(IptablesError::Unreadable { .. }) if !needed.contains(&table) => {}
                    found => drop(tables.insert(id, found?)),
                }
            }
        }
        Ok(tables)
    }

    fn tables_of_endpoints(&mut self) -> Result<BTreeMap<TableId, Table>, IptablesError> {
        let table = self.config.table.table();
        let ids: Vec<TableId> =
            self.families.iter().map(|&family| TableId { family, table }).collect();
        ids.into_iter().map(|id| Ok((id, self.table(id)?))).collect()
    }

    fn table(&mut self, id: TableId) -> Result<Table, IptablesError> {
        let listing = self.tools.save(self.variant(id.family), Some(id.table))?;
        table(&self.config.owner, id.table, &listing)
    }

    /// Enforces a whole program, and returns the endpoints that were isolated.
    fn enforce(
        &mut self,
        program: &Program,
    ) -> Result<Vec<(EndpointId, DataplaneError)>, IptablesError> {
        self.enforced = None;
        let mut refused = BTreeMap::new();
        let mut conflicts = 0;
        loop {
            let observed = self.observe(program)?;
            let (rendered, plan) = self.plan(program, &observed, &refused)?;
            self.forget_empty_tables(program, &observed);
            let main = self.config.table.table();
            let changed = plan.tables().into_iter().map(|id| id.table);
            self.elsewhere.extend(changed.filter(|name| *name != main));
            let Err(failed) = self.execute(&plan, &observed) else {
                self.sweep(&plan);
                let isolated = isolated(&rendered);
                if isolated.is_empty() {
                    let ruleset = &rendered.ruleset;
                    self.enforced = Some(Enforced::of(&self.config.owner, program, ruleset));
                }
                self.flows.enforced(program, &isolated);
                return Ok(isolated);
            };
            match failed.error.kind() {
                DataplaneErrorKind::Conflict if conflicts < CONFLICTS => conflicts += 1,
                DataplaneErrorKind::Permission | DataplaneErrorKind::Transient => {
                    return Err(failed.error);
                }
                _ => {
                    let culprits = self.culprits(&plan, &rendered, &failed);
                    if culprits.is_empty() {
                        return Err(failed.error);
                    }
                    let error = Arc::new(failed.error);
                    refused.extend(culprits.into_iter().map(|it| (it, Arc::clone(&error))));
                }
            }
        }
    }

    /// Enforces the program of a delta, and returns the endpoints that were isolated. Members of sets change without a look at
    /// what is in force. If more has to change, or that fails, the whole program is enforced.
    fn enforce_delta(
        &mut self,
        delta: &Delta,
    ) -> Result<Vec<(EndpointId, DataplaneError)>, IptablesError> {
        let plan = self.enforced.as_ref().and_then(|it| it.plan(delta));
        match plan.map(|plan| self.execute(&plan, &Observed::default())) {
            Some(Ok(())) => Ok(Vec::new()),
            Some(Err(_)) | None => self.enforce(&delta.program),
        }
    }

    fn plan(
        &self,
        program: &Program,
        observed: &Observed,
        refused: &BTreeMap<PolicyUse, Arc<IptablesError>>,
    ) -> Result<(Rendered, Plan), IptablesError> {
        let (owner, table) = (&self.config.owner, self.config.table.table());
        check_hosts(program, table, self.config.mark)?;
        let second_slots = second_slots(owner, observed);
        let mut context = Context {
            owner,
            families: &self.families,
            table,
            mark: self.config.mark,
            logging: self.config.logging,
            second_slots: &second_slots,
            refused,
        };
        let mut rendered = render(program, context);
        let together = together(owner, observed, &rendered.ruleset);
        let switched = switched(owner, second_slots.clone(), &together);
        if !together.is_empty() {
            context.second_slots = &switched;
            rendered = render(program, context);
        }
        let plan = plan(owner, observed, &rendered.ruleset)?;
        Ok((rendered, plan))
    }

    /// Forgets the tables that a program does not need and that have nothing of ours any more.
    fn forget_empty_tables(&mut self, program: &Program, observed: &Observed) {
        let needed = tables_of_hosts(program);
        let families = &self.families;
        self.elsewhere.retain(|&table| {
            let found = |&family| observed.tables.get(&TableId { family, table });
            let is_empty = |family| found(family).is_some_and(Table::is_empty);
            needed.contains(&table) || !families.iter().all(is_empty)
        });
    }

    /// Stops the established flows that a program denies, if it wants that; returns how many those were. Another process
    /// may have stopped some; they may go on with a program that keeps established flows.
    fn reevaluate(&mut self, program: &Program) -> Result<u64, DataplaneError> {
        let keeps = program.established == Established::Keep;
        if keeps && !self.may_have_stopped {
            return Ok(0);
        }
        let stopped = self
            .tools
            .reevaluate_flows(program)
            .map_err(|error| error.into_dataplane("stop established flows"))?;
        self.may_have_stopped = !keeps;
        Ok(stopped)
    }

    /// Isolates the endpoints that the chains do not know, and changes nothing else.
    fn isolate(&mut self, endpoints: &[Endpoint]) -> Result<(), IptablesError> {
        self.enforced = None;
        let mut conflicts = 0;
        loop {
            let observed = Observed { tables: self.tables_of_endpoints()?, ..Observed::default() };
            let record = Record::of(&self.config.owner, &observed);
            let unknown: Vec<_> = endpoints.iter().filter(|it| !record.knows(it)).collect();
            let plan = self.isolation(&unknown, &observed);
            match self.execute(&plan, &observed) {
                Err(failed) if failed.is_conflict() && conflicts < CONFLICTS => conflicts += 1,
                Err(failed) => return Err(failed.error),
                Ok(()) => {
                    let open = unknown.iter().filter(|it| !record.is_closed(it));
                    self.flows.isolated(open.flat_map(|it| it.addresses.iter().copied()));
                    return Ok(());
                }
            }
        }
    }

    fn isolation(&self, endpoints: &[&Endpoint], observed: &Observed) -> Plan {
        let owner = &self.config.owner;
        let mut lists = Lists::default();
        endpoints.iter().for_each(|it| lists.close(it));
        let table = self.config.table.table();
        let families = self.families.iter();
        let lists =
            families.map(|&family| (TableId { family, table }, lists.chains(owner, family)));
        let lists = lists.collect();
        plan_isolation(owner, observed, &lists)
    }

    /// Does all of a plan but the sweep, or nothing.
    fn execute(&mut self, plan: &Plan, observed: &Observed) -> Result<(), Failed> {
        let mut done = Done::default();
        let result = self.try_execute(plan, &mut done);
        if result.is_err() {
            self.take_back(plan, observed, &done);
        }
        result
    }

    fn try_execute(&mut self, plan: &Plan, done: &mut Done) -> Result<(), Failed> {
        self.change_sets(&plan.prepare)?;
        done.members = true;
        self.change_sets(&plan.members)?;
        // In the order in which packets meet the tables: what an early one has allowed, a later one does not judge.
        for id in plan.tables() {
            if let Some(changes) = plan.switch.get(&id) {
                let script = chain_script(id.table, changes);
                let outcome = self.tools.restore(self.variant(id.family), &script);
                done.tables.extend(may_be_done(&outcome).then_some(id));
                outcome.map_err(Failed::elsewhere)?;
            }
            for hook in plan.hooks.get(&id).into_iter().flatten() {
                self.place_jump(id, hook, done)?;
            }
        }
        Ok(())
    }

    fn place_jump(
        &mut self,
        id: TableId,
        hook: &HookChange,
        done: &mut Done,
    ) -> Result<(), Failed> {
        let variant = self.variant(id.family);
        let outcome = if hook.misplaced.is_empty() {
            self.tools.insert_jump(variant, id.table, hook.hook, &hook.chain)
        } else {
            self.tools.restore(variant, &hook_script(id.table, hook))
        };
        let is_new = hook.misplaced.is_empty() && may_be_done(&outcome);
        done.hooks.extend(is_new.then(|| (id, hook.clone())));
        outcome.map_err(Failed::elsewhere)
    }

    fn change_sets(&mut self, changes: &[SetChange]) -> Result<(), Failed> {
        if changes.is_empty() {
            return Ok(());
        }
        let outcome = self.tools.restore_sets(&set_script(changes));
        outcome.map_err(|error| Failed::in_sets(changes, error))
    }

    /// Takes back what was done of a plan that failed, as far as possible: the failure itself is what the caller hears of.
    fn take_back(&mut self, plan: &Plan, observed: &Observed, done: &Done) {
        for (id, hook) in &done.hooks {
            let variant = self.variant(id.family);
            let _result = self.tools.delete_jump(variant, id.table, hook.hook, &hook.chain);
        }
        let nothing = Table::default();
        for id in done.tables.iter().rev() {
            let changes = plan.switch.get(id).map(Vec::as_slice).unwrap_or_default();
            let before = observed.tables.get(id).unwrap_or(&nothing);
            let script = undo_script(id.table, changes, before);
            let _result = self.tools.restore(self.variant(id.family), &script);
        }
        if done.members && !plan.members_back.is_empty() {
            let _result = self.tools.restore_sets(&set_script(&plan.members_back));
        }
    }

    /// Removes what is not needed any more. What cannot be removed now, because something refers to it, is tried again
    /// with the next update.
    fn sweep(&mut self, plan: &Plan) {
        for (id, jumps) in &plan.sweep_hooks {
            for (hook, chain) in jumps {
                let _result =
                    self.tools.delete_jump(self.variant(id.family), id.table, hook, chain);
            }
        }
        if !plan.sweep_chains.is_empty() {
            // In the nft flavour, a packet that came before the switch would find a chain empty that is removed.
            self.tools.wait_for_packets();
        }
        for (id, chains) in &plan.sweep_chains {
            for script in removal_scripts(id.table, chains) {
                let _result = self.tools.restore(self.variant(id.family), &script);
            }
        }
        removal::destroy(self.tools.as_mut(), plan.sweep_sets.iter().cloned());
    }

    /// Returns the policy sets without which a plan may succeed.
    fn culprits(
        &mut self,
        plan: &Plan,
        rendered: &Rendered,
        failed: &Failed,
    ) -> BTreeSet<PolicyUse> {
        if let Some(set) = &failed.set {
            return rendered.users.get(set).cloned().unwrap_or_default();
        }
        let uses: BTreeSet<PolicyUse> = rendered.users.values().flatten().copied().collect();
        let mut culprits = BTreeSet::new();
        let ends = [Fixed::Untrack, Fixed::Mark].map(|it| self.config.owner.chain(it));
        for (id, changes) in &plan.switch {
            for user in &uses {
                let needs = |change: &&ChainChange| {
                    rendered.users.get(change.name()).is_some_and(|users| users.contains(user))
                };
                let own: Vec<&ChainChange> = changes.iter().filter(needs).collect();
                let common = changes.iter().filter(|it| ends.contains(it.name()));
                let all: Vec<ChainChange> = common.chain(own.iter().copied()).cloned().collect();
                let script = chain_script(id.table, &all);
                let variant = self.variant(id.family);
                if !own.is_empty() && self.tools.restore(variant, &script).is_err() {
                    culprits.insert(*user);
                }
            }
        }
        culprits
    }

    fn differences(&mut self, program: &Program) -> Result<Vec<String>, IptablesError> {
        let observed = self.observe(program)?;
        let (_, plan) = self.plan(program, &observed, &BTreeMap::new())?;
        Ok(report::described(&observed, &plan))
    }

    fn count(&mut self) -> Result<Counters, IptablesError> {
        Ok(report::counters(self.tables(&BTreeSet::new())?.values()))
    }

    /// Removes all that is ours, in both flavours.
    fn remove_all(&mut self) -> Result<(), IptablesError> {
        self.enforced = None;
        for flavour in Flavour::BOTH {
            // What an early table has denied is denied until the end.
            for table in KernelTable::ALL.into_iter().rev() {
                let is_used = table == self.config.table.table() || self.elsewhere.contains(&table);
                match self.clear(flavour, table) {
                    // What others do in tables that we do not use is their business.
                    Err(IptablesError::Unreadable { .. })
                        if flavour != self.flavour || !is_used => {}
                    outcome => outcome?,
                }
            }
        }
        removal::destroy_all(self.tools.as_mut(), &self.config.owner)
    }

    fn clear(&mut self, flavour: Flavour, table: KernelTable) -> Result<(), IptablesError> {
        let place = (flavour, table);
        removal::clear(self.tools.as_mut(), &self.config.owner, &self.families, place)
    }
}

impl fmt::Debug for IptablesDataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IptablesDataplane")
            .field("config", &self.config)
            .field("flavour", &self.flavour)
            .finish_non_exhaustive()
    }
}

impl Dataplane for IptablesDataplane {
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
                    .enforce(&program)
                    .map_err(|error| error.into_dataplane("enforce a program"))?;
                applied.revoked = self.reevaluate(&program)?;
            }
            Change::Delta(delta) => {
                applied.isolated = self
                    .enforce_delta(&delta)
                    .map_err(|error| error.into_dataplane("enforce a changed program"))?;
                applied.revoked = self.reevaluate(&delta.program)?;
            }
            _ => {
                let kind = DataplaneErrorKind::Unsupported;
                return Err(DataplaneError::new(kind, "apply this kind of update"));
            }
        }
        // The update is in force. But flows that go on are none that it allows, so this is no success; it is tried again
        // with the next update.
        let ended = self.flows.end(|addresses| self.tools.forget_flows(addresses));
        let ended = ended.map_err(|error| error.into_dataplane("end flows"))?;
        applied.revoked = applied.revoked.saturating_add(ended);
        Ok(applied)
    }

    fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
        let mut drift = Drift::default();
        // Whoever lets bridges bypass netfilter later opens all that is behind them.
        drift.differences = probe::check_bridge(self.config.pods, &self.families)
            .and_then(|()| self.differences(program))
            .map_err(|error| error.into_dataplane("audit chains and sets"))?;
        Ok(drift)
    }

    fn counters(&mut self) -> Result<Counters, DataplaneError> {
        self.count().map_err(|error| error.into_dataplane("read counters"))
    }

    fn remove(&mut self) -> Result<(), DataplaneError> {
        self.remove_all().map_err(|error| error.into_dataplane("remove chains and sets"))
    }
}

/// How often an update is planned anew because the tables were not as read.
const CONFLICTS: u32 = 3;

/// Returns what each installed flavour lists in both families.
fn listings(
    tools: &mut dyn Tools,
    families: &[Family],
) -> Result<BTreeMap<Flavour, String>, IptablesError> {
    let mut listings: BTreeMap<Flavour, String> = BTreeMap::new();
    for flavour in Flavour::BOTH {
        for &family in families {
            if let Some(listing) = installed(tools.save(Variant { flavour, family }, None))? {
                listings.entry(flavour).or_default().push_str(&listing);
            }
        }
    }
    Ok(listings)
}

/// Returns what a tool answered, `None` if it is not installed.
fn installed(answer: Result<String, IptablesError>) -> Result<Option<String>, IptablesError> {
    match answer {
        Err(IptablesError::NoTool { .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn isolated(rendered: &Rendered) -> Vec<(EndpointId, DataplaneError)> {
    let error = |error: &Arc<IptablesError>| {
        DataplaneError::new(error.kind(), "program an endpoint").with_source(Arc::clone(error))
    };
    rendered.isolated.iter().map(|(id, cause)| (id.clone(), error(cause))).collect()
}
