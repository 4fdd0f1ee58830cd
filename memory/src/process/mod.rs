//! The models as ports of one process.

mod store;
mod transport;

#[cfg(test)]
mod tests;

pub use store::MemoryStore;
pub use transport::{LocalLimits, LocalTransport};

use std::sync::Arc;

/// Milliseconds on a clock that never goes back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A clock that counts from now on and stands still for nobody.
#[must_use]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the one place that gives a real clock to a model; everything else takes a `Clock`"
)]
pub fn monotonic_clock() -> Clock {
    let start = std::time::Instant::now();
    Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
}
