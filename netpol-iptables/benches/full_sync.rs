//! How long whole programs take, in the real kernel. Run as root, or under `unshare --user --map-root-user`.
//!
//! Each in both flavours. `first`: from nothing to everything in force. `again`: reading everything back and finding nothing to do. `member`:
//! the same with one address more in one set.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "bench code")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use netpol_core::model::Action;
use netpol_core::net::{PrefixSet, Transport};
use netpol_core::program::{Program, SetId};
use netpol_core::{Change, Dataplane, Update};
use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane};
use nix::sched::{CloneFlags, unshare};

#[expect(dead_code, reason = "shared with the tests")]
#[path = "../src/tests/program.rs"]
mod program;

use self::program::{Builder, deny_unless, in_set, numbers, rule, to_ports};

/// How large a program is.
#[derive(Clone, Copy, Debug)]
struct Size {
    pods: u16,
    policies: u16,
    rules: u16,
    selectors: u16,
    members: u32,
}

fn main() {
    let bench = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("no permission to make a network namespace");
        let mut criterion = Criterion::default().sample_size(20).configure_from_args();
        for flavour in Flavour::BOTH {
            for members in [100, 1_000] {
                let size = Size { pods: 110, policies: 30, rules: 5, selectors: 40, members };
                full_sync(&mut criterion, flavour, size);
            }
        }
        criterion.final_summary();
    });
    bench.join().expect("the bench does not panic");
}

fn full_sync(criterion: &mut Criterion, flavour: Flavour, size: Size) {
    let Size { pods, policies, rules, selectors, members } = size;
    let label = format!(
        "{flavour}/{pods}_pods_{policies}_policies_{rules}_rules_{selectors}_selectors_{members}_members"
    );
    let [one, more] = [0, 1].map(|extra| Arc::new(cluster(size, extra)));
    let mut dataplane = open(flavour);
    let mut apply = |program: &Arc<Program>| {
        let update = Update::new(1, Change::Full(Arc::clone(program)));
        let start = Instant::now();
        let applied = dataplane.apply(update).unwrap();
        let elapsed = start.elapsed();
        assert!(applied.isolated.is_empty());
        elapsed
    };
    let mut remove = {
        let mut dataplane = open(flavour);
        move || dataplane.remove().unwrap()
    };
    let sum = |rounds: u64, mut round: Box<dyn FnMut() -> Duration + '_>| {
        (0..rounds).map(|_| round()).sum()
    };
    criterion.bench_function(&format!("first/{label}"), |bencher| {
        bencher.iter_custom(|rounds| {
            sum(
                rounds,
                Box::new(|| {
                    remove();
                    apply(&one)
                }),
            )
        });
    });
    criterion.bench_function(&format!("again/{label}"), |bencher| {
        bencher.iter_custom(|rounds| sum(rounds, Box::new(|| apply(&one))));
    });
    criterion.bench_function(&format!("member/{label}"), |bencher| {
        bencher.iter_custom(|rounds| {
            sum(
                rounds,
                Box::new(|| {
                    apply(&one);
                    apply(&more)
                }),
            )
        });
    });
    remove();
}

fn open(flavour: Flavour) -> IptablesDataplane {
    let mut config = IptablesConfig::default();
    config.flavour = Some(flavour);
    IptablesDataplane::open(config).unwrap()
}

/// Returns a program of this size, with some members more in its first set.
fn cluster(size: Size, extra: u32) -> Program {
    let mut builder = Builder::new();
    let sets: Vec<SetId> = (0..size.selectors)
        .map(|set| {
            let members = size.members + if set == 0 { extra } else { 0 };
            let address = |index| {
                IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + u32::from(set) * 0x1_0000 + index))
            };
            builder.set(
                &format!("set{set}"),
                (0..members).map(address).collect(),
                PrefixSet::default(),
            )
        })
        .collect();
    let policies: Vec<_> = (0..size.policies)
        .map(|policy| {
            let rules = (0..size.rules).map(|number| {
                let [id, _] = (policy * size.rules + number).to_le_bytes();
                let mut rule = rule(id, Action::Allow);
                rule.remote = in_set(*sets.get(usize::from(policy + number) % sets.len()).unwrap());
                rule.l4 = to_ports(Transport::Tcp, numbers(&[(8000 + policy, 8000 + policy)]));
                rule
            });
            builder.policy(deny_unless(rules.collect()))
        })
        .collect();
    for pod in 0..size.pods {
        let [high, low] = pod.to_be_bytes();
        let mut endpoint =
            builder.endpoint(&format!("pod{pod}"), &[&format!("10.200.{high}.{low}")]);
        let policy =
            |offset: usize| *policies.get((usize::from(pod) + offset) % policies.len()).unwrap();
        endpoint.ingress = policy(0);
        endpoint.egress = policy(7);
        builder.add(endpoint);
    }
    builder.build()
}
