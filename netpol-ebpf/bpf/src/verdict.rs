//! Verdicts: in which order a packet is asked what.

use aya_ebpf::programs::TcContext;
use netpol_ebpf_abi::{
    AUDIT, CHECK_SOURCE, EGRESS, Endpoint, FLOW_DENIED, FLOW_FROM_ENDPOINT, FLOW_OUTSIDE, Flow,
    INGRESS, ISOLATED, NO_IP_IN_IP, NO_TUNNELS, OPEN, REEVALUATE, Reason, SEEN_CLOSING, Statistic,
};

use crate::event::{Denial, Place, count, report};
use crate::icmp::{self, Discovery};
use crate::packet::{IP_IN_IP, Packet, Part, UDP};
use crate::{DROP, NEXT, endpoint, flow, fragment, policy, time};

/// EtherTypes (IANA "IEEE 802 Numbers").
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// Why a packet does not pass.
type Verdict = Result<(), Denial>;

/// Returns the verdict on a packet, as the kernel wants it.
#[inline(always)]
pub fn judge<const DIRECTION: u32>(context: &TcContext) -> i32 {
    let interface = endpoint::interface(context);
    let mut packet = Packet::unknown();
    let mut place =
        Place { endpoint: 0, interface, direction: DIRECTION, version: 0, audited: false };
    let verdict = match endpoint::find(interface) {
        Some(found) => {
            place.endpoint = found.id;
            place.audited = found.flags & AUDIT != 0;
            judge_at::<DIRECTION>(context, found, &mut packet, &mut place)
        }
        None => Err(Reason::NoEndpoint.into()),
    };
    // There is one place that reports, because the verifier follows each of them.
    let Err(denial) = verdict else { return NEXT };
    place.audited &= !denial.is_final();
    report(place, &packet, denial);
    if place.audited {
        return NEXT;
    }
    count(Statistic::Dropped);
    DROP
}

#[inline(always)]
fn judge_at<const DIRECTION: u32>(
    context: &TcContext,
    endpoint: &'static Endpoint,
    packet: &mut Packet,
    place: &mut Place,
) -> Verdict {
    let interface = place.interface;
    // SAFETY: the kernel hands the program a valid `__sk_buff`.
    let protocol = u16::from_be(unsafe { (*context.skb.skb).protocol } as u16);
    match protocol {
        IPV4 => {
            place.version = 4;
            Judge::<DIRECTION, false> { context, endpoint, interface }.ip(packet)
        }
        IPV6 => {
            place.version = 6;
            Judge::<DIRECTION, true> { context, endpoint, interface }.ip(packet)
        }
        ARP => Ok(()),
        _ => Judge::<DIRECTION, false> { context, endpoint, interface }.other(protocol),
    }
}

/// A packet that is to be judged, and its endpoint.
struct Judge<'a, const DIRECTION: u32, const V6: bool> {
    context: &'a TcContext,
    endpoint: &'static Endpoint,
    interface: u32,
}

impl<const DIRECTION: u32, const V6: bool> Judge<'_, DIRECTION, V6> {
    #[inline(always)]
    fn ip(&self, packet: &mut Packet) -> Verdict {
        let read = if V6 {
            packet.read6::<DIRECTION>(self.context, self.endpoint.id)
        } else {
            packet.read4::<DIRECTION>(self.context, self.endpoint.id)
        };
        if V6 && read.is_ok() {
            match icmp::discovery::<DIRECTION>(packet) {
                Some(Discovery::Passes) => {
                    if DIRECTION == EGRESS {
                        icmp::keep_on_link(self.context);
                    }
                    return Ok(());
                }
                Some(Discovery::Dropped) => return Err(Reason::RouterMessage.into()),
                None => {}
            }
        }
        if self.has(ISOLATED) {
            return Err(Reason::Isolated.into());
        }
        if DIRECTION == EGRESS && self.is_forged(packet) {
            return Err(Reason::Source.into());
        }
        match read {
            Ok(()) => self.known(packet),
            Err(_) if self.is_outside(packet) => Ok(()),
            Err(reason) => self.unjudged(reason),
        }
    }

    /// Judges what is not IP.
    #[inline(always)]
    fn other(&self, protocol: u16) -> Verdict {
        if self.has(ISOLATED) {
            return Err(Reason::Isolated.into());
        }
        // The kernel takes one tag away before the programs see the packet, and more of them later, if they are of no
        // network: then a packet comes out whose source nobody has looked at, and which may carry others.
        let is_tagged = matches!(protocol, CUSTOMER_TAG | SERVICE_TAG);
        let is_looked_at = self.has(CHECK_SOURCE | NO_IP_IN_IP | NO_TUNNELS);
        if DIRECTION == EGRESS && is_tagged && is_looked_at {
            return Err(Reason::EtherType.into());
        }
        self.unjudged(Reason::EtherType)
    }

    /// Returns the verdict on what policy cannot be asked about: it passes only where everything does. Of a datagram whose
    /// first fragment was dropped, the others may pass: nobody can put it together. One that does not hold all headers is
    /// malformed.
    #[inline(always)]
    fn unjudged(&self, reason: Reason) -> Verdict {
        let may_carry = DIRECTION == EGRESS
            && self.has(NO_IP_IN_IP | NO_TUNNELS)
            && matches!(
                reason,
                Reason::ExtensionHeaders | Reason::SourceRoute | Reason::Malformed
            );
        let is_open = policy::table(self.endpoint, DIRECTION) == OPEN;
        if is_open && !may_carry { Ok(()) } else { Err(reason.into()) }
    }

    /// Judges a packet whose flow may be known. A packet that asks for a new connection is always judged.
    #[inline(always)]
    fn known(&self, packet: &Packet) -> Verdict {
        if packet.icmp.is_some() && !packet.icmp.is_tracked() {
            return self.message(packet);
        }
        let now = time::now();
        if !packet.is_syn()
            && let Some(flow) = flow::find::<V6>(packet, self.endpoint.id)
        {
            // SAFETY: the kernel keeps the entry in place while the program runs. Other CPUs may write to it at the same
            // time; every field is then one of the values written.
            let flow = unsafe { &mut *flow };
            if flow::is_live(flow, packet.protocol, now) {
                return self.of_flow(packet, flow, now);
            }
        }
        self.open(packet, now)
    }

    /// Judges a packet of a flow that is known.
    #[inline(always)]
    fn of_flow(&self, packet: &Packet, flow: &mut Flow, now: u64) -> Verdict {
        let opener = if flow.flags & FLOW_FROM_ENDPOINT != 0 { EGRESS } else { INGRESS };
        if flow.generation != self.endpoint.generation {
            self.judge_again(packet, flow, opener);
        }
        if flow.flags & FLOW_DENIED != 0 && !self.is_outside(packet) {
            return Err(Reason::Revoked.into());
        }
        flow::touch(flow, packet, DIRECTION != opener, now);
        fragment::note::<V6>(packet, self.endpoint.id, DIRECTION);
        count(Statistic::Established);
        Ok(())
    }

    /// Judges a flow again, as it was opened, because the endpoint has another generation.
    #[inline(always)]
    fn judge_again(&self, packet: &Packet, flow: &mut Flow, opener: u32) {
        // What was denied once may be allowed now, also where flows are not judged again otherwise.
        let may_change = self.has(REEVALUATE) || flow.flags & FLOW_DENIED != 0;
        if may_change && flow.flags & FLOW_OUTSIDE == 0 {
            count(Statistic::Judged);
            let mut query = *packet;
            query.icmp = packet.icmp.as_query();
            let may_send = opener != EGRESS || !self.is_encapsulated(&query);
            if may_send && policy::judge::<V6>(self.endpoint, &query, opener).allows() {
                flow.flags &= !FLOW_DENIED;
            } else {
                flow.flags |= FLOW_DENIED;
                count(Statistic::Revoked);
            }
        }
        flow.generation = self.endpoint.generation;
    }

    /// Judges a packet that opens a flow.
    #[inline(always)]
    fn open(&self, packet: &Packet, now: u64) -> Verdict {
        if DIRECTION == EGRESS && self.is_encapsulated(packet) {
            return Err(Reason::Encapsulated.into());
        }
        let outside = self.is_outside(packet);
        if !outside {
            self.ask(packet)?;
        }
        fragment::note::<V6>(packet, self.endpoint.id, DIRECTION);
        if packet.icmp.is_answer() {
            return Ok(());
        }
        let mut flags = if DIRECTION == EGRESS { FLOW_FROM_ENDPOINT } else { 0 };
        if outside {
            flags |= FLOW_OUTSIDE;
        }
        let seen = if packet.is_closing() { SEEN_CLOSING } else { 0 };
        let flow = Flow { last: now, generation: self.endpoint.generation, flags, seen };
        count(if flow::note::<V6>(packet, self.endpoint.id, &flow) {
            Statistic::Opened
        } else {
            Statistic::LostFlows
        });
        Ok(())
    }

    /// Judges an ICMP message that is neither query nor answer. An error passes if it tells of a packet of a flow that
    /// passes; otherwise policy is asked about it as about any message. It opens no flow.
    #[inline(always)]
    fn message(&self, packet: &Packet) -> Verdict {
        if self.is_outside(packet) {
            return Ok(());
        }
        if icmp::is_error::<V6>(packet) && self.is_related(packet) {
            count(Statistic::Related);
            return Ok(());
        }
        self.ask(packet)?;
        fragment::note::<V6>(packet, self.endpoint.id, DIRECTION);
        Ok(())
    }

    /// Asks policy about a packet.
    #[inline(always)]
    fn ask(&self, packet: &Packet) -> Verdict {
        let leaf = policy::judge::<V6>(self.endpoint, packet, DIRECTION);
        if leaf.allows() {
            Ok(())
        } else {
            Err(Denial { reason: Reason::Policy, counter: leaf.number() })
        }
    }

    #[inline(always)]
    fn is_related(&self, packet: &Packet) -> bool {
        let Ok(inner) = icmp::culprit::<DIRECTION, V6>(self.context, packet) else { return false };
        let Some(flow) = flow::find::<V6>(&inner, self.endpoint.id) else { return false };
        // SAFETY: as in `known`.
        let flow = unsafe { &*flow };
        let judged = flow.generation == self.endpoint.generation || !self.has(REEVALUATE);
        judged && flow.flags & FLOW_DENIED == 0 && flow::is_live(flow, inner.protocol, time::now())
    }

    /// Returns whether policy has no say: the node's own traffic to the endpoint, and the endpoint's with itself. On the way
    /// in, both are known by the interface through which the packet came, because addresses can be forged.
    #[inline(always)]
    fn is_outside(&self, packet: &Packet) -> bool {
        if DIRECTION == EGRESS {
            return self.owns(&packet.remote) && self.owns(&packet.local);
        }
        match endpoint::came_in(self.context) {
            // When the kernel puts forwarded fragments together and takes them apart again, it forgets where they came from
            // (`ip6_copy_metadata`). Those of the node itself have a socket.
            0 => packet.part == Part::Whole || endpoint::has_socket(self.context),
            // Where sources are not checked, only the endpoint's own can be believed. Otherwise the endpoint would send
            // itself a packet in the name of another one, and reach that one as with an answer.
            came_in if came_in == self.interface => {
                self.has(CHECK_SOURCE) || self.owns(&packet.remote)
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn owns(&self, address: &[u32; 4]) -> bool {
        if V6 {
            endpoint::owns6(self.endpoint, address)
        } else {
            endpoint::owns4(self.endpoint, address[0])
        }
    }

    /// Returns whether the endpoint may not send the packet because it carries others.
    #[inline(always)]
    fn is_encapsulated(&self, packet: &Packet) -> bool {
        let [a, b, c, d] = self.endpoint.tunnels;
        let to = packet.remote_port;
        match packet.protocol {
            IP_IN_IP => self.has(NO_IP_IN_IP),
            UDP => self.has(NO_TUNNELS) && (to == a || to == b || to == c || to == d),
            _ => false,
        }
    }

    #[inline(always)]
    fn is_forged(&self, packet: &Packet) -> bool {
        if V6 {
            endpoint::is_forged6(self.endpoint, &packet.local)
        } else {
            endpoint::is_forged4(self.endpoint, packet.local[0])
        }
    }

    #[inline(always)]
    fn has(&self, flag: u32) -> bool {
        self.endpoint.flags & flag != 0
    }
}
