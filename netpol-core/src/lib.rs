//! The pure core of netpol: what a network policy means, and what a node must enforce because of it.
//!
//! It does no I/O: no files, sockets, clocks, threads or kernel. The caller feeds an [`Engine`] with endpoints,
//! namespaces and policies, and gives the [`Update`]s it yields to a [`Dataplane`].

#![no_std]
#![forbid(unsafe_code)]
#![doc(test(attr(deny(warnings))))]

extern crate alloc;

pub mod api;
mod compile;
mod dataplane;
mod engine;
pub mod eval;
pub mod flat;
mod flow;
mod labels;
pub mod model;
pub mod net;
pub mod program;
pub mod selector;
mod verdict;

pub use self::dataplane::{
    Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, DataplaneErrorKind, Drift,
    MemoryDataplane, SourceView, Update,
};
pub use self::engine::{Engine, EngineError, NodeConfig};
pub use self::flow::{Direction, Flow, Origin, Payload};
pub use self::labels::Labels;
pub use self::program::Program;
pub use self::selector::Selector;
pub use self::verdict::{Explanation, Reason, RuleRef, Step, Verdict};
