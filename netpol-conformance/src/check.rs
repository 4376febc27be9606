//! Whether the APIs accept documents, and whether they say what their authors may mean.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use netpol_core::Direction;
use netpol_core::api::Diagnostic;
use netpol_core::lint::{Finding, Lint, Severity, lint};
use netpol_core::model::{Inputs, Object, PolicyKey};
use serde::Serialize;
use serde_json::Value;

use crate::document::{self, DocumentError};
use crate::explain;
use crate::wire::{Conversion, convert};

/// What came of checking files, in the form of its JSON report.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// One entry per object, and one per document that is none.
    pub results: Vec<Entry>,
    /// All objects that are accepted.
    #[serde(skip)]
    inputs: Inputs,
    /// Which entry is about which policy.
    #[serde(skip)]
    places: BTreeMap<PolicyKey, usize>,
}

/// What came of one object.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// The file.
    pub file: String,
    /// The place of its document in the file, from 0.
    pub document: usize,
    /// The kind, if it has one.
    pub kind: Option<String>,
    /// The namespace, if it has one.
    pub namespace: Option<String>,
    /// The name, if it has one.
    pub name: Option<String>,
    /// Whether its API accepts it; `None` if no API knows it.
    pub accepted: Option<bool>,
    /// No API knows it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// Why it is ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is wrong with it.
    pub errors: Vec<EntryError>,
    /// What it says and its author may not mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<EntryFinding>,
}

/// Something that is wrong with an object.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntryError {
    /// The field; empty if the document as a whole is meant.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Something that an object says and its author may not mean.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntryFinding {
    /// How much it matters.
    #[serde(serialize_with = "as_text")]
    pub severity: Severity,
    /// The name of the lint, such as `unknown-tier`.
    pub lint: &'static str,
    /// The rule, such as `ingress[0]`, if only one is meant.
    pub rule: Option<String>,
    /// What is found.
    pub message: String,
}

impl Checked {
    /// Checks all documents of a text; `file` is the name it goes by.
    pub fn add(&mut self, file: &Path, text: &str) {
        for document in document::read(text) {
            match document.content {
                Ok(content) => {
                    for value in document::unpack(content) {
                        self.add_object(file, document.index, &value);
                    }
                }
                Err(error) => self.results.push(Entry::unreadable(file, document.index, &error)),
            }
        }
    }

    /// Refuses a file that holds no text.
    pub fn refuse(&mut self, file: &Path, reason: &io::Error) {
        let error = DocumentError { message: reason.to_string(), position: None };
        self.results.push(Entry::unreadable(file, 0, &error));
    }

    fn add_object(&mut self, file: &Path, document: usize, value: &Value) {
        let conversion = convert(value);
        let mut entry = Entry::of(file, document, value, &conversion);
        if let Conversion::Accepted(Some(object)) = conversion {
            if let Object::Policy(policy) = &*object {
                let unlisted = unlisted_directions(value).map(|direction| {
                    let lint = Lint::UnlistedDirection { direction };
                    Finding { policy: policy.key.clone(), rule: None, lint }
                });
                entry.findings.extend(unlisted.map(|it| EntryFinding::from(&it)));
                self.places.insert(policy.key.clone(), self.results.len());
            }
            self.inputs.upsert(Object::clone(&object));
        }
        self.results.push(entry);
    }

    /// Looks at all objects together and adds what is found to their entries. Call it once, when all are there.
    pub fn lint(&mut self) {
        for finding in lint(&self.inputs) {
            let place = self.places.get(&finding.policy);
            if let Some(entry) = place.and_then(|index| self.results.get_mut(*index)) {
                entry.findings.push(EntryFinding::from(&finding));
            }
        }
    }

    /// Returns how many findings matter as much or more.
    #[must_use]
    pub fn findings(&self, least: Severity) -> usize {
        let findings = self.results.iter().flat_map(|entry| &entry.findings);
        findings.filter(|finding| finding.severity >= least).count()
    }

    /// Returns whether something was refused.
    #[must_use]
    pub fn any_refused(&self) -> bool {
        self.results.iter().any(|entry| entry.accepted == Some(false))
    }
}

impl Entry {
    fn of(file: &Path, document: usize, value: &Value, conversion: &Conversion) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let metadata = |key| value.get("metadata").and_then(|it| it.get(key));
        let (accepted, errors) = match conversion {
            Conversion::Accepted(_) => (Some(true), Vec::new()),
            Conversion::Refused(diagnostics) => {
                (Some(false), diagnostics.iter().cloned().map(EntryError::from).collect())
            }
            Conversion::Unknown { .. } if is_object(value) => (None, Vec::new()),
            Conversion::Unknown { .. } => (Some(false), vec![EntryError::no_object()]),
        };
        let reason = match conversion {
            Conversion::Unknown { reason } if accepted.is_none() => Some(reason.clone()),
            _ => None,
        };
        Self {
            file: file.display().to_string(),
            document,
            kind: text(value.get("kind")),
            namespace: text(metadata("namespace")),
            name: text(metadata("name")),
            accepted,
            ignored: accepted.is_none(),
            reason,
            errors,
            findings: Vec::new(),
        }
    }

    fn unreadable(file: &Path, document: usize, error: &DocumentError) -> Self {
        let diagnostic = Diagnostic { path: String::new(), message: error.to_string() };
        Self::of(file, document, &Value::Null, &Conversion::Refused(vec![diagnostic]))
    }
}

impl EntryError {
    fn no_object() -> Self {
        let message = "no object, expected one with `apiVersion` and `kind`".to_owned();
        Self { path: String::new(), message }
    }
}

impl From<Diagnostic> for EntryError {
    fn from(Diagnostic { path, message }: Diagnostic) -> Self {
        Self { path, message }
    }
}

impl From<&Finding> for EntryFinding {
    fn from(Finding { rule, lint, .. }: &Finding) -> Self {
        let message = match lint {
            // Other policies go by the names in their manifests.
            Lint::Tie { with } | Lint::TwoGenerations { with } => {
                lint.to_string().replace(&with.to_string(), &explain::policy(with).to_string())
            }
            other => other.to_string(),
        };
        Self {
            severity: lint.severity(),
            lint: lint.name(),
            rule: rule.as_ref().map(|rule| rule.place().to_string()),
            message,
        }
    }
}

/// Returns the directions that a policy has rules for and does not list, so that the model knows nothing of them.
fn unlisted_directions(policy: &Value) -> impl Iterator<Item = Direction> {
    let field = |key| policy.pointer(&format!("/spec/{key}")).and_then(Value::as_array);
    let listed = ["policyTypes", "types"].into_iter().find_map(field).filter(|it| !it.is_empty());
    let is_unlisted = |key: &'static str, name: &str| {
        field(key).is_some_and(|rules| !rules.is_empty())
            && listed.is_some_and(|listed| !listed.iter().any(|it| it.as_str() == Some(name)))
    };
    let ingress = is_unlisted("ingress", "Ingress").then_some(Direction::Ingress);
    let egress = is_unlisted("egress", "Egress").then_some(Direction::Egress);
    ingress.into_iter().chain(egress)
}

fn as_text<T: ToString, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn is_object(value: &Value) -> bool {
    ["apiVersion", "kind"].iter().all(|key| value.get(key).is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use super::*;

    fn check(text: &str) -> Vec<Entry> {
        let mut checked = Checked::default();
        checked.add(Path::new("f.yaml"), text);
        checked.results
    }

    #[test]
    fn objects_are_accepted_refused_or_ignored() {
        let entries = check(
            "{apiVersion: v1, kind: Namespace, metadata: {name: x}}\n---\n\
             {apiVersion: v1, kind: Namespace, metadata: {name: X}}\n---\n\
             {apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: x}}\n---\n\
             [1, 2]\n",
        );
        let accepted: Vec<_> = entries.iter().map(|it| it.accepted).collect();
        assert_eq!(accepted, [Some(true), Some(false), None, Some(false)]);
        let refused = entries.get(1).unwrap();
        assert_eq!(refused.errors.first().unwrap().path, "metadata.name");
        let ignored = entries.get(2).unwrap();
        assert_eq!((ignored.name.as_deref(), ignored.namespace.as_deref()), (Some("d"), Some("x")));
        assert!(ignored.ignored);
        let reason = "`Deployment` of `apps/v1` says nothing about policy";
        assert_eq!(ignored.reason.as_deref(), Some(reason));
    }

    /// What is not read and not refused would look as if it were in force.
    #[test]
    fn policies_that_nobody_reads_are_refused() {
        for (version, kind, path) in [
            ("networking.k8s.io/v1beta1", "NetworkPolicy", "apiVersion"),
            ("crd.projectcalico.org/v1", "NetworkPolicy", "apiVersion"),
            ("networking.k8s.io/v1", "NetworkPolcy", "kind"),
        ] {
            let entries =
                check(&format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: p}}}}"));
            let entry = entries.first().unwrap();
            assert_eq!(entry.accepted, Some(false), "{version} {kind}");
            assert_eq!(entry.errors.first().unwrap().path, path, "{version} {kind}");
        }
    }

    #[test]
    fn lists_are_unpacked_and_broken_documents_refused() {
        let entries = check(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n\
             - {apiVersion: v1, kind: Namespace, metadata: {name: y}}\n---\na: [\n",
        );
        let seen: Vec<_> = entries.iter().map(|it| (it.document, it.accepted)).collect();
        assert_eq!(seen, [(0, Some(true)), (0, Some(true)), (1, Some(false))]);
    }

    /// Checks what is found in documents, in order, with the kind of the lint and the rule.
    #[track_caller]
    fn check_findings(text: &str, want: &[(&str, Option<&str>)]) {
        let mut checked = Checked::default();
        checked.add(Path::new("f.yaml"), text);
        checked.lint();
        assert!(!checked.any_refused(), "{:?}", checked.results);
        let found: Vec<_> = checked
            .results
            .iter()
            .flat_map(|entry| &entry.findings)
            .map(|it| (it.lint, it.rule.as_deref()))
            .collect();
        assert_eq!(found, want, "{text}");
        let severe = want.iter().filter(|(lint, _)| *lint != "one-family").count();
        assert_eq!(checked.findings(Severity::Note), want.len());
        assert_eq!(checked.findings(Severity::Warning), severe);
    }

    fn kubernetes(spec: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, spec: {spec}}}\n"
        )
    }

    #[test]
    fn rules_of_unlisted_directions_are_found() {
        let unlisted = [("unlisted-direction", None)];
        for (spec, want) in [
            ("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}", &unlisted[..]),
            ("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}", &unlisted[..]),
            ("{podSelector: {}, policyTypes: [Egress], ingress: []}", &[]),
            ("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}", &[]),
            ("{podSelector: {}, policyTypes: [], egress: [{}]}", &[]),
            ("{podSelector: {}, ingress: [{}], egress: [{}]}", &[]),
        ] {
            check_findings(&kubernetes(spec), want);
        }
        for (spec, want) in [
            ("{types: [Egress], ingress: [{action: Allow}]}", &unlisted[..]),
            ("{types: [Ingress], ingress: [{action: Allow}]}", &[]),
            ("{ingress: [{action: Allow}], egress: [{action: Allow}]}", &[]),
        ] {
            check_findings(
                &format!(
                    "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: p}}, spec: {spec}}}"
                ),
                want,
            );
        }
    }

    #[test]
    fn findings_are_about_all_documents_together() {
        let doubled = kubernetes("{podSelector: {}, ingress: [{}, {ports: [{port: 80}]}]}");
        check_findings(&doubled, &[("unreachable-rule", Some("ingress[1]"))]);
        let v4 =
            kubernetes("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}");
        check_findings(&v4, &[]);
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {containers: []}, \
                   status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}";
        check_findings(&format!("{v4}---\n{pod}\n"), &[("one-family", Some("ingress[0]"))]);
    }

    #[test]
    fn other_policies_go_by_the_names_in_their_manifests() {
        let deny = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, namespace: x}, \
                    spec: {order: 1000, ingress: [{action: Deny}]}}";
        let mut checked = Checked::default();
        let text = format!("{deny}\n---\n{}", kubernetes("{podSelector: {}, ingress: [{}]}"));
        checked.add(Path::new("f.yaml"), &text);
        checked.lint();
        let entry = checked.results.get(1).unwrap();
        let finding = entry.findings.first().unwrap();
        assert_eq!(
            finding.message,
            "asked after NetworkPolicy x/a (projectcalico.org) for no other reason than its name; they have the same order, \
             and differ in what they do"
        );
    }
}
