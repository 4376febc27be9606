//! Packets by the million: the judge, the interpreter and the flat form agree on each, and what they say is on record.
//!
//! The clusters come from a seed, so a run can be repeated: equal code says equal things of equal packets, and the digest of
//! all that was said is in `packets.record`. A change that alters a verdict alters the digest. To see which change that was,
//! compare the lines that `NETPOL_PACKETS_LOG` writes.
//!
//! `cargo test` asks as many packets as the first line of the record says; `NETPOL_PACKETS=10000000` asks that many, and then
//! compares with the line that has this number.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};

use netpol_core::eval::Judge;
use netpol_core::flat::{self, Flat, Limits, TableKey};
use netpol_core::model::{Inputs, Object};
use netpol_core::program::Program;
use netpol_core::{Capabilities, Direction, Explanation, Flow, Reason, Step, Verdict};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sha2::{Digest, Sha256};

use self::cluster::{compiled, crowded, flows, objects};

/// The seed of the clusters.
const SEED: [u8; 32] = *b"netpol agreement, the first seed";

/// The lines `packets digest`.
const RECORD: &str = include_str!("packets.record");

/// What was said so far.
struct Log {
    digest: Sha256,
    file: Option<BufWriter<File>>,
    packets: usize,
}

impl Log {
    fn new() -> Self {
        let file = env::var_os("NETPOL_PACKETS_LOG");
        let file = file.map(|path| BufWriter::new(File::create(path).unwrap()));
        Self { digest: Sha256::new(), file, packets: 0 }
    }

    fn note(&mut self, line: &str) {
        self.digest.update(line.as_bytes());
        self.packets += 1;
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes()).unwrap();
        }
    }

    fn finish(mut self) -> String {
        if let Some(file) = &mut self.file {
            file.flush().unwrap();
        }
        self.digest.finalize().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }
}

/// Asks all packets of a cluster, up to a number.
fn ask(objects: &[Object], seed: usize, log: &mut Log, until: usize) {
    let capabilities = Capabilities::all();
    let mut inputs = Inputs::default();
    objects.iter().for_each(|object| inputs.upsert(object.clone()));
    let program = compiled(objects, &capabilities);
    let flat = flat::classify(&program, &Limits::unlimited()).unwrap();
    let judge = Judge::new(&inputs, &capabilities);
    for flow in flows(objects, seed) {
        if log.packets == until {
            return;
        }
        let mut judged = judge.evaluate(&flow).enforced;
        for half in [&mut judged.egress, &mut judged.ingress] {
            half.steps.retain(Step::is_known_to_programs);
        }
        let outcome = program.outcome(&flow);
        for (direction, judged, said) in [
            (Direction::Egress, &judged.egress, outcome.egress),
            (Direction::Ingress, &judged.ingress, outcome.ingress),
        ] {
            let said =
                said.unwrap_or_else(|| Explanation::at_once(Verdict::Allow, Reason::NoEndpoint));
            assert_eq!(&said, judged, "{direction} of {flow} in {objects:#?}");
            flat_agrees(&flat, &program, direction, &flow, &said);
        }
        log.note(&format!("{flow}: {} / {}\n", judged.egress, judged.ingress));
    }
}

fn flat_agrees(
    flat: &Flat,
    program: &Program,
    direction: Direction,
    flow: &Flow,
    said: &Explanation,
) {
    let asks =
        matches!(said.reason, Reason::Rule(_) | Reason::NoMatch { .. } | Reason::DefaultVerdict);
    let local = if direction == Direction::Egress { flow.source } else { flow.destination };
    let owner = program.endpoints.iter().find(|it| it.addresses.contains(&local));
    let Some(endpoint) = owner.filter(|_| asks) else { return };
    let key = TableKey { policy_set: endpoint.policy_set(direction), direction };
    if flat.unclassified().contains_key(&key) {
        return;
    }
    if let Some(flat) = flat.explain(key, flow) {
        assert_eq!(
            (flat.verdict, &flat.reason),
            (said.verdict, &said.reason),
            "{direction} of {flow}"
        );
    }
}

#[test]
fn what_is_said_of_packets_is_on_record() {
    let asked = env::var("NETPOL_PACKETS").ok().map(|it| it.parse::<usize>().unwrap());
    let mut records = RECORD.lines().filter_map(|line| line.split_once(' '));
    let (until, wanted) = match asked {
        Some(asked) => {
            (asked, records.find(|(number, _)| *number == asked.to_string()).map(|it| it.1))
        }
        None => {
            records.next().map(|(number, digest)| (number.parse().unwrap(), Some(digest))).unwrap()
        }
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (sparse, crowded) = (objects(), crowded());
    let mut log = Log::new();
    for seed in 0.. {
        if log.packets == until {
            break;
        }
        let cluster = if seed % 3 == 0 {
            sparse.new_tree(&mut runner).unwrap().current()
        } else {
            crowded.new_tree(&mut runner).unwrap().current()
        };
        ask(&cluster, seed, &mut log, until);
    }
    let digest = log.finish();
    match wanted {
        Some(wanted) => assert_eq!(
            digest, wanted,
            "other things were said of {until} packets than are on record"
        ),
        None => panic!("no record of {until} packets; they have the digest {digest}"),
    }
}
