//! Services and slices.

use serde_json::{Value, json};

use super::objects::{check_refused, read};
use crate::api::Kind;
use crate::api::k8s::{EndpointSlice, Service};
use crate::model::{self, Inputs, NamedPort, Object, ServiceName, ServicePort};
use crate::net::Transport;

/// A Service as API servers return it.
fn full_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "1", "labels": {"app": "web"}},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "externalIPs": ["192.0.2.1"], "ipFamilies": ["IPv4", "IPv6"], "selector": {"app": "web"},
            "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30_080},
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353, "nodePort": 0},
                {"name": "dns-tcp", "port": 53},
            ],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1", "ports": []},
            {"ip": "198.51.100.2", "ipMode": "Proxy"},
            {"ip": "198.51.100.3", "ipMode": "VIP"},
            {"hostname": "lb.example.org"},
        ]}},
    })
}

/// A slice as API servers return it.
fn full_slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-x", "namespace": "shop", "generateName": "web-",
            "labels": {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "x"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "a", "zone": "z"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": false, "terminating": true}},
            {"addresses": ["10.0.0.1", "010.0.0.3"]},
        ],
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 8080, "appProtocol": "http"},
            {"name": "dns", "protocol": "UDP", "port": 5353},
            {"name": "any", "protocol": "SCTP"},
            {"port": 1},
        ],
    })
}

fn service(change: impl FnOnce(&mut Value)) -> Service {
    let mut json = full_service();
    change(&mut json);
    read(json)
}

fn slice(change: impl FnOnce(&mut Value)) -> EndpointSlice {
    let mut json = full_slice();
    change(&mut json);
    read(json)
}

#[test]
fn services_have_the_addresses_that_nodes_translate() {
    let port = |name: &str, transport, port, node_port| ServicePort {
        name: name.into(),
        transport,
        port,
        node_port,
    };
    let addresses = ["10.96.0.1", "fd00:96::1", "192.0.2.1", "198.51.100.1", "198.51.100.3"];
    let want = model::Service {
        name: ServiceName::new("shop", "web"),
        addresses: addresses.map(|it| it.parse().unwrap()).into(),
        ports: [
            port("http", Transport::Tcp, 80, Some(30_080)),
            port("dns", Transport::Udp, 53, None),
            port("dns-tcp", Transport::Tcp, 53, None),
        ]
        .into(),
    };
    assert_eq!(service(|_| {}).to_service(), Ok(Some(want)));
}

#[test]
fn services_without_an_address_of_their_own_are_translated_nowhere() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": ["192.0.2.1"], "ports": [{"port": 1}]}),
        json!({"clusterIP": "", "ports": [{"port": 1}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.1"}),
        json!({}),
        json!(null),
    ] {
        assert_eq!(service(|it| it["spec"] = spec.clone()).to_service(), Ok(None), "{spec}");
    }
}

#[test]
fn slices_list_every_endpoint_and_the_ports_with_numbers() {
    let port = |name: &str, transport, port| NamedPort { name: name.into(), transport, port };
    let want = model::EndpointSlice {
        name: "web-x".into(),
        service: ServiceName::new("shop", "web"),
        addresses: ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|it| it.parse().unwrap()).into(),
        ports: [
            port("http", Transport::Tcp, 8080),
            port("dns", Transport::Udp, 5353),
            port("", Transport::Tcp, 1),
        ]
        .into(),
    };
    assert_eq!(slice(|_| {}).to_slice(), Ok(Some(want)));
}

#[test]
fn slices_for_no_service_say_nothing() {
    for labels in [json!({}), json!({"kubernetes.io/service-name": ""}), json!(null)] {
        let slice = slice(|it| it["metadata"]["labels"] = labels);
        assert_eq!(slice.to_slice(), Ok(None));
    }
    let of_names = slice(|it| {
        it["addressType"] = json!("FQDN");
        it["endpoints"] = json!([{"addresses": ["example.org"]}]);
    });
    assert!(of_names.to_slice().unwrap().unwrap().addresses.is_empty());
    let bare = slice(|it| {
        it.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "endpoints" | "ports"));
    });
    let bare = bare.to_slice().unwrap().unwrap();
    assert!(bare.addresses.is_empty() && bare.ports.is_empty());
}

#[test]
fn all_that_is_wrong_with_a_service_is_said() {
    let bad = service(|it| {
        it["metadata"]["name"] = json!("a.b");
        it["spec"]["type"] = json!("Nodeport");
        it["spec"]["clusterIP"] = json!("10.96.0");
        it["spec"]["clusterIPs"] = json!(["none"]);
        it["spec"]["externalIPs"] = json!(["None", 1]);
        it["spec"]["ports"] = json!([
            {"name": "A", "port": 0}, {"port": 1, "protocol": "tcp"}, {"port": 1, "nodePort": 65_536},
            {"name": "b"}, {"name": "b", "port": 2}, {"name": "c", "port": 2},
        ]);
        it["status"]["loadBalancer"]["ingress"] = json!([{"ip": "x", "ipMode": "vip"}, []]);
    });
    check_refused(
        bad.to_service(),
        &[
            "metadata.name: `a.b` is not a name, expected at most 63 lower-case letters, digits and `-`, beginning and \
             ending with a letter or digit",
            "spec.type: `Nodeport` is not a type of Service, expected `ClusterIP`, `NodePort`, `LoadBalancer` or \
             `ExternalName`",
            "spec.clusterIP: `10.96.0` is not an address, expected one of IPv4 or IPv6",
            "spec.clusterIPs[0]: `none` is not an address, expected one of IPv4 or IPv6",
            "spec.externalIPs[0]: `None` is not an address, expected one of IPv4 or IPv6",
            "spec.externalIPs[1]: invalid type: integer `1`, expected a string",
            "spec.ports[0].name: `A` is not a name, expected at most 63 lower-case letters, digits and `-`, beginning \
             and ending with a letter or digit",
            "spec.ports[0].port: `0` is not a port, expected 1 to 65535",
            "spec.ports[1].protocol: `tcp` is not a protocol, expected `TCP`, `UDP` or `SCTP`",
            "spec.ports[2].name: two ports without a name",
            "spec.ports[2].nodePort: `65536` is not a port, expected 1 to 65535",
            "spec.ports[3].port: missing, expected a port, 1 to 65535",
            "spec.ports[4].name: `b` names two ports",
            "spec.ports[5].port: `2` is twice a port of one protocol",
            "status.loadBalancer.ingress[0].ip: `x` is not an address, expected one of IPv4 or IPv6",
            "status.loadBalancer.ingress[0].ipMode: `vip` is not a mode, expected `VIP` or `Proxy`",
            "status.loadBalancer.ingress[1]: invalid type: sequence, expected an object",
        ],
    );
}

#[test]
fn all_that_is_wrong_with_a_slice_is_said() {
    let bad = slice(|it| {
        it["kind"] = json!("Endpoints");
        it["endpoints"] = json!([{"addresses": ["fd00::1", "10.0.0"]}, {"addresses": 1}, 2]);
        it["ports"] = json!([{"name": "-", "port": 0, "protocol": "ICMP"}]);
    });
    check_refused(
        bad.to_slice(),
        &[
            "kind: `Endpoints` is another kind of object, expected `EndpointSlice`",
            "endpoints[0].addresses[0]: `fd00::1` is not an address, expected one of IPv4",
            "endpoints[0].addresses[1]: `10.0.0` is not an address, expected one of IPv4",
            "endpoints[1].addresses: invalid type: integer `1`, expected a sequence",
            "endpoints[2]: invalid type: integer `2`, expected an object",
            "ports[0].name: `-` is not a name, expected at most 63 lower-case letters, digits and `-`, beginning and \
             ending with a letter or digit",
            "ports[0].protocol: `ICMP` is not a protocol, expected `TCP`, `UDP` or `SCTP`",
            "ports[0].port: `0` is not a port, expected 1 to 65535",
        ],
    );
    for (kind, message) in [
        (json!("ipv4"), "`ipv4` is not a type of address, expected `IPv4`, `IPv6` or `FQDN`"),
        (json!(null), "missing, expected `IPv4`, `IPv6` or `FQDN`"),
    ] {
        let bad = slice(|it| it["addressType"] = kind);
        check_refused(bad.to_slice(), &[&*alloc::format!("addressType: {message}")]);
    }
    let addresses = core::iter::repeat_n(json!("10.0.0.1"), 101).collect::<Value>();
    let bad = slice(|it| it["endpoints"] = json!([{"addresses": addresses}]));
    check_refused(bad.to_slice(), &["endpoints[0].addresses: 101 entries, expected at most 100"]);
}

#[test]
fn keys_are_those_of_the_objects() {
    let mut inputs = Inputs::default();
    let (service, slice) = (service(|_| {}), slice(|_| {}));
    let objects: [Object; 2] =
        [service.to_service().unwrap().unwrap().into(), slice.to_slice().unwrap().unwrap().into()];
    let kinds = [(Kind::Service, "web"), (Kind::EndpointSlice, "web-x")];
    for ((kind, name), object) in kinds.into_iter().zip(objects) {
        let key = kind.object_key(Some("shop"), name).unwrap();
        assert_eq!(object.key(), key);
        assert_eq!(kind.object_key(None, name), None);
        inputs.upsert(object);
        assert!(inputs.remove(&key) && !inputs.remove(&key));
    }
    assert_eq!(inputs, Inputs::default());
}
