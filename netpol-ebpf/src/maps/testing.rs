//! What only tests do to maps.

#![expect(clippy::expect_used, reason = "test code")]

use netpol_core::program::Digest;
use netpol_ebpf_abi::Flow;
use zerocopy::{FromBytes, IntoBytes};

use super::Maps;
use crate::ids::Kind;
use crate::render::Map;

impl Maps {
    /// Removes an entry of a map.
    pub(crate) fn spoil(&self, map: Map) {
        let part = self.part(map).expect("every map is open");
        let keys = part.keys().expect("a map can be read");
        let first = keys.chunks(part.key_size()).next().expect("the map has an entry");
        part.remove(first).expect("an entry can be removed");
    }

    /// Writes an object until a map is full, as a process does that crashes after it. Returns how many entries it has.
    pub(crate) fn fill(&self, kind: Kind, id: u32, map: Map) -> u32 {
        let part = self.part(map).expect("every map is open");
        self.name(kind, id, Digest::of(&id)).expect("there is room for a name");
        let prefix = |number: u32| [64, id, number].as_bytes().to_vec();
        let value = vec![0; part.value_size()];
        (0..)
            .take_while(|number| part.set(&prefix(*number), &value).is_ok())
            .fold(0, |count, _| count + 1)
    }

    /// Makes all flows older by so many ticks.
    pub(crate) fn age_flows(&self, ticks: i64) {
        for flows in &self.flows {
            let keys = flows.keys().expect("a map can be read");
            for key in keys.chunks(flows.key_size()) {
                let value = flows.get(key).expect("a map can be read").expect("the flow is there");
                let mut flow = Flow::read_from_bytes(&value).expect("it has the size of a flow");
                flow.last = flow.last.wrapping_add_signed(-ticks);
                flows.set(key, flow.as_bytes()).expect("a flow can be written");
            }
        }
    }

    /// Removes all flows.
    pub(crate) fn forget_flows(&self) {
        for flows in &self.flows {
            let keys = flows.keys().expect("a map can be read");
            flows.remove_all(&keys).expect("entries can be removed");
        }
    }
}
