//! Small clusters as manifests: policies of every API beside each other, as users write them. Every manifest is valid.

use netpol_core::api::{Document, Kind, Strictness};
use netpol_core::model::Object;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::cluster::{NODE, addresses};

/// Objects of a cluster.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Object>> {
    let policies = prop_oneof![
        3 => kubernetes(),
        2 => cluster_network(),
        2 => admin_network(),
        2 => baseline_admin_network(),
        3 => calico(),
        3 => global(),
        1 => staged(),
    ];
    let world = prop_oneof![2 => tier(), 2 => network_set(), 1 => node()];
    // A pod may come before its namespace.
    let namespaces = (namespace("x"), option::weighted(0.9, namespace("y")));
    let rest = (account(), vec(pod(), 3..8), vec(world, 0..4), vec(policies, 1..9));
    (namespaces, rest).prop_map(|((x, y), (account, pods, world, policies))| {
        let manifests = [x].into_iter().chain(y).chain([account]).chain(pods);
        manifests.chain(world).chain(policies).filter_map(|it| object(&it)).collect()
    })
}

/// Returns what a manifest stands for.
fn object(manifest: &Value) -> Option<Object> {
    let [version, kind] = ["apiVersion", "kind"].map(|key| manifest[key].as_str().unwrap());
    let document = Document::read(Kind::recognise(version, kind).unwrap(), manifest).unwrap();
    let accepted = document.to_object(Strictness::Strict);
    accepted.unwrap_or_else(|refused| panic!("{refused:?}\n{manifest}")).value
}

fn one_of(values: &[Value]) -> impl Strategy<Value = Value> + use<> {
    select(values.to_vec())
}

/// Returns a map with about half of these fields.
fn fields(all: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> {
    some_fields(0.5, all)
}

/// Returns a map in which each of these fields is with a probability.
fn some_fields(
    probability: f64,
    all: Vec<(&'static str, BoxedStrategy<Value>)>,
) -> impl Strategy<Value = Value> {
    let some = all
        .into_iter()
        .map(|(key, value)| option::weighted(probability, value).prop_map(move |it| (key, it)));
    some.collect::<Vec<_>>().prop_map(|fields| {
        let given = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
        Value::Object(fields.into_iter().filter_map(given).collect())
    })
}

/// Returns one map with the fields of both; those of the second count.
fn merged(one: &Value, other: &Value) -> Value {
    let fields = |it: &Value| it.as_object().cloned().unwrap_or_default();
    Value::Object(fields(one).into_iter().chain(fields(other)).collect::<Map<_, _>>())
}

fn name(names: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    select(names)
}

const NAMESPACES: &[&str] = &["x", "y"];

fn namespace(name: &'static str) -> impl Strategy<Value = Value> {
    let labels =
        one_of(&[json!({}), json!({"team": "red"}), json!({"team": "blue", "stage": "s"})]);
    labels.prop_map(move |labels| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    })
}

fn account() -> impl Strategy<Value = Value> {
    (name(NAMESPACES), one_of(&[json!({}), json!({"grade": "gold"})])).prop_map(
        |(namespace, labels)| {
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "s", "namespace": namespace, "labels": labels},
            })
        },
    )
}

fn pod() -> impl Strategy<Value = Value> {
    let labels = one_of(&[
        json!({}),
        json!({"app": "a"}),
        json!({"app": "b", "role": ""}),
        json!({"app": "", "role": "r"}),
    ]);
    let ports = one_of(&[
        json!([]),
        json!([{"name": "web", "containerPort": 80}]),
        json!([{"name": "web", "containerPort": 8080}, {"name": "db", "containerPort": 80, "protocol": "UDP"}]),
        json!([{"name": "db", "containerPort": 1, "protocol": "SCTP"}]),
    ]);
    let phase = prop_oneof![8 => Just("Running"), 1 => Just("Succeeded"), 1 => Just("Pending")];
    let ips = vec(select(addresses()), 1..3);
    let account = option::of(Just("s"));
    (name(NAMESPACES), name(&["p", "q", "r"]), labels, ports, phase, ips, account).prop_map(
        |(namespace, name, labels, ports, phase, ips, account)| {
            let mut families = ips;
            families.sort_unstable();
            families.dedup_by_key(|it| it.is_ipv4());
            let ips: Vec<Value> = families.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {
                    "nodeName": NODE, "serviceAccountName": account,
                    "containers": [{"name": "main", "ports": ports}],
                },
                "status": {"phase": phase, "podIPs": ips},
            })
        },
    )
}

fn node() -> impl Strategy<Value = Value> {
    one_of(&[json!({"zone": "a"}), json!({})]).prop_map(|labels| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-b", "labels": labels},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.6"}]},
        })
    })
}

/// A selector of labels as Kubernetes has it.
fn label_selector() -> BoxedStrategy<Value> {
    one_of(&[
        json!({}),
        json!({}),
        json!({}),
        json!({"matchLabels": {"app": "a"}}),
        json!({"matchLabels": {"team": "red"}}),
        json!({"matchLabels": {"role": ""}}),
        json!({"matchLabels": {"kubernetes.io/metadata.name": "x"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a", ""]}]}),
        json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]}),
        json!({"matchLabels": {"app": "b"}, "matchExpressions": [{"key": "role", "operator": "Exists"}]}),
    ])
    .boxed()
}

const BLOCKS_V4: &[&str] = &["0.0.0.0/0", "10.0.0.0/30", "10.0.0.2/32", "192.0.2.0/24"];
const BLOCKS_V6: &[&str] = &["::/0", "fd00::/126", "fd00::2/128", "2001:db8::/32"];

fn kubernetes_peer() -> impl Strategy<Value = Value> {
    let blocks = one_of(&[
        json!({"cidr": "10.0.0.0/24", "except": ["10.0.0.2/32", "10.0.0.4/31"]}),
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "fd00::/120", "except": ["fd00::2/127"]}),
        json!({"cidr": "::/0", "except": ["fd00::/16"]}),
        json!({"cidr": "::ffff:10.0.0.0/126"}),
    ]);
    prop_oneof![
        label_selector().prop_map(|it| json!({"podSelector": it})),
        label_selector().prop_map(|it| json!({"namespaceSelector": it})),
        (label_selector(), label_selector()).prop_map(
            |(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})
        ),
        blocks.prop_map(|it| json!({"ipBlock": it})),
    ]
}

fn kubernetes_rule(side: &'static str) -> BoxedStrategy<Value> {
    let ports = one_of(&[
        json!({}),
        json!({"port": 80}),
        json!({"protocol": "UDP", "port": 1}),
        json!({"protocol": "SCTP"}),
        json!({"port": 80, "endPort": 8080}),
        json!({"port": "web"}),
        json!({"protocol": "UDP", "port": "db"}),
    ]);
    let list = |it: BoxedStrategy<Value>| vec(it, 0..3).prop_map(Value::Array).boxed();
    fields(vec![(side, list(kubernetes_peer().boxed())), ("ports", list(ports.boxed()))]).boxed()
}

fn kubernetes_spec() -> impl Strategy<Value = Value> {
    let types =
        one_of(&[json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Egress", "Ingress"])]);
    let rules = |side| vec(kubernetes_rule(side), 0..3).prop_map(Value::Array).boxed();
    let some = fields(vec![
        ("policyTypes", types.boxed()),
        ("ingress", rules("from")),
        ("egress", rules("to")),
    ]);
    (label_selector(), some)
        .prop_map(|(subject, some)| merged(&json!({"podSelector": subject}), &some))
}

fn kubernetes() -> impl Strategy<Value = Value> {
    (name(NAMESPACES), name(&["a", "b"]), kubernetes_spec()).prop_map(|(namespace, name, spec)| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        })
    })
}

/// A subject or peer of the policies of clusters.
fn pods_or_namespaces() -> BoxedStrategy<Value> {
    prop_oneof![
        label_selector().prop_map(|it| json!({"namespaces": it})),
        (label_selector(), label_selector()).prop_map(
            |(pods, namespaces)| json!({"pods": {"podSelector": pods, "namespaceSelector": namespaces}})
        ),
    ]
    .boxed()
}

fn outer_peer() -> BoxedStrategy<Value> {
    let networks =
        select([BLOCKS_V4, BLOCKS_V6].concat()).prop_map(|block| json!({"networks": [block]}));
    let nodes = one_of(&[json!({}), json!({"matchLabels": {"zone": "a"}})]);
    prop_oneof![
        3 => pods_or_namespaces(),
        2 => networks,
        1 => nodes.prop_map(|it| json!({"nodes": it})),
    ]
    .boxed()
}

/// Rules of a direction. Names of ports and peers outside of the cluster do not meet.
fn cluster_rules(
    side: &'static str,
    actions: &'static [&'static str],
    ports: (&'static str, Vec<Value>, Vec<Value>),
) -> BoxedStrategy<Value> {
    let (key, numbers, names) = ports;
    let rule = move |peer: BoxedStrategy<Value>, ports: Vec<Value>| {
        let ports = vec(select(ports), 1..3).prop_map(Value::Array).boxed();
        (select(actions), vec(peer, 1..3), some_fields(0.3, vec![(key, ports)])).prop_map(
            move |(action, peers, ports)| merged(&json!({"action": action, side: peers}), &ports),
        )
    };
    let all = [numbers.clone(), names].concat();
    let outer = if side == "to" { outer_peer() } else { pods_or_namespaces() };
    let rules = prop_oneof![rule(pods_or_namespaces(), all), rule(outer, numbers)];
    vec(rules, 0..4).prop_map(Value::Array).boxed()
}

fn cluster_network() -> impl Strategy<Value = Value> {
    let ports = || {
        let numbers = [
            json!({"tcp": {"destinationPort": {"number": 80}}}),
            json!({"udp": {"destinationPort": {"range": {"start": 1, "end": 80}}}}),
            json!({"sctp": {"destinationPort": {"number": 65_535}}}),
        ];
        ("protocols", numbers.to_vec(), vec![json!({"destinationNamedPort": "web"})])
    };
    let rules = move |side| cluster_rules(side, &["Accept", "Deny", "Pass"], ports());
    let some = some_fields(0.8, vec![("ingress", rules("from")), ("egress", rules("to"))]);
    (
        name(&["a", "b", "c"]),
        name(&["Admin", "Baseline"]),
        select(vec![0, 7, 1000]),
        pods_or_namespaces(),
        some,
    )
        .prop_map(|(name, tier, priority, subject, some)| {
            let spec = json!({"tier": tier, "priority": priority, "subject": subject});
            json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": name}, "spec": merged(&spec, &some),
            })
        })
}

fn admin_spec(actions: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let ports = || {
        let numbers = [
            json!({"portNumber": {"protocol": "TCP", "port": 80}}),
            json!({"portRange": {"protocol": "UDP", "start": 1, "end": 80}}),
        ];
        ("ports", numbers.to_vec(), vec![json!({"namedPort": "web"})])
    };
    let rules = move |side| cluster_rules(side, actions, ports());
    let some = some_fields(0.8, vec![("ingress", rules("from")), ("egress", rules("to"))]);
    (pods_or_namespaces(), some)
        .prop_map(|(subject, some)| merged(&json!({"subject": subject}), &some))
}

fn admin_network() -> impl Strategy<Value = Value> {
    let spec = admin_spec(&["Allow", "Deny", "Pass"]);
    (name(&["a", "d"]), select(vec![0, 7, 1000]), spec).prop_map(|(name, priority, spec)| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
            "metadata": {"name": name}, "spec": merged(&json!({"priority": priority}), &spec),
        })
    })
}

fn baseline_admin_network() -> impl Strategy<Value = Value> {
    admin_spec(&["Allow", "Deny"]).prop_map(|spec| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy",
            "metadata": {"name": "default"}, "spec": spec,
        })
    })
}

/// A selector in the language of Calico.
fn selector() -> BoxedStrategy<Value> {
    let texts = [
        "",
        "all()",
        "all()",
        "app == 'a'",
        "app != 'a'",
        "role == ''",
        "has(role) || app in {'b'}",
        "!(app == 'a' && has(role))",
        "app not in {'b', 'c'}",
        "app starts with ''",
        "kind == 'set'",
        "projectcalico.org/orchestrator == 'k8s'",
    ];
    select(texts.to_vec()).prop_map(Value::from).boxed()
}

fn namespace_selector() -> BoxedStrategy<Value> {
    let texts = [
        "all()",
        "global()",
        "team == 'red'",
        "team != 'red'",
        "!has(team)",
        "projectcalico.org/name == 'x'",
    ];
    select(texts.to_vec()).prop_map(Value::from).boxed()
}

fn side(blocks: &'static [&'static str], ports: &[Value]) -> BoxedStrategy<Value> {
    let accounts = one_of(&[
        json!({}),
        json!({"names": ["s"]}),
        json!({"selector": "grade == 'gold'"}),
        json!({"names": ["s", "default"], "selector": "!has(grade)"}),
    ]);
    // A negated block of everything would make the rule impossible, and is refused.
    let negated: Vec<&str> = blocks.iter().copied().filter(|it| !it.ends_with("/0")).collect();
    let list =
        |blocks: Vec<&'static str>| vec(select(blocks), 0..3).prop_map(|it| json!(it)).boxed();
    let mut all = vec![
        ("selector", selector()),
        ("notSelector", selector()),
        ("namespaceSelector", namespace_selector()),
        ("serviceAccounts", accounts.boxed()),
        ("nets", list(blocks.to_vec())),
        ("notNets", list(negated)),
    ];
    if !ports.is_empty() {
        let list = || vec(select(ports.to_vec()), 0..3).prop_map(Value::Array).boxed();
        all.extend([("ports", list()), ("notPorts", list())]);
    }
    // Most rules have few conditions, or nothing would match.
    some_fields(0.12, all).boxed()
}

fn calico_rule() -> BoxedStrategy<Value> {
    let names = [json!("web"), json!("db")];
    let numbers =
        [json!("1:65535"), json!(80), json!("80:8080"), json!(1), json!(65_535), json!("web")];
    let conditions: [(Value, &[Value]); 12] = [
        (json!({}), &[]),
        (json!({}), &[]),
        (json!({}), &names),
        (json!({"protocol": "TCP"}), &numbers),
        (json!({"protocol": "UDP", "notProtocol": "TCP"}), &numbers),
        (json!({"protocol": 132}), &numbers),
        (json!({"protocol": "ICMP"}), &[]),
        (json!({"protocol": "ICMP", "icmp": {"type": 8}}), &[]),
        (json!({"protocol": "ICMPv6", "icmp": {"type": 128, "code": 0}}), &[]),
        (json!({"protocol": 58, "notICMP": {"type": 128}}), &[]),
        (json!({"notProtocol": "TCP"}), &[]),
        (json!({"protocol": 253}), &[]),
    ];
    let mut rules = Vec::new();
    for (condition, ports) in conditions {
        // Messages by name are of one family, and need not say so again.
        let messages = match &condition["protocol"] {
            Value::String(name) if name == "ICMP" => Some(4),
            Value::String(name) if name == "ICMPv6" => Some(6),
            Value::Number(number) if number.as_u64() == Some(58) => Some(6),
            _ => None,
        };
        for (version, blocks) in [(4, BLOCKS_V4), (6, BLOCKS_V6)] {
            if messages.is_some_and(|it| it != version) {
                continue;
            }
            let ip_version =
                messages.is_none().then(|| ("ipVersion", Just(version.into()).boxed()));
            let condition = condition.clone();
            let rule = (
                select(vec!["Allow", "Allow", "Deny", "Pass", "Log"]),
                side(blocks, ports),
                side(blocks, ports),
                some_fields(0.2, ip_version.into_iter().collect()),
            );
            rules.push(
                rule.prop_map(move |(action, source, destination, some)| {
                    let rule =
                        json!({"action": action, "source": source, "destination": destination});
                    merged(&merged(&rule, &condition), &some)
                })
                .boxed(),
            );
        }
    }
    proptest::strategy::Union::new(rules).boxed()
}

fn calico_spec() -> BoxedStrategy<Value> {
    let types =
        one_of(&[json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Egress", "Ingress"])]);
    let rules = || vec(calico_rule(), 0..5).prop_map(Value::Array).boxed();
    let orders = one_of(&[json!(-1), json!(0.5), json!(1000), json!(1001)]);
    let accounts = select(vec!["all()", "grade == 'gold'", "!has(grade)"]).prop_map(Value::from);
    let tiers = select(vec!["default", "default", "mine", "missing"]).prop_map(Value::from);
    fields(vec![
        ("tier", tiers.boxed()),
        ("order", orders.boxed()),
        ("selector", selector()),
        ("serviceAccountSelector", accounts.boxed()),
        ("types", types.boxed()),
        ("ingress", rules()),
        ("egress", rules()),
    ])
    .boxed()
}

fn calico() -> impl Strategy<Value = Value> {
    (name(NAMESPACES), name(&["a", "b"]), calico_spec()).prop_map(|(namespace, name, spec)| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        })
    })
}

fn global_spec() -> impl Strategy<Value = Value> {
    let namespaces = select(vec!["all()", "team == 'red'", "team != 'red'"]).prop_map(Value::from);
    (calico_spec(), fields(vec![("namespaceSelector", namespaces.boxed())]))
        .prop_map(|(spec, some)| merged(&spec, &some))
}

fn global() -> impl Strategy<Value = Value> {
    (name(&["a", "b", "c"]), global_spec()).prop_map(|(name, spec)| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": name}, "spec": spec,
        })
    })
}

/// What is staged must not change a packet.
fn staged() -> impl Strategy<Value = Value> {
    let namespaced = |kind: &'static str, spec: BoxedStrategy<Value>| {
        (name(NAMESPACES), name(&["a", "b"]), spec).prop_map(move |(namespace, name, spec)| {
            json!({
                "apiVersion": "projectcalico.org/v3", "kind": kind,
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            })
        })
    };
    let global = (name(&["a", "b"]), global_spec()).prop_map(|(name, spec)| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "StagedGlobalNetworkPolicy",
            "metadata": {"name": name}, "spec": spec,
        })
    });
    prop_oneof![
        namespaced("StagedNetworkPolicy", calico_spec()),
        namespaced("StagedKubernetesNetworkPolicy", kubernetes_spec().boxed()),
        global,
    ]
}

fn tier() -> impl Strategy<Value = Value> {
    let orders = one_of(&[json!(-7), json!(999), json!(2_000_000)]);
    let actions = select(vec!["Deny", "Pass"]).prop_map(Value::from);
    fields(vec![("order", orders.boxed()), ("defaultAction", actions.boxed())]).prop_map(|spec| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Tier",
            "metadata": {"name": "mine"}, "spec": spec,
        })
    })
}

fn network_set() -> impl Strategy<Value = Value> {
    let labels = one_of(&[json!({"kind": "set"}), json!({"kind": "set", "app": "a"}), json!({})]);
    let nets = vec(select([BLOCKS_V4, BLOCKS_V6, &["10.0.0.3", "fd00::3"]].concat()), 0..3);
    (option::of(name(NAMESPACES)), name(&["n", "m"]), labels, nets).prop_map(
        |(namespace, name, labels, nets)| {
            let mut metadata = json!({"name": name, "labels": labels});
            let kind = match namespace {
                Some(namespace) => {
                    metadata["namespace"] = namespace.into();
                    "NetworkSet"
                }
                None => "GlobalNetworkSet",
            };
            json!({
                "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata,
                "spec": {"nets": nets},
            })
        },
    )
}
