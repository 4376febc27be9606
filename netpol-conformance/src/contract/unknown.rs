//! Interfaces that look like those of workloads and belong to none.

use netpol_core::Change;
use netpol_core::model::{Treatment, UnknownInterfaces};
use netpol_core::net::Family;

use super::lab::{Lab, Pod, Policy, Wish};
use super::lasting::flood::Flood;
use super::stream::Stream;
use super::{Broken, promised};
use crate::topology::Transport;

/// How often an endpoint comes and goes while it sends.
const ROUNDS: usize = 4;

/// Returns a wish of a node that is not told of a pod.
fn without(lab: &Lab, pod: Option<Pod>, policy: Policy, treatment: Treatment) -> Wish {
    let mut wish = lab.wish(policy);
    let hidden = pod.map(|pod| lab.endpoint(pod));
    wish.endpoints.retain(|it| Some(it) != hidden.as_ref());
    let prefixes = Lab::pods_interfaces().into_iter().collect();
    Wish { unknown: UnknownInterfaces { prefixes, treatment }, ..wish }
}

pub(super) fn unknown_interfaces(lab: &mut Lab) -> Result<(), Broken> {
    lab.reaches(Pod::Other)?;
    let enforce = |lab: &mut Lab, pod, policy, treatment| {
        let program = lab.program(&without(lab, pod, policy, treatment))?;
        lab.enforce(&program)?;
        lab.agrees(&program)
    };
    enforce(lab, None, Policy::Everybody, Treatment::Closed)?;
    lab.reaches(Pod::Other)?;
    let open = |from: Pod, lab: &Lab| Stream::open(lab, &from.host(), Transport::Tcp, Family::V4);
    let (mut known, mut removed) = (open(Pod::Client, lab)?, open(Pod::Other, lab)?);
    enforce(lab, Some(Pod::Other), Policy::Everybody, Treatment::Closed)?;
    lab.is_kept_out(Pod::Other)?;
    removed.has_stopped(lab)?;
    // A new process asks for isolation first: of endpoints that are known, and of the one that is not.
    lab.reopen()?;
    let all = lab.program(&lab.wish(Policy::Everybody))?;
    for is_asked in [|id: &str| id != Pod::Other.name(), |_: &str| true] {
        let endpoints = all.endpoints.iter().filter(|it| is_asked(&it.id.name)).cloned();
        lab.apply(Change::Isolate(endpoints.collect()))?;
        lab.is_kept_out(Pod::Other)?;
        lab.reaches(Pod::Client)?;
        known.goes_on(lab)?;
    }
    enforce(lab, None, Policy::Everybody, Treatment::Closed)?;
    lab.reaches(Pod::Other)?;

    // Whoever is unknown may open flows, and nobody may open one to there.
    enforce(lab, Some(Pod::Other), Policy::Everybody, Treatment::EgressTracked)?;
    lab.reaches(Pod::Other)?;
    enforce(lab, Some(Pod::Server), Policy::Everybody, Treatment::EgressTracked)?;
    lab.is_kept_out(Pod::Other)?;
    enforce(lab, Some(Pod::Server), Policy::Everybody, Treatment::Open)?;
    lab.reaches(Pod::Other)?;
    no_gap(lab)
}

/// An endpoint that comes has its policy before it is known, and has it until it is unknown.
fn no_gap(lab: &mut Lab) -> Result<(), Broken> {
    let policy = Policy::AllBut(Pod::Other);
    let there = lab.program(&without(lab, None, policy, Treatment::Closed))?;
    let gone = lab.program(&without(lab, Some(Pod::Other), policy, Treatment::Closed))?;
    lab.enforce(&gone)?;
    let (denied, allowed) = (Flood::start(lab, Pod::Other)?, Flood::start(lab, Pod::Client)?);
    for _ in 0..ROUNDS {
        lab.enforce(&there)?;
        lab.enforce(&gone)?;
    }
    let (denied, allowed) = (denied.stop(lab)?, allowed.stop(lab)?);
    promised(denied.arrived == 0, || {
        format!(
            "{} of {} packets of an endpoint that comes and goes arrived",
            denied.arrived, denied.sent
        )
    })?;
    promised(allowed.arrived == allowed.sent, || {
        format!("only {} of {} packets of the others arrived", allowed.arrived, allowed.sent)
    })
}
