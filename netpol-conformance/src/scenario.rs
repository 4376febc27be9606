//! Scenarios: a cluster, the changes made to it, and what must reach what after each of them.
//!
//! A [`Plan`] is a scenario with everything worked out that can be wrong with its file, so that running it fails for
//! other reasons only.

mod attempt;
pub(crate) mod error;
mod feature;
mod load;
pub(crate) mod machine;
pub(crate) mod object;
mod reason;
pub(crate) mod spec;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use netpol_core::Verdict;
use netpol_core::eval::Evaluation;
use serde_json::Value;

pub use self::attempt::{Attempt, ProbePort};
pub use self::error::{Problem, ScenarioError};
pub use self::feature::{Feature, UnknownFeature};
pub(crate) use self::load::{addresses_in, is_scenario};
pub use self::load::{load, parse};
pub use self::object::ObjectId;
pub use self::reason::{ReasonText, Reasons};
pub use self::spec::{FormError, IcmpMessage, Party, PartyName, ProbeProtocol};
use crate::cluster::Cluster;
use crate::subject::Judges;

/// What a scenario file holds.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a scenario is run or visibly skipped")]
pub enum Scenario {
    /// Something that can be run.
    Plan(Plan),
    /// Something that needs what this harness does not have.
    Skipped(Skipped),
}

/// A scenario that this harness cannot run.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Skipped {
    /// Where it comes from and what it is about.
    pub about: About,
    /// Why it is skipped.
    pub reason: String,
}

/// A scenario that is ready to be run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Where it comes from and what it is about.
    pub about: About,
    /// The cluster before the first step.
    pub initial: Arc<Cluster>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// Where a scenario comes from and what it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct About {
    /// The file.
    pub file: PathBuf,
    /// The name.
    pub name: String,
    /// What it shows.
    pub description: String,
    /// What a harness needs for it.
    pub requires: Vec<String>,
}

/// A state of the cluster, and what must hold in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// The name.
    pub name: String,
    /// What is deleted first, as `KIND NAMESPACE/NAME`.
    pub deleted: Vec<String>,
    /// What is applied then, as it is written.
    pub applied: Vec<Value>,
    /// The cluster after the step's changes.
    pub cluster: Arc<Cluster>,
    /// What is tried.
    pub attempts: Vec<Attempt>,
}

impl Scenario {
    /// Returns where it comes from and what it is about.
    #[must_use]
    pub const fn about(&self) -> &About {
        match self {
            Self::Plan(plan) => &plan.about,
            Self::Skipped(skipped) => &skipped.about,
        }
    }
}

impl Plan {
    /// Returns the step of this name; the last one if no name is given.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn step(&self, name: Option<&str>) -> Result<&Step, ScenarioError> {
        let step = match name {
            Some(name) => self.steps.iter().find(|step| step.name == name),
            None => self.steps.last(),
        };
        step.ok_or_else(|| {
            let steps = self.steps.iter().map(|step| format!("`{}`", step.name)).collect();
            let name = name.unwrap_or_default().to_owned();
            ScenarioError::new(&self.about.file, "", Problem::NoStep { name, steps })
        })
    }
}

impl Step {
    /// Returns what it takes to try one flow in the state of this step.
    ///
    /// # Errors
    ///
    /// If there are no such parties, or no such flow between them.
    pub fn attempt(&self, from: &Party, to: &Party, port: ProbePort) -> Result<Attempt, Problem> {
        Attempt::resolve(&self.cluster, from, to, port, Verdict::Allow)
    }

    /// Returns what the judge says about an attempt in the state of this step.
    #[must_use]
    pub fn evaluate(&self, attempt: &Attempt) -> Evaluation {
        let inputs = self.cluster.inputs();
        let judges = Judges::new(&inputs, &self.cluster);
        judges.evaluate(&self.cluster, attempt)
    }
}

/// Returns the name that a scenario in this file must have.
fn base_name(file: &Path) -> String {
    file.file_stem().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
}
