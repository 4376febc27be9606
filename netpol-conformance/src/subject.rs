//! Subjects: what is put to the test.

mod feed;
mod kernel;
mod model;
mod program;

use std::io;

use netpol_core::{
    DataplaneError, DataplaneErrorKind, DestinationView, EngineError, Reason, SourceView, Verdict,
};

pub use self::kernel::{Kernel, KnownBy, Open, OpenError};
pub(crate) use self::model::Judges;
pub use self::model::{Model, summary};
pub use self::program::Programs;
use crate::scenario::{Attempt, Step};
use crate::topology::TopologyError;

/// Something that enforces policy on a cluster, and can be asked what passes.
///
/// One subject plays one scenario: it is given the steps in order, on one continuing state.
pub trait Subject {
    /// Brings the cluster into the state of `step`, waits until it has settled, and makes the attempts of the step.
    ///
    /// Returns one observation per attempt, in the same order. `later` are the steps to come.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] if the state could not be reached. No further step is played then.
    fn play(&mut self, step: &Step, later: &[Step]) -> Result<Vec<Observation>, SubjectError>;

    /// Returns why the subject cannot make an attempt, whatever the state; `None` if it can.
    ///
    /// What is observed of an attempt that cannot be made does not count. This default is that of subjects that judge
    /// packets: they cannot make HTTP requests.
    fn inability(&self, attempt: &Attempt) -> Option<String> {
        no_requests(attempt)
    }
}

fn no_requests(attempt: &Attempt) -> Option<String> {
    attempt.http.is_some().then(|| "judges packets, no HTTP requests".to_owned())
}

/// What came of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// What was seen.
    pub got: Got,
    /// Why, as far as the subject knows. Reports add what the model says where it does not, or where it is wrong.
    pub detail: Option<String>,
    /// Why the halves were judged as they were, egress first, where the subject shows that.
    pub reasons: Option<[Reason; 2]>,
    /// What would have been seen if staged policies were enforced, where the subject shows that.
    pub pending: Option<Verdict>,
}

/// What was seen of an attempt.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "it passed, it did not, or nothing can be said")]
pub enum Got {
    /// It passed.
    Allow,
    /// It did not pass.
    Deny,
    /// The attempt says nothing about policy.
    Error,
}

/// Why a subject could not reach a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// The engine did not take an object, or settings.
    #[error("the engine of node `{node}` refuses the state")]
    Engine {
        /// The node.
        node: String,
        /// Why.
        source: EngineError,
    },
    /// A dataplane failed.
    #[error("the dataplane of node `{node}` failed")]
    Dataplane {
        /// The node.
        node: String,
        /// Why.
        source: DataplaneError,
    },
    /// A dataplane closed an endpoint because it could not program it.
    #[error("the dataplane of node `{node}` closed `{endpoint}`")]
    Isolated {
        /// The node.
        node: String,
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: DataplaneError,
    },
    /// A dataplane could not be opened.
    #[error("no dataplane on node `{node}`")]
    Open {
        /// The node.
        node: String,
        /// Why.
        source: OpenError,
    },
    /// Pods are behind bridges, and nobody said how to make a dataplane for those.
    #[error("no dataplane for pods behind a bridge")]
    NoBridges,
    /// A scenario depends on which source ingress is judged on, and a dataplane has the other one.
    #[error("judges ingress on the source {}", match .0 {
        SourceView::BeforeSourceNat => "before source NAT",
        SourceView::AfterSourceNat => "after source NAT",
    })]
    SourceView(SourceView),
    /// A scenario depends on which destination egress is judged on, and a dataplane has the other one.
    #[error("judges egress on the destination {}", match .0 {
        DestinationView::AfterDestinationNat => "after destination NAT",
        DestinationView::BeforeDestinationNat => "before destination NAT",
    })]
    DestinationView(DestinationView),
    /// The hosts could not be made.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A thread could not be made, or could not enter a network namespace.
    #[error("cannot start a thread for a network namespace")]
    Thread {
        /// The system's error.
        source: io::Error,
    },
}

impl SubjectError {
    /// Returns whether the subject says that it cannot do what a scenario needs, or a tool is not there that the scenario
    /// needs: then the scenario is skipped.
    #[must_use]
    pub fn is_inability(&self) -> bool {
        match self {
            Self::Engine {
                source: EngineError::HostEndpoint { .. } | EngineError::OwnHost,
                ..
            }
            | Self::NoBridges
            | Self::SourceView(_)
            | Self::DestinationView(_)
            | Self::Topology(TopologyError::NoBridgeNetfilter) => true,
            Self::Topology(TopologyError::Tool { source, .. }) => {
                source.kind() == io::ErrorKind::NotFound
            }
            _ => false,
        }
    }

    /// Returns whether the machine cannot run the subject at all, whatever the scenario.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Dataplane { source, .. } => {
                matches!(
                    source.kind(),
                    DataplaneErrorKind::Permission | DataplaneErrorKind::Unsupported
                )
            }
            Self::Open { .. } | Self::Topology(TopologyError::Permission { .. }) => true,
            Self::Engine { .. }
            | Self::Isolated { .. }
            | Self::NoBridges
            | Self::SourceView(_)
            | Self::DestinationView(_)
            | Self::Topology(_)
            | Self::Thread { .. } => false,
        }
    }
}

impl Observation {
    /// Returns what follows from a verdict.
    #[must_use]
    pub const fn of(verdict: Verdict, detail: Option<String>) -> Self {
        let got = match verdict {
            Verdict::Allow => Got::Allow,
            Verdict::Deny => Got::Deny,
        };
        Self { got, detail, reasons: None, pending: None }
    }

    /// Returns the same with the reasons of both halves.
    #[must_use]
    pub fn because(self, egress: Reason, ingress: Reason) -> Self {
        Self { reasons: Some([egress, ingress]), ..self }
    }

    /// Returns what comes of an attempt that nobody is there to receive.
    pub(crate) fn no_backend() -> Self {
        Self::of(Verdict::Deny, Some("the Service has no backend".to_owned()))
    }

    /// Returns an attempt that says nothing, and why.
    pub fn error(detail: impl Into<String>) -> Self {
        Self { got: Got::Error, detail: Some(detail.into()), reasons: None, pending: None }
    }
}

impl Got {
    /// Returns the word that reports use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }

    /// Returns whether this is what was expected.
    #[must_use]
    pub const fn is(self, expected: Verdict) -> bool {
        matches!((self, expected), (Self::Allow, Verdict::Allow) | (Self::Deny, Verdict::Deny))
    }
}
