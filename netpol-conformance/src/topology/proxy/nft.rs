//! The proxy as a table of nf_tables.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::{Frontend, Rewrite, Sender};
use crate::topology::layout::Transport;
use crate::topology::wiring::POD_INTERFACES;

/// The mark of packets whose source is to be translated; kube-proxy has the same.
const MARK: &str = "0x4000";

/// Returns what makes the table anew with these frontends.
pub(super) fn script(frontends: &[Frontend]) -> String {
    let mut text = String::from("add table inet npc-proxy\ndelete table inet npc-proxy\n");
    if frontends.is_empty() {
        return text;
    }
    text.push_str("table inet npc-proxy {\n");
    let mut chains = Chains { text: &mut text, backends: 0, services: 0 };
    let classes = Sender::ALL.map(|sender| (sender, chains.services(frontends, sender)));
    for (sender, elements) in classes {
        dispatch(&mut text, sender, &elements);
    }
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "chain prerouting {{ type nat hook prerouting priority dstnat; \
         iifname \"{POD_INTERFACES}*\" goto {pods}; goto {elsewhere}; }}\n\
         chain output {{ type nat hook output priority -100; goto {node}; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat; \
         meta mark and {MARK} == 0 return; meta mark set meta mark xor {MARK}; masquerade; }}\n}}\n",
        pods = chain_of(Sender::Pods),
        elsewhere = chain_of(Sender::Elsewhere),
        node = chain_of(Sender::Node),
    );
    text
}

/// The chains of Services and of their backends.
struct Chains<'a> {
    text: &'a mut String,
    backends: usize,
    services: usize,
}

impl Chains<'_> {
    /// Writes what becomes of packets of a class, and returns which frontend leads to which chain.
    fn services<'f>(
        &mut self,
        frontends: &'f [Frontend],
        sender: Sender,
    ) -> Vec<(&'f Frontend, String)> {
        frontends.iter().map(|it| (it, self.service(it.transport, it.rewrite(sender)))).collect()
    }

    fn service(&mut self, transport: Transport, rewrite: &Rewrite) -> String {
        let backends: Vec<_> =
            rewrite.to.iter().map(|backend| self.backend(transport, *backend)).collect();
        let name = format!("svc-{}", self.services);
        self.services += 1;
        let mut rules = String::new();
        if rewrite.masquerade {
            let _ = write!(rules, "meta mark set meta mark or {MARK}; ");
        }
        if backends.is_empty() {
            rules.push_str("drop; ");
        } else {
            let entries = backends.iter().enumerate();
            let entries: Vec<_> =
                entries.map(|(number, chain)| format!("{number} : goto {chain}")).collect();
            let (number, entries) = (entries.len(), entries.join(", "));
            let _ = write!(rules, "numgen random mod {number} vmap {{ {entries} }}; ");
        }
        let _ = writeln!(self.text, "chain {name} {{ {rules}}}");
        name
    }

    fn backend(&mut self, transport: Transport, backend: SocketAddr) -> String {
        let name = format!("ep-{}", self.backends);
        self.backends += 1;
        let (address, family) = (backend.ip(), family(backend.ip()));
        let _ = writeln!(
            self.text,
            "chain {name} {{ {family} saddr {address} meta mark set meta mark or {MARK}; \
             meta l4proto {protocol} dnat {family} to {backend}; }}",
            protocol = transport.keyword(),
        );
        name
    }
}

fn dispatch(text: &mut String, sender: Sender, elements: &[(&Frontend, String)]) {
    let _ = write!(text, "chain {} {{ ", chain_of(sender));
    for wanted in ["ip", "ip6"] {
        let elements: Vec<_> = elements
            .iter()
            .filter(|(frontend, _)| family(frontend.address) == wanted)
            .map(|(Frontend { address, transport, port, .. }, chain)| {
                format!("{address} . {} . {port} : goto {chain}", transport.keyword())
            })
            .collect();
        if !elements.is_empty() {
            let elements = elements.join(", ");
            let _ =
                write!(text, "{wanted} daddr . meta l4proto . th dport vmap {{ {elements} }}; ");
        }
    }
    text.push_str("}\n");
}

const fn chain_of(sender: Sender) -> &'static str {
    match sender {
        Sender::Pods => "from-pods",
        Sender::Node => "from-node",
        Sender::Elsewhere => "from-elsewhere",
    }
}

const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}
