//! How long updates take, in the real kernel and in both flavours. Run as root, or under `unshare --user --map-root-user`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "bench code")]

use std::thread;
use std::time::Duration;

use criterion::Criterion;
use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane};
use nix::sched::{CloneFlags, unshare};

#[path = "../../netpol-netfilter/benches/support/node.rs"]
mod node;

fn main() {
    let bench = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("no permission to make a network namespace");
        let mut criterion = Criterion::default().sample_size(20).configure_from_args();
        for flavour in Flavour::BOTH {
            for members in [100, 1_000] {
                let mut config = IptablesConfig::default();
                config.flavour = Some(flavour);
                let dataplane = IptablesDataplane::open(config).unwrap();
                let prefix = format!("{flavour}/");
                node::updates(&mut criterion, &prefix, members, Duration::ZERO, dataplane);
            }
        }
        criterion.final_summary();
    });
    bench.join().expect("the bench does not panic");
}
