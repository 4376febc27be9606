//! The real kernel, each test in a network namespace of its own, which vanishes with its thread.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

use std::error::Error as _;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use netpol_core::model::Action;
use netpol_core::program::{PolicySet, Program, StageEnd};
use netpol_core::{Change, Dataplane, DataplaneErrorKind, Update, Verdict};
use nix::sched::{CloneFlags, unshare};

use super::program::{Builder, deny_unless, everything, in_nets, many_members, nets, rule, stage};
use crate::name::{Name, Owner};
use crate::observe::Observed;
use crate::operation::Operation;
use crate::render::{Context, MAX_STAGES, Options, render};
use crate::ruleset::Ruleset;
use crate::transport::{Depth, Kernel, Netlink, Refusal};
use crate::{NftConfig, NftDataplane, NftError, PodNetwork};
use netpol_netfilter::Logging;

/// Runs `body` in a new network namespace.
pub(crate) fn in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("no permission to make a network namespace; run as root, or under `unshare --user --map-root-user`");
        body()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `nft` in the namespace of the calling thread.
pub(crate) fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool `nft` is installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn full(program: &Program) -> Update {
    Update::new(1, Change::Full(Arc::new(program.clone())))
}

pub(crate) fn observe() -> Observed {
    Netlink::open(Owner::default()).unwrap().observe(Depth::All).unwrap().unwrap_or_default()
}

fn rendered(program: &Program) -> Ruleset {
    rendered_with(program, Logging::DEFAULT)
}

pub(crate) fn rendered_with(program: &Program, logging: Logging) -> Ruleset {
    let (places, refused) = Default::default();
    let options = Options { priority: -5, logging, mark: 16 };
    render(program, &Context { options, places: &places, refused: &refused }).unwrap().ruleset
}

fn open() -> NftDataplane {
    NftDataplane::open(NftConfig::default()).unwrap()
}

/// Applies a program and returns what the kernel has then.
pub(crate) fn apply(dataplane: &mut NftDataplane, program: &Program) -> Observed {
    let applied = dataplane
        .apply(full(program))
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.source()));
    assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
    observe()
}

pub(crate) fn generation() -> u32 {
    Netlink::open(Owner::default()).unwrap().generation().unwrap()
}

#[test]
fn what_is_rendered_is_observed() {
    in_namespace(|| {
        let program = everything().build();
        let observed = apply(&mut open(), &program);
        assert_eq!(observed.ruleset.to_string(), rendered(&program).to_string());
        assert_eq!(observed.ruleset, rendered(&program));
        assert_eq!(observed.foreign, 0);
    });
}

#[test]
fn nft_lists_what_it_can_load_again() {
    let listed = in_namespace(|| {
        apply(&mut open(), &everything().build());
        nft(&["list", "ruleset"], "").unwrap()
    });
    assert!(listed.contains("\"pod-a\" . \"pod-a\""), "{listed}");
    let text = listed.clone();
    let again = in_namespace(move || {
        nft(&["-f", "-"], &text).unwrap();
        nft(&["list", "ruleset"], "").unwrap()
    });
    assert_eq!(listed, again);
}

/// `nft` compiles the text of a ruleset on its own, so this checks our encoding against its.
#[test]
fn nft_compiles_our_text_to_the_same_objects() {
    let program = everything().build();
    let want = rendered(&program);
    let comment = crate::name::TABLE_COMMENT;
    let text = format!("table inet netpol {{\ncomment \"{comment}\"\n{want}}}\n");
    let observed = in_namespace(move || {
        nft(&["-f", "-"], &text).unwrap();
        observe()
    });
    assert_eq!(observed.ruleset.to_string(), want.to_string());
    assert_eq!(observed.ruleset, want);
}

#[test]
fn a_second_process_adopts_what_it_finds() {
    in_namespace(|| {
        let program = everything().build();
        let first = apply(&mut open(), &program);
        let before = generation();
        let second = apply(&mut open(), &program);
        assert_eq!(generation(), before, "the second process changed something");
        assert_eq!(first.ruleset, second.ruleset);
        assert!(open().audit(&program).unwrap().is_none());
    });
}

#[test]
fn remove_takes_our_table_and_no_other() {
    in_namespace(|| {
        let others = "table inet other {\n\
                      chain np-forward {\n type filter hook forward priority -5\n ip saddr 10.0.0.1 drop\n }\n\
                      }\n\
                      table ip netpol {\n set np-ep-4 {\n type ipv4_addr\n }\n }\n";
        nft(&["-f", "-"], others).unwrap();
        let before = nft(&["list", "ruleset"], "").unwrap();
        let mut dataplane = open();
        dataplane.remove().unwrap();
        apply(&mut dataplane, &everything().build());
        dataplane.remove().unwrap();
        assert_eq!(nft(&["list", "ruleset"], "").unwrap(), before);
        dataplane.remove().unwrap();
    });
}

#[test]
fn a_table_of_somebody_else_is_left_alone() {
    in_namespace(|| {
        let mut dataplane = open();
        nft(&["add", "table", "inet", "netpol"], "").unwrap();
        assert!(matches!(
            NftDataplane::open(NftConfig::default()),
            Err(NftError::ForeignTable { .. })
        ));
        let error = dataplane.apply(full(&everything().build())).unwrap_err();
        assert_eq!(error.kind(), DataplaneErrorKind::Conflict);
        dataplane.remove().unwrap();
        assert!(nft(&["list", "ruleset"], "").unwrap().contains("table inet netpol"));
    });
}

#[test]
fn whatever_was_changed_is_repaired() {
    in_namespace(|| {
        let program = everything().build();
        let mut dataplane = open();
        let want = apply(&mut dataplane, &program).ruleset;
        let chain = want.chains.keys().find(|name| name.as_str().starts_with("np-eg-")).unwrap();
        let ports = want.sets.keys().find(|name| name.as_str().starts_with("np-p-")).unwrap();
        for damage in [
            "flush table inet netpol".to_owned(),
            "delete table inet netpol".to_owned(),
            "add table inet netpol { flags dormant; }".to_owned(),
            "flush chain inet netpol np-forward".to_owned(),
            "insert rule inet netpol np-forward accept".to_owned(),
            format!("insert rule inet netpol {chain} ip saddr 10.0.0.1 accept"),
            format!("add rule inet netpol {chain} tcp dport 80 jump np-extra"),
            "flush map inet netpol np-in-if".to_owned(),
            "add element inet netpol np-iso-4 { 10.0.1.1 }".to_owned(),
            "delete element inet netpol np-ep-if { \"pod-a\" }".to_owned(),
            format!("flush set inet netpol {ports}"),
            format!("add element inet netpol {ports} {{ 20000-20010 }}"),
            "add chain inet netpol np-forward { policy drop; }".to_owned(),
        ] {
            nft(&["-f", "-"], &format!("add chain inet netpol np-extra\n{damage}\n")).unwrap();
            assert!(!dataplane.audit(&program).unwrap().is_none(), "{damage}");
            assert_eq!(apply(&mut dataplane, &program).ruleset, want, "{damage}");
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
    in_namespace(|| {
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
            let mut pod = builder.endpoint(&format!("pod-{index}"), &["10.0.0.1"]);
            pod.ingress = builder.policy(deny_unless(vec![one, other]));
            builder.add(pod);
        }
        let program = builder.build();
        assert_eq!(apply(&mut open(), &program).ruleset, rendered(&program));
    });
}

#[test]
fn as_many_stages_as_we_say_are_possible() {
    in_namespace(|| {
        let mut builder = Builder::new();
        for (name, count) in [("fits", MAX_STAGES), ("too-many", MAX_STAGES + 1)] {
            let stages = (0..count).map(|number| {
                let rules = vec![rule(u8::try_from(number).unwrap(), Action::Allow)];
                stage(rules, StageEnd::Next)
            });
            let policy = PolicySet { stages: stages.collect(), default: Verdict::Deny };
            let mut pod = builder.endpoint(name, &["10.0.0.1"]);
            pod.ingress = builder.policy(policy);
            builder.add(pod);
        }
        let applied = open().apply(full(&builder.build())).unwrap();
        let isolated: Vec<_> =
            applied.isolated.iter().map(|(id, error)| (id.name.as_str(), error.kind())).collect();
        assert_eq!(isolated, [("too-many", DataplaneErrorKind::Capacity)]);
    });
}

#[test]
fn endpoints_are_isolated_until_the_program_is_known() {
    in_namespace(|| {
        let program = everything().build();
        let mut builder = Builder::new();
        let (old, new) =
            (builder.endpoint("pod-a", &["10.0.1.1"]), builder.endpoint("pod-new", &["10.0.1.9"]));
        let isolate = Update::new(1, Change::Isolate(Arc::new([old, new])));

        let mut dataplane = open();
        dataplane.apply(isolate.clone()).unwrap();
        let isolated = |observed: &Observed| {
            observed.ruleset.sets[&Name::new("np-iso-if")].elements.to_string()
        };
        assert_eq!(isolated(&observe()), r#""pod-a", "pod-new""#);
        assert!(observe().ruleset.chains.contains_key(&Name::new("np-output")));

        let before = apply(&mut dataplane, &program).ruleset;
        dataplane.apply(isolate.clone()).unwrap();
        let after = observe();
        assert_eq!(isolated(&after), r#""pod-c", "pod-new""#);
        assert_eq!(after.ruleset.sets[&Name::new("np-eg-if")], before.sets[&Name::new("np-eg-if")]);
        assert_eq!(after.ruleset.chains, before.chains);
        let generation_before = generation();
        dataplane.apply(isolate).unwrap();
        assert_eq!(generation(), generation_before);
    });
}

#[test]
fn before_the_program_is_known_nothing_is_repaired() {
    in_namespace(|| {
        let program = everything().build();
        let mut dataplane = open();
        apply(&mut dataplane, &program);
        nft(&["add", "element", "inet", "netpol", "np-in-if", "{ * : accept }"], "").unwrap();
        let before = nft(&["list", "map", "inet", "netpol", "np-in-if"], "").unwrap();
        let endpoints = [Builder::new().endpoint("pod-new", &["10.0.1.9"])];
        dataplane.apply(Update::new(1, Change::Isolate(Arc::new(endpoints)))).unwrap();
        assert_eq!(nft(&["list", "map", "inet", "netpol", "np-in-if"], "").unwrap(), before);
        assert_eq!(apply(&mut dataplane, &program).ruleset, rendered(&program));
    });
}

#[test]
fn a_successor_on_the_same_interface_is_not_known() {
    in_namespace(|| {
        let mut dataplane = open();
        let mut builder = Builder::new();
        let old = builder.endpoint("pod", &["10.0.1.1"]);
        let new = builder.endpoint("pod", &["10.0.1.2"]);
        apply(&mut dataplane, &builder.add(old.clone()).build());
        for (endpoint, isolated) in [(old, ""), (new, "\"pod\"")] {
            let isolate = Change::Isolate(Arc::new([endpoint]));
            dataplane.apply(Update::new(1, isolate)).unwrap();
            let set = &observe().ruleset.sets[&Name::new("np-iso-if")];
            assert_eq!(set.elements.to_string(), isolated);
        }
    });
}

#[test]
fn large_programs_and_small_buffers_work() {
    for buffer in [None, Some(212_992)] {
        in_namespace(move || {
            let program = many_members(40, 1_000);
            let mut kernel = Netlink::open(Owner::default()).unwrap();
            if let Some(bytes) = buffer {
                kernel.limit_batches(bytes);
            }
            let mut dataplane =
                NftDataplane::with_kernel(Box::new(kernel), NftConfig::default()).unwrap();
            assert_eq!(apply(&mut dataplane, &program).ruleset, rendered(&program));
            let changed = many_members(40, 1_001);
            let observed = apply(&mut dataplane, &changed);
            assert_eq!(dataplane.audit(&changed).unwrap().differences, Vec::<String>::new());
            assert_eq!(observed.ruleset.sets.len(), rendered(&changed).sets.len());
        });
    }
}

#[test]
fn counters_name_rules_and_ends() {
    in_namespace(|| {
        let mut dataplane = open();
        apply(&mut dataplane, &everything().build());
        let counters = dataplane.counters().unwrap();
        let rules: Vec<String> = counters.rules.keys().map(ToString::to_string).collect();
        let want: Vec<String> = (1..=11).map(|number| format!("{number:02x}").repeat(12)).collect();
        assert_eq!(rules, want);
        assert_eq!(counters.unmatched, 0);
    });
}

#[test]
fn a_change_of_policy_leaves_nothing_behind() {
    in_namespace(|| {
        let mut dataplane = open();
        let first = everything().build();
        let mut builder = everything();
        let mut other = rule(99, Action::Deny);
        other.remote = in_nets(&["172.16.0.0/12"]);
        let policy = builder.policy(deny_unless(vec![other, rule(98, Action::Allow)]));
        let mut second = builder.build();
        second.endpoints.retain(|endpoint| endpoint.id.name != "pod-d");
        for endpoint in &mut second.endpoints {
            (endpoint.ingress, endpoint.egress) = (policy, policy);
        }
        for program in [&first, &second, &first, &second] {
            assert_eq!(apply(&mut dataplane, program).ruleset, rendered(program));
        }
    });
}

#[test]
fn a_refused_batch_changes_nothing_and_says_why() {
    in_namespace(|| {
        let mut kernel = Netlink::open(Owner::default()).unwrap();
        let name = Name::new("np-missing");
        let operations = [
            Operation::AddTable,
            Operation::AddChain { name: Name::new("np-chain"), base: None },
            Operation::DeleteSet { name: name.clone() },
            Operation::DeleteChain { name },
        ];
        let refusal = kernel.commit(&operations).unwrap_err();
        assert!(matches!(refusal, Refusal::Operation { index: 2, .. }), "{refusal:?}");
        let error = refusal.into_error(&operations);
        assert_eq!(
            error.to_string(),
            "the kernel refused to remove set `np-missing`: No such file or directory (os error 2)"
        );
        assert_eq!(kernel.observe(Depth::All).unwrap(), None);
    });
}

#[test]
fn the_table_is_read_while_others_write_theirs() {
    in_namespace(|| {
        let program = many_members(4, 1_000);
        let mut dataplane = open();
        let want = apply(&mut dataplane, &program).ruleset;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = thread::spawn(move || {
            let mut other = Netlink::open(Owner::new("np-other").unwrap()).unwrap();
            let mut transactions = 0_u32;
            while !stopped.load(Ordering::Relaxed) {
                other.commit(&[Operation::AddTable]).unwrap();
                other.commit(&[Operation::DeleteTable]).unwrap();
                transactions += 2;
            }
            transactions
        });
        for _ in 0..20 {
            assert_eq!(observe().ruleset, want);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 0);
    });
}

#[test]
fn a_bridge_that_bypasses_netfilter_is_noticed() {
    in_namespace(|| {
        let setting = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
        let config = NftConfig { pods: PodNetwork::Bridged, ..NftConfig::default() };
        std::fs::write(setting, "0").unwrap();
        let refused = NftDataplane::open(config.clone()).unwrap_err();
        assert!(refused.to_string().contains(setting), "{refused}");
        assert!(NftDataplane::open(NftConfig::default()).is_ok());
        std::fs::write(setting, "1").unwrap();
        let mut dataplane = NftDataplane::open(config).unwrap();
        apply(&mut dataplane, &Builder::new().build());
        assert!(dataplane.audit(&Builder::new().build()).unwrap().differences.is_empty());
        std::fs::write(setting, "0").unwrap();
        let error = dataplane.audit(&Builder::new().build()).unwrap_err();
        assert_eq!(error.kind(), DataplaneErrorKind::Unsupported);
    });
}
