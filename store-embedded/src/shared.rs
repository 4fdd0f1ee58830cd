//! What the threads of one store share.

use redb::{Database, ReadTransaction};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::error::Failure;
use crate::lease::Leases;

/// One store, as its threads see it.
pub(crate) struct Shared {
    /// The newest state that is durable. Dropped before the file is closed.
    synced: Mutex<Arc<ReadTransaction>>,
    pub(crate) db: Database,
    pub(crate) clock: Clock,
    pub(crate) leases: Leases,
    pub(crate) failure: Failure,
}

impl Shared {
    /// `synced` is the state as it was opened.
    pub(crate) fn new(db: Database, synced: ReadTransaction, clock: Clock) -> Self {
        Self {
            synced: Mutex::new(Arc::new(synced)),
            db,
            clock,
            leases: Leases::default(),
            failure: Failure::new(),
        }
    }

    /// The newest durable state.
    pub(crate) fn synced(&self) -> Arc<ReadTransaction> {
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.clone()
    }

    pub(crate) fn set_synced(&self, snapshot: Arc<ReadTransaction>) {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *synced, snapshot);
        drop(synced);
        // Its end may have work to do; not under the lock.
        drop(old);
    }
}

/// The message of a panic.
pub(crate) fn cause_of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.as_deref().unwrap_or("no message");
    format!("panicked, on damage or a bug: {text}")
}
