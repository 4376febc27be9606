//! Gives arbitrary bytes to `netpol_fuzz::documents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_fuzz::documents::check(data));
