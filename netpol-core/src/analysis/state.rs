//! What policy makes of every address of a cluster, in one state of its inputs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::AnalysisError;
use super::traffic::Traffic;
use crate::dataplane::{Capabilities, Change};
use crate::engine::{Engine, NodeConfig};
use crate::flat::{ClassId, Flat, LeafId, Limits, RowId, Table, TableKey, classify};
use crate::flow::Direction;
use crate::model::{Attachment, Endpoint, EndpointId, EndpointKind, Inputs, Mode, Object};
use crate::net::Family;
use crate::program::{self, Program};
use crate::verdict::Verdict;

/// The node that all workloads are placed on. No node has a name with a space.
const EVERY_NODE: &str = "every node";

/// Stands between the name of an endpoint and the number of its address. It sorts before whatever a name can hold.
const SEPARATOR: char = '\0';

/// Returns the program that all workloads of a cluster are judged by: as if one node had them all, and each address were an
/// endpoint of its own. So no rule is left that depends on which of its addresses an endpoint uses.
///
/// Host endpoints are peers only.
pub(super) fn compile(
    inputs: &Inputs,
    capabilities: &Capabilities,
) -> Result<Program, AnalysisError> {
    let mut engine = Engine::new(NodeConfig::new(EVERY_NODE), capabilities);
    for object in inputs.clone().into_objects() {
        match object {
            Object::Endpoint(it) if it.id.kind == EndpointKind::Workload => {
                for part in parts(it) {
                    engine.upsert(part)?;
                }
            }
            other => engine.upsert(other)?,
        }
    }
    engine.inputs_complete();
    // The first update is a full one, if there is anything to enforce.
    let Some(Change::Full(program)) = engine.poll_update().map(|update| update.change) else {
        return Ok(Program::default());
    };
    let mut program = Arc::unwrap_or_clone(program);
    program.endpoints.retain(|it| !it.addresses.is_empty());
    Ok(program)
}

/// Returns the parts of an endpoint that have one address each. They own it if and only if the endpoint does.
fn parts(endpoint: Endpoint) -> impl Iterator<Item = Endpoint> {
    let addresses: BTreeSet<IpAddr> = endpoint.addresses.iter().copied().collect();
    addresses.into_iter().enumerate().map(move |(number, address)| {
        let mut part = endpoint.clone().on_node(EVERY_NODE);
        part.addresses = [address].into();
        part.attachment = Attachment::Address;
        if number > 0 {
            part.id.name = format!("{}{SEPARATOR}{number}", part.id.name);
        }
        part
    })
}

/// Returns the endpoint that a part is of.
fn whole(mut part: EndpointId) -> EndpointId {
    if let Some(end) = part.name.find(SEPARATOR) {
        part.name.truncate(end);
    }
    part
}

/// Sets of payloads, each once.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    all: Vec<Traffic>,
    known: BTreeMap<Traffic, TrafficId>,
}

/// A set in a pool.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct TrafficId(usize);

impl TrafficId {
    const EVERYTHING: Self = Self(0);
    pub(super) const NOTHING: Self = Self(1);
}

impl Pool {
    pub(super) fn new() -> Self {
        let mut pool = Self { all: Vec::new(), known: BTreeMap::new() };
        pool.add(Traffic::everything());
        pool.add(Traffic::nothing());
        pool
    }

    pub(super) fn add(&mut self, traffic: Traffic) -> TrafficId {
        if let Some(&known) = self.known.get(&traffic) {
            return known;
        }
        let id = TrafficId(self.all.len());
        self.known.insert(traffic.clone(), id);
        self.all.push(traffic);
        id
    }

    #[expect(clippy::indexing_slicing, reason = "ids are of this pool, which forgets nothing")]
    pub(super) fn get(&self, id: TrafficId) -> &Traffic {
        &self.all[id.0]
    }
}

/// What policy makes of every address.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) flat: Flat,
    tables: Vec<(TableKey, Table)>,
    /// What passes by each row.
    allowed: Vec<TrafficId>,
    owners: BTreeMap<IpAddr, Owner>,
}

/// The endpoint that has an address.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) endpoint: EndpointId,
    judged: Judged,
    /// It has other addresses of the family.
    has_more: bool,
}

/// How an endpoint is judged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Judged {
    mode: Mode,
    ingress: usize,
    egress: usize,
}

/// What a state knows of an address. Addresses of one kind are alike to it, whatever they send to whom.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Kind {
    pub(super) family: Family,
    class: ClassId,
    judged: Option<Judged>,
    /// The address, if its owner has more of the family: traffic between them is not judged.
    sibling: Option<IpAddr>,
}

impl State {
    pub(super) fn of(program: &Program, pool: &mut Pool) -> Result<Self, AnalysisError> {
        let flat = classify(program, &Limits::unlimited())?;
        require_tables(program, &flat)?;
        let is_allowed = |leaf: LeafId| {
            let leaf = usize::try_from(leaf.0).ok().and_then(|it| flat.leaves().get(it));
            leaf.is_some_and(|it| it.verdict == Verdict::Allow)
        };
        let rows = flat.rows().iter();
        let allowed = rows.map(|row| pool.add(Traffic::of_row(row, flat.sources(), is_allowed)));
        let allowed = allowed.collect();
        let tables: Vec<_> = flat.tables().iter().map(|(key, it)| (*key, it.clone())).collect();
        let owners = owners(program, &tables);
        Ok(Self { flat, tables, allowed, owners })
    }

    /// Returns the addresses that endpoints have, in order, and who has them.
    pub(super) const fn owners(&self) -> &BTreeMap<IpAddr, Owner> {
        &self.owners
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<&EndpointId> {
        self.owners.get(&address).map(|it| &it.endpoint)
    }

    pub(super) fn kind(&self, address: IpAddr) -> Kind {
        let owner = self.owners.get(&address);
        Kind {
            family: Family::of(address),
            class: self.flat.class_of(address),
            judged: owner.map(|it| it.judged),
            sibling: owner.filter(|it| it.has_more).map(|_| address),
        }
    }

    /// Returns what passes in one direction of a subject.
    pub(super) fn half(&self, subject: &Kind, direction: Direction, remote: &Kind) -> TrafficId {
        let Some(judged) = &subject.judged else { return TrafficId::EVERYTHING };
        match judged.mode {
            Mode::Isolate => TrafficId::NOTHING,
            _ if self.are_siblings(subject, remote) => TrafficId::EVERYTHING,
            Mode::Audit => TrafficId::EVERYTHING,
            Mode::Enforce => {
                let table = match direction {
                    Direction::Ingress => judged.ingress,
                    Direction::Egress => judged.egress,
                };
                let row = self.row(table, remote);
                let id = row.and_then(|row| self.allowed.get(usize::try_from(row.0).ok()?));
                // Whatever has no row is closed; there is nothing that has none.
                id.copied().unwrap_or(TrafficId::NOTHING)
            }
        }
    }

    /// Returns whether two kinds are different addresses of one endpoint.
    pub(super) fn are_siblings(&self, one: &Kind, other: &Kind) -> bool {
        match (one.sibling, other.sibling) {
            (Some(one), Some(other)) => self.owner(one) == self.owner(other),
            _ => false,
        }
    }

    /// Returns the tables that judge flows, and of which families.
    pub(super) fn uses(&self) -> BTreeSet<(usize, Family)> {
        let uses = |(address, owner): (&IpAddr, &Owner)| {
            let family = Family::of(*address);
            [(owner.judged.ingress, family), (owner.judged.egress, family)]
        };
        self.owners.iter().flat_map(uses).collect()
    }

    /// Returns the row of a remote address in a table.
    pub(super) fn row(&self, table: usize, remote: &Kind) -> Option<RowId> {
        let (_, table) = self.tables.get(table)?;
        let entries = table.entries();
        match entries.binary_search_by_key(&remote.class, |(class, _)| *class) {
            Ok(found) => entries.get(found).map(|(_, row)| *row),
            Err(_) => Some(table.other(remote.family)),
        }
    }
}

/// Checks that all endpoints are judged by tables.
fn require_tables(program: &Program, flat: &Flat) -> Result<(), AnalysisError> {
    for endpoint in &program.endpoints {
        for direction in Direction::BOTH {
            let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
            if let Some(why) = flat.unclassified().get(&key) {
                let endpoint = whole(endpoint.id.clone());
                return Err(AnalysisError::Rules {
                    endpoint,
                    direction,
                    source: why.clone().into(),
                });
            }
        }
    }
    Ok(())
}

fn owners(program: &Program, tables: &[(TableKey, Table)]) -> BTreeMap<IpAddr, Owner> {
    let number = |endpoint: &program::Endpoint, direction| {
        let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
        tables.binary_search_by_key(&key, |(key, _)| *key).unwrap_or(usize::MAX)
    };
    let mut owners: BTreeMap<IpAddr, Owner> = BTreeMap::new();
    let mut counts: BTreeMap<(EndpointId, Family), usize> = BTreeMap::new();
    for part in &program.endpoints {
        let endpoint = whole(part.id.clone());
        let judged = Judged {
            mode: part.mode,
            ingress: number(part, Direction::Ingress),
            egress: number(part, Direction::Egress),
        };
        for &address in &part.addresses {
            *counts.entry((endpoint.clone(), Family::of(address))).or_default() += 1;
            let owner = Owner { endpoint: endpoint.clone(), judged, has_more: false };
            owners.insert(address, owner);
        }
    }
    counts.retain(|_, count| *count > 1);
    if !counts.is_empty() {
        for (&address, owner) in &mut owners {
            owner.has_more = counts.contains_key(&(owner.endpoint.clone(), Family::of(address)));
        }
    }
    owners
}
