//! Text of users, as it may be shown.

/// Returns text with its control characters escaped, those of the direction of writing included, so that it stays on its
/// line, reads as it is and does nothing to a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let is_harmful = |it: char| {
        it.is_control() || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if is_harmful(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_is_shown() {
        assert_eq!(printable("ä`a\n\0\u{1b}[2J\u{202e}“"), r"ä`a\n\u{0}\u{1b}[2J\u{202e}“");
    }
}
