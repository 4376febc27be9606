//! Text of users, as it may be shown.

use core::fmt;

/// Returns text with its control characters escaped, those of the direction of writing included, so that it stays on its
/// line, reads as it is and does nothing to a terminal.
pub(crate) fn printable(text: &str) -> impl fmt::Display + '_ {
    let is_harmful = |it: char| {
        it.is_control() || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    fmt::from_fn(move |f| {
        text.chars().try_for_each(|it| {
            if is_harmful(it) { write!(f, "{}", it.escape_default()) } else { write!(f, "{it}") }
        })
    })
}
