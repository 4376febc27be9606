//! The model: one vocabulary for the objects of every policy API.
//!
//! Front ends (`api::*`) convert their wire types to these; the [judge](crate::eval) reads them; the
//! [engine](crate::Engine) keeps them and compiles them. Values that exist are valid.

mod domain;
mod endpoint;
mod host;
mod http;
mod inputs;
mod policy;
mod rule;
mod service;
mod unknown;
mod view;

pub use self::domain::{DomainAddress, DomainName, DomainNameError, DomainPattern};
pub use self::endpoint::{
    Attachment, Endpoint, EndpointId, EndpointKind, Lifecycle, Mode, NamedPort, Timestamp,
};
pub use self::host::{Bucket, FailsafePort, HostSettings, Tunnel, WorkloadToHost};
pub use self::http::{
    HttpMatch, HttpPath, HttpPathError, HttpPathMatch, HttpRequest, HttpRequestError,
};
pub use self::inputs::{Inputs, Interface, NetworkSet, Node, Object, ObjectKey};
pub use self::policy::{
    Enforcement, HostTraffic, Order, OrderError, Policy, PolicyKey, PolicyKind, Tier, TierEnd,
};
pub use self::rule::{
    Action, EntityMatch, L4Match, Peers, PortConstraint, PortMatch, Rule, RuleMatch, Tenancy,
};
pub use self::service::{EndpointSlice, Service, ServiceName, ServicePort};
pub use self::unknown::{InterfacePrefix, InterfacePrefixError, Treatment, UnknownInterfaces};
pub use self::view::EndpointLabels;

/// Label keys that the model sets itself; labels that users give cannot override them.
///
/// Source: Calico, `libcalico-go/lib/apis/v3` and `libcalico-go/lib/backend/k8s/conversion`.
pub mod keys {
    /// The namespace of an endpoint or network set.
    pub const NAMESPACE: &str = "projectcalico.org/namespace";
    /// The orchestrator that runs an endpoint; pods carry [`KUBERNETES`].
    pub const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
    /// The service account of an endpoint.
    pub const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
    /// The name of the namespace or service account itself, below its prefix.
    pub const NAME: &str = "projectcalico.org/name";
    /// What stands before the labels of the namespace.
    pub const NAMESPACE_PREFIX: &str = "pcns.";
    /// What stands before the labels of the service account.
    pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";
    /// The value of [`ORCHESTRATOR`] on Kubernetes pods.
    pub const KUBERNETES: &str = "k8s";
}
