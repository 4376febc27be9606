//! The dataplane: what happens when, on top of the pure parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netpol_core::model::EndpointId;
use netpol_core::net::Family;
use netpol_core::program::{Digest, Endpoint, RuleId};
use netpol_core::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Drift,
    Program, Update,
};
use netpol_netfilter::Holders;

use crate::error::IptablesError;
use crate::name::{Fixed, Name, Owner};
use crate::observe::{Observed, Table, sets, table};
use crate::plan::{
    ChainChange, HookChange, Plan, SetChange, plan, plan_isolation, second_slots, switched,
    together,
};
use crate::probe::{self, Clues, Flavour, PodNetwork, TableName};
use crate::render::{Context, Disposition, Lists, PolicyUse, Rendered, keys, render};
use crate::restore::{chain_script, hook_script, removal_scripts, set_script, undo_script};
use crate::ruleset::Key;
use crate::transport::{Processes, Tools, Variant};

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
    /// Who had which address by the last update, as far as this process knows.
    holders: Holders,
    /// The addresses whose flows must still be forgotten.
    ended: BTreeSet<IpAddr>,
}

impl IptablesDataplane {
    /// Opens the dataplane. What an earlier one left in force stays in force.
    ///
    /// # Errors
    ///
    /// [`IptablesError`] if this host cannot enforce: a tool is not installed, no permission, bridged pods that netfilter
    /// does not see, or chains of ours in the other flavour.
    pub fn open(config: IptablesConfig) -> Result<Self, IptablesError> {
        let families = probe::families();
        probe::check_bridge(config.pods, &families)?;
        let tools = Processes::start(config.time_limit)?;
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
        let moved = !table(owner, config.table.other().as_str(), listing).is_empty();
        tools.save_sets()?;
        let capabilities = capabilities();
        let (holders, ended) = Default::default();
        Ok(Self { tools, config, flavour, families, capabilities, moved, holders, ended })
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
            tables.insert(family, table(&self.config.owner, name.as_str(), &listing));
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

    /// Isolates the endpoints that the chains do not know, and changes nothing else.
    fn isolate(&mut self, endpoints: &[Endpoint]) -> Result<(), IptablesError> {
        let mut conflicts = 0;
        loop {
            let observed = Observed { tables: self.tables()?, ..Observed::default() };
            let plan = self.isolation(endpoints, &observed);
            match self.execute(&plan, &observed) {
                Err(failed) if failed.is_conflict() && conflicts < CONFLICTS => conflicts += 1,
                Err(failed) => return Err(failed.error),
                Ok(()) => {
                    let known = known_keys(&self.config.owner, &observed);
                    let unknown = |it: &&Endpoint| !keys(it).iter().all(|key| known.contains(key));
                    let unknown = endpoints.iter().filter(unknown);
                    self.ended.extend(unknown.flat_map(|it| &it.addresses));
                    return Ok(());
                }
            }
        }
    }

    /// Forgets the flows of addresses that changed hands, and returns how many those were. What fails is tried again with
    /// the next update.
    fn end_flows(&mut self) -> u64 {
        if self.ended.is_empty() {
            return 0;
        }
        let forgotten = self.tools.forget_flows(&self.ended);
        if forgotten.is_ok() {
            self.ended.clear();
        }
        forgotten.unwrap_or_default()
    }

    fn isolation(&self, endpoints: &[Endpoint], observed: &Observed) -> Plan {
        let owner = &self.config.owner;
        let known = known_keys(owner, observed);
        let mut lists = Lists::default();
        for keys in endpoints.iter().map(keys) {
            let new: Vec<Key> = keys.into_iter().filter(|key| !known.contains(key)).collect();
            lists.add(&new, &Disposition::Isolated);
        }
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
            outcome.map_err(Failed::elsewhere)?;
            done.families.push(family);
        }
        for hook in &plan.hooks {
            let variant = self.variant(hook.family);
            let outcome = if hook.misplaced.is_empty() {
                self.tools.insert_jump(variant, table, hook.hook, &hook.chain)
            } else {
                self.tools.restore(variant, &hook_script(table, hook))
            };
            outcome.map_err(Failed::elsewhere)?;
            done.hooks.extend(hook.misplaced.is_empty().then(|| hook.clone()));
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
        self.destroy(&plan.sweep_sets);
    }

    /// Destroys sets, as many as possible.
    fn destroy(&mut self, names: &[Name]) {
        let changes: Vec<SetChange> =
            names.iter().map(|set| SetChange::Destroy { set: set.clone() }).collect();
        if changes.is_empty() || self.tools.restore_sets(&set_script(&changes)).is_ok() {
            return;
        }
        for change in changes {
            let _result = self.tools.restore_sets(&set_script(&[change]));
        }
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
            for table in [self.config.table, self.config.table.other()] {
                self.clear(flavour, table)?;
            }
        }
        let sets = sets(&self.config.owner, &self.tools.save_sets()?);
        let destroy: Vec<SetChange> =
            sets.into_keys().map(|set| SetChange::Destroy { set }).collect();
        if destroy.is_empty() {
            return Ok(());
        }
        self.tools.restore_sets(&set_script(&destroy))
    }

    /// Removes our jumps and chains from a table.
    fn clear(&mut self, flavour: Flavour, name: TableName) -> Result<(), IptablesError> {
        for family in self.families.clone() {
            let variant = Variant { flavour, family };
            // A listing of all tables makes none, as one of a table of the legacy flavour would.
            let Some(listing) = installed(self.tools.save(variant, None))? else { continue };
            let found = table(&self.config.owner, name.as_str(), &listing);
            for (hook, jumps) in &found.hooks {
                for (_, chain) in jumps {
                    self.tools.delete_jump(variant, name, hook, chain)?;
                }
            }
            let chains: Vec<Name> = found.chains.into_keys().collect();
            if !chains.is_empty() {
                for script in removal_scripts(name, &chains) {
                    self.tools.restore(variant, &script)?;
                }
            }
        }
        Ok(())
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
                let holders = Holders::of(&program, &applied.isolated);
                self.ended.append(&mut self.holders.ended_by(&holders));
                self.holders = holders;
            }
            _ => {
                let kind = DataplaneErrorKind::Unsupported;
                return Err(DataplaneError::new(kind, "apply this kind of update"));
            }
        }
        applied.revoked = self.end_flows();
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

/// What iptables can express here. Established flows cannot be stopped yet.
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

/// Returns the keys of all endpoints that are known in the tables.
fn known_keys(owner: &Owner, observed: &Observed) -> BTreeSet<Key> {
    let list = owner.chain(Fixed::Endpoints);
    let chains = observed.tables.values().filter_map(|table| table.chains.get(&list));
    chains.flat_map(|chain| &chain.rules).filter_map(|rule| rule.key).collect()
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
