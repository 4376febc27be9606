//! Hosts that are not as one wishes.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File};
use std::time::Duration;

use netpol_core::model::Action;
use netpol_core::net::Transport;
use netpol_core::program::Ports;
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::kernel::{apply, config, full, in_namespace, in_namespaces, open, state, tool};
use super::program::{Builder, deny_unless, everything, many_members, rule, to_ports};
use crate::{Flavour, IptablesConfig, IptablesDataplane, IptablesError};

/// Gives the other flavour the same chains.
fn double(flavour: Flavour) {
    for family in ["iptables", "ip6tables"] {
        let saved = tool(&format!("{family}-{flavour}-save -t filter"), "").unwrap();
        tool(&format!("{family}-{}-restore", flavour.other()), &saved).unwrap();
    }
}

#[test]
fn one_of_two_flavours_can_be_given_up() {
    in_namespaces(|flavour| {
        let program = everything().build();
        let want = apply(&mut open(flavour), &program);
        double(flavour);
        let sets = |state: &str| state.lines().filter(|it| it.starts_with("create")).count();
        for wanted in [None, Some(flavour), Some(flavour.other())] {
            let config = IptablesConfig { flavour: wanted, ..IptablesConfig::default() };
            let error = IptablesDataplane::open(config).unwrap_err();
            assert!(matches!(error, IptablesError::BothFlavours), "{error}");
        }
        IptablesDataplane::remove_flavour(&config(flavour), flavour.other()).unwrap();
        assert_eq!(state(flavour), want, "this one goes on judging");
        assert!(!state(flavour.other()).contains("NP-"));
        assert!(open(flavour).audit(&program).unwrap().is_none());

        double(flavour);
        IptablesDataplane::remove_flavour(&config(flavour), flavour).unwrap();
        assert_eq!(sets(&state(flavour)), sets(&want));
        assert!(open(flavour.other()).audit(&program).unwrap().is_none());
        IptablesDataplane::remove_flavour(&config(flavour), flavour.other()).unwrap();
        assert_eq!(sets(&state(flavour)), 0);
        apply(&mut open(flavour), &program);
    });
}

/// Without `/etc/protocols`, tools neither know nor print names of protocols.
#[test]
fn names_of_protocols_are_not_needed() {
    let program = || {
        let mut builder = Builder::new();
        let rules = [Transport::Tcp, Transport::Udp, Transport::Sctp].map(|transport| {
            let id = builder.named_port_of(transport, "http", &[("10.0.0.2", 80), ("fd00::2", 81)]);
            let mut it = rule(transport.protocol().number(), Action::Allow);
            it.l4 = to_ports(transport, Ports { sets: vec![id], ..Ports::default() });
            it
        });
        let mut pod = builder.endpoint("pod", &["10.0.0.1"]);
        pod.egress = builder.policy(deny_unless(rules.to_vec()));
        builder.add(pod).build()
    };
    in_namespaces(move |flavour| {
        let mut dataplane = open(flavour);
        let names = apply(&mut dataplane, &program());
        assert!(names.contains("10.0.0.2,sctp:80"), "{names}");
        cover("/etc/protocols", "/dev/null");
        let mut dataplane = open(flavour);
        assert_eq!(dataplane.audit(&program()).unwrap().differences, Vec::<String>::new());
        dataplane.remove().unwrap();
        let numbers = apply(&mut dataplane, &program());
        assert!(numbers.contains("10.0.0.2,132:80"), "{numbers}");
        assert!(dataplane.audit(&program()).unwrap().is_none());
    });
}

/// Puts another file where one is, for processes that the calling thread starts.
fn cover(path: &str, with: &str) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some(with), path, none, MsFlags::MS_BIND, none).unwrap();
}

#[test]
fn a_lock_that_somebody_holds_fails_and_changes_nothing() {
    let path = std::env::temp_dir().join(format!("netpol-lock-{}", std::process::id()));
    fs::write(&path, "").unwrap();
    let file = path.clone();
    in_namespace(move || {
        let usual = "/run/xtables.lock";
        drop(File::options().create(true).append(true).open(usual).unwrap());
        cover(usual, file.to_str().unwrap());
        let config =
            IptablesConfig { time_limit: Duration::from_millis(700), ..config(Flavour::Legacy) };
        let mut dataplane = IptablesDataplane::open(config).unwrap();
        let before = everything().build();
        let want = apply(&mut dataplane, &before);
        let after = many_members(2, 10);
        {
            let _held = Flock::lock(File::open(&file).unwrap(), FlockArg::LockExclusive).unwrap();
            for failed in [dataplane.apply(full(&after)).map(drop), dataplane.remove()] {
                assert_eq!(failed.unwrap_err().kind(), DataplaneErrorKind::Transient);
            }
            let rules = |state: &str| {
                let rules = state.lines().filter(|line| line.starts_with("-A"));
                rules.map(str::to_owned).collect::<Vec<_>>()
            };
            assert!(rules(&state(Flavour::Legacy)) == rules(&want));
        }
        // What was late is done by now, or is no obstacle.
        apply(&mut dataplane, &after);
        apply(&mut dataplane, &before);
        assert_eq!(dataplane.audit(&before).unwrap().differences, Vec::<String>::new());
    });
    fs::remove_file(path).unwrap();
}

/// One rule of `nft` in a table makes the nft flavour list nothing of it, and call that a success.
#[test]
fn a_table_that_cannot_be_listed_is_not_empty() {
    in_namespace(|| {
        let flavour = Flavour::Nft;
        let program = everything().build();
        let mut dataplane = open(flavour);
        let want = apply(&mut dataplane, &program);
        tool("nft add rule ip filter FORWARD ct mark set 1", "").unwrap();
        let pods: Change = Change::Isolate(program.endpoints.clone().into());
        for failed in [
            dataplane.apply(full(&program)).map(drop),
            dataplane.apply(Update::new(1, pods)).map(drop),
            dataplane.audit(&program).map(drop),
            dataplane.remove(),
        ] {
            assert_eq!(failed.unwrap_err().kind(), DataplaneErrorKind::Conflict);
        }
        let refused = |opened: Result<_, IptablesError>| {
            matches!(opened.unwrap_err(), IptablesError::Unreadable { .. })
        };
        assert!(refused(IptablesDataplane::open(config(flavour)).map(drop)));
        assert!(refused(IptablesDataplane::remove_flavour(&config(flavour), flavour)));
        tool("nft flush chain ip filter FORWARD", "").unwrap();
        apply(&mut dataplane, &program);
        assert_eq!(state(flavour), want);

        // In a table that we do not use, it is not in our way.
        tool("iptables-nft -t mangle -A FORWARD -j ACCEPT", "").unwrap();
        tool("nft add rule ip mangle FORWARD ct mark set 1", "").unwrap();
        apply(&mut open(flavour), &program);
        dataplane.remove().unwrap();
    });
}
