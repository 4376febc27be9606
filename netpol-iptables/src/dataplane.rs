//! The dataplane: what happens when, on top of the pure parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use netpol_core::model::EndpointId;
use netpol_core::net::Family;
use netpol_core::program::{Digest, Endpoint, Established, RuleId};
use netpol_core::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Drift,
    Program, Update,
};
use netpol_netfilter::EndingFlows;

use crate::error::IptablesError;
use crate::name::{Name, Owner};
use crate::observe::{Observed, Record, Table, sets, table};
use crate::plan::{
    ChainChange, HookChange, Plan, SetChange, plan, plan_isolation, second_slots, switched,
    together,
};
use crate::probe::{self, Clues, Flavour, PodNetwork, TableName};
use crate::render::{Context, Lists, PolicyUse, Rendered, render};
use crate::restore::{chain_script, hook_script, removal_scripts, set_script, undo_script};
use crate::transport::{Processes, Tools, Variant};

mod removal;

/// How a dataplane is called and where it stands among the other users of iptables.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IptablesConfig {
    /// The tag in the names of our chains and sets. Several dataplanes can live on one host under different tags.
    pub owner: Owner,
    /// The flavour of iptables; `None` for that of the host.
    pub flavour: Option<Flavour>,
    /// The table whose built-in chains we hook into.
    pub table: TableName,
    /// The NFLOG group that Log rules write to.
    pub log_group: u16,
    /// Where the packets of pods pass.
    pub pods: PodNetwork,
    /// How long a tool may take before it is killed.
    pub time_limit: Duration,
}

impl Default for IptablesConfig {
    /// No tag, the host's flavour, the table `filter`, logs to group 100, routed pods, 30 seconds.
    fn default() -> Self {
        Self {
            owner: Owner::default(),
            flavour: None,
            table: TableName::default(),
            log_group: 100,
            pods: PodNetwork::default(),
            time_limit: Duration::from_secs(30),
        }
    }
}

/// A dataplane on iptables and ipset, in the network namespace of the thread that opened it.
pub struct IptablesDataplane {
    tools: Box<dyn Tools>,
    config: IptablesConfig,
    flavour: Flavour,
    families: Vec<Family>,
    capabilities: Capabilities,
    /// Whether chains of ours may be in the table that is not used: the configuration was another one before.
    moved: bool,
    flows: EndingFlows,
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
        let system = probe::flavour_of(&tools.version()?);
        let listings = listings(tools.as_mut(), &families)?;
        let (owner, wanted) = (&config.owner, config.flavour);
        let flavour = probe::choose(&Clues { owner, wanted, system, listings: &listings })?;
        let listing = listings.get(&flavour).ok_or_else(|| IptablesError::NoTool {
            program: Variant { flavour, family: Family::V4 }.command().to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        table(owner, config.table, listing)?;
        let other = table(owner, config.table.other(), listing);
        let moved = other.is_ok_and(|table| !table.is_empty());
        tools.save_sets()?;
        let capabilities = capabilities();
        let flows = EndingFlows::default();
        let may_have_stopped = true;
        Ok(Self { tools, config, flavour, families, capabilities, moved, flows, may_have_stopped })
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

    fn observe(&mut self) -> Result<Observed, IptablesError> {
        let mut observed = Observed { tables: self.tables()?, ..Observed::default() };
        observed.sets = sets(&self.config.owner, &self.tools.save_sets()?);
        Ok(observed)
    }

    fn tables(&mut self) -> Result<BTreeMap<Family, Table>, IptablesError> {
        let name = self.config.table;
        let mut tables = BTreeMap::new();
        for family in self.families.clone() {
            let listing = self.tools.save(self.variant(family), Some(name))?;
            tables.insert(family, table(&self.config.owner, name, &listing)?);
        }
        Ok(tables)
    }

    /// Enforces a whole program.
    fn enforce(
        &mut self,
        program: &Program,
    ) -> Result<Vec<(EndpointId, DataplaneError)>, IptablesError> {
        let mut refused = BTreeMap::new();
        let mut conflicts = 0;
        loop {
            let observed = self.observe()?;
            let (rendered, plan) = self.plan(program, &observed, &refused)?;
            let Err(failed) = self.execute(&plan, &observed) else {
                self.sweep(&plan);
                return Ok(isolated(rendered));
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

    fn plan(
        &self,
        program: &Program,
        observed: &Observed,
        refused: &BTreeMap<PolicyUse, Arc<IptablesError>>,
    ) -> Result<(Rendered, Plan), IptablesError> {
        let owner = &self.config.owner;
        let second_slots = second_slots(owner, observed);
        let mut context = Context {
            owner,
            families: &self.families,
            log_group: self.config.log_group,
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

    /// Stops the established flows that a program denies, if it wants that; returns how many those were. Another process
    /// may have stopped some; they may go on with a program that keeps established flows.
    fn reevaluate(&mut self, program: &Program) -> Result<u64, IptablesError> {
        let keeps = program.established == Established::Keep;
        if keeps && !self.may_have_stopped {
            return Ok(0);
        }
        let stopped = self.tools.reevaluate_flows(program)?;
        self.may_have_stopped = !keeps;
        Ok(stopped)
    }

    /// Isolates the endpoints that the chains do not know, and changes nothing else.
    fn isolate(&mut self, endpoints: &[Endpoint]) -> Result<(), IptablesError> {
        let mut conflicts = 0;
        loop {
            let observed = Observed { tables: self.tables()?, ..Observed::default() };
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
        let families = self.families.iter();
        let lists = families.map(|&family| (family, lists.chains(owner, family))).collect();
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
        let table = self.config.table;
        self.change_sets(&plan.prepare)?;
        done.members = true;
        self.change_sets(&plan.members)?;
        for (&family, changes) in &plan.switch {
            let script = chain_script(table, changes);
            let outcome = self.tools.restore(self.variant(family), &script);
            done.families.extend(may_be_done(&outcome).then_some(family));
            outcome.map_err(Failed::elsewhere)?;
        }
        for hook in &plan.hooks {
            let variant = self.variant(hook.family);
            let outcome = if hook.misplaced.is_empty() {
                self.tools.insert_jump(variant, table, hook.hook, &hook.chain)
            } else {
                self.tools.restore(variant, &hook_script(table, hook))
            };
            let is_new = hook.misplaced.is_empty() && may_be_done(&outcome);
            done.hooks.extend(is_new.then(|| hook.clone()));
            outcome.map_err(Failed::elsewhere)?;
        }
        Ok(())
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
        let table = self.config.table;
        for hook in &done.hooks {
            let _result =
                self.tools.delete_jump(self.variant(hook.family), table, hook.hook, &hook.chain);
        }
        let nothing = Table::default();
        for family in &done.families {
            let changes = plan.switch.get(family).map(Vec::as_slice).unwrap_or_default();
            let before = observed.tables.get(family).unwrap_or(&nothing);
            let script = undo_script(table, changes, before);
            let _result = self.tools.restore(self.variant(*family), &script);
        }
        if done.members && !plan.members_back.is_empty() {
            let _result = self.tools.restore_sets(&set_script(&plan.members_back));
        }
    }

    /// Removes what is not needed any more. What cannot be removed now, because something refers to it, is tried again
    /// with the next update.
    fn sweep(&mut self, plan: &Plan) {
        for (&family, chains) in &plan.sweep_chains {
            for script in removal_scripts(self.config.table, chains) {
                let _result = self.tools.restore(self.variant(family), &script);
            }
        }
        if self.moved {
            self.moved = self.clear(self.flavour, self.config.table.other()).is_err();
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
        for (&family, changes) in &plan.switch {
            for user in &uses {
                let needs = |change: &&ChainChange| {
                    rendered.users.get(change.name()).is_some_and(|users| users.contains(user))
                };
                let own: Vec<ChainChange> = changes.iter().filter(needs).cloned().collect();
                let script = chain_script(self.config.table, &own);
                if !own.is_empty() && self.tools.restore(self.variant(family), &script).is_err() {
                    culprits.insert(*user);
                }
            }
        }
        culprits
    }

    fn differences(&mut self, program: &Program) -> Result<Vec<String>, IptablesError> {
        let observed = self.observe()?;
        let (_, plan) = self.plan(program, &observed, &BTreeMap::new())?;
        Ok(described(&observed, &plan))
    }

    fn count(&mut self) -> Result<Counters, IptablesError> {
        let mut counters = Counters::default();
        let tables = self.tables()?;
        let rules =
            tables.values().flat_map(|table| table.chains.values()).flat_map(|it| &it.rules);
        for rule in rules {
            let id = rule.mark.comment.strip_prefix("np:").and_then(|rest| rest.split(':').next());
            let Some(id) = id else { continue };
            if id == "deny" {
                counters.unmatched = counters.unmatched.saturating_add(rule.packets);
            } else if let Some(id) = rule_id(id) {
                let sum = counters.rules.entry(id).or_default();
                *sum = sum.saturating_add(rule.packets);
            }
        }
        Ok(counters)
    }

    /// Removes all that is ours, in both flavours.
    fn remove_all(&mut self) -> Result<(), IptablesError> {
        for flavour in Flavour::BOTH {
            for table in TableName::BOTH {
                match self.clear(flavour, table) {
                    // What others do in tables that we do not use is their business.
                    Err(IptablesError::Unreadable { .. })
                        if (flavour, table) != (self.flavour, self.config.table) => {}
                    outcome => outcome?,
                }
            }
        }
        removal::destroy_all(self.tools.as_mut(), &self.config.owner)
    }

    fn clear(&mut self, flavour: Flavour, table: TableName) -> Result<(), IptablesError> {
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
                self.flows.enforced(&program, &applied.isolated);
                applied.revoked = self
                    .reevaluate(&program)
                    .map_err(|error| error.into_dataplane("stop established flows"))?;
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
        drift.differences = self
            .differences(program)
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

/// What was done of a plan.
#[derive(Debug, Default)]
struct Done {
    members: bool,
    families: Vec<Family>,
    hooks: Vec<HookChange>,
}

/// Returns whether a tool may have done what it was asked for: also if nobody heard from it in the end.
fn may_be_done(outcome: &Result<(), IptablesError>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => {
            matches!(error, IptablesError::TimedOut { .. } | IptablesError::Process { .. })
        }
    }
}

/// Why a plan was not executed.
#[derive(Debug)]
struct Failed {
    error: IptablesError,
    /// The set whose change was refused.
    set: Option<Name>,
}

impl Failed {
    fn is_conflict(&self) -> bool {
        self.error.kind() == DataplaneErrorKind::Conflict
    }

    fn elsewhere(error: IptablesError) -> Self {
        Self { error, set: None }
    }

    /// Finds the refused change by its line, which `ipset` names.
    fn in_sets(changes: &[SetChange], error: IptablesError) -> Self {
        let text = error.to_string();
        let line = text.split("Error in line ").nth(1).and_then(|rest| rest.split(':').next());
        let index = line.and_then(|it| it.parse::<usize>().ok()).and_then(|it| it.checked_sub(1));
        let set = index.and_then(|index| changes.get(index)).map(|change| change.set().clone());
        Self { error, set }
    }
}

/// What iptables can express here.
fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.log = true;
    capabilities
}

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

fn isolated(rendered: Rendered) -> Vec<(EndpointId, DataplaneError)> {
    let error = |error: Arc<IptablesError>| {
        DataplaneError::new(error.kind(), "program an endpoint").with_source(error)
    };
    rendered.isolated.into_iter().map(|(id, cause)| (id, error(cause))).collect()
}

/// Returns one line for each object that is missing, changed or too many.
fn described(observed: &Observed, plan: &Plan) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for change in plan.prepare.iter().chain(&plan.members) {
        let set = change.set();
        let what = if observed.sets.contains_key(set) { "was changed" } else { "is missing" };
        lines.insert(format!("set `{set}` {what}"));
    }
    for (family, changes) in &plan.switch {
        for chain in changes.iter().map(ChainChange::name) {
            let found = observed.chain(*family, chain).is_some();
            let what = if found { "was changed" } else { "is missing" };
            lines.insert(format!("{family} chain `{chain}` {what}"));
        }
    }
    for HookChange { family, hook, misplaced, .. } in &plan.hooks {
        let what = if misplaced.is_empty() { "is missing" } else { "is not the first" };
        lines.insert(format!("{family} jump from `{hook}` {what}"));
    }
    for (family, chains) in &plan.sweep_chains {
        lines.extend(chains.iter().map(|chain| format!("{family} chain `{chain}` is too many")));
    }
    lines.extend(plan.sweep_sets.iter().map(|set| format!("set `{set}` is too many")));
    lines.into_iter().collect()
}

/// Returns the rule whose id is written so.
fn rule_id(text: &str) -> Option<RuleId> {
    let mut bytes = [0; Digest::LEN];
    if text.len() != Digest::LEN * 2 {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(RuleId::new(Digest::from_bytes(bytes)))
}
