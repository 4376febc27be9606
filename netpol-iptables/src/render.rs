//! The chains and sets that enforce a program. Pure.
//!
//! | objects | what they are |
//! |---|---|
//! | `NP-FWD`, `NP-IN`, `NP-OUT` | where the built-in chains jump to; see [`base`] for all chains that are always there |
//! | `NP-HOST-…`, `NP-RAW-…`, `NP-DNAT` | what judges traffic of the node's own interfaces; see [`hosts`] |
//! | `NP-EGRESS`, `NP-INGRESS` | lead each endpoint's packets to the chain of its policy set |
//! | `NP-L-<digest>` | parts of the lists of endpoints, named after their content |
//! | `NP-E-<digest>`, `NP-I-<digest>` | the stages of policy sets, named after their content |
//! | `np4s-<set>`, `np6s-…`; `np4t-…` | `hash:ip`: the exact members of an address set, in the first or second slot |
//! | `np4q-<set>`, `np6q-…`; `np4r-…` | `hash:ip,port`: the ports of a name, in the first or second slot |
//! | `np4c-<digest>`, `np6c-<digest>` | `hash:net`: prefixes; these sets never change |
//! | `np4x-…`, `np6x-…` | the new content of a set, until it is swapped with the old one |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::Program;
use netpol_core::model::{Attachment, EndpointId, Mode};
use netpol_core::net::Family;
use netpol_core::program::{Endpoint, Members as ProgramMembers, PolicySetId};
use netpol_netfilter::Logging;

use crate::error::IptablesError;
use crate::name::{Name, Owner, Side};
use crate::probe::{KernelTable, TableId};
use crate::ruleset::{Chain, Interface, Key, Ruleset};

mod base;
mod condition;
mod hosts;
mod policy;
mod tree;
mod unknown;

pub(crate) use self::base::{Lists, hook_chains};
use self::hosts::HostRenderer;
pub(crate) use self::hosts::{check_hosts, tables_of_hosts};
#[cfg(test)]
pub(crate) use self::policy::MAX_DEPTH;
pub(crate) use self::policy::{OnAllow, PolicyRenderer, can_be_member};

/// A policy set as rendered for one direction.
pub(crate) type PolicyUse = (Side, OnAllow, PolicySetId);

/// What render needs besides the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) owner: &'a Owner,
    /// The families that this host has.
    pub(crate) families: &'a [Family],
    /// The table where endpoints are judged.
    pub(crate) table: KernelTable,
    /// The bits that mark what policy before destination NAT has allowed.
    pub(crate) mark: u32,
    /// What Log rules write.
    pub(crate) logging: Logging,
    /// The sets, by their name in the first slot, whose second slot is to be used.
    pub(crate) second_slots: &'a BTreeSet<Name>,
    /// Policy sets that the kernel refused; their endpoints are isolated.
    pub(crate) refused: &'a BTreeMap<PolicyUse, Arc<IptablesError>>,
}

/// A rendered program.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// All that must be in the kernel.
    pub(crate) ruleset: Ruleset,
    /// Endpoints that are isolated because theirs could not be rendered.
    pub(crate) isolated: Vec<(EndpointId, Arc<IptablesError>)>,
    /// Which policy sets need a chain or set.
    pub(crate) users: BTreeMap<Name, BTreeSet<PolicyUse>>,
}

/// Returns the chains and sets that enforce a program. Endpoints whose part cannot be rendered are isolated.
pub(crate) fn render(program: &Program, context: Context<'_>) -> Rendered {
    let mut policies = PolicyRenderer::new(program, context);
    let mut lists = Lists::new(&program.unknown);
    let mut isolated = Vec::new();
    let conflicts = conflicts(&program.endpoints);
    for endpoint in &program.endpoints {
        let disposition = match conflicts.get(&endpoint.id) {
            Some(error) => Err(Arc::clone(error)),
            None => disposition(endpoint, &mut policies),
        };
        let disposition = disposition.unwrap_or_else(|error| {
            isolated.push((endpoint.id.clone(), error));
            Disposition::Isolated
        });
        lists.add(endpoint, &disposition);
    }
    let (hosts, closed) = HostRenderer::new(program, &mut policies, context).chains();
    isolated.extend(closed);
    let (mut ruleset, users) = policies.finish();
    let mut others = hosts;
    for &family in context.families {
        let id = TableId { family, table: context.table };
        let mut chains = lists.chains(context.owner, family);
        // Those of host endpoints are there in any case, and empty without them.
        chains.extend(others.remove(&id).unwrap_or_default());
        others.insert(id, chains);
    }
    prune(&mut ruleset, &others);
    for (id, chains) in others {
        ruleset.chains.entry(id).or_default().extend(chains);
    }
    Rendered { ruleset, isolated, users }
}

/// Removes the chains of policy that nothing leads to, such as those of a stage after one that always decides, and the sets
/// that only they need. What is not in force has no slot that it could keep.
fn prune(ruleset: &mut Ruleset, others: &BTreeMap<TableId, BTreeMap<Name, Chain>>) {
    let mut sets: BTreeSet<Name> = BTreeSet::new();
    let mut note = |chain: &Chain| sets.extend(chain.sets().into_iter().cloned());
    others.values().flat_map(BTreeMap::values).for_each(&mut note);
    for (id, chains) in &mut ruleset.chains {
        let roots = others.get(id).into_iter().flat_map(BTreeMap::values);
        let mut todo: Vec<&Name> = roots.flat_map(Chain::targets).collect();
        let mut reached: BTreeSet<Name> = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if let Some(chain) = chains.get(name)
                && reached.insert(name.clone())
            {
                note(chain);
                todo.extend(chain.targets());
            }
        }
        chains.retain(|name, _| reached.contains(name));
    }
    ruleset.sets.retain(|name, _| sets.contains(name));
}

/// Returns the families of addresses that occur in a program: of the other one, exact members cannot match.
pub(crate) fn families(program: &Program) -> BTreeSet<Family> {
    let endpoints = program.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).copied();
    let members = program.address_sets.values().flat_map(|set| {
        let has = |family| match &set.members {
            ProgramMembers::Addresses { exact, .. } => exact.len_of(family) > 0,
            ProgramMembers::Ports(ports) => ports.iter().any(|it| Family::of(it.0) == family),
        };
        Family::BOTH.into_iter().filter(move |family| has(*family))
    });
    endpoints.map(Family::of).chain(members).collect()
}

/// What happens to an endpoint's packets.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// They pass, unless the other end's policy objects.
    Open,
    /// They are judged by these chains.
    Judged(Entries),
    /// They are dropped.
    Isolated,
}

/// The chains where policy sets begin, by side and family. What has none is open.
pub(crate) type Entries = BTreeMap<(Side, Family), Name>;

fn disposition(
    endpoint: &Endpoint,
    policies: &mut PolicyRenderer<'_>,
) -> Result<Disposition, Arc<IptablesError>> {
    if let Attachment::Interface(interface) = &endpoint.attachment
        && Interface::new(interface).is_none()
    {
        return Err(Arc::new(IptablesError::Interface { interface: interface.clone() }));
    }
    match endpoint.mode {
        Mode::Isolate => Ok(Disposition::Isolated),
        Mode::Audit => Ok(Disposition::Open),
        Mode::Enforce => {
            let mut entries = policies.entries(Side::Egress, OnAllow::Return, endpoint.egress)?;
            entries.extend(policies.entries(Side::Ingress, OnAllow::Return, endpoint.ingress)?);
            Ok(Disposition::Judged(entries))
        }
    }
}

/// Returns the endpoints that share an interface or address with one that is treated in another way.
fn conflicts(endpoints: &[Endpoint]) -> BTreeMap<EndpointId, Arc<IptablesError>> {
    let mut owners: BTreeMap<Key, &Endpoint> = BTreeMap::new();
    let mut conflicts = BTreeMap::new();
    for endpoint in endpoints {
        for key in keys(endpoint) {
            let owner = *owners.entry(key).or_insert(endpoint);
            let treatment = |it: &Endpoint| (it.mode, it.ingress, it.egress);
            if treatment(owner) != treatment(endpoint) {
                for (one, other) in [(owner, endpoint), (endpoint, owner)] {
                    let other = Box::new(other.id.clone());
                    let error = IptablesError::Shared { key: format!("{key:?}"), other };
                    conflicts.entry(one.id.clone()).or_insert_with(|| Arc::new(error));
                }
            }
        }
    }
    conflicts
}

/// Returns the keys by which an endpoint's packets are known. An interface that cannot exist carries no packets; its
/// endpoint is known by its addresses then, so that it can be closed.
pub(crate) fn keys(endpoint: &Endpoint) -> Vec<Key> {
    let by_address = || endpoint.addresses.iter().copied().filter(|it| !it.is_unspecified());
    match &endpoint.attachment {
        Attachment::Interface(name) => match Interface::new(name) {
            Some(interface) => vec![Key::Interface(interface)],
            None => by_address().map(Key::Address).collect(),
        },
        _ => by_address().map(Key::Address).collect(),
    }
}

/// Returns the addresses that an endpoint may send from. One without any known address is not held to any.
pub(crate) fn own_addresses(endpoint: &Endpoint) -> BTreeSet<IpAddr> {
    endpoint.addresses.iter().copied().filter(|it| !it.is_unspecified()).collect()
}

#[cfg(test)]
mod tests;
