//! Host endpoints as chains.
//!
//! | chain | where | what it has |
//! |---|---|---|
//! | `NP-HOST-IN`, `NP-HOST-OUT` | below `NP-IN` and `NP-OUT`; always there | traffic of the host's processes |
//! | `NP-HOST-FWD` | below `NP-FWD`; always there | what the host forwards |
//! | `NP-ENCAP` | below `NP-IN` and `NP-FWD`; always there | what no workload may send |
//! | `NP-RAW-IN`, `NP-RAW-OUT` | `PREROUTING` and `OUTPUT` of `raw`, only if a policy judges untracked packets | each packet |
//! | `NP-DNAT` | `PREROUTING` of `mangle`, only if a policy judges before destination NAT | the first packet of each flow |
//!
//! All but `NP-ENCAP` and `NP-DNAT` are lists of endpoints, which tell what workloads send and receive from the rest: that goes on to
//! `NP-HOST-IN-POL`, `NP-HOST-OUT-POL`, `NP-HOST-FWD-FROM` and `NP-HOST-FWD-TO`, `NP-RAW-IN-POL`, `NP-RAW-OUT-POL`. Those have
//! what no policy cuts, and then lead the packets of each interface to the chains of policy.
//!
//! A rule that allows an untracked packet goes to `NP-UNTRACK`, which makes conntrack leave it alone. One that allows before
//! destination NAT goes to `NP-MARK`. By that the chains that come later know that the endpoint's policy has spoken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netpol_core::model::{Bucket, EndpointId, FailsafePort, Tunnel, WorkloadToHost};
use netpol_core::net::{Family, Transport};
use netpol_core::program::{Denial, HostEndpoint, Interfaces, PolicySetId};
use netpol_core::{Direction, Program};

use super::base::{ICMP, ICMPV6, LEVELS, commented, genuine_discovery, goto_rule, jump};
use super::policy::{OnAllow, PolicyRenderer, TCP};
use super::tree::{Forest, List};
use super::{Context, keys, unknown};
use crate::error::IptablesError;
use crate::name::{Fixed, Name, Side};
use crate::probe::{KernelTable, TableId};
use crate::ruleset::{
    Action, Bits, Chain, End, Fields, FlowState, Interface, Key, KeyPrefix, Match, Rule, Sense,
    Verdict,
};

/// UDP and IP in IP as protocol numbers (IANA).
const UDP: u8 = 17;
const IP_IN_IP: u8 = 4;

/// The chains of tables.
type Tables = BTreeMap<TableId, BTreeMap<Name, Chain>>;

/// Endpoints that are closed, and why.
type Closed = Vec<(EndpointId, Arc<IptablesError>)>;

/// Returns the tables that the host endpoints of a program need beside the one of all endpoints.
pub(crate) fn tables_of_hosts(program: &Program) -> BTreeSet<KernelTable> {
    let hosts = program.hosts.endpoints.iter();
    let needed = hosts.flat_map(|host| {
        let untracked = host.untracked.iter().any(Option::is_some).then_some(KernelTable::Raw);
        let before_nat = host.pre_dnat.is_some().then_some(KernelTable::Mangle);
        [untracked, before_nat].into_iter().flatten()
    });
    needed.collect()
}

/// Checks that the host endpoints of a program can be told apart and judged at all.
///
/// # Errors
///
/// [`IptablesError`] if no chain could close them either.
pub(crate) fn check_hosts(
    program: &Program,
    table: KernelTable,
    mark: u32,
) -> Result<(), IptablesError> {
    let hosts = &program.hosts.endpoints;
    if table != KernelTable::Filter && !hosts.is_empty() {
        return Err(IptablesError::NeedsFilter);
    }
    if mark == 0 && hosts.iter().any(|host| host.pre_dnat.is_some()) {
        return Err(IptablesError::NoMark);
    }
    let mut names = hosts.iter().flat_map(named);
    match names.find(|name| Interface::new(name).is_none()) {
        Some(name) => Err(IptablesError::Interface { interface: name.clone() }),
        None => Ok(()),
    }
}

/// Renders the host endpoints of a program.
pub(super) struct HostRenderer<'r, 'a> {
    program: &'a Program,
    policies: &'r mut PolicyRenderer<'a>,
    context: Context<'a>,
    tables: Tables,
    closed: BTreeMap<EndpointId, Arc<IptablesError>>,
}

/// Which traffic is judged.
#[derive(Clone, Copy)]
struct Hooked {
    bucket: Bucket,
    direction: Direction,
    family: Family,
}

impl Hooked {
    /// Returns the end of a packet where the interface of the host endpoint is.
    fn end(self) -> End {
        match self.direction {
            Direction::Ingress => End::Source,
            Direction::Egress => End::Destination,
        }
    }
}

impl<'r, 'a> HostRenderer<'r, 'a> {
    pub(super) fn new(
        program: &'a Program,
        policies: &'r mut PolicyRenderer<'a>,
        context: Context<'a>,
    ) -> Self {
        Self { program, policies, context, tables: Tables::new(), closed: BTreeMap::new() }
    }

    /// Returns the chains, and the endpoints that are closed because theirs could not be rendered.
    pub(super) fn chains(mut self) -> (Tables, Closed) {
        for &family in self.context.families {
            self.input(family);
            self.output(family);
            self.forward(family);
            self.encapsulated(family);
            self.untracked(family);
            self.before_nat(family);
        }
        (self.tables, self.closed.into_iter().collect())
    }

    fn input(&mut self, family: Family) {
        let rules = self.judge(Bucket::Normal, Direction::Ingress, family);
        let verdict = match self.program.hosts.settings.workload_to_host {
            WorkloadToHost::Deny => Some(Verdict::Drop),
            WorkloadToHost::Allow => (!rules.is_empty()).then_some(Verdict::Return),
            WorkloadToHost::Judge => None,
        };
        let rule = |key: Key, verdict: Verdict| {
            commented("own-host", vec![key.at(End::Source)], Action::Verdict(verdict))
        };
        let list = |verdict: Verdict| -> List {
            let keys = self.workloads(family).into_iter();
            keys.map(|key| (key, vec![rule(key, verdict.clone())])).collect()
        };
        let unknown = verdict.clone().map(|it| self.at_unknown(End::Source, "own-host", it));
        let list = verdict.map(list).unwrap_or_default();
        let onward = self.policy_chain(family, KernelTable::Filter, Fixed::HostInputPolicy, rules);
        let onward = [unknown.unwrap_or_default(), onward].concat();
        self.list(family, OnAllow::Return, Fixed::HostInput, (End::Source, list, onward));
    }

    fn output(&mut self, family: Family) {
        let mut rules = self.judge(Bucket::Normal, Direction::Egress, family);
        if !rules.is_empty() {
            rules = [established(family), self.answers(), rules].concat();
        }
        let (list, unknown) = self.exempt_workloads(End::Destination, &rules);
        let onward = self.policy_chain(family, KernelTable::Filter, Fixed::HostOutputPolicy, rules);
        let onward = [unknown, onward].concat();
        self.list(family, OnAllow::Return, Fixed::HostOutput, (End::Destination, list, onward));
    }

    /// Returns the rule that lets out what tells others that policy has denied their packets. To conntrack a reset is related
    /// to the flow that it ends.
    fn answers(&self) -> Vec<Rule> {
        let matches = vec![Match::Protocol(TCP), Match::Reset, Match::Flow(FlowState::Related)];
        let pass = commented("reject", matches, Action::Verdict(Verdict::Return));
        match self.program.denial {
            Denial::Drop => Vec::new(),
            Denial::Reject => vec![pass],
        }
    }

    fn forward(&mut self, family: Family) {
        let from = self.judge(Bucket::Forward, Direction::Ingress, family);
        let to = self.judge(Bucket::Forward, Direction::Egress, family);
        let list = if from.is_empty() && to.is_empty() { List::new() } else { self.to_itself() };
        let from = self.policy_chain(family, KernelTable::Filter, Fixed::HostForwardFrom, from);
        let to = self.policy_chain(family, KernelTable::Filter, Fixed::HostForwardTo, to);
        let onward = match to.is_empty() {
            true => from,
            false if from.is_empty() => to,
            false => [vec![jump(self.context.owner, Fixed::HostForwardFrom)], to].concat(),
        };
        self.list(family, OnAllow::Return, Fixed::HostForward, (End::Source, list, onward));
    }

    /// Packets that carry others are dropped where they come from an endpoint.
    fn encapsulated(&mut self, family: Family) {
        let drop_of_endpoints = self.context.owner.chain(Fixed::Endpoints);
        let rule = |tunnel: &Tunnel| {
            let action = Action::Verdict(Verdict::Jump(drop_of_endpoints.clone()));
            commented("encapsulated", carried(*tunnel), action)
        };
        let denied = &self.program.hosts.settings.denied_encapsulation;
        let rules = denied.iter().map(rule).collect();
        self.insert(family, self.context.table, Fixed::Encapsulated, rules);
    }

    fn untracked(&mut self, family: Family) {
        for (direction, root, policy) in [
            (Direction::Ingress, Fixed::RawInput, Fixed::RawInputPolicy),
            (Direction::Egress, Fixed::RawOutput, Fixed::RawOutputPolicy),
        ] {
            let rules = self.judge(Bucket::Untracked, direction, family);
            if rules.is_empty() {
                continue;
            }
            let end = Hooked { bucket: Bucket::Untracked, direction, family }.end();
            let (list, unknown) = self.exempt_workloads(end, &rules);
            let onward = self.policy_chain(family, KernelTable::Raw, policy, rules);
            let onward = [unknown, onward].concat();
            self.list(family, OnAllow::Untrack, root, (end, list, onward));
            let untrack = vec![commented("untrack", Vec::new(), Action::Untrack)];
            self.insert(family, KernelTable::Raw, Fixed::Untrack, untrack);
        }
    }

    fn before_nat(&mut self, family: Family) {
        let rules = self.judge(Bucket::PreDnat, Direction::Ingress, family);
        if rules.is_empty() {
            return;
        }
        let bits = self.context.mark;
        let mark = |to| vec![commented("mark", Vec::new(), Action::Mark { bits, to })];
        // What comes out of a tunnel may have the mark of the packet that carried it.
        let rules = [mark(Bits::Cleared), established(family), rules].concat();
        self.insert(family, KernelTable::Mangle, Fixed::BeforeNat, rules);
        self.insert(family, KernelTable::Mangle, Fixed::Mark, mark(Bits::Set));
    }

    /// Makes the list of endpoints whose chain is `root`, and what happens to the packets that it does not end.
    fn list(
        &mut self,
        family: Family,
        on_allow: OnAllow,
        root: Fixed,
        (end, list, onward): (End, List, Vec<Rule>),
    ) {
        let owner = self.context.owner;
        let mut forest = Forest::new(owner).with_otherwise(onward);
        let chain = forest.plant(end, LEVELS, list);
        let id = TableId { family, table: on_allow.table(self.context.table) };
        let chains = self.tables.entry(id).or_default();
        chains.extend(forest.finish());
        chains.insert(owner.chain(root), chain);
    }

    /// Makes a chain of policy, and returns what leads there: nothing if it has no rules.
    fn policy_chain(
        &mut self,
        family: Family,
        table: KernelTable,
        chain: Fixed,
        rules: Vec<Rule>,
    ) -> Vec<Rule> {
        if rules.is_empty() {
            return Vec::new();
        }
        self.insert(family, table, chain, rules);
        vec![goto_rule("next", self.context.owner, chain)]
    }

    fn insert(&mut self, family: Family, table: KernelTable, chain: Fixed, rules: Vec<Rule>) {
        let chains = self.tables.entry(TableId { family, table }).or_default();
        chains.insert(self.context.owner.chain(chain), Chain { rules });
    }

    /// Returns what all workloads are known by in a family.
    fn workloads(&self, family: Family) -> BTreeSet<Key> {
        let keys = self.program.endpoints.iter().flat_map(keys);
        keys.filter(|key| key.occurs_in(family)).collect()
    }

    /// Returns the interfaces of workloads, if a host endpoint might have them too.
    fn shared_interfaces(&self) -> BTreeSet<Interface> {
        let own = self.workloads(Family::V4).into_iter().filter_map(|key| match key {
            Key::Interface(name) => Some(name),
            Key::Address(_) => None,
        });
        let hosts = &self.program.hosts.endpoints;
        if hosts.iter().any(|host| host.interfaces == Interfaces::Other) {
            return own.collect();
        }
        let named: BTreeSet<_> = hosts.iter().flat_map(interfaces).collect();
        own.filter(|it| named.contains(it)).collect()
    }

    /// Returns what ends the packets of workloads' interfaces, if there are rules for others: the list of those that are
    /// known, and rules for the unknown.
    fn exempt_workloads(&self, end: End, rules: &[Rule]) -> (List, Vec<Rule>) {
        if rules.is_empty() {
            return Default::default();
        }
        let exempt = |name| {
            let key = Key::Interface(name);
            (key, vec![commented("workload", vec![key.at(end)], Action::Verdict(Verdict::Return))])
        };
        let known = self.shared_interfaces().into_iter().map(exempt).collect();
        (known, self.at_unknown(end, "workload", Verdict::Return))
    }

    fn at_unknown(&self, end: End, id: &str, verdict: Verdict) -> Vec<Rule> {
        let action = Action::Verdict(verdict);
        unknown::at_interfaces(&self.program.unknown, end, id, &action).collect()
    }

    /// Returns the list that ends traffic between workloads and themselves.
    fn to_itself(&self) -> List {
        let pass = |name| {
            let key = Key::Interface(name);
            let matches = vec![key.at(End::Source), key.at(End::Destination)];
            (key, vec![commented("self", matches, Action::Verdict(Verdict::Return))])
        };
        self.shared_interfaces().into_iter().map(pass).collect()
    }

    /// Returns the rules for all host endpoints in a bucket and direction; none if nothing is judged there.
    fn judge(&mut self, bucket: Bucket, direction: Direction, family: Family) -> Vec<Rule> {
        let hooked = Hooked { bucket, direction, family };
        let program = self.program;
        let mut judged = Vec::new();
        for host in &program.hosts.endpoints {
            let verdict = match host.policy_set(bucket, direction) {
                Some(id) => self.entry(host, hooked, id),
                None => Verdict::Return,
            };
            judged.push((host, verdict));
        }
        if judged.iter().all(|(_, verdict)| *verdict == Verdict::Return) {
            return Vec::new();
        }
        let is_named = |host: &HostEndpoint| host.interfaces != Interfaces::Other;
        let (named, others): (Vec<_>, Vec<_>) = judged.iter().partition(|it| is_named(it.0));
        let mut rules = self.exempt(hooked);
        for (host, verdict) in named {
            for name in interfaces(host) {
                rules.extend(self.dispatch(host, hooked, Some(name), verdict));
            }
        }
        let end = hooked.end();
        let loopback = Interface::new("lo").map(|name| Match::Interface { end, name });
        rules.push(commented("lo", loopback.into_iter().collect(), returning()));
        for (host, verdict) in others {
            rules.extend(self.dispatch(host, hooked, None, verdict));
        }
        rules
    }

    /// Returns what becomes of the packets of an endpoint. A policy set that cannot be rendered denies.
    fn entry(&mut self, host: &HostEndpoint, hooked: Hooked, id: PolicySetId) -> Verdict {
        let side = match hooked.direction {
            Direction::Ingress => Side::Ingress,
            Direction::Egress => Side::Egress,
        };
        let on_allow = match hooked.bucket {
            Bucket::Untracked => OnAllow::Untrack,
            Bucket::PreDnat => OnAllow::Mark,
            Bucket::Forward | Bucket::Normal => OnAllow::Return,
        };
        match self.policies.entries(side, on_allow, id) {
            Ok(entries) => match entries.get(&(side, hooked.family)) {
                Some(chain) => Verdict::Goto(chain.clone()),
                None => Verdict::Return,
            },
            Err(error) => {
                self.closed.entry(host.id.clone()).or_insert(error);
                Verdict::Drop
            }
        }
    }

    /// Returns the rules for the packets at one interface of an endpoint, or at all that are left: those for which its
    /// policy has already spoken return.
    fn dispatch(
        &self,
        host: &HostEndpoint,
        hooked: Hooked,
        at: Option<Interface>,
        verdict: &Verdict,
    ) -> Vec<Rule> {
        let end = hooked.end();
        let at: Vec<Match> = at.map(|name| Match::Interface { end, name }).into_iter().collect();
        let judged = |more: Option<Match>| {
            let matches = more.into_iter().chain(at.clone()).collect();
            commented("host", matches, Action::Verdict(verdict.clone()))
        };
        let spoken = self.spoken(host, hooked);
        let mut rules = Vec::new();
        if *verdict != Verdict::Return && !spoken.is_empty() {
            let is_forwarded_out = hooked.bucket == Bucket::Forward && end == End::Destination;
            let from = |name| Match::Interface { end: End::Source, name };
            // What came in on another endpoint's interface met no policy of this one.
            let mut sources: Vec<Option<Match>> = vec![None];
            if is_forwarded_out && host.interfaces == Interfaces::Other {
                let others = self.program.hosts.endpoints.iter().flat_map(interfaces);
                rules.extend(others.map(|name| judged(Some(from(name)))));
            } else if is_forwarded_out {
                sources = interfaces(host).map(|name| Some(from(name))).collect();
            }
            for (source, it) in sources.iter().flat_map(|it| spoken.iter().map(move |s| (it, s))) {
                let matches = source.iter().chain(&at).chain([it]).cloned().collect();
                rules.push(commented("spoken", matches, returning()));
            }
        }
        rules.push(judged(None));
        rules
    }

    /// Returns what tells that an earlier policy of an endpoint has allowed a packet.
    fn spoken(&self, host: &HostEndpoint, hooked: Hooked) -> Vec<Match> {
        let [untracked_in, untracked_out] = host.untracked;
        let is_sent = hooked.bucket == Bucket::Normal && hooked.direction == Direction::Egress;
        let untracked = if is_sent { untracked_out } else { untracked_in };
        let is_after_nat = matches!(hooked.bucket, Bucket::Forward | Bucket::Normal);
        let mut spoken = Vec::new();
        if hooked.bucket != Bucket::Untracked && untracked.is_some() {
            spoken.push(Match::Flow(FlowState::Untracked));
        }
        if is_after_nat && !is_sent && host.pre_dnat.is_some() {
            spoken.push(Match::Marked(self.context.mark));
        }
        spoken
    }

    /// Returns the rules for what no policy cuts.
    fn exempt(&mut self, hooked: Hooked) -> Vec<Rule> {
        let Hooked { bucket, direction, family } = hooked;
        let mut rules = match family {
            Family::V4 => Vec::new(),
            Family::V6 => genuine_discovery(),
        };
        if bucket == Bucket::Forward {
            return rules;
        }
        rules.extend(self.tunnels(family));
        let settings = &self.program.hosts.settings;
        let (open, answered, other) = match direction {
            Direction::Ingress => {
                (&settings.failsafe_inbound, &settings.failsafe_outbound, End::Source)
            }
            Direction::Egress => {
                (&settings.failsafe_outbound, &settings.failsafe_inbound, End::Destination)
            }
        };
        let rule = |port: &FailsafePort, end| failsafe(*port, family, end, other);
        rules.extend(open.iter().filter_map(|port| rule(port, End::Destination)));
        if bucket == Bucket::Untracked {
            // Nothing else knows that these are the answers of failsafe ports.
            rules.extend(answered.iter().filter_map(|port| rule(port, End::Source)));
        }
        rules
    }

    /// Returns the rules for what carries the traffic of workloads between nodes.
    fn tunnels(&mut self, family: Family) -> Vec<Rule> {
        let program = self.program;
        let Some(nodes) = program.hosts.nodes.filter(|_| self.policies.uses(family)) else {
            return Vec::new();
        };
        let tunnels = &program.hosts.settings.tunnels;
        if tunnels.is_empty() {
            return Vec::new();
        }
        let Ok(set) = self.policies.exact(nodes, family) else { return Vec::new() };
        let rule = |tunnel: &Tunnel| {
            let is_node = |end| Match::Member {
                end,
                fields: Fields::Address,
                set: set.clone(),
                sense: Sense::In,
            };
            let ends = vec![is_node(End::Source), is_node(End::Destination)];
            commented("tunnel", [carried(*tunnel), ends].concat(), returning())
        };
        tunnels.iter().map(rule).collect()
    }
}

/// Returns the conditions that a packet carries others in a way.
fn carried(tunnel: Tunnel) -> Vec<Match> {
    match tunnel {
        Tunnel::IpInIp => vec![Match::Protocol(IP_IN_IP)],
        Tunnel::Udp(port) => {
            vec![Match::Protocol(UDP), ports(Transport::Udp, End::Destination, port)]
        }
    }
}

fn named(host: &HostEndpoint) -> impl Iterator<Item = &String> {
    let names = match &host.interfaces {
        Interfaces::Named(names) => Some(names),
        Interfaces::Other => None,
    };
    names.into_iter().flatten()
}

fn interfaces(host: &HostEndpoint) -> impl Iterator<Item = Interface> {
    named(host).filter_map(|name| Interface::new(name))
}

fn returning() -> Action {
    Action::Verdict(Verdict::Return)
}

fn established(family: Family) -> Vec<Rule> {
    let icmp = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    let related = vec![Match::Protocol(icmp), Match::Flow(FlowState::Related)];
    vec![
        commented("established", vec![Match::Flow(FlowState::Established)], returning()),
        commented("related", related, returning()),
    ]
}

fn ports(transport: Transport, end: End, port: u16) -> Match {
    Match::Ports { transport, end, ranges: vec![(port, port)], sense: Sense::In }
}

/// Returns the rule that leaves a port open, at one end of the packet, for the addresses at the `other` end; `None` if
/// those are of another family.
fn failsafe(failsafe: FailsafePort, family: Family, end: End, other: End) -> Option<Rule> {
    let FailsafePort { transport, port, net } = failsafe;
    if net.is_some_and(|net| net.family() != family) {
        return None;
    }
    let number = transport.protocol().number();
    let mut matches = vec![Match::Protocol(number), ports(transport, end, port)];
    matches.extend(net.filter(|net| net.len() > 0).map(|net| Match::Under {
        end: other,
        prefix: KeyPrefix::Net(net),
        sense: Sense::In,
    }));
    Some(commented("failsafe", matches, returning()))
}
