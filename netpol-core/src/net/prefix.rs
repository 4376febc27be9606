//! Address prefixes in canonical form.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::IpAddr;

use core::str::FromStr;
use serde::{Deserialize, Serialize};

use ipnet::IpNet;

/// An address family.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "there are two versions of IP")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A CIDR block in canonical form: equal means "the same addresses".
///
/// Invariant: every bit beyond the prefix length is zero. A block of IPv4-mapped addresses (`::ffff:0:0/96`, RFC 4291 section
/// 2.5.5.2) is the IPv4 block it stands for, unless it is what is left of a larger block of IPv6.
///
/// ```
/// use netpol_core::net::Prefix;
/// let prefix: Prefix = "10.1.2.3/8".parse()?;
/// assert_eq!(prefix, "10.0.0.0/8".parse()?);
/// assert_eq!(prefix, "::ffff:10.0.0.0/104".parse()?);
/// assert!(prefix.contains("10.255.0.1".parse()?));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix(IpNet);

/// Why a text or a pair of address and length is no prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// The text is not `address/length`.
    #[error(
        "`{text}` is not a CIDR block, expected an address and a prefix length such as `10.0.0.0/8`"
    )]
    Malformed {
        /// The text as given.
        text: String,
    },
    /// The length is more than the family's addresses have bits.
    #[error("prefix length {len} is too long for {family}")]
    TooLong {
        /// The length as given.
        len: u8,
        /// The family of the address.
        family: Family,
    },
}

impl Prefix {
    /// Returns the prefix of `len` bits that contains `address`.
    ///
    /// # Errors
    ///
    /// [`PrefixError::TooLong`] if `len` is more than 32 for IPv4 or 128 for IPv6.
    pub fn containing(address: IpAddr, len: u8) -> Result<Self, PrefixError> {
        Self::as_it_stands(address, len).map(|it| Self::canonical(it.0))
    }

    /// Returns the prefix of `len` bits that contains `address`, in the family of that address. What is left of a larger
    /// block of IPv6 can be the addresses that IPv4 is mapped to; it is no block of IPv4.
    ///
    /// # Errors
    ///
    /// [`PrefixError::TooLong`] if `len` is more than 32 for IPv4 or 128 for IPv6.
    pub fn as_it_stands(address: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let net = IpNet::new(address, len)
            .map_err(|_| PrefixError::TooLong { len, family: Family::of(address) })?;
        Ok(Self(net.trunc()))
    }

    /// Returns the prefix that holds just `address`.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::canonical(IpNet::from(address))
    }

    /// Returns every address of a family: `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn all(family: Family) -> Self {
        Self(match family {
            Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
        })
    }

    /// Returns the lowest address, the one that names the block.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.0.network()
    }

    /// Returns the highest address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// Returns the number of fixed bits.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a prefix always holds an address")]
    pub fn len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns the family of the block's addresses.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.first())
    }

    /// Returns whether `address` is in the block. It is taken as it stands: an IPv4-mapped IPv6 address is in no block of
    /// IPv4.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Returns whether all of `other` is in the block.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Returns the two halves of the block, `None` if it is a single address.
    #[must_use]
    pub fn halves(self) -> Option<[Self; 2]> {
        let len = self.len().checked_add(1)?;
        let mut halves = self.0.subnets(len).ok()?;
        Some([Self(halves.next()?), Self(halves.next()?)])
    }

    pub(crate) fn net(self) -> IpNet {
        self.0
    }

    fn canonical(net: IpNet) -> Self {
        if let IpNet::V6(v6) = net
            && let Some(len) = v6.prefix_len().checked_sub(96)
            && let Some(v4) = v6.network().to_ipv4_mapped()
            && let Ok(net) = IpNet::new(IpAddr::V4(v4), len)
        {
            return Self(net);
        }
        Self(net.trunc())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Parses `address/length`. Host bits are masked. Numbers do not begin with zeros, as others read such octets as
    /// octal (RFC 6943, section 3.1.1).
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let read = |(address, len): (&str, &str)| {
            let len = len.parse().ok().filter(|number: &u8| number.to_string() == len)?;
            Self::containing(address.parse().ok()?, len).ok()
        };
        let prefix = text.split_once('/').and_then(read);
        prefix.ok_or_else(|| PrefixError::Malformed { text: text.to_string() })
    }
}

/// What is written for a value. The few blocks of IPv6 that would be read as ones of IPv4 have brackets around their
/// address.
impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        if Prefix::canonical(prefix.0) == prefix {
            return prefix.to_string();
        }
        format!("[{}]/{}", prefix.first(), prefix.len())
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        let bracketed = text.strip_prefix('[').and_then(|rest| {
            let (address, len) = rest.split_once("]/")?;
            let prefix = Self::as_it_stands(address.parse().ok()?, len.parse().ok()?).ok()?;
            (String::from(prefix) == text).then_some(prefix)
        });
        bracketed.map_or_else(|| text.parse(), Ok)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the address as policy sees it: an IPv4-mapped IPv6 address is the IPv4 address.
#[must_use]
pub(crate) fn canonical_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    #[test]
    fn one_block_has_one_value() {
        for (text, want) in [
            ("10.1.2.3/24", "10.1.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.0.0.1/128", "10.0.0.1/32"),
            ("::ffff:10.0.0.1/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::fffe:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), want, "{text}");
        }
    }

    /// What is left of a larger block keeps its family, as a value and as text of a value.
    #[test]
    fn values_are_read_back() {
        let read = |text: &str| serde_json::from_value::<Prefix>(text.into());
        let mapped = |len| Prefix::as_it_stands("::ffff:0:0".parse().unwrap(), len).unwrap();
        for (prefix, text) in [
            ("10.0.0.0/8".parse().unwrap(), "10.0.0.0/8"),
            ("::/64".parse().unwrap(), "::/64"),
            (mapped(95), "::fffe:0:0/95"),
            (mapped(96), "[::ffff:0.0.0.0]/96"),
            (mapped(128), "[::ffff:0.0.0.0]/128"),
        ] {
            assert_eq!(serde_json::to_value(prefix).unwrap(), text);
            assert_eq!(read(text).unwrap(), prefix);
        }
        assert_eq!(read("::ffff:0:0/96").unwrap().to_string(), "0.0.0.0/0", "people mean IPv4");
        for text in ["[::1]/128", "[::ffff:0:0]/96", "[::ffff:0.0.0.0/96", "[10.0.0.0]/8", "[]/8"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/",
            "010.0.0.0/8",
            "fe80::1%eth0/64",
            "10.0.0.0/8 ",
        ] {
            assert_eq!(
                text.parse::<Prefix>(),
                Err(PrefixError::Malformed { text: text.into() }),
                "{text}"
            );
        }
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(
            Prefix::containing(address, 33),
            Err(PrefixError::TooLong { len: 33, family: Family::V4 })
        );
    }

    #[test]
    fn addresses_are_taken_as_they_stand() {
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        for (text, want) in [("10.0.0.0/8", false), ("::/0", true), ("::ffff:10.0.0.1/128", false)]
        {
            assert_eq!(text.parse::<Prefix>().unwrap().contains(mapped), want, "{text}");
        }
    }

    #[test]
    fn halves_are_the_block() {
        let [low, high] = "10.0.0.0/8".parse::<Prefix>().unwrap().halves().unwrap();
        assert_eq!(
            (low.to_string(), high.to_string()),
            ("10.0.0.0/9".into(), "10.128.0.0/9".into())
        );
        assert_eq!("10.0.0.1/32".parse::<Prefix>().unwrap().halves(), None);
        assert_eq!("::1/128".parse::<Prefix>().unwrap().halves(), None);
    }
}
