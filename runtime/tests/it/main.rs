//! What users see of the runtime, on an engine in memory.

mod cancel;
#[cfg(unix)]
mod children;
mod client;
mod failures;
mod restart;
mod streaming;
mod support;
mod workers;
