//! Netlink messages and attributes as bytes.
//!
//! Source: `struct nlmsghdr` and `struct nlattr` in `include/uapi/linux/netlink.h`, `struct nfgenmsg` in
//! `include/uapi/linux/netfilter/nfnetlink.h`. Numbers of the headers are in the byte order of the machine.

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`, `NLM_F_CREATE | NLM_F_EXCL`
pub(crate) const REQUEST: u16 = 0x001;
pub(crate) const ACKNOWLEDGE: u16 = 0x004;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x600;
/// `NLMSG_ERROR`, `NLMSG_DONE`
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_F_NESTED`; the bits of an attribute's type that say which it is (`NLA_TYPE_MASK`)
pub(crate) const NESTED: u16 = 0x8000;
const TYPE: u16 = 0x3fff;
/// The length of `struct nlmsghdr` and of `struct nfgenmsg`, in bytes.
const HEADER: usize = 16;
const SUBSYSTEM_HEADER: usize = 4;

/// Returns a message of the netfilter subsystems.
pub(crate) fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0];
    body.extend(encoded(attributes));
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// Returns attributes as bytes, which can be the value of a nested one.
pub(crate) fn encoded(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// What the kernel answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer<'a> {
    /// An object, as attributes.
    Object(&'a [u8]),
    /// The end of a dump, or that a request was done.
    Done,
    /// The request failed with this error number.
    Failed(i32),
}

/// Returns the answers to the request with this sequence number in what was received at once.
pub(crate) fn answers(bytes: &[u8], sequence: u32) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    let mut rest = bytes;
    while let Some((length, kind, number)) = header(rest) {
        let body = rest.get(HEADER..length).unwrap_or_default();
        if number == sequence {
            answers.push(match kind {
                DONE => Answer::Done,
                ERROR => error(body),
                _ => Answer::Object(body.get(SUBSYSTEM_HEADER..).unwrap_or_default()),
            });
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// Returns the length, type and sequence number of the first message; `None` if there is no whole one.
fn header(bytes: &[u8]) -> Option<(usize, u16, u32)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    (HEADER..=bytes.len()).contains(&length).then_some((length, kind, sequence))
}

/// Reads a `struct nlmsgerr`: its error is negative, and 0 acknowledges.
fn error(body: &[u8]) -> Answer<'_> {
    match body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Answer::Done,
        Some(error) => Answer::Failed(error.saturating_neg()),
        None => Answer::Failed(0),
    }
}

/// Returns the value of an attribute.
pub(crate) fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind & TYPE == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = message(256, REQUEST, 7, 2, &[(1 | NESTED, b"abc"), (2, b"defg")]);
        bytes.extend(message(256, REQUEST, 8, 2, &[]));
        bytes.extend(message(DONE, 0, 7, 0, &[]));
        let answers = answers(&bytes, 7);
        let [Answer::Object(attributes), Answer::Done] = answers.as_slice() else {
            unreachable!("{answers:?}");
        };
        assert_eq!(find(attributes, 1), Some(b"abc".as_slice()));
        assert_eq!(find(attributes, 2), Some(b"defg".as_slice()));
        assert_eq!(find(attributes, 3), None);
    }

    #[test]
    fn errors_have_a_number() {
        let body = |error: i32| error.to_ne_bytes();
        assert_eq!(error(&body(0)), Answer::Done);
        assert_eq!(error(&body(-2)), Answer::Failed(2));
        assert_eq!(error(&[]), Answer::Failed(0));
    }

    #[test]
    fn broken_messages_end_quietly() {
        let whole = message(256, REQUEST, 7, 2, &[(1, b"abcd")]);
        for length in 0..whole.len() {
            let part = whole.get(..length).unwrap_or_default();
            assert_eq!(answers(part, 7), []);
            let attributes = part.get(HEADER + SUBSYSTEM_HEADER..).unwrap_or_default();
            assert_eq!(find(attributes, 1), None);
        }
        assert_eq!(find(&[0, 0, 1, 0], 1), None);
    }
}
