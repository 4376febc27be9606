//! The flat form: a program as tables without order, so that a packet costs the same whatever the number of rules.
//!
//! A look-up is two steps: the remote address gives its **class**, then (policy set, class) gives a **row**, in which the
//! protocol and port give a **leaf**: a verdict with its reason. Stages, order and Pass are resolved when the tables are
//! made; the look-up has no precedence.
//!
//! * A class is the addresses that no set, list of prefixes or named port of the program tells apart. Classes are
//!   found by exact address, then by longest prefix; all other addresses of a family are one class,
//!   [`Flat::other`].
//! * A row has disjoint ranges. Where a rule also looks at the source port, the range leads to a second list of
//!   disjoint ranges, of source ports. Nothing that is left has an order.
//! * What is as in the row of the class `other` is not stored.
//!
//! * The addresses of frontends are in classes of their own, by what they lead to. The rows of these hold what the backends'
//!   rows say: that all are allowed, or that the first one is denied that is.
//!
//! It covers what policy decides. What nobody asks policy about (neighbour discovery, the own node, isolation, audit)
//! is the business of whoever looks a flow up.
//!
//! **What it cannot hold.** A rule that looks at the endpoint's own address, where the addresses of the endpoints do
//! not settle the answer for each family, and names of ports on the endpoint's own side. A policy set with such a rule
//! is not flattened at all: [`Flat::unclassified`] says so, and whoever enforces the flat form enforces its stages
//! otherwise or closes the endpoint. Nothing is ever approximated or left out.
//!
//! **Deltas.** [`Flat::advance`] has a flat form follow its program. What has an id keeps it, and rows never change, so that
//! whoever enforces the form writes only what is new, and what addresses lead to. It says the same as a form that is made
//! anew.
//!
//! **Size.** [`size_bound`] says how many entries are needed before a row is made. [`classify`] refuses what is over the
//! [`Limits`]: a policy set that is over its share is [`Unclassified`], and where the whole is too large there is no
//! flat form, but a [`CapacityError`] that names the policy set to look at.

mod advance;
mod features;
mod interp;
mod line;
mod paint;
mod plan;
mod pool;
mod ranges;
mod regions;
mod rows;
mod same;
mod served;
mod size;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

pub use self::advance::Changes;
use self::features::{FeatureId, Features};
use self::plan::{Answers, Plan};
use self::pool::Pool;
pub use self::regions::{Class, ClassId, Move};
use self::regions::{Regions, Served};
pub use self::size::{CapacityError, Limits, Resource, Size, SizeBound};
use crate::flow::Direction;
use crate::net::{Family, Prefix, Protocol};
use crate::program::{Digest, Frontends, PolicySetId, Program, RuleId, digest_of};
use crate::verdict::{Reason, RuleRef, Verdict};

/// Returns the flat form of a program.
///
/// Equal programs give equal flat forms. Cost: the members of the sets that rules refer to, sorted once, and one row
/// for each policy set and each combination of its own conditions that some address meets.
///
/// ```
/// use netpol_core::flat::{Limits, TableKey, classify};
/// use netpol_core::model::{Endpoint, EndpointId, Policy, PolicyKey};
/// use netpol_core::{Capabilities, Change, Direction, Engine, Flow, NodeConfig, Selector, Verdict};
/// use netpol_core::net::Transport;
///
/// let mut pod = Endpoint::new(EndpointId::workload("shop", "db")).on_node("node-a");
/// pod.addresses = vec!["10.0.0.1".parse()?];
/// let mut policy = Policy::new(PolicyKey::kubernetes("shop", "closed"), Selector::all());
/// policy.ingress = Some(Vec::new());
/// let mut engine = Engine::new(NodeConfig::new("node-a"), &Capabilities::all());
/// engine.upsert(pod)?;
/// engine.upsert(policy)?;
/// engine.inputs_complete();
/// let Some(Change::Full(program)) = engine.poll_update().map(|it| it.change) else { return Ok(()) };
///
/// let flat = classify(&program, &Limits::unlimited())?;
/// let flow = Flow::to_port("10.0.0.2".parse()?, "10.0.0.1".parse()?, Transport::Tcp, 5432);
/// let policy_set = program.endpoints[0].policy_set(Direction::Ingress);
/// let leaf = flat.look_up(TableKey { policy_set, direction: Direction::Ingress }, &flow);
/// assert_eq!(leaf.map(|it| it.verdict), Some(Verdict::Deny));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`CapacityError`] if the whole is over the limits. Nothing is left out to make it fit.
pub fn classify(program: &Program, limits: &Limits) -> Result<Flat, CapacityError> {
    let mut plan = Plan::of(program);
    plan.check(limits)?;
    let Plan { features, regions, mut pool, sets, mut unclassified } = plan;
    let mut tables = BTreeMap::new();
    for set in &sets {
        let before = pool.mark();
        match rows::table(set, &regions, &mut pool, limits) {
            Ok(table) => {
                tables.insert(set.key, table);
            }
            Err(too_large) if too_large.resource == Resource::RangesOfRow => {
                pool.roll_back(before);
                unclassified.insert(set.key, Unclassified::Capacity(too_large));
            }
            Err(too_large) => return Err(too_large),
        }
    }
    let frontends = Arc::clone(&program.frontends);
    let (built, left_over) = (0, 0);
    let mut flat =
        Flat { features, regions, frontends, tables, unclassified, pool, built, left_over };
    flat.built = flat.weight();
    Ok(flat)
}

/// Returns how large the flat form of a program can be, without making it.
#[must_use]
pub fn size_bound(program: &Program) -> SizeBound {
    Plan::of(program).bound()
}

/// A program in flat form.
///
/// Invariants: every id leads to something, no two classes, rows, leaves or counters are equal, and every table has a row
/// for each class. As [`classify`] makes it, everything is also led to by something, but for the classes that addresses of frontends
/// would have otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flat {
    features: Features,
    regions: Regions,
    frontends: Arc<Frontends>,
    tables: BTreeMap<TableKey, Table>,
    unclassified: BTreeMap<TableKey, Unclassified>,
    pool: Pool,
    /// How much there was of classes, rows and so on when it was made.
    built: usize,
    /// How many members sets had that are gone since.
    left_over: usize,
}

/// Which table judges a flow: that of a policy set, in the direction in which it judges.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an endpoint has one policy set for each direction")]
pub struct TableKey {
    /// The policy set.
    pub policy_set: PolicySetId,
    /// The direction. A policy set without rules can be in force in both.
    pub direction: Direction,
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.policy_set, self.direction)
    }
}

/// A policy set in flat form: classes and their rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// The rows of classes that differ from the class `other` of their family, sorted.
    entries: Vec<(ClassId, RowId)>,
    /// The rows of the classes `other`, IPv4 and IPv6.
    others: [RowId; 2],
    /// What the policy set asks of remote addresses, sorted.
    questions: Vec<FeatureId>,
    /// The rows of all answers that classes give.
    known: BTreeMap<Answers, RowId>,
    /// How many classes answer otherwise than `other`.
    told_apart: usize,
    /// A rule asks for the endpoint's own address, so the rows are those of the endpoints that there were.
    is_local: bool,
}

impl Table {
    /// Returns the classes whose rows differ from [`Self::other`] of their family, sorted.
    #[must_use]
    pub fn entries(&self) -> &[(ClassId, RowId)] {
        &self.entries
    }

    /// Returns the row of every class of a family that has no entry.
    #[must_use]
    pub const fn other(&self, family: Family) -> RowId {
        let [v4, v6] = self.others;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Returns the row of a class of a family.
    fn row(&self, class: ClassId, family: Family) -> RowId {
        let found = self.entries.binary_search_by(|(it, _)| it.cmp(&class));
        let entry = found.ok().and_then(|at| self.entries.get(at));
        entry.map_or_else(|| self.other(family), |(_, row)| *row)
    }
}

/// Why a policy set has no table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unclassified {
    /// A rule looks at the endpoint's own address, and the addresses of the endpoints do not settle the answer: some
    /// of one family meet the condition and some do not, or an endpoint's addresses are unknown.
    #[error("{rule} depends on which of the endpoint's own addresses a packet carries")]
    LocalAddress {
        /// The first such rule.
        rule: RuleRef,
    },
    /// A rule refers to a set of named ports for the endpoint's own side. The compiler makes such rules
    /// only for Services on that side, which no API lets users ask for.
    #[error("{rule} looks the endpoint's own port up in a set")]
    LocalPorts {
        /// The first such rule.
        rule: RuleRef,
    },
    /// The table would be over the share of a policy set.
    #[error(transparent)]
    Capacity(CapacityError),
}

/// Identifies a row of a flat form.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an index into the rows of a flat form")]
pub struct RowId(pub u32);

/// Identifies a list of source port ranges of a flat form.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an index into the source lists of a flat form")]
pub struct SourceId(pub u32);

/// Identifies a leaf of a flat form.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an index into the leaves of a flat form")]
pub struct LeafId(pub u32);

/// Identifies a counter of a flat form.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an index into the counters of a flat form")]
pub struct CounterId(pub u32);

/// What a policy set says to the addresses of a class.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "every backend needs both parts")]
pub struct Row {
    /// What holds for everything that is in no cell, protocols without a cell included.
    pub default: LeafId,
    /// Where it differs. Sorted by protocol and range, disjoint, none of them equal to the default, and no two
    /// neighbours could be one.
    pub cells: Vec<Cell>,
}

/// A part of a row.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "every backend needs each part")]
pub struct Cell {
    /// The protocol.
    pub protocol: Protocol,
    /// The first destination port of TCP, UDP or SCTP; the first `type << 8 | code` of the family's ICMP (ICMP in rows
    /// of IPv4, ICMPv6 in rows of IPv6); 0 for any other protocol.
    pub first: u16,
    /// The last one; 65535 for any other protocol.
    pub last: u16,
    /// What holds there.
    pub then: Then,
}

/// What a cell leads to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a verdict depends on the source port or does not")]
pub enum Then {
    /// A leaf.
    Leaf(LeafId),
    /// It depends on the source port: the leaf is in this list.
    BySource(SourceId),
}

/// A range of source ports and its leaf. The ranges of a list are sorted and disjoint, and together hold every port.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a range and what it leads to")]
pub struct SourceRange {
    /// The first source port.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// What holds there.
    pub leaf: LeafId,
}

/// The end of a look-up.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Leaf {
    /// The verdict.
    pub verdict: Verdict,
    /// Why: [`Reason::Rule`], [`Reason::NoMatch`] or [`Reason::DefaultVerdict`].
    pub reason: Reason,
    /// The Log rules that the flow met on its way, in order, each once.
    pub logs: Vec<LogRule>,
    /// What counts the flow.
    pub counter: CounterId,
}

/// A Log rule on the way to a leaf.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a rule is its id and its origin")]
pub struct LogRule {
    /// Identifies the rule across programs.
    pub id: RuleId,
    /// The rule as its author wrote it.
    pub origin: RuleRef,
}

/// What a counter counts: flows that this decided.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a rule decides, or nothing does")]
pub enum Counter {
    /// A rule.
    Rule(RuleId),
    /// No rule: the end of a stage, or the default verdict.
    Unmatched {
        /// The verdict.
        verdict: Verdict,
        /// [`Reason::NoMatch`] or [`Reason::DefaultVerdict`].
        reason: Reason,
    },
}

impl Flat {
    /// Returns the single addresses that are not in the class of the longest prefix that holds them, sorted.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IpAddr, ClassId)> {
        let mut addresses: Vec<_> = self.regions.addresses().collect();
        addresses.sort_unstable();
        addresses
    }

    /// Returns the prefixes and their classes, sorted; the longest that holds an address counts. None holds all
    /// addresses of a family or just one.
    pub fn prefixes(&self) -> impl Iterator<Item = (Prefix, ClassId)> + '_ {
        self.regions.prefixes()
    }

    /// Returns the class of all addresses of a family that have no class otherwise.
    #[must_use]
    pub const fn other(&self, family: Family) -> ClassId {
        self.regions.other(family)
    }

    /// Returns the classes, by id.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        self.regions.classes()
    }

    /// Returns what identifies a class across programs: the digest of its family, of the sets, prefixes and named ports that
    /// its addresses are in, and of what they lead to. `None` if there is no such class.
    #[must_use]
    pub fn class_key(&self, id: ClassId) -> Option<Digest> {
        let class = self.regions.class(id)?;
        if let Some((around, ports)) = &class.served {
            let mut content = Vec::new();
            for Served { transport, port, backends } in ports {
                let keys = backends.iter().map(|(it, port)| Some((self.class_key(*it)?, *port)));
                content.push((transport, port, keys.collect::<Option<Vec<_>>>()?));
            }
            return Some(digest_of(&("served", self.class_key(*around)?, content)));
        }
        let features = class.features.iter().filter(|it| !self.features.is_gone(**it));
        let mut features: Vec<Digest> =
            features.filter_map(|it| self.features.digest(*it)).collect();
        features.sort_unstable();
        Some(digest_of(&("class", class.family, features)))
    }

    /// Returns the tables, by policy set and direction.
    #[must_use]
    pub const fn tables(&self) -> &BTreeMap<TableKey, Table> {
        &self.tables
    }

    /// Returns the policy sets that have no table, and why.
    #[must_use]
    pub const fn unclassified(&self) -> &BTreeMap<TableKey, Unclassified> {
        &self.unclassified
    }

    /// Returns the rows, by id.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        self.pool.rows()
    }

    /// Returns the lists of source port ranges, by id.
    #[must_use]
    pub fn sources(&self) -> &[Vec<SourceRange>] {
        self.pool.sources()
    }

    /// Returns the leaves, by id.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        self.pool.leaves()
    }

    /// Returns the counters, by id.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        self.pool.counters()
    }

    /// Returns how large the flat form is.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            addresses: size::by_family(self.regions.addresses().map(|(it, _)| Family::of(it))),
            prefixes: size::by_family(self.prefixes().map(|(it, _)| it.family())),
            classes: self.classes().len(),
            entries: self.entries(),
            rows: self.rows().len(),
            ranges: self.pool.ranges(),
            leaves: self.leaves().len(),
            counters: self.counters().len(),
        }
    }

    fn entries(&self) -> usize {
        self.tables.values().map(|it| it.entries.len() + it.others.len()).sum()
    }
}

#[cfg(test)]
mod tests;
