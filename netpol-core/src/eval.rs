//! The judge: the verdict on a flow, straight from the model.
//!
//! It is naive on purpose and shares no code with the compiler or the interpreter of programs, so that agreement
//! between them means something. It answers every flow with the way that led to the verdict.

mod hosts;
mod judgement;
mod matching;
mod order;
mod services;
#[cfg(test)]
mod tests;
mod unknown;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use self::hosts::Passage;
pub use self::judgement::{Evaluation, Judgement};
use self::matching::{Sides, rule_matches};
use self::order::{Level, Owners, levels, owners, replaced};
use self::unknown::Strangers;
use crate::dataplane::{Capabilities, DestinationView};
use crate::flow::{Direction, Flow, Origin, Payload};
use crate::model::{
    Action, Bucket, Endpoint, Enforcement, HostSettings, HttpRequest, Inputs, Mode, Policy,
    PolicyKey, Rule, TierEnd, Treatment, Tunnel,
};
use crate::net::{Family, PrefixSet, Protocol, Transport};
use crate::verdict::{Explanation, Reason, RuleRef, Step, Verdict};

/// Judges flows by what the model says, for the whole cluster at once.
///
/// A connection is judged in two halves, wherever they are: egress at the endpoint that owns the source address and
/// ingress at the one that owns the destination address. That is more than one node sees: a node that enforces a
/// program leaves the egress half of a [`Forwarded`](Origin::Forwarded) flow to the node that sent it, so there the
/// two differ, and a connection between nodes passes if the judge says so. A flow of [`OwnNode`](Origin::OwnNode)
/// comes from a process of the destination's node itself, whatever its source address: its egress half has no
/// endpoint, and its ingress half is outside of policy.
///
/// An address belongs to the running endpoint that claims it and was created last; of those created in the same
/// second to the one with the greater UID, then to the one with the greater id. Finished endpoints own no address.
/// Endpoints count as subject and peer only with addresses that they own, network sets as peers only.
///
/// A half passes these in order; the first that knows an answer gives it:
///
/// 1. without an endpoint it is allowed, except [behind unknown interfaces](Self::with_unknown);
/// 2. neighbour and multicast listener discovery is allowed, except that an endpoint may not send router
///    advertisements and redirects;
/// 3. an isolated endpoint denies;
/// 4. an endpoint may not send packets that [carry others](HostSettings::denied_encapsulation);
/// 5. traffic of the endpoint's own node, then traffic between the endpoint and itself, is allowed;
/// 6. an endpoint in audit mode allows;
/// 7. the tiers, in order, of which one counts only if policies that apply to the endpoint and direction are in it;
/// 8. the endpoint's default verdict.
///
/// Cost of a flow: the subjects of all policies, and the rules of those that apply.
///
/// # Examples
///
/// ```
/// use netpol_core::eval::Judge;
/// use netpol_core::model::{Endpoint, EndpointId, Inputs, Policy, PolicyKey};
/// use netpol_core::net::Transport;
/// use netpol_core::{Capabilities, Flow, Reason, Selector, Verdict};
///
/// let mut database = Endpoint::new(EndpointId::workload("shop", "db"));
/// database.addresses = vec!["10.0.0.5".parse()?];
/// database.default_verdict = Verdict::Allow;
/// let mut closed = Policy::new(PolicyKey::kubernetes("shop", "closed"), Selector::all());
/// closed.ingress = Some(Vec::new());
///
/// let mut inputs = Inputs::default();
/// inputs.upsert(database);
/// inputs.upsert(closed.clone());
///
/// let capabilities = Capabilities::all();
/// let judge = Judge::new(&inputs, &capabilities);
/// let flow = Flow::to_port("192.0.2.1".parse()?, "10.0.0.5".parse()?, Transport::Tcp, 5432);
/// let judgement = judge.evaluate(&flow).enforced;
///
/// assert_eq!(judgement.verdict(), Verdict::Deny);
/// assert_eq!(judgement.egress.reason, Reason::NoEndpoint);
/// let asked = Reason::NoMatch { tier: "default".into(), policies: vec![closed.key] };
/// assert_eq!(judgement.ingress.reason, asked);
/// # Ok::<(), core::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Judge<'a> {
    inputs: &'a Inputs,
    capabilities: &'a Capabilities,
    settings: HostSettings,
    strangers: Strangers,
    owners: Owners<'a>,
    levels: Vec<Level<'a>>,
    /// The enforced policies that staged ones replace or remove.
    replaced: BTreeSet<PolicyKey>,
    has_staged: bool,
}

/// Which policies take part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    Enforced,
    WithStaged,
}

/// One half of a flow: who judges it, and the flow seen with the owners of its addresses.
struct Half<'a> {
    endpoint: &'a Endpoint,
    direction: Direction,
    /// [`Bucket::Normal`] for workloads.
    bucket: Bucket,
    sides: &'a Sides<'a>,
}

/// What a tier makes of a flow.
enum TierOutcome {
    Final(Verdict, Reason),
    NextTier,
}

impl<'a> Judge<'a> {
    /// Returns the judge of these inputs as a dataplane with these capabilities can enforce them: rules that it cannot
    /// express are judged as [`Rule::effective_action`] says.
    #[must_use]
    pub fn new(inputs: &'a Inputs, capabilities: &'a Capabilities) -> Self {
        let is_staged = |policy: &Policy| policy.enforcement != Enforcement::Enforced;
        Self {
            inputs,
            capabilities,
            settings: HostSettings::default(),
            strangers: Strangers::default(),
            owners: owners(inputs),
            levels: levels(inputs),
            replaced: replaced(inputs),
            has_staged: inputs.policies().any(is_staged),
        }
    }

    /// Returns the same judge for hosts with other settings than the usual ones.
    #[must_use]
    pub fn with_settings(self, settings: HostSettings) -> Self {
        Self { settings, ..self }
    }

    /// Returns the same judge of a cluster where whoever has one of these addresses, and is neither a known endpoint nor a
    /// node, is behind an interface that looks like that of a workload and belongs to none. The judge sees no interfaces, so
    /// the caller has to say. Policy of host endpoints is asked about such flows as about those from outside of the cluster.
    #[must_use]
    pub fn with_unknown(self, addresses: PrefixSet, treatment: Treatment) -> Self {
        Self { strangers: Strangers { addresses, treatment }, ..self }
    }

    /// Returns the judgement on a new flow, and what it would be if staged policies were enforced.
    ///
    /// Rules about HTTP requests match a connection that may carry such a request, if something behind the dataplane
    /// [judges them](Capabilities::http); otherwise the dataplane cannot express them.
    #[must_use]
    pub fn evaluate(&self, flow: &Flow) -> Evaluation {
        self.evaluate_any(flow, flow, None)
    }

    /// Returns the judgement on a new flow that destination NAT made out of another. A dataplane that judges egress
    /// [before](DestinationView::BeforeDestinationNat) that is asked about the other one there: if it goes to a Service, all
    /// backends must be allowed.
    #[must_use]
    pub fn evaluate_translated(&self, flow: &Flow, before_nat: &Flow) -> Evaluation {
        self.evaluate_any(flow, before_nat, None)
    }

    /// Returns the judgement on an HTTP request that a flow carries, and what it would be if staged policies were
    /// enforced.
    #[must_use]
    pub fn evaluate_request(&self, flow: &Flow, request: &HttpRequest) -> Evaluation {
        self.evaluate_any(flow, flow, Some(request))
    }

    fn evaluate_any(
        &self,
        flow: &Flow,
        before_nat: &Flow,
        request: Option<&HttpRequest>,
    ) -> Evaluation {
        let sides = Sides::new(self.inputs, &self.owners, flow, request);
        let before_nat = Sides::new(self.inputs, &self.owners, before_nat, request);
        let passage = Passage { sides: &sides, before_nat: &before_nat };
        let enforced = self.judge(&passage, Scope::Enforced);
        let pending = if self.has_staged {
            self.judge(&passage, Scope::WithStaged)
        } else {
            enforced.clone()
        };
        Evaluation { enforced, pending }
    }

    fn judge(&self, passage: &Passage<'_>, scope: Scope) -> Judgement {
        let sides = passage.sides;
        let source = match sides.flow.origin {
            Origin::Endpoint | Origin::Forwarded => sides.source.owner,
            Origin::OwnNode => None,
        };
        let destination = sides.destination.owner;
        let leaving = match self.capabilities.destination_view {
            DestinationView::AfterDestinationNat => sides,
            DestinationView::BeforeDestinationNat => passage.before_nat,
        };
        let mut egress = match sides.flow.origin {
            Origin::OwnNode => Explanation::at_once(Verdict::Allow, Reason::NoEndpoint),
            _ => self.judge_half(source, Direction::Egress, leaving, scope),
        };
        let is_discovery = egress.reason == Reason::NeighbourDiscovery;
        if egress.verdict == Verdict::Allow && !is_discovery && self.denies_own_host(sides) {
            egress = Explanation { verdict: Verdict::Deny, reason: Reason::OwnHost, ..egress };
        }
        Judgement {
            source: source.map(|endpoint| endpoint.id.clone()),
            egress,
            destination: destination.map(|endpoint| endpoint.id.clone()),
            ingress: self.judge_half(destination, Direction::Ingress, sides, scope),
            hosts: self.judge_hosts(passage, scope),
        }
    }

    fn judge_half(
        &self,
        endpoint: Option<&Endpoint>,
        direction: Direction,
        sides: &Sides<'_>,
        scope: Scope,
    ) -> Explanation {
        let Some(endpoint) = endpoint else {
            return self.judge_stranger(direction, sides);
        };
        let half = Half { endpoint, direction, bucket: Bucket::Normal, sides };
        half.outside_of_policy(&self.settings).unwrap_or_else(|| match self.backends(&half) {
            Some(backends) if self.is_governed(&half, scope) => {
                self.ask_about_all(&backends, &half, scope)
            }
            _ => self.ask_tiers(&half, scope),
        })
    }

    fn ask_tiers(&self, half: &Half<'_>, scope: Scope) -> Explanation {
        let mut steps = Vec::new();
        for level in &self.levels {
            let policies = self.applicable(level, half, scope);
            if policies.is_empty() {
                continue;
            }
            match self.ask_tier(level, &policies, half, &mut steps) {
                TierOutcome::Final(verdict, reason) => {
                    return Explanation { verdict, reason, steps };
                }
                TierOutcome::NextTier => {}
            }
        }
        Explanation {
            verdict: match half.bucket {
                Bucket::Normal => half.endpoint.default_verdict,
                Bucket::Untracked | Bucket::PreDnat | Bucket::Forward => Verdict::Allow,
            },
            reason: Reason::DefaultVerdict,
            steps,
        }
    }

    /// Returns the policies of a tier that apply to an endpoint and direction, in the order in which they are asked.
    fn applicable(&self, level: &Level<'a>, half: &Half<'_>, scope: Scope) -> Vec<&'a Policy> {
        let labels = self.inputs.labels_of(half.endpoint);
        let applies = |policy: &&Policy| {
            self.takes_part(policy, scope)
                && policy.host_traffic.is_in(half.bucket)
                && policy.rules(half.direction).is_some()
                && policy.subject.matches(&labels)
        };
        level.policies.iter().copied().filter(applies).collect()
    }

    fn takes_part(&self, policy: &Policy, scope: Scope) -> bool {
        match (policy.enforcement, scope) {
            (Enforcement::Enforced, Scope::Enforced) | (Enforcement::Staged, Scope::WithStaged) => {
                true
            }
            (Enforcement::Enforced, Scope::WithStaged) => !self.replaced.contains(&policy.key),
            (Enforcement::Staged, Scope::Enforced) | (Enforcement::StagedRemoval, _) => false,
        }
    }

    fn ask_tier(
        &self,
        level: &Level<'_>,
        policies: &[&Policy],
        half: &Half<'_>,
        steps: &mut Vec<Step>,
    ) -> TierOutcome {
        for policy in policies {
            for rule in policy.rules(half.direction).unwrap_or_default() {
                if !rule_matches(&rule.matches, half.sides, half.endpoint) {
                    continue;
                }
                if let Some(outcome) = self.follow(half.rule_ref(policy, rule), rule, half, steps) {
                    return outcome;
                }
            }
        }
        let tier = level.tier.name.clone();
        let end = match half.bucket {
            Bucket::Untracked | Bucket::PreDnat => TierEnd::Pass,
            Bucket::Forward | Bucket::Normal => level.tier.end,
        };
        match end {
            TierEnd::Deny => {
                let policies = policies.iter().map(|policy| policy.key.clone()).collect();
                TierOutcome::Final(Verdict::Deny, Reason::NoMatch { tier, policies })
            }
            TierEnd::Pass => {
                note(steps, Some(Step::TierEnded { tier }));
                TierOutcome::NextTier
            }
        }
    }
}

impl Judge<'_> {
    /// Does what a rule that matches says; `None` if the next one is to be asked.
    fn follow(
        &self,
        origin: RuleRef,
        rule: &Rule,
        half: &Half<'_>,
        steps: &mut Vec<Step>,
    ) -> Option<TierOutcome> {
        let shortfall = rule.shortfall(self.capabilities);
        let Some(action) = rule.effective_action(self.capabilities) else {
            note(steps, shortfall.map(|why| Step::LeftOut(origin, why)));
            return None;
        };
        note(steps, shortfall.map(|why| Step::Tightened(origin.clone(), why)));
        match action {
            Action::Log => {
                note(steps, Some(Step::Logged(origin)));
                None
            }
            Action::Allow => {
                let is_open = rule.matches.http.is_some() && half.sides.request.is_none();
                note(steps, is_open.then(|| Step::Connection(origin.clone())));
                Some(TierOutcome::Final(Verdict::Allow, Reason::Rule(origin)))
            }
            Action::Deny => Some(TierOutcome::Final(Verdict::Deny, Reason::Rule(origin))),
            Action::Pass => {
                note(steps, Some(Step::Passed(origin)));
                Some(TierOutcome::NextTier)
            }
        }
    }
}

impl Half<'_> {
    /// Answers what no policy has a say in.
    fn outside_of_policy(&self, settings: &HostSettings) -> Option<Explanation> {
        let at_once = |verdict, reason| Some(Explanation::at_once(verdict, reason));
        let flow = &self.sides.flow;
        if is_discovery(flow) {
            return at_once(Verdict::Allow, Reason::NeighbourDiscovery);
        }
        if is_router_message(flow) {
            return match self.direction {
                Direction::Ingress => at_once(Verdict::Allow, Reason::NeighbourDiscovery),
                Direction::Egress => at_once(Verdict::Deny, Reason::RouterMessage),
            };
        }
        if self.endpoint.mode == Mode::Isolate {
            return at_once(Verdict::Deny, Reason::Isolated);
        }
        if self.direction == Direction::Egress && carries(flow, &settings.denied_encapsulation) {
            return at_once(Verdict::Deny, Reason::Encapsulated);
        }
        if flow.origin == Origin::OwnNode {
            return at_once(Verdict::Allow, Reason::OwnNode);
        }
        if self.remote_owner().is_some_and(|remote| remote.id == self.endpoint.id) {
            return at_once(Verdict::Allow, Reason::SameEndpoint);
        }
        if self.endpoint.mode == Mode::Audit {
            return at_once(Verdict::Allow, Reason::Audited);
        }
        None
    }

    fn remote_owner(&self) -> Option<&Endpoint> {
        match self.direction {
            Direction::Ingress => self.sides.source.owner,
            Direction::Egress => self.sides.destination.owner,
        }
    }

    fn rule_ref(&self, policy: &Policy, rule: &Rule) -> RuleRef {
        RuleRef {
            policy: policy.key.clone(),
            direction: self.direction,
            index: rule.index,
            name: rule.name.clone(),
        }
    }
}

/// Appends a step, if there is one, once for all the rules of the model that come from one wire rule.
fn note(steps: &mut Vec<Step>, step: Option<Step>) {
    if step.is_some() && steps.last() != step.as_ref() {
        steps.extend(step);
    }
}

/// Returns whether the flow is a message that hosts need to talk at all: listener query, report and done (RFC 2710),
/// router solicitation, neighbour solicitation and advertisement (RFC 4861), listener report version 2 (RFC 3810).
fn is_discovery(flow: &Flow) -> bool {
    matches!(icmpv6_type(flow), Some(130 | 131 | 132 | 133 | 135 | 136 | 143))
}

/// Returns whether the flow is a message that only routers send: router advertisement or redirect (RFC 4861).
fn is_router_message(flow: &Flow) -> bool {
    matches!(icmpv6_type(flow), Some(134 | 137))
}

/// Returns whether the flow is of packets that carry others in one of these ways.
fn carries(flow: &Flow, tunnels: &BTreeSet<Tunnel>) -> bool {
    tunnels.iter().any(|tunnel| match (*tunnel, flow.payload) {
        (Tunnel::IpInIp, Payload::Other(protocol)) => protocol == Protocol::new(4),
        (Tunnel::Udp(port), Payload::Ports { transport: Transport::Udp, destination, .. }) => {
            port == destination
        }
        _ => false,
    })
}

fn icmpv6_type(flow: &Flow) -> Option<u8> {
    match (flow.payload, flow.family()) {
        (Payload::Icmp { kind, .. }, Family::V6) => Some(kind),
        _ => None,
    }
}
