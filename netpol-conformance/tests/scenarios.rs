//! All scenarios of this crate, on every subject.
//!
//! The kernels need root, of the machine or of a user namespace: `cargo xtask test` sees to that.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::path::Path;

use netpol_conformance::document::files;
use netpol_conformance::report::{Conclusion, Status, pretty};
use netpol_conformance::runner::{Backend, Progress, chain, run};
use netpol_conformance::scenario::{Scenario, load};
use netpol_conformance::subject::{Model, Programs};

struct Unseen;

impl Progress for Unseen {
    fn advance(&self) {}
}

fn shipped() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let load = |file: &std::path::PathBuf| load(file).unwrap_or_else(|error| panic!("{error}"));
    files(&folder).unwrap().iter().map(load).collect()
}

/// Returns the scenarios that a backend may skip, from `skips.txt`.
fn skips(backend: &str) -> BTreeSet<String> {
    let entries = include_str!("skips.txt").lines().filter(|line| !line.starts_with('#'));
    let entries = entries.map(|line| {
        let mut words = line.splitn(3, ' ');
        let entry = (words.next().unwrap(), words.next().unwrap(), words.next());
        assert!(entry.2.is_some_and(|reason| !reason.is_empty()), "no reason: {line}");
        entry
    });
    entries.filter(|entry| entry.0 == backend).map(|entry| entry.1.to_owned()).collect()
}

/// Nothing fails, and what is skipped is just what the committed list says.
#[track_caller]
fn check(backend: Backend) {
    let allowed = skips(backend.name());
    let report =
        run(&shipped(), &[backend], &Unseen).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(report.conclusion() == Conclusion::Passed, "\n{}", pretty(&report));
    // What is denied is dropped without a word: ClusterNetworkPolicy asks for that.
    let refused: Vec<_> =
        report.results.iter().filter(|row| row.reason.starts_with("refused")).collect();
    assert!(refused.is_empty(), "denied by an answer: {refused:#?}");
    let skipped: BTreeSet<String> = report
        .results
        .iter()
        .filter(|row| row.status == Status::Skip)
        .map(|row| row.scenario.clone())
        .collect();
    assert_eq!(skipped, allowed, "tests/skips.txt lists what a backend skips\n{}", pretty(&report));
}

#[test]
fn the_model_passes_all_scenarios() {
    check(Backend::new("model", 4, || Ok(Box::new(Model::default()))));
}

#[test]
fn the_programs_pass_all_scenarios() {
    check(Backend::new("program", 4, || Ok(Box::new(Programs::default()))));
}

#[cfg(feature = "nft")]
#[test]
fn nftables_passes_all_scenarios() {
    use netpol_conformance::subject::{Kernel, KnownBy, Open};
    use netpol_nft::{NftConfig, NftDataplane, PodNetwork};
    use std::sync::Arc;

    let open = |pods| -> Arc<Open> {
        Arc::new(move || {
            let mut config = NftConfig::default();
            config.pods = pods;
            Ok(Box::new(NftDataplane::open(config)?))
        })
    };
    check(Backend::new("nft", 8, move || {
        let kernel = Kernel::new(open(PodNetwork::Routed))?;
        Ok(Box::new(kernel.with_bridges(KnownBy::Address, open(PodNetwork::Bridged))))
    }));
}

#[cfg(feature = "ebpf")]
#[test]
fn ebpf_passes_all_scenarios() {
    use netpol_conformance::subject::{Kernel, KnownBy, Open};
    use netpol_ebpf::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};
    use std::sync::Arc;

    check(Backend::new("ebpf", 8, || {
        let pins = PrivateBpfFs::new().unwrap();
        let open: Arc<Open> = Arc::new(move || {
            let mut config = EbpfConfig::default();
            config.bpf_fs = pins.path();
            config.capacity = Capacity::small();
            Ok(Box::new(EbpfDataplane::open(config)?))
        });
        Ok(Box::new(Kernel::new(Arc::clone(&open))?.with_bridges(KnownBy::Interface, open)))
    }));
}

#[cfg(feature = "iptables")]
mod iptables {
    use std::sync::Arc;

    use netpol_conformance::runner::Backend;
    use netpol_conformance::subject::{Kernel, KnownBy, Open};
    use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane, PodNetwork};

    fn check(name: &'static str, flavour: Flavour) {
        let open = move |pods| -> Arc<Open> {
            Arc::new(move || {
                let mut config = IptablesConfig::default();
                (config.flavour, config.pods) = (Some(flavour), pods);
                Ok(Box::new(IptablesDataplane::open(config)?))
            })
        };
        super::check(Backend::new(name, 8, move || {
            let kernel = Kernel::new(open(PodNetwork::Routed))?;
            Ok(Box::new(kernel.with_bridges(KnownBy::Address, open(PodNetwork::Bridged))))
        }));
    }

    #[test]
    fn the_nft_flavour_passes_all_scenarios() {
        check("iptables", Flavour::Nft);
    }

    #[test]
    fn the_legacy_flavour_passes_all_scenarios() {
        check("iptables-legacy", Flavour::Legacy);
    }
}
