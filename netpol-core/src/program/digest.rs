//! Digests: ids that follow from content, so that nobody can choose them.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;

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

/// A text that is no digest.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a digest, expected {} hexadecimal digits", Digest::LEN * 2)]
#[non_exhaustive]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    /// Reads 24 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        if text.len() != Self::LEN * 2 || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(DigestError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| DigestError)?;
        let [_, _, _, _, bytes @ ..] = number.to_be_bytes();
        Ok(Self(bytes))
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
    let mut feed = Feed { hash: Sha256::new(), pending: [0; Feed::PENDING], len: 0 };
    value.hash(&mut feed);
    let mut bytes = [0; Digest::LEN];
    for (to, from) in bytes.iter_mut().zip(feed.finish_hash()) {
        *to = from;
    }
    Digest(bytes)
}

/// Passes what `Hash` writes on to SHA-256, in larger pieces than it comes.
struct Feed {
    hash: Sha256,
    pending: [u8; Self::PENDING],
    len: usize,
}

impl Feed {
    const PENDING: usize = 256;

    fn flush(&mut self) {
        self.hash.update(self.pending.get(..self.len).unwrap_or_default());
        self.len = 0;
    }

    fn finish_hash(mut self) -> impl IntoIterator<Item = u8> {
        self.flush();
        self.hash.finalize()
    }
}

impl Hasher for Feed {
    fn write(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.pending.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        } else {
            self.flush();
            match self.pending.get_mut(..bytes.len()) {
                Some(place) => {
                    place.copy_from_slice(bytes);
                    self.len = bytes.len();
                }
                None => self.hash.update(bytes),
            }
        }
    }

    /// Not used: the digest is read from the SHA-256 itself.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn digests_are_read_back() {
        for bytes in [
            [0; Digest::LEN],
            [0xff; Digest::LEN],
            *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x00\x10\xfe\x7f",
        ] {
            let digest = Digest(bytes);
            assert_eq!(alloc::format!("{digest}").parse(), Ok(digest));
        }
        for text in [
            "",
            "0",
            "+00000000000000000000000",
            "0000000000000000000000000",
            "é0000000000000000000000",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }

    /// However the bytes come, their digest is the same.
    #[test]
    fn pieces_make_no_difference() {
        struct Pieces<'a>(&'a [u8], usize);
        impl Hash for Pieces<'_> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.chunks(self.1).for_each(|it| state.write(it));
            }
        }
        for len in [0, 1, 255, 256, 257, 511, 512, 513, 2_000] {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let want: Vec<u8> = Sha256::digest(&bytes).into_iter().take(Digest::LEN).collect();
            for piece in [1, 3, 100, 255, 256, 257, 300, 4_000] {
                assert_eq!(digest_of(&Pieces(&bytes, piece)).bytes()[..], want, "{len} by {piece}");
            }
        }
    }
}
