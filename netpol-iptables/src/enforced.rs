//! What deltas need to know of the program in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::program::AddressSet;
use netpol_core::{Delta, MembersChange, Program};
use netpol_netfilter::{Effect, Lookups, Way};

use crate::name::{Members, Name, Owner, Side, Slot};
use crate::plan::{HOSTS, Plan, SetChange, desired_dispatch, reachable};
use crate::render::{can_be_member, families};
use crate::ruleset::{Action, Chain, End, Fields, Match, Member, Ruleset, Sense, Verdict};

/// An index of the program in force.
#[derive(Debug)]
pub(crate) struct Enforced {
    owner: Owner,
    /// The families of which there are addresses; rules are made for these.
    families: BTreeSet<Family>,
    /// The sets of exact members.
    sets: BTreeSet<Name>,
    /// What is looked up below each policy that judges endpoints, and below what judges hosts in each table.
    policies: Vec<BTreeMap<Name, Looked>>,
}

/// What is looked up in one set.
type Looked = Lookups<(End, Fields)>;

/// How the members of a set change.
#[derive(Debug)]
struct Change {
    come: Vec<Member>,
    go: Vec<Member>,
}

impl Enforced {
    /// Returns the index of a program that is in force as it was rendered.
    pub(crate) fn of(owner: &Owner, program: &Program, ruleset: &Ruleset) -> Self {
        let mut policies = Vec::new();
        for chains in ruleset.chains.values() {
            let lists =
                Side::BOTH.map(|side| desired_dispatch(chains, &owner.chain(side.dispatch())));
            let roots: BTreeSet<&Name> =
                lists.into_iter().flat_map(BTreeMap::into_values).collect();
            policies.extend(roots.into_iter().map(|root| lookups(chains, [root])));
            // A packet may meet all chains of host endpoints in a table.
            policies.push(lookups(chains, &HOSTS.map(|it| owner.chain(it))));
        }
        policies.retain(|it| !it.is_empty());
        let slotted = ruleset.sets.keys().filter(|it| owner.other_slot(it).is_some());
        let (owner, families) = (owner.clone(), families(program));
        Self { owner, families, sets: slotted.cloned().collect(), policies }
    }

    /// Returns the changes of sets by which a delta can be put in force; `None` if more has to change, or if packets would
    /// meet neither the old members nor the new ones.
    pub(crate) fn plan(&self, delta: &Delta) -> Option<Plan> {
        if !changes_members_only(delta) || families(&delta.program) != self.families {
            return None;
        }
        let mut changed: BTreeMap<Name, Change> = BTreeMap::new();
        for change in &delta.members {
            let set = delta.program.address_sets.get(&change.set)?;
            for family in Family::BOTH {
                changed.extend(self.change(change, set, family));
            }
        }
        let is_torn = |policy: &BTreeMap<Name, Looked>| {
            let seen = changed
                .iter()
                .filter_map(|(name, it)| Some((*policy.get(name)?, Way::of(&it.come, &it.go))));
            Lookups::are_torn(&seen.collect::<Vec<_>>())
        };
        if self.policies.iter().any(is_torn) {
            return None;
        }
        let mut plan = Plan::default();
        for (set, Change { come, go }) in changed {
            let add = |&member: &Member| SetChange::Add { set: set.clone(), member };
            let remove = |&member: &Member| SetChange::Remove { set: set.clone(), member };
            plan.members.extend(come.iter().map(add).chain(go.iter().map(remove)));
            plan.members_back.extend(go.iter().map(add).chain(come.iter().map(remove)));
        }
        Some(plan)
    }

    /// Returns how a set changes in a family; `None` if it does not, or if no rule refers to it.
    fn change(
        &self,
        change: &MembersChange,
        set: &AddressSet,
        family: Family,
    ) -> Option<(Name, Change)> {
        let transport = set.definition.transport();
        let kind = if transport.is_some() { Members::NamedPorts } else { Members::Addresses };
        let slots = [Slot::First, Slot::Second];
        let names = slots.map(|it| self.owner.members(family, kind, change.set, it));
        let name = names.into_iter().find(|it| self.sets.contains(it))?;
        let members = |addresses: &[IpAddr], ports: &[(IpAddr, u16)]| -> Vec<Member> {
            let addresses = addresses.iter().filter(|it| can_be_member(**it, family));
            let ports = ports.iter().filter(|it| can_be_member(it.0, family));
            let port = |it: &(IpAddr, u16)| Some(Member::Port(it.0, transport?, it.1));
            addresses.map(|it| Member::Address(*it)).chain(ports.filter_map(port)).collect()
        };
        let come = members(&change.addresses.added, &change.ports.added);
        let go = members(&change.addresses.removed, &change.ports.removed);
        (!come.is_empty() || !go.is_empty()).then_some((name, Change { come, go }))
    }
}

fn changes_members_only(delta: &Delta) -> bool {
    delta.members.iter().all(|it| it.prefixes.is_empty())
        && delta.endpoints.is_empty()
        && delta.removed_endpoints.is_empty()
        && delta.hosts.is_none()
        && delta.new_sets.is_empty()
        && delta.removed_sets.is_empty()
        && delta.new_policy_sets.is_empty()
        && delta.removed_policy_sets.is_empty()
}

/// Returns what is looked up in the chains that these lead to.
fn lookups<'d>(
    chains: &'d BTreeMap<Name, Chain>,
    roots: impl IntoIterator<Item = &'d Name>,
) -> BTreeMap<Name, Looked> {
    let below: BTreeSet<_> = roots.into_iter().flat_map(|it| reachable(chains, it)).collect();
    let mut all: BTreeMap<Name, Looked> = BTreeMap::new();
    for rule in below.into_iter().filter_map(|it| chains.get(it)).flat_map(|it| &it.rules) {
        for it in &rule.matches {
            if let Match::Member { end, fields, set, sense } = it {
                let lookup = Lookups::once((*end, *fields), effect(&rule.action, *sense));
                all.entry(set.clone()).and_modify(|it| it.join(lookup)).or_insert(lookup);
            }
        }
    }
    all
}

fn effect(action: &Action, sense: Sense) -> Option<Effect> {
    let of_members = match action {
        Action::Verdict(Verdict::Return) => Effect::Widens,
        Action::Verdict(Verdict::Drop) => Effect::Narrows,
        _ => return None,
    };
    Some(match sense {
        Sense::In => of_members,
        Sense::NotIn => of_members.reversed(),
    })
}
