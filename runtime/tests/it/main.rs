//! What users see of the runtime, on an engine in memory.

mod cancel;
#[cfg(unix)]
mod children;
mod client;
mod endings;
#[cfg(unix)]
mod exec;
mod failures;
mod functions;
mod hostile;
mod operating;
mod reruns;
mod restart;
mod retention;
mod sources;
mod spans;
mod streaming;
mod support;
mod workers;
