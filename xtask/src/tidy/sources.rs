//! Rules on source and scenario files.

use super::{File, text_of};

/// The longest source file, in lines; test modules may be longer.
const MAX_LINES: usize = 600;

pub(super) fn check(files: &[File], machine_paths: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        let found = if file.path.ends_with(".rs") {
            check_rust(file)
        } else if is_scenario(&file.path) {
            check_scenario(file).into_iter().collect()
        } else {
            Vec::new()
        };
        problems.extend(found);
        problems.extend(check_paths(file, machine_paths));
    }
    problems.extend(check_core(text_of(files, "netpol-core/src/lib.rs")));
    problems
}

/// Whether the file belongs to the tests: the lint against `mod.rs` and the limit on length are about the rest.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn check_rust(file: &File) -> Vec<String> {
    let File { path, text } = file;
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES && !is_test(path) {
        problems.push(format!("{path}: has {lines} lines, more than {MAX_LINES}"));
    }
    if path.ends_with("/mod.rs") && !is_test(path) {
        problems.push(format!("{path}: should be named after its module"));
    }
    for (number, line) in numbered(text) {
        let line = line.trim_start();
        if line.starts_with("#[ignore") {
            problems.push(format!("{path}:{number}: an ignored test"));
        }
        if is_neutral(path) && names_backend(line) && !line.starts_with("//") {
            problems.push(format!("{path}:{number}: the conformance library names a backend"));
        }
    }
    if path.starts_with("netpol-core/src/") && !is_test(path) {
        problems.extend(std_uses(text).map(|number| format!("{path}:{number}: the core uses std")));
    }
    problems
}

/// Whether the file is of the conformance library, in which no backend may be named; its binary may.
fn is_neutral(path: &str) -> bool {
    path.strip_prefix("netpol-conformance/src/").is_some_and(|path| {
        !["main.rs", "main/", "bin/"].iter().any(|binary| path.starts_with(binary))
    })
}

/// Whether the line names a crate of ours other than the two that know no backend.
fn names_backend(line: &str) -> bool {
    line.split("netpol_")
        .skip(1)
        .any(|rest| !["core", "conformance"].iter().any(|neutral| rest.starts_with(neutral)))
}

fn check_core(lib: &str) -> Vec<String> {
    ["#![no_std]", "#![forbid(unsafe_code)]"]
        .iter()
        .filter(|attribute| !lib.lines().any(|line| line == **attribute))
        .map(|attribute| format!("netpol-core/src/lib.rs: lacks `{attribute}`"))
        .collect()
}

/// Returns the numbers of the lines that use std, comments and tests excepted.
///
/// Tests are what follows `#[cfg(test)]`: the next item if it is a declaration of one line, else the rest of the file.
fn std_uses(text: &str) -> impl Iterator<Item = usize> {
    let mut uses = Vec::new();
    let mut lines = numbered(text);
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if line == "#[cfg(test)]" {
            let declared = lines.by_ref().find(|(_, line)| !line.trim_start().starts_with("#["));
            if declared.is_none_or(|(_, line)| !line.ends_with(';')) {
                break;
            }
        } else if !line.starts_with("//")
            && (line.starts_with("extern crate std") || names_std(line))
        {
            uses.push(number);
        }
    }
    uses.into_iter()
}

/// Whether the line has `std::` as a path of its own.
fn names_std(line: &str) -> bool {
    line.match_indices("std::").any(|(index, _)| {
        let before = line.get(..index).unwrap_or_default();
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

fn check_paths(file: &File, machine_paths: &[String]) -> Vec<String> {
    let File { path, text } = file;
    numbered(text)
        .filter(|(_, line)| machine_paths.iter().any(|prefix| has_path(line, prefix)))
        .map(|(number, _)| format!("{path}:{number}: a path of this machine"))
        .collect()
}

/// Whether the line has a path that begins with `prefix`. Inside of a path it means nothing: the folder of a clone may be
/// called like one of ours.
fn has_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(index, _)| {
        let before = line.get(..index).unwrap_or_default();
        !before.ends_with(|c: char| c.is_alphanumeric() || "_-.*/}".contains(c))
    })
}

fn is_scenario(path: &str) -> bool {
    path.starts_with("netpol-conformance/scenarios/") && path.ends_with(".yaml")
}

/// The scenario is the last document of its file, and is named like it.
fn check_scenario(file: &File) -> Option<String> {
    let File { path, text } = file;
    let expected = path.rsplit('/').next().and_then(|name| name.strip_suffix(".yaml"));
    let last = text.split("\n---").last().unwrap_or_default();
    if !last.lines().any(|line| line == "kind: Scenario") {
        return Some(format!("{path}: the last document is not a scenario"));
    }
    let name = scenario_name(last);
    (name != expected)
        .then(|| format!("{path}: the scenario is named `{}`", name.unwrap_or_default()))
}

/// Returns `metadata.name`, written on the line of `metadata:` or on one below it.
fn scenario_name(document: &str) -> Option<&str> {
    let (_, metadata) = document.split_once("\nmetadata:")?;
    let (_, name) = metadata.split_once("name:")?;
    name.split(['\n', ',', '}']).next().map(|name| name.trim().trim_matches(['"', '\'']))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let lib = File {
            path: "netpol-core/src/lib.rs".to_owned(),
            text: "#![no_std]\n#![forbid(unsafe_code)]\n".to_owned(),
        };
        check(
            &[lib, File { path: path.to_owned(), text: text.to_owned() }],
            &["/no/such/clone/".to_owned()],
        )
    }

    #[test]
    fn each_rule_on_sources_finds_its_offender() {
        for (path, text, found) in [
            ("netpol-nft/src/a.rs", "fn a() {}\n", None),
            ("netpol-nft/src/a.rs", &"\n".repeat(601), Some("has 601 lines")),
            ("netpol-nft/src/a/tests.rs", &"\n".repeat(601), None),
            ("netpol-nft/src/a/mod.rs", "", Some("named after its module")),
            ("netpol-nft/tests/common/mod.rs", "", None),
            (
                "netpol-nft/tests/a.rs",
                "    #[ignore = \"slow\"]\n",
                Some("a.rs:1: an ignored test"),
            ),
            ("netpol-conformance/src/a.rs", "use netpol_nft::X;\n", Some("names a backend")),
            ("netpol-conformance/src/a.rs", "// unlike netpol_nft\n", None),
            ("netpol-conformance/src/a.rs", "use netpol_core::X;\n", None),
            ("netpol-conformance/src/main.rs", "use netpol_nft::X;\n", None),
            ("README.md", "see `/no/such/clone/x`\n", Some("README.md:1: a path of this machine")),
            ("README.md", "see netpol-core/no/such/clone/x\n", None),
        ] {
            let problems = problems(path, text);
            match found {
                Some(found) => assert!(
                    matches!(&problems[..], [problem] if problem.contains(found)),
                    "{path}: {problems:?}"
                ),
                None => assert!(problems.is_empty(), "{path}: {problems:?}"),
            }
        }
    }

    #[test]
    fn std_in_the_core_is_found_outside_of_tests() {
        for (text, expected) in [
            ("use core::fmt;\n", 0),
            ("use std::fmt;\n", 1),
            ("extern crate std;\n", 1),
            ("/// `std::fmt`\nuse no_std::x;\n", 0),
            ("#[cfg(test)]\nextern crate std;\nuse std::fmt;\n", 1),
            ("#[cfg(test)]\n#[expect(x)]\nmod tests {\n    use std::fmt;\n}\n", 0),
        ] {
            assert_eq!(std_uses(text).count(), expected, "{text}");
        }
    }

    #[test]
    fn the_core_says_that_it_is_without_std_and_unsafe() {
        assert_eq!(check_core("").len(), 2);
    }

    #[test]
    fn a_scenario_is_named_like_its_file() {
        let path = "netpol-conformance/scenarios/story/deny.yaml";
        for (text, expected) in [
            ("kind: Pod\nmetadata: {name: p}\n---\nkind: Scenario\nmetadata: {name: deny}\n", None),
            ("kind: Scenario\nmetadata:\n  name: \"deny\"\nspec: {}\n", None),
            ("kind: Scenario\nmetadata: {name: allow}\n", Some("named `allow`")),
            ("kind: Scenario\n", Some("named ``")),
            ("kind: Scenario\nmetadata: {name: deny}\n---\nkind: Pod\n", Some("not a scenario")),
        ] {
            let problems = problems(path, text);
            assert_eq!(problems.len(), usize::from(expected.is_some()), "{text}");
            assert!(
                problems.iter().all(|problem| problem.contains(expected.unwrap_or_default())),
                "{problems:?}"
            );
        }
    }
}
