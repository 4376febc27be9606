//! What the engine costs at the scale of a large cluster.
//!
//! `cargo bench --bench engine` measures times with criterion. `cargo bench --bench engine -- record` measures what criterion
//! does not, percentiles and memory, each in one pass, and prints a table for `benches/record/`. Memory is the engine's
//! own, counted by an allocator: the caller's objects are made one by one and handed over.
//!
//! The loads are described where they are made, in `support/clusters.rs`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "benchmark code")]

#[path = "support/clusters.rs"]
mod clusters;
#[path = "support/counting.rs"]
mod counting;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion};
use netpol_core::model::{Object, ObjectKey};
use netpol_core::{Applied, Capabilities, Change, Engine, Labels, NodeConfig, Selector};

use self::clusters::{
    NODE, allow_from, namespace, passing_pod, tag_policy, tagged, tagged_pod, tenants,
};
use self::counting::{Counting, cpu_time};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const PODS: u32 = 250_000;
const LOCAL: u32 = 200;
const POLICIES: u32 = 10_000;
const TENANTS: u32 = 100_000;

fn engine() -> Engine {
    Engine::new(NodeConfig::new(NODE), &Capabilities::all())
}

/// Feeds an engine and takes the first complete update.
fn load(objects: impl Iterator<Item = Object>) -> Engine {
    let mut engine = engine();
    objects.for_each(|object| engine.upsert(object).unwrap());
    engine.inputs_complete();
    step(&mut engine);
    engine
}

/// Takes an update, as a dataplane that does nothing. Returns how many members and endpoints it changes.
fn step(engine: &mut Engine) -> usize {
    let Some(update) = engine.poll_update() else { return 0 };
    let size = match &update.change {
        Change::Delta(delta) => {
            let members = delta
                .members
                .iter()
                .map(|it| it.addresses.added.len() + it.addresses.removed.len());
            members.sum::<usize>() + delta.endpoints.len() + delta.new_sets.len()
        }
        _ => 0,
    };
    let generation = update.generation;
    drop(update);
    engine.handle_applied(Ok(Applied::completely(generation)));
    size
}

fn full(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("program/full");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("250k_endpoints_200_local_10k_policies", |bencher| {
        let objects = || tagged(PODS, LOCAL, POLICIES).collect::<Vec<_>>();
        bencher.iter_batched(objects, |it| load(it.into_iter()), BatchSize::PerIteration);
    });
    group.bench_function("100k_tenants", |bencher| {
        let objects = || tenants(TENANTS, 100).collect::<Vec<_>>();
        bencher.iter_batched(objects, |it| load(it.into_iter()), BatchSize::PerIteration);
    });
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let mut engine = load(tagged(PODS, LOCAL, POLICIES));
    let mut numbers = PODS..;
    criterion.bench_function("engine/endpoint_update/join_and_leave_among_250k", |bencher| {
        bencher.iter_batched(
            || passing_pod(numbers.next().unwrap()),
            |pod| {
                let key = ObjectKey::Endpoint(pod.id.clone());
                engine.upsert(pod).unwrap();
                let joined = step(&mut engine);
                engine.remove(&key);
                joined + step(&mut engine)
            },
            BatchSize::SmallInput,
        );
    });
    let mut number = 0;
    criterion.bench_function("engine/policy_update/one_of_10k", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                changed_policy(number)
            },
            |policy| {
                engine.upsert(policy).unwrap();
                step(&mut engine)
            },
            BatchSize::SmallInput,
        );
    });
    let mut number = 0;
    criterion.bench_function("engine/namespace_relabel/2500_pods", |bencher| {
        bencher.iter(|| {
            number += 1;
            engine.upsert(relabelled(7, number)).unwrap();
            step(&mut engine)
        });
    });
}

/// A policy of the load with its rules in another order.
fn changed_policy(number: u32) -> netpol_core::model::Policy {
    let mut policy = tag_policy(number % 97);
    let rules = policy.ingress.as_mut().unwrap();
    rules.rotate_left(number as usize / 97 % 4 + 1);
    policy
}

fn relabelled(namespace: u32, number: u32) -> Object {
    let labels: Labels = [("round", format!("r-{number}"))].into_iter().collect();
    Object::Namespace { name: format!("namespace-{namespace}"), labels }
}

fn selectors(criterion: &mut Criterion) {
    let text = "app in {'web', 'api'} && tier == 'front' && !has(legacy) && env != 'test'";
    criterion.bench_function("selector/parse/4_conditions", |bencher| {
        bencher.iter(|| black_box(text).parse::<Selector>().unwrap());
    });
    let selector: Selector = text.parse().unwrap();
    let labels: Labels =
        [("app", "web"), ("tier", "front"), ("env", "live"), ("zone", "a"), ("team", "b")]
            .into_iter()
            .collect();
    criterion.bench_function("selector/match/4_conditions_5_labels", |bencher| {
        bencher.iter(|| black_box(&selector).matches(black_box(&labels)));
    });
}

fn churn(criterion: &mut Criterion) {
    let mut engine = load(tagged(10_000, LOCAL, 1_000));
    let mut numbers = 10_000..;
    criterion.bench_function("churn/1000_unique_pods_come_and_go_among_10k", |bencher| {
        bencher.iter_batched(
            || numbers.by_ref().take(1_000).map(passing_pod).collect::<Vec<_>>(),
            |pods| come_and_go(&mut engine, pods),
            BatchSize::PerIteration,
        );
    });
}

fn come_and_go(engine: &mut Engine, pods: Vec<netpol_core::model::Endpoint>) {
    let keys: Vec<_> = pods.iter().map(|pod| ObjectKey::Endpoint(pod.id.clone())).collect();
    pods.into_iter().for_each(|pod| engine.upsert(pod).unwrap());
    step(engine);
    keys.iter().for_each(|key| assert!(engine.remove(key)));
    step(engine);
}

/// What criterion does not measure.
mod record {
    use super::*;

    fn row(name: &str, target: &str, measured: &str) {
        println!("| `{name}` | {target} | {measured} |");
    }

    /// Times one load from objects that exist, and weighs one of objects that are made on the way.
    fn weigh<I: Iterator<Item = Object>>(
        name: &str,
        target: &str,
        objects: impl Fn() -> I,
    ) -> Engine {
        let mut times: Vec<_> = (0..5).map(|_| timed_load(objects())).collect();
        times.sort();
        ALLOCATOR.start();
        let engine = load(objects());
        ALLOCATOR.stop();
        let (peak, rest) = (ALLOCATOR.peak(), ALLOCATOR.in_use());
        let mib = |bytes: usize| bytes as f64 / 1_048_576.0;
        let measured = format!(
            "{:.0?} (median of 5), peak {:.0} MiB, at rest {:.0} MiB",
            times[2],
            mib(peak),
            mib(rest)
        );
        row(name, target, &measured);
        engine
    }

    /// Times a load of objects that come in pages of 500, as API servers list them. Making them does not count.
    fn timed_load(mut objects: impl Iterator<Item = Object>) -> Duration {
        let mut engine = engine();
        let mut time = Duration::ZERO;
        loop {
            let page: Vec<_> = objects.by_ref().take(500).collect();
            if page.is_empty() {
                break;
            }
            let start = cpu_time();
            page.into_iter().for_each(|object| engine.upsert(object).unwrap());
            time += cpu_time() - start;
        }
        let start = cpu_time();
        engine.inputs_complete();
        step(&mut engine);
        let settled = cpu_time() - start;
        eprintln!("told {time:?} settled {settled:?}");
        time + settled
    }

    fn percentiles(name: &str, target: &str, mut times: Vec<Duration>, size: usize) {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let measured = format!(
            "median {:.1?}, p99 {:.1?}, longest {:.1?}; {} times, {} changes each",
            at(50),
            at(99),
            at(100),
            times.len(),
            size / times.len().max(1)
        );
        row(name, target, &measured);
    }

    fn time(
        engine: &mut Engine,
        times: &mut Vec<Duration>,
        change: impl FnOnce(&mut Engine),
    ) -> usize {
        let start = Instant::now();
        change(engine);
        let size = step(engine);
        times.push(start.elapsed());
        size
    }

    fn pods(engine: &mut Engine, numbers: impl Iterator<Item = u32>, local: u32, name: &str) {
        let (mut joins, mut leaves, mut sizes) = (Vec::new(), Vec::new(), [0, 0]);
        for number in numbers {
            let pod = tagged_pod(number, local);
            let key = ObjectKey::Endpoint(pod.id.clone());
            sizes[0] += time(engine, &mut joins, |it| it.upsert(pod).unwrap());
            sizes[1] += time(engine, &mut leaves, |it| assert!(it.remove(&key)));
        }
        let target = "median 10 µs, p99 100 µs";
        percentiles(&format!("engine/endpoint_update/{name}_joins"), target, joins, sizes[0]);
        percentiles(&format!("engine/endpoint_update/{name}_leaves"), target, leaves, sizes[1]);
    }

    pub(super) fn run() {
        println!("| bench | target | measured |\n|---|---|---|");
        let mut engine =
            weigh("program/full/250k_endpoints_200_local_10k_policies", "0.5 s, 150 MB", || {
                tagged(PODS, LOCAL, POLICIES)
            });
        pods(&mut engine, PODS..PODS + 20_000, 0, "remote");
        pods(&mut engine, PODS..PODS + 2_000, u32::MAX, "local");
        let (mut times, mut size) = (Vec::new(), 0);
        for number in 0..1_000 {
            let policy = changed_policy(number);
            size += time(&mut engine, &mut times, |it| it.upsert(policy).unwrap());
        }
        percentiles("engine/policy_update/known_selectors", "1 ms", times, size);
        let (mut times, mut size) = (Vec::new(), 0);
        for number in 0..200 {
            let mut policy = tag_policy(number);
            let turn = format!("value-{}", number % 40);
            policy.ingress = Some(vec![allow_from(0, Selector::equal("one-in-40", turn).unwrap())]);
            size += time(&mut engine, &mut times, |it| it.upsert(policy).unwrap());
            engine.upsert(tag_policy(number)).unwrap();
            step(&mut engine);
        }
        percentiles(
            "engine/policy_update/new_selector_6250_matches",
            "1 ms + 1 µs per match",
            times,
            size,
        );
        let (mut times, mut size) = (Vec::new(), 0);
        for number in 0..200 {
            let mut policy = tag_policy(number);
            policy.subject = Selector::all();
            size += time(&mut engine, &mut times, |it| it.upsert(policy).unwrap());
            engine.upsert(tag_policy(number)).unwrap();
            step(&mut engine);
        }
        percentiles("engine/policy_update/for_all_200_local", "1 ms", times, size);
        relabel(&mut engine);
        drop(engine);
        churn();
        let engine = weigh("program/full/100k_tenants", "1 s, 150 MB", || tenants(TENANTS, 100));
        drop(engine);
    }

    /// A namespace label that policies select changes.
    fn relabel(engine: &mut Engine) {
        let mut policy = tag_policy(0);
        policy.key.name = "namespaces".into();
        policy.ingress = Some(vec![allow_from(0, "pcns.round in {'r-1', 'r-3'}".parse().unwrap())]);
        engine.upsert(policy).unwrap();
        step(engine);
        let (mut times, mut size) = (Vec::new(), 0);
        for number in 0..40 {
            let object = relabelled(7, number % 4);
            size += time(engine, &mut times, |it| it.upsert(object).unwrap());
        }
        percentiles("engine/namespace_relabel/2500_pods", "5 ms for 1 000 pods", times, size);
        engine.upsert(namespace(7)).unwrap();
        step(engine);
    }

    /// A million pods with names of their own come and go, a thousand at a time.
    fn churn() {
        ALLOCATOR.start();
        let mut engine = load(tagged(10_000, LOCAL, 1_000));
        come_and_go(&mut engine, (10_000..11_000).map(passing_pod).collect());
        let before = ALLOCATOR.in_use();
        let start = Instant::now();
        for round in 0..1_000 {
            let first = 11_000 + round * 1_000;
            come_and_go(&mut engine, (first..first + 1_000).map(passing_pod).collect());
        }
        let grown = ALLOCATOR.in_use() as f64 / before as f64 - 1.0;
        let measured = format!("{:+.2} % in {:.1?}", grown * 100.0, start.elapsed());
        ALLOCATOR.stop();
        row("churn/1m_unique_pods_come_and_go", "memory within 5 %", &measured);
    }
}

fn main() {
    if std::env::args().any(|it| it == "record") {
        return record::run();
    }
    let mut criterion = Criterion::default().configure_from_args();
    selectors(&mut criterion);
    churn(&mut criterion);
    changes(&mut criterion);
    full(&mut criterion);
    criterion.final_summary();
}
