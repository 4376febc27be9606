//! Dataplanes on real kernels as subjects.

mod hosts;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use netpol_core::model::{Attachment, EndpointKind, Object};
use netpol_core::{Capabilities, Dataplane, DataplaneErrorKind, Payload, Verdict};
use tokio::runtime::{Builder, Runtime};

use self::hosts::Hosts;
use super::feed::Feed;
use super::{Observation, Subject, SubjectError};
use crate::cluster::{Cluster, Receiver};
use crate::probe::{Outcome, Probe, Window, watch_all};
use crate::runner::chain;
use crate::scenario::{Attempt, ProbePort, Step};
use crate::topology::{Host, PodLinks, Proxy};

/// Within this time an attempt that must pass has to pass.
const ALLOWED_WITHIN: Duration = Duration::from_secs(5);

/// For so long an attempt that must not pass must not.
const DENIED_FOR: Duration = Duration::from_millis(300);

/// When an attempt is first repeated.
const RETRY: Duration = Duration::from_millis(60);

/// Most attempts at a time; each takes a few sockets.
const AT_A_TIME: usize = 512;

/// How often a dataplane is asked again after a passing failure.
const TRIES: usize = 5;

/// Makes a dataplane of the network namespace that the calling thread is in.
pub type Open = dyn Fn() -> Result<Box<dyn Dataplane>, OpenError> + Send + Sync;

/// Why a dataplane could not be made.
pub type OpenError = Box<dyn Error + Send + Sync>;

/// How a dataplane knows the packets of pods behind a bridge; those of routed ones it knows by their interfaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the two attachments that a pod can have")]
pub enum KnownBy {
    /// By the ports of the bridge.
    Interface,
    /// By the pods' addresses: netfilter sees every bridged packet come from the bridge.
    Address,
}

/// A dataplane in each node of a [topology](crate::topology::Topology), tried with real connections.
///
/// Before policy denies an attempt for the first time, it is made without any policy and has to pass: its positive
/// control. So a topology that is broken never looks like a denial. Neither does a slow machine: an attempt counts as
/// denied only after later packets, which policy does not judge, got through to the same server and back.
pub struct Kernel {
    open: Arc<Open>,
    bridged: Option<(KnownBy, Arc<Open>)>,
    // INVARIANT: dataplanes are dropped before the namespaces that they are in, and those before the runtime that their
    // servers run on.
    dataplanes: BTreeMap<String, Node>,
    hosts: Option<Hosts>,
    controlled: BTreeSet<Control>,
    patience: NonZero<u32>,
    proxy: Proxy,
    runtime: Runtime,
}

struct Node {
    feed: Feed,
    dataplane: Box<dyn Dataplane>,
}

/// Which source ports attempts have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SourcePorts {
    /// The one that an attempt names.
    Wanted,
    /// Any: a flow that was let through without policy must not be known when policy is in force.
    Any,
}

/// What tells one control from another.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Control {
    question: Question,
    /// Each host with its incarnation, and the address and payload that it is asked with.
    receivers: Vec<(Host, u32, IpAddr, Payload)>,
}

/// Who asks, with the incarnation, from which address, which address, for what.
type Question = (Host, u32, IpAddr, IpAddr, ProbePort);

/// Attempts that failed without any policy, and how.
type Uncontrolled = BTreeMap<Control, String>;

impl Kernel {
    /// Returns a subject. `open` makes the dataplane of a node; it is called within the node's network namespace.
    ///
    /// # Errors
    ///
    /// If the threads for the probes cannot be made.
    pub fn new(open: Arc<Open>) -> Result<Self, SubjectError> {
        // One thread, as sentinels want it.
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            open,
            bridged: None,
            dataplanes: BTreeMap::new(),
            hosts: None,
            controlled: BTreeSet::new(),
            patience: NonZero::<u32>::MIN,
            proxy: Proxy::default(),
            runtime: runtime.map_err(|source| SubjectError::Thread { source })?,
        })
    }

    /// Returns the same subject, which waits `factor` times as long for answers: on a slow machine, what is not denied
    /// would else be taken for denied if it came late.
    #[must_use]
    pub fn with_patience(self, factor: NonZero<u32>) -> Self {
        Self { patience: factor, ..self }
    }

    /// Returns the same subject, whose nodes translate the addresses of Services with another tool.
    #[must_use]
    pub fn with_proxy(self, proxy: Proxy) -> Self {
        Self { proxy, ..self }
    }

    /// Returns the same subject, which can also have pods behind bridges: `open` makes the dataplane of a node then, which
    /// knows pods by `known_by`. Without this it skips scenarios that have such pods.
    #[must_use]
    pub fn with_bridges(self, known_by: KnownBy, open: Arc<Open>) -> Self {
        Self { bridged: Some((known_by, open)), ..self }
    }

    /// Returns how a dataplane for such pods is made, and how it knows them.
    fn opening(&self, pods: PodLinks) -> Result<(KnownBy, Arc<Open>), SubjectError> {
        match pods {
            PodLinks::Routed => Ok((KnownBy::Interface, Arc::clone(&self.open))),
            PodLinks::Bridged => self.bridged.clone().ok_or(SubjectError::NoBridges),
        }
    }

    /// Brings hosts and dataplanes up to what the step needs, without a change of policy.
    fn prepare(&mut self, step: &Step, later: &[Step]) -> Result<(), SubjectError> {
        let (_, open) = self.opening(step.cluster.pod_links())?;
        let attempts: Vec<_> = step.attempts.iter().chain(upcoming(&step.cluster, later)).collect();
        let fits = self.hosts.as_ref().is_some_and(|hosts| hosts.fits(&step.cluster));
        if !fits {
            self.dataplanes.clear();
            self.controlled.clear();
            self.hosts = None;
        }
        let hosts = match &mut self.hosts {
            Some(hosts) => hosts,
            none => none.insert(Hosts::build(&step.cluster, self.runtime.handle())?),
        };
        hosts.update(&step.cluster, &attempts, self.proxy)?;
        for name in step.cluster.nodes().keys() {
            if !self.dataplanes.contains_key(name) {
                let opened = hosts.run_in(name, || open())?;
                let dataplane =
                    opened.map_err(|source| SubjectError::Open { node: name.clone(), source })?;
                can_show(&step.cluster, dataplane.capabilities())?;
                let feed = Feed::new(name, &step.cluster, dataplane.capabilities());
                self.dataplanes.insert(name.clone(), Node { feed, dataplane });
            }
        }
        Ok(())
    }

    /// Makes the controls that are missing, with nothing enforced.
    ///
    /// Those of later steps are made along, so that policy is not lifted for each of them.
    fn control(&mut self, step: &Step, later: &[Step]) -> Result<Uncontrolled, SubjectError> {
        let is_missing = |attempt: &&Attempt| {
            attempt.expect == Verdict::Deny
                && can_be_made(attempt)
                && !self.is_controlled(&control_of(&step.cluster, attempt))
        };
        if !step.attempts.iter().any(|attempt| is_missing(&attempt)) && self.is_enforcing() {
            return Ok(Uncontrolled::new());
        }
        let all = step.attempts.iter().chain(upcoming(&step.cluster, later)).filter(is_missing);
        let missing: BTreeMap<Control, &Attempt> =
            all.map(|it| (control_of(&step.cluster, it), it)).collect();
        if missing.is_empty() {
            return Ok(Uncontrolled::new());
        }
        for (name, node) in &mut self.dataplanes {
            node.dataplane
                .remove()
                .map_err(|source| SubjectError::Dataplane { node: name.clone(), source })?;
            node.feed.resync();
        }
        let attempts: Vec<_> = missing.values().map(|attempt| (*attempt, ALLOWED_WITHIN)).collect();
        let outcomes = self.watch(&attempts, SourcePorts::Any)?;
        let mut failed = Uncontrolled::new();
        for (control, outcome) in missing.into_keys().zip(outcomes) {
            match outcome {
                Outcome::Reached => {
                    self.controlled.insert(control);
                }
                other => {
                    failed.insert(
                        control,
                        format!("control failed, without any policy: {}", describe(&other)),
                    );
                }
            }
        }
        Ok(failed)
    }

    /// Nobody answers for a Service without backends, policy or not: it is enough that it once had some, and they did.
    fn is_controlled(&self, control: &Control) -> bool {
        let asks = |it: &Control| it.question == control.question;
        self.controlled.contains(control)
            || control.receivers.is_empty() && self.controlled.iter().any(asks)
    }

    fn is_enforcing(&self) -> bool {
        self.dataplanes.values().any(|node| node.feed.has_spoken())
    }

    /// Has every dataplane enforce the policies of the step.
    fn enforce(&mut self, cluster: &Cluster) -> Result<(), SubjectError> {
        let (known_by, _) = self.opening(cluster.pod_links())?;
        let Some(hosts) = &self.hosts else { return Ok(()) };
        for (name, node) in &mut self.dataplanes {
            node.feed.update(cluster, |object| attach(object, name, hosts, known_by))?;
            node.settle(name)?;
        }
        Ok(())
    }

    /// Makes attempts, each for some time (more with patience), and returns what came of them, in order.
    fn watch(
        &self,
        attempts: &[(&Attempt, Duration)],
        ports: SourcePorts,
    ) -> Result<Vec<Outcome>, SubjectError> {
        let Some(hosts) = &self.hosts else { return Ok(Vec::new()) };
        let probe =
            |(attempt, length): &(&Attempt, Duration)| -> Result<(Probe, Window), SubjectError> {
                let probe = hosts.probe(attempt, ports)?;
                Ok((probe, Window::new(*length * self.patience.get(), RETRY)))
            };
        let mut outcomes = Vec::with_capacity(attempts.len());
        for some in attempts.chunks(AT_A_TIME) {
            let probes = some.iter().map(probe).collect::<Result<Vec<_>, _>>()?;
            outcomes.extend(self.runtime.block_on(watch_all(probes)));
        }
        Ok(outcomes)
    }
}

impl Subject for Kernel {
    fn play(&mut self, step: &Step, later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
        self.prepare(step, later)?;
        let uncontrolled = self.control(step, later)?;
        self.enforce(&step.cluster)?;
        let length = |attempt: &Attempt| match attempt.expect {
            Verdict::Allow => ALLOWED_WITHIN,
            Verdict::Deny => DENIED_FOR,
        };
        let attempts: Vec<_> = step
            .attempts
            .iter()
            .filter(|attempt| can_be_made(attempt))
            .map(|attempt| (attempt, length(attempt)))
            .collect();
        let outcomes = self.watch(&attempts, SourcePorts::Wanted)?;
        for ((attempt, _), outcome) in attempts.iter().zip(&outcomes) {
            if matches!(outcome, Outcome::Reached) {
                self.controlled.insert(control_of(&step.cluster, attempt));
            }
        }
        let mut outcomes = outcomes.into_iter();
        let observe = |attempt: &Attempt| {
            let outcome = if can_be_made(attempt) { outcomes.next() } else { None };
            let uncontrolled = uncontrolled.get(&control_of(&step.cluster, attempt));
            match (outcome, uncontrolled) {
                (Some(outcome), None) => observation(&outcome),
                (Some(_), Some(uncontrolled)) => Observation::error(uncontrolled),
                (None, _) => Observation::error("not tried"),
            }
        };
        Ok(step.attempts.iter().map(observe).collect())
    }
}

impl Node {
    /// Applies updates until there are none left.
    fn settle(&mut self, name: &str) -> Result<(), SubjectError> {
        let failed = |source| SubjectError::Dataplane { node: name.to_owned(), source };
        let mut tries = TRIES;
        while let Some(update) = self.feed.poll() {
            match self.dataplane.apply(update) {
                Ok(mut applied) => match applied.isolated.pop() {
                    Some((endpoint, source)) => {
                        let endpoint = endpoint.to_string();
                        return Err(SubjectError::Isolated {
                            node: name.to_owned(),
                            endpoint,
                            source,
                        });
                    }
                    None => self.feed.handle(Ok(applied)),
                },
                Err(error) if error.kind() == DataplaneErrorKind::Transient && tries > 0 => {
                    tries -= 1;
                    self.feed.handle(Err(error));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Finds out whether the verdicts of a scenario are those of a dataplane with these capabilities.
fn can_show(cluster: &Cluster, capabilities: &Capabilities) -> Result<(), SubjectError> {
    let (source, destination) = (capabilities.source_view, capabilities.destination_view);
    if cluster.source_view().is_some_and(|wanted| wanted != source) {
        return Err(SubjectError::SourceView(source));
    }
    if cluster.destination_view().is_some_and(|wanted| wanted != destination) {
        return Err(SubjectError::DestinationView(destination));
    }
    Ok(())
}

/// Servers answer whatever connects, and look into no request.
fn can_be_made(attempt: &Attempt) -> bool {
    attempt.http.is_none()
}

/// Returns the attempts of later steps whose hosts are already there, and will be the same ones then.
fn upcoming<'a>(cluster: &'a Cluster, later: &'a [Step]) -> impl Iterator<Item = &'a Attempt> {
    later
        .iter()
        .flat_map(|step| &step.attempts)
        .filter(|attempt| attempt.expect == Verdict::Deny)
        .filter(|attempt| {
            let same = |host: &Host, address: IpAddr| match host {
                Host::External(_) => cluster.owner(address).is_none(),
                Host::Node(_) | Host::Pod(_) => cluster.owner(address).as_ref() == Some(host),
            };
            let there = cluster.receivers(&attempt.source, attempt.flow, attempt.direct().cloned());
            same(&attempt.source, attempt.flow.source)
                && there.as_ref() == Some(&attempt.receivers)
                && attempt.receivers.iter().all(|it| same(&it.host, it.flow.destination))
        })
}

fn control_of(cluster: &Cluster, attempt: &Attempt) -> Control {
    let Attempt { source, flow, port, .. } = attempt;
    let incarnation = cluster.incarnation(source);
    let receiver = |it: &Receiver| {
        (it.host.clone(), cluster.incarnation(&it.host), it.flow.destination, it.flow.payload)
    };
    Control {
        question: (
            source.clone(),
            incarnation,
            flow.source,
            flow.destination,
            port.from_any_port(),
        ),
        receivers: attempt.receivers.iter().map(receiver).collect(),
    }
}

/// Tells the engine of a node how the node knows the packets of its pods.
fn attach(object: &mut Object, node: &str, hosts: &Hosts, known_by: KnownBy) {
    if let Object::Endpoint(endpoint) = object
        && endpoint.id.kind == EndpointKind::Workload
        && endpoint.node.as_deref() == Some(node)
        && let Some(interface) = hosts.interface(&endpoint.id.to_string())
    {
        endpoint.attachment = match known_by {
            KnownBy::Interface => Attachment::Interface(interface.to_owned()),
            KnownBy::Address => Attachment::Address,
        };
    }
}

fn observation(outcome: &Outcome) -> Observation {
    match outcome {
        Outcome::Reached => Observation::of(Verdict::Allow, None),
        Outcome::Silent => Observation::of(Verdict::Deny, None),
        Outcome::Refused => Observation::of(Verdict::Deny, Some(describe(outcome))),
        Outcome::NoRoute | Outcome::Failed(_) => Observation::error(describe(outcome)),
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reached => "answered".to_owned(),
        Outcome::Silent => "no answer".to_owned(),
        Outcome::Refused => "refused by a reset, an abort or an ICMP error".to_owned(),
        Outcome::NoRoute => "no route leads there".to_owned(),
        Outcome::Failed(error) => chain(error),
    }
}
