//! The scenarios catch subjects that get policy wrong.
//!
//! Each mutant is the judge with one mistake. One that no scenario catches fails the test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use netpol_conformance::cluster::Leg;
use netpol_conformance::document::files;
use netpol_conformance::report::Status;
use netpol_conformance::runner::Backend;
use netpol_conformance::scenario::{Attempt, Scenario, Step, load};
use netpol_conformance::subject::{Got, Observation, Subject, SubjectError};
use netpol_core::eval::Judge;
use netpol_core::model::{
    Action, Attachment, Endpoint, EndpointKind, Enforcement, EntityMatch, HostSettings,
    HostTraffic, Inputs, L4Match, Lifecycle, Object, ObjectKey, Peers, Policy, PortConstraint,
    PortMatch, Rule, Tier, TierEnd, Treatment, Tunnel, WorkloadToHost,
};
use netpol_core::net::{PortSet, PrefixSet};
use netpol_core::{Capabilities, Flow, Origin, Payload, Selector, Verdict};

/// A judge that looks at something else than it was given.
struct Mutant {
    inputs: fn(&mut Object),
    flow: fn(Flow) -> Flow,
    /// What nodes do with packets that they translate.
    leg: fn(&mut Leg),
    verdict: fn(Verdict) -> Verdict,
    settings: fn(&mut HostSettings),
    unknown: fn(Treatment) -> Treatment,
    /// Objects that were seen in an earlier step and are forgotten only if this says so.
    forgets: fn(&ObjectKey) -> bool,
    seen: Vec<Object>,
}

type Make = fn() -> Mutant;

const SOUND: Mutant = Mutant {
    inputs: |_| {},
    flow: |flow| flow,
    leg: |_| {},
    verdict: |verdict| verdict,
    settings: |_| {},
    unknown: |it| it,
    forgets: |_| true,
    seen: Vec::new(),
};

impl Subject for Mutant {
    fn play(&mut self, step: &Step, _later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
        let current = step.cluster.model();
        self.seen.retain(|object| {
            !(self.forgets)(&object.key()) && !current.contains_key(&object.key())
        });
        self.seen.extend(current.into_values().cloned());
        let mut inputs = Inputs::default();
        for mut object in self.seen.clone() {
            (self.inputs)(&mut object);
            inputs.upsert(object);
        }
        let mut capabilities = Capabilities::all();
        // Nobody looks into connections.
        capabilities.http = false;
        let mut settings = step.cluster.settings().clone();
        (self.settings)(&mut settings);
        let mut judge = Judge::new(&inputs, &capabilities).with_settings(settings);
        if let Some(treatment) = step.cluster.unknown_interfaces() {
            let addresses = step.cluster.unknown_addresses();
            judge = judge.with_unknown(addresses, (self.unknown)(treatment));
        }
        let verdict = |attempt: &Attempt| {
            if attempt.direct().is_some() {
                return judge.evaluate(&(self.flow)(attempt.flow)).enforced.verdict();
            }
            let ways = attempt.receivers.iter().map(|it| step.cluster.legs(attempt, it));
            let ways = ways.map(|legs| self.way(&judge, &inputs, legs));
            ways.max().unwrap_or(Verdict::Deny)
        };
        let verdict = |attempt: &Attempt| (self.verdict)(verdict(attempt));
        Ok(step.attempts.iter().map(|attempt| Observation::of(verdict(attempt), None)).collect())
    }

    fn inability(&self, attempt: &Attempt) -> Option<String> {
        let cannot = attempt.http.is_some() || attempt.forged.is_some();
        cannot.then(|| "knows senders by their addresses, and no requests".to_owned())
    }
}

impl Mutant {
    /// Judges a packet by what each node on its way makes of it.
    fn way(&self, judge: &Judge<'_>, inputs: &Inputs, legs: Vec<Leg>) -> Verdict {
        let legs: Vec<_> = legs
            .into_iter()
            .map(|mut leg| {
                (self.leg)(&mut leg);
                leg
            })
            .collect();
        let at = |leg: &Leg, flow: &Flow| judge.evaluate_translated(flow, &leg.before_nat).enforced;
        let (first, last) = (legs.first().unwrap(), legs.last().unwrap());
        let halves = [at(first, &first.flow).egress, at(last, &last.entering).ingress];
        let hosts = legs.iter().flat_map(|leg| {
            let mut hosts = at(leg, &leg.flow).hosts;
            hosts.retain(|host| {
                inputs
                    .endpoints()
                    .any(|it| it.id == host.endpoint && it.node.as_ref() == Some(&leg.node))
            });
            hosts.into_iter().map(|it| it.explanation)
        });
        halves.into_iter().chain(hosts).map(|it| it.verdict).max().unwrap()
    }
}

fn shipped() -> &'static [Scenario] {
    static SHIPPED: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let load = |file: &std::path::PathBuf| load(file).unwrap_or_else(|error| panic!("{error}"));
        files(&folder).unwrap().iter().map(load).collect()
    });
    &SHIPPED
}

/// Returns whether the subject fails a probe of some scenario.
fn fails(mutant: Make) -> bool {
    let backend = Backend::new("mutant", 1, move || Ok(Box::new(mutant())));
    shipped()
        .iter()
        .flat_map(|scenario| backend.run(scenario).unwrap())
        .filter(|row| row.status != Status::Skip)
        .any(|row| row.got != row.expect.map(|it| Observation::of(it, None).got))
}

/// Changes every rule of every policy.
fn rules(object: &mut Object, change: impl Fn(&mut Rule)) {
    if let Object::Policy(Policy { ingress, egress, .. }) = object {
        ingress.iter_mut().chain(egress).flatten().for_each(change);
    }
}

/// Changes both sides of every rule.
fn sides(object: &mut Object, change: impl Fn(&mut EntityMatch)) {
    rules(object, |rule| {
        change(&mut rule.matches.source);
        change(&mut rule.matches.destination);
    });
}

/// Changes every list of ports.
fn ports(object: &mut Object, change: impl Fn(&mut PortMatch)) {
    rules(object, |rule| {
        if let L4Match::Ports { source, destination, .. } = &mut rule.matches.l4 {
            source.any_of.iter_mut().chain(&mut destination.any_of).for_each(&change);
        }
    });
}

fn endpoint(object: &mut Object, change: impl Fn(&mut Endpoint)) {
    if let Object::Endpoint(endpoint) = object {
        change(endpoint);
    }
}

fn host(object: &mut Object, change: impl Fn(&mut Endpoint)) {
    endpoint(object, |it| {
        if it.id.kind == EndpointKind::Host {
            change(it);
        }
    });
}

fn traffic(object: &mut Object, from: HostTraffic, to: HostTraffic) {
    policy(object, |it| {
        if it.host_traffic == from {
            it.host_traffic = to;
        }
    });
}

fn policy(object: &mut Object, change: impl Fn(&mut Policy)) {
    if let Object::Policy(policy) = object {
        change(policy);
    }
}

fn tier(object: &mut Object, change: impl Fn(&mut Tier)) {
    if let Object::Tier(tier) = object {
        change(tier);
    }
}

fn replace_action(object: &mut Object, from: Action, to: Action) {
    rules(object, |rule| {
        if rule.action == from {
            rule.action = to;
        }
    });
}

/// Turns the order of numbers of equal length around, so that an address belongs to the oldest of its claimants.
fn nines_complement(number: &str) -> String {
    number.bytes().map(|digit| char::from(b'0' + b'9' - digit)).collect()
}

#[test]
fn the_judge_without_a_mistake_passes() {
    assert!(!fails(|| SOUND));
}

#[test]
fn every_mistake_is_caught() {
    let mutants: [(&str, Make); 46] = [
        ("leaves unknown interfaces open", || Mutant { unknown: |_| Treatment::Open, ..SOUND }),
        ("closes all unknown interfaces", || Mutant { unknown: |_| Treatment::Closed, ..SOUND }),
        ("lets whoever is unknown open flows", || Mutant {
            unknown: |_| Treatment::EgressTracked,
            ..SOUND
        }),
        ("allows everything", || Mutant { verdict: |_| Verdict::Allow, ..SOUND }),
        ("denies everything", || Mutant { verdict: |_| Verdict::Deny, ..SOUND }),
        ("ignores ports", || Mutant {
            inputs: |it| {
                rules(it, |rule| {
                    if let L4Match::Ports { destination, .. } = &mut rule.matches.l4 {
                        *destination = PortConstraint::default();
                    }
                });
            },
            ..SOUND
        }),
        ("ignores protocols", || Mutant {
            flow: |flow| match flow.payload {
                Payload::Ports { source, destination, .. } => {
                    let transport = netpol_core::net::Transport::Tcp;
                    Flow { payload: Payload::Ports { transport, source, destination }, ..flow }
                }
                _ => flow,
            },
            ..SOUND
        }),
        ("ignores port names", || Mutant {
            inputs: |it| ports(it, |it| it.names.clear()),
            ..SOUND
        }),
        ("ignores port numbers", || Mutant {
            inputs: |it| ports(it, |it| it.numbers = PortSet::default()),
            ..SOUND
        }),
        ("ignores exceptions of networks", || Mutant {
            inputs: |it| sides(it, |it| it.not_nets = PrefixSet::default()),
            ..SOUND
        }),
        ("ignores networks", || Mutant { inputs: |it| sides(it, |it| it.nets = None), ..SOUND }),
        ("ignores pods as peers", || Mutant {
            inputs: |it| {
                sides(it, |it| {
                    it.peers = it.peers.take().map(|_| Peers::Endpoints(Selector::all()))
                })
            },
            ..SOUND
        }),
        ("ignores subjects", || Mutant {
            inputs: |it| policy(it, |it| it.subject = Selector::all()),
            ..SOUND
        }),
        ("ignores ingress", || Mutant { inputs: |it| policy(it, |it| it.ingress = None), ..SOUND }),
        ("ignores egress", || Mutant { inputs: |it| policy(it, |it| it.egress = None), ..SOUND }),
        ("takes an empty list of rules for none", || Mutant {
            inputs: |it| {
                policy(it, |it| it.ingress = it.ingress.take().filter(|rules| !rules.is_empty()))
            },
            ..SOUND
        }),
        ("takes allow rules only from the first of a list", || Mutant {
            inputs: |it| policy(it, |it| it.ingress.iter_mut().for_each(|rules| rules.truncate(1))),
            ..SOUND
        }),
        ("denies what rules allow", || Mutant {
            inputs: |it| rules(it, |rule| rule.action = Action::Deny),
            ..SOUND
        }),
        ("forgets namespaces' labels", || Mutant {
            inputs: |it| {
                if let Object::Namespace { labels, .. } = it {
                    *labels = netpol_core::Labels::default();
                }
            },
            ..SOUND
        }),
        ("keeps deleted policies", || Mutant {
            forgets: |key| !matches!(key, ObjectKey::Policy(_)),
            ..SOUND
        }),
        ("keeps deleted pods", || Mutant {
            forgets: |key| !matches!(key, ObjectKey::Endpoint(_)),
            inputs: |it| endpoint(it, |it| it.id.uid = nines_complement(&it.id.uid)),
            ..SOUND
        }),
        ("takes finished pods for running ones", || Mutant {
            inputs: |it| {
                endpoint(it, |it| {
                    if it.lifecycle == Lifecycle::Finished {
                        it.lifecycle = Lifecycle::Running;
                        it.id.uid = "z".to_owned();
                    }
                });
            },
            ..SOUND
        }),
        ("knows only one address of a pod", || Mutant {
            inputs: |it| endpoint(it, |it| it.addresses.truncate(1)),
            ..SOUND
        }),
        ("subjects the own node to policy", || Mutant {
            flow: |flow| flow.from_origin(Origin::Endpoint),
            ..SOUND
        }),
        ("subjects pods to policy when they talk to themselves", || Mutant {
            flow: |flow| {
                let elsewhere: IpAddr = [203, 0, 113, 77].into();
                if flow.source == flow.destination {
                    Flow { source: elsewhere, ..flow }
                } else {
                    flow
                }
            },
            ..SOUND
        }),
        ("takes Pass for Allow", || Mutant {
            inputs: |it| replace_action(it, Action::Pass, Action::Allow),
            ..SOUND
        }),
        ("takes Pass for Deny", || Mutant {
            inputs: |it| replace_action(it, Action::Pass, Action::Deny),
            ..SOUND
        }),
        ("takes Log for Allow", || Mutant {
            inputs: |it| replace_action(it, Action::Log, Action::Allow),
            ..SOUND
        }),
        ("takes Log for Deny", || Mutant {
            inputs: |it| replace_action(it, Action::Log, Action::Deny),
            ..SOUND
        }),
        ("passes over Deny rules", || Mutant {
            inputs: |it| replace_action(it, Action::Deny, Action::Log),
            ..SOUND
        }),
        ("enforces staged policies", || Mutant {
            inputs: |it| policy(it, |it| it.enforcement = Enforcement::Enforced),
            ..SOUND
        }),
        ("ignores the order of policies", || Mutant {
            inputs: |it| policy(it, |it| it.order = None),
            ..SOUND
        }),
        ("ignores the order of tiers", || Mutant {
            inputs: |it| tier(it, |it| it.order = None),
            ..SOUND
        }),
        ("closes every tier at its end", || Mutant {
            inputs: |it| tier(it, |it| it.end = TierEnd::Deny),
            ..SOUND
        }),
        ("leaves every tier open at its end", || Mutant {
            inputs: |it| tier(it, |it| it.end = TierEnd::Pass),
            ..SOUND
        }),
        ("puts every policy into tier default", || Mutant {
            inputs: |it| policy(it, |it| it.tier = Tier::DEFAULT.to_owned()),
            ..SOUND
        }),
        ("ignores what a side must not be", || Mutant {
            inputs: |it| sides(it, |it| it.not_peers = None),
            ..SOUND
        }),
        ("ignores source ports", || Mutant {
            inputs: |it| {
                rules(it, |rule| {
                    if let L4Match::Ports { source, .. } = &mut rule.matches.l4 {
                        *source = PortConstraint::default();
                    }
                });
            },
            ..SOUND
        }),
        ("ignores ports that must not be", || Mutant {
            inputs: |it| {
                rules(it, |rule| {
                    if let L4Match::Ports { destination, .. } = &mut rule.matches.l4 {
                        destination.none_of = None;
                    }
                });
            },
            ..SOUND
        }),
        ("ignores types of ICMP", || Mutant {
            inputs: |it| {
                rules(it, |rule| {
                    if let L4Match::Icmp { is, is_not, .. } = &mut rule.matches.l4 {
                        (*is, *is_not) = (None, None);
                    }
                });
            },
            ..SOUND
        }),
        ("ignores protocols that must not be", || Mutant {
            inputs: |it| {
                rules(it, |rule| {
                    if matches!(rule.matches.l4, L4Match::IsNot(_)) {
                        rule.matches.l4 = L4Match::Any;
                    }
                });
            },
            ..SOUND
        }),
        ("ignores families", || Mutant {
            inputs: |it| rules(it, |rule| rule.matches.family = None),
            ..SOUND
        }),
        ("knows no accounts", || Mutant {
            inputs: |it| endpoint(it, |it| it.service_account = None),
            ..SOUND
        }),
        ("forgets the labels of accounts", || Mutant {
            inputs: |it| {
                if let Object::ServiceAccount { labels, .. } = it {
                    *labels = netpol_core::Labels::default();
                }
            },
            ..SOUND
        }),
        ("takes network sets of namespaces for those of the cluster", || Mutant {
            inputs: |it| {
                if let Object::NetworkSet(set) = it {
                    set.namespace = None;
                }
            },
            ..SOUND
        }),
        ("keeps deleted network sets", || Mutant {
            forgets: |key| !matches!(key, ObjectKey::NetworkSet(..)),
            ..SOUND
        }),
    ];
    assert_caught(&mutants);
}

#[test]
fn every_mistake_about_hosts_is_caught() {
    use HostTraffic::{BeforeDestinationNat, Local, LocalAndForwarded, Untracked};
    assert_caught(&[
        ("leaves hosts open", || Mutant {
            inputs: |it| host(it, |it| it.default_verdict = Verdict::Allow),
            ..SOUND
        }),
        ("knows no profile", || Mutant {
            inputs: |it| host(it, |it| it.default_verdict = Verdict::Deny),
            ..SOUND
        }),
        ("takes the outer interface for all", || Mutant {
            inputs: |it| {
                host(it, |it| {
                    if it.attachment == Attachment::OtherInterfaces {
                        it.attachment = Attachment::Interface("eth0".into());
                    }
                });
            },
            ..SOUND
        }),
        ("takes a name for all interfaces", || Mutant {
            inputs: |it| {
                host(it, |it| {
                    if matches!(it.attachment, Attachment::Interface(_)) {
                        it.attachment = Attachment::OtherInterfaces;
                    }
                });
            },
            ..SOUND
        }),
        ("finds no interface by its address", || Mutant {
            inputs: |it| {
                host(it, |it| {
                    if it.attachment == Attachment::Address {
                        it.node = None;
                    }
                });
            },
            ..SOUND
        }),
        ("forgets the addresses of hosts", || Mutant {
            inputs: |it| host(it, |it| it.addresses.clear()),
            ..SOUND
        }),
        ("keeps deleted endpoints", || Mutant {
            forgets: |key| !matches!(key, ObjectKey::Endpoint(_)),
            ..SOUND
        }),
        ("forwards everything", || Mutant {
            inputs: |it| traffic(it, LocalAndForwarded, Local),
            ..SOUND
        }),
        ("forwards nothing unasked", || Mutant {
            inputs: |it| traffic(it, Local, LocalAndForwarded),
            ..SOUND
        }),
        ("judges late what comes before NAT", || Mutant {
            inputs: |it| traffic(it, BeforeDestinationNat, LocalAndForwarded),
            ..SOUND
        }),
        ("tracks what is not to be", || Mutant {
            inputs: |it| traffic(it, Untracked, LocalAndForwarded),
            ..SOUND
        }),
        ("judges what is not tracked before NAT", || Mutant {
            inputs: |it| traffic(it, Untracked, BeforeDestinationNat),
            ..SOUND
        }),
        ("leaves no port open that comes in", || Mutant {
            settings: |it| it.failsafe_inbound.clear(),
            ..SOUND
        }),
        ("leaves no port open that goes out", || Mutant {
            settings: |it| it.failsafe_outbound.clear(),
            ..SOUND
        }),
        ("cuts tunnels of datagrams", || Mutant {
            settings: |it| it.tunnels.retain(|it| *it == Tunnel::IpInIp),
            ..SOUND
        }),
        ("cuts IP in IP", || Mutant {
            settings: |it| it.tunnels.retain(|it| *it != Tunnel::IpInIp),
            ..SOUND
        }),
        ("knows no settings", || Mutant { settings: |it| *it = HostSettings::default(), ..SOUND }),
        ("lets pods send packets that carry others", || Mutant {
            settings: |it| it.denied_encapsulation.clear(),
            ..SOUND
        }),
        ("never lets pods send packets that carry others", || Mutant {
            settings: |it| it.denied_encapsulation.extend([Tunnel::IpInIp, Tunnel::Udp(4789)]),
            ..SOUND
        }),
        ("keeps pods from their node", || Mutant {
            settings: |it| it.workload_to_host = WorkloadToHost::Deny,
            ..SOUND
        }),
        ("judges what pods send to their node", || Mutant {
            settings: |it| it.workload_to_host = WorkloadToHost::Judge,
            ..SOUND
        }),
    ]);
}

#[test]
fn every_mistake_about_translation_is_caught() {
    assert_caught(&[
        ("judges egress on the address of the Service", || Mutant {
            leg: |it| it.flow = it.before_nat,
            ..SOUND
        }),
        ("judges ingress on the port of the Service", || Mutant {
            leg: |it| it.entering.payload = it.before_nat.payload,
            ..SOUND
        }),
        ("judges ingress on the address of the Service as source", || Mutant {
            leg: |it| it.entering.source = it.before_nat.destination,
            ..SOUND
        }),
        ("judges packets before destination NAT as after it", || Mutant {
            leg: |it| it.before_nat = it.flow,
            ..SOUND
        }),
        ("judges what a node sends to its own pods through a Service", || Mutant {
            leg: |it| {
                it.flow.origin = Origin::Forwarded;
                it.entering.origin = Origin::Forwarded;
            },
            ..SOUND
        }),
        ("takes what a node forwards for its own", || Mutant {
            leg: |it| it.entering.origin = Origin::OwnNode,
            ..SOUND
        }),
    ]);
}

#[track_caller]
fn assert_caught(mutants: &[(&str, Make)]) {
    let names: BTreeSet<_> = mutants.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), mutants.len(), "a mutant is listed twice");
    let survivors: Vec<_> =
        mutants.iter().filter(|(_, it)| !fails(*it)).map(|(name, _)| *name).collect();
    assert!(
        survivors.is_empty(),
        "no scenario catches a subject that {}",
        survivors.join(", or one that ")
    );
}

#[test]
fn a_subject_that_sees_nothing_fails() {
    struct Blind;
    impl Subject for Blind {
        fn play(&mut self, step: &Step, _later: &[Step]) -> Result<Vec<Observation>, SubjectError> {
            Ok(step.attempts.iter().map(|_| Observation::error("nothing seen")).collect())
        }
    }
    let backend = Backend::new("blind", 1, || Ok(Box::new(Blind)));
    for scenario in shipped() {
        let rows = backend.run(scenario).unwrap();
        let seen: Vec<_> = rows.iter().filter(|row| row.status != Status::Skip).collect();
        assert!(!seen.is_empty());
        assert!(seen.iter().all(|row| row.status == Status::Fail && row.got == Some(Got::Error)));
    }
}

/// Real connections, and dataplanes that are broken.
#[cfg(feature = "nft")]
mod kernel {
    use std::num::NonZero;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use netpol_conformance::runner::chain;
    use netpol_conformance::scenario::parse;
    use netpol_conformance::subject::{Kernel, Open};
    use netpol_core::program::Program;
    use netpol_core::{
        Applied, Counters, Dataplane, DataplaneError, Drift, MemoryDataplane, Update,
    };
    use netpol_nft::{NftConfig, NftDataplane};

    use super::*;

    /// A pod that comes late, when policy is in force already.
    const LATE: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {containers: [{name: m, ports: [{containerPort: 80}]}]}}
---
apiVersion: netpol.dev/v1
kind: Scenario
metadata: {name: late}
spec:
  requires: [np]
  steps:
  - name: closed
    apply:
    - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}}}
    probes: [{from: 192.0.2.10, to: x/a, protocol: TCP, port: 80, expect: deny}]
  - name: late
    apply:
    - {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x}, spec: {containers: [{name: m, ports: [{containerPort: 80}]}]}}
    probes: [{from: x/b, to: x/a, protocol: TCP, port: 80, expect: deny}]
";

    fn play(open: Arc<Open>) -> Vec<(Option<Got>, String)> {
        let backend =
            Backend::new("kernel", 1, move || Ok(Box::new(Kernel::new(Arc::clone(&open))?)));
        let scenario = parse(Path::new("late.yaml"), LATE).unwrap();
        let rows = backend.run(&scenario).unwrap_or_else(|error| panic!("{}", chain(&error)));
        rows.into_iter().map(|row| (row.got, row.reason)).collect()
    }

    /// Does not remove what it enforces.
    struct Sticky(NftDataplane);

    impl Dataplane for Sticky {
        fn capabilities(&self) -> &Capabilities {
            self.0.capabilities()
        }

        fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError> {
            self.0.apply(update)
        }

        fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
            self.0.audit(program)
        }

        fn counters(&mut self) -> Result<Counters, DataplaneError> {
            self.0.counters()
        }

        fn remove(&mut self) -> Result<(), DataplaneError> {
            Ok(())
        }
    }

    fn nft() -> Result<NftDataplane, netpol_nft::NftError> {
        NftDataplane::open(NftConfig::default())
    }

    /// Enforces no host endpoints.
    struct Plain(MemoryDataplane, Capabilities);

    impl Dataplane for Plain {
        fn capabilities(&self) -> &Capabilities {
            &self.1
        }

        fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError> {
            self.0.apply(update)
        }

        fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
            self.0.audit(program)
        }

        fn counters(&mut self) -> Result<Counters, DataplaneError> {
            self.0.counters()
        }

        fn remove(&mut self) -> Result<(), DataplaneError> {
            self.0.remove()
        }
    }

    /// What a dataplane says that it cannot do is skipped from the step on that needs it, and in no other way.
    #[test]
    fn host_endpoints_that_nothing_enforces_are_skipped() {
        let backend = Backend::new("plain", 1, || {
            let open: Arc<Open> = Arc::new(|| {
                Ok(Box::new(Plain(MemoryDataplane::default(), Capabilities::minimal())))
            });
            Ok(Box::new(Kernel::new(open)?))
        });
        let text = "apiVersion: v1
kind: Node
metadata: {name: n}
---
apiVersion: netpol.dev/v1
kind: Scenario
metadata: {name: host}
spec:
  requires: [calico, host-endpoints, external]
  steps:
  - name: open
    probes: [{from: 192.0.2.10, to: 'node:n', protocol: TCP, port: 80, expect: allow}]
  - name: closed
    apply:
    - {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: n, interfaceName: '*'}}
    probes: [{from: 192.0.2.10, to: 'node:n', protocol: TCP, port: 80, expect: deny}]
";
        let rows = backend.run(&parse(Path::new("host.yaml"), text).unwrap()).unwrap();
        let [open, closed] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((open.status, open.got), (Status::Pass, Some(Got::Allow)));
        assert_eq!((closed.status, closed.got), (Status::Skip, None));
        assert!(closed.reason.contains("does not enforce host endpoints"), "{}", closed.reason);
    }

    #[test]
    fn a_sound_dataplane_denies_with_its_controls() {
        let seen: Vec<_> =
            play(Arc::new(|| Ok(Box::new(nft()?)))).into_iter().map(|(got, _)| got).collect();
        assert_eq!(seen, [Some(Got::Deny), Some(Got::Deny)]);
    }

    #[test]
    fn a_topology_that_is_broken_is_no_denial() {
        let rows = play(Arc::new(|| {
            // Nothing leaves the node for its pods, whatever policy says.
            let broken =
                "table inet broken { chain c { type filter hook forward priority 0; drop; }; }";
            assert!(std::process::Command::new("nft").arg(broken).status()?.success());
            Ok(Box::new(nft()?))
        }));
        for (got, reason) in rows {
            assert_eq!(got, Some(Got::Error), "{reason}");
            assert!(reason.contains("control failed, without any policy: no answer"), "{reason}");
        }
    }

    #[test]
    fn a_dataplane_that_enforces_nothing_is_caught() {
        let seen: Vec<_> = play(Arc::new(|| Ok(Box::new(MemoryDataplane::default()))))
            .into_iter()
            .map(|(got, _)| got)
            .collect();
        assert_eq!(seen, [Some(Got::Allow), Some(Got::Allow)]);
    }

    #[test]
    fn patience_is_for_every_denial() {
        let open: Arc<Open> = Arc::new(|| Ok(Box::new(nft()?)));
        let factor = NonZero::new(4).unwrap();
        let backend = Backend::new("kernel", 1, move || {
            Ok(Box::new(Kernel::new(Arc::clone(&open))?.with_patience(factor)))
        });
        let start = Instant::now();
        let rows = backend.run(&parse(Path::new("late.yaml"), LATE).unwrap()).unwrap();
        assert!(rows.iter().all(|row| row.got == Some(Got::Deny)), "{rows:?}");
        // Two denials, each watched for 300 ms without patience.
        assert!(start.elapsed() >= Duration::from_millis(2 * 4 * 300), "{:?}", start.elapsed());
    }

    #[test]
    fn a_denial_without_its_control_is_an_error() {
        let rows = play(Arc::new(|| Ok(Box::new(Sticky(nft()?)))));
        let [(first, _), (second, reason)] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((first, second), (&Some(Got::Deny), &Some(Got::Error)));
        assert!(reason.contains("control failed"), "{reason}");
    }
}
