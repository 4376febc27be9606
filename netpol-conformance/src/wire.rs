//! The objects that the harness knows, seen as documents: those of the wire APIs of the core, and its own.

use std::sync::Arc;

use netpol_core::api::{self, Diagnostic, Kind, Refused, Strictness};
use netpol_core::model::Object;
use serde_json::Value;

use crate::scenario::machine;

mod stranger;

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "an object is taken, refused or none of ours")]
pub enum Conversion {
    /// The API accepts it. It stands for this object of the model; a host-network pod for none.
    Accepted(Option<Arc<Object>>),
    /// The API refuses it.
    Refused(Vec<Diagnostic>),
    /// Nobody here knows this kind, and nothing says that it is meant as policy.
    Unknown {
        /// Why it is of no interest.
        reason: String,
    },
}

/// Returns whether a document is of a kind that is known, or meant to be.
pub(crate) fn is_known(value: &Value) -> bool {
    kind_of(value).is_some()
        || machine::is_machine(value)
        || !matches!(stranger(value), Conversion::Unknown { .. })
}

/// Converts an object of any kind that is known, strictly.
#[must_use]
pub fn convert(value: &Value) -> Conversion {
    convert_as(value, Strictness::Strict)
}

/// As [`convert`], but says what becomes of policies of which not every rule can be read.
#[must_use]
pub fn convert_as(value: &Value, strictness: Strictness) -> Conversion {
    let Some(kind) = kind_of(value) else {
        return if machine::is_machine(value) { machine::convert(value) } else { stranger(value) };
    };
    match api::Document::read(kind, value) {
        Ok(document) => match document.to_object(strictness) {
            Ok(accepted) => Conversion::Accepted(accepted.value.map(Arc::new)),
            Err(Refused { diagnostics, .. }) => Conversion::Refused(diagnostics),
        },
        Err(error) => Conversion::Refused(vec![Diagnostic {
            path: String::new(),
            message: error.to_string(),
        }]),
    }
}

fn stranger(value: &Value) -> Conversion {
    let (version, kind) = identity(value);
    match stranger::explain(version, kind) {
        Ok(reason) => Conversion::Unknown { reason },
        Err(diagnostic) => Conversion::Refused(vec![diagnostic]),
    }
}

fn kind_of(value: &Value) -> Option<Kind> {
    let (version, kind) = identity(value);
    Kind::recognise(version, kind)
}

fn identity(value: &Value) -> (&str, &str) {
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
    (text("apiVersion"), text("kind"))
}
