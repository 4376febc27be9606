//! A node with a dataplane of netfilter, and what its pods send and receive.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use netpol_conformance::topology::{
    ExternalSpec, Host, Layout, Namespace, NodeSpec, PodSpec, Topology,
};
use netpol_core::Dataplane;
use netpol_core::net::Family;
use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane, TableName};
use netpol_nft::{Logging, NftConfig, NftDataplane};
use tokio::runtime::Runtime;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Nft,
    Iptables(Flavour),
    Mangle(Flavour),
}

impl Kind {
    pub(crate) const ALL: [Self; 3] =
        [Self::Nft, Self::Iptables(Flavour::Nft), Self::Iptables(Flavour::Legacy)];

    /// Makes the dataplane of the network namespace of the calling thread.
    pub(crate) fn open(self) -> Box<dyn Dataplane> {
        self.open_with(Logging::DEFAULT)
    }

    pub(crate) fn open_with(self, logging: Logging) -> Box<dyn Dataplane> {
        match self {
            Self::Nft => {
                let mut config = NftConfig::default();
                config.logging = logging;
                Box::new(NftDataplane::open(config).unwrap())
            }
            Self::Iptables(flavour) | Self::Mangle(flavour) => {
                let mut config = IptablesConfig::default();
                config.flavour = Some(flavour);
                config.logging = logging;
                if let Self::Mangle(_) = self {
                    config.table = TableName::Mangle;
                }
                Box::new(IptablesDataplane::open(config).unwrap())
            }
        }
    }
}

/// A node with pods `client`, `server` and `victim`, and a host outside.
pub(crate) struct World {
    pub(crate) topology: Topology,
    // INVARIANT: dropped last, the topology's servers run on it.
    _runtime: Runtime,
}

pub(crate) const CLIENT: u8 = 1;
pub(crate) const SERVER: u8 = 2;
pub(crate) const VICTIM: u8 = 3;

pub(crate) fn pods() -> [(&'static str, u8); 3] {
    [("client", CLIENT), ("server", SERVER), ("victim", VICTIM)]
}

pub(crate) fn pod_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 244, 0, number]),
        Family::V6 => format!("fd00:10:244::{number}").parse().unwrap(),
    }
}

pub(crate) fn node_address(family: Family) -> IpAddr {
    ["172.18.0.2", "fd00:18::2"].map(|it| it.parse().unwrap())[usize::from(family == Family::V6)]
}

pub(crate) fn outside(family: Family) -> IpAddr {
    ["192.0.2.10", "2001:db8::10"].map(|it| it.parse().unwrap())[usize::from(family == Family::V6)]
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let node = NodeSpec::new("one", Family::BOTH.map(node_address));
        let pods = pods().map(|(name, number)| {
            let addresses = Family::BOTH.map(|family| pod_address(number, family));
            PodSpec::new(format!("x/{name}"), "one", addresses)
        });
        let externals = Family::BOTH.map(|family| ExternalSpec::new(outside(family)));
        let layout = Layout::new(vec![node], pods.to_vec(), externals.to_vec());
        let topology = Topology::build(layout, runtime.handle())
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        Self { topology, _runtime: runtime }
    }

    pub(crate) fn node(&self) -> &Namespace {
        self.topology.namespace(&Host::Node("one".to_owned())).unwrap()
    }

    pub(crate) fn pod(&self, number: u8) -> &Namespace {
        let (name, _) = pods().into_iter().find(|(_, it)| *it == number).unwrap();
        self.topology.namespace(&Host::Pod(format!("x/{name}"))).unwrap()
    }

    pub(crate) fn interfaces(&self) -> Vec<String> {
        let interface = |(name, _)| self.topology.attachment(&format!("x/{name}"));
        pods().map(|pod| interface(pod).unwrap().interface.to_owned()).to_vec()
    }

    pub(crate) fn open(&self, kind: Kind) -> Box<dyn Dataplane> {
        self.node().run(|| kind.open()).unwrap()
    }
}

/// Returns a UDP socket of a namespace.
pub(crate) fn udp(namespace: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, port)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Returns the next datagram and its sender; `None` if there is none for a while.
pub(crate) fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 8000];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => return Some((buffer.get(..length).unwrap().to_vec(), from)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits for the next datagram, for as long as a busy machine may take.
pub(crate) fn wait_for(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    (0..20).find_map(|_| receive(socket)).expect("a datagram arrives")
}

/// Checks that these datagrams arrive, and no other.
#[track_caller]
pub(crate) fn check_arrivals(socket: &UdpSocket, want: &[&[u8]], context: &str) {
    for bytes in want {
        assert_eq!(&wait_for(socket).0, bytes, "{context}");
    }
    assert_eq!(receive(socket), None, "{context}");
}

/// Makes a flow, with a packet each way.
pub(crate) fn converse(client: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
    let (_, from) = wait_for(server);
    server.send_to(b"hello", from).unwrap();
    wait_for(client);
    from
}
