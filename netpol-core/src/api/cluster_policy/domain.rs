//! Domain names as peers.

use alloc::format;

use super::super::report::{Path, Report};
use crate::model::DomainPattern;

/// What [`read_pattern`] takes.
const PATTERN: &str = "at least two labels of letters, digits, `-` and `_` that begin and end with a letter or digit, \
     after an optional `*.`";

/// Reads a domain name, or `*.` and one.
///
/// Source: `DomainName` in `apis/v1alpha2` of network-policy-api, whose pattern also takes some punctuation, as it has `A-z`
/// for `A-Z`. That is refused.
pub(super) fn read_pattern(
    at: &Path<'_>,
    text: &str,
    report: &mut Report,
) -> Option<DomainPattern> {
    let (name, pattern): (_, fn(_) -> _) = match text.strip_prefix("*.") {
        Some(apex) => (apex, DomainPattern::Below),
        None => (text, DomainPattern::Exact),
    };
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    if labels.clone().count() < 2 || !labels.into_iter().all(has_alphanumeric_ends) {
        report.refuse(at, format!("`{text}` is not a domain name, expected {PATTERN}"));
        return None;
    }
    name.parse().map(pattern).map_err(|error| report.refuse(at, error)).ok()
}

fn has_alphanumeric_ends(label: &str) -> bool {
    let bytes = label.as_bytes();
    [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}
