//! What is wrong with an object, and where.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a place and what is wrong there")]
pub struct Diagnostic {
    /// The field, as the API server writes it: `spec.ingress[0].from[1].ipBlock.cidr`. Empty for the whole object.
    pub path: String,
    /// What is wrong there, and what was expected.
    pub message: String,
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
