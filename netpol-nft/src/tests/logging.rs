//! How Log rules log, on the real kernel.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use netpol_netfilter::{LogRate, Logging, Period};

use super::kernel::{apply, generation, in_namespace, nft, rendered_with};
use super::program::everything;
use crate::{NftConfig, NftDataplane, NftError};

fn logging(prefix: &str, packets: u16, period: Period, burst: u16) -> Logging {
    let rate = LogRate::new(packets, period).unwrap().with_burst(burst).unwrap();
    Logging { group: 7, prefix: prefix.parse().unwrap(), rate }
}

fn open(logging: Logging) -> Result<NftDataplane, NftError> {
    NftDataplane::open(NftConfig { logging, ..NftConfig::default() })
}

#[test]
fn rules_log_as_configured() {
    for logging in [
        logging("[a b] %k,%d=(%i): ", 7, Period::Minute, 3),
        logging("%i%i%i%i%i:/-_.=,", 1, Period::Day, LogRate::MAX),
        logging("x", LogRate::MAX, Period::Second, 1),
    ] {
        in_namespace(move || {
            let program = everything().build();
            apply(&mut open(Logging::DEFAULT).unwrap(), &program);
            let observed = apply(&mut open(logging).unwrap(), &program);
            let want = rendered_with(&program, logging);
            assert_eq!(observed.ruleset.to_string(), want.to_string());
            assert_eq!(observed.ruleset, want);

            // Who finds it so has nothing to change, and `nft` can load what it lists.
            let before = generation();
            apply(&mut open(logging).unwrap(), &program);
            assert_eq!(generation(), before, "the second process changed something");
            let listed = nft(&["list", "ruleset"], "").unwrap();
            assert!(!listed.contains("np1:"), "{listed}");
            let text = listed.clone();
            let again = in_namespace(move || {
                nft(&["-f", "-"], &text).unwrap();
                nft(&["list", "ruleset"], "").unwrap()
            });
            assert_eq!(listed, again);
        });
    }
}

#[test]
fn a_prefix_that_the_kernel_does_not_take_is_an_error() {
    in_namespace(|| {
        let error = |prefix| open(logging(prefix, 1, Period::Second, 1)).err();
        assert!(error("%i%i%i%i%i1234567").is_none());
        let Some(error) = error("%i%i%i%i%i12345678") else { panic!("it was opened") };
        assert_eq!(
            error.to_string(),
            "log prefix `%i%i%i%i%i12345678` stands for up to 128 bytes, expected at most 127"
        );
        assert_eq!(nft(&["list", "ruleset"], "").unwrap(), "");
    });
}
