//! What every match of a selector has in common, for indexes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::condition::{Condition, LabelCondition};
use super::tree::{GroupKind, Node, Op};

/// What a selector asks of one label in everything that it matches.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a label is absent, present, or has one of some values"
)]
pub enum Restriction<'a> {
    /// There is no such label.
    Absent,
    /// There is such a label.
    Present,
    /// There is such a label, with one of these values. Not empty.
    OneOf(BTreeSet<&'a str>),
}

/// The restrictions by label key; `None` for a selector that can match nothing.
pub(super) type Restrictions<'a> = Option<BTreeMap<&'a str, Restriction<'a>>>;

/// Returns what holds for all that `tree` matches.
pub(super) fn restrictions(tree: &[Node]) -> Restrictions<'_> {
    // From the back, so that operands are done before their group. Each with its number of nodes.
    let mut done: Vec<(usize, Restrictions<'_>)> = Vec::new();
    for node in tree.iter().rev() {
        let (len, found) = match &node.op {
            Op::Condition(condition) if node.negated => (1, of_negated(condition)),
            Op::Condition(condition) => (1, of_condition(condition)),
            Op::Group { kind, below } => {
                let mut operands = Vec::new();
                let mut missing = *below;
                while let Some((len, operand)) = done.pop_if(|(len, _)| *len <= missing) {
                    missing -= len;
                    operands.push(operand);
                }
                let found = match kind {
                    _ if node.negated => Some(BTreeMap::new()),
                    GroupKind::And => all_of(operands),
                    GroupKind::Or => one_of(operands),
                };
                (below + 1, found)
            }
        };
        done.push((len, found));
    }
    done.pop().and_then(|(_, found)| found)
}

fn of_condition(condition: &Condition) -> Restrictions<'_> {
    let Condition::Label { key, condition } = condition else {
        return Some(BTreeMap::new());
    };
    let restriction = match condition {
        LabelCondition::Has
        | LabelCondition::Contains(_)
        | LabelCondition::StartsWith(_)
        | LabelCondition::EndsWith(_) => Restriction::Present,
        LabelCondition::Equal(value) => Restriction::OneOf([value.as_str()].into()),
        LabelCondition::In(values) if values.is_empty() => return None,
        LabelCondition::In(values) => {
            Restriction::OneOf(values.iter().map(|it| it.as_str()).collect())
        }
        LabelCondition::NotEqual(_) | LabelCondition::NotIn(_) => return Some(BTreeMap::new()),
    };
    Some([(key.as_str(), restriction)].into())
}

fn of_negated(condition: &Condition) -> Restrictions<'_> {
    match condition {
        Condition::All | Condition::Global => None,
        Condition::Label { key, condition: LabelCondition::Has } => {
            Some([(key.as_str(), Restriction::Absent)].into())
        }
        Condition::Label { .. } => Some(BTreeMap::new()),
    }
}

/// Returns what holds where all of the operands match.
fn all_of<'a>(operands: Vec<Restrictions<'a>>) -> Restrictions<'a> {
    let mut all: BTreeMap<&'a str, Restriction<'a>> = BTreeMap::new();
    for operand in operands {
        for (key, restriction) in operand? {
            let both = match all.remove(key) {
                Some(before) => both(before, restriction)?,
                None => restriction,
            };
            all.insert(key, both);
        }
    }
    Some(all)
}

fn both<'a>(one: Restriction<'a>, other: Restriction<'a>) -> Option<Restriction<'a>> {
    match (one, other) {
        (Restriction::Absent, Restriction::Absent) => Some(Restriction::Absent),
        (Restriction::Absent, _) | (_, Restriction::Absent) => None,
        (Restriction::Present, it) | (it, Restriction::Present) => Some(it),
        (Restriction::OneOf(one), Restriction::OneOf(other)) => {
            let common: BTreeSet<_> = one.intersection(&other).copied().collect();
            (!common.is_empty()).then_some(Restriction::OneOf(common))
        }
    }
}

/// Returns what holds where one of the operands matches: what each of them asks for.
fn one_of<'a>(operands: Vec<Restrictions<'a>>) -> Restrictions<'a> {
    operands.into_iter().flatten().reduce(|mut common, mut operand| {
        common.retain(|key, restriction| {
            let joined = operand.remove(key).and_then(|other| either(restriction, other));
            joined.map(|it| *restriction = it).is_some()
        });
        common
    })
}

fn either<'a>(one: &Restriction<'a>, other: Restriction<'a>) -> Option<Restriction<'a>> {
    match (one, other) {
        (Restriction::Absent, Restriction::Absent) => Some(Restriction::Absent),
        (Restriction::Absent, _) | (_, Restriction::Absent) => None,
        (Restriction::OneOf(one), Restriction::OneOf(other)) => {
            Some(Restriction::OneOf(one | &other))
        }
        (Restriction::Present, _) | (_, Restriction::Present) => Some(Restriction::Present),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use crate::selector::Selector;

    fn written(text: &str) -> String {
        let selector: Selector = text.parse().unwrap();
        selector.restrictions().map_or("never".into(), |it| {
            it.iter().map(|(key, restriction)| format!("{key}: {restriction:?}; ")).collect()
        })
    }

    #[test]
    fn what_all_matches_have_in_common() {
        for (text, want) in [
            ("all()", ""),
            ("!all()", "never"),
            ("a == 'x'", r#"a: OneOf({"x"}); "#),
            ("a in {'x', 'y'}", r#"a: OneOf({"x", "y"}); "#),
            ("a in {}", "never"),
            ("has(a)", "a: Present; "),
            (
                "a contains 'x' && b starts with 'y' && c ends with 'z'",
                "a: Present; b: Present; c: Present; ",
            ),
            ("!has(a)", "a: Absent; "),
            ("a != 'x'", ""),
            ("a not in {'x'}", ""),
            ("!(a == 'x')", ""),
            ("!(a == 'x' && b == 'y')", ""),
            ("a == 'x' && b != 'y'", r#"a: OneOf({"x"}); "#),
            ("a == 'x' && a == 'y'", "never"),
            ("a == 'x' && !has(a)", "never"),
            ("has(a) && !has(a)", "never"),
            ("has(a) && a in {'x', 'y'} && a in {'y', 'z'}", r#"a: OneOf({"y"}); "#),
            ("a == 'x' || a == 'y'", r#"a: OneOf({"x", "y"}); "#),
            ("a == 'x' || has(a)", "a: Present; "),
            ("a == 'x' || !has(a)", ""),
            ("!has(a) && has(b) || !has(a) && c == 'z'", "a: Absent; "),
            ("a == 'x' || b == 'y'", ""),
            ("a == 'x' || all()", ""),
            ("a == 'x' || b in {}", r#"a: OneOf({"x"}); "#),
            ("a in {} || b in {}", "never"),
            (
                "(a == 'x' || a == 'y') && (b == 'z' || b == 'z' && has(c))",
                r#"a: OneOf({"x", "y"}); b: OneOf({"z"}); "#,
            ),
        ] {
            assert_eq!(written(text), want, "{text}");
        }
    }
}
