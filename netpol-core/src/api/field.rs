//! Fields of wire objects, read so that one that cannot be read does not hide what is wrong with the others.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use core::fmt;
use core::ops::Deref;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a wire object holds in a field.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Field<T> {
    /// Nothing, or null.
    #[default]
    Absent,
    /// A value of the right shape.
    Given(T),
    /// Something else, with the reader's message.
    Malformed(String),
}

/// A list, where each item has a place even if it cannot be read.
pub(super) type List<T> = Field<Vec<Field<T>>>;

/// Keys with values.
pub(super) type Map = Field<Pairs>;

/// Keys with values, of which no key comes twice: of two, an author may mean the one that does not count.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Pairs(BTreeMap<String, Field<String>>);

impl Deref for Pairs {
    type Target = BTreeMap<String, Field<String>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Pairs, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Field<String>>()? {
            match pairs.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(value)),
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!("duplicate key `{}`", entry.key())));
                }
            }
        }
        Ok(Pairs(pairs))
    }
}

/// The fields that the API does not have.
pub(super) type Extra = BTreeMap<String, IgnoredAny>;

impl<T> Field<T> {
    /// Returns the value if there is one of the right shape.
    pub(super) const fn value(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Malformed(_) => None,
        }
    }

    /// Returns whether there is anything, readable or not.
    pub(super) const fn is_written(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

impl Field<String> {
    /// Returns whether the text says something: an empty one is as one that is left out.
    pub(super) fn says_something(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Given(text) => !text.is_empty(),
            Self::Malformed(_) => true,
        }
    }
}

impl<T> Field<Vec<Field<T>>> {
    /// Returns the items of the right shape.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.value().into_iter().flatten().filter_map(Field::value)
    }

    /// Returns whether the list says something: an empty one is as one that is left out.
    pub(super) fn says_something(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Given(items) => !items.is_empty(),
            Self::Malformed(_) => true,
        }
    }
}

/// Never fails, which is sound only below [`buffered`]: a reader of text would lose its place.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::deserialize(deserializer) {
            Ok(None) => Self::Absent,
            Ok(Some(value)) => Self::Given(value),
            Err(error) => Self::Malformed(error.to_string()),
        })
    }
}

/// Reads a wire object from a copy of the whole document, so that each [`Field`] in it stands on its own.
pub(super) fn buffered<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    // Serde reads what is flattened from a copy of all fields.
    #[derive(Deserialize)]
    struct Buffered<T> {
        #[serde(flatten)]
        whole: T,
    }
    Buffered::deserialize(deserializer).map(|it| it.whole)
}
