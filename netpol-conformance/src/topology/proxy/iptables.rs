//! The proxy as chains of iptables, of both families.

use std::fmt::Write;
use std::net::SocketAddr;

use super::super::command::Command;
use super::{Frontend, Rewrite, Sender};
use crate::topology::layout::Transport;
use crate::topology::wiring::{Families, POD_INTERFACES};

/// The mark of packets whose source is to be translated; kube-proxy has the same.
const MARK: &str = "0x4000/0x4000";

/// Chains that are always there once there were frontends.
const NAT_CHAINS: [&str; 5] = ["NPC-POD", "NPC-NODE", "NPC-ELSE", "NPC-POST", "NPC-MARK"];

/// Returns the scripts that put `frontends` in the place of `before`.
///
/// Nothing else in the tables is touched: port mappings have their own chains.
pub(super) fn scripts(before: &[Frontend], frontends: &[Frontend], is_first: bool) -> Vec<Command> {
    let families: &[_] = match Families::supported() {
        Families::V4 => &[("iptables-restore", true)],
        Families::Both => &[("iptables-restore", true), ("ip6tables-restore", false)],
    };
    let command = |(tool, is_v4): &(&'static str, bool)| {
        let of_family = |all: &[Frontend]| -> Vec<Frontend> {
            all.iter().filter(|it| it.address.is_ipv4() == *is_v4).cloned().collect()
        };
        let script = script(&of_family(before), &of_family(frontends), is_first);
        Command::new(*tool, ["--noflush", "--wait", "5"], script)
    };
    families.iter().map(command).collect()
}

fn script(before: &[Frontend], frontends: &[Frontend], is_first: bool) -> String {
    let (old, new) = (Chains::of(before), Chains::of(frontends));
    let mut text = String::from("*nat\n");
    // Naming a chain makes or empties it.
    for chain in NAT_CHAINS.into_iter().chain(old.names()).chain(new.names()) {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    if is_first {
        let _ = write!(
            text,
            "-A PREROUTING -i {POD_INTERFACES}+ -j NPC-POD\n-A PREROUTING ! -i {POD_INTERFACES}+ -j NPC-ELSE\n\
             -A OUTPUT -j NPC-NODE\n-A POSTROUTING -j NPC-POST\n"
        );
    }
    let _ = write!(
        text,
        "-A NPC-MARK -j MARK --set-xmark {MARK}\n-A NPC-POST -m mark ! --mark {MARK} -j RETURN\n\
         -A NPC-POST -j MARK --set-xmark 0x0/0x4000\n-A NPC-POST -j MASQUERADE\n"
    );
    text.push_str(&new.rules);
    for chain in old.names().filter(|chain| !new.names().any(|it| it == *chain)) {
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n*filter\n:NPC-DROP - [0:0]\n");
    if is_first {
        text.push_str("-A INPUT -j NPC-DROP\n-A FORWARD -j NPC-DROP\n-A OUTPUT -j NPC-DROP\n");
    }
    for frontend in frontends {
        // The table `nat` may not drop. What was translated has another destination here.
        if Sender::ALL.iter().any(|sender| frontend.rewrite(*sender).to.is_empty()) {
            let _ = writeln!(text, "-A NPC-DROP {} -j DROP", matches(frontend));
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// The chains of Services and of their backends.
#[derive(Default)]
struct Chains {
    names: Vec<String>,
    rules: String,
}

impl Chains {
    fn of(frontends: &[Frontend]) -> Self {
        let mut chains = Self::default();
        for frontend in frontends {
            for sender in Sender::ALL {
                let rewrite = frontend.rewrite(sender);
                if !rewrite.to.is_empty() {
                    let chain = chains.service(frontend.transport, rewrite);
                    let entry = chain_of(sender);
                    let _ = writeln!(chains.rules, "-A {entry} {} -j {chain}", matches(frontend));
                }
            }
        }
        chains
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    fn add(&mut self, kind: &str) -> String {
        let name = format!("NPC-{kind}-{}", self.names.len());
        self.names.push(name.clone());
        name
    }

    fn service(&mut self, transport: Transport, rewrite: &Rewrite) -> String {
        let chain = self.add("SVC");
        if rewrite.masquerade {
            let _ = writeln!(self.rules, "-A {chain} -j NPC-MARK");
        }
        for (number, backend) in rewrite.to.iter().enumerate() {
            let target = self.backend(transport, *backend);
            let choice = match rewrite.to.len().saturating_sub(number) {
                0 | 1 => String::new(),
                left => {
                    let nth = 1.0 / f64::from(u16::try_from(left).unwrap_or(u16::MAX));
                    format!(" -m statistic --mode random --probability {nth:.10}")
                }
            };
            let _ = writeln!(self.rules, "-A {chain}{choice} -j {target}");
        }
        chain
    }

    fn backend(&mut self, transport: Transport, backend: SocketAddr) -> String {
        let chain = self.add("SEP");
        let (address, protocol) = (backend.ip(), transport.keyword());
        let _ = write!(
            self.rules,
            "-A {chain} -s {address} -j NPC-MARK\n\
             -A {chain} -p {protocol} -m {protocol} -j DNAT --to-destination {backend}\n"
        );
        chain
    }
}

fn matches(frontend: &Frontend) -> String {
    let Frontend { address, transport, port, .. } = frontend;
    let protocol = transport.keyword();
    format!("-d {address} -p {protocol} -m {protocol} --dport {port}")
}

const fn chain_of(sender: Sender) -> &'static str {
    match sender {
        Sender::Pods => "NPC-POD",
        Sender::Node => "NPC-NODE",
        Sender::Elsewhere => "NPC-ELSE",
    }
}
