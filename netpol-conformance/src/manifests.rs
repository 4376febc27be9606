//! Manifests as users have them: objects of a cluster in one state, in any order.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netpol_core::api::Strictness;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NamelessHosts, Reading, is_cluster_wide};
use crate::document;
use crate::scenario::object::{ObjectId, map_below};
use crate::scenario::{Problem, ScenarioError, Step, addresses_in, is_scenario};
use crate::topology::PodLinks;
use crate::wire::is_known;

/// The namespace of objects that name none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// What some files hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Manifests {
    /// The state in which all of their objects exist. Pods without addresses got some.
    pub state: Step,
    /// The objects that say nothing about policy, as `KIND NAMESPACE/NAME`.
    pub ignored: Vec<String>,
}

/// An object, and where it comes from.
struct Found<'a> {
    file: &'a Path,
    place: String,
    value: Value,
    id: ObjectId,
}

impl Found<'_> {
    fn fail(&self, problem: Problem) -> ScenarioError {
        ScenarioError::new(self.file, self.place.clone(), problem)
    }

    /// Machines come before what runs on them.
    fn rank(&self) -> u8 {
        if self.id.is_core("Node") {
            0
        } else if self.id.is_core("Namespace") {
            1
        } else {
            2
        }
    }
}

/// Returns whether a file holds a scenario, and not only objects.
///
/// # Errors
///
/// If it cannot be read.
pub fn holds_scenario(file: &Path) -> Result<bool, ScenarioError> {
    let documents = document::read(&text_of(file)?);
    Ok(documents.iter().any(|it| it.content.as_ref().is_ok_and(is_scenario)))
}

/// Reads the objects of files. Namespaces that nobody declares exist without labels of their own.
///
/// # Errors
///
/// If a file cannot be read, or an object is none or is refused by its API.
pub fn load(files: &[PathBuf]) -> Result<Manifests, ScenarioError> {
    let found = found_in(files)?;
    let cluster = empty(&found, taken(&found));
    manifests(files, found, cluster)
}

/// Reads the objects of files before a change, and of those after it. Pods and nodes that give no addresses have the same
/// ones in both.
///
/// # Errors
///
/// As of [`load`].
pub fn load_change(before: &[PathBuf], after: &[PathBuf]) -> Result<[Manifests; 2], ScenarioError> {
    let [old, new] = [found_in(before)?, found_in(after)?];
    let taken = &taken(&old) | &taken(&new);
    let cluster = empty(&old, taken.clone());
    let old = manifests(before, old, cluster)?;
    let cluster = empty(&new, taken).with_addresses_of(&old.state.cluster);
    let new = manifests(after, new, cluster)?;
    Ok([old, new])
}

/// Returns the objects of files, those first that others need.
fn found_in(files: &[PathBuf]) -> Result<Vec<Found<'_>>, ScenarioError> {
    let mut found = Vec::new();
    for file in files {
        found.extend(objects_in(file)?);
    }
    found.sort_by_key(Found::rank);
    Ok(found)
}

fn taken(found: &[Found<'_>]) -> BTreeSet<IpAddr> {
    addresses_in(found.iter().filter(|it| is_known(&it.value)).map(|it| &it.value))
}

fn empty(found: &[Found<'_>], taken: BTreeSet<IpAddr>) -> Cluster {
    let node = found.iter().find(|object| object.id.is_core("Node"));
    let name = node.map(|object| object.id.name.clone());
    let reading = Reading {
        unknown_fields: Strictness::Degraded,
        nameless_hosts: NamelessHosts::Enforced,
        pods: PodLinks::default(),
        source_view: None,
        destination_view: None,
        unknown_interfaces: None,
    };
    Cluster::new(name, taken, reading)
}

/// Returns what an empty cluster becomes with some objects.
fn manifests(
    files: &[PathBuf],
    mut found: Vec<Found<'_>>,
    mut cluster: Cluster,
) -> Result<Manifests, ScenarioError> {
    let mut ignored = Vec::new();
    found.retain(|object| {
        let is_known = is_known(&object.value);
        if !is_known {
            ignored.push(object.id.to_string());
        }
        is_known
    });
    for name in undeclared_namespaces(&found) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        // A name that is no name is found where it is used.
        let _ = cluster.apply(&namespace);
    }
    for object in &found {
        cluster.apply(&object.value).map_err(|problem| object.fail(problem))?;
    }
    let file = files.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    cluster.settle().map_err(|problem| ScenarioError::new(file, "", problem))?;
    let state = Step {
        name: String::new(),
        deleted: Vec::new(),
        applied: found.into_iter().map(|object| object.value).collect(),
        cluster: Arc::new(cluster),
        attempts: Vec::new(),
    };
    Ok(Manifests { state, ignored })
}

fn text_of(file: &Path) -> Result<String, ScenarioError> {
    document::text(file).map_err(|error| ScenarioError::new(file, "", Problem::Read(error.source)))
}

/// Returns the objects in a file, each in its namespace.
fn objects_in(file: &Path) -> Result<Vec<Found<'_>>, ScenarioError> {
    let mut objects = Vec::new();
    for document in document::read(&text_of(file)?) {
        let place = format!("document {}", document.index);
        let fail = |problem| ScenarioError::new(file, place.clone(), problem);
        let content = document.content.map_err(|error| fail(Problem::Syntax(error)))?;
        for mut value in document::unpack(content) {
            if is_scenario(&value) {
                return Err(fail(Problem::EarlyScenario));
            }
            place_in_namespace(&mut value);
            let id = ObjectId::of(&value).map_err(fail)?;
            objects.push(Found { file, place: place.clone(), value, id });
        }
    }
    Ok(objects)
}

fn has_namespace(id: &ObjectId) -> bool {
    !id.is_core("Namespace") && !id.is_core("Node") && !is_cluster_wide(id)
}

/// Puts an object that names no namespace into the default one, if its kind is in namespaces and the core knows it.
fn place_in_namespace(value: &mut Value) {
    let is_meant = is_known(value) && ObjectId::of(value).is_ok_and(|id| has_namespace(&id));
    if let Some(object) = value.as_object_mut().filter(|_| is_meant)
        && let Some(metadata) = map_below(object, "metadata")
    {
        metadata.entry("namespace").or_insert_with(|| DEFAULT_NAMESPACE.into());
    }
}

fn undeclared_namespaces<'a>(found: &'a [Found<'_>]) -> BTreeSet<&'a str> {
    let is_namespace = |object: &&Found<'_>| object.id.is_core("Namespace");
    let declared: BTreeSet<_> =
        found.iter().filter(is_namespace).map(|object| object.id.name.as_str()).collect();
    let named = found.iter().filter_map(|object| object.id.namespace.as_deref());
    named.filter(|name| !declared.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use std::fs;

    use netpol_core::Verdict;

    use super::*;
    use crate::scenario::{ProbePort, ProbeProtocol};

    /// Writes texts to files of their own.
    fn files(test: &str, texts: &[&str]) -> Vec<PathBuf> {
        let folder =
            std::env::temp_dir().join(format!("netpol-manifests-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let write = |(index, text): (usize, &&str)| {
            let file = folder.join(format!("{index}.yaml"));
            fs::write(&file, text).unwrap();
            file
        };
        texts.iter().enumerate().map(write).collect()
    }

    #[track_caller]
    fn verdict(manifests: &Manifests, from: &str, to: &str) -> Verdict {
        let port = ProbePort::new(ProbeProtocol::Tcp, Some(80)).unwrap();
        let state = &manifests.state;
        let attempt = state.attempt(&from.parse().unwrap(), &to.parse().unwrap(), port).unwrap();
        state.evaluate(&attempt).enforced.verdict()
    }

    const CLOSED: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}}}";

    #[test]
    fn objects_come_in_any_order_from_any_file() {
        let pods = "{apiVersion: v1, kind: List, items: [\
            {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: m}]}}, \
            {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x}, spec: {nodeName: n, containers: [{name: m}]}}, \
            {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}]}\n---\n\
            {apiVersion: v1, kind: Node, metadata: {name: n}}";
        let manifests = load(&files("order", &[CLOSED, pods])).unwrap();
        assert_eq!(manifests.ignored, ["Deployment d"]);
        assert_eq!(verdict(&manifests, "x/b", "default/a"), Verdict::Deny);
        assert_eq!(verdict(&manifests, "default/a", "x/b"), Verdict::Allow);
    }

    /// Policies can select a namespace by its name, even if its own manifest is not there.
    #[test]
    fn undeclared_namespaces_have_their_names() {
        let text = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {containers: [{name: m}]}}\n---\n\
            {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: y}, spec: {containers: [{name: m}]}}\n---\n\
            {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}, \
            ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}}";
        let manifests = load(&files("namespaces", &[text])).unwrap();
        assert_eq!(verdict(&manifests, "y/b", "x/a"), Verdict::Allow);
        assert_eq!(verdict(&manifests, "192.0.2.1", "x/a"), Verdict::Deny);
    }

    #[test]
    fn what_is_wrong_has_its_file_and_place() {
        let bad = CLOSED.replace("podSelector: {}", "podSelector: 1");
        let scenario =
            "{apiVersion: netpol.dev/v1, kind: Scenario, metadata: {name: s}, spec: {steps: []}}";
        for (text, place) in [
            ("a: [", "document 0"),
            ("{kind: Pod}", "document 0"),
            (bad.as_str(), "document 0"),
            (scenario, "document 0"),
        ] {
            let paths = files("wrong", &[CLOSED, text]);
            let error = load(&paths).unwrap_err();
            assert_eq!((Some(&error.file), error.place.as_str()), (paths.last(), place), "{error}");
        }
        let paths = files("scenario", &[scenario, CLOSED]);
        let held: Vec<_> = paths.iter().map(|it| holds_scenario(it).unwrap()).collect();
        assert_eq!(held, [true, false]);
        assert!(load(&[PathBuf::from("absent.yaml")]).is_err());
    }
}
