//! Laws that hold for all selectors. The meaning they are compared with shares no code with the selector module: it
//! is said of a tree of its own, which is written down as text in many spellings.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{Expr, Selector, SelectorError};
use crate::labels::Labels;

const KEYS: [&str; 6] = ["a", "b", "in", "has", "not", "x.io/y_z-1"];
const VALUES: [&str; 7] = ["", "x", "xy", "yx", "X", "it's", "\"\n\\é"];

#[derive(Clone, Debug)]
enum Tree {
    All,
    Has(&'static str),
    Compare(&'static str, Comparison, &'static str),
    Member { key: &'static str, among: bool, values: Vec<&'static str> },
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Contains,
    Starts,
    Ends,
}

type Plain = BTreeMap<&'static str, &'static str>;

/// The specification, said as plainly as it can be.
fn means(tree: &Tree, labels: &Plain) -> bool {
    match tree {
        Tree::All => true,
        Tree::Has(key) => labels.contains_key(key),
        Tree::Compare(key, comparison, operand) => {
            let Some(value) = labels.get(key) else {
                return matches!(comparison, Comparison::NotEqual);
            };
            let (value, operand) = (value.as_bytes(), operand.as_bytes());
            match comparison {
                Comparison::Equal => value == operand,
                Comparison::NotEqual => value != operand,
                Comparison::Contains => {
                    operand.is_empty() || value.windows(operand.len()).any(|it| it == operand)
                }
                Comparison::Starts => value.get(..operand.len()) == Some(operand),
                Comparison::Ends => {
                    value.len().checked_sub(operand.len()).and_then(|at| value.get(at..))
                        == Some(operand)
                }
            }
        }
        Tree::Member { key, among, values } => {
            let is_member =
                labels.get(key).is_some_and(|value| values.iter().any(|it| it == value));
            is_member == *among
        }
        Tree::Not(tree) => !means(tree, labels),
        Tree::And(trees) => trees.iter().filter(|it| !means(it, labels)).count() == 0,
        Tree::Or(trees) => trees.iter().filter(|it| means(it, labels)).count() > 0,
    }
}

/// Writes a tree down, taking one of the spellings the language has at every choice.
struct Writer {
    text: String,
    choices: u64,
}

impl Writer {
    fn choose(&mut self, count: u64) -> u64 {
        // Any scrambling does; this one is Knuth's linear congruential generator.
        self.choices = self
            .choices
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.choices >> 33) % count
    }

    fn put(&mut self, token: &str) {
        self.text.push_str(token);
    }

    fn space(&mut self) {
        let space = match self.choose(4) {
            0 => "",
            1 => " ",
            2 => "\t",
            _ => " \t ",
        };
        self.put(space);
    }

    fn literal(&mut self, value: &str) {
        let double = value.contains('\'') || !value.contains('"') && self.choose(2) == 0;
        let quote = if double { "\"" } else { "'" };
        self.put(&format!("{quote}{value}{quote}"));
    }

    fn words(&mut self, first: &str, second: &str) {
        self.put(first);
        self.space();
        self.put(second);
    }

    fn parenthesised(&mut self, tree: &Tree) {
        self.put("(");
        self.space();
        self.any(tree);
        self.space();
        self.put(")");
    }

    fn list(&mut self, trees: &[Tree], operator: &str, empty: &str) {
        for (index, tree) in trees.iter().enumerate() {
            if index > 0 {
                self.space();
                self.put(operator);
                self.space();
            }
            match tree {
                Tree::And(_) | Tree::Or(_) => self.parenthesised(tree),
                _ => self.any(tree),
            }
        }
        if trees.is_empty() {
            self.put(empty);
        }
    }

    fn any(&mut self, tree: &Tree) {
        if self.choose(8) == 0 {
            return self.parenthesised(tree);
        }
        match tree {
            Tree::All => {
                let call = if self.choose(2) == 0 { "all(" } else { "global(" };
                self.words(call, ")");
            }
            Tree::Has(key) => {
                self.words("has(", key);
                self.words("", ")");
            }
            Tree::Compare(key, comparison, operand) => {
                self.put(key);
                self.put(" ");
                match comparison {
                    Comparison::Equal => self.put("=="),
                    Comparison::NotEqual => self.put("!="),
                    Comparison::Contains => self.put("contains"),
                    Comparison::Starts => self.words("starts", "with"),
                    Comparison::Ends => self.words("ends", "with"),
                }
                self.space();
                self.literal(operand);
            }
            Tree::Member { key, among, values } => self.member(key, *among, values),
            Tree::Not(tree) => {
                self.words("!", "");
                match &**tree {
                    Tree::And(_) | Tree::Or(_) => self.parenthesised(tree),
                    tree => self.any(tree),
                }
            }
            Tree::And(trees) => self.list(trees, "&&", "all()"),
            Tree::Or(trees) => self.list(trees, "||", "!all()"),
        }
    }

    fn member(&mut self, key: &str, among: bool, values: &[&str]) {
        self.put(key);
        self.put(" ");
        if among {
            self.put("in")
        } else {
            self.words("not", "in")
        }
        self.words("", "{");
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.words("", ",");
            }
            self.space();
            self.literal(value);
        }
        if !values.is_empty() && self.choose(2) == 0 {
            self.words("", ",");
        }
        self.words("", "}");
    }
}

fn write(tree: &Tree, choices: u64) -> String {
    let mut writer = Writer { text: String::new(), choices };
    writer.space();
    writer.any(tree);
    writer.space();
    writer.text
}

fn read(text: &str) -> Selector {
    Selector::from_canonical(text).unwrap()
}

/// Writes what [`Expr`] shows.
fn shown(expr: Expr<'_>) -> String {
    let set = |values: &[String]| values.iter().map(|it| literal(it)).collect::<Vec<_>>().join(",");
    match expr {
        Expr::All => "all()".to_string(),
        Expr::Global => "global()".to_string(),
        Expr::Has(key) => format!("has({key})"),
        Expr::Equal(key, it) => format!("{key} == {}", literal(it)),
        Expr::NotEqual(key, it) => format!("{key} != {}", literal(it)),
        Expr::In(key, values) => format!("{key} in {{{}}}", set(values)),
        Expr::NotIn(key, values) => format!("{key} not in {{{}}}", set(values)),
        Expr::Contains(key, it) => format!("{key} contains {}", literal(it)),
        Expr::StartsWith(key, it) => format!("{key} starts with {}", literal(it)),
        Expr::EndsWith(key, it) => format!("{key} ends with {}", literal(it)),
        Expr::Not(part) => format!("!({})", shown(part.expr())),
        Expr::And(parts) => {
            format!("({})", parts.map(|it| shown(it.expr())).collect::<Vec<_>>().join("&&"))
        }
        Expr::Or(parts) => {
            format!("({})", parts.map(|it| shown(it.expr())).collect::<Vec<_>>().join("||"))
        }
    }
}

fn literal(value: &str) -> String {
    if value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") }
}

fn tree() -> impl Strategy<Value = Tree> {
    let comparison = select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Contains,
        Comparison::Starts,
        Comparison::Ends,
    ]);
    let compare = (select(&KEYS[..]), comparison, select(&VALUES[..]))
        .prop_map(|(key, it, value)| Tree::Compare(key, it, value));
    let member =
        (select(&KEYS[..]), any::<bool>(), prop::collection::vec(select(&VALUES[..]), 0..4));
    let leaf = prop_oneof![
        1 => Just(Tree::All),
        2 => select(&KEYS[..]).prop_map(Tree::Has),
        6 => compare,
        3 => member.prop_map(|(key, among, values)| Tree::Member { key, among, values }),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|it| Tree::Not(Box::new(it))),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::And),
            prop::collection::vec(inner, 0..4).prop_map(Tree::Or),
        ]
    })
}

fn plain_labels() -> impl Strategy<Value = Plain> {
    prop::collection::btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..KEYS.len())
}

fn labels(plain: &Plain) -> Labels {
    plain.iter().map(|(key, value)| (*key, *value)).collect()
}

/// Returns the same tree with the operands of every group in reverse, once more each, and behind double negations.
fn disguised(tree: &Tree) -> Tree {
    let all = |trees: &[Tree]| trees.iter().rev().chain(trees).map(disguised).collect();
    let tree = match tree {
        Tree::And(trees) => Tree::And(all(trees)),
        Tree::Or(trees) => Tree::Or(all(trees)),
        Tree::Not(tree) => Tree::Not(Box::new(disguised(tree))),
        leaf => return leaf.clone(),
    };
    Tree::Not(Box::new(Tree::Not(Box::new(tree))))
}

/// Text made of the pieces of the language, so that some of it is nearly right.
fn scraps() -> impl Strategy<Value = String> {
    let pieces = [
        "a", "has(", "all()", "global(", ")", "(", "!", "==", "!=", "&&", "||", "&", "|", "in",
        "not", "contains", "starts", "ends", "with", "{", "}", ",", "'x'", "\"y\"", "'", "\"", " ",
        "\t", "\n", "é",
    ];
    prop::collection::vec(select(pieces.to_vec()), 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn matching_is_what_the_text_means(
        tree in tree(),
        choices: u64,
        all_labels in prop::collection::vec(plain_labels(), 8),
    ) {
        let text = write(&tree, choices);
        let selector = read(&text);
        for plain in &all_labels {
            prop_assert_eq!(selector.matches(&labels(plain)), means(&tree, plain), "{} on {:?}", text, plain);
        }
    }

    #[test]
    fn what_is_printed_reads_back(tree in tree(), choices: u64) {
        let selector = read(&write(&tree, choices));
        let printed = selector.to_string();
        prop_assert_eq!(&read(&printed), &selector);
        prop_assert_eq!(read(&printed).to_string(), printed);
        prop_assert_eq!(read(&shown(selector.expr())), selector);
    }

    #[test]
    fn spelling_and_order_make_no_difference(tree in tree(), choices: u64) {
        // `all()` and `global()` are different selectors, and the writer takes either.
        let read = |text: &str| read(&text.replace("global(", "all("));
        let selector = read(&write(&tree, choices));
        prop_assert_eq!(&read(&write(&tree, !choices)), &selector);
        prop_assert_eq!(&read(&write(&disguised(&tree), choices)), &selector);
    }

    #[test]
    fn text_within_the_limits_is_read_alike(tree in tree(), choices: u64) {
        let text = write(&tree, choices);
        prop_assume!(text.chars().count() <= Selector::MAX_CHARS);
        prop_assert_eq!(text.parse::<Selector>(), Selector::from_canonical(&text));
    }

    #[test]
    fn things_inherit_what_their_namespace_matches(tree in tree(), choices: u64, plain in plain_labels()) {
        let selector = read(&write(&tree, choices).replace("global(", "all("));
        let mut inherited: Labels = plain.iter().map(|(key, value)| (format!("pcns.{key}"), *value)).collect();
        inherited.extend([("projectcalico.org/namespace", "n"), ("a", "own"), ("b", "own")]);
        prop_assert_eq!(selector.in_namespaces().matches(&inherited), means(&tree, &plain));
        let rewritten = selector.in_namespaces();
        prop_assert_eq!(&read(&rewritten.to_string()), &rewritten);
    }

    #[test]
    fn joining_is_logic(trees in prop::collection::vec((tree(), any::<u64>()), 0..4), plain in plain_labels()) {
        let selectors: Vec<_> = trees.iter().map(|(tree, choices)| read(&write(tree, *choices))).collect();
        let labels = labels(&plain);
        let (and, or) = (Selector::and(selectors.clone()), Selector::or(selectors.clone()));
        prop_assert_eq!(and.matches(&labels), trees.iter().all(|(tree, _)| means(tree, &plain)));
        prop_assert_eq!(or.matches(&labels), trees.iter().any(|(tree, _)| means(tree, &plain)));
        for joined in [and, or] {
            prop_assert_eq!(&read(&joined.to_string()), &joined);
            prop_assert_eq!((!&joined).matches(&labels), !joined.matches(&labels));
            prop_assert_eq!(&!!joined.clone(), &joined);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(read(&selector.to_string()), selector);
        }
    }

    #[test]
    fn scraps_never_panic(text in scraps()) {
        match text.parse::<Selector>() {
            Ok(selector) => prop_assert_eq!(read(&selector.to_string()), selector),
            Err(SelectorError::Unexpected { position, found, .. }) => {
                prop_assert_eq!(text.get(position..).map(|rest| rest.chars().next()), Some(found));
            }
            Err(SelectorError::Unterminated { position, quote }) => {
                prop_assert_eq!(text.get(position..).unwrap().matches(quote).count(), 1);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
