//! What only tests do to maps.

#![expect(clippy::expect_used, reason = "test code")]

use super::Maps;
use crate::render::Map;

impl Maps {
    /// Removes an entry of a map.
    pub(crate) fn spoil(&self, map: Map) {
        let part = self.part(map).expect("every map is open");
        let keys = part.keys().expect("a map can be read");
        let first = keys.chunks(part.key_size()).next().expect("the map has an entry");
        part.remove(first).expect("an entry can be removed");
    }

    /// Removes all flows.
    pub(crate) fn forget_flows(&self) {
        for flows in &self.flows {
            let keys = flows.keys().expect("a map can be read");
            flows.remove_all(&keys).expect("entries can be removed");
        }
    }
}
