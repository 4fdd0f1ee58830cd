//! A store that notes what is asked of it, to ask another one the same.

use async_trait::async_trait;
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that a store was asked to write, in order.
pub(crate) type Log = Vec<StoreRequest>;

/// Passes everything on; notes what writes.
#[derive(Debug)]
pub(crate) struct Recorder {
    inner: Arc<dyn Store>,
    log: Mutex<Option<Log>>,
}

impl Recorder {
    /// Notes nothing unless `recording`.
    pub(crate) fn new(inner: Arc<dyn Store>, recording: bool) -> Self {
        Self {
            inner,
            log: Mutex::new(recording.then(Vec::new)),
        }
    }

    /// What was noted; nothing is noted from here on.
    pub(crate) fn take(&self) -> Log {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.take().unwrap_or_default()
    }
}

fn writes(request: &StoreRequest) -> bool {
    matches!(
        request,
        StoreRequest::Deployment { .. }
            | StoreRequest::AcquireShard { .. }
            | StoreRequest::RaiseEpoch { .. }
            | StoreRequest::RegisterWorker { .. }
            | StoreRequest::Commit(_)
    )
}

#[async_trait]
impl Store for Recorder {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        if writes(&request) {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(log) = log.as_mut() {
                log.push(request.clone());
            }
        }
        self.inner.call(request).await
    }

    fn applies_before_sync(&self) -> bool {
        self.inner.applies_before_sync()
    }
}
