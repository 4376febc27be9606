//! The conditions of a rule as matches.
//!
//! A rule of a program is a conjunction, but some of its parts are alternatives in nf_tables: a set has exact members
//! and prefixes, a list of ports has numbers and names, and a rule can match both families. Each combination becomes a
//! rule of its own, with the same verdict.

use netpol_core::model::{L4Match, PortConstraint};
use netpol_core::net::{Family, IcmpMatch, PortSet, Prefix, PrefixSet, Protocol};
use netpol_core::program::{Address, Ports, Rule};

use super::PolicyRenderer;
use crate::error::NftError;
use crate::name::Side;
use crate::ruleset::{End, Fields, Match, Sense};

/// Alternatives, each a conjunction. No alternative means that nothing can match.
type Alternatives = Vec<Vec<Match>>;

/// Writes conditions, and makes the sets that they need.
pub(super) struct Conditions<'r, 'a> {
    renderer: &'r mut PolicyRenderer<'a>,
    side: Side,
}

impl<'r, 'a> Conditions<'r, 'a> {
    pub(super) fn new(renderer: &'r mut PolicyRenderer<'a>, side: Side) -> Self {
        Self { renderer, side }
    }

    /// Returns the alternatives of a rule.
    pub(super) fn of(&mut self, rule: &Rule) -> Result<Alternatives, NftError> {
        let icmp = match rule.l4 {
            L4Match::Icmp { family, .. } => Some(family),
            _ => None,
        };
        let possible =
            |family: &Family| [rule.family, icmp].into_iter().flatten().all(|only| only == *family);
        let families: Vec<Family> = Family::BOTH.into_iter().filter(possible).collect();
        let mut by_family = Vec::with_capacity(2);
        for &family in &families {
            by_family.push((family, self.in_family(rule, family)?));
        }
        Ok(joined(by_family))
    }

    fn in_family(&mut self, rule: &Rule, family: Family) -> Result<Alternatives, NftError> {
        let (remote, local) = match self.side {
            Side::Egress => (End::Destination, End::Source),
            Side::Ingress => (End::Source, End::Destination),
        };
        let mut alternatives = self.address(&rule.remote, family, remote)?;
        if let Some(address) = &rule.local {
            alternatives = product(&alternatives, &self.address(address, family, local)?);
        }
        if alternatives.is_empty() {
            return Ok(alternatives);
        }
        Ok(product(&alternatives, &self.l4(&rule.l4, family)?))
    }

    /// Returns the condition on the address at one end: what must hold first, since it is the most selective.
    fn address(
        &mut self,
        address: &Address,
        family: Family,
        end: End,
    ) -> Result<Alternatives, NftError> {
        let fields = Fields::Address(family, end);
        let mut alternatives = vec![Vec::new()];
        if let Some(id) = address.in_set {
            alternatives.clear();
            if self.renderer.uses(family) {
                alternatives.push(vec![member(
                    fields,
                    self.renderer.exact(id, family)?,
                    Sense::In,
                )]);
            }
            let prefixes = self.renderer.prefixes(id)?;
            alternatives.extend(self.in_nets(prefixes, family, fields));
        }
        if let Some(nets) = &address.nets {
            let nets: Alternatives = self.in_nets(nets, family, fields).into_iter().collect();
            alternatives = product(&alternatives, &nets);
        }
        if let Some(id) = address.not_in_set {
            if self.renderer.uses(family) {
                let it = member(fields, self.renderer.exact(id, family)?, Sense::NotIn);
                alternatives = product(&alternatives, &vec![vec![it]]);
            }
            let prefixes = self.renderer.prefixes(id)?;
            alternatives = product(&alternatives, &self.not_in_nets(prefixes, family, fields));
        }
        Ok(product(&alternatives, &self.not_in_nets(&address.not_nets, family, fields)))
    }

    /// Returns the condition that an address is in one of these blocks; `None` if it cannot be.
    fn in_nets(&mut self, nets: &PrefixSet, family: Family, fields: Fields) -> Option<Vec<Match>> {
        match Cover::of(nets, family) {
            Cover::Nothing => None,
            Cover::Everything => Some(Vec::new()),
            Cover::Some => {
                let set = self.renderer.prefix_set(family, nets.of_family(family));
                Some(vec![member(fields, set, Sense::In)])
            }
        }
    }

    /// Returns the condition that an address is in none of these blocks.
    fn not_in_nets(&mut self, nets: &PrefixSet, family: Family, fields: Fields) -> Alternatives {
        match Cover::of(nets, family) {
            Cover::Nothing => vec![Vec::new()],
            Cover::Everything => Vec::new(),
            Cover::Some => {
                let set = self.renderer.prefix_set(family, nets.of_family(family));
                vec![vec![member(fields, set, Sense::NotIn)]]
            }
        }
    }

    /// Returns the condition on what follows the IP header. The protocol is tested before anything that reads it.
    fn l4(&mut self, l4: &L4Match<Ports>, family: Family) -> Result<Alternatives, NftError> {
        match l4 {
            L4Match::Any => Ok(vec![Vec::new()]),
            L4Match::Is(protocol) => Ok(vec![vec![Match::Protocol(protocol.number())]]),
            L4Match::IsNot(protocols) => Ok(vec![
                protocols.iter().map(|protocol| Match::NotProtocol(protocol.number())).collect(),
            ]),
            L4Match::Icmp { family, is, is_not } => Ok(icmp(*family, *is, *is_not)),
            L4Match::Ports { transport, source, destination } => {
                let protocol = vec![vec![Match::Protocol(transport.protocol().number())]];
                let destination = self.ports(destination, family, End::Destination)?;
                let source = self.ports(source, family, End::Source)?;
                Ok(product(&product(&protocol, &destination), &source))
            }
        }
    }

    fn ports(
        &mut self,
        it: &PortConstraint<Ports>,
        family: Family,
        end: End,
    ) -> Result<Alternatives, NftError> {
        let mut alternatives = match &it.any_of {
            None => vec![Vec::new()],
            Some(ports) => self.any_port(ports, family, end)?,
        };
        if let Some(ports) = &it.none_of {
            let none = self.no_port(ports, family, end)?;
            alternatives = product(&alternatives, &vec![none]);
        }
        Ok(alternatives)
    }

    fn any_port(
        &mut self,
        ports: &Ports,
        family: Family,
        end: End,
    ) -> Result<Alternatives, NftError> {
        let mut alternatives = Vec::new();
        alternatives.extend(self.numbers(&ports.numbers, end, Sense::In).map(|it| vec![it]));
        if self.renderer.uses(family) {
            for &id in &ports.sets {
                let set = self.renderer.named_ports(id, family)?;
                alternatives.push(vec![member(Fields::Target(family, end), set, Sense::In)]);
            }
        }
        Ok(alternatives)
    }

    fn no_port(&mut self, ports: &Ports, family: Family, end: End) -> Result<Vec<Match>, NftError> {
        let mut matches: Vec<Match> =
            self.numbers(&ports.numbers, end, Sense::NotIn).into_iter().collect();
        if self.renderer.uses(family) {
            for &id in &ports.sets {
                let set = self.renderer.named_ports(id, family)?;
                matches.push(member(Fields::Target(family, end), set, Sense::NotIn));
            }
        }
        Ok(matches)
    }

    /// Returns the condition on a port's number: a comparison for one range, a set for several, `None` for no number.
    fn numbers(&mut self, ports: &PortSet, end: End, sense: Sense) -> Option<Match> {
        match ports.ranges() {
            [] => None,
            [range] => Some(Match::Ports { end, first: range.first(), last: range.last(), sense }),
            ranges => {
                let set = self
                    .renderer
                    .port_set(ranges.iter().map(|range| (range.first(), range.last())));
                Some(member(Fields::Port(end), set, sense))
            }
        }
    }
}

/// How much of a family a set of blocks covers.
enum Cover {
    Nothing,
    Some,
    Everything,
}

impl Cover {
    fn of(nets: &PrefixSet, family: Family) -> Self {
        let mut nets = nets.of_family(family);
        match nets.next() {
            None => Self::Nothing,
            Some(first) if first == Prefix::all(family) => Self::Everything,
            Some(_) => Self::Some,
        }
    }
}

fn icmp(family: Family, is: Option<IcmpMatch>, is_not: Option<IcmpMatch>) -> Alternatives {
    let protocol = match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    };
    let is = is.map(|it| Match::Icmp { kind: it.kind, code: it.code });
    let wanted: Vec<Match> = [Match::Protocol(protocol.number())].into_iter().chain(is).collect();
    let unwanted = match is_not {
        None => vec![Vec::new()],
        Some(IcmpMatch { kind, code: None }) => vec![vec![Match::NotIcmpType(kind)]],
        // Another type, or this type and another code.
        Some(IcmpMatch { kind, code: Some(code) }) => {
            vec![
                vec![Match::NotIcmpType(kind)],
                vec![Match::Icmp { kind, code: None }, Match::NotIcmpCode(code)],
            ]
        }
    };
    product(&vec![wanted], &unwanted)
}

fn member(fields: Fields, set: crate::name::Name, sense: Sense) -> Match {
    Match::Member { fields, set, sense }
}

/// Returns every combination of two conditions.
fn product(one: &Alternatives, other: &Alternatives) -> Alternatives {
    one.iter()
        .flat_map(|first| other.iter().map(move |second| [first.as_slice(), second].concat()))
        .collect()
}

/// Joins the alternatives of the families. If both have the same, the family does not matter.
fn joined(by_family: Vec<(Family, Alternatives)>) -> Alternatives {
    match by_family.as_slice() {
        [(_, one), (_, other)] if one == other => one.clone(),
        _ => by_family
            .into_iter()
            .flat_map(|(family, alternatives)| {
                alternatives.into_iter().map(move |matches| {
                    [Match::Family(family)].into_iter().chain(matches).collect()
                })
            })
            .collect(),
    }
}
