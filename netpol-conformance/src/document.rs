//! Documents: the pieces of a YAML or JSON stream.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

/// Most bytes of one file that are read.
pub const MAX_BYTES: usize = 64 << 20;

/// The endings of files that hold documents.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 48;

/// Most scalars, lists and maps of one document.
const MAX_NODES: usize = 1_000_000;

/// One document of a stream.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a document has a place and a content")]
pub struct Document {
    /// Its place in the stream, from 0; documents without content do not count.
    pub index: usize,
    /// What it holds, as far as it could be read.
    pub content: Result<Value, DocumentError>,
}

/// Why a document could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DocumentError {
    /// What the parser says.
    pub message: String,
    /// Line and column, from 1.
    pub position: Option<(u64, u64)>,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for DocumentError {}

/// A file or folder that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be read", file.display())]
#[non_exhaustive]
pub struct FileError {
    /// The file or folder.
    pub file: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Returns the files that `path` stands for: itself, or the documents below it, sorted.
///
/// # Errors
///
/// If there is nothing at `path`, or a folder cannot be read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let failed = |source| FileError { file: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let inside = entry.map_err(failed)?.path();
        let ending = inside.extension().map(|it| it.to_string_lossy().to_lowercase());
        if inside.is_dir() || ending.is_some_and(|it| EXTENSIONS.contains(&it.as_str())) {
            found.extend(files(&inside)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the text of a file.
///
/// # Errors
///
/// If it cannot be read, is too large, or is not UTF-8.
pub fn text(file: &Path) -> Result<String, FileError> {
    let failed = |source| FileError { file: file.to_owned(), source };
    fs::File::open(file).and_then(text_of).map_err(failed)
}

/// Returns all text of a stream of bounded size.
///
/// # Errors
///
/// If it cannot be read, is too large, or is not UTF-8.
pub fn text_of(stream: impl Read) -> io::Result<String> {
    let mut text = String::new();
    stream.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_BYTES {
        let message = format!("more than {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Returns the documents of a YAML stream, or of JSON texts one after the other.
///
/// Depth and the expansion of aliases are bounded. A document that cannot be decoded does not hide those after
/// it; one with a syntax error does.
#[must_use]
pub fn read(text: &str) -> Vec<Document> {
    let contents = read_json(text).unwrap_or_else(|| read_yaml(text));
    contents.into_iter().enumerate().map(|(index, content)| Document { index, content }).collect()
}

/// Returns the objects that a document stands for: the items of a `v1` `List` or of a list of one kind, or the document
/// itself. Items that do not say what they are, are what the list says.
#[must_use]
pub fn unpack(document: Value) -> Vec<Value> {
    let text = |key| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let (version, kind) = (text("apiVersion"), text("kind"));
    let Some(kind) = kind.as_deref().and_then(|it| it.strip_suffix("List")) else {
        return vec![document];
    };
    if kind.is_empty() && version.as_deref() != Some("v1") {
        return vec![document];
    }
    let of_list = [("apiVersion", version), ("kind", Some(kind.to_owned()))];
    let of_list = of_list.map(|(key, it)| (key, it.filter(|_| !kind.is_empty())));
    match document {
        Value::Object(mut list) => match list.remove("items") {
            Some(Value::Array(items)) => {
                items.into_iter().map(|it| with_defaults(it, &of_list)).flat_map(unpack).collect()
            }
            None | Some(Value::Null) if kind.is_empty() => Vec::new(),
            None => vec![Value::Object(list)],
            // No list that we could look into.
            Some(other) => {
                list.insert("items".to_owned(), other);
                vec![Value::Object(list)]
            }
        },
        other => vec![other],
    }
}

/// Fills in text that an object does not have.
fn with_defaults(mut object: Value, defaults: &[(&str, Option<String>)]) -> Value {
    if let Value::Object(fields) = &mut object {
        for (key, text) in defaults {
            if let (false, Some(text)) = (fields.contains_key(*key), text) {
                fields.insert((*key).to_owned(), text.clone().into());
            }
        }
    }
    object
}

/// Returns `None` if the text is not JSON throughout: then it may still be YAML.
fn read_json(text: &str) -> Option<Vec<Result<Value, DocumentError>>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(text)
        .into_iter::<Unique>()
        .map(|value| {
            let Unique(value) = value.ok()?;
            let refused = |message| DocumentError { message, position: None };
            Some(value.map_err(refused))
        })
        .collect()
}

/// A value of which no map has a key twice, or which one has.
struct Unique(Result<Value, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

/// Reads to the end in any case, so that what comes after the value can be read too.
struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, it: bool) -> Result<Unique, E> {
        Ok(Unique(Ok(it.into())))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Unique, E> {
        Ok(Unique(Ok(it.into())))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Unique, E> {
        Ok(Unique(Ok(it.into())))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Unique, E> {
        Ok(Unique(Ok(it.into())))
    }

    fn visit_str<E>(self, it: &str) -> Result<Unique, E> {
        Ok(Unique(Ok(it.into())))
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Ok(Value::Null)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut list = Ok(Vec::new());
        while let Some(Unique(item)) = items.next_element()? {
            list = list.and_then(|mut list| {
                list.push(item?);
                Ok(list)
            });
        }
        Ok(Unique(list.map(Value::Array)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut map = Ok(Map::new());
        while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
            map = map.and_then(|mut map| match map.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(value?);
                    Ok(map)
                }
                // The words of the reader of YAML.
                Entry::Occupied(entry) => {
                    Err(format!("duplicate mapping key: {} not allowed here", entry.key()))
                }
            });
        }
        Ok(Unique(map.map(Value::Object)))
    }
}

fn read_yaml(text: &str) -> Vec<Result<Value, DocumentError>> {
    let options = serde_saphyr::options! {
        // The API server reads YAML 1.2's words only where a truth value is expected.
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_BYTES),
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            // Whoever names a value once may use it often; what it stands for counts as nodes.
            enforce_alias_anchor_ratio: false,
        },
    };
    let mut bytes = text.as_bytes();
    serde_saphyr::read_with_options::<_, Value>(&mut bytes, options)
        .map(|document| document.map_err(|error| explain(&error)))
        .collect()
}

fn explain(error: &serde_saphyr::Error) -> DocumentError {
    let position = error.location().map(|it| (it.line(), it.column()));
    let text = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
    // The position has its own field.
    let message = match (position, text.rfind(" at line ")) {
        (Some(_), Some(end)) => text.get(..end).unwrap_or(&text).to_owned(),
        _ => text,
    };
    DocumentError { message, position }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use super::*;
    use serde_json::json;

    fn contents(text: &str) -> Vec<Value> {
        read(text).into_iter().map(|it| it.content.unwrap()).collect()
    }

    #[test]
    fn yaml_and_json_streams_hold_the_same() {
        let expected = [json!({"a": 1, "b": ["x", true]}), json!({"a": "y"})];
        for text in [
            "# first\na: 1\nb: [x, true]\n---\n---\na: y\n",
            "---\n{a: 1, b: [x, true]}\n---\n{a: y}\n...\n",
            "{\"a\": 1,\n\t\"b\": [\"x\", true]}\n{\"a\": \"y\"}",
        ] {
            assert_eq!(contents(text), expected, "{text}");
        }
    }

    #[test]
    fn a_document_that_cannot_be_decoded_does_not_hide_the_next() {
        let documents = read("a: 1\na: 2\n---\nb: 1\n");
        assert_eq!(documents.len(), 2);
        assert!(documents.first().unwrap().content.is_err());
        assert_eq!(documents.last().unwrap().content, Ok(json!({"b": 1})));
    }

    #[test]
    fn no_key_comes_twice() {
        for text in [
            "a: {b: 1, c: 2, b: 3}",
            "{a: {b: 1, b: 3}}",
            "a: {'b': 1, \"b\": 3}",
            "{\"a\": {\"b\": 1, \"c\": [2], \"b\": 3}}",
            "{\"a\": [1, {\"b\": {\"x\": 1}, \"b\": {\"x\": 1}}, 2]}",
            "{\"a\": {\"b\": 1, \"\\u0062\": 3}}",
        ] {
            let documents = read(text);
            let error = documents.first().unwrap().content.clone().unwrap_err();
            assert_eq!(error.message, "duplicate mapping key: b not allowed here", "{text}");
        }
        let documents = read("{\"a\": 1, \"a\": 1} {\"b\": {\"b\": 1}}");
        assert!(documents.first().unwrap().content.is_err());
        assert_eq!(documents.last().unwrap().content, Ok(json!({"b": {"b": 1}})));
    }

    #[test]
    fn syntax_errors_have_a_position() {
        let documents = read("a: 1\n---\nb: [1, 2\nc: }\n");
        let error = documents.last().unwrap().content.clone().unwrap_err();
        assert!(error.position.is_some_and(|(line, _)| line >= 3), "{error}");
    }

    #[test]
    fn nesting_and_aliases_are_bounded() {
        let deep = format!("a: {}1{}", "[".repeat(2000), "]".repeat(2000));
        assert!(read(&deep).iter().any(|it| it.content.is_err()));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let lower = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{lower}]\n"));
        }
        assert!(read(&bomb).iter().any(|it| it.content.is_err()));
    }

    #[test]
    fn one_anchor_may_be_used_often() {
        let documents = read(&format!("a: &a x\nb: [{}]\n", vec!["*a"; 5000].join(", ")));
        assert!(documents.iter().all(|it| it.content.is_ok()));
    }

    #[test]
    fn lists_are_unpacked() {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}, {"kind": "Node"}]});
        assert_eq!(unpack(list), [json!({"kind": "Pod"}), json!({"kind": "Node"})]);
        let typed = json!({"apiVersion": "a/v1", "kind": "PodList", "items": [{"x": 1}, {"apiVersion": "v1", "kind": "Node"}]});
        let pod = json!({"apiVersion": "a/v1", "kind": "Pod", "x": 1});
        assert_eq!(unpack(typed), [pod, json!({"apiVersion": "v1", "kind": "Node"})]);
        for items in [json!(null), json!([])] {
            assert!(unpack(json!({"apiVersion": "v1", "kind": "List", "items": items})).is_empty());
        }
        for other in [
            json!({"apiVersion": "v2", "kind": "List", "items": []}),
            json!({"apiVersion": "v1", "kind": "List", "items": "x"}),
        ] {
            assert_eq!(unpack(other.clone()), [other]);
        }
    }
}
