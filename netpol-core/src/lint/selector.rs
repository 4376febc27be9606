//! What can be known of selectors without any labels.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::selector::{Expr, Selector};

/// Most parts of selectors that one question looks at.
const MAX_PARTS: usize = 512;

/// Most alternatives inside of alternatives.
const MAX_DEPTH: usize = 64;

/// Returns whether it is certain that no labels meet the selector.
pub(super) fn is_unsatisfiable(selector: &Selector) -> bool {
    let mut search = Search { parts_left: MAX_PARTS };
    !search.may_hold(vec![(selector.expr(), true)], Facts::default(), 0)
}

/// Returns whether it is certain that labels which meet `narrow` meet `wide`.
pub(super) fn implies(narrow: &Selector, wide: &Selector) -> bool {
    narrow == wide || is_unsatisfiable(&Selector::and([narrow.clone(), !wide]))
}

/// Returns whether it is certain that no labels meet both.
pub(super) fn are_disjoint(one: &Selector, other: &Selector) -> bool {
    is_unsatisfiable(&Selector::and([one.clone(), other.clone()]))
}

/// A search for labels that meet conditions. It says yes when it gives up.
struct Search {
    parts_left: usize,
}

impl Search {
    /// Returns whether labels may exist for which each condition is as true as wanted, beside what is known of them.
    fn may_hold<'a>(
        &mut self,
        mut wanted: Vec<(Expr<'a>, bool)>,
        mut facts: Facts<'a>,
        depth: usize,
    ) -> bool {
        let mut alternatives = Vec::new();
        while let Some((expr, holds)) = wanted.pop() {
            let Some(left) = self.parts_left.checked_sub(1) else {
                return true;
            };
            self.parts_left = left;
            match (expr, holds) {
                (Expr::All | Expr::Global, true) => {}
                (Expr::All | Expr::Global, false) => return false,
                (Expr::Not(part), holds) => wanted.push((part.expr(), !holds)),
                (Expr::And(parts), true) => wanted.extend(parts.map(|it| (it.expr(), true))),
                (Expr::Or(parts), false) => wanted.extend(parts.map(|it| (it.expr(), false))),
                (other @ (Expr::And(_) | Expr::Or(_)), holds) => alternatives.push((other, holds)),
                (condition, holds) => facts.add(condition, holds),
            }
        }
        let one_of = match alternatives.pop() {
            None => return facts.may_hold(),
            Some((Expr::And(parts), _)) => parts.map(|it| (it.expr(), false)).collect::<Vec<_>>(),
            Some((Expr::Or(parts), _)) => parts.map(|it| (it.expr(), true)).collect(),
            Some(_) => return true,
        };
        let too_deep = depth >= MAX_DEPTH;
        too_deep
            || one_of.into_iter().any(|it| {
                let mut wanted = alternatives.clone();
                wanted.push(it);
                self.may_hold(wanted, facts.clone(), depth + 1)
            })
    }
}

/// What is known of labels.
#[derive(Clone, Default)]
struct Facts<'a>(BTreeMap<&'a str, Fact<'a>>);

/// What is known of one label.
#[derive(Clone, Default)]
struct Fact<'a> {
    exists: bool,
    is_absent: bool,
    /// If it exists, its value is one of these.
    values: Option<BTreeSet<&'a str>>,
    /// If it exists, its value is none of these.
    not_values: BTreeSet<&'a str>,
    /// If it exists, its value has all of these texts.
    texts: Vec<Text<'a>>,
    /// If it exists, its value has none of these texts.
    not_texts: Vec<Text<'a>>,
}

/// A text that a value has in it.
#[derive(Clone, Copy, PartialEq)]
enum Text<'a> {
    Anywhere(&'a str),
    First(&'a str),
    Last(&'a str),
}

impl<'a> Facts<'a> {
    /// Adds that a condition on one label holds, or that it does not.
    fn add(&mut self, condition: Expr<'a>, holds: bool) {
        let (key, values, text) = match condition {
            Expr::Has(key) => (key, None, None),
            Expr::Equal(key, value) => (key, Some((vec![value], true)), None),
            Expr::NotEqual(key, value) => (key, Some((vec![value], false)), None),
            Expr::In(key, set) => (key, Some((strings(set), true)), None),
            Expr::NotIn(key, set) => (key, Some((strings(set), false)), None),
            Expr::Contains(key, text) => (key, None, Some(Text::Anywhere(text))),
            Expr::StartsWith(key, text) => (key, None, Some(Text::First(text))),
            Expr::EndsWith(key, text) => (key, None, Some(Text::Last(text))),
            Expr::All | Expr::Global | Expr::Not(_) | Expr::And(_) | Expr::Or(_) => return,
        };
        let fact = self.0.entry(key).or_default();
        match (values, text) {
            (Some((values, is_in)), _) if is_in == holds => fact.be_one_of(values),
            (Some((values, _)), _) => fact.not_values.extend(values),
            (None, Some(text)) if holds => {
                fact.exists = true;
                fact.texts.push(text);
            }
            (None, Some(text)) => fact.not_texts.push(text),
            (None, None) if holds => fact.exists = true,
            (None, None) => fact.is_absent = true,
        }
    }

    fn may_hold(&self) -> bool {
        self.0.values().all(Fact::may_hold)
    }
}

fn strings(set: &[String]) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

impl<'a> Fact<'a> {
    fn be_one_of(&mut self, values: Vec<&'a str>) {
        self.exists = true;
        let values: BTreeSet<_> = values.into_iter().collect();
        self.values = Some(match &self.values {
            Some(known) => known.intersection(&values).copied().collect(),
            None => values,
        });
    }

    fn may_hold(&self) -> bool {
        // A label that is absent has no value that could be wrong.
        if !self.exists {
            return true;
        }
        let allows = |value: &&str| {
            !self.not_values.contains(value)
                && self.texts.iter().all(|it| it.is_in(value))
                && !self.not_texts.iter().any(|it| it.is_in(value))
        };
        !self.is_absent
            && match &self.values {
                Some(values) => values.iter().any(allows),
                None => self.texts_may_hold(),
            }
    }

    fn texts_may_hold(&self) -> bool {
        let are_apart =
            self.texts.iter().any(|one| self.texts.iter().any(|other| one.contradicts(*other)));
        let is_denied = |text: &Text<'_>| self.texts.iter().any(|it| it.implies(*text));
        !are_apart && !self.not_texts.iter().any(|it| it.text().is_empty() || is_denied(it))
    }
}

impl<'a> Text<'a> {
    const fn text(self) -> &'a str {
        match self {
            Self::Anywhere(text) | Self::First(text) | Self::Last(text) => text,
        }
    }

    fn is_in(self, value: &str) -> bool {
        match self {
            Self::Anywhere(text) => value.contains(text),
            Self::First(text) => value.starts_with(text),
            Self::Last(text) => value.ends_with(text),
        }
    }

    /// Returns whether a value with this text in it has the other in it, too.
    fn implies(self, other: Text<'_>) -> bool {
        match (self, other) {
            (_, Text::Anywhere(_))
            | (Self::First(_), Text::First(_))
            | (Self::Last(_), Text::Last(_)) => other.is_in(self.text()),
            _ => false,
        }
    }

    /// Returns whether no value has both texts in it.
    fn contradicts(self, other: Text<'_>) -> bool {
        match (self, other) {
            (Self::First(one), Text::First(other)) => {
                !one.starts_with(other) && !other.starts_with(one)
            }
            (Self::Last(one), Text::Last(other)) => !one.ends_with(other) && !other.ends_with(one),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
