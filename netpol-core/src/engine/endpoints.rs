//! Endpoints as compact records, and who owns which address.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::labels::Text;
use super::sets::Contribution;
use super::store::{Finder, Id, Slab};
use super::views::{Time, View, ViewKey, Views};
use crate::labels::Labels;
use crate::model::{
    Attachment, Endpoint, EndpointId, EndpointKind, Lifecycle, Mode, NamedPort, Timestamp,
};
use crate::net::canonical_address;
use crate::selector::Selector;
use crate::verdict::Verdict;

/// An endpoint. There are very many, so everything that can be shared is.
#[derive(Debug)]
pub(super) struct Record {
    /// The name and, right behind it, the UID.
    names: Box<str>,
    name_len: u32,
    kind: EndpointKind,
    pub(super) view: Id<View>,
    node: Option<Id<Text>>,
    pub(super) ports: Option<Id<PortList>>,
    attachment: Attached,
    addresses: AddressList,
    created: Timestamp,
    pub(super) mode: Mode,
    pub(super) lifecycle: Lifecycle,
    pub(super) default_verdict: Verdict,
    /// Of what identifies it.
    hash: u32,
}

/// How the packets of an endpoint are known.
#[derive(Clone, Copy, Debug)]
enum Attached {
    Interface(Id<Text>),
    Address,
    OtherInterfaces,
}

/// The named ports of an endpoint, and of all others that have the same. Not empty.
#[derive(Debug)]
pub(super) struct PortList {
    ports: Box<[NamedPort]>,
    uses: u32,
}

/// Most endpoints have one address or none.
#[derive(Clone, Debug, Eq, PartialEq)]
enum AddressList {
    None,
    One(IpAddr),
    Many(Box<[IpAddr]>),
}

/// All endpoints.
#[derive(Default)]
pub(super) struct Endpoints {
    records: Slab<Record>,
    by_name: Finder<Record>,
    ports: Slab<PortList>,
    ports_by_content: Finder<PortList>,
    owners: Owners,
}

/// Which running workload owns each address: the newest that claims it.
#[derive(Default)]
struct Owners {
    v4: BTreeMap<Ipv4Addr, Id<Record>>,
    v6: BTreeMap<Ipv6Addr, Id<Record>>,
    /// Who claims the addresses that more than one endpoint claims.
    contested: BTreeMap<IpAddr, Vec<Id<Record>>>,
    /// The host endpoints that list an address. They own none, and several can list one.
    hosts: BTreeMap<IpAddr, BTreeSet<Id<Record>>>,
}

impl AddressList {
    fn of(addresses: &[IpAddr]) -> Self {
        match *addresses {
            [] => Self::None,
            [one] => Self::One(canonical_address(one)),
            _ => Self::Many(addresses.iter().copied().map(canonical_address).collect()),
        }
    }

    fn as_slice(&self) -> &[IpAddr] {
        match self {
            Self::None => &[],
            Self::One(it) => core::slice::from_ref(it),
            Self::Many(them) => them,
        }
    }
}

impl Record {
    fn name(&self) -> &str {
        self.names.get(..self.name_len as usize).unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.names.get(self.name_len as usize..).unwrap_or_default()
    }

    /// Returns the name of its interface.
    pub(super) const fn interface(&self) -> Option<Id<Text>> {
        match self.attachment {
            Attached::Interface(name) => Some(name),
            Attached::Address | Attached::OtherInterfaces => None,
        }
    }

    pub(super) const fn is_host(&self) -> bool {
        matches!(self.kind, EndpointKind::Host)
    }

    /// Returns the addresses it lists, whoever owns them.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        self.addresses.as_slice()
    }
}

impl Endpoints {
    /// Returns the endpoint with an id.
    pub(super) fn find(&self, id: &EndpointId, views: &Views) -> Option<Id<Record>> {
        let hash = self.hash(id);
        self.by_name.find(spread(hash), |it| {
            let record = &self.records[it];
            record.hash == hash
                && record.name() == id.name
                && record.uid() == id.uid
                && record.kind == id.kind
                && self.namespace_of(record, views) == id.namespace.as_deref()
        })
    }

    /// Adds an endpoint that is not there. It claims no address yet.
    pub(super) fn insert(&mut self, endpoint: &Endpoint, views: &mut Views) -> Id<Record> {
        let record = self.record(endpoint, views);
        let view = record.view;
        let id = self.records.insert(record);
        views.attach(view, id);
        let Self { records, by_name, .. } = self;
        let rehash = |id| spread(records[id].hash);
        by_name.insert(rehash(id), id, rehash);
        id
    }

    /// Gives an endpoint the content of a newer version of it. It must claim no address.
    pub(super) fn replace(&mut self, id: Id<Record>, endpoint: &Endpoint, views: &mut Views) {
        let record = self.record(endpoint, views);
        let view = record.view;
        let before = core::mem::replace(&mut self.records[id], record);
        views.detach(before.view, id);
        views.attach(view, id);
        self.release(before, views);
    }

    /// Forgets an endpoint. It must claim no address.
    pub(super) fn remove(&mut self, id: Id<Record>, views: &mut Views) {
        let Self { records, by_name, .. } = self;
        let rehash = |id| spread(records[id].hash);
        by_name.remove(rehash(id), id, rehash);
        let Some(record) = records.remove(id) else { return };
        views.detach(record.view, id);
        self.release(record, views);
    }

    fn record(&mut self, endpoint: &Endpoint, views: &mut Views) -> Record {
        let Endpoint {
            id,
            created,
            node,
            labels,
            service_account,
            orchestrator,
            addresses,
            ports,
            attachment,
            default_verdict,
            mode,
            lifecycle,
        } = endpoint;
        let namespace = id.namespace.as_ref().map(|it| views.namespace(it));
        let key = ViewKey {
            own: views.labels.set(labels),
            namespace,
            account: service_account.as_ref().map(|it| views.account(namespace, it)),
            orchestrator: orchestrator.as_ref().map(|it| views.labels.text(it)),
        };
        let mut names = String::with_capacity(id.name.len() + id.uid.len());
        names.push_str(&id.name);
        names.push_str(&id.uid);
        Record {
            names: names.into(),
            name_len: u32::try_from(id.name.len()).unwrap_or(u32::MAX),
            kind: id.kind,
            view: views.view(key),
            node: node.as_ref().map(|it| views.labels.text(it)),
            ports: self.port_list(ports),
            attachment: match attachment {
                Attachment::Interface(name) => Attached::Interface(views.labels.text(name)),
                Attachment::Address => Attached::Address,
                Attachment::OtherInterfaces => Attached::OtherInterfaces,
            },
            addresses: AddressList::of(addresses),
            created: *created,
            mode: *mode,
            lifecycle: *lifecycle,
            default_verdict: *default_verdict,
            hash: self.hash(id),
        }
    }

    fn hash(&self, id: &EndpointId) -> u32 {
        // The upper half is as good as the lower.
        u32::try_from(self.by_name.hash(id) >> 32).unwrap_or_default()
    }

    /// Gives up what a record counted.
    fn release(&mut self, record: Record, views: &mut Views) {
        views.drop_view(record.view);
        record.node.into_iter().for_each(|it| views.labels.drop_text(it));
        record.interface().into_iter().for_each(|it| views.labels.drop_text(it));
        record.ports.into_iter().for_each(|it| self.drop_ports(it));
    }

    pub(super) fn record_of(&self, id: Id<Record>) -> &Record {
        &self.records[id]
    }

    pub(super) fn get(&self, id: Id<Record>) -> Option<&Record> {
        self.records.get(id)
    }

    /// Returns the endpoints, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Id<Record>> + '_ {
        self.records.iter().map(|(id, _)| id)
    }

    fn namespace_of<'a>(&self, record: &Record, views: &'a Views) -> Option<&'a str> {
        views.key(record.view).namespace.map(|it| views.namespace_name(it))
    }

    /// Returns the id that an endpoint is known by outside.
    pub(super) fn id_of(&self, id: Id<Record>, views: &Views) -> EndpointId {
        let record = &self.records[id];
        EndpointId {
            kind: record.kind,
            namespace: self.namespace_of(record, views).map(Into::into),
            name: record.name().into(),
            uid: record.uid().into(),
        }
    }

    /// Returns the endpoint as it was given, with canonical addresses.
    pub(super) fn model_of(&self, id: Id<Record>, views: &Views) -> Endpoint {
        let record = &self.records[id];
        let key = views.key(record.view);
        let text = |it: Id<Text>| String::from(views.labels.str(it));
        let mut endpoint = Endpoint::new(self.id_of(id, views));
        endpoint.created = record.created;
        endpoint.node = record.node.map(text);
        endpoint.labels = views.labels.labels(key.own).collect::<Labels>();
        endpoint.service_account = key.account.map(|it| views.account_name(it).into());
        endpoint.orchestrator = key.orchestrator.map(text);
        endpoint.addresses = record.addresses().to_vec();
        endpoint.ports = self.ports_of(record.ports).to_vec();
        endpoint.attachment = self.attachment_of(id, views);
        endpoint.default_verdict = record.default_verdict;
        endpoint.mode = record.mode;
        endpoint.lifecycle = record.lifecycle;
        endpoint
    }

    pub(super) fn attachment_of(&self, id: Id<Record>, views: &Views) -> Attachment {
        match self.records[id].attachment {
            Attached::Interface(name) => Attachment::Interface(views.labels.str(name).into()),
            Attached::Address => Attachment::Address,
            Attached::OtherInterfaces => Attachment::OtherInterfaces,
        }
    }

    /// Returns whether an endpoint is a running workload of a node.
    pub(super) fn is_workload_of(&self, id: Id<Record>, node: Id<Text>) -> bool {
        let record = &self.records[id];
        !record.is_host() && record.lifecycle == Lifecycle::Running && record.node == Some(node)
    }

    /// Returns whether an endpoint is a host endpoint of a node.
    pub(super) fn is_host_of(&self, id: Id<Record>, node: Id<Text>) -> bool {
        let record = &self.records[id];
        record.is_host() && record.node == Some(node)
    }

    /// Returns whether the first endpoint is newer than the second.
    pub(super) fn is_newer(&self, one: Id<Record>, other: Id<Record>, views: &Views) -> bool {
        is_newer(&self.records[one], &self.records[other], views)
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 4] {
        let owners = &self.owners;
        let owned = owners.v4.len() + owners.v6.len();
        let (endpoints, ports) = (self.records.len(), self.ports.len());
        [endpoints, ports, owned, owners.contested.len() + owners.hosts.len()]
    }
}

/// Named ports.
impl Endpoints {
    fn port_list(&mut self, ports: &[NamedPort]) -> Option<Id<PortList>> {
        let ports: Box<[NamedPort]> = ports.iter().filter(|it| it.port != 0).cloned().collect();
        if ports.is_empty() {
            return None;
        }
        let hash = self.ports_by_content.hash(&ports);
        let is_it = |id| {
            let list: &PortList = &self.ports[id];
            list.ports == ports
        };
        if let Some(id) = self.ports_by_content.find(hash, is_it) {
            return Some(self.keep_ports(id));
        }
        let id = self.ports.insert(PortList { ports, uses: 1 });
        let Self { ports, ports_by_content, .. } = self;
        let hasher = ports_by_content.hasher().clone();
        ports_by_content.insert(hash, id, |id| hasher.hash_one(&ports[id].ports));
        Some(id)
    }

    pub(super) fn keep_ports(&mut self, id: Id<PortList>) -> Id<PortList> {
        self.ports[id].uses += 1;
        id
    }

    pub(super) fn drop_ports(&mut self, id: Id<PortList>) {
        let list = &mut self.ports[id];
        list.uses -= 1;
        if list.uses > 0 {
            return;
        }
        let Self { ports, ports_by_content, .. } = self;
        let hasher = ports_by_content.hasher().clone();
        let rehash = |id| hasher.hash_one(&ports[id].ports);
        ports_by_content.remove(rehash(id), id, rehash);
        ports.remove(id);
    }

    pub(super) fn ports_of(&self, list: Option<Id<PortList>>) -> &[NamedPort] {
        list.map_or(&[], |it| &self.ports[it].ports)
    }
}

/// Addresses.
impl Endpoints {
    /// Returns the endpoint that owns an address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<Id<Record>> {
        match address {
            IpAddr::V4(it) => self.owners.v4.get(&it).copied(),
            IpAddr::V6(it) => self.owners.v6.get(&it).copied(),
        }
    }

    /// Returns the endpoints whose address it is: the workload that owns it, and host endpoints that list it.
    pub(super) fn holders(&self, address: IpAddr) -> impl Iterator<Item = Id<Record>> + '_ {
        let hosts = self.owners.hosts.get(&address).into_iter().flatten().copied();
        self.owner(address).into_iter().chain(hosts)
    }

    /// Returns what the holders of an address bring into sets.
    pub(super) fn contributions(&self, address: IpAddr) -> Vec<Contribution> {
        let holders = self.holders(address).map(|it| &self.records[it]);
        holders.map(|it| (it.view, it.ports)).collect()
    }

    /// Returns whether an address that an endpoint lists is its.
    pub(super) fn is_holder(&self, id: Id<Record>, address: IpAddr) -> bool {
        let record = &self.records[id];
        let is_uncontested = !self.owners.contested.contains_key(&address);
        record.is_host()
            || record.lifecycle == Lifecycle::Running
                && (is_uncontested || self.owner(address) == Some(id))
    }

    /// Returns whether a host endpoint that a selector selects lists an address.
    pub(super) fn is_of_host(&self, address: IpAddr, selector: &Selector, views: &Views) -> bool {
        self.owners
            .hosts
            .get(&address)
            .into_iter()
            .flatten()
            .any(|host| selector.matches(&views.seen(self.records[*host].view, Time::Now)))
    }

    /// Returns the addresses that an endpoint owns, sorted.
    pub(super) fn owned_by(&self, id: Id<Record>) -> Vec<IpAddr> {
        let owned = |address: &IpAddr| self.owner(*address) == Some(id);
        let listed = self.records[id].addresses().iter().copied();
        let mut addresses: Vec<_> = listed.filter(owned).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Makes a running endpoint claim the addresses it lists. Returns the endpoints that lost one to it.
    pub(super) fn claim(&mut self, id: Id<Record>, views: &Views) -> Vec<Id<Record>> {
        let Self { records, owners, .. } = self;
        let record = &records[id];
        let mut losers = Vec::new();
        if record.is_host() {
            for &address in record.addresses.as_slice() {
                owners.hosts.entry(address).or_default().insert(id);
            }
            return losers;
        }
        if record.lifecycle != Lifecycle::Running {
            return losers;
        }
        for &address in record.addresses.as_slice() {
            let owner = match address {
                IpAddr::V4(it) => owners.v4.entry(it).or_insert(id),
                IpAddr::V6(it) => owners.v6.entry(it).or_insert(id),
            };
            if *owner == id {
                continue;
            }
            let claims = owners.contested.entry(address).or_insert_with(|| [*owner].into());
            if !claims.contains(&id) {
                claims.push(id);
            }
            if is_newer(record, &records[*owner], views) {
                losers.push(core::mem::replace(owner, id));
            }
        }
        losers
    }

    /// Makes an endpoint give up all addresses. Others that claim them get them, and are returned.
    pub(super) fn disclaim(&mut self, id: Id<Record>, views: &Views) -> Vec<Id<Record>> {
        let mut heirs = Vec::new();
        if self.records[id].is_host() {
            self.unlist(id);
            return heirs;
        }
        if self.records[id].lifecycle != Lifecycle::Running {
            return heirs;
        }
        for address in self.records[id].addresses.clone().as_slice().iter().copied() {
            let others = self.owners.contested.get_mut(&address).map(|claims| {
                claims.retain(|it| *it != id);
                claims.clone()
            });
            if others.as_ref().is_some_and(|it| it.len() < 2) {
                self.owners.contested.remove(&address);
            }
            if self.owner(address) == Some(id) {
                let newest = others.into_iter().flatten().reduce(|one, other| {
                    if self.is_newer(one, other, views) { one } else { other }
                });
                self.give(address, newest);
                heirs.extend(newest);
            }
        }
        heirs
    }

    /// Forgets that a host endpoint lists its addresses.
    fn unlist(&mut self, id: Id<Record>) {
        let Self { records, owners, .. } = self;
        for address in records[id].addresses.as_slice() {
            if let Some(hosts) = owners.hosts.get_mut(address) {
                hosts.remove(&id);
                if hosts.is_empty() {
                    owners.hosts.remove(address);
                }
            }
        }
    }

    fn give(&mut self, address: IpAddr, owner: Option<Id<Record>>) {
        let Owners { v4, v6, .. } = &mut self.owners;
        match (address, owner) {
            (IpAddr::V4(it), Some(owner)) => _ = v4.insert(it, owner),
            (IpAddr::V6(it), Some(owner)) => _ = v6.insert(it, owner),
            (IpAddr::V4(it), None) => _ = v4.remove(&it),
            (IpAddr::V6(it), None) => _ = v6.remove(&it),
        }
    }
}

/// Returns whether the first endpoint is newer than the second. The ids make it total.
fn is_newer(one: &Record, other: &Record, views: &Views) -> bool {
    let namespace = |it: &Record| views.key(it.view).namespace.map(|it| views.namespace_name(it));
    (one.created.cmp(&other.created))
        .then_with(|| one.uid().cmp(other.uid()))
        .then_with(|| one.kind.cmp(&other.kind))
        .then_with(|| namespace(one).cmp(&namespace(other)))
        .then_with(|| one.name().cmp(other.name()))
        .is_gt()
}

/// Spreads a short hash over the bits that tables look at.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
