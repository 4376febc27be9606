//! Classes of addresses, as the commands about whole clusters show them.

use clap::ValueEnum;
use netpol_conformance::text::printable;
use netpol_core::analysis::Class;
use netpol_core::model::{EndpointKind, Inputs};
use netpol_core::net::Prefix;
use serde_json::{Value, json};

/// How many members of a class are named.
const NAMED: usize = 4;

/// How to report.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Pretty,
    /// One document, for programs
    Json,
}

/// Says what is in a cluster and in no analysis.
pub(super) fn note_hosts(inputs: &Inputs) {
    let hosts = inputs.endpoints().filter(|it| it.id.kind == EndpointKind::Host);
    let hosts: Vec<_> = hosts.map(|it| it.id.to_string()).collect();
    if !hosts.is_empty() {
        let hosts = printable(&hosts.join(", "));
        eprintln!("note: these are peers only, what their own policy says is left out: {hosts}");
    }
}

/// Returns some classes for people, by their indexes.
pub(super) fn names(classes: &[Class], indexes: &[usize]) -> String {
    indexes.iter().map(|&it| name(classes, it)).collect::<Vec<_>>().join(", ")
}

/// Returns a class for people, by its index: some of its members, and how many more there are.
pub(super) fn name(classes: &[Class], index: usize) -> String {
    let Some(class) = classes.get(index) else { return String::new() };
    let names = class.members.iter().map(|it| match &it.endpoint {
        Some(endpoint) => printable(&endpoint.to_string()),
        None if it.prefix == Prefix::all(class.family) => format!("any other {}", class.family),
        None if it.prefix == Prefix::host(it.example) => it.example.to_string(),
        None => block(classes, it.prefix),
    });
    let named: Vec<_> = names.take(NAMED).collect();
    match class.members.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Returns a block, and the smaller ones in it that are apart.
fn block(classes: &[Class], prefix: Prefix) -> String {
    let members = classes.iter().flat_map(|it| &it.members).filter(|it| it.endpoint.is_none());
    let mut inner: Vec<_> =
        members.map(|it| it.prefix).filter(|it| prefix.covers(*it) && *it != prefix).collect();
    inner.sort_unstable();
    // Of those that hold each other the largest comes first.
    inner.dedup_by(|later, before| before.covers(*later));
    let named: Vec<_> = inner.iter().take(NAMED).map(ToString::to_string).collect();
    match (named.is_empty(), inner.len() - named.len()) {
        (true, _) => prefix.to_string(),
        (_, 0) => format!("{prefix} without {}", named.join(" and ")),
        (_, more) => format!("{prefix} without {} and {more} more", named.join(" and ")),
    }
}

/// Returns the class for programs.
pub(super) fn described(class: &Class) -> Value {
    let members = class.members.iter().map(|it| {
        let endpoint = it.endpoint.as_ref().map(ToString::to_string);
        json!({"endpoint": endpoint, "addresses": it.prefix.to_string()})
    });
    json!({"family": class.family.to_string(), "members": members.collect::<Vec<_>>()})
}
