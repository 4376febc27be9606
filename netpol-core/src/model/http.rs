//! HTTP requests, and conditions on them.
//!
//! Paths are compared as servers resolve them: what two servers on the way could read differently is refused, so that a
//! condition never allows another path than the one that is served.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::printable;

/// A condition on an HTTP request: one of the methods and one of the paths.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "methods and paths are all that a rule can ask for")]
pub struct HttpMatch {
    /// The methods, compared exactly; empty or with `*` in it: any.
    pub methods: BTreeSet<String>,
    /// The paths; empty: any.
    pub paths: BTreeSet<HttpPathMatch>,
}

impl HttpMatch {
    /// Stands for every method.
    pub const ANY_METHOD: &str = "*";

    /// Returns whether a request meets the condition. One whose path cannot be resolved meets no condition on paths.
    #[must_use]
    pub fn matches(&self, request: &HttpRequest) -> bool {
        let Self { methods, paths } = self;
        let method = methods.is_empty()
            || methods.contains(Self::ANY_METHOD)
            || methods.contains(&request.method);
        let is_meant = |path: &HttpPath| paths.iter().any(|it| it.matches(path));
        method && (paths.is_empty() || request.path.as_ref().is_some_and(is_meant))
    }
}

/// A condition on the path of an HTTP request.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a path is compared as a whole or by its beginning")]
pub enum HttpPathMatch {
    /// The path is this.
    Exact(HttpPath),
    /// The path is this, or goes on after it with a new segment.
    Prefix(HttpPath),
}

impl HttpPathMatch {
    /// Returns whether a path meets the condition.
    #[must_use]
    pub fn matches(&self, path: &HttpPath) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(prefix) => path.is_below(prefix),
        }
    }
}

/// The path of an HTTP request, as servers resolve it.
///
/// Invariant: absolute, decoded, without empty segments, `.`, `..`, `\`, parameters (`;…`) and NUL. Paths that name one
/// resource are equal values. It need not be UTF-8.
///
/// ```
/// use netpol_core::model::{HttpPath, HttpPathError};
///
/// let path: HttpPath = "/public/..;v=1/%61dmin//x/?q=1".parse()?;
/// assert_eq!(path.to_string(), "/admin/x");
/// assert_eq!("/public/%252e%252e/admin".parse::<HttpPath>(), Err(HttpPathError::EncodedTwice));
/// # Ok::<(), HttpPathError>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct HttpPath(Vec<u8>);

/// Why text is no path that every server resolves alike.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpPathError {
    /// It does not begin with a slash.
    #[error("no leading slash, expected one")]
    Relative,
    /// A percent sign without two hexadecimal digits.
    #[error("a percent sign without two hexadecimal digits after it")]
    Encoding,
    /// A dot, slash or backslash is still percent-encoded after decoding once; some servers decode again.
    #[error("a dot, slash or backslash that is percent-encoded twice")]
    EncodedTwice,
    /// A NUL byte, at which some servers end the path.
    #[error("a NUL byte")]
    Nul,
}

impl HttpPath {
    /// Returns whether the path is `prefix` or goes on after it with a new segment.
    fn is_below(&self, prefix: &Self) -> bool {
        let Some(rest) = self.0.strip_prefix(prefix.0.as_slice()) else {
            return false;
        };
        // Only the root ends with a slash.
        rest.is_empty() || rest.starts_with(b"/") || prefix.0.ends_with(b"/")
    }
}

/// Source: the steps and their order are those of `app-policy/checker/match.go` of Calico.
impl FromStr for HttpPath {
    type Err = HttpPathError;

    fn from_str(text: &str) -> Result<Self, HttpPathError> {
        let path = text.split(['?', '#']).next().unwrap_or_default();
        let decoded = percent_decoded(path.as_bytes()).ok_or(HttpPathError::Encoding)?;
        if is_encoded_twice(&decoded) {
            return Err(HttpPathError::EncodedTwice);
        }
        if decoded.contains(&0) {
            return Err(HttpPathError::Nul);
        }
        let is_separator = |byte: &u8| matches!(byte, b'/' | b'\\');
        if !decoded.first().is_some_and(is_separator) {
            return Err(HttpPathError::Relative);
        }
        let mut segments: Vec<&[u8]> = Vec::new();
        for segment in decoded.split(is_separator) {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            match name {
                b"" | b"." => {}
                b".." => {
                    segments.pop();
                }
                _ => segments.push(name),
            }
        }
        let mut resolved = Vec::with_capacity(decoded.len());
        for segment in &segments {
            resolved.push(b'/');
            resolved.extend_from_slice(segment);
        }
        if segments.is_empty() {
            resolved.push(b'/');
        }
        Ok(Self(resolved))
    }
}

/// Percent-encoded (RFC 3986, section 2.1), so that it reads back as the same path.
impl From<HttpPath> for String {
    fn from(path: HttpPath) -> Self {
        let mut text = Self::with_capacity(path.0.len());
        for byte in path.0 {
            let is_plain = byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
            if is_plain {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02x}"));
            }
        }
        text
    }
}

impl TryFrom<String> for HttpPath {
    type Error = HttpPathError;

    fn try_from(text: String) -> Result<Self, HttpPathError> {
        text.parse()
    }
}

impl fmt::Display for HttpPath {
    /// Writes the path; bytes that are no UTF-8 are replaced, control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        printable(&String::from_utf8_lossy(&self.0)).fmt(f)
    }
}

/// An HTTP request, as far as policy can tell it from others.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HttpRequest {
    method: String,
    target: String,
    /// `None` if not every server resolves the target alike: it meets no condition.
    path: Option<HttpPath>,
}

/// Why this is no request that policy can judge.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpRequestError {
    /// The method is no token (RFC 9110, section 9.1).
    #[error("`{}` is no method, expected letters such as `GET`", .method.escape_debug())]
    Method {
        /// The method as given.
        method: String,
    },
    /// The target is not in origin form (RFC 9112, section 3.2.1).
    #[error("`{}` is no path, expected one that begins with `/`", .path.escape_debug())]
    Path {
        /// The path as given.
        path: String,
    },
}

impl HttpRequest {
    /// Returns a request. The path may have a query; a path that servers resolve in different ways is a request too, which
    /// meets no condition on paths.
    ///
    /// # Errors
    ///
    /// [`HttpRequestError::Method`] if the method is empty or has other characters than methods have,
    /// [`HttpRequestError::Path`] if the path does not begin with `/`.
    pub fn new(
        method: impl Into<String>,
        path: impl Into<String>,
    ) -> Result<Self, HttpRequestError> {
        let (method, target) = (method.into(), path.into());
        if method.is_empty() || !method.bytes().all(is_token_byte) {
            return Err(HttpRequestError::Method { method });
        }
        if !target.starts_with('/') {
            return Err(HttpRequestError::Path { path: target });
        }
        let path = target.parse().ok();
        Ok(Self { method, target, path })
    }

    /// Returns the method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the path, `None` if servers could resolve it in different ways.
    #[must_use]
    pub const fn path(&self) -> Option<&HttpPath> {
        self.path.as_ref()
    }
}

impl fmt::Display for HttpRequest {
    /// Writes the method and the path as given, control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target.escape_debug())
    }
}

/// Returns whether methods may contain `byte` (RFC 9110, section 5.6.2).
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Decodes each percent-encoded byte once (RFC 3986, section 2.1); `None` if an encoding is torn.
fn percent_decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?,
            _ => byte,
        });
    }
    Some(decoded)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Returns whether a dot, slash or backslash is percent-encoded.
fn is_encoded_twice(decoded: &[u8]) -> bool {
    decoded.windows(3).any(|it| {
        let [percent, high, low] = it else { return false };
        let low = low.to_ascii_lowercase();
        *percent == b'%' && matches!((high, low), (b'2', b'e' | b'f') | (b'5', b'c'))
    })
}

#[cfg(test)]
mod tests;
