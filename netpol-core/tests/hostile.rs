//! Hostile inputs of the model and of selectors: whoever chooses names, numbers or sizes, the engine ends soon with a
//! program that says what the judge says, and nobody takes the place of another.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use netpol_core::eval::Judge;
use netpol_core::flat::{self, Limits};
use netpol_core::model::{
    Action, Endpoint, EndpointId, EntityMatch, Inputs, L4Match, NetworkSet, Object, Peers, Policy,
    PolicyKey, PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Prefix, PrefixMap, PrefixSet, Transport};
use netpol_core::selector::SelectorError;
use netpol_core::{
    Capabilities, Change, Engine, Flow, Labels, NodeConfig, Program, Selector, Verdict,
};

const NODE: &str = "node-a";

/// How long each of these may take, with a compiler that does not optimise and busy processors.
const PATIENCE: Duration = Duration::from_secs(60);

const MANY: u32 = 100_000;

#[track_caller]
fn soon<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    let took = start.elapsed();
    assert!(took < PATIENCE, "took {took:?}");
    done
}

fn program(objects: &[Object]) -> Program {
    let mut engine = Engine::new(NodeConfig::new(NODE), &Capabilities::all());
    objects.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
    engine.inputs_complete();
    let Some(Change::Full(program)) = engine.poll_update().map(|update| update.change) else {
        panic!("no full update");
    };
    (*program).clone()
}

/// Compiles objects and checks that judge and program say the same of flows, which is returned.
fn verdicts(objects: &[Object], flows: &[Flow]) -> Vec<Verdict> {
    let (capabilities, mut inputs) = (Capabilities::all(), Inputs::default());
    objects.iter().for_each(|object| inputs.upsert(object.clone()));
    let (program, judge) = (program(objects), Judge::new(&inputs, &capabilities));
    let both = flows
        .iter()
        .map(|flow| (judge.evaluate(flow).enforced.verdict(), program.outcome(flow).verdict()));
    both.map(|(judged, said)| {
        assert_eq!(judged, said);
        said
    })
    .collect()
}

fn pod(namespace: &str, name: &str, address: [u8; 4]) -> Endpoint {
    let mut pod = Endpoint::pod(namespace, name).on_node(NODE);
    pod.addresses = vec![address.into()];
    pod
}

fn to_port(source: [u8; 4], destination: [u8; 4], port: u16) -> Flow {
    Flow::to_port(source.into(), destination.into(), Transport::Tcp, port)
}

fn from_nets(nets: PrefixSet) -> RuleMatch {
    let source = EntityMatch { nets: Some(nets), ..EntityMatch::default() };
    RuleMatch { source, ..RuleMatch::default() }
}

fn with_ingress(key: PolicyKey, rules: Vec<Rule>) -> Policy {
    let mut policy = Policy::new(key, Selector::all());
    policy.ingress = Some(rules);
    policy
}

/// A number as an address far away from those of its neighbours.
fn scattered(number: u32) -> [u8; 4] {
    number.wrapping_mul(2_654_435_761).to_be_bytes()
}

#[test]
fn selectors_of_users_are_limited() {
    let large = 10 << 20;
    for text in [
        "(".repeat(10_000),
        format!("{}all(){}", "(".repeat(10_000), ")".repeat(10_000)),
        "!".repeat(large),
        " ".repeat(large),
        "a".repeat(large),
        "\0".repeat(large),
        format!("a == '{}'", "x".repeat(large)),
        format!("a in {{{}}}", "'x',".repeat(large / 4)),
        "has(a) && ".repeat(large / 10),
    ] {
        let read = soon(|| text.parse::<Selector>());
        assert!(matches!(read, Err(SelectorError::TooLong { .. })), "{:?}", text.get(..20));
    }
    for text in ["a\0 == 'x'", "a == \0", "\u{feff}all()", "has(a\u{200b})", "a == 'x'\u{a0}"] {
        assert!(text.parse::<Selector>().is_err(), "{text:?}");
    }
    let labels: Labels = [("a", "\0\u{1b}[2J\n")].into_iter().collect();
    assert!("a == '\0\u{1b}[2J\n'".parse::<Selector>().unwrap().matches(&labels));
}

#[test]
fn composed_selectors_may_be_large() {
    let values: Vec<String> = (0..MANY).map(|number| format!("v{number}")).collect();
    let (any, none) = soon(|| {
        let any = Selector::is_in("k", values.clone()).unwrap();
        (any, Selector::and(values.iter().map(|it| Selector::not_equal("k", it.clone()).unwrap())))
    });
    let labels: Labels = [("k", "v99999")].into_iter().collect();
    soon(|| {
        assert!(any.matches(&labels) && !none.matches(&labels));
        for selector in [any, none] {
            assert_eq!(Selector::from_canonical(&selector.to_string()).unwrap(), selector);
        }
    });
}

#[test]
fn endpoints_may_have_many_labels_ports_and_addresses() {
    let mut many = pod("x", "many", [10, 0, 0, 1]);
    many.labels = (0..MANY).map(|number| (format!("k{number}"), "v".to_owned())).collect();
    many.addresses.extend((0..MANY).map(|number| IpAddr::from(scattered(number))));
    let mut policy = with_ingress(PolicyKey::kubernetes("x", "p"), Vec::new());
    policy.subject = "has(k99999)".parse().unwrap();
    let objects = [many.into(), policy.into(), pod("x", "q", [10, 0, 0, 2]).into()];
    let last = scattered(MANY - 1);
    let flows = [to_port([10, 0, 0, 2], last, 80), to_port(last, [10, 0, 0, 2], 80)];
    assert_eq!(soon(|| verdicts(&objects, &flows)), [Verdict::Deny, Verdict::Allow]);
}

#[test]
fn policies_may_have_many_rules() {
    let port = |number: u32| u16::try_from(number % 60_000 + 1).unwrap();
    let rule = |number: u32| {
        let numbers = [PortRange::single(port(number)).unwrap()].into_iter().collect();
        let any_of = Some(PortMatch { numbers, ..PortMatch::default() });
        let destination = PortConstraint { any_of, none_of: None };
        let l4 = L4Match::Ports {
            transport: Transport::Tcp,
            source: PortConstraint::default(),
            destination,
        };
        let host = Prefix::host(scattered(number).into());
        let matches = RuleMatch { l4, ..from_nets([host].into_iter().collect()) };
        Rule::new(usize::try_from(number).unwrap(), Action::Allow, matches)
    };
    let policy = with_ingress(PolicyKey::kubernetes("x", "p"), (0..MANY).map(rule).collect());
    let objects = [policy.into(), pod("x", "q", [10, 0, 0, 2]).into()];
    let (first, last) = (scattered(0), scattered(MANY - 1));
    let flows = [
        to_port(first, [10, 0, 0, 2], port(0)),
        to_port(last, [10, 0, 0, 2], port(MANY - 1)),
        to_port(last, [10, 0, 0, 2], port(0)),
    ];
    assert_eq!(
        soon(|| verdicts(&objects, &flows)),
        [Verdict::Allow, Verdict::Allow, Verdict::Deny]
    );
}

#[test]
fn lists_of_prefixes_may_be_long_and_nested() {
    let nested = |bits: u128| {
        (0..=128).map(move |len| Prefix::containing(Ipv6Addr::from_bits(bits).into(), len).unwrap())
    };
    let hosts =
        |step: u32| (0..MANY / step).map(move |it| Prefix::host(scattered(it * step).into()));
    let (nets, not_nets): (PrefixSet, PrefixSet) = soon(|| {
        let everything = Prefix::all(netpol_core::net::Family::V4);
        (
            hosts(1).chain([everything]).chain(nested(0)).chain(nested(u128::MAX)).collect(),
            hosts(1).collect(),
        )
    });
    assert_eq!(nets.prefixes().len(), 2, "everything");
    let mut matches = from_nets(nets);
    matches.source.not_nets = not_nets;
    let policy =
        with_ingress(PolicyKey::kubernetes("x", "p"), vec![Rule::new(0, Action::Allow, matches)]);
    let objects = [policy.into(), pod("x", "q", [10, 0, 0, 2]).into()];
    let flows = [
        to_port(scattered(MANY - 1), [10, 0, 0, 2], 80),
        to_port([192, 0, 2, 1], [10, 0, 0, 2], 80),
    ];
    assert_eq!(soon(|| verdicts(&objects, &flows)), [Verdict::Deny, Verdict::Allow]);
    soon(|| flat::classify(&program(&objects), &Limits::unlimited())).unwrap();
    let map: PrefixMap<u32> =
        soon(|| (0..MANY).map(|it| (Prefix::host(scattered(it).into()), it)).collect());
    assert_eq!(map.longest_match(scattered(7).into()).map(|(_, value)| *value), Some(7));
}

#[test]
fn network_sets_may_be_large_and_many() {
    let set = |name: u32, nets: PrefixSet| {
        let labels = [("kind", "set")].into_iter().collect();
        Object::from(NetworkSet { namespace: None, name: format!("s{name}"), labels, nets })
    };
    let block = |number: u32| Prefix::containing(scattered(number).into(), 24).unwrap();
    let mut objects: Vec<_> =
        (0..1_000).map(|number| set(number, [block(number)].into_iter().collect())).collect();
    objects.push(set(1_000, (1_000..MANY).map(block).collect()));
    let peers = Some(Peers::Endpoints("kind == 'set'".parse().unwrap()));
    let source = EntityMatch { peers, ..EntityMatch::default() };
    let rule = Rule::new(0, Action::Allow, RuleMatch { source, ..RuleMatch::default() });
    objects.push(with_ingress(PolicyKey::kubernetes("x", "p"), vec![rule]).into());
    objects.push(pod("x", "q", [10, 0, 0, 2]).into());
    let flows = [0, 999, MANY - 1].map(|number| to_port(scattered(number), [10, 0, 0, 2], 80));
    assert_eq!(soon(|| verdicts(&objects, &flows)), [Verdict::Allow; 3]);
}

/// Names that look alike when they are joined, or do something to terminals, lists and paths.
const NAMES: [&str; 12] =
    ["a", "a/b", "b/c", "a/b/c", "", "/", "\0", "a\0b", "a\nb", "\u{1b}[2J", "ä", "a b"];

#[test]
fn names_that_look_alike_name_different_things() {
    let mut objects = Vec::new();
    let mut ids = BTreeSet::new();
    for (number, (namespace, name)) in
        NAMES.iter().flat_map(|namespace| NAMES.map(|name| (*namespace, name))).enumerate()
    {
        let host = u8::try_from(number).unwrap();
        let mut endpoint = pod(namespace, name, [10, 0, 0, host]);
        endpoint.labels = [("number", number.to_string())].into_iter().collect();
        ids.insert(endpoint.id.clone());
        // Each lets in the one before it.
        let peer = Selector::equal("number", number.wrapping_sub(1).to_string()).unwrap();
        let source = EntityMatch { peers: Some(Peers::Endpoints(peer)), ..EntityMatch::default() };
        let rule = Rule::new(0, Action::Allow, RuleMatch { source, ..RuleMatch::default() });
        let mut policy = with_ingress(PolicyKey::kubernetes(namespace, name), vec![rule]);
        policy.subject = Selector::equal("number", number.to_string()).unwrap();
        objects.extend([Object::from(endpoint), policy.into()]);
    }
    let count = NAMES.len() * NAMES.len();
    assert_eq!(ids.len(), count);
    let address = |number: usize| [10, 0, 0, u8::try_from(number).unwrap()];
    let pairs: Vec<_> = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).collect();
    let flows: Vec<_> =
        pairs.iter().map(|&(from, to)| to_port(address(from), address(to), 80)).collect();
    for ((from, to), verdict) in pairs.iter().zip(verdicts(&objects, &flows)) {
        let want = if from + 1 == *to || from == to { Verdict::Allow } else { Verdict::Deny };
        assert_eq!(verdict, want, "{from} to {to}");
    }
    assert_eq!(program(&objects).policy_sets.len(), count + 1);
}

/// Policies whose joined names are equal still have one order, the same for judge and program.
#[test]
fn ties_that_joined_names_do_not_break_are_broken() {
    let key = |namespace: &str, name: &str| PolicyKey {
        kind: PolicyKind::NetworkPolicy,
        namespace: Some(namespace.into()),
        name: name.into(),
    };
    let policy = |key, action| {
        Object::from(with_ingress(key, vec![Rule::new(0, action, RuleMatch::default())]))
    };
    let flow = [to_port([192, 0, 2, 1], [10, 0, 0, 2], 80)];
    let mut seen = BTreeSet::new();
    for (first, second) in [(Action::Allow, Action::Deny), (Action::Deny, Action::Allow)] {
        let mut objects = vec![
            policy(key("c", "a/b"), first),
            policy(key("b/c", "a"), second),
            pod("x", "q", [10, 0, 0, 2]).into(),
        ];
        let verdict = verdicts(&objects, &flow);
        objects.reverse();
        assert_eq!(verdicts(&objects, &flow), verdict);
        seen.insert(verdict);
    }
    assert_eq!(seen.len(), 2, "one of the two is always asked first");
}

#[test]
fn interfaces_have_names_that_interfaces_can_have() {
    for name in NAMES.iter().filter(|name| **name != "a").chain(&["..", "x:y", "0123456789abcdef"])
    {
        let mut engine = Engine::new(NodeConfig::new(NODE), &Capabilities::all());
        let refused = engine.upsert(Endpoint::pod("x", "p").attached_to(*name));
        assert!(refused.is_err() || *name == "\u{1b}[2J" || *name == "ä", "{name:?}");
    }
}

#[test]
fn addresses_that_everybody_claims_have_one_owner() {
    let claim = |number: u32| {
        let mut pod = pod("x", &format!("p{number}"), [10, 0, 0, 1]);
        pod.id = EndpointId::workload("x", format!("p{number}")).with_uid(number.to_string());
        Object::from(pod)
    };
    let mut objects: Vec<_> = (0..MANY / 10).map(claim).collect();
    objects.push(with_ingress(PolicyKey::kubernetes("x", "p"), Vec::new()).into());
    let flows = [to_port([192, 0, 2, 1], [10, 0, 0, 1], 80)];
    assert_eq!(soon(|| verdicts(&objects, &flows)), [Verdict::Deny]);
    let owners = program(&objects).endpoints.into_iter().filter(|it| !it.addresses.is_empty());
    assert_eq!(owners.count(), 1);
}
