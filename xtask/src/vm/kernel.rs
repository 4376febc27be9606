//! The kernel, out of a Debian package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::command::{output, run};

/// The package that depends on the newest kernel of its Debian release.
const NEWEST: &str = "linux-image-cloud-amd64";

/// How the package of the kernel that we want begins: that of Debian 12.
const WANTED: &str = "linux-image-6.1.";

/// A kernel and its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` shows it.
    release: String,
    /// Where the package is unpacked.
    root: PathBuf,
}

impl Kernel {
    /// Downloads the package into `folder` and unpacks it there, if that has not been done yet.
    ///
    /// # Errors
    ///
    /// If the package sources of this machine have no such kernel, or cannot be reached.
    pub(super) fn fetch(folder: &Path) -> Result<Self> {
        let depends = output(Command::new("apt-cache").args(["depends", NEWEST]))?;
        let package = wanted(&depends).ok_or_else(|| unavailable(&depends))?;
        let release = package.strip_prefix("linux-image-").unwrap_or(package).to_owned();
        let root = folder.join(&release);
        if !root.exists() {
            unpack(&download(package, folder)?, &root)?;
        }
        Ok(Self { release, root })
    }

    /// Returns the release, as `uname -r` shows it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// Returns the file to boot.
    pub(super) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// Returns the folder of modules, relative to the root of a machine.
    pub(super) fn modules(&self) -> PathBuf {
        Path::new("lib/modules").join(&self.release)
    }

    /// Returns the folder that the package is unpacked in.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

/// Returns the package that we want among what `apt-cache depends` lists.
fn wanted(depends: &str) -> Option<&str> {
    depends.split_whitespace().find(|word| word.starts_with(WANTED))
}

fn unavailable(depends: &str) -> String {
    format!(
        "apt knows no package `{WANTED}*`, expected the sources of Debian 12 (see `apt-get update`); it says\n{}",
        depends.trim_end()
    )
}

/// Downloads a package into `folder` and returns its file.
fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    let mut command = Command::new("apt-get");
    // Without the option, apt warns root that its own user may not write here.
    command.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder);
    run(&mut command)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!("{package}_")) && name.ends_with(".deb") {
            return Ok(path);
        }
    }
    Err(format!("apt-get has downloaded no file `{package}_*.deb`").into())
}

/// Unpacks the files of a package; `root` exists only once it is complete.
fn unpack(package: &Path, root: &Path) -> Result<()> {
    let partial = root.with_file_name("unpacking");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&partial))?;
    Ok(fs::rename(&partial, root)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_of_debian_12() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(wanted(depends), Some("linux-image-6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn another_kernel_is_not_taken_for_it() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.1-cloud-amd64\n";
        assert_eq!(wanted(depends), None);
        assert!(unavailable(depends).contains("linux-image-6.12.1-cloud-amd64"));
    }
}
