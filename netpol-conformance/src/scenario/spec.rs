//! The `Scenario` document, as it is written.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use netpol_core::Verdict;
use netpol_core::model::{HostSettings, HttpRequest, Treatment, Tunnel, WorkloadToHost};
use netpol_core::net::Transport;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::reason::Reasons;

/// The `apiVersion` of scenarios.
pub(crate) const API_VERSION: &str = "netpol.dev/v1";

/// The `kind` of scenarios.
pub(crate) const KIND: &str = "Scenario";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ScenarioDocument {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: Kind,
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
}

#[derive(Debug, Deserialize)]
pub(crate) enum ApiVersion {
    #[serde(rename = "netpol.dev/v1")]
    V1,
}

#[derive(Debug, Deserialize)]
enum Kind {
    Scenario,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) description: String,
    #[serde(default, rename = "source", deserialize_with = "or_default")]
    _source: String,
    #[serde(default, rename = "derived", deserialize_with = "or_default")]
    _derived: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) requires: Vec<String>,
    #[serde(default, rename = "note", deserialize_with = "or_default")]
    _note: String,
    #[serde(default, rename = "unknownInterfaces", deserialize_with = "or_default")]
    pub(crate) unknown_interfaces: Option<TreatmentWord>,
    pub(crate) steps: Vec<StepSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepSpec {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) settings: SettingsSpec,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) unknown: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) delete: Vec<ObjectRef>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) apply: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) probes: Vec<ProbeSpec>,
    pub(crate) matrix: Option<MatrixSpec>,
}

/// What becomes of packets at interfaces of pods that no dataplane is told of.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TreatmentWord {
    Closed,
    Open,
    EgressTracked,
}

impl From<TreatmentWord> for Treatment {
    fn from(word: TreatmentWord) -> Self {
        match word {
            TreatmentWord::Closed => Self::Closed,
            TreatmentWord::Open => Self::Open,
            TreatmentWord::EgressTracked => Self::EgressTracked,
        }
    }
}

/// Settings of all nodes; those that are absent stay as they are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SettingsSpec {
    workload_to_host: Option<WorkloadToHostWord>,
    denied_encapsulation: Option<BTreeSet<TunnelSpec>>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(untagged, expecting = "IPIP or the number of a UDP port")]
enum TunnelSpec {
    Name(TunnelName),
    Udp(u16),
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
enum TunnelName {
    #[serde(rename = "IPIP")]
    IpInIp,
}

impl From<TunnelSpec> for Tunnel {
    fn from(tunnel: TunnelSpec) -> Self {
        match tunnel {
            TunnelSpec::Name(TunnelName::IpInIp) => Self::IpInIp,
            TunnelSpec::Udp(port) => Self::Udp(port),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WorkloadToHostWord {
    Deny,
    Allow,
    Judge,
}

impl SettingsSpec {
    pub(crate) fn apply(&self, settings: &mut HostSettings) {
        if let Some(word) = self.workload_to_host {
            settings.workload_to_host = match word {
                WorkloadToHostWord::Deny => WorkloadToHost::Deny,
                WorkloadToHostWord::Allow => WorkloadToHost::Allow,
                WorkloadToHostWord::Judge => WorkloadToHost::Judge,
            };
        }
        if let Some(denied) = &self.denied_encapsulation {
            settings.denied_encapsulation = denied.iter().copied().map(Tunnel::from).collect();
        }
    }
}

/// Names an object to be deleted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ObjectRef {
    pub(crate) api_version: Option<String>,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProbeSpec {
    pub(crate) from: Party,
    pub(crate) to: Party,
    pub(crate) protocol: ProbeProtocol,
    pub(crate) port: Option<Port>,
    pub(crate) source_port: Option<Port>,
    pub(crate) source_address: Option<IpAddr>,
    pub(crate) icmp: Option<IcmpMessage>,
    #[serde(default, deserialize_with = "http_request")]
    pub(crate) http: Option<HttpRequest>,
    #[serde(deserialize_with = "verdict")]
    pub(crate) expect: Verdict,
    #[serde(default, deserialize_with = "optional_verdict")]
    pub(crate) pending: Option<Verdict>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) reasons: Reasons,
}

/// What an ICMP message is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a message has a type and a code")]
pub struct IcmpMessage {
    /// The type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// The code.
    #[serde(default)]
    pub code: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatrixSpec {
    pub(crate) protocol: ProbeProtocol,
    pub(crate) port: Option<Port>,
    #[serde(deserialize_with = "verdict")]
    pub(crate) default: Verdict,
    pub(crate) deny: Option<Vec<Exception>>,
    pub(crate) allow: Option<Vec<Exception>>,
}

/// The number of a port, not 0.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "u16")]
pub(crate) struct Port(pub(crate) u16);

impl TryFrom<u16> for Port {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        if number == 0 { Err("port 0, expected 1 to 65535") } else { Ok(Self(number)) }
    }
}

/// The protocol of a probe.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "NameOrNumber")]
#[expect(clippy::exhaustive_enums, reason = "the scenario format knows these")]
pub enum ProbeProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP of the family of the destination: an echo request, where nothing else is said.
    Icmp,
    /// Another protocol, by its number.
    Number(u8),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "TCP, UDP, SCTP, ICMP or the number of another protocol")]
enum NameOrNumber {
    Name(Name),
    Number(u8),
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Name {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

impl TryFrom<NameOrNumber> for ProbeProtocol {
    type Error = FormError;

    fn try_from(given: NameOrNumber) -> Result<Self, Self::Error> {
        match given {
            NameOrNumber::Name(Name::Tcp) => Ok(Self::Tcp),
            NameOrNumber::Name(Name::Udp) => Ok(Self::Udp),
            NameOrNumber::Name(Name::Sctp) => Ok(Self::Sctp),
            NameOrNumber::Name(Name::Icmp) => Ok(Self::Icmp),
            NameOrNumber::Number(number) => Self::numbered(number),
        }
    }
}

impl ProbeProtocol {
    /// Protocols with a name go by it. 0 and 255 stand for none: the one is an extension header of IPv6, the other is
    /// reserved.
    fn numbered(number: u8) -> Result<Self, FormError> {
        match number {
            0 | 1 | 6 | 17 | 58 | 132 | 255 => Err(FormError::Protocol(number.to_string())),
            _ => Ok(Self::Number(number)),
        }
    }

    /// Returns the transport, `None` for protocols without ports.
    #[must_use]
    pub const fn transport(self) -> Option<Transport> {
        match self {
            Self::Tcp => Some(Transport::Tcp),
            Self::Udp => Some(Transport::Udp),
            Self::Sctp => Some(Transport::Sctp),
            Self::Icmp | Self::Number(_) => None,
        }
    }
}

impl fmt::Display for ProbeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Sctp => f.write_str("SCTP"),
            Self::Icmp => f.write_str("ICMP"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for ProbeProtocol {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            "ICMP" => Ok(Self::Icmp),
            number => match number.parse() {
                Ok(number) => Self::numbered(number),
                Err(_) => Err(FormError::Protocol(text.to_owned())),
            },
        }
    }
}

/// One end of a probe.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub struct Party {
    /// As it was written.
    pub written: String,
    /// What it names.
    pub name: PartyName,
}

/// What names an end of a probe.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the scenario format knows these")]
pub enum PartyName {
    /// A pod, by namespace and name.
    Pod(String, String),
    /// A process of a node, by the node's name.
    Node(String),
    /// Whoever has the address.
    Address(IpAddr),
    /// A Service, by namespace and name: its address in the cluster.
    Service(String, String),
}

/// Why text does not name what it should.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// No party.
    #[error(
        "`{0}` names no party, expected `namespace/pod`, `node:NAME`, an IP address or `service:namespace/name`"
    )]
    Party(String),
    /// No exception of a matrix.
    #[error(
        "`{0}` is no exception, expected `SOURCE -> DESTINATION`, each of them `*`, `namespace/*` or `namespace/pod`"
    )]
    Exception(String),
    /// No protocol.
    #[error(
        "`{0}` is no protocol, expected TCP, UDP, SCTP, ICMP or the number of another protocol"
    )]
    Protocol(String),
    /// No reason.
    #[error(
        "`{0}` is no reason, expected `rule KIND NAMESPACE/NAME[INDEX]`, `no match in tier NAME`, `no policy`, \
         `no endpoint`, `own node` or `own address`"
    )]
    Reason(String),
}

impl FromStr for Party {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = if let Ok(address) = text.parse() {
            PartyName::Address(address)
        } else if let Some(node) = text.strip_prefix("node:").filter(|it| is_name(it)) {
            PartyName::Node(node.to_owned())
        } else if let Some((namespace, name)) = text.strip_prefix("service:").and_then(namespaced) {
            PartyName::Service(namespace.to_owned(), name.to_owned())
        } else {
            let (namespace, name) =
                namespaced(text).ok_or_else(|| FormError::Party(text.to_owned()))?;
            PartyName::Pod(namespace.to_owned(), name.to_owned())
        };
        Ok(Self { written: text.to_owned(), name })
    }
}

impl TryFrom<String> for Party {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Pairs of pods that a matrix makes an exception for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct Exception {
    pub(crate) written: String,
    from: Pattern,
    to: Pattern,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    Any,
    Namespace(String),
    Pod(String, String),
}

impl Exception {
    /// Returns whether pairs with this source are meant.
    pub(crate) fn is_from(&self, namespace: &str, pod: &str) -> bool {
        self.from.matches(namespace, pod)
    }

    /// Returns whether pairs with this destination are meant.
    pub(crate) fn is_to(&self, namespace: &str, pod: &str) -> bool {
        self.to.matches(namespace, pod)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some(namespace) = text.strip_suffix("/*").filter(|it| is_name(it)) {
            return Some(Self::Namespace(namespace.to_owned()));
        }
        namespaced(text).map(|(namespace, name)| Self::Pod(namespace.to_owned(), name.to_owned()))
    }

    fn matches(&self, namespace: &str, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Namespace(wanted) => wanted == namespace,
            Self::Pod(in_namespace, wanted) => in_namespace == namespace && wanted == name,
        }
    }
}

impl TryFrom<String> for Exception {
    type Error = FormError;

    fn try_from(written: String) -> Result<Self, Self::Error> {
        let patterns = written.split_once("->").and_then(|(from, to)| {
            Some((Pattern::parse(from.trim())?, Pattern::parse(to.trim())?))
        });
        match patterns {
            Some((from, to)) => Ok(Self { written, from, to }),
            None => Err(FormError::Exception(written)),
        }
    }
}

fn namespaced(text: &str) -> Option<(&str, &str)> {
    // Names of namespaces have no dots.
    let is_namespace = |text: &str| is_name(text) && !text.contains('.');
    text.split_once('/').filter(|(namespace, name)| is_namespace(namespace) && is_name(name))
}

/// Names of objects are DNS subdomains: this much tells them from patterns and typing errors.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.'))
}

/// A key without a value is like none.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Allow => Self::Allow,
            Word::Deny => Self::Deny,
        }
    }
}

fn http_request<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<HttpRequest>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        method: String,
        path: String,
    }
    let fields = Option::<Fields>::deserialize(deserializer)?;
    let request = fields.map(|Fields { method, path }| HttpRequest::new(method, path));
    request.transpose().map_err(D::Error::custom)
}

fn verdict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
    Word::deserialize(deserializer).map(Verdict::from)
}

fn optional_verdict<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Verdict>, D::Error> {
    Ok(Option::<Word>::deserialize(deserializer)?.map(Verdict::from))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[test]
    fn parties_are_pods_nodes_or_addresses() {
        let name = |text: &str| text.parse::<Party>().map(|it| it.name);
        assert_eq!(name("x/a"), Ok(PartyName::Pod("x".into(), "a".into())));
        assert_eq!(name("node:n-1.example"), Ok(PartyName::Node("n-1.example".into())));
        assert_eq!(name("192.0.2.10"), Ok(PartyName::Address("192.0.2.10".parse().unwrap())));
        assert_eq!(name("2001:db8::1"), Ok(PartyName::Address("2001:db8::1".parse().unwrap())));
        for wrong in ["", "x", "x/", "/a", "x/a/b", "x/*", "*", "node:", "192.0.2.0/24", "x/a "] {
            assert_eq!(name(wrong), Err(FormError::Party(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn exceptions_match_pairs() {
        let exception = |text: &str| Exception::try_from(text.to_owned());
        let any_to_a = exception("* -> x/a").unwrap();
        assert!(any_to_a.is_from("y", "b") && any_to_a.is_to("x", "a"));
        assert!(!any_to_a.is_to("y", "b"));
        let within = exception("x/*->y/*").unwrap();
        assert!(within.is_from("x", "a") && within.is_to("y", "b"));
        assert!(!within.is_to("x", "b"));
        for wrong in ["x/a", "x/a -> ", "x/a -> y", "*/a -> *", "x/a -> y/b -> z/c"] {
            assert!(exception(wrong).is_err(), "{wrong}");
        }
    }
}
