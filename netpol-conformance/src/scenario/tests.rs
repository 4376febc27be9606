//! How files become plans.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::path::Path;

use netpol_core::model::{Lifecycle, Object};
use netpol_core::net::Protocol;
use netpol_core::{Flow, Origin, Payload, Verdict};

use super::*;
use crate::cluster::{Pod, PodNetwork};
use crate::topology::Host;

const HEAD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: z}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: Hostname, address: n2}, \
    {type: ExternalIP, address: 192.0.2.77}, {type: InternalIP, address: 172.18.0.3}]}}
";

const SCENARIO: &str = "---\napiVersion: netpol.dev/v1\nkind: Scenario\nmetadata: {name: s}\nspec: {requires: [np], steps: [";

fn pod(name: &str, ports: &str, more: &str) -> String {
    let spec = format!("containers: [{{name: main, ports: [{ports}]}}]");
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: x}}, spec: {{{spec}}}{more}}}"
    )
}

fn status(ips: &str) -> String {
    format!(", status: {{podIPs: [{ips}]}}")
}

fn load(pods: &[String], steps: &str) -> Result<Plan, ScenarioError> {
    let pods: String = pods.iter().map(|pod| format!("---\n{pod}\n")).collect();
    match parse(Path::new("s.yaml"), &format!("{HEAD}{pods}{SCENARIO}{steps}]}}"))? {
        Scenario::Plan(plan) => Ok(plan),
        Scenario::Skipped(skipped) => panic!("{}", skipped.reason),
    }
}

fn pod_at<'a>(plan: &'a Plan, step: usize, name: &str) -> &'a Pod {
    &plan.steps[step].cluster.pods()[&format!("x/{name}")]
}

const HTTP: &str = "{containerPort: 80}";

#[test]
fn a_pod_with_new_labels_is_the_same_pod() {
    let relabelled =
        pod("a", HTTP, "").replace("namespace: x}", "namespace: x, labels: {new: yes1}}");
    let steps = format!("{{name: one}}, {{name: two, apply: [{relabelled}]}}");
    let plan = load(&[pod("a", HTTP, "")], &steps).unwrap();
    let (before, after) = (pod_at(&plan, 0, "a"), pod_at(&plan, 1, "a"));
    assert_eq!((before.incarnation, &before.network), (after.incarnation, &after.network));
}

#[test]
fn a_pod_with_new_ports_addresses_or_account_is_another_pod() {
    let account = pod("a", HTTP, "").replace("spec: {", "spec: {serviceAccountName: other, ");
    for next in [
        pod("a", "{containerPort: 81}", ""),
        pod("a", "{containerPort: 80, name: http}", ""),
        pod("a", HTTP, &status("{ip: 10.244.9.9}")),
        account,
    ] {
        let steps = format!("{{name: one}}, {{name: two, apply: [{next}]}}");
        let plan = load(&[pod("a", HTTP, "")], &steps).unwrap();
        let (before, after) = (pod_at(&plan, 0, "a"), pod_at(&plan, 1, "a"));
        assert_ne!(before.incarnation, after.incarnation, "{next}");
        assert_ne!(before.network, after.network, "{next}");
    }
}

#[test]
fn a_pod_is_read_as_its_api_reads_it() {
    let pod = pod("a", HTTP, ", status: {phase: '', podIPs: null}").replace(
        "spec: {",
        "spec: {hostNetwork: null, nodeName: '', initContainers: [{name: i, restartPolicy: Always, \
         ports: [{containerPort: 90}]}], ",
    );
    let plan = load(&[pod], "{name: one}").unwrap();
    let pod = pod_at(&plan, 0, "a");
    assert_eq!((pod.node.as_str(), pod.own_addresses().len()), ("n2", 1));
    let ports: Vec<_> = pod.ports.iter().map(|(_, port)| *port).collect();
    assert_eq!(ports, [80, 90]);
}

#[test]
fn a_node_has_an_address_of_each_family() {
    let six = pod("a", HTTP, &status("{ip: 'fd00:10:244::1'}"));
    let plan = load(
        &[six],
        "{name: one, probes: [{from: 'node:n2', to: x/a, protocol: TCP, port: 80, expect: allow}]}",
    );
    let plan = plan.unwrap();
    let flow = plan.steps[0].attempts[0].flow;
    assert!(flow.source.is_ipv6());
    assert_eq!(flow.origin, Origin::OwnNode);
    // What its object does not list, no policy knows.
    let listed = plan.steps[0].cluster.model().into_values().find_map(|object| match object {
        Object::Node(node) => Some(node.addresses.clone()),
        _ => None,
    });
    assert!(!listed.unwrap().contains(&flow.source));
}

#[test]
fn a_node_can_be_replaced() {
    let node = |addresses: &str| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n2}}, status: {{addresses: [{addresses}]}}}}"
        )
    };
    let steps = format!(
        "{{name: one}}, {{name: moved, apply: [{}]}}, {{name: back, apply: [{}]}}",
        node("{type: InternalIP, address: 172.18.0.9}"),
        node(""),
    );
    let plan = load(&[pod("a", HTTP, "")], &steps).unwrap();
    let first = |step: usize| plan.steps[step].cluster.nodes()["n2"].addresses[0].to_string();
    assert_eq!((first(0), first(1)), ("192.0.2.77".to_owned(), "172.18.0.9".to_owned()));
    assert!(first(2).starts_with("172.18.0.1"));
}

#[test]
fn a_pod_that_finishes_leaves_its_address_to_others() {
    let address = status("{ip: 10.244.1.1}");
    let finished = pod("a", HTTP, ", status: {phase: Succeeded, podIPs: [{ip: 10.244.1.1}]}");
    let pending = pod("c", HTTP, ", status: {phase: Pending, podIPs: [{ip: 10.244.1.1}]}");
    let next = pod("b", HTTP, &address);
    let plan = load(
        &[pod("a", HTTP, &address)],
        &format!("{{name: one, apply: [{finished}, {next}, {pending}]}}"),
    );
    let plan = plan.unwrap();
    assert_eq!(pod_at(&plan, 0, "a").network, PodNetwork::None);
    let cluster = &plan.steps[0].cluster;
    assert_eq!(cluster.owner("10.244.1.1".parse().unwrap()), Some(Host::Pod("x/b".into())));
    let running_with_it = cluster.model().into_values().filter(|object| match object {
        Object::Endpoint(it) => it.lifecycle == Lifecycle::Running && !it.addresses.is_empty(),
        _ => false,
    });
    assert_eq!(running_with_it.count(), 1);
}

#[test]
fn two_running_pods_cannot_share_an_address() {
    let address = status("{ip: 10.244.1.1}");
    let error =
        load(&[pod("a", HTTP, &address), pod("b", HTTP, &address)], "{name: one}").unwrap_err();
    assert!(matches!(error.problem, Problem::SharedAddress { .. }), "{error}");
}

#[test]
fn only_pods_send_in_the_name_of_others_and_only_what_nobody_answers() {
    let probe = |fields: &str| {
        let probe = format!("{{name: one, probes: [{{to: x/b, expect: deny, {fields}}}]}}");
        load(&[pod("a", HTTP, ""), pod("b", HTTP, "")], &probe)
    };
    let plan = probe("from: x/a, protocol: 253, sourceAddress: 192.0.2.1").unwrap();
    let attempt = &plan.steps[0].attempts[0];
    assert_eq!(attempt.flow.source.to_string(), "192.0.2.1");
    assert!(attempt.to_string().ends_with("253 in the name of 192.0.2.1"), "{attempt}");
    for fields in [
        "from: 'node:n2', protocol: 253, sourceAddress: 192.0.2.1",
        "from: 192.0.2.2, protocol: 253, sourceAddress: 192.0.2.1",
        "from: x/a, protocol: 253, sourceAddress: 'fd00::1'",
        "from: x/a, protocol: ICMP, sourceAddress: 192.0.2.1",
        "from: x/a, protocol: UDP, port: 80, sourceAddress: 192.0.2.1",
    ] {
        let error = probe(fields).unwrap_err();
        assert!(matches!(error.problem, Problem::Forged(_)), "{fields}: {error}");
    }
}

fn machine(more: &str) -> String {
    format!(
        "{{apiVersion: netpol.dev/v1, kind: VirtualMachine, metadata: {{name: a, namespace: x}}{more}}}"
    )
}

#[test]
fn a_virtual_machine_has_a_network_as_a_pod_has_and_denies_by_default() {
    let spec = ", spec: {serviceAccountName: s, ports: [{name: sql, port: 5432}, {protocol: UDP, port: 53}]}";
    let again = spec.replace("5432", "5433");
    let steps = format!("{{name: one}}, {{name: two, apply: [{}]}}", machine(&again));
    let plan = load(&[machine(spec)], &steps).unwrap();
    let inputs = plan.steps[0].cluster.inputs();
    let endpoint = inputs.endpoints().next().unwrap();
    let it = pod_at(&plan, 0, "a");
    assert_eq!((endpoint.addresses.as_slice(), it.node.as_str()), (it.own_addresses(), "n2"));
    assert_eq!((endpoint.default_verdict, &endpoint.orchestrator), (Verdict::Deny, &None));
    assert_eq!(endpoint.service_account.as_deref(), Some("s"));
    assert_eq!((endpoint.ports.len(), it.ports.len()), (1, 2));
    assert_ne!(it.incarnation, pod_at(&plan, 1, "a").incarnation);
}

#[test]
fn what_is_wrong_with_a_virtual_machine_is_found() {
    for (more, path) in [
        (", spec: {ports: [{port: 0}]}", "spec.ports[0].port"),
        (", spec: {addresses: [10.0.0.0/8]}", "spec.addresses[0]"),
        (", spec: {image: debian}", "spec.image"),
    ] {
        let error = load(&[machine(more)], "{name: one}").unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
    let error = load(&[pod("a", HTTP, ""), machine("")], "{name: one}").unwrap_err();
    assert!(matches!(error.problem, Problem::SharedName { .. }), "{error}");
}

#[test]
fn pods_without_addresses_get_free_ones() {
    let plan = load(
        &[pod("a", HTTP, ""), pod("b", HTTP, "")],
        "{name: one, probes: [{from: 10.244.200.1, to: x/a, protocol: TCP, port: 80, expect: allow}]}",
    );
    let plan = plan.unwrap();
    let addresses: Vec<_> =
        ["a", "b"].iter().flat_map(|it| pod_at(&plan, 0, it).own_addresses()).collect();
    assert_eq!(addresses.len(), 2);
    assert!(addresses[0] != addresses[1] && !addresses.contains(&&"10.244.200.1".parse().unwrap()));
}

#[test]
fn host_network_pods_are_their_node() {
    let host = pod("h", HTTP, "").replace("spec: {", "spec: {hostNetwork: true, nodeName: n2, ");
    let plan = load(
        &[host, pod("a", HTTP, "")],
        "{name: one, probes: [{from: x/h, to: x/a, protocol: TCP, port: 80, expect: allow}, \
         {from: x/a, to: x/h, protocol: TCP, port: 80, expect: allow}], \
         matrix: {protocol: TCP, port: 80, default: allow}}",
    );
    let plan = plan.unwrap();
    let [from_host, to_host] = plan.steps[0].attempts.as_slice() else {
        panic!("the matrix has no pairs")
    };
    assert_eq!(from_host.source, Host::Node("n2".into()));
    assert_eq!(from_host.flow.origin, Origin::OwnNode);
    assert_eq!(to_host.direct(), Some(&Host::Node("n2".into())));
    assert_eq!(to_host.flow.destination, "192.0.2.77".parse::<std::net::IpAddr>().unwrap());
}

#[test]
fn only_the_own_node_is_the_own_node() {
    let elsewhere = pod("b", HTTP, "").replace("spec: {", "spec: {nodeName: n9, ");
    let plan = load(
        &[pod("a", HTTP, ""), elsewhere],
        "{name: one, probes: [{from: 'node:n2', to: x/a, protocol: TCP, port: 80, expect: allow}, \
         {from: 'node:n2', to: x/b, protocol: TCP, port: 80, expect: allow}]}",
    );
    let origins: Vec<_> = plan.unwrap().steps[0].attempts.iter().map(|it| it.flow.origin).collect();
    assert_eq!(origins, [Origin::OwnNode, Origin::Endpoint]);
}

#[test]
fn the_family_is_that_of_the_other_address() {
    let both = status("{ip: 10.244.1.1}, {ip: 'fd00:10:244::1'}");
    let plan = load(
        &[pod("a", HTTP, &both), pod("b", HTTP, "")],
        "{name: one, probes: [{from: '2001:db8::1', to: x/a, protocol: TCP, port: 80, expect: allow}, \
         {from: x/b, to: x/a, protocol: TCP, port: 80, expect: allow}, \
         {from: x/a, to: '2001:db8::1', protocol: ICMP, expect: allow}]}",
    );
    let plan = plan.unwrap();
    let flows: Vec<_> =
        plan.steps[0].attempts.iter().map(|it| (it.flow.source, it.flow.destination)).collect();
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    assert_eq!(flows[0], (ip("2001:db8::1"), ip("fd00:10:244::1")));
    assert_eq!(flows[1].1, ip("10.244.1.1"));
    assert_eq!(flows[2], (ip("fd00:10:244::1"), ip("2001:db8::1")));
    let error = load(
        &[pod("b", HTTP, "")],
        "{name: one, probes: [{from: x/b, to: '2001:db8::1', protocol: ICMP, expect: allow}]}",
    );
    assert!(matches!(error.unwrap_err().problem, Problem::Family { .. }));
}

#[test]
fn a_matrix_has_every_pair_of_which_the_second_declares_the_port() {
    let sctp = "{containerPort: 80, protocol: SCTP}";
    let finished = pod("d", HTTP, ", status: {phase: Failed}");
    let plan = load(
        &[pod("a", HTTP, ""), pod("b", HTTP, ""), pod("c", sctp, ""), finished],
        "{name: one, matrix: {protocol: TCP, port: 80, default: deny, allow: ['x/c -> *', '* -> x/b']}}",
    );
    let plan = plan.unwrap();
    let pairs =
        plan.steps[0].attempts.iter().map(|it| (it.from.as_str(), it.to.as_str(), it.expect));
    let pairs: Vec<_> = pairs.collect();
    assert_eq!(
        pairs,
        [
            ("x/a", "x/b", Verdict::Allow),
            ("x/b", "x/a", Verdict::Deny),
            ("x/c", "x/a", Verdict::Allow),
            ("x/c", "x/b", Verdict::Allow),
        ]
    );
}

#[test]
fn deleting_a_namespace_deletes_what_is_in_it() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, \
                  spec: {podSelector: {}}}";
    let again = "{apiVersion: v1, kind: Namespace, metadata: {name: x}}";
    let steps = format!(
        "{{name: one, apply: [{policy}]}}, {{name: two, delete: [{{kind: Namespace, name: x}}]}}, \
         {{name: three, delete: [{{kind: Namespace, name: z}}], apply: [{again}]}}"
    );
    let plan = load(&[pod("a", HTTP, "")], &steps).unwrap();
    assert_eq!(plan.steps[0].cluster.model().len(), 5);
    for step in &plan.steps[1..] {
        assert!(step.cluster.pods().is_empty());
        assert_eq!(step.cluster.model().len(), 2, "a namespace and a node");
    }
}

#[test]
fn a_step_looks_at_the_last_version_of_an_object() {
    let policy = |selector: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, \
             spec: {{podSelector: {selector}}}}}"
        )
    };
    let steps = format!(
        "{{name: one, apply: [{}, {}], matrix: {{protocol: TCP, port: 80, default: allow}}}}",
        policy("{}"),
        policy("{matchLabels: {no: pod}}"),
    );
    let plan = load(&[pod("a", HTTP, ""), pod("b", HTTP, "")], &steps).unwrap();
    let step = &plan.steps[0];
    assert!(step.attempts.iter().all(|it| step.evaluate(it).enforced.verdict() == Verdict::Allow));
}

/// As [`load`], with other features than `np`.
fn load_with(requires: &str, pods: &[String], steps: &str) -> Result<Scenario, ScenarioError> {
    let pods: String = pods.iter().map(|pod| format!("---\n{pod}\n")).collect();
    let scenario = SCENARIO.replace("[np]", requires);
    parse(Path::new("s.yaml"), &format!("{HEAD}{pods}{scenario}{steps}]}}"))
}

fn calico(kind: &str, name: &str, spec: &str) -> String {
    let namespace = if kind == "NetworkPolicy" { ", namespace: x" } else { "" };
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}{namespace}}}, spec: {spec}}}"
    )
}

#[test]
fn objects_of_a_step_come_in_any_order() {
    let policy = calico("NetworkPolicy", "t.p", "{tier: t, selector: all()}")
        .replace("namespace: x", "namespace: late");
    let steps = format!(
        "{{name: one, apply: [{policy}, {}, {}, {{apiVersion: v1, kind: Namespace, metadata: {{name: late}}}}]}}",
        pod("a", HTTP, "").replace("namespace: x", "namespace: late"),
        calico("Tier", "t", "{order: 1}"),
    );
    assert_eq!(load(&[], &steps).unwrap().steps[0].cluster.pods().len(), 1);
    let error = load(&[], "{name: one, delete: [{kind: Namespace, name: x}]}, {name: two}");
    assert!(error.is_ok(), "a namespace without anything");
    let gone = format!(
        "{{name: one, delete: [{{kind: Namespace, name: x}}], apply: [{}]}}",
        pod("a", HTTP, "")
    );
    let error = load(&[], &gone).unwrap_err();
    assert!(matches!(error.problem, Problem::NoNamespace { .. }), "{error}");
}

#[test]
fn the_group_tells_policies_of_one_name_apart() {
    let kubernetes = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, \
                      spec: {podSelector: {}}}";
    let apply = format!(
        "{{name: one, apply: [{kubernetes}, {}]}}",
        calico("NetworkPolicy", "p", "{selector: all()}")
    );
    let delete = |group: &str| {
        let entry = format!("{{{group}kind: NetworkPolicy, namespace: x, name: p}}");
        load(&[], &format!("{apply}, {{name: two, delete: [{entry}]}}"))
    };
    assert!(matches!(delete("").unwrap_err().problem, Problem::Ambiguous(_)));
    for (group, left) in [
        ("projectcalico.org/v3", "KubernetesNetworkPolicy x/p"),
        ("networking.k8s.io/v1", "NetworkPolicy x/p"),
    ] {
        let plan = delete(&format!("apiVersion: {group}, ")).unwrap();
        let policies: Vec<_> = plan.steps[1]
            .cluster
            .model()
            .into_values()
            .filter_map(|object| match object {
                Object::Policy(policy) => Some(policy.key.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(policies, [left]);
    }
}

#[test]
fn what_is_deleted_and_applied_in_one_step_is_new() {
    let steps = format!(
        "{{name: one}}, {{name: two, delete: [{{kind: Pod, namespace: x, name: a}}], apply: [{}]}}",
        pod("a", HTTP, "")
    );
    let plan = load(&[pod("a", HTTP, "")], &steps).unwrap();
    assert_ne!(pod_at(&plan, 0, "a").incarnation, pod_at(&plan, 1, "a").incarnation);
}

#[test]
fn a_pod_without_account_has_the_default_one() {
    let named = pod("a", HTTP, "").replace("spec: {", "spec: {serviceAccountName: default, ");
    let steps = format!("{{name: one}}, {{name: two, apply: [{named}]}}");
    let plan = load(&[pod("a", HTTP, "")], &steps).unwrap();
    assert_eq!(pod_at(&plan, 0, "a").incarnation, pod_at(&plan, 1, "a").incarnation);
}

#[test]
fn what_no_api_knows_is_degraded_only_where_a_file_says_so() {
    let policy = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}, \
                  spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, \
                  ingress: [{action: Deny, from: [{telepathy: {}}]}]}}";
    let steps = format!(
        "{{name: one, apply: [{policy}], probes: [{{from: 192.0.2.1, to: x/a, protocol: TCP, port: 80, expect: deny}}]}}"
    );
    let load = |requires| load_with(requires, &[pod("a", HTTP, "")], &steps);
    assert!(matches!(load("[cnp]").unwrap_err().problem, Problem::Refused { .. }));
    let Scenario::Plan(plan) = load("[cnp, cnp-unknown-field]").unwrap() else {
        panic!("nothing is missing")
    };
    let step = &plan.steps[0];
    assert_eq!(step.evaluate(&step.attempts[0]).enforced.verdict(), Verdict::Deny);
}

#[test]
fn features_that_are_missing_are_visible_skips() {
    for feature in ["time-travel", "host-endpoint"] {
        let Scenario::Skipped(skipped) =
            load_with(&format!("[calico, {feature}]"), &[], "{name: one}").unwrap()
        else {
            panic!("`{feature}` is not missing")
        };
        assert!(skipped.reason.contains(&format!("`{feature}`")), "{}", skipped.reason);
    }
}

/// A node has its interface whether or not it is declared; a host endpoint that names none is a peer, unless the scenario
/// says that it knows interfaces.
#[test]
fn host_endpoints_are_of_nodes_with_interfaces() {
    const HOST: &str = "apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}";
    let pods = [pod("a", HTTP, "").replace("spec: {", "spec: {nodeName: n9, ")];
    for (requires, spec, node) in [
        ("[]", "{node: n9, interfaceName: '*'}", Some("n9")),
        ("[]", "{node: n9, interfaceName: eth0}", Some("n9")),
        ("[]", "{node: n9, expectedIPs: [172.18.0.9]}", None),
        ("[host-interfaces]", "{node: n9, expectedIPs: [172.18.0.9]}", Some("n9")),
        ("[]", "{node: n2, interfaceName: '*'}", Some("n2")),
    ] {
        let step = format!("{{name: one, apply: [{{{HOST}, spec: {spec}}}]}}");
        let Scenario::Plan(plan) = load_with(requires, &pods, &step).unwrap() else {
            panic!("nothing is missing")
        };
        let cluster = &plan.steps[0].cluster;
        let mut declared = Vec::new();
        for object in cluster.model().into_values() {
            match object {
                Object::Endpoint(it) if it.id.name == "h" => assert_eq!(it.node.as_deref(), node),
                Object::Node(it) => {
                    let [interface] = it.interfaces.as_slice() else { panic!("{it:?}") };
                    assert_eq!(interface.addresses, cluster.nodes()[&it.name].addresses);
                    declared.push(it.name.as_str());
                }
                _ => {}
            }
        }
        let is_implied = node == Some("n9");
        assert_eq!(declared, if is_implied { vec!["n2", "n9"] } else { vec!["n2"] }, "{spec}");
    }
}

#[test]
fn probes_say_from_which_port_with_which_message_and_protocol() {
    let probe = |what: &str| {
        let steps =
            format!("{{name: one, probes: [{{from: 192.0.2.1, to: x/a, {what}, expect: allow}}]}}");
        load(&[pod("a", HTTP, "")], &steps).map(|plan| plan.steps[0].attempts[0].clone())
    };
    let ports = |source, destination| Payload::Ports {
        transport: netpol_core::net::Transport::Tcp,
        source,
        destination,
    };
    for (what, payload, details) in [
        ("protocol: TCP, port: 80", ports(Flow::EPHEMERAL, 80), ""),
        ("protocol: TCP, port: 80, sourcePort: 5", ports(5, 80), " from port 5"),
        ("protocol: ICMP", Payload::Icmp { kind: 8, code: 0 }, ""),
        (
            "protocol: ICMP, icmp: {type: 13, code: 1}",
            Payload::Icmp { kind: 13, code: 1 },
            " type 13 code 1",
        ),
        ("protocol: 253", Payload::Other(Protocol::new(253)), ""),
        (
            "protocol: TCP, port: 80, http: {method: GET, path: /a}",
            ports(Flow::EPHEMERAL, 80),
            " GET /a",
        ),
    ] {
        let attempt = probe(what).unwrap();
        assert_eq!((attempt.flow.payload, attempt.details().as_str()), (payload, details));
    }
    for wrong in [
        "protocol: 6, port: 80",
        "protocol: 255",
        "protocol: 256",
        "protocol: 253, port: 1",
        "protocol: ICMP, sourcePort: 1",
        "protocol: TCP, port: 80, icmp: {type: 8}",
        "protocol: ICMP, icmp: {code: 8}",
        "protocol: UDP, port: 80, http: {method: GET, path: /a}",
        "protocol: TCP, port: 80, reasons: {ingress: because}",
        "protocol: TCP, port: 80, pending: maybe",
    ] {
        assert!(probe(wrong).is_err(), "{wrong}");
    }
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: x}, spec: {clusterIP: 10.96.0.1, \
    selector: {app: a}, ports: [{name: web, port: 80, targetPort: http}, {name: dns, port: 53, nodePort: 30053}]}}";

/// A pod that the Service selects, with two ports.
fn backend(name: &str, http: u16, more: &str) -> String {
    let ports = format!("{{name: http, containerPort: {http}}}, {{containerPort: 53}}");
    pod(name, &ports, more).replace("namespace: x}", "namespace: x, labels: {app: a}}")
}

/// Returns who receives a probe of a port, as `HOST PORT`.
fn receivers(pods: &[String], apply: &str, to: &str, port: u16) -> Result<Vec<String>, Problem> {
    let apply = format!("{SERVICE}{apply}");
    let plan = load(pods, &format!("{{name: one, apply: [{apply}]}}")).unwrap();
    let port = ProbePort::new(ProbeProtocol::Tcp, Some(port)).unwrap();
    let from = "192.0.2.1".parse().unwrap();
    let attempt = plan.steps[0].attempt(&from, &to.parse().unwrap(), port)?;
    let receiver = |it: &crate::cluster::Receiver| match it.flow.payload {
        Payload::Ports { destination, .. } => format!("{} {destination}", it.host),
        _ => it.host.to_string(),
    };
    Ok(attempt.receivers.iter().map(receiver).collect())
}

#[test]
fn services_lead_to_the_pods_that_they_select() {
    const UNREADY: &str = ", status: {conditions: [{type: Ready, status: 'False'}]}";
    let both = [backend("a", 8080, ""), backend("b", 8081, "")];
    for (pods, port, expected) in [
        (&both[..], 80, &["x/a 8080", "x/b 8081"][..]),
        (&both, 53, &["x/a 53", "x/b 53"]),
        (&[backend("a", 8080, ""), backend("b", 8081, UNREADY)], 80, &["x/a 8080"]),
        (
            &[backend("a", 8080, ""), pod("b", "{name: http, containerPort: 1}", "")],
            80,
            &["x/a 8080"],
        ),
        (&[backend("a", 8080, ", status: {phase: Pending}")], 80, &[]),
        (&[backend("a", 8080, "").replace("name: http", "name: web")], 80, &[]),
        (&[], 80, &[]),
    ] {
        assert_eq!(receivers(pods, "", "service:x/s", port).unwrap(), expected, "{pods:?}");
    }
    assert_eq!(receivers(&both, "", "10.96.0.1", 80).unwrap(), ["x/a 8080", "x/b 8081"]);
    assert_eq!(receivers(&both, "", "node:n2", 30053).unwrap(), ["x/a 53", "x/b 53"]);
    assert_eq!(receivers(&both, "", "node:n2", 30054).unwrap(), ["node:n2 30054"]);
}

#[test]
fn slices_that_are_written_count_alone() {
    let slice = |of: &str, conditions: &str| {
        format!(
            ", {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: t, namespace: x, \
             labels: {{kubernetes.io/service-name: {of}}}}}, addressType: IPv4, ports: [{{name: web, port: 9}}], \
             endpoints: [{{addresses: [192.0.2.9]{conditions}}}]}}"
        )
    };
    for (apply, expected) in [
        (slice("s", ""), &["192.0.2.9 9"][..]),
        (slice("s", ", conditions: {ready: true}"), &["192.0.2.9 9"]),
        (slice("s", ", conditions: {ready: false}"), &[]),
        (slice("other", ""), &["x/a 8080"]),
    ] {
        let pods = [backend("a", 8080, "")];
        assert_eq!(receivers(&pods, &apply, "service:x/s", 80).unwrap(), expected, "{apply}");
    }
}

#[test]
fn what_no_node_translates_is_said_where_it_is_probed() {
    for (to, port, expected) in [
        ("service:x/s", 81, "`service:x/s` has no port TCP 81"),
        ("10.96.0.1", 30053, "`10.96.0.1` has no port TCP 30053"),
        ("service:x/t", 80, "there is no service:x/t"),
    ] {
        assert_eq!(receivers(&[], "", to, port).unwrap_err().to_string(), expected);
    }
    let steps = format!(
        "{{name: one, apply: [{SERVICE}], probes: [{{from: 'service:x/s', to: 192.0.2.1, protocol: ICMP, expect: deny}}]}}"
    );
    let error = load(&[], &steps).unwrap_err().to_string();
    assert!(error.contains("`service:x/s` sends nothing"), "{error}");
}
