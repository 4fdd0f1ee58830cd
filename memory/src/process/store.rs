//! The store model as a `Store`.

use async_trait::async_trait;
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest};
use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Clock, monotonic_clock};
use crate::StoreModel;

/// A [`Store`] in the memory of this process: for tests, and for work that need not outlive it.
///
/// Calls never wait, so a dropped call has either happened whole or not begun.
pub struct MemoryStore {
    model: Mutex<StoreModel>,
    applies_before_sync: bool,
    clock: Clock,
}

impl MemoryStore {
    /// An empty store in durable mode on a monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        Self::over(StoreModel::durable(), monotonic_clock())
    }

    /// A store over any model and clock.
    #[must_use]
    pub fn over(model: StoreModel, clock: Clock) -> Self {
        Self {
            applies_before_sync: model.applies_before_sync(),
            model: Mutex::new(model),
            clock,
        }
    }

    /// The model itself, to crash it, to inject faults and to look into it. Calls wait meanwhile.
    pub fn model(&self) -> MutexGuard<'_, StoreModel> {
        // The model checks before it writes: a caller's panic leaves it whole.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let mut model = self.model();
        // Read under the lock, so that the model's time never goes back.
        let now_ms = (self.clock)();
        match request {
            StoreRequest::Commit(commit) => model.commit(now_ms, Arc::unwrap_or_clone(commit)),
            other => model.apply(now_ms, &other),
        }
    }

    fn applies_before_sync(&self) -> bool {
        self.applies_before_sync
    }
}
