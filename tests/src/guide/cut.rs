//! Ports from which something does not come through.

use async_trait::async_trait;
use flowkit_core::id::Offset;
use flowkit_core::message::Body;
use flowkit_core::port::{
    ErrorKind, PortError, Store, StoreReply, StoreRequest, Stream, Transport, TransportReply,
    TransportRequest,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What does not come through; nothing at first.
#[derive(Debug, Default)]
pub struct Cut {
    /// The store does not answer.
    pub store: AtomicBool,
    /// Cancels are taken and lost.
    pub cancels: AtomicBool,
    /// What is read of inboxes does not arrive until it does.
    pub inbox: AtomicBool,
    /// Readers are not woken: what is said of their sources is taken and lost.
    pub wakes: AtomicBool,
    /// Heartbeats are refused.
    pub heartbeats: AtomicBool,
    /// Heartbeats are taken and lost.
    pub heartbeats_lost: AtomicBool,
}

fn on(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

#[derive(Debug)]
pub(super) struct CutStore(pub(super) Arc<dyn Store>, pub(super) Arc<Cut>);

#[async_trait]
impl Store for CutStore {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        if on(&self.1.store) {
            return Err(PortError::new(ErrorKind::Retry, "call", "no route to host"));
        }
        self.0.call(request).await
    }

    fn applies_before_sync(&self) -> bool {
        self.0.applies_before_sync()
    }
}

#[derive(Debug)]
pub(super) struct CutTransport(pub(super) Arc<dyn Transport>, pub(super) Arc<Cut>);

#[async_trait]
impl Transport for CutTransport {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        if let TransportRequest::Append { envelope, .. } = &request {
            let lost = match &envelope.body {
                Body::TaskCancel(_) => on(&self.1.cancels),
                Body::InputReady(_) => on(&self.1.wakes),
                Body::Heartbeat(_) => on(&self.1.heartbeats_lost),
                _ => false,
            };
            if lost {
                return Ok(TransportReply::Appended { offset: Offset(0) });
            }
            if matches!(envelope.body, Body::Heartbeat(_)) && on(&self.1.heartbeats) {
                return Err(PortError::new(ErrorKind::Retry, "append", "lost"));
            }
        }
        let of_inbox = matches!(
            &request,
            TransportRequest::Read {
                stream: Stream::Inbox(_),
                ..
            }
        );
        let answer = self.0.call(request).await;
        while of_inbox && on(&self.1.inbox) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answer
    }
}
