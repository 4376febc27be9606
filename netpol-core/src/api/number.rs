//! Numbers of wire objects, which other types take as text too.

use alloc::format;
use alloc::string::String;
use core::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::report::{Path, Report};

/// A whole number as it is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Number(i64);

/// A number that may have a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decimal(pub(super) f64);

/// A number or a text.
///
/// Source: `IntOrString` in `k8s.io/apimachinery/pkg/util/intstr`.
#[derive(Clone, Debug)]
pub(super) enum NumberOrName {
    Number(Number),
    Name(String),
}

impl Number {
    /// Returns the number; one that is too large to be known is the largest.
    pub(super) const fn value(self) -> i64 {
        self.0
    }

    /// Returns the number as a port, which is not 0.
    pub(super) fn read_port(self, at: &Path<'_>, report: &mut Report) -> Option<u16> {
        let port = u16::try_from(self.0).ok().filter(|&port| port != 0);
        if port.is_none() {
            report.refuse(at, format!("`{}` is not a port, expected 1 to 65535", self.0));
        }
        port
    }
}

impl fmt::Display for NumberOrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.value().fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(NumberVisitor)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_f64(DecimalVisitor)
    }
}

impl<'de> Deserialize<'de> for NumberOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrNameVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        // No port is as large, so which number it was does not matter.
        Ok(Number(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

struct DecimalVisitor;

#[expect(clippy::cast_precision_loss, reason = "API servers keep such numbers as 64-bit floats")]
impl Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal(number as f64))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Decimal, E> {
        Ok(Decimal(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Decimal, E> {
        Ok(Decimal(number))
    }
}

struct NumberOrNameVisitor;

impl Visitor<'_> for NumberOrNameVisitor {
    type Value = NumberOrName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a name")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<NumberOrName, E> {
        NumberVisitor.visit_i64(number).map(NumberOrName::Number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<NumberOrName, E> {
        NumberVisitor.visit_u64(number).map(NumberOrName::Number)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<NumberOrName, E> {
        Ok(NumberOrName::Name(name.into()))
    }
}
