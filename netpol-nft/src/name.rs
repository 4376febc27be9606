//! Names of the objects in our table.
//!
//! A name says everything that a process without memory must know: the prefix [`OWN`] makes the object ours, the
//! digest stands for the content, and the place of a set whose members change is part of its name.

use std::fmt;

use netpol_core::Direction;
use netpol_core::net::Family;
use sha2::{Digest, Sha256};

use crate::ruleset::KeyType;

/// The prefix of every chain and set that we make.
///
/// It has a hyphen because words such as `fwd` or `all` are keywords that `nft` cannot read back as names.
pub(crate) const OWN: &str = "np-";

/// The comment of our table. Version 1 is the layout that `render` describes.
pub(crate) const TABLE_COMMENT: &str = "netpol schema=1";

/// The part of [`TABLE_COMMENT`] that all versions share.
pub(crate) const TABLE_MARK: &str = "netpol schema=";

/// The name of the one table that a dataplane owns.
///
/// Invariants: 1 to 32 bytes; lower-case letters, digits and hyphens, beginning with a letter; `netpol` or a name with a
/// hyphen, so that it is no keyword of `nft`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner(String);

/// Why a text cannot name our table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The text is empty or too long.
    #[error("owner `{text}` has {} bytes, expected 1 to {max}", text.len(), max = Owner::MAX_BYTES)]
    Length {
        /// The text as given.
        text: String,
    },
    /// The text has a character that we do not use.
    #[error(
        "owner `{text}` may only have lower-case letters, digits and hyphens, and must begin with a letter"
    )]
    Character {
        /// The text as given.
        text: String,
    },
    /// The text may be a keyword of `nft`.
    #[error("owner `{text}` may be a keyword of nft, expected `netpol` or a name with a hyphen")]
    Keyword {
        /// The text as given.
        text: String,
    },
}

impl Owner {
    /// Longest owner, in bytes; far below the kernel's limit of 255 (`NFT_NAME_MAXLEN`).
    pub const MAX_BYTES: usize = 32;

    /// Returns the owner called `text`.
    ///
    /// # Errors
    ///
    /// [`OwnerError`] if the text breaks an invariant of the type.
    pub fn new(text: &str) -> Result<Self, OwnerError> {
        let text = text.to_owned();
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(OwnerError::Length { text });
        }
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.chars().all(known) {
            return Err(OwnerError::Character { text });
        }
        if text != "netpol" && !text.contains('-') {
            return Err(OwnerError::Keyword { text });
        }
        Ok(Self(text))
    }

    /// Returns the name of the table.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self("netpol".to_owned())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a chain or a set.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Name(String);

impl Name {
    /// Returns the name as found in the kernel or as fixed by the layout.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the name of the chain of a stage with this content.
    pub(crate) fn stage(side: Side, content: &str) -> Self {
        Self(format!("{OWN}{}-{}", side.short(), digest(content.as_bytes())))
    }

    /// Returns the name of a set of exact members. It outlives changes of its members, so it is named after what they
    /// are members of, and after its place.
    pub(crate) fn members(kind: Members, family: Family, id: &str, place: Place) -> Self {
        Self(format!("{}-{place}", Self::members_stem(kind, family, id)))
    }

    /// Returns what the names of such a set share in all places.
    pub(crate) fn members_stem(kind: Members, family: Family, id: &str) -> String {
        let kind = match kind {
            Members::Addresses => 's',
            Members::NamedPorts => 'n',
        };
        format!("{OWN}{kind}{}-{}", digit(family), short_id(id))
    }

    /// Returns the name of an immutable set with this content.
    pub(crate) fn ranges(kind: Ranges, content: &str) -> Self {
        let kind = match kind {
            Ranges::Prefixes(Family::V4) => "c4",
            Ranges::Prefixes(Family::V6) => "c6",
            Ranges::Ports => "p",
        };
        Self(format!("{OWN}{kind}-{}", digest(content.as_bytes())))
    }

    /// Returns the stem and the place in the name of a set of exact members.
    pub(crate) fn place(&self) -> Option<(&str, Place)> {
        let (stem, place) = self.0.rsplit_once('-')?;
        self.members_family()?;
        let (slot, exponent) = match place.strip_suffix(SECOND) {
            Some(exponent) => (Slot::Second, exponent),
            None => (Slot::First, place),
        };
        let class = SizeClass::from_exponent(exponent.parse().ok()?)?;
        Some((stem, Place { class, slot }))
    }

    /// Returns the family of a set of exact members, `None` of everything else.
    pub(crate) fn members_family(&self) -> Option<Family> {
        let of = |it: &Family| {
            ["s", "n"].iter().any(|kind| {
                let prefix = format!("{OWN}{kind}{}-", digit(*it));
                self.0.starts_with(&prefix)
            })
        };
        Family::BOTH.into_iter().find(of)
    }

    /// Returns whether an object with this name is ours.
    pub(crate) fn is_own(&self) -> bool {
        self.0.starts_with(OWN)
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which direction of an endpoint a chain or a map is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Side {
    Egress,
    Ingress,
}

impl Side {
    /// Returns the direction that an endpoint's policy judges on this side.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Egress => Direction::Egress,
            Self::Ingress => Direction::Ingress,
        }
    }

    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Egress => "eg",
            Self::Ingress => "in",
        }
    }
}

/// What the exact members of a set are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Members {
    Addresses,
    NamedPorts,
}

impl Members {
    /// Returns the type of the set's keys.
    pub(crate) fn key_type(self, family: Family) -> KeyType {
        match self {
            Self::Addresses => KeyType::Address(family),
            Self::NamedPorts => KeyType::Target(family),
        }
    }
}

/// What the ranges of an immutable set are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ranges {
    Prefixes(Family),
    Ports,
}

/// Where a set of exact members is among those of the same members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) class: SizeClass,
    pub(crate) slot: Slot,
}

impl Place {
    /// Returns the place of the set that takes over from the one in this place.
    pub(crate) fn other(self) -> Self {
        let slot = match self.slot {
            Slot::First => Slot::Second,
            Slot::Second => Slot::First,
        };
        Self { slot, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = match self.slot {
            Slot::First => "",
            Slot::Second => SECOND,
        };
        write!(f, "{}{slot}", self.class.exponent())
    }
}

/// The end of the names of sets in the second slot.
const SECOND: &str = "b";

/// Which of two sets of the same members and capacity is meant.
///
/// Members of one set can change in place. Where a packet would meet several changes one after the other, the new members
/// go to the other slot, and chains are switched to it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Slot {
    #[default]
    First,
    Second,
}

/// The capacity of a hash set, a power of two.
///
/// The kernel takes `size` as a hard limit (`ENFILE` beyond it) and allocates its buckets after it, so a set that
/// outgrows it is made anew under another name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    /// The class of the maps and sets of endpoints, whose names are fixed.
    pub(crate) const ENDPOINTS: Self = Self(12);
    const SMALLEST: u8 = 6;
    const LARGEST: u8 = 30;

    /// Returns the class for a new set of `members`: at least twice as much, so that it can grow.
    pub(crate) fn for_members(members: usize) -> Self {
        let exponent = members.saturating_mul(2).next_power_of_two().trailing_zeros();
        Self(u8::try_from(exponent).unwrap_or(Self::LARGEST).clamp(Self::SMALLEST, Self::LARGEST))
    }

    /// Returns `observed` if a set of that class is neither too full nor much too large for `members`, else the class
    /// of a new set. A set that grows and shrinks around a power of two is not made anew each time.
    pub(crate) fn kept_or_new(observed: Option<Self>, members: usize) -> Self {
        let fresh = Self::for_members(members);
        match observed {
            Some(class)
                if members <= class.capacity() / 4 * 3 && class.0 <= fresh.0.saturating_add(2) =>
            {
                class
            }
            _ => fresh,
        }
    }

    pub(crate) fn capacity(self) -> usize {
        1 << self.0
    }

    fn exponent(self) -> u8 {
        self.0
    }

    fn from_exponent(exponent: u8) -> Option<Self> {
        (Self::SMALLEST..=Self::LARGEST).contains(&exponent).then_some(Self(exponent))
    }
}

/// Returns the first 12 bytes of the SHA-256 of `content`, in hexadecimal: tenants choose what is in a policy and must
/// not be able to make two contents share a name.
pub(crate) fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content), 12)
}

/// Returns the first 8 bytes of the SHA-256 of `content`, in hexadecimal, to tell apart versions of a rule.
pub(crate) fn short_digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content), 8)
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| format!("{byte:02x}")).collect()
}

fn short_id(id: &str) -> &str {
    id.get(..24).unwrap_or(id)
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_that_nft_reads_back() {
        for (text, good) in [
            ("netpol", true),
            ("netpol-2", true),
            ("a-b", true),
            ("", false),
            ("inet", false),
            ("Netpol-a", false),
            ("-a", false),
            ("np;drop-x", false),
            ("a-23456789012345678901234567890123", false),
        ] {
            assert_eq!(Owner::new(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn size_classes_leave_room_and_do_not_flap() {
        assert_eq!(SizeClass::for_members(0).capacity(), 64);
        assert_eq!(SizeClass::for_members(32).capacity(), 64);
        assert_eq!(SizeClass::for_members(33).capacity(), 128);
        assert_eq!(SizeClass::for_members(1_000).capacity(), 2_048);
        let class = SizeClass::for_members(1_000);
        assert_eq!(SizeClass::kept_or_new(Some(class), 1_200), class);
        assert_eq!(SizeClass::kept_or_new(Some(class), 300), class);
        assert!(SizeClass::kept_or_new(Some(class), 1_600) > class);
        assert!(SizeClass::kept_or_new(Some(class), 100) < class);
    }

    #[test]
    fn the_place_is_part_of_the_name() {
        let first = Place { class: SizeClass::for_members(40), slot: Slot::First };
        for (place, want) in [(first, "7"), (first.other(), "7b"), (first.other().other(), "7")] {
            let id = "0123456789abcdef01234567ff";
            let name = Name::members(Members::Addresses, Family::V4, id, place);
            let stem = "np-s4-0123456789abcdef01234567";
            assert_eq!(name.as_str(), format!("{stem}-{want}"));
            assert_eq!(name.place(), Some((stem, place)));
            assert_eq!(name.members_family(), Some(Family::V4));
            assert!(name.is_own());
        }
        for other in ["np-iso-6", "np-s4-00-99", "np-s4-00-7c", "np-c4-00-7"] {
            assert_eq!(Name::new(other).place(), None, "{other}");
        }
    }
}
