//! What is refused, what becomes of the rest, and what that means.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

mod converted;
mod degraded;
mod documented;
mod meaning;
mod objects;
mod oracle;
mod refused;
mod selectors;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::api::shown::shown;
use crate::api::{Document, Kind, Strictness};
use crate::model::{Object, Policy};

/// Returns an object `p`, in namespace `ns` if it is in one.
fn manifest(kind: Kind, spec: &Value) -> Value {
    let mut metadata = json!({"name": "p"});
    if kind.is_namespaced() {
        metadata["namespace"] = "ns".into();
    }
    json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": metadata, "spec": spec})
}

/// Converts an object, or returns everything that is wrong with it.
fn convert(manifest: &Value) -> Result<Option<Object>, Vec<String>> {
    let text = |field: &str| manifest[field].as_str().unwrap();
    let kind = Kind::recognise(text("apiVersion"), text("kind")).unwrap();
    let accepted = Document::read(kind, manifest).unwrap().to_object(Strictness::Strict);
    match accepted {
        Ok(accepted) => {
            assert_eq!(accepted.diagnostics, []);
            Ok(accepted.value)
        }
        Err(refused) => Err(refused.diagnostics.iter().map(ToString::to_string).collect()),
    }
}

fn policy(kind: Kind, spec: &Value) -> Policy {
    match convert(&manifest(kind, spec)) {
        Ok(Some(Object::Policy(policy))) => policy,
        other => panic!("no policy: {spec}\n{other:?}"),
    }
}

/// Returns the rules that a rule becomes, a line each.
fn shown_rules(kind: Kind, direction: &str, rule: &Value) -> String {
    let text = shown(&policy(kind, &json!({direction: [rule]})));
    let rules = text.lines().skip(1).map(|line| line.strip_prefix(direction).unwrap().trim());
    rules.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn refuses(manifest: &Value, want: &[&str]) {
    match convert(manifest) {
        Ok(object) => panic!("accepted: {manifest}\n{object:?}"),
        Err(lines) => assert_eq!(lines, want, "{manifest}"),
    }
}
