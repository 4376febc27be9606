#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "test code")]

use expect_test::{Expect, expect};
use netpol_core::Verdict as PolicyVerdict;
use netpol_core::model::{Action, L4Match, PortConstraint};
use netpol_core::net::{IcmpMatch, Protocol, Transport};
use netpol_core::program::{Address, PolicySet, Ports, StageEnd};

use super::*;
use crate::tests::program::{
    Builder, deny_unless, everything, in_nets, in_set, nets, numbers, rule, stage, to_ports,
};

const OPTIONS: Options = Options { priority: -5, logging: Logging::DEFAULT, mark: 16 };

fn render_all(program: &Program) -> Rendered {
    let (places, refused) = Default::default();
    render(program, &Context { options: OPTIONS, places: &places, refused: &refused }).unwrap()
}

/// Compares what a program adds to an empty table.
#[track_caller]
fn check(program: &Program, want: Expect) {
    let rendered = render_all(program);
    assert!(rendered.isolated.is_empty(), "{:?}", rendered.isolated);
    let mut ruleset = rendered.ruleset;
    let base = skeleton(OPTIONS, &Default::default());
    ruleset.sets.retain(|name, set| base.sets.get(name) != Some(set));
    ruleset.chains.retain(|name, chain| base.chains.get(name) != Some(chain));
    want.assert_eq(&ruleset.to_string());
}

/// Compares the chain of one rule of ingress policy.
#[track_caller]
fn check_rule(mut builder: Builder, it: netpol_core::program::Rule, want: Expect) {
    let mut pod = builder.endpoint("pod", &["10.0.1.1", "fd00::1"]);
    pod.ingress = builder.policy(PolicySet {
        stages: vec![stage(vec![it], StageEnd::Next)],
        default: PolicyVerdict::Allow,
    });
    let rendered = render_all(&builder.add(pod).build());
    assert!(rendered.isolated.is_empty(), "{:?}", rendered.isolated);
    let mut ruleset = rendered.ruleset;
    ruleset
        .sets
        .retain(|name, _| name.as_str().starts_with("np-c") || name.as_str().starts_with("np-p"));
    let base = skeleton(OPTIONS, &Default::default());
    ruleset.chains.retain(|name, _| !base.chains.contains_key(name));
    let lines = ruleset.to_string();
    let lines: Vec<&str> =
        lines.lines().filter(|line| line.starts_with('\t')).map(str::trim).collect();
    want.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn an_empty_program_changes_no_packets_fate() {
    let ruleset = render_all(&Builder::new().build()).ruleset;
    let check = |name: &str, want: Expect| {
        want.assert_eq(&ruleset.chains[&Name::new(name)].to_string().replace('\t', ""));
    };
    check(
        "np-forward",
        expect![[r#"
            type filter hook forward priority -5; policy accept;
            meta nfproto ipv6 meta l4proto 58 @th,0,8 134 iifname @np-ep-if counter drop comment "np:router 72220a43ea5f6e2e"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 134 ip6 saddr @np-ep-6 counter drop comment "np:router 026ff169dd9624bc"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 137 iifname @np-ep-if counter drop comment "np:router ee3f9ae8c712dfaf"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 137 ip6 saddr @np-ep-6 counter drop comment "np:router d65def12efa2260f"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 133-137 ip6 hoplimit 255 counter return comment "np:discovery e60a4295a09b9f3e"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 130-132 ip6 saddr fe80::/10 counter return comment "np:discovery aef02a95129e3306"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 143 ip6 saddr fe80::/10 counter return comment "np:discovery 511cab7b17283f41"
            iifname @np-iso-if counter drop comment "np:isolated 30cc0e115322b5a9"
            meta nfproto ipv4 ip saddr @np-iso-4 counter drop comment "np:isolated 1cd640ade2866ce0"
            meta nfproto ipv6 ip6 saddr @np-iso-6 counter drop comment "np:isolated 340d92d8b7b95276"
            oifname @np-iso-if counter drop comment "np:isolated 345b81db28fe9687"
            meta nfproto ipv4 ip daddr @np-iso-4 counter drop comment "np:isolated 5c041233eb87b965"
            meta nfproto ipv6 ip6 daddr @np-iso-6 counter drop comment "np:isolated a32d288898cc3bc0"
            meta nfproto ipv4 iifname @np-own-if iifname . ip saddr != @np-own-4 counter drop comment "np:forged 178a816dd7848841"
            meta nfproto ipv6 iifname @np-own-if iifname . ip6 saddr != @np-own-6 counter drop comment "np:forged 7f7fe8640e99a910"
            ct state established counter return comment "np:established f0f17bd64b0cdae8"
            ct state related meta nfproto ipv4 meta l4proto 1 iifname . ct original ip saddr @np-own-4 counter return comment "np:related e3e2d65f7bea942e"
            ct state related meta nfproto ipv4 meta l4proto 1 ip saddr . ct original ip saddr @np-self-4 counter return comment "np:related 663bc781fc63a896"
            ct state related meta nfproto ipv4 meta l4proto 1 iifname . ct reply ip saddr @np-own-4 counter return comment "np:related b822285419069433"
            ct state related meta nfproto ipv4 meta l4proto 1 ip saddr . ct reply ip saddr @np-self-4 counter return comment "np:related 1cfbd976a299352f"
            ct state related meta nfproto ipv4 meta l4proto 1 iifname != @np-own-if ip saddr != @np-ep-4 counter return comment "np:related 6d990920acecebc2"
            ct state related meta nfproto ipv6 meta l4proto 58 iifname . ct original ip6 saddr @np-own-6 counter return comment "np:related 9fa32cd397ab071d"
            ct state related meta nfproto ipv6 meta l4proto 58 ip6 saddr . ct original ip6 saddr @np-self-6 counter return comment "np:related e1420149579d8d1b"
            ct state related meta nfproto ipv6 meta l4proto 58 iifname . ct reply ip6 saddr @np-own-6 counter return comment "np:related b3e8c9510f684fe7"
            ct state related meta nfproto ipv6 meta l4proto 58 ip6 saddr . ct reply ip6 saddr @np-self-6 counter return comment "np:related 9536529b49f56abd"
            ct state related meta nfproto ipv6 meta l4proto 58 iifname != @np-own-if ip6 saddr != @np-ep-6 counter return comment "np:related 6b678c9fca7160c9"
            counter jump np-encap comment "np:encapsulated 9ed0ef36a9482e17"
            iifname . oifname @np-self-if counter return comment "np:self 4505fda6fed483c1"
            meta nfproto ipv4 ip saddr . ip daddr @np-self-4 counter return comment "np:self 5a1e2923678efa5d"
            meta nfproto ipv6 ip6 saddr . ip6 daddr @np-self-6 counter return comment "np:self 73180f8e9ce574ad"
            counter jump np-host-fwd comment "np:hosts f25ab1c965629f4c"
            iifname vmap @np-eg-if comment "np:dispatch 6676fe7e2793bfe7"
            meta nfproto ipv4 ip saddr vmap @np-eg-4 comment "np:dispatch b87bd6c601610e55"
            meta nfproto ipv6 ip6 saddr vmap @np-eg-6 comment "np:dispatch ccbe515585e1da89"
            oifname vmap @np-in-if comment "np:dispatch 8edeb2c96c6db99c"
            meta nfproto ipv4 ip daddr vmap @np-in-4 comment "np:dispatch 15b0a2acdbcc18bf"
            meta nfproto ipv6 ip6 daddr vmap @np-in-6 comment "np:dispatch d973a16f1baf2b81"
        "#]],
    );
    check(
        "np-input",
        expect![[r#"
            type filter hook input priority -5; policy accept;
            meta nfproto ipv6 meta l4proto 58 @th,0,8 134 iifname @np-ep-if counter drop comment "np:router 72220a43ea5f6e2e"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 134 ip6 saddr @np-ep-6 counter drop comment "np:router 026ff169dd9624bc"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 137 iifname @np-ep-if counter drop comment "np:router ee3f9ae8c712dfaf"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 137 ip6 saddr @np-ep-6 counter drop comment "np:router d65def12efa2260f"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 133-137 ip6 hoplimit 255 counter return comment "np:discovery e60a4295a09b9f3e"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 130-132 ip6 saddr fe80::/10 counter return comment "np:discovery aef02a95129e3306"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 143 ip6 saddr fe80::/10 counter return comment "np:discovery 511cab7b17283f41"
            iifname @np-iso-if counter drop comment "np:isolated 30cc0e115322b5a9"
            meta nfproto ipv4 ip saddr @np-iso-4 counter drop comment "np:isolated 1cd640ade2866ce0"
            meta nfproto ipv6 ip6 saddr @np-iso-6 counter drop comment "np:isolated 340d92d8b7b95276"
            meta nfproto ipv4 iifname @np-own-if ip saddr != 0.0.0.0 iifname . ip saddr != @np-own-4 counter drop comment "np:forged 1a2f12536c51b55d"
            meta nfproto ipv6 iifname @np-own-if ip6 saddr != :: ip6 saddr != fe80::/10 iifname . ip6 saddr != @np-own-6 counter drop comment "np:forged dd98fbbd9b18d630"
            ct state established counter return comment "np:established f0f17bd64b0cdae8"
            ct state related meta nfproto ipv4 meta l4proto 1 iifname . ct original ip saddr @np-own-4 counter return comment "np:related e3e2d65f7bea942e"
            ct state related meta nfproto ipv4 meta l4proto 1 ip saddr . ct original ip saddr @np-self-4 counter return comment "np:related 663bc781fc63a896"
            ct state related meta nfproto ipv4 meta l4proto 1 iifname . ct reply ip saddr @np-own-4 counter return comment "np:related b822285419069433"
            ct state related meta nfproto ipv4 meta l4proto 1 ip saddr . ct reply ip saddr @np-self-4 counter return comment "np:related 1cfbd976a299352f"
            ct state related meta nfproto ipv4 meta l4proto 1 iifname != @np-own-if ip saddr != @np-ep-4 counter return comment "np:related 6d990920acecebc2"
            ct state related meta nfproto ipv6 meta l4proto 58 iifname . ct original ip6 saddr @np-own-6 counter return comment "np:related 9fa32cd397ab071d"
            ct state related meta nfproto ipv6 meta l4proto 58 ip6 saddr . ct original ip6 saddr @np-self-6 counter return comment "np:related e1420149579d8d1b"
            ct state related meta nfproto ipv6 meta l4proto 58 iifname . ct reply ip6 saddr @np-own-6 counter return comment "np:related b3e8c9510f684fe7"
            ct state related meta nfproto ipv6 meta l4proto 58 ip6 saddr . ct reply ip6 saddr @np-self-6 counter return comment "np:related 9536529b49f56abd"
            ct state related meta nfproto ipv6 meta l4proto 58 iifname != @np-own-if ip6 saddr != @np-ep-6 counter return comment "np:related 6b678c9fca7160c9"
            counter jump np-encap comment "np:encapsulated 9ed0ef36a9482e17"
            iifname vmap @np-eg-if comment "np:dispatch 6676fe7e2793bfe7"
            meta nfproto ipv4 ip saddr vmap @np-eg-4 comment "np:dispatch b87bd6c601610e55"
            meta nfproto ipv6 ip6 saddr vmap @np-eg-6 comment "np:dispatch ccbe515585e1da89"
            counter jump np-host-in comment "np:hosts 790a7778d493f208"
        "#]],
    );
    check(
        "np-output",
        expect![[r#"
            type filter hook output priority -5; policy accept;
            counter jump np-host-out comment "np:hosts d5be5cb0692e1626"
        "#]],
    );
    check(
        "np-postrouting",
        expect![[r#"
            type filter hook postrouting priority -5; policy accept;
            oifname @np-iso-if counter goto np-cut comment "np:isolated 8add6f35e858c8eb"
            meta nfproto ipv4 ip daddr @np-iso-4 counter goto np-cut comment "np:isolated 2be9c936848ebe3f"
            meta nfproto ipv6 ip6 daddr @np-iso-6 counter goto np-cut comment "np:isolated 8aa2b5c64328d142"
        "#]],
    );
    check(
        "np-cut",
        expect![[r#"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 133-137 ip6 hoplimit 255 counter return comment "np:discovery e60a4295a09b9f3e"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 130-132 ip6 saddr fe80::/10 counter return comment "np:discovery aef02a95129e3306"
            meta nfproto ipv6 meta l4proto 58 @th,0,8 143 ip6 saddr fe80::/10 counter return comment "np:discovery 511cab7b17283f41"
            counter drop comment "np:isolated 8ce112c88649a28a"
        "#]],
    );
}

#[test]
fn endpoints_are_known_by_interface_or_address() {
    let mut builder = Builder::new();
    let closed = builder.policy(PolicySet { stages: Vec::new(), default: PolicyVerdict::Deny });
    for (name, attachment, mode) in [
        ("by-if", None, Mode::Enforce),
        ("by-address", Some(Attachment::Address), Mode::Enforce),
        ("audited", None, Mode::Audit),
        ("isolated", None, Mode::Isolate),
        ("isolated-address", Some(Attachment::Address), Mode::Isolate),
    ] {
        let mut endpoint = builder.endpoint(name, &["10.0.0.1", "10.0.0.2", "fd00::1"]);
        let last = u8::try_from(name.len()).unwrap();
        endpoint.addresses =
            vec![[10, 0, 0, last].into(), [10, 0, 1, last].into(), "fd00::1".parse().unwrap()];
        endpoint.addresses.truncate(if mode == Mode::Enforce { 3 } else { 2 });
        endpoint.attachment = attachment.unwrap_or(endpoint.attachment);
        endpoint.ingress = closed;
        endpoint.mode = mode;
        builder.add(endpoint);
    }
    let mut open = builder.endpoint("open", &["10.0.9.9"]);
    open.mode = Mode::Enforce;
    check(
        &builder.add(open).build(),
        expect![[r#"
            map np-eg-4 {
            	type ipv4_addr : verdict;
            	size 4096;
            	elements = { 10.0.0.16 : drop, 10.0.1.16 : drop }
            }
            map np-eg-if {
            	type ifname : verdict;
            	size 4096;
            	elements = { "isolated" : drop }
            }
            set np-ep-4 {
            	type ipv4_addr;
            	size 4096;
            	elements = { 10.0.0.10, 10.0.0.16, 10.0.1.10, 10.0.1.16 }
            }
            set np-ep-6 {
            	type ipv6_addr;
            	size 4096;
            	elements = { fd00::1 }
            }
            set np-ep-if {
            	type ifname;
            	size 4096;
            	elements = { "audited", "by-if", "isolated", "open" }
            }
            map np-in-4 {
            	type ipv4_addr : verdict;
            	size 4096;
            	elements = { 10.0.0.10 : jump np-in-e88201e5f94b2ae39ad5f438, 10.0.0.16 : drop, 10.0.1.10 : jump np-in-e88201e5f94b2ae39ad5f438, 10.0.1.16 : drop }
            }
            map np-in-6 {
            	type ipv6_addr : verdict;
            	size 4096;
            	elements = { fd00::1 : jump np-in-e88201e5f94b2ae39ad5f438 }
            }
            map np-in-if {
            	type ifname : verdict;
            	size 4096;
            	elements = { "by-if" : jump np-in-e88201e5f94b2ae39ad5f438, "isolated" : drop }
            }
            set np-iso-4 {
            	type ipv4_addr;
            	size 4096;
            	elements = { 10.0.0.16, 10.0.1.16 }
            }
            set np-iso-if {
            	type ifname;
            	size 4096;
            	elements = { "isolated" }
            }
            set np-own-4 {
            	type ifname . ipv4_addr;
            	size 4096;
            	elements = { "audited" . 10.0.0.7, "audited" . 10.0.1.7, "by-if" . 10.0.0.5, "by-if" . 10.0.1.5, "isolated" . 10.0.0.8, "isolated" . 10.0.1.8, "open" . 10.0.9.9 }
            }
            set np-own-6 {
            	type ifname . ipv6_addr;
            	size 4096;
            	elements = { "by-if" . fd00::1 }
            }
            set np-own-if {
            	type ifname;
            	size 4096;
            	elements = { "audited", "by-if", "isolated", "open" }
            }
            set np-self-4 {
            	type ipv4_addr . ipv4_addr;
            	size 4096;
            	elements = { 10.0.0.10 . 10.0.0.10, 10.0.0.10 . 10.0.1.10, 10.0.0.16 . 10.0.0.16, 10.0.0.16 . 10.0.1.16, 10.0.1.10 . 10.0.0.10, 10.0.1.10 . 10.0.1.10, 10.0.1.16 . 10.0.0.16, 10.0.1.16 . 10.0.1.16 }
            }
            set np-self-6 {
            	type ipv6_addr . ipv6_addr;
            	size 4096;
            	elements = { fd00::1 . fd00::1 }
            }
            set np-self-if {
            	type ifname . ifname;
            	size 4096;
            	elements = { "audited" . "audited", "by-if" . "by-if", "isolated" . "isolated", "open" . "open" }
            }
            chain np-encap {
            	meta l4proto 4 iifname @np-ep-if counter drop comment "np:encapsulated 5517cc441c41c19c"
            	meta l4proto 4 meta nfproto ipv4 ip saddr @np-ep-4 counter drop comment "np:encapsulated f519c6dd4346316a"
            	meta l4proto 4 meta nfproto ipv6 ip6 saddr @np-ep-6 counter drop comment "np:encapsulated 9a504bd8701ee349"
            	meta l4proto 17 th dport 4789 iifname @np-ep-if counter drop comment "np:encapsulated 0ca8a7ade3e5c3f6"
            	meta l4proto 17 th dport 4789 meta nfproto ipv4 ip saddr @np-ep-4 counter drop comment "np:encapsulated eba3e631606f218f"
            	meta l4proto 17 th dport 4789 meta nfproto ipv6 ip6 saddr @np-ep-6 counter drop comment "np:encapsulated eb431d561422174e"
            }
            chain np-in-e88201e5f94b2ae39ad5f438 {
            	counter drop comment "np:deny 8ce112c88649a28a"
            }
        "#]],
    );
}

#[test]
fn a_stage_passes_on_to_the_next_and_shares_what_is_equal() {
    let mut builder = Builder::new();
    let rules = vec![rule(1, Action::Pass), rule(2, Action::Deny)];
    let stages =
        vec![stage(rules, StageEnd::Next), stage(vec![rule(3, Action::Allow)], StageEnd::Deny)];
    let policy = builder.policy(PolicySet { stages, default: PolicyVerdict::Allow });
    let last = builder.policy(deny_unless(vec![rule(3, Action::Allow)]));
    let mut one = builder.endpoint("one", &[]);
    (one.ingress, one.egress) = (policy, policy);
    let mut two = builder.endpoint("two", &[]);
    two.ingress = last;
    check(
        &builder.add(one).add(two).build(),
        expect![[r#"
            map np-eg-if {
            	type ifname : verdict;
            	size 4096;
            	elements = { "one" : jump np-eg-7c882d8ac0614245a7d1ac59 }
            }
            set np-ep-if {
            	type ifname;
            	size 4096;
            	elements = { "one", "two" }
            }
            map np-in-if {
            	type ifname : verdict;
            	size 4096;
            	elements = { "one" : jump np-in-f7caafaa47f77986acf008c5, "two" : jump np-in-e051e5866f771e9038acb4ae }
            }
            chain np-eg-7c882d8ac0614245a7d1ac59 {
            	counter goto np-eg-e051e5866f771e9038acb4ae comment "np:010101010101010101010101 f1b7ae7b17e5f421"
            	counter drop comment "np:020202020202020202020202 8ce112c88649a28a"
            	counter goto np-eg-e051e5866f771e9038acb4ae comment "np:next f1b7ae7b17e5f421"
            }
            chain np-eg-e051e5866f771e9038acb4ae {
            	counter return comment "np:030303030303030303030303 ba826610de4a857e"
            	counter drop comment "np:deny 8ce112c88649a28a"
            }
            chain np-encap {
            	meta l4proto 4 iifname @np-ep-if counter drop comment "np:encapsulated 5517cc441c41c19c"
            	meta l4proto 4 meta nfproto ipv4 ip saddr @np-ep-4 counter drop comment "np:encapsulated f519c6dd4346316a"
            	meta l4proto 4 meta nfproto ipv6 ip6 saddr @np-ep-6 counter drop comment "np:encapsulated 9a504bd8701ee349"
            	meta l4proto 17 th dport 4789 iifname @np-ep-if counter drop comment "np:encapsulated 0ca8a7ade3e5c3f6"
            	meta l4proto 17 th dport 4789 meta nfproto ipv4 ip saddr @np-ep-4 counter drop comment "np:encapsulated eba3e631606f218f"
            	meta l4proto 17 th dport 4789 meta nfproto ipv6 ip6 saddr @np-ep-6 counter drop comment "np:encapsulated eb431d561422174e"
            }
            chain np-in-e051e5866f771e9038acb4ae {
            	counter return comment "np:030303030303030303030303 ba826610de4a857e"
            	counter drop comment "np:deny 8ce112c88649a28a"
            }
            chain np-in-f7caafaa47f77986acf008c5 {
            	counter goto np-in-e051e5866f771e9038acb4ae comment "np:010101010101010101010101 0437a0c1d159223b"
            	counter drop comment "np:020202020202020202020202 8ce112c88649a28a"
            	counter goto np-in-e051e5866f771e9038acb4ae comment "np:next 0437a0c1d159223b"
            }
        "#]],
    );
}

#[test]
fn a_set_has_exact_members_and_prefixes() {
    let mut builder = Builder::new();
    let set = builder.addresses("a", &["10.0.0.2", "10.0.0.1", "fd00::2", "10.9.0.0/16"]);
    let mut it = rule(1, Action::Allow);
    it.remote = in_set(set);
    check_rule(
        builder.clone(),
        it.clone(),
        expect![[r#"
        type ipv4_addr;
        flags interval;
        elements = { 10.9.0.0-10.9.255.255 }
        meta nfproto ipv4 ip saddr @np-s4-95bb3792c32c830dff0435c5-6 counter return comment "np:010101010101010101010101 6078cd6ecb70a49b"
        meta nfproto ipv4 ip saddr @np-c4-a519c77542b18e27c1112eec counter return comment "np:010101010101010101010101 d408bc4353a97884"
        meta nfproto ipv6 ip6 saddr @np-s6-95bb3792c32c830dff0435c5-6 counter return comment "np:010101010101010101010101 45f2a6f27340297a"
        counter return comment "np:next ba826610de4a857e"
    "#]],
    );
    it.remote = Address { not_in_set: Some(set), ..Address::default() };
    check_rule(
        builder,
        it,
        expect![[r#"
        type ipv4_addr;
        flags interval;
        elements = { 10.9.0.0-10.9.255.255 }
        meta nfproto ipv4 ip saddr != @np-s4-95bb3792c32c830dff0435c5-6 ip saddr != @np-c4-a519c77542b18e27c1112eec counter return comment "np:010101010101010101010101 8f0c97cad34b2a70"
        meta nfproto ipv6 ip6 saddr != @np-s6-95bb3792c32c830dff0435c5-6 counter return comment "np:010101010101010101010101 69b413e9fdccc87d"
        counter return comment "np:next ba826610de4a857e"
    "#]],
    );
}

#[test]
fn a_family_without_addresses_needs_no_rule() {
    let mut builder = Builder::new();
    let set = builder.addresses("a", &["10.0.0.1"]);
    let mut it = rule(1, Action::Allow);
    it.remote = in_set(set);
    let mut pod = builder.endpoint("pod", &["10.0.0.9"]);
    pod.ingress = builder.policy(deny_unless(vec![it.clone()]));
    it.remote = Address { not_in_set: Some(set), ..Address::default() };
    pod.egress = builder.policy(deny_unless(vec![it]));
    check(
        &builder.add(pod).build(),
        expect![[r#"
            map np-eg-if {
            	type ifname : verdict;
            	size 4096;
            	elements = { "pod" : jump np-eg-1d9a37da8d120cca23c1e852 }
            }
            set np-ep-if {
            	type ifname;
            	size 4096;
            	elements = { "pod" }
            }
            map np-in-if {
            	type ifname : verdict;
            	size 4096;
            	elements = { "pod" : jump np-in-624a798fc94b68426f510cc7 }
            }
            set np-own-4 {
            	type ifname . ipv4_addr;
            	size 4096;
            	elements = { "pod" . 10.0.0.9 }
            }
            set np-own-if {
            	type ifname;
            	size 4096;
            	elements = { "pod" }
            }
            set np-s4-95bb3792c32c830dff0435c5-6 {
            	type ipv4_addr;
            	size 64;
            	elements = { 10.0.0.1 }
            }
            set np-self-if {
            	type ifname . ifname;
            	size 4096;
            	elements = { "pod" . "pod" }
            }
            chain np-eg-1d9a37da8d120cca23c1e852 {
            	meta nfproto ipv4 ip daddr != @np-s4-95bb3792c32c830dff0435c5-6 counter return comment "np:010101010101010101010101 af079d3c2c391f08"
            	meta nfproto ipv6 counter return comment "np:010101010101010101010101 aca18ad1e2b9d2ad"
            	counter drop comment "np:deny 8ce112c88649a28a"
            }
            chain np-encap {
            	meta l4proto 4 iifname @np-ep-if counter drop comment "np:encapsulated 5517cc441c41c19c"
            	meta l4proto 4 meta nfproto ipv4 ip saddr @np-ep-4 counter drop comment "np:encapsulated f519c6dd4346316a"
            	meta l4proto 4 meta nfproto ipv6 ip6 saddr @np-ep-6 counter drop comment "np:encapsulated 9a504bd8701ee349"
            	meta l4proto 17 th dport 4789 iifname @np-ep-if counter drop comment "np:encapsulated 0ca8a7ade3e5c3f6"
            	meta l4proto 17 th dport 4789 meta nfproto ipv4 ip saddr @np-ep-4 counter drop comment "np:encapsulated eba3e631606f218f"
            	meta l4proto 17 th dport 4789 meta nfproto ipv6 ip6 saddr @np-ep-6 counter drop comment "np:encapsulated eb431d561422174e"
            }
            chain np-in-624a798fc94b68426f510cc7 {
            	meta nfproto ipv4 ip saddr @np-s4-95bb3792c32c830dff0435c5-6 counter return comment "np:010101010101010101010101 6078cd6ecb70a49b"
            	counter drop comment "np:deny 8ce112c88649a28a"
            }
        "#]],
    );
}

#[test]
fn blocks_are_one_condition_and_everything_is_none() {
    for (nets_in, nets_out, want) in [
        (
            Some(&["10.0.0.0/8", "fd00::/8"][..]),
            &["10.1.0.0/16"][..],
            expect![[r#"
            type ipv4_addr;
            flags interval;
            elements = { 10.0.0.0-10.255.255.255 }
            type ipv4_addr;
            flags interval;
            elements = { 10.1.0.0-10.1.255.255 }
            type ipv6_addr;
            flags interval;
            elements = { fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff }
            meta nfproto ipv4 ip saddr @np-c4-94dffe72456c948a51f5fef7 ip saddr != @np-c4-a22acf86aa0a48205f528166 counter return comment "np:010101010101010101010101 87fb86ba925f3db5"
            meta nfproto ipv6 ip6 saddr @np-c6-27696ffb468184676706f145 counter return comment "np:010101010101010101010101 f5ec6e694fef694d"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(&["0.0.0.0/0"]),
            &[],
            expect![[r#"
            meta nfproto ipv4 counter return comment "np:010101010101010101010101 1b4281d06878b5b7"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(&["0.0.0.0/0", "::/0"]),
            &[],
            expect![[r#"
            counter return comment "np:010101010101010101010101 ba826610de4a857e"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(&[]),
            &[],
            expect![[r#"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            None,
            &["::/0"],
            expect![[r#"
            meta nfproto ipv4 counter return comment "np:010101010101010101010101 1b4281d06878b5b7"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(&["10.0.0.0/24", "10.0.1.0/25", "10.0.1.128/26"]),
            &[],
            expect![[r#"
            type ipv4_addr;
            flags interval;
            elements = { 10.0.0.0-10.0.1.191 }
            meta nfproto ipv4 ip saddr @np-c4-584b34c9ea3682dd3dffc5ea counter return comment "np:010101010101010101010101 696905a354e12e05"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
    ] {
        let mut it = rule(1, Action::Allow);
        it.remote =
            Address { nets: nets_in.map(nets), not_nets: nets(nets_out), ..Address::default() };
        check_rule(Builder::new(), it, want);
    }
}

#[test]
fn ports_are_compared_or_looked_up() {
    for (any, none, want) in [
        (
            None,
            None,
            expect![[r#"
            meta l4proto 17 counter return comment "np:010101010101010101010101 758f7f87066aa6cb"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(numbers(&[(80, 80)])),
            None,
            expect![[r#"
            meta l4proto 17 th dport 80 counter return comment "np:010101010101010101010101 7ad7a22db70bbbab"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(numbers(&[(80, 90)])),
            Some(numbers(&[(85, 85)])),
            expect![[r#"
            meta l4proto 17 th dport 80-90 th dport != 85 counter return comment "np:010101010101010101010101 a99118fef4269922"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(numbers(&[(80, 80), (443, 443)])),
            Some(numbers(&[(1, 10), (20, 30)])),
            expect![[r#"
            type inet_service;
            flags interval;
            elements = { 1-10, 20-30 }
            type inet_service;
            flags interval;
            elements = { 80, 443 }
            meta l4proto 17 th dport @np-p-8fe038110ceac5d815c6c802 th dport != @np-p-4493d533e37ac050ee61bde1 counter return comment "np:010101010101010101010101 6ea9ebce583688a1"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            Some(Ports::default()),
            None,
            expect![[r#"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
    ] {
        let mut it = rule(1, Action::Allow);
        let destination = PortConstraint { any_of: any, none_of: none };
        it.l4 = L4Match::Ports {
            transport: Transport::Udp,
            source: PortConstraint::default(),
            destination,
        };
        check_rule(Builder::new(), it, want);
    }
}

#[test]
fn a_named_port_goes_with_its_address() {
    let mut builder = Builder::new();
    let http = builder.named_port("http", &[("10.0.1.1", 8080)]);
    let ports = Ports { sets: vec![http], ..numbers(&[(80, 80)]) };
    let mut it = rule(1, Action::Allow);
    it.l4 = to_ports(Transport::Tcp, ports.clone());
    check_rule(
        builder.clone(),
        it.clone(),
        expect![[r#"
        meta nfproto ipv4 meta l4proto 6 th dport 80 counter return comment "np:010101010101010101010101 783443760bf0a802"
        meta nfproto ipv4 meta l4proto 6 ip daddr . meta l4proto . th dport @np-n4-52ba5013eca2fd8bc6b6e116-6 counter return comment "np:010101010101010101010101 c05d022bde213738"
        meta nfproto ipv6 meta l4proto 6 th dport 80 counter return comment "np:010101010101010101010101 c1faf36e486e4889"
        meta nfproto ipv6 meta l4proto 6 ip6 daddr . meta l4proto . th dport @np-n6-52ba5013eca2fd8bc6b6e116-6 counter return comment "np:010101010101010101010101 6d3e6b41b74cd695"
        counter return comment "np:next ba826610de4a857e"
    "#]],
    );
    let destination = PortConstraint { any_of: None, none_of: Some(ports) };
    it.l4 = L4Match::Ports {
        transport: Transport::Tcp,
        source: PortConstraint::default(),
        destination,
    };
    check_rule(
        builder,
        it,
        expect![[r#"
        meta nfproto ipv4 meta l4proto 6 th dport != 80 ip daddr . meta l4proto . th dport != @np-n4-52ba5013eca2fd8bc6b6e116-6 counter return comment "np:010101010101010101010101 c28c36a54140e19e"
        meta nfproto ipv6 meta l4proto 6 th dport != 80 ip6 daddr . meta l4proto . th dport != @np-n6-52ba5013eca2fd8bc6b6e116-6 counter return comment "np:010101010101010101010101 e005c08b1519a19d"
        counter return comment "np:next ba826610de4a857e"
    "#]],
    );
}

#[test]
fn icmp_belongs_to_a_family() {
    let icmp = |family, is, is_not| L4Match::Icmp { family, is, is_not };
    let echo = Some(IcmpMatch { kind: 8, code: None });
    let prohibited = Some(IcmpMatch { kind: 3, code: Some(13) });
    for (l4, want) in [
        (
            icmp(Family::V4, None, None),
            expect![[r#"
            meta nfproto ipv4 meta l4proto 1 counter drop comment "np:010101010101010101010101 0412ac78a217bede"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            icmp(Family::V4, echo, None),
            expect![[r#"
            meta nfproto ipv4 meta l4proto 1 @th,0,8 8 counter drop comment "np:010101010101010101010101 c3fb8b90066c4bc4"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            icmp(Family::V6, prohibited, None),
            expect![[r#"
            meta nfproto ipv6 meta l4proto 58 @th,0,16 781 counter drop comment "np:010101010101010101010101 c1d39ea6ccb876c9"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            icmp(Family::V4, None, echo),
            expect![[r#"
            meta nfproto ipv4 meta l4proto 1 @th,0,8 != 8 counter drop comment "np:010101010101010101010101 db47248f92d93968"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            icmp(Family::V4, None, prohibited),
            expect![[r#"
            meta nfproto ipv4 meta l4proto 1 @th,0,8 != 3 counter drop comment "np:010101010101010101010101 2c97f04230888aa7"
            meta nfproto ipv4 meta l4proto 1 @th,0,8 3 @th,8,8 != 13 counter drop comment "np:010101010101010101010101 e52db3731a285c28"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            L4Match::Is(Protocol::ICMP),
            expect![[r#"
            meta l4proto 1 counter drop comment "np:010101010101010101010101 c8bd3a1393efc6af"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
        (
            L4Match::IsNot([Protocol::TCP, Protocol::UDP].into()),
            expect![[r#"
            meta l4proto != 6 meta l4proto != 17 counter drop comment "np:010101010101010101010101 b7302708afbb3751"
            counter return comment "np:next ba826610de4a857e"
        "#]],
        ),
    ] {
        let mut it = rule(1, Action::Deny);
        it.l4 = l4;
        check_rule(Builder::new(), it, want);
    }
}

#[test]
fn a_log_rule_goes_on() {
    let mut it = rule(1, Action::Log);
    it.family = Some(Family::V6);
    check_rule(
        Builder::new(),
        it,
        expect![[r#"
        meta nfproto ipv6 counter limit rate 10/second log prefix "np1:in:010101010101010101010101" group 100 snaplen 64 comment "np:010101010101010101010101 ea0a00105bacb4d8"
        counter return comment "np:next ba826610de4a857e"
    "#]],
    );
}

#[test]
fn conditions_on_the_endpoint_are_about_the_other_end() {
    let mut it = rule(1, Action::Allow);
    it.remote = in_nets(&["10.0.0.0/8"]);
    it.local = Some(in_nets(&["10.0.1.0/24"]));
    check_rule(
        Builder::new(),
        it,
        expect![[r#"
        type ipv4_addr;
        flags interval;
        elements = { 10.0.0.0-10.255.255.255 }
        type ipv4_addr;
        flags interval;
        elements = { 10.0.1.0-10.0.1.255 }
        meta nfproto ipv4 ip saddr @np-c4-94dffe72456c948a51f5fef7 ip daddr @np-c4-a22d2fc0ae3b55c3c3a5ac90 counter return comment "np:010101010101010101010101 5b960cdfdb3de6c0"
        counter return comment "np:next ba826610de4a857e"
    "#]],
    );
}

#[test]
fn the_same_program_gives_the_same_text() {
    let program = everything().build();
    assert_eq!(render_all(&program).ruleset.to_string(), render_all(&program).ruleset.to_string());
}

#[test]
fn endpoints_that_cannot_be_told_apart_are_isolated() {
    let mut builder = Builder::new();
    let closed = builder.policy(PolicySet { stages: Vec::new(), default: PolicyVerdict::Deny });
    for (name, ingress) in [("a", Some(closed)), ("b", None)] {
        let mut endpoint = builder.endpoint(name, &[]);
        endpoint.attachment = Attachment::Interface("veth0".to_owned());
        endpoint.ingress = ingress.unwrap_or(endpoint.ingress);
        builder.add(endpoint);
    }
    let mut nameless = builder.endpoint("c", &["10.0.0.1"]);
    nameless.attachment = Attachment::Interface("no such/interface".to_owned());
    let rendered = render_all(&builder.add(nameless).build());
    let names: Vec<_> =
        rendered.isolated.iter().map(|(id, error)| format!("{}: {error}", id.name)).collect();
    expect![[r#"
        a: endpoint EndpointId { kind: Workload, namespace: Some("ns"), name: "b", uid: "" } claims `"veth0"` too, so that their packets cannot be told apart
        b: endpoint EndpointId { kind: Workload, namespace: Some("ns"), name: "a", uid: "" } claims `"veth0"` too, so that their packets cannot be told apart
        c: interface `no such/interface` is no name that rules can have, expected 1 to 15 printable ASCII characters without quotes, `\`, `*` and `/`
    "#]].assert_eq(&(names.join("\n") + "\n"));
    assert_eq!(rendered.ruleset.sets[&Name::new("np-iso-if")].elements.to_string(), "\"veth0\"");
    assert_eq!(rendered.ruleset.sets[&Name::new("np-iso-4")].elements.to_string(), "10.0.0.1");
}
