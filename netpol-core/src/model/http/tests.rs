#![expect(clippy::unwrap_used, reason = "test code")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> HttpPath {
    text.parse().unwrap()
}

fn request(method: &str, target: &str) -> HttpRequest {
    HttpRequest::new(method, target).unwrap()
}

#[test]
fn paths_are_read_as_servers_resolve_them() {
    for (text, want) in [
        ("/", "/"),
        ("/shop", "/shop"),
        ("/shop/", "/shop"),
        ("/shop//cart", "/shop/cart"),
        ("//shop", "/shop"),
        ("/shop/.", "/shop"),
        ("/./shop", "/shop"),
        ("/shop/..", "/"),
        ("/..", "/"),
        ("/../../shop", "/shop"),
        ("/shop/../admin", "/admin"),
        ("/shop/a/../../admin", "/admin"),
        ("/shop/...", "/shop/..."),
        ("/.well-known", "/.well-known"),
        // Query and fragment go first, and only as they were written.
        ("/shop?page=/../admin", "/shop"),
        ("/shop#/../admin", "/shop"),
        ("/shop#a?b", "/shop"),
        ("/shop/../admin?x", "/admin"),
        ("/shop%3Fcart", "/shop?cart"),
        ("/shop%23cart", "/shop#cart"),
        // One round of decoding.
        ("/sh%6Fp", "/shop"),
        ("/shop%2f..%2Fadmin", "/admin"),
        ("/shop/%2e%2E/admin", "/admin"),
        ("/100%25", "/100%"),
        ("/%2561", "/%61"),
        ("/%e4%bd%a0", "/你"),
        ("/你", "/你"),
        ("/%FF", "/\u{fffd}"),
        ("/a%0Ab", "/a\\nb"),
        ("/a b", "/a b"),
        // Backslashes separate, too.
        ("/shop\\..\\admin", "/admin"),
        ("/shop%5C..%5cadmin", "/admin"),
        ("%5Cshop", "/shop"),
        ("\\shop", "/shop"),
        // Parameters end with their segment.
        ("/shop;v=1", "/shop"),
        ("/shop;v=1/cart;id=2/", "/shop/cart"),
        ("/shop/..;v=1/admin", "/admin"),
        ("/shop/..%3Bv/admin", "/admin"),
        ("/shop/;v/cart", "/shop/cart"),
        ("/shop;a;b", "/shop"),
        ("/;v", "/"),
        ("/shop;a/../admin", "/admin"),
    ] {
        assert_eq!(path(text).to_string(), want, "{text}");
    }
}

#[test]
fn what_servers_could_resolve_in_two_ways_is_refused() {
    for (text, want) in [
        ("", HttpPathError::Relative),
        ("shop", HttpPathError::Relative),
        ("?/shop", HttpPathError::Relative),
        ("http://example.com/shop", HttpPathError::Relative),
        ("/%", HttpPathError::Encoding),
        ("/%2", HttpPathError::Encoding),
        ("/%2?e", HttpPathError::Encoding),
        ("/%zz", HttpPathError::Encoding),
        ("/% 41", HttpPathError::Encoding),
        ("/%+1", HttpPathError::Encoding),
        ("/shop/%252e%252e/admin", HttpPathError::EncodedTwice),
        ("/shop/%252E", HttpPathError::EncodedTwice),
        ("/shop%252fadmin", HttpPathError::EncodedTwice),
        ("/shop%255c..%255Cadmin", HttpPathError::EncodedTwice),
        ("/shop/%25%32%65", HttpPathError::EncodedTwice),
        ("/shop;v=%252e", HttpPathError::EncodedTwice),
        ("/shop%00", HttpPathError::Nul),
        ("/shop\0", HttpPathError::Nul),
    ] {
        assert_eq!(text.parse::<HttpPath>(), Err(want), "{text}");
    }
    for (error, want) in [
        (HttpPathError::Relative, "no leading slash, expected one"),
        (HttpPathError::Encoding, "a percent sign without two hexadecimal digits after it"),
        (HttpPathError::EncodedTwice, "a dot, slash or backslash that is percent-encoded twice"),
        (HttpPathError::Nul, "a NUL byte"),
    ] {
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn requests_are_in_origin_form() {
    let shop = request("GET", "/shop/../x?q");
    assert_eq!(
        (shop.method(), shop.path(), shop.to_string()),
        ("GET", Some(&path("/x")), String::from("GET /shop/../x?q"))
    );
    let unresolved = request("M-SEARCH", "/%2\u{1b}");
    assert_eq!((unresolved.path(), unresolved.to_string()), (None, "M-SEARCH /%2\\u{1b}".into()));
    for (method, target, want) in [
        ("", "/", "`` is no method, expected letters such as `GET`"),
        ("GET /", "/", "`GET /` is no method, expected letters such as `GET`"),
        ("GÉT", "/", "`GÉT` is no method, expected letters such as `GET`"),
        ("G\n", "/", "`G\\n` is no method, expected letters such as `GET`"),
        ("GET", "", "`` is no path, expected one that begins with `/`"),
        ("GET", "shop", "`shop` is no path, expected one that begins with `/`"),
        ("OPTIONS", "*", "`*` is no path, expected one that begins with `/`"),
        ("CONNECT", "shop:80", "`shop:80` is no path, expected one that begins with `/`"),
        ("GET", "\\shop", "`\\\\shop` is no path, expected one that begins with `/`"),
    ] {
        assert_eq!(HttpRequest::new(method, target).unwrap_err().to_string(), want);
    }
}

/// Checks which requests a condition matches. Paths that end with `*` are prefixes.
#[track_caller]
fn check(methods: &[&str], paths: &[&str], cases: &[(&str, &str, bool)]) {
    let condition = HttpMatch {
        methods: methods.iter().map(|it| String::from(*it)).collect(),
        paths: paths
            .iter()
            .map(|text| match text.strip_suffix('*') {
                Some(prefix) => HttpPathMatch::Prefix(path(prefix)),
                None => HttpPathMatch::Exact(path(text)),
            })
            .collect(),
    };
    for &(method, target, want) in cases {
        assert_eq!(condition.matches(&request(method, target)), want, "{method} {target}");
    }
}

#[test]
fn methods_are_compared_exactly_or_all_meant() {
    check(&[], &[], &[("GET", "/", true), ("madness", "/x", true), ("GET", "/%00", true)]);
    check(
        &["GET", "HEAD"],
        &[],
        &[("GET", "/", true), ("HEAD", "/", true), ("PUT", "/", false), ("get", "/", false)],
    );
    check(&["*"], &[], &[("GET", "/", true), ("madness", "/", true)]);
    check(&["GET", "*"], &[], &[("PUT", "/", true)]);
    check(&["GE*"], &[], &[("GET", "/", false)]);
}

#[test]
fn paths_are_compared_as_a_whole_or_by_segments() {
    check(
        &[],
        &["/shop"],
        &[
            ("GET", "/shop", true),
            ("GET", "/shop/", true),
            ("GET", "/shop?q", true),
            ("GET", "/shop#f", true),
            ("GET", "/x/../shop", true),
            ("GET", "/shop/cart", false),
            ("GET", "/shopping", false),
            ("GET", "/Shop", false),
            ("GET", "/", false),
        ],
    );
    for prefix in ["/shop*", "/shop/*", "//shop;v=1*", "/x/../shop*"] {
        check(
            &[],
            &[prefix],
            &[
                ("GET", "/shop", true),
                ("GET", "/shop/", true),
                ("GET", "/shop/cart", true),
                ("GET", "/shop\\cart", true),
                ("GET", "/shopping", false),
                ("GET", "/shop?ping", true),
                ("GET", "/shop/../admin", false),
                ("GET", "/shop/%2e%2e/admin", false),
                ("GET", "/shop%2F..%2Fadmin", false),
                ("GET", "/shop\\..\\admin", false),
                ("GET", "/shop/..;v/admin", false),
                ("GET", "/shop/%252e%252e/admin", false),
                ("GET", "/shop/%00", false),
                ("GET", "/shop/%", false),
            ],
        );
    }
    check(&[], &["/*"], &[("GET", "/", true), ("GET", "/x", true), ("GET", "/%00", false)]);
    check(&[], &["/"], &[("GET", "/", true), ("GET", "/..", true), ("GET", "/x", false)]);
    check(
        &[],
        &["/a*", "/b"],
        &[("GET", "/a/x", true), ("GET", "/b", true), ("GET", "/b/x", false)],
    );
}

#[test]
fn method_and_path_must_both_fit() {
    check(
        &["GET"],
        &["/shop*"],
        &[("GET", "/shop/x", true), ("PUT", "/shop/x", false), ("GET", "/x", false)],
    );
}

/// Resolves a path by rewriting text until nothing changes any more: another way than that of the subject. Knows only
/// ASCII.
fn oracle(text: &str) -> Option<String> {
    let mut path = String::new();
    let mut rest: Vec<char> = text.chars().take_while(|it| *it != '?' && *it != '#').collect();
    rest.reverse();
    while let Some(character) = rest.pop() {
        if character == '%' {
            let code: String = [rest.pop()?, rest.pop()?].iter().collect();
            // `from_str_radix` takes a sign.
            let code = code.chars().all(|it| it.is_ascii_hexdigit()).then_some(code)?;
            path.push(char::from(u8::from_str_radix(&code, 16).unwrap()));
        } else {
            path.push(character);
        }
    }
    let lower = path.to_lowercase();
    if ["%2e", "%2f", "%5c", "\0"].iter().any(|it| lower.contains(it)) {
        return None;
    }
    let mut path = format!("{}/", path.replace('\\', "/"));
    if !path.starts_with('/') {
        return None;
    }
    while let Some(start) = path.find(';') {
        let end = start + path.get(start..)?.find('/')?;
        path.replace_range(start..end, "");
    }
    loop {
        let before = path.clone();
        path = path.replace("//", "/").replace("/./", "/");
        if path.starts_with("/../") {
            path.replace_range(..3, "");
        } else if !path.contains("//")
            && !path.contains("/./")
            && let Some(dots) = path.find("/../")
        {
            let parent = path.get(..dots)?.rfind('/')?;
            path.replace_range(parent..dots + 3, "");
        }
        if path == before {
            break;
        }
    }
    Some(if path == "/" { path } else { path.trim_end_matches('/').into() })
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/", "/", "/", ".", "..", "p", "q", "pq", ";", ";x", "\\", "?", "#", "%2e", "%2E", "%2f",
        "%5c", "%3b", "%25", "%00", "%71", "%", "2", "2e", "5c", "%32", "%65", "\0", "~",
    ])
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn paths_mean_what_rewriting_makes_of_them(text in text()) {
        let got = text.parse::<HttpPath>().ok().map(|it| it.to_string());
        prop_assert_eq!(got, oracle(&text));
    }

    /// A prefix matches what the first segments of the path are.
    #[test]
    fn prefixes_are_whole_segments(target in text(), prefix in text()) {
        let (Some(resolved), Some(wanted)) = (oracle(&target), oracle(&prefix)) else {
            return Ok(());
        };
        let segments = |text: &str| {
            text.split('/').filter(|it| !it.is_empty()).map(String::from).collect::<Vec<_>>()
        };
        let want = segments(&resolved).starts_with(&segments(&wanted));
        let condition = HttpMatch {
            paths: [HttpPathMatch::Prefix(path(&prefix))].into(),
            ..HttpMatch::default()
        };
        prop_assert_eq!(condition.matches(&request("GET", &target)), want);
        let exact = HttpMatch {
            paths: [HttpPathMatch::Exact(path(&prefix))].into(),
            ..HttpMatch::default()
        };
        prop_assert_eq!(exact.matches(&request("GET", &target)), resolved == wanted);
    }

    /// No text makes a path that breaks the invariant.
    #[test]
    fn any_text_is_refused_or_canonical(text in "\\PC*") {
        if let Ok(path) = text.parse::<HttpPath>() {
            let bytes = &path.0;
            prop_assert!(bytes.starts_with(b"/") && !bytes.contains(&b'\\') && !bytes.contains(&0));
            prop_assert!(bytes.len() == 1 || !bytes.ends_with(b"/"));
            let segments = bytes.split(|it| *it == b'/').skip(1);
            for segment in segments.filter(|_| bytes.len() > 1) {
                prop_assert!(!matches!(segment, b"" | b"." | b".."));
            }
        }
    }
}
