//! How long updates take, in the real kernel. Run as root.
//!
//! `at_once` are changes that follow each other without a pause: what joins waits for programs that may still read what has
//! just left.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "bench code")]

use std::process::Command;
use std::thread;
use std::time::Duration;

use criterion::Criterion;
use netpol_ebpf::{EbpfConfig, EbpfDataplane, Hook, PrivateBpfFs};
use nix::sched::{CloneFlags, unshare};

#[path = "../../netpol-netfilter/benches/support/node.rs"]
mod node;

/// Longer than a grace period of RCU.
const PAUSE: Duration = Duration::from_millis(60);

fn main() {
    let bench = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("no permission to make a network namespace");
        for pod in 0..node::PODS {
            let link = format!("link add np{pod} type veth peer name peer{pod}");
            let made = Command::new("ip").args(link.split(' ')).status();
            assert!(made.expect("the tool `ip` is installed").success());
        }
        let mut criterion = Criterion::default().sample_size(20).configure_from_args();
        for members in [100, 1_000] {
            for (prefix, pause) in [("", PAUSE), ("at_once/", Duration::ZERO)] {
                let pins = PrivateBpfFs::new().unwrap();
                let mut config = EbpfConfig::default();
                (config.bpf_fs, config.hook) = (pins.path(), Hook::Clsact);
                let dataplane = EbpfDataplane::open(config).unwrap();
                node::updates(&mut criterion, prefix, members, pause, dataplane);
            }
        }
        criterion.final_summary();
    });
    bench.join().expect("the bench does not panic");
}
