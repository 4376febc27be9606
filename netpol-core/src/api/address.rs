//! Addresses and CIDR blocks as API servers have always taken them.

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::report::{Path, Report};
use crate::net::Prefix;

/// Returns the address that `text` stands for, `None` if it is none. Octets of IPv4 addresses may begin with zeros and
/// are decimal; an IPv4-mapped IPv6 address is the IPv4 address.
///
/// Source: `ParseIPSloppy` in `k8s.io/utils/net`; RFC 6943, section 3.1.1 on why others read such octets as octal.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    Some(Prefix::host(parse_verbatim(text)?).first())
}

/// Returns the address that the text at a place stands for; refuses the object if it is none.
pub(super) fn read_address(at: &Path<'_>, text: &str, report: &mut Report) -> Option<IpAddr> {
    let address = parse_address(text);
    if address.is_none() {
        report.refuse(at, format!("`{text}` is not an address, expected one of IPv4 or IPv6"));
    }
    address
}

/// Returns the block that `text` stands for, `None` if it is none. Host bits are masked; leading zeros and mapped
/// addresses are read as by [`parse_address`].
///
/// Source: `ParseCIDRSloppy` in `k8s.io/utils/net`.
pub(super) fn parse_block(text: &str) -> Option<Prefix> {
    let (address, len) = text.split_once('/')?;
    let is_number = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    let len = if is_number { len.parse().ok()? } else { return None };
    Prefix::containing(parse_verbatim(address)?, len).ok()
}

/// Returns the block that `text` stands for, `None` if it is none: without leading zeros and mapped addresses. Host bits
/// are masked.
///
/// Source: `isCIDR` of the API server's validation expressions, `k8s.io/apiserver/pkg/cel/library/cidr.go`, which calls
/// `netip.ParsePrefix`.
pub(super) fn parse_canonical_block(text: &str) -> Option<Prefix> {
    let (address, len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(it) if it.to_ipv4_mapped().is_some());
    if is_mapped || (len.starts_with('0') && len != "0") {
        return None;
    }
    parse_block(text)
}

/// Returns the addresses in their order, each once.
pub(super) fn distinct(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    addresses.retain(|&address| seen.insert(address));
    addresses
}

fn parse_verbatim(text: &str) -> Option<IpAddr> {
    let quad = text.rfind(':').map_or(0, |colon| colon.saturating_add(1));
    let (head, tail) = text.split_at_checked(quad)?;
    let text = if tail.contains('.') {
        let octets: String = tail.split_inclusive('.').map(without_leading_zeros).collect();
        Cow::Owned(String::from_iter([head, &octets]))
    } else {
        Cow::Borrowed(text)
    };
    text.parse().ok()
}

/// Takes leading zeros off an octet, which may be followed by its dot.
fn without_leading_zeros(octet: &str) -> &str {
    let stripped = octet.trim_start_matches('0');
    if stripped.starts_with(|first: char| first.is_ascii_digit()) {
        stripped
    } else {
        let zero = octet.len().saturating_sub(stripped.len()).saturating_sub(1);
        octet.get(zero..).unwrap_or(octet)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.0.001", Some("10.0.0.1")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("00.00.00.00", Some("0.0.0.0")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::ffff:010.0.0.1", Some("10.0.0.1")),
            ("::", Some("::")),
            ("", None),
            ("10.0.0", None),
            ("10.0.0.", None),
            ("10..0.1", None),
            ("10.0.0.256", None),
            ("10.0.0.0x1", None),
            ("10.0.0.1 ", None),
            ("fe80::1%eth0", None),
            ("1.2.3.4:", None),
        ] {
            let got = parse_address(text).map(|it| it.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn blocks() {
        for (text, want) in [
            ("10.1.2.3/24", Some("10.1.2.0/24")),
            ("010.010.0.0/016", Some("10.10.0.0/16")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("10.0.0.0", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/-8", None),
            ("10.0.0.0/8/8", None),
            ("10.0.0.0/255.0.0.0", None),
            ("10.0.0.0/264", None),
            ("::/129", None),
            (" 10.0.0.0/8", None),
        ] {
            let got = parse_block(text).map(|it| it.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn canonical_blocks() {
        for (text, want) in [
            ("10.1.2.3/24", Some("10.1.2.0/24")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:DB8::1/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("010.0.0.0/8", None),
            ("10.0.0.0/08", None),
            ("10.0.0.0/00", None),
            ("::ffff:10.0.0.0/104", None),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/8 ", None),
            ("fe80::%eth0/64", None),
        ] {
            let got = parse_canonical_block(text).map(|it| it.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }
}
