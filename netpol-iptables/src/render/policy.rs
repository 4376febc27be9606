//! Policy sets as chains.
//!
//! Each stage is one chain, named after its content, so that equal stages share one and an edited one is another. A
//! stage that passes on goes to the chain of the next stage and does not come back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::model::Action as PolicyAction;
use netpol_core::net::{Family, Prefix, PrefixSet};
use netpol_core::program::{
    Denial, Members as ProgramMembers, PolicySet, PolicySetId, Rule as PolicyRule, SetId, Stage,
    StageEnd,
};
use netpol_core::{Program, Verdict as PolicyVerdict};
use netpol_netfilter::Logging;

use super::base::commented;
use super::condition::{Condition, Conditions};
use super::{Context, Entries, PolicyUse, families};
use crate::error::IptablesError;
use crate::name::{Fixed, Members, Name, Side, Slot};
use crate::probe::{KernelTable, TableId};
use crate::ruleset::{
    Action, Answer, Chain, Match, Member, Rule, Ruleset, Set, Shape, Storage, Verdict,
};

/// Most chains of a policy set in a row. The kernel follows 16 chains deep and counts `goto` too, in the nft flavour
/// (`NFT_JUMP_STACK_SIZE`, `nft_chain_validate`). Up to six come before: the built-in chain, `NP-FWD`, `NP-RELATED` with
/// one below it, `NP-EGRESS` or `NP-INGRESS` with one below it; or the built-in chain, `NP-IN`, `NP-IN-ND`, `NP-HOST-IN` with
/// one below it, `NP-HOST-IN-POL`. Before conntrack there are four, and one comes after.
pub(crate) const MAX_DEPTH: usize = 10;

/// TCP as a protocol number (IANA).
pub(super) const TCP: u8 = 6;

/// Renders policy sets, each once for each side and family, with the sets that they need.
pub(crate) struct PolicyRenderer<'a> {
    program: &'a Program,
    context: Context<'a>,
    used: BTreeSet<Family>,
    ruleset: Ruleset,
    depths: BTreeMap<Name, usize>,
    users: BTreeMap<Name, BTreeSet<PolicyUse>>,
    entries: BTreeMap<PolicyUse, Result<Entries, Arc<IptablesError>>>,
    current: Option<PolicyUse>,
    /// Sets that something else than a policy set needs.
    needed: BTreeSet<Name>,
}

/// What a rule does that allows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum OnAllow {
    /// It returns to the built-in chain.
    Return,
    /// It tells conntrack to leave the packet alone, in the table `raw`.
    Untrack,
    /// It marks the packet, in the table `mangle`.
    Mark,
}

/// Where a chain of a policy set is, and what allows there.
#[derive(Clone, Copy)]
struct Part {
    side: Side,
    on_allow: OnAllow,
    family: Family,
}

/// What the rules of a stage need to know of what comes after them.
#[derive(Clone, Copy)]
struct Place<'n> {
    part: Part,
    /// The chain of the next stage.
    next: Option<&'n Name>,
    /// The verdict after the last stage.
    default: PolicyVerdict,
}

impl<'a> PolicyRenderer<'a> {
    pub(crate) fn new(program: &'a Program, context: Context<'a>) -> Self {
        Self {
            program,
            context,
            used: families(program),
            ruleset: Ruleset::default(),
            depths: BTreeMap::new(),
            users: BTreeMap::new(),
            entries: BTreeMap::new(),
            current: None,
            needed: BTreeSet::new(),
        }
    }

    /// Returns the chains where a policy set begins; none if it is open.
    pub(crate) fn entries(
        &mut self,
        side: Side,
        on_allow: OnAllow,
        id: PolicySetId,
    ) -> Result<Entries, Arc<IptablesError>> {
        let key = (side, on_allow, id);
        if let Some(known) = self.entries.get(&key) {
            return known.clone();
        }
        self.current = Some(key);
        let entries = match self.context.refused.get(&key) {
            Some(error) => Err(Arc::clone(error)),
            None => self.policy_set(side, on_allow, id).map_err(Arc::new),
        };
        self.current = None;
        self.entries.insert(key, entries.clone());
        entries
    }

    /// Returns the chains and sets of all policy sets that were asked for and can be rendered.
    pub(crate) fn finish(mut self) -> (Ruleset, BTreeMap<Name, BTreeSet<PolicyUse>>) {
        let entries = &self.entries;
        for users in self.users.values_mut() {
            users.retain(|user| entries.get(user).is_some_and(Result::is_ok));
        }
        self.users.retain(|_, users| !users.is_empty());
        let users = &self.users;
        for chains in self.ruleset.chains.values_mut() {
            chains.retain(|name, _| users.contains_key(name));
        }
        let needed = &self.needed;
        self.ruleset.sets.retain(|name, _| users.contains_key(name) || needed.contains(name));
        (self.ruleset, self.users)
    }

    fn policy_set(
        &mut self,
        side: Side,
        on_allow: OnAllow,
        id: PolicySetId,
    ) -> Result<Entries, IptablesError> {
        let program = self.program;
        let set = program
            .policy_sets
            .get(&id)
            .ok_or_else(|| IptablesError::Dangling { missing: format!("policy set {id}") })?;
        if set.is_open() {
            return Ok(Entries::new());
        }
        let families = self.context.families.iter();
        let chain = |&family: &Family| {
            let part = Part { side, on_allow, family };
            Ok(((side, family), self.stages(part, set)?))
        };
        families.map(chain).collect()
    }

    fn stages(&mut self, part: Part, set: &PolicySet) -> Result<Name, IptablesError> {
        let mut next = None;
        for stage in set.stages.iter().rev() {
            let place = Place { part, next: next.as_ref(), default: set.default };
            next = Some(self.stage(place, stage)?);
        }
        match next {
            Some(first) => Ok(first),
            None => {
                let deny = self.deny(part)?;
                self.chain(part, vec![deny])
            }
        }
    }

    /// Renders a stage from its end, because a rule can need what follows it as a chain.
    fn stage(&mut self, place: Place<'_>, stage: &Stage) -> Result<Name, IptablesError> {
        let mut rules = vec![match (stage.end, place.next, place.default) {
            (StageEnd::Deny, ..) | (StageEnd::Next, None, PolicyVerdict::Deny) => {
                self.deny(place.part)?
            }
            (StageEnd::Next, ..) => {
                commented("next", Vec::new(), Action::Verdict(self.onward(place)?))
            }
        }];
        for rule in stage.rules.iter().rev() {
            let Part { side, family, .. } = place.part;
            let condition = Conditions::new(self, side, family).of(rule)?;
            rules = self.before(place, rule, condition, rules)?;
        }
        self.chain(place.part, rules)
    }

    /// Returns where a flow goes that a stage passes on.
    fn onward(&mut self, place: Place<'_>) -> Result<Verdict, IptablesError> {
        match (place.next, place.default) {
            (Some(next), _) => Ok(Verdict::Goto(next.clone())),
            (None, PolicyVerdict::Allow) => Ok(Verdict::Return),
            (None, PolicyVerdict::Deny) => self.denied(place.part),
        }
    }

    /// Returns what becomes of a denied packet. Only the table `filter` can answer.
    fn denied(&mut self, part: Part) -> Result<Verdict, IptablesError> {
        match (self.program.denial, part.on_allow.table(self.context.table)) {
            (Denial::Reject, KernelTable::Filter) => {
                Ok(Verdict::Goto(self.chain(part, rejection(part.family))?))
            }
            _ => Ok(Verdict::Drop),
        }
    }

    /// Returns the rule that denies what no rule matched.
    fn deny(&mut self, part: Part) -> Result<Rule, IptablesError> {
        Ok(commented("deny", Vec::new(), Action::Verdict(self.denied(part)?)))
    }

    /// Returns the rules with one more before them.
    fn before(
        &mut self,
        place: Place<'_>,
        rule: &PolicyRule,
        condition: Condition,
        rest: Vec<Rule>,
    ) -> Result<Vec<Rule>, IptablesError> {
        let id = rule.id.to_string();
        let Condition { alternatives, excluded } = condition;
        let action = self.action(place, rule)?;
        if excluded.is_empty() || alternatives.is_empty() {
            let each = |matches| commented(&id, matches, action.clone());
            return Ok(alternatives.into_iter().map(each).chain(rest).collect());
        }
        let rest = Verdict::Goto(self.chain(place.part, rest)?);
        let onward = |matches| commented("next", matches, Action::Verdict(rest.clone()));
        let mut inner: Vec<Rule> =
            excluded.into_iter().map(|number| onward(vec![Match::Protocol(number)])).collect();
        inner.push(commented(&id, Vec::new(), action.clone()));
        if matches!(action, Action::Log { .. }) {
            inner.push(onward(Vec::new()));
        }
        let inner = Verdict::Goto(self.chain(place.part, inner)?);
        let enter = |matches| commented("next", matches, Action::Verdict(inner.clone()));
        Ok(alternatives.into_iter().map(enter).chain([onward(Vec::new())]).collect())
    }

    fn action(&mut self, place: Place<'_>, rule: &PolicyRule) -> Result<Action, IptablesError> {
        let part = place.part;
        Ok(Action::Verdict(match rule.action {
            PolicyAction::Allow => match part.on_allow {
                OnAllow::Return => Verdict::Return,
                OnAllow::Untrack => Verdict::Goto(self.context.owner.chain(Fixed::Untrack)),
                OnAllow::Mark => Verdict::Goto(self.context.owner.chain(Fixed::Mark)),
            },
            PolicyAction::Deny => self.denied(part)?,
            PolicyAction::Pass => self.onward(place)?,
            PolicyAction::Log => {
                let Logging { group, prefix, rate } = self.context.logging;
                return Ok(Action::Log {
                    group,
                    prefix: prefix.of(rule, part.side.direction()),
                    rate,
                });
            }
        }))
    }

    fn chain(&mut self, part: Part, rules: Vec<Rule>) -> Result<Name, IptablesError> {
        let chain = Chain { rules };
        let below = chain.targets().filter_map(|target| self.depths.get(target)).max();
        let depth = below.copied().unwrap_or_default() + 1;
        if depth > MAX_DEPTH {
            return Err(IptablesError::TooDeep { depth, max: MAX_DEPTH });
        }
        let name = self.context.owner.policy_chain(part.side, &chain.to_string());
        self.note_use(&name);
        self.depths.insert(name.clone(), depth);
        let table = part.on_allow.table(self.context.table);
        let id = TableId { family: part.family, table };
        self.ruleset.chains.entry(id).or_default().insert(name.clone(), chain);
        Ok(name)
    }

    fn note_use(&mut self, name: &Name) {
        match self.current {
            Some(current) => drop(self.users.entry(name.clone()).or_default().insert(current)),
            None => drop(self.needed.insert(name.clone())),
        }
    }

    /// Returns whether exact addresses of a family occur in the program at all.
    pub(super) fn uses(&self, family: Family) -> bool {
        self.used.contains(&family)
    }

    /// Returns the set of the exact addresses of a family in an address set.
    pub(super) fn exact(&mut self, id: SetId, family: Family) -> Result<Name, IptablesError> {
        let ProgramMembers::Addresses { exact, .. } = self.members(id)? else {
            return Err(not_addresses(id));
        };
        let members = exact.iter().filter(|it| can_be_member(*it, family));
        let members = members.map(Member::Address).collect();
        Ok(self.members_set(family, Members::Addresses, id, members))
    }

    /// Returns the prefixes of an address set.
    pub(super) fn prefixes(&self, id: SetId) -> Result<&'a PrefixSet, IptablesError> {
        match self.members(id)? {
            ProgramMembers::Addresses { prefixes, .. } => Ok(prefixes),
            ProgramMembers::Ports(_) => Err(not_addresses(id)),
        }
    }

    /// Returns the set of the ports of a family in a named port.
    pub(super) fn named_ports(&mut self, id: SetId, family: Family) -> Result<Name, IptablesError> {
        let missing = || IptablesError::Dangling { missing: format!("set {id} as a set of ports") };
        let set = self.program.address_sets.get(&id).ok_or_else(missing)?;
        let (ProgramMembers::Ports(ports), Some(transport)) =
            (&set.members, set.definition.transport())
        else {
            return Err(missing());
        };
        let ports = ports.iter().filter(|(address, _)| can_be_member(*address, family));
        let member = |&(address, port): &(IpAddr, u16)| Member::Port(address, transport, port);
        Ok(self.members_set(family, Members::NamedPorts, id, ports.map(member).collect()))
    }

    /// Returns the set of these prefixes, which must be disjoint, and not everything.
    pub(super) fn prefix_set(
        &mut self,
        family: Family,
        prefixes: impl Iterator<Item = Prefix>,
    ) -> Name {
        let mut members: Vec<Member> = prefixes.map(Member::Prefix).collect();
        members.sort_unstable();
        let content: Vec<String> = members.iter().map(Member::to_string).collect();
        let name = self.context.owner.prefixes(family, &content.join(" "));
        self.note_use(&name);
        let shape = Shape { storage: Storage::Prefixes, family };
        self.ruleset.sets.entry(name.clone()).or_insert(Set { shape, members });
        name
    }

    fn members_set(
        &mut self,
        family: Family,
        kind: Members,
        id: SetId,
        mut members: Vec<Member>,
    ) -> Name {
        let mut name = self.context.owner.members(family, kind, id, Slot::First);
        if self.context.second_slots.contains(&name) {
            name = self.context.owner.members(family, kind, id, Slot::Second);
        }
        self.note_use(&name);
        let storage = match kind {
            Members::Addresses => Storage::Addresses,
            Members::NamedPorts => Storage::Ports,
        };
        let shape = Shape { storage, family };
        members.sort_unstable();
        members.dedup();
        self.ruleset.sets.entry(name.clone()).or_insert(Set { shape, members });
        name
    }

    fn members(&self, id: SetId) -> Result<&'a ProgramMembers, IptablesError> {
        let set = self.program.address_sets.get(&id);
        let missing = || IptablesError::Dangling { missing: format!("set {id}") };
        set.map(|set| &set.members).ok_or_else(missing)
    }
}

impl OnAllow {
    /// Returns the table of chains whose rules do so, where endpoints are judged in `main`.
    pub(super) const fn table(self, main: KernelTable) -> KernelTable {
        match self {
            Self::Return => main,
            Self::Untrack => KernelTable::Raw,
            Self::Mark => KernelTable::Mangle,
        }
    }
}

fn not_addresses(id: SetId) -> IptablesError {
    IptablesError::Dangling { missing: format!("set {id} as a set of addresses") }
}

/// Returns whether a set takes an address. A hash set refuses the unspecified one, which no packet that is forwarded
/// carries.
pub(crate) fn can_be_member(address: IpAddr, family: Family) -> bool {
    Family::of(address) == family && !address.is_unspecified()
}

/// Returns the rules that deny a packet and say so.
fn rejection(family: Family) -> Vec<Rule> {
    vec![
        commented("reject", vec![Match::Protocol(TCP)], Action::Reject(Answer::Reset)),
        commented("reject", Vec::new(), Action::Reject(Answer::Prohibited(family))),
    ]
}
