//! The meaning of a flat form: two look-ups and a search of ranges, and nothing of the program it was made from.

use core::net::IpAddr;

use super::paint::icmp_of;
use super::{ClassId, Flat, Leaf, LeafId, Row, SourceId, TableKey, Then};
use crate::flow::{Direction, Flow, Payload};
use crate::net::{Protocol, Transport};
use crate::verdict::{Explanation, Step};

impl Flat {
    /// Returns the class of an address.
    #[must_use]
    pub fn class_of(&self, address: IpAddr) -> ClassId {
        self.regions.class_of(address)
    }

    /// Returns the row of a class in a table, `None` if there is no such table.
    #[must_use]
    pub fn row(&self, table: TableKey, class: ClassId) -> Option<&Row> {
        let row = self.tables.get(&table)?.row(class, self.regions.class(class)?.family);
        self.rows().get(super::pool::index(row.0))
    }

    /// Returns what a policy set says of a new flow.
    ///
    /// `None` if the policy set has no table, or if the flow is a packet of TCP, UDP, SCTP or its family's ICMP whose
    /// ports or type cannot be read: a row says nothing of those, and whoever enforces it drops them.
    #[must_use]
    pub fn look_up(&self, table: TableKey, flow: &Flow) -> Option<&Leaf> {
        let remote = match table.direction {
            Direction::Ingress => flow.source,
            Direction::Egress => flow.destination,
        };
        let row = self.row(table, self.class_of(remote))?;
        let (protocol, number, source) = place(flow)?;
        let after =
            row.cells.partition_point(|cell| (cell.protocol, cell.first) <= (protocol, number));
        let cell = after.checked_sub(1).and_then(|it| row.cells.get(it));
        let then = cell.filter(|cell| cell.protocol == protocol && number <= cell.last);
        let leaf = match then.map_or(Then::Leaf(row.default), |cell| cell.then) {
            Then::Leaf(leaf) => leaf,
            Then::BySource(list) => self.by_source(list, source)?,
        };
        self.leaves().get(super::pool::index(leaf.0))
    }

    /// Returns the same as an explanation. Its steps are the Log rules only: which tiers were passed is not kept.
    #[must_use]
    pub fn explain(&self, table: TableKey, flow: &Flow) -> Option<Explanation> {
        let leaf = self.look_up(table, flow)?;
        let steps = leaf.logs.iter().map(|rule| Step::Logged(rule.origin.clone())).collect();
        Some(Explanation { verdict: leaf.verdict, reason: leaf.reason.clone(), steps })
    }

    fn by_source(&self, list: SourceId, port: u16) -> Option<LeafId> {
        let list = self.sources().get(super::pool::index(list.0))?;
        let found = list.partition_point(|range| range.last < port);
        list.get(found).map(|range| range.leaf)
    }
}

/// Returns where in a row a flow is looked up: its protocol, the number that cells hold ranges of, and its source port.
fn place(flow: &Flow) -> Option<(Protocol, u16, u16)> {
    let protocol = flow.protocol();
    match flow.payload {
        Payload::Ports { source, destination, .. } => Some((protocol, destination, source)),
        Payload::Icmp { kind, code } => Some((protocol, u16::from_be_bytes([kind, code]), 0)),
        Payload::Other(_) => {
            let has_more =
                Transport::from_protocol(protocol).is_some() || protocol == icmp_of(flow.family());
            (!has_more).then_some((protocol, 0, 0))
        }
    }
}
