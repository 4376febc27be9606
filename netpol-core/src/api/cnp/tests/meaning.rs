//! What converted policies mean, by the judge: one test for each thing that the API says.

use alloc::format;
use alloc::string::ToString;

use serde_json::{Value, json};

use super::super::super::sample::{address, check_inputs, cluster, flow, np};
use super::super::ClusterNetworkPolicy;
use crate::api::Strictness;
use crate::dataplane::Capabilities;
use crate::eval::Judge;
use crate::flow::Origin;
use crate::model::{DomainAddress, Endpoint, EndpointId, Object, Timestamp};
use crate::verdict::Verdict;

fn policy(json: &Value, strictness: Strictness) -> Object {
    let policy: ClusterNetworkPolicy = serde::Deserialize::deserialize(json).unwrap();
    policy.to_policy(strictness).unwrap().value.into()
}

/// Returns a policy named after its tier and priority, for all pods of a namespace.
fn cnp(tier: &str, priority: i32, namespace: &str, ingress: Value, egress: Value) -> Value {
    let subject =
        json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}});
    json!({
        "metadata": {"name": format!("{}-{priority}", tier.to_lowercase())},
        "spec": {"tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress},
    })
}

/// Returns a rule of ingress from everywhere in the cluster.
fn from_all(action: &str) -> Value {
    json!([{"action": action, "from": [{"namespaces": {}}]}])
}

#[track_caller]
fn check(policies: &[Value], others: &[Object], allowed: &[&str], denied: &[&str]) {
    let mut inputs = cluster();
    policies.iter().for_each(|it| inputs.upsert(policy(it, Strictness::Strict)));
    others.iter().for_each(|it| inputs.upsert(it.clone()));
    check_inputs(&inputs, allowed, denied);
}

const NONE: Value = Value::Null;

#[test]
fn accept_and_deny_are_final_and_pass_leaves_the_tier() {
    let isolated = || np(json!({}));
    let admin = |rules| [cnp("Admin", 5, "x", rules, NONE)];
    check(&admin(from_all("Accept")), &[isolated()], &["c > a tcp/80", "b > a icmp"], &[]);
    check(
        &admin(from_all("Deny")),
        &[],
        &["192.0.2.1 > a tcp/80"],
        &["c > a tcp/80", "b > a icmp"],
    );
    check(&admin(from_all("Pass")), &[isolated()], &[], &["c > a tcp/80"]);
    check(&admin(from_all("Pass")), &[], &["c > a tcp/80"], &[]);
    // Pass skips what comes later in the tier, and not the tiers after it.
    let later = [
        cnp("Admin", 5, "x", from_all("Pass"), NONE),
        cnp("Admin", 6, "x", from_all("Deny"), NONE),
    ];
    check(&later, &[], &["c > a tcp/80"], &[]);
    let baseline = [
        cnp("Admin", 5, "x", from_all("Pass"), NONE),
        cnp("Baseline", 5, "x", from_all("Deny"), NONE),
    ];
    check(&baseline, &[], &[], &["c > a tcp/80"]);
}

#[test]
fn the_first_rule_of_the_lowest_priority_decides() {
    let rules = |first: &str, second: &str| {
        json!([
            {"action": first, "from": [{"pods": {"podSelector": {"matchLabels": {"app": "a"}}}}]},
            {"action": second, "from": [{"namespaces": {}}]},
        ])
    };
    check(
        &[cnp("Admin", 1, "x", rules("Accept", "Deny"), NONE)],
        &[],
        &["c > a tcp/80"],
        &["d > a tcp/80"],
    );
    check(
        &[cnp("Admin", 1, "x", rules("Deny", "Accept"), NONE)],
        &[],
        &["d > a tcp/80"],
        &["c > a tcp/80"],
    );
    // 2 comes before 10, and after it by name.
    let two = [
        cnp("Admin", 10, "x", from_all("Deny"), NONE),
        cnp("Admin", 2, "x", from_all("Accept"), NONE),
    ];
    check(&two, &[], &["c > a tcp/80"], &[]);
    // Priorities are compared within a tier.
    let tiers = [
        cnp("Admin", 1000, "x", from_all("Accept"), NONE),
        cnp("Baseline", 0, "x", from_all("Deny"), NONE),
    ];
    check(&tiers, &[], &["c > a tcp/80"], &[]);
}

#[test]
fn ties_go_by_name() {
    let named = |name: &str, action: &str| {
        let mut policy = cnp("Admin", 1, "x", from_all(action), NONE);
        policy["metadata"]["name"] = json!(name);
        policy
    };
    check(&[named("a", "Accept"), named("b", "Deny")], &[], &["c > a tcp/80"], &[]);
    check(&[named("b", "Accept"), named("a", "Deny")], &[], &[], &["c > a tcp/80"]);
    // What is compared is `a//…` and `a-b//…`, as for all policies; a dot and a hyphen come before the slash.
    for longer in ["a-b", "a.b"] {
        check(&[named("a", "Accept"), named(longer, "Deny")], &[], &[], &["c > a tcp/80"]);
        check(&[named("a", "Deny"), named(longer, "Accept")], &[], &["c > a tcp/80"], &[]);
    }
}

#[test]
fn the_baseline_is_asked_where_no_network_policy_isolates_the_direction() {
    let to_all = json!([{"action": "Deny", "to": [{"namespaces": {}}]}]);
    let baseline = [cnp("Baseline", 0, "x", from_all("Deny"), to_all)];
    check(&baseline, &[], &[], &["c > a tcp/80", "a > c tcp/81"]);
    let allow = np(json!({"ingress": [{}]}));
    check(&baseline, &[allow], &["c > a tcp/80"], &["a > c tcp/81"]);
    let accepted = [
        cnp("Baseline", 0, "x", from_all("Accept"), NONE),
        cnp("Baseline", 1, "x", from_all("Deny"), NONE),
    ];
    check(&accepted, &[], &["c > a tcp/80"], &[]);
    let passed = [
        cnp("Baseline", 0, "x", from_all("Pass"), NONE),
        cnp("Baseline", 1, "x", from_all("Deny"), NONE),
    ];
    check(&passed, &[], &["c > a tcp/80"], &[]);
}

#[test]
fn a_selected_pod_is_not_isolated() {
    let one = json!([{"action": "Accept", "from": [{"pods": {"podSelector": {"matchLabels": {"app": "b"}}}}]}]);
    check(
        &[cnp("Admin", 1, "x", one, NONE)],
        &[],
        &["b > a tcp/80", "c > a tcp/80", "192.0.2.1 > a udp/1", "a > c tcp/81"],
        &[],
    );
}

#[test]
fn both_halves_must_allow() {
    let accept = json!([{"action": "Accept", "to": [{"namespaces": {}}]}]);
    let policies =
        [cnp("Admin", 1, "x", NONE, accept), cnp("Admin", 2, "y", from_all("Deny"), NONE)];
    check(&policies, &[], &["a > b tcp/80", "c > a tcp/80"], &["a > c tcp/81", "c > d tcp/80"]);
}

#[test]
fn a_rule_without_protocols_is_about_icmp_too() {
    let with = |protocols: Value| {
        let rules =
            json!([{"action": "Deny", "from": [{"namespaces": {}}], "protocols": protocols}]);
        [cnp("Admin", 1, "x", rules, NONE)]
    };
    check(&with(NONE), &[], &[], &["c > a icmp", "c > a sctp/9", "c > a tcp/80"]);
    let tcp = json!([{"tcp": {"destinationPort": {"range": {"start": 80, "end": 81}}}}]);
    check(
        &with(tcp),
        &[],
        &["c > a icmp", "c > a udp/80", "c > a tcp/79", "c > a tcp/82"],
        &["c > a tcp/80", "c > a tcp/81"],
    );
}

#[test]
fn named_ports_are_the_destinations_of_any_transport() {
    let named = |name: &str| json!([{"destinationNamedPort": name}]);
    let ingress =
        json!([{"action": "Deny", "from": [{"namespaces": {}}], "protocols": named("web")}]);
    check(
        &[cnp("Admin", 1, "x", ingress, NONE)],
        &[],
        &["c > a udp/80", "c > a tcp/81", "c > b tcp/81", "c > a udp/53"],
        &["c > a tcp/80", "c > b udp/81"],
    );
    let egress = json!([{"action": "Deny", "to": [{"namespaces": {}}], "protocols": named("web")}]);
    check(
        &[cnp("Admin", 1, "y", NONE, egress)],
        &[],
        &["c > a udp/80", "c > a tcp/81", "d > 192.0.2.1 tcp/80", "d > n tcp/80", "a > c tcp/81"],
        &["c > a tcp/80", "c > b udp/81", "d > c tcp/81"],
    );
    let nobody =
        json!([{"action": "Deny", "to": [{"namespaces": {}}], "protocols": named("nobody")}]);
    check(&[cnp("Admin", 1, "y", NONE, nobody)], &[], &["c > a tcp/80"], &[]);
}

#[test]
fn networks_match_pods_and_nodes_and_icmp() {
    let deny = |networks: Value| json!([{"action": "Deny", "to": [{"networks": networks}]}]);
    check(
        &[cnp("Admin", 1, "x", NONE, deny(json!(["0.0.0.0/0"])))],
        &[],
        &["c > a tcp/80"],
        &["a > c tcp/81", "a > n tcp/1", "a > 192.0.2.1 icmp", "a > b icmp"],
    );
    // Host bits are masked: everything in 10.0.1.0/24 is meant.
    check(
        &[cnp("Admin", 1, "x", NONE, deny(json!(["10.0.1.77/24"])))],
        &[],
        &["a > b tcp/1", "a > 192.0.2.1 tcp/1"],
        &["a > c tcp/1", "a > d icmp", "a > 10.0.1.99 udp/1"],
    );
    let internet = json!([
        {"action": "Pass", "to": [{"namespaces": {}}]},
        {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]},
    ]);
    check(
        &[cnp("Admin", 1, "x", NONE, internet)],
        &[],
        &["a > c tcp/81"],
        &["a > 192.0.2.1 tcp/80", "a > n tcp/80"],
    );
}

#[test]
fn nodes_are_all_their_addresses_and_no_pods() {
    let deny = |nodes: Value| json!([{"action": "Deny", "to": [{"nodes": nodes}]}]);
    check(
        &[cnp("Admin", 1, "x", NONE, deny(json!({"matchLabels": {"os": "linux"}})))],
        &[],
        &["a > c tcp/81", "a > 192.0.2.1 tcp/80"],
        &["a > n tcp/10250", "a > 203.0.113.9 icmp"],
    );
    check(
        &[cnp("Admin", 1, "x", NONE, deny(json!({"matchLabels": {"os": "windows"}})))],
        &[],
        &["a > n tcp/10250"],
        &[],
    );
    // Namespaces and pods never mean nodes.
    check(
        &[cnp(
            "Admin",
            1,
            "x",
            from_all("Deny"),
            json!([{"action": "Deny", "to": [{"namespaces": {}}]}]),
        )],
        &[],
        &["a > n tcp/10250", "n > a tcp/80"],
        &["c > a tcp/80"],
    );
}

#[test]
fn domain_names_are_addresses_until_they_expire() {
    let egress = json!([
        {"action": "Accept", "to": [{"domainNames": ["api.example.com", "*.example.org"]}]},
        {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]},
    ]);
    let mut inputs = cluster();
    inputs.upsert(policy(&cnp("Admin", 1, "x", NONE, egress), Strictness::Strict));
    let all = ["a > 192.0.2.1 tcp/443", "a > 192.0.2.2 icmp", "a > 192.0.2.3 tcp/443"];
    check_inputs(&inputs, &[], &all);
    for (name, address, expires) in [
        ("API.example.com.", "192.0.2.1", 10),
        ("example.org", "192.0.2.3", 50),
        ("a.b.example.org", "192.0.2.2", 20),
        ("other.example.com", "192.0.2.3", 50),
    ] {
        inputs.upsert(DomainAddress {
            name: name.parse().unwrap(),
            address: address.parse().unwrap(),
            expires: Timestamp(expires),
        });
    }
    check_inputs(&inputs, &all[..2], &["a > 192.0.2.3 tcp/443", "a > c tcp/81"]);
    assert!(!inputs.expire(Timestamp(9)));
    assert_eq!(inputs.next_expiry(), Some(Timestamp(10)));
    check_inputs(&inputs, &all[..2], &[]);
    assert!(inputs.expire(Timestamp(10)));
    check_inputs(&inputs, &all[1..2], &all[..1]);
    assert!(inputs.expire(Timestamp(100)));
    assert_eq!(inputs.next_expiry(), None);
    check_inputs(&inputs, &[], &all);
}

#[test]
fn only_pods_that_run_on_their_own_network_are_selected() {
    let mut inputs = cluster();
    let mut vm = Endpoint::new(EndpointId::workload("x", "vm"));
    vm.addresses = [address("10.0.0.9")].into();
    vm.default_verdict = Verdict::Allow;
    inputs.upsert(vm);
    let everything = json!([{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}]);
    inputs.upsert(policy(&cnp("Admin", 1, "x", from_all("Deny"), everything), Strictness::Strict));
    check_inputs(
        &inputs,
        &["c > 10.0.0.9 tcp/80", "10.0.0.9 > c tcp/81", "10.0.0.9 > a tcp/80"],
        &["c > a tcp/80", "a > 10.0.0.9 tcp/80"],
    );
}

/// Neither what a pod sends itself, nor what its own node sends it, is for policy to say.
#[test]
fn own_traffic_is_outside_of_policy() {
    let everything = json!([{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}]);
    let policies = [
        cnp("Admin", 1, "x", from_all("Deny"), everything.clone()),
        cnp("Baseline", 1, "x", from_all("Deny"), everything),
    ];
    check(&policies, &[], &["a > a tcp/80", "a > a icmp"], &["a > b tcp/80"]);
    let mut inputs = cluster();
    let closed = json!([{"action": "Deny", "from": [{"future": {}}]}]);
    inputs.upsert(policy(&cnp("Admin", 1, "x", closed, NONE), Strictness::Degraded));
    let capabilities = Capabilities::all();
    let judge = Judge::new(&inputs, &capabilities);
    for (origin, want) in [(Origin::OwnNode, Verdict::Allow), (Origin::Forwarded, Verdict::Deny)] {
        let flow = flow("n > a tcp/80").from_origin(origin);
        assert_eq!(judge.evaluate(&flow).enforced.verdict(), want);
    }
}

#[test]
fn what_is_unknown_fails_closed() {
    let rules = |action: &str, peers: Value, side: &str| json!([{"action": action, side: peers}]);
    let unknown = || json!([{"future": {}}]);
    let mixed = || json!([{"namespaces": {"matchLabels": {"team": "red"}}}, {"future": {}}]);
    for peers in [unknown(), mixed(), json!([{}])] {
        for (action, denied) in [("Accept", false), ("Deny", true), ("Pass", true)] {
            for (tier, isolated) in [("Admin", false), ("Admin", true), ("Baseline", false)] {
                let json = cnp(tier, 1, "x", rules(action, peers.clone(), "from"), NONE);
                let mut inputs = cluster();
                inputs.upsert(policy(&json, Strictness::Degraded));
                let into = ["b > a tcp/80", "c > a icmp", "192.0.2.1 > a udp/1", "n > a tcp/80"];
                if isolated {
                    inputs.upsert(np(json!({})));
                    check_inputs(&inputs, &["a > c tcp/81"], &into);
                } else if denied {
                    check_inputs(&inputs, &["a > c tcp/81"], &into);
                } else {
                    check_inputs(&inputs, &into, &[]);
                }
            }
        }
        let json = cnp("Admin", 1, "x", NONE, rules("Pass", peers.clone(), "to"));
        let mut inputs = cluster();
        inputs.upsert(policy(&json, Strictness::Degraded));
        check_inputs(
            &inputs,
            &["c > a tcp/80", "n > a tcp/80"],
            &["a > c tcp/81", "a > n icmp", "a > 192.0.2.1 tcp/443"],
        );
    }
}

#[test]
fn a_policy_before_one_that_fails_closed_still_decides() {
    let json = cnp("Admin", 5, "x", json!([{"action": "Deny", "from": [{"future": {}}]}]), NONE);
    let mut inputs = cluster();
    inputs.upsert(policy(&json, Strictness::Degraded));
    inputs.upsert(policy(&cnp("Admin", 1, "x", from_all("Accept"), NONE), Strictness::Strict));
    check_inputs(&inputs, &["c > a tcp/80"], &["192.0.2.1 > a tcp/80"]);
    let said = Judge::new(&inputs, &Capabilities::all())
        .evaluate(&flow("192.0.2.1 > a tcp/80"))
        .enforced
        .ingress
        .reason
        .to_string();
    assert_eq!(said, "rule KubernetesClusterNetworkPolicy admin-5 ingress[0]");
}
