//! The netlink socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nftnl_sys::libc;
use nix::sys::socket::sockopt::{RcvBufForce, SndBuf, SndBufForce};
use nix::sys::socket::{MsgFlags, getsockopt, recv, setsockopt};

/// A netfilter socket of the network namespace of the thread that opened it.
pub(crate) struct Socket(mnl::Socket);

// SAFETY: the object is a heap block with a file descriptor and an address; libmnl keeps no thread-local or global
// state, and the kernel does not tie a netlink socket to a thread. The type is not `Sync`.
unsafe impl Send for Socket {}

impl Socket {
    /// Opens and binds a socket whose errors carry the kernel's explanation and not our whole message.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Self(mnl::Socket::new(mnl::Bus::Netfilter)?);
        socket.enable(libc::NETLINK_CAP_ACK)?;
        socket.enable(libc::NETLINK_EXT_ACK)?;
        Ok(socket)
    }

    /// Asks for buffers of these sizes, in bytes. Without privilege they stay as large as the system allows.
    pub(crate) fn grow(&mut self, send: usize, receive: usize) {
        let fd = self.fd();
        if setsockopt(&fd, SndBufForce, &send).is_err() {
            let _ = setsockopt(&fd, SndBuf, &send);
        }
        let _ = setsockopt(&fd, RcvBufForce, &receive);
    }

    /// Returns the size of the send buffer, in bytes.
    pub(crate) fn send_buffer(&self) -> io::Result<usize> {
        Ok(getsockopt(&self.fd(), SndBuf)?)
    }

    /// Sends messages with one system call. The kernel has handled all of them when it returns.
    pub(crate) fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let sent = self.0.send(messages)?;
        if sent == messages.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    /// Receives what the kernel has queued, at most `buffer`; `None` if there is nothing.
    pub(crate) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Ok(len) => match buffer.get(..len) {
                Some(message) => Ok(Some(message)),
                None => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the answer is larger than the buffer",
                )),
            },
            Err(nix::errno::Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as the socket, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }

    fn enable(&self, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
        // SAFETY: the descriptor is open, and `on` is readable for `len` bytes.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                len,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
