#![expect(clippy::unwrap_used, reason = "test code")]

extern crate std;

mod laws;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::thread;

use super::{Expr, LabelView, Selector, SelectorError};
use crate::labels::Labels;

type Case = (&'static str, &'static [(&'static str, &'static str)], Result<bool, ()>);

/// Selector, labels, and whether it matches them; `Err` if it is no selector.
const VECTORS: &[Case] = &[
    ("", &[], Ok(true)),  // empty = all()
    ("\n", &[], Err(())), // newline is not whitespace
    ("a == \"b\"\n&& c == \"d\"", &[("a", "b"), ("c", "d")], Err(())), // YAML block scalar pitfalls
    ("a == 'b'", &[], Ok(false)), // missing label
    ("a == ''", &[("a", "")], Ok(true)), // label present, empty value
    ("a != ''", &[], Ok(true)), // missing != ''
    ("a == 'B'", &[("a", "b")], Ok(false)), // case sensitive values
    ("a=='b'", &[("a", "b")], Ok(true)), // no spaces
    ("a = 'b'", &[("a", "b")], Err(())), // single =
    ("a == b", &[("a", "b")], Err(())), // unquoted value
    ("!a", &[], Err(())), // bare negated label
    ("a == 'it\\'s'", &[("a", "it's")], Err(())), // no escapes: string ends at the first quote
    ("a == 'x\ny'", &[("a", "x\ny")], Ok(true)), // newline legal inside a literal
    ("é == 'a'", &[("é", "a")], Err(())), // non-ASCII key
    ("my-app.io/x_1 == 'v'", &[("my-app.io/x_1", "v")], Ok(true)),
    ("9 == 'v'", &[("9", "v")], Ok(true)), // digit-only key
    ("a@b == 'v'", &[("a@b", "v")], Err(())),
    ("has == 'x'", &[("has", "x")], Ok(true)), // keyword as key
    ("not in {'a'}", &[("not", "a")], Ok(true)), // key called not, operator in
    ("contains contains 'contains'", &[("contains", "contains")], Ok(true)),
    ("global == 'x'", &[], Ok(false)), // keyword as key; missing
    ("has(a)", &[], Ok(false)),
    ("has( a )", &[("a", "1")], Ok(true)), // spaces inside
    ("has()", &[], Err(())),               // needs a key
    ("has(a,b)", &[("a", "1"), ("b", "1")], Err(())), // one key only
    ("all()", &[], Ok(true)),
    ("all ()", &[], Err(())),              // space before paren
    ("global()", &[("a", "b")], Ok(true)), // parser/evaluator only; validator restricts the location
    ("all() && !all()", &[], Ok(false)),
    ("a in {'b','c'}", &[("a", "c")], Ok(true)),
    ("a in {}", &[("a", "")], Ok(false)), // empty set legal, never matches
    ("a not in {'b'}", &[], Ok(true)),    // missing label satisfies not in
    ("a in {'b',}", &[("a", "b")], Ok(true)), // one trailing comma allowed
    ("a in {,}", &[("a", "b")], Err(())),
    ("a in {b}", &[("a", "b")], Err(())), // members must be quoted
    ("a in 'b'", &[("a", "b")], Err(())),
    ("ain{'b'}", &[("a", "b")], Err(())), // space needed after key
    ("a not \t in {'b'}", &[("a", "c")], Ok(true)),
    ("a inx {'b'}", &[("a", "b")], Err(())), // operator word boundary
    ("!a in {'b'}", &[], Ok(true)),
    ("a contains ''", &[("a", "")], Ok(true)), // empty needle = has()
    ("a contains 'B'", &[("a", "abc")], Ok(false)),
    ("a starts with 'ab'", &[("a", "abc")], Ok(true)),
    ("a starts with ''", &[], Ok(false)),
    ("a starts 'ab'", &[("a", "abc")], Err(())),
    ("a ends with 'bc'", &[("a", "abc")], Ok(true)),
    ("!a starts with 'ab'", &[], Ok(true)),
    ("a does not contain 'b'", &[("a", "c")], Err(())),
    ("(a == '1' || b == '2') && c == '3'", &[("a", "1")], Ok(false)),
    ("!(a == '1' && b == '2')", &[("a", "2"), ("b", "3")], Ok(true)),
    ("! ! !has(a)", &[("a", "1")], Ok(false)),
    ("!a != 'b'", &[("a", "b")], Ok(true)),
    ("(a) == '1'", &[("a", "1")], Err(())),
    ("(all())", &[], Ok(true)),
    ("all())", &[], Err(())),
    ("a == '1' &&", &[("a", "1")], Err(())),
    ("a == '1' & b == '2'", &[("a", "1"), ("b", "2")], Err(())),
    ("a == '1' , b == '2'", &[("a", "1"), ("b", "2")], Err(())),
    ("a not in {'x'} && has(a)", &[], Ok(false)),
    ("has(a)&&!has(b)||c=='1'", &[("b", "1"), ("c", "1")], Ok(true)),
];

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

#[test]
fn vectors_hold() {
    for &(text, pairs, want) in VECTORS {
        let got = text.parse().map(|it: Selector| it.matches(&labels(pairs))).map_err(|_| ());
        assert_eq!(got, want, "{text:?} on {pairs:?}");
    }
}

/// Rows: operators; columns: no label, empty value, equal value, other value, value that contains the operand.
#[test]
fn every_operator_on_every_kind_of_value() {
    let table = [
        ("k == 'v'", [false, false, true, false, false]),
        ("k == ''", [false, true, false, false, false]),
        ("k != 'v'", [true, true, false, true, true]),
        ("k != ''", [true, false, true, true, true]),
        ("k in {'v', 'w'}", [false, false, true, false, false]),
        ("k in {}", [false, false, false, false, false]),
        ("k not in {'v', 'w'}", [true, true, false, true, true]),
        ("k not in {}", [true, true, true, true, true]),
        ("k contains 'v'", [false, false, true, false, true]),
        ("k contains ''", [false, true, true, true, true]),
        ("k starts with 'v'", [false, false, true, false, false]),
        ("k starts with ''", [false, true, true, true, true]),
        ("k ends with 'v'", [false, false, true, false, false]),
        ("k ends with ''", [false, true, true, true, true]),
        ("has(k)", [false, true, true, true, true]),
        ("all()", [true, true, true, true, true]),
        ("global()", [true, true, true, true, true]),
    ];
    let values = [None, Some(""), Some("v"), Some("x"), Some("xvx")];
    for (text, want) in table {
        for (value, want) in values.into_iter().zip(want) {
            let labels: Labels = value.map(|value| ("k", value)).into_iter().collect();
            assert_eq!(selector(text).matches(&labels), want, "{text} on {value:?}");
            let negated = format!("!{text}");
            assert_eq!(selector(&negated).matches(&labels), !want, "{negated} on {value:?}");
        }
    }
}

#[test]
fn text_is_canonical_when_printed() {
    let table = [
        ("", "all()"),
        (" \t", "all()"),
        ("global( )", "global()"),
        ("has( a )", "has(a)"),
        ("a=='b'", r#"a == "b""#),
        (r#"a == 'say "hi"'"#, r#"a == 'say "hi"'"#),
        (r#"a != "it's""#, r#"a != "it's""#),
        ("a startswith 'x'", r#"a starts with "x""#),
        ("a endswith 'x'", r#"a ends with "x""#),
        ("a notin {'x'}", r#"a not in {"x"}"#),
        ("a in {'c', 'b', 'c',}", r#"a in {"b", "c"}"#),
        ("a in {}", "a in {}"),
        ("((has(a)))", "has(a)"),
        ("!!!has(a)", "!has(a)"),
        ("!(!(has(a) || has(b)))", "(has(a) || has(b))"),
        ("!(has(b) || !has(a))", "!(has(b) || !has(a))"),
        ("has(b) && has(a)", "(has(a) && has(b))"),
        ("has(a) && (has(c) && has(b)) && has(b)", "(has(a) && has(b) && has(c))"),
        ("has(a) || has(a)", "has(a)"),
        ("has(a) || has(b) && has(c)", "(has(a) || (has(b) && has(c)))"),
        ("(has(a) || has(b)) && has(c)", "(has(c) && (has(a) || has(b)))"),
        (
            "!(has(b) && has(a)) && !(has(d) || has(c))",
            "(!(has(a) && has(b)) && !(has(c) || has(d)))",
        ),
        ("k == 'v' && has(x)", r#"(k == "v" && has(x))"#),
    ];
    for (text, want) in table {
        assert_eq!(selector(text).to_string(), want, "{text:?}");
        assert_eq!(selector(want), selector(text), "{text:?}");
    }
    assert_eq!(format!("{:?}", selector("has(b)&&has(a)")), "Selector((has(a) && has(b)))");
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let table = [
        (
            "a = 'b'",
            "at byte 2: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`, found `=`",
        ),
        ("a == b", "at byte 5: expected a quoted string, found `b`"),
        ("a == 'b", "string at byte 5 is not closed, expected `'`"),
        ("a in {'b' 'c'}", "at byte 10: expected `,` or `}`, found `'`"),
        ("a in {,}", "at byte 6: expected a quoted string or `}`, found `,`"),
        (
            "a inx {'b'}",
            "at byte 2: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`, found `i`",
        ),
        ("a in 'b'", "at byte 5: expected `{`, found `'`"),
        ("has(a,b)", "at byte 5: expected `)`, found `,`"),
        ("has()", "at byte 4: expected a label key, found `)`"),
        ("(has(a)", "at byte 7: expected `&&`, `||` or `)`, found the end"),
        ("has(a))", "at byte 6: expected `&&`, `||` or the end, found `)`"),
        (
            "has(a) &&",
            "at byte 9: expected a label key, `has(`, `all()`, `global()`, `!` or `(`, found the end",
        ),
        (
            "\n",
            "at byte 0: expected a label key, `has(`, `all()`, `global()`, `!` or `(`, found `\\n`",
        ),
        ("a == 'é' é", "at byte 10: expected `&&`, `||` or the end, found `é`"),
    ];
    for (text, want) in table {
        assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), want, "{text:?}");
    }
}

#[test]
fn keys_end_where_they_should() {
    let longest = "k".repeat(Selector::MAX_KEY_BYTES);
    assert!(selector(&format!("{longest} == 'v'")).matches(&labels(&[(&longest, "v")])));
    let too_long = SelectorError::KeyTooLong { position: 4, bytes: 513, limit: 512 };
    assert_eq!(format!("has({longest}k)").parse::<Selector>(), Err(too_long));
    for text in ["xall()", "has (a)", "a-all()", "all( x )", "global(a)", "-all()"] {
        assert!(text.parse::<Selector>().is_err(), "{text}");
    }
    for text in ["all == 'x'", "- == 'x'", "/ == 'x'", "in in {'x'}", "starts starts with 'x'"] {
        assert!(text.parse::<Selector>().is_ok(), "{text}");
    }
}

#[test]
fn lexical_rules_have_no_exceptions() {
    let refused = [
        // Neither line breaks nor other blanks stand between tokens.
        "has(a)\r",
        "\rhas(a)",
        "has(a)\n",
        "has(a)\u{b}",
        "has(a)\u{a0}&& has(b)",
        // Keys have no other characters, and no quotes.
        "a:b == 'v'",
        "a* == 'v'",
        "a~b == 'v'",
        "'a' == 'v'",
        "\"a\" == 'v'",
        "has('a')",
        // Operators of two characters are not split, and there are none of one.
        "a = = 'v'",
        "a ! = 'v'",
        "has(a) & & has(b)",
        "has(a) | | has(b)",
        "has(a) | has(b)",
        "has(a) &&& has(b)",
        "has(a) && || has(b)",
        // Keywords are written in lower case.
        "HAS(a)",
        "All()",
        "GLOBAL()",
        "a IN {'v'}",
        "a NOT IN {'v'}",
        "a Contains 'v'",
        "a Starts With 'v'",
        // Literals end with the quote that they began with, and nothing escapes it.
        "a == 'v\"",
        "a == \"v\\\"\"",
        // There are no comments, and no more than one comma at the end of a set.
        "has(a) # why",
        "has(a) // why",
        "a in {'v',,}",
        "a in {'v' 'w'}",
        // A key stands for nothing by itself.
        "a",
        "a 'v'",
        "a (has(b))",
        "a has(b)",
        "()",
        "! ",
    ];
    for text in refused {
        assert!(text.parse::<Selector>().is_err(), "{text:?}");
    }
    let read = [
        ("\thas(a)\t", "a", "", true),
        ("ends ends with 'v'", "ends", "v", true),
        ("with == 'v'", "with", "v", true),
        ("notin notin{'v'}", "notin", "w", true),
        ("a == 'V'", "a", "v", false),
        ("A == 'v'", "a", "v", false),
        ("a == '\\\"'", "a", "\\\"", true),
        ("a == \"'\\n\u{1f600}\"", "a", "'\\n\u{1f600}", true),
    ];
    for (text, key, value, want) in read {
        assert_eq!(selector(text).matches(&labels(&[(key, value)])), want, "{text:?}");
    }
}

#[test]
fn word_operators_end_at_other_characters() {
    for text in
        ["a in{'b'}", "a notin{'b'}", "a contains'b'", "a starts\t with'b'", "a endswith\"b\""]
    {
        assert!(text.parse::<Selector>().is_ok(), "{text}");
    }
    for text in
        ["a containsx 'b'", "a starts withx 'b'", "a not-in {'b'}", "a not in-{'b'}", "a in/{'b'}"]
    {
        assert!(text.parse::<Selector>().is_err(), "{text}");
    }
}

#[test]
fn size_is_limited_in_characters() {
    let text = |chars: usize| format!("a == '{}'", "é".repeat(chars - 7));
    assert!(text(1024).parse::<Selector>().is_ok());
    let too_long = SelectorError::TooLong { chars: 1025, limit: 1024 };
    assert_eq!(text(1025).parse::<Selector>(), Err(too_long));
    assert!(Selector::from_canonical(&text(1025)).is_ok());
}

#[test]
fn depth_is_limited() {
    let nested =
        |prefix: &str, depth| format!("{}all(){}", prefix.repeat(depth), ")".repeat(depth));
    assert!(nested("(", 64).parse::<Selector>().is_ok());
    assert!(nested("!(", 64).parse::<Selector>().is_ok());
    let too_deep = |position| Err(SelectorError::TooDeep { position, limit: 64 });
    assert_eq!(nested("(", 65).parse::<Selector>(), too_deep(64));
    assert_eq!(nested("! (", 65).parse::<Selector>(), too_deep(194));
    assert_eq!(format!("{}all()", "!".repeat(1019)).parse(), Ok(Selector::none()));
    for hostile in
        [nested("(", 10_000), nested("!(", 10_000), "!".repeat(10_000), "(".repeat(10_000)]
    {
        assert!(matches!(hostile.parse::<Selector>(), Err(SelectorError::TooLong { .. })));
    }
    assert_eq!(Selector::from_canonical(&nested("!(", 10_000)), Ok(Selector::all()));
    assert!(Selector::from_canonical(&"(".repeat(10_000)).is_err());
}

#[test]
fn deep_selectors_need_no_stack() {
    let deep = || {
        let (a, b) = (selector("has(a)"), selector("has(b)"));
        let mut deep = selector("has(c)");
        for _ in 0..1_000 {
            deep = Selector::and([a.clone(), Selector::or([b.clone(), !deep])]);
        }
        assert!(deep.matches(&labels(&[("a", ""), ("c", "")])));
        assert!(!deep.matches(&labels(&[("c", "")])));
        let printed = deep.to_string();
        assert_eq!(Selector::from_canonical(&printed).unwrap(), deep);
        assert_eq!(deep.in_namespaces().to_string(), printed.replace("has(", "has(pcns."));
    };
    thread::Builder::new().stack_size(64 << 10).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn constructors_make_what_text_means() {
    let table = [
        (Ok(Selector::all()), "all()"),
        (Ok(Selector::none()), "!all()"),
        (Selector::has("a"), "has(a)"),
        (Selector::equal("a", "b"), "a == 'b'"),
        (Selector::equal("a", "it's"), "a == \"it's\""),
        (Selector::equal("a", "\""), "a == '\"'"),
        (Selector::not_equal("a", "b"), "a != 'b'"),
        (Selector::is_in("a", ["c", "b", "c"]), "a in {'b', 'c'}"),
        (Selector::not_in("a", [String::new()]), "a not in {''}"),
        (Ok(Selector::and([])), "all()"),
        (Ok(Selector::or([])), "!all()"),
        (Ok(Selector::and([selector("has(a)")])), "has(a)"),
        (Ok(Selector::or([selector("has(b)"), selector("has(a)")])), "has(a) || has(b)"),
        (Ok(!selector("!has(a)")), "has(a)"),
    ];
    for (made, text) in table {
        assert_eq!(made.unwrap(), selector(text));
    }
}

#[test]
fn constructors_refuse_what_cannot_be_printed() {
    let long = "k".repeat(513);
    for key in ["", "a b", "é", "a'", &long] {
        let invalid = SelectorError::InvalidKey { key: key.to_string(), limit: 512 };
        assert_eq!(Selector::has(key), Err(invalid.clone()), "{key}");
        assert_eq!(Selector::equal(key, "v"), Err(invalid), "{key}");
    }
    let value = r#"it's "it""#.to_string();
    let inexpressible = SelectorError::InexpressibleValue { value: value.clone() };
    assert_eq!(Selector::not_equal("a", value.clone()), Err(inexpressible.clone()));
    assert_eq!(Selector::is_in("a", ["fine".to_string(), value]), Err(inexpressible));
}

#[test]
fn selectors_of_owners_are_rewritten() {
    let table = [
        ("k == 'v' && has(x)", r#"(pcns.k == "v" && has(pcns.x))"#),
        ("", "has(projectcalico.org/namespace)"),
        ("all()", "has(projectcalico.org/namespace)"),
        ("!all()", "!has(projectcalico.org/namespace)"),
        ("global()", "!has(projectcalico.org/namespace)"),
        ("!global()", "has(projectcalico.org/namespace)"),
        ("!(has(a) || all())", "!(has(pcns.a) || has(projectcalico.org/namespace))"),
        ("has(a) && (all() || !global())", "(has(pcns.a) && has(projectcalico.org/namespace))"),
    ];
    for (text, want) in table {
        assert_eq!(selector(text).in_namespaces().to_string(), want, "{text:?}");
        let want = want.replace("pcns.", "pcsa.").replace("/namespace", "/serviceaccount");
        assert_eq!(selector(text).in_service_accounts().to_string(), want, "{text:?}");
    }
}

#[test]
fn prefixes_are_key_characters() {
    assert_eq!(selector("has(a) || all()").prefixed("x/").unwrap(), selector("has(x/a) || all()"));
    let invalid = SelectorError::InvalidKey { key: "x ".to_string(), limit: 512 };
    assert_eq!(selector("has(a)").prefixed("x "), Err(invalid));
    let longest = selector(&format!("has({})", "k".repeat(512))).in_namespaces();
    assert!(longest.to_string().parse::<Selector>().is_err());
    assert_eq!(Selector::from_canonical(&longest.to_string()), Ok(longest));
}

#[test]
fn global_is_found_wherever_it_is() {
    for (text, want) in [
        ("global()", true),
        ("!(has(a) && (has(b) || !global()))", true),
        ("a == 'global()'", false),
        ("global == 'x'", false),
    ] {
        assert_eq!(selector(text).mentions_global(), want, "{text}");
    }
    assert!(matches!(selector(" global( ) ").expr(), Expr::Global));
    assert!(matches!(selector("!global()").expr(), Expr::Not(_)));
}

#[test]
fn views_put_labels_together() {
    struct View<'a>(&'a Labels, &'a Labels);

    impl LabelView for View<'_> {
        fn value(&self, key: &str) -> Option<&str> {
            match key.strip_prefix("pcns.") {
                Some(key) => self.1.value(key),
                None => self.0.value(key),
            }
        }
    }

    let own = labels(&[("app", "db")]);
    let namespace = labels(&[("env", "prod")]);
    let selector = selector("app == 'db' && pcns.env == 'prod'");
    assert!(selector.matches(&View(&own, &namespace)));
    let view: &dyn LabelView = &View(&own, &own);
    assert!(!selector.matches(view));
}

#[test]
fn evaluation_asks_no_more_than_needed() {
    struct Recorder(core::cell::RefCell<Vec<String>>);

    impl LabelView for Recorder {
        fn value(&self, key: &str) -> Option<&str> {
            self.0.borrow_mut().push(key.to_string());
            None
        }
    }

    for (text, want) in [
        ("has(a) && has(b)", "a"),
        ("!has(a) || has(b)", "b,a"),
        ("(has(a) && has(b)) || has(c)", "c,a"),
        ("!(has(a) && has(b)) && has(c)", "c"),
        ("!(has(a) || has(b)) && !has(c)", "c,a,b"),
    ] {
        let recorder = Recorder(core::cell::RefCell::default());
        let _ = selector(text).matches(&recorder);
        assert_eq!(recorder.0.into_inner().join(","), want, "{text}");
    }
}
