//! The transport on a real Apache Kafka passes the suite.

mod kafka_topics;

use async_trait::async_trait;
use flowkit_core::message::DecodeError;
use flowkit_core::port::{Stream, Transport};
use flowkit_tests::{TransportBackend, TransportCaps, TransportInstance};
use flowkit_transport_kafka::KafkaTransport;
use kafka_topics::Topics;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::sync::Arc;
use std::time::Duration;

struct Fresh(Topics);

impl Fresh {
    async fn open(&self) -> Arc<dyn Transport> {
        let settings = self.0.settings().shards(3);
        let transport = KafkaTransport::connect(settings).await;
        Arc::new(transport.unwrap_or_else(|error| panic!("{error}")))
    }
}

#[async_trait]
impl TransportBackend for Fresh {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        self.open().await
    }

    async fn append_undecodable(&mut self, stream: Stream, _: DecodeError) -> bool {
        let (topic, partition) = match stream {
            Stream::Shard(shard) => ("shards", shard.0),
            Stream::Inbox(inbox) => ("inboxes", inbox),
            Stream::Announcements => ("announcements", 0),
        };
        let topic = self.0.name(topic);
        let producer: FutureProducer = self.0.client().create().expect("a producer");
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(&topic)
            .partition(i32::try_from(partition).expect("few partitions"))
            .payload(b"no message");
        let sent = producer.send(record, Duration::from_secs(10)).await;
        sent.is_ok()
    }
}

async fn open() -> TransportInstance {
    let fresh = Fresh(Topics::fresh("flowkit_transport"));
    let caps = TransportCaps {
        forgets: false,
        durable: true,
        undecodable: true,
    };
    TransportInstance::new(fresh.open().await, caps, Box::new(fresh))
}

flowkit_tests::transport_conformance!(kafka, open());
