//! Runs scenarios on backends.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use netpol_core::eval::Judgement;
use netpol_core::{Direction, Reason, Verdict};

use crate::explain;
use crate::report::{Report, Row, Status};
use crate::scenario::{About, Attempt, Plan, ReasonText, Reasons, Scenario, Step};
use crate::subject::{Got, Judges, Observation, Subject, SubjectError};

/// A kind of subject, by name.
pub struct Backend {
    name: String,
    jobs: usize,
    open: Box<Open>,
}

type Open = dyn Fn() -> Result<Box<dyn Subject>, SubjectError> + Send + Sync;

/// Is told how a run comes along.
pub trait Progress: Sync {
    /// One file is done on one backend.
    fn advance(&self);
}

impl Backend {
    /// Returns a backend of which `jobs` subjects can work at a time. `open` makes a subject for one scenario.
    pub fn new(
        name: impl Into<String>,
        jobs: usize,
        open: impl Fn() -> Result<Box<dyn Subject>, SubjectError> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), jobs: jobs.max(1), open: Box::new(open) }
    }

    /// Returns the same backend with another number of subjects at a time.
    #[must_use]
    pub fn with_jobs(self, jobs: usize) -> Self {
        Self { jobs: jobs.max(1), ..self }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs one scenario.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] if this machine cannot run the backend at all.
    pub fn run(&self, scenario: &Scenario) -> Result<Vec<Row>, SubjectError> {
        match scenario {
            Scenario::Skipped(skipped) => {
                Ok(vec![Row::skipped(&skipped.about, &self.name, skipped.reason.clone())])
            }
            Scenario::Plan(plan) => self.play(plan),
        }
    }

    fn play(&self, plan: &Plan) -> Result<Vec<Row>, SubjectError> {
        let mut rows = Vec::new();
        let mut subject = (self.open)()?;
        let mut failure: Option<Row> = None;
        for (index, step) in plan.steps.iter().enumerate() {
            let later = plan.steps.get(index + 1..).unwrap_or_default();
            if failure.is_none() {
                match subject.play(step, later) {
                    Ok(observations) => {
                        rows.extend(self.rows(&plan.about, step, &*subject, observations));
                    }
                    Err(error) if error.is_fatal() => return Err(error),
                    Err(error) => failure = Some(self.failure(&plan.about, &error)),
                }
            }
            if let Some(failure) = &failure {
                rows.extend(self.failed(&plan.about, step, failure));
            }
        }
        Ok(rows)
    }

    fn rows(
        &self,
        about: &About,
        step: &Step,
        subject: &dyn Subject,
        observations: Vec<Observation>,
    ) -> Vec<Row> {
        let inputs = step.cluster.inputs();
        let judges = Judges::new(&inputs, &step.cluster);
        let mut rows = Vec::new();
        for (attempt, observation) in step.attempts.iter().zip(observations) {
            let row =
                |got, status, reason| self.row(about, step, Some(attempt), got, status, reason);
            if let Some(inability) = subject.inability(attempt) {
                rows.push(row(None, Status::Skip, inability));
                continue;
            }
            let Observation { got, detail, reasons, pending } = observation;
            let wrong = [
                differing_reason(&attempt.reasons, reasons.as_ref()),
                differing_pending(attempt.pending, pending),
            ];
            let passed = got.is(attempt.expect) && wrong.iter().all(Option::is_none);
            let model = || {
                let Judgement { egress, ingress, hosts, .. } =
                    judges.evaluate(&step.cluster, attempt).enforced;
                let reasons = explain::reasons(Some(&egress), Some(&ingress), &hosts, &inputs);
                format!("model:\n{reasons}")
            };
            // The subject's own words are enough where it is right.
            let why = match detail {
                Some(detail) if passed => detail,
                Some(detail) => format!("{detail}\n{}", model()),
                None => model(),
            };
            let why = wrong.into_iter().flatten().chain([why]).collect::<Vec<_>>().join("\n");
            rows.push(row(Some(got), if passed { Status::Pass } else { Status::Fail }, why));
            if attempt.reasons != Reasons::default() && reasons.is_none() {
                rows.push(row(None, Status::Skip, "shows no reasons, only verdicts".to_owned()));
            }
            if attempt.pending.is_some() && pending.is_none() {
                rows.push(row(None, Status::Skip, "shows no pending verdicts".to_owned()));
            }
        }
        rows
    }

    /// Returns what every row says from a step on whose state could not be reached.
    fn failure(&self, about: &About, error: &SubjectError) -> Row {
        let row = Row::skipped(about, &self.name, chain(error));
        if error.is_inability() {
            return row;
        }
        Row { got: Some(Got::Error), status: Status::Fail, ..row }
    }

    /// Returns rows for a step whose state could not be reached.
    fn failed(&self, about: &About, step: &Step, failure: &Row) -> Vec<Row> {
        let Row { got, status, reason, .. } = failure;
        let row = |attempt| self.row(about, step, attempt, *got, *status, reason.clone());
        if step.attempts.is_empty() {
            return vec![row(None)];
        }
        step.attempts.iter().map(|attempt| row(Some(attempt))).collect()
    }

    fn row(
        &self,
        about: &About,
        step: &Step,
        attempt: Option<&Attempt>,
        got: Option<Got>,
        status: Status,
        reason: String,
    ) -> Row {
        Row {
            step: Some(step.name.clone()),
            from: attempt.map(|it| it.from.clone()),
            to: attempt.map(|it| it.to.clone()),
            protocol: attempt.map(|it| it.port.protocol()),
            port: attempt.and_then(|it| it.port.number()),
            details: attempt.map(Attempt::details).unwrap_or_default(),
            expect: attempt.map(|it| it.expect),
            got,
            status,
            reason,
            ..Row::skipped(about, &self.name, String::new())
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

/// Runs all scenarios on all backends, one backend after the other, the scenarios in parallel.
///
/// # Errors
///
/// [`SubjectError`] if this machine cannot run one of the backends at all.
pub fn run(
    scenarios: &[Scenario],
    backends: &[Backend],
    progress: &dyn Progress,
) -> Result<Report, SubjectError> {
    let mut report = Report::new(backends.iter().map(Backend::name));
    for backend in backends {
        for rows in run_parallel(scenarios, backend, progress)? {
            report.extend(rows);
        }
    }
    Ok(report)
}

/// Returns the rows of each scenario, in order.
fn run_parallel(
    scenarios: &[Scenario],
    backend: &Backend,
    progress: &dyn Progress,
) -> Result<Vec<Vec<Row>>, SubjectError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<Row>)>, SubjectError> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(index) else { return Ok(done) };
            // After a fatal error nobody needs the rest.
            let rows = backend
                .run(scenario)
                .inspect_err(|_| next.store(scenarios.len(), Ordering::Relaxed))?;
            done.push((index, rows));
            progress.advance();
        }
    };
    let mut rows = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..backend.jobs.min(scenarios.len())).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            rows.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<(), SubjectError>(())
    })?;
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, rows)| rows).collect())
}

/// Returns in which half another reason was shown than was expected, if one was.
fn differing_reason(expected: &Reasons, shown: Option<&[Reason; 2]>) -> Option<String> {
    let [egress, ingress] = shown?;
    [(Direction::Egress, egress), (Direction::Ingress, ingress)].into_iter().find_map(
        |(half, reason)| {
            let expected = expected.of(half)?;
            let is_expected = ReasonText::of(reason).as_ref() == Some(expected);
            (!is_expected)
                .then(|| format!("expected `{expected}` as reason of {half}, got `{reason}`"))
        },
    )
}

fn differing_pending(expected: Option<Verdict>, shown: Option<Verdict>) -> Option<String> {
    let (expected, shown) = expected.zip(shown)?;
    (expected != shown).then(|| format!("expected `{expected}` as pending verdict, got `{shown}`"))
}

/// Returns an error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |it| it.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
