//! Why a text is not a selector, or a key or value cannot be in one.

use alloc::string::String;
use core::fmt;

/// Why a selector could not be read or made.
///
/// Positions are bytes from the start of the text, counted from 0.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// The text is longer than users may write.
    #[error("selector has {chars} characters, more than {limit}")]
    TooLong {
        /// Characters in the text.
        chars: usize,
        /// Most characters allowed.
        limit: usize,
    },
    /// Parentheses are nested deeper than users may write.
    #[error("`(` at byte {position} is nested deeper than {limit} levels")]
    TooDeep {
        /// Where the parenthesis is that is one too many.
        position: usize,
        /// Most levels allowed.
        limit: usize,
    },
    /// A label key in the text is too long.
    #[error("label key at byte {position} has {bytes} bytes, more than {limit}")]
    KeyTooLong {
        /// Where the key starts.
        position: usize,
        /// Length of the key.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A string has no end.
    #[error("string at byte {position} is not closed, expected `{quote}`")]
    Unterminated {
        /// Where the string's opening quote is.
        position: usize,
        /// The quote that is missing.
        quote: char,
    },
    /// Something else was expected.
    #[error("at byte {position}: expected {expected}, found {}", Found(*found))]
    Unexpected {
        /// Where the text stops making sense.
        position: usize,
        /// What could have followed.
        expected: &'static str,
        /// What is there, or `None` for the end of the text.
        found: Option<char>,
    },
    /// A key given to a constructor is not a label key.
    #[error(
        "label key `{key}` of {} bytes is not 1 to {limit} ASCII letters, digits, `_`, `.`, `/` or `-`",
        key.len()
    )]
    InvalidKey {
        /// The key.
        key: String,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A value given to a constructor cannot be quoted, because selectors have no escapes.
    #[error("value `{value}` holds both `'` and `\"`, expected at most one kind of quote")]
    InexpressibleValue {
        /// The value.
        value: String,
    },
}

/// Prints what was found instead of what was expected.
struct Found(Option<char>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(char) if char.is_control() => write!(f, "`{}`", char.escape_default()),
            Some(char) => write!(f, "`{char}`"),
            None => f.write_str("the end"),
        }
    }
}
