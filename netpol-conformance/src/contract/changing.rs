//! What an update changes, and what it leaves alone.

use std::sync::Arc;

use netpol_core::net::Family;
use netpol_core::{Change, Counters};

use super::lab::{Lab, Pod, Policy};
use super::stream::Stream;
use super::{Broken, promised};
use crate::topology::Transport;

pub(super) fn idempotence(lab: &mut Lab) -> Result<(), Broken> {
    lab.reaches(Pod::Other)?;
    let program = lab.program(&lab.wish(Policy::Only(Pod::Client)))?;
    lab.enforce(&program)?;
    lab.agrees(&program)?;
    lab.is_kept_out(Pod::Other)?;
    let mut stream = Stream::open(lab, &Pod::Client.host(), Transport::Tcp, Family::V4)?;
    let before = lab.dataplane()?.counters()?;
    let applied = lab.enforce(&program)?;
    promised(applied.revoked == 0, || format!("{} flows were stopped", applied.revoked))?;
    has_grown(&before, &lab.dataplane()?.counters()?)?;
    lab.agrees(&program)?;
    stream.goes_on(lab)
}

pub(super) fn isolation(lab: &mut Lab) -> Result<(), Broken> {
    let everybody = lab.program(&lab.wish(Policy::Everybody))?;
    let mut wish = lab.wish(Policy::Everybody);
    wish.endpoints.retain(|it| *it != lab.endpoint(Pod::Other));
    let program = lab.program(&wish)?;
    lab.enforce(&program)?;
    let open = |from: Pod, lab: &Lab| Stream::open(lab, &from.host(), Transport::Tcp, Family::V4);
    let mut known = open(Pod::Client, lab)?;
    let mut unknown = open(Pod::Other, lab)?;
    lab.reaches(Pod::Other)?;

    lab.apply(Change::Isolate(everybody.endpoints.clone().into()))?;
    lab.is_kept_out(Pod::Other)?;
    unknown.has_stopped(lab)?;
    lab.reaches(Pod::Client)?;
    known.goes_on(lab)?;

    // A successor at the same interface is nobody that is known.
    let mut successor = lab.wish(Policy::Everybody);
    let client = lab.endpoint(Pod::Client);
    for endpoint in successor.endpoints.iter_mut().filter(|it| **it == client) {
        endpoint.id.uid = "successor".to_owned();
        endpoint.addresses = vec![[10, 244, 0, 77].into()];
    }
    let successor = lab.program(&successor)?;
    lab.apply(Change::Isolate(successor.endpoints.clone().into()))?;
    lab.is_kept_out(Pod::Client)?;

    lab.enforce(&everybody)?;
    lab.reaches(Pod::Other)?;
    lab.reaches(Pod::Client)
}

pub(super) fn updates(lab: &mut Lab) -> Result<(), Broken> {
    lab.reaches(Pod::Other)?;
    let mut engine = lab.engine();
    let mut before = Vec::new();
    // Who is an endpoint, by whom the server may be reached, and who of the two is kept out.
    for (is_endpoint, policy, kept_out) in [
        (true, Policy::Only(Pod::Client), [false, true]),
        (true, Policy::Everybody, [false, false]),
        (true, Policy::AllBut(Pod::Client), [true, false]),
        (false, Policy::Nobody, [true, true]),
        (true, Policy::Only(Pod::Other), [true, false]),
    ] {
        let mut wish = lab.wish(policy);
        let other = lab.endpoint(Pod::Other);
        wish.endpoints.retain(|it| is_endpoint || *it != other);
        let objects = wish.objects()?;
        lab.follow(&mut engine, &before, &objects)?;
        lab.agrees(&*lab.program(&wish)?)?;
        for (pod, is_kept_out) in [Pod::Client, Pod::Other].into_iter().zip(kept_out) {
            if is_kept_out { lab.is_kept_out(pod)? } else { lab.reaches(pod)? }
        }
        before = objects;
    }
    Ok(())
}

pub(super) fn others_proceed(lab: &mut Lab) -> Result<(), Broken> {
    lab.reaches(Pod::Other)?;
    let mut wish = lab.wish(Policy::Only(Pod::Client));
    let mut missing = lab.endpoint(Pod::Client).attached_to("np-missing");
    missing.id.name = "missing".to_owned();
    missing.addresses = vec![[10, 244, 0, 78].into()];
    let id = missing.id.clone();
    wish.endpoints.push(missing);
    let program = lab.program(&wish)?;
    let applied = lab.apply(Change::Full(Arc::clone(&program)))?;
    let others = applied.isolated.iter().find(|(it, _)| *it != id);
    promised(others.is_none(), || format!("{others:?} was closed, whose interface exists"))?;
    lab.is_kept_out(Pod::Other)?;
    lab.reaches(Pod::Client)
}

pub(super) fn counters(lab: &mut Lab) -> Result<(), Broken> {
    lab.reaches(Pod::Other)?;
    let program = lab.program(&lab.wish(Policy::Only(Pod::Client)))?;
    lab.enforce(&program)?;
    let mut before = lab.dataplane()?.counters()?;
    lab.is_kept_out(Pod::Other)?;
    let denied = lab.dataplane()?.counters()?;
    has_grown(&before, &denied)?;
    promised(denied.unmatched > before.unmatched, || "a denied packet was not counted".to_owned())?;
    lab.reaches(Pod::Client)?;
    let allowed = lab.dataplane()?.counters()?;
    has_grown(&denied, &allowed)?;
    let sum = |it: &Counters| it.rules.values().sum::<u64>();
    promised(sum(&allowed) > sum(&denied), || "an allowed flow was not counted".to_owned())?;
    before = allowed;
    lab.enforce(&program)?;
    has_grown(&before, &lab.dataplane()?.counters()?)
}

/// No counter is less than before.
fn has_grown(before: &Counters, after: &Counters) -> Result<(), Broken> {
    let less = before.rules.iter().find(|(id, count)| after.rules.get(id) < Some(count));
    promised(less.is_none() && after.unmatched >= before.unmatched, || {
        format!("counters went from {before:?} to {after:?}")
    })
}
