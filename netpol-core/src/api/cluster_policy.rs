//! What the policies of `policy.networking.k8s.io` have in common: subjects, rules and peers.

mod domain;
mod peer;
mod port;
mod rule;
mod subject;
mod tenancy;

use alloc::format;
use alloc::string::String;

pub(super) use self::rule::{RuleReader, WireRule};
pub(super) use self::subject::Subject;
use super::Kind;
use super::field::Field;
use super::number::Number;
use super::report::{Path, Report};
use crate::model::{Action, Order};

/// The policies, as far as they differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    /// `v1alpha2` ClusterNetworkPolicy.
    Cluster,
    /// `v1alpha1` AdminNetworkPolicy, those of version 0.1.1 and before included.
    Admin,
    /// `v1alpha1` BaselineAdminNetworkPolicy, likewise.
    Baseline,
}

/// Most networks or domain names of a peer.
///
/// Source: `MaxItems` in `apis/v1alpha1` and `apis/v1alpha2` of network-policy-api, as are all limits here.
const MAX_VALUES: usize = 25;

/// Most characters of a rule's name.
const MAX_NAME: usize = 100;

/// The highest priority, which comes last.
const MAX_PRIORITY: i32 = 1000;

impl Dialect {
    /// Returns the kind of the policies.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Cluster => Kind::ClusterNetworkPolicy,
            Self::Admin => Kind::AdminNetworkPolicy,
            Self::Baseline => Kind::BaselineAdminNetworkPolicy,
        }
    }

    /// Returns how many rules a direction can have, and how many peers and ports a rule.
    const fn max_items(self) -> usize {
        match self {
            Self::Cluster => 25,
            Self::Admin | Self::Baseline => 100,
        }
    }

    /// Returns the actions that rules can have.
    const fn actions(self) -> &'static [(&'static str, Action)] {
        match self {
            Self::Cluster => {
                &[("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)]
            }
            Self::Admin => {
                &[("Allow", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)]
            }
            Self::Baseline => &[("Allow", Action::Allow), ("Deny", Action::Deny)],
        }
    }
}

/// Reads `priority`.
pub(super) fn read_priority(
    at: &Path<'_>,
    priority: &Field<Number>,
    report: &mut Report,
) -> Option<Order> {
    let expected = "0 to 1000";
    let number = report.required(at, priority, expected)?.value();
    let priority = i32::try_from(number).ok().filter(|it| (0..=MAX_PRIORITY).contains(it));
    if priority.is_none() {
        report.refuse(at, format!("`{number}` is not a priority, expected {expected}"));
    }
    priority.map(Order::whole)
}

/// Returns the words as a list for an error: `a`, `b` or `c`.
fn alternatives<'a>(words: impl DoubleEndedIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for (place, word) in words.rev().enumerate() {
        let separator = match place {
            0 => "",
            1 => " or ",
            _ => ", ",
        };
        text = format!("`{word}`{separator}{text}");
    }
    text
}
