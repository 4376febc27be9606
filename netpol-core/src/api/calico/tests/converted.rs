//! What rules become: one rule of the model for each protocol that they can match.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{policy, shown_rules};
use crate::api::Kind;
use crate::api::shown::shown;
use crate::lint::{Lint, lint};
use crate::model::{Endpoint, HostTraffic, Inputs, Order};

#[track_caller]
fn check(rules: &[Value], want: Expect) {
    let mut text = String::new();
    for rule in rules {
        let mut with_action = json!({"action": "Allow"});
        with_action.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        text.extend([&rule.to_string(), "\n"]);
        for line in shown_rules(Kind::GlobalNetworkPolicy, "ingress", &with_action).lines() {
            let line = line.strip_prefix("0 Allow ").or(line.strip_prefix("0 ")).unwrap_or(line);
            text.extend(["    ", line, "\n"]);
        }
    }
    want.assert_eq(&text);
}

#[test]
fn protocols() {
    check(
        &[
            json!({}),
            json!({"protocol": "TCP"}),
            json!({"protocol": 6}),
            json!({"protocol": "253"}),
            json!({"protocol": "UDPLite"}),
            json!({"protocol": "ICMP"}),
            json!({"protocol": "ICMPv6"}),
            json!({"protocol": 1}),
            json!({"protocol": "58"}),
            json!({"notProtocol": "TCP"}),
            json!({"notProtocol": "ICMP"}),
            json!({"protocol": "TCP", "notProtocol": "UDP"}),
            json!({"protocol": "TCP", "notProtocol": 6}),
            json!({"protocol": "ICMP", "notProtocol": 1}),
        ],
        expect![[r#"
            {}
                everything
            {"protocol":"TCP"}
                TCP
            {"protocol":6}
                TCP
            {"protocol":"253"}
                253
            {"protocol":"UDPLite"}
                UDPLite
            {"protocol":"ICMP"}
                IPv4 ICMP
            {"protocol":"ICMPv6"}
                IPv6 ICMPv6
            {"protocol":1}
                ICMP
            {"protocol":"58"}
                ICMPv6
            {"notProtocol":"TCP"}
                not TCP
            {"notProtocol":"ICMP"}
                not ICMP
            {"notProtocol":"UDP","protocol":"TCP"}
                TCP
            {"notProtocol":6,"protocol":"TCP"}
                nothing
            {"notProtocol":1,"protocol":"ICMP"}
                nothing
        "#]],
    );
}

#[test]
fn families() {
    check(
        &[
            json!({"ipVersion": 4}),
            json!({"ipVersion": 6, "protocol": "TCP"}),
            json!({"source": {"nets": ["10.0.0.0/8"]}}),
            json!({"source": {"notNets": ["10.0.0.0/8"]}}),
            json!({"destination": {"notNets": ["fd00::/8"]}}),
            json!({"source": {"nets": []}, "destination": {"notNets": []}}),
            json!({"source": {"nets": ["0.0.0.0/0"]}}),
            json!({"protocol": "ICMP", "source": {"nets": ["fd00::/8"]}}),
            json!({"protocol": 1, "source": {"nets": ["fd00::/8"]}}),
            json!({"protocol": "ICMPv6", "source": {"nets": ["fd00::/8"]}}),
            json!({"notProtocol": "ICMP", "source": {"nets": ["fd00::/8"]}}),
            json!({"source": {"selector": "a == 'b'", "nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"]}}),
        ],
        expect![[r#"
            {"ipVersion":4}
                IPv4 everything
            {"ipVersion":6,"protocol":"TCP"}
                IPv6 TCP
            {"source":{"nets":["10.0.0.0/8"]}}
                everything from [10.0.0.0/8]
            {"source":{"notNets":["10.0.0.0/8"]}}
                everything from [0.0.0.0/0] but [10.0.0.0/8]
            {"destination":{"notNets":["fd00::/8"]}}
                everything to [::/0] but [fd00::/8]
            {"destination":{"notNets":[]},"source":{"nets":[]}}
                everything
            {"source":{"nets":["0.0.0.0/0"]}}
                everything from [0.0.0.0/0]
            {"protocol":"ICMP","source":{"nets":["fd00::/8"]}}
                IPv4 ICMP from [fd00::/8]
            {"protocol":1,"source":{"nets":["fd00::/8"]}}
                ICMP from [fd00::/8]
            {"protocol":"ICMPv6","source":{"nets":["fd00::/8"]}}
                IPv6 ICMPv6 from [fd00::/8]
            {"notProtocol":"ICMP","source":{"nets":["fd00::/8"]}}
                not ICMP from [fd00::/8]
            {"source":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"],"selector":"a == 'b'"}}
                everything from a == "b" [10.0.0.0/8] but [10.1.0.0/16]
        "#]],
    );
}

/// Where blocks alone restrict a rule to a family, the lint can tell; what the author says is not found.
#[test]
fn families_by_lists_are_found() {
    for (rule, want) in [
        (json!({"source": {"nets": ["10.0.0.0/8"]}}), "IPv4"),
        (json!({"source": {"notNets": ["10.0.0.0/8"]}}), "IPv4"),
        (json!({"destination": {"notNets": ["fd00::/8"]}}), "IPv6"),
        (json!({"source": {"selector": "all()", "notNets": ["fd00::/8"]}}), "IPv6"),
        (json!({"source": {"notNets": ["10.0.0.0/8"]}, "ipVersion": 4}), ""),
        (json!({"source": {"nets": ["10.0.0.0/8"]}, "ipVersion": 4}), ""),
        (json!({"source": {"nets": ["10.0.0.0/8"]}, "protocol": "ICMP"}), ""),
        (json!({"source": {"nets": []}, "destination": {"notNets": []}}), ""),
    ] {
        let mut with_action = json!({"action": "Deny"});
        with_action.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let mut endpoint = Endpoint::pod("ns", "both");
        endpoint.addresses = ["10.0.0.1", "fd00::1"].map(|it| it.parse().unwrap()).into();
        let mut inputs = Inputs::default();
        inputs.upsert(endpoint);
        inputs.upsert(policy(Kind::GlobalNetworkPolicy, &json!({"ingress": [with_action]})));
        let families: Vec<_> = lint(&inputs)
            .into_iter()
            .map(|finding| match finding.lint {
                Lint::OneFamily { family, .. } => family.to_string(),
                other => panic!("{rule}: {other}"),
            })
            .collect();
        assert_eq!(families.join(" "), want, "{rule}");
    }
}

#[test]
fn messages() {
    check(
        &[
            json!({"protocol": "ICMP", "icmp": {"type": 8}}),
            json!({"protocol": "ICMP", "icmp": {"type": 8, "code": 0}}),
            json!({"protocol": "ICMPv6", "icmp": {"type": 128}}),
            json!({"protocol": 1, "icmp": {"type": 8}}),
            json!({"protocol": 58, "notICMP": {"type": 128, "code": 1}}),
            json!({"protocol": "ICMP", "icmp": {"type": 3}, "notICMP": {"type": 3, "code": 4}}),
            json!({"protocol": "ICMP", "icmp": {}, "notICMP": {}}),
            json!({"notICMP": {"type": 8}}),
            json!({"notICMP": {"type": 8}, "ipVersion": 4}),
            json!({"notICMP": {"type": 8}, "notProtocol": "ICMP"}),
            json!({"notICMP": {"type": 8}, "source": {"nets": ["fd00::/8"]}}),
            json!({"notICMP": {"type": 8}, "notProtocol": "UDP"}),
            json!({"notICMP": {"type": 8}, "source": {"ports": ["http"]}}),
            json!({"notICMP": {"type": 8}, "source": {"notPorts": ["http"]}}),
            json!({"notICMP": {}}),
        ],
        expect![[r#"
            {"icmp":{"type":8},"protocol":"ICMP"}
                IPv4 ICMP of IPv4 type 8
            {"icmp":{"code":0,"type":8},"protocol":"ICMP"}
                IPv4 ICMP of IPv4 type 8 code 0
            {"icmp":{"type":128},"protocol":"ICMPv6"}
                IPv6 ICMP of IPv6 type 128
            {"icmp":{"type":8},"protocol":1}
                IPv4 ICMP of IPv4 type 8
            {"notICMP":{"code":1,"type":128},"protocol":58}
                IPv6 ICMP of IPv6 not type 128 code 1
            {"icmp":{"type":3},"notICMP":{"code":4,"type":3},"protocol":"ICMP"}
                IPv4 ICMP of IPv4 type 3 not type 3 code 4
            {"icmp":{},"notICMP":{},"protocol":"ICMP"}
                IPv4 ICMP
            {"notICMP":{"type":8}}
                IPv4 ICMP of IPv4 not type 8
                IPv6 ICMP of IPv6 not type 8
            {"ipVersion":4,"notICMP":{"type":8}}
                IPv4 ICMP of IPv4 not type 8
            {"notICMP":{"type":8},"notProtocol":"ICMP"}
                IPv6 ICMP of IPv6 not type 8
            {"notICMP":{"type":8},"source":{"nets":["fd00::/8"]}}
                IPv4 ICMP of IPv4 not type 8 from [fd00::/8]
                IPv6 ICMP of IPv6 not type 8 from [fd00::/8]
            {"notICMP":{"type":8},"notProtocol":"UDP"}
                IPv4 ICMP of IPv4 not type 8
                IPv6 ICMP of IPv6 not type 8
            {"notICMP":{"type":8},"source":{"ports":["http"]}}
                nothing
            {"notICMP":{"type":8},"source":{"notPorts":["http"]}}
                IPv4 ICMP of IPv4 not type 8
                IPv6 ICMP of IPv6 not type 8
            {"notICMP":{}}
                everything
        "#]],
    );
}

#[test]
fn ports() {
    check(
        &[
            json!({"protocol": "TCP", "destination": {"ports": [80, "443", "8080:8090", "http"]}}),
            json!({"protocol": "TCP", "destination": {"ports": [80, 80, "79:81"]}}),
            json!({"protocol": "UDP", "source": {"ports": [53]}, "destination": {"notPorts": [53, "dns"]}}),
            json!({"protocol": 132, "source": {"notPorts": ["1:1023"]}}),
            json!({"protocol": "TCP", "notProtocol": "UDP", "destination": {"ports": [80]}}),
            json!({"protocol": "TCP", "notProtocol": "TCP", "destination": {"ports": [80]}}),
            json!({"protocol": "TCP", "destination": {"ports": [], "notPorts": []}}),
            json!({"destination": {"ports": ["http"]}}),
            json!({"destination": {"ports": ["http"]}, "notProtocol": "UDP"}),
            json!({"destination": {"ports": ["http"]}, "notProtocol": "ICMP"}),
            json!({"destination": {"notPorts": ["http"]}}),
            json!({"destination": {"notPorts": ["http"]}, "notProtocol": "UDP"}),
            json!({"destination": {"notPorts": ["http"]}, "notProtocol": 47, "ipVersion": 6}),
            json!({"source": {"ports": ["http"]}, "destination": {"notPorts": ["http"]}}),
        ],
        expect![[r#"
            {"destination":{"ports":[80,"443","8080:8090","http"]},"protocol":"TCP"}
                TCP 80,443,8080-8090 `http`
            {"destination":{"ports":[80,80,"79:81"]},"protocol":"TCP"}
                TCP 79-81
            {"destination":{"notPorts":[53,"dns"]},"protocol":"UDP","source":{"ports":[53]}}
                UDP source 53 not 53 `dns`
            {"protocol":132,"source":{"notPorts":["1:1023"]}}
                SCTP source not 1-1023
            {"destination":{"ports":[80]},"notProtocol":"UDP","protocol":"TCP"}
                TCP 80
            {"destination":{"ports":[80]},"notProtocol":"TCP","protocol":"TCP"}
                nothing
            {"destination":{"notPorts":[],"ports":[]},"protocol":"TCP"}
                TCP
            {"destination":{"ports":["http"]}}
                TCP `http`
                UDP `http`
                SCTP `http`
            {"destination":{"ports":["http"]},"notProtocol":"UDP"}
                TCP `http`
                SCTP `http`
            {"destination":{"ports":["http"]},"notProtocol":"ICMP"}
                TCP `http`
                UDP `http`
                SCTP `http`
            {"destination":{"notPorts":["http"]}}
                TCP not `http`
                UDP not `http`
                SCTP not `http`
                not TCP UDP SCTP
            {"destination":{"notPorts":["http"]},"notProtocol":"UDP"}
                TCP not `http`
                SCTP not `http`
                not TCP UDP SCTP
            {"destination":{"notPorts":["http"]},"ipVersion":6,"notProtocol":47}
                IPv6 TCP not `http`
                IPv6 UDP not `http`
                IPv6 SCTP not `http`
                IPv6 not TCP UDP 47 SCTP
            {"destination":{"notPorts":["http"]},"source":{"ports":["http"]}}
                TCP source `http` not `http`
                UDP source `http` not `http`
                SCTP source `http` not `http`
        "#]],
    );
}

#[test]
fn requests() {
    check(
        &[
            json!({"http": {}}),
            json!({"http": {"methods": ["GET", "*"], "paths": [{"exact": "/a"}, {"prefix": "/b/"}]}}),
            json!({"http": {"methods": ["GET"]}, "notProtocol": "UDP"}),
            json!({"http": {"methods": ["GET"]}, "notProtocol": "TCP"}),
            json!({"http": {"methods": ["GET"]}, "destination": {"ports": ["http"]}}),
            json!({"http": {"methods": ["GET"]}, "destination": {"notPorts": ["http"]}}),
        ],
        expect![[r#"
            {"http":{}}
                TCP http
            {"http":{"methods":["GET","*"],"paths":[{"exact":"/a"},{"prefix":"/b/"}]}}
                TCP http * GET /a /b…
            {"http":{"methods":["GET"]},"notProtocol":"UDP"}
                TCP http GET
            {"http":{"methods":["GET"]},"notProtocol":"TCP"}
                nothing
            {"destination":{"ports":["http"]},"http":{"methods":["GET"]}}
                TCP `http` http GET
            {"destination":{"notPorts":["http"]},"http":{"methods":["GET"]}}
                TCP not `http` http GET
        "#]],
    );
}

#[test]
fn actions_and_names() {
    let spec = json!({"ingress": [
        {"action": "Log", "metadata": {"annotations": {"b": "2", "a": "x y"}}},
        {"action": "Pass", "metadata": {"annotations": {}}},
        {"action": "Deny", "destination": {"ports": ["http"]}, "metadata": {"annotations": {"Why": ""}}},
        {"action": "Allow", "metadata": {}},
    ]});
    expect![[r#"
        subject NS == "ns"
        ingress 0 `a=x y, b=2` Log everything
        ingress 1 Pass everything
        ingress 2 `Why=` Deny TCP `http`
        ingress 2 `Why=` Deny UDP `http`
        ingress 2 `Why=` Deny SCTP `http`
        ingress 3 Allow everything
    "#]]
    .assert_eq(&shown(&policy(Kind::NetworkPolicy, &spec)));
}

#[test]
fn directions() {
    let (rule, none) = (json!([{"action": "Allow"}]), json!([]));
    let mut text = String::new();
    for types in [
        json!(null),
        json!([]),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Egress", "Ingress"]),
    ] {
        for (ingress, egress) in [(&none, &none), (&rule, &none), (&none, &rule), (&rule, &rule)] {
            let spec = json!({"types": &types, "ingress": ingress, "egress": egress});
            let policy = policy(Kind::NetworkPolicy, &spec);
            let count =
                |rules: Option<&[_]>| rules.map_or("-".into(), |it| alloc::format!("{}", it.len()));
            text += &alloc::format!(
                "{types} with {} ingress {} egress: {} {}\n",
                ingress.as_array().unwrap().len(),
                egress.as_array().unwrap().len(),
                count(policy.ingress.as_deref()),
                count(policy.egress.as_deref()),
            );
        }
    }
    expect![[r#"
        null with 0 ingress 0 egress: 0 -
        null with 1 ingress 0 egress: 1 -
        null with 0 ingress 1 egress: - 1
        null with 1 ingress 1 egress: 1 1
        [] with 0 ingress 0 egress: 0 -
        [] with 1 ingress 0 egress: 1 -
        [] with 0 ingress 1 egress: - 1
        [] with 1 ingress 1 egress: 1 1
        ["Ingress"] with 0 ingress 0 egress: 0 -
        ["Ingress"] with 1 ingress 0 egress: 1 -
        ["Ingress"] with 0 ingress 1 egress: 0 -
        ["Ingress"] with 1 ingress 1 egress: 1 -
        ["Egress"] with 0 ingress 0 egress: - 0
        ["Egress"] with 1 ingress 0 egress: - 0
        ["Egress"] with 0 ingress 1 egress: - 1
        ["Egress"] with 1 ingress 1 egress: - 1
        ["Egress","Ingress"] with 0 ingress 0 egress: 0 0
        ["Egress","Ingress"] with 1 ingress 0 egress: 1 0
        ["Egress","Ingress"] with 0 ingress 1 egress: 0 1
        ["Egress","Ingress"] with 1 ingress 1 egress: 1 1
    "#]]
    .assert_eq(&text);
}

#[test]
fn tiers_and_orders() {
    for (spec, tier, order) in [
        (json!({}), "default", None),
        (json!({"tier": "", "order": null}), "default", None),
        (json!({"tier": "security", "order": 100}), "security", Some(100.0)),
        (json!({"tier": "kube-admin", "order": -1.5}), "kube-admin", Some(-1.5)),
    ] {
        let policy = policy(Kind::GlobalNetworkPolicy, &spec);
        assert_eq!((policy.tier.as_str(), policy.order.map(Order::value)), (tier, order));
    }
}

#[test]
fn traffic_of_hosts() {
    for (spec, want) in [
        (json!({}), HostTraffic::Local),
        (json!({"applyOnForward": false, "preDNAT": false}), HostTraffic::Local),
        (json!({"applyOnForward": true}), HostTraffic::LocalAndForwarded),
        (json!({"applyOnForward": true, "preDNAT": true}), HostTraffic::BeforeDestinationNat),
        (json!({"applyOnForward": true, "doNotTrack": true}), HostTraffic::Untracked),
    ] {
        assert_eq!(policy(Kind::GlobalNetworkPolicy, &spec).host_traffic, want, "{spec}");
    }
}

#[test]
fn what_calico_accepts_though_it_looks_wrong() {
    for rule in [
        json!({"action": "Allow", "protocol": "TCP", "notProtocol": "UDP"}),
        json!({"action": "Allow", "source": {"selector": "has(a)", "nets": ["10.0.0.0/8"]}}),
        json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"]}}),
        json!({"action": "Allow", "source": {"selector": "has(a)"}, "destination": {"selector": "has(b)"}}),
        json!({"action": "Allow"}),
        json!({"action": "Allow", "protocol": "TCP", "source": {"ports": [80, 80, "1:90", "80:100"]}}),
        json!({"action": "Pass"}),
        json!({"action": "Log"}),
    ] {
        for direction in ["ingress", "egress"] {
            for types in [json!(["Ingress"]), json!(["Egress"])] {
                let spec = json!({"types": types, "tier": "default", direction: [&rule]});
                policy(Kind::NetworkPolicy, &spec);
            }
        }
    }
}
