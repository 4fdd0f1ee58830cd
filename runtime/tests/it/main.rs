//! What users see of the runtime, on an engine in memory. The features of the guide are in `tests/src/guide`,
//! for every engine; here is what needs time that stands still, and what goes wrong.

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
mod spans;
mod streaming;
mod support;
mod workers;
