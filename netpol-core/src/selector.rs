//! The selector language: which labels an endpoint or address set must have.
//!
//! The language and its meaning are Calico's; selectors of other APIs are converted to it with the constructors of
//! [`Selector`]. [`Expr`] shows a selector as a tree to those who translate it further.

mod condition;
mod error;
mod expr;
mod parse;
mod restrict;
#[cfg(test)]
mod tests;
mod tree;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Not;
use core::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::condition::{Condition, LabelCondition};
pub use self::error::SelectorError;
pub use self::expr::{Expr, Part, Parts};
use self::parse::{Limits, parse};
pub use self::restrict::Restriction;
use self::tree::{GroupKind, Node};
use crate::labels::Labels;
use crate::model::keys;

/// What a selector sees of a thing: at most one value per label key.
///
/// Implemented by [`Labels`], and by whoever puts labels of several sources together without copying them.
/// Two calls with the same key return the same value while a selector is being matched.
pub trait LabelView {
    /// Returns the value of label `key`, or `None` if there is no such label. An empty value is a value.
    fn value(&self, key: &str) -> Option<&str>;
}

impl LabelView for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.value(key)
    }
}

/// A label selector: says of any [`LabelView`] whether it matches.
///
/// Selectors are in canonical form: operands of `&&` and `||` are flattened, sorted and without duplicates, so are the
/// values of `in` and `not in`, and double negations are gone. Selectors that differ in nothing else are equal, and
/// print the same text. There is no logical normalisation beyond that: `!a == "b"` and `a != "b"` mean the same and
/// are different.
///
/// Cloning is cheap. No operation recurses, so none can exhaust the thread's stack.
///
/// # Examples
///
/// Reading and matching:
///
/// ```
/// use netpol_core::{Labels, Selector};
///
/// let selector: Selector = "app == 'db' && has(tier)".parse()?;
/// let labels: Labels = [("app", "db"), ("tier", "back")].into_iter().collect();
/// assert!(selector.matches(&labels));
/// assert!(!selector.matches(&Labels::new()));
/// # Ok::<(), netpol_core::selector::SelectorError>(())
/// ```
///
/// Composing, as the conversions from other APIs do:
///
/// ```
/// use netpol_core::Selector;
///
/// let selector = Selector::and([
///     Selector::is_in("tier", ["web", "db"])?,
///     !Selector::has("legacy")?,
///     Selector::equal("app", "shop")?,
/// ]);
/// assert_eq!(selector.to_string(), r#"(app == "shop" && tier in {"db", "web"} && !has(legacy))"#);
/// assert_eq!(Selector::from_canonical(&selector.to_string())?, selector);
/// # Ok::<(), netpol_core::selector::SelectorError>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Selector(Arc<[Node]>);

impl Selector {
    /// Most characters of a text that is parsed.
    ///
    /// Source: `maxLength` of selector fields in Calico's resource definitions.
    pub const MAX_CHARS: usize = 1024;

    /// Most parentheses that may be open at once in a text that is parsed.
    ///
    /// Calico has no such limit; it stands for the stack its parser recurses on.
    pub const MAX_DEPTH: usize = 64;

    /// Most bytes of a label key.
    ///
    /// Source: `LabelKeyMatcher` in Calico's `libcalico-go/lib/selector/tokenizer`.
    pub const MAX_KEY_BYTES: usize = 512;

    /// Returns `all()`, which matches everything. It is also what blank text means.
    #[must_use]
    pub fn all() -> Self {
        Self::from_condition(Condition::All)
    }

    /// Returns `!all()`, which matches nothing.
    #[must_use]
    pub fn none() -> Self {
        !Self::all()
    }

    /// Returns `has(key)`: there is a label `key`, whatever its value.
    ///
    /// # Errors
    ///
    /// [`SelectorError::InvalidKey`] if `key` is not 1 to [`MAX_KEY_BYTES`](Self::MAX_KEY_BYTES) ASCII letters,
    /// digits, `_`, `.`, `/` or `-`. Every label key that Kubernetes accepts is.
    pub fn has(key: impl Into<String>) -> Result<Self, SelectorError> {
        Self::label(key, LabelCondition::Has)
    }

    /// Returns `key == "value"`: there is a label `key`, with this value.
    ///
    /// # Errors
    ///
    /// [`SelectorError::InvalidKey`] as for [`has`](Self::has); [`SelectorError::InexpressibleValue`] if `value`
    /// holds both kinds of quotes. No label value that Kubernetes accepts holds any.
    pub fn equal(key: impl Into<String>, value: impl Into<String>) -> Result<Self, SelectorError> {
        Self::label(key, LabelCondition::Equal(checked_value(value)?))
    }

    /// Returns `key != "value"`: there is no label `key` with this value; without the label it matches.
    ///
    /// # Errors
    ///
    /// As for [`equal`](Self::equal).
    pub fn not_equal(
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, SelectorError> {
        Self::label(key, LabelCondition::NotEqual(checked_value(value)?))
    }

    /// Returns `key in {…}`: there is a label `key`, with one of `values`. Without values it matches nothing.
    ///
    /// # Errors
    ///
    /// As for [`equal`](Self::equal).
    pub fn is_in<V: Into<String>>(
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, SelectorError> {
        Self::label(key, LabelCondition::is_in(checked_values(values)?))
    }

    /// Returns `key not in {…}`: there is no label `key` with one of `values`; without the label it matches.
    ///
    /// # Errors
    ///
    /// As for [`equal`](Self::equal).
    pub fn not_in<V: Into<String>>(
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, SelectorError> {
        Self::label(key, LabelCondition::not_in(checked_values(values)?))
    }

    /// Returns the selector that matches where all of `operands` match; without operands, [`all`](Self::all).
    #[must_use]
    pub fn and(operands: impl IntoIterator<Item = Self>) -> Self {
        Self::group(GroupKind::And, operands).unwrap_or_else(Self::all)
    }

    /// Returns the selector that matches where one of `operands` matches; without operands, [`none`](Self::none).
    #[must_use]
    pub fn or(operands: impl IntoIterator<Item = Self>) -> Self {
        Self::group(GroupKind::Or, operands).unwrap_or_else(Self::none)
    }

    /// Reads text that was printed from a selector.
    ///
    /// Unlike [`parse`](str::parse), it has no limits: selectors that are composed of many, or whose keys were
    /// prefixed, are larger than what users may write.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](str::parse), except for the limits.
    pub fn from_canonical(text: &str) -> Result<Self, SelectorError> {
        parse(text, Limits::NONE)
    }

    /// Returns whether the selector matches `labels`.
    #[must_use]
    pub fn matches<V: LabelView + ?Sized>(&self, labels: &V) -> bool {
        tree::evaluate(&self.0, |condition| condition.matches(labels))
    }

    /// Returns what the selector does, for translation into something else.
    #[must_use]
    pub fn expr(&self) -> Expr<'_> {
        Part::new(&self.0).expr()
    }

    /// Returns whether `global()` occurs anywhere. It has a meaning only where namespaces are selected.
    #[must_use]
    pub fn mentions_global(&self) -> bool {
        Node::conditions(&self.0).any(|condition| *condition == Condition::Global)
    }

    /// Returns the selector with `prefix` put before every label key. The keys may become longer than
    /// [`MAX_KEY_BYTES`](Self::MAX_KEY_BYTES).
    ///
    /// # Errors
    ///
    /// [`SelectorError::InvalidKey`] with the prefix, if it has a character that label keys cannot have.
    pub fn prefixed(&self, prefix: &str) -> Result<Self, SelectorError> {
        if prefix.bytes().all(is_key_byte) {
            Ok(self.rewritten(prefix, |_| None))
        } else {
            Err(invalid_key(prefix.into()))
        }
    }

    /// Returns what this selector of namespaces means for the things in them: keys get the prefix `pcns.`, `all()`
    /// becomes "is in a namespace" and `global()` becomes "is in no namespace".
    ///
    /// ```
    /// use netpol_core::Selector;
    ///
    /// let rewritten = |text: &str| text.parse().map(|it: Selector| it.in_namespaces().to_string());
    /// assert_eq!(rewritten("k == 'v' && has(x)")?, r#"(pcns.k == "v" && has(pcns.x))"#);
    /// assert_eq!(rewritten("all()")?, "has(projectcalico.org/namespace)");
    /// assert_eq!(rewritten("global()")?, "!has(projectcalico.org/namespace)");
    /// # Ok::<(), netpol_core::selector::SelectorError>(())
    /// ```
    ///
    /// Source: `libcalico-go/lib/backend/syncersv1/updateprocessors/rules.go` of Calico.
    #[must_use]
    pub fn in_namespaces(&self) -> Self {
        self.rewritten_for(keys::NAMESPACE_PREFIX, keys::NAMESPACE)
    }

    /// Returns what this selector of service accounts means for the workloads that use them: keys get the prefix
    /// `pcsa.`, `all()` becomes "has a service account" and `global()` becomes "has no service account".
    #[must_use]
    pub fn in_service_accounts(&self) -> Self {
        self.rewritten_for(keys::SERVICE_ACCOUNT_PREFIX, keys::SERVICE_ACCOUNT)
    }

    /// Prefixes keys with `prefix`; things that are in an owner have the label `owner_key`.
    fn rewritten_for(&self, prefix: &str, owner_key: &str) -> Self {
        let has_owner = Self::from_condition(Condition::Label {
            key: owner_key.into(),
            condition: LabelCondition::Has,
        });
        let has_none = !&has_owner;
        self.rewritten(prefix, |condition| match condition {
            Condition::All => Some(has_owner.clone()),
            Condition::Global => Some(has_none.clone()),
            Condition::Label { .. } => None,
        })
    }

    /// Replaces conditions by what `replace` returns, and prefixes the keys of those for which it returns nothing.
    fn rewritten(&self, prefix: &str, replace: impl Fn(&Condition) -> Option<Self>) -> Self {
        Self(tree::rewrite(&self.0, |condition| match replace(condition) {
            Some(selector) => selector.0,
            None => tree::leaf(condition.prefixed(prefix)),
        }))
    }

    /// Returns what everything that the selector matches has in common, by label key: what an index can look for
    /// instead of asking everything. `None` if it can match nothing at all.
    ///
    /// It is conservative: what meets the restrictions need not match. Conditions under a `!` restrict nothing, except
    /// that `!has(key)` does.
    ///
    /// ```
    /// use netpol_core::Selector;
    /// use netpol_core::selector::Restriction;
    ///
    /// let selector: Selector = "(app == 'web' || app == 'db') && tier != 'test'".parse()?;
    /// let restrictions = selector.restrictions().ok_or("it can match")?;
    /// assert_eq!(restrictions.get("app"), Some(&Restriction::OneOf(["db", "web"].into())));
    /// assert_eq!(restrictions.get("tier"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn restrictions(&self) -> Option<BTreeMap<&str, Restriction<'_>>> {
        restrict::restrictions(&self.0)
    }

    /// Returns `key == "value"` for a label that something has, whatever is in it. If no text can express it, it prints as
    /// one that does not read back.
    pub(crate) fn of_label(key: String, value: &str) -> Self {
        Self::from_condition(Condition::Label {
            key,
            condition: LabelCondition::Equal(value.into()),
        })
    }

    /// Returns `has(key)` for a key that something has, whatever is in it.
    pub(crate) fn of_key(key: String) -> Self {
        Self::from_condition(Condition::Label { key, condition: LabelCondition::Has })
    }

    fn from_condition(condition: Condition) -> Self {
        Self(tree::leaf(condition))
    }

    fn label(key: impl Into<String>, condition: LabelCondition) -> Result<Self, SelectorError> {
        let key = checked_key(key)?;
        Ok(Self::from_condition(Condition::Label { key, condition }))
    }

    fn group(kind: GroupKind, operands: impl IntoIterator<Item = Self>) -> Option<Self> {
        tree::join(kind, operands.into_iter().map(|it| it.0).collect()).map(Self)
    }
}

/// As the text that [`from_canonical`](Selector::from_canonical) reads.
impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_canonical(&text).map_err(D::Error::custom)
    }
}

/// The selector that matches where this one does not.
impl Not for Selector {
    type Output = Self;

    fn not(self) -> Self {
        !&self
    }
}

/// The selector that matches where this one does not.
impl Not for &Selector {
    type Output = Selector;

    fn not(self) -> Selector {
        Selector(tree::negate(&self.0))
    }
}

/// Reads what users write: at most [`MAX_CHARS`](Selector::MAX_CHARS) characters, parentheses at most
/// [`MAX_DEPTH`](Selector::MAX_DEPTH) deep, keys of at most [`MAX_KEY_BYTES`](Selector::MAX_KEY_BYTES).
impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let limits =
            Limits { chars: Self::MAX_CHARS, depth: Self::MAX_DEPTH, key: Self::MAX_KEY_BYTES };
        parse(text, limits)
    }
}

/// Prints the canonical text, which [`from_canonical`](Selector::from_canonical) reads back as an equal selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tree::print(&self.0, f)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

fn checked_key(key: impl Into<String>) -> Result<String, SelectorError> {
    let key = key.into();
    let is_valid =
        (1..=Selector::MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(is_key_byte);
    if is_valid { Ok(key) } else { Err(invalid_key(key)) }
}

fn invalid_key(key: String) -> SelectorError {
    SelectorError::InvalidKey { key, limit: Selector::MAX_KEY_BYTES }
}

fn checked_value(value: impl Into<String>) -> Result<String, SelectorError> {
    let value = value.into();
    if value.contains('\'') && value.contains('"') {
        Err(SelectorError::InexpressibleValue { value })
    } else {
        Ok(value)
    }
}

fn checked_values<V: Into<String>>(
    values: impl IntoIterator<Item = V>,
) -> Result<Vec<String>, SelectorError> {
    values.into_iter().map(checked_value).collect()
}

/// Returns whether label keys may contain `byte`.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
}
