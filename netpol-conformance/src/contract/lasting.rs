//! What lasts without a process, and what ends.

pub(super) mod flood;

use netpol_core::Change;
use netpol_core::net::Family;

use self::flood::Flood;
use super::lab::{Lab, Pod, Policy};
use super::stream::Stream;
use super::{Broken, promised};
use crate::topology::Transport;

/// How often policy is changed while packets come.
const ROUNDS: usize = 4;

pub(super) fn adoption(lab: &mut Lab) -> Result<(), Broken> {
    lab.reaches(Pod::Other)?;
    let program = lab.program(&lab.wish(Policy::Only(Pod::Client)))?;
    lab.enforce(&program)?;
    let mut stream = Stream::open(lab, &Pod::Client.host(), Transport::Tcp, Family::V4)?;
    let mut is_in_force = |lab: &Lab| {
        lab.is_kept_out(Pod::Other)?;
        lab.reaches(Pod::Client)?;
        stream.goes_on(lab)
    };
    is_in_force(lab)?;
    lab.kill();
    is_in_force(lab)?;
    lab.reopen()?;
    is_in_force(lab)?;
    lab.agrees(&program)?;
    lab.apply(Change::Isolate(program.endpoints.clone().into()))?;
    is_in_force(lab)?;
    let applied = lab.enforce(&program)?;
    promised(applied.revoked == 0, || format!("{} flows were stopped", applied.revoked))?;
    lab.agrees(&program)?;
    is_in_force(lab)
}

pub(super) fn no_gap(lab: &mut Lab) -> Result<(), Broken> {
    let control = Flood::start(lab, Pod::Other)?.stop(lab)?;
    if control.arrived == 0 {
        return Err(Broken::Inconclusive { what: "no packet arrived without policy".to_owned() });
    }
    // Both let the client pass and keep the other one out, with other words.
    let policies = [Policy::Only(Pod::Client), Policy::AllBut(Pod::Other)];
    let [one, other] = policies.map(|it| lab.program(&lab.wish(it)));
    let (one, other) = (one?, other?);
    lab.enforce(&one)?;
    let (denied, allowed) = (Flood::start(lab, Pod::Other)?, Flood::start(lab, Pod::Client)?);
    for _ in 0..ROUNDS {
        lab.enforce(&other)?;
        lab.enforce(&one)?;
        lab.reopen()?;
    }
    let (denied, allowed) = (denied.stop(lab)?, allowed.stop(lab)?);
    promised(denied.arrived == 0, || {
        format!("{} of {} denied packets arrived", denied.arrived, denied.sent)
    })?;
    promised(allowed.arrived == allowed.sent, || {
        format!("only {} of {} allowed packets arrived", allowed.arrived, allowed.sent)
    })
}

pub(super) fn removal(lab: &mut Lab) -> Result<(), Broken> {
    let program = lab.program(&lab.wish(Policy::Nobody))?;
    lab.dataplane()?.remove()?;
    lab.enforce(&program)?;
    lab.is_kept_out(Pod::Client)?;
    for _ in 0..2 {
        lab.dataplane()?.remove()?;
        lab.reaches(Pod::Client)?;
    }
    let drift = lab.audit(&program)?;
    promised(!drift.is_none(), || "nothing is said to differ after removal".to_owned())?;
    lab.enforce(&program)?;
    lab.is_kept_out(Pod::Client)?;
    // Whoever comes next can remove it, without memory.
    lab.reopen()?;
    lab.dataplane()?.remove()?;
    lab.reaches(Pod::Client)
}

pub(super) fn drift(lab: &mut Lab) -> Result<(), Broken> {
    let program = lab.program(&lab.wish(Policy::Only(Pod::Client)))?;
    let other = lab.program(&lab.wish(Policy::AllBut(Pod::Client)))?;
    lab.enforce(&program)?;
    lab.agrees(&program)?;
    let drift = lab.audit(&other)?;
    promised(!drift.is_none(), || "another program is said to be in force".to_owned())?;
    lab.is_kept_out(Pod::Other)?;
    lab.reopen()?;
    lab.dataplane()?.remove()?;
    lab.reopen()?;
    lab.reaches(Pod::Other)?;
    let drift = lab.audit(&program)?;
    promised(!drift.is_none(), || "what was removed is not missed".to_owned())?;
    lab.enforce(&program)?;
    lab.agrees(&program)?;
    lab.is_kept_out(Pod::Other)
}
