//! Which endpoints a new process takes for those of an earlier one.

#![expect(clippy::unwrap_used, reason = "test code")]

use netpol_core::model::Attachment;
use netpol_core::net::Family;
use netpol_core::program::Endpoint;
use netpol_core::{Change, Dataplane, Update};

use super::fake::Fake;
use super::kernel::{apply, full, in_namespaces, open, state};
use super::program::{Builder, deny_unless};
use crate::{IptablesConfig, IptablesDataplane};

fn isolate(endpoints: &[&Endpoint]) -> Update {
    Update::new(1, Change::Isolate(endpoints.iter().map(|it| (*it).clone()).collect()))
}

#[test]
fn a_successor_on_the_same_interface_is_not_known() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        let closed = builder.policy(deny_unless(Vec::new()));
        let mut endpoint = |addresses: &[&str]| {
            let mut endpoint = builder.endpoint("pod", addresses);
            endpoint.ingress = closed;
            endpoint
        };
        let old = endpoint(&["10.0.1.1", "fd00::1"]);
        let cases = [
            (endpoint(&["fd00::1", "10.0.1.1"]), true),
            (endpoint(&["10.0.1.2", "fd00::1"]), false),
            (endpoint(&["10.0.1.1", "fd00::2"]), false),
            (endpoint(&["10.0.1.1"]), false),
            (endpoint(&["10.0.1.1", "10.0.1.2", "fd00::1"]), false),
            (endpoint(&[]), false),
        ];
        let program = builder.add(old).build();
        for (new, known) in cases {
            let before = apply(&mut open(flavour), &program);
            for _ in 0..2 {
                open(flavour).apply(isolate(&[&new])).unwrap();
                let mut after = state(flavour);
                for line in ["-A NP-ISO-FROM -i pod ", "-A NP-ISO-TO -o pod "] {
                    let lines = after.lines().filter(|it| it.starts_with(line)).count();
                    assert_eq!(lines, if known { 0 } else { 2 }, "{:?}", new.addresses);
                }
                let isolated = |line: &&str| !line.starts_with("-A NP-ISO-");
                after = after.lines().filter(isolated).map(|line| format!("{line}\n")).collect();
                assert_eq!(after, before, "nothing else changes");
            }
        }
    });
}

/// A process may die between the families. An endpoint that only one of them knows is open in the other one.
#[test]
fn an_endpoint_is_known_if_both_families_know_it() {
    for attachment in [Attachment::Interface("pod".to_owned()), Attachment::Address] {
        let mut builder = Builder::new();
        let mut pod = builder.endpoint("pod", &["10.0.0.1", "fd00::1"]);
        pod.attachment = attachment;
        let program = builder.add(pod.clone()).build();
        let fake = Fake::default();
        let open = || {
            let (families, config) = (Family::BOTH.to_vec(), IptablesConfig::default());
            IptablesDataplane::with_tools(Box::new(fake.clone()), families, config).unwrap()
        };
        open().apply(full(&program)).unwrap();
        let whole = fake.host();
        open().apply(isolate(&[&pod])).unwrap();
        assert_eq!(fake.host(), whole);
        for family in Family::BOTH {
            fake.change(|host| {
                *host = whole.clone();
                let variant = crate::transport::Variant { flavour: crate::Flavour::Nft, family };
                host.tables.retain(|(it, _), _| *it != variant);
            });
            open().apply(isolate(&[&pod])).unwrap();
            for family in Family::BOTH {
                assert!(!fake.host().filter(family).get("NP-ISO-TO").unwrap().is_empty());
            }
        }
    }
}
