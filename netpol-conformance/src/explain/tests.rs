#![expect(clippy::unwrap_used, reason = "test code")]

use netpol_core::eval::Judge;
use netpol_core::model::{
    Action, Attachment, Endpoint, Enforcement, HttpMatch, L4Match, Object, Order, Policy, Rule,
    RuleMatch, Tier, TierEnd,
};
use netpol_core::net::{Protocol, Transport};
use netpol_core::{Capabilities, Flow, Selector};

use super::*;

/// What can be done without somebody who looks into connections.
fn packets_only() -> Capabilities {
    let mut capabilities = Capabilities::all();
    capabilities.http = false;
    capabilities
}

/// Returns a policy of ingress into `shop/db`; each character is a rule, as in `LPAD`, `H` an Allow about HTTP.
fn of(kind: PolicyKind, name: &str, tier: &str, rules: &str) -> Policy {
    let namespaced = !matches!(kind, PolicyKind::GlobalNetworkPolicy);
    let namespace = namespaced.then(|| "shop".to_owned());
    let key = PolicyKey { kind, namespace, name: name.into() };
    let mut policy = Policy::new(key, "app == 'db'".parse::<Selector>().unwrap());
    policy.tier = tier.into();
    let rule = |(index, character)| {
        let mut matches = RuleMatch::default();
        let action = match character {
            'L' => Action::Log,
            'P' => Action::Pass,
            'D' => Action::Deny,
            'H' => {
                matches.l4 = L4Match::Is(Protocol::TCP);
                matches.http = Some(HttpMatch::default());
                Action::Allow
            }
            _ => Action::Allow,
        };
        let mut rule = Rule::new(index, action, matches);
        rule.name = (action == Action::Log).then(|| "watch".into());
        rule.degraded = character == '?';
        rule
    };
    policy.ingress = Some(rules.chars().enumerate().map(rule).collect());
    policy
}

#[track_caller]
fn check(policies: Vec<Policy>, capabilities: &Capabilities, want: &str) {
    let mut inputs = Inputs::default();
    for (name, address) in [("db", "10.0.0.2"), ("web", "10.0.0.1")] {
        let mut pod = Endpoint::pod("shop", name);
        pod.labels = [("app", name)].into_iter().collect();
        pod.addresses = vec![address.parse().unwrap()];
        inputs.upsert(pod);
    }
    inputs.upsert(Tier::new("audit", Some(Order::whole(1)), TierEnd::Deny));
    policies.into_iter().for_each(|it| inputs.upsert(it));
    let [web, db] = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse().unwrap());
    let evaluation =
        Judge::new(&inputs, capabilities).evaluate(&Flow::to_port(web, db, Transport::Tcp, 80));
    let text = explain(&evaluation, &inputs);
    assert_eq!(text, want, "{text}");
}

#[test]
fn tiers_policies_and_rules_are_on_their_own_lines() {
    use PolicyKind::*;
    check(
        vec![
            of(GlobalNetworkPolicy, "watch", "audit", "LP"),
            of(KubernetesClusterNetworkPolicy, "advice", "kube-admin", ""),
            of(KubernetesNetworkPolicy, "db-test", "default", "?"),
            of(NetworkPolicy, "default-deny", "default", ""),
        ],
        &packets_only(),
        "\
deny
  egress of shop/web: allow
    no policy applies; default verdict of the endpoint
  ingress of shop/db: deny
    tier `audit`
      logged by GlobalNetworkPolicy watch, ingress[0] `watch`
      passed on by GlobalNetworkPolicy watch, ingress[1]
    tier `kube-admin`
      no rule matched; the tier passes at its end
    tier `default`
      left out NetworkPolicy shop/db-test (networking.k8s.io), ingress[0]: part of it could not be read
      no rule matched, and the tier denies at its end; asked:
        NetworkPolicy shop/db-test (networking.k8s.io)
        NetworkPolicy shop/default-deny (projectcalico.org), without rules
",
    );
}

#[test]
fn the_rule_that_decides_is_named_and_the_default_verdict_after_passing() {
    use PolicyKind::*;
    check(
        vec![of(KubernetesAdminNetworkPolicy, "a", "kube-admin", "D")],
        &packets_only(),
        "\
deny
  egress of shop/web: allow
    no policy applies; default verdict of the endpoint
  ingress of shop/db: deny
    tier `kube-admin`
      denied by AdminNetworkPolicy shop/a, ingress[0]
",
    );
    check(
        vec![of(KubernetesBaselineAdminNetworkPolicy, "a", "kube-baseline", "P")],
        &packets_only(),
        "\
allow
  egress of shop/web: allow
    no policy applies; default verdict of the endpoint
  ingress of shop/db: allow
    tier `kube-baseline`
      passed on by BaselineAdminNetworkPolicy shop/a, ingress[0]
    no policy decides; default verdict of the endpoint
",
    );
}

#[test]
fn staged_policies_are_told_apart_from_enforced_ones() {
    let mut staged = of(PolicyKind::StagedNetworkPolicy, "p", "default", "D");
    staged.enforcement = Enforcement::Staged;
    check(
        vec![staged],
        &packets_only(),
        "\
allow
  egress of shop/web: allow
    no policy applies; default verdict of the endpoint
  ingress of shop/db: allow
    no policy applies; default verdict of the endpoint
with staged policies: deny
  egress of shop/web: allow, as without them
  ingress of shop/db: deny
    tier `default`
      denied by StagedNetworkPolicy shop/p, ingress[0]
",
    );
}

#[test]
fn rules_about_requests_say_so() {
    let policies = || vec![of(PolicyKind::NetworkPolicy, "p", "default", "H")];
    check(
        policies(),
        &packets_only(),
        "\
deny
  egress of shop/web: allow
    no policy applies; default verdict of the endpoint
  ingress of shop/db: deny
    tier `default`
      left out NetworkPolicy shop/p (projectcalico.org), ingress[0]: it is about HTTP requests, and nothing here judges them
      no rule matched, and the tier denies at its end; asked:
        NetworkPolicy shop/p (projectcalico.org)
",
    );
    check(
        policies(),
        &Capabilities::all(),
        "\
allow
  egress of shop/web: allow
    no policy applies; default verdict of the endpoint
  ingress of shop/db: allow
    tier `default`
      NetworkPolicy shop/p (projectcalico.org), ingress[0] is about HTTP requests, which are judged one by one
      allowed by NetworkPolicy shop/p (projectcalico.org), ingress[0]
",
    );
}

#[test]
fn reasons_tell_the_half_that_denies_or_all() {
    let [allow, deny] = [Verdict::Allow, Verdict::Deny]
        .map(|verdict| Explanation::at_once(verdict, Reason::DefaultVerdict));
    let inputs = Inputs::default();
    let line = "no policy applies; default verdict of the endpoint";
    for (egress, ingress, want) in [
        (Some(&allow), Some(&deny), format!("ingress: deny\n  {line}")),
        (Some(&deny), Some(&deny), format!("egress: deny\n  {line}\ningress: deny\n  {line}")),
        (Some(&allow), Some(&allow), format!("egress: allow\n  {line}\ningress: allow\n  {line}")),
        (None, Some(&allow), format!("ingress: allow\n  {line}")),
        (None, None, String::new()),
    ] {
        assert_eq!(reasons(egress, ingress, &[], &inputs), want);
    }
}

#[test]
fn host_endpoints_say_where_they_judge() {
    let node = netpol_core::model::Node {
        name: "n".into(),
        addresses: vec!["10.9.0.1".parse().unwrap()],
        ..Default::default()
    };
    let mut inputs = Inputs::default();
    inputs.upsert(Object::Node(node));
    inputs.upsert(Endpoint::host("h", "n", Attachment::OtherInterfaces));
    let capabilities = packets_only();
    let judge = Judge::new(&inputs, &capabilities);
    let flow = |port| {
        let [from, to] = ["192.0.2.1", "10.9.0.1"].map(|it| it.parse().unwrap());
        judge.evaluate(&Flow::to_port(from, to, Transport::Tcp, port))
    };
    let halves = "  egress: allow
    no endpoint owns the address, so no policy applies
  ingress: allow
    no endpoint owns the address, so no policy applies
";
    let before = "  untracked ingress of h (host): allow
    no policy applies; default verdict of the endpoint
  pre-DNAT ingress of h (host): allow
    no policy applies; default verdict of the endpoint
";
    let denied = "normal ingress of h (host): deny
    no policy applies; default verdict of the endpoint
";
    let text = explain(&flow(80), &inputs);
    assert_eq!(text, format!("deny\n{halves}{before}  {denied}"));
    let Judgement { egress, ingress, hosts, .. } = flow(80).enforced;
    assert_eq!(
        reasons(Some(&egress), Some(&ingress), &hosts, &inputs),
        "normal ingress of h (host): deny\n  no policy applies; default verdict of the endpoint"
    );
    assert!(explain(&flow(22), &inputs).starts_with("allow\n"));
}
