#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

//! One small cluster, on which every test states what the judge says of a flow:
//!
//! | endpoint     | addresses                | labels             | ports                          | default |
//! |--------------|--------------------------|--------------------|--------------------------------|---------|
//! | `shop/web`   | 10.0.0.1, fd00::1        | app=web            |                                | allow   |
//! | `shop/db`    | 10.0.0.2, fd00::2        | app=db             | sql=TCP 5432, dns=UDP/TCP 53   | allow   |
//! | `other/db`   | 10.0.1.2                 | app=db, team=red   | sql=TCP 3306                   | allow   |
//! | `vm` (host)  | 10.0.9.1                 | app=vm             |                                | deny    |
//!
//! besides node `n1` at 10.9.0.1 and fd00:9::1, and network set `office` with 198.51.100.0/24 and 10.0.1.0/24.

mod http;
mod matching;
mod outside;
mod ownership;
mod staged;
mod tiers;

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use expect_test::{Expect, expect};

use super::Judge;
use crate::dataplane::Capabilities;
use crate::flow::Flow;
use crate::labels::Labels;
use crate::model::{
    Action, Endpoint, EndpointId, EndpointKind, Enforcement, Inputs, NamedPort, NetworkSet, Node,
    Object, Order, Policy, PolicyKey, PolicyKind, Rule, RuleMatch, Tier, TierEnd,
};
use crate::net::Transport::{self, Sctp, Tcp, Udp};
use crate::net::{PrefixSet, Protocol};
use crate::selector::Selector;
use crate::verdict::Verdict;

const WEB: &str = "10.0.0.1";
const WEB_V6: &str = "fd00::1";
const DB: &str = "10.0.0.2";
const DB_V6: &str = "fd00::2";
const OTHER_DB: &str = "10.0.1.2";
const VM: &str = "10.0.9.1";
const NODE: &str = "10.9.0.1";
const NODE_V6: &str = "fd00:9::1";
const OFFICE: &str = "198.51.100.7";
const OUTSIDE: &str = "203.0.113.1";
const OUTSIDE_V6: &str = "2001:db8::1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn nets(texts: &[&str]) -> PrefixSet {
    texts.iter().map(|text| text.parse::<crate::net::Prefix>().unwrap()).collect()
}

fn tcp(source: &str, destination: &str, port: u16) -> Flow {
    Flow::to_port(address(source), address(destination), Tcp, port)
}

fn ping(source: &str, destination: &str) -> Flow {
    Flow::ping(address(source), address(destination))
}

fn pod(namespace: &str, name: &str, app: &str, addresses: &[&str]) -> Endpoint {
    let mut endpoint = Endpoint::new(EndpointId::workload(namespace, name));
    endpoint.labels = labels(&[("app", app)]);
    endpoint.addresses = addresses.iter().map(|text| address(text)).collect();
    endpoint.default_verdict = Verdict::Allow;
    endpoint
}

fn port(name: &str, transport: Transport, port: u16) -> NamedPort {
    NamedPort { name: name.into(), transport, port }
}

/// Returns the cluster that the module describes, with more objects.
fn cluster(more: impl IntoIterator<Item = Object>) -> Inputs {
    let mut db = pod("shop", "db", "db", &[DB, DB_V6]);
    db.ports = vec![port("sql", Tcp, 5432), port("dns", Udp, 53), port("dns", Tcp, 53)];
    let mut other_db = pod("other", "db", "db", &[OTHER_DB]);
    other_db.labels.insert("team", "red");
    other_db.ports = vec![port("sql", Tcp, 3306)];
    let id = EndpointId {
        kind: EndpointKind::Workload,
        namespace: None,
        name: "vm".into(),
        uid: String::new(),
    };
    let mut vm = Endpoint::new(id);
    vm.labels = labels(&[("app", "vm")]);
    vm.addresses = vec![address(VM)];

    let mut inputs = Inputs::default();
    inputs.upsert(Object::Namespace { name: "shop".into(), labels: labels(&[("stage", "prod")]) });
    inputs.upsert(Object::Namespace { name: "other".into(), labels: labels(&[("stage", "test")]) });
    inputs.upsert(pod("shop", "web", "web", &[WEB, WEB_V6]));
    for endpoint in [db, other_db, vm] {
        inputs.upsert(endpoint);
    }
    inputs.upsert(Node {
        name: "n1".into(),
        labels: labels(&[("zone", "a")]),
        addresses: vec![address(NODE), address(NODE_V6)],
        interfaces: Vec::new(),
    });
    inputs.upsert(NetworkSet {
        namespace: None,
        name: "office".into(),
        labels: labels(&[("who", "staff")]),
        nets: nets(&["198.51.100.0/24", "10.0.1.0/24"]),
    });
    for object in more {
        inputs.upsert(object);
    }
    inputs
}

fn policies(policies: Vec<Policy>) -> Inputs {
    cluster(policies.into_iter().map(Object::from))
}

fn tier(name: &str, order: Option<i32>, end: TierEnd) -> Object {
    Tier::new(name, order.map(Order::whole), end).into()
}

/// Returns a policy that selects everything. Each character of `ingress` and `egress` is a rule that matches every
/// flow: `A`llow, `D`eny, `P`ass, `L`og; `-` instead of rules: the policy does not apply to the direction.
fn policy(name: &str, ingress: &str, egress: &str) -> Policy {
    let key =
        PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: None, name: name.into() };
    let mut policy = Policy::new(key, Selector::all());
    policy.ingress = rules(ingress);
    policy.egress = rules(egress);
    policy
}

fn rules(actions: &str) -> Option<Vec<Rule>> {
    let rule = |(index, action)| {
        let action = match action {
            'A' => Action::Allow,
            'D' => Action::Deny,
            'P' => Action::Pass,
            _ => Action::Log,
        };
        Rule::new(index, action, RuleMatch::default())
    };
    (actions != "-").then(|| actions.chars().enumerate().map(rule).collect())
}

trait PolicyExt {
    fn tier(self, tier: &str) -> Self;
    fn order(self, order: i32) -> Self;
    fn subject(self, subject: &str) -> Self;
    fn staged(self) -> Self;
}

impl PolicyExt for Policy {
    fn tier(mut self, tier: &str) -> Self {
        self.tier = tier.into();
        self
    }

    fn order(mut self, order: i32) -> Self {
        self.order = Some(Order::whole(order));
        self
    }

    fn subject(mut self, subject: &str) -> Self {
        self.subject = selector(subject);
        self
    }

    fn staged(mut self) -> Self {
        self.enforcement = Enforcement::Staged;
        self
    }
}

/// Checks what the judge says of both halves of a flow.
#[track_caller]
fn check(case: &str, inputs: &Inputs, flow: Flow, egress: &str, ingress: &str) {
    let capabilities = Capabilities::all();
    let judgement = Judge::new(inputs, &capabilities).evaluate(&flow).enforced;
    // Names of policies stand for themselves.
    let said = |text: String| text.replace("GlobalNetworkPolicy ", "");
    assert_eq!(said(judgement.egress.to_string()), egress, "egress of {flow}: {case}");
    assert_eq!(said(judgement.ingress.to_string()), ingress, "ingress of {flow}: {case}");
}

/// Checks the ingress half of a flow from outside the cluster to the database.
#[track_caller]
fn check_ingress(case: &str, inputs: &Inputs, want: &str) {
    check(case, inputs, tcp(OUTSIDE, DB, 5432), NO_ENDPOINT, want);
}

const NO_ENDPOINT: &str = "allow: no endpoint owns the address, so no policy applies";
const DEFAULT_ALLOW: &str = "allow: no policy applies; default verdict of the endpoint";
const DEFAULT_DENY: &str = "deny: no policy applies; default verdict of the endpoint";

#[test]
fn people_can_read_it() {
    let mut db = policy("db-test", "LP", "-").subject("app == 'db'").tier("audit");
    db.ingress.as_mut().unwrap()[0].name = Some("watch".into());
    let inputs = cluster([
        tier("audit", Some(1), TierEnd::Deny),
        db.into(),
        policy("advice", "", "-").tier(Tier::KUBE_ADMIN).into(),
        policy("closed", "", "-").order(2).into(),
        policy("also-closed", "", "-").order(3).into(),
        policy("trial", "-", "D").staged().into(),
    ]);
    let print = |flow: Flow, want: Expect| {
        let capabilities = Capabilities::all();
        want.assert_eq(&Judge::new(&inputs, &capabilities).evaluate(&flow).to_string());
    };
    print(
        tcp(WEB, DB, 5432),
        expect![[r#"
            deny
              egress of shop/web: allow
                no policy applies; default verdict of the endpoint
              ingress of shop/db: deny
                logged by GlobalNetworkPolicy db-test ingress[0] `watch`
                passed on by GlobalNetworkPolicy db-test ingress[1]
                no rule matched in tier `kube-admin`, which passes at its end
                no rule matched in tier `default`; asked: GlobalNetworkPolicy closed, GlobalNetworkPolicy also-closed
            with staged policies: deny
              egress of shop/web: deny
                rule GlobalNetworkPolicy trial egress[0]
              ingress of shop/db: deny
                logged by GlobalNetworkPolicy db-test ingress[0] `watch`
                passed on by GlobalNetworkPolicy db-test ingress[1]
                no rule matched in tier `kube-admin`, which passes at its end
                no rule matched in tier `default`; asked: GlobalNetworkPolicy closed, GlobalNetworkPolicy also-closed"#]],
    );
    print(
        tcp(OUTSIDE, VM, 22),
        expect![[r#"
            deny
              egress: allow
                no endpoint owns the address, so no policy applies
              ingress of vm: deny
                no rule matched in tier `kube-admin`, which passes at its end
                no rule matched in tier `default`; asked: GlobalNetworkPolicy closed, GlobalNetworkPolicy also-closed"#]],
    );
}

#[test]
fn both_halves_must_allow() {
    let closed_egress = policies(vec![policy("p", "-", "")]);
    let closed_ingress = policies(vec![policy("p", "", "-")]);
    let capabilities = Capabilities::all();
    for (inputs, source, destination, want) in [
        (&closed_egress, WEB, DB, Verdict::Deny),
        (&closed_egress, OUTSIDE, DB, Verdict::Allow),
        (&closed_ingress, WEB, DB, Verdict::Deny),
        (&closed_ingress, WEB, OUTSIDE, Verdict::Allow),
        (&closed_ingress, OUTSIDE, NODE, Verdict::Allow),
    ] {
        let flow = tcp(source, destination, 80);
        let judgement = Judge::new(inputs, &capabilities).evaluate(&flow).enforced;
        assert_eq!(judgement.verdict(), want, "{flow}");
    }
}
