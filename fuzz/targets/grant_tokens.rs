//! What must hold is in `tests/support/parsers/`.
#![no_main]

use leasehold_fuzz::hold;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hold("grant_tokens", data));
