//! Pins: what outlives the process.
//!
//! ```text
//! <bpffs>/netpol/<owner>-<number of the network namespace>/
//!     links/<interface index>-from, -to     links, of whatever version
//!     links/<interface index>-filter        a folder that says that there are filters instead
//!     v<version>-<digest of the sizes>/     maps
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use netpol_core::program::Digest;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::config::EbpfConfig;
use crate::error::EbpfError;
use crate::programs::Side;

/// The longest name of an owner.
const LONGEST_OWNER: usize = 64;

/// Keeps other processes away. Two that write the same maps would give the same numbers to different things.
pub(crate) struct Lock {
    _folder: Flock<File>,
}

/// The folders of a dataplane.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    maps: PathBuf,
    handle: u32,
}

impl Pins {
    /// Returns the folders of a dataplane, which need not exist yet.
    ///
    /// # Errors
    ///
    /// [`EbpfError::Owner`], [`EbpfError::NoBpfFs`].
    pub(crate) fn of(config: &EbpfConfig, namespace: u64) -> Result<Self, EbpfError> {
        let owner = &config.owner;
        // The BPF file system takes no dots.
        let fits = (1..=LONGEST_OWNER).contains(&owner.len())
            && owner.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
        if !fits {
            return Err(EbpfError::Owner { owner: owner.clone() });
        }
        let is_bpf = statfs(&config.bpf_fs).is_ok_and(|it| it.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpf {
            return Err(EbpfError::NoBpfFs { path: config.bpf_fs.clone() });
        }
        let root = config.bpf_fs.join("netpol").join(format!("{owner}-{namespace}"));
        let sizes = Digest::of(&config.capacity.sizes()).to_string();
        let maps = root.join(format!(
            "v{}-{}",
            netpol_ebpf_abi::VERSION,
            sizes.get(..8).unwrap_or_default()
        ));
        let [a, b, c, d, ..] = Digest::of(&("filter", owner)).bytes();
        // A handle of 0 is none.
        let handle = u32::from_ne_bytes([a, b, c, d]) | 1;
        Ok(Self { root, maps, handle })
    }

    /// Makes the folders.
    pub(crate) fn make(&self) -> Result<(), EbpfError> {
        for folder in [&self.maps, &self.links()] {
            fs::create_dir_all(folder).map_err(|source| error("make", folder, source))?;
        }
        Ok(())
    }

    /// Has the folders to ourselves, as long as the value lives.
    ///
    /// # Errors
    ///
    /// [`EbpfError::Busy`] if another process has them.
    pub(crate) fn lock(&self) -> Result<Lock, EbpfError> {
        let failed = |source| error("lock", &self.root, source);
        let folder = File::open(&self.root).map_err(failed)?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock { _folder: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(EbpfError::Busy { path: self.root.clone() }),
            Err((_, source)) => Err(failed(source.into())),
        }
    }

    /// Returns whether there are maps of this version and size.
    pub(crate) fn has_maps(&self) -> bool {
        self.maps.exists()
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    pub(crate) fn link(&self, interface: u32, side: Side) -> PathBuf {
        self.links().join(match side {
            Side::From => format!("{interface}-from"),
            Side::To => format!("{interface}-to"),
        })
    }

    /// Returns the handle of filters, which tells those of owners apart.
    pub(crate) const fn handle(&self) -> u32 {
        self.handle
    }

    pub(crate) fn filter(&self, interface: u32) -> PathBuf {
        self.links().join(format!("{interface}-filter"))
    }

    /// Returns the indexes of the interfaces that have links or filters.
    pub(crate) fn interfaces(&self) -> Result<BTreeSet<u32>, EbpfError> {
        let names = listing(&self.links())?;
        Ok(names.iter().filter_map(|name| name.split('-').next()?.parse().ok()).collect())
    }

    /// Returns the indexes of the interfaces that have filters.
    pub(crate) fn interfaces_with_filters(&self) -> Result<BTreeSet<u32>, EbpfError> {
        let mut interfaces = self.interfaces()?;
        interfaces.retain(|interface| self.filter(*interface).exists());
        Ok(interfaces)
    }

    /// Removes the maps of other versions and sizes.
    pub(crate) fn remove_other_maps(&self) -> Result<(), EbpfError> {
        for name in listing(&self.root)? {
            let folder = self.root.join(&name);
            if name.starts_with('v') && folder != self.maps {
                remove(&folder)?;
            }
        }
        Ok(())
    }

    /// Removes everything.
    pub(crate) fn remove(&self) -> Result<(), EbpfError> {
        if self.root.exists() { remove(&self.root) } else { Ok(()) }
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }
}

/// Returns the names in a folder; none if there is no such folder.
fn listing(folder: &Path) -> Result<Vec<String>, EbpfError> {
    let entries = match fs::read_dir(folder) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| error("read", folder, source))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.map_err(|source| error("read", folder, source))?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}

fn remove(folder: &Path) -> Result<(), EbpfError> {
    fs::remove_dir_all(folder).map_err(|source| error("remove", folder, source))
}

/// Returns an error about a pin.
pub(crate) fn error(operation: &'static str, path: &Path, source: io::Error) -> EbpfError {
    EbpfError::Pin { operation, path: path.to_owned(), source }
}
