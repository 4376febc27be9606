//! Tiers, sets and staged policies, and what documents say of themselves.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::{convert, manifest, policy};
use crate::api::shown::shown;
use crate::api::{Document, Kind, Strictness};
use crate::model::{
    Attachment, Endpoint, Enforcement, NamedPort, NetworkSet, Object, ObjectKey, Order, PolicyKind,
    Tier, TierEnd,
};
use crate::net::Transport;
use crate::verdict::Verdict;

#[test]
fn tiers() {
    let tier = |spec: Value| match convert(&manifest(Kind::Tier, &spec)).unwrap() {
        Some(Object::Tier(tier)) => tier,
        other => panic!("no tier: {other:?}"),
    };
    let order = |value| Some(Order::new(value).unwrap());
    for (spec, want) in [
        (json!(null), Tier::new("p", None, TierEnd::Deny)),
        (json!({}), Tier::new("p", None, TierEnd::Deny)),
        (json!({"order": 100}), Tier::new("p", order(100.0), TierEnd::Deny)),
        (
            json!({"order": -0.5, "defaultAction": "Pass"}),
            Tier::new("p", order(-0.5), TierEnd::Pass),
        ),
        (json!({"defaultAction": "Deny"}), Tier::new("p", None, TierEnd::Deny)),
        (json!({"defaultAction": ""}), Tier::new("p", None, TierEnd::Deny)),
    ] {
        assert_eq!(tier(spec), want);
    }
}

#[test]
fn built_in_tiers_are_there_already() {
    for (name, spec) in [
        ("default", json!({"order": 1_000_000, "defaultAction": "Deny"})),
        ("default", json!({"order": 1_000_000})),
        ("kube-admin", json!({"order": 1000, "defaultAction": "Pass"})),
        ("kube-baseline", json!({"order": 10_000_000.0, "defaultAction": "Pass"})),
    ] {
        let mut tier = manifest(Kind::Tier, &spec);
        tier["metadata"]["name"] = name.into();
        assert_eq!(convert(&tier), Ok(None), "{tier}");
        tier["spec"]["order"] = 1.into();
        assert_eq!(convert(&tier).unwrap_err().len(), 1, "{tier}");
        tier["spec"] = json!({"order": 1, "defaultAction": "Deny"});
        convert(&tier).unwrap_err();
    }
}

#[test]
fn host_endpoints() {
    let host = |spec: Value| match convert(&manifest(Kind::HostEndpoint, &spec)).unwrap() {
        Some(Object::Endpoint(host)) => host,
        other => panic!("no endpoint: {other:?}"),
    };
    for (interface, want) in [
        (json!("*"), Attachment::OtherInterfaces),
        (json!("eth0"), Attachment::Interface("eth0".into())),
        (json!(null), Attachment::Address),
        (json!(""), Attachment::Address),
    ] {
        let spec = json!({"node": "n", "interfaceName": interface, "expectedIPs": ["10.0.0.1"]});
        assert_eq!(host(spec).attachment, want, "{interface}");
    }
    let all = host(json!({
        "node": "n", "expectedIPs": ["10.0.0.1", "fd00::1"], "profiles": ["p", "projectcalico-default-allow"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    }));
    let mut want = Endpoint::host("p", "n", Attachment::Address);
    want.addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    want.ports = vec![NamedPort { name: "http".into(), transport: Transport::Tcp, port: 80 }];
    want.default_verdict = Verdict::Allow;
    assert_eq!(all, want);
    assert_eq!(
        host(json!({"node": "n", "interfaceName": "*", "profiles": ["p"]})).default_verdict,
        Verdict::Deny
    );
}

#[test]
fn sets() {
    let set = |kind, namespace: Option<&str>| {
        let mut json = manifest(
            kind,
            &json!({"nets": ["10.1.2.3/8", "10.0.0.0/9", "192.0.2.1", "fd00::1", "2001:db8::1/32", "10.0.0.0/9"]}),
        );
        json["metadata"]["labels"] = json!({"role": "db"});
        let nets = ["10.0.0.0/8", "192.0.2.1/32", "fd00::1/128", "2001:db8::/32"];
        let want = NetworkSet {
            namespace: namespace.map(Into::into),
            name: "p".into(),
            labels: [("role", "db")].into_iter().collect(),
            nets: nets.iter().map(|it| it.parse::<crate::net::Prefix>().unwrap()).collect(),
        };
        assert_eq!(convert(&json), Ok(Some(Object::NetworkSet(want))));
    };
    set(Kind::NetworkSet, Some("ns"));
    set(Kind::GlobalNetworkSet, None);
    for spec in [json!(null), json!({}), json!({"nets": null}), json!({"nets": []})] {
        let Ok(Some(Object::NetworkSet(set))) = convert(&manifest(Kind::NetworkSet, &spec)) else {
            panic!("no set: {spec}");
        };
        assert!(set.nets.is_empty());
    }
}

#[test]
fn a_set_holds_as_many_blocks_as_an_api_server_takes() {
    let nets = |count: u32| -> Vec<_> {
        (0..count).map(|it| core::net::Ipv4Addr::from_bits(it * 2).to_string()).collect()
    };
    let started = convert(&manifest(Kind::NetworkSet, &json!({"nets": nets(160_000)}))).unwrap();
    let Some(Object::NetworkSet(set)) = started else { panic!("no set") };
    assert_eq!(set.nets.prefixes().len(), 160_000);
    assert_eq!(
        convert(&manifest(Kind::NetworkSet, &json!({"nets": nets(160_001)}))).unwrap_err(),
        ["spec.nets: 160001 entries, expected at most 160000"]
    );
}

#[test]
fn staged_policies() {
    let spec =
        json!({"tier": "t", "order": 5, "selector": "has(a)", "ingress": [{"action": "Deny"}]});
    for (kind, of, staged) in [
        (Kind::StagedNetworkPolicy, Kind::NetworkPolicy, PolicyKind::StagedNetworkPolicy),
        (
            Kind::StagedGlobalNetworkPolicy,
            Kind::GlobalNetworkPolicy,
            PolicyKind::StagedGlobalNetworkPolicy,
        ),
    ] {
        let mut want = policy(of, &spec);
        assert_eq!(staged.staged_for(), Some(want.key.kind));
        want.key.kind = staged;
        want.enforcement = Enforcement::Staged;
        for action in [json!(null), json!(""), json!("Set"), json!("Learn")] {
            let mut spec = spec.clone();
            spec["stagedAction"] = action;
            assert_eq!(policy(kind, &spec), want, "{spec}");
        }
        let mut ignored = spec.clone();
        ignored["stagedAction"] = "Ignore".into();
        assert_eq!(convert(&manifest(kind, &ignored)), Ok(None));
        let removal = policy(kind, &json!({"stagedAction": "Delete", "tier": "t"}));
        assert_eq!((removal.enforcement, &*removal.tier), (Enforcement::StagedRemoval, "t"));
        assert_eq!(removal.key, want.key);
        assert_eq!(shown(&removal), "subject !all()\n");
    }
}

#[test]
fn staged_kubernetes_policies() {
    let kind = Kind::StagedKubernetesNetworkPolicy;
    let spec = json!({
        "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}],
    });
    let mut want = policy(Kind::KubernetesNetworkPolicy, &spec);
    want.key.kind = PolicyKind::StagedKubernetesNetworkPolicy;
    want.enforcement = Enforcement::Staged;
    for action in [json!(null), json!("Set"), json!("Learn")] {
        let mut spec = spec.clone();
        spec["stagedAction"] = action;
        assert_eq!(policy(kind, &spec), want, "{spec}");
    }
    let mut ignored = spec.clone();
    ignored["stagedAction"] = "Ignore".into();
    assert_eq!(convert(&manifest(kind, &ignored)), Ok(None));
    let removal = policy(kind, &json!({"stagedAction": "Delete"}));
    assert_eq!((removal.enforcement, removal.key), (Enforcement::StagedRemoval, want.key));
    assert_eq!((removal.ingress, removal.egress), (None, None));
    let wrong = json!({"podSelectors": {}, "ingress": [{"from": [{}]}]});
    assert_eq!(
        convert(&manifest(kind, &wrong)).unwrap_err(),
        [
            "spec.podSelectors: unknown field",
            "spec.ingress[0].from[0]: empty, expected `podSelector`, `namespaceSelector` or `ipBlock`",
        ]
    );
}

#[test]
fn the_key_of_a_name_is_that_of_the_object() {
    let mut keys = 0;
    for &kind in Kind::ALL.iter().filter(|it| it.api_version() == "projectcalico.org/v3") {
        let spec = match kind {
            Kind::HostEndpoint => json!({"node": "n", "interfaceName": "*"}),
            _ => json!({}),
        };
        let json = manifest(kind, &spec);
        let namespace = kind.is_namespaced().then_some("ns");
        let document = Document::read(kind, &json).unwrap();
        assert_eq!((document.name(), document.namespace()), (Some("p"), namespace), "{kind}");
        let object = document.to_object(Strictness::Strict).ok().and_then(|it| it.value);
        assert_eq!(kind.object_key(namespace, "p"), object.map(|it| it.key()), "{kind}");
        assert_eq!(kind.object_key(namespace.xor(Some("x")), "p"), None, "{kind}");
        keys += usize::from(kind.object_key(namespace, "p").is_some());
    }
    assert_eq!(keys, 9);
    assert_eq!(
        Kind::GlobalNetworkSet.object_key(None, "p"),
        Some(ObjectKey::NetworkSet(None, "p".into()))
    );
}

#[test]
fn kinds_are_recognised_by_version_and_kind() {
    for kind in Kind::ALL {
        assert_eq!(Kind::recognise(kind.api_version(), kind.as_str()), Some(*kind));
    }
    assert_eq!(Kind::recognise("projectcalico.org/v3", "Profile"), None);
    assert_eq!(Kind::recognise("crd.projectcalico.org/v1", "NetworkPolicy"), None);
    let mut other = manifest(Kind::NetworkPolicy, &json!({}));
    other["apiVersion"] = "networking.k8s.io/v1".into();
    let document = Document::read(Kind::NetworkPolicy, &other).unwrap();
    assert_eq!(
        document.to_object(Strictness::Strict).unwrap_err().to_string(),
        "apiVersion: `networking.k8s.io/v1` is another kind of object, expected `projectcalico.org/v3`"
    );
}
