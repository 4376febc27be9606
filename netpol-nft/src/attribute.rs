//! Reading netlink messages: pure functions on bytes that come from the kernel.
//!
//! Lengths that lie end the iteration; nothing here panics or reads beyond its input.

/// One message: the parts of its header that matter, and what follows.
///
/// Source: `struct nlmsghdr` in `include/uapi/linux/netlink.h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Returns the messages of a datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (header, _) = rest.split_at_checked(HEADER)?;
        let &[l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = header else { return None };
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = rest.get(HEADER..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        })
    })
}

/// Returns the attributes that `bytes` consists of: type and value.
///
/// Source: `struct nlattr` in `include/uapi/linux/netlink.h`; the two highest bits of a type are flags.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1, ..] = rest else { return None };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

/// Returns the value of the attribute of this type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|&(found, _)| found == kind).map(|(_, value)| value)
}

/// Returns the 32-bit value of the attribute of this type, which nf_tables keeps in network byte order.
pub(crate) fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// Returns the 64-bit value of the attribute of this type.
pub(crate) fn find_u64(bytes: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// Returns the string of the attribute of this type, up to its NUL.
pub(crate) fn find_text(bytes: &[u8], kind: u16) -> Option<&str> {
    text(find(bytes, kind)?)
}

/// Returns a string up to its NUL.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_read_up_to_a_lie() {
        let bytes = [8, 0, 1, 0x40, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0, 200, 0, 3, 0, 0];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, [1, 2, 3, 4].as_slice()), (2, [9].as_slice())]);
        assert_eq!(find_u32(&bytes, 1), Some(0x0102_0304));
        assert_eq!(find_u32(&bytes, 2), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
