//! Established flows that a new program denies.
//!
//! To forget such a flow is not enough. Its next packet may be one of the other direction, which opens a flow of its own:
//! if policy lets the receiver speak to the sender, that packet passes, and all that the sender answers is established
//! again. So a denied flow is *stopped*: it is replaced by an entry for packets of its original direction only.
//!
//! Such an entry never sees a reply, because its replies are looked for in a zone that no packet is ever in. So a
//! packet of the original direction stays that of a new flow, however many come, and policy drops each of them. A packet
//! of the other direction opens a flow whose replies would be in the place of that entry, which the kernel does not allow:
//! it drops the packet when the flow is to be confirmed (`__nf_conntrack_confirm`), or, where NAT is in use, lets it
//! pass from another port only, where it is no part of the old flow any more.
//!
//! The entry lives for as long as the flow would have lived, and longer if more packets come. It is taken away by the
//! first program that allows the flow.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netpol_core::net::Family;
use netpol_core::program::Established;
use netpol_core::{Origin, Program, Verdict};
use nix::errno::Errno;

use crate::conntrack::{Conntrack, GET, ORIGINAL, REPLY, SUBSYSTEM, TrackedFlow, family_number};
use crate::grace::wait_for_packets;
use crate::message::{ACKNOWLEDGE, CREATE, DUMP, NESTED, find};
use crate::tuple::Tuple;

/// `IPCTNL_MSG_CT_NEW`
const NEW: u16 = SUBSYSTEM;
/// `CTA_TIMEOUT`, in seconds.
const TIMEOUT: u16 = 7;

/// The zone in which replies to stopped flows are looked for: `np`. Nobody may let packets be tracked in it.
const NOWHERE: u16 = 0x6e70;

/// How long a flow is stopped at least, in seconds.
const SHORTEST: u32 = 60;

/// How often a packet may come between the end of a flow and the entry that replaces it.
const RACES: usize = 16;

/// A tracked flow, and what is needed for judging it.
#[derive(Clone, Debug)]
struct Judged {
    flow: TrackedFlow,
    original: Tuple,
    reply: Tuple,
    timeout: u32,
}

impl Conntrack {
    /// Stops the tracked flows of a program's endpoints that the program denies, in both directions, and returns how many
    /// those were. Flows that were stopped before and that the program allows may go on. If the program keeps established
    /// flows, those are all that were stopped.
    ///
    /// Flows of protocols without ports are forgotten: a packet of the other direction opens a flow if policy allows it.
    ///
    /// Lists all tracked flows. The program must be in force.
    ///
    /// # Errors
    ///
    /// The system's. Some flows may have been stopped; it can be tried again.
    pub fn reevaluate(&mut self, program: &Program) -> io::Result<u64> {
        let keep = program.established == Established::Keep;
        let node = if keep { BTreeSet::new() } else { self.local.list()? };
        if !keep {
            wait_for_packets();
        }
        let endpoints: BTreeSet<IpAddr> =
            program.endpoints.iter().flat_map(|it| it.addresses.iter().copied()).collect();
        let mut stopped = 0;
        for family in Family::BOTH {
            for it in self.list(family, |it| keep && !it.is_stopped())? {
                let denied = !keep && it.is_denied(program, &endpoints, &node);
                match (denied, it.is_stopped()) {
                    (true, false) => stopped += self.stop(&it)?,
                    (false, true) => drop(self.delete(&it.flow, family_number(family))?),
                    (true, true) | (false, false) => {}
                }
            }
        }
        Ok(stopped)
    }

    fn list(
        &mut self,
        family: Family,
        is_superfluous: impl Fn(&Judged) -> bool,
    ) -> io::Result<Vec<Judged>> {
        let mut flows = Vec::new();
        self.ask(GET, DUMP, family_number(family), &[], |it| {
            flows.extend(Judged::read(it).filter(|it| !is_superfluous(it)));
        })?;
        Ok(flows)
    }

    /// Replaces a flow by an entry for its original direction. Returns 0 if it has ended by itself.
    fn stop(&mut self, it: &Judged) -> io::Result<u64> {
        let family = family_number(it.original.family());
        let ended = self.delete(&it.flow, family)?;
        let Some(entry) = it.replacement().filter(|_| ended > 0) else { return Ok(ended) };
        for _ in 0..RACES {
            match self.ask(NEW, CREATE | ACKNOWLEDGE, family, &entry.attributes(), |_| {}) {
                Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
                    self.delete(&entry.rival, family)?;
                }
                outcome => return outcome.map(|()| ended),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

/// What replaces a flow.
struct Replacement {
    original: Vec<u8>,
    reply: Vec<u8>,
    timeout: [u8; 4],
    /// The flow that a packet of the other direction may have opened.
    rival: TrackedFlow,
}

impl Replacement {
    fn attributes(&self) -> [(u16, &[u8]); 3] {
        [
            (ORIGINAL | NESTED, self.original.as_slice()),
            (REPLY | NESTED, self.reply.as_slice()),
            (TIMEOUT, self.timeout.as_slice()),
        ]
    }
}

impl Judged {
    fn read(attributes: &[u8]) -> Option<Self> {
        let original = find(attributes, ORIGINAL)?;
        let timeout = find(attributes, TIMEOUT).and_then(|it| it.first_chunk().copied());
        Some(Self {
            flow: TrackedFlow::with(original, attributes),
            original: Tuple::read(original)?,
            reply: Tuple::read(find(attributes, REPLY)?)?,
            timeout: timeout.map_or(SHORTEST, u32::from_be_bytes),
        })
    }

    fn is_stopped(&self) -> bool {
        self.reply.zone() == Some(NOWHERE)
    }

    /// Returns whether a program denies this flow.
    ///
    /// What the node itself has opened is known by its source: a packet from elsewhere that claims such an address is
    /// dropped before it can open a flow, by the rules for endpoints' own addresses and by the kernel's routing (IPv4).
    fn is_denied(
        &self,
        program: &Program,
        endpoints: &BTreeSet<IpAddr>,
        node: &BTreeSet<IpAddr>,
    ) -> bool {
        let (source, destination) = (self.original.source(), self.reply.source());
        let origin = if endpoints.contains(&source) {
            Origin::Endpoint
        } else if node.contains(&source) {
            Origin::OwnNode
        } else {
            Origin::Forwarded
        };
        (origin == Origin::Endpoint || endpoints.contains(&destination))
            && program.outcome(&self.original.flow(&self.reply, origin)).verdict() == Verdict::Deny
    }

    /// Returns what replaces this flow; `None` if to forget it is enough: the other direction does not lead to its source
    /// any more (source NAT), or it is in a zone of somebody else's, or has no ports.
    fn replacement(&self) -> Option<Replacement> {
        let here = self.flow.zone.is_none()
            && self.original.zone().is_none()
            && self.reply.zone().is_none();
        let translated = self.original.source() != self.reply.destination();
        let original = self.reply.inverse().filter(|_| here && !translated)?;
        let back = original.inverse()?;
        Some(Replacement {
            original: original.write()?,
            reply: back.in_zone(NOWHERE).write()?,
            timeout: self.timeout.max(SHORTEST).to_be_bytes(),
            rival: TrackedFlow::with(&back.write()?, &[]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::encoded;

    /// Returns a flow as the kernel lists it, from its directions: source, destination, source port, destination port.
    fn listed(original: Tuple, reply: Tuple, more: &[(u16, &[u8])]) -> Judged {
        let [original, reply] = [original, reply].map(|it| it.write().unwrap_or_default());
        let mut bytes = encoded(&[(ORIGINAL | NESTED, &original), (REPLY | NESTED, &reply)]);
        bytes.extend(encoded(more));
        Judged::read(&bytes).unwrap_or_else(|| unreachable!("what was written can be read"))
    }

    fn replaced(it: &Judged) -> Option<(Tuple, Tuple, u32)> {
        let entry = it.replacement()?;
        let timeout = u32::from_be_bytes(entry.timeout);
        Some((Tuple::read(&entry.original)?, Tuple::read(&entry.reply)?, timeout))
    }

    #[test]
    fn what_replaces_a_flow_has_its_direction_and_never_sees_a_reply() {
        let there = Tuple::udp(["10.0.0.1", "10.0.0.2"], [40_000, 53]);
        let back = Tuple::udp(["10.0.0.2", "10.0.0.1"], [53, 40_000]);
        let entry = |timeout| Some((there, back.in_zone(NOWHERE), timeout));
        let to_service = Tuple::udp(["10.0.0.1", "10.96.0.1"], [40_000, 5353]);
        let from_node = Tuple::udp(["10.0.0.2", "172.18.0.2"], [53, 40_001]);
        let zone: (u16, &[u8]) = (18, &[0, 7]);
        let hour: (u16, &[u8]) = (TIMEOUT, &[0, 0, 14, 16]);
        for (case, flow, want) in [
            ("plain", listed(there, back, &[hour]), entry(3600)),
            ("nearly over", listed(there, back, &[(TIMEOUT, &[0, 0, 0, 1])]), entry(SHORTEST)),
            ("after destination NAT", listed(to_service, back, &[hour]), entry(3600)),
            ("source NAT", listed(there, from_node, &[hour]), None),
            ("in somebody's zone", listed(there, back, &[hour, zone]), None),
            ("replies in somebody's zone", listed(there, back.in_zone(7), &[hour]), None),
        ] {
            assert_eq!(replaced(&flow), want, "{case}");
            assert!(!flow.is_stopped(), "{case}");
        }
        assert!(listed(there, back.in_zone(NOWHERE), &[]).is_stopped());
    }
}
