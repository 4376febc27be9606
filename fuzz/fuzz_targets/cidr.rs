//! Gives arbitrary bytes to `netpol_fuzz::cidr`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_fuzz::cidr::check(data));
