//! What users see of the runtime, on an engine in memory.

mod client;
mod support;
