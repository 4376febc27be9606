//! The judge, the interpreter of compiled programs and the flat form, which share no code, give one answer to every flow
//! that can tell rules apart.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/manifests.rs"]
mod manifests;
#[path = "support/services.rs"]
mod services;

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::eval::{Judge, Judgement};
use netpol_core::flat::{self, Cell, Flat, Limits, TableKey, Then};
use netpol_core::model::{
    self, Action, Inputs, L4Match, NamedPort, NetworkSet, Object, Peers, Policy, PolicyKey,
    PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch, Tenancy,
};
use netpol_core::net::{Family, PortRange, Prefix, Protocol, Transport};
use netpol_core::program::{Endpoint, Program};
use netpol_core::{
    Capabilities, Change, Direction, Engine, Explanation, Flow, NodeConfig, Origin, Payload,
    Reason, Selector, Step, Verdict,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use self::cluster::{
    NODE, compiled, crowded, edge_addresses, flows, objects, payloads, with_single_addresses,
};

/// What the interpreter says of one half, in the judge's words.
fn half(of_program: Option<Explanation>) -> Explanation {
    of_program.unwrap_or_else(|| Explanation::at_once(Verdict::Allow, Reason::NoEndpoint))
}

/// What the judge says of one half, without what it alone knows: of rules that programs do not hold.
fn judged(mut half: Explanation) -> Explanation {
    half.steps.retain(Step::is_known_to_programs);
    // What is one rule to its author is logged once.
    half.steps.dedup();
    half
}

/// Checks that the flat form says what the program says of a flow in one direction of an endpoint, where the program
/// asks policy about it. Returns whether the flat form could be asked.
fn flat_agrees(
    flat: &Flat,
    endpoint: &Endpoint,
    direction: Direction,
    flow: &Flow,
    program: &Explanation,
) -> Result<bool, TestCaseError> {
    let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
    let asks =
        matches!(program.reason, Reason::Rule(_) | Reason::NoMatch { .. } | Reason::DefaultVerdict);
    if !asks || flat.unclassified().contains_key(&key) {
        return Ok(false);
    }
    let Some(said) = flat.explain(key, flow) else {
        let icmp = if flow.family() == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 };
        prop_assert_eq!(
            flow.payload,
            Payload::Other(icmp),
            "only unreadable packets have no place"
        );
        return Ok(false);
    };
    // Of the way, the flat form keeps the Log rules.
    let logged = |step: &&Step| matches!(step, Step::Logged(_));
    let want = Explanation {
        verdict: program.verdict,
        reason: program.reason.clone(),
        steps: program.steps.iter().filter(logged).cloned().collect(),
    };
    prop_assert_eq!(said, want, "{} of {} at {}", direction, flow, endpoint.id);
    Ok(true)
}

fn owner(program: &Program, address: std::net::IpAddr) -> Option<&Endpoint> {
    program.endpoints.iter().find(|it| it.addresses.contains(&address))
}

/// Checks what judge and program say of TCP flows to a port, egress first.
fn check(objects: &[Object], flows: &[(&str, &str, u16, [Verdict; 2])]) {
    let (capabilities, mut inputs) = (Capabilities::all(), Inputs::default());
    objects.iter().for_each(|object| inputs.upsert(object.clone()));
    let (program, judge) = (compiled(objects, &capabilities), Judge::new(&inputs, &capabilities));
    for &(source, destination, port, want) in flows {
        let [source, destination] = [source, destination].map(|it| it.parse().unwrap());
        for transport in [Transport::Tcp, Transport::Udp] {
            let flow = Flow::to_port(source, destination, transport, port);
            let (judged, outcome) = (judge.evaluate(&flow).enforced, program.outcome(&flow));
            if transport == Transport::Tcp {
                assert_eq!([judged.egress.verdict, judged.ingress.verdict], want, "{flow}");
            }
            let said = [half(outcome.egress), half(outcome.ingress)];
            assert_eq!(said, [judged.egress, judged.ingress], "{flow}");
        }
    }
}

/// A network set lends its members to selectors, and not its name to ports of endpoints that happen to be in it.
#[test]
fn network_sets_give_addresses_and_no_names_of_ports() {
    let endpoints: Selector = "kind == 'set'".parse().unwrap();
    let tenancy = Tenancy::Same(["team".to_owned()].into());
    check_network_set(&Peers::Endpoints(endpoints.clone()));
    check_network_set(&Peers::Tenants { endpoints, tenancy });
}

fn check_network_set(peers: &Peers) {
    let mut objects: Vec<Object> = Vec::new();
    for (name, address) in [("p", "10.0.0.1"), ("q", "10.0.1.1"), ("r", "10.0.2.1")] {
        let mut pod = model::Endpoint::pod("x", name).on_node(NODE);
        pod.addresses = vec![address.parse().unwrap()];
        pod.ports = vec![NamedPort { name: "web".into(), transport: Transport::Tcp, port: 80 }];
        objects.push(pod.into());
    }
    let nets = ["10.0.0.1/32", "10.0.1.0/24"].map(|it| it.parse::<Prefix>().unwrap());
    objects.push(Object::Namespace {
        name: "x".into(),
        labels: [("team", "red")].into_iter().collect(),
    });
    objects.push(Object::NetworkSet(NetworkSet {
        namespace: Some("x".into()),
        name: "s".into(),
        labels: [("kind", "set")].into_iter().collect(),
        nets: nets.into_iter().collect(),
    }));
    let rule = |index, ports| {
        let mut matches = RuleMatch::default();
        matches.destination.peers = Some(peers.clone());
        let destination = PortConstraint { any_of: Some(ports), none_of: None };
        let (transport, source) = (Transport::Tcp, PortConstraint::default());
        matches.l4 = L4Match::Ports { transport, source, destination };
        Rule::new(index, Action::Allow, matches)
    };
    let named = PortMatch { names: ["web".to_owned()].into(), ..PortMatch::default() };
    let number = [PortRange::single(81).unwrap()].into_iter().collect();
    let numbered = PortMatch { numbers: number, ..PortMatch::default() };
    let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
    policy.ingress = Some(vec![rule(0, named), rule(1, numbered)]);
    policy.egress = policy.ingress.clone();
    objects.push(policy.into());

    let (allow, deny) = ([Verdict::Allow; 2], [Verdict::Deny; 2]);
    check(
        &objects,
        &[
            ("10.0.2.1", "10.0.0.1", 81, allow),
            ("10.0.2.1", "10.0.1.1", 81, allow),
            ("10.0.2.1", "10.0.0.1", 80, deny),
            ("10.0.2.1", "10.0.1.1", 80, deny),
        ],
    );
}

/// Endpoints with equal labels share policy sets only as far as nothing else tells them apart: one thing at a time.
#[test]
fn endpoints_that_selectors_cannot_tell_apart_can_differ() {
    let pod = |name: &str, address: &str| {
        let mut pod = model::Endpoint::pod("x", name).on_node(NODE);
        pod.addresses = vec![address.parse().unwrap()];
        pod
    };
    let pods = || [pod("p", "10.0.0.1"), pod("q", "10.0.0.2")];
    let denying = |matches| {
        let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
        policy.tier = "kube-admin".into();
        policy.ingress = Some(vec![Rule::new(0, Action::Deny, matches)]);
        Object::from(policy)
    };
    let (allow, deny) = (Verdict::Allow, Verdict::Deny);

    let [mut p, q] = pods();
    p.default_verdict = deny;
    let flows =
        [("10.0.0.1", "10.0.0.2", 80, [deny, allow]), ("10.0.0.2", "10.0.0.1", 80, [allow, deny])];
    check(&[p.into(), q.into()], &flows);

    let [mut p, mut q] = pods();
    for (pod, port) in [(&mut p, 80), (&mut q, 81)] {
        pod.ports = vec![NamedPort { name: "web".into(), transport: Transport::Tcp, port }];
    }
    let web = PortMatch { names: ["web".to_owned()].into(), ..PortMatch::default() };
    let destination = PortConstraint { any_of: Some(web), none_of: None };
    let (transport, source) = (Transport::Tcp, PortConstraint::default());
    let l4 = L4Match::Ports { transport, source, destination };
    let named = RuleMatch { l4, ..RuleMatch::default() };
    check(
        &[p.into(), q.into(), denying(named)],
        &[
            ("192.0.2.1", "10.0.0.1", 80, [allow, deny]),
            ("192.0.2.1", "10.0.0.1", 81, [allow, allow]),
            ("192.0.2.1", "10.0.0.2", 80, [allow, allow]),
            ("192.0.2.1", "10.0.0.2", 81, [allow, deny]),
        ],
    );

    let [p, q] = pods();
    let mut local = RuleMatch::default();
    local.destination.nets = Some(["10.0.0.1/32".parse::<Prefix>().unwrap()].into_iter().collect());
    let flows = [
        ("192.0.2.1", "10.0.0.1", 80, [allow, deny]),
        ("192.0.2.1", "10.0.0.2", 80, [allow, allow]),
    ];
    check(&[p.into(), q.into(), denying(local)], &flows);
}

/// Clusters of all kinds. Boxed, as the strategies are large and would be on the stack.
fn any_objects() -> impl Strategy<Value = Vec<Object>> {
    prop_oneof![
        1 => objects().boxed(), 1 => crowded().boxed(), 1 => services::objects().boxed(),
        1 => services::backends_apart().boxed(), 1 => manifests::objects().boxed(),
    ]
}

/// Agreement on manifests means something only if policies of every API decide, for and against.
#[test]
fn policies_of_every_api_decide_in_clusters_of_manifests() {
    let mut runner = TestRunner::deterministic();
    let mut decided: BTreeMap<(PolicyKind, Verdict), usize> = BTreeMap::new();
    let capabilities = Capabilities::all();
    for seed in 0..200 {
        let objects = manifests::objects().new_tree(&mut runner).unwrap().current();
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let judge = Judge::new(&inputs, &capabilities);
        for flow in flows(&objects, seed) {
            let Judgement { egress, ingress, .. } = judge.evaluate(&flow).enforced;
            for half in [egress, ingress] {
                if let Reason::Rule(rule) = half.reason {
                    *decided.entry((rule.policy.kind, half.verdict)).or_default() += 1;
                }
            }
        }
    }
    // Kubernetes policies have no rules that deny.
    let kinds: Vec<_> = decided.iter().filter(|(_, count)| **count >= 5).map(|it| *it.0).collect();
    let both = |kind| [(kind, Verdict::Allow), (kind, Verdict::Deny)];
    let want = [
        PolicyKind::KubernetesClusterNetworkPolicy,
        PolicyKind::KubernetesAdminNetworkPolicy,
        PolicyKind::KubernetesBaselineAdminNetworkPolicy,
        PolicyKind::NetworkPolicy,
        PolicyKind::GlobalNetworkPolicy,
    ];
    let want = [(PolicyKind::KubernetesNetworkPolicy, Verdict::Allow)]
        .into_iter()
        .chain(want.into_iter().flat_map(both));
    assert_eq!(kinds, want.collect::<Vec<_>>(), "{decided:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn judge_and_program_agree_on_verdict_reason_and_way(objects in any_objects(), seed in 0..1000_usize, log in any::<bool>(), view in services::destination_view()) {
        let mut capabilities = Capabilities::all();
        capabilities.log = log;
        capabilities.destination_view = view;
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let program = compiled(&objects, &capabilities);
        let judge = Judge::new(&inputs, &capabilities);
        let flat = flat::classify(&program, &Limits::unlimited()).unwrap();
        let flows = flows(&objects, seed).into_iter().chain(services::flows_to_services(&objects));
        for flow in flows {
            let outcome = program.outcome(&flow);
            for (direction, local, said) in [
                (Direction::Egress, flow.source, &outcome.egress),
                (Direction::Ingress, flow.destination, &outcome.ingress),
            ] {
                if let (Some(endpoint), Some(said)) = (owner(&program, local), said) {
                    flat_agrees(&flat, endpoint, direction, &flow, said)?;
                }
            }
            let Judgement { egress, ingress, .. } = judge.evaluate(&flow).enforced;
            prop_assert_eq!(half(outcome.egress), judged(egress), "egress of {}", flow);
            prop_assert_eq!(half(outcome.ingress), judged(ingress), "ingress of {}", flow);
        }
    }

    #[test]
    fn the_flat_form_agrees_for_every_table_and_class(
        objects in prop_oneof![
            1 => objects().prop_map(with_single_addresses).boxed(), 2 => crowded().boxed(),
            1 => services::objects().prop_map(with_single_addresses).boxed(),
            1 => services::backends_apart().boxed(),
        ],
        seed in 0..1000_usize, view in services::destination_view(),
    ) {
        let mut capabilities = Capabilities::all();
        capabilities.destination_view = view;
        let program = compiled(&objects, &capabilities);
        let flat = flat::classify(&program, &Limits::unlimited()).unwrap();
        let (payloads, remotes) = (payloads(&objects), edge_addresses(&objects));
        for endpoint in &program.endpoints {
            for (direction, &local) in Direction::BOTH.iter().flat_map(|it| endpoint.addresses.iter().map(move |at| (*it, at))) {
                for (number, &remote) in remotes.iter().filter(|it| it.is_ipv4() == local.is_ipv4()).enumerate() {
                    let (source, destination) = match direction {
                        Direction::Ingress => (remote, local),
                        Direction::Egress => (local, remote),
                    };
                    for &payload in payloads.iter().skip((number + seed) % 31).step_by(31) {
                        let flow = Flow { source, destination, payload, origin: Origin::Forwarded };
                        let said = program.explain(endpoint, direction, &flow);
                        flat_agrees(&flat, endpoint, direction, &flow, &said)?;
                    }
                }
            }
        }
    }

    #[test]
    fn flat_forms_are_canonical_and_within_their_bound(
        objects in prop_oneof![crowded().boxed(), services::backends_apart().boxed()], view in services::destination_view(),
    ) {
        let mut capabilities = Capabilities::all();
        capabilities.destination_view = view;
        let program = compiled(&objects, &capabilities);
        let flat = flat::classify(&program, &Limits::unlimited()).unwrap();
        let (bound, size) = (flat::size_bound(&program), flat.size());
        prop_assert_eq!((bound.addresses, bound.prefixes, bound.classes), (size.addresses, size.prefixes, size.classes));
        prop_assert!(size.entries <= bound.entries.values().sum::<usize>());
        let (mut rows, mut leaves, mut sources) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (key, table) in flat.tables() {
            prop_assert!(table.entries().len() + 2 <= bound.entries[key]);
            prop_assert!(table.entries().is_sorted_by(|a, b| a.0 < b.0));
            rows.extend(Family::BOTH.map(|family| table.other(family)));
            for &(class, row) in table.entries() {
                prop_assert_ne!(row, table.other(flat.classes()[class.0 as usize].family));
                rows.insert(row);
            }
        }
        for row in flat.rows() {
            leaves.insert(row.default);
            prop_assert!(row.cells.iter().all(|it| it.first <= it.last && it.then != Then::Leaf(row.default)));
            let apart = |a: &Cell, b: &Cell| {
                (a.protocol, a.last) < (b.protocol, b.first)
                    && (a.protocol != b.protocol || a.then != b.then || a.last + 1 < b.first)
            };
            prop_assert!(row.cells.is_sorted_by(apart), "{:?}", row);
            for cell in &row.cells {
                match cell.then {
                    Then::Leaf(leaf) => leaves.insert(leaf),
                    Then::BySource(list) => sources.insert(list),
                };
            }
        }
        for list in flat.sources() {
            prop_assert_eq!((list[0].first, list[list.len() - 1].last), (0, u16::MAX));
            prop_assert!(list.len() > 1 && list.is_sorted_by(|a, b| a.last + 1 == b.first && a.leaf != b.leaf));
            leaves.extend(list.iter().map(|range| range.leaf));
        }
        let counters: BTreeSet<_> = flat.leaves().iter().map(|leaf| leaf.counter).collect();
        let counts = (rows.len(), leaves.len(), sources.len(), counters.len());
        let stored = (flat.rows().len(), flat.leaves().len(), flat.sources().len(), flat.counters().len());
        prop_assert_eq!(counts, stored, "nothing is stored that nothing leads to");
    }

    #[test]
    fn the_order_of_inputs_does_not_matter(objects in any_objects(), seed in any::<usize>(), view in services::destination_view()) {
        // Names repeat, and the last object of a name counts: keep only that one, then shuffle.
        let mut last = BTreeMap::new();
        objects.iter().for_each(|object| { last.insert(object.key(), object.clone()); });
        let sorted: Vec<_> = last.into_values().collect();
        let mut shuffled = sorted.clone();
        let len = shuffled.len();
        (0..len).for_each(|index| shuffled.swap(index, seed.wrapping_mul(index + 7) % len));
        let mut capabilities = Capabilities::all();
        capabilities.destination_view = view;
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
    fn programs_refer_to_what_they_hold_and_hold_nothing_else(objects in any_objects()) {
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
