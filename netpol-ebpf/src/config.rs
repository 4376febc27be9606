//! How a dataplane is called, how large it is, and how it attaches.

use std::path::PathBuf;

use netpol_core::flat::Limits;
use netpol_ebpf_abi::maps;

/// How a dataplane is called, how large it is, and how it attaches.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EbpfConfig {
    /// The name of the folder of our pins. Several dataplanes can live on one host under different names.
    pub owner: String,
    /// Where the BPF file system is mounted.
    pub bpf_fs: PathBuf,
    /// How programs are attached.
    pub hook: Hook,
    /// How much the maps hold.
    pub capacity: Capacity,
    /// What happens to packets from an endpoint with a source address that it does not own.
    pub foreign_sources: ForeignSources,
    /// How many denials each interface may tell of in a second. The others are only counted, so that no endpoint takes
    /// the room that those of others need.
    pub denials_per_second: u32,
}

impl Default for EbpfConfig {
    /// The owner `netpol` at `/sys/fs/bpf`; foreign sources are dropped.
    fn default() -> Self {
        Self {
            owner: "netpol".to_owned(),
            bpf_fs: PathBuf::from("/sys/fs/bpf"),
            hook: Hook::default(),
            capacity: Capacity::default(),
            foreign_sources: ForeignSources::default(),
            denials_per_second: 100,
        }
    }
}

/// How programs are attached to the host's side of interfaces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the kernel has these two")]
pub enum Hook {
    /// TCX where the kernel has it (Linux 6.6), else the clsact queueing discipline.
    #[default]
    Detected,
    /// TCX with pinned links. Nobody removes such a program by accident. Where an update finds many new interfaces, most of
    /// them get filters as with [`Self::Clsact`] first, because links take long, and links with later updates that bring or
    /// take endpoints.
    Tcx,
    /// A filter of priority 50 of the clsact queueing discipline. Whoever may change filters can remove it; the next full
    /// update puts it back.
    Clsact,
}

/// What happens to packets from an endpoint with a source address that it does not own. Link-local addresses of IPv6
/// pass in any case, and so does what an endpoint without known addresses sends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "they are dropped or judged")]
pub enum ForeignSources {
    /// They are dropped.
    #[default]
    Drop,
    /// They are judged as if the endpoint owned the address.
    Judge,
}

/// How much the maps hold. Those of policy are made twice as large, so that an update fits beside what it replaces.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Capacity {
    /// Endpoints.
    pub endpoints: u32,
    /// Single addresses of each family.
    pub addresses: u32,
    /// Prefixes of each family.
    pub prefixes: u32,
    /// Pairs of a policy set and a class of addresses.
    pub rows: u32,
    /// Entries of lists of ports; a range takes up to 30.
    pub ports: u32,
    /// Rules, and ends of stages.
    pub counters: u32,
    /// IPv4 flows. The memory is taken at once, 112 bytes each. When it is full, those forgotten first were not used for longest.
    pub flows4: u32,
    /// IPv6 flows, 136 bytes each.
    pub flows6: u32,
    /// Fragmented datagrams.
    pub fragments: u32,
    /// Bytes of events that nobody has read yet. A power of two, at least a page.
    pub events: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            endpoints: 1024,
            addresses: 131_072,
            prefixes: 32_768,
            rows: 131_072,
            ports: 65_536,
            counters: 32_768,
            flows4: 262_144,
            flows6: 131_072,
            fragments: 8192,
            events: 1 << 20,
        }
    }
}

impl Capacity {
    /// Returns a capacity for tests and small hosts: a few megabytes.
    #[must_use]
    pub fn small() -> Self {
        Self {
            endpoints: 64,
            addresses: 4096,
            prefixes: 4096,
            rows: 8192,
            ports: 8192,
            counters: 2048,
            flows4: 4096,
            flows6: 4096,
            fragments: 512,
            events: 1 << 16,
        }
    }

    /// Returns how many records of endpoints there are: those in force, those to come, and record 0.
    pub(crate) const fn records(&self) -> u32 {
        self.endpoints.saturating_mul(2).saturating_add(1)
    }

    /// Returns the limits of a flat form that fits.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::unlimited();
        limits.addresses = self.addresses;
        limits.prefixes = self.prefixes;
        limits.entries = self.rows;
        limits.entries_per_policy_set = self.rows;
        limits.ranges = self.rows.saturating_mul(4);
        limits.ranges_per_row = self.ports;
        limits
    }

    /// Returns the sizes of the maps.
    pub(crate) fn sizes(&self) -> [(&'static str, u32); 15] {
        let double = |size: u32| size.saturating_mul(2);
        let names =
            double(double(self.endpoints.saturating_add(self.rows).saturating_add(self.counters)));
        [
            (maps::SPILLED, self.endpoints),
            (maps::ENDPOINTS, self.records()),
            (maps::OWN, self.endpoints.saturating_mul(8)),
            (maps::ADDRESSES4, double(self.addresses)),
            (maps::ADDRESSES6, double(self.addresses)),
            (maps::PREFIXES4, double(self.prefixes)),
            (maps::PREFIXES6, double(self.prefixes)),
            (maps::ROWS, double(self.rows)),
            (maps::PORTS, double(self.ports)),
            (maps::FLOWS4, self.flows4),
            (maps::FLOWS6, self.flows6),
            (maps::FRAGMENTS, self.fragments),
            (maps::COUNTERS, double(self.counters)),
            (maps::EVENTS, self.events),
            (maps::NAMES, names),
        ]
    }
}
