//! How long it takes to say who reaches whom in a whole cluster, what a change changes, and which rules do nothing.
//!
//! The cluster has 25 namespaces of 20 apps each, so 500 classes of pods, with as many pods in total as the name says, each with
//! an IPv4 address and five labels, of which one tells pods of an app apart and no policy uses it. Each app has a policy of
//! both directions: in from three apps of its namespace and one of another, each on a port of its own; out to three apps,
//! to DNS in one namespace, and to the world but private networks.
//!
//! `cargo bench --bench analysis -- record` prints the table of `benches/record/analysis.md`: processor time and memory.
#![expect(clippy::unwrap_used, reason = "benchmark code")]

#[expect(dead_code, reason = "other benches use the rest")]
#[path = "support/counting.rs"]
mod counting;

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use criterion::Criterion;
use netpol_core::analysis::{self, Class, Reachability};
use netpol_core::model::{
    Action, Endpoint, EntityMatch, Inputs, L4Match, Object, ObjectKey, Peers, Policy, PolicyKey,
    PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Prefix, Transport};
use netpol_core::{Capabilities, Selector};

use self::counting::{Counting, cpu_time};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const NAMESPACES: u32 = 25;
const APPS: u32 = 20;

fn pod(number: u32) -> Endpoint {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES % APPS);
    let mut pod = Endpoint::pod(format!("ns-{namespace}"), format!("app-{app}-{number}"));
    pod.addresses = vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))];
    pod.labels = [
        ("app", format!("app-{app}")),
        ("tier", format!("tier-{}", app % 3)),
        ("version", format!("v{}", app % 2)),
        ("managed-by", "deployment".to_owned()),
        ("pod", format!("{number}")),
    ]
    .into_iter()
    .collect();
    pod
}

fn apps(namespace: u32, app: u32) -> Peers {
    let namespace = format!("ns-{}", namespace % NAMESPACES);
    let namespace = Selector::equal("projectcalico.org/namespace", namespace.as_str()).unwrap();
    let app = Selector::equal("app", format!("app-{}", app % APPS)).unwrap();
    Peers::Endpoints(Selector::and([namespace, app]))
}

fn port(transport: Transport, port: u32) -> L4Match<PortMatch> {
    let port = PortRange::single(u16::try_from(port).unwrap()).unwrap();
    let numbers = [port].into_iter().collect();
    let any_of = Some(PortMatch { numbers, ..PortMatch::default() });
    let destination = PortConstraint { any_of, none_of: None };
    L4Match::Ports { transport, source: PortConstraint::default(), destination }
}

fn policy(namespace: u32, app: u32) -> Policy {
    let Peers::Endpoints(subject) = apps(namespace, app) else { unreachable!("as made above") };
    let key = PolicyKey::kubernetes(format!("ns-{namespace}"), format!("app-{app}"));
    let mut policy = Policy::new(key, subject);
    let peer = |peers| EntityMatch { peers: Some(peers), ..EntityMatch::default() };
    let rule = |(index, matches)| Rule::new(index, Action::Allow, matches);
    let from = |(at, next, to)| RuleMatch {
        l4: port(Transport::Tcp, to),
        source: peer(apps(at, next)),
        ..RuleMatch::default()
    };
    let callers = [
        (namespace, app + 1, 8_000 + app),
        (namespace, app + 2, 8_000 + app),
        (namespace, app + 7, 9_000),
        (namespace + 1, app, 8_443),
    ];
    policy.ingress = Some(callers.map(from).into_iter().enumerate().map(rule).collect());
    let to = |(at, next, to)| RuleMatch {
        l4: port(Transport::Tcp, to),
        destination: peer(apps(at, next)),
        ..RuleMatch::default()
    };
    let called = [
        (namespace, app + APPS - 1, 8_000 + (app + APPS - 1) % APPS),
        (namespace, app + APPS - 2, 8_000 + (app + APPS - 2) % APPS),
        (namespace + NAMESPACES - 1, app, 8_443),
    ];
    let dns = RuleMatch {
        l4: port(Transport::Udp, 53),
        destination: peer(apps(0, 0)),
        ..RuleMatch::default()
    };
    let nets = |blocks: &[&str]| blocks.iter().map(|it| it.parse::<Prefix>().unwrap()).collect();
    let world = EntityMatch {
        nets: Some(nets(&["0.0.0.0/0"])),
        not_nets: nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]),
        ..EntityMatch::default()
    };
    let world =
        RuleMatch { l4: port(Transport::Tcp, 443), destination: world, ..RuleMatch::default() };
    let called = called.map(to).into_iter().chain([dns, world]);
    policy.egress = Some(called.enumerate().map(rule).collect());
    policy
}

fn cluster(pods: u32) -> Inputs {
    let mut inputs = Inputs::default();
    for namespace in 0..NAMESPACES {
        let name = format!("ns-{namespace}");
        let labels = [("kubernetes.io/metadata.name", name.clone())].into_iter().collect();
        inputs.upsert(Object::Namespace { name, labels });
        (0..APPS).for_each(|app| inputs.upsert(policy(namespace, app)));
    }
    (0..pods).for_each(|number| inputs.upsert(pod(number)));
    inputs
}

/// Returns the cluster with one policy less, and without all policies of a namespace.
fn changes(inputs: &Inputs) -> [(&'static str, Inputs); 2] {
    let without = |apps: u32| {
        let mut after = inputs.clone();
        for app in 0..apps {
            after.remove(&ObjectKey::Policy(policy(7, app).key));
        }
        after
    };
    [("one_policy_less", without(1)), ("20_policies_less", without(APPS))]
}

/// Asks every cell for what it allows. Returns how many allow something.
fn open_cells(reachability: &Reachability) -> usize {
    let classes = 0..reachability.classes().len();
    let cells = classes.clone().flat_map(|from| classes.clone().map(move |to| (from, to)));
    let cells = cells.filter_map(|(from, to)| reachability.cell(from, to));
    cells.filter(|cell| !cell.allowed().is_nothing()).count()
}

/// An analysis, by its name.
type Case = (String, Box<dyn Fn()>);

fn cases(pods: u32) -> Vec<Case> {
    let inputs = Rc::new(cluster(pods));
    let name = |of: &str| format!("analysis/{of}/{}k_pods_500_classes", pods / 1_000);
    let mut cases: Vec<Case> = Vec::new();
    let of = Rc::clone(&inputs);
    cases.push((
        name("reachability"),
        Box::new(move || {
            let found = analysis::reachability(&of, &Capabilities::all()).unwrap();
            let has_endpoint = |it: &&Class| it.endpoints().next().is_some();
            assert_eq!(found.classes().iter().filter(has_endpoint).count(), 500);
            assert!(open_cells(&found) > 500);
        }),
    ));
    for (change, after) in changes(&inputs) {
        let of = Rc::clone(&inputs);
        cases.push((
            format!("{}_{change}", name("diff")),
            Box::new(move || {
                let diff = analysis::diff(&of, &after, &Capabilities::all()).unwrap();
                assert!(!diff.differences.is_empty());
            }),
        ));
    }
    cases.push((
        name("idle_rules"),
        Box::new(move || {
            let idle = analysis::idle_rules(&inputs, &Capabilities::all()).unwrap();
            assert!(idle.is_empty());
        }),
    ));
    cases
}

/// Prints a row of the record for each case: the median of five, and the most memory that one takes.
fn record(cases: impl Iterator<Item = Case>) {
    for (name, case) in cases {
        let time = || {
            let start = cpu_time();
            case();
            cpu_time() - start
        };
        let mut times = [(); 5].map(|()| time());
        times.sort();
        ALLOCATOR.start();
        case();
        ALLOCATOR.stop();
        let peak = ALLOCATOR.peak() as f64 / 1_048_576.0;
        println!("| `{name}` | {:.0?} | {peak:.0} MiB |", times[2]);
    }
}

fn main() {
    let cases = [1_000, 10_000].into_iter().flat_map(cases);
    if std::env::args().any(|it| it == "record") {
        return record(cases);
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for (name, case) in cases {
        criterion.bench_function(&name, |bencher| bencher.iter(&case));
    }
    criterion.final_summary();
}
