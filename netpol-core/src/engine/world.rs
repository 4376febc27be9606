//! What is neither an endpoint nor a policy and has addresses: network sets, nodes, domain names and Services.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::store::{Id, Relation, Slab};
use super::views::{Time, View, Views};
use crate::model::{
    DomainAddress, DomainName, DomainPattern, EndpointSlice, NamedPort, NetworkSet, Node, Peers,
    Service, ServiceName, ServicePort, Timestamp,
};
use crate::net::{Prefix, PrefixSet, Transport, canonical_address};
use crate::program::{Addresses, Backend, Frontend, Frontends, Members, SetDefinition};
use crate::selector::Selector;

/// A network set, and what selectors see of it.
#[derive(Debug)]
pub(super) struct NetworkSetRecord {
    set: NetworkSet,
    view: Id<View>,
}

/// Network sets, nodes, domain names and Services.
#[derive(Default)]
pub(super) struct World {
    network_sets: Slab<NetworkSetRecord>,
    by_name: BTreeMap<(Option<String>, String), Id<NetworkSetRecord>>,
    by_view: Relation<View, NetworkSetRecord>,
    nodes: BTreeMap<String, Node>,
    /// Views of network sets that came, went or changed since the program was settled. Counted.
    changed_views: BTreeSet<Id<View>>,
    /// The addresses of each name, and when they expire. No name is without addresses.
    domain_addresses: BTreeMap<DomainName, BTreeMap<IpAddr, Timestamp>>,
    services: BTreeMap<ServiceName, Service>,
    /// By namespace and name.
    slices: BTreeMap<(String, String), EndpointSlice>,
    /// The names of the slices of each Service. None is without any.
    slices_of: BTreeMap<ServiceName, BTreeSet<String>>,
    /// Services whose backends may have changed since the program was settled.
    changed_services: BTreeSet<ServiceName>,
    /// Services themselves came, went or changed since then.
    services_changed: bool,
    /// Addresses of nodes or names may have changed since the program was settled.
    others_changed: bool,
}

/// Network sets.
impl World {
    /// Adds a network set, or replaces the one with its name.
    pub(super) fn set_network_set(&mut self, set: NetworkSet, views: &mut Views) {
        let name = (set.namespace.clone(), set.name.clone());
        if let Some(id) = self.by_name.get(&name)
            && self.network_sets[*id].set == set
        {
            return;
        }
        self.remove_network_set(&name, views);
        let view = views.view_of(&set.labels, set.namespace.as_deref());
        let id = self.network_sets.insert(NetworkSetRecord { set, view });
        self.by_name.insert(name, id);
        self.by_view.insert(view, id);
        self.mark_view(view, views);
    }

    /// Removes a network set. Returns whether it was there.
    pub(super) fn remove_network_set(
        &mut self,
        name: &(Option<String>, String),
        views: &mut Views,
    ) -> bool {
        let Some(id) = self.by_name.remove(name) else { return false };
        if let Some(record) = self.network_sets.remove(id) {
            self.by_view.remove(record.view, id);
            self.mark_view(record.view, views);
            views.drop_view(record.view);
        }
        true
    }

    fn mark_view(&mut self, view: Id<View>, views: &mut Views) {
        if self.changed_views.insert(view) {
            views.keep(view);
        }
    }

    /// Removes the network sets, Services and slices of a namespace.
    pub(super) fn empty_namespace(&mut self, namespace: &str, views: &mut Views) {
        let before = self.services.len();
        self.services.retain(|name, _| name.namespace != namespace);
        self.services_changed |= self.services.len() < before;
        let slices = self.slices.keys().filter(|(it, _)| it == namespace).cloned();
        for (namespace, name) in slices.collect::<Vec<_>>() {
            self.remove_slice(&namespace, &name);
        }
        let first = (Some(String::from(namespace)), String::new());
        let names = self.by_name.range(first..).map(|(name, _)| name.clone());
        let inside = |name: &(Option<String>, String)| name.0.as_deref() == Some(namespace);
        let names: Vec<_> = names.take_while(inside).collect();
        for name in names {
            self.remove_network_set(&name, views);
        }
    }

    pub(super) fn network_sets(&self) -> impl Iterator<Item = &NetworkSet> {
        self.network_sets.iter().map(|(_, record)| &record.set)
    }

    /// Returns the blocks of the network sets with one of these views.
    pub(super) fn nets_of(&self, views: &[Id<View>]) -> PrefixSet {
        let sets = views.iter().flat_map(|view| self.by_view.of(*view));
        sets.flat_map(|id| self.network_sets[id].set.nets.prefixes()).copied().collect()
    }

    /// Returns the blocks of the network sets that a selector selects.
    pub(super) fn selected_nets(&self, selector: &Selector, views: &Views) -> PrefixSet {
        let sets = self.network_sets.iter().map(|(_, record)| record);
        let selected = sets.filter(|it| selector.matches(&views.seen(it.view, Time::Now)));
        selected.flat_map(|it| it.set.nets.prefixes()).copied().collect()
    }

    /// Returns whether a network set that a selector selects has an address.
    pub(super) fn is_in_network_set(
        &self,
        address: IpAddr,
        selector: &Selector,
        views: &Views,
    ) -> bool {
        self.network_sets.iter().any(|(_, it)| {
            it.set.nets.contains(address) && selector.matches(&views.seen(it.view, Time::Now))
        })
    }

    /// Returns whether a view is one of a network set.
    pub(super) fn has_network_set(&self, view: Id<View>) -> bool {
        self.by_view.of(view).next().is_some()
    }
}

/// Nodes, and whatever else lists its addresses.
impl World {
    /// Adds a node, or replaces the one with its name.
    pub(super) fn set_node(&mut self, mut node: Node) {
        let of_interfaces = node.interfaces.iter_mut().flat_map(|it| &mut it.addresses);
        let addresses = node.addresses.iter_mut().chain(of_interfaces);
        addresses.for_each(|it| *it = canonical_address(*it));
        if self.nodes.get(&node.name) != Some(&node) {
            self.nodes.insert(node.name.clone(), node);
            self.others_changed = true;
        }
    }

    /// Removes a node. Returns whether it was there.
    pub(super) fn remove_node(&mut self, name: &str) -> bool {
        let removed = self.nodes.remove(name).is_some();
        self.others_changed |= removed;
        removed
    }

    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Returns the addresses of the nodes that a selector selects.
    pub(super) fn node_addresses(&self, selector: &Selector) -> impl Iterator<Item = IpAddr> {
        let selected = self.nodes.values().filter(move |node| selector.matches(&node.labels));
        selected.flat_map(|node| node.addresses.iter().copied())
    }

    /// Returns the members of a set that no label view has a part in.
    pub(super) fn members(&self, definition: &SetDefinition) -> Members {
        let exact = match definition {
            SetDefinition::BackendPorts { service, transport } => {
                return Members::Ports(self.backend_ports(service, *transport).collect());
            }
            SetDefinition::Addresses(Peers::BackendsOf(service)) => {
                self.slices_of(service).flat_map(|it| it.addresses.iter().copied()).collect()
            }
            SetDefinition::Addresses(Peers::Nodes(selector)) => {
                self.node_addresses(selector).collect()
            }
            SetDefinition::Addresses(Peers::DomainNames(patterns)) => {
                patterns.iter().flat_map(|pattern| self.addresses_of_names(pattern)).collect()
            }
            SetDefinition::Addresses(Peers::Endpoints(_) | Peers::Tenants { .. })
            | SetDefinition::NamedPort { .. } => {
                debug_assert!(false, "members of these follow from views");
                Addresses::default()
            }
        };
        Members::Addresses { exact, prefixes: PrefixSet::default() }
    }
}

/// Domain names.
impl World {
    /// Adds an address of a domain name, or the time until which it is one.
    pub(super) fn set_domain_address(&mut self, it: DomainAddress) {
        let DomainAddress { name, address, expires } = it;
        let of_name = self.domain_addresses.entry(name).or_default();
        let is_new = of_name.insert(canonical_address(address), expires).is_none();
        self.others_changed |= is_new;
    }

    /// Removes an address of a domain name. Returns whether it was there.
    pub(super) fn remove_domain_address(&mut self, name: &DomainName, address: IpAddr) -> bool {
        let Some(addresses) = self.domain_addresses.get_mut(name) else { return false };
        let removed = addresses.remove(&canonical_address(address)).is_some();
        if addresses.is_empty() {
            self.domain_addresses.remove(name);
        }
        self.others_changed |= removed;
        removed
    }

    /// Forgets the addresses that expire at `now` or before. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        let mut expired = false;
        self.domain_addresses.retain(|_, addresses| {
            let before = addresses.len();
            addresses.retain(|_, expires| *expires > now);
            expired |= addresses.len() < before;
            !addresses.is_empty()
        });
        self.others_changed |= expired;
        expired
    }

    /// Returns when the first address expires, `None` if there is none.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.domain_addresses.values().flat_map(BTreeMap::values).min().copied()
    }

    pub(super) fn domain_addresses(&self) -> impl Iterator<Item = DomainAddress> {
        self.domain_addresses.iter().flat_map(|(name, addresses)| {
            let of_name = addresses.iter();
            of_name.map(|(&address, &expires)| DomainAddress {
                name: name.clone(),
                address,
                expires,
            })
        })
    }

    fn addresses_of_names<'a>(
        &'a self,
        pattern: &'a DomainPattern,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        let (one, all) = match pattern {
            DomainPattern::Exact(name) => (self.domain_addresses.get(name), None),
            DomainPattern::Below(_) => (None, Some(&self.domain_addresses)),
        };
        let below = all.into_iter().flatten().filter(|(name, _)| pattern.matches(name));
        one.into_iter()
            .chain(below.map(|(_, addresses)| addresses))
            .flat_map(|it| it.keys().copied())
    }
}

/// Services.
impl World {
    /// Adds a Service, or replaces the one with its name.
    pub(super) fn set_service(&mut self, service: Service) {
        let service = service.canonical();
        if self.services.get(&service.name) != Some(&service) {
            self.services.insert(service.name.clone(), service);
            self.services_changed = true;
        }
    }

    /// Removes a Service. Returns whether it was there.
    pub(super) fn remove_service(&mut self, name: &ServiceName) -> bool {
        let removed = self.services.remove(name).is_some();
        self.services_changed |= removed;
        removed
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Adds a slice, or replaces the one with its name.
    pub(super) fn set_slice(&mut self, slice: EndpointSlice) {
        let slice = slice.canonical();
        let key = (slice.service.namespace.clone(), slice.name.clone());
        if self.slices.get(&key) == Some(&slice) {
            return;
        }
        self.remove_slice(&key.0, &key.1);
        self.changed_services.insert(slice.service.clone());
        self.slices_of.entry(slice.service.clone()).or_default().insert(slice.name.clone());
        self.slices.insert(key, slice);
    }

    /// Removes a slice. Returns whether it was there.
    pub(super) fn remove_slice(&mut self, namespace: &str, name: &str) -> bool {
        let Some(slice) = self.slices.remove(&(namespace.into(), name.into())) else {
            return false;
        };
        if let Some(names) = self.slices_of.get_mut(&slice.service) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        self.changed_services.insert(slice.service);
        true
    }

    /// Returns what a node translates: the Services' own addresses, and its own addresses where these have node ports.
    pub(super) fn frontends(&self, node: &str) -> Frontends {
        let mut frontends = Frontends::default();
        let node = self.nodes.get(node);
        let of_interfaces = node.iter().flat_map(|it| &it.interfaces).flat_map(|it| &it.addresses);
        let of_node: BTreeSet<_> =
            node.iter().flat_map(|it| &it.addresses).chain(of_interfaces).copied().collect();
        for service in self.services.values() {
            for port in &service.ports {
                let backends: Vec<_> = self.backends(&service.name, port).collect();
                let own = service.addresses.iter().map(|it| (*it, port.port));
                let node_port = port.node_port.into_iter();
                let of_node = node_port.flat_map(|port| of_node.iter().map(move |it| (*it, port)));
                for (address, number) in own.chain(of_node) {
                    let transport = port.transport;
                    let frontend = Frontend { address, transport, port: number };
                    frontends.add(frontend, backends.iter().copied());
                }
            }
        }
        frontends
    }

    fn backends(&self, service: &ServiceName, port: &ServicePort) -> impl Iterator<Item = Backend> {
        self.slices_of(service).flat_map(move |slice| {
            let is_meant =
                move |it: &&NamedPort| it.name == port.name && it.transport == port.transport;
            let numbers = slice.ports.iter().filter(is_meant).map(|it| it.port);
            numbers.flat_map(|port| {
                slice.addresses.iter().map(move |it| Backend { address: *it, port })
            })
        })
    }

    fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = &EndpointSlice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|it| self.slices.get(&(service.namespace.clone(), it.clone())))
    }

    fn backend_ports(
        &self,
        service: &ServiceName,
        transport: Transport,
    ) -> impl Iterator<Item = (IpAddr, u16)> {
        self.slices_of(service).flat_map(move |slice| {
            let ports = slice.ports.iter().filter(move |it| it.transport == transport);
            ports.flat_map(|port| slice.addresses.iter().map(|it| (*it, port.port)))
        })
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values()
    }
}

/// What changed.
impl World {
    pub(super) fn has_changed(&self) -> bool {
        self.others_changed || !self.changed_views.is_empty()
    }

    /// Returns whether sets other than those of views may have changed.
    pub(super) const fn others_changed(&self) -> bool {
        self.others_changed
    }

    /// Returns whether what a node translates may have changed.
    pub(super) fn have_frontends_changed(&self) -> bool {
        self.services_changed || self.others_changed || !self.changed_services.is_empty()
    }

    /// Returns the Services whose backends may have changed.
    pub(super) const fn changed_services(&self) -> &BTreeSet<ServiceName> {
        &self.changed_services
    }

    /// Returns the views of network sets that came, went or changed.
    pub(super) fn changed_views(&self) -> BTreeSet<Id<View>> {
        self.changed_views.clone()
    }

    /// Says that the program is settled with everything as it is now.
    pub(super) fn settle(&mut self, views: &mut Views) {
        self.others_changed = false;
        self.changed_services.clear();
        self.services_changed = false;
        core::mem::take(&mut self.changed_views).into_iter().for_each(|it| views.drop_view(it));
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 9] {
        let (sets, by_view) = (self.network_sets.len(), self.by_view.len());
        let (nodes, names) = (self.nodes.len(), self.domain_addresses.len());
        let (services, slices) = (self.services.len(), self.slices.len());
        let changed = [self.changed_views.len(), self.changed_services.len()];
        let [views, backends] = changed;
        [sets, by_view, nodes, names, services, slices, self.slices_of.len(), views, backends]
    }
}

/// Splits off the single addresses of a set of prefixes.
pub(super) fn split_hosts(nets: &PrefixSet) -> (impl Iterator<Item = IpAddr> + '_, PrefixSet) {
    let is_host = |it: &&Prefix| it.first() == it.last();
    let blocks = nets.prefixes().iter().filter(move |it| !is_host(it)).copied().collect();
    (nets.prefixes().iter().filter(is_host).map(|it| it.first()), blocks)
}
