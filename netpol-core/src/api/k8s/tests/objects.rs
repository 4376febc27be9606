//! Namespaces, nodes, service accounts and pods.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::k8s::{ContainerPort, Namespace, Node, Phase, Pod, ServiceAccount};
use crate::api::{Document, Kind, Refused};
use crate::labels::Labels;
use crate::model::{Endpoint, EndpointId, Lifecycle, NamedPort, Object, Timestamp};
use crate::net::Transport;
use crate::verdict::Verdict;

pub(super) fn read<T: for<'de> Deserialize<'de>>(json: Value) -> T {
    serde_json::from_str(&json.to_string()).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

#[track_caller]
pub(super) fn check_refused<T>(got: Result<T, Refused>, want: &[&str]) {
    let got: Vec<_> = got.err().unwrap().diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(got, want);
}

/// A pod as API servers return it, with many fields that do not matter.
fn full_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "8d2e", "generateName": "web-", "resourceVersion": "5",
            "creationTimestamp": "2026-01-31T08:00:00Z", "annotations": {"a b": 1},
            "labels": {"app": "web", "pcns.team": "red", "pcsa.x": "y", "pcns": "z"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {".": {}}}}],
        },
        "spec": {
            "nodeName": "node-a", "serviceAccountName": "shopper", "serviceAccount": "shopper", "priority": 0,
            "initContainers": [
                {"name": "once", "ports": [{"name": "setup", "containerPort": 7}]},
                {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15_001}]},
            ],
            "containers": [
                {"name": "main", "image": "web", "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP", "hostPort": 80},
                    {"containerPort": 9090},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]},
                {"name": "other", "ports": [
                    {"name": "dns", "containerPort": 53},
                    {"name": "dns-tcp", "containerPort": 53, "protocol": ""},
                    {"name": "", "containerPort": 1},
                ]},
                {"name": "bare"},
            ],
        },
        "status": {
            "phase": "Running", "hostIP": "172.18.0.2", "podIP": "10.244.1.5",
            "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00:10:244:1::5"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut json = full_pod();
    change(&mut json);
    read(json)
}

fn endpoint(pod: &Pod) -> Endpoint {
    pod.to_endpoint().unwrap().unwrap()
}

#[test]
fn pods_are_endpoints() {
    let named = |name: &str, transport, port| NamedPort { name: name.into(), transport, port };
    let mut want =
        Endpoint::new(EndpointId::workload("shop", "web-0").with_uid("8d2e")).on_node("node-a");
    want.created = Timestamp(1_769_846_400);
    want.labels =
        labels(&[("app", "web"), ("k8s//pcns.team", "red"), ("k8s//pcsa.x", "y"), ("pcns", "z")]);
    want.service_account = Some("shopper".into());
    want.orchestrator = Some("k8s".into());
    want.addresses = ["10.244.1.5", "fd00:10:244:1::5"].map(|it| it.parse().unwrap()).into();
    want.ports = [
        named("dns", Transport::Tcp, 53),
        named("dns", Transport::Udp, 53),
        named("dns-tcp", Transport::Tcp, 53),
        named("http", Transport::Tcp, 8080),
        named("proxy", Transport::Tcp, 15_001),
        named("setup", Transport::Tcp, 7),
    ]
    .into();
    want.default_verdict = Verdict::Allow;
    assert_eq!(endpoint(&pod(|_| {})), want);
}

#[test]
fn pods_say_what_they_are_without_conversion() {
    let pod = pod(|_| {});
    assert_eq!(
        (pod.namespace(), pod.name(), pod.node_name()),
        (Some("shop"), Some("web-0"), Some("node-a"))
    );
    assert_eq!((pod.phase(), pod.is_on_host_network()), (Phase::Running, false));
    assert_eq!(pod.addresses().len(), 2);
    let port = |name: Option<&str>, transport, port| ContainerPort {
        name: name.map(Into::into),
        transport,
        port,
    };
    assert_eq!(
        pod.container_ports(),
        [
            port(Some("setup"), Transport::Tcp, 7),
            port(Some("proxy"), Transport::Tcp, 15_001),
            port(Some("http"), Transport::Tcp, 8080),
            port(None, Transport::Tcp, 9090),
            port(Some("dns"), Transport::Udp, 53),
            port(Some("dns"), Transport::Tcp, 53),
            port(Some("dns-tcp"), Transport::Tcp, 53),
            port(None, Transport::Tcp, 1),
        ]
    );
}

#[test]
fn a_pod_needs_only_its_name() {
    let pod: Pod = read(json!({"metadata": {"name": "a", "namespace": "x"}}));
    let mut want = Endpoint::new(EndpointId::workload("x", "a"));
    want.service_account = Some("default".into());
    want.orchestrator = Some("k8s".into());
    want.default_verdict = Verdict::Allow;
    assert_eq!(endpoint(&pod), want);
    assert_eq!(
        (pod.phase(), pod.node_name(), pod.is_on_host_network()),
        (Phase::Running, None, false)
    );
    let empty = json!({"nodeName": "", "serviceAccountName": "", "containers": []});
    let pod: Pod = read(
        json!({"metadata": {"name": "a", "namespace": "x"}, "spec": empty, "status": {"phase": ""}}),
    );
    assert_eq!(endpoint(&pod), want);
}

#[test]
fn the_old_name_of_the_service_account_counts() {
    let pod = pod(|json| {
        json["spec"].as_object_mut().unwrap().remove("serviceAccountName");
        json["spec"]["serviceAccount"] = "old".into();
    });
    assert_eq!(endpoint(&pod).service_account.as_deref(), Some("old"));
    let both = self::pod(|json| json["spec"]["serviceAccount"] = "old".into());
    assert_eq!(endpoint(&both).service_account.as_deref(), Some("shopper"), "the new one wins");
}

#[test]
fn pods_of_the_host_network_are_no_endpoints() {
    let pod = pod(|json| json["spec"]["hostNetwork"] = true.into());
    assert!(pod.is_on_host_network());
    assert_eq!(pod.to_endpoint(), Ok(None));
}

#[test]
fn phases() {
    for (phase, want, lifecycle, addresses) in [
        ("Pending", Phase::Pending, Lifecycle::Running, 0),
        ("Running", Phase::Running, Lifecycle::Running, 2),
        ("Unknown", Phase::Unknown, Lifecycle::Running, 2),
        ("Succeeded", Phase::Succeeded, Lifecycle::Finished, 2),
        ("Failed", Phase::Failed, Lifecycle::Finished, 2),
    ] {
        let pod = pod(|json| json["status"]["phase"] = phase.into());
        let endpoint = endpoint(&pod);
        assert_eq!(
            (endpoint.lifecycle, endpoint.addresses.len()),
            (lifecycle, addresses),
            "{phase}"
        );
        assert_eq!((pod.phase(), pod.addresses().len()), (want, 2), "{phase}");
    }
    check_refused(
        pod(|json| json["status"]["phase"] = "running".into()).to_endpoint(),
        &[
            "status.phase: `running` is not a phase, expected `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`",
        ],
    );
}

/// A pod that is asked to end runs on for a while, and policy with it.
#[test]
fn a_pod_that_terminates_counts_until_it_has_finished() {
    for (phase, lifecycle) in [("Running", Lifecycle::Running), ("Succeeded", Lifecycle::Finished)]
    {
        let pod = pod(|json| {
            json["metadata"]["deletionTimestamp"] = "2026-01-31T09:00:00Z".into();
            json["metadata"]["deletionGracePeriodSeconds"] = 30.into();
            json["status"]["phase"] = phase.into();
        });
        let endpoint = endpoint(&pod);
        assert_eq!((endpoint.lifecycle, endpoint.addresses.len()), (lifecycle, 2), "{phase}");
    }
}

/// While init containers run, a pod is `Pending` and yet sends.
#[test]
fn a_pending_pod_with_a_network_owns_its_addresses() {
    for (status, addresses) in [("True", 2), ("False", 0)] {
        let pod = pod(|json| {
            json["status"]["phase"] = "Pending".into();
            json["status"]["conditions"] =
                json!([{"type": "PodReadyToStartContainers", "status": status}]);
        });
        assert_eq!(endpoint(&pod).addresses.len(), addresses, "{status}");
    }
}

#[test]
fn addresses_count_once() {
    let pod = pod(|json| {
        json["status"]["podIPs"] =
            json!([{"ip": "010.244.1.5"}, {"ip": "10.244.1.5"}, {"ip": "::ffff:10.244.1.6"}]);
        json["status"]["podIP"] = "10.244.1.7".into();
    });
    let addresses: Vec<_> = endpoint(&pod).addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.5", "10.244.1.6", "10.244.1.7"]);
}

#[test]
fn what_is_wrong_with_a_pod_is_said_at_once() {
    let name = "expected at most 15 lower-case letters, digits and single `-` between them, at least one of them a letter";
    let pod = pod(|json| {
        json["kind"] = "Service".into();
        json["metadata"]["creationTimestamp"] = "yesterday".into();
        json["metadata"]["labels"] = json!({"a": 1});
        json["spec"]["hostNetwork"] = "yes".into();
        json["spec"]["initContainers"] = json!([{"ports": [{"containerPort": 0}]}]);
        json["spec"]["containers"] = json!([
            {"ports": [
                {"name": "a", "containerPort": 1},
                {"name": "a", "containerPort": 2, "protocol": "UDP"},
                {"name": "A", "containerPort": 65_536, "protocol": "tcp"},
                {},
                7,
            ]},
            {"ports": {}},
        ]);
        json["status"]["podIPs"] = json!([{"ip": "10.244.1"}, {}]);
        json["status"]["podIP"] = "host".into();
    });
    check_refused(
        pod.to_endpoint(),
        &[
            "kind: `Service` is another kind of object, expected `Pod`",
            "metadata.creationTimestamp: `yesterday` is not a time, expected one such as `2026-01-31T08:00:00Z`",
            "metadata.labels.a: invalid type: integer `1`, expected a string",
            "spec.hostNetwork: invalid type: string \"yes\", expected a boolean",
            "spec.initContainers[0].ports[0].containerPort: `0` is not a port, expected 1 to 65535",
            "spec.containers[0].ports[1].name: `a` names two ports of one container",
            &alloc::format!("spec.containers[0].ports[2].name: `A` is not a port name, {name}"),
            "spec.containers[0].ports[2].protocol: `tcp` is not a protocol, expected `TCP`, `UDP` or `SCTP`",
            "spec.containers[0].ports[2].containerPort: `65536` is not a port, expected 1 to 65535",
            "spec.containers[0].ports[3].containerPort: missing, expected a port, 1 to 65535",
            "spec.containers[0].ports[4]: invalid type: integer `7`, expected an object",
            "spec.containers[1].ports: invalid type: map, expected a sequence",
            "status.podIPs[0].ip: `10.244.1` is not an address, expected one of IPv4 or IPv6",
            "status.podIPs[1].ip: missing, expected an address",
            "status.podIP: `host` is not an address, expected one of IPv4 or IPv6",
        ],
    );
    assert_eq!(pod.container_ports().len(), 2, "those that can be read");
}

#[test]
fn namespaces_carry_their_name() {
    for given in [json!({}), json!({"kubernetes.io/metadata.name": "other"}), json!(null)] {
        let namespace: Namespace = read(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": given},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        }));
        let labels = labels(&[("kubernetes.io/metadata.name", "shop")]);
        assert_eq!(namespace.to_object(), Ok(Object::Namespace { name: "shop".into(), labels }));
    }
    let bad: Namespace = read(json!({"metadata": {"name": "a.b"}}));
    check_refused(
        bad.to_object(),
        &["metadata.name: `a.b` is not a name, expected at most 63 lower-case letters, \
         digits and `-`, beginning and ending with a letter or digit"],
    );
}

#[test]
fn nodes_have_labels_and_addresses() {
    let node: Node = read(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-a.example", "labels": {"zone": "a"}},
        "spec": {"podCIDR": "10.244.0.0/24"},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "Hostname", "address": "10.0.0.1"},
                {"type": "ExternalIP", "address": "2001:db8::2"},
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "InternalIP", "address": "unknown"},
                {"type": "InternalDNS", "address": "node-a"},
            ],
            "nodeInfo": {"architecture": "amd64"},
        },
    }));
    assert_eq!(
        node.to_node().unwrap(),
        crate::model::Node {
            name: "node-a.example".into(),
            labels: labels(&[("zone", "a")]),
            addresses: ["172.18.0.2", "10.0.0.1", "2001:db8::2"]
                .map(|it| it.parse().unwrap())
                .into(),
            ..Default::default()
        }
    );
    let bad: Node = read(json!({"metadata": {"name": "N"}, "status": {"addresses": [1]}}));
    check_refused(
        bad.to_node(),
        &[
            "metadata.name: `N` is not a name, expected at most 253 lower-case letters, digits, `-` and `.`, each part \
         beginning and ending with a letter or digit",
            "status.addresses[0]: invalid type: integer `1`, expected an object",
        ],
    );
}

#[test]
fn service_accounts_have_labels() {
    let account: ServiceAccount = read(json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "shopper", "namespace": "shop", "labels": {"role": "buyer"}},
        "secrets": [{"name": "token"}], "automountServiceAccountToken": false,
    }));
    assert_eq!(
        account.to_object(),
        Ok(Object::ServiceAccount {
            namespace: "shop".into(),
            name: "shopper".into(),
            labels: labels(&[("role", "buyer")]),
        })
    );
    let bad: ServiceAccount = read(json!({"metadata": {"name": "shopper"}}));
    check_refused(
        bad.to_object(),
        &["metadata.namespace: missing, expected the name of a namespace"],
    );
}

#[test]
fn kinds_are_recognised_by_version_and_name() {
    for &kind in Kind::ALL {
        assert_eq!(Kind::recognise(kind.api_version(), kind.as_str()), Some(kind));
        assert_eq!(Kind::recognise("example.com/v1", kind.as_str()), None);
        let json = json!({
            "apiVersion": kind.api_version(), "kind": kind.as_str(),
            "metadata": {"name": "a", "namespace": "x"},
        });
        let document = Document::read(kind, &json).unwrap();
        let namespace = kind.is_namespaced().then_some("x");
        assert_eq!((document.name(), document.namespace()), (Some("a"), namespace), "{kind}");
    }
    assert_eq!(Kind::recognise("networking.k8s.io/v1beta1", "NetworkPolicy"), None);
}

#[test]
fn what_is_no_object_is_the_readers_error() {
    for &kind in Kind::ALL {
        for json in [json!([]), json!("x"), json!(null), json!(5)] {
            assert!(Document::read(kind, &json).is_err(), "{kind} {json}");
        }
    }
}
