//! Events and statistics.

/// A denied packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Event {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// The endpoint's id, 0 if the interface has no endpoint.
    pub endpoint: u32,
    /// The interface.
    pub interface: u32,
    /// The other address. IPv4 addresses are in the first word.
    pub remote: [u32; 4],
    /// The endpoint's address.
    pub local: [u32; 4],
    /// The other port, in network order; of ICMP, type and code.
    pub remote_port: u16,
    /// The endpoint's port, in network order.
    pub local_port: u16,
    /// The protocol.
    pub protocol: u8,
    /// [`INGRESS`](super::INGRESS) or [`EGRESS`](super::EGRESS).
    pub direction: u8,
    /// 4 or 6; 0 for other packets.
    pub version: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// The counter of the leaf that denied, where one did.
    pub counter: u32,
    /// 1 if the packet passed all the same, because the endpoint is in audit mode.
    pub audited: u32,
}

/// Why a packet was denied.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Reason {
    /// A leaf of a table.
    Policy = 1,
    /// A flow that was allowed, and is no longer.
    Revoked = 2,
    /// The endpoint is isolated.
    Isolated = 3,
    /// The source is not an address of the endpoint.
    Source = 4,
    /// A router advertisement or redirect from an endpoint.
    RouterMessage = 5,
    /// A fragment whose first fragment was not seen.
    Fragment = 6,
    /// Headers that end too early or contradict themselves.
    Malformed = 7,
    /// More extension headers than are followed.
    ExtensionHeaders = 8,
    /// Neither IP nor ARP.
    EtherType = 9,
    /// No endpoint has this interface.
    NoEndpoint = 10,
    /// The packet names further destinations, which policy would not be asked about.
    SourceRoute = 11,
    /// The packet carries others, which no endpoint may send.
    Encapsulated = 12,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::Policy,
        Self::Revoked,
        Self::Isolated,
        Self::Source,
        Self::RouterMessage,
        Self::Fragment,
        Self::Malformed,
        Self::ExtensionHeaders,
        Self::EtherType,
        Self::NoEndpoint,
        Self::SourceRoute,
        Self::Encapsulated,
    ];
}

/// What is counted beside the leaves.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Statistic {
    /// Packets of known flows that passed.
    Established = 0,
    /// New flows.
    Opened = 1,
    /// Packets that were dropped.
    Dropped = 2,
    /// Events that found no room.
    LostEvents = 3,
    /// Flows that could not be noted; their packet passed.
    LostFlows = 4,
    /// Flows that were judged again.
    Judged = 5,
    /// Flows that stopped because they were judged again.
    Revoked = 6,
    /// ICMP errors that passed because of their flow.
    Related = 7,
    /// Events that were not sent, because their interface had sent as many as it may in that second.
    LimitedEvents = 8,
}

impl Statistic {
    /// All statistics, by index.
    pub const ALL: [Self; 9] = [
        Self::Established,
        Self::Opened,
        Self::Dropped,
        Self::LostEvents,
        Self::LostFlows,
        Self::Judged,
        Self::Revoked,
        Self::Related,
        Self::LimitedEvents,
    ];
}

const _: () = assert!(size_of::<Event>() == 64);
