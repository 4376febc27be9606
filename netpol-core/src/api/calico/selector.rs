//! Selectors as users write them.

use alloc::string::String;

use super::super::field::Field;
use super::super::manifest::optional_text;
use super::super::report::{Path, Report};
use crate::selector::Selector;

/// Reads a selector that may be left out; nothing and the empty text are the same. `global()` has no meaning in it.
pub(super) fn read_selector(
    at: &Path<'_>,
    text: &Field<String>,
    report: &mut Report,
) -> Option<Selector> {
    let selector = parse(at, optional_text(report, at, text)?, report)?;
    if selector.mentions_global() {
        report.refuse(
            at,
            "`global()` means nothing here, expected it as the `namespaceSelector` of a rule, alone",
        );
        return None;
    }
    Some(selector)
}

/// Reads the selector of a rule's namespaces, and returns what it selects: the things in them.
pub(super) fn read_namespace_selector(
    at: &Path<'_>,
    text: &Field<String>,
    report: &mut Report,
) -> Option<Selector> {
    let text = optional_text(report, at, text)?;
    let selector = parse(at, text, report)?;
    if selector.mentions_global() && !is_global_alone(text) {
        report.refuse(at, "`global()` with something else, expected it alone");
        return None;
    }
    Some(selector.in_namespaces())
}

/// Does the same for a policy, which cannot be for things in no namespace only.
pub(super) fn read_policy_namespaces(
    at: &Path<'_>,
    text: &Field<String>,
    report: &mut Report,
) -> Option<Selector> {
    read_selector(at, text, report).map(|it| it.in_namespaces())
}

fn parse(at: &Path<'_>, text: &str, report: &mut Report) -> Option<Selector> {
    text.parse().map_err(|error| report.refuse(at, error)).ok()
}

/// Returns whether a selector is nothing but `global()`. Its tree cannot tell: `(global())` is the same tree.
fn is_global_alone(text: &str) -> bool {
    let blank = [' ', '\t'];
    text.trim_matches(blank)
        .strip_prefix("global(")
        .is_some_and(|rest| rest.trim_start_matches(blank) == ")")
}
