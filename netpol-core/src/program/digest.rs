//! Digests: ids that follow from content, so that nobody can choose them.

use core::fmt;
use core::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};

/// The first 12 bytes of a SHA-256.
///
/// Tenants choose the names that go into it and must not be able to make two of them collide.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; Self::LEN]);

impl Digest {
    /// The length, in bytes.
    pub const LEN: usize = 12;

    /// Returns the digest with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the digest of a value's content, for ids that a backend gives to what it renders.
    #[must_use]
    pub fn of(value: &impl Hash) -> Self {
        digest_of(value)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; Self::LEN] {
        self.0
    }
}

impl fmt::Display for Digest {
    /// Writes 24 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the digest of a value's content.
///
/// The bytes are those that the value's `Hash` feeds: they tell values apart (lengths and variants included) and are
/// the same wherever the same build runs. Another build may give other digests, which costs a restart some work and
/// changes no verdict.
pub(crate) fn digest_of(value: &impl Hash) -> Digest {
    let mut feed = Feed(Sha256::new());
    value.hash(&mut feed);
    let mut bytes = [0; Digest::LEN];
    for (to, from) in bytes.iter_mut().zip(feed.0.finalize()) {
        *to = from;
    }
    Digest(bytes)
}

/// Passes what `Hash` writes on to SHA-256.
struct Feed(Sha256);

impl Hasher for Feed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not used: the digest is read from the SHA-256 itself.
    fn finish(&self) -> u64 {
        0
    }
}
