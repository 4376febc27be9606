//! Conditions on the endpoint's own side.

use super::*;
use crate::program::Address;

/// A rule for packets to some of the endpoint's own addresses.
fn to(texts: &[&str], mut rule: Rule) -> Rule {
    rule.local = Some(Address { nets: Some(nets(texts)), ..Address::default() });
    rule
}

/// The program of an endpoint with these addresses and one rule.
fn of_endpoint(addresses: &[&str], rule: Rule) -> Program {
    let mut program = Program::default();
    add_endpoint(&mut program, "pod", addresses, vec![stage(vec![rule], StageEnd::Deny)]);
    program
}

#[test]
fn what_the_addresses_of_each_family_settle_is_resolved() {
    let program =
        of_endpoint(&["10.9.0.1", "fd99::1"], to(&["10.9.0.0/16"], allow(0, L4Match::Any)));
    assert_eq!(row_of(&program, "192.0.2.1"), ["else allow: rule 0"]);
    assert_eq!(row_of(&program, "2001:db8::1"), ["else deny: no match"]);
}

#[test]
fn all_parts_of_a_condition_count() {
    let set = || Some(SetId::of(&set_of("a")));
    let but_the_net = Address { not_nets: nets(&["10.9.0.0/24"]), ..Address::default() };
    let in_set = Address { in_set: set(), ..Address::default() };
    let not_in_set = Address { not_in_set: set(), ..Address::default() };
    for (what, own, local, meets) in [
        ("in a net that is excluded", "10.9.0.1", &but_the_net, false),
        ("outside of it", "10.9.1.1", &but_the_net, true),
        ("in the set", "10.9.0.1", &in_set, true),
        ("not in the set", "10.9.1.1", &in_set, false),
        ("in the set that is excluded", "10.9.0.1", &not_in_set, false),
        ("not in the set that is excluded", "10.9.1.1", &not_in_set, true),
    ] {
        let mut rule = allow(0, L4Match::Any);
        rule.local = Some(local.clone());
        let mut program = of_endpoint(&[own], rule);
        add_set(&mut program, "a", &["10.9.0.1"], &[]);
        let want = if meets { "else allow: rule 0" } else { "else deny: no match" };
        assert_eq!(row_of(&program, "192.0.2.1"), [want], "{what}");
    }
}

#[test]
fn what_they_do_not_settle_is_said() {
    let rule = || to(&["10.9.0.1/32"], allow(0, L4Match::Any));
    let mut v6_only = rule();
    v6_only.family = Some(Family::V6);
    for (what, addresses, rule, settled) in [
        ("one address", &["10.9.0.1"][..], rule(), true),
        ("two of one family", &["10.9.0.1", "10.9.0.2"], rule(), false),
        ("two that meet it not", &["10.9.0.2", "10.9.0.3"], rule(), true),
        ("two of a family that the rule leaves out", &["10.9.0.1", "10.9.0.2"], v6_only, true),
        ("none known", &[], rule(), false),
    ] {
        let program = of_endpoint(addresses, rule.clone());
        let flat = flat(&program);
        let unclassified = (!settled).then_some(Unclassified::LocalAddress { rule: rule.origin });
        assert_eq!(flat.unclassified().get(&ingress(&program)), unclassified.as_ref(), "{what}");
        assert_eq!(flat.tables().contains_key(&ingress(&program)), settled, "{what}");
    }
}

#[test]
fn endpoints_that_share_a_policy_set_must_agree() {
    let rules = || vec![stage(vec![to(&["10.9.0.1/32"], allow(0, L4Match::Any))], StageEnd::Deny)];
    let mut program = Program::default();
    add_endpoint(&mut program, "a", &["10.9.0.1"], rules());
    add_endpoint(&mut program, "b", &["10.9.0.2"], rules());
    let flat = flat(&program);
    let reason = flat.unclassified()[&ingress(&program)].to_string();
    assert_eq!(
        reason,
        "KubernetesNetworkPolicy ns/policy ingress[0] depends on which of the endpoint's own addresses a packet carries"
    );
    assert_eq!(flat.tables().len(), 1, "the policy set for egress has its table");
}

#[test]
fn sets_of_own_ports_are_refused() {
    let sets = vec![SetId::of(&port_set_of("web"))];
    let any_of = Some(Ports { numbers: PortSet::default(), sets });
    let own = tcp(PortConstraint::default(), PortConstraint { any_of, none_of: None });
    let rule = allow(0, own);
    let program = program_of(vec![rule.clone()]);
    let reason = Unclassified::LocalPorts { rule: rule.origin };
    assert_eq!(flat(&program).unclassified().get(&ingress(&program)), Some(&reason));
}
