//! The ports of a worker process, with what checkers want to know of them written down.

use async_trait::async_trait;
use flowkit_core::id::{Incarnation, WorkerId};
use flowkit_core::message::{Body, CancelReason};
use flowkit_core::port::{
    PortError, Store, StoreReply, StoreRequest, Transport, TransportReply, TransportRequest,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::journal::{Entry, Journal, RunKey, now_us};

/// A port with a journal beside it.
#[derive(Debug)]
pub(crate) struct Recorded<P> {
    pub(crate) port: P,
    pub(crate) worker: WorkerId,
    pub(crate) journal: Arc<Journal>,
    /// The process's own incarnation, once it has one.
    pub(crate) incarnation: Arc<AtomicU64>,
}

#[async_trait]
impl<S: Store> Store for Recorded<S> {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let asked_us = now_us();
        let nodes = match &request {
            StoreRequest::ReadGrants { nodes, .. } if !nodes.is_empty() => nodes.clone(),
            StoreRequest::RegisterWorker {
                worker_id,
                start_nonce,
                ..
            } => {
                self.journal.note(Entry::Registering {
                    worker: worker_id.clone(),
                    nonce: *start_nonce,
                });
                Vec::new()
            }
            _ => Vec::new(),
        };
        let reply = self.port.call(request).await;
        match &reply {
            Ok(StoreReply::Registered(incarnation)) => {
                self.incarnation.store(incarnation.0, Ordering::Relaxed);
            }
            Ok(StoreReply::Grants { grants, .. }) if !nodes.is_empty() => {
                let tokens = grants.iter();
                let tokens = tokens.map(|grant| grant.as_ref().and_then(|grant| grant.token));
                self.journal.note(Entry::Grants {
                    asked_us,
                    nodes,
                    tokens: tokens.collect(),
                });
            }
            _ => {}
        }
        reply
    }
}

#[async_trait]
impl<T: Transport> Transport for Recorded<T> {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        let reply = self.port.call(request).await;
        if let Ok(TransportReply::Entries { entries, .. }) = &reply {
            let own = Some(Incarnation(self.incarnation.load(Ordering::Relaxed)));
            let messages = entries
                .iter()
                .filter_map(|entry| entry.message.as_ref().ok());
            for message in messages {
                let to_me = message.to.as_deref() == Some(self.worker.as_str())
                    && message.to_incarnation == own;
                let fenced = matches!(&message.body, Body::TaskCancel(cancel)
                    if cancel.reason == CancelReason::Fenced);
                if let (true, Some(task), Some(node), Some(token)) = (
                    to_me && fenced,
                    &message.task_id,
                    &message.node_id,
                    message.lease_no,
                ) {
                    let run = RunKey {
                        task: task.clone(),
                        node: node.clone(),
                        token,
                    };
                    self.journal.note(Entry::Fenced { run });
                }
            }
        }
        reply
    }
}
