//! The engine as its callers see it: the barrier, failures, and what changes when inputs do.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::model::{
    Action, Attachment, DomainAddress, DomainName, DomainPattern, Endpoint, EndpointId,
    FailsafePort, HostSettings, Lifecycle, Mode, NetworkSet, Node, Object, ObjectKey, Order, Peers,
    Policy, PolicyKey, Rule, RuleMatch, Tier, TierEnd, Timestamp, WorkloadToHost,
};
use netpol_core::net::{Family, Prefix, Transport};
use netpol_core::program::{Denial, Established};
use netpol_core::{
    Applied, Capabilities, Change, Dataplane, DataplaneError, DataplaneErrorKind, Delta, Direction,
    Engine, EngineError, Flow, Gate, Labels, MembersChange, MemoryDataplane, NodeConfig, Program,
    Selector, Update, Verdict, WeakRule,
};

fn engine() -> Engine {
    Engine::new(NodeConfig::new("node-a"), &Capabilities::all())
}

fn pod(name: &str, address: &str) -> Endpoint {
    let mut pod = Endpoint::new(EndpointId::workload("x", name))
        .on_node("node-a")
        .attached_to(format!("v-{name}"));
    pod.addresses = vec![address.parse().unwrap()];
    pod.default_verdict = Verdict::Allow;
    pod.labels = [("app", name)].into_iter().collect();
    pod
}

fn closed(name: &str) -> Policy {
    let subject = Selector::equal("app", name).unwrap();
    let mut policy = Policy::new(PolicyKey::kubernetes("x", format!("close-{name}")), subject);
    policy.ingress = Some(Vec::new());
    policy
}

fn full(update: Option<Update>) -> Arc<Program> {
    match update.map(|it| it.change) {
        Some(Change::Full(program)) => program,
        other => panic!("expected a full update, got {other:?}"),
    }
}

/// The program of an update, full or not.
fn enforced(update: Option<Update>) -> Arc<Program> {
    match update.map(|it| it.change) {
        Some(Change::Full(program)) => program,
        Some(Change::Delta(delta)) => Arc::clone(&delta.program),
        other => panic!("expected an update of the program, got {other:?}"),
    }
}

fn isolated(update: Option<Update>) -> Vec<String> {
    match update.map(|it| it.change) {
        Some(Change::Isolate(endpoints)) => endpoints.iter().map(|it| it.id.to_string()).collect(),
        other => panic!("expected new endpoints to be closed, got {other:?}"),
    }
}

fn done(engine: &mut Engine) {
    engine.handle_applied(Ok(Applied::completely(0)));
}

#[test]
fn before_the_barrier_endpoints_are_closed_and_nothing_else_happens() {
    let mut engine = engine();
    assert_eq!(engine.poll_update(), None, "no input, no update");
    engine.upsert(closed("b")).unwrap();
    assert_eq!(engine.poll_update(), None, "a policy alone changes nothing");
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    assert_eq!(isolated(engine.poll_update()), ["x/a"]);
    assert_eq!(engine.poll_update(), None, "the last update is not answered yet");
    done(&mut engine);
    engine.upsert(pod("b", "10.0.0.2")).unwrap();
    assert_eq!(isolated(engine.poll_update()), ["x/b"], "`a` was closed already");
    done(&mut engine);
    engine.inputs_complete();
    assert_eq!(full(engine.poll_update()).endpoints.len(), 2);
}

#[test]
fn a_failed_closing_is_tried_again() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    assert_eq!(isolated(engine.poll_update()), ["x/a"]);
    engine.handle_applied(Err(DataplaneError::new(DataplaneErrorKind::Transient, "test")));
    assert_eq!(isolated(engine.poll_update()), ["x/a"]);
}

#[test]
fn before_the_barrier_what_an_endpoint_gets_later_is_closed_too() {
    let mut engine = engine();
    let mut pod = pod("a", "10.0.0.1");
    pod.attachment = Attachment::Address;
    pod.addresses.clear();
    let mut versions = vec![pod.clone()];
    pod.addresses = vec!["10.0.0.1".parse().unwrap()];
    versions.push(pod.clone());
    versions.push(pod.clone().attached_to("veth0"));
    versions.push(pod.attached_to("veth1"));
    for version in versions {
        engine.upsert(version.clone()).unwrap();
        let Some(Change::Isolate(endpoints)) = engine.poll_update().map(|it| it.change) else {
            panic!("not closed: {version:?}");
        };
        let [closed] = &*endpoints else { panic!("expected one endpoint, got {endpoints:?}") };
        assert_eq!(
            (&closed.attachment, &closed.addresses, closed.mode),
            (&version.attachment, &version.addresses, Mode::Isolate)
        );
        done(&mut engine);
        engine.upsert(version).unwrap();
        assert_eq!(engine.poll_update(), None, "nothing changed");
    }
}

#[test]
fn before_the_barrier_an_endpoint_that_comes_back_is_closed_again() {
    let mut engine = engine();
    for _ in 0..2 {
        engine.upsert(pod("a", "10.0.0.1")).unwrap();
        assert_eq!(isolated(engine.poll_update()), ["x/a"]);
        done(&mut engine);
        assert!(engine.remove(&ObjectKey::Endpoint(pod("a", "10.0.0.1").id)));
        assert_eq!(engine.poll_update(), None);
    }
}

#[test]
fn an_address_that_another_endpoint_gives_up_is_closed() {
    let address_only = |name: &str, node: &str, created| {
        let mut pod = pod(name, "10.0.0.1").on_node(node);
        (pod.attachment, pod.created) = (Attachment::Address, Timestamp(created));
        pod
    };
    for is_removed in [true, false] {
        let mut engine = engine();
        let mut newer = address_only("new", "node-b", 2);
        engine.upsert(newer.clone()).unwrap();
        assert_eq!(engine.poll_update(), None, "an endpoint of another node");
        engine.upsert(address_only("old", "node-a", 1)).unwrap();
        assert_eq!(isolated(engine.poll_update()), ["x/old"]);
        done(&mut engine);
        if is_removed {
            engine.remove(&ObjectKey::Endpoint(newer.id.clone()));
        } else {
            newer.lifecycle = Lifecycle::Finished;
            engine.upsert(newer).unwrap();
        }
        let Some(Change::Isolate(endpoints)) = engine.poll_update().map(|it| it.change) else {
            panic!("not closed");
        };
        assert_eq!((&*endpoints[0].id.name, endpoints[0].addresses.len()), ("old", 1));
    }
}

#[test]
fn the_first_update_after_the_barrier_comes_even_if_there_is_nothing_to_enforce() {
    let mut engine = engine();
    engine.inputs_complete();
    assert_eq!(
        *full(engine.poll_update()),
        Program::default(),
        "what is left from before must be swept"
    );
    done(&mut engine);
    assert_eq!(engine.poll_update(), None);
    engine.inputs_complete();
    assert_eq!(engine.poll_update(), None, "the barrier is crossed once");
}

#[test]
fn an_error_keeps_the_work() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    let first = full(engine.poll_update());
    engine.handle_applied(Err(DataplaneError::new(DataplaneErrorKind::Transient, "test")));
    assert_eq!(engine.last_error().map(DataplaneError::kind), Some(DataplaneErrorKind::Transient));
    assert_eq!(full(engine.poll_update()), first);
    done(&mut engine);
    assert!(engine.last_error().is_none());
    assert_eq!(engine.poll_update(), None);
    engine.resync();
    assert_eq!(full(engine.poll_update()), first, "drift is repaired with the same program");
}

#[test]
fn a_repair_that_is_asked_for_while_an_update_is_under_way_comes_after_it() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    assert_eq!(isolated(engine.poll_update()), ["x/a"]);
    engine.resync();
    done(&mut engine);
    assert_eq!(isolated(engine.poll_update()), ["x/a"]);
    done(&mut engine);
    engine.inputs_complete();
    let program = full(engine.poll_update());
    engine.resync();
    done(&mut engine);
    assert_eq!(full(engine.poll_update()), program);
    done(&mut engine);
    assert_eq!(engine.poll_update(), None);
}

#[test]
fn endpoints_that_could_not_be_programmed_are_named_and_tried_again() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    let program = full(engine.poll_update());
    let error = DataplaneError::new(DataplaneErrorKind::Capacity, "test");
    let mut applied = Applied::completely(1);
    applied.isolated = vec![(program.endpoints[0].id.clone(), error)];
    engine.handle_applied(Ok(applied));
    let names: Vec<_> = engine.isolated().iter().map(|(id, _)| id.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(engine.poll_update(), None, "the same again would fail again");
    engine.upsert(closed("nobody")).unwrap();
    assert_eq!(full(engine.poll_update()), program, "the program is the same, the endpoint closed");
    done(&mut engine);
    assert!(engine.isolated().is_empty());
}

#[test]
fn programs_say_what_becomes_of_established_flows() {
    for established in [Established::Keep, Established::Reevaluate] {
        let mut config = NodeConfig::new("node-a");
        config.established = established;
        let mut engine = Engine::new(config, &Capabilities::all());
        engine.inputs_complete();
        assert_eq!(full(engine.poll_update()).established, established);
    }
}

/// What cannot be answered is denied all the same, and the engine says so.
#[test]
fn programs_answer_what_they_deny_where_the_dataplane_can() {
    let mut mute = Capabilities::all();
    mute.reject = false;
    for (wanted, capabilities, denial) in [
        (Denial::Drop, Capabilities::all(), Denial::Drop),
        (Denial::Reject, Capabilities::all(), Denial::Reject),
        (Denial::Reject, mute, Denial::Drop),
    ] {
        let mut config = NodeConfig::new("node-a");
        config.denial = wanted;
        let mut engine = Engine::new(config, &capabilities);
        assert_eq!(engine.denial(), denial);
        engine.inputs_complete();
        assert_eq!(full(engine.poll_update()).denial, denial);
    }
}

#[test]
fn what_is_removed_is_gone() {
    let mut engine = engine();
    engine.inputs_complete();
    let empty = enforced(engine.poll_update());
    done(&mut engine);
    let (idle, inputs) = (format!("{engine:?}"), engine.snapshot());
    for generation in 0..50 {
        let mut pod = pod("a", "10.0.0.1");
        pod.id = pod.id.with_uid(generation.to_string());
        let key = ObjectKey::Endpoint(pod.id.clone());
        engine.upsert(pod).unwrap();
        engine.upsert(closed("a")).unwrap();
        enforced(engine.poll_update());
        done(&mut engine);
        assert!(engine.remove(&key) && engine.remove(&ObjectKey::Policy(closed("a").key)));
        assert_eq!(enforced(engine.poll_update()), empty);
        done(&mut engine);
    }
    assert_eq!(engine.snapshot(), inputs);
    let without_generation = |text: &str| {
        let text = text.replace("generation: 101", "generation: 1");
        text.replace("Some(101), rounds: 101", "Some(1), rounds: 1")
    };
    assert_eq!(without_generation(&format!("{engine:?}")), idle);
}

#[test]
fn what_changes_no_program_makes_no_update() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    full(engine.poll_update());
    done(&mut engine);
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    let mut elsewhere = pod("far", "10.0.0.9");
    elsewhere.node = Some("node-b".into());
    engine.upsert(elsewhere).unwrap();
    engine.upsert(closed("nobody")).unwrap();
    assert_eq!(engine.poll_update(), None);
}

#[test]
fn inputs_that_change_while_an_update_is_under_way_make_another() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    let first = engine.poll_update().unwrap();
    engine.upsert(pod("b", "10.0.0.2")).unwrap();
    done(&mut engine);
    let second = engine.poll_update().unwrap();
    assert!(second.generation > first.generation);
    assert_eq!(enforced(Some(second)).endpoints.len(), 2);
}

#[test]
fn removing_a_policy_undoes_exactly_what_it_did() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    let before = enforced(engine.poll_update());
    done(&mut engine);
    engine.upsert(closed("a")).unwrap();
    assert_ne!(enforced(engine.poll_update()), before);
    done(&mut engine);
    assert!(engine.remove(&ObjectKey::Policy(closed("a").key)));
    assert_eq!(enforced(engine.poll_update()), before);
    assert!(!engine.remove(&ObjectKey::Policy(closed("a").key)), "it is gone");
}

#[test]
fn removing_a_namespace_takes_along_its_policies_and_not_its_endpoints() {
    let mut engine = engine();
    engine
        .upsert(Object::Namespace { name: "x".into(), labels: [("a", "b")].into_iter().collect() })
        .unwrap();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.upsert(closed("a")).unwrap();
    assert!(engine.remove(&ObjectKey::Namespace("x".into())));
    let inputs = engine.snapshot();
    assert_eq!((inputs.endpoints().count(), inputs.policies().count()), (1, 0));
}

#[test]
fn when_full_updates_keep_failing_new_endpoints_are_closed_in_between() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    let fail = |engine: &mut Engine| {
        engine.handle_applied(Err(DataplaneError::new(DataplaneErrorKind::Capacity, "test")));
    };
    full(engine.poll_update());
    fail(&mut engine);
    full(engine.poll_update());
    fail(&mut engine);
    for _ in 0..2 {
        assert_eq!(isolated(engine.poll_update()), ["x/a"]);
        done(&mut engine);
        full(engine.poll_update());
        fail(&mut engine);
        assert_eq!(isolated(engine.poll_update()), ["x/a"]);
        fail(&mut engine);
        full(engine.poll_update());
        fail(&mut engine);
    }
    assert_eq!(isolated(engine.poll_update()), ["x/a"]);
    done(&mut engine);
    full(engine.poll_update());
    done(&mut engine);
    assert_eq!(engine.poll_update(), None);
}

#[test]
fn bad_objects_are_refused_and_change_nothing() {
    let mut engine = engine();
    engine.inputs_complete();
    full(engine.poll_update());
    done(&mut engine);
    let tier = Tier::new(Tier::DEFAULT, Some(Order::whole(1)), TierEnd::Pass);
    assert_eq!(engine.upsert(tier), Err(EngineError::BuiltInTier { name: "default".into() }));
    for name in ["", "a-name-of-16-byt", "a/b", "a b", "a:b", ".", ".."] {
        let refused = engine.upsert(pod("a", "10.0.0.1").attached_to(name));
        assert_eq!(refused, Err(EngineError::InterfaceName { name: name.into() }));
    }
    assert_eq!(engine.poll_update(), None);
    assert_eq!(
        engine.upsert(pod("a", "10.0.0.1").attached_to("a b")).unwrap_err().to_string(),
        "`a b` cannot name an interface, expected 1 to 15 bytes without `/`, `:` and white space"
    );
}

/// Where nothing enforces them they are peers, if they are of other nodes.
/// No policy can close failsafe ports, so it is settings that must not, by mistake.
#[test]
fn settings_that_cut_failsafe_ports_are_refused_unless_forced() {
    let port = |port, net: Option<&str>| FailsafePort {
        transport: Transport::Tcp,
        port,
        net: net.map(|it| it.parse().unwrap()),
    };
    let ssh = port(22, None);
    let mut usual = HostSettings::default();
    let mut restricted = usual.clone();
    assert!(restricted.failsafe_inbound.remove(&ssh));
    restricted.failsafe_inbound.insert(port(22, Some("10.0.0.0/8")));
    let mut narrow = restricted.clone();
    narrow.failsafe_inbound.remove(&port(22, Some("10.0.0.0/8")));
    narrow.failsafe_inbound.insert(port(22, Some("10.1.0.0/16")));
    let mut silent = usual.clone();
    silent.failsafe_outbound.clear();
    usual.failsafe_inbound.insert(port(8080, None));
    let inbound = |port| Err((Direction::Ingress, vec![port]));
    let outbound: Vec<_> = HostSettings::default().failsafe_outbound.into_iter().collect();
    let start = HostSettings::default();
    for (from, to, want) in [
        (&start, &start, Ok(())),
        (&start, &usual, Ok(())),
        (&usual, &start, inbound(port(8080, None))),
        (&start, &restricted, inbound(ssh)),
        (&restricted, &start, Ok(())),
        (&restricted, &narrow, inbound(port(22, Some("10.0.0.0/8")))),
        (&narrow, &restricted, Ok(())),
        (&start, &silent, Err((Direction::Egress, outbound))),
    ] {
        let mut engine = Engine::new(NodeConfig::new("n"), &Capabilities::all());
        engine.inputs_complete();
        engine.force_settings(from.clone()).unwrap();
        let taken = engine.set_settings(to.clone());
        let want = want.map_err(|(direction, ports)| EngineError::Failsafe { direction, ports });
        assert_eq!(taken, want, "{from:?} to {to:?}");
        let in_force = if taken.is_ok() { to } else { from };
        assert_eq!(&full(engine.poll_update()).hosts.settings, in_force);
        engine.handle_applied(Ok(Applied::default()));
        engine.force_settings(to.clone()).unwrap();
        engine.resync();
        assert_eq!(&full(engine.poll_update()).hosts.settings, to);
    }
    let error = EngineError::Failsafe {
        direction: Direction::Ingress,
        ports: vec![ssh, port(22, Some("10.0.0.0/8"))],
    };
    let text =
        "the settings no longer keep open failsafe ports (ingress): TCP 22, TCP 22 for 10.0.0.0/8";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_dataplane_that_cannot_keep_workloads_from_their_host_is_not_asked_to() {
    let mut settings = HostSettings::default();
    settings.workload_to_host = WorkloadToHost::Deny;
    for (capabilities, want) in
        [(Capabilities::all(), Ok(())), (Capabilities::minimal(), Err(EngineError::OwnHost))]
    {
        let mut engine = Engine::new(NodeConfig::new("n"), &capabilities);
        assert_eq!(engine.set_settings(settings.clone()), want);
        assert_eq!(engine.force_settings(settings.clone()), want);
    }
}

#[test]
fn host_endpoints_of_the_node_are_refused_where_nothing_enforces_them() {
    let attachments =
        [Attachment::Interface("eth0".into()), Attachment::Address, Attachment::OtherInterfaces];
    for attachment in attachments {
        for (node, capabilities, is_taken) in [
            ("node-a", Capabilities::minimal(), false),
            ("node-b", Capabilities::minimal(), true),
            ("node-a", Capabilities::all(), true),
        ] {
            let mut engine = Engine::new(NodeConfig::new("node-a"), &capabilities);
            let host = Endpoint::host("h", node, attachment.clone());
            let id = host.id.clone();
            let taken = engine.upsert(host);
            let refused = Err(EngineError::HostEndpoint { id });
            assert_eq!(taken, if is_taken { Ok(()) } else { refused }, "{node} {capabilities:?}");
            assert_eq!(engine.snapshot().endpoints().count(), usize::from(is_taken));
        }
    }
}

#[test]
fn an_address_belongs_to_the_newest_running_endpoint() {
    let mut old = pod("a", "10.0.0.1");
    old.created = Timestamp(1);
    let mut new = pod("b", "10.0.0.1");
    new.created = Timestamp(2);
    let addresses = |objects: &[Endpoint]| {
        let mut engine = engine();
        objects.iter().for_each(|it| engine.upsert(it.clone()).unwrap());
        engine.inputs_complete();
        let program = full(engine.poll_update());
        program
            .endpoints
            .iter()
            .map(|it| (it.id.name.clone(), it.addresses.len()))
            .collect::<Vec<_>>()
    };
    let want = [("a".to_owned(), 0), ("b".to_owned(), 1)];
    assert_eq!(addresses(&[old.clone(), new.clone()]), want);
    assert_eq!(addresses(&[new.clone(), old.clone()]), want);
    new.lifecycle = Lifecycle::Finished;
    assert_eq!(addresses(&[new, old]), [("a".to_owned(), 1)], "a finished endpoint owns nothing");
}

#[test]
fn two_endpoints_of_one_interface_are_not_mixed_up() {
    for (old, new) in [("a", "b"), ("b", "a")] {
        let mut older = pod(old, "10.0.0.1").attached_to("veth0");
        older.created = Timestamp(1);
        let mut newer = pod(new, "10.0.0.2").attached_to("veth0");
        newer.created = Timestamp(2);
        let mut engine = engine();
        engine.upsert(newer).unwrap();
        engine.upsert(older).unwrap();
        engine.inputs_complete();
        let program = full(engine.poll_update());
        let names: Vec<_> = program.endpoints.iter().map(|it| it.id.name.as_str()).collect();
        assert_eq!(names, [new]);
    }
}

#[test]
fn rule_ids_survive_edits_of_other_rules() {
    let rule = |index, port: Option<&str>| {
        let mut matches = RuleMatch::default();
        matches.source.nets = port.map(|net| [net.parse().unwrap()].into_iter().collect());
        Rule::new(index, Action::Allow, matches)
    };
    let ids = |rules: Vec<Rule>, direction| {
        let mut policy = closed("a");
        policy.egress = Some(rules.clone());
        policy.ingress = Some(rules);
        let mut engine = engine();
        engine.upsert(pod("a", "10.0.0.1")).unwrap();
        engine.upsert(policy).unwrap();
        engine.inputs_complete();
        let program = full(engine.poll_update());
        let set = program.policy_set(&program.endpoints[0], direction).unwrap();
        set.stages[0].rules.iter().map(|rule| rule.id).collect::<Vec<_>>()
    };
    let rules = vec![rule(0, Some("10.0.0.0/8")), rule(1, None), rule(2, None)];
    let edited = vec![
        rule(0, Some("192.0.2.0/24")),
        rule(1, Some("10.0.0.0/8")),
        rule(2, None),
        rule(3, None),
    ];
    let before = ids(rules.clone(), Direction::Ingress);
    let after = ids(edited, Direction::Ingress);
    assert_eq!(before, after[1..]);
    assert_ne!(before[1], before[2], "equal rules are told apart by their ordinal");
    let egress = ids(rules, Direction::Egress);
    assert!(before.iter().all(|id| !egress.contains(id)), "and so are the directions");
}

#[test]
fn a_restarted_engine_opens_nothing_on_a_dataplane_that_kept_its_program() {
    let mut dataplane = MemoryDataplane::default();
    let objects: [Object; 2] = [pod("a", "10.0.0.1").into(), closed("a").into()];
    let flow = Flow::to_port(
        "192.0.2.1".parse().unwrap(),
        "10.0.0.1".parse().unwrap(),
        Transport::Tcp,
        80,
    );
    let flow = flow.from_origin(netpol_core::Origin::Forwarded);
    for run in 0..2 {
        let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
        for object in objects.iter().cloned() {
            engine.upsert(object).unwrap();
            while let Some(update) = engine.poll_update() {
                engine.handle_applied(dataplane.apply(update));
            }
            assert_eq!(
                dataplane.outcome(&flow).verdict(),
                Verdict::Deny,
                "run {run}, before the barrier"
            );
        }
        engine.inputs_complete();
        while let Some(update) = engine.poll_update() {
            engine.handle_applied(dataplane.apply(update));
        }
        assert_eq!(dataplane.outcome(&flow).verdict(), Verdict::Deny, "run {run}");
        assert_eq!(dataplane.program().endpoints.len(), 1);
    }
}

#[test]
fn a_restart_leaves_known_endpoints_as_they_are_and_closes_the_others() {
    let mut dataplane = MemoryDataplane::default();
    let apply = |engine: &mut Engine, dataplane: &mut MemoryDataplane| {
        while let Some(update) = engine.poll_update() {
            engine.handle_applied(dataplane.apply(update));
        }
    };
    let passes = |dataplane: &MemoryDataplane, address: &str| {
        let (source, address) = ("192.0.2.1".parse().unwrap(), address.parse().unwrap());
        let flow = Flow::to_port(source, address, Transport::Tcp, 80);
        dataplane.outcome(&flow.from_origin(netpol_core::Origin::Forwarded)).verdict()
    };
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.upsert(pod("b", "10.0.0.2")).unwrap();
    engine.inputs_complete();
    apply(&mut engine, &mut dataplane);

    let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.upsert(pod("b", "10.0.0.3")).unwrap();
    engine.upsert(pod("c", "10.0.0.4")).unwrap();
    apply(&mut engine, &mut dataplane);
    assert_eq!(passes(&dataplane, "10.0.0.1"), Verdict::Allow, "known");
    assert_eq!(passes(&dataplane, "10.0.0.3"), Verdict::Deny, "known by another address");
    assert_eq!(passes(&dataplane, "10.0.0.4"), Verdict::Deny, "not known");
    engine.inputs_complete();
    apply(&mut engine, &mut dataplane);
    for address in ["10.0.0.1", "10.0.0.3", "10.0.0.4"] {
        assert_eq!(passes(&dataplane, address), Verdict::Allow, "{address}");
    }
}

#[test]
fn an_endpoint_may_start_when_it_is_closed_or_enforced_as_it_is_now() {
    let mut engine = engine();
    let a = pod("a", "10.0.0.1");
    let gate = |engine: &Engine| engine.gate(&pod("a", "10.0.0.1").id);
    assert_eq!(gate(&engine), Gate::Unknown);
    engine.upsert(a.clone()).unwrap();
    assert_eq!(gate(&engine), Gate::Pending, "the dataplane does not know it");
    isolated(engine.poll_update());
    assert_eq!(gate(&engine), Gate::Pending, "the dataplane has not answered");
    done(&mut engine);
    assert_eq!(gate(&engine), Gate::Isolated);
    engine.inputs_complete();
    full(engine.poll_update());
    assert_eq!(gate(&engine), Gate::Pending);
    done(&mut engine);
    assert_eq!(gate(&engine), Gate::Enforcing { generation: 2 });
    assert!(gate(&engine).may_start() && Gate::Isolated.may_start() && !Gate::Pending.may_start());

    // The next pod of that name has another interface.
    assert!(engine.remove(&ObjectKey::Endpoint(a.id.clone())));
    assert_eq!(gate(&engine), Gate::Unknown);
    engine.upsert(a.clone().attached_to("veth9")).unwrap();
    assert_eq!(gate(&engine), Gate::Pending);
    enforced(engine.poll_update());
    assert_eq!(gate(&engine), Gate::Pending);
    engine.handle_applied(Err(DataplaneError::new(DataplaneErrorKind::Transient, "test")));
    assert_eq!(gate(&engine), Gate::Pending, "the update failed");
    let program = full(engine.poll_update());
    let mut applied = Applied::completely(4);
    let error = DataplaneError::new(DataplaneErrorKind::Capacity, "test");
    applied.isolated = vec![(program.endpoints[0].id.clone(), error)];
    engine.handle_applied(Ok(applied));
    assert_eq!(gate(&engine), Gate::Isolated, "it could not be programmed");
    engine.resync();
    enforced(engine.poll_update());
    done(&mut engine);
    assert_eq!(gate(&engine), Gate::Enforcing { generation: 5 });

    // Of two pods with one interface, only the newer has it.
    let mut newer = pod("b", "10.0.0.2").attached_to("veth9");
    newer.created = Timestamp(1);
    engine.upsert(newer).unwrap();
    assert_eq!(gate(&engine), Gate::Unknown);
    let mut elsewhere = pod("c", "10.0.0.3");
    elsewhere.node = Some("node-b".into());
    engine.upsert(elsewhere.clone()).unwrap();
    assert_eq!(engine.gate(&elsewhere.id), Gate::Unknown);
}

#[test]
fn the_status_of_a_policy_says_what_became_of_it() {
    let mut capabilities = Capabilities::all();
    capabilities.log = false;
    let mut engine = Engine::new(NodeConfig::new("node-a"), &capabilities);
    let mut policy = closed("a");
    let rule = |index, action| Rule::new(index, action, RuleMatch::default());
    let mut broken = rule(2, Action::Pass);
    broken.degraded = true;
    policy.ingress = Some(vec![rule(0, Action::Allow), rule(1, Action::Log), broken]);
    assert_eq!(engine.policy_status(&policy.key), None);
    engine.upsert(policy.clone()).unwrap();
    let status = engine.policy_status(&policy.key).unwrap();
    let direction = Direction::Ingress;
    let weak = [
        WeakRule { direction, index: 1, effect: None },
        WeakRule { direction, index: 2, effect: Some(Action::Deny) },
    ];
    assert_eq!(status.weak_rules, weak);
    assert_eq!((status.applies, status.generation), (false, None));

    engine.inputs_complete();
    full(engine.poll_update());
    assert_eq!(engine.policy_status(&policy.key).unwrap().generation, None);
    done(&mut engine);
    let status = engine.policy_status(&policy.key).unwrap();
    assert_eq!((status.applies, status.generation), (false, Some(1)), "there is nothing to do");

    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    policy.ingress = Some(vec![rule(0, Action::Allow)]);
    engine.upsert(policy.clone()).unwrap();
    assert_eq!(engine.policy_status(&policy.key).unwrap().generation, None);
    enforced(engine.poll_update());
    done(&mut engine);
    let status = engine.policy_status(&policy.key).unwrap();
    assert_eq!((status.is_degraded(), status.applies, status.generation), (false, true, Some(2)));

    engine.upsert(closed("nobody")).unwrap();
    assert_eq!(engine.poll_update(), None, "it changes nothing");
    assert_eq!(engine.policy_status(&closed("nobody").key).unwrap().generation, Some(2));
}

#[test]
fn deltas_name_what_changed_and_nothing_else() {
    let mut engine = engine();
    let mut policy = closed("a");
    let mut from_b = RuleMatch::default();
    from_b.source.peers = Some(Peers::Endpoints(Selector::equal("app", "b").unwrap()));
    policy.ingress = Some(vec![Rule::new(0, Action::Allow, from_b)]);
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.upsert(policy).unwrap();
    engine.inputs_complete();
    let first = (*full(engine.poll_update())).clone();
    done(&mut engine);
    let set = *first.address_sets.keys().next().unwrap();
    let delta = |engine: &mut Engine| match engine.poll_update().map(|it| it.change) {
        Some(Change::Delta(delta)) => {
            done(engine);
            (*delta).clone()
        }
        other => panic!("expected a delta, got {other:?}"),
    };

    // A pod of another node comes: its address, and nothing else.
    let mut b = pod("b", "10.0.0.2");
    b.node = Some("node-b".into());
    engine.upsert(b.clone()).unwrap();
    let joined = delta(&mut engine);
    let mut want = Delta::default();
    let mut members = MembersChange::new(set);
    members.addresses.added = vec!["10.0.0.2".parse().unwrap()];
    want.members = vec![members];
    want.program = Arc::clone(&joined.program);
    assert_eq!(joined, want);

    // It goes and comes back before anybody asks.
    assert!(engine.remove(&ObjectKey::Endpoint(b.id.clone())));
    engine.upsert(b).unwrap();
    assert_eq!(engine.poll_update(), None);

    // The policy goes, and with it its policy set and set.
    assert!(engine.remove(&ObjectKey::Policy(closed("a").key)));
    let removed = delta(&mut engine);
    assert_eq!((removed.members.len(), removed.new_sets.len()), (0, 0));
    assert_eq!((removed.removed_sets.len(), removed.removed_policy_sets.len()), (1, 1));
    assert_eq!(removed.removed_sets[0].1, joined.program.address_sets[&set]);
    assert_eq!((removed.endpoints.len(), removed.removed_endpoints.len()), (1, 0));
    let mut program = (*joined.program).clone();
    program.advance(&removed).unwrap();
    assert_eq!(program, *removed.program);
    assert!(program.advance(&removed).is_err(), "it belongs to one program only");
}

#[test]
fn a_dataplane_without_deltas_gets_full_updates_only() {
    let mut capabilities = Capabilities::all();
    capabilities.deltas = false;
    let mut engine = Engine::new(NodeConfig::new("node-a"), &capabilities);
    engine.inputs_complete();
    full(engine.poll_update());
    done(&mut engine);
    for name in ["a", "b"] {
        engine.upsert(pod(name, "10.0.0.1")).unwrap();
        full(engine.poll_update());
        done(&mut engine);
    }
}

#[test]
fn a_snapshot_makes_another_engine_yield_the_same() {
    let mut engine = engine();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.upsert(closed("a")).unwrap();
    engine.upsert(Tier::new("t", Some(Order::whole(1)), TierEnd::Pass)).unwrap();
    engine
        .upsert(Object::Namespace { name: "x".into(), labels: [("a", "b")].into_iter().collect() })
        .unwrap();
    engine.inputs_complete();
    let program = full(engine.poll_update());
    let mut other = self::engine();
    engine.snapshot().into_objects().for_each(|object| other.upsert(object).unwrap());
    other.inputs_complete();
    assert_eq!(full(other.poll_update()), program);
    assert_eq!(other.snapshot(), engine.snapshot());
}

/// A rule whose own side is selected by what else has the endpoint's address follows that, wherever it is.
#[test]
fn rules_follow_what_else_has_the_address_of_their_endpoint() {
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let set = NetworkSet {
        namespace: Some("z".into()),
        name: "s".into(),
        labels: Labels::new(),
        nets: [Prefix::host(address)].into_iter().collect(),
    };
    let mut host = Endpoint::host("h", "node-b", Attachment::Address);
    host.addresses = vec![address];
    host.labels = [("kind", "host")].into_iter().collect();
    let red = [("team", "red")].into_iter().collect();
    let node = Node { name: "n".into(), addresses: vec![address], ..Node::default() };
    let name: DomainName = "www.example.com".parse().unwrap();
    let answer = DomainAddress { name: name.clone(), address, expires: Timestamp(1) };
    let changes: [(Peers, Vec<Object>, Object); 5] = [
        (
            Peers::Endpoints("pcns.team == 'red'".parse().unwrap()),
            vec![set.clone().into()],
            Object::Namespace { name: "z".into(), labels: red },
        ),
        (Peers::Endpoints(Selector::has("kind").unwrap()), Vec::new(), host.into()),
        (
            Peers::Endpoints("projectcalico.org/namespace == 'z'".parse().unwrap()),
            Vec::new(),
            set.into(),
        ),
        (Peers::Nodes(Selector::all()), Vec::new(), node.into()),
        (Peers::DomainNames([DomainPattern::Exact(name)].into()), Vec::new(), answer.into()),
    ];
    for (own, before, change) in changes {
        let mut policy = closed("a");
        let mut matches = RuleMatch::default();
        matches.destination.peers = Some(own);
        policy.ingress = Some(vec![Rule::new(0, Action::Allow, matches)]);
        let flow = Flow::to_port("192.0.2.1".parse().unwrap(), address, Transport::Tcp, 80);
        let mut engine = engine();
        engine.upsert(policy).unwrap();
        engine.upsert(pod("a", "10.0.0.1")).unwrap();
        before.into_iter().for_each(|it| engine.upsert(it).unwrap());
        engine.inputs_complete();
        let verdict = |update: Option<Update>| {
            assert!(update.is_some(), "{change:?}");
            enforced(update).outcome(&flow).verdict()
        };
        assert_eq!(verdict(engine.poll_update()), Verdict::Deny, "before {change:?}");
        done(&mut engine);
        engine.upsert(change.clone()).unwrap();
        assert_eq!(verdict(engine.poll_update()), Verdict::Allow, "after {change:?}");
        done(&mut engine);
        assert!(engine.remove(&change.key()));
        assert_eq!(verdict(engine.poll_update()), Verdict::Deny, "without {change:?}");
    }
}

/// Blocks for the endpoint's own side restrict a rule to their family also where the endpoint is in all of them: it sends
/// and gets packets of the other family, too.
#[test]
fn blocks_that_hold_the_endpoint_leave_the_family_of_the_rule() {
    let mut policy = closed("a");
    let mut matches = RuleMatch::default();
    matches.destination.nets = Some([Prefix::all(Family::V4)].into_iter().collect());
    policy.ingress = Some(vec![Rule::new(0, Action::Allow, matches)]);
    let mut engine = engine();
    engine.upsert(policy).unwrap();
    engine.upsert(pod("a", "10.0.0.1")).unwrap();
    engine.inputs_complete();
    let program = enforced(engine.poll_update());
    let families: Vec<_> = program
        .policy_sets
        .values()
        .flat_map(|set| &set.stages)
        .flat_map(|stage| &stage.rules)
        .map(|rule| rule.family)
        .collect();
    assert_eq!(families, [Some(Family::V4)]);
}
