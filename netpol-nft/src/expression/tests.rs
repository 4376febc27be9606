#![expect(clippy::unwrap_used, reason = "test code")]

use netpol_netfilter::{Logging, Period};
use proptest::prelude::*;

use super::*;
use crate::render::{Options, skeleton};
use crate::ruleset::Interface;
use crate::ruleset::Ruleset;

fn round_trip(rule: &Rule) {
    assert_eq!(&raise(&lower(rule), rule.comment.clone()), rule);
}

#[test]
fn the_rules_of_base_chains_are_read_back() {
    let Ruleset { chains, .. } =
        skeleton(Options { priority: 0, logging: Logging::DEFAULT, mark: 16 }, &Default::default());
    chains.values().flat_map(|chain| &chain.rules).for_each(round_trip);
}

#[test]
fn registers_are_numbered_as_the_kernel_dumps_them() {
    // Source: `nft_dump_register`: a register of 4 bytes that begins one of 16 is called by the latter's number.
    for (word, number) in [(0, 1), (1, 9), (2, 10), (3, 11), (4, 2), (5, 13), (8, 3)] {
        assert_eq!(Register(word).number(), number);
        assert_eq!(Register::from_number(number), Some(Register(word)));
    }
    assert_eq!(Register::from_number(8), Some(Register(0)));
    assert_eq!(Register::from_number(0), None);
}

#[test]
fn what_we_never_write_is_unknown() {
    let counter = vec![Expression::Counter];
    let jump = Verdict::Jump(Name::new("np-x"));
    for expressions in [
        vec![],
        counter.clone(),
        vec![Expression::Unknown, Expression::Counter, Expression::Verdict(Verdict::Drop)],
        vec![Expression::Verdict(Verdict::Return)],
        vec![
            Expression::Load { field: Field::Protocol, register: Register(1) },
            Expression::Counter,
            Expression::Verdict(jump),
        ],
        vec![Expression::Counter, Expression::Log { group: 1, prefix: String::new() }],
    ] {
        let rule = raise(&expressions, String::new());
        assert!(
            rule.action == Action::Unknown || rule.matches.contains(&Match::Unknown),
            "{expressions:?}"
        );
    }
}

fn sense() -> impl Strategy<Value = Sense> {
    prop_oneof![Just(Sense::In), Just(Sense::NotIn)]
}

fn conditions() -> impl Strategy<Value = Match> {
    let end = || prop_oneof![Just(End::Source), Just(End::Destination)];
    let fields = proptest::sample::select(ALL_FIELDS.to_vec());
    prop_oneof![
        (fields, sense()).prop_map(|(fields, sense)| Match::Member {
            fields,
            set: Name::new("np-set"),
            sense
        }),
        (2_u8..).prop_filter("not ICMP", |it| !ICMP.contains(it)).prop_map(Match::Protocol),
        any::<u8>().prop_map(Match::NotProtocol),
        (end(), any::<u16>(), any::<u16>(), sense()).prop_map(|(end, one, two, sense)| {
            Match::Ports { end, first: one.min(two), last: one.max(two), sense }
        }),
        prop_oneof![Just(FlowState::Established), Just(FlowState::Related)].prop_map(Match::Flow),
        prop_oneof![Just(Family::V4), Just(Family::V6)].prop_map(Match::Family),
        sense().prop_map(Match::Untracked),
        any::<u32>().prop_map(Match::Unmarked),
        (end(), sense()).prop_map(|(end, sense)| Match::Interface {
            end,
            name: Interface::new("eth0").unwrap(),
            sense
        }),
        (end(), sense(), "[a-z]{1,14}").prop_map(|(end, sense, prefix)| {
            Match::InterfacePrefix { end, prefix: Interface::new(&prefix).unwrap(), sense }
        }),
    ]
}

fn icmp_conditions() -> impl Strategy<Value = Match> {
    prop_oneof![
        (any::<u8>(), any::<Option<u8>>()).prop_map(|(kind, code)| Match::Icmp { kind, code }),
        any::<u8>().prop_map(Match::NotIcmpType),
        any::<u8>().prop_map(Match::NotIcmpCode),
        (0_u8..100, 100_u8..).prop_map(|(first, last)| Match::IcmpTypes { first, last }),
        any::<u8>().prop_map(Match::HopLimit),
        Just(Match::Reset),
        sense().prop_map(Match::LinkLocalSource),
        prop_oneof![Just(Family::V4), Just(Family::V6)].prop_map(Match::SpecifiedSource),
    ]
}

fn log_rates() -> impl Strategy<Value = LogRate> {
    let number = || 1..=LogRate::MAX;
    let period = proptest::sample::select(Period::ALL.to_vec());
    (number(), period, number()).prop_map(|(packets, period, burst)| {
        LogRate::new(packets, period).unwrap().with_burst(burst).unwrap()
    })
}

fn actions() -> impl Strategy<Value = Action> {
    let name = || Name::new("np-chain");
    let fields = proptest::sample::select(ALL_FIELDS.to_vec());
    prop_oneof![
        proptest::sample::select(vec![
            Verdict::Drop,
            Verdict::Return,
            Verdict::Jump(name()),
            Verdict::Goto(name())
        ])
        .prop_map(Action::Verdict),
        fields.prop_map(move |fields| Action::Dispatch { fields, map: name() }),
        (any::<u16>(), log_rates())
            .prop_map(|(group, rate)| { Action::Log { group, prefix: "np1:in".to_owned(), rate } }),
        Just(Action::Untrack),
        Just(Action::Reject(Answer::Reset)),
        Just(Action::Reject(Answer::Prohibited)),
        (1_u32..).prop_map(Action::Mark),
        (1_u32..).prop_map(Action::Unmark),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_are_read_back(
        matches in proptest::collection::vec(conditions(), 0..5),
        icmp in proptest::option::of((proptest::sample::select(ICMP.to_vec()), icmp_conditions())),
        action in actions(),
    ) {
        let icmp = icmp.into_iter().flat_map(|(protocol, it)| [Match::Protocol(protocol), it]);
        round_trip(&Rule { matches: matches.into_iter().chain(icmp).collect(), action, comment: "np:x".to_owned() });
    }
}

#[test]
fn every_combination_of_fields_is_known() {
    for fields in ALL_FIELDS {
        assert_eq!(
            ALL_FIELDS.iter().filter(|it| loads(**it) == loads(fields)).count(),
            1,
            "{fields:?}"
        );
    }
    assert_eq!(lower(&raise(&[], String::new())).first().unwrap(), &Expression::Unknown);
}
