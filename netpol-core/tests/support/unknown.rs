//! Clusters of which a node has not been told everything. Shares nothing with what it tests.

use netpol_core::NodeConfig;
use netpol_core::model::{EndpointKind, HostSettings, Object, Treatment, UnknownInterfaces};
use netpol_core::program::Program;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::NODE;
use super::host_support::{compiled_by, objects};

/// A cluster, and how much of it a node is told.
#[derive(Clone, Debug)]
pub(crate) struct HalfKnown {
    /// All objects; the interfaces of workloads begin with `v`.
    pub(crate) all: Vec<Object>,
    /// Those that the node is told of: not all endpoints.
    pub(crate) known: Vec<Object>,
    pub(crate) treatment: Treatment,
}

/// Clusters of a node and its workloads.
pub(crate) fn half_known() -> impl Strategy<Value = HalfKnown> {
    let is_host =
        |it: &Object| matches!(it, Object::Endpoint(it) if it.id.kind == EndpointKind::Host);
    (objects_with_hosts(), any::<bool>()).prop_map(move |(mut it, with_hosts)| {
        if !with_hosts {
            it.all.retain(|it| !is_host(it));
            it.known.retain(|it| !is_host(it));
        }
        it
    })
}

/// Clusters of a node with host endpoints and its workloads.
pub(crate) fn objects_with_hosts() -> impl Strategy<Value = HalfKnown> {
    let treatment = select(vec![Treatment::Closed, Treatment::Open, Treatment::EgressTracked]);
    (objects(), 1..7_usize, treatment).prop_map(|(all, hidden, treatment)| {
        let is_workload = |it: &Object| matches!(it, Object::Endpoint(it) if it.id.kind == EndpointKind::Workload);
        let mut workloads = 0;
        let mut is_told = |it: &&Object| {
            let number = workloads;
            workloads += usize::from(is_workload(it));
            !is_workload(it) || hidden >> number & 1 == 0
        };
        let known = all.iter().filter(|it| is_told(it)).cloned().collect();
        HalfKnown { all, known, treatment }
    })
}

/// The program of a node where interfaces that look like those of workloads are treated so.
pub(crate) fn compiled_half(it: &HalfKnown, settings: &HostSettings) -> Program {
    let mut config = NodeConfig::new(NODE);
    config.unknown =
        UnknownInterfaces { prefixes: ["v".parse().unwrap()].into(), treatment: it.treatment };
    compiled_by(&it.known, settings, config)
}
