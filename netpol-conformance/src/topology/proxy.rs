//! What nodes do with the addresses of Services: as kube-proxy, they translate them to those of backends.
//!
//! It is done by the tools that kube-proxy uses, with rules of the same shape: an address and port lead to a chain that
//! picks a backend at random, that leads to one that translates the destination, and what must come back through this node
//! is marked for the last hook, where its source becomes the node's.

mod iptables;
mod nft;

use std::net::{IpAddr, SocketAddr};

use super::command::Command;
use super::layout::Transport;
use super::{Namespace, TopologyError};

/// Which tool translates.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "kube-proxy has these two for real rules")]
pub enum Proxy {
    /// `nft`: a table of its own with verdict maps.
    #[default]
    Nft,
    /// `iptables-restore`: chains of the tables `nat` and `filter`.
    Iptables,
}

/// An address and port that a node translates.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a packet comes from one of these three")]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// What becomes of what pods of the node send.
    pub from_pods: Rewrite,
    /// What becomes of what processes of the node itself send.
    pub from_node: Rewrite,
    /// What becomes of what others send.
    pub from_elsewhere: Rewrite,
}

/// What becomes of packets to a frontend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "destination and source are all that is translated")]
pub struct Rewrite {
    /// The backends, each as likely as the others. Without any, packets are dropped.
    pub to: Vec<SocketAddr>,
    /// Whether the source becomes the node's. It does so in any case where a backend would meet itself.
    pub masquerade: bool,
}

/// Where packets come from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Sender {
    Pods,
    Node,
    Elsewhere,
}

impl Sender {
    const ALL: [Self; 3] = [Self::Pods, Self::Node, Self::Elsewhere];
}

impl Frontend {
    fn rewrite(&self, sender: Sender) -> &Rewrite {
        match sender {
            Sender::Pods => &self.from_pods,
            Sender::Node => &self.from_node,
            Sender::Elsewhere => &self.from_elsewhere,
        }
    }
}

/// The proxy of one node.
#[derive(Debug, Default)]
pub(super) struct Translator {
    proxy: Option<Proxy>,
    frontends: Vec<Frontend>,
}

impl Translator {
    /// Translates these frontends and no others.
    pub(super) fn translate(
        &mut self,
        namespace: &Namespace,
        proxy: Proxy,
        frontends: &[Frontend],
    ) -> Result<(), TopologyError> {
        if self.frontends == frontends && (self.proxy == Some(proxy) || frontends.is_empty()) {
            return Ok(());
        }
        if let Some(before) = self.proxy.filter(|it| *it != proxy) {
            self.run(namespace, before, &[])?;
        }
        self.run(namespace, proxy, frontends)?;
        self.proxy = Some(proxy);
        self.frontends = frontends.to_vec();
        Ok(())
    }

    fn run(
        &self,
        namespace: &Namespace,
        proxy: Proxy,
        frontends: &[Frontend],
    ) -> Result<(), TopologyError> {
        let is_first = self.proxy != Some(proxy);
        let commands = match proxy {
            Proxy::Nft => vec![Command::new("nft", ["-f", "-"], nft::script(frontends))],
            Proxy::Iptables => iptables::scripts(&self.frontends, frontends, is_first),
        };
        commands.iter().try_for_each(|it| it.run(namespace))
    }
}
