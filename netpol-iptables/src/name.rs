//! Names of our chains and sets.
//!
//! A name says everything that a process without memory must know: the prefix makes the object ours, the digest stands
//! for the content or for the definition.

use std::fmt;

use netpol_core::Direction;
use netpol_core::net::Family;
use netpol_core::program::{Digest, SetId};

/// The comment of the jumps from the built-in chains.
pub(crate) const HOOK_COMMENT: &str = "np:hook";

/// The tag in the names of all chains and sets of one dataplane.
///
/// Invariant: at most 2 lower-case letters, because names are short: 28 bytes for a chain
/// (`XT_EXTENSION_MAXNAMELEN` in `include/uapi/linux/netfilter/x_tables.h`, less the NUL) and 31 for a set
/// (`IPSET_MAXNAMELEN` in `include/uapi/linux/netfilter/ipset/ip_set.h`, less the NUL).
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner(String);

/// Why a text cannot tag our names.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("owner `{text}` is no tag, expected at most {max} lower-case letters", max = Owner::MAX_BYTES)]
#[non_exhaustive]
pub struct OwnerError {
    /// The text as given.
    pub text: String,
}

impl Owner {
    /// Longest tag, in bytes.
    pub const MAX_BYTES: usize = 2;

    /// Returns the owner with this tag. The empty tag is the default owner.
    ///
    /// # Errors
    ///
    /// [`OwnerError`] if the text breaks the invariant of the type.
    pub fn new(text: &str) -> Result<Self, OwnerError> {
        if text.len() > Self::MAX_BYTES || !text.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err(OwnerError { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of a chain that is always there.
    pub(crate) fn chain(&self, fixed: Fixed) -> Name {
        Name(format!("NP{self}-{}", fixed.stem()))
    }

    /// Returns the name of a chain of a policy set with this content.
    pub(crate) fn policy_chain(&self, side: Side, content: &str) -> Name {
        let digest = base32(Digest::of(&content).bytes());
        Name(format!("NP{self}-{}-{digest}", side.letter()))
    }

    /// Returns the name of a chain of endpoints with this content, which is a part of a list of them.
    pub(crate) fn list_chain(&self, content: &str) -> Name {
        let digest = base32(Digest::of(&content).bytes());
        Name(format!("NP{self}-L-{digest}"))
    }

    /// Returns the name of a set whose members change.
    pub(crate) fn members(&self, family: Family, kind: Members, id: SetId, slot: Slot) -> Name {
        Name(format!("np{self}{}{}-{id}", digit(family), letter(kind, slot)))
    }

    /// Returns the name of a set of prefixes with this content, which never changes.
    pub(crate) fn prefixes(&self, family: Family, content: &str) -> Name {
        Name(format!("np{self}{}c-{}", digit(family), Digest::of(&content)))
    }

    /// Returns the name under which the new content of a set is collected, before both are swapped.
    pub(crate) fn temporary(&self, set: &Name) -> Name {
        let digest = set.0.rsplit_once('-').map_or("", |(_, digest)| digest);
        let family = self.set_stem(&set.0).and_then(|stem| stem.get(..1)).unwrap_or_default();
        Name(format!("np{self}{family}x-{digest}"))
    }

    /// Returns the same set in the other slot; `None` if it has no slots.
    pub(crate) fn other_slot(&self, set: &Name) -> Option<Name> {
        let stem = self.set_stem(&set.0)?;
        let other = match stem.get(1..2)? {
            "s" => "t",
            "t" => "s",
            "q" => "r",
            "r" => "q",
            _ => return None,
        };
        Some(Name(format!("np{self}{}{other}{}", stem.get(..1)?, stem.get(2..)?)))
    }

    /// Returns the name of a chain found in the kernel, if it is ours.
    pub(crate) fn own_chain(&self, found: &str) -> Option<Name> {
        let rest = found.strip_prefix("NP")?.strip_prefix(self.as_str())?;
        rest.starts_with('-').then(|| Name(found.to_owned()))
    }

    /// Returns the name of a set found in the kernel, if it is ours.
    pub(crate) fn own_set(&self, found: &str) -> Option<Name> {
        self.set_stem(found).map(|_| Name(found.to_owned()))
    }

    /// Returns what follows the tag in the name of a set of ours: family, kind, hyphen and digest.
    fn set_stem<'n>(&self, name: &'n str) -> Option<&'n str> {
        let stem = name.strip_prefix("np")?.strip_prefix(self.as_str())?;
        let mut chars = stem.chars();
        let known = matches!(chars.next()?, '4' | '6')
            && matches!(chars.next()?, 's' | 't' | 'q' | 'r' | 'c' | 'x')
            && chars.next()? == '-';
        known.then_some(stem)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a chain or a set of ours.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chain that is always there. `render::base` says what they are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fixed {
    Forward,
    ForwardDiscovery,
    Input,
    InputDiscovery,
    Output,
    IsolatedFrom,
    IsolatedTo,
    IsolatedAt,
    UnknownFrom,
    UnknownTo,
    Cut,
    Own,
    InputOwn,
    Related,
    Egress,
    Ingress,
    Endpoints,
    Encapsulated,
    HostInput,
    HostInputPolicy,
    HostOutput,
    HostOutputPolicy,
    HostForward,
    HostForwardFrom,
    HostForwardTo,
    RawInput,
    RawInputPolicy,
    RawOutput,
    RawOutputPolicy,
    Untrack,
    BeforeNat,
    Mark,
}

impl Fixed {
    fn stem(self) -> &'static str {
        match self {
            Self::Forward => "FWD",
            Self::ForwardDiscovery => "FWD-ND",
            Self::Input => "IN",
            Self::InputDiscovery => "IN-ND",
            Self::Output => "OUT",
            Self::IsolatedFrom => "ISO-FROM",
            Self::IsolatedTo => "ISO-TO",
            Self::IsolatedAt => "ISO-AT",
            Self::UnknownFrom => "UNK-FROM",
            Self::UnknownTo => "UNK-TO",
            Self::Cut => "CUT",
            Self::Own => "OWN",
            Self::InputOwn => "IN-OWN",
            Self::Related => "RELATED",
            Self::Egress => "EGRESS",
            Self::Ingress => "INGRESS",
            Self::Endpoints => "ENDPOINTS",
            Self::Encapsulated => "ENCAP",
            Self::HostInput => "HOST-IN",
            Self::HostInputPolicy => "HOST-IN-POL",
            Self::HostOutput => "HOST-OUT",
            Self::HostOutputPolicy => "HOST-OUT-POL",
            Self::HostForward => "HOST-FWD",
            Self::HostForwardFrom => "HOST-FWD-FROM",
            Self::HostForwardTo => "HOST-FWD-TO",
            Self::RawInput => "RAW-IN",
            Self::RawInputPolicy => "RAW-IN-POL",
            Self::RawOutput => "RAW-OUT",
            Self::RawOutputPolicy => "RAW-OUT-POL",
            Self::Untrack => "UNTRACK",
            Self::BeforeNat => "DNAT",
            Self::Mark => "MARK",
        }
    }
}

/// Which direction of an endpoint a chain is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Side {
    Egress,
    Ingress,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// Returns the direction that an endpoint's policy judges on this side.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Egress => Direction::Egress,
            Self::Ingress => Direction::Ingress,
        }
    }

    /// Returns the chain that dispatches to the chains of this side.
    pub(crate) fn dispatch(self) -> Fixed {
        match self {
            Self::Egress => Fixed::Egress,
            Self::Ingress => Fixed::Ingress,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Egress => 'E',
            Self::Ingress => 'I',
        }
    }
}

/// What the members of a set that changes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Members {
    Addresses,
    NamedPorts,
}

/// Which of the two places of a set that changes is meant.
///
/// Members of one set can change in place. Where several sets of a policy set change together, a packet must see all
/// of them change at once, so their new content goes to the other place, and rules are switched to it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Slot {
    #[default]
    First,
    Second,
}

fn letter(kind: Members, slot: Slot) -> char {
    match (kind, slot) {
        (Members::Addresses, Slot::First) => 's',
        (Members::Addresses, Slot::Second) => 't',
        (Members::NamedPorts, Slot::First) => 'q',
        (Members::NamedPorts, Slot::Second) => 'r',
    }
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// Returns the first 8 bytes of a digest of `content` in hexadecimal, to tell apart versions of a rule.
pub(crate) fn short_digest(content: &str) -> String {
    Digest::of(&content).to_string().get(..16).unwrap_or_default().to_owned()
}

/// Returns the bytes in base 32 (the alphabet of RFC 4648, in lower case, without padding): 20 digits for 12 bytes.
fn base32(bytes: [u8; Digest::LEN]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |index: usize| {
        let byte = bytes.get(index / 8).copied().unwrap_or_default();
        usize::from(byte >> (7 - index % 8) & 1)
    };
    let digits = (Digest::LEN * 8).div_ceil(5);
    let value = |digit: usize| (0..5).fold(0, |sum, at| sum << 1 | bit(digit * 5 + at));
    (0..digits).filter_map(|digit| ALPHABET.get(value(digit)).copied().map(char::from)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use netpol_core::net::Transport;
    use netpol_core::program::SetDefinition;

    use super::*;

    fn id() -> SetId {
        let (transport, name) = (Transport::Tcp, "http".to_owned());
        SetId::of(&SetDefinition::NamedPort { endpoints: None, transport, name })
    }

    #[test]
    fn owners_are_short() {
        for (text, good) in
            [("", true), ("a", true), ("zz", true), ("abc", false), ("A", false), ("4", false)]
        {
            assert_eq!(Owner::new(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn names_fit_the_kernel() {
        let owner = Owner::new("ab").unwrap();
        let chain = owner.policy_chain(Side::Ingress, "content");
        assert_eq!(chain.as_str().len(), 27);
        assert_eq!(owner.list_chain("content").as_str().len(), 27);
        let set = owner.members(Family::V6, Members::Addresses, id(), Slot::Second);
        assert_eq!(set.as_str().len(), 31);
        assert!(owner.chain(Fixed::HostForwardFrom).as_str().len() <= 28);
    }

    #[test]
    fn owners_do_not_know_each_others_objects() {
        let owners = ["", "a", "ab"].map(|text| Owner::new(text).unwrap());
        for one in &owners {
            let chain = one.chain(Fixed::Forward);
            let set = one.members(Family::V4, Members::NamedPorts, id(), Slot::First);
            for other in &owners {
                assert_eq!(other.own_chain(chain.as_str()).is_some(), one == other);
                assert_eq!(other.own_set(set.as_str()).is_some(), one == other);
            }
        }
        let owner = Owner::default();
        for foreign in ["NP", "NPX-FWD", "np-4s", "np4z-00", "np4", "NP_FWD", "cali40s:abc"] {
            assert_eq!(owner.own_chain(foreign), None, "{foreign}");
            assert_eq!(owner.own_set(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn sets_have_two_slots_and_a_temporary_name() {
        let owner = Owner::default();
        let first = owner.members(Family::V4, Members::Addresses, id(), Slot::First);
        let second = owner.members(Family::V4, Members::Addresses, id(), Slot::Second);
        assert_eq!(owner.other_slot(&first), Some(second.clone()));
        assert_eq!(owner.other_slot(&second), Some(first.clone()));
        assert_eq!(owner.temporary(&first).as_str(), format!("np4x-{}", id()));
        assert_eq!(owner.other_slot(&owner.prefixes(Family::V4, "content")), None);
    }

    #[test]
    fn digits_are_those_of_rfc_4648() {
        assert_eq!(base32(*b"foobarfoobar"), "mzxw6ytbojtg633cmfza");
    }
}
