//! The rules of a policy.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::super::Strictness;
use super::super::field::{Extra, Field, List, Map};
use super::super::manifest::check_label_key;
use super::super::number::{Number, NumberOrName};
use super::super::report::{Path, Report};
use super::super::rules::degraded;
use super::entity::{Entity, Side, SideMatch};
use super::http::Http;
use super::l4::{L4OfFamily, ProtocolMatch, SidePorts};
use super::net::FamilyOfNets;
use super::port::PortsOf;
use super::protocol::{Icmp, WireProtocol, family_of_icmp, read_icmp, read_protocol};
use crate::flow::Direction;
use crate::model::{Action, L4Match, Rule, RuleMatch};
use crate::net::{Family, Prefix, Protocol};
use crate::selector::Selector;

/// Most rules of one direction.
///
/// Source: `NetworkPolicySpec` in Calico's `api/pkg/apis/projectcalico/v3`.
const MAX_RULES: usize = 1024;

/// Most bytes of the annotations of a rule.
///
/// Source: `TotalAnnotationSizeLimitB` in `k8s.io/apimachinery/pkg/api/validation`.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// An entry of `ingress` or `egress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct WireRule {
    action: Field<String>,
    ip_version: Field<Number>,
    protocol: Field<NumberOrName>,
    not_protocol: Field<NumberOrName>,
    icmp: Field<Icmp>,
    #[serde(rename = "notICMP")]
    not_icmp: Field<Icmp>,
    source: Field<Entity>,
    destination: Field<Entity>,
    http: Field<Http>,
    metadata: Field<RuleMetadata>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct RuleMetadata {
    annotations: Map,
    #[serde(flatten)]
    extra: Extra,
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleScope<'a> {
    pub(super) direction: Direction,
    /// The policy's own namespace; `None` for policies of the whole cluster.
    pub(super) namespace: Option<&'a str>,
    /// Selects what is in it.
    pub(super) in_namespace: Option<&'a Selector>,
}

/// What a rule says, as far as it can be read. What cannot is left out, so it matches more.
struct ReadRule {
    action: Option<Action>,
    name: Option<String>,
    matches: Vec<RuleMatch>,
}

/// Reads the rules of a direction. Each of them becomes the rules of its protocols, which all keep its index.
pub(super) fn read_rules(
    at: &Path<'_>,
    rules: &List<WireRule>,
    scope: &RuleScope<'_>,
    strictness: Strictness,
    report: &mut Report,
) -> Vec<Rule> {
    let Some(rules) = report.given(at, rules) else {
        return Vec::new();
    };
    if !report.is_at_most(MAX_RULES, at, rules.len()) {
        return Vec::new();
    }
    let mut converted = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = at.item(index);
        let mut of_rule = Report::default();
        let read = of_rule.required(&at, rule, "an object");
        let read = read.map(|rule| rule.read(&at, scope, &mut of_rule));
        let is_degraded = report.absorb_rule(of_rule, strictness);
        converted.extend(read.unwrap_or_else(ReadRule::unknown).into_rules(index, is_degraded));
    }
    converted
}

impl ReadRule {
    /// Returns a rule of which nothing can be read.
    fn unknown() -> Self {
        Self { action: None, name: None, matches: [RuleMatch::default()].into() }
    }

    /// Returns the rules of the model. One that is degraded never widens what passes, whatever its action was meant
    /// to be.
    fn into_rules(self, index: usize, is_degraded: bool) -> Vec<Rule> {
        let Self { action, name, matches } = self;
        let action = action.unwrap_or(Action::Deny);
        let mut rules: Vec<_> = match action {
            Action::Allow | Action::Log if is_degraded => [degraded(index, action)].into(),
            _ => matches.into_iter().map(|it| Rule::new(index, action, it)).collect(),
        };
        for rule in &mut rules {
            rule.name.clone_from(&name);
            rule.degraded = is_degraded;
        }
        rules
    }
}

impl WireRule {
    fn read(&self, at: &Path<'_>, scope: &RuleScope<'_>, report: &mut Report) -> ReadRule {
        let Self {
            action,
            ip_version,
            protocol: _,
            not_protocol: _,
            icmp: _,
            not_icmp: _,
            source,
            destination,
            http,
            metadata,
            extra,
        } = self;
        report.unknown_fields(Some(at), extra);
        let action = read_action(&at.field("action"), action, report);
        let version = read_version(&at.field("ipVersion"), ip_version, report);
        let protocols = report.complete(|report| self.read_protocols(at, version, report));
        let ports_of = match protocols {
            None => PortsOf::Unknown,
            Some(ProtocolMatch { is: None, .. }) => PortsOf::EveryTransport,
            Some(ProtocolMatch { is: Some(it), .. }) => PortsOf::Protocol(it.protocol),
        };
        let family = FamilyOfNets::of_version(version);
        let mut sides = SideReader { scope, ports_of, family, has_ports: false };
        let mut source = sides.read(&at.field("source"), Side::Source, source, report);
        let mut destination =
            sides.read(&at.field("destination"), Side::Destination, destination, report);
        let http_at = at.field("http");
        let http = report.complete(|report| {
            let http = report.given(&http_at, http)?.read(&http_at, report);
            check_http(&http_at, action, ports_of, scope, report);
            Some(http)
        });
        let name = read_name(&at.field("metadata"), metadata, report);
        let (http, mut family) = (http.flatten(), sides.family.family());
        if version.is_none() {
            family = family.filter(|it| !lists_restrict(*it, [&mut source, &mut destination]));
        }
        // A protocol that contradicts the ports tells nothing.
        let contradicts = sides.has_ports && ports_of.has_none();
        let l4 = match protocols.filter(|_| !contradicts) {
            None => [(None, L4Match::Any)].into(),
            Some(mut protocols) => {
                if http.is_some() {
                    // HTTP is spoken over TCP; what is no TCP never carries a request that could be asked for.
                    protocols.is.get_or_insert(WireProtocol::TCP);
                }
                let ports = SidePorts { source: source.ports, destination: destination.ports };
                protocols.with_ports(ports)
            }
        };
        let with_l4 = |(of_l4, l4): L4OfFamily| {
            Some(RuleMatch {
                family: both(family, of_l4)?,
                l4,
                source: source.address.clone(),
                destination: destination.address.clone(),
                http: http.clone(),
            })
        };
        ReadRule { action, name, matches: l4.into_iter().filter_map(with_l4).collect() }
    }

    fn read_protocols(
        &self,
        at: &Path<'_>,
        version: Option<Family>,
        report: &mut Report,
    ) -> ProtocolMatch {
        let is_at = at.field("protocol");
        let is = report.complete(|report| read_protocol(&is_at, &self.protocol, report));
        let is_not_at = at.field("notProtocol");
        let is_not = read_protocol(&is_not_at, &self.not_protocol, report);
        for (at, protocol) in [(&is_at, is.flatten()), (&is_not_at, is_not)] {
            check_version(at, protocol, version, report);
        }
        let icmp_at = at.field("icmp");
        let icmp = read_icmp(&icmp_at, &self.icmp, report);
        let not_icmp_at = at.field("notICMP");
        let not_icmp = read_icmp(&not_icmp_at, &self.not_icmp, report);
        for (at, icmp) in [(&icmp_at, &self.icmp), (&not_icmp_at, &self.not_icmp)] {
            let (Field::Given(_), Some(Some(WireProtocol { protocol, .. }))) = (icmp, is) else {
                continue;
            };
            if family_of_icmp(protocol).is_none() {
                let expected = "expected `protocol` to be `ICMP` or `ICMPv6`";
                report.refuse(at, format!("given for `{protocol}`, {expected}"));
            }
        }
        if let (Field::Given(_), Some(None)) = (&self.icmp, is) {
            let expected = "expected `protocol` to be `ICMP` or `ICMPv6`";
            report.refuse(&icmp_at, format!("given without a protocol, {expected}"));
        }
        let is_not = is_not.map(|it| it.protocol);
        ProtocolMatch { is: is.flatten(), is_not, icmp, not_icmp }
    }
}

/// Reads the sides of a rule, whose CIDR blocks are all of one family.
struct SideReader<'a> {
    scope: &'a RuleScope<'a>,
    ports_of: PortsOf,
    family: FamilyOfNets,
    /// A list of ports was there, readable or not.
    has_ports: bool,
}

impl SideReader<'_> {
    fn read(
        &mut self,
        at: &Path<'_>,
        side: Side,
        entity: &Field<Entity>,
        report: &mut Report,
    ) -> SideMatch {
        let Some(entity) = report.given(at, entity) else {
            return SideMatch::default();
        };
        self.has_ports |= entity.has_ports();
        entity.read(at, side, self.scope, &mut self.family, self.ports_of, report)
    }
}

/// Makes the lists of blocks restrict the rule to their family by themselves, which tells it apart from a rule whose author
/// names the family. Returns whether there are any.
fn lists_restrict(family: Family, sides: [&mut SideMatch; 2]) -> bool {
    if sides.iter().any(|side| side.address.nets.is_some()) {
        return true;
    }
    let Some(side) = sides.into_iter().find(|side| !side.address.not_nets.is_empty()) else {
        return false;
    };
    side.address.nets = Some([Prefix::all(family)].into_iter().collect());
    true
}

/// Returns the family of two restrictions, `None` if they exclude each other.
fn both(one: Option<Family>, other: Option<Family>) -> Option<Option<Family>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => None,
        _ => Some(one.or(other)),
    }
}

fn read_action(at: &Path<'_>, action: &Field<String>, report: &mut Report) -> Option<Action> {
    let expected = "`Allow`, `Deny`, `Pass` or `Log`";
    match report.required(at, action, expected)?.as_str() {
        "Allow" => Some(Action::Allow),
        "Deny" => Some(Action::Deny),
        "Pass" => Some(Action::Pass),
        "Log" => Some(Action::Log),
        text => {
            report.refuse(at, format!("`{text}` is not an action, expected {expected}"));
            None
        }
    }
}

fn read_version(at: &Path<'_>, version: &Field<Number>, report: &mut Report) -> Option<Family> {
    match report.given(at, version)?.value() {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        number => {
            report.refuse(at, format!("`{number}` is not a version of IP, expected 4 or 6"));
            None
        }
    }
}

/// Refuses the ICMP of one family in a rule for the other.
fn check_version(
    at: &Path<'_>,
    protocol: Option<WireProtocol>,
    version: Option<Family>,
    report: &mut Report,
) {
    if let Some(WireProtocol { protocol, .. }) = protocol
        && let Some(family) = family_of_icmp(protocol)
        && version.is_some_and(|version| version != family)
    {
        let number = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        report.refuse(
            at,
            format!(
                "`{protocol}` belongs to {family}, expected `ipVersion` to be {number} or left out"
            ),
        );
    }
}

/// Refuses a condition on HTTP where it cannot be met.
fn check_http(
    at: &Path<'_>,
    action: Option<Action>,
    ports_of: PortsOf,
    scope: &RuleScope<'_>,
    report: &mut Report,
) {
    if let Some(action @ (Action::Deny | Action::Pass | Action::Log)) = action {
        report.refuse(at, format!("given with the action `{action:?}`, expected `Allow`"));
    }
    if let PortsOf::Protocol(protocol) = ports_of
        && protocol != Protocol::TCP
    {
        let expected = "expected `protocol` to be `TCP` or left out";
        report.refuse(at, format!("given for `{protocol}`, {expected}"));
    }
    if scope.direction == Direction::Egress {
        report.refuse(at, "given for `egress`, expected it in `ingress` only");
    }
}

/// Returns the name of a rule: its annotations, `key=value` one after the other.
fn read_name(at: &Path<'_>, metadata: &Field<RuleMetadata>, report: &mut Report) -> Option<String> {
    let RuleMetadata { annotations, extra } = report.given(at, metadata)?;
    report.unknown_fields(Some(at), extra);
    let at = at.field("annotations");
    let annotations = report.given(&at, annotations)?;
    let mut name = String::new();
    for (key, value) in annotations.iter() {
        // Only the case of annotations may differ from that of labels.
        check_label_key(&at, &key.to_ascii_lowercase(), report);
        let value = report.given(&at.field(key), value).map_or("", String::as_str);
        let separator = if name.is_empty() { "" } else { ", " };
        name.extend([separator, key, "=", value]);
    }
    if name.len() > MAX_ANNOTATIONS {
        report.refuse(&at, format!("{} bytes, expected at most {MAX_ANNOTATIONS}", name.len()));
        return None;
    }
    Some(name).filter(|name| !name.is_empty())
}
