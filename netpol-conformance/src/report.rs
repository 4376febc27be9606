//! Reports of runs.

mod junit;
mod pretty;

use std::collections::BTreeMap;
use std::path::Path;

use netpol_core::Verdict;
use serde::{Serialize, Serializer};

pub use self::junit::junit;
pub use self::pretty::pretty;
use crate::scenario::{About, ProbeProtocol};
use crate::subject::Got;

/// What came of a run, in the form of its JSON report.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One row per probe and backend, and one per scenario that a backend skipped.
    pub results: Vec<Row>,
    /// The rows of each backend, counted.
    pub summary: BTreeMap<String, Counts>,
}

/// What came of one probe, or that a scenario was skipped.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The scenario's file.
    pub file: String,
    /// The scenario's name.
    pub scenario: String,
    /// The backend.
    pub backend: String,
    /// The step's name.
    pub step: Option<String>,
    /// The source of the probe, as the scenario writes it.
    pub from: Option<String>,
    /// The destination of the probe, as the scenario writes it.
    pub to: Option<String>,
    /// The protocol.
    #[serde(serialize_with = "as_text")]
    pub protocol: Option<ProbeProtocol>,
    /// The port, if the protocol has ports.
    pub port: Option<u16>,
    /// What else the probe is about, such as ` from port 5000`; mostly nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// What had to come of the probe.
    #[serde(serialize_with = "as_text")]
    pub expect: Option<Verdict>,
    /// What came of it.
    pub got: Option<Got>,
    /// Whether that is right.
    pub status: Status,
    /// Why.
    pub reason: String,
}

/// Whether a row is right.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "the JSON report has these three")]
pub enum Status {
    /// What was expected was seen.
    Pass,
    /// It was not.
    Fail,
    /// Nothing was tried.
    Skip,
}

/// How many rows have each status.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// [`Status::Pass`].
    pub pass: usize,
    /// [`Status::Fail`].
    pub fail: usize,
    /// [`Status::Skip`].
    pub skip: usize,
}

/// What a run shows as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the exit statuses of `run`")]
pub enum Conclusion {
    /// At least one probe ran, and none failed.
    Passed,
    /// Something failed.
    Failed,
    /// Nothing ran.
    NothingRan,
}

impl Report {
    /// Returns an empty report on these backends.
    pub fn new<'a>(backends: impl IntoIterator<Item = &'a str>) -> Self {
        let summary =
            backends.into_iter().map(|name| (name.to_owned(), Counts::default())).collect();
        Self { results: Vec::new(), summary }
    }

    /// Adds rows.
    pub fn extend(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.summary.entry(row.backend.clone()).or_default().count(row.status);
            self.results.push(row);
        }
    }

    /// Returns what the run shows as a whole.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        let total = self.summary.values().fold(Counts::default(), |sum, it| Counts {
            pass: sum.pass + it.pass,
            fail: sum.fail + it.fail,
            skip: sum.skip + it.skip,
        });
        match total {
            Counts { fail: 1.., .. } => Conclusion::Failed,
            Counts { pass: 1.., .. } => Conclusion::Passed,
            Counts { .. } => Conclusion::NothingRan,
        }
    }
}

impl Row {
    /// Returns the row of a scenario that a backend skips.
    #[must_use]
    pub fn skipped(about: &About, backend: &str, reason: String) -> Self {
        Self {
            file: about.file.display().to_string(),
            scenario: about.name.clone(),
            backend: backend.to_owned(),
            step: None,
            from: None,
            to: None,
            protocol: None,
            port: None,
            details: String::new(),
            expect: None,
            got: None,
            status: Status::Skip,
            reason,
        }
    }

    /// Returns the row of a file that could not be loaded.
    #[must_use]
    pub fn unloadable(file: &Path, backend: &str, reason: String) -> Self {
        let name = file.file_stem().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        let about =
            About { file: file.to_owned(), name, description: String::new(), requires: Vec::new() };
        let (got, status) = (Some(Got::Error), Status::Fail);
        Self { got, status, ..Self::skipped(&about, backend, reason) }
    }

    /// Returns the probe in one line, such as `x/a -> y/b TCP 80`; empty if the row is about no probe.
    #[must_use]
    pub fn probe(&self) -> String {
        let (Some(from), Some(to), Some(protocol)) = (&self.from, &self.to, self.protocol) else {
            return String::new();
        };
        let port = self.port.map_or_else(String::new, |port| format!(" {port}"));
        format!("{from} -> {to} {protocol}{port}{}", self.details)
    }
}

impl Counts {
    const fn count(&mut self, status: Status) {
        match status {
            Status::Pass => self.pass += 1,
            Status::Fail => self.fail += 1,
            Status::Skip => self.skip += 1,
        }
    }
}

fn as_text<T: ToString, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(serializer)
}
