//! Replays the corpora of the fuzz targets: what they once met holds with every compiler, not only with one that counts
//! coverage.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use netpol_conformance::document;
use netpol_core::api::{Document, Kind, Strictness};
use serde_json::Value;

#[path = "../../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the library of another workspace, whose panics are its findings"
)]
mod targets;

/// Returns the inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "too few inputs of {target}");
    files
}

fn replay(target: &str, check: fn(&[u8])) {
    for file in corpus(target) {
        println!("{}", file.display());
        check(&fs::read(file).unwrap());
    }
}

#[test]
fn prefixes_say_what_bits_say() {
    replay("cidr", targets::cidr::check);
}

#[test]
fn documents_are_refused_or_mean_one_thing() {
    replay("documents", targets::documents::check);
}

#[test]
fn selectors_mean_what_the_specification_says() {
    replay("selector", targets::selector::check);
}

#[test]
fn every_kind_has_an_acceptable_document() {
    let mut kinds = BTreeSet::new();
    for file in corpus("documents") {
        let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        let contents = document::read(&text).into_iter().filter_map(|it| it.content.ok());
        kinds.extend(contents.flat_map(document::unpack).filter_map(|it| accepted_kind(&it)));
    }
    assert_eq!(kinds, Kind::ALL.iter().copied().collect());
}

fn accepted_kind(value: &Value) -> Option<Kind> {
    let field = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::recognise(field("apiVersion"), field("kind"))?;
    let document = Document::read(kind, value).ok()?;
    document.to_object(Strictness::Strict).ok().map(|_| kind)
}
