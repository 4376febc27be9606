//! The real tools and kernel, each test in a network namespace of its own, which vanishes with its thread.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::error::Error as _;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use netpol_core::model::Action;
use netpol_core::net::Family;
use netpol_core::program::{PolicySet, Program, StageEnd};
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update, Verdict};
use nix::sched::{CloneFlags, unshare};

use super::program::{
    Builder, deny_unless, everything, in_nets, in_set, many_members, nets, rule, stage,
};
use crate::probe::{KernelTable, TableId};
use crate::render::MAX_DEPTH;
use crate::{
    Flavour, IptablesConfig, IptablesDataplane, IptablesError, Owner, PodNetwork, TableName,
};
use netpol_netfilter::Logging;

/// Runs `body` in a new network namespace for each flavour.
pub(crate) fn in_namespaces(body: impl Fn(Flavour) + Send + Copy + 'static) {
    Flavour::BOTH.into_iter().for_each(|flavour| in_namespace(move || body(flavour)));
}

/// Runs `body` in a new network namespace.
pub(crate) fn in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect(
            "no permission to make a network namespace; run as root, or under `unshare --user --map-root-user`",
        );
        body()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a tool in the namespace of the calling thread.
pub(crate) fn tool(line: &str, input: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iptables and ipset are installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Returns all that iptables and ipset list, without comments and random numbers.
pub(crate) fn state(flavour: Flavour) -> String {
    let lines =
        ["iptables", "ip6tables"].map(|it| tool(&format!("{it}-{flavour}-save"), "").unwrap());
    let sets = tool("ipset save", "").unwrap();
    let mut sets: Vec<&str> =
        sets.lines().map(|line| line.split(" initval").next().unwrap()).collect();
    sets.sort_unstable();
    let lines = lines.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    // The nft flavour makes built-in chains when they are first used.
    let lines = lines.map(|line| line.split(" [").next().unwrap());
    lines.chain(sets).map(|line| format!("{line}\n")).collect()
}

fn without_dates(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

pub(crate) fn config(flavour: Flavour) -> IptablesConfig {
    IptablesConfig { flavour: Some(flavour), ..IptablesConfig::default() }
}

pub(crate) fn open(flavour: Flavour) -> IptablesDataplane {
    IptablesDataplane::open(config(flavour)).unwrap()
}

pub(crate) fn full(program: &Program) -> Update {
    Update::new(1, Change::Full(Arc::new(program.clone())))
}

/// Applies a program and returns what the kernel has then.
pub(crate) fn apply(dataplane: &mut IptablesDataplane, program: &Program) -> String {
    let applied = dataplane
        .apply(full(program))
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.source().map(ToString::to_string)));
    assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
    state(dataplane.flavour())
}

#[test]
fn what_is_rendered_is_observed() {
    in_namespaces(|flavour| {
        let program = everything().build();
        let mut dataplane = open(flavour);
        apply(&mut dataplane, &program);
        assert_eq!(dataplane.audit(&program).unwrap().differences, Vec::<String>::new());
    });
}

/// Options that iptables prints in another form than it takes them.
fn as_printed(word: &str) -> String {
    let address = word.parse::<std::net::IpAddr>();
    match (word, address) {
        ("10/second", _) => "10/sec".to_owned(),
        // As `/etc/protocols` has it.
        ("ipencap", _) => "4".to_owned(),
        (_, Ok(std::net::IpAddr::V4(_))) => format!("{word}/32"),
        (_, Ok(std::net::IpAddr::V6(_))) => format!("{word}/128"),
        _ => word.to_owned(),
    }
}

/// Returns the words of a rule in a fixed order, without the names of modules.
fn essence(rule: &str) -> Vec<String> {
    let words: Vec<&str> = rule.split_whitespace().map(|word| word.trim_matches('"')).collect();
    let module = |index: usize| index > 0 && words.get(index - 1) == Some(&"-m");
    let kept = words.iter().enumerate().filter(|(index, word)| **word != "-m" && !module(*index));
    let mut kept: Vec<String> = kept.map(|(_, word)| as_printed(word)).collect();
    kept.sort_unstable();
    kept
}

/// The tools may take a rule and program another one without a word, so what they list is compared with what we wrote.
#[test]
fn no_condition_is_lost_on_the_way() {
    in_namespaces(|flavour| no_condition_is_lost(flavour, &everything().build()));
}

pub(crate) fn no_condition_is_lost(flavour: Flavour, program: &Program) {
    apply(&mut open(flavour), program);
    let (owner, second_slots, refused) = Default::default();
    let context = crate::render::Context {
        owner: &owner,
        families: &Family::BOTH,
        table: KernelTable::Filter,
        mark: config(flavour).mark,
        logging: Logging::DEFAULT,
        second_slots: &second_slots,
        refused: &refused,
    };
    let rendered = crate::render::render(program, context).ruleset;
    for (TableId { family, table }, chains) in rendered.chains {
        let tool_name = if family == Family::V4 { "iptables" } else { "ip6tables" };
        let listed = tool(&format!("{tool_name}-{flavour}-save -t {table}"), "").unwrap();
        let own = listed.lines().filter(|line| line.starts_with("-A NP"));
        let mut got: Vec<Vec<String>> = own.map(essence).collect();
        let line =
            |name: &crate::name::Name, rule: &crate::ruleset::Rule| format!("-A {name} {rule}");
        let mut want: Vec<Vec<String>> = chains
            .iter()
            .flat_map(|(name, chain)| {
                chain.rules.iter().map(move |rule| essence(&line(name, rule)))
            })
            .collect();
        got.sort_unstable();
        want.sort_unstable();
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got, want, "{flavour} {family} {table}");
        }
        assert_eq!(got.len(), want.len());
    }
}

#[test]
fn a_second_process_adopts_what_it_finds() {
    in_namespaces(|flavour| {
        let program = everything().build();
        let first = apply(&mut open(flavour), &program);
        let rules = |text: &str| text.lines().filter(|line| line.starts_with("-A")).count();
        assert!(rules(&first) > 100, "{first}");
        // A chain that is made anew would lose its counters.
        let chain = format!("iptables-{flavour}-restore --noflush -c");
        let policy = first.lines().find(|line| line.starts_with("-A NP-I-")).unwrap();
        let delete = policy.replacen("-A", "-D", 1);
        let counted =
            format!("*filter\n{delete}\n[7:700] {}\nCOMMIT\n", policy.replacen("-A", "-I", 1));
        tool(&chain, &counted).unwrap();
        let counters = format!("iptables-{flavour}-save -c");
        let before = without_dates(&tool(&counters, "").unwrap());
        let second = apply(&mut open(flavour), &program);
        assert_eq!(first, second);
        assert!(before.contains("[7:700]"), "{before}");
        assert_eq!(before, without_dates(&tool(&counters, "").unwrap()));
        assert!(open(flavour).audit(&program).unwrap().is_none());
    });
}

#[test]
fn what_iptables_saves_it_can_load_again() {
    in_namespaces(|flavour| {
        let listed = apply(&mut open(flavour), &everything().build());
        let saved =
            ["iptables", "ip6tables"].map(|it| tool(&format!("{it}-{flavour}-save"), "").unwrap());
        let sets = tool("ipset save", "").unwrap();
        in_namespace(move || {
            tool("ipset restore", &sets).unwrap();
            for (program, text) in ["iptables", "ip6tables"].iter().zip(&saved) {
                tool(&format!("{program}-{flavour}-restore"), text).unwrap();
            }
            assert_eq!(state(flavour), listed);
        });
    });
}

#[test]
fn remove_takes_what_is_ours_and_nothing_else() {
    for table in [TableName::Filter, TableName::Mangle] {
        in_namespaces(move |flavour| {
            let others = "*filter\n:NPX-FWD - [0:0]\n:np-fwd - [0:0]\n-A NPX-FWD -j DROP\n\
                -A FORWARD -m comment --comment \"it's not np:hook -j NP-FWD\" -j NPX-FWD\n-A FORWARD -j ACCEPT\nCOMMIT\n\
                *mangle\n:OTHER - [0:0]\n-A OUTPUT -j OTHER\nCOMMIT\n";
            for program in ["iptables", "ip6tables"] {
                tool(&format!("{program}-{flavour}-restore"), others).unwrap();
                // The nft flavour makes the other built-in chains when one of them is first named.
                tool(&format!("{program}-{flavour} -t mangle -I FORWARD -j ACCEPT"), "").unwrap();
            }
            tool("ipset create np-other hash:ip", "").unwrap();
            tool("ipset create npa4s-000000000000000000000000 hash:ip", "").unwrap();
            let before = state(flavour);
            let config = IptablesConfig { table, ..config(flavour) };
            let mut dataplane = IptablesDataplane::open(config).unwrap();
            dataplane.remove().unwrap();
            assert_eq!(state(flavour), before);
            let during = apply(&mut dataplane, &everything().build());
            assert!(
                during.contains("-A FORWARD -m comment --comment \"np:hook\" -j NP-FWD"),
                "{during}"
            );
            dataplane.remove().unwrap();
            assert_eq!(state(flavour), before);
            dataplane.remove().unwrap();
        });
    }
}

#[test]
fn owners_do_not_meet() {
    in_namespaces(|flavour| {
        let config = IptablesConfig { owner: Owner::new("ab").unwrap(), ..config(flavour) };
        let mut other = IptablesDataplane::open(config).unwrap();
        let before = apply(&mut other, &everything().build());
        let mut dataplane = open(flavour);
        apply(&mut dataplane, &everything().build());
        assert!(dataplane.audit(&everything().build()).unwrap().is_none());
        dataplane.remove().unwrap();
        assert_eq!(state(flavour), before);
    });
}

#[test]
fn the_other_flavour_is_refused_while_it_has_our_chains() {
    in_namespaces(|flavour| {
        apply(&mut open(flavour), &everything().build());
        let before = state(flavour);
        let error = IptablesDataplane::open(config(flavour.other())).unwrap_err();
        assert!(matches!(error, IptablesError::OtherFlavour { .. }), "{error}");
        assert_eq!(state(flavour), before);
        let found = IptablesDataplane::open(IptablesConfig::default()).unwrap();
        assert_eq!(found.flavour(), flavour);
        open(flavour).remove().unwrap();
        apply(&mut open(flavour.other()), &everything().build());
    });
}

#[test]
fn a_flavour_is_found_without_making_tables() {
    in_namespace(|| {
        IptablesDataplane::open(IptablesConfig::default()).unwrap();
        let tables = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names");
        assert_eq!(tables.unwrap_or_default(), "");
    });
}

#[test]
fn whatever_was_changed_is_repaired() {
    in_namespaces(|flavour| {
        let program = everything().build();
        let mut dataplane = open(flavour);
        let want = apply(&mut dataplane, &program);
        let word = |prefix: &str| {
            let mut words = want.split([' ', '\n']);
            words.find(|word| word.starts_with(prefix)).unwrap().to_owned()
        };
        let (chain, exact, nets) = (word("NP-I-"), word("np4s-"), word("np4c-"));
        for damage in [
            "iptables -F".to_owned(),
            "ip6tables -F".to_owned(),
            "iptables -F FORWARD".to_owned(),
            "iptables -I FORWARD -j ACCEPT".to_owned(),
            "iptables -F NP-FWD".to_owned(),
            format!("iptables -I {chain} -j ACCEPT"),
            format!("iptables -A {chain} -p tcp -j RETURN"),
            "iptables -D NP-INGRESS 1".to_owned(),
            "iptables -A NP-ISO-FROM -s 10.0.1.1 -j DROP".to_owned(),
            "iptables -N NP-EXTRA".to_owned(),
            format!("ipset flush {exact}"),
            format!("ipset add {exact} 10.9.9.9"),
            format!("ipset flush {nets}"),
            format!("ipset add {nets} 1.0.0.0/8"),
            "ipset create np4s-000000000000000000000000 hash:ip".to_owned(),
        ] {
            let command = damage.replacen("tables ", &format!("tables-{flavour} "), 1);
            tool(&command, "").unwrap_or_else(|error| panic!("{command}: {error}"));
            assert!(!dataplane.audit(&program).unwrap().is_none(), "{damage}");
            let got = apply(&mut dataplane, &program);
            assert_eq!(got.replace("-A FORWARD -j ACCEPT\n", ""), want, "{damage}");
            assert_eq!(
                dataplane.audit(&program).unwrap().differences,
                Vec::<String>::new(),
                "{damage}"
            );
        }
    });
}

#[test]
fn every_prefix_length_works() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        let cases: [&[&str]; 7] = [
            &["0.0.0.0/0", "::/0"],
            &["0.0.0.0/1", "8000::/1"],
            &["128.0.0.0/1", "::/1"],
            &["255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"],
            &["0.0.0.0/32", "::/128"],
            &["10.0.0.0/9", "10.128.0.0/10", "10.192.0.0/32", "11.0.0.0/8"],
            &[
                "1.0.0.0/8",
                "3.0.0.0/8",
                "224.0.0.0/4",
                "255.0.0.0/8",
                "2001:db8::/32",
                "fc00::/7",
                "ff00::/8",
            ],
        ];
        for (index, prefixes) in cases.into_iter().enumerate() {
            let mut one = rule(1, Action::Allow);
            one.remote = in_nets(prefixes);
            let mut other = rule(2, Action::Allow);
            other.remote.not_nets = nets(prefixes);
            let policy = deny_unless(vec![one, other]);
            let mut pod = builder.endpoint(&format!("pod{index}"), &["10.0.0.1"]);
            pod.ingress = builder.policy(policy);
            builder.add(pod);
        }
        let mut dataplane = open(flavour);
        apply(&mut dataplane, &builder.build());
        assert_eq!(dataplane.audit(&builder.build()).unwrap().differences, Vec::<String>::new());
    });
}

/// The largest IPv4 and IPv6 addresses, every port, and addresses that no set takes.
#[test]
fn extreme_members_are_no_obstacle() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        let peers =
            builder.addresses("peers", &["0.0.0.0", "255.255.255.255", "::", "::1", "ff02::1"]);
        let ports = builder
            .named_port("http", &[("0.0.0.0", 1), ("10.0.0.1", 65_535), ("::", 1), ("fd00::1", 1)]);
        let mut one = rule(1, Action::Allow);
        one.remote = in_set(peers);
        let mut other = rule(2, Action::Allow);
        let listed = netpol_core::program::Ports { sets: vec![ports], ..Default::default() };
        other.l4 = super::program::to_ports(netpol_core::net::Transport::Tcp, listed);
        let mut pod = builder.endpoint("pod", &["0.0.0.0", "10.0.0.1"]);
        pod.egress = builder.policy(deny_unless(vec![one, other]));
        builder.add(pod.clone());
        pod.id = netpol_core::model::EndpointId::workload("ns", "bridged");
        pod.attachment = netpol_core::model::Attachment::Address;
        builder.add(pod);
        let mut dataplane = open(flavour);
        apply(&mut dataplane, &builder.build());
        assert_eq!(dataplane.audit(&builder.build()).unwrap().differences, Vec::<String>::new());
    });
}

#[test]
fn a_set_grows_beyond_its_limit() {
    in_namespaces(|flavour| {
        let mut dataplane = open(flavour);
        for members in [3, 70_000 - 11_000, 100] {
            let program = many_members(1, members);
            apply(&mut dataplane, &program);
            assert_eq!(dataplane.audit(&program).unwrap().differences, Vec::<String>::new());
        }
        let name = state(flavour)
            .lines()
            .find_map(|line| line.strip_prefix("create np4"))
            .unwrap()
            .to_owned();
        let name = format!("np4{}", name.split(' ').next().unwrap());
        tool("ipset create small hash:ip maxelem 2", "").unwrap();
        tool(&format!("ipset swap small {name}"), "").unwrap();
        let program = many_members(1, 100);
        apply(&mut dataplane, &program);
        assert_eq!(dataplane.audit(&program).unwrap().differences, Vec::<String>::new());
    });
}

#[test]
fn as_many_stages_work_as_we_say() {
    in_namespaces(|flavour| {
        let policy = |stages: usize| PolicySet {
            stages: (0..stages)
                .map(|number| {
                    let it = rule(u8::try_from(number).unwrap(), Action::Pass);
                    stage(vec![it], StageEnd::Next)
                })
                .collect(),
            default: Verdict::Deny,
        };
        // So many endpoints that all lists of them are as deep as they become.
        let mut builder = Builder::new();
        for number in 0..100 {
            let mut pod = builder.endpoint(&format!("pod{number}"), &["10.0.0.1", "fd00::1"]);
            pod.ingress = builder.policy(policy(MAX_DEPTH));
            pod.egress = pod.ingress;
            builder.add(pod);
        }
        let mut dataplane = open(flavour);
        let state = apply(&mut dataplane, &builder.build());
        for list in ["EGRESS -i", "INGRESS -o", "RELATED -i"] {
            assert!(state.contains(&format!("-A NP-{list} pod1+ ")), "{state}");
        }

        let mut deep = builder.endpoint("deep", &["10.0.0.2"]);
        deep.ingress = builder.policy(policy(MAX_DEPTH + 1));
        let applied = dataplane.apply(full(&builder.add(deep).build())).unwrap();
        let kinds: Vec<_> =
            applied.isolated.iter().map(|(id, it)| (id.name.as_str(), it.kind())).collect();
        assert_eq!(kinds, [("deep", DataplaneErrorKind::Capacity)]);
        assert!(self::state(flavour).contains("-A NP-ISO-FROM -i deep "));
    });
}

#[test]
fn new_endpoints_are_closed_until_the_program_is_known() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        let known = builder.endpoint("known", &["10.0.0.1"]);
        let new = builder.endpoint("new", &["10.0.0.2"]);
        let before = builder.clone().add(known.clone()).build();
        let mut dataplane = open(flavour);
        for program in [None, Some(&before)] {
            if let Some(program) = program {
                apply(&mut dataplane, program);
            }
            let isolate = Change::Isolate(vec![known.clone(), new.clone()].into());
            dataplane.apply(Update::new(1, isolate.clone())).unwrap();
            let state = state(flavour);
            for name in ["NP-ISO-FROM -i", "NP-ISO-TO -o"] {
                assert_eq!(
                    state.contains(&format!("-A {name} known ")),
                    program.is_none(),
                    "{state}"
                );
                assert!(state.contains(&format!("-A {name} new ")), "{state}");
            }
            dataplane.apply(Update::new(2, isolate)).unwrap();
            assert_eq!(self::state(flavour), state);
        }
        let after = builder.add(known).add(new).build();
        apply(&mut dataplane, &after);
        assert!(!state(flavour).contains("-A NP-ISO"));
    });
}

#[test]
fn names_that_tenants_choose_stay_outside() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        let hostile = "x\"\n-A FORWARD -j ACCEPT\nCOMMIT\n'`$(touch /tmp/x) --comment";
        let mut it = rule(1, Action::Log);
        it.remote = in_set(builder.named(hostile, &["10.0.0.1"]));
        it.origin.name = Some(hostile.to_owned());
        let mut policy = stage(vec![it], StageEnd::Deny);
        policy.tier = hostile.to_owned();
        let mut pod = builder.endpoint("pod", &["10.0.0.1"]);
        pod.id = netpol_core::model::EndpointId::workload(hostile, hostile).with_uid(hostile);
        pod.ingress = builder.policy(PolicySet { stages: vec![policy], default: Verdict::Deny });
        let mut dataplane = open(flavour);
        let state = apply(&mut dataplane, &builder.add(pod.clone()).build());
        assert!(!state.contains("touch") && !state.contains("ACCEPT\nCOMMIT"), "{state}");

        // An interface's name is the node's choice; one that is none closes the endpoint.
        for name in ["x -j ACCEPT", "-j", "veth+", "!", "", "a\"b", "0123456789abcdef", "é"] {
            pod.attachment = netpol_core::model::Attachment::Interface(name.to_owned());
            let mut program = Builder::new();
            let applied =
                dataplane.apply(full(&program.adopt(&builder).only(pod.clone()).build())).unwrap();
            assert_eq!(applied.isolated.len(), 1, "{name}");
            assert!(self::state(flavour).contains("-A NP-ISO-TO -d 10.0.0.1/32 "), "{name}");
        }
    });
}

#[test]
fn a_dataplane_belongs_to_the_namespace_in_which_it_was_opened() {
    in_namespaces(|flavour| {
        let mut dataplane = open(flavour);
        let program = everything().build();
        let (dataplane, elsewhere) = in_namespace(move || {
            apply(&mut dataplane, &program);
            assert!(dataplane.audit(&program).unwrap().is_none());
            (dataplane, state(flavour))
        });
        assert!(!elsewhere.contains("NP-FWD"), "{elsewhere}");
        assert!(state(flavour).contains("NP-FWD"));
        drop(dataplane);
    });
}

#[test]
fn the_hook_can_move_to_another_table() {
    in_namespaces(|flavour| {
        let program = everything().build();
        let want = apply(&mut open(flavour), &program);
        let config = IptablesConfig { table: TableName::Mangle, ..config(flavour) };
        let moved = apply(&mut IptablesDataplane::open(config).unwrap(), &program);
        assert_ne!(moved, want);
        let filter = |state: &str| state.split("*mangle").next().unwrap().to_owned();
        let own = |state: String| state.lines().filter(|it| it.contains("NP-FWD -")).count();
        let mangle_first = moved.find("*mangle") < moved.find("*filter");
        let in_filter = if mangle_first {
            moved.split("*filter").nth(1).unwrap().to_owned()
        } else {
            filter(&moved)
        };
        assert_eq!(own(in_filter.split("COMMIT").next().unwrap().to_owned()), 0, "{moved}");
        let back = apply(&mut open(flavour), &program);
        let without = |state: &str| {
            state.lines().filter(|it| it.starts_with("-A")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without(&back), without(&want));
    });
}

#[test]
fn packets_are_counted_by_rule() {
    in_namespaces(|flavour| {
        let mut builder = Builder::new();
        let mut pod = builder.endpoint("pod", &["10.0.0.1"]);
        let allow = rule(7, Action::Allow);
        let id = allow.id;
        pod.ingress = builder.policy(deny_unless(vec![allow]));
        let program = builder.add(pod).build();
        let mut dataplane = open(flavour);
        apply(&mut dataplane, &program);
        for program in ["iptables", "ip6tables"] {
            // The same chain again, with counters.
            let listed = tool(&format!("{program}-{flavour}-save"), "").unwrap();
            let rules: Vec<&str> =
                listed.lines().filter(|line| line.starts_with("-A NP-I-")).collect();
            let [allow, deny] = rules.as_slice() else { panic!("{rules:?}") };
            let chain = allow.split(' ').nth(1).unwrap();
            let counted =
                format!("*filter\n:{chain} - [0:0]\n[3:30] {allow}\n[5:50] {deny}\nCOMMIT\n");
            tool(&format!("{program}-{flavour}-restore --noflush -c"), &counted).unwrap();
        }
        // `ip6tables-nft-restore` does not take counters (1.8.9).
        let families = if flavour == Flavour::Legacy { 2 } else { 1 };
        let counters = dataplane.counters().unwrap();
        let counted = (counters.rules.get(&id).copied(), counters.unmatched);
        assert_eq!(counted, (Some(3 * families), 5 * families));
        apply(&mut dataplane, &program);
        assert_eq!(dataplane.counters().unwrap(), counters);
    });
}

#[test]
fn a_bridge_that_bypasses_netfilter_is_noticed() {
    in_namespaces(|flavour| {
        let setting = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
        let mut config = config(flavour);
        config.pods = PodNetwork::Bridged;
        std::fs::write(setting, "0").unwrap();
        let refused = IptablesDataplane::open(config.clone()).unwrap_err();
        assert!(refused.to_string().contains(setting), "{refused}");
        std::fs::write(setting, "1").unwrap();
        let mut dataplane = IptablesDataplane::open(config).unwrap();
        apply(&mut dataplane, &Builder::new().build());
        assert!(dataplane.audit(&Builder::new().build()).unwrap().differences.is_empty());
        std::fs::write(setting, "0").unwrap();
        let error = dataplane.audit(&Builder::new().build()).unwrap_err();
        assert_eq!(error.kind(), DataplaneErrorKind::Unsupported);
    });
}
