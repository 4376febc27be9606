//! Host endpoints in the tables of others.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::error::Error as _;

use netpol_core::model::{Action, FailsafePort, WorkloadToHost};
use netpol_core::net::{Family, Transport};
use netpol_core::program::{Interfaces, PolicySet, Program, StageEnd};
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update, Verdict};

use super::fake::Fake;
use super::host_packets::{Programs, named};
use super::kernel::{apply, config, full, in_namespaces, no_condition_is_lost, open, state, tool};
use super::program::{in_set, nets, rule, stage};
use crate::{IptablesConfig, IptablesDataplane, TableName};

/// Returns a program with policy in all buckets and directions.
fn all_buckets(interfaces: Interfaces) -> Program {
    let mut it = Programs::new(interfaces);
    it.workload_to_host = WorkloadToHost::Deny;
    let peers = it.builder.addresses("peers", &["10.0.0.1", "10.8.0.0/16", "fd00::1"]);
    let sets: Vec<_> = (1..4)
        .map(|number| {
            let mut rules = [Action::Allow, Action::Deny, Action::Log].map(|it| rule(number, it));
            for rule in &mut rules {
                rule.remote = in_set(peers);
                rule.remote.not_nets = nets(&["10.9.0.0/16"]);
            }
            let stages = vec![stage(rules.to_vec(), StageEnd::Next)];
            it.builder.policy(PolicySet { stages, default: Verdict::Allow })
        })
        .collect();
    let [one, two, three] = sets.as_slice() else { panic!("three sets") };
    it.host.normal = [*one, *two];
    it.host.forward = [Some(*two), Some(*three)];
    it.host.untracked = [Some(*three), Some(*one)];
    it.host.pre_dnat = Some(*two);
    let mut program = it.build();
    program.hosts.nodes = Some(peers);
    let limited = |net: &str| FailsafePort {
        transport: Transport::Udp,
        port: 53,
        net: Some(net.parse().unwrap()),
    };
    let settings = &mut program.hosts.settings;
    settings.failsafe_inbound.extend(["10.3.0.0/16", "fd00:3::/64", "0.0.0.0/0"].map(limited));
    program
}

#[test]
fn no_condition_of_hosts_is_lost_on_the_way() {
    in_namespaces(|flavour| {
        for interfaces in [named("eth0"), Interfaces::Other] {
            no_condition_is_lost(flavour, &all_buckets(interfaces));
        }
    });
}

#[test]
fn whatever_was_changed_is_repaired_and_what_is_foreign_stays() {
    in_namespaces(|flavour| {
        let foreign = "*raw\n:OTHER - [0:0]\n-A PREROUTING -j OTHER\n-A OUTPUT -p udp -j OTHER\nCOMMIT\n\
            *mangle\n:NPX-DNAT - [0:0]\n-A PREROUTING -j NPX-DNAT\n-A FORWARD -j NPX-DNAT\nCOMMIT\n";
        for program in ["iptables", "ip6tables"] {
            tool(&format!("{program}-{flavour}-restore"), foreign).unwrap();
        }
        let program = all_buckets(Interfaces::Other);
        let mut dataplane = open(flavour);
        dataplane.apply(full(&Program::default())).unwrap();
        dataplane.remove().unwrap();
        let before = state(flavour);
        let want = apply(&mut dataplane, &program);
        assert!(want.contains("-A PREROUTING -m comment --comment \"np:hook\" -j NP-RAW-IN\n"));
        for damage in [
            "iptables -t raw -F",
            "ip6tables -t raw -F PREROUTING",
            "iptables -t raw -I OUTPUT -j ACCEPT",
            "iptables -t raw -F NP-UNTRACK",
            "ip6tables -t mangle -F NP-DNAT",
            "iptables -t mangle -N NP-EXTRA",
            "iptables -F NP-HOST-FWD",
            "iptables -D NP-HOST-IN-POL 1",
        ] {
            let command = damage.replacen("tables ", &format!("tables-{flavour} "), 1);
            tool(&command, "").unwrap_or_else(|error| panic!("{command}: {error}"));
            assert!(!dataplane.audit(&program).unwrap().is_none(), "{damage}");
            apply(&mut dataplane, &program);
            let differences = dataplane.audit(&program).unwrap().differences;
            assert_eq!(differences, Vec::<String>::new(), "{damage}");
            tool(&format!("iptables-{flavour} -t raw -D OUTPUT -j ACCEPT"), "").unwrap_or_default();
        }
        for program in ["iptables", "ip6tables"] {
            tool(&format!("{program}-{flavour} -t raw -F PREROUTING"), "").unwrap();
            tool(&format!("{program}-{flavour} -t raw -F OUTPUT"), "").unwrap();
            tool(&format!("{program}-{flavour}-restore --noflush"), foreign_of(foreign)).unwrap();
        }
        assert_eq!(apply(&mut dataplane, &program), want);

        // An endpoint that is isolated before the program is known changes nothing of hosts.
        let mut unknown = program.endpoints.first().unwrap().clone();
        unknown.id.name = "new".to_owned();
        unknown.attachment = netpol_core::model::Attachment::Interface("new".to_owned());
        let isolate = Change::Isolate([unknown].into());
        open(flavour).apply(Update::new(1, isolate)).unwrap();
        let of_hosts = |state: &str| -> Vec<String> {
            let lines = state
                .lines()
                .filter(|it| ["HOST-", "RAW-", "DNAT"].iter().any(|name| it.contains(name)));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(of_hosts(&state(flavour)), of_hosts(&want));
        open(flavour).remove().unwrap();
        assert_eq!(state(flavour), before);
    });
}

/// Returns what belongs to the table `raw`.
fn foreign_of(foreign: &str) -> &str {
    foreign.split_inclusive("COMMIT\n").next().unwrap()
}

/// A table that other processes have put out of our sight is in our way only if we need it.
#[test]
fn a_table_that_cannot_be_listed_is_in_the_way_of_those_who_need_it() {
    in_namespaces(|flavour| {
        if flavour == crate::Flavour::Legacy {
            return;
        }
        let program = all_buckets(named("eth0"));
        let mut without = program.clone();
        without.hosts.endpoints.clear();
        tool("iptables-nft -t raw -A PREROUTING -j ACCEPT", "").unwrap();
        tool("nft add rule ip raw PREROUTING ct mark set 1", "").unwrap();
        let mut dataplane = open(flavour);
        apply(&mut dataplane, &without);
        let error = dataplane.apply(full(&program)).unwrap_err();
        assert_eq!(error.kind(), DataplaneErrorKind::Conflict);
        apply(&mut dataplane, &without);
        tool("nft flush chain ip raw PREROUTING", "").unwrap();
        apply(&mut dataplane, &program);
        dataplane.remove().unwrap();
    });
}

#[test]
fn what_no_chain_can_close_is_refused() {
    let check = |config: IptablesConfig, interfaces: Interfaces, want: &str| {
        let fake = Fake::default();
        let opened =
            IptablesDataplane::with_tools(Box::new(fake.clone()), Family::BOTH.to_vec(), config);
        let mut dataplane = opened.unwrap();
        let got = match dataplane.apply(full(&all_buckets(interfaces))) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.source().unwrap().to_string(),
        };
        assert!(got.starts_with(want), "{got}");
        assert_eq!(fake.host().sets.is_empty(), want != "fine");
        dataplane.capabilities().host_endpoints
    };
    let config = config(crate::Flavour::Nft);
    let mangle = IptablesConfig { table: TableName::Mangle, ..config.clone() };
    assert!(check(config.clone(), named("eth0"), "fine"));
    assert!(!check(mangle, named("eth0"), "policy of host endpoints needs the table `filter`"));
    assert!(check(config.clone(), named("eth+"), "interface `eth+` is no name that iptables"));
    let unmarked = IptablesConfig { mark: 0, ..config };
    assert!(check(unmarked, named("eth0"), "the packet mark has no bit"));
}
