//! Lint: what policies say that their authors may not mean.
//!
//! Every finding is about valid objects, changes nothing, and is certain: where it is not plain that something is so,
//! nothing is said. That a policy is harmless does not follow. Which rules do nothing for the endpoints and addresses that
//! there are, [`idle_rules`](crate::analysis::idle_rules) says.
//!
//! ```
//! use netpol_core::lint::lint;
//! use netpol_core::model::{Action, Inputs, Policy, PolicyKey, Rule, RuleMatch};
//! use netpol_core::Selector;
//!
//! let mut policy = Policy::new(PolicyKey::kubernetes("shop", "db"), Selector::all());
//! let rule = |index, action| Rule::new(index, action, RuleMatch::default());
//! policy.ingress = Some(vec![rule(0, Action::Deny), rule(1, Action::Allow)]);
//! let mut inputs = Inputs::default();
//! inputs.upsert(policy);
//!
//! let findings: Vec<_> = lint(&inputs).iter().map(ToString::to_string).collect();
//! assert_eq!(findings, ["KubernetesNetworkPolicy shop/db ingress[1]: no flow reaches it, as ingress[0] matches all that it \
//! matches, and comes first"]);
//! ```

mod cover;
mod policies;
mod rules;
mod selector;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::flow::Direction;
use crate::model::{EndpointId, Inputs, PolicyKey};
use crate::net::Family;
use crate::verdict::RuleRef;

/// Something that a policy says and its author may not mean.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a place and what is found there")]
pub struct Finding {
    /// The policy.
    pub policy: PolicyKey,
    /// The rule, if only one is meant.
    pub rule: Option<RuleRef>,
    /// What is found.
    pub lint: Lint,
}

/// What can be found.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Lint {
    /// Nothing but names decides whether the policy or another one is asked first, and they differ in what they do.
    Tie {
        /// The policy that is asked before this one.
        with: PolicyKey,
    },
    /// No flow reaches the rule: an earlier one of the policy matches all that it matches.
    Unreachable {
        /// The earlier rule.
        by: RuleRef,
    },
    /// No flow meets the conditions of the rule.
    Impossible(Impossible),
    /// The rule matches one family only, for no other reason than the addresses it lists.
    OneFamily {
        /// The family.
        family: Family,
        /// An endpoint that the policy applies to and that has addresses of both.
        endpoint: EndpointId,
    },
    /// All rules of a direction only log, and yet the policy isolates.
    OnlyLogs {
        /// The direction.
        direction: Direction,
    },
    /// No endpoint can have the labels that the policy asks for.
    SelectsNothing,
    /// The tier of the policy does not exist: it comes last and denies at its end.
    UnknownTier {
        /// The name of the tier.
        tier: String,
    },
    /// Policies of two generations of one API are in force together.
    TwoGenerations {
        /// A policy of the newer one.
        with: PolicyKey,
    },
    /// The staged policy removes one that does not exist.
    RemovesNothing,
    /// The staged policy says what the one that it stands for says already.
    ChangesNothing,
    /// The policy has rules for a direction that it does not list, which therefore have no effect.
    UnlistedDirection {
        /// The direction.
        direction: Direction,
    },
    /// Part of the rule could not be read.
    Degraded,
    /// The rule is about HTTP requests: no packet filter can express it.
    Http,
}

/// Why no flow meets the conditions of a rule.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Impossible {
    /// No address is left on one side.
    Address(Side),
    /// Nothing can be the peer on one side.
    Peer(Side),
    /// No port is left on one side.
    Port(Side),
    /// No type of ICMP is left.
    Message,
    /// The conditions belong to different families.
    Family,
}

/// One side of a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a flow has two sides")]
pub enum Side {
    /// Who sends.
    Source,
    /// Who is to receive.
    Destination,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "it is worth knowing or probably wrong")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably not meant.
    Warning,
}

/// Returns all that is found, sorted by policy and rule.
///
/// Cost: every subject against every endpoint at most; pairs of rules, and of policies that share tier and order, up to
/// a limit beyond which nothing more is found.
#[must_use]
pub fn lint(inputs: &Inputs) -> Vec<Finding> {
    let mut findings = Vec::new();
    policies::look(inputs, &mut findings);
    for policy in inputs.policies() {
        rules::look(inputs, policy, &mut findings);
    }
    findings.sort();
    findings
}

impl Lint {
    /// Returns the name of the lint, such as `unknown-tier`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tie { .. } => "tie",
            Self::Unreachable { .. } => "unreachable-rule",
            Self::Impossible(_) => "impossible-rule",
            Self::OneFamily { .. } => "one-family",
            Self::OnlyLogs { .. } => "only-logs",
            Self::SelectsNothing => "selects-nothing",
            Self::UnknownTier { .. } => "unknown-tier",
            Self::TwoGenerations { .. } => "two-generations",
            Self::RemovesNothing => "removes-nothing",
            Self::ChangesNothing => "changes-nothing",
            Self::UnlistedDirection { .. } => "unlisted-direction",
            Self::Degraded => "degraded-rule",
            Self::Http => "http-rule",
        }
    }

    /// Returns how much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::OneFamily { .. } | Self::ChangesNothing => Severity::Note,
            Self::Tie { .. }
            | Self::Unreachable { .. }
            | Self::Impossible(_)
            | Self::OnlyLogs { .. }
            | Self::SelectsNothing
            | Self::UnknownTier { .. }
            | Self::TwoGenerations { .. }
            | Self::RemovesNothing
            | Self::UnlistedDirection { .. }
            | Self::Degraded
            | Self::Http => Severity::Warning,
        }
    }
}

impl fmt::Display for Finding {
    /// Writes where something is found and what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "{rule}: {}", self.lint),
            None => write!(f, "{}: {}", self.policy, self.lint),
        }
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tie { with } => {
                write!(
                    f,
                    "asked after {with} for no other reason than its name; they have the same order, and differ in what they do"
                )
            }
            Self::Unreachable { by } => write!(
                f,
                "no flow reaches it, as {} matches all that it matches, and comes first",
                by.place()
            ),
            Self::Impossible(why) => write!(f, "no flow meets its conditions: {why}"),
            Self::OneFamily { family, endpoint } => write!(
                f,
                "matches {family} only, as the addresses it lists are; {endpoint} has addresses of both families"
            ),
            Self::OnlyLogs { direction } => write!(
                f,
                "all its rules of {direction} only log, and yet it isolates: what no other policy of the tier allows is denied"
            ),
            Self::SelectsNothing => f.write_str("no labels can meet its selector"),
            Self::UnknownTier { tier } => {
                write!(f, "tier `{tier}` does not exist: it is asked last and denies at its end")
            }
            Self::TwoGenerations { with } => write!(
                f,
                "in force together with {with}: expected policies of one generation of the API"
            ),
            Self::RemovesNothing => f.write_str("the policy that it removes does not exist"),
            Self::ChangesNothing => {
                f.write_str("says what the policy that it stands for says already")
            }
            Self::UnlistedDirection { direction } => write!(
                f,
                "has rules of {direction}, which have no effect: it does not list the direction"
            ),
            Self::Degraded => f.write_str("part of it could not be read"),
            Self::Http => {
                f.write_str("is about HTTP requests; where nothing judges these, it is left out")
            }
        }
    }
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(side) => write!(f, "no address is left for the {side}"),
            Self::Peer(side) => write!(f, "nothing can be the {side} that it asks for"),
            Self::Port(side) => write!(f, "no port is left for the {side}"),
            Self::Message => f.write_str("no type of ICMP is left"),
            Self::Family => f.write_str("they belong to different address families"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
        })
    }
}
