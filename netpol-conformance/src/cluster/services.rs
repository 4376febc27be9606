//! Services: which addresses nodes translate, and to what.
//!
//! As kube-proxy of Kubernetes does that knows the pods of its node by their interfaces (`detectLocalMode:
//! InterfaceNamePrefix`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netpol_core::model::{self, EndpointSlice, NamedPort, Object, ServiceName, ServicePort};
use netpol_core::net::Family;
use serde::Deserialize;
use serde_json::Value;

use super::{Cluster, Pod, PodNetwork};
use crate::scenario::Problem;
use crate::scenario::object::{ObjectId, decode};
use crate::scenario::spec::or_default;
use crate::topology::{Frontend, Rewrite};

/// What Services and slices say that the harness must know and policy need not.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    views: BTreeMap<ObjectId, ServiceView>,
    /// The addresses of slices that take no new connections.
    unready: BTreeMap<ObjectId, BTreeSet<IpAddr>>,
}

/// What a node translates.
#[derive(Clone, Debug, Default)]
pub(super) struct Translated {
    pub(super) services: Vec<Frontend>,
    /// Ports of the node itself that lead to pods.
    pub(super) mapped: Vec<Frontend>,
}

/// A slice, and which of its addresses take new connections.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    pub(super) slice: EndpointSlice,
    ready: BTreeSet<IpAddr>,
}

/// A Service; what its API refuses is refused when the object is converted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceView {
    spec: SpecView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecView {
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    cluster_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    external_traffic_policy: TrafficPolicy,
    #[serde(deserialize_with = "or_default")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    publish_not_ready_addresses: bool,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<PortView>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortView {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    target_port: Option<TargetPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum TargetPort {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SliceView {
    #[serde(deserialize_with = "or_default")]
    endpoints: Vec<EndpointView>,
}

#[derive(Clone, Debug, Deserialize)]
struct EndpointView {
    #[serde(default, deserialize_with = "or_default")]
    addresses: BTreeSet<IpAddr>,
    #[serde(default, deserialize_with = "or_default")]
    conditions: Conditions,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

impl Services {
    /// Takes note of an object, if it is a Service or a slice.
    pub(super) fn apply(&mut self, id: &ObjectId, value: &Value) -> Result<(), Problem> {
        if id.is_core("Service") {
            self.views.insert(id.clone(), decode(value)?);
        } else if id.is_slice() {
            let view: SliceView = decode(value)?;
            let unready =
                view.endpoints.into_iter().filter(|it| it.conditions.ready == Some(false));
            self.unready.insert(id.clone(), unready.flat_map(|it| it.addresses).collect());
        }
        Ok(())
    }

    /// Forgets what is no object any more.
    pub(super) fn retain(&mut self, is_left: impl Fn(&ObjectId) -> bool) {
        self.views.retain(|id, _| is_left(id));
        self.unready.retain(|id, _| is_left(id));
    }
}

impl Cluster {
    /// Returns the addresses of a Service in the cluster, which are not those of its load balancer.
    pub(crate) fn service_addresses(&self, namespace: &str, name: &str) -> Option<Vec<IpAddr>> {
        let views = self.services.views.iter();
        let mut named = views.filter(|(id, _)| {
            (id.namespace.as_deref(), id.name.as_str()) == (Some(namespace), name)
        });
        Some(named.next()?.1.cluster_addresses().collect())
    }

    /// Returns whether an address is that of a Service, and of nobody else.
    pub(crate) fn is_of_service(&self, address: IpAddr) -> bool {
        self.services_of_model().any(|(_, it)| it.addresses.contains(&address))
            && self.owner(address).is_none()
    }

    /// Returns what a node translates for Services.
    pub(crate) fn frontends(&self, node: &str) -> &[Frontend] {
        self.translated.get(node).map(|it| it.services.as_slice()).unwrap_or_default()
    }

    /// Returns the addresses that Services have and nobody else.
    pub(crate) fn virtual_addresses(&self) -> BTreeSet<IpAddr> {
        let addresses = self.services_of_model().flat_map(|(_, it)| it.addresses.iter().copied());
        addresses.filter(|it| self.owner(*it).is_none()).collect()
    }

    /// Returns the slices of Services that select pods and have none of their own, as the controller of Kubernetes writes
    /// them: one for each family and list of ports.
    pub(super) fn derived_slices(&self) -> Vec<Backends> {
        let written: BTreeSet<_> = self.written_slices().map(|it| it.slice.service).collect();
        let selecting = self.services_of_model().filter(|(view, service)| {
            !view.spec.selector.is_empty() && !written.contains(&service.name)
        });
        selecting.flat_map(|(view, service)| self.slices_of(view, service)).collect()
    }

    /// Returns what each node translates.
    pub(super) fn translations(&self, derived: &[Backends]) -> BTreeMap<String, Translated> {
        let slices: Vec<_> = self.written_slices().chain(derived.iter().cloned()).collect();
        let of_node = |node: &String| Translated {
            services: self
                .services_of_model()
                .flat_map(|(view, service)| self.frontends_of(node, view, service, &slices))
                .collect(),
            mapped: self.mapped_ports(node),
        };
        self.nodes.keys().map(|node| (node.clone(), of_node(node))).collect()
    }

    fn services_of_model(&self) -> impl Iterator<Item = (&ServiceView, &model::Service)> {
        self.services.views.iter().filter_map(|(id, view)| {
            match self.objects.get(id)?.as_deref()? {
                Object::Service(service) => Some((view, service)),
                _ => None,
            }
        })
    }

    fn written_slices(&self) -> impl Iterator<Item = Backends> {
        self.services.unready.iter().filter_map(|(id, unready)| {
            match self.objects.get(id)?.as_deref()? {
                Object::EndpointSlice(slice) => {
                    let ready = slice.addresses.difference(unready).copied().collect();
                    Some(Backends { slice: slice.clone(), ready })
                }
                _ => None,
            }
        })
    }

    fn slices_of(&self, view: &ServiceView, service: &model::Service) -> Vec<Backends> {
        let ServiceName { namespace, name } = &service.name;
        let selected = self.pods.values().filter(|pod| {
            let has = |(key, value)| pod.view.labels.get(key) == Some(value);
            pod.namespace == *namespace && view.spec.selector.iter().all(has)
        });
        let mut slices: BTreeMap<_, Backends> = BTreeMap::new();
        for pod in selected {
            let ports: BTreeSet<_> =
                service.ports.iter().filter_map(|port| view.port_of(port, pod)).collect();
            for family in [Family::V4, Family::V6] {
                let Some(address) = self.address_of(pod, family) else { continue };
                let number = slices.len();
                let fresh = || Backends {
                    slice: EndpointSlice {
                        name: format!("{name}.derived-{number}"),
                        service: service.name.clone(),
                        addresses: BTreeSet::new(),
                        ports: ports.clone(),
                    },
                    ready: BTreeSet::new(),
                };
                let backends = slices.entry((family, ports.clone())).or_insert_with(fresh);
                backends.slice.addresses.insert(address);
                if pod.view.ready || view.spec.publish_not_ready_addresses {
                    backends.ready.insert(address);
                }
            }
        }
        slices.into_values().collect()
    }

    fn frontends_of(
        &self,
        node: &str,
        view: &ServiceView,
        service: &model::Service,
        slices: &[Backends],
    ) -> Vec<Frontend> {
        let inside: BTreeSet<_> = view.cluster_addresses().collect();
        let own = self.nodes.get(node).map(|it| it.addresses.as_slice()).unwrap_or_default();
        let is_local =
            |to: &SocketAddr| self.owner(to.ip()).is_some_and(|it| self.node_of(&it) == Some(node));
        let mut frontends = Vec::new();
        for port in &service.ports {
            let services = service.addresses.iter().map(|it| (*it, port.port));
            let nodes = own.iter().filter_map(|it| Some((*it, port.node_port?)));
            for (address, number) in services.chain(nodes) {
                let to = ready_backends(service, port, Family::of(address), slices);
                let transport = port.transport.into();
                let is_inside = inside.contains(&address);
                let only_local =
                    !is_inside && view.spec.external_traffic_policy == TrafficPolicy::Local;
                let local = to.iter().copied().filter(|it| !only_local || is_local(it)).collect();
                frontends.push(Frontend {
                    address,
                    transport,
                    port: number,
                    from_pods: Rewrite { to: to.clone(), masquerade: !is_inside && !only_local },
                    from_node: Rewrite { to, masquerade: true },
                    from_elsewhere: Rewrite { to: local, masquerade: !only_local },
                });
            }
        }
        frontends
    }

    fn mapped_ports(&self, node: &str) -> Vec<Frontend> {
        let own = self.nodes.get(node).map(|it| it.addresses.as_slice()).unwrap_or_default();
        let mut frontends = Vec::new();
        for pod in self.pods.values().filter(|pod| pod.node == node) {
            for mapping in &pod.view.host_ports {
                for address in own {
                    let of_family = |it: &&IpAddr| it.is_ipv4() == address.is_ipv4();
                    let Some(to) = pod.own_addresses().iter().find(of_family) else { continue };
                    let to = vec![SocketAddr::new(*to, mapping.pod_port)];
                    let rewrite = Rewrite { to, masquerade: false };
                    frontends.push(Frontend {
                        address: *address,
                        transport: mapping.transport,
                        port: mapping.node_port,
                        from_pods: rewrite.clone(),
                        from_node: rewrite.clone(),
                        from_elsewhere: rewrite,
                    });
                }
            }
        }
        frontends
    }

    /// Returns the address that Services know a pod by.
    fn address_of(&self, pod: &Pod, family: Family) -> Option<IpAddr> {
        match &pod.network {
            PodNetwork::Own(addresses) => {
                addresses.iter().copied().find(|it| Family::of(*it) == family)
            }
            PodNetwork::Host => self.nodes.get(&pod.node)?.address(family),
            PodNetwork::None => None,
        }
    }
}

impl ServiceView {
    /// Returns the addresses in the cluster, the primary one first.
    fn cluster_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let SpecView { cluster_ip, cluster_ips, .. } = &self.spec;
        // The first of the list is the other field's, too. `None` is no address.
        let others = cluster_ips.iter().filter(move |it| *it != cluster_ip);
        [cluster_ip].into_iter().chain(others).filter_map(|it| it.parse().ok())
    }

    /// Returns which port of a pod a port of the Service stands for, if the pod has one of that name.
    fn port_of(&self, port: &ServicePort, pod: &Pod) -> Option<NamedPort> {
        let ServicePort { name, transport, .. } = port.clone();
        let view = self.spec.ports.iter().find(|it| it.name == name)?;
        let number = match &view.target_port {
            None => port.port,
            Some(TargetPort::Number(number)) => *number,
            Some(TargetPort::Name(target)) => {
                let ports = pod.view.ports.iter().filter(|it| it.transport == transport);
                let mut named = ports.filter(|it| it.name.as_ref() == Some(target));
                named.next()?.port
            }
        };
        Some(NamedPort { name, transport, port: number })
    }
}

fn ready_backends(
    service: &model::Service,
    port: &ServicePort,
    family: Family,
    slices: &[Backends],
) -> Vec<SocketAddr> {
    let mut backends = BTreeSet::new();
    for Backends { slice, ready } in slices.iter().filter(|it| it.slice.service == service.name) {
        let is_meant = |it: &&NamedPort| (&it.name, it.transport) == (&port.name, port.transport);
        for number in slice.ports.iter().filter(is_meant).map(|it| it.port) {
            let of_family = ready.iter().filter(|it| Family::of(**it) == family);
            backends.extend(of_family.map(|it| SocketAddr::new(*it, number)));
        }
    }
    backends.into_iter().collect()
}
