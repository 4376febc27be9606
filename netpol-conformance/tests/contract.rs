//! Every dataplane keeps the contract of the trait.
//!
//! The kernels need root, of the machine or of a user namespace: `cargo xtask test` sees to that.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::sync::Arc;
use std::time::Instant;

use netpol_conformance::contract::Promise;
use netpol_conformance::subject::Open;

/// Checks all promises and says of each how long that took.
#[track_caller]
fn check(name: &str, open: impl Fn() -> Arc<Open>) {
    let mut broken = Vec::new();
    for promise in Promise::ALL {
        let begin = Instant::now();
        let outcome = promise.check(&open());
        let took = begin.elapsed();
        let said = match outcome {
            Ok(()) => "kept".to_owned(),
            Err(error) => {
                broken.push(promise);
                format!("BROKEN: {error}")
            }
        };
        println!("{name}: {promise}: {said} ({took:.1?})");
    }
    assert!(broken.is_empty(), "{name} breaks promises: {broken:?}");
}

/// A dataplane in memory has no packets, so the checks above say nothing about it. What it says of flows has to change as
/// those of a kernel do.
mod memory {
    use std::net::IpAddr;
    use std::sync::Arc;

    use netpol_core::model::{Endpoint, EndpointId, Mode};
    use netpol_core::net::Transport;
    use netpol_core::{
        Change, Dataplane, Engine, Fault, Flow, MemoryDataplane, NodeConfig, Program, Update,
        Verdict,
    };

    const PODS: [(&str, [u8; 4]); 2] = [("one", [10, 0, 0, 1]), ("other", [10, 0, 0, 2])];

    /// Returns a program without policies, in which all but these pods are isolated.
    fn program(open: &[&str]) -> Arc<Program> {
        let mut engine =
            Engine::new(NodeConfig::new("node"), MemoryDataplane::default().capabilities());
        for (name, address) in PODS {
            let mut pod = Endpoint::pod("lab", name).on_node("node").attached_to(name);
            pod.addresses = vec![address.into()];
            pod.mode = if open.contains(&name) { Mode::Enforce } else { Mode::Isolate };
            engine.upsert(pod).unwrap();
        }
        engine.inputs_complete();
        match engine.poll_update().unwrap().change {
            Change::Full(program) => program,
            change => panic!("{change:?}"),
        }
    }

    /// Returns whether each pod can open flows.
    fn passes(dataplane: &MemoryDataplane) -> [bool; 2] {
        PODS.map(|(_, address)| {
            let outside = IpAddr::from([192, 0, 2, 1]);
            let flow = Flow::to_port(address.into(), outside, Transport::Tcp, 80);
            dataplane.outcome(&flow).verdict() == Verdict::Allow
        })
    }

    #[test]
    fn the_dataplane_in_memory_keeps_what_it_can() {
        let mut dataplane = MemoryDataplane::default();
        let full = |it: &Arc<Program>| Update::new(1, Change::Full(Arc::clone(it)));
        let both = program(&["one", "other"]);
        let one = program(&["one"]);
        for _ in 0..2 {
            assert!(dataplane.apply(full(&one)).unwrap().isolated.is_empty());
            assert_eq!(passes(&dataplane), [true, false]);
            assert!(dataplane.audit(&one).unwrap().is_none());
            assert!(!dataplane.audit(&both).unwrap().is_none());
        }
        // Who is known is left alone.
        dataplane.apply(Update::new(2, Change::Isolate(both.endpoints.clone().into()))).unwrap();
        assert_eq!(passes(&dataplane), [true, false]);
        // Who cannot be programmed is named, and the others proceed.
        dataplane.inject([Fault::Isolates(EndpointId::workload("lab", "one"))]);
        let applied = dataplane.apply(full(&both)).unwrap();
        assert_eq!(applied.isolated.len(), 1);
        assert_eq!(passes(&dataplane), [false, true]);
        for _ in 0..2 {
            dataplane.remove().unwrap();
            assert_eq!(passes(&dataplane), [true, true]);
            assert!(!dataplane.audit(&both).unwrap().is_none());
        }
        // Who is not known is closed.
        dataplane.apply(Update::new(3, Change::Isolate(both.endpoints.clone().into()))).unwrap();
        assert_eq!(passes(&dataplane), [false, false]);
    }
}

/// Each check notices a dataplane that breaks its promise.
#[cfg(feature = "nft")]
mod faulty {
    use std::sync::Arc;

    use netpol_conformance::contract::{Broken, Promise};
    use netpol_conformance::subject::Open;
    use netpol_core::program::Established;
    use netpol_core::{
        Applied, Capabilities, Change, Counters, Dataplane, DataplaneError, Drift, Program, Update,
    };
    use netpol_nft::{NftConfig, NftDataplane};

    /// A dataplane that keeps all promises but one.
    struct Faulty {
        breaks: Promise,
        inner: NftDataplane,
    }

    fn open() -> NftDataplane {
        NftDataplane::open(NftConfig::default()).unwrap()
    }

    fn enforcing(established: Established, update: &Update) -> Update {
        let Change::Full(program) = &update.change else { return update.clone() };
        let mut program = Program::clone(program);
        program.established = established;
        Update::new(update.generation, Change::Full(Arc::new(program)))
    }

    impl Dataplane for Faulty {
        fn capabilities(&self) -> &Capabilities {
            self.inner.capabilities()
        }

        fn apply(&mut self, update: Update) -> Result<Applied, DataplaneError> {
            let is_full = matches!(update.change, Change::Full(_));
            match self.breaks {
                Promise::Isolation if !is_full => {
                    return Ok(Applied::completely(update.generation));
                }
                Promise::Updates if update.generation > 1 => {
                    return Ok(Applied::completely(update.generation));
                }
                Promise::Idempotence | Promise::NoGap => self.inner.remove()?,
                Promise::OthersProceed => {
                    let mut applied = self.inner.apply(update.clone())?;
                    if let Change::Full(program) = update.change {
                        let kind = netpol_core::DataplaneErrorKind::Other;
                        let error = || DataplaneError::new(kind, "program an endpoint");
                        let all = program.endpoints.iter().map(|it| (it.id.clone(), error()));
                        applied.isolated = all.collect();
                    }
                    return Ok(applied);
                }
                Promise::UnknownInterfaces => {
                    if let Change::Full(program) = &update.change {
                        let mut program = Program::clone(program);
                        program.unknown = Default::default();
                        let change = Change::Full(Arc::new(program));
                        return self.inner.apply(Update::new(update.generation, change));
                    }
                }
                Promise::Keep => {
                    return self.inner.apply(enforcing(Established::Reevaluate, &update));
                }
                Promise::Reevaluate => {
                    return self.inner.apply(enforcing(Established::Keep, &update));
                }
                // Whoever has an address now has always had it, and nobody is isolated.
                Promise::EndOfFlows => {
                    if let Change::Full(program) = &update.change {
                        let mut program = Program::clone(program);
                        for endpoint in &mut program.endpoints {
                            endpoint.id.uid = String::new();
                        }
                        program.endpoints.iter_mut().for_each(|it| it.mode = Default::default());
                        let change = Change::Full(Arc::new(program));
                        return self.inner.apply(Update::new(update.generation, change));
                    }
                }
                _ => {}
            }
            self.inner.apply(update)
        }

        fn audit(&mut self, program: &Program) -> Result<Drift, DataplaneError> {
            match self.breaks {
                Promise::Drift => Ok(Drift::default()),
                _ => self.inner.audit(program),
            }
        }

        fn counters(&mut self) -> Result<Counters, DataplaneError> {
            match self.breaks {
                Promise::Counters => Ok(Counters::default()),
                _ => self.inner.counters(),
            }
        }

        fn remove(&mut self) -> Result<(), DataplaneError> {
            match self.breaks {
                Promise::Removal => Ok(()),
                _ => self.inner.remove(),
            }
        }
    }

    impl Drop for Faulty {
        fn drop(&mut self) {
            if self.breaks == Promise::Adoption {
                self.inner.remove().unwrap();
            }
        }
    }

    #[test]
    fn each_broken_promise_is_noticed() {
        for breaks in Promise::ALL {
            let open: Arc<Open> = Arc::new(move || Ok(Box::new(Faulty { breaks, inner: open() })));
            let outcome = breaks.check(&open);
            assert!(matches!(outcome, Err(Broken::Promise { .. })), "{breaks:?}: {outcome:?}");
        }
    }
}

#[cfg(feature = "nft")]
#[test]
fn nftables_keeps_the_contract() {
    use netpol_nft::{NftConfig, NftDataplane};

    check("nft", || Arc::new(|| Ok(Box::new(NftDataplane::open(NftConfig::default())?))));
}

/// Where NAT is in use, the kernel gives a packet that would open a stopped flow anew another port.
#[cfg(feature = "nft")]
#[test]
fn nftables_stops_flows_beside_nat() {
    use std::process::Command;

    use netpol_nft::{NftConfig, NftDataplane};

    const NAT: &str = "add table inet nat
        add chain inet nat pre { type nat hook prerouting priority -100; }
        add chain inet nat post { type nat hook postrouting priority 100; }";
    let open: Arc<Open> = Arc::new(|| {
        // This runs in the network namespace of the node.
        assert!(Command::new("nft").arg(NAT).status()?.success());
        Ok(Box::new(NftDataplane::open(NftConfig::default())?))
    });
    Promise::Reevaluate.check(&open).unwrap();
}

#[cfg(feature = "ebpf")]
#[test]
fn ebpf_keeps_the_contract() {
    use netpol_ebpf::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};

    check("ebpf", || {
        let pins = PrivateBpfFs::new().unwrap();
        Arc::new(move || {
            let mut config = EbpfConfig::default();
            config.bpf_fs = pins.path();
            config.capacity = Capacity::small();
            Ok(Box::new(EbpfDataplane::open(config)?))
        })
    });
}

#[cfg(feature = "iptables")]
mod iptables {
    use std::sync::Arc;

    use netpol_iptables::{Flavour, IptablesConfig, IptablesDataplane};

    fn check(name: &'static str, flavour: Flavour) {
        super::check(name, || {
            Arc::new(move || {
                let mut config = IptablesConfig::default();
                config.flavour = Some(flavour);
                Ok(Box::new(IptablesDataplane::open(config)?))
            })
        });
    }

    #[test]
    fn the_nft_flavour_keeps_the_contract() {
        check("iptables", Flavour::Nft);
    }

    #[test]
    fn the_legacy_flavour_keeps_the_contract() {
        check("iptables-legacy", Flavour::Legacy);
    }
}
