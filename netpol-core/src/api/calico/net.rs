//! Addresses and CIDR blocks. Unlike Kubernetes, Calico has never taken octets that begin with zeros.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::super::field::List;
use super::super::report::{Path, Report};
use crate::net::{Family, Prefix, PrefixSet};

/// Most blocks of a list in a rule.
///
/// Source: `EntityRule` in Calico's `api/pkg/apis/projectcalico/v3`.
const MAX_NETS: usize = 256;

/// Most blocks of a network set. An API server's objects stay below it: etcd takes requests of 1.5 MiB, and a block
/// takes some 10 bytes.
const MAX_MEMBERS: usize = 160_000;

/// The family of the CIDR blocks of one rule, which all have the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct FamilyOfNets {
    /// What the rule says itself.
    version: Option<Family>,
    /// That of the first block.
    first: Option<Family>,
    has_both: bool,
}

impl FamilyOfNets {
    pub(super) const fn of_version(version: Option<Family>) -> Self {
        Self { version, first: None, has_both: false }
    }

    /// Returns the family for which the rule exists as far as these tell. Where they contradict each other, it is both.
    pub(super) fn family(self) -> Option<Family> {
        if self.has_both { None } else { self.version.or(self.first) }
    }

    fn check(&mut self, at: &Path<'_>, block: Prefix, report: &mut Report) {
        let family = block.family();
        match (self.version, self.first) {
            (Some(version), _) if version != family => {
                report.refuse(
                    at,
                    format!("`{block}` is {family}, expected {version} because of `ipVersion`"),
                );
                self.has_both = true;
            }
            (None, Some(first)) if first != family => {
                report.refuse(
                    at,
                    format!("`{block}` is {family}, expected {first} as the blocks before it"),
                );
                self.has_both = true;
            }
            _ => self.first = Some(family),
        }
    }
}

/// Reads `nets`; without entries there is no condition.
pub(super) fn read_nets(
    at: &Path<'_>,
    nets: &List<String>,
    family: &mut FamilyOfNets,
    report: &mut Report,
) -> Option<PrefixSet> {
    let is_empty = nets.value().is_some_and(Vec::is_empty);
    report.given(at, nets).filter(|_| !is_empty)?;
    Some(read_blocks(at, nets, family, report, |_, _, _| {}))
}

/// Reads `notNets`, where a block of every address would leave none.
pub(super) fn read_not_nets(
    at: &Path<'_>,
    nets: &List<String>,
    family: &mut FamilyOfNets,
    report: &mut Report,
) -> PrefixSet {
    read_blocks(at, nets, family, report, |report, at, block| {
        if block.len() == 0 {
            report.refuse(at, format!("`{block}` is every address, expected a smaller block"));
        }
    })
}

fn read_blocks(
    at: &Path<'_>,
    nets: &List<String>,
    family: &mut FamilyOfNets,
    report: &mut Report,
    check: impl Fn(&mut Report, &Path<'_>, Prefix),
) -> PrefixSet {
    let mut blocks = Vec::new();
    report.each_item_up_to(MAX_NETS, at, nets, "a CIDR block", |report, at, text| {
        if let Some(block) = read_block(at, text, report) {
            family.check(at, block, report);
            check(report, at, block);
            blocks.push(block);
        }
    });
    blocks.into_iter().collect()
}

/// Reads the members of a network set: blocks, of which host bits are masked, and addresses.
pub(super) fn read_members(at: &Path<'_>, nets: &List<String>, report: &mut Report) -> PrefixSet {
    let mut members = Vec::new();
    let expected = "a CIDR block or an address";
    report.each_item_up_to(MAX_MEMBERS, at, nets, expected, |report, at, text| {
        let address = || text.parse().ok().map(Prefix::host);
        let member = parse_block(text).map(|(_, block)| block).or_else(address);
        if member.is_none() {
            report.refuse(
                at,
                format!("`{text}` is neither a CIDR block nor an address, expected one such as `10.0.0.0/8`"),
            );
        }
        members.extend(member);
    });
    members.into_iter().collect()
}

fn read_block(at: &Path<'_>, text: &str, report: &mut Report) -> Option<Prefix> {
    let Some((address, block)) = parse_block(text) else {
        let expected = "an address and a prefix length such as `10.0.0.0/8`";
        report.refuse(at, format!("`{text}` is not a CIDR block, expected {expected}"));
        return None;
    };
    if Prefix::host(address).first() != block.first() {
        report.refuse(at, format!("`{text}` has host bits set, expected `{block}`"));
        return None;
    }
    Some(block)
}

/// Returns the address as it is written, and the block it is in.
fn parse_block(text: &str) -> Option<(IpAddr, Prefix)> {
    let (address, len) = text.split_once('/')?;
    let is_number = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    let len = if is_number { len.parse().ok()? } else { return None };
    let address = address.parse().ok()?;
    Some((address, Prefix::containing(address, len).ok()?))
}
