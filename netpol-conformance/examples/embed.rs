//! How a network plugin enforces a policy on a pod, from nothing.

use netpol_core::api::{Strictness, k8s::NetworkPolicy};
use netpol_core::model::Endpoint;
use netpol_core::{Dataplane, Engine, NodeConfig};
use netpol_nft::{NftConfig, NftDataplane};

/// Enforces `policy` on the pod `shop/mysql`, whose packets pass `interface` on the host's side.
pub(crate) fn protect(interface: &str, policy: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut dataplane = NftDataplane::open(NftConfig::default())?;
    let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());

    let mut mysql = Endpoint::pod("shop", "mysql").on_node("node-a").attached_to(interface);
    mysql.addresses = vec!["10.244.0.3".parse()?];
    mysql.labels = [("name", "mysql")].into_iter().collect();
    engine.upsert(mysql)?;
    let policy: NetworkPolicy = serde_json::from_str(policy)?;
    engine.upsert(policy.to_policy(Strictness::Strict)?.value)?;
    engine.inputs_complete(); // from here on it enforces

    while let Some(update) = engine.poll_update() {
        let applied = dataplane.apply(update)?; // after an error the old state is in force
        engine.handle_applied(Ok(applied));
    }
    Ok(()) // the kernel goes on enforcing when the process ends
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("expected the name of an interface")?;
    protect(&interface, &std::io::read_to_string(std::io::stdin())?)
}
