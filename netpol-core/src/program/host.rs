//! Host endpoints of a program: what judges traffic of the node's own interfaces.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::policy_set::PolicySetId;
use super::set::SetId;
use crate::flow::{Direction, Flow};
use crate::model::{Bucket, EndpointId, HostSettings};

/// What a node must enforce on its own interfaces. The default leaves them alone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Hosts {
    /// The host endpoints of the node, in the order of their ids. No two of them have an interface in common.
    pub endpoints: Vec<HostEndpoint>,
    /// What policy cannot cut, and how the node treats its workloads.
    pub settings: HostSettings,
    /// The addresses of all nodes, between which tunnels pass; `None` without host endpoints.
    pub nodes: Option<SetId>,
}

/// A host endpoint of the node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HostEndpoint {
    /// Which endpoint this is.
    pub id: EndpointId,
    /// Its interfaces.
    pub interfaces: Interfaces,
    /// What judges each packet into it and out of it before connections are tracked. `None` where no policy applies. Its
    /// default verdict leaves it to what comes after.
    pub untracked: [Option<PolicySetId>; 2],
    /// What judges traffic into it before destination NAT. `None` where no policy applies. Its default verdict leaves it to
    /// what comes after.
    pub pre_dnat: Option<PolicySetId>,
    /// What judges forwarded traffic into it and out of it. `None` where no policy applies: it passes.
    pub forward: [Option<PolicySetId>; 2],
    /// What judges traffic to and from processes of the node.
    pub normal: [PolicySetId; 2],
}

/// The interfaces of a host endpoint.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "interfaces are named, or are those that are not")]
pub enum Interfaces {
    /// These.
    Named(BTreeSet<String>),
    /// All that no other host endpoint of the node names; those of workloads too.
    Other,
}

impl HostEndpoint {
    /// Returns what judges a direction in a bucket; `None` if nothing does, so that packets go on.
    #[must_use]
    pub const fn policy_set(&self, bucket: Bucket, direction: Direction) -> Option<PolicySetId> {
        let [untracked_in, untracked_out] = self.untracked;
        let [forward_in, forward_out] = self.forward;
        let [normal_in, normal_out] = self.normal;
        match (bucket, direction) {
            (Bucket::Untracked, Direction::Ingress) => untracked_in,
            (Bucket::Untracked, Direction::Egress) => untracked_out,
            (Bucket::PreDnat, Direction::Ingress) => self.pre_dnat,
            (Bucket::PreDnat, Direction::Egress) => None,
            (Bucket::Forward, Direction::Ingress) => forward_in,
            (Bucket::Forward, Direction::Egress) => forward_out,
            (Bucket::Normal, Direction::Ingress) => Some(normal_in),
            (Bucket::Normal, Direction::Egress) => Some(normal_out),
        }
    }
}

/// The way of a flow through a node, as its hooks see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "callers build passages from packets")]
pub struct Passage<'a> {
    /// The interface it comes in on; `None` if a process of the node sends it.
    pub input: Option<&'a str>,
    /// The interface it goes out on; `None` if a process of the node receives it.
    pub output: Option<&'a str>,
    /// The flow.
    pub flow: Flow,
    /// The flow as it was before destination NAT.
    pub before_nat: Flow,
}
