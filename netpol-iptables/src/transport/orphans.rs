//! Tools that outlive the process which started them.
//!
//! When a process is killed, a tool that it started goes on, and may wait for a lock before. A new process would read the
//! state of before, and plan on that. So each tool that changes something holds a name, and a process that starts waits until
//! nobody does.
//!
//! The name is the address of a UNIX socket that is in no file system (unix(7), "abstract"): it belongs to the network
//! namespace, as do the tables, and is free as soon as the last process that holds the socket has ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant};

use crate::name::Owner;

/// How long to wait for tools that nobody ends any more. Whatever holds the name then is none of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(5);

/// Takes the name in the network namespace of the calling thread, for a tool to hold; `None` if somebody has it.
pub(super) fn hold(owner: &Owner) -> io::Result<Option<OwnedFd>> {
    let name = format!("netpol-iptables-{owner}");
    match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(socket) => Ok(Some(socket.into())),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until nobody holds the name in the network namespace of the calling thread, or for too long.
pub(super) fn wait(owner: &Owner) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while hold(owner)?.is_none() && Instant::now() < end {
        thread::sleep(INTERVAL);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_new_process_waits_for_the_tools_of_an_old_one() {
        let owner = Owner::new("wt").unwrap();
        wait(&owner).unwrap();
        let held = hold(&owner).unwrap().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo ignored; read -r line"]).stdin(Stdio::piped()).stdout(held);
        let mut tool = command.spawn().unwrap();
        drop(command);
        assert!(hold(&owner).unwrap().is_none());
        let waiting = thread::spawn(move || wait(&owner).unwrap());
        thread::sleep(10 * INTERVAL);
        assert!(!waiting.is_finished());
        drop(tool.stdin.take());
        waiting.join().unwrap();
        tool.wait().unwrap();
    }
}
