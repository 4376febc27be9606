//! Policy of host endpoints on real packets: a node with a pod, between two other hosts.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use netpol_core::model::{
    Action, Attachment, Endpoint as ModelEndpoint, HostSettings, L4Match, Object, WorkloadToHost,
};
use netpol_core::net::Transport;
use netpol_core::program::{HostEndpoint, Interfaces, PolicySet, Program, Rule, StageEnd};
use netpol_core::{Dataplane, Verdict};
use nix::sched::{CloneFlags, setns};

use super::cluster::NODE;
use super::host_support::{compiled_with, node};
use super::kernel::{apply, in_namespace, in_namespaces, open, state, tool};
use super::program::{Builder, deny_unless, numbers, rule, stage, to_ports};
use crate::Flavour;
use crate::render::MAX_DEPTH;

/// Where everybody listens. Port 22 is one that no policy cuts; nobody is behind 8080 but the pod, by destination NAT.
const PORTS: [u16; 4] = [22, 80, 81, 82];
const TRANSLATED: u16 = 8080;

/// How long a connection may take that shall work, and one that shall not. It takes less than a millisecond on a machine
/// that has nothing else to do, and a second more where the first packet finds a link that is not up yet.
const PATIENCE: [Duration; 2] = [Duration::from_secs(8), Duration::from_millis(400)];

/// Who is in the test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Node,
    Pod,
    /// Behind `eth0` of the node.
    Outside,
    /// Behind `eth1` of the node.
    Far,
}

use Who::{Far, Node, Outside, Pod};

impl Who {
    /// Returns the addresses; those of the node at the side of `other`.
    fn addresses(self, other: Self) -> [IpAddr; 2] {
        let side = if self == Node { other } else { self };
        let net = match side {
            Node | Outside => 1,
            Far => 2,
            Pod => 3,
        };
        let last = if self == Node { 1 } else { 2 };
        [format!("10.7.{net}.{last}"), format!("fd00:{net}::{last}")].map(|it| it.parse().unwrap())
    }
}

/// The hosts, each with its servers. The node is the namespace of the thread that built it.
struct Lab {
    node: File,
    others: Vec<(Who, File)>,
    _servers: Vec<TcpListener>,
}

/// Returns the namespace of the calling thread.
fn here() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn inside<T: Send>(namespace: &File, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        });
        entered.join().unwrap()
    })
}

fn ip(line: &str) {
    tool(&format!("ip {line}"), "").unwrap();
}

fn listen() -> Vec<TcpListener> {
    PORTS.map(|port| TcpListener::bind(format!("[::]:{port}")).unwrap()).into()
}

impl Lab {
    fn build() -> Self {
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
        }
        ip("link set lo up");
        let (mut servers, mut others) = (listen(), Vec::new());
        for (who, name) in [(Outside, "eth0"), (Far, "eth1"), (Pod, "pod")] {
            let namespace = in_namespace(here);
            let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
            ip(&format!("link add {name} type veth peer name uplink netns {path}"));
            let [own, peer] = [(Node, who), (who, Node)].map(|(one, other)| one.addresses(other));
            add_addresses(name, own);
            servers.extend(inside(&namespace, || {
                add_addresses("uplink", peer);
                let [v4, v6] = own;
                ip(&format!("route add default via {v4}"));
                ip(&format!("-6 route add default via {v6}"));
                listen()
            }));
            others.push((who, namespace));
        }
        Self { node: here(), others, _servers: servers }
    }

    /// Sends what comes for the node to a port of its own on to the pod.
    fn translate(flavour: Flavour) {
        let [v4, v6] = Pod.addresses(Node);
        for (program, to) in [("iptables", format!("{v4}:80")), ("ip6tables", format!("[{v6}]:80"))]
        {
            let line = format!(
                "{program}-{flavour} -t nat -A PREROUTING -p tcp --dport {TRANSLATED} -j DNAT --to-destination {to}"
            );
            tool(&line, "").unwrap();
        }
    }

    /// Returns whether connections work in IPv4 and IPv6.
    fn connects(&self, (from, to, port): (Who, Who, u16), patience: Duration) -> [bool; 2] {
        let namespace = match self.others.iter().find(|(who, _)| *who == from) {
            Some((_, namespace)) => namespace,
            None => &self.node,
        };
        to.addresses(from).map(|address| {
            let to = SocketAddr::new(address, port);
            inside(namespace, move || TcpStream::connect_timeout(&to, patience).is_ok())
        })
    }

    /// Compares which connections work with those that shall.
    fn check(&self, case: &str, want: &[(Who, Who, u16, bool)]) {
        thread::scope(|scope| {
            for &(from, to, port, works) in want {
                scope.spawn(move || {
                    let [long, short] = PATIENCE;
                    let patience = if works { long } else { short };
                    let got = self.connects((from, to, port), patience);
                    assert_eq!(got, [works; 2], "{case}: {from:?} to {to:?}, port {port}");
                });
            }
        });
    }
}

fn add_addresses(interface: &str, addresses: [IpAddr; 2]) {
    let [v4, v6] = addresses;
    ip(&format!("address add {v4}/24 dev {interface}"));
    ip(&format!("address add {v6}/64 dev {interface} nodad"));
    ip(&format!("link set {interface} up"));
}

/// Makes programs with one host endpoint, and the pod as the only workload, which is open.
pub(super) struct Programs {
    pub(super) builder: Builder,
    pub(super) host: HostEndpoint,
    other: Option<HostEndpoint>,
    pub(super) workload_to_host: WorkloadToHost,
}

impl Programs {
    pub(super) fn new(interfaces: Interfaces) -> Self {
        let mut builder = Builder::new();
        let addresses = Pod.addresses(Node).map(|it| it.to_string());
        let pod = builder.endpoint("pod", &addresses.each_ref().map(String::as_str));
        builder.add(pod);
        let model = ModelEndpoint::host("host", NODE, Attachment::OtherInterfaces);
        let objects = [Object::Node(node()), Object::Endpoint(model)];
        let compiled = compiled_with(&objects, &HostSettings::default());
        let mut host = compiled.hosts.endpoints.first().unwrap().clone();
        let open = builder.policy(PolicySet { stages: Vec::new(), default: Verdict::Allow });
        (host.interfaces, host.normal) = (interfaces, [open, open]);
        Self { builder, host, other: None, workload_to_host: WorkloadToHost::Allow }
    }

    pub(super) fn build(&self) -> Program {
        let mut program = self.builder.build();
        program.hosts.settings = HostSettings::default();
        program.hosts.settings.workload_to_host = self.workload_to_host;
        program.hosts.endpoints.extend([self.host.clone()].into_iter().chain(self.other.clone()));
        program
    }
}

pub(super) fn named(name: &str) -> Interfaces {
    Interfaces::Named([name.to_owned()].into())
}

fn to_port(number: u8, action: Action, port: u16) -> Rule {
    let mut it = rule(number, action);
    it.l4 = to_ports(Transport::Tcp, numbers(&[(port, port)]));
    it
}

fn only(port: u16) -> PolicySet {
    deny_unless(vec![to_port(1, Action::Allow, port)])
}

/// Returns a policy set that leaves what no rule matches to what comes after.
fn early(rules: Vec<Rule>) -> PolicySet {
    PolicySet { stages: vec![stage(rules, StageEnd::Next)], default: Verdict::Allow }
}

/// Applies a program, checks packets, that another process has nothing to do, and that nothing is left when it goes.
fn check(lab: &Lab, flavour: Flavour, case: &str, it: &Programs, want: &[(Who, Who, u16, bool)]) {
    let before = state(flavour);
    let program = it.build();
    let during = apply(&mut open(flavour), &program);
    lab.check(case, want);
    assert_eq!(open(flavour).audit(&program).unwrap().differences, Vec::<String>::new(), "{case}");
    assert_eq!(apply(&mut open(flavour), &program), during, "{case}: a second process");
    let mut without = program;
    without.hosts.endpoints.clear();
    let mut dataplane = open(flavour);
    let after = apply(&mut dataplane, &without);
    assert!(!after.contains("NP-RAW") && !after.contains("NP-DNAT"), "{case}: {after}");
    dataplane.remove().unwrap();
    let left = state(flavour);
    // Tables that we were the first to use stay, and are empty.
    let rules = |text: &str| text.lines().filter(|it| it.contains("-A ")).count();
    assert_eq!(rules(&left), rules(&before), "{case}: {left}");
    assert!(!left.contains("NP-") && !left.contains("create np"), "{case}: {left}");
}

#[test]
fn buckets_judge_what_they_should() {
    in_namespaces(|flavour| {
        let lab = Lab::build();
        Lab::translate(flavour);
        let all = [Node, Pod, Outside, Far];
        let pairs = all.iter().flat_map(|&from| all.map(|to| (from, to, 81, true)));
        let everything: Vec<_> = pairs.filter(|it| it.0 != it.1).collect();
        lab.check("nothing is enforced", &everything);
        lab.check("translated", &[(Outside, Node, TRANSLATED, true)]);

        let mut it = Programs::new(named("eth0"));
        it.host.normal = [only(80), only(81)].map(|set| it.builder.policy(set));
        check(
            &lab,
            flavour,
            "normal",
            &it,
            &[
                (Outside, Node, 80, true),
                (Outside, Node, 81, false),
                (Outside, Node, 22, true),
                (Node, Outside, 81, true),
                (Node, Outside, 80, false),
                (Outside, Pod, 81, true),
                (Pod, Outside, 80, true),
                (Far, Node, 81, true),
                (Node, Far, 80, true),
                (Node, Pod, 80, true),
                (Pod, Node, 81, true),
                (Node, Node, 81, true),
            ],
        );

        let mut it = Programs::new(named("eth0"));
        it.host.forward = [only(80), only(81)].map(|set| Some(it.builder.policy(set)));
        check(
            &lab,
            flavour,
            "forward",
            &it,
            &[
                (Outside, Pod, 80, true),
                (Outside, Pod, 81, false),
                (Outside, Pod, 22, false),
                (Pod, Outside, 81, true),
                (Pod, Outside, 80, false),
                (Outside, Far, 80, true),
                (Outside, Far, 81, false),
                (Far, Outside, 81, true),
                (Far, Outside, 80, false),
                (Far, Pod, 82, true),
                (Outside, Node, 82, true),
                (Node, Outside, 82, true),
            ],
        );

        let mut it = Programs::new(Interfaces::Other);
        it.host.forward = [Some(it.builder.policy(only(80))), None];
        it.host.normal = [only(82), only(81)].map(|set| it.builder.policy(set));
        check(
            &lab,
            flavour,
            "all interfaces",
            &it,
            &[
                (Pod, Outside, 80, true),
                (Pod, Outside, 81, false),
                (Far, Pod, 80, true),
                (Far, Pod, 81, false),
                (Far, Node, 82, true),
                (Far, Node, 80, false),
                (Node, Far, 81, true),
                (Node, Far, 80, false),
                (Node, Pod, 80, true),
                (Pod, Node, 80, true),
                (Node, Node, 80, true),
            ],
        );

        let mut it = Programs::new(named("eth0"));
        let mut any = rule(3, Action::Allow);
        any.l4 = L4Match::Any;
        let rules = vec![to_port(1, Action::Allow, 80), to_port(2, Action::Deny, 81)];
        it.host.untracked =
            [early(rules), early(vec![any])].map(|set| Some(it.builder.policy(set)));
        let closed = it.builder.policy(deny_unless(Vec::new()));
        it.host.normal[0] = closed;
        it.host.forward = [Some(closed), None];
        check(
            &lab,
            flavour,
            "untracked",
            &it,
            &[
                (Outside, Node, 80, true),
                (Outside, Node, 81, false),
                (Outside, Node, 82, false),
                (Outside, Node, 22, true),
                (Outside, Far, 82, false),
                (Far, Node, 82, true),
            ],
        );

        let mut it = Programs::new(named("eth0"));
        it.host.pre_dnat =
            Some(it.builder.policy(early(vec![to_port(1, Action::Allow, TRANSLATED)])));
        let closed = it.builder.policy(deny_unless(Vec::new()));
        (it.host.normal[0], it.host.forward[0]) = (closed, Some(closed));
        check(
            &lab,
            flavour,
            "before destination NAT",
            &it,
            &[
                (Outside, Node, TRANSLATED, true),
                (Outside, Pod, 80, false),
                (Outside, Node, 80, false),
                (Outside, Node, 22, true),
                (Far, Node, TRANSLATED, true),
                (Far, Pod, 80, true),
            ],
        );

        let mut it = Programs::new(named("eth0"));
        it.host.pre_dnat =
            Some(it.builder.policy(early(vec![to_port(1, Action::Deny, TRANSLATED)])));
        check(
            &lab,
            flavour,
            "denied before destination NAT",
            &it,
            &[
                (Outside, Node, TRANSLATED, false),
                (Outside, Pod, 80, true),
                (Far, Node, TRANSLATED, true),
            ],
        );
    });
}

#[test]
fn workloads_reach_their_host_as_is_set() {
    in_namespaces(|flavour| {
        let lab = Lab::build();
        for (workload_to_host, works) in [
            (WorkloadToHost::Deny, false),
            (WorkloadToHost::Allow, true),
            (WorkloadToHost::Judge, false),
        ] {
            let mut it = Programs::new(Interfaces::Other);
            it.workload_to_host = workload_to_host;
            it.host.normal[0] = it.builder.policy(only(80));
            let case = format!("{workload_to_host:?}");
            let judged = workload_to_host != WorkloadToHost::Deny;
            check(
                &lab,
                flavour,
                &case,
                &it,
                &[
                    (Pod, Node, 81, works),
                    (Pod, Node, 80, judged),
                    (Far, Node, 81, false),
                    (Far, Node, 80, true),
                    (Node, Pod, 81, true),
                    (Pod, Far, 81, true),
                ],
            );
        }
    });
}

/// What one endpoint's policy has allowed before destination NAT is judged by that of another one all the same.
#[test]
fn an_endpoint_speaks_for_itself_only() {
    in_namespaces(|flavour| {
        let lab = Lab::build();
        let both = Interfaces::Named(["eth0".to_owned(), "eth1".to_owned()].into());
        for (interfaces, other, works) in [
            (both, None, true),
            (named("eth0"), Some(named("eth1")), false),
            (named("eth0"), Some(Interfaces::Other), false),
        ] {
            let mut it = Programs::new(interfaces);
            let early = early(vec![to_port(1, Action::Allow, 80)]);
            it.host.pre_dnat = Some(it.builder.policy(early));
            it.host.forward[1] = Some(it.builder.policy(deny_unless(Vec::new())));
            let case = format!("{other:?}");
            it.other = other.map(|interfaces| {
                let mut host = it.host.clone();
                (host.id.name, host.interfaces) = ("other".to_owned(), interfaces);
                host
            });
            check(
                &lab,
                flavour,
                &case,
                &it,
                &[(Outside, Far, 80, works), (Outside, Far, 81, false), (Outside, Node, 81, true)],
            );
        }
    });
}

/// Lists of workloads come before the policy of host endpoints, and take from the depth that the kernel follows.
#[test]
fn policy_of_hosts_may_be_as_deep_as_any() {
    in_namespaces(|flavour| {
        let mut it = Programs::new(Interfaces::Other);
        it.workload_to_host = WorkloadToHost::Judge;
        for number in 0..100 {
            let pod = it.builder.endpoint(&format!("pod{number}"), &["10.0.0.1", "fd00::1"]);
            it.builder.add(pod);
        }
        let stages = |end: u8| {
            let number = u8::try_from(MAX_DEPTH).unwrap();
            let rules = (0..number).map(|it| rule(it, Action::Pass)).collect::<Vec<_>>();
            let mut stages: Vec<_> =
                rules.into_iter().map(|it| stage(vec![it], StageEnd::Next)).collect();
            stages.pop();
            stages.push(stage(vec![to_port(end, Action::Allow, 80)], StageEnd::Next));
            PolicySet { stages, default: Verdict::Allow }
        };
        let mut closed = stages(100);
        closed.default = Verdict::Deny;
        let [open, closed] = [stages(101), closed].map(|set| it.builder.policy(set));
        it.host.normal = [closed, closed];
        it.host.forward = [Some(closed), Some(closed)];
        it.host.untracked = [Some(open), Some(open)];
        it.host.pre_dnat = Some(open);
        let program = it.build();
        let mut dataplane = open_and_apply(flavour, &program);
        assert_eq!(dataplane.audit(&program).unwrap().differences, Vec::<String>::new());
        for chain in ["NP-RAW-IN -i", "NP-HOST-FWD -i", "NP-HOST-OUT -o"] {
            assert!(state(flavour).contains(&format!("-A {chain} pod1+ ")), "{chain}");
        }
    });
}

fn open_and_apply(flavour: Flavour, program: &Program) -> crate::IptablesDataplane {
    let mut dataplane = open(flavour);
    apply(&mut dataplane, program);
    dataplane
}
