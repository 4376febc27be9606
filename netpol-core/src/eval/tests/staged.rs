//! Staged policies: what the verdict would be with them.

use super::*;

/// Checks what the judge says of ingress at the database, now and with staged policies.
#[track_caller]
fn check_both(case: &str, inputs: &Inputs, enforced: &str, pending: &str) {
    let capabilities = Capabilities::all();
    let evaluation = Judge::new(inputs, &capabilities).evaluate(&tcp(OUTSIDE, DB, 1));
    let said = |judgement: &crate::eval::Judgement| {
        judgement.ingress.to_string().replace("GlobalNetworkPolicy ", "")
    };
    assert_eq!(said(&evaluation.enforced), enforced, "{case}");
    assert_eq!(said(&evaluation.pending), pending, "{case}, with staged policies");
}

/// Returns the same policy with a key of this kind, in namespace `x` if such policies are in one.
fn of_kind(mut policy: Policy, kind: PolicyKind) -> Policy {
    let is_global =
        matches!(kind, PolicyKind::GlobalNetworkPolicy | PolicyKind::StagedGlobalNetworkPolicy);
    policy.key.kind = kind;
    policy.key.namespace = (!is_global).then(|| "x".into());
    policy
}

fn removal(mut policy: Policy) -> Policy {
    policy.enforcement = Enforcement::StagedRemoval;
    policy
}

#[test]
fn staged_policies_are_judged_beside_the_enforced_ones() {
    for (case, policies, enforced, pending) in [
        (
            "nothing staged",
            vec![policy("p", "A", "-")],
            "allow: rule p ingress[0]",
            "allow: rule p ingress[0]",
        ),
        (
            "a tier with staged policies only",
            vec![policy("p", "", "-").staged()],
            DEFAULT_ALLOW,
            "deny: no rule matched in tier `default`; asked: p",
        ),
        (
            "before an enforced one",
            vec![policy("p", "A", "-").order(2), policy("q", "LD", "-").order(1).staged()],
            "allow: rule p ingress[0]",
            "logged by q ingress[0]; deny: rule q ingress[1]",
        ),
        (
            "after an enforced one",
            vec![policy("p", "", "-").order(1), policy("q", "A", "-").order(2).staged()],
            "deny: no rule matched in tier `default`; asked: p",
            "allow: rule q ingress[0]",
        ),
        (
            "for the other direction",
            vec![policy("p", "A", "-"), policy("q", "-", "D").staged()],
            "allow: rule p ingress[0]",
            "allow: rule p ingress[0]",
        ),
    ] {
        check_both(case, &super::policies(policies), enforced, pending);
    }
}

/// Scenario 14 of the Calico extract: a tier with nothing but staged policies is as if it were not there.
#[test]
fn a_tier_of_staged_policies_denies_only_in_the_pending_view() {
    let inputs = cluster([
        tier("first", Some(10), TierEnd::Deny),
        policy("s", "", "-").tier("first").staged().into(),
        policy("q", "A", "-").into(),
    ]);
    check_both(
        "no rules",
        &inputs,
        "allow: rule q ingress[0]",
        "deny: no rule matched in tier `first`; asked: s",
    );
    let inputs = cluster([
        tier("first", Some(10), TierEnd::Deny),
        policy("s", "D", "-").tier("first").staged().into(),
        policy("q", "A", "-").into(),
    ]);
    check_both("a Deny", &inputs, "allow: rule q ingress[0]", "deny: rule s ingress[0]");
}

#[test]
fn a_staged_policy_takes_the_place_of_the_one_it_stands_for() {
    use PolicyKind::*;
    for (kind, staged) in [
        (NetworkPolicy, StagedNetworkPolicy),
        (GlobalNetworkPolicy, StagedGlobalNetworkPolicy),
        (KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy),
    ] {
        let key = |kind| of_kind(policy("p", "", "-"), kind).key.to_string();
        let (is, will_be) = (key(kind), key(staged));
        let said = |text: &str| text.replace("GlobalNetworkPolicy ", "");
        let enforced = |rules| of_kind(policy("p", rules, "-"), kind);
        let version = |rules| of_kind(policy("p", rules, "-"), staged).staged();
        check_both(
            "another version",
            &policies(vec![enforced("A"), version("D")]),
            &said(&alloc::format!("allow: rule {is} ingress[0]")),
            &said(&alloc::format!("deny: rule {will_be} ingress[0]")),
        );
        check_both(
            "a version that no longer isolates",
            &policies(vec![enforced(""), version("-")]),
            &said(&alloc::format!("deny: no rule matched in tier `default`; asked: {is}")),
            DEFAULT_ALLOW,
        );
        let elsewhere = version("D").order(2).tier(Tier::KUBE_BASELINE);
        check_both(
            "a version in another tier",
            &policies(vec![enforced("P"), elsewhere]),
            &said(&alloc::format!(
                "passed on by {is} ingress[0]; allow: no policy applies; default verdict of the endpoint"
            )),
            &said(&alloc::format!("deny: rule {will_be} ingress[0]")),
        );
        check_both(
            "its removal",
            &policies(vec![enforced("D"), removal(of_kind(policy("p", "-", "-"), staged))]),
            &said(&alloc::format!("deny: rule {is} ingress[0]")),
            DEFAULT_ALLOW,
        );
        let mut other = version("A");
        other.key.name = "q".into();
        check_both(
            "a policy of another name",
            &policies(vec![enforced("D"), other]),
            &said(&alloc::format!("deny: rule {is} ingress[0]")),
            &said(&alloc::format!("deny: rule {is} ingress[0]")),
        );
    }
}

#[test]
fn only_the_policy_of_its_kind_and_namespace_is_replaced() {
    let enforced = of_kind(policy("p", "D", "-"), PolicyKind::NetworkPolicy);
    let denied = "deny: rule NetworkPolicy x/p ingress[0]";
    let mut elsewhere = of_kind(policy("p", "-", "-"), PolicyKind::StagedNetworkPolicy);
    elsewhere.key.namespace = Some("y".into());
    let other = of_kind(policy("p", "-", "-"), PolicyKind::StagedKubernetesNetworkPolicy);
    for staged in [elsewhere, other] {
        check_both(
            "removal",
            &policies(vec![enforced.clone(), removal(staged.clone())]),
            denied,
            denied,
        );
        check_both("version", &policies(vec![enforced.clone(), staged.staged()]), denied, denied);
    }
}

/// Names break ties as they would if the staged policy were enforced: its own kind says nothing.
#[test]
fn a_staged_policy_is_asked_where_it_would_be_if_it_were_enforced() {
    let calico = of_kind(policy("p", "D", "-"), PolicyKind::NetworkPolicy);
    let staged = of_kind(policy("p", "A", "-"), PolicyKind::StagedKubernetesNetworkPolicy).staged();
    check_both(
        "`KubernetesNetworkPolicy` comes before `NetworkPolicy`",
        &policies(vec![calico, staged]),
        "deny: rule NetworkPolicy x/p ingress[0]",
        "allow: rule StagedKubernetesNetworkPolicy x/p ingress[0]",
    );
}

#[test]
fn staged_policies_cost_no_more_than_others() {
    let many = |kind: PolicyKind, enforcement| {
        (0..3_000).map(move |index| {
            let mut policy = of_kind(policy(&alloc::format!("p{index}"), "D", "-"), kind);
            policy.enforcement = enforcement;
            Object::from(policy)
        })
    };
    let inputs = cluster(
        many(PolicyKind::NetworkPolicy, Enforcement::Enforced)
            .chain(many(PolicyKind::StagedNetworkPolicy, Enforcement::StagedRemoval)),
    );
    check_both("all removed", &inputs, "deny: rule NetworkPolicy x/p0 ingress[0]", DEFAULT_ALLOW);
}
