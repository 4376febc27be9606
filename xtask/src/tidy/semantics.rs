//! Rules on `SEMANTICS.md`: each row of its tables names what pins it, and that is there.
//!
//! A row is `| id | what holds | pins |`. A pin is a path in backticks, followed by `#` and a piece of text of that file where
//! it is not a file of its own, such as a scenario.

use std::collections::BTreeMap;

use super::{File, text_of};

const PATH: &str = "SEMANTICS.md";

/// A row of a table: its line, and its cells.
struct Row<'a> {
    line: usize,
    id: &'a str,
    statement: &'a str,
    pins: &'a str,
}

pub(super) fn check(files: &[File]) -> Vec<String> {
    let rows = rows(text_of(files, PATH));
    if rows.is_empty() {
        return vec![format!("{PATH}: has no rows")];
    }
    let mut problems = Vec::new();
    let mut seen = BTreeMap::new();
    for row in &rows {
        let Row { line, id, statement, pins } = row;
        let mut report = |problem: String| problems.push(format!("{PATH}:{line}: {problem}"));
        if let Some(earlier) = seen.insert(id, line) {
            report(format!("`{id}` is the id of line {earlier} too"));
        }
        if statement.is_empty() {
            report(format!("`{id}` says nothing"));
        }
        let pins: Vec<_> = quoted(pins).collect();
        if pins.is_empty() {
            report(format!("nothing pins `{id}`"));
        }
        for pin in pins {
            if !is_there(pin, files) {
                report(format!("`{pin}` is not there"));
            }
        }
    }
    problems
}

/// Returns the rows of all tables, without their heads: what stands below a line of dashes.
fn rows(text: &str) -> Vec<Row<'_>> {
    let mut is_body = false;
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(cells) = line.strip_prefix('|') else {
            is_body = false;
            continue;
        };
        if cells.starts_with("---") {
            is_body = true;
        } else if is_body {
            // A pipe of a selector is written `\|`.
            let mut cells = split_cells(cells).into_iter().map(str::trim);
            let mut next = || cells.next().unwrap_or_default();
            rows.push(Row { line: index + 1, id: next(), statement: next(), pins: next() });
        }
    }
    rows
}

fn split_cells(line: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let mut start = 0;
    let mut is_escaped = false;
    for (at, character) in line.char_indices() {
        if character == '|' && !is_escaped {
            cells.extend(line.get(start..at));
            start = at + 1;
        }
        is_escaped = character == '\\';
    }
    cells
}

/// Returns what stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_there(pin: &str, files: &[File]) -> bool {
    let (path, needle) = pin.split_once('#').unwrap_or((pin, ""));
    let needle = needle.replace("\\|", "|");
    files.iter().any(|file| file.path == path && file.text.contains(&needle))
        && (!needle.is_empty() || !path.ends_with(".rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_what_pins_it() {
        let table =
            |row: &str| format!("# Title\n\n| id | rule | pinned by |\n|---|---|---|\n{row}\n");
        let files = |row: &str| {
            [
                (PATH, table(row)),
                ("a/b.rs", "fn holds() {} // a || b".into()),
                ("s/x.yaml", "kind: Pod".into()),
            ]
            .map(|(path, text)| File { path: path.into(), text })
        };
        for (row, found) in [
            ("| k1 | it holds | `a/b.rs#fn holds` |", None),
            ("| k1 | it holds | `s/x.yaml`, `a/b.rs#holds` |", None),
            ("| k1 | `a \\|\\| b` | `a/b.rs#a \\|\\| b` |", None),
            ("| k1 | it holds | |", Some("nothing pins `k1`")),
            ("| k1 | it holds | by hand |", Some("nothing pins `k1`")),
            ("| k1 | it holds | `a/b.rs` |", Some("`a/b.rs` is not there")),
            ("| k1 | it holds | `a/b.rs#fn fails` |", Some("is not there")),
            ("| k1 | it holds | `s/y.yaml` |", Some("`s/y.yaml` is not there")),
            ("| k1 | | `s/x.yaml` |", Some("says nothing")),
            ("| k1 | it | `s/x.yaml` |\n| k1 | holds | `s/x.yaml` |", Some("of line 5 too")),
            ("", Some("has no rows")),
        ] {
            let problems = check(&files(row));
            match found {
                Some(found) => assert!(
                    matches!(&problems[..], [problem] if problem.contains(found)),
                    "{row}: {problems:?}"
                ),
                None => assert!(problems.is_empty(), "{row}: {problems:?}"),
            }
        }
    }
}
