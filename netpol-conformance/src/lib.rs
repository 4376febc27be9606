//! Connectivity scenarios for network policy, and what it takes to run them.
//!
//! A [`Scenario`](scenario::Scenario) says which pods exist, how policies change, and what must reach what after each
//! change. A [`Subject`](subject::Subject) is anything that can be given such a cluster and asked what passes. A
//! [`Backend`](runner::Backend) makes subjects; running a scenario on it gives one [`Row`](report::Row) per probe.
//!
//! - [`subject::Model`] is the judge: what the policies mean. It needs no privilege.
//! - [`subject::Programs`] is what the engines of all nodes would have their dataplanes enforce. Nor does this.
//! - [`subject::Kernel`] is any [`Dataplane`](netpol_core::Dataplane) on the real kernel, in a
//!   [`Topology`](topology::Topology) of network namespaces, tried with [real connections](probe). It needs root, of the
//!   machine or of a user namespace.
//!
//! `FORMAT.md` beside this crate's manifest says what a scenario file may hold.
//!
//! # A scenario on the model
//!
//! ```
//! use std::path::Path;
//!
//! use netpol_conformance::report::{Conclusion, Report};
//! use netpol_conformance::runner::Backend;
//! use netpol_conformance::scenario::parse;
//! use netpol_conformance::subject::Model;
//!
//! let text = "
//! {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
//! ---
//! {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop},
//!  spec: {containers: [{name: db, ports: [{containerPort: 3306}]}]}}
//! ---
//! apiVersion: netpol.dev/v1
//! kind: Scenario
//! metadata: {name: closed}
//! spec:
//!   requires: [np, external]
//!   steps:
//!   - name: closed
//!     apply:
//!     - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop},
//!        spec: {podSelector: {}}}
//!     probes:
//!     - {from: 192.0.2.10, to: shop/db, protocol: TCP, port: 3306, expect: deny}
//! ";
//! let scenario = parse(Path::new("closed.yaml"), text)?;
//! let model = Backend::new("model", 1, || Ok(Box::new(Model::default())));
//! let mut report = Report::new([model.name()]);
//! report.extend(model.run(&scenario)?);
//! assert_eq!(report.conclusion(), Conclusion::Passed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A dataplane of your own
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use netpol_conformance::runner::Backend;
//! use netpol_conformance::subject::{Kernel, Open};
//! # use netpol_core::MemoryDataplane as YourDataplane;
//!
//! let open: Arc<Open> = Arc::new(|| Ok(Box::new(YourDataplane::default())));
//! let backend = Backend::new("yours", 4, move || Ok(Box::new(Kernel::new(Arc::clone(&open))?)));
//! assert_eq!(backend.name(), "yours");
//! ```
//!
//! Scenarios say whether it understands policy; [`contract`] says whether it keeps what the trait promises.
//!
//! # Guarantees
//!
//! - What is wrong with a scenario file is found before anything runs: [`scenario::load`] works out every state and probe.
//! - A scenario that needs what is not there is reported as skipped, with its reason. A run in which nothing ran is no
//!   success.
//! - On a kernel, a probe counts as denied only if it passed while nothing was enforced, and only after later packets
//!   to the same server got through that no policy judges.
//!
//! # Features and versions
//!
//! `nft` (on by default) builds the nf_tables backend into the binary; the library names no backend. Linux only, Rust 1.95
//! or later. How it fits together is told in `ARCHITECTURE.md` in the repository.

#![forbid(unsafe_code)]
#![doc(test(attr(deny(warnings))))]

pub mod check;
pub mod cluster;
pub mod contract;
pub mod document;
pub mod explain;
pub mod manifests;
pub mod probe;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod subject;
pub mod text;
pub mod topology;
pub mod wire;
