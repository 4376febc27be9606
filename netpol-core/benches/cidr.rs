//! Prefixes: `cidr/lookup` finds the longest one that holds an address, `cidr/any_of` says whether one does, `cidr/build`
//! makes the map or the set, `cidr/difference` cuts half of the prefixes out of everything.
//!
//! Lengths are spread as in a routing table: most of them are long, and a third of the prefixes lie in others.
//! Each address that is looked up lies in a prefix or right behind one.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "benchmark code"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use netpol_core::net::{Family, Prefix, PrefixMap, PrefixSet};

const SIZES: [(&str, usize); 2] = [("1k", 1_000), ("100k", 100_000)];

/// Addresses in one measurement.
const LOOKUPS: u64 = 1_024;

/// Scrambled numbers, always the same: the linear congruential generator of Knuth's MMIX.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn address(&mut self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(self.next() as u32)),
            Family::V6 => {
                let low = u128::from(self.next()) << 64 | u128::from(self.next());
                IpAddr::V6(Ipv6Addr::from_bits(0x2001 << 112 | low))
            }
        }
    }
}

fn prefixes(family: Family, count: usize) -> Vec<Prefix> {
    let mut numbers = Numbers(1);
    let (short, long) = match family {
        Family::V4 => ([8, 12, 16, 20], [24, 24, 28, 32]),
        Family::V6 => ([24, 32, 40, 48], [56, 64, 64, 128]),
    };
    let mut prefixes: Vec<Prefix> = Vec::with_capacity(count);
    for index in 0..count {
        let length = usize::try_from(numbers.next() % 4).unwrap();
        let prefix = match prefixes.get(index / 2) {
            // What lies in a prefix that there is already.
            Some(outer) if index % 3 == 0 => {
                Prefix::containing(outer.first(), (outer.len() + 4).min(long[3])).unwrap()
            }
            _ if index % 8 == 1 => {
                Prefix::containing(numbers.address(family), short[length]).unwrap()
            }
            _ => Prefix::containing(numbers.address(family), long[length]).unwrap(),
        };
        prefixes.push(prefix);
    }
    prefixes
}

/// Returns addresses in prefixes, and behind their ends.
fn addresses(prefixes: &[Prefix]) -> Vec<IpAddr> {
    let mut numbers = Numbers(2);
    let behind = |address: IpAddr| match address {
        IpAddr::V4(it) => IpAddr::V4(Ipv4Addr::from_bits(it.to_bits().wrapping_add(1))),
        IpAddr::V6(it) => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits().wrapping_add(1))),
    };
    let any = |number: u64| prefixes[usize::try_from(number).unwrap() % prefixes.len()];
    (0..LOOKUPS)
        .map(|index| {
            let last = any(numbers.next()).last();
            if index % 2 == 0 { last } else { behind(last) }
        })
        .collect()
}

fn cidr(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cidr");
    for (family, name) in [(Family::V4, "v4"), (Family::V6, "v6")] {
        for (size, count) in SIZES {
            let size = format!("{size}_{name}");
            let prefixes = prefixes(family, count);
            let addresses = addresses(&prefixes);
            let map: PrefixMap<usize> =
                prefixes.iter().copied().enumerate().map(|(index, it)| (it, index)).collect();
            let set: PrefixSet = prefixes.iter().copied().collect();
            let (all, half): (PrefixSet, PrefixSet) = (
                [Prefix::all(family)].into_iter().collect(),
                prefixes.iter().copied().step_by(2).collect(),
            );
            group.throughput(Throughput::Elements(LOOKUPS));
            group.bench_function(BenchmarkId::new("lookup", &size), |bencher| {
                bencher.iter(|| {
                    addresses.iter().filter_map(|it| map.longest_match(black_box(*it))).count()
                });
            });
            group.bench_function(BenchmarkId::new("any_of/map", &size), |bencher| {
                bencher
                    .iter(|| addresses.iter().filter(|it| map.contains(black_box(**it))).count());
            });
            group.bench_function(BenchmarkId::new("any_of/set", &size), |bencher| {
                bencher
                    .iter(|| addresses.iter().filter(|it| set.contains(black_box(**it))).count());
            });
            group.throughput(Throughput::Elements(u64::try_from(count).unwrap()));
            group.bench_function(BenchmarkId::new("build/map", &size), |bencher| {
                bencher
                    .iter(|| prefixes.iter().map(|it| (*it, ())).collect::<PrefixMap<()>>().len());
            });
            group.bench_function(BenchmarkId::new("build/set", &size), |bencher| {
                bencher.iter(|| prefixes.iter().copied().collect::<PrefixSet>().prefixes().len());
            });
            group.bench_function(BenchmarkId::new("difference", &size), |bencher| {
                bencher.iter(|| all.difference(&half).prefixes().len());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, cidr);
criterion_main!(benches);
