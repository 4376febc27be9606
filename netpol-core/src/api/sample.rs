//! A small cluster, for tests of what policies mean.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use alloc::vec::Vec;
use core::net::IpAddr;

use serde_json::{Value, json};

use super::{Document, Kind, Strictness};
use crate::dataplane::Capabilities;
use crate::eval::Judge;
use crate::flow::Flow;
use crate::model::{Inputs, Object};
use crate::net::Transport;
use crate::verdict::Verdict;

/// Name, labels, address, ports by name, transport and number.
type PodOf = (&'static str, &'static str, Value, &'static str, Value);

/// Namespaces `x` (team red) and `y` (team blue) with two pods each, and a node.
pub(super) fn cluster() -> Inputs {
    let mut inputs = Inputs::default();
    let mut add = |kind, json: Value| {
        let object = Document::read(kind, &json).unwrap().to_object(Strictness::Strict).unwrap();
        inputs.upsert(object.value.unwrap());
    };
    for (name, team) in [("x", "red"), ("y", "blue")] {
        add(Kind::Namespace, json!({"metadata": {"name": name, "labels": {"team": team}}}));
    }
    let port =
        |name, protocol, port| json!({"name": name, "protocol": protocol, "containerPort": port});
    let pods: [PodOf; 4] = [
        (
            "x",
            "a",
            json!({"app": "a"}),
            "10.0.0.1",
            json!([port("web", "TCP", 80), port("dns", "UDP", 53)]),
        ),
        ("x", "b", json!({"app": "b"}), "10.0.0.2", json!([port("web", "UDP", 81)])),
        ("y", "c", json!({"app": "a"}), "10.0.1.1", json!([port("web", "TCP", 81)])),
        ("y", "d", json!({}), "10.0.1.2", json!([])),
    ];
    for (namespace, name, labels, address, ports) in pods {
        add(
            Kind::Pod,
            json!({
                "metadata": {"namespace": namespace, "name": name, "labels": labels},
                "spec": {"containers": [{"ports": ports}]},
                "status": {"podIPs": [{"ip": address}]},
            }),
        );
    }
    add(
        Kind::Node,
        json!({
            "metadata": {"name": "n", "labels": {"os": "linux"}},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "172.18.0.2"}, {"type": "ExternalIP", "address": "203.0.113.9"},
            ]},
        }),
    );
    inputs
}

/// Returns the address of a name: of a pod, the node, or itself.
pub(super) fn address(name: &str) -> IpAddr {
    let known = [
        ("a", "10.0.0.1"),
        ("b", "10.0.0.2"),
        ("c", "10.0.1.1"),
        ("d", "10.0.1.2"),
        ("n", "172.18.0.2"),
    ];
    known.iter().find(|it| it.0 == name).map_or(name, |it| it.1).parse().unwrap()
}

/// Returns the flow that `a > b tcp/80` or `a > b icmp` says.
pub(super) fn flow(text: &str) -> Flow {
    let words: Vec<_> = text.split(' ').collect();
    let (from, to) = (address(words[0]), address(words[2]));
    let Some((transport, port)) = words[3].split_once('/') else {
        assert_eq!(words[3], "icmp", "{text}");
        return Flow::ping(from, to);
    };
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => {
            assert_eq!(other, "sctp", "{text}");
            Transport::Sctp
        }
    };
    Flow::to_port(from, to, transport, port.parse().unwrap())
}

/// Checks which flows pass and which do not. Without any policy each of them passes.
#[track_caller]
pub(super) fn check_inputs(inputs: &Inputs, allowed: &[&str], denied: &[&str]) {
    let capabilities = Capabilities::all();
    let judge = Judge::new(inputs, &capabilities);
    for (flows, want) in [(allowed, Verdict::Allow), (denied, Verdict::Deny)] {
        for text in flows {
            let judgement = judge.evaluate(&flow(text)).enforced;
            assert_eq!(judgement.verdict(), want, "{text}: {judgement}");
        }
    }
    let mut open = inputs.clone();
    open.policies.clear();
    let judge = Judge::new(&open, &capabilities);
    for text in allowed.iter().chain(denied) {
        assert_eq!(judge.evaluate(&flow(text)).enforced.verdict(), Verdict::Allow, "{text}");
    }
}

/// Returns a NetworkPolicy for all pods of namespace `x`.
pub(super) fn np(spec: Value) -> Object {
    let json = json!({"metadata": {"namespace": "x", "name": "np"}, "spec": spec});
    let document = Document::read(Kind::KubernetesNetworkPolicy, &json).unwrap();
    document.to_object(Strictness::Strict).unwrap().value.unwrap()
}
