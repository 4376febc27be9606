#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "test code")]

use expect_test::{Expect, expect};
use netpol_core::DataplaneErrorKind;
use netpol_core::Verdict as PolicyVerdict;
use netpol_core::model::{Action, L4Match, PortConstraint};
use netpol_core::net::{IcmpMatch, Protocol, Transport};
use netpol_core::program::{Address, PolicySet, Ports, Rule, StageEnd};

use super::*;
use crate::tests::program::{
    Builder, deny_unless, everything, in_nets, in_set, nets, numbers, rule, stage, to_ports,
};

fn render_all(program: &Program) -> Rendered {
    let (owner, second_slots, refused) = Default::default();
    let context = Context {
        owner: &owner,
        families: &Family::BOTH,
        table: KernelTable::Filter,
        mark: 16,
        logging: Logging::DEFAULT,
        second_slots: &second_slots,
        refused: &refused,
    };
    render(program, context)
}

/// Returns chains and sets as text, without the chains that an empty program has too.
fn added(program: &Program) -> String {
    let rendered = render_all(program);
    assert!(rendered.isolated.is_empty(), "{:?}", rendered.isolated);
    let base = render_all(&Builder::new().build()).ruleset;
    let mut text = String::new();
    for (id, chains) in &rendered.ruleset.chains {
        let family = &id.family;
        for (name, chain) in chains {
            if base.chains.get(id).and_then(|it| it.get(name)) != Some(chain) {
                text += &format!("{family} {name}\n");
                chain.rules.iter().for_each(|rule| text += &format!("  {rule}\n"));
            }
        }
    }
    for (name, set) in &rendered.ruleset.sets {
        let members: Vec<String> = set.members.iter().map(ToString::to_string).collect();
        text += &format!("{name} {}: {}\n", set.shape, members.join(" "));
    }
    text
}

/// Compares the chains of one rule of ingress policy, and the sets that they need.
#[track_caller]
fn check_rule(mut builder: Builder, it: Rule, want: Expect) {
    let mut pod = builder.endpoint("pod", &["10.0.1.1", "fd00::1"]);
    pod.ingress = builder.policy(PolicySet {
        stages: vec![stage(vec![it], StageEnd::Next)],
        default: PolicyVerdict::Allow,
    });
    let text = added(&builder.add(pod).build());
    let mut lines = Vec::new();
    let mut inside = true;
    for line in text.lines() {
        if !line.starts_with(' ') {
            inside = ["NP-I-", "np4", "np6"].iter().any(|it| line.contains(it));
        }
        lines.extend(inside.then_some(line));
    }
    want.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn an_empty_program_changes_no_packets_fate() {
    let chains = &render_all(&Builder::new().build()).ruleset.chains;
    let text = |family: Family| -> String {
        let table = KernelTable::Filter;
        let chains = chains[&TableId { family, table }].iter();
        chains.map(|(name, chain)| format!("{name}\n{chain}")).collect()
    };
    expect![[r#"
        NP-CUT
        -m comment --comment np:isolated:2262c2d1e7e6a552 -j DROP
        NP-EGRESS
        NP-ENCAP
        -p 4 -m comment --comment np:encapsulated:c4ad1039f8ed7b61 -j NP-ENDPOINTS
        -p udp -m udp --dport 4789 -m comment --comment np:encapsulated:172a7bfa2e3447c6 -j NP-ENDPOINTS
        NP-ENDPOINTS
        NP-FWD
        -m comment --comment np:next:c3711214d3e27864 -j NP-ISO-FROM
        -m comment --comment np:next:172e577836ff7ed4 -j NP-ISO-TO
        -m comment --comment np:next:11d832982403f48b -j NP-OWN
        -m conntrack --ctstate ESTABLISHED -m comment --comment np:established:4dd2b1cd8601ef5e -j RETURN
        -p icmp -m conntrack --ctstate RELATED -m comment --comment np:related:cf0b0b9dd34fc5cf -j NP-RELATED
        -p icmp -m conntrack --ctstate RELATED -m comment --comment np:related:28c49bbdf17fbb63 -j RETURN
        -m comment --comment np:next:6fe41b0502197f3c -j NP-ENCAP
        -m comment --comment np:next:eee9446ef2d5e7af -j NP-HOST-FWD
        -m comment --comment np:next:0c89da396f754ac1 -j NP-EGRESS
        -m comment --comment np:next:a524a0163a9f0b0b -j NP-INGRESS
        NP-HOST-FWD
        NP-HOST-IN
        NP-HOST-OUT
        NP-IN
        -m comment --comment np:next:c3711214d3e27864 -j NP-ISO-FROM
        -m comment --comment np:next:376358c494c5bcf4 -j NP-IN-OWN
        -m conntrack --ctstate ESTABLISHED -m comment --comment np:established:4dd2b1cd8601ef5e -j RETURN
        -p icmp -m conntrack --ctstate RELATED -m comment --comment np:related:cf0b0b9dd34fc5cf -j NP-RELATED
        -p icmp -m conntrack --ctstate RELATED -m comment --comment np:related:28c49bbdf17fbb63 -j RETURN
        -m comment --comment np:next:6fe41b0502197f3c -j NP-ENCAP
        -m comment --comment np:next:0c89da396f754ac1 -j NP-EGRESS
        -m comment --comment np:new:4883c5758ca4ae7a -g NP-HOST-IN
        NP-IN-OWN
        -s 0.0.0.0 -m comment --comment np:own:8ba21a4048614d9e -j RETURN
        -m comment --comment np:next:c6fc5bcd11ae9205 -g NP-OWN
        NP-INGRESS
        NP-ISO-AT
        NP-ISO-FROM
        NP-ISO-TO
        NP-OUT
        -m comment --comment np:next:172e577836ff7ed4 -j NP-ISO-TO
        -m comment --comment np:next:dd566d178de7cb90 -j NP-ISO-AT
        -m comment --comment np:next:557cc9f9da33433a -j NP-HOST-OUT
        NP-OWN
        NP-RELATED
    "#]].assert_eq(&text(Family::V4));
    expect![[r#"
        NP-CUT
        -p ipv6-icmp -m icmp6 --icmpv6-type 133 -m hl --hl-eq 255 -m comment --comment np:discovery:fffcbfefb22be651 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -m comment --comment np:discovery:0a644d5b64eb2edc -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 136 -m hl --hl-eq 255 -m comment --comment np:discovery:fc69579b7734217c -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 134 -m hl --hl-eq 255 -m comment --comment np:discovery:a70c5bac1c22a04a -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 137 -m hl --hl-eq 255 -m comment --comment np:discovery:85fdd88cb3570ad5 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 130 -s fe80::/10 -m comment --comment np:discovery:395c8059d015dc2b -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 131 -s fe80::/10 -m comment --comment np:discovery:96e9c4722c54aabf -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 132 -s fe80::/10 -m comment --comment np:discovery:15b59894eac13624 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 143 -s fe80::/10 -m comment --comment np:discovery:666a690f8b98ad0c -j RETURN
        -m comment --comment np:isolated:2262c2d1e7e6a552 -j DROP
        NP-EGRESS
        NP-ENCAP
        -p 4 -m comment --comment np:encapsulated:c4ad1039f8ed7b61 -j NP-ENDPOINTS
        -p udp -m udp --dport 4789 -m comment --comment np:encapsulated:172a7bfa2e3447c6 -j NP-ENDPOINTS
        NP-ENDPOINTS
        NP-FWD
        -m comment --comment np:next:c3711214d3e27864 -j NP-ISO-FROM
        -m comment --comment np:next:172e577836ff7ed4 -j NP-ISO-TO
        -m comment --comment np:next:11d832982403f48b -j NP-OWN
        -m conntrack --ctstate ESTABLISHED -m comment --comment np:established:4dd2b1cd8601ef5e -j RETURN
        -p ipv6-icmp -m conntrack --ctstate RELATED -m comment --comment np:related:43afa83fbe8cfca0 -j NP-RELATED
        -p ipv6-icmp -m conntrack --ctstate RELATED -m comment --comment np:related:675dbe0a5a9928fc -j RETURN
        -p ipv6-icmp -m comment --comment np:discovery:59de50cfa3bae5c9 -g NP-FWD-ND
        -m comment --comment np:next:6fe41b0502197f3c -j NP-ENCAP
        -m comment --comment np:next:eee9446ef2d5e7af -j NP-HOST-FWD
        -m comment --comment np:next:0c89da396f754ac1 -j NP-EGRESS
        -m comment --comment np:next:a524a0163a9f0b0b -j NP-INGRESS
        NP-FWD-ND
        -p ipv6-icmp -m icmp6 --icmpv6-type 134 -m comment --comment np:router:aab262db221f3edf -j NP-ENDPOINTS
        -p ipv6-icmp -m icmp6 --icmpv6-type 137 -m comment --comment np:router:d07e5b1da8f5f909 -j NP-ENDPOINTS
        -p ipv6-icmp -m icmp6 --icmpv6-type 133 -m hl --hl-eq 255 -m comment --comment np:discovery:fffcbfefb22be651 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -m comment --comment np:discovery:0a644d5b64eb2edc -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 136 -m hl --hl-eq 255 -m comment --comment np:discovery:fc69579b7734217c -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 134 -m hl --hl-eq 255 -m comment --comment np:discovery:a70c5bac1c22a04a -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 137 -m hl --hl-eq 255 -m comment --comment np:discovery:85fdd88cb3570ad5 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 130 -s fe80::/10 -m comment --comment np:discovery:395c8059d015dc2b -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 131 -s fe80::/10 -m comment --comment np:discovery:96e9c4722c54aabf -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 132 -s fe80::/10 -m comment --comment np:discovery:15b59894eac13624 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 143 -s fe80::/10 -m comment --comment np:discovery:666a690f8b98ad0c -j RETURN
        -m comment --comment np:next:6fe41b0502197f3c -j NP-ENCAP
        -m comment --comment np:next:eee9446ef2d5e7af -j NP-HOST-FWD
        -m comment --comment np:next:0c89da396f754ac1 -j NP-EGRESS
        -m comment --comment np:next:a524a0163a9f0b0b -j NP-INGRESS
        NP-HOST-FWD
        NP-HOST-IN
        NP-HOST-OUT
        NP-IN
        -m comment --comment np:next:c3711214d3e27864 -j NP-ISO-FROM
        -m comment --comment np:next:376358c494c5bcf4 -j NP-IN-OWN
        -m conntrack --ctstate ESTABLISHED -m comment --comment np:established:4dd2b1cd8601ef5e -j RETURN
        -p ipv6-icmp -m conntrack --ctstate RELATED -m comment --comment np:related:43afa83fbe8cfca0 -j NP-RELATED
        -p ipv6-icmp -m conntrack --ctstate RELATED -m comment --comment np:related:675dbe0a5a9928fc -j RETURN
        -p ipv6-icmp -m comment --comment np:discovery:fdb616f3aa254b05 -g NP-IN-ND
        -m comment --comment np:next:6fe41b0502197f3c -j NP-ENCAP
        -m comment --comment np:next:0c89da396f754ac1 -j NP-EGRESS
        -m comment --comment np:new:4883c5758ca4ae7a -g NP-HOST-IN
        NP-IN-ND
        -p ipv6-icmp -m icmp6 --icmpv6-type 134 -m comment --comment np:router:aab262db221f3edf -j NP-ENDPOINTS
        -p ipv6-icmp -m icmp6 --icmpv6-type 137 -m comment --comment np:router:d07e5b1da8f5f909 -j NP-ENDPOINTS
        -p ipv6-icmp -m icmp6 --icmpv6-type 133 -m hl --hl-eq 255 -m comment --comment np:discovery:fffcbfefb22be651 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -m comment --comment np:discovery:0a644d5b64eb2edc -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 136 -m hl --hl-eq 255 -m comment --comment np:discovery:fc69579b7734217c -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 134 -m hl --hl-eq 255 -m comment --comment np:discovery:a70c5bac1c22a04a -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 137 -m hl --hl-eq 255 -m comment --comment np:discovery:85fdd88cb3570ad5 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 130 -s fe80::/10 -m comment --comment np:discovery:395c8059d015dc2b -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 131 -s fe80::/10 -m comment --comment np:discovery:96e9c4722c54aabf -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 132 -s fe80::/10 -m comment --comment np:discovery:15b59894eac13624 -j RETURN
        -p ipv6-icmp -m icmp6 --icmpv6-type 143 -s fe80::/10 -m comment --comment np:discovery:666a690f8b98ad0c -j RETURN
        -m comment --comment np:next:6fe41b0502197f3c -j NP-ENCAP
        -m comment --comment np:next:0c89da396f754ac1 -j NP-EGRESS
        -m comment --comment np:new:4883c5758ca4ae7a -g NP-HOST-IN
        NP-IN-OWN
        -s :: -m comment --comment np:own:7b696963f79e15b1 -j RETURN
        -s fe80::/10 -m comment --comment np:own:0909a4a88dfa4393 -j RETURN
        -m comment --comment np:next:c6fc5bcd11ae9205 -g NP-OWN
        NP-INGRESS
        NP-ISO-AT
        NP-ISO-FROM
        NP-ISO-TO
        NP-OUT
        -m comment --comment np:next:172e577836ff7ed4 -j NP-ISO-TO
        -m comment --comment np:next:dd566d178de7cb90 -j NP-ISO-AT
        -m comment --comment np:next:557cc9f9da33433a -j NP-HOST-OUT
        NP-OWN
        NP-RELATED
    "#]].assert_eq(&text(Family::V6));
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
        ("isolated-addr", Some(Attachment::Address), Mode::Isolate),
    ] {
        let mut endpoint = builder.endpoint(name, &["fd00::1"]);
        let last = u8::try_from(name.len()).unwrap();
        endpoint.addresses.splice(0..0, [[10, 0, 0, last].into(), [10, 0, 1, last].into()]);
        endpoint.addresses.truncate(if mode == Mode::Enforce { 3 } else { 2 });
        endpoint.attachment = attachment.unwrap_or(endpoint.attachment);
        endpoint.ingress = closed;
        endpoint.mode = mode;
        builder.add(endpoint);
    }
    let open = builder.endpoint("open", &["10.0.9.9"]);
    expect![[r#"
        IPv4 NP-ENDPOINTS
          -i audited -m comment --comment np:router:f2742c9005e19997 -j DROP
          -i by-if -m comment --comment np:router:56205e70e6db9f79 -j DROP
          -i isolated -m comment --comment np:router:d99daf4221a98061 -j DROP
          -i open -m comment --comment np:router:b434066b98a90f74 -j DROP
          -s 10.0.0.10 -m comment --comment np:router:1dbf130db3d0a273 -j DROP
          -s 10.0.0.13 -m comment --comment np:router:5cfa2350727a8d38 -j DROP
          -s 10.0.1.10 -m comment --comment np:router:cdcb2f2724c62848 -j DROP
          -s 10.0.1.13 -m comment --comment np:router:8afb702aa659309b -j DROP
        IPv4 NP-I-m4gptfbqpzsobi33dmha
          -m comment --comment np:deny:2262c2d1e7e6a552 -j DROP
        IPv4 NP-INGRESS
          -i by-if -o by-if -m comment --comment np:self:b6f3f4acfbebc4f7 -j RETURN
          -o by-if -m comment --comment np:dispatch:995a171d4184c23b -g NP-I-m4gptfbqpzsobi33dmha
          -s 10.0.0.10 -d 10.0.0.10 -m comment --comment np:self:918b71a53e430376 -j RETURN
          -s 10.0.1.10 -d 10.0.0.10 -m comment --comment np:self:9bb84edc62cda137 -j RETURN
          -d 10.0.0.10 -m comment --comment np:dispatch:5125e09bd38ac874 -g NP-I-m4gptfbqpzsobi33dmha
          -s 10.0.0.10 -d 10.0.1.10 -m comment --comment np:self:7b77370ffd61e5e7 -j RETURN
          -s 10.0.1.10 -d 10.0.1.10 -m comment --comment np:self:bea1e949037d6e03 -j RETURN
          -d 10.0.1.10 -m comment --comment np:dispatch:34baf4613f6dd75f -g NP-I-m4gptfbqpzsobi33dmha
        IPv4 NP-ISO-AT
          -d 10.0.0.8 -m comment --comment np:isolated:219f8d3daa38fbe9 -g NP-CUT
          -d 10.0.0.13 -m comment --comment np:isolated:651b9176dc30d94a -g NP-CUT
          -d 10.0.1.8 -m comment --comment np:isolated:a96cdf15c1d6457c -g NP-CUT
          -d 10.0.1.13 -m comment --comment np:isolated:acd7a42ef8f3af66 -g NP-CUT
        IPv4 NP-ISO-FROM
          -i isolated -m comment --comment np:isolated:729a8b91d9370d5a -g NP-CUT
          -s 10.0.0.13 -m comment --comment np:isolated:cfd7a54cd3caae3b -g NP-CUT
          -s 10.0.1.13 -m comment --comment np:isolated:e2879b90e57bd669 -g NP-CUT
        IPv4 NP-ISO-TO
          -o isolated -m comment --comment np:isolated:71df6e0b8236fea6 -g NP-CUT
          -d 10.0.0.13 -m comment --comment np:isolated:651b9176dc30d94a -g NP-CUT
          -d 10.0.1.13 -m comment --comment np:isolated:acd7a42ef8f3af66 -g NP-CUT
        IPv4 NP-OWN
          -i audited -s 10.0.0.7 -m comment --comment np:own:631f8e8d12fb6093 -j RETURN
          -i audited -s 10.0.1.7 -m comment --comment np:own:4b5ab4e9046dd819 -j RETURN
          -i audited -m comment --comment np:forged:f2742c9005e19997 -j DROP
          -i by-if -s 10.0.0.5 -m comment --comment np:own:045979998f60bf0d -j RETURN
          -i by-if -s 10.0.1.5 -m comment --comment np:own:5b00a38faf84638a -j RETURN
          -i by-if -m comment --comment np:forged:56205e70e6db9f79 -j DROP
          -i isolated -s 10.0.0.8 -m comment --comment np:own:e62336aa62833b75 -j RETURN
          -i isolated -s 10.0.1.8 -m comment --comment np:own:27b56a4fbfe89afd -j RETURN
          -i isolated -m comment --comment np:forged:d99daf4221a98061 -j DROP
          -i open -s 10.0.9.9 -m comment --comment np:own:532f8b74902d5eb7 -j RETURN
          -i open -m comment --comment np:forged:b434066b98a90f74 -j DROP
        IPv4 NP-RELATED
          -i audited -m conntrack --ctorigsrc 10.0.0.7 -m comment --comment np:own:46b904b2fe1c241d -j RETURN
          -i audited -m conntrack --ctreplsrc 10.0.0.7 -m comment --comment np:own:3969dc4cf111aeb5 -j RETURN
          -i audited -m conntrack --ctorigsrc 10.0.1.7 -m comment --comment np:own:1789b4f83ddcf50b -j RETURN
          -i audited -m conntrack --ctreplsrc 10.0.1.7 -m comment --comment np:own:9dba2177ae31b592 -j RETURN
          -i audited -m comment --comment np:next:a914a6f5d5c00189 -j NP-EGRESS
          -i audited -m comment --comment np:next:a0939834a9fecbd9 -j NP-INGRESS
          -i by-if -m conntrack --ctorigsrc 10.0.0.5 -m comment --comment np:own:5d4b7f818c253f6e -j RETURN
          -i by-if -m conntrack --ctreplsrc 10.0.0.5 -m comment --comment np:own:29acce5827cd5b8f -j RETURN
          -i by-if -m conntrack --ctorigsrc 10.0.1.5 -m comment --comment np:own:782bb69d46c7a45a -j RETURN
          -i by-if -m conntrack --ctreplsrc 10.0.1.5 -m comment --comment np:own:a5fbd6623101141c -j RETURN
          -i by-if -m comment --comment np:next:6967a450c47516dc -j NP-EGRESS
          -i by-if -m comment --comment np:next:d60a35e0d74de82d -j NP-INGRESS
          -i isolated -m conntrack --ctorigsrc 10.0.0.8 -m comment --comment np:own:9158140ba5be6c23 -j RETURN
          -i isolated -m conntrack --ctreplsrc 10.0.0.8 -m comment --comment np:own:5f74c577b2a1e3d0 -j RETURN
          -i isolated -m conntrack --ctorigsrc 10.0.1.8 -m comment --comment np:own:3bc81141f0dbaf35 -j RETURN
          -i isolated -m conntrack --ctreplsrc 10.0.1.8 -m comment --comment np:own:27b23e41f4bf7860 -j RETURN
          -i isolated -m comment --comment np:next:38cd054e3d6ad9b8 -j NP-EGRESS
          -i isolated -m comment --comment np:next:97fc91135fa148bf -j NP-INGRESS
          -i open -m conntrack --ctorigsrc 10.0.9.9 -m comment --comment np:own:cf261ed121b0127d -j RETURN
          -i open -m conntrack --ctreplsrc 10.0.9.9 -m comment --comment np:own:4e0aee029397229f -j RETURN
          -i open -m comment --comment np:next:98d75e660d16c7ec -j NP-EGRESS
          -i open -m comment --comment np:next:63f38f5ce666accd -j NP-INGRESS
          -s 10.0.0.10 -m conntrack --ctorigsrc 10.0.0.10 -m comment --comment np:own:adf913d658cd6f31 -j RETURN
          -s 10.0.0.10 -m conntrack --ctreplsrc 10.0.0.10 -m comment --comment np:own:dc624b485a3e96c1 -j RETURN
          -s 10.0.0.10 -m conntrack --ctorigsrc 10.0.1.10 -m comment --comment np:own:1ac296656b491901 -j RETURN
          -s 10.0.0.10 -m conntrack --ctreplsrc 10.0.1.10 -m comment --comment np:own:9448ae80400d9aa4 -j RETURN
          -s 10.0.0.10 -m comment --comment np:next:dc263adda66224fc -j NP-EGRESS
          -s 10.0.0.10 -m comment --comment np:next:3b0c1b141c1b3a64 -j NP-INGRESS
          -s 10.0.0.13 -m conntrack --ctorigsrc 10.0.0.13 -m comment --comment np:own:8283f506b447c069 -j RETURN
          -s 10.0.0.13 -m conntrack --ctreplsrc 10.0.0.13 -m comment --comment np:own:4744ae4e11250662 -j RETURN
          -s 10.0.0.13 -m conntrack --ctorigsrc 10.0.1.13 -m comment --comment np:own:2d43c520c3660c48 -j RETURN
          -s 10.0.0.13 -m conntrack --ctreplsrc 10.0.1.13 -m comment --comment np:own:1845f1244d1ef8f0 -j RETURN
          -s 10.0.0.13 -m comment --comment np:next:4fc333dd34ac1695 -j NP-EGRESS
          -s 10.0.0.13 -m comment --comment np:next:4dfcb8a1837ad964 -j NP-INGRESS
          -s 10.0.1.10 -m conntrack --ctorigsrc 10.0.0.10 -m comment --comment np:own:1551d0f217823dc2 -j RETURN
          -s 10.0.1.10 -m conntrack --ctreplsrc 10.0.0.10 -m comment --comment np:own:6c2c5e13f3fda268 -j RETURN
          -s 10.0.1.10 -m conntrack --ctorigsrc 10.0.1.10 -m comment --comment np:own:05a5af348e538086 -j RETURN
          -s 10.0.1.10 -m conntrack --ctreplsrc 10.0.1.10 -m comment --comment np:own:7815549a7ca870f9 -j RETURN
          -s 10.0.1.10 -m comment --comment np:next:e090feacab36bc9d -j NP-EGRESS
          -s 10.0.1.10 -m comment --comment np:next:b5e8b2697f8d2c12 -j NP-INGRESS
          -s 10.0.1.13 -m conntrack --ctorigsrc 10.0.0.13 -m comment --comment np:own:fa0b44f3a92b272d -j RETURN
          -s 10.0.1.13 -m conntrack --ctreplsrc 10.0.0.13 -m comment --comment np:own:9977106742817e22 -j RETURN
          -s 10.0.1.13 -m conntrack --ctorigsrc 10.0.1.13 -m comment --comment np:own:d77c4f492777dbdf -j RETURN
          -s 10.0.1.13 -m conntrack --ctreplsrc 10.0.1.13 -m comment --comment np:own:3acf095356410034 -j RETURN
          -s 10.0.1.13 -m comment --comment np:next:b727795c2ee15c1f -j NP-EGRESS
          -s 10.0.1.13 -m comment --comment np:next:5ac6e510a248b503 -j NP-INGRESS
        IPv6 NP-ENDPOINTS
          -i audited -m comment --comment np:router:f2742c9005e19997 -j DROP
          -i by-if -m comment --comment np:router:56205e70e6db9f79 -j DROP
          -i isolated -m comment --comment np:router:d99daf4221a98061 -j DROP
          -i open -m comment --comment np:router:b434066b98a90f74 -j DROP
          -s fd00::1 -m comment --comment np:router:a52d94adfed4d2ff -j DROP
        IPv6 NP-I-m4gptfbqpzsobi33dmha
          -m comment --comment np:deny:2262c2d1e7e6a552 -j DROP
        IPv6 NP-INGRESS
          -i by-if -o by-if -m comment --comment np:self:b6f3f4acfbebc4f7 -j RETURN
          -o by-if -m comment --comment np:dispatch:995a171d4184c23b -g NP-I-m4gptfbqpzsobi33dmha
          -s fd00::1 -d fd00::1 -m comment --comment np:self:09cb1f21394cba19 -j RETURN
          -d fd00::1 -m comment --comment np:dispatch:744fe8730a59db47 -g NP-I-m4gptfbqpzsobi33dmha
        IPv6 NP-ISO-FROM
          -i isolated -m comment --comment np:isolated:729a8b91d9370d5a -g NP-CUT
        IPv6 NP-ISO-TO
          -o isolated -m comment --comment np:isolated:71df6e0b8236fea6 -g NP-CUT
        IPv6 NP-OWN
          -i audited -m comment --comment np:forged:f2742c9005e19997 -j DROP
          -i by-if -s fd00::1 -m comment --comment np:own:67ed6835c0ce3caf -j RETURN
          -i by-if -m comment --comment np:forged:56205e70e6db9f79 -j DROP
          -i isolated -m comment --comment np:forged:d99daf4221a98061 -j DROP
          -i open -m comment --comment np:forged:b434066b98a90f74 -j DROP
        IPv6 NP-RELATED
          -i audited -m comment --comment np:next:a914a6f5d5c00189 -j NP-EGRESS
          -i audited -m comment --comment np:next:a0939834a9fecbd9 -j NP-INGRESS
          -i by-if -m conntrack --ctorigsrc fd00::1 -m comment --comment np:own:16ed0b526f4c7e0e -j RETURN
          -i by-if -m conntrack --ctreplsrc fd00::1 -m comment --comment np:own:dd82c582f0212c28 -j RETURN
          -i by-if -m comment --comment np:next:6967a450c47516dc -j NP-EGRESS
          -i by-if -m comment --comment np:next:d60a35e0d74de82d -j NP-INGRESS
          -i isolated -m comment --comment np:next:38cd054e3d6ad9b8 -j NP-EGRESS
          -i isolated -m comment --comment np:next:97fc91135fa148bf -j NP-INGRESS
          -i open -m comment --comment np:next:98d75e660d16c7ec -j NP-EGRESS
          -i open -m comment --comment np:next:63f38f5ce666accd -j NP-INGRESS
          -s fd00::1 -m conntrack --ctorigsrc fd00::1 -m comment --comment np:own:cd335b0d63ee120a -j RETURN
          -s fd00::1 -m conntrack --ctreplsrc fd00::1 -m comment --comment np:own:067478df153bc0d4 -j RETURN
          -s fd00::1 -m comment --comment np:next:034a722f47d00fa0 -j NP-EGRESS
          -s fd00::1 -m comment --comment np:next:f37e68d02b685f80 -j NP-INGRESS
    "#]].assert_eq(&added(&builder.add(open).build()));
}

#[test]
fn a_stage_passes_on_to_the_next_and_shares_what_is_equal() {
    let mut builder = Builder::new();
    let rules = vec![rule(1, Action::Pass), rule(2, Action::Deny), rule(4, Action::Log)];
    let stages =
        vec![stage(rules, StageEnd::Next), stage(vec![rule(3, Action::Allow)], StageEnd::Deny)];
    let policy = builder.policy(PolicySet { stages, default: PolicyVerdict::Allow });
    let last = builder.policy(deny_unless(vec![rule(3, Action::Allow)]));
    let mut one = builder.endpoint("one", &[]);
    (one.ingress, one.egress) = (policy, policy);
    let mut two = builder.endpoint("two", &[]);
    two.ingress = last;
    let text = added(&builder.add(one).add(two).build());
    expect![[r#"
        IPv4 NP-E-7h5lfhb25j7qz3x273iq
          -m comment --comment np:010101010101010101010101:3576a802339645ea -g NP-E-i6jhm4j7rhctwqdtp2ra
          -m comment --comment np:020202020202020202020202:2262c2d1e7e6a552 -j DROP
          -m limit --limit 10/second -m comment --comment np:040404040404040404040404:7e7b8489c5b477ea -j NFLOG --nflog-group 100 --nflog-prefix np1:eg:040404040404040404040404
          -m comment --comment np:next:3576a802339645ea -g NP-E-i6jhm4j7rhctwqdtp2ra
        IPv4 NP-E-i6jhm4j7rhctwqdtp2ra
          -m comment --comment np:030303030303030303030303:b2d0cd898a7ff6d4 -j RETURN
          -m comment --comment np:deny:2262c2d1e7e6a552 -j DROP
        IPv4 NP-EGRESS
          -i one -o one -m comment --comment np:self:60c161f10fb82b46 -j RETURN
          -i one -m comment --comment np:dispatch:2a58177228f4ebf1 -g NP-E-7h5lfhb25j7qz3x273iq
        IPv4 NP-ENDPOINTS
          -i one -m comment --comment np:router:c443a799b5acaed2 -j DROP
          -i two -m comment --comment np:router:d6f3cb7085418444 -j DROP
        IPv4 NP-I-5jfjhx4e2g747g7fhi6q
          -m comment --comment np:010101010101010101010101:4f541763692d3d66 -g NP-I-i6jhm4j7rhctwqdtp2ra
          -m comment --comment np:020202020202020202020202:2262c2d1e7e6a552 -j DROP
          -m limit --limit 10/second -m comment --comment np:040404040404040404040404:1de40cd3de6f9621 -j NFLOG --nflog-group 100 --nflog-prefix np1:in:040404040404040404040404
          -m comment --comment np:next:4f541763692d3d66 -g NP-I-i6jhm4j7rhctwqdtp2ra
        IPv4 NP-I-i6jhm4j7rhctwqdtp2ra
          -m comment --comment np:030303030303030303030303:b2d0cd898a7ff6d4 -j RETURN
          -m comment --comment np:deny:2262c2d1e7e6a552 -j DROP
        IPv4 NP-INGRESS
          -i one -o one -m comment --comment np:self:60c161f10fb82b46 -j RETURN
          -o one -m comment --comment np:dispatch:e6811dd976ef535b -g NP-I-5jfjhx4e2g747g7fhi6q
          -i two -o two -m comment --comment np:self:da5b0cc9cfb5fc09 -j RETURN
          -o two -m comment --comment np:dispatch:ffeeffc4c9d2e64c -g NP-I-i6jhm4j7rhctwqdtp2ra
    "#]].assert_eq(text.split("IPv6").next().unwrap());
}

#[test]
fn a_set_has_exact_members_and_prefixes() {
    let mut builder = Builder::new();
    let set =
        builder.addresses("a", &["10.0.0.2", "10.0.0.1", "0.0.0.0", "fd00::2", "10.9.0.0/16"]);
    let mut it = rule(1, Action::Allow);
    it.remote = in_set(set);
    check_rule(
        builder.clone(),
        it.clone(),
        expect![[r#"
        IPv4 NP-I-525bthhgjybtmmxt6pla
          -m set --match-set np4s-95bb3792c32c830dff0435c5 src -m comment --comment np:010101010101010101010101:024e576d7a156c57 -j RETURN
          -m set --match-set np4c-1f7cf391bcf8bf9d55a3db76 src -m comment --comment np:010101010101010101010101:3f1b715f1e76c8df -j RETURN
          -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        IPv6 NP-I-jk3c3pmtt2olouysqlra
          -m set --match-set np6s-95bb3792c32c830dff0435c5 src -m comment --comment np:010101010101010101010101:d4a09b695026c0e7 -j RETURN
          -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        np4c-1f7cf391bcf8bf9d55a3db76 hash:net family inet: 10.9.0.0/16
        np4s-95bb3792c32c830dff0435c5 hash:ip family inet: 10.0.0.1 10.0.0.2
        np6s-95bb3792c32c830dff0435c5 hash:ip family inet6: fd00::2
    "#]],
    );
    it.remote = Address { not_in_set: Some(set), ..Address::default() };
    check_rule(
        builder,
        it,
        expect![[r#"
        IPv4 NP-I-5ilykmpfwyrql6f7djma
          -m set ! --match-set np4s-95bb3792c32c830dff0435c5 src -m set ! --match-set np4c-1f7cf391bcf8bf9d55a3db76 src -m comment --comment np:010101010101010101010101:8854ae6eb5d40acd -j RETURN
          -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        IPv6 NP-I-a2jszvh5owtjysr2qqka
          -m set ! --match-set np6s-95bb3792c32c830dff0435c5 src -m comment --comment np:010101010101010101010101:7d04ff4b471259db -j RETURN
          -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        np4c-1f7cf391bcf8bf9d55a3db76 hash:net family inet: 10.9.0.0/16
        np4s-95bb3792c32c830dff0435c5 hash:ip family inet: 10.0.0.1 10.0.0.2
        np6s-95bb3792c32c830dff0435c5 hash:ip family inet6: fd00::2
    "#]],
    );
}

#[test]
fn blocks_are_one_condition_and_everything_is_none() {
    type Case<'a> = (Option<&'a [&'a str]>, &'a [&'a str], Expect);
    let cases: [Case<'_>; 6] = [
        (
            Some(&["10.0.0.0/8", "fd00::/8"]),
            &["10.1.0.0/16"],
            expect![[r#"
            IPv4 NP-I-frs3vmqe4itdvhhmnbbq
              -m set --match-set np4c-1bbc06912c3f2a1f0522fa2a src -m set ! --match-set np4c-bf269d8d54b372c777fd3cf7 src -m comment --comment np:010101010101010101010101:24f9b48614f418f9 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-si5fq7nedy4yhilcg52a
              -m set --match-set np6c-2b521047ac7b677b298346b4 src -m comment --comment np:010101010101010101010101:d0cfba1950602dc5 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            np4c-1bbc06912c3f2a1f0522fa2a hash:net family inet: 10.0.0.0/8
            np4c-bf269d8d54b372c777fd3cf7 hash:net family inet: 10.1.0.0/16
            np6c-2b521047ac7b677b298346b4 hash:net family inet6: fd00::/8
        "#]],
        ),
        (
            Some(&["0.0.0.0/0"]),
            &[],
            expect![[r#"
            IPv4 NP-I-2k3zkf4vqjtb46d4hlca
              -m comment --comment np:010101010101010101010101:b2d0cd898a7ff6d4 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            Some(&["0.0.0.0/0", "::/0"]),
            &[],
            expect![[r#"
            IPv4 NP-I-2k3zkf4vqjtb46d4hlca
              -m comment --comment np:010101010101010101010101:b2d0cd898a7ff6d4 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-2k3zkf4vqjtb46d4hlca
              -m comment --comment np:010101010101010101010101:b2d0cd898a7ff6d4 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            Some(&[]),
            &[],
            expect![[r#"
            IPv4 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            None,
            &["::/0"],
            expect![[r#"
            IPv4 NP-I-2k3zkf4vqjtb46d4hlca
              -m comment --comment np:010101010101010101010101:b2d0cd898a7ff6d4 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            Some(&["0.0.0.0/1", "128.0.0.0/1"]),
            &["0.0.0.0/1"],
            expect![[r#"
            IPv4 NP-I-yhhpr2mywx2tspecilxa
              -m set ! --match-set np4c-59ba36c3d209d83ca22e4a48 src -m comment --comment np:010101010101010101010101:d57b78a0c77fb838 -j RETURN
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            np4c-59ba36c3d209d83ca22e4a48 hash:net family inet: 0.0.0.0/1
        "#]],
        ),
    ];
    for (nets_in, nets_out, want) in cases {
        let mut it = rule(1, Action::Allow);
        it.remote = nets_in.map(in_nets).unwrap_or_default();
        it.remote.not_nets = nets(nets_out);
        check_rule(Builder::new(), it, want);
    }
}

#[test]
fn what_follows_the_ip_header_is_tested_after_the_protocol() {
    let mut builder = Builder::new();
    let http = builder.named_port("http", &[("10.0.0.1", 80), ("fd00::1", 8080)]);
    let named = Ports { sets: vec![http], ..numbers(&[(443, 443)]) };
    let singles: Vec<(u16, u16)> = (0..16).map(|it| (it * 2 + 1, it * 2 + 1)).collect();
    let constraint = |any_of, none_of| PortConstraint { any_of, none_of };
    let ports =
        |source, destination| L4Match::Ports { transport: Transport::Tcp, source, destination };
    let any = PortConstraint::default;
    let icmp = |family, is, is_not| L4Match::Icmp { family, is, is_not };
    let message = |kind, code| Some(IcmpMatch { kind, code });
    let not = |protocols: &[Protocol]| L4Match::IsNot(protocols.iter().copied().collect());
    for (l4, want) in [
        (
            to_ports(Transport::Sctp, numbers(&[(80, 80)])),
            expect![[r#"
            IPv4 NP-I-bebodmfb6yeg7bi6hxya
              -p sctp -m sctp --dport 80 -m comment --comment np:010101010101010101010101:1e3c6d9f02c93279 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-bebodmfb6yeg7bi6hxya
              -p sctp -m sctp --dport 80 -m comment --comment np:010101010101010101010101:1e3c6d9f02c93279 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            to_ports(Transport::Udp, numbers(&[(53, 53), (1000, 2000)])),
            expect![[r#"
            IPv4 NP-I-tsx22tewdkm3277emqqq
              -p udp -m multiport --dports 53,1000:2000 -m comment --comment np:010101010101010101010101:719bf04e4d388280 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-tsx22tewdkm3277emqqq
              -p udp -m multiport --dports 53,1000:2000 -m comment --comment np:010101010101010101010101:719bf04e4d388280 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            to_ports(Transport::Tcp, numbers(&singles)),
            expect![[r#"
            IPv4 NP-I-f5qmzngp4t7ox4krxqbq
              -p tcp -m multiport --dports 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29 -m comment --comment np:010101010101010101010101:f14d73f5ac5c5e88 -j DROP
              -p tcp -m tcp --dport 31 -m comment --comment np:010101010101010101010101:9f92b1b6cd957355 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-f5qmzngp4t7ox4krxqbq
              -p tcp -m multiport --dports 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29 -m comment --comment np:010101010101010101010101:f14d73f5ac5c5e88 -j DROP
              -p tcp -m tcp --dport 31 -m comment --comment np:010101010101010101010101:9f92b1b6cd957355 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            to_ports(Transport::Tcp, named.clone()),
            expect![[r#"
                IPv4 NP-I-ghvjt3yppcfmupsdvhuq
                  -p tcp -m tcp --dport 443 -m comment --comment np:010101010101010101010101:a16c4ea8b9e5f0b3 -j DROP
                  -p tcp -m set --match-set np4q-52ba5013eca2fd8bc6b6e116 dst,dst -m comment --comment np:010101010101010101010101:f1e1fa0e87e8192d -j DROP
                  -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
                IPv6 NP-I-dirpq22cb3gre24tmmfq
                  -p tcp -m tcp --dport 443 -m comment --comment np:010101010101010101010101:a16c4ea8b9e5f0b3 -j DROP
                  -p tcp -m set --match-set np6q-52ba5013eca2fd8bc6b6e116 dst,dst -m comment --comment np:010101010101010101010101:125b6024b1c32561 -j DROP
                  -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
                np4q-52ba5013eca2fd8bc6b6e116 hash:ip,port family inet: 10.0.0.1,6:80
                np6q-52ba5013eca2fd8bc6b6e116 hash:ip,port family inet6: fd00::1,6:8080
            "#]],
        ),
        (
            ports(
                constraint(Some(numbers(&[(1, 1000)])), Some(numbers(&[(22, 22)]))),
                constraint(None, Some(named)),
            ),
            expect![[r#"
                IPv4 NP-I-o35cflvlwf3kmmgoqsfq
                  -p tcp -m tcp ! --dport 443 -m set ! --match-set np4q-52ba5013eca2fd8bc6b6e116 dst,dst -m multiport --sports 1:21,23:1000 -m comment --comment np:010101010101010101010101:42550e05ef517679 -j DROP
                  -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
                IPv6 NP-I-2vzbm34myib7od4l5jlq
                  -p tcp -m tcp ! --dport 443 -m set ! --match-set np6q-52ba5013eca2fd8bc6b6e116 dst,dst -m multiport --sports 1:21,23:1000 -m comment --comment np:010101010101010101010101:e199d059d046bf1b -j DROP
                  -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
                np4q-52ba5013eca2fd8bc6b6e116 hash:ip,port family inet: 10.0.0.1,6:80
                np6q-52ba5013eca2fd8bc6b6e116 hash:ip,port family inet6: fd00::1,6:8080
            "#]],
        ),
        (
            ports(any(), any()),
            expect![[r#"
            IPv4 NP-I-he2ulbqltgu5yzght33q
              -p tcp -m comment --comment np:010101010101010101010101:3a73d1ab035a65ad -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-he2ulbqltgu5yzght33q
              -p tcp -m comment --comment np:010101010101010101010101:3a73d1ab035a65ad -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            L4Match::Is(Protocol::new(47)),
            expect![[r#"
            IPv4 NP-I-eznkjzqwxgorez4rdblq
              -p 47 -m comment --comment np:010101010101010101010101:add2f927170b386a -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-eznkjzqwxgorez4rdblq
              -p 47 -m comment --comment np:010101010101010101010101:add2f927170b386a -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            not(&[Protocol::TCP]),
            expect![[r#"
            IPv4 NP-I-amfbjuhzri2ole4s3ora
              ! -p tcp -m comment --comment np:010101010101010101010101:82b59af585a93bb7 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-amfbjuhzri2ole4s3ora
              ! -p tcp -m comment --comment np:010101010101010101010101:82b59af585a93bb7 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            not(&[Protocol::TCP, Protocol::UDP]),
            expect![[r#"
            IPv4 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv4 NP-I-jaisdthtrjec6eckeprq
              -p tcp -m comment --comment np:next:c513b576c4eef882 -g NP-I-7y2frcofuw4ck7dg5w6a
              -p udp -m comment --comment np:next:ea188715b86f6123 -g NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:010101010101010101010101:2262c2d1e7e6a552 -j DROP
            IPv4 NP-I-nqwvtun5ubauxocis46a
              -m comment --comment np:next:09cce430bb453b3b -g NP-I-jaisdthtrjec6eckeprq
              -m comment --comment np:next:06dbe69947fde39d -g NP-I-7y2frcofuw4ck7dg5w6a
            IPv6 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-jaisdthtrjec6eckeprq
              -p tcp -m comment --comment np:next:c513b576c4eef882 -g NP-I-7y2frcofuw4ck7dg5w6a
              -p udp -m comment --comment np:next:ea188715b86f6123 -g NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:010101010101010101010101:2262c2d1e7e6a552 -j DROP
            IPv6 NP-I-nqwvtun5ubauxocis46a
              -m comment --comment np:next:09cce430bb453b3b -g NP-I-jaisdthtrjec6eckeprq
              -m comment --comment np:next:06dbe69947fde39d -g NP-I-7y2frcofuw4ck7dg5w6a
        "#]],
        ),
        (
            icmp(Family::V4, message(8, None), message(3, Some(13))),
            expect![[r#"
            IPv4 NP-I-ye2e63owcsalbcuaxcba
              -p icmp -m icmp --icmp-type 8 -m icmp ! --icmp-type 3/13 -m comment --comment np:010101010101010101010101:0e928357e90b869d -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
        (
            icmp(Family::V6, None, message(128, Some(0))),
            expect![[r#"
            IPv4 NP-I-7y2frcofuw4ck7dg5w6a
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
            IPv6 NP-I-cvgh3limgvvgcvnnnkwq
              -p ipv6-icmp -m icmp6 ! --icmpv6-type 128/0 -m comment --comment np:010101010101010101010101:8942143d33eb3004 -j DROP
              -m comment --comment np:next:b2d0cd898a7ff6d4 -j RETURN
        "#]],
        ),
    ] {
        let mut it = rule(1, Action::Deny);
        it.l4 = l4;
        check_rule(builder.clone(), it, want);
    }
}

#[test]
fn what_cannot_be_matched_isolates_its_endpoint() {
    for (l4, condition) in [
        (L4Match::Is(Protocol::new(0)), "IP protocol 0"),
        (L4Match::IsNot([Protocol::new(0), Protocol::TCP].into()), "IP protocol 0"),
        (
            L4Match::Icmp {
                family: Family::V4,
                is: Some(IcmpMatch { kind: 255, code: None }),
                is_not: None,
            },
            "ICMP type 255",
        ),
    ] {
        let mut builder = Builder::new();
        let mut it = rule(1, Action::Allow);
        it.remote = in_set(builder.addresses("a", &["10.0.0.7"]));
        it.l4 = l4;
        let mut pod = builder.endpoint("pod", &["10.0.0.1"]);
        pod.ingress = builder.policy(deny_unless(vec![rule(2, Action::Allow), it]));
        let rendered = render_all(&builder.add(pod).build());
        let [(id, error)] = rendered.isolated.as_slice() else { panic!("{rendered:?}") };
        assert_eq!((id.name.as_str(), error.kind()), ("pod", DataplaneErrorKind::Unsupported));
        assert_eq!(error.to_string(), format!("iptables cannot match {condition}"));
        // Nothing of it is left over.
        assert_eq!(rendered.ruleset.sets, BTreeMap::new());
        let names = rendered.ruleset.chains
            [&TableId { family: Family::V4, table: KernelTable::Filter }]
            .keys()
            .map(Name::as_str);
        assert_eq!(names.filter(|name| name.starts_with("NP-I-")).count(), 0);
    }
}

#[test]
fn endpoints_that_cannot_be_told_apart_are_isolated() {
    let mut builder = Builder::new();
    let closed = builder.policy(PolicySet { stages: Vec::new(), default: PolicyVerdict::Deny });
    let one = builder.endpoint("same", &["10.0.0.1"]);
    let mut other = builder.endpoint("other", &["10.0.0.2"]);
    (other.attachment, other.ingress) = (one.attachment.clone(), closed);
    let rendered = render_all(&builder.add(one).add(other).build());
    let names: Vec<&str> = rendered.isolated.iter().map(|(id, _)| id.name.as_str()).collect();
    assert_eq!(names, ["other", "same"]);
}

#[test]
fn equal_programs_give_equal_chains() {
    let one = render_all(&everything().build());
    let other = render_all(&everything().build());
    assert_eq!(one.ruleset, other.ruleset);
}

#[test]
fn the_second_slot_is_another_name_and_nothing_else() {
    let mut builder = Builder::new();
    let mut it = rule(1, Action::Allow);
    it.remote = in_set(builder.addresses("a", &["10.0.0.7"]));
    let mut pod = builder.endpoint("pod", &["10.0.0.1"]);
    pod.ingress = builder.policy(deny_unless(vec![it]));
    let program = builder.add(pod).build();
    let first = render_all(&program).ruleset;
    let (owner, refused) = Default::default();
    let second_slots = first.sets.keys().cloned().collect();
    let families = &Family::BOTH;
    let (second_slots, refused) = (&second_slots, &refused);
    let (table, mark, logging) = (KernelTable::Filter, 16, Logging::DEFAULT);
    let context = Context { owner: &owner, families, table, mark, logging, second_slots, refused };
    let second = render(&program, context).ruleset;
    let names =
        |ruleset: &Ruleset| ruleset.sets.keys().map(ToString::to_string).collect::<String>();
    assert_eq!(names(&first).replace("np4s-", "np4t-"), names(&second));
    assert_eq!(first.sets.values().collect::<Vec<_>>(), second.sets.values().collect::<Vec<_>>());
}
