//! Rules on manifests: who depends on whom, and why.

use cargo_metadata::{Dependency, DependencyKind, Metadata, Package};

use super::{File, text_of};

/// The licence of every crate.
const LICENCE: &str = "MIT OR Apache-2.0";

/// What a crate of this workspace may depend on within it.
struct Edges {
    from: &'static str,
    /// Normal dependencies.
    normal: &'static [&'static str],
    /// Normal dependencies that a feature switches on.
    optional: &'static [&'static str],
    /// Dependencies of tests.
    dev: &'static [&'static str],
}

/// Every permitted edge. A new crate or edge is a change of the architecture: put it here, and say so in ARCHITECTURE.md.
const EDGES: [Edges; 8] = [
    Edges { from: "netpol-core", normal: &[], optional: &[], dev: &[] },
    Edges {
        from: "netpol-nft",
        normal: &["netpol-core", "netpol-netfilter"],
        optional: &[],
        dev: &[],
    },
    Edges { from: "netpol-netfilter", normal: &["netpol-core"], optional: &[], dev: &[] },
    Edges {
        from: "netpol-iptables",
        normal: &["netpol-core", "netpol-netfilter"],
        optional: &[],
        dev: &[],
    },
    Edges {
        from: "netpol-ebpf",
        normal: &["netpol-core", "netpol-ebpf-abi"],
        optional: &[],
        dev: &[],
    },
    Edges { from: "netpol-ebpf-abi", normal: &[], optional: &[], dev: &[] },
    Edges {
        from: "netpol-conformance",
        normal: &["netpol-core"],
        optional: &["netpol-ebpf", "netpol-iptables", "netpol-nft"],
        dev: &["netpol-ebpf", "netpol-iptables", "netpol-nft"],
    },
    Edges { from: "xtask", normal: &[], optional: &[], dev: &[] },
];

pub(super) fn check(metadata: &Metadata, files: &[File]) -> Vec<String> {
    let packages = metadata.workspace_packages();
    let mut problems: Vec<_> =
        packages.iter().flat_map(|package| check_package(package, &packages, files)).collect();
    problems.extend(check_reasons(text_of(files, "Cargo.toml")));
    problems.extend(check_clippy(
        text_of(files, "clippy.toml"),
        text_of(files, "netpol-core/clippy.toml"),
    ));
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        if text_of(files, licence).is_empty() {
            problems.push(format!("{licence}: is missing"));
        }
    }
    problems
}

fn check_package(package: &Package, members: &[&Package], files: &[File]) -> Vec<String> {
    let named = format!("[package]\nname = \"{}\"\n", package.name);
    let file = files.iter().find(|file| file.text.starts_with(&named));
    let manifest =
        file.map_or_else(|| format!("{}/Cargo.toml", package.name), |file| file.path.clone());
    let mut problems = Vec::new();
    match EDGES.iter().find(|edges| *package.name == edges.from) {
        Some(edges) => {
            let inner = |dependency: &&Dependency| {
                members.iter().any(|member| *member.name == dependency.name)
            };
            problems.extend(
                package
                    .dependencies
                    .iter()
                    .filter(inner)
                    .filter_map(|edge| check_edge(edges, &edge.name, edge.kind, edge.optional)),
            );
        }
        None => problems.push("the crate is not in the list of permitted edges".to_owned()),
    }
    if package.license.as_deref() != Some(LICENCE) {
        problems.push(format!("the licence is not `{LICENCE}`"));
    }
    if package.description.is_none() {
        problems.push("there is no description".to_owned());
    }
    if !text_of(files, &manifest).contains("[lints]\nworkspace = true") {
        problems.push("the lints of the workspace are not inherited".to_owned());
    }
    problems.into_iter().map(|problem| format!("{manifest}: {problem}")).collect()
}

fn check_edge(edges: &Edges, name: &str, kind: DependencyKind, optional: bool) -> Option<String> {
    let permitted = match (kind, optional) {
        (DependencyKind::Normal, false) => edges.normal,
        (DependencyKind::Normal, true) => edges.optional,
        (DependencyKind::Development, _) => edges.dev,
        _ => &[],
    };
    let option = if optional { "optional " } else { "" };
    (!permitted.contains(&name))
        .then(|| format!("the {option}{kind} dependency on `{name}` is not permitted"))
}

/// Every block of the workspace's dependencies begins with the reason for them; our own crates need none.
fn check_reasons(manifest: &str) -> Vec<String> {
    let mut reasoned = false;
    let mut problems = Vec::new();
    let section = manifest
        .lines()
        .enumerate()
        .skip_while(|(_, line)| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['));
    for (index, line) in section {
        if line.starts_with('#') {
            reasoned = true;
        } else if line.is_empty() {
            reasoned = false;
        } else if !reasoned && !line.contains("path = ") {
            problems.push(format!(
                "Cargo.toml:{}: no comment says what this dependency is for",
                index + 1
            ));
        }
    }
    problems
}

/// Clippy reads the nearest file only, so the one of the core has to repeat the other.
fn check_clippy(root: &str, core: &str) -> Vec<String> {
    let bans = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.contains("path = "))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let repeated = bans(core);
    let forgotten = bans(root).into_iter().filter(|ban| !repeated.contains(ban));
    forgotten.map(|ban| format!("netpol-core/clippy.toml: does not repeat `{ban}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: Edges =
        Edges { from: "a", normal: &["core"], optional: &["backend"], dev: &["suite"] };

    #[test]
    fn an_edge_is_permitted_for_its_kind_only() {
        for (name, kind, optional, permitted) in [
            ("core", DependencyKind::Normal, false, true),
            ("core", DependencyKind::Build, false, false),
            ("backend", DependencyKind::Normal, true, true),
            ("backend", DependencyKind::Normal, false, false),
            ("suite", DependencyKind::Development, false, true),
            ("suite", DependencyKind::Normal, false, false),
        ] {
            let problem = check_edge(&EDGES, name, kind, optional);
            assert_eq!(problem.is_none(), permitted, "{name}: {problem:?}");
        }
    }

    #[test]
    fn a_dependency_needs_a_reason() {
        let manifest = "[workspace.dependencies]\nown = { path = \"own\" }\n\n# why\na = \"1\"\nb = \"1\"\n\nc = \"1\"\n[x]\nd = 1\n";
        assert_eq!(
            check_reasons(manifest),
            ["Cargo.toml:8: no comment says what this dependency is for"]
        );
    }

    #[test]
    fn a_ban_has_to_be_repeated() {
        let root = "disallowed-methods = [\n  { path = \"a::b\", reason = \"c\" },\n]\n";
        assert_eq!(check_clippy(root, root), Vec::<String>::new());
        assert_eq!(check_clippy(root, "").len(), 1);
    }
}
