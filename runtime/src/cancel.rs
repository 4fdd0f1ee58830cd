//! How a handler learns that it is to end.

use flowkit_core::message::CancelReason;
use tokio::sync::watch;
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
#[derive(Debug)]
pub(crate) struct CancelFlag(watch::Sender<Option<CancelInfo>>);

impl CancelFlag {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn raise(&self, reason: CancelReason, deadline: Instant) {
        self.0.send_replace(Some(CancelInfo { reason, deadline }));
    }

    pub(crate) fn info(&self) -> Option<CancelInfo> {
        *self.0.borrow()
    }

    pub(crate) async fn raised(&self) -> CancelInfo {
        let mut flag = self.0.subscribe();
        match flag.wait_for(Option::is_some).await.map(|info| *info) {
            Ok(Some(info)) => info,
            // The sender lives as long as `self`, and the predicate held.
            _ => std::future::pending().await,
        }
    }
}
