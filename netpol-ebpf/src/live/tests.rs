//! Deltas of histories, without a kernel.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::cell::Cell;
use std::collections::BTreeMap;

use netpol_core::flat::classify;
use netpol_core::{Applied, Capabilities, Change, Program};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use zerocopy::IntoBytes;

use super::*;
use crate::render::Map;
use crate::tests::history::{self, History, events, histories};

const OPTIONS: Options = Options { check_source: true, ports: 8192 };

/// An entry of a map.
type Part = ((Map, Vec<u8>), Vec<u8>);

/// What is in the maps of policy: keys and values, and names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Content {
    entries: BTreeMap<(Map, Vec<u8>), Vec<u8>>,
    names: BTreeMap<(Kind, u32), Digest>,
}

impl Content {
    fn of(image: &Image) -> Self {
        let mut content = Self::default();
        image.objects.iter().for_each(|(name, object)| content.add(*name, object));
        content
    }

    fn add(&mut self, name: (Kind, u32), object: &Object) {
        for (key, value) in parts(object) {
            assert_eq!(self.entries.insert(key, value), None, "{name:?} is not new");
        }
        self.names.insert(name, object.digest);
    }

    /// Does what a delta says. Nothing that is there is changed but classes of addresses.
    fn follow(&mut self, space: u32, steps: &Steps) {
        self.names.extend(steps.renamed.iter().copied());
        steps.new.iter().for_each(|(name, object)| self.add(*name, object));
        for (&(table, class), row) in &steps.rows {
            let key = (Map::Rows, abi::RowKey { table, class }.as_bytes().to_vec());
            let before = self.entries.insert(key, row.as_bytes().to_vec());
            assert_eq!(before, None, "a row was there");
        }
        let entry = |address: &IpAddr| render::entry(space, *address);
        for (address, class) in &steps.added {
            let before = self.entries.insert(entry(address), class.to_ne_bytes().to_vec());
            assert_eq!(before, None, "{address} has a class");
        }
        for (address, class) in &steps.moved {
            assert!(self.entries.insert(entry(address), class.to_ne_bytes().to_vec()).is_some());
        }
        for address in &steps.removed {
            assert!(self.entries.remove(&entry(address)).is_some());
        }
        for (name, object) in &steps.dead {
            self.names.remove(name);
            for (key, _) in parts(object) {
                assert!(self.entries.remove(&key).is_some(), "{name:?} is not whole");
            }
        }
    }
}

fn parts(object: &Object) -> Vec<Part> {
    let mut parts = Vec::new();
    for (map, entries) in &object.entries {
        let value = map.value_size();
        let count = entries.values.len() / value;
        let keys = entries.keys.chunks(entries.keys.len() / count.max(1));
        let both = keys.zip(entries.values.chunks(value));
        parts.extend(both.map(|(key, value)| ((*map, key.to_vec()), value.to_vec())));
    }
    parts
}

fn after_full(program: &Program, ids: &Ids) -> Option<Live> {
    let capacity = Capacity::small();
    let flat = classify(program, &capacity.limits()).ok()?;
    let mut ids = ids.clone();
    let image = render::render(program, &flat, &mut ids, OPTIONS).ok()?;
    Live::of(program, flat, image, ids, OPTIONS, &capacity)
}

#[test]
fn deltas_lead_to_what_the_whole_program_means() {
    let (deltas, covered, rows) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let test = |(clusters, at_once): (Vec<Vec<_>>, usize)| {
        let mut capabilities = Capabilities::minimal();
        capabilities.deltas = true;
        let mut history = History::new(&capabilities, &clusters[0]);
        let mut now: Option<Live> = None;
        let all: Vec<_> = clusters.windows(2).flat_map(|it| events(&it[0], &it[1])).collect();
        for some in std::iter::once(&all[..0]).chain(all.chunks(at_once)) {
            history.happens(some);
            let Some(update) = history.update() else { continue };
            history.answer(Ok(Applied::completely(update.generation)));
            let program = history::program(&update);
            let ids = Ids::new(BTreeMap::new(), 0, 2000);
            now = match (&update.change, now) {
                (Change::Delta(delta), Some(mut live)) => {
                    deltas.set(deltas.get() + 1);
                    let mut content = Content::of(&live.image().unwrap());
                    live.advance(delta).ok().map(|steps| {
                        covered.set(covered.get() + 1);
                        rows.set(rows.get() + steps.rows.len());
                        content.follow(live.space(), &steps);
                        assert!(content == Content::of(&live.image().unwrap()), "{steps:?}");
                        live
                    })
                }
                _ => None,
            };
            if let (Some(live), Some(fresh)) =
                (&now, now.as_ref().and_then(|it| after_full(&program, &it.ids)))
            {
                prop_assert_eq!(live.differences(&fresh), Vec::<String>::new());
            } else {
                prop_assert!(now.is_none(), "a full update would not have a memory");
                now = after_full(&program, &ids);
            }
        }
        Ok(())
    };
    runner.run(&histories(), test).unwrap_or_else(|error| panic!("{error}"));
    let (deltas, covered, rows) = (deltas.get(), covered.get(), rows.get());
    println!(
        "{deltas} deltas, {covered} of them without a full update, {rows} rows of new classes"
    );
    assert!(covered > deltas / 4 && rows > 500);
}
