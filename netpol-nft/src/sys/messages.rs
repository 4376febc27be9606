//! A buffer of netlink messages.

use nftnl::{MsgType, NlMsg, nft_nlmsg_maxsize};

/// Bytes of the header of a netlink message (`struct nlmsghdr`): length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Where the flags are in the header.
const FLAGS: usize = 6;
/// Messages begin at multiples of this (`NLMSG_ALIGNTO`); attributes too.
const ALIGNMENT: usize = 4;

/// Netlink messages one behind the other, as one `send` takes them.
pub(crate) struct Messages {
    bytes: Vec<u8>,
    last: usize,
    scratch: Vec<u64>,
}

impl Messages {
    /// Returns an empty buffer.
    pub(crate) fn new() -> Self {
        let words =
            usize::try_from(nft_nlmsg_maxsize()).unwrap_or(usize::MAX).div_ceil(size_of::<u64>());
        Self { bytes: Vec::new(), last: 0, scratch: vec![0; words] }
    }

    /// Appends a message of libnftnl. `flags` replace those of the message, so that nothing asks for an acknowledgement.
    pub(crate) fn push(&mut self, message: &impl NlMsg, kind: MsgType, flags: u16, sequence: u32) {
        let buffer = self.scratch.as_mut_ptr().cast();
        // SAFETY: the buffer is aligned to 8 bytes and has room for `nft_nlmsg_maxsize` bytes, as the contract of
        // `NlMsg::write` asks.
        unsafe { message.write(buffer, sequence, kind) };
        let [a, b, c, d, ..] = self.scratch.first().copied().unwrap_or_default().to_ne_bytes();
        let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or_default();
        self.last = self.bytes.len();
        let words = self.scratch.iter().take(len.div_ceil(size_of::<u64>()));
        self.bytes.extend(words.flat_map(|word| word.to_ne_bytes()));
        self.bytes.truncate(self.last + len.next_multiple_of(ALIGNMENT));
        self.write(FLAGS, &flags.to_ne_bytes());
    }

    /// Appends a message without attributes: `kind` and the bytes of `struct nfgenmsg`.
    pub(crate) fn push_bare(&mut self, kind: u16, flags: u16, sequence: u32, payload: [u8; 4]) {
        self.last = self.bytes.len();
        let len = u32::try_from(HEADER + payload.len()).unwrap_or_default();
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(payload);
    }

    /// Appends an attribute to the last message.
    pub(crate) fn push_attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(ALIGNMENT + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let total = u32::try_from(self.bytes.len() - self.last).unwrap_or_default();
        self.write(0, &total.to_ne_bytes());
    }

    /// Forgets what comes behind the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Returns the messages.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Overwrites bytes of the last message's header.
    fn write(&mut self, offset: usize, value: &[u8]) {
        let to = self.bytes.iter_mut().skip(self.last + offset);
        to.zip(value).for_each(|(to, from)| *to = *from);
    }
}
