//! Rules in terms of the features of remote addresses.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::features::{FeatureId, Features};
use super::super::line::{ALL, Range, Ranges, difference, of_ports, union};
use super::super::pool::Pool;
use crate::model::{Action, L4Match, PortConstraint};
use crate::net::{Family, IcmpMatch, Protocol, Transport};
use crate::program::{Address, Ports, Program, Rule};

/// A rule that can match something.
#[derive(Debug)]
pub(in super::super) struct RulePlan<'p> {
    /// Its number in the pool.
    pub(in super::super) number: u32,
    pub(in super::super) action: Action,
    /// Whether it can match IPv4, and IPv6.
    families: [bool; 2],
    /// The questions to which the remote address must answer yes.
    all_of: Vec<FeatureId>,
    /// The questions to which it must answer no.
    none_of: Vec<FeatureId>,
    l4: L4Plan<'p>,
}

/// What a rule asks of protocol and ports.
#[derive(Debug)]
enum L4Plan<'p> {
    Any,
    Is(Protocol),
    IsNot(&'p BTreeSet<Protocol>),
    Ports { transport: Transport, source: PortPlan, destination: PortPlan },
    Icmp { family: Family, messages: Vec<Range> },
}

/// What a rule asks of one port.
#[derive(Debug)]
enum PortPlan {
    /// The same for every class.
    Fixed(Vec<Range>),
    /// Classes contribute ports under names.
    ByClass { any_of: Option<Listed>, none_of: Option<Listed> },
}

/// A list of ports: numbers, and ports that count for classes with a feature.
#[derive(Debug)]
struct Listed {
    numbers: Vec<Range>,
    named: Vec<(u16, FeatureId)>,
}

/// What a rule covers of the flows with a class.
#[derive(Debug)]
pub(in super::super) enum Cover<'a> {
    Any,
    Is(Protocol),
    IsNot(&'a BTreeSet<Protocol>),
    Ports { transport: Transport, source: Ranges<'a>, destination: Ranges<'a> },
    Icmp { messages: &'a [Range] },
}

impl<'p> RulePlan<'p> {
    /// Returns the plan of a rule in these families, `None` if it can match nothing.
    pub(super) fn of(
        program: &Program,
        rule: &'p Arc<Rule>,
        families: [bool; 2],
        features: &mut Features,
        pool: &mut Pool,
    ) -> Option<Self> {
        let Address { in_set, not_in_set, nets, not_nets } = &rule.remote;
        let mut all_of = Vec::new();
        let mut none_of = Vec::new();
        if let Some(id) = in_set {
            all_of.push(features.set(program, *id)?);
        }
        none_of.extend(not_in_set.as_ref().and_then(|id| features.set(program, *id)));
        all_of.extend(nets.as_ref().map(|nets| features.nets(nets)));
        if !not_nets.is_empty() {
            none_of.push(features.nets(not_nets));
        }
        let l4 = L4Plan::of(program, &rule.l4, features);
        let (number, action) = (pool.rule(rule), rule.action);
        let plan = Self { number, action, families, all_of, none_of, l4 };
        families.contains(&true).then_some(plan)
    }

    /// Returns what the rule asks of remote addresses, in no order and with repetitions.
    pub(super) fn questions(&self) -> impl Iterator<Item = FeatureId> + '_ {
        let ports = match &self.l4 {
            L4Plan::Ports { source, destination, .. } => [Some(source), Some(destination)],
            _ => [None, None],
        };
        let named = ports.into_iter().flatten().flat_map(PortPlan::questions);
        self.all_of.iter().chain(&self.none_of).copied().chain(named)
    }

    /// Returns a question that every remote address that it matches answers with yes, if it asks one.
    pub(in super::super) fn first_question(&self) -> Option<FeatureId> {
        self.all_of.first().copied()
    }

    /// Returns what the rule covers of the flows of a family whose remote address answers so, `None` if nothing.
    pub(in super::super) fn cover(&self, family: Family, yes: &[FeatureId]) -> Option<Cover<'_>> {
        let [v4, v6] = self.families;
        let is_yes = |question: &FeatureId| yes.binary_search(question).is_ok();
        let holds = (if family == Family::V4 { v4 } else { v6 })
            && self.all_of.iter().all(is_yes)
            && !self.none_of.iter().any(is_yes);
        if !holds {
            return None;
        }
        Some(match &self.l4 {
            L4Plan::Any => Cover::Any,
            L4Plan::Is(protocol) => Cover::Is(*protocol),
            L4Plan::IsNot(protocols) => Cover::IsNot(protocols),
            L4Plan::Ports { transport, source, destination } => Cover::Ports {
                transport: *transport,
                source: source.resolved(is_yes),
                destination: destination.resolved(is_yes),
            },
            L4Plan::Icmp { family: of_rule, .. } if *of_rule != family => return None,
            L4Plan::Icmp { messages, .. } => Cover::Icmp { messages },
        })
    }
}

impl<'p> L4Plan<'p> {
    fn of(program: &Program, condition: &'p L4Match<Ports>, features: &mut Features) -> Self {
        match condition {
            L4Match::Any => Self::Any,
            L4Match::Is(protocol) => Self::Is(*protocol),
            L4Match::IsNot(protocols) => Self::IsNot(protocols),
            L4Match::Ports { transport, source, destination } => Self::Ports {
                transport: *transport,
                source: PortPlan::of(program, source, features),
                destination: PortPlan::of(program, destination, features),
            },
            L4Match::Icmp { family, is, is_not } => {
                let wanted = is.map_or((0, u16::MAX), messages);
                let unwanted = is_not.map(messages);
                let messages = difference(&[wanted], unwanted.as_slice());
                Self::Icmp { family: *family, messages }
            }
        }
    }
}

/// Returns the messages of a type, or of a type and code, as `type << 8 | code`.
fn messages(of: IcmpMatch) -> Range {
    let message = |code| u16::from_be_bytes([of.kind, code]);
    (message(of.code.unwrap_or(0)), message(of.code.unwrap_or(u8::MAX)))
}

impl PortPlan {
    fn of(program: &Program, constraint: &PortConstraint<Ports>, features: &mut Features) -> Self {
        let mut listed = |ports: &Ports| {
            let numbers = of_ports(&ports.numbers).collect();
            let sets = ports.sets.iter();
            let named = sets.flat_map(|id| features.ports(program, *id).to_vec()).collect();
            Listed { numbers, named }
        };
        let any_of = constraint.any_of.as_ref().map(&mut listed);
        let none_of = constraint.none_of.as_ref().map(&mut listed);
        let has_names = [&any_of, &none_of].into_iter().flatten().any(|it| !it.named.is_empty());
        let plan = Self::ByClass { any_of, none_of };
        if has_names { plan } else { Self::Fixed(plan.resolved(|_| false).into_owned()) }
    }

    fn questions(&self) -> impl Iterator<Item = FeatureId> + '_ {
        let lists = match self {
            Self::Fixed(_) => [None, None],
            Self::ByClass { any_of, none_of } => [any_of.as_ref(), none_of.as_ref()],
        };
        lists.into_iter().flatten().flat_map(|list| list.named.iter().map(|&(_, feature)| feature))
    }

    /// Returns the ports for the addresses that answer so.
    fn resolved(&self, is_yes: impl Fn(&FeatureId) -> bool) -> Ranges<'_> {
        let (any_of, none_of) = match self {
            Self::Fixed(ranges) => return Ranges::Borrowed(ranges),
            Self::ByClass { any_of, none_of } => (any_of, none_of),
        };
        let ranges = |list: &Listed| {
            let named = list.named.iter().filter(|(_, feature)| is_yes(feature));
            union(list.numbers.iter().copied().chain(named.map(|&(port, _)| (port, port))))
        };
        let wanted = any_of.as_ref().map_or_else(|| ALL.to_vec(), ranges);
        Ranges::Owned(
            none_of.as_ref().map_or(wanted.clone(), |it| difference(&wanted, &ranges(it))),
        )
    }
}
