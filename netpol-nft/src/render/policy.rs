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
use super::condition::Conditions;
use super::{Context, PolicyUse, address_key, families};
use crate::error::NftError;
use crate::name::{Members, Name, Place, Ranges, Side, SizeClass};
use crate::ruleset::{
    Action, Answer, Chain, Elements, Key, KeyType, Match, Rule, Ruleset, Set, Storage, Verdict,
};

/// Most stages of a policy set. The kernel follows 16 chains deep and counts `goto` too
/// (`NFT_JUMP_STACK_SIZE`, `nft_chain_validate`); the first is the base chain, and the second may be that of the hosts.
pub(crate) const MAX_STAGES: usize = 13;

/// TCP as a protocol number (IANA).
pub(super) const TCP: u8 = 6;

/// What happens to a packet that a rule allows, before it goes back to where policy was asked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum OnAllow {
    /// Nothing.
    Return,
    /// Conntrack leaves it alone.
    Untrack,
    /// It gets these bits of the mark.
    Mark(u32),
}

impl OnAllow {
    fn action(self) -> Action {
        match self {
            Self::Return => Action::Verdict(Verdict::Return),
            Self::Untrack => Action::Untrack,
            Self::Mark(bits) => Action::Mark(bits),
        }
    }
}

/// Which direction a policy set judges, and what allows there.
#[derive(Clone, Copy)]
struct Part {
    side: Side,
    on_allow: OnAllow,
}

/// Renders policy sets, each once for each side, with the sets that they need.
pub(crate) struct PolicyRenderer<'a> {
    program: &'a Program,
    context: &'a Context<'a>,
    families: BTreeSet<Family>,
    /// Sets that are there already with their members.
    filled: Option<&'a BTreeMap<Name, usize>>,
    ruleset: Ruleset,
    users: BTreeMap<Name, BTreeSet<PolicyUse>>,
    entries: BTreeMap<PolicyUse, Result<Option<Name>, Arc<NftError>>>,
    current: Option<PolicyUse>,
}

/// Rendered policy sets.
#[derive(Debug)]
pub(crate) struct Policies {
    /// Their chains and sets.
    pub(crate) ruleset: Ruleset,
    /// Which of them need a chain or set.
    pub(crate) users: BTreeMap<Name, BTreeSet<PolicyUse>>,
    /// Where each begins, `None` if it is open.
    pub(crate) entries: BTreeMap<PolicyUse, Option<Name>>,
}

impl<'a> PolicyRenderer<'a> {
    pub(crate) fn new(program: &'a Program, context: &'a Context<'a>) -> Self {
        Self {
            program,
            context,
            families: families(program),
            filled: None,
            ruleset: Ruleset::default(),
            users: BTreeMap::new(),
            entries: BTreeMap::new(),
            current: None,
        }
    }

    /// Returns a renderer for part of a program in which addresses of these families occur. Sets of exact members that are
    /// among `filled` come out empty.
    pub(crate) fn beside(
        program: &'a Program,
        context: &'a Context<'a>,
        families: BTreeSet<Family>,
        filled: &'a BTreeMap<Name, usize>,
    ) -> Self {
        let (ruleset, users, entries) = Default::default();
        let filled = Some(filled);
        Self { program, context, families, filled, ruleset, users, entries, current: None }
    }

    /// Returns the chain that judges by a policy set, `None` if the set is open.
    pub(crate) fn entry(
        &mut self,
        side: Side,
        on_allow: OnAllow,
        id: PolicySetId,
    ) -> Result<Option<Name>, Arc<NftError>> {
        let key = (side, on_allow, id);
        if let Some(known) = self.entries.get(&key) {
            return known.clone();
        }
        self.current = Some(key);
        let entry = match self.context.refused.get(&key) {
            Some(error) => Err(Arc::clone(error)),
            None => self.policy_set(side, on_allow, id).map_err(Arc::new),
        };
        self.entries.insert(key, entry.clone());
        entry
    }

    /// Returns a chain that denies everything.
    pub(super) fn closed(&mut self, side: Side) -> Name {
        self.current = None;
        self.chain(side, vec![deny(Verdict::Drop)])
    }

    /// Returns the chains and sets of all policy sets that were asked for.
    pub(crate) fn finish(self) -> Policies {
        let entries = self.entries.into_iter().filter_map(|(key, entry)| Some((key, entry.ok()?)));
        Policies { ruleset: self.ruleset, users: self.users, entries: entries.collect() }
    }

    fn policy_set(
        &mut self,
        side: Side,
        on_allow: OnAllow,
        id: PolicySetId,
    ) -> Result<Option<Name>, NftError> {
        let program = self.program;
        let set = program
            .policy_sets
            .get(&id)
            .ok_or_else(|| NftError::Dangling { missing: format!("policy set {id}") })?;
        if set.is_open() {
            return Ok(None);
        }
        if set.stages.len() > MAX_STAGES {
            return Err(NftError::TooManyStages { stages: set.stages.len(), max: MAX_STAGES });
        }
        let part = Part { side, on_allow };
        let mut next = self.default_chain(part, set);
        for stage in set.stages.iter().rev() {
            let rules = self.stage(part, stage, (next.as_ref(), set.default))?;
            next = Some(self.chain(side, rules));
        }
        Ok(next)
    }

    /// Returns a chain for the default verdict of a policy set without stages.
    fn default_chain(&mut self, part: Part, set: &PolicySet) -> Option<Name> {
        let rule = set.stages.is_empty().then(|| deny(self.denied(part)))?;
        Some(self.chain(part.side, vec![rule]))
    }

    fn stage(
        &mut self,
        part: Part,
        stage: &Stage,
        (next, default): (Option<&Name>, PolicyVerdict),
    ) -> Result<Vec<Rule>, NftError> {
        let mut rules = Vec::new();
        for rule in &stage.rules {
            let id = rule.id.to_string();
            for matches in Conditions::new(self, part.side).of(rule)? {
                let action = match rule.action {
                    PolicyAction::Allow => part.on_allow.action(),
                    PolicyAction::Deny => Action::Verdict(self.denied(part)),
                    PolicyAction::Pass => Action::Verdict(self.onward(part, next, default)),
                    PolicyAction::Log => self.log(part.side, rule),
                };
                rules.push(commented(&id, matches, action));
            }
        }
        rules.push(match (stage.end, next, default) {
            (StageEnd::Deny, ..) | (StageEnd::Next, None, PolicyVerdict::Deny) => {
                deny(self.denied(part))
            }
            (StageEnd::Next, ..) => {
                let onward = self.onward(part, next, default);
                commented("next", Vec::new(), Action::Verdict(onward))
            }
        });
        Ok(rules)
    }

    /// Returns where a flow goes that a stage passes on.
    fn onward(&mut self, part: Part, next: Option<&Name>, default: PolicyVerdict) -> Verdict {
        match (next, default) {
            (Some(next), _) => Verdict::Goto(next.clone()),
            (None, PolicyVerdict::Allow) => Verdict::Return,
            (None, PolicyVerdict::Deny) => self.denied(part),
        }
    }

    /// Returns what becomes of a denied packet. Before conntrack and before destination NAT nothing can be answered.
    fn denied(&mut self, part: Part) -> Verdict {
        match (self.program.denial, part.on_allow) {
            (Denial::Reject, OnAllow::Return) => Verdict::Goto(self.chain(part.side, rejection())),
            _ => Verdict::Drop,
        }
    }

    fn log(&self, side: Side, rule: &PolicyRule) -> Action {
        let Logging { group, prefix, rate } = self.context.options.logging;
        Action::Log { group, prefix: prefix.of(rule, side.direction()), rate }
    }

    fn chain(&mut self, side: Side, rules: Vec<Rule>) -> Name {
        let chain = Chain { base: None, rules };
        let name = Name::stage(side, &chain.to_string());
        self.note_use(&name);
        self.ruleset.chains.entry(name.clone()).or_insert(chain);
        name
    }

    fn note_use(&mut self, name: &Name) {
        if let Some(current) = self.current {
            self.users.entry(name.clone()).or_default().insert(current);
        }
    }

    /// Returns whether exact addresses of a family occur in the program at all.
    pub(super) fn uses(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    /// Returns the set of the exact addresses of a family in an address set.
    pub(super) fn exact(&mut self, id: SetId, family: Family) -> Result<Name, NftError> {
        let ProgramMembers::Addresses { exact, .. } = self.members(id)? else {
            return Err(not_addresses(id));
        };
        let keys = exact.iter().filter(|address| Family::of(*address) == family).map(address_key);
        Ok(self.members_set(Members::Addresses, family, id, exact.len_of(family), keys))
    }

    /// Returns the prefixes of an address set.
    pub(super) fn prefixes(&self, id: SetId) -> Result<&'a PrefixSet, NftError> {
        match self.members(id)? {
            ProgramMembers::Addresses { prefixes, .. } => Ok(prefixes),
            ProgramMembers::Ports(_) => Err(not_addresses(id)),
        }
    }

    /// Returns the set of the ports of a family in a named port.
    pub(super) fn named_ports(&mut self, id: SetId, family: Family) -> Result<Name, NftError> {
        let missing = || NftError::Dangling { missing: format!("set {id} as a set of ports") };
        let set = self.program.address_sets.get(&id).ok_or_else(missing)?;
        let (ProgramMembers::Ports(ports), Some(transport)) =
            (&set.members, set.definition.transport())
        else {
            return Err(missing());
        };
        let protocol = transport.protocol().number();
        let ports = ports.iter().filter(|(address, _)| Family::of(*address) == family);
        let keys = ports.clone().map(|&(address, port)| target_key(address, protocol, port));
        Ok(self.members_set(Members::NamedPorts, family, id, ports.count(), keys))
    }

    /// Returns the immutable set of these prefixes, which must be disjoint and sorted.
    pub(super) fn prefix_set(
        &mut self,
        family: Family,
        prefixes: impl Iterator<Item = Prefix>,
    ) -> Name {
        let ranges =
            prefixes.map(|prefix| (address_key(prefix.first()), address_key(prefix.last())));
        let elements = Elements::Ranges(merged(ranges));
        self.ranges_set(Ranges::Prefixes(family), KeyType::Address(family), elements)
    }

    /// Returns the immutable set of these ranges of ports, which must be disjoint and sorted.
    pub(super) fn port_set(&mut self, ranges: impl Iterator<Item = (u16, u16)>) -> Name {
        let elements = Elements::Ranges(
            ranges.map(|(first, last)| (Key::Port(first), Key::Port(last))).collect(),
        );
        self.ranges_set(Ranges::Ports, KeyType::Port, elements)
    }

    fn ranges_set(&mut self, kind: Ranges, key: KeyType, elements: Elements) -> Name {
        let set = Set { key, storage: Storage::Interval, elements };
        let name = Name::ranges(kind, &set.to_string());
        self.note_use(&name);
        self.ruleset.sets.entry(name.clone()).or_insert(set);
        name
    }

    fn members_set(
        &mut self,
        kind: Members,
        family: Family,
        id: SetId,
        members: usize,
        keys: impl Iterator<Item = Key>,
    ) -> Name {
        let id = id.to_string();
        let stem = Name::members_stem(kind, family, &id);
        let place = self.context.places.get(&stem).copied();
        let class = SizeClass::kept_or_new(place.map(|it| it.class), members);
        let slot = place.map(|it| it.slot).unwrap_or_default();
        let name = Name::members(kind, family, &id, Place { class, slot });
        let key = kind.key_type(family);
        self.note_use(&name);
        let is_filled = self.filled.is_some_and(|it| it.contains_key(&name));
        self.ruleset.sets.entry(name.clone()).or_insert_with(|| {
            let elements =
                if is_filled { Elements::Keys(Vec::new()) } else { Elements::keys(keys) };
            Set { key, storage: Storage::hash(class), elements }
        });
        name
    }

    fn members(&self, id: SetId) -> Result<&'a ProgramMembers, NftError> {
        let set = self.program.address_sets.get(&id);
        set.map(|set| &set.members)
            .ok_or_else(|| NftError::Dangling { missing: format!("set {id}") })
    }
}

pub(crate) fn target_key(address: IpAddr, protocol: u8, port: u16) -> Key {
    match address {
        IpAddr::V4(address) => Key::Target4(address, protocol, port),
        IpAddr::V6(address) => Key::Target6(address, protocol, port),
    }
}

fn not_addresses(id: SetId) -> NftError {
    NftError::Dangling { missing: format!("set {id} as a set of addresses") }
}

/// Returns the rule that denies what no rule matched.
fn deny(denied: Verdict) -> Rule {
    commented("deny", Vec::new(), Action::Verdict(denied))
}

/// Returns the rules that deny a packet and say so.
fn rejection() -> Vec<Rule> {
    vec![
        commented("reject", vec![Match::Protocol(TCP)], Action::Reject(Answer::Reset)),
        commented("reject", Vec::new(), Action::Reject(Answer::Prohibited)),
    ]
}

/// Joins ranges that follow each other without a gap.
fn merged(ranges: impl Iterator<Item = (Key, Key)>) -> Vec<(Key, Key)> {
    let mut merged: Vec<(Key, Key)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if follows(*end, first) => *end = last,
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn follows(end: Key, first: Key) -> bool {
    match (end, first) {
        (Key::V4(end), Key::V4(first)) => end.to_bits().checked_add(1) == Some(first.to_bits()),
        (Key::V6(end), Key::V6(first)) => end.to_bits().checked_add(1) == Some(first.to_bits()),
        _ => false,
    }
}
