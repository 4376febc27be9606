//! The judge and the interpreter of compiled programs, which share no code, give one answer to every flow that can
//! tell rules apart.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::eval::Judge;
use netpol_core::model::{
    Action, Endpoint, EndpointId, Enforcement, EntityMatch, Inputs, L4Match, Lifecycle, Mode,
    NamedPort, NetworkSet, Node, Object, Order, Peers, Policy, PolicyKey, PolicyKind,
    PortConstraint, PortMatch, Rule, RuleMatch, Tier, TierEnd, Timestamp,
};
use netpol_core::net::{Family, IcmpMatch, PortRange, Prefix, PrefixSet, Protocol, Transport};
use netpol_core::program::Program;
use netpol_core::{
    Capabilities, Change, Direction, Engine, Explanation, Flow, Labels, NodeConfig, Origin,
    Payload, Reason, Selector, Verdict,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const NODE: &str = "node-a";
const PORTS: [u16; 4] = [1, 80, 8080, 65_535];

fn addresses() -> Vec<IpAddr> {
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
    ];
    select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
}

fn labels() -> impl Strategy<Value = Labels> {
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

fn peers() -> impl Strategy<Value = Peers> {
    prop_oneof![4 => selector().prop_map(Peers::Endpoints), 1 => Just(Peers::Nodes(Selector::all()))]
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
    let rule = (action, family, l4(), entity(), entity(), prop::bool::weighted(0.1)).prop_map(
        |(action, family, l4, source, destination, degraded)| {
            let mut rule = Rule::new(0, action, RuleMatch { family, l4, source, destination });
            rule.degraded = degraded;
            rule
        },
    );
    option::of(vec(rule, 0..4).prop_map(|mut rules| {
        rules.iter_mut().enumerate().for_each(|(index, rule)| rule.index = index);
        rules
    }))
}

fn policy() -> impl Strategy<Value = Policy> {
    let key = (
        select(vec![PolicyKind::NetworkPolicy, PolicyKind::KubernetesNetworkPolicy]),
        select(vec!["m", "n", "o"]),
    )
        .prop_map(|(kind, name)| PolicyKey {
            kind,
            namespace: Some("x".into()),
            name: name.into(),
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
fn objects() -> impl Strategy<Value = Vec<Object>> {
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
    let red = select(vec!["x", "y"]).prop_map(|name| Object::Namespace {
        name: name.into(),
        labels: [("team", "red")].into_iter().collect(),
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
    }));
    let object = prop_oneof![
        6 => endpoint().prop_map(Object::Endpoint),
        5 => policy().prop_map(Object::Policy),
        1 => set, 1 => tier, 1 => red, 1 => account, 1 => node,
    ];
    vec(object, 1..16)
}

/// Every address that a rule can tell from another: the edges of all prefixes and all addresses of endpoints.
fn edge_addresses(objects: &[Object]) -> BTreeSet<IpAddr> {
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

fn payloads() -> Vec<Payload> {
    let ports = [0, 1, 2, 79, 80, 81, 82, 83, 8080, 8083, 65_534, 65_535];
    let mut payloads: Vec<_> = [Transport::Tcp, Transport::Udp, Transport::Sctp]
        .into_iter()
        .flat_map(|transport| {
            ports.map(|destination| Payload::Ports { transport, source: 80, destination })
        })
        .collect();
    payloads.push(Payload::Ports { transport: Transport::Tcp, source: 8080, destination: 80 });
    payloads.extend([0, 3, 8, 128, 134, 135].map(|kind| Payload::Icmp { kind, code: kind % 2 }));
    payloads.extend([47, 136].map(|number| Payload::Other(Protocol::new(number))));
    payloads
}

/// Flows between a sample of the edge addresses, with every payload.
fn flows(edges: &BTreeSet<IpAddr>, seed: usize) -> Vec<Flow> {
    let edges: Vec<_> = edges.iter().copied().collect();
    let payloads = payloads();
    let mut flows = Vec::new();
    for (from, &source) in edges.iter().enumerate() {
        for (to, &destination) in edges.iter().enumerate() {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let pick =
                |offset: usize| payloads[(from * 31 + to * 17 + seed + offset) % payloads.len()];
            for offset in 0..3 {
                let origin =
                    [Origin::Endpoint, Origin::Endpoint, Origin::OwnNode][(from + to + offset) % 3];
                flows.push(Flow { source, destination, payload: pick(offset * 7), origin });
            }
        }
    }
    flows
}

fn compiled(inputs: &[Object], capabilities: &Capabilities) -> Program {
    let mut engine = Engine::new(NodeConfig::new(NODE), capabilities);
    inputs.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
    engine.inputs_complete();
    match engine.poll_update().unwrap().change {
        Change::Full(program) => (*program).clone(),
        other => panic!("expected a full program, got {other:?}"),
    }
}

/// What the interpreter says of one half, in the judge's words.
fn half(of_program: Option<Explanation>) -> Explanation {
    of_program.unwrap_or_else(|| Explanation::at_once(Verdict::Allow, Reason::NoEndpoint))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn judge_and_program_agree_on_verdict_reason_and_way(objects in objects(), seed in 0..1000_usize, log in any::<bool>()) {
        let mut capabilities = Capabilities::all();
        capabilities.log = log;
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let program = compiled(&objects, &capabilities);
        let judge = Judge::new(&inputs, &capabilities);
        for flow in flows(&edge_addresses(&objects), seed) {
            let judged = judge.evaluate(&flow).enforced;
            let outcome = program.outcome(&flow);
            prop_assert_eq!(&half(outcome.egress), &judged.egress, "egress of {}", flow);
            prop_assert_eq!(&half(outcome.ingress), &judged.ingress, "ingress of {}", flow);
        }
    }

    #[test]
    fn the_order_of_inputs_does_not_matter(objects in objects(), seed in any::<usize>()) {
        // Names repeat, and the last object of a name counts: keep only that one, then shuffle.
        let mut last = std::collections::BTreeMap::new();
        objects.iter().for_each(|object| { last.insert(object.key(), object.clone()); });
        let sorted: Vec<_> = last.into_values().collect();
        let mut shuffled = sorted.clone();
        let len = shuffled.len();
        (0..len).for_each(|index| shuffled.swap(index, seed.wrapping_mul(index + 7) % len));
        let capabilities = Capabilities::all();
        let want = compiled(&sorted, &capabilities);
        prop_assert_eq!(&compiled(&shuffled, &capabilities), &want);
        // Histories: every object added, removed and added again.
        let mut engine = Engine::new(NodeConfig::new(NODE), &capabilities);
        for object in &shuffled {
            engine.upsert(object.clone()).unwrap();
            engine.remove(&object.key());
        }
        shuffled.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
        engine.inputs_complete();
        let Some(Change::Full(program)) = engine.poll_update().map(|update| update.change) else {
            return Err(TestCaseError::fail("expected a full program"));
        };
        prop_assert_eq!(&*program, &want);
    }

    #[test]
    fn programs_refer_to_what_they_hold_and_hold_nothing_else(objects in objects()) {
        let program = compiled(&objects, &Capabilities::all());
        let mut policy_sets = BTreeSet::new();
        for endpoint in &program.endpoints {
            policy_sets.extend(Direction::BOTH.map(|direction| endpoint.policy_set(direction)));
        }
        prop_assert_eq!(&policy_sets, &program.policy_sets.keys().copied().collect());
        let mut sets = BTreeSet::new();
        for rule in program.policy_sets.values().flat_map(|set| &set.stages).flat_map(|stage| &stage.rules) {
            for address in [Some(&rule.remote), rule.local.as_ref()].into_iter().flatten() {
                sets.extend(address.in_set.iter().chain(&address.not_in_set).copied());
            }
            if let L4Match::Ports { source, destination, .. } = &rule.l4 {
                for ports in [&source.any_of, &source.none_of, &destination.any_of, &destination.none_of] {
                    sets.extend(ports.iter().flat_map(|ports| ports.sets.iter().copied()));
                }
            }
        }
        prop_assert_eq!(&sets, &program.address_sets.keys().copied().collect());
    }
}
