//! The ruleset that enforces a program. Pure.
//!
//! One `inet` table, version 1 of the layout:
//!
//! | objects | what they are |
//! |---|---|
//! | `np-forward`, `np-input`, `np-output`, `np-postrouting` | base chains; their rules follow from the node's configuration, see [`base`] |
//! | `np-cut` | drops packets to isolated endpoints |
//! | `np-eg-{if,4,6}`, `np-in-{if,4,6}` | verdict maps from an endpoint to the chain of its policy set, or to `drop` |
//! | `np-ep-…`, `np-iso-…` | sets of all endpoints and of the isolated ones |
//! | `np-own-…`, `np-self-…` | sets of endpoints' interfaces with their addresses, and of each endpoint with itself |
//! | `np-eg-<digest>`, `np-in-<digest>` | one chain for each stage of a policy set, named after its content |
//! | `np-s4-<set>-<place>`, `np-s6-…` | hash sets: the exact members of an address set; they change |
//! | `np-n4-<set>-<place>`, `np-n6-…` | hash sets: address, protocol and port of a named port; they change |
//! | `np-c4-<digest>`, `np-c6-<digest>`, `np-p-<digest>` | interval sets of prefixes and ports; they never change |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::Program;
use netpol_core::model::{Attachment, EndpointId, Mode};
use netpol_core::net::Family;
use netpol_core::program::{Endpoint, Members as ProgramMembers, PolicySetId};
use netpol_netfilter::Logging;

use crate::error::NftError;
use crate::name::{Name, Place, Side, SizeClass};
use crate::ruleset::{Elements, Interface, Key, Ruleset, Set, Verdict};

mod base;
mod condition;
mod hosts;
mod policy;
mod unknown;

use self::base::fixed_sets;
pub(crate) use self::base::{Fixed, skeleton};
pub(crate) use self::hosts::chain_names as host_chains;
use self::hosts::{HostRenderer, check_hosts};
#[cfg(test)]
pub(crate) use self::policy::MAX_STAGES;
pub(crate) use self::policy::{OnAllow, Policies, PolicyRenderer, target_key};

/// What a caller configures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    /// The priority of our base chains.
    pub(crate) priority: i32,
    /// What Log rules write.
    pub(crate) logging: Logging,
    /// The bits of the mark that say that policy before destination NAT has allowed a packet.
    pub(crate) mark: u32,
}

/// A policy set as rendered for one direction.
pub(crate) type PolicyUse = (Side, OnAllow, PolicySetId);

/// What render needs besides the program.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) options: Options,
    /// Where the sets of exact members are, or are to be, by the stem of their names.
    pub(crate) places: &'a BTreeMap<String, Place>,
    /// Policy sets that the kernel refused; their endpoints are isolated.
    pub(crate) refused: &'a BTreeMap<PolicyUse, Arc<NftError>>,
}

/// A rendered program.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// All that must be in the table.
    pub(crate) ruleset: Ruleset,
    /// Endpoints that are isolated because theirs could not be rendered.
    pub(crate) isolated: Vec<(EndpointId, Arc<NftError>)>,
    /// Which policy sets need a chain or set.
    pub(crate) users: BTreeMap<Name, BTreeSet<PolicyUse>>,
    /// Where each policy set begins, `None` if it is open.
    pub(crate) entries: BTreeMap<PolicyUse, Option<Name>>,
}

/// Returns the ruleset that enforces a program.
///
/// # Errors
///
/// [`NftError::TooManyEndpoints`] if the maps are too small, [`NftError::Interface`] if packets of a host endpoint cannot be
/// told from others, so that nothing could close it either. What concerns single other endpoints isolates these.
pub(crate) fn render(program: &Program, context: &Context<'_>) -> Result<Rendered, NftError> {
    check_hosts(program)?;
    let mut policies = PolicyRenderer::new(program, context);
    let mut entries = Entries::default();
    let mut isolated = Vec::new();
    let conflicts = conflicts(&program.endpoints);
    for endpoint in &program.endpoints {
        let disposition = match conflicts.get(&endpoint.id) {
            Some(error) => Err(Arc::clone(error)),
            None => disposition(endpoint, |it| policies.entry(it.0, it.1, it.2)),
        };
        let disposition = disposition.unwrap_or_else(|error| {
            isolated.push((endpoint.id.clone(), error));
            Disposition::Isolated
        });
        entries.add(endpoint, &disposition);
    }
    let (hosts, closed) = HostRenderer::new(program, &mut policies, context.options.mark).chains();
    isolated.extend(closed);
    let Policies { mut ruleset, users, entries: begins } = policies.finish();
    let fixed = entries.into_sets()?;
    let names: BTreeSet<Name> = fixed.keys().cloned().collect();
    ruleset.sets.extend(fixed);
    ruleset.chains.extend(skeleton(context.options, &program.unknown).chains);
    ruleset.chains.extend(hosts);
    // No packet reaches a stage behind one that passes nothing on.
    let live: BTreeSet<Name> = ruleset.live().into_iter().cloned().collect();
    ruleset.chains.retain(|name, _| live.contains(name));
    ruleset.sets.retain(|name, _| live.contains(name) || names.contains(name));
    Ok(Rendered { ruleset, isolated, users, entries: begins })
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
    /// They are judged by these chains; `None` is open in that direction.
    Judged { egress: Option<Name>, ingress: Option<Name> },
    /// They are dropped.
    Isolated,
}

/// Returns what happens to an endpoint's packets. `entry` knows where policy sets begin.
pub(crate) fn disposition(
    endpoint: &Endpoint,
    mut entry: impl FnMut(PolicyUse) -> Result<Option<Name>, Arc<NftError>>,
) -> Result<Disposition, Arc<NftError>> {
    if let Attachment::Interface(interface) = &endpoint.attachment
        && Interface::new(interface).is_none()
    {
        return Err(Arc::new(NftError::Interface { interface: interface.clone() }));
    }
    match endpoint.mode {
        Mode::Isolate => Ok(Disposition::Isolated),
        Mode::Audit => Ok(Disposition::Open),
        Mode::Enforce => {
            let [egress, ingress] = policy_uses(endpoint).map(&mut entry);
            Ok(Disposition::Judged { egress: egress?, ingress: ingress? })
        }
    }
}

/// Returns the policy sets that judge what an endpoint sends and what it gets.
pub(crate) fn policy_uses(endpoint: &Endpoint) -> [PolicyUse; 2] {
    [(Side::Egress, endpoint.egress), (Side::Ingress, endpoint.ingress)]
        .map(|(side, id)| (side, OnAllow::Return, id))
}

/// Returns the endpoints that share an interface or address with one that is treated in another way.
fn conflicts(endpoints: &[Endpoint]) -> BTreeMap<EndpointId, Arc<NftError>> {
    let mut owners: BTreeMap<Key, &Endpoint> = BTreeMap::new();
    let mut conflicts = BTreeMap::new();
    for endpoint in endpoints {
        for key in keys(endpoint) {
            let owner = *owners.entry(key).or_insert(endpoint);
            let treatment = |it: &Endpoint| (it.mode, it.ingress, it.egress);
            if treatment(owner) != treatment(endpoint) {
                for (one, other) in [(owner, endpoint), (endpoint, owner)] {
                    let other = Box::new(other.id.clone());
                    let error = NftError::Shared { key: key.to_string(), other };
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
    match &endpoint.attachment {
        Attachment::Interface(name) => match Interface::new(name) {
            Some(interface) => vec![Key::Interface(interface)],
            None => address_keys(endpoint),
        },
        _ => address_keys(endpoint),
    }
}

fn address_keys(endpoint: &Endpoint) -> Vec<Key> {
    endpoint.addresses.iter().map(|&address| address_key(address)).collect()
}

pub(crate) fn address_key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(address) => Key::V4(address),
        IpAddr::V6(address) => Key::V6(address),
    }
}

/// The entries of the maps and sets whose names are fixed.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    maps: BTreeMap<Name, BTreeMap<Key, Verdict>>,
    sets: BTreeMap<Name, BTreeSet<Key>>,
}

impl Entries {
    pub(crate) fn add(&mut self, endpoint: &Endpoint, disposition: &Disposition) {
        let keys = keys(endpoint);
        for &key in &keys {
            self.member(Fixed::Endpoints, key);
            match disposition {
                Disposition::Open => {}
                Disposition::Isolated => {
                    self.member(Fixed::Isolated, key);
                    // A packet may look up whether an endpoint is isolated just before it is, and its policy just after.
                    self.dispatch(Fixed::Egress, key, Some(Verdict::Drop));
                    self.dispatch(Fixed::Ingress, key, Some(Verdict::Drop));
                }
                Disposition::Judged { egress, ingress } => {
                    self.dispatch(Fixed::Egress, key, egress.clone().map(Verdict::Jump));
                    self.dispatch(Fixed::Ingress, key, ingress.clone().map(Verdict::Jump));
                }
            }
        }
        for key in own_keys(endpoint) {
            self.member(Fixed::Own, key);
        }
        for pair in self_keys(endpoint) {
            self.member(Fixed::SelfTraffic, pair);
        }
    }

    fn member(&mut self, fixed: Fixed, key: Key) {
        if let Some(name) = fixed.name(key) {
            self.sets.entry(name).or_default().insert(key);
        }
    }

    fn dispatch(&mut self, fixed: Fixed, key: Key, verdict: Option<Verdict>) {
        if let (Some(name), Some(verdict)) = (fixed.name(key), verdict) {
            self.maps.entry(name).or_default().insert(key, verdict);
        }
    }

    /// Returns the maps and sets, filled.
    pub(crate) fn into_sets(mut self) -> Result<BTreeMap<Name, Set>, NftError> {
        let mut sets = fixed_sets();
        for (name, set) in &mut sets {
            set.elements = match &set.elements {
                Elements::Verdicts(_) => {
                    Elements::Verdicts(self.maps.remove(name).unwrap_or_default())
                }
                _ => Elements::keys(self.sets.remove(name).unwrap_or_default()),
            };
            check_room(name, set.elements.len())?;
        }
        Ok(sets)
    }
}

/// Refuses more entries than the map or set called `name` holds.
pub(crate) fn check_room(name: &Name, entries: usize) -> Result<(), NftError> {
    let max = SizeClass::ENDPOINTS.capacity();
    if entries > max {
        return Err(NftError::TooManyEndpoints { map: name.to_string(), entries, max });
    }
    Ok(())
}

/// Returns the addresses that may come in on an endpoint's interface, as keys, and the interface itself. An endpoint
/// without a known address is not held to any.
pub(crate) fn own_keys(endpoint: &Endpoint) -> Vec<Key> {
    let interface = match &endpoint.attachment {
        Attachment::Interface(name) if !endpoint.addresses.is_empty() => Interface::new(name),
        _ => None,
    };
    let sender = |interface, address| match address {
        IpAddr::V4(address) => Key::Sender4(interface, address),
        IpAddr::V6(address) => Key::Sender6(interface, address),
    };
    let keys = |interface: Interface| {
        let senders = endpoint.addresses.iter().map(move |&address| sender(interface, address));
        [Key::Interface(interface)].into_iter().chain(senders)
    };
    interface.into_iter().flat_map(keys).collect()
}

/// Returns the keys of an endpoint's traffic with itself. Without a known address nobody can tell that it is: the source
/// may be forged.
pub(crate) fn self_keys(endpoint: &Endpoint) -> Vec<Key> {
    let keys = if endpoint.addresses.is_empty() { Vec::new() } else { keys(endpoint) };
    keys.iter().flat_map(|&one| keys.iter().filter_map(move |&other| pair(one, other))).collect()
}

/// Returns the key of traffic between two keys of one endpoint, if there can be any.
pub(crate) fn pair(one: Key, other: Key) -> Option<Key> {
    match (one, other) {
        (Key::Interface(one), Key::Interface(other)) => Some(Key::Interfaces(one, other)),
        (Key::V4(one), Key::V4(other)) => Some(Key::Pair4(one, other)),
        (Key::V6(one), Key::V6(other)) => Some(Key::Pair6(one, other)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
