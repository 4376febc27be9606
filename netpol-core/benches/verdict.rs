//! How long one flow takes: `eval/verdict` through the judge, `interp/outcome` through a compiled program.
//!
//! The cluster has 10 namespaces with as many pods and policies each as the names say: pods carry one of 10 `app` labels, a
//! policy selects one of them and has 5 rules of one peer and one port each, so about one policy in ten applies to a
//! pod.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "benchmark code")]

use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use netpol_core::eval::Judge;
use netpol_core::model::{
    Action, Endpoint, EndpointId, L4Match, Object, Peers, Policy, PolicyKey, PortConstraint,
    PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Transport};
use netpol_core::{Capabilities, Change, Engine, Flow, NodeConfig, Selector, Verdict};

fn address(pod: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + pod))
}

fn pod(number: u32) -> Endpoint {
    let id = EndpointId::workload(format!("ns-{}", number % 10), format!("pod-{number}"));
    let mut pod = Endpoint::new(id).on_node("node").attached_to(format!("v{number}"));
    pod.addresses = vec![address(number)];
    pod.labels = [("app", format!("app-{}", number / 10 % 10))].into_iter().collect();
    pod.default_verdict = Verdict::Allow;
    pod
}

fn policy(number: u32) -> Policy {
    let app = |number: u32| Selector::equal("app", format!("app-{}", number % 10)).unwrap();
    let namespace = format!("ns-{}", number % 10);
    let inside = Selector::equal("projectcalico.org/namespace", namespace.as_str()).unwrap();
    let rule = |index: usize| {
        let peer = app(number + u32::try_from(index).unwrap());
        let mut matches = RuleMatch::default();
        matches.source.peers = Some(Peers::Endpoints(Selector::and([inside.clone(), peer])));
        let port = PortRange::single(8000 + u16::try_from(index).unwrap()).unwrap();
        let any_of =
            Some(PortMatch { numbers: [port].into_iter().collect(), ..PortMatch::default() });
        let destination = PortConstraint { any_of, none_of: None };
        matches.l4 = L4Match::Ports {
            transport: Transport::Tcp,
            source: PortConstraint::default(),
            destination,
        };
        Rule::new(index, Action::Allow, matches)
    };
    let subject = Selector::and([inside.clone(), app(number / 10)]);
    let mut policy =
        Policy::new(PolicyKey::kubernetes(namespace, format!("policy-{number}")), subject);
    policy.ingress = Some((0..5).map(rule).collect());
    policy
}

fn verdicts(criterion: &mut Criterion) {
    let capabilities = Capabilities::all();
    for (pods, policies) in [(10, 10), (250, 100), (2_500, 1_000)] {
        let mut engine = Engine::new(NodeConfig::new("node"), &capabilities);
        let objects = (0..pods)
            .map(|it| Object::from(pod(it)))
            .chain((0..policies).map(|it| policy(it).into()));
        objects.for_each(|object| engine.upsert(object).unwrap());
        engine.inputs_complete();
        let Some(Change::Full(program)) = engine.poll_update().map(|it| it.change) else {
            panic!("a full update")
        };
        let flows: Vec<_> = (0..1_000)
            .map(|it| {
                Flow::to_port(address(it * 7 % pods), address(it * 13 % pods), Transport::Tcp, 8002)
            })
            .collect();
        let inputs = engine.snapshot();
        let judge = Judge::new(&inputs, &capabilities);
        let mut next = (0..).map(|it: usize| &flows[it % flows.len()]);
        criterion.bench_function(
            &format!("eval/verdict/{pods}_pods_{policies}_policies"),
            |bencher| {
                bencher.iter(|| judge.evaluate(next.next().unwrap()));
            },
        );
        criterion.bench_function(
            &format!("interp/outcome/{pods}_pods_{policies}_policies"),
            |bencher| {
                bencher.iter(|| program.outcome(next.next().unwrap()));
            },
        );
    }
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
