//! What a caller configures, and what follows from it.

use std::time::Duration;

use netpol_core::Capabilities;
use netpol_netfilter::{Logging, Period};

use crate::error::IptablesError;
use crate::name::Owner;
use crate::probe::{Flavour, PodNetwork, TableName};

/// How a dataplane is called and where it stands among the other users of iptables.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IptablesConfig {
    /// The tag in the names of our chains and sets. Several dataplanes can live on one host under different tags.
    pub owner: Owner,
    /// The flavour of iptables; `None` for that of the host.
    pub flavour: Option<Flavour>,
    /// The table whose built-in chains we hook into. Host endpoints need [`TableName::Filter`].
    pub table: TableName,
    /// What Log rules write, where, and how often. The kernel takes prefixes of 63 bytes, and bursts of what comes in a
    /// day at the most: 5 packets at 5 a day or more, 1 at 1 a day. It counts in tenths of a millisecond between packets.
    pub logging: Logging,
    /// Where the packets of pods pass.
    pub pods: PodNetwork,
    /// How long a tool may take before it is killed.
    pub time_limit: Duration,
    /// Bits of the packet mark that nobody else uses. They say that policy of a host endpoint before destination NAT has
    /// allowed a packet. Without such policy no mark is read or written.
    pub mark: u32,
}

impl Default for IptablesConfig {
    /// No tag, the host's flavour, the table `filter`, logs to group 100, routed pods, 30 seconds.
    fn default() -> Self {
        Self {
            owner: Owner::default(),
            flavour: None,
            table: TableName::default(),
            logging: Logging::DEFAULT,
            pods: PodNetwork::default(),
            time_limit: Duration::from_secs(30),
            mark: 0x0010_0000,
        }
    }
}

/// Source: `prefix` of `struct xt_nflog_info` in `include/uapi/linux/netfilter/xt_NFLOG.h` has 64 bytes and ends with a NUL.
const LOG_PREFIX_BYTES: usize = 63;

/// Refuses what the kernel would. A burst that takes longer than a day to come back overflows its credits: `MAX_CPJ` and
/// `limit_mt_check` in `net/netfilter/xt_limit.c`.
pub(super) fn check_logging(logging: Logging) -> Result<(), IptablesError> {
    let Logging { prefix, rate, .. } = logging;
    let bytes = prefix.longest();
    if bytes > LOG_PREFIX_BYTES {
        return Err(IptablesError::LogPrefix { prefix, bytes, max: LOG_PREFIX_BYTES });
    }
    let product = |number: u16, seconds: u32| u64::from(number) * u64::from(seconds);
    let fills = product(rate.burst(), rate.period().seconds());
    if fills > product(rate.packets(), Period::Day.seconds()) {
        return Err(IptablesError::LogBurst { rate });
    }
    Ok(())
}

/// What iptables can express here.
pub(super) fn capabilities(config: &IptablesConfig) -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.log = true;
    capabilities.deltas = true;
    capabilities.host_endpoints = config.table == TableName::Filter;
    capabilities.reject = config.table == TableName::Filter;
    capabilities
}
