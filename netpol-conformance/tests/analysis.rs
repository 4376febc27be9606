//! The commands about whole clusters: `reach`, `diff` and `idle`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::Expect;
use serde_json::{Value, json};

/// Three pods without addresses, of which `db` has a policy.
const SHOP: &str = r#"
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {containers: [{name: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: backup, namespace: ops}, spec: {containers: [{name: main}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 3306}]
  - from: [{ipBlock: {cidr: 192.0.2.0/24}}]
"#;

/// Writes files into a folder of their own.
fn folder(test: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("analysis-{test}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    files.iter().for_each(|(name, text)| fs::write(path.join(name), text).unwrap());
    path
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netpol-conformance"));
    command.current_dir(folder).args(arguments).output().unwrap()
}

/// Runs a command and compares its exit status and what it writes, errors last.
#[track_caller]
fn check(folder: &Path, arguments: &[&str], status: i32, want: &Expect) {
    let output = run(folder, arguments);
    let text = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    want.assert_eq(&text);
    assert_eq!(output.status.code(), Some(status));
}

fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, &[arguments, &["--format", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn reach_writes_a_table_of_classes() {
    let folder = folder("table", &[("shop.yaml", SHOP)]);
    check(
        &folder,
        &["reach", "shop.yaml"],
        0,
        &expect_test::expect![[r#"
        IPv4: from each row to each column
          [0] ops/backup
          [1] shop/db
          [2] shop/web
          [3] any other IPv4
          [4] 192.0.2.0/24

                [0]   [1]   [2]   [3]   [4]
          [0]           -     +     +     +
          [1]     +           +     +     +
          [2]     +     a           +     +
          [3]     +     -     +
          [4]     +     +     +

            + everything, - nothing
            a TCP 3306

    "#]],
    );
    let found = json_of(&folder, &["reach", "shop.yaml", "--from", "shop/web", "--to", "shop/db"]);
    let port = json!({"others": false, "protocols": {"6": [{"destination": [3306, 3306], "sources": [[0, 65535]]}]}});
    assert_eq!(
        found["cells"],
        json!([{"from": 2, "to": 1, "allowed": "TCP 3306", "traffic": port}])
    );
    let members = json!([{"endpoint": "shop/web", "addresses": "10.244.200.1/32"}]);
    assert_eq!(found["classes"][2], json!({"family": "IPv4", "members": members}));
}

#[test]
fn scenarios_can_be_asked_after_a_step() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/story");
    let run = |step| run(&scenarios, &["reach", "story-db-test.yaml", "--step", step]);
    let text = String::from_utf8(run("db-test").stdout).unwrap();
    assert!(text.contains("[2] shop/mysql") && text.ends_with("    a TCP 3306\n\n"), "{text}");
    assert_eq!(run("absent").status.code(), Some(2));
}

#[test]
fn reach_explains_what_is_asked_for() {
    let folder = folder("asked", &[("shop.yaml", SHOP)]);
    check(
        &folder,
        &["reach", "shop.yaml", "--from", "192.0.2.9", "--to", "shop/db"],
        0,
        &expect_test::expect![[r#"
            192.0.2.0/24 -> shop/db: everything
              TCP 192.0.2.9 port 49152 -> 10.244.200.2 port 80
                allow
                  egress: allow
                    no endpoint owns the address, so no policy applies
                  ingress of shop/db: allow
                    tier `default`
                      allowed by NetworkPolicy shop/db (networking.k8s.io), ingress[1]
        "#]],
    );
    check(
        &folder,
        &["reach", "shop.yaml", "--to", "shop/absent"],
        2,
        &expect_test::expect![[r#"
        error: `shop/absent` has no address of its own, expected one that has
    "#]],
    );
}

#[test]
fn a_diff_says_who_is_concerned_and_why() {
    let after = SHOP.replace("3306", "3307").replace("192.0.2.0/24", "192.0.2.0/25");
    let folder = folder("diff", &[("before.yaml", SHOP), ("after.yaml", &after)]);
    check(
        &folder,
        &["diff", "before.yaml", "after.yaml"],
        1,
        &expect_test::expect![[r#"
        allowed now: TCP 3307
          from shop/web
          to   shop/db
          as TCP 10.244.200.1 port 49152 -> 10.244.200.2 port 3307
            before
              ingress: deny
                tier `default`
                  no rule matched, and the tier denies at its end; asked:
                    NetworkPolicy shop/db (networking.k8s.io)
            after
              egress: allow
                no policy applies; default verdict of the endpoint
              ingress: allow
                tier `default`
                  allowed by NetworkPolicy shop/db (networking.k8s.io), ingress[0]

        denied now: TCP 3306
          from shop/web
          to   shop/db
          as TCP 10.244.200.1 port 49152 -> 10.244.200.2 port 3306
            before
              egress: allow
                no policy applies; default verdict of the endpoint
              ingress: allow
                tier `default`
                  allowed by NetworkPolicy shop/db (networking.k8s.io), ingress[0]
            after
              ingress: deny
                tier `default`
                  no rule matched, and the tier denies at its end; asked:
                    NetworkPolicy shop/db (networking.k8s.io)

        denied now: everything
          from 192.0.2.0/24 without 192.0.2.0/25
          to   shop/db
          as TCP 192.0.2.128 port 49152 -> 10.244.200.2 port 80
            before
              egress: allow
                no endpoint owns the address, so no policy applies
              ingress: allow
                tier `default`
                  allowed by NetworkPolicy shop/db (networking.k8s.io), ingress[1]
            after
              ingress: deny
                tier `default`
                  no rule matched, and the tier denies at its end; asked:
                    NetworkPolicy shop/db (networking.k8s.io)

    "#]],
    );
    check(
        &folder,
        &["diff", "before.yaml", "before.yaml"],
        0,
        &expect_test::expect![[r#"
        no difference
    "#]],
    );
    let found = json_of(&folder, &["diff", "before.yaml", "after.yaml"]);
    let differences = found["differences"].as_array().unwrap();
    let whats: Vec<_> = differences.iter().map(|it| [&it["verdict"], &it["what"]]).collect();
    assert_eq!(
        json!(whats),
        json!([["allow", "TCP 3307"], ["deny", "TCP 3306"], ["deny", "everything"]])
    );
    let flow = "TCP 10.244.200.1 port 49152 -> 10.244.200.2 port 3307";
    assert_eq!(differences[0]["examples"][0]["flow"], flow);
}

#[test]
fn what_changes_for_both_families_is_said_once() {
    let shop = SHOP
        .replace(
            "{app: web}},",
            r#"{app: web}}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]},"#,
        )
        .replace(
            "{app: db}},",
            r#"{app: db}}, status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]},"#,
        );
    let after = shop.replace("port: 3306", "port: 3306, endPort: 3307");
    let folder = folder("families", &[("before.yaml", &shop), ("after.yaml", &after)]);
    check(
        &folder,
        &["diff", "before.yaml", "after.yaml"],
        1,
        &expect_test::expect![[r#"
        allowed now: TCP 3307
          from shop/web
          to   shop/db
          as TCP 10.0.0.1 port 49152 -> 10.0.0.2 port 3307
          as TCP fd00::1 port 49152 -> fd00::2 port 3307
            before
              ingress: deny
                tier `default`
                  no rule matched, and the tier denies at its end; asked:
                    NetworkPolicy shop/db (networking.k8s.io)
            after
              egress: allow
                no policy applies; default verdict of the endpoint
              ingress: allow
                tier `default`
                  allowed by NetworkPolicy shop/db (networking.k8s.io), ingress[0]

    "#]],
    );
}

/// A pod that comes, and stands before the others in the file, takes no address from them.
#[test]
fn pods_have_the_same_addresses_before_and_after() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}, spec: {containers: [{name: main}]}}\n---";
    let folder =
        folder("addresses", &[("before.yaml", SHOP), ("after.yaml", &format!("{pod}{SHOP}"))]);
    check(
        &folder,
        &["diff", "before.yaml", "after.yaml"],
        0,
        &expect_test::expect![[r#"
        no difference
    "#]],
    );
}

#[test]
fn a_diff_shows_what_staged_policies_would_do() {
    let policy = "
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: no-web}
spec:
  selector: app == 'web'
  types: [Egress]
  egress: [{action: Deny, protocol: UDP, destination: {ports: [53]}}, {action: Allow}]
";
    let folder = folder("staged", &[("shop.yaml", &format!("{SHOP}{policy}"))]);
    check(
        &folder,
        &["diff", "--staged", "shop.yaml"],
        1,
        &expect_test::expect![[r#"
        denied now: UDP 53
          from shop/web
          to   ops/backup, any other IPv4, 192.0.2.0/24
          as UDP 10.244.200.1 port 49152 -> 10.244.200.3 port 53
            before
              egress: allow
                no policy applies; default verdict of the endpoint
              ingress: allow
                no policy applies; default verdict of the endpoint
            after
              egress: deny
                tier `default`
                  denied by GlobalNetworkPolicy no-web, egress[0]

    "#]],
    );
}

#[test]
fn idle_rules_are_named_with_what_shadows_them() {
    let policy = "
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: first}
spec:
  order: 1
  selector: app == 'db'
  ingress: [{action: Deny, source: {selector: app == 'web'}}, {action: Allow, source: {selector: app == 'gone'}}]
";
    let folder = folder("idle", &[("shop.yaml", &format!("{SHOP}{policy}"))]);
    check(
        &folder,
        &["idle", "shop.yaml"],
        0,
        &expect_test::expect![[r#"
        NetworkPolicy shop/db (networking.k8s.io), ingress[0]
          shadowed: whatever it matches is decided before, by
            rule GlobalNetworkPolicy first ingress[0]
        GlobalNetworkPolicy first, ingress[1]
          no flow meets its conditions
    "#]],
    );
    let found = json_of(&folder, &["idle", "shop.yaml"]);
    let rules: Vec<_> = found["rules"].as_array().unwrap().iter().map(|it| &it["why"]).collect();
    assert_eq!(json!(rules), json!(["shadowed", "no-traffic"]));
}

#[test]
fn what_cannot_be_compared_has_status_2() {
    let folder = folder("errors", &[("shop.yaml", SHOP), ("bad.yaml", "a: [")]);
    check(
        &folder,
        &["diff", "shop.yaml", "absent.yaml"],
        2,
        &expect_test::expect![[r#"
        error: `absent.yaml` cannot be read: No such file or directory (os error 2)
    "#]],
    );
    check(
        &folder,
        &["diff", "shop.yaml", "bad.yaml"],
        2,
        &expect_test::expect![[r#"
        error: `bad.yaml`, document 0: line 1, column 4: unclosed bracket '['
    "#]],
    );
    check(
        &folder,
        &["reach", "bad.yaml"],
        2,
        &expect_test::expect![[r#"
        error: `bad.yaml`, document 0: line 1, column 4: unclosed bracket '['
    "#]],
    );
}
