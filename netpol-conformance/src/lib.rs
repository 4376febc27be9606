//! Connectivity scenarios for network policy, and what it takes to run them.
//!
//! A [scenario](scenario::Scenario) says which pods exist, how policies change, and what must reach what after each
//! change. A [subject](subject::Subject) is anything that can be given such a cluster and asked what passes. Subjects of
//! this crate are the judge ([`subject::Model`]) and the interpreter of programs ([`subject::Programs`]), which need no
//! privilege.

pub mod check;
pub mod cluster;
pub mod document;
pub mod probe;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod subject;
pub mod topology;
pub mod wire;
