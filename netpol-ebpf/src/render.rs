//! Programs as the content of maps. Pure: nothing here touches the kernel.

mod policy;
mod ports;
mod space;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::flat::{Flat, TableKey};
use netpol_core::model::{Attachment, EndpointId, EndpointKind, Mode, Tunnel, WorkloadToHost};
use netpol_core::net::Family;
use netpol_core::program::{Digest, Endpoint, Established};
use netpol_core::{Direction, Program};
use netpol_ebpf_abi as abi;
use netpol_ebpf_abi::maps;

pub(crate) use self::policy::{Rows, is_open};
pub(crate) use self::space::{Space, entries as space_entries, entry};
use crate::error::EbpfError;
use crate::ids::{Ids, Kind};

/// A map that holds parts of objects. Its keys begin with the id of the object, after the length of a prefix if it has
/// one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Map {
    Addresses4,
    Addresses6,
    Prefixes4,
    Prefixes6,
    Rows,
    Ports,
}

impl Map {
    pub(crate) const ALL: [Self; 6] = [
        Self::Addresses4,
        Self::Addresses6,
        Self::Prefixes4,
        Self::Prefixes6,
        Self::Rows,
        Self::Ports,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Addresses4 => maps::ADDRESSES4,
            Self::Addresses6 => maps::ADDRESSES6,
            Self::Prefixes4 => maps::PREFIXES4,
            Self::Prefixes6 => maps::PREFIXES6,
            Self::Rows => maps::ROWS,
            Self::Ports => maps::PORTS,
        }
    }

    /// Returns the size of a value, in bytes.
    pub(crate) const fn value_size(self) -> usize {
        match self {
            Self::Rows => size_of::<abi::Row>(),
            _ => size_of::<u32>(),
        }
    }

    /// Returns the kind of the objects whose parts the map holds.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Addresses4 | Self::Addresses6 | Self::Prefixes4 | Self::Prefixes6 => Kind::Space,
            Self::Rows => Kind::Table,
            Self::Ports => Kind::List,
        }
    }

    /// Returns the id of the object that a key belongs to.
    pub(crate) fn object(self, key: &[u8]) -> Option<u32> {
        let start = match self {
            Self::Prefixes4 | Self::Prefixes6 | Self::Ports => 4,
            Self::Addresses4 | Self::Addresses6 | Self::Rows => 0,
        };
        let bytes: [u8; 4] = key.get(start..start + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    }
}

/// Keys and values that follow each other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Entries {
    pub(crate) keys: Vec<u8>,
    pub(crate) values: Vec<u8>,
}

impl Entries {
    pub(crate) fn push(&mut self, key: &[&[u8]], value: &[u8]) {
        for part in key {
            self.keys.extend_from_slice(part);
        }
        self.values.extend_from_slice(value);
    }
}

/// Objects, by kind and id.
pub(crate) type Objects = BTreeMap<(Kind, u32), Object>;

/// What a program is in maps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// The objects and their entries.
    pub(crate) objects: Objects,
    /// What is to be in force, by interface.
    pub(crate) endpoints: BTreeMap<String, Desired>,
    /// Endpoints that cannot be enforced as they are.
    pub(crate) isolated: Vec<(EndpointId, Arc<EbpfError>)>,
    /// The space of all endpoints.
    pub(crate) space: Space,
    /// The rows of tables.
    pub(crate) rows: Rows,
    /// The ids of tables; [`abi::OPEN`] if everything passes without asking a rule.
    pub(crate) tables: BTreeMap<TableKey, u32>,
}

/// An object and its entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Object {
    pub(crate) digest: Digest,
    pub(crate) entries: BTreeMap<Map, Entries>,
}

/// What is to be in force for an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Desired {
    pub(crate) id: EndpointId,
    /// The record, without what only whoever publishes it knows: id, generation, interface.
    pub(crate) record: abi::Endpoint,
    /// All addresses, if the record has no room for them, as the map of own addresses has them.
    pub(crate) more: Vec<[u32; 4]>,
}

/// How programs are rendered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Whether what an endpoint sends must carry one of its addresses.
    pub(crate) check_source: bool,
    /// How many entries lists of ports may have.
    pub(crate) ports: u32,
}

/// What a program says of all its endpoints, as records have it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Settings {
    flags: u32,
    tunnels: [u16; abi::TUNNELS],
}

impl Settings {
    /// Returns the settings of a program.
    ///
    /// # Errors
    ///
    /// [`EbpfError::Tunnels`] if that is more than records have room for.
    pub(crate) fn of(program: &Program) -> Result<Self, EbpfError> {
        let mut it = Self::default();
        if program.established == Established::Reevaluate {
            it.flags |= abi::REEVALUATE;
        }
        let mut ports = Vec::new();
        for tunnel in &program.hosts.settings.denied_encapsulation {
            match *tunnel {
                Tunnel::IpInIp => it.flags |= abi::NO_IP_IN_IP,
                Tunnel::Udp(port) => ports.push(port.to_be()),
            }
        }
        if ports.len() > abi::TUNNELS {
            return Err(EbpfError::Tunnels { needed: ports.len() });
        }
        if let Some(&first) = ports.first() {
            it.flags |= abi::NO_TUNNELS;
            it.tunnels = [first; abi::TUNNELS];
            it.tunnels.iter_mut().zip(ports).for_each(|(place, port)| *place = port);
        }
        Ok(it)
    }
}

/// Returns what a program is in maps. Objects that are known keep their ids, others get new ones.
///
/// # Errors
///
/// [`EbpfError::Ports`], [`EbpfError::Tunnels`] or [`EbpfError::Ids`] if there is no room, [`EbpfError::Hosts`] if the program asks for what no
/// object of ours does.
pub(crate) fn render(
    program: &Program,
    flat: &Flat,
    ids: &mut Ids,
    options: Options,
) -> Result<Image, EbpfError> {
    let hosts = &program.hosts;
    if !hosts.endpoints.is_empty() || hosts.settings.workload_to_host == WorkloadToHost::Deny {
        return Err(EbpfError::Hosts);
    }
    let settings = Settings::of(program)?;
    let mut image = Image::default();
    let space = space::render(flat, ids, &mut image)?;
    image.space = space;
    policy::render(flat, ids, &mut image)?;
    let ports = ports(&image.objects);
    if ports > options.ports as usize {
        return Err(EbpfError::Ports { needed: ports, limit: options.ports });
    }
    let mut seen = BTreeMap::new();
    for endpoint in &program.endpoints {
        let interface = match interface(endpoint) {
            Ok(Some(interface)) => interface,
            Ok(None) => continue,
            Err(error) => {
                image.isolated.push((endpoint.id.clone(), Arc::new(error)));
                continue;
            }
        };
        let tables = |key: TableKey| image.tables.get(&key).copied();
        let judged = judged(endpoint, settings, &space, options, tables);
        let mut desired = match judged {
            Ok(desired) => desired,
            Err((desired, key)) => {
                image.isolated.push((endpoint.id.clone(), Arc::new(without_table(key, flat))));
                *desired
            }
        };
        if let Some(other) = seen.insert(interface.to_owned(), endpoint.id.clone()) {
            let shared =
                EbpfError::Shared { interface: interface.to_owned(), other: Box::new(other) };
            isolate(&mut desired.record);
            image.isolated.push((endpoint.id.clone(), Arc::new(shared)));
        }
        image.endpoints.insert(interface.to_owned(), desired);
    }
    Ok(image)
}

/// Returns the interface of an endpoint; `None` if it has no packets yet, because nobody knows an address of it either.
///
/// # Errors
///
/// [`EbpfError::Address`] if its packets are known by an address.
pub(crate) fn interface(endpoint: &Endpoint) -> Result<Option<&str>, EbpfError> {
    match &endpoint.attachment {
        Attachment::Interface(interface) => Ok(Some(interface)),
        _ if endpoint.addresses.is_empty() => Ok(None),
        _ => Err(EbpfError::Address),
    }
}

/// Returns what isolates an endpoint.
pub(crate) fn isolated(endpoint: &Endpoint) -> Desired {
    let options = Options { check_source: false, ports: 0 };
    let mut desired = desired(endpoint, 0, options);
    isolate(&mut desired.record);
    desired
}

/// Returns what lets whoever is behind an unknown interface open flows, and nobody open one to there.
pub(crate) fn tracked(interface: &str, settings: Settings) -> Desired {
    let Settings { flags, tunnels } = settings;
    let tables = [NOTHING, abi::OPEN];
    let record = abi::Endpoint { tables, flags, tunnels, ..abi::Endpoint::default() };
    Desired { id: unknown_at(interface), record, more: Vec::new() }
}

/// Returns the id of whoever is behind an unknown interface.
pub(crate) fn unknown_at(interface: &str) -> EndpointId {
    EndpointId {
        kind: EndpointKind::Workload,
        namespace: None,
        name: interface.to_owned(),
        uid: UNKNOWN.to_owned(),
    }
}

/// The UID of whoever is behind an unknown interface. No endpoint has it: it is no UID, and no label or name either.
const UNKNOWN: &str = "(unknown)";

/// A table that never is: no id is as great. Without rows, it denies.
const NOTHING: u32 = u32::MAX;

/// Has a record let nothing pass.
pub(crate) fn isolate(record: &mut abi::Endpoint) {
    record.flags = abi::ISOLATED;
    record.tables = [abi::OPEN; 2];
    record.space = 0;
}

/// Returns how many entries the lists of ports among some objects have.
pub(crate) fn ports(objects: &Objects) -> usize {
    let lists = objects.values().filter_map(|object| object.entries.get(&Map::Ports));
    lists.map(|it| it.values.len() / Map::Ports.value_size()).sum()
}

fn desired(endpoint: &Endpoint, space: u32, options: Options) -> Desired {
    let of =
        |family| endpoint.addresses.iter().filter(move |it| Family::of(**it) == family).copied();
    let mut record = abi::Endpoint { space, ..abi::Endpoint::default() };
    if let Some(IpAddr::V4(address)) = of(Family::V4).next() {
        record.v4 = u32::from_ne_bytes(address.octets());
    }
    if let Some(IpAddr::V6(address)) = of(Family::V6).next() {
        record.v6 = words(address.octets());
    }
    let several = Family::BOTH.into_iter().any(|family| of(family).nth(1).is_some());
    if several {
        record.flags |= abi::MORE_ADDRESSES;
    }
    if options.check_source && !endpoint.addresses.is_empty() {
        record.flags |= abi::CHECK_SOURCE;
    }
    if endpoint.mode == Mode::Audit {
        record.flags |= abi::AUDIT;
    }
    let more =
        if several { endpoint.addresses.iter().copied().map(own).collect() } else { Vec::new() };
    Desired { id: endpoint.id.clone(), record, more }
}

/// Returns what is to be in force for an endpoint, given the ids of tables. If one of its policy sets has none, what
/// isolates it, and that policy set.
pub(crate) fn judged(
    endpoint: &Endpoint,
    settings: Settings,
    space: &Space,
    options: Options,
    tables: impl Fn(TableKey) -> Option<u32>,
) -> Result<Desired, (Box<Desired>, TableKey)> {
    let mut desired = desired(endpoint, space.id, options);
    if endpoint.mode == Mode::Isolate {
        isolate(&mut desired.record);
        return Ok(desired);
    }
    desired.record.flags |= settings.flags | space.flags;
    desired.record.tunnels = settings.tunnels;
    for (direction, slot) in [Direction::Ingress, Direction::Egress].into_iter().zip(0..) {
        let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
        let Some(table) = tables(key) else {
            isolate(&mut desired.record);
            return Err((Box::new(desired), key));
        };
        if let Some(place) = desired.record.tables.get_mut::<usize>(slot) {
            *place = table;
        }
    }
    Ok(desired)
}

fn without_table(key: TableKey, flat: &Flat) -> EbpfError {
    match flat.unclassified().get(&key) {
        Some(why) => EbpfError::Unclassified(why.clone()),
        None => EbpfError::Dangling { missing: format!("policy set {key}") },
    }
}

/// Returns the words of an IPv6 address as they are in memory.
pub(crate) fn words(octets: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

/// Returns an address as the map of own addresses has it.
pub(crate) fn own(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => mapped(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => words(address.octets()),
    }
}

/// Returns the IPv6 address that stands for an IPv4 address (RFC 4291, section 2.5.5.2).
pub(crate) const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// Returns the ids of everything that an image uses, endpoints excepted.
pub(crate) fn used(image: &Image) -> BTreeSet<(Kind, u32)> {
    image.objects.keys().copied().collect()
}

/// Returns objects in an order in which each comes after all that it refers to: counters, lists, tables. Lists refer to lists
/// of source ports, which got their ids before them.
pub(crate) fn in_order<T>(
    objects: &BTreeMap<(Kind, u32), T>,
) -> impl Iterator<Item = (&(Kind, u32), &T)> {
    let mut objects: Vec<_> = objects.iter().collect();
    objects.sort_by_key(|((kind, id), _)| (Reverse(*kind), *id));
    objects.into_iter()
}

#[cfg(test)]
mod tests;
