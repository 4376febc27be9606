//! What converted policies mean, by the judge, as far as it is not what ClusterNetworkPolicies mean.

use alloc::format;

use serde_json::{Value, json};

use super::super::super::sample::{check_inputs, cluster, np};
use super::{admin, baseline, convert};
use crate::api::{Document, Kind, Strictness};
use crate::labels::Labels;
use crate::model::{Inputs, Object};

/// Adds a namespace with these labels, and a pod with an address in it.
fn add_tenant(inputs: &mut Inputs, name: &str, labels: &[(&str, &str)], address: &str) {
    let labels: Labels = labels.iter().copied().collect();
    inputs.upsert(Object::Namespace { name: name.into(), labels });
    let mut pod = crate::model::Endpoint::pod(name, "p");
    pod.addresses = [address.parse().unwrap()].into();
    inputs.upsert(pod);
}

#[track_caller]
fn check(inputs: &Inputs, policies: &[Value], allowed: &[&str], denied: &[&str]) {
    let mut inputs = inputs.clone();
    for policy in policies {
        inputs.upsert(convert(policy, Strictness::Strict).unwrap().value);
    }
    check_inputs(&inputs, allowed, denied);
}

/// Four tenants of two stages, and some that lack a label.
fn tenants() -> Inputs {
    let mut inputs = Inputs::default();
    for (name, labels, address) in [
        ("t1", &[("tenant", "1"), ("stage", "a")][..], "10.1.0.1"),
        ("t1b", &[("tenant", "1"), ("stage", "b")], "10.1.0.2"),
        ("t2", &[("tenant", "2"), ("stage", "a")], "10.1.0.3"),
        ("t1c", &[("tenant", "1"), ("stage", "a")], "10.1.0.4"),
        ("empty", &[("tenant", ""), ("stage", "")], "10.1.0.5"),
        ("half", &[("tenant", "1")], "10.1.0.6"),
        ("none", &[], "10.1.0.7"),
    ] {
        add_tenant(&mut inputs, name, labels, address);
    }
    inputs
}

fn of(tenancy: &str, keys: &[&str]) -> Value {
    admin(&json!([{"action": "Deny", "from": [{"namespaces": {tenancy: keys}}]}]), &json!([]))
}

#[test]
fn same_labels() {
    check(
        &tenants(),
        &[of("sameLabels", &["tenant"])],
        &[
            "10.1.0.3 > 10.1.0.1 tcp/1",
            "10.1.0.5 > 10.1.0.1 tcp/1",
            "10.1.0.7 > 10.1.0.1 tcp/1",
            "10.1.0.1 > 10.1.0.3 tcp/1",
            "10.1.0.1 > 10.1.0.7 tcp/1",
            "192.0.2.1 > 10.1.0.1 tcp/1",
        ],
        &["10.1.0.2 > 10.1.0.1 tcp/1", "10.1.0.6 > 10.1.0.1 tcp/1", "10.1.0.1 > 10.1.0.6 icmp"],
    );
    check(
        &tenants(),
        &[of("sameLabels", &["tenant", "stage"])],
        &["10.1.0.2 > 10.1.0.1 tcp/1", "10.1.0.6 > 10.1.0.1 tcp/1", "10.1.0.1 > 10.1.0.6 tcp/1"],
        &["10.1.0.4 > 10.1.0.1 tcp/1", "10.1.0.1 > 10.1.0.4 tcp/1"],
    );
}

#[test]
fn not_same_labels() {
    check(
        &tenants(),
        &[of("notSameLabels", &["tenant"])],
        &[
            "10.1.0.2 > 10.1.0.1 tcp/1",
            "10.1.0.7 > 10.1.0.1 tcp/1",
            "10.1.0.1 > 10.1.0.7 tcp/1",
            "192.0.2.1 > 10.1.0.1 tcp/1",
        ],
        &["10.1.0.3 > 10.1.0.1 tcp/1", "10.1.0.5 > 10.1.0.1 tcp/1", "10.1.0.1 > 10.1.0.5 icmp"],
    );
    check(
        &tenants(),
        &[of("notSameLabels", &["tenant", "stage"])],
        &["10.1.0.4 > 10.1.0.1 tcp/1", "10.1.0.6 > 10.1.0.1 tcp/1", "10.1.0.1 > 10.1.0.6 tcp/1"],
        &["10.1.0.2 > 10.1.0.1 tcp/1", "10.1.0.3 > 10.1.0.1 tcp/1", "10.1.0.5 > 10.1.0.1 tcp/1"],
    );
    for tenancy in ["sameLabels", "notSameLabels"] {
        check(
            &tenants(),
            &[of(tenancy, &[])],
            &["10.1.0.2 > 10.1.0.1 tcp/1", "10.1.0.3 > 10.1.0.1 tcp/1"],
            &[],
        );
    }
}

#[test]
fn tenancy_follows_the_labels_of_both_namespaces() {
    let mut inputs = tenants();
    add_tenant(&mut inputs, "t2", &[("tenant", "1")], "10.1.0.3");
    check(
        &inputs,
        &[of("sameLabels", &["tenant"])],
        &["10.1.0.5 > 10.1.0.3 tcp/1"],
        &["10.1.0.3 > 10.1.0.1 tcp/1", "10.1.0.1 > 10.1.0.3 tcp/1"],
    );
}

#[test]
fn tenancy_of_some_pods_and_for_egress() {
    let peer = json!({"pods": {
        "namespaces": {"sameLabels": ["team"]}, "podSelector": {"matchLabels": {"app": "b"}},
    }});
    let ports = json!([{"namedPort": "web"}]);
    let egress = json!([{"action": "Deny", "to": [peer], "ports": ports}]);
    check(
        &cluster(),
        &[admin(&json!([]), &egress)],
        &["a > b udp/80", "c > b udp/81", "a > c tcp/81"],
        &["a > b udp/81"],
    );
}

#[test]
fn ports_default_to_tcp() {
    let ports = json!([{"portNumber": {"port": 80}}, {"portRange": {"start": 90, "end": 91}}]);
    let rules = json!([{"action": "Deny", "from": [{"namespaces": {}}], "ports": ports}]);
    check(
        &cluster(),
        &[admin(&rules, &json!([]))],
        &["c > a udp/80", "c > a tcp/89", "c > a tcp/92", "c > a icmp"],
        &["c > a tcp/80", "c > a tcp/90", "c > a tcp/91"],
    );
}

#[test]
fn the_baseline_comes_after_everything() {
    let rules = |action: &str| json!([{"action": action, "from": [{"namespaces": {}}]}]);
    let banp = baseline(&rules("Deny"), &json!([]));
    check(&cluster(), core::slice::from_ref(&banp), &[], &["c > a tcp/80"]);
    check(&cluster(), &[admin(&rules("Allow"), &json!([])), banp.clone()], &["c > a tcp/80"], &[]);
    check(&cluster(), &[admin(&rules("Pass"), &json!([])), banp.clone()], &[], &["c > a tcp/80"]);
    let mut isolated = cluster();
    isolated.upsert(np(json!({"ingress": [{}]})));
    check(&isolated, core::slice::from_ref(&banp), &["c > a tcp/80"], &["a > c tcp/81"]);
    // The last priority of the baseline tier comes before it, whatever its name.
    for name in ["a", "z"] {
        let cnp = json!({
            "metadata": {"name": format!("{name}-last")},
            "spec": {
                "tier": "Baseline", "priority": 1000, "subject": {"namespaces": {}},
                "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}],
            },
        });
        let cnp = Document::read(Kind::ClusterNetworkPolicy, &cnp).unwrap();
        let mut both = cluster();
        both.upsert(cnp.to_object(Strictness::Strict).unwrap().value.unwrap());
        check(&both, core::slice::from_ref(&banp), &["c > a tcp/80"], &[]);
    }
}
