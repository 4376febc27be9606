//! Addresses, prefixes, ports and protocols: the values that rules and flows are made of.

mod port;
mod prefix;
mod prefix_map;
mod prefix_set;
mod protocol;

pub use self::port::{PortRange, PortRangeError, PortSet};
pub(crate) use self::prefix::canonical_address;
pub use self::prefix::{Family, Prefix, PrefixError};
pub use self::prefix_map::PrefixMap;
pub use self::prefix_set::PrefixSet;
pub use self::protocol::{IcmpMatch, Protocol, Transport};
