//! From files to plans.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use netpol_core::api::Strictness;
use netpol_core::{DestinationView, SourceView};
use serde_json::Value;

use super::attempt::Attempt;
use super::error::{Problem, ScenarioError};
use super::feature::Feature;
use super::object::{ObjectId, decode};
use super::spec::{API_VERSION, KIND, ScenarioDocument, Spec, StepSpec};
use super::{About, Plan, Scenario, Skipped, Step, base_name};
use crate::cluster::{Cluster, NamelessHosts, Reading};
use crate::document;
use crate::topology::PodLinks;

/// Most objects, probes and pairs of pods of all steps of a scenario, some seconds of work.
const MAX_SIZE: usize = 500_000;

/// Reads a scenario file and works it out.
///
/// # Errors
///
/// If the file cannot be read or is no scenario in every detail.
pub fn load(file: &Path) -> Result<Scenario, ScenarioError> {
    let text = document::text(file)
        .map_err(|error| ScenarioError::new(file, "", Problem::Read(error.source)))?;
    parse(file, &text)
}

/// As [`load`], from the text of the file.
///
/// # Errors
///
/// If this is no scenario in every detail.
pub fn parse(file: &Path, text: &str) -> Result<Scenario, ScenarioError> {
    let fail = |place: String, problem| ScenarioError::new(file, place, problem);
    let mut values = Vec::new();
    for document in document::read(text) {
        let place = format!("document {}", document.index);
        let content =
            document.content.map_err(|error| fail(place.clone(), Problem::Syntax(error)))?;
        values.extend(document::unpack(content).into_iter().map(|value| (place.clone(), value)));
    }
    let taken = addresses_in(values.iter().map(|(_, value)| value));
    let Some((place, last)) = values.pop().filter(|(_, value)| is_scenario(value)) else {
        return Err(fail(String::new(), Problem::NoScenario));
    };
    let ScenarioDocument { metadata, spec, .. } =
        decode(&last).map_err(|problem| fail(place, problem))?;
    let expected = base_name(file);
    if metadata.name != expected {
        return Err(fail(String::new(), Problem::Name { name: metadata.name, expected }));
    }
    let about = About {
        file: file.to_owned(),
        name: metadata.name,
        description: spec.description.clone(),
        requires: spec.requires.clone(),
    };
    if let Some(reason) = missing_features(&spec) {
        return Ok(Scenario::Skipped(Skipped { about, reason }));
    }
    let cluster =
        initial(&values, taken, reading(&spec)).map_err(|(place, problem)| fail(place, problem))?;
    let initial = Arc::new(cluster.clone());
    let steps = steps(cluster, &spec).map_err(|(place, problem)| fail(place, problem))?;
    Ok(Scenario::Plan(Plan { about, initial, steps }))
}

pub(crate) fn is_scenario(value: &Value) -> bool {
    let is = |key, wanted| value.get(key).and_then(Value::as_str) == Some(wanted);
    is("kind", KIND) && is("apiVersion", API_VERSION)
}

/// Returns why the scenario is skipped, if it is.
fn missing_features(spec: &Spec) -> Option<String> {
    let missing: Vec<_> =
        spec.requires.iter().filter_map(|it| it.parse::<Feature>().err()).collect();
    let names: Vec<_> = missing.iter().map(|it| format!("`{}`", it.0)).collect();
    (!names.is_empty())
        .then(|| format!("requires {}, which this harness does not have", names.join(", ")))
}

/// Returns how objects are taken: features say more than what a harness must have.
fn reading(spec: &Spec) -> Reading {
    let requires = |feature: Feature| spec.requires.iter().any(|it| it == feature.as_str());
    Reading {
        unknown_fields: if requires(Feature::CnpUnknownField) {
            Strictness::Degraded
        } else {
            Strictness::Strict
        },
        source_view: if requires(Feature::SourceAfterNat) {
            Some(SourceView::AfterSourceNat)
        } else {
            requires(Feature::SourceBeforeNat).then_some(SourceView::BeforeSourceNat)
        },
        destination_view: requires(Feature::DestinationAfterNat)
            .then_some(DestinationView::AfterDestinationNat),
        nameless_hosts: if requires(Feature::HostInterfaces) {
            NamelessHosts::Enforced
        } else {
            NamelessHosts::Peers
        },
        pods: if requires(Feature::Bridge) { PodLinks::Bridged } else { PodLinks::Routed },
        unknown_interfaces: spec.unknown_interfaces.map(Into::into),
    }
}

/// Returns the cluster of the initial objects.
fn initial(
    values: &[(String, Value)],
    taken: BTreeSet<IpAddr>,
    reading: Reading,
) -> Result<Cluster, (String, Problem)> {
    let node = values
        .iter()
        .filter_map(|(_, value)| ObjectId::of(value).ok())
        .find(|id| id.is_core("Node"));
    let mut cluster = Cluster::new(node.map(|id| id.name), taken, reading);
    for (place, value) in values {
        check_initial(value)
            .and_then(|()| cluster.apply(value))
            .map_err(|problem| (place.clone(), problem))?;
    }
    cluster.settle().map_err(|problem| ("initial objects".to_owned(), problem))?;
    Ok(cluster)
}

fn check_initial(value: &Value) -> Result<(), Problem> {
    if is_scenario(value) {
        return Err(Problem::EarlyScenario);
    }
    let id = ObjectId::of(value)?;
    let kinds = ["Namespace", "Node", "Pod", "ServiceAccount", "Service"];
    if id.is_machine() || id.is_slice() || kinds.iter().any(|kind| id.is_core(kind)) {
        return Ok(());
    }
    Err(Problem::Kind {
        version: value.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned(),
        kind: id.kind,
        expected: "`Namespace`, `Node`, `Pod`, `Service`, `EndpointSlice`, `ServiceAccount` or `VirtualMachine` before the scenario",
    })
}

/// Plays the steps through.
fn steps(mut cluster: Cluster, spec: &Spec) -> Result<Vec<Step>, (String, Problem)> {
    let mut steps = Vec::new();
    let mut size: usize = 0;
    for (index, step) in spec.steps.iter().enumerate() {
        let at = |(field, problem)| {
            (format!("step `{}`, spec.steps[{index}].{field}", step.name), problem)
        };
        change(&mut cluster, step).map_err(at)?;
        size = size.saturating_add(size_of(&cluster, step));
        if size > MAX_SIZE {
            return Err(at(("probes".to_owned(), Problem::TooLarge { limit: MAX_SIZE })));
        }
        let attempts = attempts(&cluster, step).map_err(at)?;
        steps.push(Step {
            name: step.name.clone(),
            deleted: step.delete.iter().map(ToString::to_string).collect(),
            applied: step.apply.clone(),
            cluster: Arc::new(cluster.clone()),
            attempts,
        });
    }
    Ok(steps)
}

/// Returns how many objects a step keeps, and how many attempts it can come to.
fn size_of(cluster: &Cluster, step: &StepSpec) -> usize {
    let pods = cluster.pods().len();
    let pairs = step.matrix.as_ref().map_or(0, |_| pods.saturating_mul(pods));
    cluster.model().len().saturating_add(step.probes.len()).saturating_add(pairs)
}

fn change(cluster: &mut Cluster, step: &StepSpec) -> Result<(), (String, Problem)> {
    cluster.set(|settings| step.settings.apply(settings));
    for (index, object) in step.delete.iter().enumerate() {
        cluster.delete(object).map_err(|problem| (format!("delete[{index}]"), problem))?;
    }
    for (index, value) in step.apply.iter().enumerate() {
        let place = format!("apply[{index}]");
        if is_scenario(value) {
            return Err((place, Problem::EarlyScenario));
        }
        cluster.apply(value).map_err(|problem| (place, problem))?;
    }
    cluster.settle().map_err(|problem| ("apply".to_owned(), problem))?;
    cluster.keep_unknown(&step.unknown).map_err(|problem| ("unknown".to_owned(), problem))
}

fn attempts(cluster: &Cluster, step: &StepSpec) -> Result<Vec<Attempt>, (String, Problem)> {
    let mut attempts = Vec::new();
    for (index, probe) in step.probes.iter().enumerate() {
        let attempt = Attempt::of_probe(cluster, probe);
        attempts.push(attempt.map_err(|problem| (format!("probes[{index}]"), problem))?);
    }
    if let Some(matrix) = &step.matrix {
        let expanded = Attempt::of_matrix(cluster, matrix);
        attempts.extend(expanded.map_err(|problem| ("matrix".to_owned(), problem))?);
    }
    Ok(attempts)
}

/// Returns every text that is an address: none of them may be given to somebody else.
pub(crate) fn addresses_in<'a>(values: impl Iterator<Item = &'a Value>) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    let mut rest: Vec<&Value> = values.collect();
    while let Some(value) = rest.pop() {
        match value {
            Value::String(text) => addresses.extend(address_in(text)),
            Value::Array(items) => rest.extend(items),
            Value::Object(fields) => rest.extend(fields.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    addresses
}

/// Returns the address in an address or prefix.
fn address_in(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}
