//! What a rule of a Kubernetes policy says about destination ports.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::report::{Path, Report};
use crate::model::{L4Match, PortConstraint, PortMatch};
use crate::net::{PortRange, Transport};

/// The ports of a rule. Empty: it says nothing, so it is about every protocol.
#[derive(Debug, Default)]
pub(super) struct Ports(BTreeMap<Transport, PortsOf>);

/// What one entry is about.
pub(super) enum PortEntry<'f> {
    /// Every port of a transport.
    Every,
    /// Some numbers.
    Numbers(PortRange),
    /// The ports that have a name.
    Name(&'f str),
}

/// The ports of one transport.
#[derive(Debug, Default)]
struct PortsOf {
    /// Every port of the transport, whatever else is listed.
    is_every: bool,
    numbers: Vec<PortRange>,
    names: BTreeSet<String>,
}

impl Ports {
    /// Adds an entry to those of which a flow must meet one.
    pub(super) fn add(&mut self, transport: Transport, entry: PortEntry<'_>) {
        let of = self.0.entry(transport).or_default();
        match entry {
            PortEntry::Every => of.is_every = true,
            PortEntry::Numbers(range) => of.numbers.push(range),
            PortEntry::Name(name) => {
                of.names.insert(name.into());
            }
        }
    }

    /// Returns the conditions of which a flow must meet one, where every name is one of the destination's.
    pub(super) fn matches(&self) -> Vec<L4Match<PortMatch>> {
        if self.0.is_empty() {
            return [L4Match::Any].into();
        }
        let one = |(&transport, of): (&Transport, &PortsOf)| {
            of.matches(transport, &of.numbers, &of.names)
        };
        self.0.iter().map(one).collect()
    }

    /// Returns the conditions that hold for addresses of any kind, and those that hold for the pods that have ports of
    /// these names.
    pub(super) fn matches_apart(&self) -> (Vec<L4Match<PortMatch>>, Vec<L4Match<PortMatch>>) {
        if self.0.is_empty() {
            return ([L4Match::Any].into(), Vec::new());
        }
        let numbered = self.0.iter().filter(|(_, of)| of.is_every || !of.numbers.is_empty());
        let named = self.0.iter().filter(|(_, of)| !of.is_every && !of.names.is_empty());
        (
            numbered
                .map(|(&transport, of)| of.matches(transport, &of.numbers, &BTreeSet::new()))
                .collect(),
            named.map(|(&transport, of)| of.matches(transport, &[], &of.names)).collect(),
        )
    }
}

impl PortsOf {
    fn matches(
        &self,
        transport: Transport,
        numbers: &[PortRange],
        names: &BTreeSet<String>,
    ) -> L4Match<PortMatch> {
        if self.is_every {
            return L4Match::Is(transport.protocol());
        }
        let numbers = numbers.iter().copied().collect();
        let ports = PortMatch { numbers, names: names.clone(), backends_of: None };
        let destination = PortConstraint { any_of: Some(ports), none_of: None };
        L4Match::Ports { transport, source: PortConstraint::default(), destination }
    }
}

/// Reads the name of a transport, in capitals.
pub(super) fn read_transport(
    at: &Path<'_>,
    protocol: &str,
    report: &mut Report,
) -> Option<Transport> {
    match protocol {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        "SCTP" => Some(Transport::Sctp),
        _ => {
            report.refuse(
                at,
                format!("`{protocol}` is not a protocol, expected `TCP`, `UDP` or `SCTP`"),
            );
            None
        }
    }
}
