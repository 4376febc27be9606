//! Tiers.

use alloc::format;
use alloc::string::String;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, Field, buffered};
use super::super::manifest::{Manifest, Meta, Scope, optional_text};
use super::super::number::Decimal;
use super::super::report::{Path, Report};
use super::super::{Kind, Refused};
use super::names;
use super::policy::read_order;
use crate::model::{self, Order, TierEnd};

/// A `projectcalico.org/v3` Tier as it is written.
#[derive(Clone, Debug)]
pub struct Tier(Manifest<Spec, IgnoredAny>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct Spec {
    order: Field<Decimal>,
    default_action: Field<String>,
    #[serde(flatten)]
    extra: Extra,
}

impl Tier {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the tier in the model's terms; `None` for a built-in tier, which always is there.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything that Calico refuses, unknown fields included: built-in tiers cannot be changed.
    pub fn to_tier(&self) -> Result<Option<model::Tier>, Refused> {
        let mut report = Report::default();
        let meta = self.0.meta_of_named(Kind::Tier, Scope::Cluster, names::TIER, &mut report);
        report.unknown_fields(None, &self.0.extra);
        let at = Path::top("spec");
        let (order, end) = match report.given(&at, &self.0.spec) {
            Some(spec) => spec.read(&at, &mut report),
            None => (None, TierEnd::Deny),
        };
        let tier = meta.map(|Meta { name, .. }| {
            let built_in = model::Tier::built_in().into_iter().find(|it| it.name == name);
            match built_in {
                Some(built_in) => {
                    check_built_in(&at, &built_in, order, end, &mut report);
                    None
                }
                None => Some(model::Tier::new(name, order, end)),
            }
        });
        report.finish(tier).map(|it| it.value)
    }
}

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl Spec {
    fn read(&self, at: &Path<'_>, report: &mut Report) -> (Option<Order>, TierEnd) {
        let Self { order, default_action, extra } = self;
        report.unknown_fields(Some(at), extra);
        let order = read_order(&at.field("order"), order, report);
        let action_at = at.field("defaultAction");
        let end = match optional_text(report, &action_at, default_action) {
            None | Some("Deny") => TierEnd::Deny,
            Some("Pass") => TierEnd::Pass,
            Some(text) => {
                let expected = "`Deny` or `Pass`";
                report.refuse(
                    &action_at,
                    format!("`{text}` is not a default action, expected {expected}"),
                );
                TierEnd::Deny
            }
        };
        (order, end)
    }
}

/// Refuses a change of a built-in tier.
fn check_built_in(
    at: &Path<'_>,
    built_in: &model::Tier,
    order: Option<Order>,
    end: TierEnd,
    report: &mut Report,
) {
    let name = &built_in.name;
    if order != built_in.order {
        let expected = built_in.order.map_or(f64::INFINITY, Order::value);
        report.refuse(
            &at.field("order"),
            format!("the built-in tier `{name}` cannot be changed, expected {expected}"),
        );
    }
    if end != built_in.end {
        report.refuse(
            &at.field("defaultAction"),
            format!("the built-in tier `{name}` cannot be changed, expected `{:?}`", built_in.end),
        );
    }
}
