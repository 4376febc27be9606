//! Every shipped scenario names in `requires` what it needs, and nothing else.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use netpol_conformance::document::{files, read};
use netpol_conformance::scenario::{Attempt, Scenario, Step, load, parse};
use netpol_core::eval::Judge;
use netpol_core::{Capabilities, DestinationView, Verdict};
use serde_json::Value;

/// A scenario file, taken apart.
struct File {
    objects: Vec<Value>,
    probes: Vec<Value>,
    matrices: Vec<Value>,
    has_settings: bool,
    has_unknown: bool,
    requires: BTreeSet<String>,
}

impl File {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut objects: Vec<Value> =
            read(&text).into_iter().map(|it| it.content.unwrap()).collect();
        let scenario = objects.pop().unwrap();
        let requires = list(scenario.pointer("/spec/requires"));
        let requires = requires.iter().map(|it| it.as_str().unwrap().to_owned()).collect();
        let (mut probes, mut matrices, mut has_settings) = (Vec::new(), Vec::new(), false);
        let mut has_unknown = scenario.pointer("/spec/unknownInterfaces").is_some();
        for step in list(scenario.pointer("/spec/steps")) {
            objects.extend(list(step.get("apply")));
            probes.extend(list(step.get("probes")));
            matrices.extend(step.get("matrix").cloned());
            has_settings |= step.get("settings").is_some();
            has_unknown |= step.get("unknown").is_some();
        }
        Self { objects, probes, matrices, has_settings, has_unknown, requires }
    }

    /// Returns the addresses of pods, virtual machines and nodes.
    fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let of = |object: &Value| {
            let pods = list(object.pointer("/status/podIPs"));
            let nodes = list(object.pointer("/status/addresses"));
            let machines = list(object.pointer("/spec/addresses"));
            pods.iter()
                .filter_map(|it| text(it, "ip"))
                .chain(nodes.iter().filter_map(|it| text(it, "address")))
                .chain(machines.iter().filter_map(Value::as_str))
                .filter_map(|it| it.parse().ok())
                .collect::<Vec<IpAddr>>()
        };
        self.objects.iter().flat_map(of).collect()
    }

    /// Returns the addresses of Services.
    fn service_addresses(&self) -> BTreeSet<IpAddr> {
        let services = self.objects.iter().filter(|it| is_kind(it, "Service"));
        let of = |service: &Value| {
            let lists = ["/spec/clusterIPs", "/spec/externalIPs"];
            let listed = lists.iter().flat_map(|it| list(service.pointer(it)));
            let balanced = list(service.pointer("/status/loadBalancer/ingress"));
            let one = service.pointer("/spec/clusterIP").cloned();
            let balanced = balanced.iter().filter_map(|it| it.get("ip").cloned());
            let all = listed.chain(one).chain(balanced);
            all.filter_map(|it| it.as_str()?.parse().ok()).collect::<Vec<IpAddr>>()
        };
        services.flat_map(of).collect()
    }

    fn needs(&self, feature: &str) -> bool {
        let kind = |wanted: &[&str]| {
            self.objects.iter().any(|it| wanted.contains(&text(it, "kind").unwrap_or_default()))
        };
        let api =
            |wanted: &str| self.objects.iter().any(|it| text(it, "apiVersion") == Some(wanted));
        let key = |wanted: &str| self.objects.iter().any(|it| has_key(it, wanted));
        let field = |wanted: &str| self.probes.iter().any(|it| it.get(wanted).is_some());
        let protocol = |wanted: &str| {
            self.probes.iter().chain(&self.matrices).any(|it| text(it, "protocol") == Some(wanted))
        };
        match feature {
            "np" => self.objects.iter().any(|it| {
                text(it, "kind") == Some("NetworkPolicy")
                    && text(it, "apiVersion") == Some("networking.k8s.io/v1")
            }),
            "cnp" => api("policy.networking.k8s.io/v1alpha2"),
            "anp" => api("policy.networking.k8s.io/v1alpha1"),
            "calico" => api("projectcalico.org/v3"),
            "tiers" => {
                let tier = |it: &Value| {
                    it.pointer("/spec/tier").and_then(Value::as_str).map(str::to_owned)
                };
                kind(&["Tier"])
                    || self
                        .objects
                        .iter()
                        .filter(|it| text(it, "apiVersion") == Some("projectcalico.org/v3"))
                        .filter_map(tier)
                        .any(|it| it != "default")
            }
            "staged" => kind(&[
                "StagedNetworkPolicy",
                "StagedGlobalNetworkPolicy",
                "StagedKubernetesNetworkPolicy",
            ]),
            "service-accounts" => {
                kind(&["ServiceAccount"]) || key("serviceAccounts") || key("serviceAccountSelector")
            }
            "network-sets" => kind(&["NetworkSet", "GlobalNetworkSet"]),
            "host-endpoints" => kind(&["HostEndpoint"]),
            "host-interfaces" => {
                let hosts = || self.objects.iter().filter(|it| is_kind(it, "HostEndpoint"));
                let interface =
                    |it: &Value| it.pointer("/spec/interfaceName").cloned().unwrap_or_default();
                // Of one without a name only the author knows whether it is but a peer.
                hosts().any(|it| interface(it).as_str().is_some_and(|it| it != "*"))
                    || self.requires.contains(feature) && hosts().any(|it| interface(it).is_null())
            }
            "services" => kind(&["Service", "EndpointSlice"]),
            "portmap" => key("hostPort"),
            "pre-dnat" => key("preDNAT"),
            "untracked" => key("doNotTrack"),
            "udp" => protocol("UDP"),
            "sctp" => protocol("SCTP"),
            "icmp" => protocol("ICMP"),
            "ipv6" => self.ends().any(|it| it.parse::<IpAddr>().is_ok_and(|it| it.is_ipv6())),
            "external" => {
                let mut own = self.own_addresses();
                own.extend(self.service_addresses());
                self.ends().any(|it| it.parse::<IpAddr>().is_ok_and(|it| !own.contains(&it)))
            }
            "node-source" => {
                self.probes.iter().any(|it| text(it, "from").unwrap().starts_with("node:"))
            }
            "loopback" => self.probes.iter().any(|it| text(it, "from") == text(it, "to")),
            "host-network" => key("hostNetwork"),
            "nodes" => key("nodes"),
            "cnp-named-port" => key("destinationNamedPort"),
            "protocol-numbers" => {
                self.probes.iter().any(|it| it.get("protocol").is_some_and(Value::is_u64))
            }
            "icmp-types" => field("icmp"),
            "source-ports" => field("sourcePort"),
            "http" => field("http"),
            "vm" => kind(&["VirtualMachine"]),
            "settings" => self.has_settings,
            "forged-sources" => field("sourceAddress"),
            "unknown-interfaces" => self.has_unknown,
            "pending" => field("pending"),
            "reasons" => field("reasons"),
            // Only the author knows what no API knows, and how pods are connected.
            "cnp-unknown-field" | "bridge" => self.requires.contains(feature),
            // See below.
            "source-before-nat" | "source-after-nat" | "destination-after-nat" => {
                self.requires.contains(feature)
            }
            unknown => panic!("no rule for `{unknown}`"),
        }
    }

    fn ends(&self) -> impl Iterator<Item = &str> {
        self.probes.iter().flat_map(|it| [text(it, "from").unwrap(), text(it, "to").unwrap()])
    }
}

fn is_kind(value: &Value, kind: &str) -> bool {
    text(value, "kind") == Some(kind)
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.contains_key(key) || fields.values().any(|it| has_key(it, key))
        }
        Value::Array(items) => items.iter().any(|it| has_key(it, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[test]
fn requires_is_complete_and_minimal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut wrong = String::new();
    for path in files(&folder).unwrap() {
        let file = File::read(&path);
        let features = netpol_conformance::scenario::Feature::ALL.iter().map(ToString::to_string);
        let needed: BTreeSet<String> = features.filter(|it| file.needs(it)).collect();
        // Addresses of IPv6 that only matter to policies are the author's to name.
        let named: BTreeSet<String> = file
            .requires
            .iter()
            .filter(|it| *it != "ipv6" || needed.contains(*it))
            .cloned()
            .collect();
        if needed != named {
            wrong += &format!("{}: needs {needed:?}, names {named:?}\n", path.display());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Returns the verdicts on all attempts of a scenario that names one more feature.
fn verdicts(path: &Path, feature: &str) -> Vec<Verdict> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.replacen("requires: [", &format!("requires: [{feature}, "), 1);
    let Scenario::Plan(plan) = parse(path, &text).unwrap() else { panic!("{}", path.display()) };
    let of_step = |step: &Step| -> Vec<_> {
        step.attempts.iter().map(|it| step.evaluate(it).enforced.verdict()).collect()
    };
    plan.steps.iter().flat_map(of_step).collect()
}

#[test]
fn verdicts_depend_on_the_view_of_the_source_only_where_files_say_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let views = ["source-before-nat", "source-after-nat"];
    for path in files(&folder).unwrap() {
        let requires = File::read(&path).requires;
        let translates = ["services", "portmap"].iter().any(|it| requires.contains(*it));
        if translates && !views.iter().any(|it| requires.contains(*it)) {
            let [before, after] = views.map(|view| verdicts(&path, view));
            assert_eq!(before, after, "{}", path.display());
        }
    }
}

/// Where egress is judged on the address of a Service, all backends are asked about in its place.
#[test]
fn verdicts_depend_on_the_view_of_the_destination_only_where_files_say_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut capabilities = Capabilities::all();
    capabilities.http = false;
    capabilities.destination_view = DestinationView::BeforeDestinationNat;
    for path in files(&folder).unwrap() {
        let Scenario::Plan(plan) = load(&path).unwrap() else { panic!("{}", path.display()) };
        if plan.about.requires.contains(&"destination-after-nat".to_owned()) {
            continue;
        }
        for step in &plan.steps {
            let inputs = step.cluster.inputs();
            let before = Judge::new(&inputs, &capabilities);
            let translated = |it: &&Attempt| it.is_translated() && !it.receivers.is_empty();
            for attempt in step.attempts.iter().filter(translated) {
                let [before, after] = [before.evaluate(&attempt.flow), step.evaluate(attempt)]
                    .map(|it| it.enforced.egress.verdict);
                assert_eq!(before, after, "{}: `{}`, {attempt}", path.display(), step.name);
            }
        }
    }
}
