//! Verdicts: in which order a packet is asked what.

use aya_ebpf::programs::TcContext;
use netpol_ebpf_abi::{
    AUDIT, EGRESS, Endpoint, FLOW_CLOSING, FLOW_DENIED, FLOW_FROM_ENDPOINT, FLOW_OUTSIDE, Flow,
    INGRESS, ISOLATED, OPEN, REEVALUATE, Reason, Statistic,
};

use crate::event::{Denial, Place, count, report};
use crate::icmp::{self, Discovery};
use crate::packet::Packet;
use crate::{DROP, NEXT, endpoint, flow, fragment, policy, time};

/// EtherTypes (IANA "IEEE 802 Numbers").
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// Returns the verdict on a packet, as the kernel wants it.
#[inline(always)]
pub fn judge<const DIRECTION: u32>(context: &TcContext) -> i32 {
    let interface = endpoint::interface(context);
    let Some(found) = endpoint::find(interface) else {
        let place =
            Place { endpoint: 0, interface, direction: DIRECTION, version: 0, audited: false };
        return drop(place, &Packet::unknown(), Reason::NoEndpoint.into());
    };
    // SAFETY: the kernel hands the program a valid `__sk_buff`.
    match u16::from_be(unsafe { (*context.skb.skb).protocol } as u16) {
        IPV4 => Judge::<DIRECTION, false> { context, endpoint: found, interface }.ip(),
        IPV6 => Judge::<DIRECTION, true> { context, endpoint: found, interface }.ip(),
        ARP => NEXT,
        _ => Judge::<DIRECTION, false> { context, endpoint: found, interface }.other(),
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
    fn ip(&self) -> i32 {
        let mut packet = Packet::unknown();
        let read = if V6 {
            packet.read6::<DIRECTION>(self.context, self.endpoint.id)
        } else {
            packet.read4::<DIRECTION>(self.context, self.endpoint.id)
        };
        if V6 && read.is_ok() {
            match icmp::discovery::<DIRECTION>(&packet) {
                Some(Discovery::Passes) => return NEXT,
                Some(Discovery::Dropped) => {
                    return drop(self.place(), &packet, Reason::RouterMessage.into());
                }
                None => {}
            }
        }
        if self.has(ISOLATED) {
            return drop(self.place(), &packet, Reason::Isolated.into());
        }
        if DIRECTION == EGRESS && self.is_forged(&packet) {
            return self.deny(&packet, Reason::Source.into());
        }
        match read {
            Ok(()) => self.known(&packet),
            Err(_) if self.is_outside(&packet) => NEXT,
            Err(reason) => self.unjudged(&packet, reason),
        }
    }

    /// Judges what is not IP.
    #[inline(always)]
    fn other(&self) -> i32 {
        let packet = Packet::unknown();
        if self.has(ISOLATED) {
            return drop(self.place(), &packet, Reason::Isolated.into());
        }
        self.unjudged(&packet, Reason::EtherType)
    }

    /// Returns the verdict on what policy cannot be asked about: it passes only where everything does.
    #[inline(always)]
    fn unjudged(&self, packet: &Packet, reason: Reason) -> i32 {
        if policy::table(self.endpoint, DIRECTION) == OPEN {
            NEXT
        } else {
            self.deny(packet, reason.into())
        }
    }

    /// Judges a packet whose flow may be known. A packet that asks for a new connection is always judged.
    #[inline(always)]
    fn known(&self, packet: &Packet) -> i32 {
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
    fn of_flow(&self, packet: &Packet, flow: &mut Flow, now: u64) -> i32 {
        let opener = if flow.flags & FLOW_FROM_ENDPOINT != 0 { EGRESS } else { INGRESS };
        if flow.generation != self.endpoint.generation {
            self.judge_again(packet, flow, opener);
        }
        if flow.flags & FLOW_DENIED != 0 && !self.is_outside(packet) {
            return self.deny(packet, Reason::Revoked.into());
        }
        flow::touch(flow, packet, DIRECTION != opener, now);
        fragment::note::<V6>(packet, self.endpoint.id, DIRECTION);
        count(Statistic::Established);
        NEXT
    }

    /// Judges a flow again, as it was opened, because the endpoint has another generation.
    #[inline(always)]
    fn judge_again(&self, packet: &Packet, flow: &mut Flow, opener: u32) {
        if self.has(REEVALUATE) && flow.flags & FLOW_OUTSIDE == 0 {
            count(Statistic::Judged);
            let mut query = *packet;
            query.icmp = packet.icmp.as_query();
            if policy::judge::<V6>(self.endpoint, &query, opener).allows() {
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
    fn open(&self, packet: &Packet, now: u64) -> i32 {
        let outside = self.is_outside(packet);
        if !outside {
            let leaf = policy::judge::<V6>(self.endpoint, packet, DIRECTION);
            if !leaf.allows() {
                return self
                    .deny(packet, Denial { reason: Reason::Policy, counter: leaf.number() });
            }
        }
        fragment::note::<V6>(packet, self.endpoint.id, DIRECTION);
        if packet.icmp.is_answer() {
            return NEXT;
        }
        let mut flags = if DIRECTION == EGRESS { FLOW_FROM_ENDPOINT } else { 0 };
        if outside {
            flags |= FLOW_OUTSIDE;
        }
        if packet.is_closing() {
            flags |= FLOW_CLOSING;
        }
        let flow = Flow { last: now, generation: self.endpoint.generation, flags };
        count(if flow::note::<V6>(packet, self.endpoint.id, &flow) {
            Statistic::Opened
        } else {
            Statistic::LostFlows
        });
        NEXT
    }

    /// Judges an ICMP message that is neither query nor answer. An error passes if it tells of a packet of a flow that
    /// passes; otherwise policy is asked about it as about any message. It opens no flow.
    #[inline(always)]
    fn message(&self, packet: &Packet) -> i32 {
        if self.is_outside(packet) {
            return NEXT;
        }
        if icmp::is_error::<V6>(packet) && self.is_related(packet) {
            count(Statistic::Related);
            return NEXT;
        }
        let leaf = policy::judge::<V6>(self.endpoint, packet, DIRECTION);
        if leaf.allows() {
            fragment::note::<V6>(packet, self.endpoint.id, DIRECTION);
            return NEXT;
        }
        self.deny(packet, Denial { reason: Reason::Policy, counter: leaf.number() })
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
        if DIRECTION == INGRESS {
            let came_in = endpoint::came_in(self.context);
            return came_in == 0 || came_in == self.interface;
        }
        if V6 {
            endpoint::owns6(self.endpoint, &packet.remote)
                && endpoint::owns6(self.endpoint, &packet.local)
        } else {
            endpoint::owns4(self.endpoint, packet.remote[0])
                && endpoint::owns4(self.endpoint, packet.local[0])
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

    /// Reports a denial, and drops the packet unless the endpoint is in audit mode.
    #[inline(always)]
    fn deny(&self, packet: &Packet, denial: Denial) -> i32 {
        if self.has(AUDIT) {
            report(Place { audited: true, ..self.place() }, packet, denial);
            return NEXT;
        }
        drop(self.place(), packet, denial)
    }

    #[inline(always)]
    fn has(&self, flag: u32) -> bool {
        self.endpoint.flags & flag != 0
    }

    #[inline(always)]
    fn place(&self) -> Place {
        let version = if V6 { 6 } else { 4 };
        let (endpoint, interface) = (self.endpoint.id, self.interface);
        Place { endpoint, interface, direction: DIRECTION, version, audited: false }
    }
}

#[inline(always)]
fn drop(place: Place, packet: &Packet, denial: Denial) -> i32 {
    count(Statistic::Dropped);
    report(place, packet, denial);
    DROP
}
