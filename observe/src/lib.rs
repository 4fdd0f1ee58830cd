//! Health and metrics of a process over HTTP: `/healthz`, `/readyz`, `/metrics`.
//!
//! [`serve`] answers for everything that runs on an engine in this process: its workers and its
//! coordinator. It asks their drivers when it is asked, so an answer shows that they turn, and it
//! looks for itself whether the store and the inbox can be reached. Nothing decides by it.

mod health;
mod memory;
mod metrics;
mod probe;
mod ready;
mod server;
#[cfg(feature = "otel")]
pub mod traces;

pub use server::{HealthOptions, HealthServer, ServeError, serve, serve_with};
