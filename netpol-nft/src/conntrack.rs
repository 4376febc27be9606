//! Flows that must end although policy keeps established ones.
//!
//! When an endpoint goes, or its address passes to another one, or it is isolated, its flows are forgotten. Otherwise
//! the rule that lets established flows pass would let them reach the next owner of the address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::model::{EndpointId, Mode};
use netpol_core::net::Family;
use netpol_core::program::Endpoint;
use netpol_core::{DataplaneError, Program};
use nftnl_sys::libc;

use crate::attribute::find;
use crate::sys::Messages;

/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE` and `IPCTNL_MSG_CT_GET_STATS` of the subsystem `NFNL_SUBSYS_CTNETLINK`.
///
/// Source, like the attributes below: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
pub(crate) const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
pub(crate) const STATISTICS: u16 = SUBSYSTEM | 5;
const SUBSYSTEM: u16 = 1 << 8;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_IP` in a tuple, `CTA_IP_V4_SRC` and `CTA_IP_V6_SRC` in that.
const ADDRESSES: u16 = 1;
const SOURCE_V4: u16 = 1;
const SOURCE_V6: u16 = 3;

/// A tracked flow: what the kernel needs for finding it, as it wrote it.
///
/// Flows are listed and deleted one by one. The kernel could delete by address, but its filter for IPv6 takes every
/// address but the one that is meant (`ctnetlink_filter_match_tuple`, Linux 5.8 to 6.18).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TrackedFlow {
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

impl TrackedFlow {
    /// Reads the attributes of a flow; `None` if it is not a flow of one of these addresses: opened by it, or opened to
    /// it, after destination NAT too, so that its replies come from it.
    pub(crate) fn of(addresses: &BTreeSet<IpAddr>, message: &[u8]) -> Option<Self> {
        let original = find(message, ORIGINAL)?;
        let ends = [Some(original), find(message, REPLY)];
        let concerned =
            ends.into_iter().flatten().filter_map(source).any(|it| addresses.contains(&it));
        let owned = |kind| find(message, kind).map(<[u8]>::to_vec);
        concerned.then(|| Self { original: original.to_vec(), id: owned(ID), zone: owned(ZONE) })
    }

    /// Appends the message that forgets the flow.
    pub(crate) fn forget(&self, messages: &mut Messages, family: Family, sequence: u32) {
        messages.push_bare(DELETE, REQUEST, sequence, [family_number(family), 0, 0, 0]);
        messages.push_attribute(ORIGINAL | NESTED, &self.original);
        for (kind, value) in [(ID, &self.id), (ZONE, &self.zone)] {
            value.iter().for_each(|value| messages.push_attribute(kind, value));
        }
    }
}

/// Returns the source address of a tuple.
fn source(tuple: &[u8]) -> Option<IpAddr> {
    let addresses = find(tuple, ADDRESSES)?;
    let v4 =
        find(addresses, SOURCE_V4).and_then(|it| <[u8; 4]>::try_from(it).ok()).map(IpAddr::from);
    v4.or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(find(addresses, SOURCE_V6)?).ok()?)))
}

/// Returns a family as netlink writes it.
pub(crate) fn family_number(family: Family) -> u8 {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    u8::try_from(number).unwrap_or_default()
}

/// Who has which address, and whether flows of it may exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Holders(BTreeMap<IpAddr, EndpointId>);

impl Holders {
    /// Returns the holders of a program, of which these endpoints were isolated. Isolated endpoints have no flows.
    pub(crate) fn of(program: &Program, isolated: &[(EndpointId, DataplaneError)]) -> Self {
        let is_isolated =
            |it: &Endpoint| it.mode == Mode::Isolate || isolated.iter().any(|(id, _)| *id == it.id);
        let with_flows = program.endpoints.iter().filter(|endpoint| !is_isolated(endpoint));
        let holders =
            with_flows.flat_map(|it| it.addresses.iter().map(|&address| (address, it.id.clone())));
        Self(holders.collect())
    }

    /// Returns the addresses whose flows end when these holders give way to others.
    pub(crate) fn ended_by(&self, next: &Self) -> BTreeSet<IpAddr> {
        let lost = self.0.iter().filter(|(address, holder)| next.0.get(address) != Some(holder));
        lost.map(|(&address, _)| address).collect()
    }
}
