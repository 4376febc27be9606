//! Progress on a terminal.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use netpol_conformance::runner::Progress;

/// A bar on standard error, if that is a terminal.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Returns a bar for so many files.
    pub(crate) fn new(files: usize) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left");
        let bar = ProgressBar::new(u64::try_from(files).unwrap_or(u64::MAX));
        Self(Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))))
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }
}
