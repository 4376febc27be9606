//! How long updates of a node take, in the real kernel. Run as root.
//!
//! Each pod has a policy of its own with five rules, each of which allows one port to one of 40 selectors; each selector
//! has as many addresses of other nodes. `first`: from nothing to everything in force. `again`: the whole program, of which
//! everything is in force. The others are deltas: a pod of another node joins or leaves, which one or five selectors select;
//! the policy of one pod gets another port, a while after the last time. Nothing happens for a `pause` before a pod joins or
//! leaves.

#![expect(clippy::unwrap_used, reason = "bench code")]

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use netpol_core::model::{
    Action, Endpoint, EndpointId, L4Match, Object, Peers, Policy, PolicyKey, PortConstraint,
    PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Transport};
use netpol_core::{Dataplane, Engine, NodeConfig, Selector};

pub(crate) const PODS: u32 = 110;
const RULES: u32 = 5;
const SELECTORS: u32 = 40;

/// How many rounds with a pause are made for one sample at most: pauses do not count, and would take long.
const PAUSES: u64 = 20;

/// Longer than packets can meet what was removed.
const A_WHILE: Duration = Duration::from_millis(60);

/// Benches a dataplane at a node whose selectors have as many `members` each.
pub(crate) fn updates(
    criterion: &mut Criterion,
    prefix: &str,
    members: u32,
    pause: Duration,
    dataplane: impl Dataplane + 'static,
) {
    let label = format!("{PODS}_pods_{RULES}_rules_{SELECTORS}_selectors_{members}_members");
    let mut node = Node::new(members, Box::new(dataplane));
    let mut bench = |name: &str, most: u64, round: &mut dyn FnMut() -> Duration| {
        criterion.bench_function(&format!("{prefix}{name}/{label}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let some = rounds.min(most);
                let sum: Duration = (0..some).map(|_| round()).sum();
                sum.mul_f64(rounds as f64 / some as f64)
            });
        });
    };
    bench("first", u64::MAX, &mut || {
        node.dataplane.remove().unwrap();
        node.again()
    });
    bench("again", u64::MAX, &mut || node.again());
    for selectors in [1, 5] {
        let pod = pod(SELECTORS * members, (0..selectors).collect());
        bench(&format!("join_{selectors}"), u64::MAX, &mut || {
            node.leaves(&pod);
            thread::sleep(pause);
            node.joins(&pod)
        });
        bench(&format!("leave_{selectors}"), u64::MAX, &mut || {
            node.joins(&pod);
            thread::sleep(pause);
            node.leaves(&pod)
        });
    }
    let mut port = 9000;
    bench("policy", PAUSES, &mut || {
        port = if port == u16::MAX { 9000 } else { port + 1 };
        node.engine.upsert(policy(0, port)).unwrap();
        thread::sleep(A_WHILE);
        node.follow()
    });
    node.dataplane.remove().unwrap();
}

struct Node {
    engine: Engine,
    dataplane: Box<dyn Dataplane>,
}

impl Node {
    fn new(members: u32, dataplane: Box<dyn Dataplane>) -> Self {
        let mut engine = Engine::new(NodeConfig::new("node"), dataplane.capabilities());
        for number in 0..PODS {
            let id = EndpointId::workload("ns", format!("local{number}"));
            let mut local = Endpoint::new(id).on_node("node").attached_to(format!("np{number}"));
            local.addresses = vec![address(0x10_0000 + number)];
            local.labels = [("local", number.to_string())].into_iter().collect();
            engine.upsert(local).unwrap();
            engine.upsert(policy(number, 8000)).unwrap();
        }
        for number in 0..SELECTORS * members {
            engine.upsert(pod(number, vec![number % SELECTORS])).unwrap();
        }
        engine.inputs_complete();
        let mut node = Self { engine, dataplane };
        node.follow();
        node
    }

    fn joins(&mut self, pod: &Endpoint) -> Duration {
        self.engine.upsert(pod.clone()).unwrap();
        self.follow()
    }

    fn leaves(&mut self, pod: &Endpoint) -> Duration {
        self.engine.remove(&Object::Endpoint(pod.clone()).key());
        self.follow()
    }

    fn again(&mut self) -> Duration {
        self.engine.resync();
        self.follow()
    }

    /// Returns how long the dataplane took for the next update.
    fn follow(&mut self) -> Duration {
        let Some(update) = self.engine.poll_update() else { return Duration::ZERO };
        let start = Instant::now();
        let outcome = self.dataplane.apply(update);
        let elapsed = start.elapsed();
        assert!(outcome.as_ref().unwrap().isolated.is_empty());
        self.engine.handle_applied(outcome);
        elapsed
    }
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// Returns a pod of another node, which these selectors select.
fn pod(number: u32, selectors: Vec<u32>) -> Endpoint {
    let id = EndpointId::workload("ns", format!("remote{number}"));
    let mut pod = Endpoint::new(id).on_node("elsewhere");
    pod.addresses = vec![address(number)];
    pod.labels = selectors.iter().map(|it| (format!("s{it}"), "yes")).collect();
    pod
}

/// Returns the policy of a pod of the node.
fn policy(number: u32, port: u16) -> Policy {
    let subject = Selector::equal("local", number.to_string()).unwrap();
    let mut policy = Policy::new(PolicyKey::kubernetes("ns", format!("policy{number}")), subject);
    let rules = (0..RULES).map(|rule| {
        let mut matches = RuleMatch::default();
        let peers = Selector::has(format!("s{}", (number + rule) % SELECTORS)).unwrap();
        matches.source.peers = Some(Peers::Endpoints(peers));
        let numbers = [PortRange::single(port).unwrap()].into_iter().collect();
        let any_of = Some(PortMatch { numbers, ..PortMatch::default() });
        let destination = PortConstraint { any_of, none_of: None };
        let source = PortConstraint::default();
        matches.l4 = L4Match::Ports { transport: Transport::Tcp, source, destination };
        Rule::new(rule as usize, Action::Allow, matches)
    });
    policy.ingress = Some(rules.collect());
    policy
}
