//! Rules read back from expressions.

use netpol_core::net::Family;

use super::{
    ALL_FIELDS, Expression, FAMILIES, FLOW_STATES, Field, HOP_LIMIT, ICMP, ICMP_CODE, ICMP_TYPE,
    ICMP_TYPE_AND_CODE, LINK_LOCAL, LookupResult, Register, Test, UNTRACKED, address, address_len,
    interface, loads, lower_match, port, sense_of,
};
use crate::name::Name;
use crate::ruleset::{Action, End, Fields, Interface, Match, Rule, Sense, Verdict};

/// Reads expressions back as the rule that they were written from. What we never write becomes `Unknown`.
pub(crate) fn raise(expressions: &[Expression], comment: String) -> Rule {
    let mut rule = Rule { matches: Vec::new(), action: Action::Unknown, comment };
    let mut rest = expressions;
    while !rest.is_empty() {
        if let Some(action) = raise_action(rest) {
            rule.action = action;
            return rule;
        }
        let (it, after) = raise_match(rest, &rule.matches);
        rule.matches.push(it);
        rest = after;
    }
    rule
}

/// Reads the end of a rule.
fn raise_action(rest: &[Expression]) -> Option<Action> {
    match rest {
        [Expression::Counter, Expression::Verdict(verdict)] => {
            Some(Action::Verdict(verdict.clone()))
        }
        [Expression::Counter, Expression::Limit(rate), Expression::Log { group, prefix }] => {
            Some(Action::Log { group: *group, prefix: prefix.clone(), rate: *rate })
        }
        [Expression::Counter, Expression::Reject(answer)] => Some(Action::Reject(*answer)),
        [Expression::Counter, Expression::Untrack, Expression::Verdict(Verdict::Return)] => {
            Some(Action::Untrack)
        }
        [
            Expression::Counter,
            Expression::Load { field: Field::Mark, register: Register(0) },
            Expression::SetBits { bits },
            Expression::StoreMark,
            Expression::Verdict(Verdict::Return),
        ] => Some(Action::Mark(u32::from_ne_bytes(bits.as_slice().try_into().ok()?))),
        [
            Expression::Counter,
            Expression::Load { field: Field::Mark, register: Register(0) },
            Expression::Mask { mask },
            Expression::StoreMark,
        ] => Some(Action::Unmark(!u32::from_ne_bytes(mask.as_slice().try_into().ok()?))),
        [Expression::Load { .. }, ..] => match raise_lookup(rest)? {
            (fields, map, LookupResult::Verdict, []) => {
                Some(Action::Dispatch { fields, map: map.clone() })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Reads one condition; `before` are those that the rule has so far.
fn raise_match<'a>(rest: &'a [Expression], before: &[Match]) -> (Match, &'a [Expression]) {
    raise_lookup_match(rest)
        .or_else(|| raise_range(rest))
        .or_else(|| raise_flow(rest))
        .or_else(|| raise_link_local(rest))
        .or_else(|| raise_reset(rest))
        .or_else(|| raise_compare(rest, before))
        .unwrap_or_else(|| (Match::Unknown, rest.get(1..).unwrap_or_default()))
}

fn raise_lookup_match(rest: &[Expression]) -> Option<(Match, &[Expression])> {
    match raise_lookup(rest)? {
        (fields, set, LookupResult::Member(sense), after) => {
            Some((Match::Member { fields, set: set.clone(), sense }, after))
        }
        _ => None,
    }
}

fn raise_lookup(rest: &[Expression]) -> Option<(Fields, &Name, LookupResult, &[Expression])> {
    let at = rest.iter().position(|it| !matches!(it, Expression::Load { .. }))?;
    let (loaded, after) = rest.split_at_checked(at)?;
    let [Expression::Lookup { set, result }, after @ ..] = after else { return None };
    let mut word = 0;
    let mut found = Vec::with_capacity(loaded.len());
    for it in loaded {
        match it {
            Expression::Load { field, register } if *register == Register(word) => {
                found.push(*field);
                word += field.len().div_ceil(4);
            }
            _ => return None,
        }
    }
    let fields = ALL_FIELDS.into_iter().find(|&fields| loads(fields) == found)?;
    Some((fields, set, *result, after))
}

fn raise_range(rest: &[Expression]) -> Option<(Match, &[Expression])> {
    let [Expression::Load { field, register: Register(0) }, test @ ..] = rest else { return None };
    let (first, last, sense, after) = match test {
        [
            Expression::Compare { test: Test::AtLeast, value: first },
            Expression::Compare { test: Test::AtMost, value: last },
            after @ ..,
        ] => (first, last, Sense::In, after),
        [Expression::OutsideRange { first, last }, after @ ..] => {
            (first, last, Sense::NotIn, after)
        }
        _ => return None,
    };
    let it = match (port_end(*field), first.as_slice(), last.as_slice()) {
        (Some(end), &[a, b], &[c, d]) => Match::Ports {
            end,
            first: u16::from_be_bytes([a, b]),
            last: u16::from_be_bytes([c, d]),
            sense,
        },
        (None, &[first], &[last]) if *field == ICMP_TYPE && sense == Sense::In => {
            Match::IcmpTypes { first, last }
        }
        _ => return None,
    };
    Some((it, after))
}

fn raise_flow(rest: &[Expression]) -> Option<(Match, &[Expression])> {
    let [
        Expression::Load { field: field @ (Field::FlowState | Field::Mark), register: Register(0) },
        Expression::Mask { mask },
        Expression::Compare { test, value },
        after @ ..,
    ] = rest
    else {
        return None;
    };
    let bits = u32::from_ne_bytes(mask.as_slice().try_into().ok()?);
    let state = FLOW_STATES.into_iter().find(|(_, bit)| *bit == bits);
    let it = match (field, test) {
        (Field::FlowState, Test::NotEqual) if bits == UNTRACKED => Match::Untracked(Sense::In),
        (Field::FlowState, Test::Equal) if bits == UNTRACKED => Match::Untracked(Sense::NotIn),
        (Field::FlowState, Test::NotEqual) => Match::Flow(state?.0),
        (Field::Mark, Test::Equal) => Match::Unmarked(bits),
        _ => return None,
    };
    value.iter().all(|&byte| byte == 0).then_some((it, after))
}

fn raise_link_local(rest: &[Expression]) -> Option<(Match, &[Expression])> {
    let [
        Expression::Load { field, register: Register(0) },
        Expression::Mask { mask },
        Expression::Compare { test, value },
        after @ ..,
    ] = rest
    else {
        return None;
    };
    let sense = sense_of(*test)?;
    let is_link_local = *field == address(Family::V6, End::Source)
        && [mask, value].map(Vec::as_slice) == LINK_LOCAL.each_ref().map(<[u8; 16]>::as_slice);
    is_link_local.then_some((Match::LinkLocalSource(sense), after))
}

fn raise_reset(rest: &[Expression]) -> Option<(Match, &[Expression])> {
    let (expressions, after) = rest.split_at_checked(3)?;
    let mut reset = Vec::new();
    lower_match(&Match::Reset, &mut reset);
    (expressions == reset).then_some((Match::Reset, after))
}

fn raise_compare<'a>(
    rest: &'a [Expression],
    before: &[Match],
) -> Option<(Match, &'a [Expression])> {
    let [
        Expression::Load { field, register: Register(0) },
        Expression::Compare { test, value },
        after @ ..,
    ] = rest
    else {
        return None;
    };
    let sense = sense_of(*test)?;
    let icmp =
        before.iter().any(|it| matches!(it, Match::Protocol(number) if ICMP.contains(number)));
    let it = match (*field, value.as_slice(), sense) {
        (Field::Family, &[number], Sense::In) => {
            Match::Family(FAMILIES.into_iter().find(|&(_, known)| known == number)?.0)
        }
        (Field::Protocol, &[number], Sense::In) => Match::Protocol(number),
        (Field::Protocol, &[number], Sense::NotIn) => Match::NotProtocol(number),
        (HOP_LIMIT, &[limit], Sense::In) => Match::HopLimit(limit),
        (ICMP_TYPE, &[kind], Sense::In) if icmp => Match::Icmp { kind, code: None },
        (ICMP_TYPE, &[kind], Sense::NotIn) if icmp => Match::NotIcmpType(kind),
        (ICMP_CODE, &[code], Sense::NotIn) if icmp => Match::NotIcmpCode(code),
        (ICMP_TYPE_AND_CODE, &[kind, code], Sense::In) if icmp => {
            Match::Icmp { kind, code: Some(code) }
        }
        (Field::InputInterface | Field::OutputInterface, bytes, _) => {
            let end =
                [End::Source, End::Destination].into_iter().find(|&it| interface(it) == *field)?;
            match bytes.try_into() {
                Ok(name) => Match::Interface { end, name: Interface::from_bytes(name)?, sense },
                Err(_) => {
                    let prefix = Interface::new(std::str::from_utf8(bytes).ok()?)?;
                    Match::InterfacePrefix { end, prefix, sense }
                }
            }
        }
        (_, &[a, b], _) => {
            let number = u16::from_be_bytes([a, b]);
            Match::Ports { end: port_end(*field)?, first: number, last: number, sense }
        }
        (field, bytes, Sense::NotIn) if bytes.iter().all(|&byte| byte == 0) => {
            let is_source =
                |it: &Family| address(*it, End::Source) == field && address_len(*it) == bytes.len();
            Match::SpecifiedSource(Family::BOTH.into_iter().find(is_source)?)
        }
        _ => return None,
    };
    Some((it, after))
}

fn port_end(field: Field) -> Option<End> {
    [End::Source, End::Destination].into_iter().find(|&end| port(end) == field)
}
