//! One node with three pods, and a dataplane in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use netpol_core::api::{Strictness, k8s::NetworkPolicy};
use netpol_core::model::{Endpoint, InterfacePrefix, Object, UnknownInterfaces};
use netpol_core::net::Family;
use netpol_core::program::Established;
use netpol_core::{
    Applied, Capabilities, Change, Dataplane, Drift, Engine, NodeConfig, Program, Update,
};
use tokio::runtime::{Builder, Runtime};

use super::Broken;
use crate::probe::{Outcome, Request, Window};
use crate::runner::chain;
use crate::subject::Open;
use crate::topology::{
    Host, Layout, Namespace, NodeSpec, POD_INTERFACES, PodSpec, Topology, Transport,
};

/// The name of the node, and the namespace of the pods.
const NODE: &str = "node";
const NAMESPACE: &str = "lab";

/// The port that the server listens on.
pub(super) const PORT: u16 = 80;

/// Within this time what must pass has to pass, and for so long what must not pass must not.
pub(super) const PASSES_WITHIN: Duration = Duration::from_secs(10);
pub(super) const STOPPED_FOR: Duration = Duration::from_millis(300);
pub(super) const RETRY: Duration = Duration::from_millis(60);

/// A pod of the lab.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pod {
    Client,
    Other,
    Server,
}

/// Who may open flows to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Policy {
    Everybody,
    Only(Pod),
    AllBut(Pod),
    Nobody,
}

/// What is to be enforced.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) policy: Policy,
    pub(super) established: Established,
    pub(super) unknown: UnknownInterfaces,
}

/// INVARIANT: the dataplane is dropped before the namespaces, and those before the runtime that their servers run on.
pub(super) struct Lab {
    dataplane: Option<Box<dyn Dataplane>>,
    capabilities: Capabilities,
    open: Arc<Open>,
    generation: u64,
    topology: Topology,
    runtime: Runtime,
}

impl Pod {
    pub(super) const ALL: [Self; 3] = [Self::Client, Self::Other, Self::Server];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Other => "other",
            Self::Server => "server",
        }
    }

    fn id(self) -> String {
        format!("{NAMESPACE}/{}", self.name())
    }

    pub(super) fn host(self) -> Host {
        Host::Pod(self.id())
    }

    pub(super) const fn address(self, family: Family) -> IpAddr {
        let last = self as u8 + 2;
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 244, 0, last)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, last as u16)),
        }
    }

    fn addresses(self) -> [IpAddr; 2] {
        Family::BOTH.map(|family| self.address(family))
    }
}

impl Lab {
    pub(super) fn build(open: Arc<Open>) -> Result<Self, Broken> {
        // One thread, as sentinels want it.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let node: [IpAddr; 2] = [
            Ipv4Addr::new(172, 18, 0, 2).into(),
            Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 2).into(),
        ];
        let pods = Pod::ALL.map(|pod| {
            PodSpec::new(pod.id(), NODE, pod.addresses()).listening(Transport::Tcp, PORT)
        });
        let layout = Layout::new(vec![NodeSpec::new(NODE, node)], pods.into(), Vec::new());
        let topology = Topology::build(layout, runtime.handle())?;
        let capabilities = Capabilities::minimal();
        let mut lab =
            Self { dataplane: None, capabilities, open, generation: 0, topology, runtime };
        lab.reopen()?;
        Ok(lab)
    }

    /// Ends the dataplane, without a word to it.
    pub(super) fn kill(&mut self) {
        self.dataplane = None;
    }

    /// Ends the dataplane, if it has not ended yet, and opens a new one.
    pub(super) fn reopen(&mut self) -> Result<(), Broken> {
        self.kill();
        let open = Arc::clone(&self.open);
        let dataplane = self.namespace(&Host::Node(NODE.to_owned()))?.run(|| open())?;
        let dataplane = dataplane.map_err(Broken::Open)?;
        self.capabilities = dataplane.capabilities().clone();
        self.dataplane = Some(dataplane);
        Ok(())
    }

    pub(super) fn dataplane(&mut self) -> Result<&mut dyn Dataplane, Broken> {
        let closed = || Broken::Inconclusive { what: "no dataplane is open".to_owned() };
        Ok(self.dataplane.as_mut().ok_or_else(closed)?.as_mut())
    }

    pub(super) fn namespace(&self, host: &Host) -> Result<&Namespace, Broken> {
        let unknown = || crate::topology::TopologyError::UnknownHost(host.clone());
        Ok(self.topology.namespace(host).ok_or_else(unknown)?)
    }

    pub(super) fn node() -> Host {
        Host::Node(NODE.to_owned())
    }

    /// Returns how the names of the pods' interfaces begin.
    pub(super) fn pods_interfaces() -> Option<InterfacePrefix> {
        POD_INTERFACES.parse().ok()
    }

    pub(super) const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Returns the endpoint that a pod is.
    pub(super) fn endpoint(&self, pod: Pod) -> Endpoint {
        let interface = self.topology.attachment(&pod.id()).map(|it| it.interface);
        let mut endpoint = Endpoint::pod(NAMESPACE, pod.name())
            .on_node(NODE)
            .attached_to(interface.unwrap_or_default());
        endpoint.id.uid = pod.name().to_owned();
        endpoint.addresses = pod.addresses().into();
        endpoint.labels = [("name", pod.name())].into_iter().collect();
        endpoint
    }

    /// Returns the wish that a policy is in force for all pods.
    pub(super) fn wish(&self, policy: Policy) -> Wish {
        let endpoints = Pod::ALL.map(|pod| self.endpoint(pod)).into();
        let (established, unknown) = (Established::Keep, UnknownInterfaces::default());
        Wish { endpoints, policy, established, unknown }
    }

    /// Returns the program for a wish.
    pub(super) fn program(&self, wish: &Wish) -> Result<Arc<Program>, Broken> {
        let mut config = NodeConfig::new(NODE);
        config.established = wish.established;
        config.unknown = wish.unknown.clone();
        let mut engine = Engine::new(config, &self.capabilities);
        for object in wish.objects()? {
            engine.upsert(object).map_err(|error| wrong(&error))?;
        }
        engine.inputs_complete();
        match engine.poll_update().map(|update| update.change) {
            Some(Change::Full(program)) => Ok(program),
            _ => Err(Broken::Inconclusive { what: "the engine has no program".to_owned() }),
        }
    }

    pub(super) fn apply(&mut self, change: Change) -> Result<Applied, Broken> {
        self.generation += 1;
        let update = Update::new(self.generation, change);
        let applied = self.dataplane()?.apply(update)?;
        let (is, was) = (applied.generation, self.generation);
        super::promised(is == was, || format!("update {was} was reported as {is}"))?;
        Ok(applied)
    }

    /// Returns an engine of the node that has no inputs yet.
    pub(super) fn engine(&self) -> Engine {
        Engine::new(NodeConfig::new(NODE), &self.capabilities)
    }

    /// Brings an engine from one wish to another, and the dataplane with it.
    pub(super) fn follow(
        &mut self,
        engine: &mut Engine,
        from: &[Object],
        to: &[Object],
    ) -> Result<(), Broken> {
        let is_gone = |it: &&Object| to.iter().all(|other| other.key() != it.key());
        for object in from.iter().filter(is_gone) {
            engine.remove(&object.key());
        }
        for object in to.iter().filter(|it| !from.contains(it)) {
            engine.upsert(object.clone()).map_err(|error| wrong(&error))?;
        }
        engine.inputs_complete();
        while let Some(update) = engine.poll_update() {
            let applied = self.dataplane()?.apply(update)?;
            engine.handle_applied(Ok(applied));
        }
        Ok(())
    }

    /// Puts a program in force, and every endpoint of it.
    pub(super) fn enforce(&mut self, program: &Arc<Program>) -> Result<Applied, Broken> {
        let applied = self.apply(Change::Full(Arc::clone(program)))?;
        super::promised(applied.isolated.is_empty(), || {
            let names =
                applied.isolated.iter().map(|(id, error)| format!("`{id}`: {}", chain(error)));
            format!("endpoints were closed: {}", names.collect::<Vec<_>>().join(", "))
        })?;
        Ok(applied)
    }

    pub(super) fn audit(&mut self, program: &Program) -> Result<Drift, Broken> {
        Ok(self.dataplane()?.audit(program)?)
    }

    /// Nothing differs from a program.
    pub(super) fn agrees(&mut self, program: &Program) -> Result<(), Broken> {
        let drift = self.audit(program)?;
        super::promised(drift.is_none(), || {
            format!("what was just put in force differs: {}", drift.differences.join("; "))
        })
    }

    /// A pod can open a flow to the server, over both families.
    pub(super) fn reaches(&self, from: Pod) -> Result<(), Broken> {
        for outcome in self.probe(&from.host(), PASSES_WITHIN)? {
            super::promised(matches!(outcome, Outcome::Reached), || {
                format!("{} does not reach the server: {outcome}", from.name())
            })?;
        }
        Ok(())
    }

    /// A pod cannot open a flow to the server.
    pub(super) fn is_kept_out(&self, from: Pod) -> Result<(), Broken> {
        for outcome in self.probe(&from.host(), STOPPED_FOR)? {
            match outcome {
                Outcome::Silent | Outcome::Refused => {}
                Outcome::Reached => {
                    let what = format!("{} reaches the server", from.name());
                    return Err(Broken::Promise { what });
                }
                other => return Err(Broken::Inconclusive { what: other.to_string() }),
            }
        }
        Ok(())
    }

    /// The server reaches itself, which no policy judges: whoever has not answered by now does not.
    pub(super) fn sentinel(&self) -> Result<(), Broken> {
        for outcome in self.probe(&Pod::Server.host(), PASSES_WITHIN)? {
            if !matches!(outcome, Outcome::Reached) {
                return Err(Broken::Inconclusive { what: format!("the sentinel: {outcome}") });
            }
        }
        Ok(())
    }

    fn probe(&self, from: &Host, length: Duration) -> Result<[Outcome; 2], Broken> {
        let probe = |family: Family| {
            let to = Pod::Server.address(family);
            let sentinel = self.topology.probe(&Pod::Server.host(), to, Request::Tcp(PORT))?;
            let probe = self.topology.probe(from, to, Request::Tcp(PORT))?;
            Ok::<_, Broken>(probe.with_sentinel(sentinel))
        };
        let [v4, v6] = Family::BOTH.map(probe);
        let (v4, v6) = (v4?, v6?);
        let window = Window::new(length, RETRY);
        let both = async { tokio::join!(v4.watch(window), v6.watch(window)) };
        let (v4, v6) = self.runtime.block_on(both);
        Ok([v4, v6])
    }
}

impl Wish {
    /// Returns what an engine must be told.
    pub(super) fn objects(&self) -> Result<Vec<Object>, Broken> {
        let mut objects: Vec<_> = self.endpoints.iter().cloned().map(Object::from).collect();
        if let Some(text) = self.policy.text() {
            let policy: NetworkPolicy = serde_json::from_str(&text).map_err(|it| wrong(&it))?;
            let policy = policy.to_policy(Strictness::Strict).map_err(|error| wrong(&error))?;
            objects.push(policy.value.into());
        }
        Ok(objects)
    }
}

/// The inputs of a check are as they should be, so this is nobody's fault but ours.
fn wrong(error: &dyn std::error::Error) -> Broken {
    Broken::Inconclusive { what: error.to_string() }
}

impl Policy {
    fn text(self) -> Option<String> {
        let from = match self {
            Self::Everybody => return None,
            Self::Only(pod) => format!(
                r#"{{"from": [{{"podSelector": {{"matchLabels": {{"name": "{}"}}}}}}]}}"#,
                pod.name()
            ),
            Self::AllBut(pod) => format!(
                r#"{{"from": [{{"podSelector": {{"matchExpressions":
                    [{{"key": "name", "operator": "NotIn", "values": ["{}"]}}]}}}}]}}"#,
                pod.name()
            ),
            Self::Nobody => String::new(),
        };
        Some(format!(
            r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {{"namespace": "{NAMESPACE}", "name": "server"}},
                "spec": {{"podSelector": {{"matchLabels": {{"name": "server"}}}},
                          "policyTypes": ["Ingress"], "ingress": [{from}]}}}}"#
        ))
    }
}
