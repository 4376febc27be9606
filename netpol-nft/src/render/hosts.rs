//! Host endpoints as chains.
//!
//! | chain | hook | what it has |
//! |---|---|---|
//! | `np-host-in`, `np-host-out`, `np-host-fwd` | entered from the base chains of all endpoints; always there | traffic of the host's processes, and what it forwards |
//! | `np-encap` | the same | what no workload may send |
//! | `np-raw-in`, `np-raw-out` | before conntrack, only if a policy judges untracked packets | each packet |
//! | `np-dnat` | before destination NAT, only if a policy judges there | the first packet of each flow |
//!
//! A rule that allows an untracked packet makes conntrack leave it alone, and one that allows before destination NAT marks
//! it: by that the chains that come later know that the endpoint's policy has spoken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netpol_core::Direction;
use netpol_core::Program;
use netpol_core::model::{Bucket, EndpointId, FailsafePort, Tunnel, WorkloadToHost};
use netpol_core::net::Family;
use netpol_core::program::{Denial, HostEndpoint, Interfaces, PolicySetId};

use super::base::{
    By, ENCAPSULATED, Fixed, HOST_FORWARD, HOST_INPUT, HOST_OUTPUT, commented, discovery,
    established, member, not_member,
};
use super::policy::{OnAllow, PolicyRenderer, TCP};
use super::unknown;
use crate::error::NftError;
use crate::name::{Name, Side};
use crate::ruleset::{
    Action, Base, Chain, End, Fields, FlowState, Hook, Interface, Match, Rule, Sense, Verdict,
};

/// Where `raw` and `mangle` of iptables are: before and after conntrack looks at a packet (-200), and before destination
/// NAT (-100).
///
/// Source: `enum nf_ip_hook_priorities` in `include/uapi/linux/netfilter_ipv4.h`.
const RAW: i32 = -300;
const MANGLE: i32 = -150;

/// The chains that are only there if a policy judges in them.
const RAW_INPUT: &str = "np-raw-in";
const RAW_OUTPUT: &str = "np-raw-out";
const PRE_DNAT: &str = "np-dnat";

/// Returns the names of all chains whose rules lead to the policy of host endpoints.
pub(crate) fn chain_names() -> [Name; 6] {
    [HOST_INPUT, HOST_OUTPUT, HOST_FORWARD, RAW_INPUT, RAW_OUTPUT, PRE_DNAT].map(Name::new)
}

/// UDP and IP in IP as protocol numbers (IANA).
const UDP: u8 = 17;
const IP_IN_IP: u8 = 4;

/// Endpoints that are closed, and why.
type Closed = Vec<(EndpointId, Arc<NftError>)>;

/// Refuses host endpoints on interfaces whose names no rule can have.
pub(super) fn check_hosts(program: &Program) -> Result<(), NftError> {
    let mut names = program.hosts.endpoints.iter().filter_map(named).flatten();
    match names.find(|name| Interface::new(name).is_none()) {
        Some(name) => Err(NftError::Interface { interface: name.clone() }),
        None => Ok(()),
    }
}

/// Renders the host endpoints of a program.
pub(super) struct HostRenderer<'r, 'a> {
    program: &'a Program,
    policies: &'r mut PolicyRenderer<'a>,
    mark: u32,
    /// Endpoints that are closed because theirs could not be rendered.
    closed: Closed,
}

/// The rules of one chain that lead to policy.
struct Hooked {
    bucket: Bucket,
    direction: Direction,
}

impl<'r, 'a> HostRenderer<'r, 'a> {
    pub(super) fn new(
        program: &'a Program,
        policies: &'r mut PolicyRenderer<'a>,
        mark: u32,
    ) -> Self {
        Self { program, policies, mark, closed: Vec::new() }
    }

    /// Returns the chains, and the endpoints that are closed because theirs could not be rendered.
    pub(super) fn chains(mut self) -> (BTreeMap<Name, Chain>, Closed) {
        use Direction::{Egress, Ingress};
        let mut chains = BTreeMap::new();
        let input = self.hook(Bucket::Normal, Ingress);
        let own_host = match self.program.hosts.settings.workload_to_host {
            WorkloadToHost::Deny => self.sent_by_workloads("own-host", &[], &Verdict::Drop),
            WorkloadToHost::Allow if !input.is_empty() => {
                self.sent_by_workloads("own-host", &[], &Verdict::Return)
            }
            WorkloadToHost::Allow | WorkloadToHost::Judge => Vec::new(),
        };
        let input = [own_host, input].concat();
        let mut output = self.hook(Bucket::Normal, Egress);
        if !output.is_empty() {
            output = [established(), self.answers(), output].concat();
        }
        let forward =
            [self.hook(Bucket::Forward, Ingress), self.hook(Bucket::Forward, Egress)].concat();
        let encapsulated = self.encapsulated();
        for (name, rules) in [
            (HOST_INPUT, input),
            (HOST_OUTPUT, output),
            (HOST_FORWARD, forward),
            (ENCAPSULATED, encapsulated),
        ] {
            chains.insert(Name::new(name), Chain { base: None, rules });
        }
        let (raw_in, raw_out) =
            (self.hook(Bucket::Untracked, Ingress), self.hook(Bucket::Untracked, Egress));
        let mut dnat = self.hook(Bucket::PreDnat, Ingress);
        if !dnat.is_empty() {
            // What comes out of a tunnel may have the mark of the packet that carried it.
            let unmark = vec![commented("mark", Vec::new(), Action::Unmark(self.mark))];
            dnat = [unmark, established(), dnat].concat();
        }
        for (name, hook, priority, rules) in [
            (RAW_INPUT, Hook::Prerouting, RAW, raw_in),
            (RAW_OUTPUT, Hook::Output, RAW, raw_out),
            (PRE_DNAT, Hook::Prerouting, MANGLE, dnat),
        ] {
            if !rules.is_empty() {
                let base = Some(Base { hook, priority });
                chains.insert(Name::new(name), Chain { base, rules });
            }
        }
        (chains, self.closed)
    }

    /// Returns the rule that lets out what tells others that policy has denied their packets. To conntrack a reset is related
    /// to the flow that it ends.
    fn answers(&self) -> Vec<Rule> {
        let matches = vec![Match::Flow(FlowState::Related), Match::Protocol(TCP), Match::Reset];
        let pass = commented("reject", matches, Action::Verdict(Verdict::Return));
        match self.program.denial {
            Denial::Drop => Vec::new(),
            Denial::Reject => vec![pass],
        }
    }

    /// Returns the rules for all endpoints in a bucket and direction; none if nothing is judged there.
    fn hook(&mut self, bucket: Bucket, direction: Direction) -> Vec<Rule> {
        let program = self.program;
        let hooked = Hooked { bucket, direction };
        let mut rules = Vec::new();
        for endpoint in &program.hosts.endpoints {
            if let Some(id) = endpoint.policy_set(bucket, direction)
                && let Some(chain) = self.entry(endpoint, &hooked, id)
            {
                rules.extend(self.dispatch(endpoint, &hooked, &chain));
            }
        }
        if rules.is_empty() {
            return rules;
        }
        let exempt = if bucket == Bucket::Forward { Vec::new() } else { self.exempt(&hooked) };
        [discovery(), exempt, rules].concat()
    }

    /// Returns the chain of a policy set, `None` if it is open. One that cannot be rendered denies.
    fn entry(&mut self, endpoint: &HostEndpoint, hooked: &Hooked, id: PolicySetId) -> Option<Name> {
        let side = match hooked.direction {
            Direction::Ingress => Side::Ingress,
            Direction::Egress => Side::Egress,
        };
        let on_allow = match hooked.bucket {
            Bucket::Untracked => OnAllow::Untrack,
            Bucket::PreDnat => OnAllow::Mark(self.mark),
            Bucket::Forward | Bucket::Normal => OnAllow::Return,
        };
        self.policies.entry(side, on_allow, id).unwrap_or_else(|error| {
            self.closed.push((endpoint.id.clone(), error));
            Some(self.policies.closed(side))
        })
    }

    /// Returns the rules that lead the packets of an endpoint to a chain, unless its policy has already spoken.
    fn dispatch(&self, endpoint: &HostEndpoint, hooked: &Hooked, chain: &Name) -> Vec<Rule> {
        let end = match hooked.direction {
            Direction::Ingress => End::Source,
            Direction::Egress => End::Destination,
        };
        let unspoken = self.unspoken(endpoint, hooked);
        let is_forwarded_out = hooked.bucket == Bucket::Forward && end == End::Destination;
        let befores = if unspoken.is_empty() || !is_forwarded_out {
            vec![unspoken]
        } else {
            // What came in on another endpoint's interface met no policy of this one.
            let mut elsewhere = self.elsewhere(endpoint, End::Source);
            let here = self.on(endpoint, End::Source);
            elsewhere.extend(here.into_iter().map(|on| [on, unspoken.clone()].concat()));
            elsewhere
        };
        let exempts_workloads = match hooked.bucket {
            Bucket::Untracked => true,
            Bucket::Normal => hooked.direction == Direction::Egress,
            Bucket::PreDnat | Bucket::Forward => false,
        };
        let mut rules = Vec::new();
        for on in self.on(endpoint, end) {
            for before in &befores {
                let mut matches = [on.clone(), before.clone()].concat();
                if exempts_workloads && endpoint.interfaces == Interfaces::Other {
                    matches.push(not_member(Fixed::Endpoints, By::Interface, end));
                    matches.extend(unknown::looks_otherwise(&self.program.unknown, end));
                }
                let action = Action::Verdict(Verdict::Jump(chain.clone()));
                rules.push(commented("host", matches, action));
            }
        }
        rules
    }

    /// Returns what holds for packets that no earlier policy of an endpoint has allowed.
    fn unspoken(&self, endpoint: &HostEndpoint, hooked: &Hooked) -> Vec<Match> {
        let [untracked_in, untracked_out] = endpoint.untracked;
        let is_local_output =
            hooked.bucket == Bucket::Normal && hooked.direction == Direction::Egress;
        let untracked = if is_local_output { untracked_out } else { untracked_in };
        let mut matches = Vec::new();
        if hooked.bucket != Bucket::Untracked && untracked.is_some() {
            matches.push(Match::Untracked(Sense::NotIn));
        }
        let after_dnat = matches!(hooked.bucket, Bucket::Forward | Bucket::Normal);
        if after_dnat && !is_local_output && endpoint.pre_dnat.is_some() {
            matches.push(Match::Unmarked(self.mark));
        }
        matches
    }

    /// Returns the rules that drop packets of workloads that carry others.
    fn encapsulated(&self) -> Vec<Rule> {
        let denied = &self.program.hosts.settings.denied_encapsulation;
        let rules = |it| self.sent_by_workloads("encapsulated", &carried(it), &Verdict::Drop);
        denied.iter().copied().flat_map(rules).collect()
    }

    /// Returns the rules that say what becomes of packets of workloads that meet conditions, those of unknown ones too.
    fn sent_by_workloads(&self, id: &str, conditions: &[Match], verdict: &Verdict) -> Vec<Rule> {
        let known = By::ALL.map(|by| {
            let it = member(Fixed::Endpoints, by, End::Source);
            by.guard().into_iter().chain([it]).collect()
        });
        let unknown = unknown::looks(&self.program.unknown, End::Source).map(|it| vec![it]);
        let rule = |sender: Vec<Match>| {
            commented(id, [conditions, &sender].concat(), Action::Verdict(verdict.clone()))
        };
        known.into_iter().chain(unknown).map(rule).collect()
    }

    /// Returns the alternatives for packets of an endpoint's interfaces.
    fn on(&self, endpoint: &HostEndpoint, end: End) -> Vec<Vec<Match>> {
        let at = |name: &String, sense| {
            Interface::new(name).map(|name| Match::Interface { end, name, sense })
        };
        match &endpoint.interfaces {
            Interfaces::Named(names) => {
                names.iter().filter_map(|name| Some(vec![at(name, Sense::In)?])).collect()
            }
            Interfaces::Other => {
                let loopback = String::from("lo");
                let named = self.named();
                let others = named.iter().copied().chain([&loopback]);
                vec![others.filter_map(|name| at(name, Sense::NotIn)).collect()]
            }
        }
    }

    /// Returns the alternatives for packets of all other interfaces.
    fn elsewhere(&self, endpoint: &HostEndpoint, end: End) -> Vec<Vec<Match>> {
        let at = |name: &String, sense| {
            Interface::new(name).map(|name| Match::Interface { end, name, sense })
        };
        match &endpoint.interfaces {
            Interfaces::Named(names) => {
                vec![names.iter().filter_map(|name| at(name, Sense::NotIn)).collect()]
            }
            Interfaces::Other => self
                .named()
                .into_iter()
                .filter_map(|name| Some(vec![at(name, Sense::In)?]))
                .collect(),
        }
    }

    fn named(&self) -> BTreeSet<&'a String> {
        self.program.hosts.endpoints.iter().filter_map(named).flatten().collect()
    }

    /// Returns the rules for what no policy cuts.
    fn exempt(&mut self, hooked: &Hooked) -> Vec<Rule> {
        let program = self.program;
        let settings = &program.hosts.settings;
        let mut rules = self.tunnels(&settings.tunnels);
        let (ports, other) = match hooked.direction {
            Direction::Ingress => (&settings.failsafe_inbound, End::Source),
            Direction::Egress => (&settings.failsafe_outbound, End::Destination),
        };
        rules.extend(ports.iter().map(|port| self.failsafe(*port, End::Destination, other)));
        if hooked.bucket == Bucket::Untracked {
            // Nothing else knows that these are the answers of failsafe ports.
            let answered = match hooked.direction {
                Direction::Ingress => &settings.failsafe_outbound,
                Direction::Egress => &settings.failsafe_inbound,
            };
            rules.extend(answered.iter().map(|port| self.failsafe(*port, End::Source, other)));
        }
        rules
    }

    /// Returns the rules for what carries the traffic of workloads between nodes.
    fn tunnels(&mut self, tunnels: &BTreeSet<Tunnel>) -> Vec<Rule> {
        let Some(nodes) = self.program.hosts.nodes else { return Vec::new() };
        let mut rules = Vec::new();
        for family in Family::BOTH {
            if !self.policies.uses(family) {
                continue;
            }
            let Ok(set) = self.policies.exact(nodes, family) else { continue };
            let is_node = |end| Match::Member {
                fields: Fields::Address(family, end),
                set: set.clone(),
                sense: Sense::In,
            };
            for tunnel in tunnels {
                let ends =
                    vec![Match::Family(family), is_node(End::Source), is_node(End::Destination)];
                let matches = [ends, carried(*tunnel)].concat();
                rules.push(commented("tunnel", matches, Action::Verdict(Verdict::Return)));
            }
        }
        rules
    }

    /// Returns the rule that leaves a port open, at one end of the packet, for the addresses at the `other` end.
    fn failsafe(&mut self, failsafe: FailsafePort, end: End, other: End) -> Rule {
        let FailsafePort { transport, port, net } = failsafe;
        let mut matches = Vec::new();
        if let Some(net) = net {
            let set = self.policies.prefix_set(net.family(), [net].into_iter());
            let fields = Fields::Address(net.family(), other);
            matches.push(Match::Family(net.family()));
            matches.push(Match::Member { fields, set, sense: Sense::In });
        }
        matches.push(Match::Protocol(transport.protocol().number()));
        matches.push(Match::Ports { end, first: port, last: port, sense: Sense::In });
        commented("failsafe", matches, Action::Verdict(Verdict::Return))
    }
}

fn named(endpoint: &HostEndpoint) -> Option<&BTreeSet<String>> {
    match &endpoint.interfaces {
        Interfaces::Named(names) => Some(names),
        Interfaces::Other => None,
    }
}

/// Returns the conditions that a packet carries others in a way.
fn carried(tunnel: Tunnel) -> Vec<Match> {
    match tunnel {
        Tunnel::IpInIp => vec![Match::Protocol(IP_IN_IP)],
        Tunnel::Udp(port) => {
            let to =
                Match::Ports { end: End::Destination, first: port, last: port, sense: Sense::In };
            vec![Match::Protocol(UDP), to]
        }
    }
}
