//! Selectors: the same texts are refused, and the others mean the same, as a second and naive reading of the language
//! says.

mod naive;

use std::collections::BTreeMap;

use netpol_core::selector::SelectorError;
use netpol_core::{Labels, Selector};

use self::naive::{Tree, Within};

/// Sets of labels that each selector is asked about.
const VIEWS: u32 = 24;

/// Checks a text.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (read, naive) = (text.parse::<Selector>(), naive::read(&text, Within::Limits));
    assert_eq!(read.is_ok(), naive.is_some(), "{text:?} is {read:?}, naively {naive:?}");
    match (read, naive) {
        (Ok(selector), Some(tree)) => check_meaning(&text, &selector, &tree),
        (Err(error), _) => check_error(&text, &error),
        (Ok(_), None) => {}
    }
}

fn check_meaning(text: &str, selector: &Selector, tree: &Tree) {
    let printed = selector.to_string();
    let again = Selector::from_canonical(&printed).ok();
    assert_eq!(again.as_ref(), Some(selector), "{text:?} prints as {printed:?}");
    let printed_tree = naive::read(&printed, Within::Anything);
    let in_namespaces = selector.in_namespaces();
    let mut seed = text.bytes().fold(1, |seed: u64, byte| {
        seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(byte))
    });
    for _ in 0..VIEWS {
        let view = view(tree, &mut seed);
        let means = tree.holds(&view);
        let labels: Labels = view.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(selector.matches(&labels), means, "{text:?} on {view:?}");
        assert_eq!((!selector).matches(&labels), !means, "not {text:?} on {view:?}");
        let printed_means = printed_tree.as_ref().map(|it| it.holds(&view));
        assert_eq!(printed_means, Some(means), "{printed:?} on {view:?}");
        if !tree.mentions_global() {
            let inherited = inherited(&view);
            assert_eq!(in_namespaces.matches(&inherited), means, "{text:?} on {inherited:?}");
        }
    }
}

/// Returns what something sees of these labels if its namespace has them.
fn inherited(view: &BTreeMap<&str, String>) -> Labels {
    let mut labels: Labels =
        view.iter().map(|(key, value)| (format!("pcns.{key}"), value.as_str())).collect();
    labels.insert("projectcalico.org/namespace", "n");
    labels
}

/// Returns labels that the selector can tell apart: for each of its keys none, or one with a value that it names, or one
/// that is nearly that.
fn view<'a>(tree: &'a Tree, seed: &mut u64) -> BTreeMap<&'a str, String> {
    let mut choose = |count: usize| {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % count
    };
    let mut mentioned: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    tree.mentioned(&mut mentioned);
    let mut view = BTreeMap::new();
    for (key, values) in mentioned {
        let value = match values.len() {
            0 => "",
            count => values[choose(count)],
        };
        let value = match choose(8) {
            0 | 1 => continue,
            2 => String::new(),
            3 => format!("x{value}"),
            4 => format!("{value}x"),
            5 => value.to_uppercase(),
            _ => value.to_owned(),
        };
        view.insert(key, value);
    }
    view
}

/// Checks that an error names a place of the text, and what is there.
fn check_error(text: &str, error: &SelectorError) {
    let at = |position: usize| text.get(position..).map(|rest| rest.chars().next());
    let holds = match error {
        SelectorError::TooLong { chars, limit } => *chars == text.chars().count() && chars > limit,
        SelectorError::TooDeep { position, .. } => at(*position) == Some(Some('(')),
        SelectorError::KeyTooLong { position, bytes, limit } => {
            text.get(*position..position + bytes).is_some() && bytes > limit
        }
        SelectorError::Unterminated { position, quote } => at(*position) == Some(Some(*quote)),
        SelectorError::Unexpected { position, expected, found } => {
            !expected.is_empty() && at(*position) == Some(*found)
        }
        _ => false,
    };
    assert!(holds, "{text:?}: {error}");
    assert!(!error.to_string().is_empty());
}
