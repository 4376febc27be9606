//! Rules about tenants become rules about the labels of the endpoint's own namespace.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::sync::Arc;

use netpol_core::model::{
    Action, Endpoint, EndpointId, Object, Peers, Policy, PolicyKey, Rule, RuleMatch, Tenancy,
};
use netpol_core::net::Transport;
use netpol_core::program::PolicySetId;
use netpol_core::{
    Applied, Capabilities, Change, Direction, Engine, Flow, NodeConfig, Program, Selector, Verdict,
};

fn namespace(name: &str, tenant: &str) -> Object {
    let labels = [("tenant", tenant), ("name", name)].into_iter().collect();
    Object::Namespace { name: name.into(), labels }
}

/// Returns an engine in which only endpoints of the same tenant may reach endpoints.
fn engine(tenancy: Tenancy) -> Engine {
    let mut engine = Engine::new(NodeConfig::new("node-a"), &Capabilities::all());
    for (name, tenant, address) in
        [("a", "1", "10.0.0.1"), ("b", "1", "10.0.0.2"), ("c", "2", "10.0.0.3")]
    {
        let mut endpoint = Endpoint::new(EndpointId::workload(name, "p")).on_node("node-a");
        endpoint.addresses = vec![address.parse().unwrap()];
        endpoint.default_verdict = Verdict::Allow;
        engine.upsert(namespace(name, tenant)).unwrap();
        engine.upsert(endpoint).unwrap();
    }
    let mut matches = RuleMatch::default();
    matches.source.peers = Some(Peers::Tenants { endpoints: Selector::all(), tenancy });
    let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
    policy.ingress = Some(vec![Rule::new(0, Action::Allow, matches)]);
    engine.upsert(policy).unwrap();
    engine.inputs_complete();
    engine
}

fn next(engine: &mut Engine) -> Arc<Program> {
    let program = match engine.poll_update().map(|update| update.change) {
        Some(Change::Full(program)) => program,
        Some(Change::Delta(delta)) => Arc::clone(&delta.program),
        other => panic!("expected an update of the program, got {other:?}"),
    };
    engine.handle_applied(Ok(Applied::completely(0)));
    program
}

fn policy_set(program: &Program, namespace: &str) -> PolicySetId {
    let id = EndpointId::workload(namespace, "p");
    let endpoint = program.endpoints.iter().find(|endpoint| endpoint.id == id).unwrap();
    endpoint.policy_set(Direction::Ingress)
}

fn passes(program: &Program, from: &str, to: &str) -> bool {
    let flow = Flow::to_port(from.parse().unwrap(), to.parse().unwrap(), Transport::Tcp, 80);
    program.outcome(&flow).verdict() == Verdict::Allow
}

#[test]
fn policy_sets_are_shared_by_namespaces_with_the_same_values() {
    let mut engine = engine(Tenancy::Same(["tenant".into()].into()));
    let program = next(&mut engine);
    let [a, b, c] = ["a", "b", "c"].map(|name| policy_set(&program, name));
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert!(passes(&program, "10.0.0.2", "10.0.0.1"));
    assert!(!passes(&program, "10.0.0.3", "10.0.0.1"));

    engine.upsert(namespace("b", "2")).unwrap();
    let program = next(&mut engine);
    assert_eq!(["a", "b", "c"].map(|name| policy_set(&program, name)), [a, c, c]);
    assert!(!passes(&program, "10.0.0.2", "10.0.0.1"));
    assert!(passes(&program, "10.0.0.2", "10.0.0.3"));
}

#[test]
fn values_that_no_selector_can_name_are_compared_all_the_same() {
    let odd = r#"both ' and ""#;
    for (tenancy, want) in [
        (Tenancy::Same(["tenant".into()].into()), [true, false]),
        (Tenancy::NotSame(["tenant".into()].into()), [false, true]),
    ] {
        let mut engine = engine(tenancy);
        for name in ["a", "b"] {
            engine.upsert(namespace(name, odd)).unwrap();
        }
        let program = next(&mut engine);
        let got = ["10.0.0.2", "10.0.0.3"].map(|from| passes(&program, from, "10.0.0.1"));
        assert_eq!(got, want);
    }
}
