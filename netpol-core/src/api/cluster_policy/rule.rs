//! Rules.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::super::Strictness;
use super::super::field::{Extra, Field, List};
use super::super::pods::Pods;
use super::super::report::{Path, Report};
use super::super::rules::{degraded, product};
use super::peer::{Peer, PeerReader, RulePeers};
use super::port::{Port, Protocol, RulePorts, read_ports, read_protocols};
use super::{Dialect, MAX_NAME, alternatives};
use crate::flow::Direction;
use crate::model::{Action, Rule, RuleMatch};

/// A rule of any of the policies, in either direction.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(in super::super) struct WireRule {
    name: Field<String>,
    action: Field<String>,
    from: List<Peer>,
    to: List<Peer>,
    protocols: List<Protocol>,
    ports: List<Port>,
    #[serde(flatten)]
    extra: Extra,
}

/// Reads rules one by one, so that each can be degraded on its own.
pub(in super::super) struct RuleReader<'a> {
    pub(in super::super) dialect: Dialect,
    pub(in super::super) pods: &'a Pods,
    pub(in super::super) strictness: Strictness,
    pub(in super::super) report: &'a mut Report,
}

/// A rule as far as it could be read.
struct Read {
    action: Action,
    name: Option<String>,
    matches: Vec<RuleMatch>,
}

impl RuleReader<'_> {
    /// Reads the rules of a direction; `None` if there are none: then the policy says nothing about the direction.
    ///
    /// A rule with something unreadable in it fails closed as a whole: nobody knows how much it was to cover. If it
    /// allows, it matches nothing; otherwise it denies everything.
    pub(in super::super) fn read(
        &mut self,
        at: &Path<'_>,
        direction: Direction,
        rules: &List<WireRule>,
    ) -> Option<Vec<Rule>> {
        let rules = self.report.given(at, rules)?;
        if !self.report.is_at_most(self.dialect.max_items(), at, rules.len()) {
            return None;
        }
        let mut converted = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let at = at.item(index);
            let mut report = Report::default();
            let read = self.read_rule(&at, direction, rule, &mut report);
            let is_degraded = self.report.absorb_rule(report, self.strictness);
            let Some(Read { action, name, matches }) = read else {
                continue;
            };
            let rules = if is_degraded {
                [degraded(index, action)].into()
            } else {
                matches.into_iter().map(|it| Rule::new(index, action, it)).collect::<Vec<_>>()
            };
            converted.extend(rules.into_iter().map(|rule| Rule { name: name.clone(), ..rule }));
        }
        (!converted.is_empty()).then_some(converted)
    }

    /// Returns nothing if the policy is refused: a rule without a known action cannot be degraded.
    fn read_rule(
        &self,
        at: &Path<'_>,
        direction: Direction,
        rule: &Field<WireRule>,
        report: &mut Report,
    ) -> Option<Read> {
        let rule = match rule {
            Field::Given(rule) => rule,
            Field::Absent => {
                report.refuse_object(at, "missing, expected an object");
                return None;
            }
            Field::Malformed(message) => {
                report.refuse_object(at, message);
                return None;
            }
        };
        let WireRule { name, action, from, to, protocols, ports, extra } = rule;
        report.unknown_fields(Some(at), extra);
        let name = read_name(&at.field("name"), name, report);
        let action = self.read_action(&at.field("action"), action, report);
        let ((side, peers), (other_side, others)) = match direction {
            Direction::Ingress => (("from", from), ("to", to)),
            Direction::Egress => (("to", to), ("from", from)),
        };
        if others.is_written() {
            report.refuse(&at.field(other_side), "unknown field");
        }
        let peers_at = at.field(side);
        let reader = PeerReader { dialect: self.dialect, direction, pods: self.pods };
        let peers = reader.read(&peers_at, peers, report);
        let ports = self.read_ports(at, protocols, ports, report);
        check_together(&peers_at, action, &peers, &ports, report);
        let matches = product(direction, &peers.matches(), &ports.ports.matches());
        Some(Read { action: action?, name, matches })
    }

    fn read_action(
        &self,
        at: &Path<'_>,
        action: &Field<String>,
        report: &mut Report,
    ) -> Option<Action> {
        let actions = self.dialect.actions();
        let expected = alternatives(actions.iter().map(|(name, _)| *name));
        let text = match action {
            Field::Given(text) => text,
            Field::Absent => {
                report.refuse_object(at, format!("missing, expected {expected}"));
                return None;
            }
            Field::Malformed(message) => {
                report.refuse_object(at, message);
                return None;
            }
        };
        let known = actions.iter().find(|(name, _)| name == text);
        if known.is_none() {
            report.refuse_object(at, format!("`{text}` is not an action, expected {expected}"));
        }
        known.map(|&(_, action)| action)
    }

    fn read_ports(
        &self,
        at: &Path<'_>,
        protocols: &List<Protocol>,
        ports: &List<Port>,
        report: &mut Report,
    ) -> RulePorts {
        let (protocols_at, ports_at) = (at.field("protocols"), at.field("ports"));
        match self.dialect {
            Dialect::Cluster => {
                if ports.is_written() {
                    report.refuse(&ports_at, "unknown field");
                }
                read_protocols(&protocols_at, protocols, self.strictness, report)
            }
            Dialect::Admin | Dialect::Baseline => {
                if protocols.is_written() {
                    report.refuse(&protocols_at, "unknown field");
                }
                read_ports(&ports_at, ports, report)
            }
        }
    }
}

fn read_name(at: &Path<'_>, name: &Field<String>, report: &mut Report) -> Option<String> {
    let name = report.given(at, name).filter(|name| !name.is_empty())?;
    let len = name.chars().count();
    if len > MAX_NAME {
        report.refuse(at, format!("{len} characters, expected at most {MAX_NAME}"));
        return None;
    }
    Some(name.clone())
}

/// Checks what no field says by itself.
///
/// Source: the validation expressions on `EgressRule`, and for domain names the text of `DomainNames`, in `apis` of
/// network-policy-api.
fn check_together(
    at: &Path<'_>,
    action: Option<Action>,
    peers: &RulePeers,
    ports: &RulePorts,
    report: &mut Report,
) {
    if ports.has_names && peers.has_addresses() {
        report.refuse(
            at,
            "`networks`, `nodes` or `domainNames` in a rule with a named port, expected `namespaces` or `pods`, \
             which can have one",
        );
    }
    if peers.has_domain_names() && action.is_some_and(|it| it != Action::Allow) {
        report.refuse(
            at,
            "`domainNames` in a rule that does not allow, which only rules that allow can have",
        );
    }
}
