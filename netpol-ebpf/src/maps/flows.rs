//! Flows.

use std::collections::BTreeSet;

use netpol_ebpf_abi::{FlowKey4, FlowKey6, maps};
use zerocopy::FromBytes;

use super::{Maps, reading, writing};
use crate::error::EbpfError;
use crate::render::mapped;

impl Maps {
    /// Ends the flows from and to addresses, as the map of own addresses has them. Returns how many there were.
    pub(crate) fn end_flows(&self, addresses: &BTreeSet<[u32; 4]>) -> Result<u64, EbpfError> {
        if addresses.is_empty() {
            return Ok(0);
        }
        let mut ended = 0;
        for (flows, name) in self.flows.iter().zip([maps::FLOWS4, maps::FLOWS6]) {
            let keys = flows.keys_of_busy().map_err(|source| reading(name, source))?;
            let is_ended = |key: &[u8]| {
                ends(key).is_some_and(|ends| ends.iter().any(|it| addresses.contains(it)))
            };
            for key in keys.chunks(flows.key_size()).filter(|key| is_ended(key)) {
                flows.remove(key).map_err(|source| writing(name, source))?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}

/// Returns the two addresses in the key of a flow.
fn ends(key: &[u8]) -> Option<[[u32; 4]; 2]> {
    if let Ok(key) = FlowKey4::read_from_bytes(key) {
        return Some([key.remote, key.local].map(mapped));
    }
    FlowKey6::read_from_bytes(key).ok().map(|key| [key.remote, key.local])
}
