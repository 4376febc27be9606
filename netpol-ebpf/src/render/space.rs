//! Spaces: the classes of addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_core::flat::Flat;
use netpol_core::net::Family;
use netpol_core::program::Digest;
use netpol_ebpf_abi::{self as abi, AddressKey4, AddressKey6};
use zerocopy::IntoBytes;

use super::{Entries, Image, Map, Object, words};
use crate::error::EbpfError;
use crate::ids::{Ids, Kind};

/// How many bits come before the address in a prefix.
const BITS_BEFORE_ADDRESS: u32 = 32;

/// The space of an image.
pub(super) struct Space {
    pub(super) id: u32,
    pub(super) digest: Digest,
    /// What records of endpoints in the space must say of it.
    pub(super) flags: u32,
}

pub(super) fn render(flat: &Flat, ids: &mut Ids, image: &mut Image) -> Result<Space, EbpfError> {
    let prefixes: Vec<_> = flat.prefixes().collect();
    let digest = Digest::of(&("space", flat.addresses(), &prefixes));
    let id = ids.id(Kind::Space, digest).map_err(|_| EbpfError::Ids)?;
    let mut entries: BTreeMap<Map, Entries> = BTreeMap::new();
    let mut push = |map: Map, key: &[&[u8]], class: u32| {
        entries.entry(map).or_default().push(key, class.as_bytes());
    };
    for &(address, class) in flat.addresses() {
        match address {
            IpAddr::V4(it) => push(Map::Addresses4, &[key4(id, it.octets()).as_bytes()], class.0),
            IpAddr::V6(it) => push(Map::Addresses6, &[key6(id, it.octets()).as_bytes()], class.0),
        }
    }
    let mut flags = 0;
    for (prefix, class) in prefixes {
        let bits = BITS_BEFORE_ADDRESS + u32::from(prefix.len());
        match prefix.first() {
            IpAddr::V4(it) => {
                push(Map::Prefixes4, &[bits.as_bytes(), key4(id, it.octets()).as_bytes()], class.0)
            }
            IpAddr::V6(it) => {
                push(Map::Prefixes6, &[bits.as_bytes(), key6(id, it.octets()).as_bytes()], class.0)
            }
        }
        flags |= match prefix.family() {
            Family::V4 => abi::PREFIXES_V4,
            Family::V6 => abi::PREFIXES_V6,
        };
    }
    image.objects.insert((Kind::Space, id), Object { digest, entries });
    Ok(Space { id, digest, flags })
}

fn key4(space: u32, octets: [u8; 4]) -> AddressKey4 {
    AddressKey4 { space, address: u32::from_ne_bytes(octets) }
}

fn key6(space: u32, octets: [u8; 16]) -> AddressKey6 {
    AddressKey6 { space, address: words(octets) }
}
