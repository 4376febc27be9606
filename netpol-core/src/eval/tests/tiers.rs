//! Tiers, policies, actions and degraded rules, as Calico documents them.

use super::*;

fn in_tiers(more: Vec<Policy>) -> Inputs {
    let tiers = [
        tier("first", Some(10), TierEnd::Deny),
        tier("second", Some(20), TierEnd::Pass),
        tier("after-default", Some(2_000_000), TierEnd::Deny),
    ];
    cluster(tiers.into_iter().chain(more.into_iter().map(Object::from)))
}

#[test]
fn a_tier_counts_only_if_a_policy_applies_to_endpoint_and_direction() {
    let denied = "deny: no rule matched in tier `first`; asked: p";
    for (case, policies, want) in [
        ("no policy", vec![], DEFAULT_ALLOW),
        ("a policy without rules", vec![policy("p", "", "-").tier("first")], denied),
        ("only staged policies", vec![policy("p", "", "-").tier("first").staged()], DEFAULT_ALLOW),
        ("only the other direction", vec![policy("p", "-", "").tier("first")], DEFAULT_ALLOW),
        ("both directions", vec![policy("p", "", "A").tier("first")], denied),
        (
            "another endpoint",
            vec![policy("p", "", "").tier("first").subject("app == 'web'")],
            DEFAULT_ALLOW,
        ),
        (
            "the policies of one direction are not asked in the other",
            vec![policy("p", "", "-").tier("first"), policy("q", "-", "A").tier("first")],
            denied,
        ),
    ] {
        check_ingress(case, &in_tiers(policies), want);
    }
}

#[test]
fn a_policy_of_one_direction_leaves_the_other_to_the_default_verdict() {
    let inputs = policies(vec![policy("p", "", "-").subject("app in {'web', 'vm'}")]);
    let denied = "deny: no rule matched in tier `default`; asked: p";
    check("out of web", &inputs, tcp(WEB, OUTSIDE, 80), DEFAULT_ALLOW, NO_ENDPOINT);
    check("into web", &inputs, tcp(OUTSIDE, WEB, 80), NO_ENDPOINT, denied);
    check("out of the machine", &inputs, tcp(VM, OUTSIDE, 80), DEFAULT_DENY, NO_ENDPOINT);
    check("into the machine", &inputs, tcp(OUTSIDE, VM, 80), NO_ENDPOINT, denied);
}

#[test]
fn actions_decide_leave_the_tier_or_go_on() {
    for (case, first, default, want) in [
        ("the first match decides", "AD", "D", "allow: rule p ingress[0]"),
        ("deny decides", "DA", "A", "deny: rule p ingress[0]"),
        ("allow is final for all tiers", "A", "D", "allow: rule p ingress[0]"),
        ("pass leaves the tier", "PA", "D", "passed on by p ingress[0]; deny: rule q ingress[0]"),
        (
            "pass in the last tier that applies",
            "P",
            "-",
            "passed on by p ingress[0]; allow: no policy applies; default verdict of the endpoint",
        ),
        (
            "pass meets the end of the next tier",
            "P",
            "",
            "passed on by p ingress[0]; deny: no rule matched in tier `default`; asked: q",
        ),
        ("log goes on", "LA", "D", "logged by p ingress[0]; allow: rule p ingress[1]"),
        (
            "a policy that only logs isolates",
            "L",
            "A",
            "logged by p ingress[0]; deny: no rule matched in tier `first`; asked: p",
        ),
        (
            "two log rules are two steps",
            "LLD",
            "A",
            "logged by p ingress[0]; logged by p ingress[1]; deny: rule p ingress[2]",
        ),
        (
            "the end of a tier is not rescued",
            "",
            "A",
            "deny: no rule matched in tier `first`; asked: p",
        ),
    ] {
        let inputs =
            in_tiers(vec![policy("p", first, "-").tier("first"), policy("q", default, "-")]);
        check_ingress(case, &inputs, want);
    }
}

#[test]
fn rules_of_one_wire_rule_log_once() {
    let mut p = policy("p", "LLLA", "-");
    for (rule, index) in p.ingress.as_mut().unwrap().iter_mut().zip([0, 0, 1, 1]) {
        rule.index = index;
    }
    let want = "logged by p ingress[0]; logged by p ingress[1]; allow: rule p ingress[1]";
    check_ingress("two rules each from two wire rules", &policies(vec![p]), want);
}

#[test]
fn tiers_that_pass_at_their_end_are_advice() {
    let passed = "no rule matched in tier `second`, which passes at its end; ";
    let rest = "allow: no policy applies; default verdict of the endpoint";
    check_ingress(
        "last tier",
        &in_tiers(vec![policy("p", "", "-").tier("second")]),
        &[passed, rest].concat(),
    );
    check_ingress(
        "a later tier decides",
        &in_tiers(vec![policy("p", "", "-").tier("second"), policy("q", "D", "-")]),
        &[passed, "deny: rule q ingress[0]"].concat(),
    );
    let inputs = in_tiers(vec![policy("p", "", "-").tier("second")]);
    let want = [passed, "deny: no policy applies; default verdict of the endpoint"].concat();
    check("an endpoint that denies by default", &inputs, tcp(OUTSIDE, VM, 22), NO_ENDPOINT, &want);
}

#[test]
fn tiers_are_asked_by_order_then_name_and_unknown_ones_last() {
    let want = [
        "negative",
        "alpha",
        "zeta",
        "also-admin",
        "kube-admin",
        "default",
        "after-default",
        "kube-baseline",
        "no-order-a",
        "no-order-b",
        "gone-a",
        "gone-b",
    ];
    // The names of the policies are in another order than the tiers.
    let policies = (10..).zip(want).map(|(place, name)| {
        let policy = policy(&alloc::format!("p{}", 99 - place), "LP", "-");
        policy.tier(name).into()
    });
    let second = policy("z", "LP", "-").tier("gone-a").into();
    let tiers = [
        tier("zeta", Some(7), TierEnd::Deny),
        tier("alpha", Some(7), TierEnd::Deny),
        tier("negative", Some(-3), TierEnd::Deny),
        tier("no-order-b", None, TierEnd::Pass),
        tier("no-order-a", None, TierEnd::Pass),
        tier("after-default", Some(2_000_000), TierEnd::Deny),
        tier("also-admin", Some(1_000), TierEnd::Deny),
        tier("kube-admin", Some(0), TierEnd::Deny),
        tier("default", None, TierEnd::Pass),
    ];
    let inputs = cluster(tiers.into_iter().chain(policies).chain([second]));
    let steps: String = (10..)
        .zip(want)
        .map(|(place, _)| alloc::format!("p{}", 99 - place))
        .map(|p| alloc::format!("logged by {p} ingress[0]; passed on by {p} ingress[1]; "))
        .collect();
    check_ingress("all kinds of tiers", &inputs, &[&steps, DEFAULT_ALLOW].concat());
}

#[test]
fn a_tier_that_does_not_exist_denies_at_its_end() {
    let gone = policy("p", "", "-").tier("gone");
    let denied = "deny: no rule matched in tier `gone`; asked: p";
    check_ingress("alone", &policies(vec![gone.clone()]), denied);
    check_ingress(
        "after a tier that exists",
        &policies(vec![gone.clone(), policy("q", "A", "-")]),
        "allow: rule q ingress[0]",
    );
    let passed = "passed on by q ingress[0]; ";
    check_ingress(
        "after a pass",
        &policies(vec![gone, policy("q", "P", "-")]),
        &[passed, denied].concat(),
    );
}

#[test]
fn policies_are_asked_by_order_then_name_namespace_and_kind() {
    let of = |kind, namespace: Option<&str>, name: &str, order: Option<f64>| {
        let mut policy = policy(name, "L", "-");
        policy.key = PolicyKey { kind, namespace: namespace.map(Into::into), name: name.into() };
        policy.order = order.map(|value| Order::new(value).unwrap());
        policy
    };
    let (namespaced, global) = (PolicyKind::NetworkPolicy, PolicyKind::GlobalNetworkPolicy);
    let kubernetes = PolicyKind::KubernetesNetworkPolicy;
    let inputs = policies(vec![
        of(global, None, "b", None),
        of(namespaced, Some("y"), "a", None),
        of(kubernetes, Some("y"), "a", None),
        of(namespaced, Some("x"), "a", None),
        of(global, None, "a", None),
        of(global, None, "late", Some(f64::INFINITY)),
        of(global, None, "z", Some(-1.5)),
        of(global, None, "zero", Some(-0.0)),
        of(global, None, "one", Some(0.0)),
    ]);
    let capabilities = Capabilities::all();
    let judge = Judge::new(&inputs, &capabilities);
    let ingress = judge.evaluate(&tcp(OUTSIDE, DB, 1)).enforced.ingress;
    let crate::verdict::Reason::NoMatch { tier, policies } = ingress.reason else {
        unreachable!("nothing but Log: {}", ingress.reason)
    };
    let asked: Vec<String> = policies.iter().map(ToString::to_string).collect();
    assert_eq!(tier, "default");
    assert_eq!(
        asked,
        [
            "GlobalNetworkPolicy z",
            "GlobalNetworkPolicy one",
            "GlobalNetworkPolicy zero",
            "GlobalNetworkPolicy late",
            "GlobalNetworkPolicy a",
            "NetworkPolicy x/a",
            "KubernetesNetworkPolicy y/a",
            "NetworkPolicy y/a",
            "GlobalNetworkPolicy b",
        ]
    );
    assert_eq!(ingress.steps.len(), asked.len());
}

#[test]
fn degraded_rules_never_widen_what_passes() {
    let only_outside = RuleMatch {
        source: crate::model::EntityMatch {
            nets: Some(nets(&["203.0.113.0/24"])),
            ..Default::default()
        },
        ..Default::default()
    };
    let left_out =
        "p ingress[0] is left out: part of it could not be read; deny: rule p ingress[1]";
    let tightened = "p ingress[0] denies whatever it may mean: part of it could not be read; deny: rule p ingress[0]";
    for (action, covered) in [("A", left_out), ("L", left_out), ("D", tightened), ("P", tightened)]
    {
        let mut p = policy("p", &[action, "D"].concat(), "-");
        let rule = &mut p.ingress.as_mut().unwrap()[0];
        rule.degraded = true;
        rule.matches = only_outside.clone();
        let inputs = policies(vec![p]);
        check_ingress(action, &inputs, covered);
        check(action, &inputs, tcp(OFFICE, DB, 1), NO_ENDPOINT, "deny: rule p ingress[1]");
    }
}

#[test]
fn a_degraded_allow_still_isolates() {
    let mut p = policy("p", "A", "-");
    p.ingress.as_mut().unwrap()[0].degraded = true;
    check_ingress(
        "its only rule",
        &policies(vec![p]),
        "p ingress[0] is left out: part of it could not be read; deny: no rule matched in tier `default`; asked: p",
    );
}

#[test]
fn what_a_dataplane_cannot_log_it_does_not_log() {
    let inputs = policies(vec![policy("p", "LA", "-")]);
    let mut capabilities = Capabilities::all();
    capabilities.log = false;
    let ingress =
        Judge::new(&inputs, &capabilities).evaluate(&tcp(OUTSIDE, DB, 1)).enforced.ingress;
    assert_eq!(
        ingress.to_string(),
        "GlobalNetworkPolicy p ingress[0] is left out: nothing here can log; allow: rule GlobalNetworkPolicy p ingress[1]"
    );
}
