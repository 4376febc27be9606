//! Domain names as peers: the embedder tells addresses and the time, and programs follow.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_core::model::{
    Action, DomainAddress, DomainPattern, Endpoint, Object, ObjectKey, Peers, Policy, PolicyKey,
    Rule, RuleMatch, Timestamp,
};
use netpol_core::net::Transport;
use netpol_core::{
    Applied, Capabilities, Change, Engine, Flow, NodeConfig, Program, Selector, Verdict,
};

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Returns an engine whose only pod may talk to `api.example.com` and to what is below `example.org`.
fn engine() -> Engine {
    let mut engine = Engine::new(NodeConfig::new("node-a"), &Capabilities::all());
    let mut pod = Endpoint::pod("x", "p").on_node("node-a");
    pod.addresses = vec![POD];
    let patterns = [
        DomainPattern::Exact("api.example.com".parse().unwrap()),
        DomainPattern::Below("example.org".parse().unwrap()),
    ];
    let mut matches = RuleMatch::default();
    matches.destination.peers = Some(Peers::DomainNames(patterns.into()));
    let mut policy = Policy::new(PolicyKey::kubernetes("x", "p"), Selector::all());
    policy.egress = Some(vec![Rule::new(0, Action::Allow, matches)]);
    engine.upsert(pod).unwrap();
    engine.upsert(policy).unwrap();
    engine.inputs_complete();
    engine
}

fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low).into()
}

fn answer(name: &str, number: u16, expires: i64) -> DomainAddress {
    let name = name.parse().unwrap();
    DomainAddress { name, address: address(number), expires: Timestamp(expires) }
}

fn next(engine: &mut Engine) -> Option<Arc<Program>> {
    let program = match engine.poll_update()?.change {
        Change::Full(program) => program,
        Change::Delta(delta) => Arc::clone(&delta.program),
        other => panic!("expected an update of the program, got {other:?}"),
    };
    engine.handle_applied(Ok(Applied::completely(0)));
    Some(program)
}

fn passes(program: &Program, number: u16) -> bool {
    let flow = Flow::to_port(POD, address(number), Transport::Tcp, 443);
    program.outcome(&flow).verdict() == Verdict::Allow
}

#[test]
fn a_name_has_as_many_addresses_as_it_is_given() {
    let mut engine = engine();
    let empty = next(&mut engine).unwrap();
    assert!(!passes(&empty, 0));
    for number in 0..300 {
        engine.upsert(answer("api.example.com", number, 60)).unwrap();
        engine.upsert(answer(&format!("{number}.example.org"), 1000 + number, 60)).unwrap();
        engine.upsert(answer("other.example.com", 2000 + number, 60)).unwrap();
    }
    let program = next(&mut engine).unwrap();
    assert_eq!(program.policy_sets, empty.policy_sets, "only members change");
    for number in 0..300 {
        let passing = [number, 1000 + number, 2000 + number].map(|it| passes(&program, it));
        assert_eq!(passing, [true, true, false], "{number}");
    }
}

#[test]
fn addresses_count_until_the_engine_is_told_that_they_expired() {
    let mut engine = engine();
    for (number, expires) in [(1, 10), (2, 20), (3, 20)] {
        engine.upsert(answer("api.example.com", number, expires)).unwrap();
    }
    let passing =
        |engine: &mut Engine| next(engine).map(|it| [1, 2, 3].map(|number| passes(&it, number)));
    assert_eq!(passing(&mut engine), Some([true; 3]));
    assert_eq!(engine.next_expiry(), Some(Timestamp(10)));
    assert!(!engine.expire(Timestamp(9)));
    assert_eq!(passing(&mut engine), None, "nothing expired");

    // The same address is answered again, and stays until the newer answer expires.
    engine.upsert(answer("api.example.com", 1, 30)).unwrap();
    assert_eq!(passing(&mut engine), None, "nothing changes for packets");
    assert_eq!(engine.next_expiry(), Some(Timestamp(20)));
    assert!(engine.expire(Timestamp(20)));
    assert_eq!(passing(&mut engine), Some([true, false, false]));
    assert!(
        engine.remove(&ObjectKey::DomainAddress("api.example.com".parse().unwrap(), address(1)))
    );
    assert_eq!(passing(&mut engine), Some([false; 3]));
    assert_eq!((engine.next_expiry(), engine.expire(Timestamp(i64::MAX))), (None, false));
}

#[test]
fn an_address_of_two_names_goes_with_the_last() {
    let mut engine = engine();
    engine.upsert(answer("api.example.com", 1, 10)).unwrap();
    engine.upsert(answer("www.example.org", 1, 20)).unwrap();
    assert!(passes(&next(&mut engine).unwrap(), 1));
    assert!(engine.expire(Timestamp(10)));
    assert_eq!(next(&mut engine), None);
    assert!(engine.expire(Timestamp(20)));
    assert!(!passes(&next(&mut engine).unwrap(), 1));
}

#[test]
fn what_was_gone_leaves_nothing() {
    let (mut churned, fresh) = (engine(), engine());
    for round in 0..3 {
        for number in 0..50 {
            churned.upsert(answer(&format!("{number}.example.org"), number, round)).unwrap();
        }
        churned.expire(Timestamp(round));
    }
    assert_eq!(churned.snapshot(), fresh.snapshot());
    let mapped = IpAddr::V6(Ipv4Addr::new(198, 18, 0, 1).to_ipv6_mapped());
    let name: netpol_core::model::DomainName = "api.example.com".parse().unwrap();
    let answer = DomainAddress { name: name.clone(), address: mapped, expires: Timestamp(1) };
    churned.upsert(Object::from(answer)).unwrap();
    assert!(passes(&next(&mut churned).unwrap(), 1));
    assert!(churned.remove(&ObjectKey::DomainAddress(name.clone(), mapped)));
    assert!(!churned.remove(&ObjectKey::DomainAddress(name, mapped)));
    assert_eq!(churned.snapshot(), fresh.snapshot());
}
