//! A small cluster to judge policies in, and the flows that its rules can tell apart.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::eval::Judge;
use netpol_core::flat::{self, Limits, TableKey};
use netpol_core::model::{
    Attachment, Endpoint, EntityMatch, Inputs, L4Match, NamedPort, NetworkSet, Node, Object,
    PortMatch,
};
use netpol_core::net::{Prefix, PrefixSet, Protocol, Transport};
use netpol_core::{
    Capabilities, Change, Direction, Engine, Explanation, Flow, Labels, NodeConfig, Origin,
    Payload, Program, Reason, Step, Verdict,
};

const NODE: &str = "node-a";

/// Most flows that are judged.
const MAX_FLOWS: usize = 300;

/// Most prefixes of the policies together that are made flat.
const MAX_FLAT: usize = 2_000;

/// Objects in a cluster.
pub(super) struct World {
    objects: Vec<Object>,
    inputs: Inputs,
}

impl World {
    /// Returns the cluster with these objects in it. All endpoints are on one node, so that its program is about all of
    /// them.
    pub(super) fn with(objects: &[Object]) -> Self {
        let mut objects: Vec<_> = cluster().into_iter().chain(objects.iter().cloned()).collect();
        for object in &mut objects {
            if let Object::Endpoint(endpoint) = object {
                endpoint.node = Some(NODE.into());
                endpoint.attachment = Attachment::Address;
            }
        }
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        Self { objects, inputs }
    }

    /// Checks that judge, program and flat form say the same of flows.
    pub(super) fn check_agreement(&self) {
        let mut least = Capabilities::minimal();
        // To the judge a host endpoint that the engine refuses would still be a peer.
        least.host_endpoints = true;
        for capabilities in [Capabilities::all(), least] {
            let program = self.program(&capabilities);
            let judge = Judge::new(&self.inputs, &capabilities);
            let is_small = self.nets().map(|nets| nets.prefixes().len()).sum::<usize>() <= MAX_FLAT;
            let flat = is_small.then(|| flat::classify(&program, &Limits::unlimited()));
            let flat = flat.and_then(Result::ok);
            for flow in self.flows() {
                let judged = judge.evaluate(&flow).enforced;
                let outcome = program.outcome(&flow);
                for (direction, local, said, judged) in [
                    (Direction::Egress, flow.source, outcome.egress, judged.egress),
                    (Direction::Ingress, flow.destination, outcome.ingress, judged.ingress),
                ] {
                    if let (Some(flat), Some(said)) = (&flat, &said) {
                        check_flat(flat, &program, local, direction, &flow, said);
                    }
                    let said = said.unwrap_or_else(no_endpoint);
                    assert_eq!(said, known_to_programs(judged), "{direction} of {flow}");
                }
            }
        }
    }

    /// Checks that no flow passes here that does not with `other` in place of the objects.
    pub(super) fn check_no_wider_than(&self, other: &Object, broken: &str) {
        let other = Self::with(std::slice::from_ref(other));
        let capabilities = Capabilities::all();
        let (here, there) =
            (Judge::new(&self.inputs, &capabilities), Judge::new(&other.inputs, &capabilities));
        for flow in self.flows().into_iter().chain(other.flows()) {
            let (here, there) = (here.evaluate(&flow).enforced, there.evaluate(&flow).enforced);
            for (here, there) in [(here.egress, there.egress), (here.ingress, there.ingress)] {
                let is_wider = here.verdict == Verdict::Allow && there.verdict == Verdict::Deny;
                assert!(!is_wider, "without {broken}, {flow} is {here}, before {there}");
            }
        }
    }

    fn program(&self, capabilities: &Capabilities) -> Program {
        let mut engine = Engine::new(NodeConfig::new(NODE), capabilities);
        for object in &self.objects {
            // What the engine refuses, such as a built-in tier, `Inputs` leaves out too.
            let _refused = engine.upsert(object.clone());
        }
        engine.inputs_complete();
        match engine.poll_update().map(|update| update.change) {
            Some(Change::Full(program)) => (*program).clone(),
            other => panic!("no full program but {other:?}"),
        }
    }

    fn entities(&self) -> impl Iterator<Item = &EntityMatch> {
        self.inputs
            .policies()
            .flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten())
            .flat_map(|rule| [&rule.matches.source, &rule.matches.destination])
    }

    fn nets(&self) -> impl Iterator<Item = &PrefixSet> {
        self.entities().flat_map(|it| it.nets.iter().chain([&it.not_nets]))
    }

    /// Returns a sample of the flows between all addresses that rules can tell apart, with payloads that they can.
    fn flows(&self) -> Vec<Flow> {
        let addresses: Vec<_> = self.addresses().into_iter().collect();
        let payloads: Vec<_> = self.payloads().into_iter().collect();
        let count = addresses.len() * addresses.len();
        let step = (count / MAX_FLOWS).max(1) | 1;
        (0..count)
            .step_by(step)
            .map(|pair| (addresses[pair / addresses.len()], addresses[pair % addresses.len()]))
            .filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4())
            .enumerate()
            .map(|(index, (source, destination))| {
                let payload = payloads[index * 7_919 % payloads.len()];
                let origin = if index % 16 == 15 { Origin::OwnNode } else { Origin::Endpoint };
                Flow { source, destination, payload, origin }
            })
            .collect()
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses: BTreeSet<IpAddr> =
            self.inputs.endpoints().flat_map(|it| it.addresses.iter().copied()).collect();
        addresses.extend(["192.0.2.1", "2001:db8::1"].iter().flat_map(|it| it.parse::<IpAddr>()));
        for prefix in self.nets().flat_map(|nets| nets.prefixes().iter().take(16)) {
            let (first, last) = (prefix.first(), prefix.last());
            addresses.extend([first, last, beside(first, -1), beside(last, 1)]);
            if addresses.len() > 200 {
                break;
            }
        }
        addresses
    }

    fn payloads(&self) -> BTreeSet<Payload> {
        let mut ports: BTreeSet<u16> = [0, 53, 80, 3306, u16::MAX].into();
        let mut payloads: BTreeSet<Payload> =
            [0, 8, 128, 135].map(|kind| Payload::Icmp { kind, code: 0 }).into();
        payloads.extend([0, 47, 255].map(|number| Payload::Other(Protocol::new(number))));
        let mut add = |list: &PortMatch| {
            for range in list.numbers.ranges().iter().take(8) {
                ports.extend([range.first() - 1, range.first(), range.last()]);
                ports.insert(range.last().saturating_add(1));
            }
        };
        for rule in
            self.inputs.policies().flat_map(|it| it.ingress.iter().chain(&it.egress).flatten())
        {
            match &rule.matches.l4 {
                L4Match::Any | L4Match::IsNot(_) => {}
                L4Match::Is(protocol) => {
                    let has_own_form = Transport::from_protocol(*protocol).is_some();
                    let is_icmp = [Protocol::ICMP, Protocol::ICMPV6].contains(protocol);
                    if !has_own_form && !is_icmp {
                        payloads.insert(Payload::Other(*protocol));
                    }
                }
                L4Match::Ports { source, destination, .. } => {
                    for constraint in [source, destination] {
                        constraint.any_of.iter().chain(&constraint.none_of).for_each(&mut add);
                    }
                }
                L4Match::Icmp { is, is_not, .. } => {
                    payloads.extend(
                        is.iter()
                            .chain(is_not)
                            .map(|it| Payload::Icmp { kind: it.kind, code: it.code.unwrap_or(1) }),
                    );
                }
            }
        }
        for destination in ports.into_iter().take(40) {
            for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
                payloads.insert(Payload::Ports { transport, source: Flow::EPHEMERAL, destination });
                payloads.insert(Payload::Ports { transport, source: destination, destination: 80 });
            }
        }
        payloads
    }
}

/// Checks that the flat form says what the program says, where that asks policy.
fn check_flat(
    flat: &flat::Flat,
    program: &Program,
    local: IpAddr,
    direction: Direction,
    flow: &Flow,
    said: &Explanation,
) {
    let Some(endpoint) = program.endpoints.iter().find(|it| it.addresses.contains(&local)) else {
        return;
    };
    let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
    let asks =
        matches!(said.reason, Reason::Rule(_) | Reason::NoMatch { .. } | Reason::DefaultVerdict);
    if !asks || flat.unclassified().contains_key(&key) {
        return;
    }
    if let Some(flat) = flat.explain(key, flow) {
        assert_eq!(
            (flat.verdict, &flat.reason),
            (said.verdict, &said.reason),
            "{direction} of {flow}"
        );
    }
}

fn no_endpoint() -> Explanation {
    Explanation::at_once(Verdict::Allow, Reason::NoEndpoint)
}

/// Returns what the judge says without what it alone knows: of rules that programs do not hold.
fn known_to_programs(mut judged: Explanation) -> Explanation {
    judged.steps.retain(Step::is_known_to_programs);
    judged.steps.dedup();
    judged
}

fn cluster() -> Vec<Object> {
    let labels = |pairs: &[(&str, &str)]| -> Labels { pairs.iter().copied().collect() };
    let namespace = |name: &str, team: &str| Object::Namespace {
        name: name.into(),
        labels: labels(&[("team", team), ("kubernetes.io/metadata.name", name)]),
    };
    let pod = |namespace: &str, name: &str, host: u8, transport, port| {
        let mut pod = Endpoint::pod(namespace, name).on_node(NODE);
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into());
        pod.addresses = vec![Ipv4Addr::new(10, 0, 0, host).into(), v6.into()];
        pod.labels = labels(&[("app", name)]);
        pod.ports = vec![NamedPort { name: name.into(), transport, port }];
        pod.service_account = Some("default".into());
        pod
    };
    let nets = ["192.0.2.0/24", "2001:db8::/32"].iter().flat_map(|it| it.parse::<Prefix>());
    let set = NetworkSet {
        namespace: None,
        name: "outside".into(),
        labels: labels(&[("zone", "outside")]),
        nets: nets.collect(),
    };
    let node = Node {
        name: NODE.into(),
        labels: labels(&[("pool", "general")]),
        addresses: vec![Ipv4Addr::new(10, 0, 9, 1).into()],
        interfaces: Vec::new(),
    };
    let account = Object::ServiceAccount {
        namespace: "shop".into(),
        name: "default".into(),
        labels: labels(&[("grade", "gold")]),
    };
    vec![
        namespace("shop", "red"),
        namespace("infra", "blue"),
        account,
        pod("shop", "web", 2, Transport::Tcp, 80).into(),
        pod("shop", "db", 3, Transport::Tcp, 3306).into(),
        pod("infra", "dns", 4, Transport::Udp, 53).into(),
        set.into(),
        node.into(),
    ]
}

/// Returns the address before or behind this one; behind the last one is the first.
fn beside(address: IpAddr, step: i8) -> IpAddr {
    match address {
        IpAddr::V4(it) => {
            IpAddr::V4(Ipv4Addr::from_bits(it.to_bits().wrapping_add_signed(step.into())))
        }
        IpAddr::V6(it) => {
            IpAddr::V6(Ipv6Addr::from_bits(it.to_bits().wrapping_add_signed(step.into())))
        }
    }
}
