//! Conformance suites and cross-crate scenarios of FlowKit.
