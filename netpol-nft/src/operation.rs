//! Single changes of our table, the steps of a plan.

use std::fmt;

use crate::name::Name;
use crate::ruleset::{Base, Elements, KeyType, Rule, Storage};

/// Most elements that one operation adds or deletes.
///
/// The elements of a message are one attribute, whose length has 16 bits; an entry of a verdict map takes less than 150
/// bytes there.
pub(crate) const MAX_ELEMENTS: usize = 256;

/// One change of our table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    /// Makes the table; if it exists, it is woken up if it sleeps.
    AddTable,
    /// Removes the table with all that is in it.
    DeleteTable,
    /// Makes a chain.
    AddChain { name: Name, base: Option<Base> },
    /// Removes the rules of a chain.
    FlushChain { name: Name },
    /// Removes a chain without rules that nothing refers to.
    DeleteChain { name: Name },
    /// Appends a rule to a chain.
    AddRule { chain: Name, rule: Rule },
    /// Makes a set or a map without elements.
    AddSet { name: Name, key: KeyType, storage: Storage, content: Content },
    /// Removes the elements of a set.
    FlushSet { name: Name },
    /// Removes a set that nothing refers to.
    DeleteSet { name: Name },
    /// Adds elements, at most [`MAX_ELEMENTS`]; fine if they exist and are the same.
    AddElements { set: Name, key: KeyType, elements: Elements },
    /// Deletes elements, at most [`MAX_ELEMENTS`]; all must exist.
    DeleteElements { set: Name, key: KeyType, elements: Elements },
}

/// Whether a set's keys lead to verdicts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    /// A set.
    Keys,
    /// A map.
    Verdicts,
}

impl Content {
    pub(crate) fn of(elements: &Elements) -> Self {
        match elements {
            Elements::Verdicts(_) => Self::Verdicts,
            Elements::Keys(_) | Elements::Ranges(_) => Self::Keys,
        }
    }
}

impl Operation {
    /// Returns the chain or set that the operation is about; `None` for the table.
    pub(crate) fn object(&self) -> Option<&Name> {
        match self {
            Self::AddTable | Self::DeleteTable => None,
            Self::AddChain { name, .. }
            | Self::FlushChain { name }
            | Self::DeleteChain { name }
            | Self::AddSet { name, .. }
            | Self::FlushSet { name }
            | Self::DeleteSet { name } => Some(name),
            Self::AddRule { chain, .. } => Some(chain),
            Self::AddElements { set, .. } | Self::DeleteElements { set, .. } => Some(set),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable => f.write_str("make the table"),
            Self::DeleteTable => f.write_str("remove the table"),
            Self::AddChain { name, .. } => write!(f, "make chain `{name}`"),
            Self::FlushChain { name } => write!(f, "empty chain `{name}`"),
            Self::DeleteChain { name } => write!(f, "remove chain `{name}`"),
            Self::AddRule { chain, rule } => write!(f, "add to chain `{chain}` the rule `{rule}`"),
            Self::AddSet { name, .. } => write!(f, "make set `{name}`"),
            Self::FlushSet { name } => write!(f, "empty set `{name}`"),
            Self::DeleteSet { name } => write!(f, "remove set `{name}`"),
            Self::AddElements { set, elements, .. } => {
                write!(f, "add {} elements to set `{set}`", elements.len())
            }
            Self::DeleteElements { set, elements, .. } => {
                write!(f, "delete {} elements of set `{set}`", elements.len())
            }
        }
    }
}
