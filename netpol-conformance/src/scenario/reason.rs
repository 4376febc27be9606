//! Reasons of verdicts, as scenarios expect them.

use std::fmt;
use std::str::FromStr;

use netpol_core::{Direction, Reason};
use serde::Deserialize;

use super::spec::FormError;

/// Why a half of a flow has to be judged as it is, in words that do not depend on one implementation.
///
/// | Text | Meaning |
/// |---|---|
/// | `rule KIND [NAMESPACE/]NAME[INDEX]` | this rule matched; `INDEX` counts the rules of the direction from 0 |
/// | `no match in tier NAME` | policies of the tier apply, none of their rules matched, and the tier denies at its end |
/// | `no policy` | no policy decided, so the endpoint's default verdict does |
/// | `no endpoint` | the address belongs to no endpoint |
/// | `own node` | the packet comes from the endpoint's own node |
/// | `own address` | the endpoint talks to itself |
/// | `unknown interface` | the interface looks like that of a workload and belongs to none |
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct ReasonText(String);

/// The reasons that a probe expects, of one half or of both.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a flow has two halves")]
pub struct Reasons {
    /// Why the source's half is judged as it is.
    pub egress: Option<ReasonText>,
    /// Why the destination's half is.
    pub ingress: Option<ReasonText>,
}

const NO_MATCH: &str = "no match in tier ";

impl ReasonText {
    /// Returns the words for a reason; `None` if scenarios have none for it.
    #[must_use]
    pub fn of(reason: &Reason) -> Option<Self> {
        Some(Self(match reason {
            Reason::Rule(rule) => format!("rule {}[{}]", rule.policy, rule.index),
            Reason::NoMatch { tier, .. } => format!("{NO_MATCH}{tier}"),
            Reason::DefaultVerdict => "no policy".to_owned(),
            Reason::NoEndpoint => "no endpoint".to_owned(),
            Reason::OwnNode => "own node".to_owned(),
            Reason::SameEndpoint => "own address".to_owned(),
            Reason::Unknown => "unknown interface".to_owned(),
            _ => return None,
        }))
    }
}

impl Reasons {
    /// Returns the reason that is expected of a half.
    #[must_use]
    pub const fn of(&self, direction: Direction) -> Option<&ReasonText> {
        match direction {
            Direction::Egress => self.egress.as_ref(),
            Direction::Ingress => self.ingress.as_ref(),
        }
    }
}

impl FromStr for ReasonText {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_rule = |rest: &str| {
            let parts = rest.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
            let policy = |it: &str| it.split_once(' ').is_some_and(|(_, name)| !name.contains(' '));
            parts.is_some_and(|(rule, index)| policy(rule) && index.parse::<usize>().is_ok())
        };
        let is_known = matches!(
            text,
            "no policy" | "no endpoint" | "own node" | "own address" | "unknown interface"
        ) || text.strip_prefix(NO_MATCH).is_some_and(|tier| !tier.is_empty())
            || text.strip_prefix("rule ").is_some_and(is_rule);
        if is_known { Ok(Self(text.to_owned())) } else { Err(FormError::Reason(text.to_owned())) }
    }
}

impl TryFrom<String> for ReasonText {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for ReasonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use netpol_core::RuleRef;
    use netpol_core::model::PolicyKey;

    use super::*;

    #[test]
    fn every_reason_reads_as_it_is_written() {
        let rule = RuleRef {
            policy: PolicyKey::kubernetes("x", "p.q"),
            direction: Direction::Ingress,
            index: 3,
            name: Some("a name".to_owned()),
        };
        for (reason, text) in [
            (Reason::Rule(rule), "rule KubernetesNetworkPolicy x/p.q[3]"),
            (Reason::NoMatch { tier: "t".into(), policies: Vec::new() }, "no match in tier t"),
            (Reason::DefaultVerdict, "no policy"),
            (Reason::NoEndpoint, "no endpoint"),
            (Reason::OwnNode, "own node"),
            (Reason::SameEndpoint, "own address"),
            (Reason::Unknown, "unknown interface"),
        ] {
            assert_eq!(ReasonText::of(&reason), Some(text.parse().unwrap()));
        }
        assert_eq!(ReasonText::of(&Reason::Isolated), None);
        for wrong in ["", "rule p", "rule K p", "rule K p[x]", "rule K p q[0]", "because"] {
            assert!(wrong.parse::<ReasonText>().is_err(), "{wrong}");
        }
    }
}
