//! Policy sets: the ordered rules in force for one direction of an endpoint.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::digest::{Digest, DigestError, digest_of};
use super::set::SetId;
use crate::model::{Action, L4Match, PolicyKey};
use crate::net::{Family, PortSet, PrefixSet};
use crate::verdict::{RuleRef, Verdict};

/// Identifies a policy set: the digest of its content.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicySetId(Digest);

impl PolicySetId {
    /// Returns the id of a policy set.
    #[must_use]
    pub fn of(set: &PolicySet) -> Self {
        let stages = set.stages.iter().map(|stage| {
            let keys = stage.policies.iter().map(digest_of);
            let of_one_policy = stage.rules.chunk_by(|a, b| a.origin.policy == b.origin.policy);
            let blocks = of_one_policy.map(|rules| {
                let digests: Vec<_> = rules.iter().map(|rule| digest_of(&**rule)).collect();
                block_digest(&digests)
            });
            stage_digest(&stage.tier, stage.end, keys, blocks)
        });
        policy_set_id(stages, set.default)
    }

    /// Returns the digest.
    #[must_use]
    pub const fn digest(self) -> Digest {
        self.0
    }
}

impl fmt::Display for PolicySetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PolicySetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the digest of consecutive rules of one policy, given theirs. So who keeps it has to digest rules only once.
pub(crate) fn block_digest(rules: &[Digest]) -> Digest {
    digest_of(&("rules", rules))
}

/// Returns the digest of a stage, given those of its policies' keys and of their rules.
pub(crate) fn stage_digest(
    tier: &str,
    end: StageEnd,
    keys: impl Iterator<Item = Digest>,
    blocks: impl Iterator<Item = Digest>,
) -> Digest {
    let (keys, blocks): (Vec<_>, Vec<_>) = (keys.collect(), blocks.collect());
    digest_of(&("stage", tier, end, keys, blocks))
}

/// Returns the id of a policy set, given the digests of its stages.
pub(crate) fn policy_set_id(stages: impl Iterator<Item = Digest>, default: Verdict) -> PolicySetId {
    PolicySetId(digest_of(&("policy set", stages.collect::<Vec<_>>(), default)))
}

/// Identifies a rule across programs: the digest of its policy, direction and content, and its ordinal among equal
/// rules of that list. Editing another rule does not change it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RuleId(Digest);

impl RuleId {
    /// Returns the id with this digest.
    #[must_use]
    pub const fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// Returns the digest.
    #[must_use]
    pub const fn digest(self) -> Digest {
        self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RuleId {
    type Err = DigestError;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The ordered stages in force for one direction of every endpoint that refers to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "stages and what comes after them")]
pub struct PolicySet {
    /// The stages, asked in this order.
    pub stages: Vec<Stage>,
    /// The verdict after the last stage.
    pub default: Verdict,
}

impl PolicySet {
    /// Returns whether the set allows every flow without asking a rule.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stages.is_empty() && self.default == Verdict::Allow
    }
}

/// The rules of one tier.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a tier's name, policies, rules and end")]
pub struct Stage {
    /// The tier.
    pub tier: String,
    /// The policies of the tier that apply, in order. Not empty.
    pub policies: Vec<PolicyKey>,
    /// Their rules, in the order in which they are asked. Policy sets share the rules of a policy.
    pub rules: Vec<Arc<Rule>>,
    /// What happens to a flow that no rule decided.
    pub end: StageEnd,
}

/// What happens at the end of a stage.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a stage ends with a denial or with the next stage")]
pub enum StageEnd {
    /// The flow is denied, because policies apply and none of their rules matched.
    Deny,
    /// The next stage is asked, or the policy set's default after the last one.
    Next,
}

/// One rule. A flow must meet all of its conditions.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// Identifies the rule across programs. No two rules of a policy set have the same.
    pub id: RuleId,
    /// The rule as its author wrote it.
    pub origin: RuleRef,
    /// What is done with a flow that matches. [`Action::Pass`] goes on with the next stage.
    pub action: Action,
    /// The address family; `None` matches both.
    pub family: Option<Family>,
    /// The protocol, and its ports or types. Names are resolved.
    pub l4: L4Match<Ports>,
    /// The condition on the other end: the source of ingress, the destination of egress.
    pub remote: Address,
    /// The condition on the endpoint's own address, kept where it holds for only some of the endpoint's addresses.
    pub local: Option<Address>,
}

impl Rule {
    /// Returns a rule that matches every flow.
    #[must_use]
    pub fn matching_all(id: RuleId, origin: RuleRef, action: Action) -> Self {
        Self {
            id,
            origin,
            action,
            family: None,
            l4: L4Match::Any,
            remote: Address::default(),
            local: None,
        }
    }
}

/// A list of ports with its names resolved: a port that is in one of the parts is in the list.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "numbers, and sets of ports of addresses")]
pub struct Ports {
    /// The numbers.
    pub numbers: PortSet,
    /// Sets of ports; the address on the same side as the port is looked up with it. Sorted.
    pub sets: Vec<SetId>,
}

/// A condition on one address; all parts must hold. The default holds for every address.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "every backend matches each of these parts")]
pub struct Address {
    /// The address is in this set.
    pub in_set: Option<SetId>,
    /// The address is not in this set.
    pub not_in_set: Option<SetId>,
    /// The address is one of these. `Some` of an empty set matches nothing.
    pub nets: Option<PrefixSet>,
    /// The address is none of these.
    pub not_nets: PrefixSet,
}

impl Address {
    /// Returns whether the condition holds for every address.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}
