//! Memory layouts that the eBPF program and its userland share.
//!
//! No layout has padding: the kernel compares keys byte by byte. Addresses and the ports of flows are in network order,
//! everything else is in the order of the host. A protocol is a `u32` in keys, because smaller fields would need padding
//! that the compiler of the program clears by calling `memset`.
//!
//! A change of any of this needs another [`VERSION`].

#![no_std]
#![forbid(unsafe_code)]
#![expect(clippy::exhaustive_structs, reason = "the layouts are the interface")]

mod event;
mod flow;
mod policy;

pub use self::event::{Event, Reason, Statistic};
pub use self::flow::{
    FLOW_DENIED, FLOW_FROM_ENDPOINT, FLOW_OUTSIDE, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey,
    SEEN_CLOSING, SEEN_REPLY,
};
pub use self::policy::{
    AddressKey4, AddressKey6, Leaf, OPEN, OwnKey, PortKey, RANGES, Range, Row, RowKey,
    class_of_others,
};

/// The version of these layouts. Maps of different versions are pinned in different folders.
pub const VERSION: u32 = 3;

/// The number of interface indexes that have a word of their own; a higher index shares the word of its low bits.
pub const INTERFACES: u32 = 1 << 16;

/// The number of words that count events; interfaces whose indexes have the same low bits share one.
pub const RATES: u32 = 1 << 12;

/// The names under which maps are pinned and found in the object.
pub mod maps {
    /// Array: low bits of the interface index to [`publication`](super::publication).
    pub const INTERFACES: &str = "INTERFACES";
    /// Hash: interface index to record, where the word belongs to another interface.
    pub const SPILLED: &str = "SPILLED";
    /// Array: records of endpoints.
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Hash: addresses of endpoints that have several of one family.
    pub const OWN: &str = "OWN";
    /// Hash: IPv4 address to class.
    pub const ADDRESSES4: &str = "ADDRESSES4";
    /// Hash: IPv6 address to class.
    pub const ADDRESSES6: &str = "ADDRESSES6";
    /// Longest prefix: IPv4 prefix to class.
    pub const PREFIXES4: &str = "PREFIXES4";
    /// Longest prefix: IPv6 prefix to class.
    pub const PREFIXES6: &str = "PREFIXES6";
    /// Hash: table and class to row.
    pub const ROWS: &str = "ROWS";
    /// Longest prefix: list, protocol and port to leaf.
    pub const PORTS: &str = "PORTS";
    /// Hash that forgets what was not used for longest: flows over IPv4.
    pub const FLOWS4: &str = "FLOWS4";
    /// The same over IPv6.
    pub const FLOWS6: &str = "FLOWS6";
    /// Hash that forgets what was not used for longest: fragmented datagrams.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Array for each CPU: how often a leaf decided.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array for each CPU: [`Statistic`](super::Statistic)s.
    pub const STATISTICS: &str = "STATISTICS";
    /// Ring buffer of [`Event`](super::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// Array: low bits of the interface index to [`rate`](super::rate).
    pub const RATES: &str = "RATES";
    /// Hash: kind and id of an object to the digest of what it stands for. Only userland uses it.
    pub const NAMES: &str = "NAMES";
    /// Array of one: the next unused id. Only userland uses it.
    pub const NEXT: &str = "NEXT";
}

/// Returns the word that publishes the record of an interface. The record 0 is never used, so 0 publishes nothing.
#[must_use]
pub const fn publication(interface: u32, record: u32) -> u64 {
    ((interface as u64) << 32) | record as u64
}

/// Returns the interface and the record of a word.
#[must_use]
pub const fn published(word: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let halves = ((word >> 32) as u32, word as u32);
    halves
}

/// Returns the word that says how many events there were in a second.
#[must_use]
pub const fn rate(second: u32, events: u32) -> u64 {
    ((second as u64) << 32) | events as u64
}

/// Returns the second and the number of events of a word.
#[must_use]
pub const fn rated(word: u64) -> (u32, u32) {
    published(word)
}

/// A direction of traffic, as an index and as a part of events.
pub const INGRESS: u32 = 0;
/// See [`INGRESS`].
pub const EGRESS: u32 = 1;

/// Nothing passes but neighbour discovery.
pub const ISOLATED: u32 = 1;
/// Denials are reported, and pass.
pub const AUDIT: u32 = 1 << 1;
/// What the endpoint sends must carry one of its addresses.
pub const CHECK_SOURCE: u32 = 1 << 2;
/// The endpoint has several addresses of a family, so that they are in the map of own addresses.
pub const MORE_ADDRESSES: u32 = 1 << 3;
/// The space has IPv4 prefixes.
pub const PREFIXES_V4: u32 = 1 << 4;
/// The space has IPv6 prefixes.
pub const PREFIXES_V6: u32 = 1 << 5;
/// Flows that a newer generation denies stop.
pub const REEVALUATE: u32 = 1 << 6;
/// The endpoint may not send IP in IP (RFC 2003).
pub const NO_IP_IN_IP: u32 = 1 << 7;
/// The endpoint may not send to the UDP ports of tunnels.
pub const NO_TUNNELS: u32 = 1 << 8;

/// How many UDP ports of tunnels there may be.
pub const TUNNELS: usize = 4;

/// What is in force for an endpoint. Written once, then published; never changed while it is published.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Endpoint {
    /// Identifies the endpoint in flows. Never used again for another one.
    pub id: u32,
    /// Counts the changes of what is in force.
    pub generation: u32,
    /// The tables that judge ingress and egress; [`OPEN`] where everything passes.
    pub tables: [u32; 2],
    /// Which classes of addresses the tables know.
    pub space: u32,
    /// [`ISOLATED`], [`AUDIT`] and so on.
    pub flags: u32,
    /// The first IPv4 address, 0 if there is none.
    pub v4: u32,
    /// The interface, so that the records can be read without the words.
    pub interface: u32,
    /// The first IPv6 address, zeros if there is none.
    pub v6: [u32; 4],
    /// The UDP ports of tunnels, in network order, with [`NO_TUNNELS`]. What is not needed repeats the first one.
    pub tunnels: [u16; TUNNELS],
}

const _: () = assert!(size_of::<Endpoint>() == 56);
