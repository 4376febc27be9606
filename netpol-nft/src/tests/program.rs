//! Programs for tests, written by hand.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_core::model::{
    Action, Attachment, Endpoint as ModelEndpoint, EndpointId, L4Match, Mode, Peers, PolicyKey,
    PortConstraint,
};
use netpol_core::net::{PortRange, PortSet, Prefix, PrefixSet, Transport};
use netpol_core::program::{
    Address, AddressSet, Digest, Endpoint, Members, PolicySet, PolicySetId, Ports, Program, Rule,
    RuleId, SetDefinition, SetId, Stage, StageEnd,
};
use netpol_core::{
    Capabilities, Change, Direction, Engine, NodeConfig, RuleRef, Selector, Verdict,
};

/// Builds a program.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    program: Program,
    template: Endpoint,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let mut engine = Engine::new(NodeConfig::new("node"), &Capabilities::all());
        engine
            .upsert(
                ModelEndpoint::new(EndpointId::workload("ns", "pod"))
                    .on_node("node")
                    .attached_to("veth"),
            )
            .unwrap();
        engine.inputs_complete();
        let template = loop {
            let update = engine.poll_update().expect("an engine with inputs has an update");
            if let Change::Full(program) = update.change {
                break program.endpoints.first().expect("the endpoint is on the node").clone();
            }
            engine.handle_applied(Ok(netpol_core::Applied::completely(update.generation)));
        };
        Self { program: Program::default(), template }
    }

    /// Returns an endpoint that no program has yet: open, known by an interface of its name.
    pub(crate) fn endpoint(&mut self, name: &str, addresses: &[&str]) -> Endpoint {
        let mut endpoint = self.template.clone();
        endpoint.id = EndpointId::workload("ns", name);
        endpoint.attachment = Attachment::Interface(name.to_owned());
        endpoint.addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        endpoint.mode = Mode::Enforce;
        endpoint.ingress = self.policy(PolicySet { stages: Vec::new(), default: Verdict::Allow });
        endpoint.egress = endpoint.ingress;
        endpoint
    }

    pub(crate) fn add(&mut self, endpoint: Endpoint) -> &mut Self {
        self.program.endpoints.push(endpoint);
        self.program.endpoints.sort_by(|one, other| one.id.cmp(&other.id));
        self
    }

    pub(crate) fn policy(&mut self, set: PolicySet) -> PolicySetId {
        let id = PolicySetId::of(&set);
        self.program.policy_sets.insert(id, Arc::new(set));
        id
    }

    /// Adds a set of addresses; texts with a `/` are prefixes.
    pub(crate) fn addresses(&mut self, label: &str, members: &[&str]) -> SetId {
        let (prefixes, exact): (Vec<&str>, Vec<&str>) =
            members.iter().partition(|it| it.contains('/'));
        self.set(label, exact.iter().map(|it| it.parse().unwrap()).collect(), nets(&prefixes))
    }

    pub(crate) fn set(&mut self, label: &str, exact: Vec<IpAddr>, prefixes: PrefixSet) -> SetId {
        let exact = exact.into_iter().collect();
        let selector: Selector = format!("{label} == 'yes'").parse().unwrap();
        let definition = SetDefinition::Addresses(Peers::Endpoints(selector));
        let id = SetId::of(&definition);
        let set = AddressSet::new(definition, Members::Addresses { exact, prefixes });
        self.program.address_sets.insert(id, Arc::new(set));
        id
    }

    pub(crate) fn named_port(&mut self, name: &str, ports: &[(&str, u16)]) -> SetId {
        let definition = SetDefinition::NamedPort {
            endpoints: None,
            transport: Transport::Tcp,
            name: name.to_owned(),
        };
        let id = SetId::of(&definition);
        let members =
            ports.iter().map(|(address, port)| (address.parse().unwrap(), *port)).collect();
        let set = AddressSet::new(definition, Members::Ports(members));
        self.program.address_sets.insert(id, Arc::new(set));
        id
    }

    pub(crate) fn build(&self) -> Program {
        self.program.clone()
    }
}

/// Returns a rule with an id that follows from `number`.
pub(crate) fn rule(number: u8, action: Action) -> Rule {
    let policy = PolicyKey::kubernetes("ns", "policy");
    let origin =
        RuleRef { policy, direction: Direction::Ingress, index: usize::from(number), name: None };
    Rule::matching_all(RuleId::new(Digest::from_bytes([number; Digest::LEN])), origin, action)
}

pub(crate) fn stage(rules: Vec<Rule>, end: StageEnd) -> Stage {
    let rules = rules.into_iter().map(Arc::new).collect();
    Stage { tier: "default".to_owned(), policies: Vec::new(), rules, end }
}

/// Returns a policy set of one stage that denies at its end.
pub(crate) fn deny_unless(rules: Vec<Rule>) -> PolicySet {
    PolicySet { stages: vec![stage(rules, StageEnd::Deny)], default: Verdict::Allow }
}

pub(crate) fn in_set(id: SetId) -> Address {
    Address { in_set: Some(id), ..Address::default() }
}

pub(crate) fn in_nets(prefixes: &[&str]) -> Address {
    Address { nets: Some(nets(prefixes)), ..Address::default() }
}

pub(crate) fn nets(prefixes: &[&str]) -> PrefixSet {
    prefixes.iter().map(|it| it.parse::<Prefix>().unwrap()).collect()
}

pub(crate) fn numbers(ranges: &[(u16, u16)]) -> Ports {
    let numbers: PortSet =
        ranges.iter().map(|&(first, last)| PortRange::new(first, last).unwrap()).collect();
    Ports { numbers, sets: Vec::new() }
}

pub(crate) fn to_ports(transport: Transport, ports: Ports) -> L4Match<Ports> {
    let destination = PortConstraint { any_of: Some(ports), none_of: None };
    L4Match::Ports { transport, source: PortConstraint::default(), destination }
}

/// Returns a program that uses every kind of match.
pub(crate) fn everything() -> Builder {
    use netpol_core::net::{Family, IcmpMatch, Protocol};
    let mut builder = Builder::new();
    let peers =
        builder.addresses("peers", &["10.0.0.1", "10.0.0.2", "2001:db8::1", "192.168.0.0/16"]);
    let others = builder.addresses("others", &["10.0.0.3", "10.9.0.0/16", "2001:db8:9::/48"]);
    let http = builder.named_port("http", &[("10.0.1.1", 8080), ("2001:db8:1::1", 8081)]);
    let mut rules = vec![
        rule(1, Action::Allow),
        rule(2, Action::Deny),
        rule(3, Action::Log),
        rule(4, Action::Allow),
    ];
    rules[0].remote = in_set(peers);
    rules[0].l4 = to_ports(Transport::Tcp, numbers(&[(80, 80)]));
    rules[1].remote = Address {
        not_in_set: Some(others),
        nets: Some(nets(&["0.0.0.0/0", "2001:db8::/32"])),
        ..Address::default()
    };
    rules[1].l4 = to_ports(Transport::Udp, numbers(&[(53, 53), (1000, 2000), (65_000, 65_535)]));
    rules[2].remote.not_nets = nets(&["10.0.0.0/8", "128.0.0.0/1", "fe80::/10"]);
    rules[2].l4 = L4Match::IsNot(BTreeSet::from([Protocol::TCP, Protocol::SCTP]));
    let mut ports = numbers(&[(443, 450)]);
    ports.sets.push(http);
    let source = PortConstraint {
        any_of: Some(numbers(&[(1024, 65_535)])),
        none_of: Some(numbers(&[(2000, 2010)])),
    };
    let destination = PortConstraint {
        any_of: Some(ports),
        none_of: Some(Ports { sets: vec![http], ..numbers(&[(1, 1), (5, 9)]) }),
    };
    rules[3].l4 = L4Match::Ports { transport: Transport::Tcp, source, destination };
    let icmp = |family, is, is_not| L4Match::Icmp { family, is, is_not };
    let echo = Some(IcmpMatch { kind: 8, code: None });
    let prohibited = Some(IcmpMatch { kind: 3, code: Some(13) });
    for (number, l4) in [
        (5, icmp(Family::V4, echo, prohibited)),
        (6, icmp(Family::V4, prohibited, None)),
        (7, icmp(Family::V6, Some(IcmpMatch { kind: 128, code: Some(0) }), None)),
        (8, icmp(Family::V6, None, Some(IcmpMatch { kind: 129, code: None }))),
        (9, L4Match::Is(Protocol::SCTP)),
        (10, L4Match::Any),
    ] {
        let mut it = rule(number, Action::Allow);
        it.l4 = l4;
        it.local = (number == 10).then(|| in_nets(&["10.0.1.0/24"]));
        rules.push(it);
    }
    rules.push(rule(11, Action::Pass));
    let ingress = builder.policy(PolicySet {
        stages: vec![stage(rules.clone(), StageEnd::Next), stage(rules.clone(), StageEnd::Deny)],
        default: Verdict::Deny,
    });
    let egress = builder
        .policy(PolicySet { stages: vec![stage(rules, StageEnd::Next)], default: Verdict::Deny });
    let closed = builder.policy(PolicySet { stages: Vec::new(), default: Verdict::Deny });
    let mut pod = builder.endpoint("pod-a", &["10.0.1.1", "2001:db8:1::1"]);
    (pod.ingress, pod.egress) = (ingress, egress);
    let mut bridged = builder.endpoint("pod-b", &["10.0.1.2", "2001:db8:1::2"]);
    (bridged.ingress, bridged.egress, bridged.attachment) = (ingress, closed, Attachment::Address);
    let mut isolated = builder.endpoint("pod-c", &["10.0.1.3"]);
    isolated.mode = Mode::Isolate;
    let mut isolated_bridged = builder.endpoint("pod-d", &["10.0.1.4", "2001:db8:1::4"]);
    (isolated_bridged.mode, isolated_bridged.attachment) = (Mode::Isolate, Attachment::Address);
    for endpoint in [pod, bridged, isolated, isolated_bridged] {
        builder.add(endpoint);
    }
    builder.program.unknown.prefixes = ["pod-", "cali"].map(|it| it.parse().unwrap()).into();
    builder
}

/// Returns a program with `sets` sets of `members` addresses each. Another number of members moves them all.
pub(crate) fn many_members(sets: u32, members: u32) -> Program {
    let mut builder = Builder::new();
    let rules = (0..sets).map(|set| {
        let address = |index: u32| {
            IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + set * 65_536 + index * members % 60_000))
        };
        let id = builder.set(
            &format!("set{set}"),
            (0..members).map(address).collect::<BTreeSet<_>>().into_iter().collect(),
            PrefixSet::default(),
        );
        let mut rule = rule(u8::try_from(set).unwrap(), Action::Allow);
        rule.remote = in_set(id);
        rule
    });
    let policy = deny_unless(rules.collect());
    let mut pod = builder.endpoint("pod", &["10.255.0.1"]);
    pod.ingress = builder.policy(policy);
    builder.add(pod).build()
}
