//! `source` and `destination` of a rule.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::super::field::{Extra, Field, List};
use super::super::manifest::{optional_text, required_text};
use super::super::number::NumberOrName;
use super::super::report::{Path, Report};
use super::net::{FamilyOfNets, read_nets, read_not_nets};
use super::port::{PortsOf, read_ports};
use super::rule::RuleScope;
use super::selector::{read_namespace_selector, read_selector};
use crate::flow::Direction;
use crate::model::{EntityMatch, Peers, PortConstraint, PortMatch, ServiceName, keys};
use crate::selector::Selector;

/// One side of a rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct Entity {
    nets: List<String>,
    selector: Field<String>,
    namespace_selector: Field<String>,
    services: Field<Service>,
    ports: List<NumberOrName>,
    not_nets: List<String>,
    not_selector: Field<String>,
    not_ports: List<NumberOrName>,
    service_accounts: Field<ServiceAccounts>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Service {
    name: Field<String>,
    namespace: Field<String>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct ServiceAccounts {
    names: List<String>,
    selector: Field<String>,
    #[serde(flatten)]
    extra: Extra,
}

/// The side of a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// What one side of a rule asks for, as far as it can be read. What cannot is left out, so it asks for less.
#[derive(Debug, Default)]
pub(super) struct SideMatch {
    pub(super) address: EntityMatch,
    pub(super) ports: PortConstraint<PortMatch>,
}

/// Who is selected, as far as it can be read.
#[derive(Debug, Default)]
struct Selected {
    /// All of these must select the owner of the address.
    terms: Vec<Selector>,
    /// This must not.
    not: Option<Selector>,
    is_complete: bool,
}

impl Entity {
    pub(super) fn read(
        &self,
        at: &Path<'_>,
        side: Side,
        scope: &RuleScope<'_>,
        family: &mut FamilyOfNets,
        ports_of: PortsOf,
        report: &mut Report,
    ) -> SideMatch {
        let Self {
            nets,
            selector: _,
            namespace_selector: _,
            services,
            ports,
            not_nets,
            not_selector: _,
            not_ports,
            service_accounts: _,
            extra,
        } = self;
        report.unknown_fields(Some(at), extra);
        let nets_at = at.field("nets");
        let nets = report.complete(|report| read_nets(&nets_at, nets, family, report)).flatten();
        let selected = self.read_selected(at, scope, report);
        let service = self.read_service(at, services, side, scope, report);
        let mut constraint = PortConstraint::default();
        let ports_at = at.field("ports");
        let read = report.complete(|report| read_ports(&ports_at, ports, ports_of, report));
        constraint.any_of = read.flatten();
        let not_nets_at = at.field("notNets");
        let not_nets =
            report.complete(|report| read_not_nets(&not_nets_at, not_nets, family, report));
        let not_ports_at = at.field("notPorts");
        let read = report.complete(|report| read_ports(&not_ports_at, not_ports, ports_of, report));
        // Names that are left out are those of who is selected.
        constraint.none_of = read.flatten().filter(|_| selected.is_complete);
        let (mut peers, not_peers) = selected.into_peers();
        match (service, side) {
            (Some(service), Side::Source) => peers = Some(Peers::BackendsOf(service)),
            (Some(service), Side::Destination) => {
                let list = constraint.any_of.get_or_insert_default();
                list.backends_of = Some(service);
            }
            (None, _) => {}
        }
        let not_nets = not_nets.unwrap_or_default();
        SideMatch { address: EntityMatch { peers, not_peers, nets, not_nets }, ports: constraint }
    }

    /// Returns whether there is a condition on ports, readable or not.
    pub(super) fn has_ports(&self) -> bool {
        self.ports.says_something() || self.not_ports.says_something()
    }

    /// Reads what selects the owners of addresses. The policy's own namespace is meant only where anything does.
    fn read_selected(&self, at: &Path<'_>, scope: &RuleScope<'_>, report: &mut Report) -> Selected {
        let selector_at = at.field("selector");
        let selector =
            report.complete(|report| read_selector(&selector_at, &self.selector, report));
        let namespaces_at = at.field("namespaceSelector");
        let namespaces = report.complete(|report| {
            read_namespace_selector(&namespaces_at, &self.namespace_selector, report)
        });
        let not_at = at.field("notSelector");
        let not = report.complete(|report| read_selector(&not_at, &self.not_selector, report));
        let accounts_at = at.field("serviceAccounts");
        let accounts = report.complete(|report| {
            let accounts = report.given(&accounts_at, &self.service_accounts);
            accounts.map(|it| it.read(&accounts_at, report)).unwrap_or_default()
        });
        // What is unknown could select namespaces.
        let is_known = self.extra.is_empty();
        let is_complete = is_known
            && selector.is_some()
            && namespaces.is_some()
            && not.is_some()
            && accounts.is_some();
        let namespace = match namespaces {
            Some(None) if self.selects() && is_known => scope.in_namespace.cloned(),
            Some(namespaces) => namespaces,
            None => None,
        };
        let terms = namespace.into_iter().chain(accounts.unwrap_or_default());
        let terms = terms.chain(selector.flatten()).collect();
        Selected { terms, not: not.flatten(), is_complete }
    }

    /// Returns whether something is there that selects owners of addresses, whether or not it makes sense.
    fn selects(&self) -> bool {
        let accounts = self.service_accounts.value();
        has_text(&self.selector)
            || has_text(&self.not_selector)
            || accounts
                .is_some_and(|it| it.names.values().next().is_some() || has_text(&it.selector))
    }

    /// Reads the Service whose backends are meant: as a source by their addresses, as a destination by their ports too.
    fn read_service(
        &self,
        at: &Path<'_>,
        services: &Field<Service>,
        side: Side,
        scope: &RuleScope<'_>,
        report: &mut Report,
    ) -> Option<ServiceName> {
        let at = at.field("services");
        let read = report.complete(|report| {
            let service = report.given(&at, services)?.read(&at, scope, report);
            let is_remote = matches!(
                (scope.direction, side),
                (Direction::Ingress, Side::Source) | (Direction::Egress, Side::Destination)
            );
            if !is_remote {
                report.refuse(
                    &at,
                    "given for the policy's own side, expected it as `source` of `ingress` or `destination` of `egress`",
                );
            }
            for name in self.beside_services(side) {
                report.refuse(&at, format!("given with `{name}`, expected it without"));
            }
            service
        });
        read.flatten()
    }

    /// Returns the fields that are written and cannot stand beside a Service.
    fn beside_services(&self, side: Side) -> impl Iterator<Item = &'static str> {
        let is_destination = side == Side::Destination;
        [
            ("nets", self.nets.says_something()),
            ("selector", self.selector.says_something()),
            ("namespaceSelector", self.namespace_selector.says_something()),
            ("ports", is_destination && self.ports.says_something()),
            ("notNets", self.not_nets.says_something()),
            ("notSelector", self.not_selector.says_something()),
            ("notPorts", is_destination && self.not_ports.says_something()),
            ("serviceAccounts", !matches!(self.service_accounts, Field::Absent)),
        ]
        .into_iter()
        .filter_map(|(name, is_written)| is_written.then_some(name))
    }
}

impl Selected {
    /// Returns the conditions on the owner of an address: that it is one of these, and none of those.
    fn into_peers(self) -> (Option<Peers>, Option<Selector>) {
        let Self { terms, not, is_complete } = self;
        if !terms.is_empty() {
            // One owner must be selected and not be excluded; without a term nothing needs to own the address.
            let not = not.map(|it| !it);
            (Some(Peers::Endpoints(Selector::and(terms.into_iter().chain(not)))), None)
        } else {
            (None, not.filter(|_| is_complete))
        }
    }
}

impl Service {
    /// Returns the name of the Service, which is in the policy's namespace if no other is given.
    fn read(
        &self,
        at: &Path<'_>,
        scope: &RuleScope<'_>,
        report: &mut Report,
    ) -> Option<ServiceName> {
        let Self { name, namespace, extra } = self;
        report.unknown_fields(Some(at), extra);
        let name = required_text(report, &at.field("name"), name, "the name of a Service");
        let at = at.field("namespace");
        let namespace = match scope.namespace {
            None => required_text(report, &at, namespace, "the namespace of the Service"),
            Some(own) => optional_text(report, &at, namespace).or(Some(own)),
        };
        Some(ServiceName::new(namespace?, name?))
    }
}

impl ServiceAccounts {
    /// Returns the terms that select who uses the accounts.
    fn read(&self, at: &Path<'_>, report: &mut Report) -> Vec<Selector> {
        let Self { names, selector, extra } = self;
        report.unknown_fields(Some(at), extra);
        let names_at = at.field("names");
        let mut read = Vec::new();
        report.each_item(&names_at, names, "a name", |_, _, name| read.push(name.as_str()));
        let named = if read.is_empty() {
            None
        } else {
            let selector = Selector::is_in(keys::SERVICE_ACCOUNT, read);
            selector.map_err(|error| report.refuse(&names_at, error)).ok()
        };
        let selector = read_selector(&at.field("selector"), selector, report);
        named.into_iter().chain(selector.map(|it| it.in_service_accounts())).collect()
    }
}

/// Returns whether a field holds text that is not empty.
fn has_text(field: &Field<String>) -> bool {
    field.value().is_some_and(|text| !text.is_empty())
}
