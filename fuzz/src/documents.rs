//! Documents: streams of YAML and JSON with objects of every kind that the core knows.
//!
//! Whatever the text is, objects are refused with reasons or accepted; how strictly they are read makes no difference to
//! those that are wholly readable; what cannot be read never widens what passes; and what was accepted is judged,
//! compiled and made flat, with one result.

mod world;

use netpol_conformance::document;
use netpol_core::api::{Accepted, Document, Kind, Strictness};
use netpol_core::model::Object;
use serde_json::{Value, json};

use self::world::World;

/// Most objects of a stream that are looked at.
const MAX_OBJECTS: usize = 24;

/// Most rules of a policy that are made unreadable, one at a time.
const MAX_BROKEN: usize = 6;

/// Checks a stream.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut accepted = Vec::new();
    let contents = document::read(&text).into_iter().filter_map(|it| it.content.ok());
    for value in contents.flat_map(document::unpack).take(MAX_OBJECTS) {
        for kind in kinds_of(&value) {
            let Some(object) = check_object(kind, &value) else { continue };
            check_broken(kind, &value, &object);
            accepted.push(object);
        }
    }
    if !accepted.is_empty() {
        World::with(&accepted).check_agreement();
    }
}

/// Returns the kind that an object says it is, or every kind, as callers that know the kind need not look.
fn kinds_of(value: &Value) -> Vec<Kind> {
    let field = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    match Kind::recognise(field("apiVersion"), field("kind")) {
        Some(kind) => vec![kind],
        None => Kind::ALL.to_vec(),
    }
}

fn read(kind: Kind, value: &Value, strictness: Strictness) -> Option<Accepted<Option<Object>>> {
    let document = Document::read(kind, value).ok()?;
    match document.to_object(strictness) {
        Ok(accepted) => {
            let has_diagnostics = !accepted.diagnostics.is_empty();
            assert!(strictness == Strictness::Degraded || !has_diagnostics, "{kind}: {value}");
            Some(accepted)
        }
        Err(refused) => {
            assert!(!refused.diagnostics.is_empty(), "{kind} refused without a reason: {value}");
            for diagnostic in &refused.diagnostics {
                let text = diagnostic.to_string();
                let is_readable = text.chars().count() < 2_100 && !text.contains(char::is_control);
                assert!(is_readable && !diagnostic.message.is_empty(), "{text:?}");
            }
            None
        }
    }
}

/// Reads an object in every way there is, and returns what it was read as.
fn check_object(kind: Kind, value: &Value) -> Option<Object> {
    let strict = read(kind, value, Strictness::Strict);
    let degraded = read(kind, value, Strictness::Degraded);
    match (&strict, &degraded) {
        (Some(strict), Some(degraded)) => {
            assert_eq!(strict.value, degraded.value, "{kind}: {value}");
            assert!(degraded.diagnostics.is_empty(), "{kind}: {:?}", degraded.diagnostics);
        }
        (Some(_), None) => panic!("{kind} is refused when read less strictly: {value}"),
        (None, Some(degraded)) => {
            assert!(!degraded.diagnostics.is_empty(), "{kind} degraded without a reason: {value}");
        }
        (None, None) => {}
    }
    // Text is read as the tree is, but for the digits of numbers in messages.
    let text = value.to_string();
    let from_text = Document::read(kind, &mut serde_json::Deserializer::from_str(&text));
    let from_text = from_text.ok().and_then(|it| it.to_object(Strictness::Degraded).ok());
    let read = |it: Accepted<Option<Object>>| {
        let paths: Vec<_> = it.diagnostics.into_iter().map(|it| it.path).collect();
        (it.value, paths)
    };
    let degraded = degraded.map(read);
    assert_eq!(from_text.map(read), degraded, "{kind}: {value}");
    degraded?.0
}

/// Makes one part of a policy's rules after the other unreadable, and checks that nothing passes that did not before.
fn check_broken(kind: Kind, value: &Value, object: &Object) {
    if !matches!(object, Object::Policy(_)) {
        return;
    }
    let parts = parts_of_rules(value);
    let step = parts.len().div_ceil(MAX_BROKEN).max(1);
    for part in parts.iter().step_by(step) {
        let mut broken = value.clone();
        let Some(place) = broken.pointer_mut(part) else { continue };
        *place = json!({"?": [null]});
        let Some(accepted) = read(kind, &broken, Strictness::Degraded) else { continue };
        let Some(broken) = accepted.value else { continue };
        World::with(std::slice::from_ref(&broken)).check_no_wider_than(object, part);
    }
}

/// Returns the places of everything in the rules of a policy, and of the rules.
fn parts_of_rules(value: &Value) -> Vec<String> {
    let mut parts = Vec::new();
    for direction in ["ingress", "egress"] {
        let pointer = format!("/spec/{direction}");
        let Some(Value::Array(rules)) = value.pointer(&pointer) else { continue };
        let mut rest: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (format!("{pointer}/{index}"), rule))
            .collect();
        while let Some((pointer, part)) = rest.pop() {
            match part {
                Value::Object(fields) => rest.extend(fields.iter().map(|(name, field)| {
                    (format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), field)
                })),
                Value::Array(items) => rest.extend(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| (format!("{pointer}/{index}"), item)),
                ),
                _ => {}
            }
            parts.push(pointer);
        }
    }
    parts
}
