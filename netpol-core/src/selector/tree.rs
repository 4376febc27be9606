//! The syntax tree, stored flat: every node is followed by the nodes below it (prefix order).
//!
//! A flat tree compares, hashes and drops as a slice, and walking it takes a stack of our own at most.
//! So no selector, however deep, can exhaust the thread's stack.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::slice;

use super::condition::Condition;

/// One node.
///
/// The derived order decides how operands are sorted: plain before negated, conditions before groups,
/// conditions by label key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Node {
    /// Whether the node, with all below it, is negated.
    pub(super) negated: bool,
    /// What it does.
    pub(super) op: Op,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Op {
    Condition(Arc<Condition>),
    /// At least two operands: sorted, without duplicates, and none a plain group of the same kind.
    Group {
        kind: GroupKind,
        /// Number of nodes that follow and belong to the group.
        below: usize,
    },
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum GroupKind {
    And,
    Or,
}

/// A group that is being walked through.
struct OpenGroup {
    kind: GroupKind,
    negated: bool,
    /// Index of the first node behind the group.
    end: usize,
}

/// Returns the tree that joins `trees` as operands, or `None` if there are none.
pub(super) fn join(kind: GroupKind, mut trees: Vec<Arc<[Node]>>) -> Option<Arc<[Node]>> {
    if trees.len() < 2 {
        return trees.pop();
    }
    let mut operands = Vec::new();
    for tree in &trees {
        match tree.split_first() {
            Some((Node { negated: false, op: Op::Group { kind: inner, .. } }, below))
                if *inner == kind =>
            {
                operands.extend(Operands(below));
            }
            _ => operands.push(&**tree),
        }
    }
    operands.sort_unstable();
    operands.dedup();
    if let [operand] = *operands {
        return Some(operand.into());
    }
    let below = operands.iter().map(|it| it.len()).sum();
    let mut joined = Vec::with_capacity(below + 1);
    joined.push(Node { negated: false, op: Op::Group { kind, below } });
    joined.extend(operands.into_iter().flatten().cloned());
    Some(joined.into())
}

/// Returns the negation of `tree`.
pub(super) fn negate(tree: &[Node]) -> Arc<[Node]> {
    let mut nodes = tree.to_vec();
    if let Some(root) = nodes.first_mut() {
        root.negated = !root.negated;
    }
    nodes.into()
}

/// Returns whether `tree` holds, where `holds` says it of the conditions. Asks of no more of them than needed.
pub(super) fn evaluate(tree: &[Node], mut holds: impl FnMut(&Condition) -> bool) -> bool {
    let mut group: Option<OpenGroup> = None;
    let mut outer = Vec::new();
    let mut at = 0;
    while let Some(node) = tree.get(at) {
        at += 1;
        let mut value = match &node.op {
            Op::Condition(it) => holds(it) != node.negated,
            Op::Group { kind, below } => {
                let opened = OpenGroup { kind: *kind, negated: node.negated, end: at + below };
                outer.extend(group.replace(opened));
                continue;
            }
        };
        // The value decides the group it is in, or the next operand has to.
        loop {
            let Some(open) = &group else {
                return value;
            };
            let undecided = value == (open.kind == GroupKind::And);
            if undecided && at < open.end {
                break;
            }
            at = open.end;
            value = value != open.negated;
            group = outer.pop();
        }
    }
    debug_assert!(false, "a tree has a root and every group its operands");
    false
}

/// Prints `tree` in canonical form.
pub(super) fn print(tree: &[Node], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut groups: Vec<OpenGroup> = Vec::new();
    let mut is_first = true;
    for (index, node) in tree.iter().enumerate() {
        if let Some(group) = groups.last()
            && !is_first
        {
            f.write_str(group.kind.separator())?;
        }
        if node.negated {
            f.write_str("!")?;
        }
        is_first = match &node.op {
            Op::Condition(condition) => {
                write!(f, "{condition}")?;
                false
            }
            Op::Group { kind, below } => {
                f.write_str("(")?;
                groups.push(OpenGroup {
                    kind: *kind,
                    negated: node.negated,
                    end: index + 1 + below,
                });
                true
            }
        };
        while groups.pop_if(|group| group.end == index + 1).is_some() {
            f.write_str(")")?;
        }
    }
    Ok(())
}

/// Returns the tree with every condition replaced by what `replace` makes of it, in canonical form again.
pub(super) fn rewrite(
    tree: &[Node],
    mut replace: impl FnMut(&Condition) -> Arc<[Node]>,
) -> Arc<[Node]> {
    // From the back, so that operands are done before their group. Each with its former number of nodes.
    let mut done: Vec<(usize, Arc<[Node]>)> = Vec::new();
    for node in tree.iter().rev() {
        let (len, rewritten) = match &node.op {
            Op::Condition(condition) => (1, replace(condition)),
            Op::Group { kind, below } => {
                let mut operands = Vec::new();
                let mut missing = *below;
                while let Some((len, operand)) = done.pop_if(|(len, _)| *len <= missing) {
                    missing -= len;
                    operands.push(operand);
                }
                (below + 1, join(*kind, operands).unwrap_or_default())
            }
        };
        done.push((len, if node.negated { negate(&rewritten) } else { rewritten }));
    }
    done.pop().map(|(_, tree)| tree).unwrap_or_default()
}

impl GroupKind {
    fn separator(self) -> &'static str {
        match self {
            Self::And => " && ",
            Self::Or => " || ",
        }
    }
}

impl Node {
    /// Returns the conditions of `tree`, from the left.
    pub(super) fn conditions(tree: &[Self]) -> impl Iterator<Item = &Condition> {
        tree.iter().filter_map(|node| match &node.op {
            Op::Condition(condition) => Some(condition.as_ref()),
            Op::Group { .. } => None,
        })
    }
}

/// Iterates over the operands of a group, given the nodes below it.
#[derive(Clone, Debug)]
pub(super) struct Operands<'a>(pub(super) &'a [Node]);

impl<'a> Iterator for Operands<'a> {
    type Item = &'a [Node];

    fn next(&mut self) -> Option<Self::Item> {
        let len = match self.0.first()?.op {
            Op::Condition(_) => 1,
            Op::Group { below, .. } => below + 1,
        };
        let (operand, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(operand)
    }
}

/// Returns the tree of one condition.
pub(super) fn leaf(condition: Condition) -> Arc<[Node]> {
    slice::from_ref(&Node { negated: false, op: Op::Condition(Arc::new(condition)) }).into()
}
