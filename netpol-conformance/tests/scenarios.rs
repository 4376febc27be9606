//! All scenarios of this crate, on every subject.
//!
//! The kernels need root, of the machine or of a user namespace: `cargo xtask test` sees to that.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::path::Path;

use netpol_conformance::document::files;
use netpol_conformance::report::{Conclusion, pretty};
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

#[track_caller]
fn check(backend: Backend) {
    let report =
        run(&shipped(), &[backend], &Unseen).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let skipped = report.summary.values().map(|counts| counts.skip).sum::<usize>();
    assert!(report.conclusion() == Conclusion::Passed && skipped == 0, "\n{}", pretty(&report));
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
    use netpol_conformance::subject::{Kernel, Open};
    use netpol_nft::{NftConfig, NftDataplane};
    use std::sync::Arc;

    let open: Arc<Open> = Arc::new(|| Ok(Box::new(NftDataplane::open(NftConfig::default())?)));
    check(Backend::new("nft", 8, move || Ok(Box::new(Kernel::new(Arc::clone(&open))?))));
}

#[cfg(feature = "ebpf")]
#[test]
fn ebpf_passes_all_scenarios() {
    use netpol_conformance::subject::{Kernel, Open};
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
        Ok(Box::new(Kernel::new(open)?))
    }));
}

#[cfg(feature = "iptables")]
mod iptables {
    use std::sync::Arc;

    use netpol_conformance::runner::Backend;
    use netpol_conformance::subject::{Kernel, Open};
    use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane};

    fn check(name: &'static str, flavour: Flavour) {
        let open: Arc<Open> = Arc::new(move || {
            let mut config = IptablesConfig::default();
            config.flavour = Some(flavour);
            Ok(Box::new(IptablesDataplane::open(config)?))
        });
        super::check(Backend::new(name, 8, move || Ok(Box::new(Kernel::new(Arc::clone(&open))?))));
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
