//! What is wrong with an object, and where.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::text::printable;

/// Most characters of a path or message.
const MAX_CHARS: usize = 1000;

/// One thing that is wrong with an object.
///
/// It can be shown as it is: what is quoted from the object has its control characters escaped, and its middle left out
/// where it is very long.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a place and what is wrong there")]
pub struct Diagnostic {
    /// The field, as the API server writes it: `spec.ingress[0].from[1].ipBlock.cidr`. Empty for the whole object.
    pub path: String,
    /// What is wrong there, and what was expected.
    pub message: String,
}

impl Diagnostic {
    /// Returns what is wrong at a place.
    pub(super) fn new(path: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self { path: readable(&path.to_string()), message: readable(&message.to_string()) }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why an object was refused: everything that is wrong with it, in the order of its fields. Prints one per line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", Lines(.diagnostics))]
#[non_exhaustive]
pub struct Refused {
    /// What is wrong. Never empty.
    pub diagnostics: Vec<Diagnostic>,
}

/// What an object was converted to, and what could not be read of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Accepted<T> {
    /// What it was converted to.
    pub value: T,
    /// Why some rules are degraded. Always empty with [`Strictness::Strict`].
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Accepted<T> {
    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Accepted<U> {
        Accepted { value: convert(self.value), diagnostics: self.diagnostics }
    }
}

/// What becomes of a policy whose subject and directions can be read, but not each of its rules.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "it is refused or degraded")]
pub enum Strictness {
    /// It is refused.
    #[default]
    Strict,
    /// It is accepted. A rule with something unreadable in it never widens what passes: an Allow matches nothing.
    Degraded,
}

struct Lines<'a>(&'a [Diagnostic]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// Returns the text as it may be shown, and not longer than anybody reads.
fn readable(text: &str) -> String {
    let count = text.chars().count();
    if count <= MAX_CHARS {
        return printable(text).to_string();
    }
    let half = MAX_CHARS / 2;
    let [head, tail]: [String; 2] =
        [text.chars().take(half).collect(), text.chars().skip(count - half).collect()];
    format!("{} … {}", printable(&head), printable(&tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_can_be_shown() {
        let forged = Diagnostic::new("spec.\x1b[2J", "`a\nspec: \0\u{202e}\u{7f}ä“` is no name");
        assert_eq!(
            forged.to_string(),
            r"spec.\u{1b}[2J: `a\nspec: \u{0}\u{202e}\u{7f}ä“` is no name"
        );
        let text = "ä".repeat(5000);
        let long = Diagnostic::new("", format!("`{text}` is no name, expected another"));
        assert_eq!(long.message.chars().count(), MAX_CHARS + 3);
        assert!(long.message.starts_with("`ää") && long.message.ends_with(" expected another"));
        let readable = "x".repeat(MAX_CHARS);
        assert_eq!(Diagnostic::new("", &readable).message, readable);
    }
}
