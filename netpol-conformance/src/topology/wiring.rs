//! How namespaces are connected, as batches of messages.
//!
//! Every connection is a veth pair whose *outer* end routes (in a node, towards a pod; in the fabric, towards a node) and
//! whose *inner* end is `eth0` of the pod or node. Both ends speak through link-scope gateways with permanent neighbour
//! entries, and every pair has the same two hardware addresses: no ARP, no neighbour discovery, and nothing to forget
//! when an address moves to another pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Batch;

/// Index of the loopback interface; the first of every namespace.
const LOOPBACK: u32 = 1;

/// Index of the inner end, chosen by us so that no answer has to be awaited; tunnel modules may take the first few.
pub(super) const INNER: u32 = 100;

/// First index of outer ends.
pub(super) const FIRST_OUTER: u32 = 1000;

/// The inner end.
pub(super) const INNER_INTERFACE: &str = "eth0";

/// Index of the bridge of a node.
const BRIDGE: u32 = 200;

/// The name of the bridge of a node; it begins like those of the ends towards pods.
const BRIDGE_INTERFACE: &str = "pods0";

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// How the names of a node's ends towards its pods begin.
pub(crate) const POD_INTERFACES: &str = "pod";

// Locally administered addresses.
pub(super) const OUTER_MAC: Mac = [0x02, 0x6e, 0x70, 0, 0, 1];
pub(super) const INNER_MAC: Mac = [0x02, 0x6e, 0x70, 0, 0, 2];
pub(super) const BRIDGE_MAC: Mac = [0x02, 0x6e, 0x70, 0, 0, 3];

// Next hops. The IPv4 ones are on no interface: the neighbour entries are all that is needed.
const OUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const INNER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 2));
const OUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const INNER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));

/// Address families that a connection carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Families {
    V4,
    Both,
}

impl Families {
    /// Returns the families that this kernel has.
    pub(super) fn supported() -> Self {
        if Path::new("/proc/sys/net/ipv6").exists() { Self::Both } else { Self::V4 }
    }

    /// Returns the families that `addresses` need.
    pub(super) fn of(addresses: &[IpAddr]) -> Self {
        if addresses.iter().any(IpAddr::is_ipv6) { Self::Both } else { Self::V4 }
    }
}

/// Brings up the loopback interface.
pub(super) fn loopback(batch: &mut Batch) {
    up(batch, LOOPBACK);
}

/// Creates a veth pair: `interface` here, with index `index`, and `eth0` in the namespace behind `inside`.
pub(super) fn outer_end(
    batch: &mut Batch,
    index: u32,
    interface: &str,
    inside: &OwnedFd,
    families: Families,
) {
    let outer = pair(index, interface, inside, INNER_MAC);
    batch.create(format!("create interface `{interface}`"), RouteNetlinkMessage::NewLink(outer));
    neighbour(batch, index, INNER_V4, INNER_MAC);
    if families == Families::Both {
        own(batch, index, OUTER_V6);
        neighbour(batch, index, INNER_V6, INNER_MAC);
    }
}

/// Gives `eth0` its addresses and sends everything else through it.
pub(super) fn inner_end(batch: &mut Batch, addresses: &[IpAddr], families: Families, gateway: Mac) {
    up(batch, INNER);
    for address in addresses {
        own(batch, INNER, *address);
    }
    let first = |v4: bool| addresses.iter().copied().find(|it| it.is_ipv4() == v4);
    neighbour(batch, INNER, OUTER_V4, gateway);
    add_route(
        batch,
        &Hop { to: None, through: INNER, gateway: Some(OUTER_V4), source: first(true) },
    );
    if families == Families::Both {
        own(batch, INNER, INNER_V6);
        neighbour(batch, INNER, OUTER_V6, gateway);
        add_route(
            batch,
            &Hop { to: None, through: INNER, gateway: Some(OUTER_V6), source: first(false) },
        );
    }
}

/// Creates a bridge, which routes for its ports.
pub(super) fn bridge(batch: &mut Batch, families: Families) {
    let mut link = end(BRIDGE, BRIDGE_INTERFACE, BRIDGE_MAC);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    batch.create(format!("create bridge `{BRIDGE_INTERFACE}`"), RouteNetlinkMessage::NewLink(link));
    if families == Families::Both {
        own(batch, BRIDGE, OUTER_V6);
    }
}

/// Returns the hardware address behind the outer end `index`, where that is a port of a bridge.
pub(super) const fn mac_of_port(index: u32) -> Mac {
    let [_, a, b, c] = index.to_be_bytes();
    [0x02, 0x6e, 0x71, a, b, c]
}

/// As [`outer_end`], as a port of the bridge, with hardware address `mac` inside.
pub(super) fn bridge_port(
    batch: &mut Batch,
    index: u32,
    interface: &str,
    inside: &OwnedFd,
    mac: Mac,
) {
    let mut outer = pair(index, interface, inside, mac);
    outer.attributes.push(LinkAttribute::Controller(BRIDGE));
    batch.create(format!("create interface `{interface}`"), RouteNetlinkMessage::NewLink(outer));
}

/// As [`routes`], to a pod behind the bridge.
pub(super) fn bridged_routes(batch: &mut Batch, addresses: &[IpAddr], mac: Mac, own: &[IpAddr]) {
    on_link(batch, BRIDGE, addresses, mac, own);
}

/// Removes what [`bridged_routes`] added.
pub(super) fn no_bridged_routes(batch: &mut Batch, addresses: &[IpAddr]) {
    not_on_link(batch, BRIDGE, addresses);
}

/// Lets a pod with its `own` addresses speak to another one behind the same bridge.
pub(super) fn neighbour_pod(batch: &mut Batch, addresses: &[IpAddr], mac: Mac, own: &[IpAddr]) {
    on_link(batch, INNER, addresses, mac, own);
}

/// Removes what [`neighbour_pod`] added.
pub(super) fn no_neighbour_pod(batch: &mut Batch, addresses: &[IpAddr]) {
    not_on_link(batch, INNER, addresses);
}

/// Routes `addresses` through the outer end `index`; this host speaks to them from the first of its `own` addresses.
pub(super) fn routes(batch: &mut Batch, index: u32, addresses: &[IpAddr], own: &[IpAddr]) {
    for address in addresses {
        let source = own.iter().copied().find(|it| it.is_ipv4() == address.is_ipv4());
        add_route(batch, &Hop { source, ..inwards(index, *address) });
    }
}

/// Removes what [`routes`] added.
pub(super) fn no_routes(batch: &mut Batch, index: u32, addresses: &[IpAddr]) {
    for address in addresses {
        let message = route(&inwards(index, *address));
        batch.change(
            format!("remove the route to `{address}`"),
            RouteNetlinkMessage::DelRoute(message),
        );
    }
}

/// Removes the outer end `index` and with it the inner one, their addresses and routes.
pub(super) fn no_end(batch: &mut Batch, index: u32) {
    let mut link = LinkMessage::default();
    link.header.index = index;
    batch.change("remove an interface", RouteNetlinkMessage::DelLink(link));
}

/// Puts `address` on the loopback interface.
pub(super) fn loopback_address(batch: &mut Batch, address: IpAddr) {
    own(batch, LOOPBACK, address);
}

/// One route: `to` (everything, if absent) leaves `through` an interface for a gateway.
struct Hop {
    to: Option<IpAddr>,
    through: u32,
    /// Absent for a neighbour.
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
}

impl Hop {
    fn family(&self) -> AddressFamily {
        self.to.or(self.gateway).map_or(AddressFamily::Unspec, family)
    }
}

fn inwards(index: u32, address: IpAddr) -> Hop {
    let gateway = if address.is_ipv4() { INNER_V4 } else { INNER_V6 };
    Hop { to: Some(address), through: index, gateway: Some(gateway), source: None }
}

/// Returns an outer end whose inner end is behind `inside`, with hardware address `mac`.
fn pair(index: u32, interface: &str, inside: &OwnedFd, mac: Mac) -> LinkMessage {
    let mut inner = end(INNER, INNER_INTERFACE, mac);
    inner.attributes.push(LinkAttribute::NetNsFd(inside.as_raw_fd()));
    let mut outer = end(index, interface, OUTER_MAC);
    // The inner end cannot be up yet: the kernel creates it before it knows the outer one.
    outer.header.flags = LinkFlags::Up;
    outer.header.change_mask = LinkFlags::Up;
    outer.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
    ]));
    outer
}

/// Makes `addresses` neighbours with hardware address `mac`; this host speaks to them from the first of its `own`.
fn on_link(batch: &mut Batch, through: u32, addresses: &[IpAddr], mac: Mac, own: &[IpAddr]) {
    for address in addresses {
        let source = own.iter().copied().find(|it| it.is_ipv4() == address.is_ipv4());
        if own.is_empty() || source.is_some() {
            neighbour(batch, through, *address, mac);
            add_route(batch, &Hop { to: Some(*address), through, gateway: None, source });
        }
    }
}

/// Removes what [`on_link`] added.
fn not_on_link(batch: &mut Batch, through: u32, addresses: &[IpAddr]) {
    for address in addresses {
        let hop = Hop { to: Some(*address), through, gateway: None, source: None };
        batch.change(
            format!("remove the route to `{address}`"),
            RouteNetlinkMessage::DelRoute(route(&hop)),
        );
        let message = neighbour_message(through, *address);
        batch.change(
            format!("remove neighbour `{address}`"),
            RouteNetlinkMessage::DelNeighbour(message),
        );
    }
}

fn end(index: u32, interface: &str, mac: Mac) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::IfName(interface.to_owned()));
    link.attributes.push(LinkAttribute::Address(mac.to_vec()));
    link
}

fn up(batch: &mut Batch, index: u32) {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    batch.change(format!("bring up interface {index}"), RouteNetlinkMessage::SetLink(link));
}

fn own(batch: &mut Batch, index: u32, address: IpAddr) {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = bits(address);
    message.header.index = index;
    if address.is_ipv6() {
        // Duplicate address detection takes a second, in which the address cannot be used.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    if address == OUTER_V6 || address == INNER_V6 {
        message.header.scope = AddressScope::Link;
    }
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    batch.create(format!("add address `{address}`"), RouteNetlinkMessage::NewAddress(message));
}

fn neighbour_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn neighbour(batch: &mut Batch, index: u32, address: IpAddr, mac: Mac) {
    let mut message = neighbour_message(index, address);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    batch.create(format!("add neighbour `{address}`"), RouteNetlinkMessage::NewNeighbour(message));
}

fn route(hop: &Hop) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = hop.family();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    let neighbour = hop.gateway.is_none();
    message.header.scope = if neighbour { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(hop.through));
    if let Some(gateway) = hop.gateway {
        // The gateway is on no subnet of the interface.
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = hop.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if let Some(to) = hop.to {
        message.header.destination_prefix_length = bits(to);
        message.attributes.push(RouteAttribute::Destination(to.into()));
    }
    message
}

fn add_route(batch: &mut Batch, hop: &Hop) {
    let name = hop.to.map_or_else(|| "everything".to_owned(), |it| it.to_string());
    // Replace what a pod left that could not be added completely.
    batch.replace(format!("route `{name}`"), RouteNetlinkMessage::NewRoute(route(hop)));
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
