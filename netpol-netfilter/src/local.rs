//! The addresses of the node itself.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::message::{Answer, DUMP, REQUEST, answers, find, message};

/// `RTM_GETADDR`. Source: `include/uapi/linux/rtnetlink.h`.
const GET_ADDRESSES: u16 = 22;
/// `IFA_ADDRESS` and `IFA_LOCAL`, which differ on links between two points. Source: `include/uapi/linux/if_addr.h`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// What `struct ifaddrmsg` has more than `struct nfgenmsg`, in bytes.
const LONGER: usize = 4;

/// Room for one answer of a dump.
const BUFFER: usize = 64 * 1024;
/// How long the kernel may take for an answer, in seconds.
const PATIENCE: i64 = 10;

/// The addresses of the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct LocalAddresses {
    socket: OwnedFd,
    sequence: u32,
}

impl LocalAddresses {
    /// Opens a socket.
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Returns the addresses that the namespace has now.
    pub(crate) fn list(&mut self) -> io::Result<BTreeSet<IpAddr>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message(GET_ADDRESSES, REQUEST | DUMP, self.sequence, 0, &[]);
        let descriptor = self.socket.as_raw_fd();
        sendto(descriptor, &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut addresses = BTreeSet::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(descriptor, &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            for answer in answers(buffer.get(..length).unwrap_or_default(), self.sequence) {
                match answer {
                    Answer::Object(object) => addresses.extend(address(object)),
                    Answer::Done => return Ok(addresses),
                    Answer::Failed(number) => return Err(io::Error::from_raw_os_error(number)),
                }
            }
        }
    }
}

/// Reads one entry of the listing.
fn address(object: &[u8]) -> Option<IpAddr> {
    let attributes = object.get(LONGER..)?;
    let bytes = find(attributes, LOCAL).or_else(|| find(attributes, ADDRESS))?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
