//! The conditions of a rule as matches.
//!
//! A rule of a program is a conjunction, but some of its parts are alternatives in iptables: a set has exact members and
//! prefixes, a list of ports has numbers and names, and a match takes few ports. Each combination becomes a rule of its
//! own, with the same verdict.

use netpol_core::model::{L4Match, PortConstraint};
use netpol_core::net::{Family, IcmpMatch, Prefix, PrefixSet, Protocol, Transport};
use netpol_core::program::{Address, Ports, Rule, SetId};

use super::PolicyRenderer;
use super::base::{ICMP, ICMPV6};
use crate::error::IptablesError;
use crate::name::{Name, Side};
use crate::ruleset::{End, Fields, MULTIPORT_SLOTS, Match, Sense};

/// Alternatives, each a conjunction. No alternative means that nothing can match.
type Alternatives = Vec<Vec<Match>>;

/// The condition of a rule in one family.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// One of these must hold.
    pub(super) alternatives: Alternatives,
    /// The protocol must be none of these. One rule can exclude one protocol only, so two or more are left to the
    /// caller; a single one is among the matches.
    pub(super) excluded: Vec<u8>,
}

/// Writes the conditions of one side and family, and makes the sets that they need.
pub(super) struct Conditions<'r, 'a> {
    renderer: &'r mut PolicyRenderer<'a>,
    side: Side,
    family: Family,
}

impl<'r, 'a> Conditions<'r, 'a> {
    pub(super) fn new(renderer: &'r mut PolicyRenderer<'a>, side: Side, family: Family) -> Self {
        Self { renderer, side, family }
    }

    /// Returns the condition of a rule.
    pub(super) fn of(&mut self, rule: &Rule) -> Result<Condition, IptablesError> {
        let icmp = match rule.l4 {
            L4Match::Icmp { family, .. } => Some(family),
            _ => None,
        };
        if [rule.family, icmp].into_iter().flatten().any(|only| only != self.family) {
            return Ok(Condition::default());
        }
        let (remote, local) = match self.side {
            Side::Egress => (End::Destination, End::Source),
            Side::Ingress => (End::Source, End::Destination),
        };
        let mut alternatives = self.address(&rule.remote, remote)?;
        if let Some(address) = &rule.local {
            alternatives = product(&alternatives, &self.address(address, local)?);
        }
        if alternatives.is_empty() {
            return Ok(Condition::default());
        }
        self.with_l4(alternatives, &rule.l4)
    }

    /// Returns the condition on the address at one end: what must hold first, since it is the most selective.
    fn address(&mut self, address: &Address, end: End) -> Result<Alternatives, IptablesError> {
        let mut alternatives = vec![Vec::new()];
        if let Some(id) = address.in_set {
            alternatives.clear();
            if self.renderer.uses(self.family) {
                let set = self.renderer.exact(id, self.family)?;
                alternatives.push(vec![member(end, Fields::Address, set, Sense::In)]);
            }
            let prefixes = self.renderer.prefixes(id)?;
            alternatives.extend(self.in_nets(prefixes, end));
        }
        if let Some(nets) = &address.nets {
            let nets: Alternatives = self.in_nets(nets, end).into_iter().collect();
            alternatives = product(&alternatives, &nets);
        }
        if let Some(id) = address.not_in_set {
            if self.renderer.uses(self.family) {
                let set = self.renderer.exact(id, self.family)?;
                let it = member(end, Fields::Address, set, Sense::NotIn);
                alternatives = product(&alternatives, &vec![vec![it]]);
            }
            let prefixes = self.renderer.prefixes(id)?;
            alternatives = product(&alternatives, &self.not_in_nets(prefixes, end));
        }
        Ok(product(&alternatives, &self.not_in_nets(&address.not_nets, end)))
    }

    /// Returns the condition that an address is in one of these blocks; `None` if it cannot be.
    fn in_nets(&mut self, nets: &PrefixSet, end: End) -> Option<Vec<Match>> {
        match Cover::of(nets, self.family) {
            Cover::Nothing => None,
            Cover::Everything => Some(Vec::new()),
            Cover::Some => {
                let set = self.renderer.prefix_set(self.family, nets.of_family(self.family));
                Some(vec![member(end, Fields::Address, set, Sense::In)])
            }
        }
    }

    /// Returns the condition that an address is in none of these blocks.
    fn not_in_nets(&mut self, nets: &PrefixSet, end: End) -> Alternatives {
        match Cover::of(nets, self.family) {
            Cover::Nothing => vec![Vec::new()],
            Cover::Everything => Vec::new(),
            Cover::Some => {
                let set = self.renderer.prefix_set(self.family, nets.of_family(self.family));
                vec![vec![member(end, Fields::Address, set, Sense::NotIn)]]
            }
        }
    }

    /// Adds the condition on what follows the IP header. The protocol is tested before anything that reads it.
    fn with_l4(
        &mut self,
        alternatives: Alternatives,
        l4: &L4Match<Ports>,
    ) -> Result<Condition, IptablesError> {
        let l4 = match l4 {
            L4Match::Any => vec![Vec::new()],
            L4Match::Is(protocol) => vec![vec![Match::Protocol(number(*protocol)?)]],
            L4Match::IsNot(protocols) => {
                let excluded =
                    protocols.iter().map(|&it| number(it)).collect::<Result<Vec<u8>, _>>()?;
                match excluded.as_slice() {
                    [one] => vec![vec![Match::NotProtocol(*one)]],
                    _ => return Ok(Condition { alternatives, excluded }),
                }
            }
            L4Match::Icmp { family, is, is_not } => vec![icmp(*family, *is, *is_not)?],
            L4Match::Ports { transport, source, destination } => {
                let protocol = vec![vec![Match::Protocol(transport.protocol().number())]];
                let destination = self.ports(destination, *transport, End::Destination)?;
                let source = self.ports(source, *transport, End::Source)?;
                product(&product(&protocol, &destination), &source)
            }
        };
        Ok(Condition { alternatives: product(&alternatives, &l4), excluded: Vec::new() })
    }

    fn ports(
        &mut self,
        it: &PortConstraint<Ports>,
        transport: Transport,
        end: End,
    ) -> Result<Alternatives, IptablesError> {
        let nothing = Ports::default();
        let none = it.none_of.as_ref().unwrap_or(&nothing);
        let unwanted_numbers = numbers(ranges(none), transport, end, Sense::NotIn).concat();
        let unwanted_names = self.names(none, end, Sense::NotIn)?.concat();
        let wanted = match &it.any_of {
            None => vec![unwanted_numbers],
            Some(any) => {
                // Of two comparisons of one port in a rule, the nft flavour keeps only the second (iptables 1.8.9).
                let left = without(ranges(any), &ranges(none));
                let named = self.names(any, end, Sense::In)?;
                let named = product(&named, &vec![unwanted_numbers]);
                [numbers(left, transport, end, Sense::In), named].concat()
            }
        };
        Ok(product(&wanted, &vec![unwanted_names]))
    }

    /// Returns one match for every name in a list of ports.
    fn names(
        &mut self,
        ports: &Ports,
        end: End,
        sense: Sense,
    ) -> Result<Alternatives, IptablesError> {
        if !self.renderer.uses(self.family) {
            return Ok(Alternatives::new());
        }
        let family = self.family;
        let set = |&id: &SetId| {
            let set = self.renderer.named_ports(id, family)?;
            Ok(vec![member(end, Fields::AddressAndPort, set, sense)])
        };
        ports.sets.iter().map(set).collect()
    }
}

/// An inclusive range of ports.
type Range = (u16, u16);

fn ranges(ports: &Ports) -> Vec<Range> {
    ports.numbers.ranges().iter().map(|range| (range.first(), range.last())).collect()
}

/// Returns one match for every group of numbers that `multiport` takes.
fn numbers(ranges: Vec<Range>, transport: Transport, end: End, sense: Sense) -> Alternatives {
    let one = |ranges| vec![Match::Ports { transport, end, ranges, sense }];
    in_slots(ranges.into_iter()).into_iter().map(one).collect()
}

/// Returns what is left of the ranges without the holes. Both are sorted and disjoint.
fn without(ranges: Vec<Range>, holes: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for (first, last) in ranges {
        let mut next = Some(first);
        for &(from, to) in holes.iter().filter(|(from, to)| *from <= last && *to >= first) {
            left.extend(next.filter(|next| *next < from).map(|next| (next, from - 1)));
            next = to.checked_add(1);
        }
        left.extend(next.filter(|next| *next <= last).map(|next| (next, last)));
    }
    left
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

/// Returns the ranges in groups that `multiport` takes.
fn in_slots(ranges: impl Iterator<Item = Range>) -> Vec<Vec<Range>> {
    let mut groups: Vec<Vec<Range>> = Vec::new();
    let mut free = 0;
    for (first, last) in ranges {
        let needed = if first == last { 1 } else { 2 };
        match groups.last_mut() {
            Some(group) if needed <= free => group.push((first, last)),
            _ => {
                groups.push(vec![(first, last)]);
                free = MULTIPORT_SLOTS;
            }
        }
        free -= needed;
    }
    groups
}

/// Returns the number of a protocol, unless iptables takes it for "all".
fn number(protocol: Protocol) -> Result<u8, IptablesError> {
    match protocol.number() {
        0 => Err(IptablesError::Inexpressible { condition: "IP protocol 0" }),
        number => Ok(number),
    }
}

fn icmp(
    family: Family,
    is: Option<IcmpMatch>,
    is_not: Option<IcmpMatch>,
) -> Result<Vec<Match>, IptablesError> {
    let protocol = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    // Source: `icmp_type_code_match` in `net/netfilter/xt_tcpudp.c` takes 255 for any type.
    if family == Family::V4 && is.iter().chain(&is_not).any(|it| it.kind == 255) {
        return Err(IptablesError::Inexpressible { condition: "ICMP type 255" });
    }
    let it = |it: IcmpMatch, sense| Match::Icmp { family, kind: it.kind, code: it.code, sense };
    let is = is.map(|wanted| it(wanted, Sense::In));
    let is_not = is_not.map(|unwanted| it(unwanted, Sense::NotIn));
    Ok([Match::Protocol(protocol)].into_iter().chain(is).chain(is_not).collect())
}

fn member(end: End, fields: Fields, set: Name, sense: Sense) -> Match {
    Match::Member { end, fields, set, sense }
}

/// Returns every combination of two conditions.
fn product(one: &Alternatives, other: &Alternatives) -> Alternatives {
    one.iter()
        .flat_map(|first| other.iter().map(move |second| [first.as_slice(), second].concat()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_takes_few_ports() {
        let single = |count: u16| (0..count).map(|index| (index * 2 + 1, index * 2 + 1));
        assert_eq!(in_slots(single(0)).len(), 0);
        assert_eq!(in_slots(single(15)).len(), 1);
        assert_eq!(in_slots(single(16)).len(), 2);
        let ranges = (0..8).map(|index| (index * 10 + 1, index * 10 + 2));
        let sizes: Vec<usize> = in_slots(ranges).iter().map(Vec::len).collect();
        assert_eq!(sizes, [7, 1]);
    }

    #[test]
    fn holes_are_cut_out() {
        let cases: [(&[Range], &[Range], &[Range]); 6] = [
            (&[(1, 10)], &[], &[(1, 10)]),
            (&[(1, 10)], &[(3, 4), (10, 12)], &[(1, 2), (5, 9)]),
            (&[(1, 10), (20, 30)], &[(1, 1), (8, 22)], &[(2, 7), (23, 30)]),
            (&[(5, 6)], &[(1, 65_535)], &[]),
            (&[(1, 65_535)], &[(65_535, 65_535)], &[(1, 65_534)]),
            (&[(2, 3), (5, 6)], &[(4, 4)], &[(2, 3), (5, 6)]),
        ];
        for (ranges, holes, want) in cases {
            assert_eq!(without(ranges.to_vec(), holes), want, "{ranges:?} without {holes:?}");
        }
    }
}
