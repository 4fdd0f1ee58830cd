//! What a process takes from its surroundings, beside its store and its transport.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The surroundings of a simulated process: its clocks, its randomness, and when it gets on.
///
/// A real process has the operating system's; see [`Engine::within`](crate::Engine::within).
pub trait Environment: fmt::Debug + Send + Sync + 'static {
    /// What the process's monotonic clock shows, in milliseconds, once tokio's time has advanced by
    /// `elapsed` since the engine was made. Must not fall.
    fn mono_ms(&self, elapsed: Duration) -> u64;

    /// The first `elapsed` at which the monotonic clock shows `mono_ms` or more.
    fn elapsed_at(&self, mono_ms: u64) -> Duration;

    /// What its wall clock shows, in milliseconds since the Unix epoch. May jump.
    fn wall_ms(&self) -> i64;

    /// Seeds the ids that the process makes. No two processes of a deployment may have the same.
    fn seed(&self) -> [u64; 2];

    /// Asked by a driver before it takes its next input. Pending freezes the process there: its
    /// clocks run on, and inputs wait.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Lets a driver go on; nothing ever stops that of a real process.
#[derive(Clone, Debug)]
pub(crate) struct Pace(pub(crate) Option<Arc<dyn Environment>>);

impl Pace {
    pub(crate) async fn ready(&self) {
        if let Some(environment) = &self.0 {
            poll_fn(|cx| environment.poll_ready(cx)).await;
        }
    }
}
