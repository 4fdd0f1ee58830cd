//! What fuzzers and tests do with bytes of any origin: one function per target.
//!
//! `cargo xtask fuzz` feeds them what libFuzzer makes up; the tests of this crate feed them every
//! file of `fuzz/corpus/` and `fuzz/regressions/`. A panic is a finding. See `docs/guide/fuzzing.md`.

pub mod config;
pub mod envelope;
pub mod graph;
pub mod machines;
pub mod mutate;
pub mod plan;
pub mod store;

/// What is done with the bytes of one target.
pub type Body = fn(&[u8]);

/// Every target: the name of its folders, and what it does.
pub const TARGETS: [(&str, Body); 6] = [
    ("envelope", envelope::run),
    ("graph", graph::run),
    ("config", config::run),
    ("store", store::run),
    ("plan", plan::run),
    ("machines", machines::run),
];
