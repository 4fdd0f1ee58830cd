//! A transport on the real Apache Kafka, with topics of its own.

use async_trait::async_trait;
use flowkit_core::message::MESSAGE_BYTES_MAX;
use flowkit_core::port::{Stream, Transport};
use flowkit_tests::{TransportBackend, TransportCaps, TransportInstance};
use flowkit_transport_kafka::KafkaTransport;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::sync::Arc;
use std::time::Duration;

use crate::kafka_topics::Topics;

struct Fresh {
    topics: Topics,
    shards: u32,
    inboxes: u32,
    /// Another program; made when it is first needed.
    foreign: Option<FutureProducer>,
}

impl Fresh {
    async fn open(&self) -> Arc<dyn Transport> {
        let settings = self.topics.settings().shards(self.shards);
        let transport = KafkaTransport::connect(settings.inboxes(self.inboxes)).await;
        Arc::new(transport.unwrap_or_else(|error| panic!("{error}")))
    }

    fn foreign(&mut self) -> &FutureProducer {
        self.foreign.get_or_insert_with(|| {
            let mut client = self.topics.client();
            client.set("message.max.bytes", (2 * MESSAGE_BYTES_MAX).to_string());
            client.set("linger.ms", "0");
            client.create().expect("a producer")
        })
    }
}

#[async_trait]
impl TransportBackend for Fresh {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        self.open().await
    }

    async fn append_foreign(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let (topic, partition) = match stream {
            Stream::Shard(shard) => ("shards", shard.0),
            Stream::Inbox(inbox) => ("inboxes", inbox),
            Stream::Announcements => ("announcements", 0),
        };
        let topic = self.topics.name(topic);
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(&topic)
            .partition(i32::try_from(partition).expect("few partitions"))
            .payload(bytes);
        let sent = self.foreign().send(record, Duration::from_secs(10)).await;
        sent.is_ok()
    }
}

/// A deployment of so many shards and inboxes.
pub(crate) async fn open(shards: u32, inboxes: u32) -> TransportInstance {
    let fresh = Fresh {
        topics: Topics::fresh("flowkit_transport"),
        shards,
        inboxes,
        foreign: None,
    };
    let caps = TransportCaps {
        forgets: false,
        durable: true,
        foreign: true,
    };
    TransportInstance::new(fresh.open().await, caps, Box::new(fresh))
}
