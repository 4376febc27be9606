//! A view of a selector as a tree of operations, for those who translate selectors.

use alloc::string::String;

use super::condition::{Condition, LabelCondition};
use super::tree::{GroupKind, Node, Op, Operands};

/// What a selector does, or a part of one.
///
/// [`And`](Self::And) and [`Or`](Self::Or) have at least two operands, sorted and all different;
/// [`Not`](Self::Not) never holds another `Not`.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the language is closed, and a translator must handle all of it"
)]
pub enum Expr<'a> {
    /// `all()`: matches everything.
    All,
    /// `global()`: matches everything, until a rewrite gives it its meaning, see
    /// [`Selector::in_namespaces`](super::Selector::in_namespaces).
    Global,
    /// `has(key)`: there is a label.
    Has(&'a str),
    /// `key == "value"`: there is a label, with this value.
    Equal(&'a str, &'a str),
    /// `key != "value"`: there is no label with this value. No label at all matches.
    NotEqual(&'a str, &'a str),
    /// `key in {…}`: there is a label, with one of these values. The values are sorted and all different.
    In(&'a str, &'a [String]),
    /// `key not in {…}`: there is no label with one of these values. No label at all matches.
    NotIn(&'a str, &'a [String]),
    /// `key contains "text"`: there is a label whose value contains this.
    Contains(&'a str, &'a str),
    /// `key starts with "text"`: there is a label whose value starts with this.
    StartsWith(&'a str, &'a str),
    /// `key ends with "text"`: there is a label whose value ends with this.
    EndsWith(&'a str, &'a str),
    /// `!part`: the part does not match.
    Not(Part<'a>),
    /// `(part && part …)`: all parts match.
    And(Parts<'a>),
    /// `(part || part …)`: at least one part matches.
    Or(Parts<'a>),
}

/// A part of a selector: one operation and its operands.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    nodes: &'a [Node],
    /// Whether a negation of the root was taken off already.
    without_negation: bool,
}

impl<'a> Part<'a> {
    pub(super) const fn new(nodes: &'a [Node]) -> Self {
        Self { nodes, without_negation: false }
    }

    /// Returns what the part does.
    #[must_use]
    pub fn expr(&self) -> Expr<'a> {
        let Some((root, below)) = self.nodes.split_first() else {
            debug_assert!(false, "a part has a root");
            return Expr::Not(Part::new(&[]));
        };
        if root.negated && !self.without_negation {
            return Expr::Not(Part { nodes: self.nodes, without_negation: true });
        }
        match &root.op {
            Op::Condition(condition) => condition.expr(),
            Op::Group { kind: GroupKind::And, .. } => Expr::And(Parts(Operands(below))),
            Op::Group { kind: GroupKind::Or, .. } => Expr::Or(Parts(Operands(below))),
        }
    }
}

/// Iterates over the operands of an [`Expr::And`] or [`Expr::Or`].
#[derive(Clone, Debug)]
pub struct Parts<'a>(Operands<'a>);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Part::new)
    }
}

impl Condition {
    fn expr(&self) -> Expr<'_> {
        let (key, condition) = match self {
            Self::All => return Expr::All,
            Self::Global => return Expr::Global,
            Self::Label { key, condition } => (key, condition),
        };
        match condition {
            LabelCondition::Has => Expr::Has(key),
            LabelCondition::Equal(it) => Expr::Equal(key, it),
            LabelCondition::NotEqual(it) => Expr::NotEqual(key, it),
            LabelCondition::In(set) => Expr::In(key, set),
            LabelCondition::NotIn(set) => Expr::NotIn(key, set),
            LabelCondition::Contains(it) => Expr::Contains(key, it),
            LabelCondition::StartsWith(it) => Expr::StartsWith(key, it),
            LabelCondition::EndsWith(it) => Expr::EndsWith(key, it),
        }
    }
}
