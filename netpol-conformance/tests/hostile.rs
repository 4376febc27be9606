//! Hostile documents: whatever somebody writes, reading it ends soon, in bounded memory, with an error that says what is
//! wrong or with an object that can be compiled.
//!
//! The documents are those of the fuzz corpus that are named by hand, one at least of each kind, in which one thing is made
//! hostile at a time.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netpol_conformance::document;
use netpol_conformance::scenario::{self, Scenario, ScenarioError};
use netpol_core::api::{Document, Kind, Strictness};
use netpol_core::model::{Endpoint, Object};
use netpol_core::{Capabilities, Engine, NodeConfig};
use serde_json::{Map, Value, json};

/// How long reading and compiling one document may take, with a compiler that does not optimise and busy processors.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most memory that the whole process may have used at any time, in KiB.
const MEMORY: u64 = 2 << 20;

/// Held by the tests with large documents: the memory of the process is that of one of them, however many run at once.
static LARGE_DOCUMENTS: Mutex<()> = Mutex::new(());

/// Entries of a list or map.
const MANY: usize = 100_000;

/// Values in one another.
const DEEP: usize = 10_000;

/// Bytes of a large document, and of one part where every part of every document is tried.
const LARGE: usize = 10 << 20;
const PART: usize = 1 << 20;

/// Returns documents of every kind.
fn documents() -> Vec<(Kind, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/documents");
    let files = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let by_hand = files.filter(|it| it.extension().is_some());
    let mut found = Vec::new();
    for file in by_hand {
        for read in document::read(&fs::read_to_string(file).unwrap()) {
            for value in document::unpack(read.content.unwrap()) {
                let field = |name| value.get(name).and_then(Value::as_str).unwrap();
                let kind = Kind::recognise(field("apiVersion"), field("kind"));
                found.extend(kind.map(|kind| (kind, value)));
            }
        }
    }
    let kinds: BTreeSet<_> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, Kind::ALL.iter().copied().collect());
    found
}

/// Reads an object in both ways and enforces what is accepted.
fn survive(what: &str, kind: Kind, value: &Value) {
    let start = Instant::now();
    enforce(read(what, kind, value));
    let took = start.elapsed();
    assert!(took < PATIENCE, "{what}: took {took:?}");
}

/// Reads an object in both ways, and returns what it is less strictly.
fn read(what: &str, kind: Kind, value: &Value) -> Option<Object> {
    let document = Document::read(kind, value).ok()?;
    let [_, degraded] = [Strictness::Strict, Strictness::Degraded].map(|strictness| {
        let refused = match document.to_object(strictness) {
            Ok(accepted) => return accepted.value,
            Err(refused) => refused,
        };
        assert!(!refused.diagnostics.is_empty(), "{what}: refused without a reason");
        let is_readable = |line: &str| line.len() < 10_000 && !line.contains(char::is_control);
        assert!(refused.to_string().lines().all(is_readable), "{what}");
        None
    });
    degraded
}

fn enforce(object: Option<Object>) {
    let mut engine = Engine::new(NodeConfig::new("node-a"), &Capabilities::all());
    for name in ["web", "db"] {
        let mut pod = Endpoint::pod("shop", name).on_node("node-a");
        pod.labels = [("app", name)].into_iter().collect();
        engine.upsert(pod).unwrap();
    }
    if let Some(object) = object {
        let _refused = engine.upsert(object);
    }
    engine.inputs_complete();
    assert!(engine.poll_update().is_some());
}

/// Calls `hostile` with every part of a document for which it returns something to put in its place.
fn with_each_part(hostile: impl Fn(&Value) -> Option<Value>) {
    for (kind, value) in documents() {
        for part in parts(&value) {
            let Some(instead) = hostile(value.pointer(&part).unwrap()) else { continue };
            let mut changed = value.clone();
            *changed.pointer_mut(&part).unwrap() = instead;
            survive(&format!("{kind} with another {part}"), kind, &changed);
        }
    }
    check_memory();
}

/// Returns the places of all parts of a document.
fn parts(value: &Value) -> Vec<String> {
    let mut places = Vec::new();
    let mut rest = vec![(String::new(), value)];
    while let Some((place, part)) = rest.pop() {
        match part {
            Value::Object(fields) => rest.extend(fields.iter().map(|(name, field)| {
                (format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), field)
            })),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                rest.extend(items.map(|(index, item)| (format!("{place}/{index}"), item)));
            }
            _ => {}
        }
        places.push(place);
    }
    places
}

fn alone() -> MutexGuard<'static, ()> {
    LARGE_DOCUMENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_memory() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MEMORY, "{peak} KiB were used");
}

/// Returns a list of as many of the first item as `bytes` hold.
fn longer(list: &Value, bytes: usize) -> Option<Value> {
    let first = list.as_array()?.first()?;
    Some(vec![first.clone(); (bytes / first.to_string().len()).min(MANY)].into())
}

/// Returns an object with so many fields more.
fn wider(object: &Value, more: usize) -> Option<Value> {
    let mut fields = object.as_object()?.clone();
    fields.extend((0..more).map(|number| (format!("k{number}"), "v".into())));
    Some(fields.into())
}

#[test]
fn documents_may_be_large() {
    let _alone = alone();
    for (kind, value) in documents() {
        for part in ["/metadata/name", "/metadata/labels", "/spec/ingress", "/spec/nets"] {
            let mut changed = value.clone();
            let Some(place) = changed.pointer_mut(part) else { continue };
            let text = || place.as_str().map(|_| "a".repeat(LARGE).into());
            let large = longer(place, LARGE).or_else(|| wider(place, MANY)).or_else(text);
            let Some(large) = large else { continue };
            *place = large;
            let (what, start) = (format!("{kind} with a large {part}"), Instant::now());
            read(&what, kind, &changed);
            let took = start.elapsed();
            assert!(took < PATIENCE, "{what}: took {took:?}");
        }
    }
    check_memory();
}

#[test]
fn lists_may_be_long() {
    let _alone = alone();
    with_each_part(|part| longer(part, PART));
}

#[test]
fn lists_may_be_long_everywhere_at_once() {
    fn all_longer(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().cycle().take(12).map(all_longer).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, field)| (name.clone(), all_longer(field))).collect()
            }
            other => other.clone(),
        }
    }
    for (kind, value) in documents() {
        survive(&format!("{kind} with long lists"), kind, &all_longer(&value));
    }
    check_memory();
}

#[test]
fn objects_may_have_many_fields() {
    with_each_part(|part| wider(part, MANY / 10));
}

#[test]
fn texts_may_be_anything() {
    let texts = [
        "",
        "\0",
        "a\nb: c",
        "\u{1b}[2J",
        "\u{202e}a",
        "a/b",
        "'\"",
        "ä",
        "-",
        ".",
        "{{}}",
        "*",
        "%00",
    ];
    for text in texts {
        with_each_part(|part| part.is_string().then(|| text.into()));
    }
    let long = "a".repeat(PART);
    with_each_part(|part| part.is_string().then(|| long.clone().into()));
}

#[test]
fn values_may_be_of_any_type() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(65_536),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.5),
        json!("1"),
        json!([]),
        json!([[]]),
        json!([null]),
        json!({}),
        json!({"": null}),
    ];
    for value in values {
        with_each_part(|_| Some(value.clone()));
    }
}

#[test]
fn names_of_fields_may_be_anything() {
    for name in ["", "\0", "a\nb", "\u{1b}[2J", "a/b", "~", "é"] {
        with_each_part(|part| {
            let mut fields: Map<_, _> = part.as_object()?.clone();
            fields.insert(name.to_owned(), json!("v"));
            Some(fields.into())
        });
    }
}

#[test]
fn nesting_is_bounded_by_the_reader() {
    let json = [("[", "]"), (r#"{"a":"#, "}")];
    let yaml = [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("!t ", "")];
    for (kind, value) in documents() {
        let text = value.to_string();
        for (open, close) in json.into_iter().chain(yaml) {
            let (open, close) = (open.repeat(DEEP), close.repeat(DEEP));
            for field in ["spec", "metadata", "new"] {
                // A second field of that name, in case there is one: the first that cannot be read decides.
                let hostile = format!("{{{field:?}: {open}1{close}, {}", &text[1..]);
                let start = Instant::now();
                assert!(document::read(&hostile).iter().any(|it| it.content.is_err()), "{kind}");
                assert!(start.elapsed() < PATIENCE, "{kind}");
            }
        }
    }
    check_memory();
}

#[test]
fn streams_are_bounded() {
    let _alone = alone();
    let aliases = |levels: usize, width: usize| {
        let mut bomb = String::from("apiVersion: v1\nkind: Namespace\na0: &a0 [x, x]\n");
        for level in 1..levels {
            let lower = vec![format!("*a{}", level - 1); width].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{lower}]\n"));
        }
        bomb
    };
    let merges = (0..200).fold(String::from("m0: &m0 {a: 1}\n"), |text, level| {
        format!(
            "{text}m{}: &m{} {{<<: [*m{level}, *m{level}], k{level}: 1}}\n",
            level + 1,
            level + 1
        )
    });
    let streams = [
        aliases(10, 10),
        aliases(60, 2),
        aliases(3, 1_000),
        "&a [*a]".to_owned(),
        "a: &a {b: *a}".to_owned(),
        merges,
        "---\n".repeat(1 << 20),
        "a: b\n---\n".repeat(1 << 17),
        "\u{feff}".repeat(1 << 16),
        "a: |\n".to_owned() + &"  x\n".repeat(1 << 20),
        "\"".repeat(1 << 20),
        "[".repeat(1 << 20),
        "{".repeat(1 << 20),
        "- ".repeat(1 << 20),
        "&a ".repeat(1 << 18),
        "%TAG ! tag:x\n".repeat(1 << 16),
        "#\n".repeat(1 << 20),
        "a: ".repeat(1 << 18),
        "\t".repeat(1 << 20),
        "\0".repeat(1 << 20),
        format!("{{\"a\": \"{}\"}}", "\\u0000".repeat(1 << 20)),
        format!("{{\"a\": {}}}", "9".repeat(1 << 20)),
    ];
    for stream in streams {
        let start = Instant::now();
        let _documents = document::read(&stream);
        let took = start.elapsed();
        assert!(took < PATIENCE, "{:?}… took {took:?}", stream.get(..40));
    }
    check_memory();
}

/// Returns what a scenario of these steps is refused or read as, in how long.
fn load(objects: &str, steps: &str) -> (Result<Scenario, ScenarioError>, Duration) {
    let head = "apiVersion: netpol.dev/v1\nkind: Scenario\nmetadata: {name: s}\n";
    let text = format!("{objects}---\n{head}spec:\n  requires: [np]\n  steps:\n{steps}");
    let start = Instant::now();
    (scenario::parse(Path::new("s.yaml"), &text), start.elapsed())
}

#[test]
fn scenarios_are_bounded() {
    let _alone = alone();
    let pods = |count: usize| -> String {
        let pod = |number| {
            format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p{number}, namespace: x}}, spec: {{containers: [{{name: m, ports: [{{containerPort: 80}}]}}]}}}}\n"
            )
        };
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: x}}\n";
        let node = "---\n{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}}\n";
        [namespace, node].into_iter().map(String::from).chain((0..count).map(pod)).collect()
    };
    let matrix = "  - {name: a, matrix: {protocol: TCP, port: 80, default: allow}}\n";
    let unknown =
        "  - {name: a, apply: [{apiVersion: v1, kind: Namespace, metadata: {name: \"\\0\"}}]}\n";
    for (objects, steps, wrong) in [
        (pods(200), matrix.to_owned(), None),
        (pods(1_100), matrix.to_owned(), Some("expected a smaller scenario")),
        (pods(200), "  - {name: a}\n".repeat(10_000), Some("expected a smaller scenario")),
        (pods(1), "  - {name: a}\n".repeat(100_000), None),
        (pods(1), format!("  - {{name: {}}}\n", "a".repeat(LARGE)), None),
        (pods(1), format!("  - {{name: {}}}\n", "[".repeat(DEEP)), Some("")),
        (pods(1), "  - *a\n".to_owned(), Some("")),
        (pods(1), "  - &a {name: a, probes: [*a]}\n".to_owned(), Some("")),
        (pods(1), unknown.to_owned(), Some(r"`\u{0}`")),
    ] {
        let (loaded, took) = load(&objects, &steps);
        let error = loaded.as_ref().err().map(ToString::to_string);
        let start = steps.get(..40).unwrap_or(&steps);
        match (wrong, error) {
            (None, None) => {}
            (Some(wrong), Some(error)) => assert!(error.contains(wrong), "{start}: {error}"),
            (_, error) => assert_eq!(error.as_deref(), wrong, "{start}"),
        }
        assert!(took < PATIENCE, "{start} took {took:?}");
    }
    check_memory();
}
