//! Rules of this repository that no compiler or linter knows, as checks.

mod manifests;
mod semantics;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::command::{metadata, workspace_root};

/// A file of the repository.
#[derive(Debug)]
struct File {
    /// Relative to the root of the workspace, with `/` between its parts.
    path: String,
    text: String,
}

/// Checks everything and returns what was checked.
///
/// # Errors
///
/// If a rule is broken; the message has one line for each place.
pub(crate) fn tidy() -> Result<String> {
    let root = workspace_root()?;
    let files = read_files(&root)?;
    let mut problems = manifests::check(&metadata()?, &files);
    problems.extend(semantics::check(&files));
    problems.extend(sources::check(&files, &machine_paths(&root)));
    if files.is_empty() {
        return Err("no file found".into());
    }
    if problems.is_empty() {
        return Ok(format!("{} files keep the rules", files.len()));
    }
    problems.sort();
    Err(format!("{} places break a rule:\n{}", problems.len(), problems.join("\n")).into())
}

/// Returns the prefixes of paths that exist on this machine only: the clone and the home of its user.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::home_dir().filter(|home| home.parent().is_some());
    [Some(root.to_owned()), home]
        .into_iter()
        .flatten()
        .map(|path| format!("{}/", path.display()))
        .collect()
}

/// Reads all text files below `root`, without what git or cargo keep there.
fn read_files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && entry.file_name() != ".git" && entry.file_name() != "target" {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.extend(read_file(root, entry.path())?);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Reads a file, or returns `None` if it is not text.
fn read_file(root: &Path, path: PathBuf) -> Result<Option<File>> {
    let Ok(text) = String::from_utf8(fs::read(&path)?) else { return Ok(None) };
    let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
    Ok(Some(File { path, text }))
}

/// Returns the text of the file at `path`, or nothing if there is none.
fn text_of<'a>(files: &'a [File], path: &str) -> &'a str {
    files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
}

#[cfg(test)]
mod tests {
    /// The same check as `cargo xtask tidy`, so that whoever runs only `cargo test` meets it too.
    #[test]
    fn the_repository_is_tidy() {
        let broken = super::tidy().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(broken.is_empty(), "{broken}");
    }
}
