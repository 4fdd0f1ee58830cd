//! libFuzzer's entry to target `store`.
#![no_main]

use flowkit_fuzzed::store;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        // libFuzzer's own hook ends the process at every panic. On a damaged page the library below
        // the store may panic, and the store makes an error of it; one that gets out of the target
        // still ends the process.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |bytes: &[u8]| store::run(bytes)
);
