//! Conditions on HTTP requests.

use alloc::collections::BTreeSet;
use alloc::string::String;

/// A condition on an HTTP request: one of the methods and one of the paths.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "methods and paths are all that a rule can ask for")]
pub struct HttpMatch {
    /// The methods, compared exactly; empty or with `*` in it: any.
    pub methods: BTreeSet<String>,
    /// The paths; empty: any.
    pub paths: BTreeSet<HttpPathMatch>,
}

/// A condition on the path of an HTTP request.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a path is compared as a whole or by its beginning")]
pub enum HttpPathMatch {
    /// The path is this.
    Exact(String),
    /// The path is this, or goes on after it with a new segment.
    Prefix(String),
}
