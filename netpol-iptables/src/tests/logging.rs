//! How Log rules log, on the real tools and kernel.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use netpol_core::Dataplane;
use netpol_netfilter::{LogRate, Logging, Period};

use super::kernel::{apply, config, in_namespaces, open as open_default, state};
use super::program::everything;
use crate::{Flavour, IptablesConfig, IptablesDataplane, IptablesError};

fn logging(prefix: &str, packets: u16, period: Period, burst: u16) -> Logging {
    let rate = LogRate::new(packets, period).unwrap().with_burst(burst).unwrap();
    Logging { group: 7, prefix: prefix.parse().unwrap(), rate }
}

fn open(flavour: Flavour, logging: Logging) -> Result<IptablesDataplane, IptablesError> {
    IptablesDataplane::open(IptablesConfig { logging, ..config(flavour) })
}

#[test]
fn rules_log_as_configured() {
    in_namespaces(|flavour| {
        let program = everything().build();
        apply(&mut open_default(flavour), &program);
        let id = "03".repeat(12);
        for (logging, limit, prefix) in [
            (
                logging("(a b) %k,%d=%i: ", 7, Period::Minute, 3),
                "--limit 7/min --limit-burst 3 ",
                format!("\"(a b) knp,in={id}: \""),
            ),
            (
                logging("%i%i:/-_.=,[](12345", 1, Period::Day, 1),
                "--limit 1/day --limit-burst 1 ",
                format!("\"{id}{id}:/-_.=,[](12345\""),
            ),
            (
                logging("x", 5_000, Period::Second, LogRate::MAX),
                "--limit 5000/sec --limit-burst 9999 ",
                "x".to_owned(),
            ),
        ] {
            let state = apply(&mut open(flavour, logging).unwrap(), &program);
            let logs: Vec<&str> = state.lines().filter(|line| line.contains("NFLOG")).collect();
            assert!(!logs.is_empty());
            for line in logs {
                // What the tools print without quotes, or of a rate, depends on their version.
                let unquoted = line.replace('"', "");
                assert!(line.contains("--nflog-group 7"), "{line}");
                assert!(line.contains(limit), "{line}: {limit}");
                let prefix = prefix.replace('"', "");
                let prefix = prefix.trim_end();
                let outward = prefix.replace(",in=", ",eg=");
                assert!(
                    unquoted.contains(prefix) || unquoted.contains(&outward),
                    "{line}: {prefix}"
                );
            }
            let mut second = open(flavour, logging).unwrap();
            assert!(second.audit(&program).unwrap().is_none());
            assert_eq!(apply(&mut second, &program), state);
        }
    });
}

#[test]
fn what_the_kernel_does_not_take_is_an_error() {
    in_namespaces(|flavour| {
        for (logging, want) in [
            (
                logging("%i%i:/-_.=,[](123456", 1, Period::Second, 1),
                "log prefix `%i%i:/-_.=,[](123456` stands for up to 64 bytes, expected at most 63",
            ),
            (
                logging("x", 1, Period::Day, 2),
                "a burst of 2 packets at 1/day is more than comes in a day, expected a smaller burst or a higher rate",
            ),
            (
                logging("x", 1, Period::Hour, 25),
                "a burst of 25 packets at 1/hour is more than comes in a day, expected a smaller burst or a higher rate",
            ),
        ] {
            let before = state(flavour);
            let Err(error) = open(flavour, logging) else { panic!("{want}") };
            assert_eq!(error.to_string(), want);
            assert_eq!(state(flavour), before);
        }
        let program = everything().build();
        apply(&mut open(flavour, logging("x", 1, Period::Hour, 24)).unwrap(), &program);
    });
}
