//! NetworkPolicy and GlobalNetworkPolicy.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::super::field::{Extra, Field, List, buffered};
use super::super::manifest::{Manifest, Meta, NameSyntax, Scope, optional_text};
use super::super::names::{DNS_LABEL, is_dns_label};
use super::super::number::Decimal;
use super::super::report::{Path, Report};
use super::super::{Accepted, Kind, Refused, Strictness};
use super::names;
use super::rule::{RuleScope, WireRule, read_rules};
use super::selector::{read_policy_namespaces, read_selector};
use crate::flow::Direction;
use crate::model::{HostTraffic, Order, Policy, PolicyKey, PolicyKind, Tier, keys};
use crate::selector::Selector;

pub(super) type PolicyManifest = Manifest<Spec, IgnoredAny>;

/// A `projectcalico.org/v3` NetworkPolicy as it is written.
#[derive(Clone, Debug)]
pub struct NetworkPolicy(PolicyManifest);

/// A `projectcalico.org/v3` GlobalNetworkPolicy as it is written.
#[derive(Clone, Debug)]
pub struct GlobalNetworkPolicy(PolicyManifest);

/// `spec` of a policy of any kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Spec {
    pub(super) staged_action: Field<String>,
    tier: Field<String>,
    order: Field<Decimal>,
    selector: Field<String>,
    namespace_selector: Field<String>,
    service_account_selector: Field<String>,
    types: List<String>,
    ingress: List<WireRule>,
    egress: List<WireRule>,
    do_not_track: Field<bool>,
    #[serde(rename = "preDNAT")]
    pre_dnat: Field<bool>,
    apply_on_forward: Field<bool>,
    performance_hints: List<String>,
    #[serde(flatten)]
    extra: Extra,
}

/// What a kind of policy is.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) kind: Kind,
    pub(super) policy: PolicyKind,
    pub(super) scope: Scope,
    pub(super) names: NameSyntax,
}

/// The directions that a policy governs.
#[derive(Clone, Copy, Debug, Default)]
struct Directions {
    ingress: bool,
    egress: bool,
}

impl Form {
    pub(super) const NETWORK_POLICY: Self = Self {
        kind: Kind::NetworkPolicy,
        policy: PolicyKind::NetworkPolicy,
        scope: Scope::Namespaced,
        names: names::POLICY,
    };
    pub(super) const GLOBAL_NETWORK_POLICY: Self = Self {
        kind: Kind::GlobalNetworkPolicy,
        policy: PolicyKind::GlobalNetworkPolicy,
        scope: Scope::Cluster,
        names: names::GLOBAL_POLICY,
    };

    const fn is_staged(self) -> bool {
        self.policy.staged_for().is_some()
    }

    const fn is_global(self) -> bool {
        matches!(self.scope, Scope::Cluster)
    }
}

impl NetworkPolicy {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the namespace as it is written.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// Returns the policy in the model's terms: each rule becomes the rules of its protocols, which all keep its index,
    /// and is named by its annotations.
    ///
    /// # Errors
    ///
    /// [`Refused`] for everything that Calico refuses, unknown fields included, and for rules that match a Service. With
    /// [`Strictness::Degraded`] what is wrong inside of one rule only makes that rule match nothing if it is an Allow or
    /// Log, and deny what its readable part covers if it is anything else.
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
        let mut report = Report::default();
        let policy = to_policy(&self.0, Form::NETWORK_POLICY, strictness, &mut report);
        report.finish(policy)
    }
}

impl GlobalNetworkPolicy {
    /// Returns the name as it is written.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Returns the policy in the model's terms, as [`NetworkPolicy::to_policy`] does.
    ///
    /// A policy with `doNotTrack` or `preDNAT` is about [host traffic](crate::model::HostTraffic) only.
    ///
    /// # Errors
    ///
    /// As for [`NetworkPolicy::to_policy`].
    pub fn to_policy(&self, strictness: Strictness) -> Result<Accepted<Policy>, Refused> {
        let mut report = Report::default();
        let policy = to_policy(&self.0, Form::GLOBAL_NETWORK_POLICY, strictness, &mut report);
        report.finish(policy)
    }
}

impl<'de> Deserialize<'de> for NetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for GlobalNetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        buffered(deserializer).map(Self)
    }
}

/// Converts a policy of any form; `None` if it is refused.
pub(super) fn to_policy(
    manifest: &PolicyManifest,
    form: Form,
    strictness: Strictness,
    report: &mut Report,
) -> Option<Policy> {
    let meta = read_meta(manifest, form, report);
    let at = Path::top("spec");
    let empty = Spec::default();
    let spec = match &manifest.spec {
        Field::Absent => &empty,
        spec => report.given(&at, spec)?,
    };
    spec.read(&at, form, meta, strictness, report)
}

fn read_meta(manifest: &PolicyManifest, form: Form, report: &mut Report) -> Option<Meta> {
    let meta = manifest.meta_of_named(form.kind, form.scope, form.names, report);
    report.unknown_fields(None, &manifest.extra);
    meta
}

impl Spec {
    fn read(
        &self,
        at: &Path<'_>,
        form: Form,
        meta: Option<Meta>,
        strictness: Strictness,
        report: &mut Report,
    ) -> Option<Policy> {
        self.check_fields(at, form, report);
        let tier = read_tier(&at.field("tier"), &self.tier, report);
        let order = read_order(&at.field("order"), &self.order, report);
        let namespace = meta.as_ref().filter(|_| !form.is_global()).map(|it| it.namespace.as_str());
        let own_namespace = namespace.and_then(|it| own_namespace(it, report));
        let subject = self.read_subject(at, own_namespace.as_ref(), report);
        let directions = self.read_directions(&at.field("types"), report);
        let host_traffic = self.read_host_traffic(at, directions, report);
        check_hints(&at.field("performanceHints"), &self.performance_hints, report);
        let mut read = |name, direction, rules| {
            let in_namespace = own_namespace.as_ref();
            let scope = RuleScope { direction, namespace, in_namespace };
            read_rules(&at.field(name), rules, &scope, strictness, report)
        };
        let ingress = read("ingress", Direction::Ingress, &self.ingress);
        let egress = read("egress", Direction::Egress, &self.egress);
        let Meta { namespace, name, uid: _, created: _, labels: _ } = meta?;
        let namespace = (!form.is_global()).then_some(namespace);
        let mut policy = Policy::new(PolicyKey { kind: form.policy, namespace, name }, subject);
        policy.tier = tier;
        policy.order = order;
        policy.ingress = directions.ingress.then_some(ingress);
        policy.egress = directions.egress.then_some(egress);
        policy.host_traffic = host_traffic;
        Some(policy)
    }

    /// Refuses the fields that policies of this form do not have.
    fn check_fields(&self, at: &Path<'_>, form: Form, report: &mut Report) {
        report.unknown_fields(Some(at), &self.extra);
        let fields = [
            ("stagedAction", self.staged_action.is_written(), form.is_staged()),
            ("namespaceSelector", self.namespace_selector.is_written(), form.is_global()),
            ("doNotTrack", self.do_not_track.is_written(), form.is_global()),
            ("preDNAT", self.pre_dnat.is_written(), form.is_global()),
            ("applyOnForward", self.apply_on_forward.is_written(), form.is_global()),
        ];
        for (name, is_written, exists) in fields {
            if is_written && !exists {
                report.refuse(&at.field(name), "unknown field");
            }
        }
    }

    /// Returns the fields that say something.
    pub(super) fn written(&self) -> impl Iterator<Item = &'static str> {
        let Self {
            staged_action,
            tier,
            order,
            selector,
            namespace_selector,
            service_account_selector,
            types,
            ingress,
            egress,
            do_not_track,
            pre_dnat,
            apply_on_forward,
            performance_hints,
            extra: _,
        } = self;
        let flag = |field: &Field<bool>| !matches!(field, Field::Absent | Field::Given(false));
        [
            ("stagedAction", staged_action.says_something()),
            ("tier", tier.says_something()),
            ("order", !matches!(order, Field::Absent)),
            ("selector", selector.says_something()),
            ("namespaceSelector", namespace_selector.says_something()),
            ("serviceAccountSelector", service_account_selector.says_something()),
            ("types", types.says_something()),
            ("ingress", ingress.says_something()),
            ("egress", egress.says_something()),
            ("doNotTrack", flag(do_not_track)),
            ("preDNAT", flag(pre_dnat)),
            ("applyOnForward", flag(apply_on_forward)),
            ("performanceHints", performance_hints.says_something()),
        ]
        .into_iter()
        .filter_map(|(name, is_written)| is_written.then_some(name))
    }

    /// Returns the selector of the endpoints that the policy applies to.
    fn read_subject(
        &self,
        at: &Path<'_>,
        own_namespace: Option<&Selector>,
        report: &mut Report,
    ) -> Selector {
        let selector = read_selector(&at.field("selector"), &self.selector, report);
        let namespaces = read_policy_namespaces(
            &at.field("namespaceSelector"),
            &self.namespace_selector,
            report,
        );
        let accounts_at = at.field("serviceAccountSelector");
        let accounts = read_selector(&accounts_at, &self.service_account_selector, report);
        let accounts = accounts.map(|it| it.in_service_accounts());
        let own_namespace = own_namespace.cloned();
        Selector::and([own_namespace, namespaces, accounts, selector].into_iter().flatten())
    }

    /// Reads `types`. Where it lists nothing, the rules say which directions are governed: ingress if there are none.
    fn read_directions(&self, at: &Path<'_>, report: &mut Report) -> Directions {
        if !self.types.says_something() {
            let (ingress, egress) = (self.ingress.says_something(), self.egress.says_something());
            return Directions { ingress: ingress || !egress, egress };
        }
        let expected = "`Ingress` or `Egress`";
        let mut directions = Directions::default();
        report.each_item(at, &self.types, expected, |report, at, text| {
            let direction = match text.as_str() {
                "Ingress" => &mut directions.ingress,
                "Egress" => &mut directions.egress,
                _ => {
                    report.refuse(at, format!("`{text}` is not a type, expected {expected}"));
                    return;
                }
            };
            if core::mem::replace(direction, true) {
                report.refuse(at, format!("`{text}` is listed before, expected each type once"));
            }
        });
        directions
    }

    /// Reads which traffic of host endpoints the policy judges.
    fn read_host_traffic(
        &self,
        at: &Path<'_>,
        directions: Directions,
        report: &mut Report,
    ) -> HostTraffic {
        let mut read = |name, flag| report.given(&at.field(name), flag) == Some(&true);
        let untracked = read("doNotTrack", &self.do_not_track);
        let pre_dnat = read("preDNAT", &self.pre_dnat);
        let on_forward = read("applyOnForward", &self.apply_on_forward);
        let pre_dnat_at = at.field("preDNAT");
        if untracked && pre_dnat {
            report.refuse(&pre_dnat_at, "given with `doNotTrack`, expected one of them");
        }
        for (name, is_given) in [("doNotTrack", untracked), ("preDNAT", pre_dnat)] {
            if is_given && !on_forward {
                report.refuse(
                    &at.field("applyOnForward"),
                    format!("not `true`, expected it to be with `{name}`"),
                );
            }
        }
        if pre_dnat && (directions.egress || self.egress.says_something()) {
            report.refuse(&pre_dnat_at, "given for `egress`, expected `ingress` only");
        }
        match (untracked, pre_dnat, on_forward) {
            (true, _, _) => HostTraffic::Untracked,
            (_, true, _) => HostTraffic::BeforeDestinationNat,
            (_, _, true) => HostTraffic::LocalAndForwarded,
            (false, false, false) => HostTraffic::Local,
        }
    }
}

/// Returns the selector of what is in a namespace.
fn own_namespace(namespace: &str, report: &mut Report) -> Option<Selector> {
    let at = Path::top("metadata");
    let own = Selector::equal(keys::NAMESPACE, namespace);
    own.map_err(|error| report.refuse(&at.field("namespace"), error)).ok()
}

/// Reads the name of a tier; nothing is the default one.
fn read_tier(at: &Path<'_>, tier: &Field<String>, report: &mut Report) -> String {
    let name = optional_text(report, at, tier).unwrap_or(Tier::DEFAULT);
    if !is_dns_label(name) {
        report.refuse(at, format!("`{name}` is not the name of a tier, expected {DNS_LABEL}"));
    }
    name.into()
}

/// Reads an order; nothing stands last.
pub(super) fn read_order(
    at: &Path<'_>,
    order: &Field<Decimal>,
    report: &mut Report,
) -> Option<Order> {
    let &Decimal(value) = report.given(at, order)?;
    let order = Order::new(value).ok().filter(|_| value.is_finite());
    if order.is_none() {
        report.refuse(at, format!("`{value}` is not an order, expected a finite number"));
    }
    order
}

/// Checks hints, which change no verdict.
fn check_hints(at: &Path<'_>, hints: &List<String>, report: &mut Report) {
    let expected = "`AssumeNeededOnEveryNode`";
    let mut seen = BTreeSet::new();
    report.each_item(at, hints, expected, |report, at, hint| {
        if hint != "AssumeNeededOnEveryNode" {
            report.refuse(at, format!("`{hint}` is not a hint, expected {expected}"));
        }
        if !seen.insert(hint) {
            report.refuse(at, format!("`{hint}` is listed before, expected each hint once"));
        }
    });
}
