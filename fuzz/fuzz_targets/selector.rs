//! Gives arbitrary bytes to `netpol_fuzz::selector`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_fuzz::selector::check(data));
