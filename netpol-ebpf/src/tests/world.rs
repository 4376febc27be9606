//! A node to test: a network namespace with interfaces, and a dataplane in it.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use netpol_core::model::{
    Action, Endpoint, EndpointId, EntityMatch, L4Match, Mode, Object, Policy, PolicyKey,
    PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Transport};
use netpol_core::{
    Capabilities, Change, Dataplane, DestinationView, Direction, Engine, NodeConfig, Program,
    Selector, Update, Verdict,
};
use nix::sched::{CloneFlags, unshare};

use super::packet::Packet;
use crate::programs::Side;
use crate::state::State;
use crate::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};

/// What the programs return (`TC_ACT_SHOT`, `TC_ACT_UNSPEC`).
pub(super) const DROPPED: u32 = 2;
pub(super) const PASSED: u32 = u32::MAX;

/// Runs `body` in a new network namespace.
pub(crate) fn in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("no permission to make a network namespace; run as root");
        body()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `ip` in the namespace of the calling thread.
#[track_caller]
pub(crate) fn ip(arguments: &str) {
    let status =
        Command::new("ip").args(arguments.split(' ')).status().expect("the tool `ip` is installed");
    assert!(status.success(), "ip {arguments}");
}

/// Makes interfaces `np0`, `np1` and so on.
pub(crate) fn interfaces(count: usize) {
    (0..count).for_each(interface);
}

pub(crate) fn interface(number: usize) {
    ip(&format!("link add np{number} type veth peer name peer{number}"));
}

pub(crate) fn config(pins: &PrivateBpfFs) -> EbpfConfig {
    EbpfConfig { bpf_fs: pins.path(), capacity: Capacity::small(), ..EbpfConfig::default() }
}

pub(crate) fn index(interface: &str) -> u32 {
    crate::programs::index_of(interface).unwrap()
}

/// A pod on interface `np<number>` with addresses 10.0.0.<number + 1> and fd00::<number + 1>.
pub(crate) fn pod(number: u8) -> Endpoint {
    let host = number + 1;
    let id = EndpointId::workload("x", format!("pod{number}"));
    let mut pod = Endpoint::new(id).on_node("node").attached_to(format!("np{number}"));
    pod.default_verdict = Verdict::Allow;
    pod.addresses =
        vec![format!("10.0.0.{host}").parse().unwrap(), format!("fd00::{host}").parse().unwrap()];
    pod.labels = [("pod", number.to_string())].into_iter().collect();
    pod
}

pub(crate) fn address(pod: u8, v6: bool) -> IpAddr {
    let addresses = super::world::pod(pod).addresses;
    *addresses.iter().find(|it| it.is_ipv6() == v6).unwrap()
}

/// A policy named `name` that isolates pod 0 in a direction and allows what the rules say.
pub(crate) fn policy(name: &str, direction: Direction, rules: Vec<RuleMatch>) -> Policy {
    let key = PolicyKey {
        kind: PolicyKind::KubernetesNetworkPolicy,
        namespace: Some("x".into()),
        name: name.into(),
    };
    let mut policy = Policy::new(key, "pod == '0'".parse::<Selector>().unwrap());
    let rules = rules
        .into_iter()
        .enumerate()
        .map(|(index, it)| Rule::new(index, Action::Allow, it))
        .collect();
    match direction {
        Direction::Ingress => policy.ingress = Some(rules),
        Direction::Egress => policy.egress = Some(rules),
    }
    policy
}

/// Matches destination ports of a transport, of everybody.
pub(crate) fn to_ports(transport: Transport, ranges: &[(u16, u16)]) -> RuleMatch {
    let numbers =
        ranges.iter().map(|&(first, last)| PortRange::new(first, last).unwrap()).collect();
    let any_of = Some(PortMatch { numbers, ..PortMatch::default() });
    let destination = PortConstraint { any_of, none_of: None };
    RuleMatch {
        l4: L4Match::Ports { transport, source: PortConstraint::default(), destination },
        ..RuleMatch::default()
    }
}

/// Matches destinations in prefixes.
pub(crate) fn to_nets(nets: &[&str]) -> RuleMatch {
    let nets =
        Some(nets.iter().map(|it| it.parse::<netpol_core::net::Prefix>().unwrap()).collect());
    RuleMatch {
        destination: EntityMatch { nets, ..EntityMatch::default() },
        ..RuleMatch::default()
    }
}

pub(crate) fn program(objects: &[Object]) -> Program {
    let mut capabilities = Capabilities::all();
    capabilities.log = false;
    capabilities.destination_view = DestinationView::BeforeDestinationNat;
    let mut engine = Engine::new(NodeConfig::new("node"), &capabilities);
    objects.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
    engine.inputs_complete();
    match engine.poll_update().unwrap().change {
        Change::Full(program) => (*program).clone(),
        other => panic!("expected a full program, got {other:?}"),
    }
}

pub(crate) fn full(program: &Program) -> Update {
    Update::new(1, Change::Full(Arc::new(program.clone())))
}

/// A node with three pods, of which pod 0 has policies.
pub(crate) struct Node {
    pub(super) dataplane: EbpfDataplane,
    pub(super) pins: PrivateBpfFs,
}

impl Node {
    pub(super) fn new(policies: Vec<Policy>) -> Self {
        interfaces(3);
        let pins = PrivateBpfFs::new().unwrap();
        let dataplane = EbpfDataplane::open(config(&pins)).unwrap();
        let mut node = Self { dataplane, pins };
        node.apply(&objects(policies));
        node
    }

    #[track_caller]
    pub(super) fn apply(&mut self, objects: &[Object]) {
        self.enforce(&program(objects));
    }

    #[track_caller]
    pub(super) fn enforce(&mut self, program: &Program) {
        let applied =
            self.dataplane.apply(full(program)).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
    }

    pub(super) fn state(&mut self) -> &mut State {
        self.dataplane.state_mut().unwrap()
    }

    /// Returns the verdict on a packet that pod 0 sends.
    #[track_caller]
    pub(super) fn sends(&mut self, packet: &Packet) -> Verdict {
        self.judges(Side::From, "np0", packet, 1)
    }

    /// Returns the verdict on a packet that is forwarded to pod 0.
    #[track_caller]
    pub(super) fn receives(&mut self, packet: &Packet) -> Verdict {
        self.judges(Side::To, "np0", packet, 1)
    }

    /// Returns the verdict on a packet of the node itself for pod 0.
    #[track_caller]
    pub(super) fn receives_from_node(&mut self, packet: &Packet) -> Verdict {
        self.judges(Side::To, "np0", packet, 0)
    }

    #[track_caller]
    pub(super) fn judges(
        &mut self,
        side: Side,
        interface: &str,
        packet: &Packet,
        came_in: u32,
    ) -> Verdict {
        let returned =
            self.state().programs.run(side, &packet.bytes(), index(interface), came_in, 1);
        match returned.0 {
            PASSED => Verdict::Allow,
            DROPPED => Verdict::Deny,
            other => panic!("the program returned {other}"),
        }
    }
}

/// The objects of the node: three pods, and policies.
pub(crate) fn objects(policies: Vec<Policy>) -> Vec<Object> {
    let pods = (0..3).map(|number| Object::Endpoint(pod(number)));
    pods.chain(policies.into_iter().map(Object::Policy)).collect()
}

/// As [`objects`], with pod 0 in a mode.
pub(crate) fn objects_in(mode: Mode, policies: Vec<Policy>) -> Vec<Object> {
    let mut objects = objects(policies);
    if let Some(Object::Endpoint(pod)) = objects.first_mut() {
        pod.mode = mode;
    }
    objects
}

/// Returns the names in a folder of pins.
pub(crate) fn listing(pins: &PrivateBpfFs, folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(pins.path().join(folder)) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
