//! How long updates take, in the real kernel. Run as root.
//!
//! Each pod has a policy of its own with five rules, each of which allows one port to one of the selectors; each selector
//! has as many addresses of other nodes. `full` makes everything anew, finds most of it in the kernel and sweeps the rest.
//! The others are deltas: one address joins, leaves, or joins when one has just left; the policy of one pod gets another
//! port.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "bench code")]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use netpol_core::model::{
    Action, Endpoint, EndpointId, L4Match, Object, Peers, Policy, PolicyKey, PortConstraint,
    PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Transport};
use netpol_core::{Dataplane, Engine, NodeConfig, Selector};
use netpol_ebpf::{EbpfConfig, EbpfDataplane, Hook, PrivateBpfFs};
use nix::sched::{CloneFlags, unshare};

const PODS: u16 = 110;
const RULES: u16 = 5;
const SELECTORS: u32 = 40;

/// Longer than programs can read what was removed.
const A_WHILE: Duration = Duration::from_millis(60);

fn main() {
    let bench = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("no permission to make a network namespace");
        for pod in 0..PODS {
            let link = format!("link add np{pod} type veth peer name peer{pod}");
            let made = Command::new("ip").args(link.split(' ')).status();
            assert!(made.expect("the tool `ip` is installed").success());
        }
        let mut criterion = Criterion::default().sample_size(20).configure_from_args();
        for members in [100, 1_000] {
            updates(&mut criterion, members);
        }
        criterion.final_summary();
    });
    bench.join().expect("the bench does not panic");
}

fn updates(criterion: &mut Criterion, members: u32) {
    let label = format!(
        "{PODS}_pods_{PODS}_policies_{RULES}_rules_{SELECTORS}_selectors_{members}_members"
    );
    let mut node = Node::new(members);
    let newcomer = remote(SELECTORS * members);
    let mut bench = |name: &str, round: &mut dyn FnMut() -> Duration| {
        criterion.bench_function(&format!("{name}/{label}"), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
        });
    };
    bench("full", &mut || {
        node.engine.resync();
        node.follow()
    });
    bench("join", &mut || {
        node.leaves(&newcomer);
        thread::sleep(A_WHILE);
        node.joins(&newcomer)
    });
    bench("leave", &mut || {
        node.joins(&newcomer);
        node.leaves(&newcomer)
    });
    bench("join_after_leave", &mut || {
        node.joins(&newcomer);
        node.leaves(&newcomer);
        node.joins(&newcomer)
    });
    let mut port = 9000;
    bench("policy", &mut || {
        port = if port == u16::MAX { 9000 } else { port + 1 };
        node.joins(&policy(0, port).into())
    });
    node.dataplane.remove().unwrap();
}

/// A node on which everything is in force.
struct Node {
    engine: Engine,
    dataplane: EbpfDataplane,
    _pins: PrivateBpfFs,
}

impl Node {
    fn new(members: u32) -> Self {
        let pins = PrivateBpfFs::new().unwrap();
        let mut config = EbpfConfig::default();
        (config.bpf_fs, config.hook) = (pins.path(), Hook::Clsact);
        let dataplane = EbpfDataplane::open(config).unwrap();
        let mut engine = Engine::new(NodeConfig::new("node"), dataplane.capabilities());
        let pods = (0..PODS).map(pod);
        let policies = (0..PODS).map(|it| policy(it, 8000).into());
        let objects = pods.chain(policies).chain((0..SELECTORS * members).map(remote));
        objects.for_each(|it: Object| engine.upsert(it).unwrap());
        engine.inputs_complete();
        let mut node = Self { engine, dataplane, _pins: pins };
        node.follow();
        node
    }

    fn joins(&mut self, object: &Object) -> Duration {
        self.engine.upsert(object.clone()).unwrap();
        self.follow()
    }

    fn leaves(&mut self, object: &Object) -> Duration {
        self.engine.remove(&object.key());
        self.follow()
    }

    /// Returns how long applying what the engine asks for takes.
    fn follow(&mut self) -> Duration {
        let Some(update) = self.engine.poll_update() else { return Duration::ZERO };
        let start = Instant::now();
        let applied = self.dataplane.apply(update);
        let elapsed = start.elapsed();
        assert!(applied.as_ref().is_ok_and(|it| it.isolated.is_empty()));
        self.engine.handle_applied(applied);
        elapsed
    }
}

fn pod(number: u16) -> Object {
    let id = EndpointId::workload("local", format!("pod{number}"));
    let mut pod = Endpoint::new(id).on_node("node").attached_to(format!("np{number}"));
    pod.labels = [("pod", number.to_string())].into_iter().collect();
    pod.addresses = vec![IpAddr::V4(Ipv4Addr::from_bits(0x0ac8_0000 + u32::from(number)))];
    pod.into()
}

fn policy(number: u16, port: u16) -> Policy {
    let subject = Selector::equal("pod", number.to_string()).unwrap();
    let mut policy = Policy::new(PolicyKey::kubernetes("local", format!("p{number}")), subject);
    let port = PortRange::single(port).unwrap();
    let rules = (0..RULES).map(|rule| {
        let mut matches = RuleMatch::default();
        let peer = u32::from(number * RULES + rule) % SELECTORS;
        let peers = Selector::equal("set", peer.to_string()).unwrap();
        matches.source.peers = Some(Peers::Endpoints(peers));
        let listed = PortMatch { numbers: [port].into_iter().collect(), ..PortMatch::default() };
        matches.l4 = L4Match::Ports {
            transport: Transport::Tcp,
            source: PortConstraint::default(),
            destination: PortConstraint { any_of: Some(listed), none_of: None },
        };
        Rule::new(usize::from(rule), Action::Allow, matches)
    });
    policy.ingress = Some(rules.collect());
    policy
}

fn remote(number: u32) -> Object {
    let id = EndpointId::workload("remote", format!("pod{number}"));
    let mut pod = Endpoint::new(id).on_node("elsewhere");
    pod.labels = [("set", (number % SELECTORS).to_string())].into_iter().collect();
    pod.addresses = vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))];
    pod.into()
}
