//! Domain names as peers, and the addresses that they stand for.

use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use core::str::FromStr;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A name in the DNS, in canonical form: equal means the same name.
///
/// Invariants: in lower case, without the dot at the end, of at most 253 bytes; labels of 1 to 63 letters, digits, `-`
/// and `_` (RFC 1035, section 2.3.4; RFC 2181, section 11). Names in other scripts are written in their ASCII form.
///
/// ```
/// use netpol_core::model::DomainName;
///
/// let name: DomainName = "WWW.Example.com.".parse()?;
/// assert_eq!(name.as_str(), "www.example.com");
/// # Ok::<(), netpol_core::model::DomainNameError>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct DomainName(String);

/// Why a text is no domain name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{text}` is not a domain name, expected at most 253 characters in labels of 1 to 63 letters, digits, `-` and `_`"
)]
#[non_exhaustive]
pub struct DomainNameError {
    /// The text as given.
    pub text: String,
}

impl DomainName {
    /// Returns the name, without a dot at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;

    fn try_from(text: String) -> Result<Self, DomainNameError> {
        text.parse()
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() <= 253 && name.split('.').all(is_label) {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(DomainNameError { text: text.into() })
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(is_part)
}

/// A domain name, or all names below one.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a name is compared as a whole or by its end")]
pub enum DomainPattern {
    /// This name.
    Exact(DomainName),
    /// Every name that has one or more whole labels before this one, and not this one itself.
    Below(DomainName),
}

impl DomainPattern {
    /// Returns whether `name` is one that is meant.
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(it) => it == name,
            Self::Below(apex) => name
                .as_str()
                .strip_suffix(apex.as_str())
                .is_some_and(|labels| labels.ends_with('.')),
        }
    }
}

/// Prints `www.example.com` or `*.example.com`.
impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// An address that a domain name stands for, and until when: what a DNS answer says.
///
/// Nothing here asks the DNS: whoever embeds this feeds the answers that it sees, and tells when they expire. An answer
/// that goes over aliases gives its addresses to the name that was asked for, and to the aliases on the way. A later answer
/// with the same address replaces the time. A name may have any number of addresses; whoever feeds answers bounds how many.
///
/// Limits: rules see the addresses of packets, and not the name that somebody asked for, so names with one address cannot be
/// told apart. They neither filter DNS nor open the way to the DNS server. Flows that are established when an address
/// expires go on, unless the node [judges them again](crate::program::Established). Until the answer is fed, nothing
/// matches: who connects at once after looking a name up may have to try again.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a name stands for an address for some time")]
pub struct DomainAddress {
    /// The name.
    pub name: DomainName,
    /// One of its addresses.
    pub address: IpAddr,
    /// When it is one no longer. New flows to it stop then, once the inputs are told
    /// ([`Inputs::expire`](super::Inputs::expire)).
    pub expires: Timestamp,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use alloc::string::ToString;
    use alloc::vec::Vec;
    use alloc::{format, vec};

    use super::*;

    #[test]
    fn names_are_canonical() {
        for (text, want) in [
            ("example.com", "example.com"),
            ("Example.COM.", "example.com"),
            ("localhost", "localhost"),
            ("_sip._tcp.example.com", "_sip._tcp.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.0.0.10.in-addr.arpa", "1.0.0.10.in-addr.arpa"),
        ] {
            assert_eq!(text.parse::<DomainName>().unwrap().to_string(), want);
        }
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.parse::<DomainName>().unwrap().as_str(), longest);
        assert_eq!(format!("{longest}.").parse::<DomainName>().unwrap().as_str(), longest);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "*.example.com",
            "a b",
            "bücher.example",
            "a\0b",
            "a/b",
            &format!("{label}a.b"),
            &format!("{longest}a"),
        ] {
            let error = text.parse::<DomainName>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "`{text}` is not a domain name, expected at most 253 characters in labels of 1 to 63 letters, \
                     digits, `-` and `_`"
                )
            );
        }
    }

    /// Compares whole labels from the end.
    fn is_meant(pattern: &str, name: &str) -> bool {
        let labels = |text: &str| text.rsplit('.').map(ToString::to_string).collect::<Vec<_>>();
        match pattern.strip_prefix("*.") {
            None => labels(pattern) == labels(name),
            Some(apex) => {
                let (apex, name) = (labels(apex), labels(name));
                name.len() > apex.len() && name.iter().zip(&apex).all(|(a, b)| a == b)
            }
        }
    }

    #[test]
    fn wildcards_stand_for_whole_labels() {
        let names = vec![
            "kubernetes.io",
            "www.kubernetes.io",
            "latest.blog.kubernetes.io",
            "my-kubernetes.io",
            "kubernetes.io.example",
            "io",
            "kubernetes",
            "wikipedia.org",
        ];
        let mut met = 0;
        for apex in &names {
            let exact: DomainName = apex.parse().unwrap();
            for pattern in [DomainPattern::Below(exact.clone()), DomainPattern::Exact(exact)] {
                for name in &names {
                    let meant = is_meant(&pattern.to_string(), name);
                    assert_eq!(pattern.matches(&name.parse().unwrap()), meant, "{pattern} {name}");
                    met += usize::from(meant);
                }
            }
        }
        assert_eq!(
            met,
            names.len() + 2 + 4,
            "each itself, two below kubernetes.io and four below io"
        );
    }
}
