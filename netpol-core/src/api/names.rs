//! The syntax of names, label keys, label values and port names.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation`.

/// What [`is_dns_label`] takes.
pub(super) const DNS_LABEL: &str =
    "at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";

/// What [`is_dns_subdomain`] takes.
pub(super) const DNS_SUBDOMAIN: &str = "at most 253 lower-case letters, digits, `-` and `.`, each part beginning and ending with a letter or digit";

/// What [`is_label_key`] takes.
pub(super) const LABEL_KEY: &str = "a name of at most 63 letters, digits, `-`, `_` and `.` that begins and ends with \
     a letter or digit, after an optional DNS subdomain and `/`";

/// What [`is_label_value`] takes.
pub(super) const LABEL_VALUE: &str = "nothing, or at most 63 letters, digits, `-`, `_` and `.`, beginning and ending \
     with a letter or digit";

/// What [`is_port_name`] takes.
pub(super) const PORT_NAME: &str = "at most 15 lower-case letters, digits and single `-` between them, at least one of them a letter";

/// Returns whether `text` can name a namespace (RFC 1123).
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// Returns whether `text` can name an object (RFC 1123).
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

/// Returns whether `text` is a qualified name: `name` or `prefix/name`.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_name(name),
        None => is_label_name(text),
    }
}

/// Returns whether a label can have `text` as its value.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

/// Returns whether `text` can name a port (RFC 6335, section 5.1, in lower case).
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_dns_part(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn is_dns_part(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    has_alphanumeric_ends(text) && text.bytes().all(is_inner)
}

fn is_label_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 63 && has_alphanumeric_ends(text) && text.bytes().all(is_inner)
}

fn has_alphanumeric_ends(text: &str) -> bool {
    let bytes = text.as_bytes();
    [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[track_caller]
    fn check(accepts: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(accepts(text), "`{text}` is refused");
        }
        for text in bad {
            assert!(!accepts(text), "`{text}` is accepted");
        }
    }

    #[test]
    fn dns_names() {
        let long = "a".repeat(63);
        check(
            is_dns_label,
            &["a", "a-b", "0", "a--b", &long],
            &["", "-a", "a-", "A", "a.b", "a_b", "ä", &format!("{long}a")],
        );
        let longest = format!("{long}.{long}.{long}.{}", "a".repeat(61));
        check(
            is_dns_subdomain,
            &["a", "a.b-c.0", &longest],
            &["", ".", "a.", ".a", "a..b", "a.-b", "A.b", "a_b", &format!("{longest}a")],
        );
    }

    #[test]
    fn labels() {
        let long = "a".repeat(63);
        let prefix = format!("{long}.{long}.{long}.{}", "a".repeat(61));
        check(
            is_label_key,
            &["a", "A_b.c-d", "0", "x.y/A", &format!("{prefix}/{long}")],
            &[
                "",
                "/",
                "a/",
                "/a",
                "a/b/c",
                "-a",
                "a-",
                "a b",
                "X/a",
                "a_b/c",
                &format!("{long}a"),
                &format!("{prefix}a/b"),
            ],
        );
        check(
            is_label_value,
            &["", "a", "A_b.c-d", "8", &long],
            &["-", "a-", "a b", "a/b", &format!("{long}a")],
        );
    }

    #[test]
    fn port_names() {
        check(
            is_port_name,
            &["a", "http", "h2c-80", "0a", "abcdefghijklmno"],
            &["", "80", "8-0", "-a", "a-", "a--b", "HTTP", "a_b", "abcdefghijklmnop"],
        );
    }
}
