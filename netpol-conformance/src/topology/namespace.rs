//! Network namespaces with names, as `ip netns` makes them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::kill;
use nix::unistd::{Pid, getegid};

use super::TopologyError;
use super::netlink::Netlink;

/// Where named namespaces live. Source: `ip-netns(8)`.
const DIRECTORY: &str = "/run/netns";

/// What needs permission to write there.
const NAMING: &str = "name a namespace below /run/netns";

/// How the names of our namespaces begin; the process id follows.
const PREFIX: &str = "npc-";

/// Longest readable part of a name, in bytes.
const MAX_LABEL: usize = 40;

/// A network namespace with a name below `/run/netns`, so that `ip netns exec` can look into it.
///
/// Dropping it removes the name; the kernel takes the namespace down once the last socket in it is closed.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<OwnedFd>,
    netlink: Netlink,
}

/// Whether a namespace passes packets on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Forwarding {
    Off,
    On,
}

impl Namespace {
    /// Creates a namespace named `npc-PID-N-LABEL`.
    ///
    /// The calling thread stays where it is: the namespace is made by a thread of its own.
    pub(super) fn create(label: &str, forwarding: Forwarding) -> Result<Self, TopologyError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{}", process::id(), readable(label, MAX_LABEL));
        let path = path_of(&name);
        let made = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| TopologyError::permission("unshare", errno.into()))?;
            let failed = |operation| {
                let name = name.clone();
                move |source: io::Error| TopologyError::Namespace { name, operation, source }
            };
            configure(forwarding).map_err(failed("set kernel parameters"))?;
            let handle = File::open("/proc/thread-self/ns/net").map_err(failed("open it"))?;
            let netlink = Netlink::open().map_err(failed("open a netlink socket"))?;
            persist(&path).map_err(|source| TopologyError::permission(NAMING, source))?;
            Ok((Arc::new(OwnedFd::from(handle)), netlink))
        });
        let (handle, netlink) = made.map_err(|source| TopologyError::Thread { source })??;
        Ok(Self { name, handle, netlink })
    }

    /// Runs `job` on a thread of its own inside this namespace and returns what it returns.
    ///
    /// Sockets that `job` opens stay in the namespace, wherever they are used later.
    ///
    /// # Errors
    ///
    /// If the thread cannot be made or cannot enter the namespace.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            setns(&*self.handle, CloneFlags::CLONE_NEWNET)?;
            Ok(job())
        })?
    }

    /// Returns the name below `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    pub(super) fn handle(&self) -> &Arc<OwnedFd> {
        &self.handle
    }

    pub(super) fn netlink(&self) -> &Netlink {
        &self.netlink
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove_name(&path_of(&self.name));
    }
}

/// Removes the names that runs left behind whose process is gone, once per process.
///
/// A name with our own process id is a leftover, too: we have not made any yet.
pub(super) fn remove_leftovers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(entries) = fs::read_dir(DIRECTORY) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(is_leftover) {
                remove_name(&entry.path());
            }
        }
    });
}

/// Creates the directory of names and makes it a shared mount, as `ip netns add` does.
///
/// Shared, because otherwise a copy of the mount in another mount namespace would keep our namespaces alive.
pub(super) fn prepare_directory() -> Result<(), TopologyError> {
    let failed = |source| TopologyError::permission(NAMING, source);
    fs::create_dir_all(DIRECTORY).map_err(failed)?;
    let directory = File::open(DIRECTORY).map_err(failed)?;
    // Two processes that start together must not stack two mounts.
    let _lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| failed(errno.into()))?;
    match share() {
        // Not a mount yet.
        Err(Errno::EINVAL) => bind(Path::new(DIRECTORY), MsFlags::MS_REC).and_then(|()| share()),
        other => other,
    }
    .map_err(|errno| failed(errno.into()))
}

/// Enters the namespace behind `handle` for good.
pub(super) fn enter(handle: impl AsFd) -> io::Result<()> {
    Ok(setns(handle, CloneFlags::CLONE_NEWNET)?)
}

/// Returns `text` with everything but ASCII letters and digits replaced by dashes, cut to `limit` bytes.
pub(super) fn readable(text: &str, limit: usize) -> String {
    text.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).take(limit).collect()
}

fn on_own_thread<T: Send>(job: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, job)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn share() -> nix::Result<()> {
    mount(None::<&str>, DIRECTORY, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
}

fn bind(path: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(Some(path), path, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
}

/// Lets netfilter see what bridges of a namespace forward, which is up to the namespace.
pub(super) fn show_bridged_packets(namespace: &Namespace) -> Result<(), TopologyError> {
    let set = || {
        ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
            .into_iter()
            .try_for_each(|name| fs::write(Path::new("/proc/sys/net/bridge").join(name), "1"))
    };
    let set = namespace.run(set).map_err(|source| TopologyError::Thread { source })?;
    set.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => TopologyError::NoBridgeNetfilter,
        _ => TopologyError::permission("set `net/bridge`", source),
    })
}

/// Gives the calling thread's network namespace a name.
fn persist(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?;
    let source = Some("/proc/thread-self/ns/net");
    mount(source, path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| {
        remove_name(path);
        errno.into()
    })
}

fn remove_name(path: &Path) {
    // Nobody can be told: a name that stays is removed as a leftover by the next run.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

fn is_leftover(name: &str) -> bool {
    let Some((pid, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    pid.parse::<i32>().is_ok_and(|pid| {
        let own = u32::try_from(pid) == Ok(process::id());
        pid > 0 && (own || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
    })
}

/// Sets the kernel parameters of the calling thread's namespace.
///
/// IPv4 settings of a new namespace are copied from the machine's, so whatever matters is set. Only policy may drop a
/// packet (no reverse path filter), an ICMP error is never held back, and IPv6 addresses work at once.
fn configure(forwarding: Forwarding) -> io::Result<()> {
    let forward = match forwarding {
        Forwarding::Off => "0",
        Forwarding::On => "1",
    };
    let group = getegid();
    let ping_groups = format!("{group} {group}");
    let settings = [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv4/ip_forward", forward),
        // Nothing is subject to limits; without a limit (`icmp_ratelimit`) others would starve (Linux 6.18).
        ("ipv4/icmp_ratemask", "0"),
        ("ipv4/ping_group_range", &ping_groups),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        // No link-local addresses but ours.
        ("ipv6/conf/default/addr_gen_mode", "1"),
        ("ipv6/conf/all/forwarding", forward),
        ("ipv6/icmp/ratelimit", "0"),
        // Shared by both families; older kernels have one limit for the machine.
        ("ipv4/icmp_msgs_per_sec", "1000000"),
        ("ipv4/icmp_msgs_burst", "10000"),
    ];
    for (name, value) in settings {
        match fs::write(Path::new("/proc/sys/net").join(name), value) {
            // A kernel without the parameter has nothing to set.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(error.kind(), format!("`net/{name}`: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_names_of_dead_processes() {
        let own = process::id();
        for (name, leftover) in [
            (format!("npc-{own}-0-fabric"), true),
            ("npc-1-0-fabric".to_owned(), false),
            ("npc-4194305-0-fabric".to_owned(), true),
            ("npc--1-0-fabric".to_owned(), false),
            ("npc-4194305".to_owned(), false),
            ("other-4194305-0-x".to_owned(), false),
        ] {
            assert_eq!(is_leftover(&name), leftover, "{name}");
        }
    }

    #[test]
    fn names_are_readable_and_bounded() {
        assert_eq!(readable("x/front.end", 40), "x-front-end");
        assert_eq!(readable("ä/b", 2), "--");
    }
}
