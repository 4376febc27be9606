//! The labels that endpoints, address sets, namespaces and service accounts have.

use alloc::collections::BTreeMap;

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// A set of labels: unique keys in byte order, each with a value.
///
/// Keys and values are arbitrary text; the APIs that labels come from restrict them.
///
/// ```
/// use netpol_core::Labels;
///
/// let labels: Labels = [("tier", "back"), ("app", "db")].into_iter().collect();
/// assert_eq!(labels.value("app"), Some("db"));
/// assert_eq!(labels.value("role"), None);
/// assert!(labels.iter().eq([("app", "db"), ("tier", "back")]));
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Returns no labels.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets label `key` to `value` and returns the value it had before.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> Option<String> {
        self.0.insert(key.into(), value.into())
    }

    /// Returns the value of label `key`, or `None` if there is no such label.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Returns keys and values in byte order of the keys.
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&str, &str)> + DoubleEndedIterator + Clone {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of several pairs with the same key the last one stays.
impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// A pair replaces an earlier one with the same key.
impl<K: Into<String>, V: Into<String>> Extend<(K, V)> for Labels {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, labels: I) {
        self.0.extend(labels.into_iter().map(|(key, value)| (key.into(), value.into())));
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use super::Labels;

    #[test]
    fn the_last_of_equal_keys_stays() {
        let mut labels: Labels = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert!(labels.iter().eq([("a", "3"), ("b", "2")]));
        labels.extend([("b".to_string(), String::new())]);
        assert_eq!(labels.value("b"), Some(""));
        assert_eq!(labels.insert("a", "4"), Some("3".to_string()));
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn equal_labels_are_equal_whatever_the_order() {
        let one: Labels = [("a", "1"), ("b", "2")].into_iter().collect();
        let other: Labels =
            [("b".to_string(), "2".to_string()), ("a".to_string(), "1".to_string())]
                .into_iter()
                .collect();
        assert_eq!(one, other);
        assert!(Labels::new().is_empty());
    }
}
