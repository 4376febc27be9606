//! The peers of a rule.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::super::address::parse_block;
use super::super::field::{Extra, Field, List};
use super::super::label_selector::LabelSelector;
use super::super::labels::LabelSpace;
use super::super::manifest::required_text;
use super::super::pods::Pods;
use super::super::report::{Path, Report};
use crate::model::{EntityMatch, Peers, keys};
use crate::net::{Prefix, PrefixSet};
use crate::selector::Selector;

/// An entry of `from` or `to`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Peer {
    pod_selector: Field<LabelSelector>,
    namespace_selector: Field<LabelSelector>,
    ip_block: Field<IpBlock>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct IpBlock {
    cidr: Field<String>,
    except: List<String>,
    #[serde(flatten)]
    extra: Extra,
}

/// What a policy can select: pods, of its own namespace unless it says otherwise.
pub(super) struct PolicyScope {
    pub(super) pods: Pods,
    own_namespace: Selector,
}

impl PolicyScope {
    /// Returns the terms for the policies of a namespace.
    pub(super) fn of(namespace: &str, report: &mut Report) -> Self {
        let own_namespace = Selector::equal(keys::NAMESPACE, namespace).unwrap_or_else(|error| {
            report.refuse(&Path::top("metadata").field("namespace"), error);
            Selector::none()
        });
        Self { pods: Pods::new(report), own_namespace }
    }

    /// Returns the selector of the pods of the policy's namespace for which all of `terms` hold.
    pub(super) fn own_pods(&self, terms: Vec<Selector>) -> Selector {
        let confined = [self.own_namespace.clone(), self.pods.all().clone()];
        Selector::and(confined.into_iter().chain(terms))
    }
}

/// Reads the peers of a rule: what one side of the flow must meet one of. Blocks without exceptions are read as one.
///
/// Without entries every address is a peer.
pub(super) fn read_peers(
    at: &Path<'_>,
    peers: &List<Peer>,
    scope: &PolicyScope,
    report: &mut Report,
) -> Vec<EntityMatch> {
    let mut read = Vec::new();
    let mut blocks: Vec<Prefix> = Vec::new();
    if peers.value().is_none_or(Vec::is_empty) {
        report.given(at, peers);
        return [EntityMatch::default()].into();
    }
    report.each_item(at, peers, "an object", |report, at, peer| {
        match peer.read(at, scope, report) {
            Some(PeerMatch::Block(cidr, except)) if except.is_empty() => blocks.push(cidr),
            Some(PeerMatch::Block(cidr, except)) => read.push(EntityMatch {
                nets: Some([cidr].into_iter().collect()),
                not_nets: except,
                ..EntityMatch::default()
            }),
            Some(PeerMatch::Pods(selector)) => {
                read.push(EntityMatch {
                    peers: Some(Peers::Endpoints(selector)),
                    ..EntityMatch::default()
                });
            }
            None => {}
        }
    });
    if !blocks.is_empty() {
        read.push(EntityMatch {
            nets: Some(blocks.into_iter().collect()),
            ..EntityMatch::default()
        });
    }
    read
}

enum PeerMatch {
    Pods(Selector),
    Block(Prefix, PrefixSet),
}

impl Peer {
    fn read(&self, at: &Path<'_>, scope: &PolicyScope, report: &mut Report) -> Option<PeerMatch> {
        let Self { pod_selector, namespace_selector, ip_block, extra } = self;
        report.unknown_fields(Some(at), extra);
        let pods_at = at.field("podSelector");
        let pods = report
            .given(&pods_at, pod_selector)
            .map(|it| it.to_terms(LabelSpace::Pods, &pods_at, report));
        let namespaces_at = at.field("namespaceSelector");
        let namespaces = report
            .given(&namespaces_at, namespace_selector)
            .map(|it| it.to_terms(LabelSpace::Namespaces, &namespaces_at, report));
        let block_at = at.field("ipBlock");
        let block = report.given(&block_at, ip_block).map(|it| it.read(&block_at, report));
        let has_selector = pod_selector.is_written() || namespace_selector.is_written();
        if !has_selector && !ip_block.is_written() {
            report.refuse(at, "empty, expected `podSelector`, `namespaceSelector` or `ipBlock`");
        } else if has_selector && ip_block.is_written() {
            report.refuse(at, "`ipBlock` beside a selector, expected `ipBlock` alone");
        }
        match (namespaces, pods, block) {
            (None, Some(pods), None) => Some(PeerMatch::Pods(scope.own_pods(pods))),
            (Some(namespaces), pods, None) => Some(PeerMatch::Pods(
                scope.pods.in_namespaces(namespaces, pods.unwrap_or_default()),
            )),
            (None, None, Some(block)) => block.map(|(cidr, except)| PeerMatch::Block(cidr, except)),
            _ => None,
        }
    }
}

impl IpBlock {
    fn read(&self, at: &Path<'_>, report: &mut Report) -> Option<(Prefix, PrefixSet)> {
        let Self { cidr, except, extra } = self;
        report.unknown_fields(Some(at), extra);
        let cidr_at = at.field("cidr");
        let cidr = required_text(report, &cidr_at, cidr, "a CIDR block such as `10.0.0.0/8`")
            .and_then(|text| read_block(&cidr_at, text, report));
        let at = at.field("except");
        let mut holes = Vec::new();
        report.each_item(&at, except, "a CIDR block", |report, at, text| {
            let hole = read_block(at, text, report);
            if let (Some(cidr), Some(hole)) = (cidr, hole)
                && !(cidr.covers(hole) && cidr.len() < hole.len())
            {
                report.refuse(
                    at,
                    format!("`{text}` is not strictly inside `cidr`, expected part of `{cidr}`"),
                );
            }
            holes.extend(hole);
        });
        Some((cidr?, holes.into_iter().collect()))
    }
}

fn read_block(at: &Path<'_>, text: &str, report: &mut Report) -> Option<Prefix> {
    let block = parse_block(text);
    if block.is_none() {
        let expected = "an address and a prefix length such as `10.0.0.0/8`";
        report.refuse(at, format!("`{text}` is not a CIDR block, expected {expected}"));
    }
    block
}
