//! Small clusters with Services. Shares nothing with what it tests.

use std::net::IpAddr;

use netpol_core::model::{
    EndpointSlice, L4Match, NamedPort, Object, Peers, PortConstraint, PortMatch, Rule, RuleMatch,
    Service, ServiceName, ServicePort,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{self, PORTS, RESOLVED, addresses, crowded, transport};

/// Addresses of Services; two of them are also those of endpoints.
const SERVED: [&str; 5] = ["10.96.0.1", "10.96.0.2", "fd00:96::1", "10.0.0.2", "fd00::2"];

fn service_name() -> impl Strategy<Value = ServiceName> {
    (select(vec!["x", "y"]), select(vec!["s", "t"]))
        .prop_map(|(it, name)| ServiceName::new(it, name))
}

fn port_name() -> impl Strategy<Value = String> {
    select(vec!["", "web", "db"]).prop_map(str::to_owned)
}

pub(crate) fn service() -> impl Strategy<Value = Object> {
    let port =
        (port_name(), transport(), select(PORTS.to_vec()), option::weighted(0.3, Just(8080)))
            .prop_map(|(name, transport, port, node_port)| ServicePort {
                name,
                transport,
                port,
                node_port,
            });
    (service_name(), vec(select(SERVED.to_vec()), 0..3), vec(port, 0..3)).prop_map(
        |(name, addresses, ports)| {
            let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
            Object::Service(Service { name, addresses, ports: ports.into_iter().collect() })
        },
    )
}

pub(crate) fn slice() -> impl Strategy<Value = Object> {
    let port = (port_name(), transport(), select(PORTS.to_vec()))
        .prop_map(|(name, transport, port)| NamedPort { name, transport, port });
    let backends = [addresses(), vec![RESOLVED]].concat();
    let name = select(vec!["a", "b", "c"]);
    (name, service_name(), vec(select(backends), 0..4), vec(port, 0..3)).prop_map(
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
    let services = vec(prop_oneof![1 => service(), 2 => slice()], 1..8);
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
