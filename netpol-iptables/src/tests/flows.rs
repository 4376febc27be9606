//! Flows end when their endpoint goes, is isolated, or loses its address.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use netpol_core::model::{EndpointId, Mode};
use netpol_core::net::Family;
use netpol_core::program::Program;
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update};

use super::fake::Fake;
use super::kernel::in_namespaces;
use super::program::Builder;
use crate::{IptablesConfig, IptablesDataplane};

/// A program of endpoints: name, UID, address, mode.
fn program(endpoints: &[(&str, &str, &str, Mode)]) -> Program {
    let mut builder = Builder::new();
    for &(name, uid, address, mode) in endpoints {
        let mut endpoint = builder.endpoint(name, &[address]);
        endpoint.id = EndpointId::workload("ns", name).with_uid(uid);
        endpoint.mode = mode;
        builder.add(endpoint);
    }
    builder.build()
}

/// Applies a program and returns how many flows ended.
fn apply(dataplane: &mut IptablesDataplane, program: &Program) -> u64 {
    let update = Update::new(1, Change::Full(Arc::new(program.clone())));
    let applied = dataplane.apply(update).unwrap();
    assert!(applied.isolated.is_empty());
    applied.revoked
}

fn open(fake: &Fake) -> IptablesDataplane {
    let (families, config) = (Family::BOTH.to_vec(), IptablesConfig::default());
    IptablesDataplane::with_tools(Box::new(fake.clone()), families, config).unwrap()
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn whoever_changes_hands_is_forgotten_and_nobody_else() {
    use Mode::{Audit, Enforce, Isolate};
    let before = [("a", "1", "10.0.0.1", Enforce), ("b", "1", "10.0.0.2", Enforce)];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str, Mode)], &'a [&'a str]);
    let cases: [Case<'_>; 7] = [
        ("nothing changes", &before, &[]),
        ("one goes", &before[1..], &["10.0.0.1"]),
        ("all go", &[], &["10.0.0.1", "10.0.0.2"]),
        ("same name, other endpoint", &[("a", "2", "10.0.0.1", Enforce), before[1]], &["10.0.0.1"]),
        ("other address", &[("a", "1", "10.0.0.9", Enforce), before[1]], &["10.0.0.1"]),
        ("isolated", &[("a", "1", "10.0.0.1", Isolate), before[1]], &["10.0.0.1"]),
        ("audited", &[("a", "1", "10.0.0.1", Audit), before[1]], &[]),
    ];
    for (case, after, want) in cases {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        apply(&mut dataplane, &program(&before));
        assert_eq!(fake.take_forgotten(), addresses(&[]), "{case}: a first program ends no flow");
        apply(&mut dataplane, &program(after));
        assert_eq!(fake.take_forgotten(), addresses(want), "{case}");
    }
}

#[test]
fn endpoints_that_are_isolated_before_the_program_is_known_have_no_flows() {
    let fake = Fake::default();
    apply(&mut open(&fake), &program(&[("a", "1", "10.0.0.1", Mode::Enforce)]));
    let mut dataplane = open(&fake);
    let both =
        program(&[("a", "1", "10.0.0.1", Mode::Enforce), ("b", "1", "10.0.0.2", Mode::Enforce)]);
    dataplane.apply(Update::new(1, Change::Isolate(both.endpoints.into()))).unwrap();
    assert_eq!(fake.take_forgotten(), addresses(&["10.0.0.2"]), "`a` was adopted");
}

#[test]
fn what_could_not_be_forgotten_is_tried_again() {
    let fake = Fake::default();
    let mut dataplane = open(&fake);
    apply(&mut dataplane, &program(&[("a", "1", "10.0.0.1", Mode::Enforce)]));
    fake.cling(true);
    let update = Update::new(2, Change::Full(Arc::new(program(&[]))));
    let error = dataplane.apply(update).unwrap_err();
    assert_eq!(error.kind(), DataplaneErrorKind::Transient, "what goes on is no success");
    fake.cling(false);
    assert_eq!(apply(&mut dataplane, &program(&[])), 1);
    assert_eq!(fake.take_forgotten(), addresses(&["10.0.0.1"]));
}

/// Returns how many flows the network namespace of the calling thread tracks.
fn tracked() -> usize {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    count.trim().parse().unwrap()
}

#[test]
fn the_kernel_forgets_the_flows_of_both_ends_and_families() {
    in_namespaces(|flavour| {
        bring_up_loopback();
        let config = IptablesConfig { flavour: Some(flavour), ..IptablesConfig::default() };
        let mut dataplane = IptablesDataplane::open(config).unwrap();
        let pods = program(&[
            ("a", "1", "127.0.0.2", Mode::Enforce),
            ("b", "1", "2001:db8::2", Mode::Enforce),
        ]);
        apply(&mut dataplane, &pods);
        let send = |from: &str, to: &str| UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
        send("127.0.0.1:0", "127.0.0.2:9");
        send("127.0.0.2:0", "127.0.0.3:9");
        send("127.0.0.1:0", "127.0.0.3:9");
        send("[2001:db8::1]:0", "[2001:db8::2]:9");
        send("[2001:db8::2]:0", "[2001:db8::1]:9");
        send("[::1]:0", "[2001:db8::1]:9");
        assert_eq!(tracked(), 6);
        assert_eq!(apply(&mut dataplane, &pods), 0, "nothing changed hands");
        assert_eq!(tracked(), 6);
        assert_eq!(apply(&mut dataplane, &program(&[("b", "1", "2001:db8::2", Mode::Enforce)])), 2);
        assert_eq!(tracked(), 4, "both flows of 127.0.0.2 end");
        assert_eq!(apply(&mut dataplane, &program(&[])), 2);
        assert_eq!(tracked(), 2, "flows of strangers go on");
    });
}

/// Brings the loopback interface up, with two addresses of IPv6 beside its own.
fn bring_up_loopback() {
    let address = |it| vec!["address", "add", it, "dev", "lo", "nodad"];
    let up = vec!["link", "set", "lo", "up"];
    for arguments in [up, address("2001:db8::1/128"), address("2001:db8::2/128")] {
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
    }
}
