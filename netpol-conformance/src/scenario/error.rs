//! What can be wrong with a scenario file.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netpol_core::api::Diagnostic;

use crate::document::DocumentError;
use crate::text::printable;

use super::object::ObjectId;

/// A scenario file that cannot be run, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct ScenarioError {
    /// The file.
    pub file: PathBuf,
    /// The place in the file: document, step, field. Empty if the file as a whole is meant.
    pub place: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl ScenarioError {
    pub(crate) fn new(file: &Path, place: impl Into<String>, problem: Problem) -> Self {
        Self { file: file.to_owned(), place: place.into(), problem }
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.file.display())?;
        if !self.place.is_empty() {
            write!(f, ", {}", printable(&self.place))?;
        }
        write!(f, ": {}", printable(&self.problem.to_string()))
    }
}

impl std::error::Error for ScenarioError {}

/// What is wrong at one place of a scenario file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A document could not be parsed.
    #[error("{0}")]
    Syntax(DocumentError),
    /// The file does not end with a scenario.
    #[error("the last document is not a scenario, expected `kind: Scenario` of netpol.dev/v1")]
    NoScenario,
    /// A scenario that is not the last document.
    #[error("a scenario before the last document, expected exactly one, at the end")]
    EarlyScenario,
    /// A field is unknown, missing or has a wrong value.
    #[error("{}{message}", at(path))]
    Field {
        /// The path of the field.
        path: String,
        /// What was found and what was expected.
        message: String,
    },
    /// The object lacks a field that every object has.
    #[error("no `{field}`, expected an object with `apiVersion`, `kind` and `metadata.name`")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// The scenario is not named like its file.
    #[error("metadata.name is `{name}`, expected `{expected}`, the base name of the file")]
    Name {
        /// The name as given.
        name: String,
        /// The base name of the file.
        expected: String,
    },
    /// Objects of this kind are not part of the format, or not at this place.
    #[error("unexpected object `{kind}` of `{version}`, expected {expected}")]
    Kind {
        /// The API group and version.
        version: String,
        /// The kind.
        kind: String,
        /// What is possible here.
        expected: &'static str,
    },
    /// The API refuses the object.
    #[error("{id} is refused: {}", joined(diagnostics))]
    Refused {
        /// Which object.
        id: Box<ObjectId>,
        /// Everything that is wrong with it.
        diagnostics: Vec<Diagnostic>,
    },
    /// The object's namespace does not exist.
    #[error("{id} is in namespace `{namespace}`, which does not exist")]
    NoNamespace {
        /// Which object.
        id: Box<ObjectId>,
        /// The namespace; empty if none is given.
        namespace: String,
    },
    /// There is nothing to delete.
    #[error("nothing to delete: there is no {0}")]
    NothingToDelete(String),
    /// Several objects are meant.
    #[error("`{0}` names several objects, expected `apiVersion` to tell which")]
    Ambiguous(String),
    /// Two running hosts have one address.
    #[error("{first} and {second} both have address `{address}`")]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// One host.
        first: String,
        /// The other host.
        second: String,
    },
    /// A pod and a virtual machine have one name.
    #[error("{first} and {second} have one name, which has to tell them apart")]
    SharedName {
        /// The one that exists.
        first: Box<ObjectId>,
        /// The other one.
        second: Box<ObjectId>,
    },
    /// There are too many pods without addresses.
    #[error("no free address is left")]
    NoFreeAddress,
    /// A probe names a pod or node that does not exist.
    #[error("there is no {0}")]
    Unknown(String),
    /// A probe names a pod without network.
    #[error("pod `{0}` does not run, expected a running pod")]
    NotRunning(String),
    /// What sends nothing.
    #[error("`{0}` sends nothing, expected `namespace/pod`, `node:NAME` or an IP address")]
    Source(String),
    /// No node translates this port of a Service.
    #[error("`{to}` has no port {} {}", .port.protocol(), .port.number().unwrap_or_default())]
    Untranslated {
        /// The destination.
        to: String,
        /// What is asked for.
        port: super::ProbePort,
    },
    /// No pair of addresses fits.
    #[error("`{from}` has no address of the family of `{to}`")]
    Family {
        /// The source.
        from: String,
        /// The destination.
        to: String,
    },
    /// A port is missing or too many.
    #[error("{protocol} {}", if *.given { "with a port, expected none" } else { "without a port, expected one" })]
    Port {
        /// The protocol.
        protocol: super::ProbeProtocol,
        /// Whether a port was given.
        given: bool,
    },
    /// A message of a protocol that has none.
    #[error("{0} with `icmp`, expected protocol ICMP")]
    Icmp(super::ProbeProtocol),
    /// A source address that nothing can be sent from.
    #[error(
        "source address `{0}`, expected one of the destination's family, a pod that sends, and a packet that nobody answers"
    )]
    Forged(IpAddr),
    /// A request over a protocol that carries none.
    #[error("{0} with `http`, expected protocol TCP")]
    Http(super::ProbeProtocol),
    /// A matrix of a protocol without ports.
    #[error("a matrix of {0}, expected a protocol with ports")]
    MatrixProtocol(super::ProbeProtocol),
    /// The steps come to too much.
    #[error(
        "more than {limit} objects, probes and pairs of pods in the steps up to here, expected a smaller scenario"
    )]
    TooLarge {
        /// Most of them together, counted in each step.
        limit: usize,
    },
    /// The list of exceptions does not fit the default of a matrix.
    #[error(
        "`{wrong}` beside `default: {wrong}`, expected the exceptions to differ from the default"
    )]
    Exceptions {
        /// The list and the default.
        wrong: netpol_core::Verdict,
    },
    /// An exception of a matrix hits nothing.
    #[error("exception `{0}` hits no pair of the matrix")]
    UselessException(String),
    /// There is no such step.
    #[error("no step is named `{name}`, expected one of: {}", .steps.join(", "))]
    NoStep {
        /// The name that was looked for.
        name: String,
        /// The names that exist.
        steps: Vec<String>,
    },
}

fn at(path: &str) -> String {
    if path.is_empty() || path == "." { String::new() } else { format!("{path}: ") }
}

fn joined(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
