//! `explain`: the verdict of the model on one flow, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use netpol_conformance::explain::explain as explained;
use netpol_conformance::scenario::{IcmpMessage, Party, ProbePort, ProbeProtocol};
use netpol_core::model::HttpRequest;

use super::{Result, state, write_out};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A scenario file; or manifests of namespaces, pods and policies: files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The source: `namespace/pod`, `node:NAME` or an IP address
    #[arg(long)]
    from: Party,
    /// The destination, likewise
    #[arg(long)]
    to: Party,
    /// TCP, UDP, SCTP, ICMP or a number
    #[arg(long, default_value = "TCP")]
    protocol: ProbeProtocol,
    /// The destination port; with `--http` 80 if none is given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The source port, where that matters
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    source_port: Option<u16>,
    /// The type and code of the ICMP message, instead of an echo request
    #[arg(long, num_args = 1..=2, value_names = ["TYPE", "CODE"])]
    icmp: Option<Vec<u8>>,
    /// An HTTP request on the connection, judged as by somebody who looks into connections
    #[arg(long, num_args = 2, value_names = ["METHOD", "PATH"])]
    http: Option<Vec<String>>,
    /// The step of the scenario after which to look, instead of the last one
    #[arg(long)]
    step: Option<String>,
}

/// The port of HTTP.
///
/// Source: RFC 9110, section 4.2.1.
const HTTP_PORT: u16 = 80;

pub(crate) fn explain(arguments: &Arguments) -> Result<ExitCode> {
    let state = state(&arguments.paths, arguments.step.as_deref())?;
    let request = request(arguments)?;
    let default = request.as_ref().map(|_| HTTP_PORT);
    let port = probe_port(arguments, default)?;
    let mut attempt = state.attempt(&arguments.from, &arguments.to, port)?;
    if request.is_some() && arguments.protocol != ProbeProtocol::Tcp {
        return Err(format!("--http with {}, expected TCP", arguments.protocol).into());
    }
    attempt.http = request;
    let evaluation = state.evaluate(&attempt);
    let step = if state.name.is_empty() {
        String::new()
    } else {
        format!(", after step `{}`", state.name)
    };
    let text = explained(&evaluation, &state.cluster.inputs());
    write_out(&format!("{attempt}{step}\n{text}"), None)?;
    Ok(ExitCode::SUCCESS)
}

fn request(arguments: &Arguments) -> Result<Option<HttpRequest>> {
    let Some([method, path]) = arguments.http.as_deref() else { return Ok(None) };
    Ok(Some(HttpRequest::new(method, path)?))
}

fn probe_port(arguments: &Arguments, default: Option<u16>) -> Result<ProbePort> {
    let mut port = ProbePort::new(arguments.protocol, arguments.port.or(default))?;
    if let Some(source) = arguments.source_port {
        port = port.from_port(source)?;
    }
    if let Some([kind, code @ ..]) = arguments.icmp.as_deref() {
        let code = code.first().copied().unwrap_or_default();
        port = port.with_message(IcmpMessage { kind: *kind, code })?;
    }
    Ok(port)
}
