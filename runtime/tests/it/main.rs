//! What users see of the runtime, on an engine in memory.

mod cancel;
mod client;
mod failures;
mod reruns;
mod restart;
mod retention;
mod streaming;
mod support;
mod workers;
