//! Laws of planning and executing, on random host endpoints and fake tools.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::program::Program;
use netpol_core::{Dataplane, DataplaneErrorKind};
use proptest::prelude::*;

use super::fake::{Fake, Fault, Host};
use super::host_support::{compiled_with, objects, settings};
use super::kernel::full;
use super::laws::{expand, open, remotes};
use crate::Flavour;
use crate::probe::KernelTable;
use crate::transport::Variant;

/// The chains below which the policy of host endpoints is.
const ROOTS: [(KernelTable, &str); 6] = [
    (KernelTable::Raw, "PREROUTING"),
    (KernelTable::Raw, "OUTPUT"),
    (KernelTable::Mangle, "PREROUTING"),
    (KernelTable::Filter, "NP-HOST-IN"),
    (KernelTable::Filter, "NP-HOST-OUT"),
    (KernelTable::Filter, "NP-HOST-FWD"),
];

fn programs() -> impl Strategy<Value = Program> {
    (objects(), settings()).prop_map(|(objects, settings)| compiled_with(&objects, &settings))
}

/// What judges at each root, as a packet of one remote address meets it.
type Judged = BTreeMap<(Family, KernelTable, &'static str, IpAddr), String>;

fn judged(host: &Host, remotes: &BTreeSet<IpAddr>) -> Judged {
    let mut judged = Judged::new();
    for &remote in remotes {
        let family = Family::of(remote);
        for (table, root) in ROOTS {
            let variant = Variant { flavour: Flavour::Nft, family };
            let chains = host.tables.get(&(variant, table)).cloned().unwrap_or_default();
            // A table without rules is as one that nobody has used.
            let text = expand(host, &chains, root, remote).replace(root, "");
            judged.insert((family, table, root, remote), text);
        }
    }
    judged
}

/// Returns some addresses that tell programs apart.
fn few(programs: [&Program; 2]) -> BTreeSet<IpAddr> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        remotes(programs).into_iter().partition(IpAddr::is_ipv4);
    v4.into_iter().step_by(3).take(8).chain(v6.into_iter().take(4)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn hosts_are_enforced_and_then_nothing_is_left_to_do(one in programs(), two in programs()) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        for program in [&one, &two, &Program::default(), &one] {
            let applied = dataplane.apply(full(program)).unwrap();
            prop_assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
            prop_assert_eq!(dataplane.audit(program).unwrap().differences, Vec::<String>::new());
            fake.take_history();
            dataplane.apply(full(program)).unwrap();
            open(&fake).apply(full(program)).unwrap();
            prop_assert!(fake.take_history().is_empty(), "something was left to do");
            prop_assert_eq!(open(&fake).audit(program).unwrap().differences, Vec::<String>::new());
        }
        open(&fake).remove().unwrap();
        let host = fake.host();
        prop_assert_eq!(host.sets, BTreeMap::new());
        prop_assert!(host.tables.values().all(|table| table.values().all(Vec::is_empty) && table.len() == 5));
    }

    #[test]
    fn packets_meet_the_old_policy_of_a_bucket_or_the_new_one(one in programs(), two in programs()) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        let remotes = few([&one, &two]);
        let old = judged(&fake.host(), &remotes);
        fake.take_history();
        dataplane.apply(full(&two)).unwrap();
        let new = judged(&fake.host(), &remotes);
        for host in fake.take_history() {
            for (entry, policy) in judged(&host, &remotes) {
                let known = [&old, &new].map(|it| it.get(&entry).unwrap());
                prop_assert!(known.contains(&&policy), "{:?}: {}\n{:#?}", entry, policy, known);
            }
        }
    }

    #[test]
    fn a_failure_leaves_the_old_hosts_in_force(
        one in programs(), two in programs(), nth in 0_usize..100, late: bool,
    ) {
        let fake = Fake::default();
        let mut dataplane = open(&fake);
        dataplane.apply(full(&one)).unwrap();
        let remotes = few([&one, &two]);
        let old = judged(&fake.host(), &remotes);
        fake.fail(nth, if late { Fault::Late } else { Fault::Refused });
        if let Err(error) = dataplane.apply(full(&two)) {
            prop_assert_eq!(error.kind(), DataplaneErrorKind::Transient);
            prop_assert_eq!(&judged(&fake.host(), &remotes), &old);
        }
        dataplane.apply(full(&two)).unwrap();
        dataplane.apply(full(&two)).unwrap();
        prop_assert_eq!(dataplane.audit(&two).unwrap().differences, Vec::<String>::new());
    }
}
