//! The backends of this build.

use std::num::NonZero;
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use std::sync::Arc;
#[cfg(feature = "ebpf")]
use std::sync::Mutex;
use std::thread::available_parallelism;

use netpol_conformance::runner::Backend;
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
use netpol_conformance::subject::{Kernel, KnownBy, Open, SubjectError};
use netpol_conformance::subject::{Model, Programs};
use netpol_conformance::topology::Proxy;
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

/// How those backends work that are on a kernel.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(feature = "ebpf", feature = "iptables", feature = "nft")),
    expect(dead_code, reason = "no backend is on a kernel")
)]
pub(crate) struct Settings {
    /// Their [patience](Kernel::with_patience).
    pub(crate) patience: NonZero<u32>,
    /// What translates the addresses of Services on their nodes.
    pub(crate) proxy: Proxy,
}

impl Settings {
    /// Those of a machine that is not slow.
    pub(crate) const USUAL: Self = Self { patience: NonZero::<u32>::MIN, proxy: Proxy::Nft };
}

/// Returns every backend of this build.
#[cfg_attr(
    not(any(feature = "ebpf", feature = "iptables", feature = "nft")),
    expect(unused_variables, reason = "no backend is on a kernel")
)]
pub(crate) fn all(settings: Settings) -> Vec<Backend> {
    vec![
        Backend::new("model", cores(), || Ok(Box::new(Model::default()))),
        Backend::new("program", cores(), || Ok(Box::new(Programs::default()))),
        #[cfg(feature = "ebpf")]
        on_kernel("ebpf", settings, || {
            let open = open_ebpf();
            Ok(Kernel::new(Arc::clone(&open))?.with_bridges(KnownBy::Interface, open))
        }),
        #[cfg(feature = "nft")]
        on_kernel("nft", settings, || {
            let bridged = open_nft(netpol_nft::PodNetwork::Bridged);
            let routed = open_nft(netpol_nft::PodNetwork::Routed);
            Ok(Kernel::new(routed)?.with_bridges(KnownBy::Address, bridged))
        }),
        #[cfg(feature = "iptables")]
        on_kernel("iptables", settings, || iptables(Flavour::Nft)),
        #[cfg(feature = "iptables")]
        on_kernel("iptables-legacy", settings, || iptables(Flavour::Legacy)),
    ]
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Returns a backend on a kernel. `subject` makes that of one scenario.
#[cfg(any(feature = "ebpf", feature = "iptables", feature = "nft"))]
fn on_kernel(
    name: &str,
    Settings { patience, proxy }: Settings,
    subject: impl Fn() -> std::result::Result<Kernel, SubjectError> + Send + Sync + 'static,
) -> Backend {
    Backend::new(name, KERNEL_JOBS * cores(), move || {
        Ok(Box::new(subject()?.with_patience(patience).with_proxy(proxy)))
    })
}

/// Returns what makes a dataplane of nf_tables.
#[cfg(feature = "nft")]
pub(crate) fn open_nft(pods: netpol_nft::PodNetwork) -> Arc<Open> {
    Arc::new(move || {
        let mut config = NftConfig::default();
        config.pods = pods;
        Ok(Box::new(NftDataplane::open(config)?))
    })
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

#[cfg(feature = "iptables")]
fn iptables(flavour: Flavour) -> std::result::Result<Kernel, SubjectError> {
    let bridged = open_iptables(flavour, netpol_iptables::PodNetwork::Bridged);
    let routed = open_iptables(flavour, netpol_iptables::PodNetwork::Routed);
    Ok(Kernel::new(routed)?.with_bridges(KnownBy::Address, bridged))
}

/// Returns what makes a dataplane of a flavour of iptables.
#[cfg(feature = "iptables")]
fn open_iptables(flavour: Flavour, pods: netpol_iptables::PodNetwork) -> Arc<Open> {
    Arc::new(move || {
        let mut config = IptablesConfig::default();
        (config.flavour, config.pods) = (Some(flavour), pods);
        Ok(Box::new(IptablesDataplane::open(config)?))
    })
}

/// Returns the backends with these names, each once.
pub(crate) fn named(
    names: &[String],
    jobs: Option<NonZero<usize>>,
    settings: Settings,
) -> Result<Vec<Backend>> {
    let known = all(settings);
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
