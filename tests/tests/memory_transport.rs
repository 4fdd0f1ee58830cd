//! The broker model and the in-process transport pass the suite.

use async_trait::async_trait;
use flowkit_core::message::DecodeError;
use flowkit_core::port::{PortError, Stream, Transport, TransportReply, TransportRequest};
use flowkit_memory::{BrokerModel, LocalTransport, Outcome};
use flowkit_tests::{TransportBackend, TransportCaps, TransportInstance};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The broker model behind one lock: what a simulated network client sees, without the network.
#[derive(Debug)]
struct Broker {
    model: Mutex<BrokerModel>,
    changes: watch::Sender<u64>,
}

impl Broker {
    fn new(model: BrokerModel) -> Arc<Self> {
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

struct ModelBackend(Arc<Broker>);

#[async_trait]
impl TransportBackend for ModelBackend {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        self.0.clone()
    }

    async fn append_undecodable(&mut self, stream: Stream, error: DecodeError) -> bool {
        self.0
            .with_model(|model| model.append_undecodable(0, stream, error));
        true
    }
}

async fn broker(forgets: bool) -> TransportInstance {
    let mut model = BrokerModel::new();
    model.keep_forgotten(!forgets);
    let broker = Broker::new(model);
    let caps = TransportCaps {
        forgets,
        durable: true,
        undecodable: true,
    };
    TransportInstance::new(broker.clone(), caps, Box::new(ModelBackend(broker)))
}

struct Local;

#[async_trait]
impl TransportBackend for Local {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        Arc::new(LocalTransport::new())
    }

    async fn append_undecodable(&mut self, _: Stream, _: DecodeError) -> bool {
        // Messages are moved, not encoded: there is nothing that could not be decoded.
        false
    }
}

async fn local() -> TransportInstance {
    let caps = TransportCaps {
        forgets: true,
        durable: false,
        undecodable: false,
    };
    TransportInstance::new(Arc::new(LocalTransport::new()), caps, Box::new(Local))
}

flowkit_tests::transport_conformance!(model, broker(true));
flowkit_tests::transport_conformance!(model_with_retention, broker(false));
flowkit_tests::transport_conformance!(local_transport, local());
