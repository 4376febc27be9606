//! The file system of the machine: a folder of ours, packed into a file that the kernel unpacks into memory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kernel::Kernel;
use crate::Result;
use crate::command::{output, run};

/// The first process.
const INIT: &str = include_str!("init.sh");

/// Debian packages with what every machine needs: the commands of `init.sh`, and the program by which the kernel loads
/// modules. busybox has one too, but it does not wait for a module that another process is loading.
const BASE: [&str; 2] = ["busybox-static", "kmod"];

/// Where the kernel modules are that have to do with networks, or are used by those.
const MODULES: [&str; 5] = ["net", "lib", "crypto", "arch/x86/crypto", "drivers/net"];

/// Folders of the machine that start empty.
const EMPTY: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// A folder that becomes the root of a machine.
#[derive(Debug)]
pub(super) struct Initramfs {
    root: PathBuf,
}

impl Initramfs {
    /// Makes a root of which each machine needs more; what was at `root` is removed.
    pub(super) fn new(root: &Path) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        for name in EMPTY {
            fs::create_dir_all(root.join(name))?;
        }
        // One folder under both names, because packages use either.
        for name in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(root.join("usr").join(name))?;
            symlink(Path::new("usr").join(name), root.join(name))?;
        }
        let initramfs = Self { root: root.to_owned() };
        for package in BASE {
            initramfs.add_package(package)?;
        }
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        Ok(initramfs)
    }

    /// Adds a program, to be found by its name, and the libraries that it needs.
    pub(super) fn add_program(&self, program: &Path) -> Result<()> {
        let name = program.file_name().ok_or("a program without a name")?;
        fs::copy(program, self.root.join("usr/bin").join(name))?;
        self.add_libraries(program)
    }

    /// Adds the programs and libraries of an installed Debian package, and the libraries that those need.
    pub(super) fn add_package(&self, name: &str) -> Result<()> {
        for path in output(Command::new("dpkg").args(["--listfiles", name]))?.lines() {
            let documentation = path.starts_with("/usr/share/");
            let path = Path::new(path);
            // dpkg lists folders too, and what an administrator has removed.
            let Ok(kind) = path.symlink_metadata().map(|it| it.file_type()) else { continue };
            if documentation || kind.is_dir() {
                continue;
            }
            let copy = self.place(path)?;
            if copy.symlink_metadata().is_ok() {
                continue;
            }
            if kind.is_symlink() {
                symlink(fs::read_link(path)?, copy)?;
            } else {
                fs::copy(path, copy)?;
                self.add_libraries(path)?;
            }
        }
        Ok(())
    }

    /// Adds a folder as `name`, with what is in it.
    pub(super) fn add_folder(&self, folder: &Path, name: &str) -> Result<()> {
        copy_folder(folder, &self.root.join(name))
    }

    /// Adds the modules of a kernel, and the tables by which they are found.
    pub(super) fn add_modules(&self, kernel: &Kernel) -> Result<()> {
        let modules = kernel.modules();
        let (from, to) = (kernel.root().join(&modules), self.root.join(&modules));
        for folder in MODULES {
            let folder = Path::new("kernel").join(folder);
            copy_folder(&from.join(&folder), &to.join(&folder))?;
        }
        for table in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
            fs::copy(from.join(table), to.join(table))?;
        }
        let mut depmod = Command::new("/sbin/depmod");
        run(depmod.arg("--basedir").arg(&self.root).arg(kernel.release()))
    }

    /// Packs everything into `file` and returns that.
    pub(super) fn pack(&self, file: &Path) -> Result<PathBuf> {
        const SCRIPT: &str = "find . -print0 | \
                              cpio --create --null --format=newc --owner=+0:+0 --quiet";
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).current_dir(&self.root).stdout(File::create(file)?);
        run(&mut command)?;
        Ok(file.to_owned())
    }

    fn add_libraries(&self, program: &Path) -> Result<()> {
        if !is_elf(program)? {
            return Ok(());
        }
        // The exit status says only that a program needs no libraries.
        let listed = Command::new("ldd").arg(program).output()?.stdout;
        for library in libraries(&String::from_utf8_lossy(&listed))? {
            let copy = self.place(library)?;
            if !copy.exists() {
                fs::copy(library, copy)?;
            }
        }
        Ok(())
    }

    /// Returns where the absolute `path` is below our root, and makes the folders above it.
    fn place(&self, path: &Path) -> Result<PathBuf> {
        let place = self.root.join(path.strip_prefix("/")?);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(place)
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// Whether a file is a program or library, and not a script.
fn is_elf(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(file)?.take(4).read_to_end(&mut start)?;
    Ok(start == b"\x7fELF")
}

/// Returns the files that ldd lists, in lines such as `libc.so.6 => /lib/libc.so.6 (0x7f12)`.
fn libraries(listed: &str) -> Result<Vec<&Path>> {
    if let Some(line) = listed.lines().find(|line| line.ends_with("not found")) {
        return Err(format!("a library is missing: {}", line.trim()).into());
    }
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> std::result::Result<Vec<&Path>, String> {
        libraries(text).map_err(|error| error.to_string())
    }

    #[test]
    fn libraries_are_the_files_that_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x00007fff)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f12)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f34)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(listed(text), Ok(expected.map(Path::new).to_vec()));
    }

    #[test]
    fn a_static_program_needs_none() {
        assert_eq!(listed("\tstatically linked\n"), Ok(Vec::new()));
        assert_eq!(listed("\tnot a dynamic executable\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_missing_library_is_an_error() {
        let error = listed("\tlibmnl.so.0 => not found\n");
        assert_eq!(error, Err("a library is missing: libmnl.so.0 => not found".to_owned()));
    }
}
