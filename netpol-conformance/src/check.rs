//! Whether the APIs accept documents.

use std::io;
use std::path::Path;

use netpol_core::api::Diagnostic;
use serde::Serialize;
use serde_json::Value;

use crate::document::{self, DocumentError};
use crate::wire::{Conversion, convert};

/// What came of checking files, in the form of its JSON report.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// One entry per object, and one per document that is none.
    pub results: Vec<Entry>,
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
    /// What is wrong with it.
    pub errors: Vec<EntryError>,
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

impl Checked {
    /// Checks all documents of a text; `file` is the name it goes by.
    pub fn add(&mut self, file: &Path, text: &str) {
        for document in document::read(text) {
            let entry = |value: &Value| Entry::of(file, document.index, value);
            match document.content {
                Ok(content) => self.results.extend(document::unpack(content).iter().map(entry)),
                Err(error) => self.results.push(Entry::unreadable(file, document.index, &error)),
            }
        }
    }

    /// Refuses a file that holds no text.
    pub fn refuse(&mut self, file: &Path, reason: &io::Error) {
        let error = DocumentError { message: reason.to_string(), position: None };
        self.results.push(Entry::unreadable(file, 0, &error));
    }

    /// Returns whether something was refused.
    #[must_use]
    pub fn any_refused(&self) -> bool {
        self.results.iter().any(|entry| entry.accepted == Some(false))
    }
}

impl Entry {
    fn of(file: &Path, document: usize, value: &Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let metadata = |key| value.get("metadata").and_then(|it| it.get(key));
        let (accepted, errors) = match convert(value) {
            Conversion::Accepted(_) => (Some(true), Vec::new()),
            Conversion::Refused(diagnostics) => {
                (Some(false), diagnostics.into_iter().map(EntryError::from).collect())
            }
            Conversion::Unknown if is_object(value) => (None, Vec::new()),
            Conversion::Unknown => (Some(false), vec![EntryError::no_object()]),
        };
        Self {
            file: file.display().to_string(),
            document,
            kind: text(value.get("kind")),
            namespace: text(metadata("namespace")),
            name: text(metadata("name")),
            accepted,
            ignored: accepted.is_none(),
            errors,
        }
    }

    fn unreadable(file: &Path, document: usize, error: &DocumentError) -> Self {
        let error = EntryError { path: String::new(), message: error.to_string() };
        Self {
            accepted: Some(false),
            ignored: false,
            errors: vec![error],
            ..Self::of(file, document, &Value::Null)
        }
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
}
