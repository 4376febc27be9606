//! Gathers what is wrong with an object while it is being converted.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use super::field::{Extra, Field, List};
use super::{Accepted, Diagnostic, MAX_ITEMS, Refused, Strictness};

/// The place of a field in an object; written only when something is wrong there.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    /// Returns the place of a field of the object itself.
    pub(super) const fn top(name: &'a str) -> Self {
        Self { parent: None, step: Step::Field(name) }
    }

    /// Returns the place of a field of what is here.
    pub(super) const fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    /// Returns the place of an item of the list that is here.
    pub(super) const fn item(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Item(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

/// What is wrong with an object so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    diagnostics: Vec<Diagnostic>,
    is_refused: bool,
    /// However the rule that this is about is taken.
    is_object_refused: bool,
}

impl Report {
    /// Refuses the object for what is wrong at a place.
    pub(super) fn refuse(&mut self, at: &Path<'_>, message: impl fmt::Display) {
        self.diagnostics.push(Diagnostic::new(at, message));
        self.is_refused = true;
    }

    /// Refuses the object for what is wrong at a place of a rule, even if such rules are degraded.
    pub(super) fn refuse_object(&mut self, at: &Path<'_>, message: impl fmt::Display) {
        self.refuse(at, message);
        self.is_object_refused = true;
    }

    /// Returns what a field holds; refuses the object if it cannot be read.
    pub(super) fn given<'f, T>(&mut self, at: &Path<'_>, field: &'f Field<T>) -> Option<&'f T> {
        match field {
            Field::Absent => None,
            Field::Given(value) => Some(value),
            Field::Malformed(message) => {
                self.refuse(at, message);
                None
            }
        }
    }

    /// Returns what a field holds; refuses the object if there is nothing that can be read.
    pub(super) fn required<'f, T>(
        &mut self,
        at: &Path<'_>,
        field: &'f Field<T>,
        expected: &str,
    ) -> Option<&'f T> {
        if matches!(field, Field::Absent) {
            self.refuse(at, format!("missing, expected {expected}"));
        }
        self.given(at, field)
    }

    /// Calls `read` with the place of each readable item of a list; refuses the object for the others.
    pub(super) fn each_item<'f, T>(
        &mut self,
        at: &Path<'_>,
        list: &'f List<T>,
        expected: &str,
        read: impl FnMut(&mut Self, &Path<'_>, &'f T),
    ) {
        self.each_item_up_to(MAX_ITEMS, at, list, expected, read);
    }

    /// Does the same with a list of at most `limit` items; refuses the object for a longer one.
    pub(super) fn each_item_up_to<'f, T>(
        &mut self,
        limit: usize,
        at: &Path<'_>,
        list: &'f List<T>,
        expected: &str,
        mut read: impl FnMut(&mut Self, &Path<'_>, &'f T),
    ) {
        let Some(items) = self.given(at, list) else {
            return;
        };
        if !self.is_at_most(limit, at, items.len()) {
            return;
        }
        for (index, item) in items.iter().enumerate() {
            let at = at.item(index);
            if let Some(item) = self.required(&at, item, expected) {
                read(self, &at, item);
            }
        }
    }

    /// Returns whether a list or map is not too long to be looked at; refuses the object if it is.
    pub(super) fn is_within_limit(&mut self, at: &Path<'_>, len: usize) -> bool {
        self.is_at_most(MAX_ITEMS, at, len)
    }

    /// Returns whether a list has at most `limit` entries; refuses the object if it has more.
    pub(super) fn is_at_most(&mut self, limit: usize, at: &Path<'_>, len: usize) -> bool {
        if len > limit {
            self.refuse(at, format!("{len} entries, expected at most {limit}"));
        }
        len <= limit
    }

    /// Returns what `read` returns, `None` if it found anything wrong.
    pub(super) fn complete<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let before = self.diagnostics.len();
        let value = read(self);
        (self.diagnostics.len() == before).then_some(value)
    }

    /// Refuses the object for each field that its API does not have.
    pub(super) fn unknown_fields(&mut self, at: Option<&Path<'_>>, extra: &Extra) {
        for name in extra.keys() {
            let path = at.map_or(Path::top(name), |parent| parent.field(name));
            self.refuse(&path, "unknown field");
        }
    }

    /// Refuses the object for each field of a rule that its API does not have, even if such rules are degraded.
    pub(super) fn refuse_object_for_unknown_fields(&mut self, at: &Path<'_>, extra: &Extra) {
        self.unknown_fields(Some(at), extra);
        self.is_object_refused |= !extra.is_empty();
    }

    /// Takes over what is wrong with one rule and returns whether anything is. It refuses the object only if that is
    /// what is asked for, or if the object cannot be understood without it.
    pub(super) fn absorb_rule(&mut self, rule: Self, strictness: Strictness) -> bool {
        let is_refused = rule.is_refused;
        self.diagnostics.extend(rule.diagnostics);
        self.is_refused |=
            is_refused && (strictness == Strictness::Strict || rule.is_object_refused);
        is_refused
    }

    /// Returns what the object was converted to, unless it is refused or `value` is missing, which only happens to
    /// objects that are refused.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<Accepted<T>, Refused> {
        match value {
            Some(value) if !self.is_refused => {
                Ok(Accepted { value, diagnostics: self.diagnostics })
            }
            _ => {
                debug_assert!(!self.diagnostics.is_empty(), "an object is refused for a reason");
                Err(Refused { diagnostics: self.diagnostics })
            }
        }
    }
}
