//! Who is asked for what in a chapter, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use netpol_conformance::cluster::PodNetwork;
use netpol_conformance::report::Status;
use netpol_conformance::scenario::{
    Attempt, Party, PartyName, Plan, ProbePort, ProbeProtocol, Step,
};
use netpol_conformance::subject::{Got, summary};

/// Row and column of a table.
pub(super) type Place = (usize, usize);

/// What came of the attempts of a step.
pub(super) type Cells = BTreeMap<Place, Cell>;

/// What came of one attempt.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) got: Option<Got>,
    pub(super) status: Status,
    /// The judge's reason.
    pub(super) why: String,
}

/// The rows and columns of a chapter's tables.
#[derive(Debug)]
pub(super) struct Grid {
    sources: Vec<Party>,
    destinations: Vec<(Party, ProbePort)>,
    /// What all names of pods begin with.
    namespace: Option<String>,
}

impl Grid {
    /// Returns the table of all pods, and of all else that the chapter probes.
    pub(super) fn of(plan: &Plan) -> Self {
        let pods = plan.steps.iter().flat_map(|step| step.cluster.pods());
        let running: BTreeSet<_> = pods
            .filter(|(_, pod)| pod.network != PodNetwork::None)
            .collect::<BTreeMap<_, _>>()
            .into_keys()
            .cloned()
            .collect();
        let attempts = || plan.steps.iter().flat_map(|step| &step.attempts);
        let mut sources: Vec<Party> = running.iter().filter_map(|id| id.parse().ok()).collect();
        let mut destinations: Vec<(Party, ProbePort)> = Vec::new();
        for Attempt { from, to, port, .. } in attempts() {
            if let Ok(from) = from.parse()
                && !sources.contains(&from)
            {
                sources.push(from);
            }
            if let Ok(to) = to.parse::<Party>()
                && !destinations.iter().any(|it| (&it.0, &it.1) == (&to, port))
            {
                destinations.push((to, *port));
            }
        }
        let namespaces: BTreeSet<_> =
            running.iter().filter_map(|id| id.split('/').next()).collect();
        let namespace = if namespaces.len() == 1 {
            namespaces.first().map(|it| format!("{it}/"))
        } else {
            None
        };
        Self { sources, destinations, namespace }
    }

    /// Returns the attempts of a step with their places and the judge's reasons; the judge says what to expect.
    pub(super) fn attempts(&self, step: &Step) -> Vec<((Place, String), Attempt)> {
        let mut attempts = Vec::new();
        for (row, from) in self.sources.iter().enumerate() {
            for (column, (to, port)) in self.destinations.iter().enumerate() {
                let in_cluster = |it: &Party| !matches!(it.name, PartyName::Address(_));
                if let Ok(mut attempt) = step.attempt(from, to, *port)
                    && attempt.direct() != Some(&attempt.source)
                    && (in_cluster(from)
                        || in_cluster(to)
                        || step.cluster.owner(attempt.flow.destination).is_some())
                {
                    let judgement = step.evaluate(&attempt).enforced;
                    attempt.expect = judgement.verdict();
                    attempts.push((((row, column), summary(&judgement)), attempt));
                }
            }
        }
        attempts
    }

    /// Returns the table; what differs from `before` is marked.
    pub(super) fn render(&self, cells: &Cells, before: Option<&Cells>) -> String {
        let names: Vec<_> = self.sources.iter().map(|it| self.short(it)).collect();
        let headings: Vec<_> =
            (0..self.destinations.len()).map(|column| self.heading(column)).collect();
        let first = names.iter().map(|it| it.chars().count()).max().unwrap_or_default();
        let mut text = format!("   {:first$}", "");
        // Writing to a string cannot fail.
        for heading in &headings {
            let _ = write!(text, "  {heading}");
        }
        text.push('\n');
        for (row, name) in names.iter().enumerate() {
            let mut line = format!("   {name:first$}");
            for (column, heading) in headings.iter().enumerate() {
                let mark = mark(cells.get(&(row, column)), before.map(|it| it.get(&(row, column))));
                let _ = write!(line, "  {mark:^width$}", width = heading.chars().count());
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Returns the pair of a place in words.
    pub(super) fn pair(&self, (row, column): Place) -> String {
        let from = self.sources.get(row).map(|it| self.short(it)).unwrap_or_default();
        format!("{from} -> {}", self.heading(column))
    }

    fn heading(&self, column: usize) -> String {
        let Some((party, port)) = self.destinations.get(column) else { return String::new() };
        let name = match &party.name {
            PartyName::Address(address) if address.is_ipv6() => format!("[{address}]"),
            _ => self.short(party),
        };
        match (port.protocol(), port.number()) {
            (ProbeProtocol::Tcp, Some(number)) => format!("{name}:{number}"),
            (protocol, Some(number)) => format!("{name}:{number}/{protocol}"),
            (protocol, None) => format!("{name} {protocol}"),
        }
    }

    fn short(&self, party: &Party) -> String {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        party.written.strip_prefix(namespace).unwrap_or(&party.written).to_owned()
    }
}

impl Cell {
    /// Returns whether this is not what the judge says.
    pub(super) fn is_wrong(&self) -> bool {
        self.status != Status::Pass
    }
}

fn mark(cell: Option<&Cell>, before: Option<Option<&Cell>>) -> String {
    let Some(cell) = cell else { return "·".to_owned() };
    let sign = match cell.got {
        Some(Got::Allow) => "✓",
        Some(Got::Deny) => "✗",
        Some(Got::Error) | None => "?",
    };
    let changed = before.flatten().is_some_and(|before| before.got != cell.got);
    format!("{sign}{}{}", if changed { "*" } else { "" }, if cell.is_wrong() { "!" } else { "" })
}
