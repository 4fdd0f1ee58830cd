//! In-memory models of FlowKit's broker and store, with fault hooks.
