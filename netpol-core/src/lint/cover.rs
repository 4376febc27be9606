//! What conditions of rules have to do with each other, whatever the labels and addresses.
//!
//! Each function says only what is certain: a `false` means nothing.

use super::selector::{implies, is_unsatisfiable};
use crate::model::{EntityMatch, L4Match, Peers, PortConstraint, PortMatch, RuleMatch, Tenancy};
use crate::net::{Family, IcmpMatch, PortSet, Prefix, PrefixSet, Protocol};

/// Returns whether every flow that meets `narrow` meets `wide`, both being asked for one endpoint.
pub(super) fn covers(wide: &RuleMatch, narrow: &RuleMatch) -> bool {
    let RuleMatch { family, l4, source, destination, http } = wide;
    http.is_none()
        && family.is_none_or(|family| {
            narrow.family == Some(family) || family_of(&narrow.l4) == Some(family)
        })
        && l4_covers(wide, narrow, l4)
        && entity_covers(source, &narrow.source)
        && entity_covers(destination, &narrow.destination)
}

/// Returns whether no flow meets both.
pub(super) fn are_apart(one: &RuleMatch, other: &RuleMatch) -> bool {
    let no_family = || {
        !Family::BOTH.into_iter().any(|family| may_be_of(one, family) && may_be_of(other, family))
    };
    let no_address = |one: &EntityMatch, other: &EntityMatch| {
        let overlap = |one: PrefixSet, other| one.difference(&one.difference(&other));
        !has_any_address(one)
            && !has_any_address(other)
            && overlap(addresses(one), addresses(other)).is_empty()
    };
    l4_are_apart(&one.l4, &other.l4)
        || no_address(&one.source, &other.source)
        || no_address(&one.destination, &other.destination)
        || no_family()
}

/// Returns whether a rule may match flows of a family, as far as families are concerned.
pub(super) fn may_be_of(matches: &RuleMatch, family: Family) -> bool {
    let has_addresses = |entity: &EntityMatch| {
        has_any_address(entity) || addresses(entity).of_family(family).next().is_some()
    };
    matches.family.is_none_or(|it| it == family)
        && family_of(&matches.l4).is_none_or(|it| it == family)
        && has_addresses(&matches.source)
        && has_addresses(&matches.destination)
}

/// Returns whether the conditions on addresses are none.
fn has_any_address(entity: &EntityMatch) -> bool {
    entity.nets.is_none() && entity.not_nets.is_empty()
}

/// Returns the addresses that meet the conditions on addresses.
pub(super) fn addresses(entity: &EntityMatch) -> PrefixSet {
    match &entity.nets {
        Some(nets) => nets.difference(&entity.not_nets),
        None => everywhere().difference(&entity.not_nets),
    }
}

fn everywhere() -> PrefixSet {
    Family::BOTH.into_iter().map(Prefix::all).collect()
}

/// Returns whether no address belongs to peers of which the side must be.
pub(super) fn has_no_peers(entity: &EntityMatch) -> bool {
    let contradict = |selector| {
        is_unsatisfiable(selector)
            || entity.not_peers.as_ref().is_some_and(|unwanted| implies(selector, unwanted))
    };
    match &entity.peers {
        None => false,
        Some(Peers::Endpoints(selector)) => contradict(selector),
        Some(Peers::Tenants {
            endpoints,
            tenancy: Tenancy::Same(keys) | Tenancy::NotSame(keys),
        }) => keys.is_empty() || contradict(endpoints),
        Some(Peers::Nodes(selector)) => is_unsatisfiable(selector),
        Some(Peers::DomainNames(patterns)) => patterns.is_empty(),
        Some(Peers::BackendsOf(_)) => false,
    }
}

/// Returns whether no port meets a condition.
pub(super) fn has_no_port(constraint: &PortConstraint<PortMatch>) -> bool {
    let PortConstraint { any_of, none_of } = constraint;
    any_of.as_ref().is_some_and(|list| {
        let excluded = || none_of.as_ref().is_some_and(|it| is_subset(&list.numbers, &it.numbers));
        has_only_numbers(list) && (list.numbers.is_empty() || excluded())
    })
}

/// Returns whether no message meets conditions on ICMP.
pub(super) fn has_no_message(is: Option<IcmpMatch>, is_not: Option<IcmpMatch>) -> bool {
    is.zip(is_not).is_some_and(|(is, is_not)| icmp_covers(is_not, is))
}

const fn family_of(l4: &L4Match<PortMatch>) -> Option<Family> {
    match l4 {
        L4Match::Icmp { family, .. } => Some(*family),
        L4Match::Any | L4Match::Is(_) | L4Match::IsNot(_) | L4Match::Ports { .. } => None,
    }
}

/// Returns the only protocol that meets a condition.
const fn protocol_of(l4: &L4Match<PortMatch>) -> Option<Protocol> {
    match l4 {
        L4Match::Is(protocol) => Some(*protocol),
        L4Match::Ports { transport, .. } => Some(transport.protocol()),
        L4Match::Icmp { family: Family::V4, .. } => Some(Protocol::ICMP),
        L4Match::Icmp { family: Family::V6, .. } => Some(Protocol::ICMPV6),
        L4Match::Any | L4Match::IsNot(_) => None,
    }
}

fn entity_covers(wide: &EntityMatch, narrow: &EntityMatch) -> bool {
    let peers = || match (&wide.peers, &narrow.peers) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => peers_cover(wide, narrow),
    };
    let not_peers = || match (&wide.not_peers, &narrow.not_peers) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => implies(wide, narrow),
    };
    let nets =
        || has_any_address(wide) || addresses(narrow).difference(&addresses(wide)).is_empty();
    nets() && peers() && not_peers()
}

fn peers_cover(wide: &Peers, narrow: &Peers) -> bool {
    match (wide, narrow) {
        (
            Peers::Endpoints(wide),
            Peers::Endpoints(narrow) | Peers::Tenants { endpoints: narrow, .. },
        )
        | (Peers::Nodes(wide), Peers::Nodes(narrow)) => implies(narrow, wide),
        _ => wide == narrow,
    }
}

/// Compares conditions on protocols. Names of ports count under the same circumstances on both sides, or under more of
/// them in `wide`, where the [entities cover](entity_covers) each other, too.
fn l4_covers(wide: &RuleMatch, narrow: &RuleMatch, l4: &L4Match<PortMatch>) -> bool {
    match (l4, &narrow.l4) {
        (L4Match::Any, _) => true,
        (L4Match::Is(protocol), narrow) => protocol_of(narrow) == Some(*protocol),
        (L4Match::IsNot(unwanted), L4Match::IsNot(narrow)) => unwanted.is_subset(narrow),
        (L4Match::IsNot(unwanted), narrow) => {
            protocol_of(narrow).is_some_and(|it| !unwanted.contains(&it))
        }
        (
            L4Match::Ports { transport, source, destination },
            L4Match::Ports { transport: of_narrow, source: from, destination: to },
        ) => {
            transport == of_narrow
                && ports_cover(source, &wide.source, from, &narrow.source)
                && ports_cover(destination, &wide.destination, to, &narrow.destination)
        }
        (
            L4Match::Icmp { family, is, is_not },
            L4Match::Icmp { family: of_narrow, is: narrow_is, is_not: narrow_is_not },
        ) => {
            let wanted = is.is_none_or(|is| narrow_is.is_some_and(|it| icmp_covers(is, it)));
            let unwanted = is_not.is_none_or(|is_not| {
                narrow_is_not.is_some_and(|it| icmp_covers(it, is_not))
                    || narrow_is.is_some_and(|it| icmp_are_apart(it, is_not))
            });
            family == of_narrow && wanted && unwanted
        }
        (L4Match::Ports { .. } | L4Match::Icmp { .. }, _) => false,
    }
}

fn ports_cover(
    wide: &PortConstraint<PortMatch>,
    wide_entity: &EntityMatch,
    narrow: &PortConstraint<PortMatch>,
    narrow_entity: &EntityMatch,
) -> bool {
    let is_in = |inner: &PortMatch, outer: &PortMatch| {
        let backends = inner.backends_of.is_none() || inner.backends_of == outer.backends_of;
        is_subset(&inner.numbers, &outer.numbers) && inner.names.is_subset(&outer.names) && backends
    };
    let any_of = match (&wide.any_of, &narrow.any_of) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => is_in(narrow, wide),
    };
    let none_of = match (&wide.none_of, &narrow.none_of, &narrow.any_of) {
        (None, ..) => true,
        // What is excluded by name counts for fewer endpoints if the peers are others.
        (Some(unwanted), Some(narrow), _)
            if unwanted.names.is_empty() || wide_entity.peers == narrow_entity.peers =>
        {
            is_in(unwanted, narrow)
        }
        (Some(unwanted), _, Some(wanted)) => {
            has_only_numbers(unwanted)
                && has_only_numbers(wanted)
                && ports_are_apart(&unwanted.numbers, &wanted.numbers)
        }
        (Some(_), _, None) => false,
    };
    any_of && none_of
}

fn l4_are_apart(one: &L4Match<PortMatch>, other: &L4Match<PortMatch>) -> bool {
    if let (L4Match::IsNot(unwanted), it) | (it, L4Match::IsNot(unwanted)) = (one, other) {
        return protocol_of(it).is_some_and(|it| unwanted.contains(&it));
    }
    if let (Some(one), Some(other)) = (protocol_of(one), protocol_of(other))
        && one != other
    {
        return true;
    }
    match (one, other) {
        (
            L4Match::Ports { source, destination, .. },
            L4Match::Ports { source: from, destination: to, .. },
        ) => constraints_are_apart(source, from) || constraints_are_apart(destination, to),
        (L4Match::Icmp { is: Some(one), .. }, L4Match::Icmp { is: Some(other), .. }) => {
            icmp_are_apart(*one, *other)
        }
        _ => false,
    }
}

fn constraints_are_apart(
    one: &PortConstraint<PortMatch>,
    other: &PortConstraint<PortMatch>,
) -> bool {
    one.any_of.as_ref().zip(other.any_of.as_ref()).is_some_and(|(one, other)| {
        has_only_numbers(one)
            && has_only_numbers(other)
            && ports_are_apart(&one.numbers, &other.numbers)
    })
}

fn has_only_numbers(list: &PortMatch) -> bool {
    let PortMatch { numbers: _, names, backends_of } = list;
    names.is_empty() && backends_of.is_none()
}

fn is_subset(inner: &PortSet, outer: &PortSet) -> bool {
    inner.ranges().iter().all(|inner| {
        outer.ranges().iter().any(|it| it.contains(inner.first()) && it.contains(inner.last()))
    })
}

fn ports_are_apart(one: &PortSet, other: &PortSet) -> bool {
    !one.ranges().iter().any(|one| {
        other.ranges().iter().any(|it| one.first() <= it.last() && it.first() <= one.last())
    })
}

fn icmp_covers(wide: IcmpMatch, narrow: IcmpMatch) -> bool {
    wide.kind == narrow.kind && wide.code.is_none_or(|code| narrow.code == Some(code))
}

fn icmp_are_apart(one: IcmpMatch, other: IcmpMatch) -> bool {
    one.kind != other.kind || one.code.zip(other.code).is_some_and(|(one, other)| one != other)
}
