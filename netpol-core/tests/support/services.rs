//! Small clusters with Services. Shares nothing with what it tests.

use std::net::IpAddr;

use netpol_core::model::{
    Action, EndpointSlice, L4Match, NamedPort, Object, Peers, Policy, PolicyKey, PortConstraint,
    PortMatch, Rule, RuleMatch, Service, ServiceName, ServicePort,
};
use netpol_core::net::{PortRange, Prefix, PrefixSet, Transport};
use netpol_core::{DestinationView, Flow, Origin, Payload, Selector};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{self, PORTS, RESOLVED, addresses, crowded};

/// Addresses of Services; two of them are also those of endpoints.
const SERVED: [&str; 5] = ["10.96.0.1", "10.96.0.2", "fd00:96::1", "10.0.0.2", "fd00::2"];

/// Where a dataplane judges what endpoints send.
pub(crate) fn destination_view() -> impl Strategy<Value = DestinationView> {
    select(vec![DestinationView::AfterDestinationNat, DestinationView::BeforeDestinationNat])
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    select(vec![("x", "s"), ("x", "s"), ("x", "t"), ("y", "s")])
        .prop_map(|(namespace, name)| ServiceName::new(namespace, name))
}

/// What ports of Services and of slices have in common.
fn port_of_service() -> impl Strategy<Value = (String, Transport)> {
    let names = select(vec!["web", "web", "db"]).prop_map(str::to_owned);
    (names, select(vec![Transport::Tcp, Transport::Tcp, Transport::Udp]))
}

pub(crate) fn service() -> impl Strategy<Value = Object> {
    let port = (port_of_service(), select(PORTS.to_vec()), option::weighted(0.3, Just(8080)));
    let port = port.prop_map(|((name, transport), port, node_port)| ServicePort {
        name,
        transport,
        port,
        node_port,
    });
    (service_name(), vec(select(SERVED.to_vec()), 1..4), vec(port, 1..3)).prop_map(
        |(name, addresses, ports)| {
            let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
            Object::Service(Service { name, addresses, ports: ports.into_iter().collect() })
        },
    )
}

pub(crate) fn slice() -> impl Strategy<Value = Object> {
    let port = (port_of_service(), select(PORTS.to_vec()))
        .prop_map(|((name, transport), port)| NamedPort { name, transport, port });
    let backends = [addresses(), vec![RESOLVED]].concat();
    let name = select(vec!["a", "b", "c"]);
    (name, service_name(), vec(select(backends), 0..5), vec(port, 0..3)).prop_map(
        |(name, service, addresses, ports): (&str, _, Vec<IpAddr>, Vec<_>)| {
            Object::EndpointSlice(EndpointSlice {
                name: name.into(),
                service,
                addresses: addresses.into_iter().collect(),
                ports: ports.into_iter().collect(),
            })
        },
    )
}

/// Lets a rule ask for a Service: at one of its sides or at both, by address or by port.
fn ask_for(rule: &mut Rule, choice: u8, service: &ServiceName) {
    let RuleMatch { l4, source, destination, .. } = &mut rule.matches;
    for (number, entity) in [source, destination].into_iter().enumerate() {
        if (choice >> number) % 4 == 3 {
            entity.peers = Some(Peers::BackendsOf(service.clone()));
        }
    }
    let L4Match::Ports { source, destination, .. } = l4 else { return };
    for (number, PortConstraint { any_of, none_of }) in
        [source, destination].into_iter().enumerate()
    {
        let list = match (choice >> (4 + number)) % 8 {
            1 | 3 => any_of,
            5 => none_of,
            _ => continue,
        };
        let list = list.get_or_insert_with(PortMatch::default);
        list.backends_of = Some(service.clone());
    }
}

/// The objects of a small cluster in which rules ask for Services.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Object>> {
    let rest = prop_oneof![1 => cluster::objects(), 3 => crowded()];
    let asked = vec((any::<u8>(), service_name()), 1..8);
    let services = vec(prop_oneof![1 => service(), 2 => slice()], 1..10);
    (rest, asked, services).prop_map(|(mut objects, asked, services)| {
        let mut asked = asked.iter().cycle();
        for object in &mut objects {
            let Object::Policy(policy) = object else { continue };
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress).flatten() {
                if let Some((choice, service)) = asked.next() {
                    ask_for(rule, *choice, service);
                }
            }
        }
        objects.extend(services);
        objects
    })
}

/// A cluster with Services of several backends each, and policies that tell the backends apart.
pub(crate) fn backends_apart() -> impl Strategy<Value = Vec<Object>> {
    let port = |number: &'static [u16]| select(number.to_vec());
    let listed = |numbers: Vec<u16>| {
        let numbers = numbers.into_iter().map(|it| PortRange::single(it).unwrap()).collect();
        PortConstraint {
            any_of: Some(PortMatch { numbers, ..PortMatch::default() }),
            none_of: None,
        }
    };
    let ports =
        (vec(port(&[80, 8080, 1]), 1..3), option::weighted(0.2, port(&[80, Flow::EPHEMERAL])));
    let l4 = option::weighted(0.6, ports).prop_map(move |ports| {
        let Some((destination, source)) = ports else { return L4Match::Any };
        let source = source.map(|it| listed(vec![it])).unwrap_or_default();
        L4Match::Ports { transport: Transport::Tcp, source, destination: listed(destination) }
    });
    let blocks =
        ["10.0.0.0/30", "10.0.0.2/32", "10.0.0.4/31", "10.96.0.0/24", "fd00::/126", "0.0.0.0/0"];
    let nets = vec(select(blocks.to_vec()), 1..3)
        .prop_map(|it| it.iter().map(|it| it.parse::<Prefix>().unwrap()).collect::<PrefixSet>());
    let action =
        select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let rule = (action, l4, option::weighted(0.8, nets)).prop_map(|(action, l4, nets)| {
        let mut matches = RuleMatch { l4, ..RuleMatch::default() };
        matches.destination.nets = nets;
        Rule::new(0, action, matches)
    });
    let policy =
        (select(vec!["default", "kube-admin"]), vec(rule, 1..4)).prop_map(|(tier, rules)| {
            let mut policy = Policy::new(PolicyKey::kubernetes("x", tier), Selector::all());
            policy.tier = tier.into();
            policy.egress = Some(rules);
            for (index, rule) in policy.egress.iter_mut().flatten().enumerate() {
                rule.index = index;
            }
            Object::Policy(policy)
        });
    let backends = [addresses(), vec![RESOLVED]].concat();
    let slices = vec((vec(select(backends), 1..5), vec(port(&[80, 8080]), 1..3)), 1..4);
    let slices = slices.prop_map(|slices| {
        let slice = |(index, (addresses, ports)): (usize, (Vec<IpAddr>, Vec<u16>))| {
            let port = |port| NamedPort { name: "web".into(), transport: Transport::Tcp, port };
            Object::EndpointSlice(EndpointSlice {
                name: index.to_string(),
                service: ServiceName::new("x", "s"),
                addresses: addresses.into_iter().collect(),
                ports: ports.into_iter().map(port).collect(),
            })
        };
        slices.into_iter().enumerate().map(slice).collect::<Vec<_>>()
    });
    (crowded(), vec(policy, 1..4), slices).prop_map(|(mut objects, policies, slices)| {
        objects.retain(|it| !matches!(it, Object::Policy(_)));
        let (name, transport) = ("web".to_owned(), Transport::Tcp);
        let port = ServicePort { name, transport, port: 80, node_port: Some(8080) };
        objects.push(Object::Service(Service {
            name: ServiceName::new("x", "s"),
            addresses: ["10.96.0.1", "fd00:96::1"].map(|it| it.parse().unwrap()).into(),
            ports: [port].into(),
        }));
        objects.extend(policies.into_iter().chain(slices));
        objects
    })
}

/// Flows of endpoints to everything that nodes may translate, and to what is beside it.
pub(crate) fn flows_to_services(objects: &[Object]) -> Vec<Flow> {
    let mut flows = Vec::new();
    for object in objects {
        let Object::Service(service) = object else { continue };
        let nodes = objects.iter().filter_map(|it| match it {
            Object::Node(node) => Some(node.addresses.iter()),
            _ => None,
        });
        let destinations: Vec<_> = service.addresses.iter().chain(nodes.flatten()).collect();
        for port in &service.ports {
            for number in [Some(port.port), port.node_port, Some(2)].into_iter().flatten() {
                for (index, &source) in addresses().iter().enumerate() {
                    let own = if index % 3 == 0 { number } else { Flow::EPHEMERAL };
                    let (transport, destination) = (port.transport, number);
                    let payload = Payload::Ports { transport, source: own, destination };
                    let alike = destinations.iter().filter(|it| it.is_ipv4() == source.is_ipv4());
                    flows.extend(alike.map(|it| Flow {
                        source,
                        destination: **it,
                        payload,
                        origin: Origin::Endpoint,
                    }));
                }
            }
        }
    }
    flows
}
