#![expect(clippy::unwrap_used, reason = "test code")]

use proptest::prelude::*;

use super::*;
use crate::attribute::messages;
use crate::encode::{Batch, Fit};
use crate::operation::{Content, Operation};
use crate::render::{Options, skeleton};
use netpol_netfilter::Logging;

/// Returns the messages of operations, which have the attributes of those that the kernel lists.
fn encoded(operations: &[Operation]) -> Vec<u8> {
    let mut batch = Batch::new(&Owner::default());
    assert!(operations.iter().all(|it| batch.try_push(it, usize::MAX) == Fit::Fits));
    batch.finish().to_vec()
}

/// Takes messages as the parts of a dump.
fn listed(bytes: &[u8]) -> Observed {
    let owner = Owner::default();
    let mut listing = Listing::new(&owner);
    for message in messages(bytes) {
        let Some(payload) = message.payload.get(4..) else { continue };
        // Source: `enum nf_tables_msg_types`.
        match message.kind {
            0xa03 => listing.chain(payload),
            0xa06 => listing.rule(payload),
            0xa09 => listing.set(payload),
            0xa0c => listing.elements(payload),
            _ => {}
        }
    }
    listing.finish()
}

fn operations(ruleset: &Ruleset) -> Vec<Operation> {
    let sets = ruleset.sets.iter().map(|(name, set)| {
        let (key, storage, content) = (set.key, set.storage, Content::of(&set.elements));
        Operation::AddSet { name: name.clone(), key, storage, content }
    });
    let elements =
        ruleset.sets.iter().filter(|(_, set)| !set.elements.is_empty()).map(|(name, set)| {
            Operation::AddElements {
                set: name.clone(),
                key: set.key,
                elements: set.elements.clone(),
            }
        });
    let chains = ruleset.chains.iter().flat_map(|(name, chain)| {
        let add = Operation::AddChain { name: name.clone(), base: chain.base };
        let rules = chain
            .rules
            .iter()
            .map(|rule| Operation::AddRule { chain: name.clone(), rule: rule.clone() });
        [add].into_iter().chain(rules)
    });
    sets.chain(elements).chain(chains).collect()
}

#[test]
fn what_is_encoded_is_read_back() {
    let mut ruleset = skeleton(
        Options { priority: -5, logging: Logging::DEFAULT, mark: 16 },
        &Default::default(),
    );
    let v4 = |text: &str| crate::ruleset::Key::V4(text.parse().unwrap());
    let ranges = vec![
        (v4("0.0.0.0"), v4("0.0.0.9")),
        (v4("0.0.0.10"), v4("1.0.0.0")),
        (v4("9.0.0.0"), v4("255.255.255.255")),
    ];
    let set = Set {
        key: KeyType::Address(Family::V4),
        storage: Storage::Interval,
        elements: Elements::Ranges(ranges),
    };
    ruleset.sets.insert(Name::new("np-c4-x"), set);
    assert_eq!(listed(&encoded(&operations(&ruleset))).ruleset, ruleset);
}

#[test]
fn the_table_says_whose_it_is() {
    let whose = |bytes: &[u8]| {
        let message = messages(bytes).find(|message| message.kind == 0xa00).unwrap();
        ownership(message.payload.get(4..).unwrap())
    };
    assert_eq!(whose(&encoded(&[Operation::AddTable])), Ownership::Ours { dormant: false });
    // The name of the table and nothing else.
    let foreign = [[11, 0, 1, 0].as_slice(), b"netpol\0\0".as_slice()].concat();
    assert_eq!(ownership(&foreign), Ownership::Foreign);
}

#[test]
fn edges_that_make_no_ranges_spoil_a_set() {
    let key = |last: u8| crate::ruleset::Key::V4([10, 0, 0, last].into());
    let set = |elements| {
        let add = Operation::AddSet {
            name: Name::new("np-c4-x"),
            key: KeyType::Address(Family::V4),
            storage: Storage::Interval,
            content: Content::Keys,
        };
        // Keys alone are beginnings without ends.
        let key = KeyType::Address(Family::V4);
        listed(&encoded(&[
            add,
            Operation::AddElements { set: Name::new("np-c4-x"), key, elements },
        ]))
    };
    assert!(
        set(Elements::Keys(vec![key(1)])).spoiled.is_empty(),
        "one without an end reaches to the last key"
    );
    assert_eq!(set(Elements::Keys(vec![key(1), key(5)])).spoiled.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn damaged_listings_are_read_without_harm(damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..40)) {
        let mut bytes = encoded(&operations(&skeleton(Options { priority: 0, logging: Logging::DEFAULT, mark: 16 }, &Default::default())));
        for (at, value) in damage {
            let at = at.index(bytes.len());
            *bytes.get_mut(at).unwrap() = value;
        }
        listed(&bytes);
    }
}
