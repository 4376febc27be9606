//! What becomes of established flows.

use netpol_core::model::Mode;
use netpol_core::net::Family;
use netpol_core::program::Established;

use super::Broken;
use super::lab::{Lab, Pod, Policy};
use super::stream::{Speaker, Stream};
use crate::topology::{Host, Transport};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// Opens a flow of each transport and family.
fn streams(lab: &Lab, from: &Host) -> Result<Vec<Stream>, Broken> {
    let kinds = TRANSPORTS.into_iter().flat_map(|it| Family::BOTH.map(|family| (it, family)));
    kinds.map(|(transport, family)| Stream::open(lab, from, transport, family)).collect()
}

fn go_on(lab: &Lab, streams: &mut [Stream]) -> Result<(), Broken> {
    streams.iter_mut().try_for_each(|it| it.goes_on(lab))
}

fn have_stopped(lab: &Lab, streams: &mut [Stream]) -> Result<(), Broken> {
    streams.iter_mut().try_for_each(|it| it.has_stopped(lab))
}

pub(super) fn keep(lab: &mut Lab) -> Result<(), Broken> {
    lab.enforce(&lab.program(&lab.wish(Policy::Everybody))?)?;
    let mut flows = streams(lab, &Pod::Client.host())?;
    let applied = lab.enforce(&lab.program(&lab.wish(Policy::Nobody))?)?;
    super::promised(applied.revoked == 0, || format!("{} flows were stopped", applied.revoked))?;
    lab.is_kept_out(Pod::Client)?;
    go_on(lab, &mut flows)
}

pub(super) fn reevaluate(lab: &mut Lab) -> Result<(), Broken> {
    let program = |lab: &Lab, policy: Policy| {
        let mut wish = lab.wish(policy);
        wish.established = Established::Reevaluate;
        lab.program(&wish)
    };
    let everybody = program(lab, Policy::Everybody)?;
    lab.enforce(&everybody)?;
    let mut denied = streams(lab, &Pod::Client.host())?;
    let mut allowed = streams(lab, &Pod::Other.host())?;
    allowed.extend(streams(lab, &Lab::node())?);

    let only_other = program(lab, Policy::Only(Pod::Other))?;
    lab.enforce(&only_other)?;
    have_stopped(lab, &mut denied)?;
    go_on(lab, &mut allowed)?;
    lab.enforce(&only_other)?;
    have_stopped(lab, &mut denied)?;

    // What is allowed again can be used again.
    lab.enforce(&everybody)?;
    lab.reaches(Pod::Client)?;
    let mut denied = streams(lab, &Pod::Client.host())?;
    go_on(lab, &mut allowed)?;

    // A program that keeps flows has nothing to do with those that were stopped: they can be opened anew.
    lab.enforce(&only_other)?;
    have_stopped(lab, &mut denied)?;
    lab.enforce(&lab.program(&lab.wish(Policy::Everybody))?)?;
    go_on(lab, &mut streams(lab, &Pod::Client.host())?)?;
    go_on(lab, &mut allowed)
}

pub(super) fn end_of_flows(lab: &mut Lab) -> Result<(), Broken> {
    let everybody = lab.program(&lab.wish(Policy::Everybody))?;
    lab.enforce(&everybody)?;
    let mut flows = streams(lab, &Pod::Client.host())?;
    let server = lab.endpoint(Pod::Server);
    let mut isolated = lab.wish(Policy::Everybody);
    for endpoint in isolated.endpoints.iter_mut().filter(|it| **it == server) {
        endpoint.mode = Mode::Isolate;
    }
    lab.enforce(&lab.program(&isolated)?)?;
    have_stopped(lab, &mut flows)?;

    lab.enforce(&everybody)?;
    let mut flows = streams(lab, &Pod::Client.host())?;
    let mut gone = lab.wish(Policy::Everybody);
    gone.endpoints.retain(|it| *it != server);
    lab.enforce(&lab.program(&gone)?)?;
    let mut successor = lab.wish(Policy::Nobody);
    for endpoint in successor.endpoints.iter_mut().filter(|it| **it == server) {
        endpoint.id.uid = "successor".to_owned();
    }
    lab.enforce(&lab.program(&successor)?)?;
    // The successor may open a flow to the client, so only the client's side tells.
    flows.iter_mut().try_for_each(|it| it.is_not_heard(lab, Speaker::Opener))
}
