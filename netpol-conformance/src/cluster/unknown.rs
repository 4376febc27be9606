//! Pods that no judge and no dataplane is told of.

use netpol_core::model::{EndpointKind, Object, Treatment};
use netpol_core::net::{Prefix, PrefixSet};

use super::{Cluster, Pod};
use crate::scenario::Problem;

impl Cluster {
    /// Returns what becomes of packets at interfaces of pods that no dataplane is told of; `None` if nothing does.
    #[must_use]
    pub const fn unknown_interfaces(&self) -> Option<Treatment> {
        self.reading.unknown_interfaces
    }

    /// Returns the addresses of the pods that no dataplane is told of.
    #[must_use]
    pub fn unknown_addresses(&self) -> PrefixSet {
        let pods = self.unknown.iter().filter_map(|id| self.pods.get(id));
        pods.flat_map(Pod::own_addresses).map(|it| Prefix::host(*it)).collect()
    }

    /// Returns whether judges and dataplanes are told of an object.
    pub(super) fn tells_of(&self, object: &Object) -> bool {
        match object {
            Object::Endpoint(it) if it.id.kind == EndpointKind::Workload => {
                !self.unknown.contains(&it.id.to_string())
            }
            _ => true,
        }
    }

    /// Has no dataplane be told of these pods.
    pub(crate) fn keep_unknown(&mut self, pods: &[String]) -> Result<(), Problem> {
        for id in pods {
            let Some(pod) = self.pods.get(id) else {
                return Err(Problem::Unknown(format!("pod `{id}`")));
            };
            if pod.own_addresses().is_empty() {
                return Err(Problem::NotRunning(id.clone()));
            }
        }
        self.unknown = pods.iter().cloned().collect();
        Ok(())
    }
}
