//! Label selectors.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::field::{Extra, Field, List, Map};
use super::labels::LabelSpace;
use super::manifest::{check_label_key, check_label_value, read_pairs};
use super::report::{Path, Report};
use crate::selector::{Selector, SelectorError};

/// A selector of labels; without requirements it selects everything. One that is left out is no selector, and what
/// that means depends on the field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct LabelSelector {
    match_labels: Map,
    match_expressions: List<Requirement>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Requirement {
    key: Field<String>,
    operator: Field<String>,
    values: List<String>,
    #[serde(flatten)]
    extra: Extra,
}

/// What a requirement says about a label.
#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Returns whether no requirement is written.
    pub(super) const fn is_empty(&self) -> bool {
        !self.match_labels.is_written() && !self.match_expressions.is_written()
    }

    /// Returns the requirements in the model's language, all of which must hold for the labels of `space`. They say
    /// nothing if the object is refused.
    pub(super) fn to_terms(
        &self,
        space: LabelSpace,
        at: &Path<'_>,
        report: &mut Report,
    ) -> Vec<Selector> {
        let Self { match_labels, match_expressions, extra } = self;
        report.unknown_fields(Some(at), extra);
        let mut terms = Vec::new();
        let labels_at = at.field("matchLabels");
        for (key, value) in read_pairs(&labels_at, match_labels, report) {
            terms.extend(checked(&labels_at, Selector::equal(space.key(key), value), report));
        }
        let at = at.field("matchExpressions");
        report.each_item(&at, match_expressions, "an object", |report, at, requirement| {
            terms.extend(requirement.to_selector(space, at, report));
        });
        terms
    }
}

impl Requirement {
    fn to_selector(
        &self,
        space: LabelSpace,
        at: &Path<'_>,
        report: &mut Report,
    ) -> Option<Selector> {
        let Self { key, operator, values, extra } = self;
        report.unknown_fields(Some(at), extra);
        let key_at = at.field("key");
        let key = report.required(&key_at, key, "a label key");
        let key = key.filter(|key| check_label_key(&key_at, key, report));
        let operator = read_operator(&at.field("operator"), operator, report);
        let values = read_values(&at.field("values"), values, operator, report);
        let key = space.key(key?);
        let selector = match operator? {
            Operator::In => Selector::is_in(key, values),
            Operator::NotIn => space.known_and(Selector::not_in(key, values)),
            Operator::Exists => Selector::has(key),
            Operator::DoesNotExist => space.known_and(Selector::has(key).map(|has| !has)),
        };
        checked(&key_at, selector, report)
    }
}

fn read_operator(at: &Path<'_>, operator: &Field<String>, report: &mut Report) -> Option<Operator> {
    let expected = "`In`, `NotIn`, `Exists` or `DoesNotExist`";
    match report.required(at, operator, expected)?.as_str() {
        "In" => Some(Operator::In),
        "NotIn" => Some(Operator::NotIn),
        "Exists" => Some(Operator::Exists),
        "DoesNotExist" => Some(Operator::DoesNotExist),
        text => {
            report.refuse(at, format!("`{text}` is not an operator, expected {expected}"));
            None
        }
    }
}

fn read_values<'f>(
    at: &Path<'_>,
    values: &'f List<String>,
    operator: Option<Operator>,
    report: &mut Report,
) -> Vec<&'f str> {
    let is_empty = match values {
        Field::Absent => true,
        Field::Given(values) => values.is_empty(),
        Field::Malformed(message) => {
            report.refuse(at, message);
            return Vec::new();
        }
    };
    match operator {
        Some(Operator::In | Operator::NotIn) if is_empty => {
            report.refuse(at, "missing, expected at least one value for `In` and `NotIn`");
        }
        Some(Operator::Exists | Operator::DoesNotExist) if !is_empty => {
            report.refuse(at, "given, expected no values for `Exists` and `DoesNotExist`");
        }
        _ => {}
    }
    let mut read = Vec::new();
    report.each_item(at, values, "a label value", |report, at, value| {
        if check_label_value(at, value, report) {
            read.push(value.as_str());
        }
    });
    read
}

/// Label keys and values that were checked always make a selector; should that ever change, the object is refused.
fn checked(
    at: &Path<'_>,
    selector: Result<Selector, SelectorError>,
    report: &mut Report,
) -> Option<Selector> {
    selector.map_err(|error| report.refuse(at, error)).ok()
}
