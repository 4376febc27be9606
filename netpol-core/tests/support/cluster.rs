//! Small clusters, and flows at the edges of what their rules can tell apart. Shares nothing with what it tests.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::model::{
    Action, DomainAddress, DomainPattern, Endpoint, EndpointId, Enforcement, EntityMatch,
    HttpMatch, L4Match, Lifecycle, Mode, NamedPort, NetworkSet, Node, Object, Order, Peers, Policy,
    PolicyKey, PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch, Tenancy, Tier, TierEnd,
    Timestamp,
};
use netpol_core::net::{Family, IcmpMatch, PortRange, Prefix, PrefixSet, Protocol, Transport};
use netpol_core::program::Program;
use netpol_core::{
    Capabilities, Change, Engine, Flow, Labels, NodeConfig, Origin, Payload, Selector, Verdict,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const NODE: &str = "node-a";
pub(crate) const PORTS: [u16; 4] = [1, 80, 8080, 65_535];
/// An address that is nobody's, for which names may stand.
pub(crate) const RESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

pub(crate) fn addresses() -> Vec<IpAddr> {
    let v4 = (1..=6).map(|host| IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)));
    let v6 = (1..=4).map(|host| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host)));
    v4.chain(v6).collect()
}

fn nets() -> impl Strategy<Value = PrefixSet> {
    let blocks = [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/30",
        "10.0.0.4/31",
        "10.0.0.2/32",
        "10.0.0.0/24",
        "192.0.2.0/24",
        "fd00::/126",
        "fd00::2/128",
        "2001:db8::/32",
    ];
    vec(select(blocks.to_vec()), 0..3)
        .prop_map(|texts| texts.iter().map(|text| text.parse::<Prefix>().unwrap()).collect())
}

fn selector() -> impl Strategy<Value = Selector> {
    let texts = [
        "all()",
        "app == 'a'",
        "app != 'a'",
        "has(role)",
        "!has(role)",
        "app in {'a', 'b'}",
        "app not in {'b'}",
        "projectcalico.org/namespace == 'x'",
        "pcns.team == 'red'",
        "pcns.team != 'red'",
        "projectcalico.org/orchestrator == 'k8s'",
        "app == 'a' && has(role)",
        "app == 'a' || pcns.team == 'red'",
        "kind == 'set'",
        "pcsa.grade == 'gold'",
        "projectcalico.org/serviceaccount == 's'",
        "pcsa.projectcalico.org/name == 's' && app in {'a', 'b'}",
        "pcns.projectcalico.org/name in {'x', 'z'}",
        "has(pcns.team) && has(app)",
        "has(pcsa.grade) || pcsa.grade == 'gold'",
        "!has(app) && !has(pcns.team)",
        "app == 'a' && app == 'b'",
    ];
    select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    vec(select(vec![("app", "a"), ("app", "b"), ("role", "r"), ("pcns.team", "red")]), 0..3)
        .prop_map(|labels| labels.into_iter().collect())
}

fn transport() -> impl Strategy<Value = Transport> {
    select(vec![Transport::Tcp, Transport::Udp, Transport::Sctp])
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let port = (select(vec!["web", "db"]), transport(), select(PORTS.to_vec()))
        .prop_map(|(name, transport, port)| NamedPort { name: name.into(), transport, port });
    let identity =
        (select(vec!["x", "y"]), select(vec!["p", "q", "r"]), select(vec!["", "1", "2"]));
    let state = (
        prop_oneof![8 => Just(Mode::Enforce), 1 => Just(Mode::Audit), 1 => Just(Mode::Isolate)],
        prop_oneof![8 => Just(Lifecycle::Running), 1 => Just(Lifecycle::Finished)],
        select(vec![Verdict::Allow, Verdict::Deny]),
        0..3_i64,
        option::of(Just("k8s".to_owned())),
        option::of(Just("s".to_owned())),
    );
    (identity, state, vec(select(addresses()), 0..4), labels(), vec(port, 0..3)).prop_map(
        |(
            (namespace, name, uid),
            (mode, lifecycle, default, created, orchestrator, account),
            addresses,
            labels,
            ports,
        )| {
            let mut endpoint =
                Endpoint::new(EndpointId::workload(namespace, name).with_uid(uid)).on_node(NODE);
            endpoint.mode = mode;
            endpoint.lifecycle = lifecycle;
            endpoint.default_verdict = default;
            endpoint.created = Timestamp(created);
            endpoint.orchestrator = orchestrator;
            endpoint.service_account = account;
            endpoint.addresses = addresses;
            endpoint.labels = labels;
            endpoint.ports = ports;
            endpoint
        },
    )
}

fn tenancy() -> impl Strategy<Value = Tenancy> {
    let keys = vec(select(vec!["team", "stage", "projectcalico.org/name", "none"]), 0..3);
    (keys, any::<bool>()).prop_map(|(keys, same)| {
        let keys = keys.into_iter().map(str::to_owned).collect();
        if same { Tenancy::Same(keys) } else { Tenancy::NotSame(keys) }
    })
}

fn domain_pattern() -> impl Strategy<Value = DomainPattern> {
    (select(vec!["example.com", "www.example.com", "example.org"]), any::<bool>()).prop_map(
        |(name, below)| {
            let name = name.parse().unwrap();
            if below { DomainPattern::Below(name) } else { DomainPattern::Exact(name) }
        },
    )
}

fn peers() -> impl Strategy<Value = Peers> {
    prop_oneof![
        4 => selector().prop_map(Peers::Endpoints),
        1 => Just(Peers::Nodes(Selector::all())),
        2 => (selector(), tenancy())
            .prop_map(|(endpoints, tenancy)| Peers::Tenants { endpoints, tenancy }),
        1 => vec(domain_pattern(), 0..3).prop_map(|them| Peers::DomainNames(them.into_iter().collect())),
    ]
}

fn entity() -> impl Strategy<Value = EntityMatch> {
    let not_nets = prop_oneof![3 => Just(PrefixSet::default()), 1 => nets()];
    prop_oneof![
        2 => Just(EntityMatch::default()),
        3 => (option::of(peers()), option::weighted(0.2, selector()), option::weighted(0.4, nets()), not_nets)
            .prop_map(|(peers, not_peers, nets, not_nets)| EntityMatch { peers, not_peers, nets, not_nets }),
    ]
}

fn port_constraint() -> impl Strategy<Value = PortConstraint<PortMatch>> {
    let list = || {
        let range = (select(PORTS.to_vec()), 0..3_u16)
            .prop_map(|(first, more)| PortRange::new(first, first.saturating_add(more)).unwrap());
        (vec(range, 0..3), vec(select(vec!["web", "db"]), 0..2)).prop_map(|(numbers, names)| {
            PortMatch {
                numbers: numbers.into_iter().collect(),
                names: names.into_iter().map(str::to_owned).collect(),
                backends_of: None,
            }
        })
    };
    (option::weighted(0.6, list()), option::weighted(0.2, list()))
        .prop_map(|(any_of, none_of)| PortConstraint { any_of, none_of })
}

fn l4() -> impl Strategy<Value = L4Match<PortMatch>> {
    let icmp = || option::of((select(vec![0_u8, 3, 8, 128]), option::of(0..2_u8)));
    let protocol = || select(vec![Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::new(47)]);
    prop_oneof![
        2 => Just(L4Match::Any),
        1 => protocol().prop_map(L4Match::Is),
        1 => vec(protocol(), 1..3).prop_map(|them| L4Match::IsNot(them.into_iter().collect())),
        4 => (transport(), port_constraint(), port_constraint())
            .prop_map(|(transport, source, destination)| L4Match::Ports { transport, source, destination }),
        1 => (select(Family::BOTH.to_vec()), icmp(), icmp()).prop_map(|(family, is, is_not)| {
            let message = |it: Option<(u8, Option<u8>)>| it.map(|(kind, code)| IcmpMatch { kind, code });
            L4Match::Icmp { family, is: message(is), is_not: message(is_not) }
        }),
    ]
}

fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let action = prop_oneof![
        4 => Just(Action::Allow), 2 => Just(Action::Deny), 1 => Just(Action::Pass), 1 => Just(Action::Log)
    ];
    let family = option::weighted(0.1, select(Family::BOTH.to_vec()));
    let http = option::weighted(0.1, Just(HttpMatch::default()));
    let rule = (action, family, l4(), entity(), entity(), http, prop::bool::weighted(0.1))
        .prop_map(|(action, family, l4, source, destination, http, degraded)| {
            let matches = RuleMatch { family, l4, source, destination, http };
            let mut rule = Rule::new(0, action, matches);
            rule.degraded = degraded;
            rule
        });
    option::of(vec(rule, 0..4).prop_map(|mut rules| {
        rules.iter_mut().enumerate().for_each(|(index, rule)| rule.index = index);
        rules
    }))
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    use PolicyKind as Kind;
    let kinds = vec![
        (Kind::NetworkPolicy, Some("x")),
        (Kind::KubernetesNetworkPolicy, Some("x")),
        (Kind::GlobalNetworkPolicy, None),
        (Kind::KubernetesClusterNetworkPolicy, None),
        (Kind::KubernetesAdminNetworkPolicy, None),
        (Kind::KubernetesBaselineAdminNetworkPolicy, None),
    ];
    let key = (select(kinds), select(vec!["m", "n", "o"])).prop_map(|((kind, namespace), name)| {
        PolicyKey { kind, namespace: namespace.map(Into::into), name: name.into() }
    });
    let tiers = vec!["default", "kube-admin", "kube-baseline", "t1", "t2", "unknown"];
    let order = option::of(select(vec![-1, 5, 10]).prop_map(Order::whole));
    let enforcement = prop_oneof![5 => Just(Enforcement::Enforced), 1 => Just(Enforcement::Staged)];
    (key, select(tiers), order, selector(), rules(), rules(), enforcement).prop_map(
        |(key, tier, order, subject, ingress, egress, enforcement)| {
            let mut policy = Policy::new(key, subject);
            policy.tier = tier.into();
            policy.order = order;
            policy.ingress = ingress;
            policy.egress = egress;
            policy.enforcement = enforcement;
            policy
        },
    )
}

/// The objects of a small cluster. Names repeat, so later objects replace earlier ones.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Object>> {
    let set = (option::of(Just("x".to_owned())), nets()).prop_map(|(namespace, nets)| {
        let labels = [("kind", "set"), ("app", "a")].into_iter().collect();
        Object::NetworkSet(NetworkSet { namespace, name: "s".into(), labels, nets })
    });
    let tier = (
        select(vec!["t1", "t2"]),
        option::of(select(vec![1, 2_000_000])),
        select(vec![TierEnd::Deny, TierEnd::Pass]),
    )
        .prop_map(|(name, order, end)| Object::Tier(Tier::new(name, order.map(Order::whole), end)));
    let labels = (select(vec!["red", "blue"]), option::of(select(vec!["a", "b"])));
    let namespace = (select(vec!["x", "y"]), labels).prop_map(|(name, (team, stage))| {
        let stage = stage.map(|it| ("stage", it));
        let labels = [("team", team)].into_iter().chain(stage).collect();
        Object::Namespace { name: name.into(), labels }
    });
    let answer = (
        select(vec!["example.com", "www.example.com", "a.b.example.com", "example.org"]),
        prop_oneof![select(addresses()), Just(RESOLVED)],
    )
        .prop_map(|(name, address)| {
            let name = name.parse().unwrap();
            Object::DomainAddress(DomainAddress { name, address, expires: Timestamp(1) })
        });
    let account = Just(Object::ServiceAccount {
        namespace: "x".into(),
        name: "s".into(),
        labels: [("grade", "gold")].into_iter().collect(),
    });
    let node = Just(Object::Node(Node {
        name: NODE.into(),
        labels: Labels::default(),
        addresses: vec!["10.0.0.6".parse().unwrap(), "192.0.2.7".parse().unwrap()],
        interfaces: Vec::new(),
    }));
    let object = prop_oneof![
        6 => endpoint().prop_map(Object::Endpoint),
        5 => policy().prop_map(Object::Policy),
        1 => set, 1 => tier, 2 => namespace, 1 => account, 1 => node, 2 => answer,
    ];
    vec(object, 1..16)
}

/// The objects of a small cluster in which most policies apply to every endpoint and most rules leave the endpoint's own
/// side open, so that rules come into play and stand in each other's way.
pub(crate) fn crowded() -> impl Strategy<Value = Vec<Object>> {
    let endpoints = [("x", "p", 1), ("x", "q", 2), ("y", "r", 4)].map(|(namespace, name, host)| {
        endpoint().prop_map(move |mut endpoint| {
            endpoint.id = EndpointId::workload(namespace, name);
            endpoint.mode = Mode::Enforce;
            endpoint.lifecycle = Lifecycle::Running;
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host);
            let host = u8::try_from(host).unwrap();
            endpoint.addresses = vec![Ipv4Addr::new(10, 0, 0, host).into(), v6.into()];
            endpoint
        })
    });
    let leave_open = |rules: &mut Option<Vec<Rule>>, local: fn(&mut Rule) -> &mut EntityMatch| {
        for (index, rule) in rules.iter_mut().flatten().enumerate() {
            if index % 4 != 3 {
                *local(rule) = EntityMatch::default();
            }
        }
    };
    let policies = vec(policy(), 2..6).prop_map(move |mut policies| {
        for (index, policy) in policies.iter_mut().enumerate() {
            policy.key.name = format!("{}-{index}", policy.key.name);
            policy.subject = Selector::all();
            policy.enforcement = Enforcement::Enforced;
            leave_open(&mut policy.ingress, |rule| &mut rule.matches.destination);
            leave_open(&mut policy.egress, |rule| &mut rule.matches.source);
        }
        policies
    });
    (endpoints, policies, objects()).prop_map(|(endpoints, policies, rest)| {
        let is_other = |it: &Object| !matches!(it, Object::Endpoint(_) | Object::Policy(_));
        let others = rest.into_iter().filter(is_other);
        let endpoints = endpoints.into_iter().map(Object::Endpoint);
        others.chain(endpoints).chain(policies.into_iter().map(Object::Policy)).collect()
    })
}

/// The same objects with endpoints of at most one address of each family, as pods are.
pub(crate) fn with_single_addresses(mut objects: Vec<Object>) -> Vec<Object> {
    for object in &mut objects {
        if let Object::Endpoint(endpoint) = object {
            let first = |family| endpoint.addresses.iter().find(|it| Family::of(**it) == family);
            endpoint.addresses = Family::BOTH.into_iter().filter_map(first).copied().collect();
        }
    }
    objects
}

/// Every address that a rule can tell from another: the edges of all prefixes and all addresses of endpoints.
pub(crate) fn edge_addresses(objects: &[Object]) -> BTreeSet<IpAddr> {
    let mut edges: BTreeSet<IpAddr> = addresses().into_iter().collect();
    let mut add = |nets: &PrefixSet| {
        for prefix in nets.prefixes() {
            edges.extend([
                prefix.first(),
                prefix.last(),
                step(prefix.first(), false),
                step(prefix.last(), true),
            ]);
        }
    };
    for object in objects {
        match object {
            Object::NetworkSet(set) => add(&set.nets),
            Object::DomainAddress(it) => add(&[Prefix::host(it.address)].into_iter().collect()),
            Object::Service(it) => add(&it.addresses.iter().copied().map(Prefix::host).collect()),
            Object::EndpointSlice(it) => {
                add(&it.addresses.iter().copied().map(Prefix::host).collect());
            }
            Object::Policy(policy) => {
                for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                    for entity in [&rule.matches.source, &rule.matches.destination] {
                        entity.nets.iter().for_each(&mut add);
                        add(&entity.not_nets);
                    }
                }
            }
            _ => {}
        }
    }
    edges
}

fn step(address: IpAddr, up: bool) -> IpAddr {
    match address {
        IpAddr::V4(it) => {
            let bits = if up { it.to_bits().wrapping_add(1) } else { it.to_bits().wrapping_sub(1) };
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        }
        IpAddr::V6(it) => {
            let bits = if up { it.to_bits().wrapping_add(1) } else { it.to_bits().wrapping_sub(1) };
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}

/// Every payload that a rule can tell from another: the edges of all port ranges, all types of ICMP and all protocols,
/// and what is beside them.
pub(crate) fn payloads(objects: &[Object]) -> Vec<Payload> {
    let mut ports: BTreeSet<u16> = [0, 1, Flow::EPHEMERAL, 65_535].into();
    let mut kinds: BTreeSet<u8> =
        [0, 8, 128].into_iter().chain(129..=138).chain(142..=144).collect();
    let mut protocols: BTreeSet<u8> = [0, 47, 136, 255].into();
    let mut add_ports = |constraint: &PortConstraint<PortMatch>| {
        for list in constraint.any_of.iter().chain(&constraint.none_of) {
            for range in list.numbers.ranges() {
                let (first, last) = (range.first(), range.last());
                ports.extend([first - 1, first, last, last.saturating_add(1)]);
            }
        }
    };
    for object in objects {
        let Object::Policy(policy) = object else { continue };
        for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
            match &rule.matches.l4 {
                L4Match::Any => {}
                L4Match::Is(protocol) => {
                    protocols.extend([protocol.number(), protocol.number() + 1])
                }
                L4Match::IsNot(them) => protocols.extend(them.iter().map(|it| it.number())),
                L4Match::Ports { source, destination, .. } => {
                    [source, destination].into_iter().for_each(&mut add_ports);
                }
                L4Match::Icmp { is, is_not, .. } => {
                    kinds.extend(is.iter().chain(is_not).flat_map(|it| [it.kind, it.kind + 1]));
                }
            }
        }
    }
    for object in objects {
        let near = |port: u16| [port - 1, port, port.saturating_add(1)];
        match object {
            Object::Endpoint(it) => ports.extend(it.ports.iter().flat_map(|it| near(it.port))),
            Object::EndpointSlice(it) => ports.extend(it.ports.iter().flat_map(|it| near(it.port))),
            Object::Service(it) => {
                let numbers = it.ports.iter().flat_map(|it| [Some(it.port), it.node_port]);
                ports.extend(numbers.flatten().flat_map(near));
            }
            _ => {}
        }
    }
    let mut payloads = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        for &source in &ports {
            payloads.extend(ports.iter().map(|&destination| Payload::Ports {
                transport,
                source,
                destination,
            }));
        }
    }
    payloads.extend(
        kinds.iter().flat_map(|&kind| [0, 1, 2, 255].map(|code| Payload::Icmp { kind, code })),
    );
    let transports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    let others =
        protocols.iter().map(|&it| Protocol::new(it)).filter(|it| !transports.contains(it));
    payloads.extend(others.map(Payload::Other));
    payloads
}

/// Flows between a sample of the edge addresses, with every payload.
pub(crate) fn flows(objects: &[Object], seed: usize) -> Vec<Flow> {
    let edges: Vec<_> = edge_addresses(objects).into_iter().collect();
    let payloads = payloads(objects);
    let mut flows = Vec::new();
    for (from, &source) in edges.iter().enumerate() {
        for (to, &destination) in edges.iter().enumerate() {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let pick = |offset: usize| {
                payloads[(from * 31 + to * 17 + seed + offset) * 7_919 % payloads.len()]
            };
            for offset in 0..3 {
                let origin =
                    [Origin::Endpoint, Origin::Endpoint, Origin::OwnNode][(from + to + offset) % 3];
                flows.push(Flow { source, destination, payload: pick(offset), origin });
            }
        }
    }
    flows
}

pub(crate) fn compiled(inputs: &[Object], capabilities: &Capabilities) -> Program {
    let mut engine = Engine::new(NodeConfig::new(NODE), capabilities);
    inputs.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
    engine.inputs_complete();
    match engine.poll_update().unwrap().change {
        Change::Full(program) => (*program).clone(),
        other => panic!("expected a full program, got {other:?}"),
    }
}
