//! The broker model and the in-process transport pass the suite.

mod broker;

use async_trait::async_trait;
use broker::{Broker, ModelBackend};
use flowkit_core::port::{Stream, Transport};
use flowkit_memory::{BrokerModel, LocalTransport};
use flowkit_tests::{TransportBackend, TransportCaps, TransportInstance};
use std::sync::Arc;

async fn model(forgets: bool) -> TransportInstance {
    let mut model = BrokerModel::new();
    model.keep_forgotten(!forgets);
    let broker = Broker::new(model);
    let caps = TransportCaps {
        forgets,
        durable: true,
        foreign: true,
    };
    TransportInstance::new(broker.clone(), caps, Box::new(ModelBackend(broker)))
}

struct Local;

#[async_trait]
impl TransportBackend for Local {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        Arc::new(LocalTransport::new())
    }

    async fn append_foreign(&mut self, _: Stream, _: &[u8]) -> bool {
        // Messages are moved, not encoded, and nobody else is there.
        false
    }
}

async fn local() -> TransportInstance {
    let caps = TransportCaps {
        forgets: true,
        durable: false,
        foreign: false,
    };
    TransportInstance::new(Arc::new(LocalTransport::new()), caps, Box::new(Local))
}

flowkit_tests::transport_conformance!(model, model(true));
flowkit_tests::transport_conformance!(model_with_retention, model(false));
flowkit_tests::transport_conformance!(local_transport, local());
