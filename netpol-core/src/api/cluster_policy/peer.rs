//! The peers of a rule.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::super::address::parse_canonical_block;
use super::super::field::{Extra, Field, List};
use super::super::label_selector::LabelSelector;
use super::super::labels::LabelSpace;
use super::super::pods::Pods;
use super::super::report::{Path, Report};
use super::domain::read_pattern;
use super::tenancy::{NamespacedPods, Namespaces};
use super::{Dialect, MAX_VALUES, alternatives};
use crate::flow::Direction;
use crate::model::{DomainPattern, EntityMatch, Peers};
use crate::net::Prefix;
use crate::selector::Selector;

/// An entry of `from` or `to`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Peer {
    namespaces: Field<Namespaces>,
    pods: Field<NamespacedPods>,
    networks: List<String>,
    nodes: Field<LabelSelector>,
    domain_names: List<String>,
    #[serde(flatten)]
    extra: Extra,
}

/// The peers of a rule.
#[derive(Debug, Default)]
pub(super) struct RulePeers {
    pods: Vec<Peers>,
    nodes: Vec<Selector>,
    networks: Vec<Prefix>,
    domain_names: BTreeSet<DomainPattern>,
}

impl RulePeers {
    /// Returns whether some are no pods, and so have no names of ports.
    pub(super) fn has_addresses(&self) -> bool {
        !self.nodes.is_empty() || !self.networks.is_empty() || self.has_domain_names()
    }

    /// Returns whether some are domain names.
    pub(super) fn has_domain_names(&self) -> bool {
        !self.domain_names.is_empty()
    }

    /// Returns the conditions of which one side of the flow must meet one.
    pub(super) fn matches(self) -> Vec<EntityMatch> {
        let Self { pods, nodes, networks, domain_names } = self;
        let names = (!domain_names.is_empty()).then_some(Peers::DomainNames(domain_names));
        let peers = pods.into_iter().chain(nodes.into_iter().map(Peers::Nodes)).chain(names);
        let of = |peers| EntityMatch { peers: Some(peers), ..EntityMatch::default() };
        let mut matches: Vec<_> = peers.map(of).collect();
        if !networks.is_empty() {
            let nets = Some(networks.into_iter().collect());
            matches.push(EntityMatch { nets, ..EntityMatch::default() });
        }
        matches
    }
}

/// How peers are read.
pub(super) struct PeerReader<'a> {
    pub(super) dialect: Dialect,
    pub(super) direction: Direction,
    pub(super) pods: &'a Pods,
}

impl PeerReader<'_> {
    /// Reads the peers of a rule, of which there must be one.
    pub(super) fn read(&self, at: &Path<'_>, peers: &List<Peer>, report: &mut Report) -> RulePeers {
        let mut read = RulePeers::default();
        match peers {
            Field::Absent => report.refuse(at, "missing, expected at least one peer"),
            Field::Given(peers) if peers.is_empty() => {
                report.refuse(at, "empty, expected at least one peer");
            }
            Field::Given(_) | Field::Malformed(_) => {}
        }
        let limit = self.dialect.max_items();
        report.each_item_up_to(limit, at, peers, "an object", |report, at, peer| {
            self.read_peer(at, peer, &mut read, report);
        });
        read
    }

    fn read_peer(&self, at: &Path<'_>, peer: &Peer, read: &mut RulePeers, report: &mut Report) {
        let Peer { namespaces, pods, networks, nodes, domain_names, extra } = peer;
        report.unknown_fields(Some(at), extra);
        self.check_fields(at, peer, report);
        let namespaces_at = at.field("namespaces");
        let all = report.given(&namespaces_at, namespaces);
        read.pods
            .extend(all.and_then(|it| it.read(&namespaces_at, self.dialect, self.pods, report)));
        let pods_at = at.field("pods");
        let some = report.given(&pods_at, pods);
        read.pods.extend(some.and_then(|it| it.read(&pods_at, self.dialect, self.pods, report)));
        read.networks.extend(read_networks(&at.field("networks"), networks, report));
        let nodes_at = at.field("nodes");
        read.nodes.extend(
            report
                .given(&nodes_at, nodes)
                .map(|it| Selector::and(it.to_terms(LabelSpace::Nodes, &nodes_at, report))),
        );
        read.domain_names.extend(read_names(&at.field("domainNames"), domain_names, report));
    }

    /// Checks that exactly one field is written, and that it is one that peers of this direction have.
    fn check_fields(&self, at: &Path<'_>, peer: &Peer, report: &mut Report) {
        let Peer { namespaces, pods, networks, nodes, domain_names, extra: _ } = peer;
        let fields = [
            ("namespaces", namespaces.is_written()),
            ("pods", pods.is_written()),
            ("networks", networks.is_written()),
            ("nodes", nodes.is_written()),
            ("domainNames", domain_names.is_written()),
        ];
        let known = match (self.direction, self.dialect) {
            (Direction::Ingress, _) => 2,
            (Direction::Egress, Dialect::Baseline) => 4,
            (Direction::Egress, Dialect::Cluster | Dialect::Admin) => 5,
        };
        let (known, unknown) = fields.split_at_checked(known).unwrap_or((&fields, &[]));
        for (name, _) in unknown.iter().filter(|(_, is_written)| *is_written) {
            report.refuse(&at.field(name), "unknown field");
        }
        let expected = alternatives(known.iter().map(|(name, _)| *name));
        match known.iter().filter(|(_, is_written)| *is_written).count() {
            0 => report.refuse(at, format!("no known field, expected {expected}")),
            1 => {}
            _ => report.refuse(at, format!("several fields, expected one of {expected}")),
        }
    }
}

/// Reads blocks, of which none is written twice. Host bits are masked.
///
/// Source: `isCIDR` of the API server's expressions, which parses as `net/netip` does.
fn read_networks(at: &Path<'_>, networks: &List<String>, report: &mut Report) -> Vec<Prefix> {
    let mut blocks = Vec::new();
    let expected = "a CIDR block such as `10.0.0.0/8`";
    read_distinct(at, networks, expected, report, |report, at, text| {
        let block = parse_canonical_block(text);
        if block.is_none() {
            let expected = "an address and a prefix length such as `10.0.0.0/8`";
            report.refuse(at, format!("`{text}` is not a CIDR block, expected {expected}"));
        }
        blocks.extend(block);
    });
    blocks
}

fn read_names(at: &Path<'_>, names: &List<String>, report: &mut Report) -> BTreeSet<DomainPattern> {
    let mut patterns = BTreeSet::new();
    read_distinct(at, names, "a domain name", report, |report, at, text| {
        patterns.extend(read_pattern(at, text, report));
    });
    patterns
}

/// Reads the texts of a list that is a set of at least one.
fn read_distinct(
    at: &Path<'_>,
    list: &List<String>,
    expected: &str,
    report: &mut Report,
    mut read: impl FnMut(&mut Report, &Path<'_>, &str),
) {
    if list.value().is_some_and(Vec::is_empty) {
        report.refuse(at, format!("empty, expected {expected}"));
    }
    let mut seen = BTreeSet::new();
    report.each_item_up_to(MAX_VALUES, at, list, expected, |report, at, text| {
        if !seen.insert(text.as_str()) {
            report.refuse(at, format!("`{text}` twice, expected it once"));
        }
        read(report, at, text);
    });
}
