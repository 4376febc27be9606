//! The command line: exit statuses, and the shapes of reports.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Two pods of which one listens on TCP 80.
const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: x}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {app: a}}
spec: {containers: [{name: main, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: x, labels: {app: b}}
spec: {containers: [{name: main}]}
---
"#;

const DENY_ALL: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
    metadata: {name: p, namespace: x}, spec: {podSelector: {}}}";

/// A folder of its own for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{test}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a scenario with this body of its `spec`, after the two pods.
    fn scenario(&self, name: &str, spec: &str) -> PathBuf {
        let head =
            format!("apiVersion: netpol.dev/v1\nkind: Scenario\nmetadata: {{name: {name}}}\n");
        self.file(&format!("{name}.yaml"), &format!("{PODS}{head}spec: {spec}\n"))
    }
}

fn command<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netpol-conformance"));
    command.args(arguments);
    command
}

fn run(path: &Path, backend: &str, more: &[&str]) -> Output {
    let path = path.to_str().unwrap();
    command(["run", path, "--backend", backend].iter().chain(more)).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn error_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn probe(expect: &str) -> String {
    format!("{{from: x/b, to: x/a, protocol: TCP, port: 80, expect: {expect}}}")
}

#[test]
fn a_scenario_that_holds_has_status_0_and_one_row_per_probe() {
    let folder = Folder::new("holds");
    let steps = format!(
        "{{requires: [np], steps: [{{name: before, probes: [{}]}}, \
         {{name: after, apply: [{DENY_ALL}], matrix: {{protocol: TCP, port: 80, default: deny}}}}]}}",
        probe("allow"),
    );
    let path = folder.scenario("holds", &steps);
    let output = run(&path, "model,program", &["--format", "json"]);
    assert_eq!(status(&output), 0, "{output:?}");
    let report = json_of(&output);
    assert_eq!(
        report["summary"],
        json!({
            "model": {"pass": 2, "fail": 0, "skip": 0}, "program": {"pass": 2, "fail": 0, "skip": 0},
        })
    );
    let mut row = report["results"][1].clone();
    assert!(row["reason"].as_str().unwrap().contains("x/p"), "{row}");
    row["reason"].take();
    assert_eq!(
        row,
        json!({
            "file": path.to_str(), "scenario": "holds", "backend": "model", "step": "after", "from": "x/b", "to": "x/a",
            "protocol": "TCP", "port": 80, "expect": "deny", "got": "deny", "status": "pass", "reason": null,
        })
    );
}

#[test]
fn a_wrong_expectation_has_status_1_and_a_reason() {
    let folder = Folder::new("wrong");
    let steps = format!("{{requires: [np], steps: [{{name: s, probes: [{}]}}]}}", probe("deny"));
    let path = folder.scenario("wrong", &steps);
    let output = run(&path, "all", &["--format", "json", "--jobs", "1"]);
    if cfg!(feature = "nft") && error_of(&output).contains("permission") {
        panic!("no permission for network namespaces: {}", error_of(&output));
    }
    assert_eq!(status(&output), 1, "{output:?}");
    for row in json_of(&output)["results"].as_array().unwrap() {
        assert_eq!((&row["status"], &row["got"]), (&json!("fail"), &json!("allow")), "{row}");
        assert!(row["reason"].as_str().unwrap().contains("no policy applies"), "{row}");
    }
    let pretty = run(&path, "model", &[]);
    let text = String::from_utf8(pretty.stdout).unwrap();
    assert!(text.contains("x/b -> x/a TCP 80: expected deny, got allow"), "{text}");
}

#[test]
fn an_unknown_feature_is_a_visible_skip_and_nothing_ran_is_status_2() {
    let folder = Folder::new("skip");
    let future = "{requires: [np, telepathy], steps: [{name: s, apply: [{apiVersion: f/v9, kind: New, \
                  metadata: {name: n}}], probes: []}]}";
    folder.scenario("future", future);
    let output = run(&folder.0, "model", &["--format", "json"]);
    assert_eq!(status(&output), 2, "{output:?}");
    let report = json_of(&output);
    assert_eq!(report["summary"]["model"], json!({"pass": 0, "fail": 0, "skip": 1}));
    let row = &report["results"][0];
    for field in ["step", "from", "to", "protocol", "port", "expect", "got"] {
        assert_eq!(row[field], Value::Null, "{field}");
    }
    assert_eq!((&row["scenario"], &row["status"]), (&json!("future"), &json!("skip")));
    assert!(row["reason"].as_str().unwrap().contains("`telepathy`"), "{row}");

    let holds = format!("{{requires: [np], steps: [{{name: s, probes: [{}]}}]}}", probe("allow"));
    folder.scenario("holds", &holds);
    assert_eq!(status(&run(&folder.0, "model", &[])), 0);
    let text = String::from_utf8(run(&folder.0, "model", &[]).stdout).unwrap();
    assert!(text.contains("SKIP future on model"), "{text}");
}

#[test]
fn nothing_to_run_is_status_2() {
    let folder = Folder::new("nothing");
    assert_eq!(status(&run(&folder.0, "model", &[])), 2);
    assert_eq!(status(&run(&folder.0.join("absent"), "model", &[])), 2);
    folder.scenario("idle", "{requires: [np], steps: [{name: s}]}");
    assert_eq!(status(&run(&folder.0, "model", &[])), 2);
}

#[test]
fn an_unknown_backend_is_status_2_and_lists_the_known_ones() {
    let folder = Folder::new("backend");
    let output = run(&folder.0, "model,magic", &[]);
    assert_eq!(status(&output), 2);
    let error = error_of(&output);
    assert!(error.contains("`magic`") && error.contains("model, program"), "{error}");
}

#[test]
fn what_is_wrong_with_a_scenario_is_status_2_with_file_and_place() {
    let folder = Folder::new("broken");
    let with = |steps: &str| format!("{{requires: [np], steps: [{steps}]}}");
    let allow = probe("allow");
    for (name, spec, expected) in [
        (
            "field",
            format!("{{requires: [np], colour: red, steps: [{{name: s, probes: [{allow}]}}]}}"),
            "spec.colour",
        ),
        ("step-field", with("{name: s, probe: []}"), "spec.steps[0].probe"),
        (
            "probe-field",
            with(
                "{name: s, probes: [{from: x/a, to: x/b, protocol: ICMP, expect: allow, ttl: 3}]}",
            ),
            "spec.steps[0].probes[0].ttl",
        ),
        (
            "word",
            with(
                "{name: s, probes: [{from: x/b, to: x/a, protocol: TCP, port: 80, expect: maybe}]}",
            ),
            "spec.steps[0].probes[0].expect",
        ),
        (
            "protocol",
            with(
                "{name: s, probes: [{from: x/b, to: x/a, protocol: tcp, port: 80, expect: allow}]}",
            ),
            "spec.steps[0].probes[0].protocol",
        ),
        (
            "party",
            with("{name: s, probes: [{from: b, to: x/a, protocol: TCP, port: 80, expect: allow}]}"),
            "`b`",
        ),
        (
            "pod",
            with(
                "{name: s, probes: [{from: x/c, to: x/a, protocol: TCP, port: 80, expect: allow}]}",
            ),
            "spec.steps[0].probes[0]: there is no x/c",
        ),
        (
            "no-port",
            with("{name: s, probes: [{from: x/b, to: x/a, protocol: TCP, expect: allow}]}"),
            "without a port",
        ),
        (
            "icmp-port",
            with(
                "{name: s, probes: [{from: x/b, to: x/a, protocol: ICMP, port: 1, expect: allow}]}",
            ),
            "with a port",
        ),
        (
            "kind",
            with(
                "{name: s, apply: [{apiVersion: f/v9, kind: New, metadata: {name: n, namespace: x}}]}",
            ),
            "`New`",
        ),
        (
            "refused",
            with(
                "{name: s, apply: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}, policyTypes: [Sideways]}}]}",
            ),
            "spec.policyTypes[0]",
        ),
        (
            "namespace",
            with(
                "{name: s, apply: [{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: z}, spec: {containers: []}}]}",
            ),
            "namespace `z`",
        ),
        (
            "delete",
            with("{name: s, delete: [{kind: NetworkPolicy, namespace: x, name: q}]}"),
            "NetworkPolicy x/q",
        ),
        (
            "exception",
            with(
                "{name: s, matrix: {protocol: TCP, port: 80, default: allow, deny: ['x/a -> x/b']}}",
            ),
            "`x/a -> x/b`",
        ),
        (
            "default",
            with("{name: s, matrix: {protocol: TCP, port: 80, default: allow, allow: ['* -> *']}}"),
            "default",
        ),
    ] {
        let path = folder.scenario(name, &spec);
        let output = run(&path, "model", &["--format", "json"]);
        let error = error_of(&output);
        assert_eq!(status(&output), 2, "{name}: {error}");
        assert!(
            error.contains(expected) && error.contains(&format!("{name}.yaml")),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let folder = Folder::new("beside");
    let steps = format!("{{requires: [np], steps: [{{name: s, probes: [{}]}}]}}", probe("allow"));
    folder.scenario("good", &steps);
    folder.scenario("bad", "{requires: [np], steps: [{name: s, probe: []}]}");
    let output = run(&folder.0, "model,program", &["--format", "json"]);
    assert_eq!(status(&output), 2, "{output:?}");
    let report = json_of(&output);
    for backend in ["model", "program"] {
        assert_eq!(report["summary"][backend], json!({"pass": 1, "fail": 1, "skip": 0}));
    }
    let broken: Vec<_> = report["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["scenario"] == json!("bad"))
        .collect();
    assert_eq!(broken.len(), 2);
    for row in broken {
        assert_eq!((&row["status"], &row["got"]), (&json!("fail"), &json!("error")));
        let reason = row["reason"].as_str().unwrap();
        assert!(reason.contains("cannot be loaded") && reason.contains("probe"), "{reason}");
    }
    let pretty = String::from_utf8(run(&folder.0, "model", &[]).stdout).unwrap();
    assert!(pretty.contains("FAIL bad on model ("), "{pretty}");
    assert_eq!(status(&run(&folder.0, "model", &["--format", "junit"])), 2);
}

#[test]
fn a_scenario_is_last_alone_and_named_like_its_file() {
    let folder = Folder::new("shape");
    let scenario =
        "apiVersion: netpol.dev/v1\nkind: Scenario\nmetadata: {name: one}\nspec: {steps: []}\n";
    let policy = format!("{PODS}{DENY_ALL}\n---\n{scenario}");
    for (name, text, expected) in [
        ("other.yaml", format!("{PODS}{scenario}"), "`other`"),
        ("one.yaml", format!("{scenario}---\n{scenario}"), "expected exactly one"),
        (
            "one.yml",
            format!("{scenario}---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: x}}}}\n"),
            "the last document",
        ),
        ("one.json", policy, "NetworkPolicy"),
    ] {
        let path = folder.file(name, &text);
        let output = run(&path, "model", &[]);
        assert_eq!(status(&output), 2, "{name}");
        assert!(error_of(&output).contains(expected), "{name}: {}", error_of(&output));
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn reports_go_to_files_in_every_format() {
    let folder = Folder::new("out");
    let steps = format!("{{requires: [np], steps: [{{name: s, probes: [{}]}}]}}", probe("deny"));
    let path = folder.scenario("formats", &steps);
    for (format, expected) in
        [("pretty", "FAIL formats on model"), ("json", "\"fail\": 1"), ("junit", "<testsuites")]
    {
        let out = folder.0.join(format);
        let output = run(&path, "model", &["--format", format, "--out", out.to_str().unwrap()]);
        assert_eq!(status(&output), 1);
        assert!(output.stdout.is_empty());
        let text = fs::read_to_string(out).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn any_name_of_a_step_makes_valid_xml() {
    let folder = Folder::new("hostile");
    let name = r#""<&\"'>]]> \u0001 \u001b[31m \ufffe \uffff é 😀""#;
    let steps =
        format!("{{requires: [np], steps: [{{name: {name}, probes: [{}]}}]}}", probe("allow"));
    let output = run(&folder.scenario("hostile", &steps), "model", &["--format", "junit"]);
    assert_eq!(status(&output), 0, "{}", error_of(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("&lt;&amp;&quot;&apos;&gt;]]&gt;") && text.contains('é'), "{text}");
    let is_forbidden = |it: char| matches!(it, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    assert!(!text.contains(is_forbidden), "{text:?}");
}

#[test]
fn a_key_without_a_value_is_like_none() {
    let folder = Folder::new("keys");
    let steps = format!(
        "{{description: , source: , derived: , note: , requires: [np], steps: [{{name: s, delete: , apply: , \
         probes: , matrix: }}, {{name: t, probes: [{}]}}]}}",
        probe("allow"),
    );
    let output = run(&folder.scenario("keys", &steps), "model", &[]);
    assert_eq!(status(&output), 0, "{}", error_of(&output));
}

#[test]
fn check_accepts_refuses_and_ignores() {
    let folder = Folder::new("check");
    let bad = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, \
               spec: {podSelector: {}, ingress: [{ports: [{port: 0}], from: [{ipBlock: {cidr: nonsense}}]}]}}";
    let other = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: x}}";
    let path = folder.file("mixed.yaml", &format!("{DENY_ALL}\n---\n{bad}\n---\n{other}\n"));
    let check = |path: &Path| {
        command(["check", path.to_str().unwrap(), "--format", "json"]).output().unwrap()
    };
    let output = check(&path);
    assert_eq!(status(&output), 1);
    let results = json_of(&output)["results"].clone();
    assert_eq!(
        results[0],
        json!({
            "file": path.to_str(), "document": 0, "kind": "NetworkPolicy", "namespace": "x", "name": "p",
            "accepted": true, "errors": [],
        })
    );
    assert_eq!(results[1]["accepted"], json!(false));
    let paths: Vec<_> =
        results[1]["errors"].as_array().unwrap().iter().map(|it| &it["path"]).collect();
    assert!(paths.contains(&&json!("spec.ingress[0].from[0].ipBlock.cidr")), "{paths:?}");
    assert!(paths.contains(&&json!("spec.ingress[0].ports[0].port")), "{paths:?}");
    assert_eq!((&results[2]["accepted"], &results[2]["ignored"]), (&Value::Null, &json!(true)));

    let good = folder.file(
        "good.json",
        r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y"}}]}"#,
    );
    let output = check(&good);
    assert_eq!(status(&output), 0);
    assert_eq!(json_of(&output)["results"].as_array().unwrap().len(), 2);

    let torn = folder.file("torn.yaml", "apiVersion: v1\nkind: [\n");
    let output = check(&torn);
    assert_eq!(status(&output), 1);
    assert!(
        json_of(&output)["results"][0]["errors"][0]["message"].as_str().unwrap().contains("line")
    );
    assert_eq!(status(&check(&folder.0.join("absent"))), 2);

    let mixed = Folder::new("check-bytes");
    fs::write(mixed.0.join("bytes.yaml"), [0xff, 0xfe, b'a']).unwrap();
    mixed.file("good.yaml", DENY_ALL);
    let output = check(&mixed.0);
    assert_eq!(status(&output), 1);
    let accepted: Vec<_> = json_of(&output)["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["accepted"].clone())
        .collect();
    assert_eq!(accepted, [json!(false), json!(true)]);
}

#[test]
fn check_reads_standard_input() {
    let mut child =
        command(["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(DENY_ALL.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("accepted  -, document 0: NetworkPolicy x/p")
    );
}

#[test]
fn explain_names_the_policy_and_the_step() {
    let folder = Folder::new("explain");
    let steps = format!("{{steps: [{{name: before}}, {{name: after, apply: [{DENY_ALL}]}}]}}");
    let path = folder.scenario("explained", &steps);
    let explain = |more: &[&str]| {
        let flow = [
            "explain",
            path.to_str().unwrap(),
            "--from",
            "x/b",
            "--to",
            "x/a",
            "--protocol",
            "TCP",
        ];
        command(flow.iter().chain(more)).output().unwrap()
    };
    let output = explain(&["--port", "80"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(status(&output), 0);
    assert!(
        text.contains("deny")
            && text.contains("NetworkPolicy x/p (networking.k8s.io), without rules")
            && text.contains("`after`"),
        "{text}"
    );
    let output = explain(&["--port", "80", "--step", "before"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("no policy applies"));
    let output = explain(&["--port", "80", "--step", "never"]);
    assert_eq!(status(&output), 2);
    assert!(error_of(&output).contains("`before`, `after`"), "{}", error_of(&output));
    assert_eq!(status(&explain(&[])), 2);
}

#[test]
fn explain_takes_manifests_and_http_requests() {
    let folder = Folder::new("manifests");
    let calico = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: x}, spec: {ingress: \
                  [{action: Allow, http: {methods: [GET], paths: [{prefix: /shop}]}}]}}";
    folder.file("pods.yaml", PODS);
    folder.file("policies.yaml", calico);
    let explain = |more: &[&str]| {
        let flow = ["explain", folder.0.to_str().unwrap(), "--from", "x/b", "--to", "x/a"];
        command(flow.iter().chain(more)).output().unwrap()
    };
    for (more, expected) in [
        (
            &["--http", "GET", "/shop/cart"][..],
            "allowed by NetworkPolicy x/web (projectcalico.org), ingress[0]",
        ),
        (&["--http", "PUT", "/shop/cart"], "no rule matched, and the tier denies at its end"),
        (
            &["--http", "GET", "/shop/%2e%2e/admin"],
            "no rule matched, and the tier denies at its end",
        ),
        (
            &["--port", "80"],
            "left out NetworkPolicy x/web (projectcalico.org), ingress[0]: it is about HTTP requests",
        ),
        (&["--protocol", "ICMP"], "no rule matched"),
        (&["--protocol", "ICMP", "--icmp", "3", "4"], "type 3 code 4"),
        (&["--port", "80", "--source-port", "9"], "from port 9"),
    ] {
        let output = explain(more);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(status(&output), 0, "{}", error_of(&output));
        assert!(text.contains(expected), "{more:?}: {text}");
    }
    for (more, expected) in [
        (&["--http", "GET", "shop"][..], "`shop` is no path"),
        (&["--http", "", "/"], "`` is no method"),
        (&["--http", "GET", "/", "--protocol", "UDP", "--port", "80"], "expected TCP"),
        (&["--port", "80", "--step", "s"], "--step without a scenario"),
        (&["--protocol", "ICMP", "--port", "80"], "with a port"),
    ] {
        let output = explain(more);
        assert_eq!(status(&output), 2);
        assert!(error_of(&output).contains(expected), "{more:?}: {}", error_of(&output));
    }
}

#[test]
fn check_fails_on_findings_only_if_asked() {
    let folder = Folder::new("findings");
    let twice = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, \
                 spec: {podSelector: {}, ingress: [{}, {ports: [{port: 80}]}]}}";
    let one_family = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, \
                      spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}}\n---\n\
                      {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {containers: [{name: m}]}, \
                      status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}";
    for (text, found, statuses) in [
        (DENY_ALL, "", [0, 0, 0]),
        (one_family, "note: ingress[0]: matches IPv4 only", [0, 1, 0]),
        (twice, "warning: ingress[1]: no flow reaches it", [0, 1, 1]),
    ] {
        let path = folder.file("f.yaml", text);
        let path = path.to_str().unwrap();
        let ways: [&[&str]; 3] = [&[], &["--deny-findings"], &["--deny-findings=warning"]];
        for (more, want) in ways.into_iter().zip(statuses) {
            let output = command(["check", path].iter().chain(more)).output().unwrap();
            let shown = String::from_utf8(output.stdout.clone()).unwrap();
            assert_eq!(status(&output), want, "{more:?}: {shown}");
            assert!(shown.contains(found), "{shown}");
        }
    }
    let output =
        command(["check", folder.0.to_str().unwrap(), "--format", "json"]).output().unwrap();
    let finding = &json_of(&output)["results"][0]["findings"][0];
    assert_eq!(
        (&finding["severity"], &finding["lint"]),
        (&json!("warning"), &json!("unreachable-rule"))
    );
    assert_eq!(finding["rule"], json!("ingress[1]"));
}

#[test]
fn list_names_backends_and_scenarios() {
    let folder = Folder::new("list");
    let steps = format!("{{requires: [np], steps: [{{name: s, probes: [{}]}}]}}", probe("allow"));
    let path = folder.scenario("listed", &steps);
    let output = command(["list", path.to_str().unwrap()]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(status(&output), 0);
    assert!(
        text.contains("model program") && text.contains("listed") && text.contains("[np]"),
        "{text}"
    );
}

#[cfg(feature = "nft")]
#[test]
fn the_demo_shows_matrices_and_agrees_with_the_model() {
    let output = command(["demo", "--backend", "nft"]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(status(&output), 0, "{}\n{text}", error_of(&output));
    for part in [
        "pod shop/backend at 10.244.200.2: app=backend, role=backend; listens on TCP 8080",
        "before",
        "after",
        "frontend -> mysql:3306",
        "db-test",
        "story-default-deny-ingress",
        "every one as the model says",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}
