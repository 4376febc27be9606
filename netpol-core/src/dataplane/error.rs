//! Errors of dataplanes.

use alloc::boxed::Box;
use core::error::Error;
use core::fmt;

/// What kind of failure it was: all that a caller needs for deciding what to do next.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DataplaneErrorKind {
    /// It may go away by itself: try again.
    Transient,
    /// Something foreign is in the way.
    Conflict,
    /// Not enough room, in the kernel or in a limit.
    Capacity,
    /// Not allowed to.
    Permission,
    /// The host cannot do what is asked.
    Unsupported,
    /// Anything else.
    Other,
}

impl fmt::Display for DataplaneErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "a passing failure",
            Self::Conflict => "a conflict",
            Self::Capacity => "not enough room",
            Self::Permission => "not permitted",
            Self::Unsupported => "not supported here",
            Self::Other => "a failure",
        })
    }
}

/// Why a dataplane could not do something.
#[derive(Debug)]
pub struct DataplaneError {
    kind: DataplaneErrorKind,
    operation: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DataplaneError {
    /// Returns an error. `operation` is a verb phrase, such as "replace a chain".
    #[must_use]
    pub const fn new(kind: DataplaneErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, source: None }
    }

    /// Returns the same error with the backend's own as its source.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> DataplaneErrorKind {
        self.kind
    }

    /// Returns what was being done.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for DataplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.operation, self.kind)
    }
}

impl Error for DataplaneError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| {
            let source: &(dyn Error + 'static) = source;
            source
        })
    }
}
