//! Conditions: what a selector can ask of one label, and the two that ask nothing.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::LabelView;

/// A selector without `!`, `&&` and `||`.
///
/// Invariant: keys are not empty and of key characters only, values hold at most one kind of quote.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Condition {
    All,
    Global,
    Label { key: String, condition: LabelCondition },
}

/// What is asked of the value of a label.
///
/// Invariant: sets are sorted and without duplicates.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum LabelCondition {
    Has,
    Equal(String),
    NotEqual(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
}

impl Condition {
    pub(super) fn matches<V: LabelView + ?Sized>(&self, labels: &V) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Label { key, condition } => condition.matches(labels.value(key)),
        }
    }

    /// Returns the condition about the label whose key has `prefix` in front.
    pub(super) fn prefixed(&self, prefix: &str) -> Self {
        match self {
            Self::Label { key, condition } => {
                Self::Label { key: [prefix, key].concat(), condition: condition.clone() }
            }
            Self::All | Self::Global => self.clone(),
        }
    }
}

impl LabelCondition {
    pub(super) fn is_in(values: Vec<String>) -> Self {
        Self::In(sorted(values))
    }

    pub(super) fn not_in(values: Vec<String>) -> Self {
        Self::NotIn(sorted(values))
    }

    /// Returns whether a label with value `value` passes; `None` stands for no such label.
    fn matches(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::NotEqual(_) | Self::NotIn(_));
        };
        match self {
            Self::Has => true,
            Self::Equal(it) => value == it,
            Self::NotEqual(it) => value != it,
            Self::In(set) => is_member(set, value),
            Self::NotIn(set) => !is_member(set, value),
            Self::Contains(it) => value.contains(it.as_str()),
            Self::StartsWith(it) => value.starts_with(it.as_str()),
            Self::EndsWith(it) => value.ends_with(it.as_str()),
        }
    }
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort_unstable();
    values.dedup();
    values
}

fn is_member(set: &[String], value: &str) -> bool {
    set.binary_search_by(|it| it.as_str().cmp(value)).is_ok()
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, condition) = match self {
            Self::All => return f.write_str("all()"),
            Self::Global => return f.write_str("global()"),
            Self::Label { key, condition } => (key, condition),
        };
        match condition {
            LabelCondition::Has => write!(f, "has({key})"),
            LabelCondition::Equal(it) => write!(f, "{key} == {}", Quoted(it)),
            LabelCondition::NotEqual(it) => write!(f, "{key} != {}", Quoted(it)),
            LabelCondition::In(set) => write!(f, "{key} in {}", QuotedSet(set)),
            LabelCondition::NotIn(set) => write!(f, "{key} not in {}", QuotedSet(set)),
            LabelCondition::Contains(it) => write!(f, "{key} contains {}", Quoted(it)),
            LabelCondition::StartsWith(it) => write!(f, "{key} starts with {}", Quoted(it)),
            LabelCondition::EndsWith(it) => write!(f, "{key} ends with {}", Quoted(it)),
        }
    }
}

/// Prints a value as a string literal.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

/// Prints values as a set literal.
struct QuotedSet<'a>(&'a [String]);

impl fmt::Display for QuotedSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, value) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Quoted(value))?;
        }
        f.write_str("}")
    }
}
