//! The broker model behind one lock.

use async_trait::async_trait;
use flowkit_core::message::Envelope;
use flowkit_core::port::{PortError, Stream, Transport, TransportReply, TransportRequest};
use flowkit_memory::{BrokerModel, Outcome};
use flowkit_tests::TransportBackend;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What a simulated network client sees, without the network.
#[derive(Debug)]
pub(crate) struct Broker {
    model: Mutex<BrokerModel>,
    changes: watch::Sender<u64>,
}

impl Broker {
    pub(crate) fn new(model: BrokerModel) -> Arc<Self> {
        Arc::new(Self {
            model: Mutex::new(model),
            changes: watch::Sender::new(0),
        })
    }

    fn with_model<T>(&self, act: impl FnOnce(&mut BrokerModel) -> T) -> T {
        let done = act(&mut self.model.lock().expect("no case panics inside"));
        self.changes.send_modify(|count| *count += 1);
        done
    }

    async fn wait(&self, request: &TransportRequest) -> Result<TransportReply, PortError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let outcome = {
                let mut model = self.model.lock().expect("no case panics inside");
                model.apply(0, request)
            };
            match outcome {
                Outcome::Done(reply) => return reply,
                Outcome::Wait => changes.changed().await.expect("the sender is ours"),
            }
        }
    }
}

#[async_trait]
impl Transport for Broker {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        if let TransportRequest::Read {
            stream,
            from,
            limit,
            wait_ms,
        } = request
        {
            let wait = Duration::from_millis(wait_ms);
            if let Ok(reply) = tokio::time::timeout(wait, self.wait(&request)).await {
                return reply;
            }
            let last = TransportRequest::Read {
                stream,
                from,
                limit,
                wait_ms: 0,
            };
            return self.wait(&last).await;
        }
        match self.with_model(|model| model.apply(0, &request)) {
            Outcome::Done(reply) => reply,
            Outcome::Wait => panic!("only reads wait: {request:?}"),
        }
    }
}

pub(crate) struct ModelBackend(pub(crate) Arc<Broker>);

#[async_trait]
impl TransportBackend for ModelBackend {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        self.0.clone()
    }

    async fn append_foreign(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        self.0.with_model(|model| match Envelope::decode(bytes) {
            Ok(envelope) => {
                let envelope = Arc::new(envelope);
                let request = TransportRequest::Append { stream, envelope };
                matches!(model.apply(0, &request), Outcome::Done(Ok(_)))
            }
            Err(error) => {
                model.append_undecodable(0, stream, error);
                true
            }
        })
    }
}
