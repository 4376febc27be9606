//! The example of the README does what it says: its text is the example's, and its policy is enforced.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::net::IpAddr;
use std::time::Duration;

use netpol_conformance::probe::{Outcome, Request, Window};
use netpol_conformance::topology::{Host, Layout, NodeSpec, PodSpec, Topology, Transport};
use tokio::runtime::Runtime;

#[expect(dead_code, reason = "the example is a program; its `main` is not called here")]
#[path = "../examples/embed.rs"]
mod embed;

/// Lets pods at 10.244.0.2 reach port 3306 of `mysql`.
const POLICY: &str = r#"{
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "db"},
    "spec": {
        "podSelector": {"matchLabels": {"name": "mysql"}},
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.2/32"}}], "ports": [{"port": 3306}]}]
    }
}"#;

#[test]
fn the_readme_shows_the_example() {
    let readme = include_str!("../../README.md");
    let example = include_str!("../examples/embed.rs");
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(readme.contains(code.trim()), "README.md does not contain examples/embed.rs as it is");
}

#[test]
fn the_policy_of_the_example_is_enforced() {
    let runtime = Runtime::new().unwrap();
    let pod = |name: &str, host: u8| {
        PodSpec::new(format!("shop/{name}"), "node-a", [IpAddr::from([10, 244, 0, host])])
    };
    let mysql = pod("mysql", 3).listening(Transport::Tcp, 3306).listening(Transport::Tcp, 22);
    let layout = Layout::new(
        vec![NodeSpec::new("node-a", [IpAddr::from([172, 18, 0, 2])])],
        vec![pod("frontend", 1), pod("backend", 2), mysql],
        vec![],
    );
    let topology = Topology::build(layout, runtime.handle()).unwrap();
    let reaches = |from: &str, port: u16| {
        let from = Host::Pod(format!("shop/{from}"));
        let probe =
            topology.probe(&from, IpAddr::from([10, 244, 0, 3]), Request::Tcp(port)).unwrap();
        let window = Window::new(Duration::from_millis(400), Duration::from_millis(100));
        match runtime.block_on(probe.watch(window)) {
            Outcome::Reached => true,
            outcome => {
                assert!(matches!(outcome, Outcome::Silent), "{outcome:?}");
                false
            }
        }
    };
    let pairs = [("frontend", 3306), ("backend", 3306), ("backend", 22)];
    assert_eq!(pairs.map(|(from, port)| reaches(from, port)), [true, true, true], "without policy");

    let interface = topology.attachment("shop/mysql").unwrap().interface;
    let node = topology.namespace(&Host::Node("node-a".to_owned())).unwrap();
    let outcome =
        node.run(move || embed::protect(interface, POLICY).map_err(|error| error.to_string()));
    outcome.unwrap().unwrap();
    assert_eq!(
        pairs.map(|(from, port)| reaches(from, port)),
        [false, true, false],
        "with the policy"
    );
}
