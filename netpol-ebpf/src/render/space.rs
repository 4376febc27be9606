//! Spaces: the classes of addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_core::flat::{ClassId, Flat};
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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Space {
    pub(crate) id: u32,
    pub(super) digest: Option<Digest>,
    /// What records of endpoints in the space must say of it.
    pub(crate) flags: u32,
}

pub(super) fn render(flat: &Flat, ids: &mut Ids, image: &mut Image) -> Result<Space, EbpfError> {
    let prefixes: Vec<_> = flat.prefixes().collect();
    let digest = Digest::of(&("space", flat.addresses(), &prefixes));
    let id = ids.id(Kind::Space, digest).map_err(|_| EbpfError::Ids)?;
    let flags = prefixes.iter().fold(0, |flags, (prefix, _)| {
        flags
            | match prefix.family() {
                Family::V4 => abi::PREFIXES_V4,
                Family::V6 => abi::PREFIXES_V6,
            }
    });
    image.objects.insert((Kind::Space, id), Object { digest, entries: entries(id, flat) });
    Ok(Space { id, digest: Some(digest), flags })
}

/// Returns what the classes of a flat form are in maps, as a space.
pub(crate) fn entries(space: u32, flat: &Flat) -> BTreeMap<Map, Entries> {
    let mut entries: BTreeMap<Map, Entries> = BTreeMap::new();
    for (address, ClassId(class)) in flat.addresses() {
        let (map, key) = entry(space, address);
        entries.entry(map).or_default().push(&[&key], class.as_bytes());
    }
    for (prefix, ClassId(class)) in flat.prefixes() {
        let bits = BITS_BEFORE_ADDRESS + u32::from(prefix.len());
        let (map, key) = entry(space, prefix.first());
        let map = if map == Map::Addresses4 { Map::Prefixes4 } else { Map::Prefixes6 };
        entries.entry(map).or_default().push(&[bits.as_bytes(), &key], class.as_bytes());
    }
    entries
}

/// Returns where the class of a single address is.
pub(crate) fn entry(space: u32, address: IpAddr) -> (Map, Vec<u8>) {
    match address {
        IpAddr::V4(it) => (Map::Addresses4, key4(space, it.octets()).as_bytes().to_vec()),
        IpAddr::V6(it) => (Map::Addresses6, key6(space, it.octets()).as_bytes().to_vec()),
    }
}

fn key4(space: u32, octets: [u8; 4]) -> AddressKey4 {
    AddressKey4 { space, address: u32::from_ne_bytes(octets) }
}

fn key6(space: u32, octets: [u8; 16]) -> AddressKey6 {
    AddressKey6 { space, address: words(octets) }
}
