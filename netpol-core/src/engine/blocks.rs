//! Blocks: the rules of one policy in one direction as programs hold them, and the policy sets made of them.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::policies::{Policies, PolicyRecord};
use super::sets::{SetRecord, Sets};
use super::store::{Id, Slab};
use crate::model::{Bucket, TierEnd};
use crate::program::{
    Digest, PolicySet, PolicySetId, Program, Rule, Stage, StageEnd, block_digest, digest_of,
    policy_set_id, stage_digest,
};
use crate::verdict::Verdict;

/// The rules of a policy in one direction.
#[derive(Debug)]
pub(super) struct Block {
    rules: Vec<Arc<Rule>>,
    /// Of the policy's key, and of the rules where there are any.
    key_digest: Digest,
    rules_digest: Option<Digest>,
    /// The sets that the rules refer to. Sorted.
    sets: Vec<Id<SetRecord>>,
    /// The policy has it for all endpoints.
    is_shared: bool,
    /// How many policy sets of the program it is in.
    uses: u32,
}

/// A policy set of the program.
#[derive(Debug)]
struct Live {
    blocks: Vec<Id<Block>>,
    uses: u32,
}

/// All blocks and policy sets.
#[derive(Default)]
pub(super) struct Blocks {
    blocks: Slab<Block>,
    live: BTreeMap<PolicySetId, Live>,
    /// Policy sets that lost their last user since the last sweep.
    unused: Vec<PolicySetId>,
    /// Policy sets that are new since the last sweep.
    new: Vec<PolicySetId>,
}

/// What a policy set is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Stack {
    /// The verdict after the last stage.
    pub(super) default: Verdict,
    pub(super) bucket: Bucket,
}

/// What became of policy sets. Sorted.
#[derive(Debug, Default)]
pub(super) struct PolicySetChanges {
    pub(super) new: Vec<PolicySetId>,
    pub(super) removed: Vec<(PolicySetId, Arc<PolicySet>)>,
}

impl Blocks {
    /// Adds the block of a policy. It holds the sets, which are counted for it.
    pub(super) fn insert(
        &mut self,
        record: &PolicyRecord,
        rules: Vec<Rule>,
        sets: Vec<Id<SetRecord>>,
        is_shared: bool,
    ) -> Id<Block> {
        let digests: Vec<_> = rules.iter().map(digest_of).collect();
        self.blocks.insert(Block {
            rules: rules.into_iter().map(Arc::new).collect(),
            key_digest: digest_of(&record.head().key),
            rules_digest: (!digests.is_empty()).then(|| block_digest(&digests)),
            sets,
            is_shared,
            uses: 0,
        })
    }

    /// Says that the policy of a shared block does not have it any more.
    pub(super) fn unshare(&mut self, id: Id<Block>, sets: &mut Sets) {
        self.blocks[id].is_shared = false;
        self.sweep_block(id, sets);
    }

    /// Returns the id of the policy set that is made of these blocks, by policy. It becomes one of the program's, unless it
    /// is already; either way it gets a user.
    pub(super) fn use_policy_set(
        &mut self,
        blocks: &[(Id<PolicyRecord>, Id<Block>)],
        stack: Stack,
        policies: &Policies,
        sets: &mut Sets,
        program: &mut Program,
    ) -> PolicySetId {
        let id = self.id_of(blocks, stack, policies);
        if let Some(live) = self.live.get_mut(&id) {
            live.uses += 1;
            for (_, block) in blocks {
                self.sweep_block(*block, sets);
            }
            return id;
        }
        program.policy_sets.insert(id, Arc::new(self.policy_set(blocks, stack, policies)));
        let blocks: Vec<_> = blocks.iter().map(|(_, block)| *block).collect();
        for &block in &blocks {
            let block = &mut self.blocks[block];
            block.uses += 1;
            if block.uses == 1 {
                block.sets.iter().for_each(|set| sets.use_it(*set));
            }
        }
        self.live.insert(id, Live { blocks, uses: 1 });
        self.new.push(id);
        id
    }

    /// Gives a policy set of the program another user.
    pub(super) fn use_again(&mut self, id: PolicySetId) {
        if let Some(live) = self.live.get_mut(&id) {
            live.uses += 1;
        }
    }

    /// Takes a user away from a policy set.
    pub(super) fn unuse(&mut self, id: PolicySetId) {
        if let Some(live) = self.live.get_mut(&id) {
            live.uses -= 1;
            if live.uses == 0 {
                self.unused.push(id);
            }
        }
    }

    /// Removes the policy sets without users, and says what changed since the last time.
    pub(super) fn sweep(&mut self, sets: &mut Sets, program: &mut Program) -> PolicySetChanges {
        let mut new = core::mem::take(&mut self.new);
        new.sort_unstable();
        let mut removed = Vec::new();
        for id in core::mem::take(&mut self.unused) {
            if self.live.get(&id).is_none_or(|live| live.uses > 0) {
                continue;
            }
            let blocks = self.live.remove(&id).map(|live| live.blocks);
            for block in blocks.into_iter().flatten() {
                self.blocks[block].uses -= 1;
                if self.blocks[block].uses == 0 {
                    self.blocks[block].sets.iter().for_each(|set| sets.unuse(*set));
                }
                self.sweep_block(block, sets);
            }
            // What is new has users: an endpoint gets its policy sets once between two sweeps.
            removed.extend(program.policy_sets.remove(&id).map(|set| (id, set)));
        }
        removed.sort_unstable_by_key(|(id, _)| *id);
        PolicySetChanges { new, removed }
    }

    /// Forgets a block that nothing has any more.
    fn sweep_block(&mut self, id: Id<Block>, sets: &mut Sets) {
        if self.blocks[id].is_shared || self.blocks[id].uses > 0 {
            return;
        }
        for set in self.blocks.remove(id).into_iter().flat_map(|block| block.sets) {
            sets.let_go(set);
        }
    }

    fn id_of(
        &self,
        blocks: &[(Id<PolicyRecord>, Id<Block>)],
        stack: Stack,
        policies: &Policies,
    ) -> PolicySetId {
        let stages = by_tier(blocks, policies).map(|stage| {
            let (tier, end) = tier_of(stage, stack.bucket, policies);
            let blocks = stage.iter().map(|(_, block)| &self.blocks[*block]);
            let keys = blocks.clone().map(|it| it.key_digest);
            stage_digest(&tier, end, keys, blocks.filter_map(|it| it.rules_digest))
        });
        policy_set_id(stages, stack.default)
    }

    fn policy_set(
        &self,
        blocks: &[(Id<PolicyRecord>, Id<Block>)],
        stack: Stack,
        policies: &Policies,
    ) -> PolicySet {
        let stages = by_tier(blocks, policies).map(|stage| {
            let (tier, end) = tier_of(stage, stack.bucket, policies);
            let keys = stage.iter().map(|(policy, _)| policies.record(*policy).head().key.clone());
            let rules = stage.iter().flat_map(|(_, block)| &self.blocks[*block].rules);
            Stage { tier, policies: keys.collect(), rules: rules.cloned().collect(), end }
        });
        PolicySet { stages: stages.collect(), default: stack.default }
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 4] {
        [self.blocks.len(), self.live.len(), self.unused.len(), self.new.len()]
    }
}

/// Splits the blocks, which are in order, by the tiers of their policies.
fn by_tier<'a>(
    blocks: &'a [(Id<PolicyRecord>, Id<Block>)],
    policies: &'a Policies,
) -> impl Iterator<Item = &'a [(Id<PolicyRecord>, Id<Block>)]> {
    blocks.chunk_by(|one, other| policies.record(one.0).tier() == policies.record(other.0).tier())
}

fn tier_of(
    stage: &[(Id<PolicyRecord>, Id<Block>)],
    bucket: Bucket,
    policies: &Policies,
) -> (alloc::string::String, StageEnd) {
    let tier = stage.first().map(|(policy, _)| policies.tier_of(policies.record(*policy).tier()));
    tier.map_or((alloc::string::String::new(), StageEnd::Deny), |tier| {
        let end = match (tier.end, bucket) {
            (TierEnd::Deny, Bucket::Forward | Bucket::Normal) => StageEnd::Deny,
            (TierEnd::Deny, Bucket::Untracked | Bucket::PreDnat) => StageEnd::Next,
            (TierEnd::Pass, _) => StageEnd::Next,
        };
        (tier.name, end)
    })
}
