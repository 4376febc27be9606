#![expect(clippy::unwrap_used, reason = "test code")]

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::labels::Labels;

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

#[test]
fn contradictions_are_seen() {
    for text in [
        "!all()",
        "!global()",
        "a == '1' && a == '2'",
        "a == '1' && a != '1'",
        "a == '1' && !has(a)",
        "has(a) && !has(a)",
        "a in {}",
        "a in {'1', '2'} && a in {'3'}",
        "a in {'1', '2'} && a not in {'1', '2'}",
        "a in {'1', '2'} && a != '1' && a != '2'",
        "a == '1' && a starts with '2'",
        "a == '12' && !(a ends with '2')",
        "a starts with '1' && a starts with '2'",
        "a ends with '1' && a ends with '2'",
        "a starts with '12' && !(a starts with '1')",
        "a starts with '12' && !(a contains '2')",
        "a contains 'x' && !(a contains '')",
        "a contains 'x' && !has(a)",
        "(a == '1' || a == '2') && a == '3'",
        "(a == '1' || b == '1') && !has(a) && !has(b)",
        "!(a == '1' || a != '1') && has(a)",
        "!(has(a) || !has(a))",
        "(a == '1' && b == '1') && (b == '2' || a == '2')",
    ] {
        assert!(is_unsatisfiable(&selector(text)), "{text}");
    }
}

#[test]
fn what_can_be_met_is_no_contradiction() {
    for text in [
        "all()",
        "!has(a)",
        "a != '1' && a != '2'",
        "a == '1' && b == '2'",
        "a not in {'1'} && !has(a)",
        "!(a contains '')",
        "a starts with '1' && a starts with '12'",
        "a starts with '1' && a ends with '2' && a contains '3'",
        "a starts with '1' && !(a starts with '12')",
        "a contains '1' && !(a starts with '1')",
        "(a == '1' || a == '2') && a != '1'",
        "!(a == '1' && b == '1') && a == '1'",
    ] {
        assert!(!is_unsatisfiable(&selector(text)), "{text}");
    }
}

#[test]
fn one_selector_implies_another() {
    for (narrow, wide) in [
        ("a == '1'", "a == '1'"),
        ("a == '1'", "all()"),
        ("a == '1'", "has(a)"),
        ("a == '1' && b == '1'", "b == '1'"),
        ("a == '1'", "a in {'1', '2'}"),
        ("a == '1'", "a != '2'"),
        ("a == '1'", "a == '1' || b == '1'"),
        ("a == '1' || a == '2'", "a in {'1', '2'}"),
        ("!has(a)", "a != '1'"),
        ("!all()", "a == '1'"),
    ] {
        assert!(implies(&selector(narrow), &selector(wide)), "{narrow} implies {wide}");
        let is_equal = implies(&selector(wide), &selector(narrow));
        assert_eq!(
            is_equal,
            wide == narrow || wide.contains("in {'1', '2'}") && narrow.contains("||"),
            "{wide}"
        );
    }
    assert!(are_disjoint(&selector("a == '1'"), &selector("a == '2' && has(b)")));
    assert!(!are_disjoint(&selector("a == '1'"), &selector("b == '2'")));
}

/// So many alternatives that nobody can look at all of them end in a `false`, soon.
#[test]
fn the_search_gives_up() {
    let choice = |key: usize| format!("(a{key} == '1' || a{key} == '2')");
    let all: Vec<String> = (0..40).map(choice).collect();
    let impossible =
        format!("{} && {}", all.join(" && "), "(z == '1' && z == '2' || y == '1' && y == '2')");
    let selector = Selector::from_canonical(&impossible).unwrap();
    assert!(!is_unsatisfiable(&selector));
    let mut deep = selector.clone();
    for key in 0..300 {
        let other = Selector::equal(format!("k{key}"), "1").unwrap();
        deep = Selector::or([Selector::and([deep, other.clone()]), !other]);
        if key % 50 == 0 {
            assert!(!is_unsatisfiable(&deep));
        }
    }
}

fn any_selector() -> impl Strategy<Value = Selector> {
    let condition = (
        prop::sample::select(vec!["a", "b"]),
        0..9_usize,
        prop::sample::select(vec!["", "1", "12", "2"]),
    )
        .prop_map(|(key, form, value)| {
            selector(&match form {
                0 => format!("has({key})"),
                1 => format!("{key} == '{value}'"),
                2 => format!("{key} != '{value}'"),
                3 => format!("{key} in {{'{value}', '2'}}"),
                4 => format!("{key} not in {{'{value}', '1'}}"),
                5 => format!("{key} contains '{value}'"),
                6 => format!("{key} starts with '{value}'"),
                7 => format!("{key} ends with '{value}'"),
                _ => "all()".into(),
            })
        });
    condition.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|it| !it),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Selector::and),
            prop::collection::vec(inner, 1..4).prop_map(Selector::or),
        ]
    })
}

/// Every combination of values that can matter to the conditions above.
fn worlds() -> Vec<Labels> {
    let texts = ["", "1", "2", "12"];
    let mut values: Vec<Option<String>> = vec![None];
    values.extend(texts.map(|it| Some(it.into())));
    for first in texts {
        for inner in texts {
            values.extend(texts.map(|last| Some(format!("{first}x{inner}x{last}"))));
        }
    }
    let mut worlds = Vec::new();
    for a in &values {
        for b in &values {
            let labels = [("a", a), ("b", b)].into_iter();
            worlds.push(labels.filter_map(|(key, value)| Some((key, value.clone()?))).collect());
        }
    }
    worlds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_labels_meet_a_contradiction(selector in any_selector()) {
        let is_met = worlds().iter().any(|labels| selector.matches(labels));
        // The conditions are simple enough for the search to be complete.
        prop_assert_eq!(is_unsatisfiable(&selector), !is_met, "{}", selector);
    }

    #[test]
    fn implication_holds_for_all_labels(narrow in any_selector(), wide in any_selector()) {
        let holds = worlds().iter().all(|labels| !narrow.matches(labels) || wide.matches(labels));
        prop_assert!(holds || !implies(&narrow, &wide), "{} implies {}", narrow, wide);
    }
}
