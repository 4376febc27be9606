#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::model::{
    Action, Endpoint, Enforcement, EntityMatch, HostTraffic, HttpMatch, L4Match, Object, Order,
    Peers, Policy, PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch, Tier, TierEnd,
};
use crate::net::{IcmpMatch, PortRange, Prefix, PrefixSet, Protocol, Transport};
use crate::selector::Selector;

fn key(kind: PolicyKind, name: &str) -> PolicyKey {
    PolicyKey { kind, namespace: Some("x".into()), name: name.into() }
}

/// Returns a policy of namespace `x` with these rules of ingress.
fn policy(name: &str, rules: Vec<Rule>) -> Policy {
    let mut policy = Policy::new(key(PolicyKind::NetworkPolicy, name), Selector::all());
    policy.ingress = Some(rules);
    policy
}

fn with(policy: Policy, change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = policy;
    change(&mut policy);
    policy
}

/// Numbers rules as they are written.
fn rules(all: impl IntoIterator<Item = (Action, RuleMatch)>) -> Vec<Rule> {
    let rule = |(index, (action, matches))| Rule::new(index, action, matches);
    all.into_iter().enumerate().map(rule).collect()
}

fn from(source: EntityMatch) -> RuleMatch {
    RuleMatch { source, ..RuleMatch::default() }
}

fn nets(nets: &[&str], not_nets: &[&str]) -> EntityMatch {
    let set = |texts: &[&str]| -> PrefixSet {
        texts.iter().map(|it| it.parse::<Prefix>().unwrap()).collect()
    };
    let nets = (!nets.is_empty()).then(|| set(nets));
    EntityMatch { nets, not_nets: set(not_nets), ..EntityMatch::default() }
}

fn peers(selector: &str, not: Option<&str>) -> EntityMatch {
    EntityMatch {
        peers: Some(Peers::Endpoints(selector.parse().unwrap())),
        not_peers: not.map(|it| it.parse().unwrap()),
        ..EntityMatch::default()
    }
}

fn ports(any_of: Option<&[(u16, u16)]>, none_of: Option<&[(u16, u16)]>) -> RuleMatch {
    let list = |ranges: &[(u16, u16)]| PortMatch {
        numbers: ranges.iter().map(|(a, b)| PortRange::new(*a, *b).unwrap()).collect(),
        ..PortMatch::default()
    };
    let destination = PortConstraint { any_of: any_of.map(list), none_of: none_of.map(list) };
    let (transport, source) = (Transport::Tcp, PortConstraint::default());
    let l4 = L4Match::Ports { transport, source, destination };
    RuleMatch { l4, ..RuleMatch::default() }
}

fn icmp(is: Option<(u8, Option<u8>)>, is_not: Option<(u8, Option<u8>)>) -> RuleMatch {
    let message = |(kind, code)| IcmpMatch { kind, code };
    let l4 = L4Match::Icmp { family: Family::V4, is: is.map(message), is_not: is_not.map(message) };
    RuleMatch { l4, ..RuleMatch::default() }
}

/// Checks all that is found, as people read it.
#[track_caller]
fn check(case: &str, objects: impl IntoIterator<Item = Object>, want: &[&str]) {
    let mut inputs = Inputs::default();
    objects.into_iter().for_each(|object| inputs.upsert(object));
    let found: Vec<String> = lint(&inputs).iter().map(ToString::to_string).collect();
    assert_eq!(found, want, "{case}");
}

#[track_caller]
fn check_rules(case: &str, all: Vec<(Action, RuleMatch)>, want: &[&str]) {
    check(case, [policy("p", rules(all)).into()], want);
}

const DENY: Action = Action::Deny;
const ALLOW: Action = Action::Allow;

#[test]
fn rules_behind_one_that_matches_all_they_match() {
    let found = "NetworkPolicy x/p ingress[1]: no flow reaches it, as ingress[0] matches all that it matches, and comes first";
    let any = RuleMatch::default;
    for (case, first, second) in [
        ("everything", any(), ports(Some(&[(80, 80)]), None)),
        ("the same", ports(Some(&[(80, 80)]), None), ports(Some(&[(80, 80)]), None)),
        ("more ports", ports(Some(&[(1, 99)]), None), ports(Some(&[(5, 7), (80, 99)]), None)),
        ("all but other ports", ports(None, Some(&[(1, 9)])), ports(Some(&[(10, 10)]), None)),
        ("fewer excepted", ports(None, Some(&[(5, 7)])), ports(None, Some(&[(1, 9)]))),
        ("the protocol", RuleMatch { l4: L4Match::Is(Protocol::TCP), ..any() }, ports(None, None)),
        (
            "other protocols excepted",
            RuleMatch { l4: L4Match::IsNot([Protocol::UDP].into()), ..any() },
            ports(None, None),
        ),
        ("every code", icmp(Some((3, None)), None), icmp(Some((3, Some(4))), None)),
        ("all but another type", icmp(None, Some((8, None))), icmp(Some((3, None)), None)),
        ("more addresses", from(nets(&["10.0.0.0/8"], &[])), from(nets(&["10.1.0.0/16"], &[]))),
        (
            "addresses without a hole",
            from(nets(&["10.0.0.0/8"], &["10.1.0.0/16"])),
            from(nets(&["10.0.0.0/8"], &["10.0.0.0/15"])),
        ),
        ("more peers", from(peers("has(app)", None)), from(peers("app == 'a'", None))),
        (
            "fewer peers excepted",
            from(peers("has(app)", Some("app == 'a' && has(b)"))),
            from(peers("has(app)", Some("app == 'a'"))),
        ),
        ("both families", any(), RuleMatch { family: Some(Family::V4), ..any() }),
        ("the family of ICMP", RuleMatch { family: Some(Family::V4), ..any() }, icmp(None, None)),
    ] {
        check_rules(case, vec![(DENY, first.clone()), (ALLOW, second.clone())], &[found]);
        if first != second {
            check_rules("the other way round", vec![(DENY, second), (ALLOW, first)], &[]);
        }
    }
}

#[test]
fn rules_that_are_reached() {
    let any = RuleMatch::default;
    check_rules("Log goes on", vec![(Action::Log, any()), (DENY, any())], &[]);
    let named = |name: &str| {
        let list = PortMatch { names: [name.into()].into(), ..PortMatch::default() };
        let mut matches = ports(None, None);
        if let L4Match::Ports { destination, .. } = &mut matches.l4 {
            destination.any_of = Some(list);
        }
        matches
    };
    check_rules("another name", vec![(DENY, named("a")), (ALLOW, named("b"))], &[]);
    check_rules(
        "a number and a name",
        vec![(DENY, ports(Some(&[(1, 65_535)]), None)), (ALLOW, named("b"))],
        &[],
    );
    // Names count for those peers only that are selected: the first rule excepts the port of one that is not.
    let but_web = |destination| {
        let mut matches = RuleMatch { destination, ..ports(None, None) };
        if let L4Match::Ports { destination, .. } = &mut matches.l4 {
            let names = ["web".into()].into();
            destination.none_of = Some(PortMatch { names, ..PortMatch::default() });
        }
        matches
    };
    let some = || but_web(peers("app == 'a'", None));
    check_rules(
        "a name excepted for others, too",
        vec![(DENY, but_web(EntityMatch::default())), (ALLOW, some())],
        &[],
    );
    let destination = |entity| RuleMatch { destination: entity, ..RuleMatch::default() };
    check_rules(
        "the other side",
        vec![(DENY, from(peers("a == 'b'", None))), (ALLOW, destination(peers("a == 'b'", None)))],
        &[],
    );
    let mut degraded = rules([(DENY, any()), (ALLOW, ports(Some(&[(80, 80)]), None))]);
    degraded[0].degraded = true;
    check(
        "part of the first one is unknown",
        [policy("p", degraded).into()],
        &["NetworkPolicy x/p ingress[0]: part of it could not be read"],
    );
}

/// What is one rule to its author is dead only as a whole.
#[test]
fn rules_of_several_parts() {
    let port = |number| ports(Some(&[(number, number)]), None);
    let mut parts =
        rules([(DENY, port(80)), (DENY, port(81)), (ALLOW, port(80)), (ALLOW, port(81))]);
    parts[2].index = 2;
    parts[3].index = 2;
    let found = "NetworkPolicy x/p ingress[2]: no flow reaches it, as ingress[0] matches all that it matches, and comes first";
    check("each part behind another rule", [policy("p", parts.clone()).into()], &[found]);
    parts[3].matches = port(82);
    check("one part is reached", [policy("p", parts.clone()).into()], &[]);
    parts[3].matches = ports(Some(&[]), None);
    check("one part is impossible", [policy("p", parts.clone()).into()], &[found]);
    parts.drain(..2);
    parts[1] = parts[0].clone();
    check("parts of one rule are alike", [policy("p", parts).into()], &[]);
}

#[test]
fn names_of_rules_are_shown() {
    let mut all = rules([(DENY, RuleMatch::default()), (ALLOW, RuleMatch::default())]);
    all[0].name = Some("close".into());
    all[1].name = Some("open\u{1b}[31m".into());
    check(
        "names",
        [policy("p", all).into()],
        &[
            "NetworkPolicy x/p ingress[1] `open\\u{1b}[31m`: no flow reaches it, as ingress[0] `close` matches all that it matches, and comes first",
        ],
    );
}

#[test]
fn conditions_that_no_flow_meets() {
    let destination = |entity| RuleMatch { destination: entity, ..RuleMatch::default() };
    for (matches, why) in [
        (from(nets(&["10.0.0.0/8"], &["10.0.0.0/8"])), "no address is left for the source"),
        (from(nets(&[], &["0.0.0.0/0", "::/0"])), "no address is left for the source"),
        (
            destination(EntityMatch { nets: Some(PrefixSet::default()), ..EntityMatch::default() }),
            "no address is left for the destination",
        ),
        (from(peers("a == '1' && a == '2'", None)), "nothing can be the source that it asks for"),
        (
            destination(peers("a == '1'", Some("has(a)"))),
            "nothing can be the destination that it asks for",
        ),
        (
            from(EntityMatch {
                peers: Some(Peers::Nodes(Selector::none())),
                ..EntityMatch::default()
            }),
            "nothing can be the source that it asks for",
        ),
        (
            from(EntityMatch {
                peers: Some(Peers::DomainNames([].into())),
                ..EntityMatch::default()
            }),
            "nothing can be the source that it asks for",
        ),
        (ports(Some(&[]), None), "no port is left for the destination"),
        (ports(Some(&[(5, 6)]), Some(&[(1, 9)])), "no port is left for the destination"),
        (icmp(Some((3, Some(4))), Some((3, None))), "no type of ICMP is left"),
        (
            RuleMatch { family: Some(Family::V6), ..from(nets(&["10.0.0.0/8"], &[])) },
            "they belong to different address families",
        ),
        (
            RuleMatch { destination: nets(&["fd00::/8"], &[]), ..from(nets(&["10.0.0.0/8"], &[])) },
            "they belong to different address families",
        ),
        (
            RuleMatch { source: nets(&["fd00::/8"], &[]), ..icmp(None, None) },
            "they belong to different address families",
        ),
    ] {
        let found = ["NetworkPolicy x/p ingress[0]: no flow meets its conditions: ", why].concat();
        check_rules(why, vec![(ALLOW, matches)], &[&found]);
    }
    for matches in [
        from(nets(&["10.0.0.0/8"], &["10.0.0.0/9"])),
        from(nets(&[], &["0.0.0.0/0"])),
        from(peers("a == '1'", Some("a == '2'"))),
        ports(Some(&[(5, 10)]), Some(&[(1, 9)])),
        icmp(Some((3, None)), Some((3, Some(4)))),
        RuleMatch {
            destination: nets(&["fd00::/8"], &[]),
            ..from(nets(&["10.0.0.0/8", "fd00::/8"], &[]))
        },
    ] {
        check_rules("some flow does", vec![(ALLOW, matches)], &[]);
    }
}

#[test]
fn lists_of_one_family_for_endpoints_of_both() {
    let pod = |name: &str, addresses: &[&str]| {
        let mut pod = Endpoint::pod("x", name);
        pod.addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        Object::from(pod)
    };
    let only = |matches| Object::from(policy("p", rules([(ALLOW, matches)])));
    let v4 = || from(nets(&["10.0.0.0/8"], &[]));
    let found = "NetworkPolicy x/p ingress[0]: matches IPv4 only, as the addresses it lists are; x/both has addresses of both families";
    let both = || pod("both", &["10.0.0.1", "fd00::1"]);
    check("a list of one family", [only(v4()), both()], &[found]);
    check(
        "all of one family excepted",
        [only(from(nets(&["10.0.0.0/8", "fd00::/8"], &["fd00::/8"]))), both()],
        &[found],
    );
    check("lists of both", [only(from(nets(&["10.0.0.0/8", "fd00::/8"], &[]))), both()], &[]);
    check("no such endpoint", [only(v4()), pod("one", &["10.0.0.1"])], &[]);
    let other =
        with(policy("p", rules([(ALLOW, v4())])), |it| it.subject = "a == 'b'".parse().unwrap());
    check("another endpoint", [other.into(), both()], &[]);
    check("asked for", [only(RuleMatch { family: Some(Family::V4), ..v4() }), both()], &[]);
    check("ICMP has a family", [only(icmp(None, None)), both()], &[]);
}

#[test]
fn rules_that_are_left_out_somewhere() {
    let http = RuleMatch { http: Some(HttpMatch::default()), ..ports(None, None) };
    check_rules(
        "HTTP",
        vec![(ALLOW, http.clone())],
        &[
            "NetworkPolicy x/p ingress[0]: is about HTTP requests; where nothing judges these, it is left out",
        ],
    );
    // It is left out where nothing judges requests, so what comes after it is reached.
    check_rules(
        "behind HTTP",
        vec![(ALLOW, http), (DENY, ports(None, None))],
        &[
            "NetworkPolicy x/p ingress[0]: is about HTTP requests; where nothing judges these, it is left out",
        ],
    );
}

#[test]
fn policies_that_names_put_in_order() {
    let any = RuleMatch::default;
    let found = "NetworkPolicy x/b: asked after NetworkPolicy x/a for no other reason than its name; they have the same order, and differ in what they do";
    let pair = |one: Policy, other: Policy| [Object::from(one), Object::from(other)];
    let deny = |name| policy(name, rules([(DENY, any())]));
    let allow = |name| policy(name, rules([(ALLOW, any())]));
    check("no order", pair(deny("a"), allow("b")), &[found]);
    let ordered = |it: Policy, order| with(it, |it| it.order = Some(Order::whole(order)));
    check("one order", pair(ordered(deny("a"), 5), ordered(allow("b"), 5)), &[found]);
    check("two orders", pair(ordered(deny("a"), 5), ordered(allow("b"), 6)), &[]);
    check("order and none", pair(ordered(deny("a"), 5), allow("b")), &[]);
    check("both allow", pair(allow("a"), allow("b")), &[]);
    check("both deny", pair(deny("a"), deny("b")), &[]);
    let logs = policy("b", rules([(Action::Log, any()), (DENY, any())]));
    check("one logs, too", pair(deny("a"), logs), &[]);
    check(
        "two tiers",
        pair(deny("a"), with(allow("b"), |it| it.tier = Tier::KUBE_ADMIN.into())),
        &[],
    );
    let selects = |it: Policy, subject: &str| with(it, |it| it.subject = subject.parse().unwrap());
    check(
        "two subjects",
        pair(selects(deny("a"), "app == 'a'"), selects(allow("b"), "app == 'b'")),
        &[],
    );
    check(
        "subjects in common",
        pair(selects(deny("a"), "app == 'a'"), selects(allow("b"), "has(b)")),
        &[found],
    );
    let egress = |it: Policy| with(it, |it| it.egress = it.ingress.take());
    check("two directions", pair(deny("a"), egress(allow("b"))), &[]);
    check("one direction", pair(egress(deny("a")), egress(allow("b"))), &[found]);
    let at = |name, action, number| {
        policy(name, rules([(action, ports(Some(&[(number, number)]), None))]))
    };
    check("two ports", pair(at("a", DENY, 80), at("b", ALLOW, 81)), &[]);
    check("one port", pair(at("a", DENY, 80), at("b", ALLOW, 80)), &[found]);
    let staged = |it: Policy| with(it, |it| it.enforcement = Enforcement::Staged);
    let host = |it: Policy, traffic| with(it, |it| it.host_traffic = traffic);
    for traffic in [HostTraffic::BeforeDestinationNat, HostTraffic::Untracked] {
        check("other traffic", pair(deny("a"), host(allow("b"), traffic)), &[]);
        let both = pair(host(deny("a"), traffic), host(allow("b"), traffic));
        check("the same traffic of hosts", both, &[found]);
    }
    let forwarded = pair(deny("a"), host(allow("b"), HostTraffic::LocalAndForwarded));
    check("traffic in common", forwarded, &[found]);
    check("one is staged", pair(deny("a"), staged(allow("b"))), &[]);
    check(
        "each has one finding",
        [deny("a"), allow("b"), allow("c")].map(Object::from),
        &[found, &found.replace("x/b", "x/c")],
    );
}

#[test]
fn policies_that_only_log() {
    let log = || (Action::Log, RuleMatch::default());
    let found = "NetworkPolicy x/p: all its rules of ingress only log, and yet it isolates: what no other policy of the tier allows is denied";
    check("only Log", [policy("p", rules([log()])).into()], &[found]);
    check("Log and more", [policy("p", rules([log(), (ALLOW, RuleMatch::default())])).into()], &[]);
    check("no rules", [policy("p", vec![]).into()], &[]);
    let passes = with(policy("p", rules([log()])), |it| it.tier = Tier::KUBE_ADMIN.into());
    check("the tier passes at its end", [passes.into()], &[]);
    let untracked =
        with(policy("p", rules([log()])), |it| it.host_traffic = HostTraffic::Untracked);
    check("what is not tracked passes at the end", [untracked.into()], &[]);
}

#[test]
fn policies_that_can_select_nothing() {
    let selects = |subject: &str| {
        Object::from(with(policy("p", vec![]), |it| it.subject = subject.parse().unwrap()))
    };
    check(
        "nothing",
        [selects("a == '1' && a == '2'")],
        &["NetworkPolicy x/p: no labels can meet its selector"],
    );
    check("something", [selects("a == '1' && b == '2'")], &[]);
}

#[test]
fn tiers_that_do_not_exist() {
    let of = |tier: &str| Object::from(with(policy("p", vec![]), |it| it.tier = tier.into()));
    let tier = || Object::from(Tier::new("t", None, TierEnd::Pass));
    check(
        "unknown",
        [of("t")],
        &["NetworkPolicy x/p: tier `t` does not exist: it is asked last and denies at its end"],
    );
    check("known", [of("t"), tier()], &[]);
    check("built in", [of(Tier::KUBE_BASELINE)], &[]);
}

#[test]
fn two_generations_of_an_api() {
    let of = |kind| {
        Object::from(with(policy("p", vec![]), |it| {
            it.key = PolicyKey { namespace: None, ..key(kind, "p") }
        }))
    };
    let newer = || of(PolicyKind::KubernetesClusterNetworkPolicy);
    for kind in
        [PolicyKind::KubernetesAdminNetworkPolicy, PolicyKind::KubernetesBaselineAdminNetworkPolicy]
    {
        let found = [kind.as_str(), " p: in force together with KubernetesClusterNetworkPolicy p: expected policies of one generation of the API"].concat();
        check("both", [of(kind), newer()], &[&found]);
        check("the older alone", [of(kind)], &[]);
    }
    check("the newer alone", [newer()], &[]);
}

#[test]
fn staged_policies_for_nothing() {
    let enforced = || policy("p", vec![]);
    let staged = |enforcement| {
        with(policy("p", vec![]), |it| {
            (it.key.kind, it.enforcement) = (PolicyKind::StagedNetworkPolicy, enforcement);
        })
    };
    let removal = || {
        Object::from(with(staged(Enforcement::StagedRemoval), |it| it.subject = Selector::none()))
    };
    check(
        "nothing to remove",
        [removal()],
        &["StagedNetworkPolicy x/p: the policy that it removes does not exist"],
    );
    check("something to remove", [removal(), enforced().into()], &[]);
    let new = || staged(Enforcement::Staged);
    check("a new one", [new().into()], &[]);
    check(
        "the same again",
        [new().into(), enforced().into()],
        &["StagedNetworkPolicy x/p: says what the policy that it stands for says already"],
    );
    let other = with(new(), |it| it.egress = Some(vec![]));
    check("another one", [other.into(), enforced().into()], &[]);
}

#[test]
fn hostile_numbers_of_rules_and_policies_take_little_time() {
    let many =
        |number: u16| rules((1..=number).map(|port| (ALLOW, ports(Some(&[(port, port)]), None))));
    let mut inputs = Inputs::default();
    inputs.upsert(policy("p", many(20_000)));
    for index in 0..2_000 {
        let action = if index % 2 == 0 { DENY } else { ALLOW };
        let number = index + 1;
        let other = policy(
            &alloc::format!("q{index}"),
            rules([(action, ports(Some(&[(number, number)]), None))]),
        );
        inputs.upsert(other);
    }
    assert!(lint(&inputs).len() <= 2_000);
}

#[test]
fn every_lint_has_a_name_and_a_weight() {
    let direction = Direction::Ingress;
    let unlisted = Lint::UnlistedDirection { direction };
    assert_eq!(
        (unlisted.name(), unlisted.severity().to_string()),
        ("unlisted-direction", "warning".into())
    );
    assert_eq!(
        unlisted.to_string(),
        "has rules of ingress, which have no effect: it does not list the direction"
    );
    assert_eq!(Lint::ChangesNothing.severity().to_string(), "note");
    assert!(Severity::Note < Severity::Warning);
}
