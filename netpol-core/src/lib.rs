//! What network policy means, and what a node must enforce because of it.
//!
//! This is no daemon and no Kubernetes client, and it does no I/O: no files, sockets, clocks or threads. The caller brings
//! endpoints, labels, addresses and policies; a [`Dataplane`] of another crate enforces what comes out.
//!
//! - [`Engine`] takes [objects](model::Object) in any order and yields [`Update`]s for one node.
//! - [`Dataplane`] puts updates in force; its documentation is the contract. [`MemoryDataplane`] is one without a kernel.
//! - [`Program`] is all that a node must enforce, and [`Program::outcome`] what that does with a flow.
//! - [`eval::Judge`] says what the policies mean for a flow of the whole cluster. It shares no code with the compiler.
//! - [`analysis`] says who reaches whom in a whole cluster, what a change changes, and which rules do nothing.
//! - [`api`] reads the objects of Kubernetes and Calico, and [`model`] is what they become.
//!
//! # What a policy means, and why
//!
//! ```
//! use netpol_core::api::{Strictness, k8s::NetworkPolicy};
//! use netpol_core::eval::Judge;
//! use netpol_core::model::{Endpoint, Inputs};
//! use netpol_core::net::Transport;
//! use netpol_core::{Capabilities, Flow, Verdict};
//!
//! let policy = serde_json::json!({
//!     "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
//!     "metadata": {"namespace": "shop", "name": "db"},
//!     "spec": {
//!         "podSelector": {"matchLabels": {"app": "mysql"}},
//!         "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 3306}]}],
//!     },
//! });
//! let policy: NetworkPolicy = serde_json::from_value(policy)?;
//! let mut inputs = Inputs::default();
//! inputs.upsert(policy.to_policy(Strictness::Strict)?.value);
//! for (name, address) in [("mysql", "10.0.0.3"), ("web", "10.0.0.2")] {
//!     let mut pod = Endpoint::pod("shop", name);
//!     pod.labels = [("app", name)].into_iter().collect();
//!     pod.addresses = vec![address.parse()?];
//!     inputs.upsert(pod);
//! }
//!
//! let capabilities = Capabilities::all();
//! let judge = Judge::new(&inputs, &capabilities);
//! let to_port = |port| Flow::to_port([10, 0, 0, 2].into(), [10, 0, 0, 3].into(), Transport::Tcp, port);
//! assert_eq!(judge.evaluate(&to_port(3306)).enforced.verdict(), Verdict::Allow);
//! assert_eq!(
//!     judge.evaluate(&to_port(22)).enforced.ingress.to_string(),
//!     "deny: no rule matched in tier `default`; asked: KubernetesNetworkPolicy shop/db",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Endpoints are closed until everything is known
//!
//! ```
//! use netpol_core::model::Endpoint;
//! use netpol_core::net::Transport;
//! use netpol_core::{Dataplane, Engine, Flow, MemoryDataplane, NodeConfig, Verdict};
//!
//! let mut dataplane = MemoryDataplane::default();
//! let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
//! let mut drive = |engine: &mut Engine| {
//!     while let Some(update) = engine.poll_update() {
//!         engine.handle_applied(dataplane.apply(update));
//!         if engine.last_error().is_some() {
//!             break; // and try again after a while
//!         }
//!     }
//!     let flow = Flow::to_port([192, 0, 2, 1].into(), [10, 0, 0, 3].into(), Transport::Tcp, 80);
//!     dataplane.outcome(&flow).verdict()
//! };
//!
//! let mut pod = Endpoint::pod("shop", "web").on_node("node-a").attached_to("veth0");
//! pod.addresses = vec!["10.0.0.3".parse()?];
//! engine.upsert(pod)?;
//! assert_eq!(drive(&mut engine), Verdict::Deny);
//! engine.inputs_complete();
//! assert_eq!(drive(&mut engine), Verdict::Allow, "no policy applies to it");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Selectors
//!
//! ```
//! use netpol_core::{Labels, Selector};
//!
//! let labels: Labels = [("app", "db"), ("tier", "back")].into_iter().collect();
//! let selector: Selector = "app == 'db' && has(tier)".parse()?;
//! assert!(selector.matches(&labels));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - What an engine yields depends only on the inputs it holds, not on their order or history. Equal inputs give equal
//!   programs: their ids are digests of content.
//! - A program refers to nothing that is not in it.
//! - Before [`Engine::inputs_complete`] an engine only closes endpoints that the dataplane does not know yet, so a restart
//!   opens nothing and forgets nothing. After an error it keeps the work.
//! - What could not be read, or what a dataplane cannot express, never widens what passes.
//! - Objects are refused with everything that is wrong with them.
//!
//! # Features and versions
//!
//! There are no features. It needs `alloc` but not std, has no unsafe code, and builds with Rust 1.95 or later. How it fits
//! together is told in `ARCHITECTURE.md` in the repository.

#![no_std]
#![forbid(unsafe_code)]
#![doc(test(attr(deny(warnings))))]

extern crate alloc;

pub mod analysis;
pub mod api;
mod dataplane;
mod engine;
pub mod eval;
pub mod flat;
mod flow;
mod labels;
pub mod lint;
pub mod model;
pub mod net;
pub mod program;
pub mod selector;
mod text;
mod verdict;

pub use self::dataplane::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Delta,
    DeltaMismatch, DestinationView, Drift, Edit, EndpointChange, Fault, MembersChange,
    MemoryDataplane, SourceView, Update,
};
pub use self::engine::{Engine, EngineError, Gate, NodeConfig, PolicyStatus, WeakRule};
pub use self::flow::{Direction, Flow, Origin, Payload};
pub use self::labels::Labels;
pub use self::program::Program;
pub use self::selector::Selector;
pub use self::verdict::{
    Explanation, HostJudgement, Packet, Reason, RuleRef, Shortfall, Step, Verdict,
};
