//! Keys as bytes.
//!
//! Addresses and ports are in network byte order, interfaces are padded with NULs. Each part of a concatenation takes a
//! multiple of 4 bytes, padded at the end.

use std::net::{Ipv4Addr, Ipv6Addr};

use netpol_core::net::Family;

use crate::ruleset::{Interface, Key, KeyType};

/// Returns the type's number, by which `nft` knows how to print keys; the kernel only stores it. A concatenation has 6
/// bits for each part.
///
/// Source: `enum datatypes` in `include/datatype.h` of nftables 1.0.6.
pub(crate) fn key_type_number(key: KeyType) -> u32 {
    parts(key).iter().fold(0, |number, &(part, _)| (number << 6) | part)
}

/// Returns how many bytes a key has.
pub(crate) fn key_len(key: KeyType) -> u32 {
    match parts(key).as_slice() {
        &[(_, len)] => len,
        parts => parts.iter().map(|(_, len)| len.next_multiple_of(4)).sum(),
    }
}

/// Returns the numbers and lengths of a key's parts.
fn parts(key: KeyType) -> Vec<(u32, u32)> {
    const INET_PROTO: (u32, u32) = (12, 1);
    const INET_SERVICE: (u32, u32) = (13, 2);
    const IFNAME: (u32, u32) = (41, 16);
    let address = |family| match family {
        Family::V4 => (7, 4),
        Family::V6 => (8, 16),
    };
    match key {
        KeyType::Interface => vec![IFNAME],
        KeyType::Interfaces => vec![IFNAME, IFNAME],
        KeyType::Sender(family) => vec![IFNAME, address(family)],
        KeyType::Address(family) => vec![address(family)],
        KeyType::Addresses(family) => vec![address(family), address(family)],
        KeyType::Target(family) => vec![address(family), INET_PROTO, INET_SERVICE],
        KeyType::Port => vec![INET_SERVICE],
    }
}

/// Returns the bytes of a key.
pub(crate) fn key_bytes(key: Key) -> Vec<u8> {
    match key {
        Key::Interface(name) => name.bytes().to_vec(),
        Key::Interfaces(one, two) => [one.bytes(), two.bytes()].concat(),
        Key::Sender4(name, address) => [&name.bytes()[..], &address.octets()].concat(),
        Key::Sender6(name, address) => [name.bytes(), address.octets()].concat(),
        Key::V4(address) => address.octets().to_vec(),
        Key::V6(address) => address.octets().to_vec(),
        Key::Pair4(one, two) => [one.octets(), two.octets()].concat(),
        Key::Pair6(one, two) => [one.octets(), two.octets()].concat(),
        Key::Target4(address, protocol, port) => target(&address.octets(), protocol, port),
        Key::Target6(address, protocol, port) => target(&address.octets(), protocol, port),
        Key::Port(port) => port.to_be_bytes().to_vec(),
    }
}

fn target(address: &[u8], protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    address.iter().copied().chain([protocol, 0, 0, 0, high, low, 0, 0]).collect()
}

/// Returns the key with these bytes, or `None` if they are no key of the type.
pub(crate) fn key_from_bytes(key: KeyType, bytes: &[u8]) -> Option<Key> {
    match key {
        KeyType::Interface => Some(Key::Interface(interface(bytes)?)),
        KeyType::Interfaces => {
            let (one, two) = bytes.split_at_checked(16)?;
            Some(Key::Interfaces(interface(one)?, interface(two)?))
        }
        KeyType::Sender(family) => {
            let (name, address) = bytes.split_at_checked(16)?;
            Some(match family {
                Family::V4 => Key::Sender4(interface(name)?, v4(address)?),
                Family::V6 => Key::Sender6(interface(name)?, v6(address)?),
            })
        }
        KeyType::Address(Family::V4) => Some(Key::V4(v4(bytes)?)),
        KeyType::Address(Family::V6) => Some(Key::V6(v6(bytes)?)),
        KeyType::Addresses(Family::V4) => {
            let (one, two) = bytes.split_at_checked(4)?;
            Some(Key::Pair4(v4(one)?, v4(two)?))
        }
        KeyType::Addresses(Family::V6) => {
            let (one, two) = bytes.split_at_checked(16)?;
            Some(Key::Pair6(v6(one)?, v6(two)?))
        }
        KeyType::Target(Family::V4) => {
            let (address, rest) = bytes.split_at_checked(4)?;
            let (protocol, port) = target_from_bytes(rest)?;
            Some(Key::Target4(v4(address)?, protocol, port))
        }
        KeyType::Target(Family::V6) => {
            let (address, rest) = bytes.split_at_checked(16)?;
            let (protocol, port) = target_from_bytes(rest)?;
            Some(Key::Target6(v6(address)?, protocol, port))
        }
        KeyType::Port => Some(Key::Port(u16::from_be_bytes(bytes.try_into().ok()?))),
    }
}

fn interface(bytes: &[u8]) -> Option<Interface> {
    Interface::from_bytes(bytes.try_into().ok()?)
}

fn v4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

fn target_from_bytes(bytes: &[u8]) -> Option<(u8, u16)> {
    match *bytes {
        [protocol, 0, 0, 0, high, low, 0, 0] => Some((protocol, u16::from_be_bytes([high, low]))),
        _ => None,
    }
}
