//! The backends of this build.

use std::num::NonZero;
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use std::sync::Arc;
#[cfg(feature = "ebpf")]
use std::sync::Mutex;
use std::thread::available_parallelism;

use netpol_conformance::runner::Backend;
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use netpol_conformance::subject::{Kernel, Open};
use netpol_conformance::subject::{Model, Programs};
#[cfg(feature = "ebpf")]
use netpol_ebpf::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};
#[cfg(feature = "iptables")]
use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane};
#[cfg(feature = "nft")]
use netpol_nft::{NftConfig, NftDataplane};

use super::Result;

/// The word for every backend.
const ALL: &str = "all";

/// How many files are run at a time on a kernel, for each processor: probes wait more than they work.
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
const KERNEL_JOBS: usize = 2;

/// Returns every backend of this build.
pub(crate) fn all() -> Vec<Backend> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    vec![
        Backend::new("model", cores, || Ok(Box::new(Model::default()))),
        Backend::new("program", cores, || Ok(Box::new(Programs::default()))),
        #[cfg(feature = "ebpf")]
        Backend::new("ebpf", KERNEL_JOBS * cores, || Ok(Box::new(Kernel::new(open_ebpf())?))),
        #[cfg(feature = "nft")]
        Backend::new("nft", KERNEL_JOBS * cores, || Ok(Box::new(Kernel::new(open_nft())?))),
        #[cfg(feature = "iptables")]
        iptables("iptables", Flavour::Nft, KERNEL_JOBS * cores),
        #[cfg(feature = "iptables")]
        iptables("iptables-legacy", Flavour::Legacy, KERNEL_JOBS * cores),
    ]
}

/// Returns what makes a dataplane of nf_tables.
#[cfg(feature = "nft")]
pub(crate) fn open_nft() -> Arc<Open> {
    Arc::new(|| Ok(Box::new(NftDataplane::open(NftConfig::default())?)))
}

/// Returns what makes a dataplane of eBPF. Its pins end with the file system that the maker keeps.
#[cfg(feature = "ebpf")]
pub(crate) fn open_ebpf() -> Arc<Open> {
    let pins: Mutex<Option<PrivateBpfFs>> = Mutex::new(None);
    Arc::new(move || {
        let mut pins =
            pins.lock().map_err(|_| "another thread failed to make a BPF file system")?;
        let pins = match &mut *pins {
            Some(pins) => pins,
            none => none.insert(PrivateBpfFs::new()?),
        };
        let mut config = EbpfConfig::default();
        config.bpf_fs = pins.path();
        config.capacity = Capacity::small();
        Ok(Box::new(EbpfDataplane::open(config)?))
    })
}

/// Returns the backend of a flavour of iptables.
#[cfg(feature = "iptables")]
fn iptables(name: &'static str, flavour: Flavour, jobs: usize) -> Backend {
    Backend::new(name, jobs, move || Ok(Box::new(Kernel::new(open_iptables(flavour))?)))
}

/// Returns what makes a dataplane of a flavour of iptables.
#[cfg(feature = "iptables")]
fn open_iptables(flavour: Flavour) -> Arc<Open> {
    Arc::new(move || {
        let mut config = IptablesConfig::default();
        config.flavour = Some(flavour);
        Ok(Box::new(IptablesDataplane::open(config)?))
    })
}

/// Returns the backends with these names, each once.
pub(crate) fn named(names: &[String], jobs: Option<NonZero<usize>>) -> Result<Vec<Backend>> {
    let known = all();
    let is_known = |name: &String| name == ALL || known.iter().any(|it| it.name() == *name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = known.iter().map(Backend::name).chain([ALL]).collect();
        return Err(
            format!("unknown backend `{unknown}`, expected one of: {}", known.join(", ")).into()
        );
    }
    let is_wanted =
        |backend: &Backend| names.iter().any(|name| name == ALL || name == backend.name());
    let wanted = known.into_iter().filter(is_wanted);
    Ok(match jobs {
        Some(jobs) => wanted.map(|backend| backend.with_jobs(jobs.get())).collect(),
        None => wanted.collect(),
    })
}
