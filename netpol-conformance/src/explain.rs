//! Explanations for people: what the judge says of a flow, one step per line, in the words of whoever wrote the policies.

use std::fmt::{self, Write};

use netpol_core::eval::{Evaluation, Judgement};
use netpol_core::model::{EndpointId, Inputs, PolicyKey, PolicyKind};
use netpol_core::{Direction, Explanation, HostJudgement, Packet, Reason, RuleRef, Step, Verdict};

/// Returns what the judge of these inputs says: the verdict, and each half with the tiers on its way, then the host
/// endpoints that the flow passes. Where staged policies would change something, what would be with them. Each line ends.
///
/// ```text
/// deny
///   egress of shop/web: allow
///     no policy applies; default verdict of the endpoint
///   ingress of shop/db: deny
///     tier `audit`
///       logged by GlobalNetworkPolicy watch, ingress[0]
///       passed on by GlobalNetworkPolicy watch, ingress[1]
///     tier `default`
///       no rule matched, and the tier denies at its end; asked:
///         NetworkPolicy shop/db-test (networking.k8s.io)
///         NetworkPolicy shop/default-deny (networking.k8s.io), without rules
/// ```
#[must_use]
pub fn explain(evaluation: &Evaluation, inputs: &Inputs) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = Writer { inputs, out: &mut text }.evaluation(evaluation);
    text
}

/// Returns why a flow passes or does not, of those halves and host endpoints that judged: those that deny, or all if all
/// allow. No line end follows.
#[must_use]
pub fn reasons(
    egress: Option<&Explanation>,
    ingress: Option<&Explanation>,
    hosts: &[HostJudgement],
    inputs: &Inputs,
) -> String {
    let half = |direction, explanation: Option<_>| {
        explanation.map(|explanation| Half::of_workload(direction, None, explanation))
    };
    let halves = [half(Direction::Egress, egress), half(Direction::Ingress, ingress)];
    let halves: Vec<_> =
        halves.into_iter().flatten().chain(hosts.iter().map(Half::of_host)).collect();
    let denies = |half: &Half<'_>| half.explanation.verdict == Verdict::Deny;
    let is_denied = halves.iter().any(denies);
    let mut text = String::new();
    for half in halves.iter().filter(|half| !is_denied || denies(half)) {
        // Writing to a string cannot fail.
        let _ = Writer { inputs, out: &mut text }.half(half, 0);
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns a policy by the names in its manifest. Two APIs have a NetworkPolicy: of that kind, the group is told, too.
pub fn policy(key: &PolicyKey) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let (kind, group) = match key.kind {
            PolicyKind::KubernetesNetworkPolicy => ("NetworkPolicy", Some("networking.k8s.io")),
            PolicyKind::NetworkPolicy => ("NetworkPolicy", Some("projectcalico.org")),
            PolicyKind::KubernetesClusterNetworkPolicy => ("ClusterNetworkPolicy", None),
            PolicyKind::KubernetesAdminNetworkPolicy => ("AdminNetworkPolicy", None),
            PolicyKind::KubernetesBaselineAdminNetworkPolicy => {
                ("BaselineAdminNetworkPolicy", None)
            }
            other => (other.as_str(), None),
        };
        let namespace = key.namespace.as_ref().map_or_else(String::new, |it| format!("{it}/"));
        write!(f, "{kind} {namespace}{}", key.name)?;
        group.map_or(Ok(()), |group| write!(f, " ({group})"))
    })
}

/// One half of a judgement, or what a host endpoint says.
struct Half<'a> {
    title: String,
    direction: Direction,
    explanation: &'a Explanation,
}

fn halves(judgement: &Judgement) -> Vec<Half<'_>> {
    let Judgement { source, egress, destination, ingress, hosts, .. } = judgement;
    let halves = [
        Half::of_workload(Direction::Egress, source.as_ref(), egress),
        Half::of_workload(Direction::Ingress, destination.as_ref(), ingress),
    ];
    halves.into_iter().chain(hosts.iter().map(Half::of_host)).collect()
}

struct Writer<'a> {
    inputs: &'a Inputs,
    out: &'a mut String,
}

impl Writer<'_> {
    fn evaluation(&mut self, evaluation: &Evaluation) -> fmt::Result {
        let Evaluation { enforced, pending, .. } = evaluation;
        self.line(0, enforced.verdict())?;
        for half in halves(enforced) {
            self.half(&half, 1)?;
        }
        if pending == enforced {
            return Ok(());
        }
        self.line(0, format_args!("with staged policies: {}", pending.verdict()))?;
        let enforced = halves(enforced);
        for half in halves(pending) {
            let is_same =
                |it: &Half<'_>| (&it.title, it.explanation) == (&half.title, half.explanation);
            if enforced.iter().any(is_same) {
                let verdict = half.explanation.verdict;
                self.line(1, format_args!("{}: {verdict}, as without them", half.title))?;
            } else {
                self.half(&half, 1)?;
            }
        }
        Ok(())
    }

    fn half(&mut self, half: &Half<'_>, depth: usize) -> fmt::Result {
        let Explanation { verdict, reason, steps } = half.explanation;
        self.line(depth, format_args!("{}: {verdict}", half.title))?;
        let mut tier = None;
        for step in steps {
            self.tier(&mut tier, self.tier_of_step(step), depth + 1)?;
            self.line(depth + 2, said(step))?;
        }
        match reason {
            Reason::Rule(rule) => {
                self.tier(&mut tier, self.tier_of(rule), depth + 1)?;
                let word = match verdict {
                    Verdict::Allow => "allowed",
                    Verdict::Deny => "denied",
                };
                self.line(depth + 2, format_args!("{word} by {}", named(rule)))
            }
            Reason::NoMatch { tier: name, policies } => {
                self.tier(&mut tier, Some(name.clone()), depth + 1)?;
                self.line(depth + 2, "no rule matched, and the tier denies at its end; asked:")?;
                policies.iter().try_for_each(|key| {
                    let rules = self.rules_of(key, half.direction);
                    self.line(depth + 3, format_args!("{}{rules}", policy(key)))
                })
            }
            Reason::DefaultVerdict if !steps.is_empty() => {
                self.line(depth + 1, "no policy decides; default verdict of the endpoint")
            }
            other => self.line(depth + 1, other),
        }
    }

    /// Begins a tier, unless its lines are under way.
    fn tier(
        &mut self,
        current: &mut Option<String>,
        name: Option<String>,
        depth: usize,
    ) -> fmt::Result {
        if name == *current {
            return Ok(());
        }
        *current = name;
        current.as_ref().map_or(Ok(()), |name| self.line(depth, format_args!("tier `{name}`")))
    }

    fn tier_of_step(&self, step: &Step) -> Option<String> {
        match step {
            Step::TierEnded { tier } => Some(tier.clone()),
            Step::Logged(rule)
            | Step::Passed(rule)
            | Step::LeftOut(rule, _)
            | Step::Tightened(rule, _)
            | Step::Connection(rule) => self.tier_of(rule),
            _ => None,
        }
    }

    fn tier_of(&self, rule: &RuleRef) -> Option<String> {
        self.inputs.policy(&rule.policy).map(|policy| policy.tier.clone())
    }

    /// Says so if a policy has no rules in one direction.
    fn rules_of(&self, key: &PolicyKey, direction: Direction) -> &'static str {
        let rules = self.inputs.policy(key).and_then(|it| it.rules(direction));
        if rules.is_some_and(<[_]>::is_empty) { ", without rules" } else { "" }
    }

    fn line(&mut self, depth: usize, text: impl fmt::Display) -> fmt::Result {
        writeln!(self.out, "{:indent$}{text}", "", indent = 2 * depth)
    }
}

impl<'a> Half<'a> {
    fn of_workload(
        direction: Direction,
        endpoint: Option<&EndpointId>,
        explanation: &'a Explanation,
    ) -> Self {
        let of = endpoint.map_or_else(String::new, |endpoint| format!(" of {endpoint}"));
        Self { title: format!("{direction}{of}"), direction, explanation }
    }

    fn of_host(said: &'a HostJudgement) -> Self {
        let HostJudgement { endpoint, bucket, direction, packet, explanation, .. } = said;
        let reply = match packet {
            Packet::Request => "",
            Packet::Reply => " (the reply)",
        };
        let title = format!("{bucket} {direction} of {endpoint}{reply}");
        Self { title, direction: *direction, explanation }
    }
}

/// Returns what happened in a step, without the tier in which it did.
fn said(step: &Step) -> String {
    match step {
        Step::Logged(rule) => format!("logged by {}", named(rule)),
        Step::Passed(rule) => format!("passed on by {}", named(rule)),
        Step::LeftOut(rule, why) => format!("left out {}: {why}", named(rule)),
        Step::Tightened(rule, why) => {
            format!("{} denies whatever it may mean: {why}", named(rule))
        }
        Step::Connection(rule) => {
            format!("{} is about HTTP requests, which are judged one by one", named(rule))
        }
        Step::TierEnded { .. } => "no rule matched; the tier passes at its end".to_owned(),
        other => other.to_string(),
    }
}

fn named(rule: &RuleRef) -> impl fmt::Display + '_ {
    fmt::from_fn(|f| write!(f, "{}, {}", policy(&rule.policy), rule.place()))
}

#[cfg(test)]
mod tests;
