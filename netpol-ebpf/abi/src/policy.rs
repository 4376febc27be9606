//! Policy: from address to class, from class to row, from row to leaf.

use super::EGRESS;

/// The table of a direction in which everything passes.
pub const OPEN: u32 = 0;

/// How many ranges a row holds itself.
pub const RANGES: usize = 4;

/// Returns the class of all addresses of a family that have no other class.
#[must_use]
pub const fn class_of_others(v6: bool) -> u32 {
    v6 as u32
}

/// An IPv4 address in a space. Prefixes are of this too: those of length n have 32 + n bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct AddressKey4 {
    /// The space.
    pub space: u32,
    /// The address.
    pub address: u32,
}

/// An IPv6 address in a space. Prefixes are of this too: those of length n have 32 + n bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct AddressKey6 {
    /// The space.
    pub space: u32,
    /// The address.
    pub address: [u32; 4],
}

/// One of several addresses of an endpoint. IPv4 addresses are mapped (RFC 4291, section 2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct OwnKey {
    /// The endpoint's id.
    pub endpoint: u32,
    /// The address.
    pub address: [u32; 4],
}

/// A class in a table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct RowKey {
    /// The table.
    pub table: u32,
    /// The class.
    pub class: u32,
}

/// What a table says to the addresses of a class.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Row {
    /// What holds outside of all ranges.
    pub default: Leaf,
    /// The list of ports in which the ranges are that had no room here; 0 if there is none.
    pub list: u32,
    /// Disjoint ranges.
    pub ranges: [Range; RANGES],
}

/// A range of destination ports, or of ICMP `type << 8 | code`, and its leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Range {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The protocol.
    pub protocol: u32,
    /// What holds there.
    pub leaf: Leaf,
}

impl Default for Range {
    /// Returns a range without ports.
    fn default() -> Self {
        Self { first: 1, last: 0, protocol: 0, leaf: Leaf(0) }
    }
}

/// A port in a list, as the key of a longest-prefix map: a prefix of length n of a port has 48 + n bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct PortKey {
    /// The list.
    pub list: u32,
    /// The protocol; [`Self::SOURCE`] in a list of source ports.
    pub protocol: u16,
    /// The port, in network order.
    pub port: u16,
}

impl PortKey {
    /// Stands for the protocol in a list of source ports. No protocol has this number.
    pub const SOURCE: u16 = 0x100;
    /// How many bits come before the port.
    pub const BITS_BEFORE_PORT: u32 = 48;
}

/// The end of a look-up: a verdict and its counter, or the list of source ports that decides.
///
/// | bits  | meaning                                        |
/// |-------|------------------------------------------------|
/// | 31    | the verdict is to allow                        |
/// | 30    | it depends on the source port                  |
/// | 0..30 | the counter, or the list of source ports       |
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Leaf(pub u32);

impl Leaf {
    const ALLOW: u32 = 1 << 31;
    const BY_SOURCE: u32 = 1 << 30;
    /// Numbers of counters and lists are below this.
    pub const LIMIT: u32 = 1 << 30;
    /// The counter of everything that no table decided, which nobody reads.
    pub const NO_COUNTER: u32 = 0;
    /// What holds in a direction without a table.
    pub const OPEN: Self = Self::allow(Self::NO_COUNTER);
    /// What holds where a table is not complete, which cannot be.
    pub const MISSING: Self = Self::deny(Self::NO_COUNTER);

    /// Returns the leaf that allows.
    #[must_use]
    pub const fn allow(counter: u32) -> Self {
        Self(Self::ALLOW | counter)
    }

    /// Returns the leaf that denies.
    #[must_use]
    pub const fn deny(counter: u32) -> Self {
        Self(counter)
    }

    /// Returns the leaf for which a list of source ports decides.
    #[must_use]
    pub const fn by_source(list: u32) -> Self {
        Self(Self::BY_SOURCE | list)
    }

    /// Returns whether the verdict is to allow.
    #[must_use]
    pub const fn allows(self) -> bool {
        self.0 & Self::ALLOW != 0
    }

    /// Returns whether the source port decides.
    #[must_use]
    pub const fn is_by_source(self) -> bool {
        self.0 & Self::BY_SOURCE != 0
    }

    /// Returns the counter, or the list of source ports.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 & (Self::LIMIT - 1)
    }
}

const _: () = assert!(size_of::<AddressKey4>() == 8);
const _: () = assert!(size_of::<AddressKey6>() == 20);
const _: () = assert!(size_of::<OwnKey>() == 20);
const _: () = assert!(size_of::<RowKey>() == 8);
const _: () = assert!(size_of::<Row>() == 56);
const _: () = assert!(size_of::<PortKey>() == 8);
// Directions are indexes of the tables of an endpoint.
const _: () = assert!(EGRESS == 1);
