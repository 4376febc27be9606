//! What servers and probes say to each other.
//!
//! A request is a [`Token`]; the reply repeats it and adds who answered:
//!
//! | bytes   | field          | encoding            |
//! |---------|----------------|---------------------|
//! | 0..16   | token          | as sent             |
//! | 16..18  | length of name | bytes, big endian   |
//! | 18..    | name           | UTF-8               |

use std::hash::{BuildHasher, RandomState};

/// Bytes that no other attempt sends.
pub(crate) type Token = [u8; 16];

/// Length of the fixed part of a reply, in bytes.
pub(crate) const REPLY_HEADER: usize = size_of::<Token>() + 2;

/// Longest reply, in bytes.
pub(crate) const MAX_REPLY: usize = REPLY_HEADER + u16::MAX as usize;

/// Returns a token that is new with overwhelming probability.
pub(crate) fn token() -> Token {
    let half = || RandomState::new().hash_one(());
    ((u128::from(half()) << 64) | u128::from(half())).to_be_bytes()
}

/// Returns the reply of the host `name` to `token`.
pub(crate) fn reply(token: Token, name: &str) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let name = name.as_bytes().iter().take(length.into());
    token.into_iter().chain(length.to_be_bytes()).chain(name.copied()).collect()
}

/// Returns the length of the name that follows the fixed part of a reply to `token`, in bytes.
pub(crate) fn name_length(token: Token, header: [u8; REPLY_HEADER]) -> Option<usize> {
    let length = header.strip_prefix(&token)?;
    Some(u16::from_be_bytes(length.try_into().ok()?).into())
}

/// Returns the name in a reply to `token`, or `None` if these bytes are no such reply.
pub(crate) fn name_in(token: Token, reply: &[u8]) -> Option<String> {
    let (header, name) = reply.split_first_chunk()?;
    (name_length(token, *header)? == name.len()).then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "test code")]
mod tests {
    use super::*;

    #[test]
    fn replies_carry_the_name_for_their_token_only() {
        let (one, other) = (token(), token());
        assert_ne!(one, other);
        let bytes = reply(one, "x/a");
        assert_eq!(name_in(one, &bytes), Some("x/a".to_owned()));
        assert_eq!(name_in(other, &bytes), None);
        assert_eq!(name_in(one, &bytes[..bytes.len() - 1]), None);
        assert_eq!(name_in(one, &one), None);
    }
}
