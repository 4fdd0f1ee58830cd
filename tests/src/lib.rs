//! The conformance suites: what every [`Store`](flowkit_core::port::Store) and every
//! [`Transport`](flowkit_core::port::Transport) must do, as one named test per case and backend.
//!
//! # How a backend joins
//! A file in `tests/tests/` (or in the backend's own `tests/`, with this crate as a dev-dependency)
//! implements [`StoreBackend`] for what can be done to the backend from outside (crash it, let its
//! clock go on, rot a record) and names an expression that opens a fresh, empty namespace:
//!
//! ```text
//! struct Folder { dir: tempfile::TempDir, disk: FaultyDisk, clock: ManualClock }
//!
//! #[async_trait::async_trait]
//! impl StoreBackend for Folder {
//!     async fn crash_and_reopen(&mut self) -> Arc<dyn Store> { /* lose unsynced writes, open */ }
//!     async fn pass_time(&mut self, ms: u64) { self.clock.advance(ms) }
//!     async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool { .. }
//!     async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool { .. }
//! }
//!
//! async fn open() -> StoreInstance {
//!     let folder = Folder::new();
//!     StoreInstance::new(folder.open(), StoreCaps::default(), Box::new(folder))
//! }
//! flowkit_tests::store_conformance!(embedded, open());
//! ```
//!
//! `crash_and_reopen` is called after the suite has dropped its handle of the store, so a file lock
//! is free by then. Whether a store is two-phase follows from
//! [`Store::applies_before_sync`](flowkit_core::port::Store::applies_before_sync); the cases then
//! call `Sync` where they need durable state, and check what a crash may take.
//!
//! Where a backend cannot do something, its capabilities say so and the case asserts that it
//! really cannot; nothing is skipped.
//!
//! The features of the guide are a suite of their own, see [`guide`].
//!
//! This crate is for tests: a broken expectation panics.

mod cases;
pub mod fidelity;
pub mod guide;
mod instance;
pub mod records;
pub mod servers;
pub mod store;
pub mod transport;

pub use instance::{
    StoreBackend, StoreCaps, StoreInstance, TransportBackend, TransportCaps, TransportInstance,
};

use std::future::Future;

/// Runs a future to its end on a runtime of its own.
///
/// # Panics
/// If the runtime cannot be made, or the future panics.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a current-thread runtime needs no resources")
        .block_on(future)
}
