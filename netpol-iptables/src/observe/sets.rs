//! The output of `ipset save`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_core::net::{Family, Prefix, Transport};

use super::ObservedSet;
use crate::name::{Name, Owner};
use crate::ruleset::{Member, Shape, Storage};

/// Returns the sets of an owner in a listing.
pub(crate) fn sets(owner: &Owner, listing: &str) -> BTreeMap<Name, ObservedSet> {
    let mut sets: BTreeMap<Name, ObservedSet> = BTreeMap::new();
    for line in listing.lines() {
        let mut words = line.split(' ');
        let (Some(command), Some(name)) = (words.next(), words.next()) else { continue };
        let Some(name) = owner.own_set(name) else { continue };
        match command {
            "create" => drop(sets.insert(name, created(words))),
            "add" => {
                let set = sets.entry(name).or_default();
                let member = words.next().zip(set.shape).and_then(|(text, it)| member(it, text));
                match (member, words.next()) {
                    (Some(member), None) => set.members.push(member),
                    _ => set.spoiled = true,
                }
            }
            _ => {}
        }
    }
    sets.values_mut().for_each(|set| set.members.sort_unstable());
    sets
}

/// Returns the empty set of the rest of a line such as `create NAME hash:ip family inet hashsize 64 maxelem 65536`.
fn created<'l>(mut words: impl Iterator<Item = &'l str>) -> ObservedSet {
    let mut set = ObservedSet::default();
    let storage = match words.next() {
        Some("hash:ip") => Some(Storage::Addresses),
        Some("hash:net") => Some(Storage::Prefixes),
        Some("hash:ip,port") => Some(Storage::Ports),
        _ => None,
    };
    let (mut family, mut known) = (None, true);
    while let Some(option) = words.next() {
        let value = words.next().unwrap_or_default();
        match (option, value) {
            ("family", "inet") => family = Some(Family::V4),
            ("family", "inet6") => family = Some(Family::V6),
            ("maxelem", _) => set.limit = value.parse().unwrap_or_default(),
            ("hashsize" | "bucketsize" | "initval", _) => {}
            // A time-out or a flag such as `counters` changes what the set does.
            _ => known = false,
        }
    }
    let shape = storage.zip(family).map(|(storage, family)| Shape { storage, family });
    set.shape = shape.filter(|_| known);
    set
}

impl Shape {
    /// Returns how many bits an address has.
    fn host_len(self) -> &'static str {
        match self.family {
            Family::V4 => "32",
            Family::V6 => "128",
        }
    }
}

fn member(shape: Shape, text: &str) -> Option<Member> {
    match shape.storage {
        Storage::Addresses => text.parse().ok().map(Member::Address),
        Storage::Prefixes => {
            let (address, len) = text.split_once('/').unwrap_or((text, shape.host_len()));
            let prefix = Prefix::as_it_stands(address.parse().ok()?, len.parse().ok()?);
            prefix.ok().map(Member::Prefix)
        }
        Storage::Ports => {
            let (address, port) = text.split_once(',')?;
            let (transport, port) = port.split_once(':')?;
            // `ipset` prints the name where `/etc/protocols` has it.
            let transport = match transport {
                "tcp" | "6" => Transport::Tcp,
                "udp" | "17" => Transport::Udp,
                "sctp" | "132" => Transport::Sctp,
                _ => return None,
            };
            let address: IpAddr = address.parse().ok()?;
            Some(Member::Port(address, transport, port.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by ipset 7.17.
    const LISTING: &str = "\
create np4s-aaa hash:ip family inet hashsize 64 maxelem 65536 bucketsize 12 initval 0xc28b52bb
add np4s-aaa 10.0.0.2
add np4s-aaa 10.0.0.1
create np4q-bbb hash:ip,port family inet hashsize 1024 maxelem 128 bucketsize 12 initval 0xa54cb47a
add np4q-bbb 10.0.0.1,sctp:80
add np4q-bbb 10.0.0.2,6:81
add np4q-bbb 10.0.0.1,icmp:8/0
create np6c-ccc hash:net family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0xef8a86ca
add np6c-ccc 8000::/1
add np6c-ccc 2001:db8::1
add np6c-ccc ::ffff:0.0.0.0/96
create other hash:ip family inet hashsize 1024 maxelem 65536
add other 10.0.0.9
create np4t-ddd hash:ip family inet hashsize 1024 maxelem 65536 timeout 60
add np4t-ddd 10.0.0.3 timeout 59
create np4s-eee bitmap:port range 0-1024
add np4s-eee 7
";

    #[test]
    fn sets_are_read() {
        let lines: Vec<String> = sets(&Owner::default(), LISTING)
            .into_iter()
            .map(|(name, set)| {
                let shape = set.shape.map_or("none".to_owned(), |shape| shape.to_string());
                let members: Vec<String> = set.members.iter().map(Member::to_string).collect();
                let spoiled = if set.spoiled { " spoiled" } else { "" };
                format!("{name} {shape} {} {}{spoiled}", set.limit, members.join(" "))
            })
            .collect();
        assert_eq!(
            lines,
            [
                "np4q-bbb hash:ip,port family inet 128 10.0.0.1,132:80 10.0.0.2,6:81 spoiled",
                "np4s-aaa hash:ip family inet 65536 10.0.0.1 10.0.0.2",
                "np4s-eee none 0  spoiled",
                "np4t-ddd none 65536  spoiled",
                "np6c-ccc hash:net family inet6 65536 ::ffff:0.0.0.0/96 2001:db8::1/128 8000::/1",
            ]
        );
    }
}
