//! A process that is killed while it works: whatever step it was at, what it leaves enforces, and its successor puts it
//! right.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use netpol_core::model::Object;
use netpol_core::net::Transport;
use netpol_core::{Dataplane, Direction, Verdict};

use super::packet::{Packet, SYN};
use super::world::{
    Node, address, config, full, in_namespace, interfaces, objects, pod, policy, program, to_nets,
    to_ports,
};
use crate::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};

use Verdict::{Allow, Deny};

/// Tells the test that is a process of its own where its BPF file system is.
const VICTIM: &str = "NETPOL_EBPF_TEST_VICTIM";

/// What that process says when it begins with its updates.
const READY: &str = "updates begin";

/// Updates until it is killed: with each of them everything changes but two ports.
#[test]
fn victim() {
    let Some(bpf_fs) = env::var_os(VICTIM).map(PathBuf::from) else { return };
    let config = EbpfConfig { bpf_fs, capacity: Capacity::small(), ..EbpfConfig::default() };
    let mut dataplane = EbpfDataplane::open(config).unwrap();
    println!("{READY}");
    for number in 1..10_000 {
        let applied = dataplane.apply(full(&program(&generation(number)))).unwrap();
        assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
    }
}

#[test]
fn whoever_is_killed_leaves_what_enforces() {
    in_namespace(|| {
        interfaces(3);
        let pins = PrivateBpfFs::new().unwrap();
        let mut node = Node { dataplane: EbpfDataplane::open(config(&pins)).unwrap(), pins };
        node.apply(&generation(0));
        for round in 0..20 {
            let Node { dataplane, pins } = node;
            drop(dataplane);
            let mut victim = start(&pins);
            if round % 5 > 0 {
                // Else it is killed while it opens, most likely.
                let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
                assert!(lines.any(|line| line.unwrap().contains(READY)), "it ended");
            }
            thread::sleep(Duration::from_micros(round * 2_300));
            let ended = victim.try_wait().unwrap();
            assert_eq!(ended, None, "it ended before it was killed");
            victim.kill().unwrap();
            victim.wait().unwrap();
            node = Node { dataplane: EbpfDataplane::open(config(&pins)).unwrap(), pins };
            for v6 in [false, true] {
                let probe = |port| Packet::tcp((address(1, v6), 9), (address(0, v6), port), SYN);
                assert_eq!(node.receives(&probe(80)), Allow, "round {round}");
                assert_eq!(node.receives(&probe(81)), Deny, "round {round}");
            }
            let next = generation(u16::try_from(round).unwrap());
            node.apply(&next);
            let drift = node.dataplane.audit(&program(&next)).unwrap();
            assert!(drift.is_none(), "round {round}: {drift:?}");
        }
    });
}

/// The node with rules of which each has this number.
fn generation(number: u16) -> Vec<Object> {
    let mut ranges = vec![(80, 80)];
    ranges.extend((1..=8).map(|it| (it * 1000 + number % 900, it * 1000 + 900)));
    let nets: Vec<String> = (0..100).map(|it| format!("10.{}.{it}.0/24", number % 200)).collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let mut objects = objects(vec![
        policy("in", Direction::Ingress, vec![to_ports(Transport::Tcp, &ranges)]),
        policy("out", Direction::Egress, vec![to_nets(&nets)]),
    ]);
    if number.is_multiple_of(3) {
        // An endpoint that comes and goes.
        objects.retain(|it| !matches!(it, Object::Endpoint(it) if *it == pod(2)));
    }
    objects
}

/// Starts the victim in the namespace of the calling thread.
fn start(pins: &PrivateBpfFs) -> Child {
    let descriptor = pins.path().file_name().unwrap().to_owned();
    let bpf_fs = PathBuf::from(format!("/proc/{}/fd", std::process::id())).join(descriptor);
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::crash::victim", "--nocapture"])
        .env(VICTIM, bpf_fs)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
