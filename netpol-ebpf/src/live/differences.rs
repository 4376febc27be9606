//! Whether what is in force means what a program says.

use std::collections::BTreeSet;

use netpol_ebpf_abi as abi;

use super::Live;
use crate::render::Desired;

impl Live {
    /// Returns how this differs in meaning from what another one has in force.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let interfaces: BTreeSet<&String> =
            self.endpoints.keys().chain(other.endpoints.keys()).collect();
        for interface in interfaces {
            match (self.endpoints.get(interface), other.endpoints.get(interface)) {
                (Some(one), Some(wanted))
                    if plain(one) == plain(wanted) && self.judges_alike(one, other, wanted) => {}
                (None, _) => lines.push(format!("`{interface}` has no record")),
                (_, None) => lines.push(format!("`{interface}` is no endpoint's")),
                _ => lines.push(format!("the record of `{interface}` is another one")),
            }
        }
        let tables = self.flat.differences(&other.flat).into_iter();
        lines.extend(tables.map(|key| format!("the table of policy set {key} is another one")));
        lines
    }

    /// Returns whether an endpoint is judged by the same policy sets here and there.
    fn judges_alike(&self, here: &Desired, other: &Self, there: &Desired) -> bool {
        here.record.tables.iter().zip(&there.record.tables).all(|(one, wanted)| {
            let mut keys = self.tables.iter().filter(|(_, id)| *id == one);
            *one == abi::OPEN && *wanted == abi::OPEN
                || keys.any(|(key, _)| other.tables.get(key) == Some(wanted))
        })
    }
}

/// Returns what is to be in force for an endpoint, without ids.
fn plain(desired: &Desired) -> Desired {
    let flags = desired.record.flags & !(abi::PREFIXES_V4 | abi::PREFIXES_V6);
    let record = abi::Endpoint { space: 0, tables: [0; 2], flags, ..desired.record };
    Desired { record, ..desired.clone() }
}
