//! How a handler learns that it is to end.

use flowkit_core::message::CancelReason;
use flowkit_core::planted::{Bug, is_planted};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Why a run is to end, and by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CancelInfo {
    /// Why.
    pub reason: CancelReason,
    /// The handler is dropped at its next await point after this.
    pub deadline: Instant,
}

/// The cancel flag of one run; raised once, its reason and deadline may be sharpened.
///
/// Who waits is woken in the order in which they began to: tokio's `watch` wakes in a random one,
/// which no simulation could repeat.
#[derive(Debug, Default)]
pub(crate) struct CancelFlag {
    info: Mutex<Option<CancelInfo>>,
    changed: Notify,
}

impl CancelFlag {
    pub(crate) fn raise(&self, reason: CancelReason, deadline: Instant) {
        *self.lock() = Some(CancelInfo { reason, deadline });
        if is_planted(Bug::WakesOne) {
            return self.changed.notify_one();
        }
        self.changed.notify_waiters();
    }

    /// Only a planted bug takes a cancel back.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    pub(crate) fn info(&self) -> Option<CancelInfo> {
        *self.lock()
    }

    pub(crate) async fn raised(&self) -> CancelInfo {
        let mut changed = pin!(self.changed.notified());
        // From here on no change is missed, though it may come before the await.
        changed.as_mut().enable();
        loop {
            if let Some(info) = self.info() {
                return info;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
            changed.as_mut().enable();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<CancelInfo>> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
