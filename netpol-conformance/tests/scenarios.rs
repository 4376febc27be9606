//! All scenarios of this crate, on every subject.
//!
//! The kernels need root, of the machine or of a user namespace: `cargo xtask test` sees to that.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::path::Path;
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use std::sync::Arc;

use netpol_conformance::document::files;
use netpol_conformance::report::{Conclusion, Status, pretty};
use netpol_conformance::runner::{Backend, Progress, chain, run};
use netpol_conformance::scenario::{Scenario, load};
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use netpol_conformance::subject::{Kernel, KnownBy, Open, SubjectError};
use netpol_conformance::subject::{Model, Programs};
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use netpol_conformance::topology::Proxy;

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

/// All scenarios pass on the backend. Those with Services do so with either proxy.
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
fn check_kernel(
    name: &str,
    subject: impl Fn() -> Result<Kernel, SubjectError> + Send + Sync + Copy + 'static,
) {
    let backend = |proxy| Backend::new(name, 8, move || Ok(Box::new(subject()?.with_proxy(proxy))));
    check(backend(Proxy::Nft), shipped());
    let has_services =
        |scenario: &Scenario| scenario.about().requires.contains(&"services".to_owned());
    check(backend(Proxy::Iptables), shipped().into_iter().filter(has_services).collect());
}

/// Nothing fails, and what is skipped is just what the committed list says.
#[track_caller]
fn check(backend: Backend, scenarios: Vec<Scenario>) {
    let run_here = |name: &String| scenarios.iter().any(|it| it.about().name == *name);
    let allowed: BTreeSet<_> = skips(backend.name()).into_iter().filter(run_here).collect();
    let report =
        run(&scenarios, &[backend], &Unseen).unwrap_or_else(|error| panic!("{}", chain(&error)));
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
    check(Backend::new("model", 4, || Ok(Box::new(Model::default()))), shipped());
}

#[test]
fn the_programs_pass_all_scenarios() {
    check(Backend::new("program", 4, || Ok(Box::new(Programs::default()))), shipped());
}

#[cfg(feature = "nft")]
#[test]
fn nftables_passes_all_scenarios() {
    use netpol_nft::{NftConfig, NftDataplane, PodNetwork};

    let open = |pods| -> Arc<Open> {
        Arc::new(move || {
            let mut config = NftConfig::default();
            config.pods = pods;
            Ok(Box::new(NftDataplane::open(config)?))
        })
    };
    check_kernel("nft", move || {
        let kernel = Kernel::new(open(PodNetwork::Routed))?;
        Ok(kernel.with_bridges(KnownBy::Address, open(PodNetwork::Bridged)))
    });
}

#[cfg(feature = "ebpf")]
#[test]
fn ebpf_passes_all_scenarios() {
    use netpol_ebpf::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};

    check_kernel("ebpf", || {
        let pins = PrivateBpfFs::new().unwrap();
        let open: Arc<Open> = Arc::new(move || {
            let mut config = EbpfConfig::default();
            config.bpf_fs = pins.path();
            config.capacity = Capacity::small();
            Ok(Box::new(EbpfDataplane::open(config)?))
        });
        Ok(Kernel::new(Arc::clone(&open))?.with_bridges(KnownBy::Interface, open))
    });
}

#[cfg(feature = "iptables")]
mod iptables {
    use std::sync::Arc;

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
        super::check_kernel(name, move || {
            let kernel = Kernel::new(open(PodNetwork::Routed))?;
            Ok(kernel.with_bridges(KnownBy::Address, open(PodNetwork::Bridged)))
        });
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
