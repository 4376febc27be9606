//! Flows and fragments.

/// A flow over IPv4, seen from the endpoint: one key for both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FlowKey4 {
    /// The endpoint's id, so that two endpoints that share a flow have an entry each.
    pub endpoint: u32,
    /// The other address.
    pub remote: u32,
    /// The endpoint's address.
    pub local: u32,
    /// The other port; the identifier of an ICMP query; 0 if the protocol has no ports.
    pub remote_port: u16,
    /// The endpoint's port; the identifier of an ICMP query; 0 if the protocol has no ports.
    pub local_port: u16,
    /// The protocol; for ICMP with the type of the query in the second byte.
    pub protocol: u32,
}

/// A flow over IPv6; as [`FlowKey4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FlowKey6 {
    /// As in [`FlowKey4`].
    pub endpoint: u32,
    /// As in [`FlowKey4`].
    pub remote: [u32; 4],
    /// As in [`FlowKey4`].
    pub local: [u32; 4],
    /// As in [`FlowKey4`].
    pub remote_port: u16,
    /// As in [`FlowKey4`].
    pub local_port: u16,
    /// As in [`FlowKey4`].
    pub protocol: u32,
}

/// The endpoint opened the flow.
pub const FLOW_FROM_ENDPOINT: u16 = 1;
/// A newer generation denied the flow. The entry stays, so that no packet of the other direction opens it again.
pub const FLOW_DENIED: u16 = 1 << 1;
/// The flow is outside of policy, whatever the generation.
pub const FLOW_OUTSIDE: u16 = 1 << 2;

/// The other side has answered.
pub const SEEN_REPLY: u16 = 1;
/// TCP has begun to end.
pub const SEEN_CLOSING: u16 = 1 << 1;

/// What is known of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Flow {
    /// When a packet of it was last seen, in ticks of the kernel.
    pub last: u64,
    /// The endpoint's generation that judged it.
    pub generation: u32,
    /// What was judged: [`FLOW_FROM_ENDPOINT`] and so on.
    pub flags: u16,
    /// What its packets showed: [`SEEN_REPLY`] and so on. Apart from the flags, because processors write to both at the
    /// same time, and a verdict must not get lost by that.
    pub seen: u16,
}

/// A fragmented datagram. IPv4 addresses are mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FragmentKey {
    /// The other address.
    pub remote: [u32; 4],
    /// The endpoint's address.
    pub local: [u32; 4],
    /// The endpoint's id.
    pub endpoint: u32,
    /// The identification, in network order.
    pub id: u32,
    /// The direction in the second byte and the version of IP in the third. Over IPv4 with the protocol (RFC 791,
    /// section 3.2); over IPv6 the later fragments need not have that of the first one (RFC 8200, section 4.5).
    pub kind: u32,
}

/// What the first fragment said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Fragment {
    /// As in [`FlowKey4`].
    pub remote_port: u16,
    /// As in [`FlowKey4`].
    pub local_port: u16,
    /// The type and code of ICMP, and the type of its query.
    pub icmp: u32,
    /// The protocol.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKey4>() == 20);
const _: () = assert!(size_of::<FlowKey6>() == 44);
const _: () = assert!(size_of::<Flow>() == 16);
const _: () = assert!(size_of::<FragmentKey>() == 44);
const _: () = assert!(size_of::<Fragment>() == 12);
