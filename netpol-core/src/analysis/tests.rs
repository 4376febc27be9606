#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::api::{Document, Kind, Strictness};
use crate::dataplane::Capabilities;
use crate::model::{Endpoint, Inputs, Mode, ObjectKey};

/// Returns the pods `web`, `db` and `old`, and what some documents say.
fn cluster(documents: &[Value]) -> Inputs {
    let mut inputs = Inputs::default();
    for (number, name) in ["web", "db", "old"].into_iter().enumerate() {
        inputs.upsert(pod(name, &[&format!("10.0.0.{}", number + 1)]));
    }
    for document in documents {
        let text = |key: &str| document[key].as_str().unwrap();
        let kind = Kind::recognise(text("apiVersion"), text("kind")).unwrap();
        let read = Document::read(kind, document).unwrap();
        inputs.upsert(read.to_object(Strictness::Strict).unwrap().value.unwrap());
    }
    inputs
}

fn pod(name: &str, addresses: &[&str]) -> Endpoint {
    let mut pod = Endpoint::pod("x", name);
    pod.labels = [("app", name)].into_iter().collect();
    pod.addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
    pod
}

/// Returns a policy for some pods with these rules, each as in Calico.
fn policy(name: &str, order: u32, selector: &str, ingress: Value, egress: Value) -> Value {
    let mut spec = json!({"order": order, "selector": selector});
    for (key, rules) in [("ingress", ingress), ("egress", egress)] {
        if !rules.is_null() {
            spec[key] = rules;
        }
    }
    let metadata = json!({"namespace": "x", "name": name});
    json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
}

fn from(action: &str, selector: &str, port: u16) -> Value {
    let destination = if port == 0 { json!({}) } else { json!({"ports": [port]}) };
    let mut rule =
        json!({"action": action, "source": {"selector": selector}, "destination": destination});
    if port != 0 {
        rule["protocol"] = "TCP".into();
    }
    rule
}

fn name(class: &Class) -> String {
    let names = class.members.iter().map(|it| match &it.endpoint {
        Some(endpoint) => endpoint.name.clone(),
        None => it.prefix.to_string(),
    });
    names.collect::<Vec<_>>().join("+")
}

/// Writes the cells of IPv4 in which an endpoint has a part.
#[track_caller]
fn check_cells(inputs: &Inputs, want: &Expect) {
    let found = reachability(inputs, &Capabilities::all()).unwrap();
    let mut text = String::new();
    for (from, source) in found.classes().iter().enumerate() {
        for (to, destination) in found.classes().iter().enumerate() {
            let has_endpoint = source.endpoints().chain(destination.endpoints()).next().is_some();
            let cell = found.cell(from, to).filter(|_| has_endpoint && source.family == Family::V4);
            if let Some(cell) = cell {
                text += &format!("{} -> {}: {}\n", name(source), name(destination), cell.allowed());
            }
        }
    }
    want.assert_eq(&text);
}

#[track_caller]
fn check_diff(before: &Inputs, after: &Inputs, want: &Expect) {
    let diff = diff(before, after, &Capabilities::all()).unwrap();
    let names = |classes: &[usize]| {
        classes.iter().map(|&it| name(&diff.classes[it])).collect::<Vec<_>>().join(", ")
    };
    let mut text = String::new();
    for Difference { verdict, from, to, traffic, examples } in &diff.differences {
        text += &format!("{verdict} {} -> {}: {traffic}\n", names(from), names(to));
        for Example { flow, after, .. } in examples {
            text += &format!("    {flow}: {}, {}\n", after.egress.reason, after.ingress.reason);
        }
    }
    want.assert_eq(&text);
}

#[track_caller]
fn check_idle(inputs: &Inputs, want: &Expect) {
    let idle = idle_rules(inputs, &Capabilities::all()).unwrap();
    let lines = idle.iter().map(|it| format!("{}: {}\n", it.rule, it.why));
    want.assert_eq(&lines.collect::<String>());
}

#[test]
fn a_cell_is_what_both_ends_allow() {
    let documents = [
        policy(
            "a",
            1,
            "app == 'db'",
            json!([from("Allow", "app in {'web', 'db'}", 3306)]),
            Value::Null,
        ),
        policy(
            "b",
            1,
            "app == 'web'",
            Value::Null,
            json!([{"action": "Allow", "destination": {"notNets": ["10.0.0.0/8"]}},
            {"action": "Allow", "protocol": "TCP", "destination": {"selector": "app == 'db'", "ports": ["3000:4000", 22]}}]),
        ),
    ];
    check_cells(
        &cluster(&documents),
        &expect![[r#"
        db -> old: everything
        db -> web: everything
        db -> 0.0.0.0/0: everything
        db -> 10.0.0.0/8: everything
        old -> db: nothing
        old -> web: everything
        old -> 0.0.0.0/0: everything
        old -> 10.0.0.0/8: everything
        web -> db: TCP 3306
        web -> old: nothing
        web -> 0.0.0.0/0: everything
        web -> 10.0.0.0/8: nothing
        0.0.0.0/0 -> db: nothing
        0.0.0.0/0 -> old: everything
        0.0.0.0/0 -> web: everything
        10.0.0.0/8 -> db: nothing
        10.0.0.0/8 -> old: everything
        10.0.0.0/8 -> web: everything
    "#]],
    );
}

#[test]
fn addresses_of_one_endpoint_are_apart_from_others() {
    let mut inputs = cluster(&[policy("a", 1, "all()", json!([]), Value::Null)]);
    inputs.upsert(pod("old", &["10.0.0.3", "10.0.0.4"]));
    let mut audited = pod("db", &["10.0.0.2"]);
    audited.mode = Mode::Audit;
    inputs.upsert(audited);
    check_cells(
        &inputs,
        &expect![[r#"
        db -> old: nothing
        db -> old: nothing
        db -> web: nothing
        db -> 0.0.0.0/0: everything
        old -> db: everything
        old -> web: nothing
        old -> 0.0.0.0/0: everything
        old -> db: everything
        old -> web: nothing
        old -> 0.0.0.0/0: everything
        web -> db: everything
        web -> old: nothing
        web -> old: nothing
        web -> 0.0.0.0/0: everything
        0.0.0.0/0 -> db: everything
        0.0.0.0/0 -> old: nothing
        0.0.0.0/0 -> old: nothing
        0.0.0.0/0 -> web: nothing
    "#]],
    );
}

#[test]
fn a_diff_names_what_is_new_and_what_is_gone() {
    let [before, after] = [(3306, "10.1.0.0/16"), (3307, "10.1.0.0/17")].map(|(port, net)| {
        let outside = json!({"action": "Allow", "source": {"nets": [net]}});
        let ingress = json!([from("Allow", "app == 'web'", port), outside]);
        cluster(&[policy("a", 1, "app == 'db'", ingress, Value::Null)])
    });
    check_diff(
        &before,
        &after,
        &expect![[r#"
        allow web -> db: TCP 3307
            TCP 10.0.0.1 port 49152 -> 10.0.0.2 port 3307: no policy applies; default verdict of the endpoint, rule NetworkPolicy x/a ingress[0]
        deny web -> db: TCP 3306
            TCP 10.0.0.1 port 49152 -> 10.0.0.2 port 3306: no policy applies; default verdict of the endpoint, no rule matched in tier `default`; asked: NetworkPolicy x/a
        deny 10.1.0.0/16 -> db: everything
            TCP 10.1.128.0 port 49152 -> 10.0.0.2 port 80: no endpoint owns the address, so no policy applies, no rule matched in tier `default`; asked: NetworkPolicy x/a
    "#]],
    );
    check_diff(&before, &before, &expect![[""]]);
}

#[test]
fn a_diff_shows_what_staged_policies_would_do() {
    let mut staged =
        policy("a", 1, "app == 'db'", json!([from("Allow", "app == 'web'", 0)]), Value::Null);
    staged["kind"] = "StagedNetworkPolicy".into();
    let inputs = cluster(&[staged]);
    check_diff(
        &inputs,
        &with_staged(&inputs),
        &expect![[r#"
        deny old, 0.0.0.0/0 -> db: everything
            TCP 10.0.0.3 port 49152 -> 10.0.0.2 port 80: no policy applies; default verdict of the endpoint, no rule matched in tier `default`; asked: NetworkPolicy x/a
    "#]],
    );
}

#[test]
fn an_endpoint_that_comes_is_a_difference_where_policy_says_so() {
    let before = cluster(&[policy("a", 1, "all()", json!([]), Value::Null)]);
    let mut after = before.clone();
    after.upsert(pod("new", &["10.0.0.9"]));
    check_diff(
        &before,
        &after,
        &expect![[r#"
        deny db+old+web, 0.0.0.0/0 -> new: everything
            TCP 10.0.0.2 port 49152 -> 10.0.0.9 port 80: no policy applies; default verdict of the endpoint, no rule matched in tier `default`; asked: NetworkPolicy x/a
    "#]],
    );
}

/// Neighbour discovery passes whatever policy says of it.
#[test]
fn discovery_is_no_difference() {
    let cluster = |types: &[u8]| {
        let rules = types
            .iter()
            .map(|it| json!({"action": "Allow", "protocol": "ICMPv6", "icmp": {"type": it}}));
        let mut inputs = cluster(&[policy("a", 1, "all()", rules.collect(), Value::Null)]);
        inputs.upsert(pod("web", &["fd00::1"]));
        inputs
    };
    check_diff(&cluster(&[]), &cluster(&[135, 136]), &expect![[""]]);
    check_diff(
        &cluster(&[]),
        &cluster(&[128, 135]),
        &expect![[r#"
            allow ::/0 -> web: ICMPv6 type 128
                ICMPv6 2001:db8::1 -> fd00::1 type 128 code 0: no endpoint owns the address, so no policy applies, rule NetworkPolicy x/a ingress[0]
        "#]],
    );
    let mut open = cluster(&[]);
    let key = open.policies().next().unwrap().key.clone();
    open.remove(&ObjectKey::Policy(key));
    check_diff(
        &cluster(&[]),
        &open,
        &expect![[r#"
            allow db+old, 0.0.0.0/0 -> db+old: everything
                TCP 10.0.0.2 port 49152 -> 10.0.0.3 port 80: no policy applies; default verdict of the endpoint, no policy applies; default verdict of the endpoint
            allow ::/0 -> web: everything but ICMPv6 types 130-137, type 143
                TCP 2001:db8::1 port 49152 -> fd00::1 port 80: no endpoint owns the address, so no policy applies, no policy applies; default verdict of the endpoint
                ICMPv6 2001:db8::1 -> fd00::1 type 128 code 0: no endpoint owns the address, so no policy applies, no policy applies; default verdict of the endpoint
                ICMPv6 2001:db8::1 -> fd00::1 type 138 code 0: no endpoint owns the address, so no policy applies, no policy applies; default verdict of the endpoint
                ICMPv6 2001:db8::1 -> fd00::1 type 144 code 0: no endpoint owns the address, so no policy applies, no policy applies; default verdict of the endpoint
        "#]],
    );
}

#[test]
fn idle_rules_have_a_reason() {
    let documents = [
        policy(
            "a",
            1,
            "app == 'db'",
            json!([from("Pass", "app == 'web'", 0), from("Deny", "app == 'old'", 80)]),
            Value::Null,
        ),
        policy(
            "b",
            2,
            "app == 'db'",
            json!([
                from("Allow", "app == 'web'", 80),
                from("Allow", "app == 'old'", 80),
                from("Allow", "app == 'old'", 81),
                from("Allow", "app == 'nobody'", 0),
                from("Log", "app in {'web', 'old'}", 80),
            ]),
            Value::Null,
        ),
        policy("c", 3, "app == 'nobody'", json!([from("Allow", "app == 'web'", 80)]), Value::Null),
    ];
    check_idle(
        &cluster(&documents),
        &expect![[r#"
        NetworkPolicy x/b ingress[0]: whatever it matches is decided before: rule NetworkPolicy x/a ingress[0]
        NetworkPolicy x/b ingress[1]: whatever it matches is decided before: rule NetworkPolicy x/a ingress[1]
        NetworkPolicy x/b ingress[3]: no flow meets its conditions
        NetworkPolicy x/b ingress[4]: whatever it matches is decided before: rule NetworkPolicy x/a ingress[0]; rule NetworkPolicy x/a ingress[1]
        NetworkPolicy x/c ingress[0]: its policy applies to no endpoint
    "#]],
    );
}

#[test]
fn traffic_is_written_for_people() {
    let tcp = |ports| from_rule(json!({"protocol": "TCP", "destination": {"ports": ports}}));
    let of = |rule: Value| from_rule(rule);
    for (traffic, want) in [
        (from_rule(json!({})), "everything"),
        (tcp(json!([80, "443:445"])), "TCP 80, 443-445"),
        (Traffic::everything().difference(&tcp(json!([80]))), "everything but TCP 80"),
        (tcp(json!([80])).difference(&tcp(json!([80]))), "nothing"),
        (of(json!({"protocol": "UDP"})), "UDP"),
        (of(json!({"protocol": 47})), "protocol 47"),
        (of(json!({"protocol": "ICMP", "icmp": {"type": 8}})), "ICMP type 8"),
        (of(json!({"protocol": "ICMP", "icmp": {"type": 3, "code": 4}})), "ICMP type 3 code 4"),
        (of(json!({"protocol": "ICMP", "notICMP": {"type": 8}})), "ICMP types 0-7, types 9-255"),
        (
            of(
                json!({"protocol": "TCP", "source": {"ports": [53, "1024:65535"]}, "destination": {"ports": [7]}}),
            ),
            "TCP 7 from port 53 or 1024-65535",
        ),
        (of(json!({"protocol": "TCP", "source": {"ports": [53]}})), "TCP any port from port 53"),
    ] {
        assert_eq!(traffic.to_string(), want);
        for flow in flow_with(&traffic, [10, 0, 0, 1].into(), [10, 0, 0, 2].into()) {
            assert!(traffic.contains(&flow), "{flow} of {want}");
        }
        let rest = Traffic::everything().difference(&traffic);
        assert!(rest.intersection(&traffic).is_nothing());
        assert_eq!(Traffic::everything().difference(&rest), traffic);
    }
}

/// Returns what a rule lets into `db`.
fn from_rule(mut rule: Value) -> Traffic {
    rule["action"] = "Allow".into();
    let inputs = cluster(&[policy("a", 1, "app == 'db'", json!([rule]), Value::Null)]);
    let found = reachability(&inputs, &Capabilities::all()).unwrap();
    let [web, db] = [1, 2].map(|it| found.class_of([10, 0, 0, it].into()).unwrap());
    found.cell(web, db).unwrap().ingress.clone()
}
